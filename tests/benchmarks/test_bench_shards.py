"""Galleries on disk beside galleries in memory, and two stages beside scoring everything; ratios, in one run.

Random features of the papers' sizes: 512 numbers, maps of 128 x 24 x 8. Files are read from the system's cache.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from measuring import MIB, SIZE, compare

from cdimlib.models.qaconv import QAConv
from cdimlib.retrieval import VectorIndex, similarity
from cdimlib.retrieval.shards import two_stage, write_gallery

VECTORS, MAPS = (10_000, 256) if SIZE == "small" else (100_000, 1_024)


pytestmark = pytest.mark.usefixtures("one_thread")


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=1)


def written(folder, features, **how):
    return write_gallery(folder, features, np.arange(len(features)), matcher="random", **how)


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    torch.manual_seed(0)
    stored, folder = unit(VECTORS, 512), tmp_path_factory.mktemp("vectors")
    found = {"in memory": VectorIndex(stored, "inner")}
    for shard in (65_536, 16_384, 1_024):
        found[f"shards of {shard:,}"] = written(folder / str(shard), stored, shard=shard)
    return found, written(folder / "half", stored, dtype="float16", shard=65_536)


@pytest.mark.parametrize("queries", [1, 64])
def test_vectors(galleries, queries):
    """The same ten from shards as from memory; what a shard costs shows in the small ones."""
    (whole, *_), asked = galleries, unit(queries, 512)
    contenders = {name: partial(g.search, asked, 10) if name == "in memory" else partial(g.search, "inner", asked, 10)
                  for name, g in whole.items()}  # fmt: skip

    def check(memory, *shards):
        for found in shards:
            assert torch.equal(memory[1], found[1]) and torch.equal(memory[0], found[0])

    compare(f"Galleries on disk, the 10 nearest of {VECTORS:,} vectors of 512 numbers, one thread, {queries} at a time",
            contenders, check)  # fmt: skip
    half = galleries[1]
    size = half.shards[0]["bytes"] / half.shards[0]["count"]
    compare(f"Galleries on disk, {queries} at a time in half precision ({size:.0f} bytes an image)",
            {"half precision, shards of 65,536": partial(half.search, "inner", asked, 10)})  # fmt: skip


def test_two_stages(tmp_path):
    """What a short list saves, with QAConv at its paper's size; a list of everything loses nothing."""
    model = QAConv((384, 128), backbone="resnet18").eval()  # the matching does not depend on the backbone
    stored, asked = unit(MAPS, *model.shape), unit(4, *model.shape)
    sides = [written(tmp_path / name, features) for name, features in
             (("vectors", stored.mean((2, 3))), ("maps", stored))]  # fmt: skip
    staged = partial(two_stage, sides[0], "cosine", asked.mean((2, 3)), sides[1], model, asked, 10)
    contenders = {"everything, in memory": lambda: similarity(model, asked, stored).topk(10, dim=1)}
    contenders["everything, from shards"] = partial(sides[1].search, model, asked, 10)
    contenders |= {f"two stages, list of {n}": partial(staged, shortlist=n) for n in (MAPS, 100, 20)}

    def check(memory, shards, everything, *short):
        for found in (shards, everything):
            torch.testing.assert_close(found[0], memory[0], atol=1e-6, rtol=0)
        assert all((found[0] <= memory[0] + 1e-6).all() for found in short)

    size = sum(entry["bytes"] for entry in sides[1].shards) / MIB
    title = f"Two stages, one thread: 4 queries, {MAPS:,} maps of 128 x 24 x 8 ({size:.0f} MiB on disk)"
    compare(title, contenders, check)
