"""What QAConv's matching costs, beside the published layout, in one run on one CPU thread; and on a GPU, if there is.

Random maps, 50 x 200 of 128 x 24 x 8. Seconds are CPU seconds of this process, so that other work on the machine does
not count; peak MiB is what the process held at most beyond its inputs (Linux). Nothing here asserts a time; that the
results are equal, and that memory keeps to its bound, is asserted.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cdimlib.losses import focal
from cdimlib.models.qaconv import PRECISIONS, QAConv, _BestMatches, _folded_logits

QUERIES, GALLERY = 50, 200
SHAPE = (128, 24, 8)
MARKET = 3_368, 15_913
BATCH, CLASSES = 32, 751


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def maps(n, seed, device="cpu"):
    generator = torch.Generator(device).manual_seed(seed)
    return F.normalize(torch.randn(n, *SHAPE, generator=generator, device=device), dim=1)


def peak_mib(run):
    """(result, MiB held at most beyond what was held before), by the system's count; nan where it does not count."""

    def held(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what earlier runs freed: else it would be used again, uncounted
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    except (OSError, AttributeError, TypeError):
        return run(), float("nan")
    before = held("VmRSS")
    return run(), held("VmHWM") - before


def measure(run, repeats=1):
    """(result, CPU seconds of the fastest run, peak MiB of the first)."""
    seconds, result, mib = [], None, None
    for _ in range(repeats):
        started = time.process_time()
        result, held = peak_mib(run)
        seconds.append(time.process_time() - started)
        mib = held if mib is None else mib
    return result, min(seconds), mib


def show(title, rows, pairs):
    """name, seconds, MiB; ratios are to the first row."""
    print(f"\n{title}\n{'':44}{'pairs/s':>10}{'faster':>8}{'peak MiB':>10}{'error':>10}")
    for name, seconds, mib, error in rows:
        print(f"{name:44}{pairs / seconds:10,.0f}{rows[0][1] / seconds:7.1f}x{mib:10.0f}{error:10.1e}")


@torch.no_grad()
def published(queries, gallery, weight, bias, batch):
    """Every position of every query is a 1x1 filter; all their responses to ``batch`` gallery images at once."""
    q, hw = len(queries), SHAPE[1] * SHAPE[2]
    filters = queries.permute(0, 2, 3, 1).reshape(q * hw, SHAPE[0], 1, 1)
    out = []
    for part in gallery.split(batch):
        responses = F.conv2d(part, filters).view(len(part), q, hw, hw)  # gallery, query, its positions, theirs
        best = torch.cat([responses.max(dim=2)[0], responses.max(dim=3)[0]], dim=-1)
        out.append(best @ weight + bias)
    return torch.cat(out).T


def test_matching():
    """Target: three times the published layout, 64 MiB at most, scores equal to 1e-5."""
    queries, gallery = maps(QUERIES, 0), maps(GALLERY, 1)
    torch.manual_seed(0)
    weight, bias = torch.randn(2 * SHAPE[1] * SHAPE[2]) / 20, torch.zeros(1)
    flat = queries.flatten(2), gallery.flatten(2)
    _folded_logits(flat[0][:2], flat[1][:4], weight, bias, torch.float32, None)  # loads the libraries
    rows, exact = [], None
    for name, run in {
        "published, all similarities at once": lambda: published(queries, gallery, weight, bias, GALLERY),
        "published, gallery batches of 16 (its default)": lambda: published(queries, gallery, weight, bias, 16),
        "published, gallery batches of 4": lambda: published(queries, gallery, weight, bias, 4),
        "ours": lambda: _folded_logits(*flat, weight, bias, torch.float32, None),
        "ours, 4 pairs a chunk": lambda: _folded_logits(*flat, weight, bias, torch.float32, 4),
        "ours, 16 pairs a chunk": lambda: _folded_logits(*flat, weight, bias, torch.float32, 16),
    }.items():
        logits, seconds, mib = measure(run, repeats=2)
        exact = logits if exact is None else exact
        error = float((torch.sigmoid(logits / 10) - torch.sigmoid(exact / 10)).abs().max())
        assert error < 1e-5 and (not name.startswith("ours") or not mib > 64)
        rows.append((name, seconds, mib, error))
    show(f"{QUERIES} x {GALLERY} maps of {SHAPE}, one thread", rows, QUERIES * GALLERY)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision):
    """The error beside single precision. Only a CPU with the instructions is faster for it."""
    queries, gallery = maps(5, 0), maps(20, 1)
    exact, half = (QAConv((384, 128), backbone="squeezenet1_1", precision=p) for p in ("fp32", precision))
    for model in exact, half:  # maps of SHAPE, whatever the backbone's
        model.shape, model.fc = SHAPE, torch.nn.Linear(2 * SHAPE[1] * SHAPE[2], 1)
        torch.manual_seed(0)
        torch.nn.init.normal_(model.fc.weight, std=0.05)
        model.eval()
    flat = queries.flatten(2), gallery.flatten(2)
    best, rough = (_BestMatches.apply(*flat, PRECISIONS[p], None) for p in ("fp32", precision))
    started = time.process_time()
    rough_scores = half.score(queries, gallery)
    seconds = time.process_time() - started
    off = (rough_scores - exact.score(queries, gallery)).abs().max()
    print(f"\n{precision}: similarities off by at most {(rough - best).abs().max():.1e}, scores by {off:.1e}; "
          f"{100 / seconds:,.0f} pairs/s")


