"""Figures of a pair model: what is in them, and what they refuse."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cdimlib import plots, plots_pairs
from cdimlib.models.stn import sample


@pytest.fixture(autouse=True)
def closed():
    plots.style()
    yield
    plt.close("all")


def people(count):
    return torch.randint(0, 256, (count, 3, 32, 12), dtype=torch.uint8)


def test_number_grids_show_every_number():
    grids = {"map": np.arange(12).reshape(3, 4), "part": [[1, -1], [0, 2]], "sum": [[7.25]]}
    axes = plots_pairs.number_grids(grids, signs=["*", "="]).axes
    assert [a.get_title() for a in axes] == list(grids) and [a.get_ylabel() for a in axes] == ["", "*", "="]
    assert [[t.get_text() for t in a.texts] for a in axes] == [
        [str(n) for n in range(12)], ["1", "-1", "0", "2"], ["7.25"]
    ]


class TestWindows:
    def test_corners(self):
        """The identity is the stripe itself; half the scale, moved right and down, is its lower right quarter."""
        identity, quarter = [[1, 0, 0], [0, 1, 0]], [[0.5, 0, 0.5], [0, 0.5, 0.5]]
        assert plots_pairs.window_corners(identity, 0, 1).tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
        assert plots_pairs.window_corners(identity, 1, 3).tolist() == [[0, 0.25], [1, 0.25], [1, 0.75], [0, 0.75]]
        assert plots_pairs.window_corners(quarter, 2, 3).tolist() == [[0.5, 0.75], [1, 0.75], [1, 1], [0.5, 1]]

    def test_corners_are_where_the_sampler_looks(self):
        """A map that holds its own coordinates, sampled in the middle of its cells."""
        y, x = torch.meshgrid((torch.arange(40) + 0.5) / 40, (torch.arange(20) + 0.5) / 20, indexing="ij")
        transform = torch.tensor([[0.4, 0.1, 0.2], [-0.1, 0.5, -0.3]])
        seen = sample(torch.stack([x, y])[None], transform[None], 4)[0].flatten(1).T.numpy()  # [16, 2]
        corners = plots_pairs.window_corners(transform, 0, 1)
        step = (np.arange(4) + 0.5) / 4
        inside = corners[0] + step[None, :, None] * (corners[1] - corners[0]) + step[:, None, None] * (
            corners[3] - corners[0])  # fmt: skip
        np.testing.assert_allclose(seen, inside.reshape(-1, 2), atol=1e-5)

    def test_a_row_each_and_a_window_for_every_part(self):
        identity = np.tile(np.eye(2, 3), (4, 3, 1, 1))
        figure = plots_pairs.windows(people(4), {"before": identity, "after": identity[:, :1]}, columns=3)
        counts = [[len(a.patches) for a in row] for row in np.array(figure.axes).reshape(2, 3)]
        assert counts == [[3] * 3, [1] * 3]
        assert [a.get_ylabel() for a in figure.axes[::3]] == ["before", "after"]
        whole = figure.axes[3].patches[0].get_xy()[:4]
        assert whole.tolist() == [[-0.5, -0.5], [11.5, -0.5], [11.5, 31.5], [-0.5, 31.5]]
        with pytest.raises(ValueError, match="no image"):
            plots_pairs.windows([], {"before": identity})


def test_similarity_rows():
    rng = np.random.default_rng(0)
    maps = {"level 2": rng.random((2, 5, 3)), "level 3": 9 + rng.random((2, 5, 3))}
    figure = plots_pairs.similarity_rows(people(1)[0], people(2), maps, row_names=["match", "mismatch"])
    axes = np.array(figure.axes).reshape(2, 4)
    assert [a.get_title() for a in axes[0]] == ["query", "test", "level 2", "level 3"]
    assert [a.get_ylabel() for a in axes[:, 0]] == ["match", "mismatch"]
    for column, values in zip(axes[:, 2:].T, maps.values()):
        drawn = [a.images[-1] for a in column]
        assert {d.get_clim() for d in drawn} == {(values.min(), values.max())}
        assert all(np.array_equal(d.get_array(), v) for d, v in zip(drawn, values))
        assert drawn[0].get_extent() == [-0.5, 11.5, 31.5, -0.5]
