"""Figures of re-ranking and of temporal lifting: what is in them, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import people
from matplotlib.colors import to_hex
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.patches import ConnectionPatch, FancyArrowPatch

from cdimlib import plots, plots_ranks

pytestmark = pytest.mark.usefixtures("closed")


def portraits(axes):
    return [a for a in axes.artists if isinstance(a, AnnotationBbox)]


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_graph_has_a_portrait_per_image_and_a_line_per_pair():
    places = np.array([[0, 0], [1, 0], [2, 1]])
    figure = plots_ranks.neighbour_graph(
        people(3), places, [(2, 1)], [(0, 1)], names=list("qab"), frames=[plots_ranks.QUERY, None, plots.WRONG]
    )
    (axes,) = figure.axes
    assert [p.xy for p in portraits(axes)] == [(0, 0), (1, 0), (2, 1)] and texts(axes) == ["q", "a", "b"]
    frames = [to_hex(p.patch.get_edgecolor()) for p in portraits(axes)]
    assert frames == [plots_ranks.QUERY, to_hex("0.75"), plots.WRONG]
    one_way, mutual = (a for a in axes.patches if isinstance(a, FancyArrowPatch))
    assert one_way.get_linewidth() < mutual.get_linewidth()
    assert to_hex(mutual.get_edgecolor()) == plots_ranks.QUERY != to_hex(one_way.get_edgecolor())
    low, high = axes.get_xlim()
    assert low < 0 and high > 2
    figure.canvas.draw()  # and it can be drawn


def test_graph_needs_a_place_per_image():
    with pytest.raises(ValueError, match=r"places has shape \(2, 2\), expected \(3, 2\)"):
        plots_ranks.neighbour_graph(people(3), np.zeros((2, 2)))


def lift(links, **options):
    return plots_ranks.lift_timeline(
        [0.0, 5.0, 60.0], [100.0, 110.0, 250.0], links, tau=10, sigma=10, query_images=people(3),
        gallery_images=people(3), query_names="ABC", gallery_names="abe", matches=[True, False, False], **options,
    )


def test_timeline_shows_window_pivots_and_density():
    figure = lift([(1, 1), (0, 2)])
    above, below = figure.axes
    assert texts(above)[1:] == ["A", "B", "C"] and texts(below) == ["a ✓", "b", "e"]
    window = above.patches[0].get_extents().transformed(above.transData.inverted())
    assert (window.x0, window.x1) == pytest.approx((-10, 10))  # tau on both sides of the query
    frames = [to_hex(p.patch.get_edgecolor()) for p in portraits(above)]
    assert frames == [plots_ranks.QUERY, to_hex("0.45"), to_hex("0.75")]  # the query, near, not near
    frames = [to_hex(p.patch.get_edgecolor()) for p in portraits(below)]
    assert frames[1] == frames[2] != frames[0] == to_hex("0.75")  # the pivots are framed
    assert sum(isinstance(a, ConnectionPatch) for a in figure.artists) == 2
    curve = below.collections[0].get_paths()[0].vertices
    height = lambda x: curve[np.abs(curve[:, 0] - x) < 0.5, 1].max()  # noqa: E731
    ticks = dict(zip((t.get_text() for t in below.get_yticklabels()), below.get_yticks(), strict=True))
    assert height(110) == pytest.approx(ticks["0.5"], abs=0.01)  # one of two pivots: Eq. (4) gives 1/2
    assert height(180) == pytest.approx(ticks["0"], abs=0.01)
    figure.canvas.draw()


def test_timeline_of_one_pivot_reaches_one_and_none_is_refused():
    below = lift([(1, 1)]).axes[1]
    assert below.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(0.95, abs=0.01)
    with pytest.raises(ValueError, match="no pivot"):
        lift([])


def test_bars_tick_matches_and_frame_the_best():
    figure = plots_ranks.lifted_scores({"score": [0.5, 0.6], "p × score": [0.3, 0.0]}, ["a", "e"], [True, False])
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["a ✓", "e"]
    assert [p.get_width() for p in right.patches] == [0.3, 0.0] and texts(right) == ["0.300", "0.000"]
    assert [to_hex(p.get_facecolor()) for p in left.patches] == [plots.RIGHT, plots.WRONG]
    assert [p.get_edgecolor()[3] for p in left.patches] == [0, 1]  # e leads in score
    assert [p.get_edgecolor()[3] for p in right.patches] == [1, 0]  # and a in the product