def test_training_step():
    """One step of matching against the class memory: loss and gradient, 4 GiB at most (no backbone)."""
    queries, memory = maps(BATCH, 0).flatten(2).requires_grad_(), maps(CLASSES, 1).flatten(2)
    bn, logit_bn = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    fc = torch.nn.Linear(2 * SHAPE[1] * SHAPE[2], 1)

    def step():
        values = _BestMatches.apply(queries, memory, torch.float32, None)
        logits = logit_bn(fc(bn(values.view(1, 1, -1)).view_as(values)).view(1, 1, -1)).view(BATCH, CLASSES)
        focal(logits, torch.eye(CLASSES)[:BATCH]).backward()

    _, seconds, mib = measure(step)
    assert queries.grad.abs().sum() > 0 and not mib > 4096
    pairs = BATCH * CLASSES
    print(f"\ntraining step, {BATCH} x {CLASSES} = {pairs:,} pairs: {seconds:.1f} s, {pairs / seconds:,.0f} pairs/s, "
          f"peak {mib:.0f} MiB; all similarities would take {4 * pairs * (SHAPE[1] * SHAPE[2]) ** 2 / 2**20:,.0f} MiB")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the fused kernel is measured on one")
def test_fused_kernel():
    """Goal: all pairs of Market-1501 in 2 seconds on an H200; the matrix product alone takes 0.64."""
    weight, bias = torch.randn(2 * SHAPE[1] * SHAPE[2], device="cuda") / 20, torch.zeros(1, device="cuda")
    queries, gallery = (maps(n, seed, "cuda").flatten(2).half() for seed, n in enumerate(MARKET))
    print()
    for name, dtype, rows in (("fp16, fused", torch.float16, None), ("bf16, fused", torch.bfloat16, None),
                              ("fp32, chunked", torch.float32, 50)):  # fmt: skip
        a, b = queries[:rows].to(dtype), gallery.to(dtype)
        _folded_logits(a[:8], b, weight, bias, dtype, None)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held, started = torch.cuda.memory_allocated(), time.perf_counter()
        out = _folded_logits(a, b, weight, bias, dtype, None)
        torch.cuda.synchronize()
        seconds, pairs = time.perf_counter() - started, out.numel()
        flops = 2 * pairs * SHAPE[0] * (SHAPE[1] * SHAPE[2]) ** 2
        exact = _folded_logits(a[:8].float(), b[:64].float(), weight, bias, torch.float32, None)
        print(f"{name}: {pairs:,} pairs in {seconds:.2f} s, {flops / seconds / 1e12:.0f} TFLOP/s, "
              f"{(torch.cuda.max_memory_allocated() - held) / 2**20:.0f} MiB, logits off by "
              f"{(out[:8, :64] - exact).abs().max():.1e}")
