"""What the library's search and ranking tools cost, beside the plain way of doing it, in one run on one machine."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from measuring import MIB, SIZE, compare
from references import dense_reranking, looped_lift, sorted_metrics

from cdimlib.models.matcher import VectorMatcher
from cdimlib.retrieval import VectorIndex, k_reciprocal, rank_metrics, similarity, temporal_lift

MARKET = (3_368, 15_913)
SIZES = {  # queries x gallery of metrics, re-ranking, temporal lifting
    "small": ((500, 3_000), (200, 1_000), (100, 1_000)), "promised": (MARKET, (1_000, 5_000), (500, 5_000)),
}  # fmt: skip
SIZES["market"] = SIZES["promised"]


def people(queries, gallery, identities, seed=0):
    """Features of people and distances between them; identities, six cameras, times within 4,000 seconds."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n, high: torch.randint(high, (n,), generator=generator)  # noqa: E731
    ids, centres = draw(queries + gallery, identities), torch.randn(identities, 64, generator=generator)
    features = centres[ids] + 1.2 * torch.randn(queries + gallery, 64, generator=generator)
    q, g = features[:queries], features[queries:]
    cams, times = draw(queries + gallery, 6), 4000 * torch.rand(queries + gallery, generator=generator).double()
    labels = [part.numpy() for label in (ids, cams, times) for part in (label[:queries], label[queries:])]
    return [torch.cdist(q, g).numpy(), torch.cdist(q, q).numpy(), torch.cdist(g, g).numpy()], labels


def test_metrics():
    """rank_metrics counts instead of sorting; the numbers are the same."""
    queries, gallery = SIZES[SIZE][0]
    rng = np.random.default_rng(0)
    ids, cams = ([rng.integers(high, size=n) for n in (queries, gallery)] for high in (queries // 4, 6))
    scores = rng.normal(size=(queries, gallery)).astype(np.float32)
    scores += 2.5 * (ids[0][:, None] == ids[1])  # matches score higher: ranks as in a trained model
    world = scores, *ids, *cams

    def check(plain, counted):
        # equal but for ties, of which 50 million single-precision numbers have some: sorting breaks them by place
        assert plain == pytest.approx((counted.cmc[0], counted.mean_ap), abs=1e-3)
        assert plain[1] == pytest.approx(counted.mean_ap, abs=1e-6)

    title = f"CMC and mAP, {queries:,} x {gallery:,} (the matrix itself: {scores.nbytes / MIB:,.0f} MiB)"
    contenders = {"sort the gallery for every query": partial(sorted_metrics, *world)}
    compare(title, contenders | {"rank_metrics": partial(rank_metrics, *world)}, check)


def test_reranking():
    """k_reciprocal keeps neighbours only; the distances are the same."""
    queries, gallery = SIZES[SIZE][1]
    blocks, _ = people(queries, gallery, queries // 4)
    size = sum(b.nbytes for b in blocks) / MIB
    compare(
        f"k-reciprocal re-ranking, {queries:,} x {gallery:,} (distances: {size:,.0f} MiB)",
        {
            "whole matrices": partial(dense_reranking, *blocks, kind=None),
            "k_reciprocal": partial(k_reciprocal, *blocks),
        },
        lambda dense, sparse: np.testing.assert_allclose(sparse, dense, atol=1e-5),
    )


def test_temporal_lifting():
    """temporal_lift shares windows, pivots and kernels between queries; the scores are the same."""
    queries, gallery = SIZES[SIZE][2]
    blocks, (_, _, *labels) = people(queries, gallery, queries // 4)
    given = 1 / (1 + blocks[0]), labels[0], labels[2], labels[1], labels[3]
    compare(
        f"Temporal lifting, {queries:,} x {gallery:,}, 6 cameras (scores: {given[0].nbytes / MIB:,.0f} MiB)",
        {
            "a query and a camera at a time": partial(looped_lift, *given),
            "temporal_lift": partial(temporal_lift, *given),
        },
        lambda looped, lifted: np.testing.assert_allclose(lifted, looped, atol=1e-6),
    )


@pytest.mark.skipif(SIZE != "market", reason="CDIM_BENCH=market")
def test_market_size():
    """Alone: the plain versions would take minutes and, for re-ranking, about 7 GiB."""
    blocks, (_, _, *labels) = people(*MARKET, 750)
    title = f"3,368 x 15,913 (distances: {sum(b.nbytes for b in blocks) / MIB:,.0f} MiB)"
    compare(f"k-reciprocal re-ranking, {title}", {"k_reciprocal": partial(k_reciprocal, *blocks)})
    given = 1 / (1 + blocks[0]), labels[0], labels[2], labels[1], labels[3]
    del blocks
    compare(f"Temporal lifting, {title.split(' (')[0]}, 6 cameras", {"temporal_lift": partial(temporal_lift, *given)})


@pytest.mark.skipif(not find_spec("faiss"), reason="needs FAISS")
@pytest.mark.parametrize("gallery", [1_000, 10_000, 100_000][: 2 if SIZE == "small" else 3])
@pytest.mark.parametrize("dimension", [128, 512])
@pytest.mark.parametrize("threads", [1, 2])
def test_vector_search(gallery, dimension, threads, request):
    """From which size on FAISS pays: see VectorIndex, which says what was measured."""
    import faiss

    for use, now in ((torch.set_num_threads, torch.get_num_threads()),
                     (faiss.omp_set_num_threads, faiss.omp_get_max_threads())):  # fmt: skip
        request.addfinalizer(partial(use, now))
        use(threads)
    stored, *asked = (torch.randn(n, dimension) for n in (gallery, 1, 4, 16, 64))
    indexes = {"torch": VectorIndex(stored, faiss=False), "FAISS": VectorIndex(stored, faiss=True)}
    for queries in asked:
        compare(
            f"The 10 nearest of {gallery:,} vectors of {dimension} numbers, threads: {threads}, "
            f"queries at a time: {len(queries)}",
            {name: partial(index.search, queries) for name, index in indexes.items()},
            lambda ours, theirs: torch.testing.assert_close(ours[1], theirs[1]),
        )


class Traced(VectorMatcher):
    """Euclidean scores; remembers the largest block it made."""

    largest = 0

    def score(self, queries, gallery):
        block = super().score(queries, gallery)
        self.largest = max(self.largest, block.numel() * block.element_size())
        return block


@pytest.mark.parametrize(("queries", "gallery", "dimension"), [(500, 3_000, 256), (115, 1_500, 12_800)])
def test_scoring_in_chunks(queries, gallery, dimension):
    """Chunks bound what is alive beside the result; the scores are the same."""
    generator = torch.Generator().manual_seed(0)
    query, stored = (torch.randn(n, dimension, generator=generator) for n in (queries, gallery))
    contenders = {}
    for name, chunk in (("the whole gallery at once", gallery), ("chunks of 1,024", 1024), ("chunks of 256", 256)):
        matcher = Traced()
        whole = similarity(matcher, query, stored, chunk=chunk)
        torch.testing.assert_close(whole, VectorMatcher().score(query, stored), rtol=1e-4, atol=1e-3)
        contenders[f"{name} (blocks of {matcher.largest / MIB:.1f} MiB)"] = partial(
            similarity, matcher, query, stored, chunk=chunk
        )
    compare(f"Scoring {queries:,} x {gallery:,}, {dimension:,} numbers each", contenders)
