"""What QAConv's matching costs, beside the published layout, in one run on one CPU thread; and on a GPU, if there is.

Random maps, 50 x 200 of 128 x 24 x 8. That the results are equal, and that memory keeps to its bound, is asserted.
"""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from measuring import MIB, compare, keep

from cdimlib.models.qaconv import PRECISIONS, ClassMemory, QAConv, _BestMatches, _folded_logits

QUERIES, GALLERY = 50, 200
SHAPE = (128, 24, 8)
MARKET = 3_368, 15_913
BATCH, CLASSES = 32, 751


pytestmark = pytest.mark.usefixtures("one_thread")


def maps(n, seed, device="cpu"):
    generator = torch.Generator(device).manual_seed(seed)
    return F.normalize(torch.randn(n, *SHAPE, generator=generator, device=device), dim=1)


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

    def ours(chunk):
        return _folded_logits(*flat, weight, bias, torch.float32, chunk)

    def agree(exact, *others):
        for logits in others:
            torch.testing.assert_close(logits, exact, rtol=1e-5, atol=1e-5)

    rows = compare(
        f"QAConv, {QUERIES} x {GALLERY} maps of {SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]}, one thread",
        {
            "published, all similarities at once": lambda: published(queries, gallery, weight, bias, GALLERY),
            "published, gallery batches of 16 (its default)": lambda: published(queries, gallery, weight, bias, 16),
            "published, gallery batches of 4": lambda: published(queries, gallery, weight, bias, 4),
            "ours": lambda: ours(None),
            "ours, 4 pairs a chunk": lambda: ours(4),
            "ours, 16 pairs a chunk": lambda: ours(16),
        },
        agree, each=(QUERIES * GALLERY, "pairs"),
    )  # fmt: skip
    assert all(row["peak MiB"] < 64 for row in rows if row["name"].startswith("ours"))


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
    half.load_state_dict(exact.state_dict())  # the biases, too: only the precision differs
    flat = queries.flatten(2), gallery.flatten(2)
    best, rough = (_BestMatches.apply(*flat, PRECISIONS[p], None) for p in ("fp32", precision))
    started = time.process_time()
    rough_scores = half.score(queries, gallery)
    seconds = time.process_time() - started
    exact_scores = exact.score(queries, gallery)
    off, order = (rough_scores - exact_scores).abs().max(), [s.argsort(dim=1) for s in (rough_scores, exact_scores)]
    moved = 100 * (order[0] != order[1]).double().mean()
    assert off < 1e-3
    keep(f"QAConv in {precision}, one thread",
         [{"name": precision, "similarities off by": (rough - best).abs().max(), "scores off by": off,
           "places moved (%)": moved, "pairs/s": 100 / seconds}])  # fmt: skip


def test_training_step():
    """One step of the class memory behind a backbone that is not counted: loss, gradient and update, 4 GiB at most."""
    queries = maps(BATCH, 0).requires_grad_()
    memory = ClassMemory(QAConv((384, 128), backbone="resnet18"), CLASSES).train()
    memory.features.copy_(maps(CLASSES, 1))
    memory.written.fill_(True)
    labels = torch.arange(BATCH)

    def step():
        memory.loss(queries, labels).backward()

    pairs = BATCH * CLASSES
    similarities = 4 * pairs * (SHAPE[1] * SHAPE[2]) ** 2 / MIB
    (row,) = compare(
        f"QAConv, a training step against the class memory, {BATCH} x {CLASSES} pairs, one thread "
        f"(all similarities would take {similarities:,.0f} MiB)",
        {"ours": step}, each=(pairs, "pairs"),
    )  # fmt: skip
    assert queries.grad.abs().sum() > 0 and row["peak MiB"] < 4096


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the fused kernel is measured on one")
def test_fused_kernel():
    """Goal: all pairs of Market-1501 in 2 seconds on an H200; the matrix product alone takes 0.64."""
    weight, bias = torch.randn(2 * SHAPE[1] * SHAPE[2], device="cuda") / 20, torch.zeros(1, device="cuda")
    queries, gallery = (maps(n, seed, "cuda").flatten(2).half() for seed, n in enumerate(MARKET))
    table = []
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
        table.append({"name": name, "pairs": pairs, "seconds": seconds, "TFLOP/s": flops / seconds / 1e12,
                      "MiB": (torch.cuda.max_memory_allocated() - held) / MIB,
                      "logits off by": (out[:8, :64] - exact).abs().max()})  # fmt: skip
    keep(f"QAConv on a GPU, {MARKET[0]:,} queries (fewer where pairs say so) against {MARKET[1]:,} images", table)
