"""Figures of local matches and of the class memory: what is in them, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.patches import ConnectionPatch, Rectangle

from cdimlib import plots, plots_matches


@pytest.fixture(autouse=True)
def closed():
    plots.style()
    yield
    plt.close("all")


def found():
    """Three matches of maps 2 x 1; the first two are the same one, found from both sides."""
    cells = torch.tensor([[0, 0], [0, 0], [1, 0]])
    return SimpleNamespace(query=cells, gallery=cells.flip(0)[[2, 2, 0]], similarity=torch.tensor([0.9, 0.9, 0.4]),
                           weight=torch.tensor([1.0, 0.5, 1.0]))


def image():
    return torch.randint(0, 256, (3, 16, 8), dtype=torch.uint8)


def test_a_line_per_match_and_the_best_is_thickest():
    figure = plots_matches.match_lines([(image(), image(), found())], (2, 1), titles=["same"])
    lines = [a for a in figure.artists if isinstance(a, ConnectionPatch)]
    assert len(lines) == 2
    assert lines[0].get_linewidth() > lines[1].get_linewidth()
    assert lines[0].xy1 == (4.0, 4.0)  # the middle of cell (0, 0) of an image of 16 x 8
    left, right = figure.axes
    assert left.get_title() == "same" and sorted(t.get_text() for t in right.texts) == ["0.40 x 1", "0.90 x 1"]
    assert sum(isinstance(p, Rectangle) for p in left.patches) == 2


def test_only_the_best_lines():
    figure = plots_matches.match_lines([(image(), image(), found())] * 3, (2, 1), top=1)
    assert len(figure.axes) == 6 and len([a for a in figure.artists if isinstance(a, ConnectionPatch)]) == 3
    with pytest.raises(ValueError, match="no pair"):
        plots_matches.match_lines([], (2, 1))


def test_labels_at_one_place_lie_one_below_the_other_and_leave_out_a_weight_of_one():
    cells = torch.tensor([[0, 0], [1, 0], [0, 0]])
    same = SimpleNamespace(query=cells, gallery=cells[[0, 0, 1]], similarity=torch.tensor([0.9, 0.8, 0.7]),
                           weight=torch.ones(3))
    _, right = plots_matches.match_lines([(image(), image(), same)], (2, 1)).axes
    first, second, apart = right.texts
    assert [t.get_text() for t in right.texts] == ["0.90", "0.80", "0.70"] and first.xy == second.xy != apart.xy
    assert first.get_position()[1] == apart.get_position()[1] == 0 and second.get_position()[1] <= -9


def test_memory_tells_never_from_long_ago():
    ages = np.array([[-1, 0, -1], [0, 1, -1]])  # two steps, three classes
    axes = plots_matches.memory_life(ages, labels=list("abc")).axes[0]
    shown, empty = (np.ma.getmaskarray(a.get_array()) for a in axes.images)
    assert shown.shape == (3, 2) and (shown == (ages.T < 0)).all() and (empty == ~shown).all()


def test_cells_carry_their_numbers():
    figure = plots_matches.colour_maps([np.eye(3).reshape(3, 1, 3), np.full((3, 2, 2), 0.5)], ["a", "b"])
    assert [t.get_text() for t in figure.axes[0].texts] == ["1\n0\n0", "0\n1\n0", "0\n0\n1"]
    assert len(figure.axes[1].texts) == 4


def test_panels_share_scale_and_have_one_legend():
    curves = {"occlusion": ([0, 1], {"a": [1, 2], "b": [3, 4]}), "viewpoint": ([0, 1], {"a": [5, 6], "b": [7, 8]})}
    figure = plots_matches.panels(curves, ylabel="acc@1", spread={"occlusion": {"a": [1, 1]}})
    first, second = figure.axes
    assert first.get_legend() and not second.get_legend() and first.get_ylim() == second.get_ylim()
    assert first.get_xlabel() == "occlusion" and first.get_ylabel() == "acc@1" and len(first.collections) == 1
