"""What caching the image branches of the multi-level similarity network saves, in one run on one machine.

``make bench`` prints the table; nothing here asserts a time. Size: 4 queries x 100 gallery images of 160 x 60.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cdimlib.models import correlation, csn
from cdimlib.models.csn import ConvSimilarityNet
from cdimlib.retrieval import similarity

QUERIES, GALLERY, BATCH = 4, 100, 16
MIB = 2**20


def plain_correlate(maps, parts, **_):
    """Eq. (2) as the convolution one writes first: P * C groups with K filters each."""
    p, k, c, f, _ = parts.shape
    filters = parts.transpose(1, 2).reshape(p * c * k, 1, f, f)
    padded = F.pad(maps, ((f - 1) // 2, f // 2) * 2).flatten(0, 1)[None]
    return F.conv2d(padded, filters, groups=p * c).view(p, c, k, *maps.shape[2:]).transpose(1, 2).flatten(1, 2)


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(0)
    return ConvSimilarityNet().eval(), torch.randn(QUERIES, 3, 160, 60), torch.randn(GALLERY, 3, 160, 60)


def memory(name):
    """A line of Linux' account of this process in MiB ("VmRSS" now, "VmHWM" at most); nan elsewhere."""
    try:
        return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    except OSError:
        return float("nan")


def measure(run):
    """(result, wall seconds, CPU seconds, most MiB in use at once beyond those before)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        result = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, wall, cpu, memory("VmHWM") - before


def test_cached_branches(world, monkeypatch):
    """Same scores, within 1e-5 of each other; the first row is the paper's way of running its model."""
    net, queries, gallery = world
    first = queries.repeat_interleave(GALLERY, dim=0)
    second = gallery.repeat(QUERIES, 1, 1, 1)

    def naive():
        parts = [net.compare(a, b) for a, b in zip(first.split(BATCH), second.split(BATCH))]
        return torch.cat(parts).view(QUERIES, GALLERY)

    def encode(images):
        return torch.cat([net.encode(part) for part in images.split(BATCH)])

    rows = []
    with torch.inference_mode():
        net.compare(first[:2], second[:2])  # warm up
        kept = encode(gallery)
    rows.append(("cached: gallery already encoded", *measure(lambda: similarity(net, encode(queries), kept))))
    rows.append(("cached: encode and score", *measure(lambda: similarity(net, encode(queries), encode(gallery)))))
    rows.append(("both branches, our pair part", *measure(naive)))
    with monkeypatch.context() as patch:
        patch.setattr(csn, "correlate", plain_correlate)
        for module in (csn, correlation):
            patch.setattr(module, "halve", lambda x: F.max_pool2d(x, 2, ceil_mode=True))
        rows.append(("both branches for every pair, plain", *measure(naive)))
    rows.reverse()

    pairs, base = QUERIES * GALLERY, rows[0]
    print(f"\nMulti-level similarity, {QUERIES} x {GALLERY} pairs of 160 x 60 (scores from {base[1].min():.2f})")
    print(f"one encoded image: {4 * net.dimension / MIB:.2f} MiB")
    print(f"{'':38}{'seconds':>9}{'pairs/s':>9}{'pairs/core-s':>14}{'faster':>9}{'peak MiB':>10}")
    for name, scores, wall, cpu, peak in rows:
        torch.testing.assert_close(scores, base[1], rtol=1e-5, atol=1e-5)
        print(f"{name:38}{wall:9.2f}{pairs / wall:9.0f}{pairs / cpu:14.0f}{base[3] / cpu:8.1f}x{peak:10.1f}")
