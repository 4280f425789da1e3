"""What the library's search costs, beside the plain way of doing it, in one run on one machine.

``make bench`` prints the tables; nothing here asserts a time. Sizes: 500 x 3,000 by default, and with
``CDIM_BENCH=market`` those of Market-1501 (3,368 queries, 15,913 gallery images; half a GiB, about a minute).
"""

from __future__ import annotations

import os
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch

from cdimlib.models.matcher import VectorMatcher
from cdimlib.retrieval import average_precision, rank_metrics, similarity

SIZES = {"small": (500, 3_000, 150), "market": (3_368, 15_913, 750)}  # queries, gallery, identities
SIZE = os.environ.get("CDIM_BENCH", "small")
REPEATS = 3
MIB = 2**20


@pytest.fixture(scope="module")
def world():
    """Random similarities with identities and six cameras, single precision as a network gives them."""
    if SIZE not in SIZES:
        pytest.fail(f"CDIM_BENCH must be one of {', '.join(SIZES)}, not {SIZE!r}")
    queries, gallery, identities = SIZES[SIZE]
    rng = np.random.default_rng(0)
    query_ids, gallery_ids = rng.integers(identities, size=queries), rng.integers(identities, size=gallery)
    query_cams, gallery_cams = rng.integers(6, size=queries), rng.integers(6, size=gallery)
    scores = rng.normal(size=(queries, gallery)).astype(np.float32)
    scores += 2.5 * (query_ids[:, None] == gallery_ids)  # matches score higher: ranks as in a trained model
    return scores, query_ids, gallery_ids, query_cams, gallery_cams


def plain(scores, query_ids, gallery_ids, query_cams, gallery_cams):
    """CMC and mAP the usual way: for every query sort the whole gallery, drop what does not count, look for matches."""
    firsts, precisions = [], []
    for q in range(len(query_ids)):
        order = np.argsort(-scores[q], kind="stable")
        keep = ~((gallery_ids[order] == query_ids[q]) & (gallery_cams[order] == query_cams[q]))
        matches = (gallery_ids[order] == query_ids[q])[keep]
        if not matches.any():
            continue
        ranks = np.flatnonzero(matches) + 1
        firsts.append(ranks[0])
        precisions.append(average_precision(ranks))
    return np.mean(np.array(firsts) == 1), np.mean(precisions)


def measure(run, repeats=REPEATS):
    """(result, seconds of the fastest run, peak MiB of new memory); memory is traced in a run of its own."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - started)
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, min(seconds), peak / MIB


def show(title, rows):
    """A table whose ratios are to its first row."""
    _, base, base_memory = rows[0]
    print(f"\n{title}\n{'':34}{'seconds':>10}{'faster':>9}{'peak MiB':>11}{'smaller':>9}")
    for name, seconds, memory in rows:
        print(f"{name:34}{seconds:10.3f}{base / seconds:8.1f}x{memory:11.2f}{base_memory / max(memory, 1e-3):8.1f}x")


def test_metrics(world):
    """rank_metrics counts instead of sorting; the numbers are the same."""
    (rank1, mean_ap), plain_seconds, plain_memory = measure(lambda: plain(*world), 1 if SIZE == "market" else REPEATS)
    metrics, seconds, memory = measure(lambda: rank_metrics(*world))
    # equal but for ties, of which 50 million single-precision numbers have some: sorting breaks them by place
    assert metrics.cmc[0] == pytest.approx(rank1, abs=1e-3) and metrics.mean_ap == pytest.approx(mean_ap, abs=1e-6)
    queries, gallery = world[0].shape
    show(
        f"CMC and mAP, {queries:,} x {gallery:,} (the matrix itself: {world[0].nbytes / MIB:.0f} MiB)",
        [("sort the gallery for every query", plain_seconds, plain_memory), ("rank_metrics", seconds, memory)],
    )


class Traced(VectorMatcher):
    """Euclidean scores; remembers the largest block it made, since tracemalloc does not see torch's memory."""

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
    rows, whole = [], None
    for name, chunk in (("the whole gallery at once", gallery), ("chunks of 1,024", 1024), ("chunks of 256", 256)):
        matcher = Traced()
        scores, seconds, _ = measure(partial(similarity, matcher, query, stored, chunk=chunk))
        whole = scores if whole is None else whole
        torch.testing.assert_close(scores, whole, rtol=1e-4, atol=1e-3)
        rows.append((name, seconds, matcher.largest / MIB))
    show(f"Scoring {queries:,} x {gallery:,}, {dimension:,} numbers each (peak: largest block of scores)", rows)
