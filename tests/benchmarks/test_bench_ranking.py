"""What the library's search and ranking tools cost, beside the plain way of doing it, in one run on one machine.

``make bench`` prints the tables; nothing here asserts a time. The contenders of a table take turns, the fastest turn
of each counts, and what they compute is compared. ``CDIM_BENCH=small`` is a quick look; ``CDIM_BENCH=market`` adds
re-ranking and temporal lifting at the size of Market-1501 (3,368 queries, 15,913 gallery images; about 3 GiB).
``CDIM_BENCH_JSON=file`` writes the tables down, with ``CDIM_BENCH_NOTE`` as a remark on the machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import time
import tracemalloc
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from references import dense_reranking, looped_lift, sorted_metrics

from cdimlib.models.matcher import VectorMatcher
from cdimlib.retrieval import VectorIndex, k_reciprocal, rank_metrics, similarity, temporal_lift

MARKET = (3_368, 15_913)
SIZES = {  # queries x gallery of metrics, re-ranking, temporal lifting
    "small": ((500, 3_000), (200, 1_000), (100, 1_000)), "promised": (MARKET, (1_000, 5_000), (500, 5_000)),
}  # fmt: skip
SIZES["market"] = SIZES["promised"]
SIZE = os.environ.get("CDIM_BENCH", "promised")
REPEATS, PATIENCE = 3, 15.0  # turns of each contender; CPU seconds of a table after which no further turn begins
MIB = 2**20
TABLES = []


@pytest.fixture(scope="module", autouse=True)
def report():
    """Refuse an unknown size; write the tables down at the end."""
    if SIZE not in SIZES:
        pytest.fail(f"CDIM_BENCH must be one of {', '.join(SIZES)}, not {SIZE!r}")
    yield
    if os.environ.get("CDIM_BENCH_JSON"):
        path = Path(os.environ["CDIM_BENCH_JSON"])
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"machine": machine(), "note": os.environ.get("CDIM_BENCH_NOTE", ""), "date": time.strftime("%Y-%m-%d")}
        versions = {"numpy": np.__version__, "torch": torch.__version__, "python": platform.python_version()}
        path.write_text(json.dumps(about | {"versions": versions, "tables": TABLES}, indent=1) + "\n")
        print(f"\nwritten: {path}")


def machine():
    """The machine in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} of them used by torch"


def peak_of(run, cpu):
    """Peak MiB of new memory while it runs once more: what the system counts, or what Python traces if that is more."""
    status = Path("/proc/self/status")
    read = lambda key: int(status.read_text().split(f"{key}:")[1].split()[0]) / 1024  # noqa: E731
    peak = 0.0
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what is free, so that what is used again counts
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = read("VmRSS")
        run()
        peak = max(0.0, read("VmHWM") - before)
    except (OSError, AttributeError, TypeError):  # not Linux
        cpu = 0.0
    if cpu < 1:  # tracing is slow
        tracemalloc.start()
        run()
        peak = max(peak, tracemalloc.get_traced_memory()[1] / MIB)
        tracemalloc.stop()
    return peak


def compare(title, contenders, check=None):
    """Print and keep a table: the contenders {name: run} in turn, ratios to the first; ``check`` sees the results."""
    best, results, started = dict.fromkeys(contenders, (np.inf, np.inf)), {}, time.process_time()
    for _ in range(REPEATS):
        for name, run in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = run()
            best[name] = tuple(map(min, best[name], (time.perf_counter() - wall, time.process_time() - cpu)))
        if time.process_time() - started > PATIENCE:
            break
    if check:
        check(*results.values())
    results.clear()
    rows = []
    for name, run in contenders.items():
        (seconds, cpu), memory = best[name], max(peak_of(run, best[name][1]), 0.01)
        first = rows[0] if rows else {"seconds": seconds, "CPU seconds": cpu, "peak MiB": memory}
        ratios = [first["seconds"] / seconds, first["CPU seconds"] / cpu, first["peak MiB"] / memory]
        values = [seconds, ratios[0], cpu, ratios[1], memory, ratios[2]]
        names = ["seconds", "faster", "CPU seconds", "less CPU", "peak MiB", "smaller"]
        rows.append({"name": name} | {n: float(f"{v:.4g}") for n, v in zip(names, values, strict=True)})
    TABLES.append({"title": title, "rows": rows})
    print(f"\n{title}\n{'':46}{'seconds':>10}{'faster':>9}{'CPU s':>10}{'less':>9}{'peak MiB':>10}{'smaller':>9}")
    for r in rows:
        times = f"{r['seconds']:10.4f}{r['faster']:8.1f}x{r['CPU seconds']:10.4f}{r['less CPU']:8.1f}x"
        print(f"{r['name']:46}{times}{r['peak MiB']:10.1f}{r['smaller']:8.1f}x")


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
def test_vector_search(gallery, dimension):
    """From which size on FAISS pays: see VectorIndex, which says what was measured."""
    stored, *asked = (torch.randn(n, dimension) for n in (gallery, 1, 4, 16, 64))
    indexes = {"torch": VectorIndex(stored, faiss=False), "FAISS": VectorIndex(stored, faiss=True)}
    for queries in asked:
        compare(
            f"The 10 nearest of {gallery:,} vectors of {dimension} numbers, queries at a time: {len(queries)}",
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
