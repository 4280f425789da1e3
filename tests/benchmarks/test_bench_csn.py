"""What caching the image branches of the multi-level similarity network saves, in one run on one machine.

Size: 4 queries x 100 gallery images of 160 x 60.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from measuring import MIB, compare

from cdimlib.models import correlation, csn
from cdimlib.models.csn import ConvSimilarityNet
from cdimlib.retrieval import similarity

QUERIES, GALLERY, BATCH = 4, 100, 16


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

    def plain():
        with monkeypatch.context() as patch:
            patch.setattr(csn, "correlate", plain_correlate)
            for module in (csn, correlation):
                patch.setattr(module, "halve", lambda x: F.max_pool2d(x, 2, ceil_mode=True))
            return naive()

    def agree(first, *others):
        for scores in others:
            torch.testing.assert_close(scores, first, rtol=1e-5, atol=1e-5)

    with torch.inference_mode():
        kept = encode(gallery)
        compare(
            f"Multi-level similarity, {QUERIES} x {GALLERY} pairs of 160 x 60, {torch.get_num_threads()} thread(s) "
            f"(one encoded image: {4 * net.dimension / MIB:.2f} MiB)",
            {
                "both branches for every pair, plain": plain,
                "both branches, our pair part": naive,
                "cached: encode and score": lambda: similarity(net, encode(queries), encode(gallery)),
                "cached: gallery already encoded": lambda: similarity(net, encode(queries), kept),
            },
            agree, each=(QUERIES * GALLERY, "pairs"),
        )  # fmt: skip
