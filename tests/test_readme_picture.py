"""The README's picture: small, and made of what its script says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import readme_picture
import torch
from PIL import Image


def test_the_picture_is_small(root):
    path = root / "_static" / "readme.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width >= 1000
    assert path.stat().st_size < 200_000


def test_the_chosen_query_is_right_at_once_and_not_throughout():
    ids = SimpleNamespace(query=SimpleNamespace(ids=np.array([1, 2, 3])),
                          gallery=SimpleNamespace(ids=np.array([1, 2, 2, 3, 3, 3, 3, 3, 3])))  # fmt: skip
    scores = np.zeros((3, 9))
    scores[0] = [0, 9, 8, 7, 6, 5, 4, 3, 2]  # wrong at rank 1
    scores[1] = [0, 9, 8, 7, 6, 5, 4, 3, 2]  # right, right, wrong ...
    scores[2] = [0, 0, 0, 9, 8, 7, 6, 5, 4]  # right throughout
    assert readme_picture.choose(ids, scores) == 1


def test_colours_are_unit_vectors_and_forget_the_backdrop():
    images = torch.randint(0, 200, (2, 3, 64, 32), dtype=torch.uint8)
    maps = readme_picture.colours(images)
    assert maps.shape == (2, 27, 32, 16)
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(2, 32, 16))
    inner = slice(1, -1)  # beyond the border lies zero, whatever the backdrop
    torch.testing.assert_close(readme_picture.colours(images + 50)[..., inner, inner], maps[..., inner, inner],
                               atol=1e-3, rtol=1e-3)  # fmt: skip
