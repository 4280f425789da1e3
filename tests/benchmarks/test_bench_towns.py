"""How fast a toy town is drawn, in batches and one image at a time, in one run on one machine."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measuring import SIZE, compare

from cdimlib.data.toytown import town_for

COUNT = 64 if SIZE == "small" else 256


@pytest.mark.parametrize("pixels", [(128, 64), (384, 128)])
def test_drawing(pixels):
    """Whatever is drawn together, the images are the same to a step of their 256."""
    town = town_for("toytown-plaza", "demo", pixels=pixels)
    walks = {name: values[:COUNT] for name, values in town.walks("test").items()}
    draw = partial(town.render, walks["person"], walks["cam"], **town.conditions(walks))
    draw()  # the backdrops are made once

    def agree(alone, *others):
        for together in others:
            torch.testing.assert_close(together.int(), alone.int(), rtol=0, atol=1)

    compare(
        f"Drawing a town, {COUNT} images of {pixels[0]} x {pixels[1]}, {torch.get_num_threads()} thread(s)",
        {f"{chunk} at a time": partial(draw, chunk=chunk) for chunk in (1, 64)} | {"as many as fit": draw},
        agree, each=(COUNT, "images"),
    )  # fmt: skip
