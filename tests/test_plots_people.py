"""Figures with people: what is in them, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import people
from matplotlib.colors import to_hex
from matplotlib.offsetbox import AnnotationBbox, OffsetImage, TextArea
from matplotlib.patches import Wedge

from cdimlib import plots, plots_people

pytestmark = pytest.mark.usefixtures("closed")


def labels(axes):
    """camera label -> whether a picture stands with it."""
    boxes = [a.offsetbox.get_children() for a in axes.artists if isinstance(a, AnnotationBbox)]
    assert all(isinstance(parts[-1], TextArea) for parts in boxes)
    return {parts[-1].get_text(): isinstance(parts[0], OffsetImage) for parts in boxes}


TOWN = SimpleNamespace(
    cameras=tuple(SimpleNamespace(name=n, x=x, y=y, look=a) for n, x, y, a in
                  (("gate", 0, 0, 0), ("park", 50, 10, 90), ("hall", 20, 40, 180))),
    links=((0, 1), (1, 2)),
)


@pytest.mark.parametrize("seconds, text", [
    (9 * 3600, "9:00"), (9 * 3600 + 304.6, "9:05:05"), (3599.7, "1:00"), (0, "0:00"), (23 * 3600 + 59 * 60, "23:59"),
])
def test_clock(seconds, text):
    assert plots_people.clock(seconds) == text


class TestGrid:
    def test_badges_have_their_colours_and_rules_fade(self):
        badges = ["query", "match", "wrong: lookalike", "ignored: same camera", "dropped: junk", ""]
        figure = plots_people.people_grid(people(6), list("abcdef"), badges, row_names=["gallery"])
        axes = figure.axes
        assert [a.get_title() for a in axes] == list("abcdef") and axes[0].get_ylabel() == "gallery"
        assert [a.get_xlabel() for a in axes] == [b.replace(": ", ":\n") for b in badges]
        frames = [to_hex(a.spines["left"].get_edgecolor()) for a in axes]
        quiet = plots_people.QUIET
        assert frames == ["#0173b2", plots.RIGHT, plots.WRONG, quiet, quiet, "#cccccc"]
        assert [len(a.images) for a in axes] == [1, 1, 1, 2, 2, 1]  # a white veil over what a rule takes out
        assert [to_hex(a.xaxis.label.get_bbox_patch().get_facecolor()) for a in axes[:5]] == frames[:5]

    def test_shape_and_rows(self):
        figure = plots_people.people_grid(people(5), columns=3, size=1.0)
        assert len(figure.axes) == 6 and len(figure.axes[5].images) == 0
        width, height = figure.get_size_inches()
        assert height > 2 * 2 > width - 3.3  # two rows of images twice as high as wide
        tall = plots_people.people_grid(people(5), ["two\nlines"] * 5, ["match"] * 5, columns=3, size=1.0)
        assert tall.get_size_inches()[1] > height

    def test_refuses(self):
        with pytest.raises(ValueError, match="no image"):
            plots_people.people_grid([])
        with pytest.raises(ValueError, match="2 captions for 3 images"):
            plots_people.people_grid(people(3), ["a", "b"])
        with pytest.raises(ValueError, match="1 badges for 3 images"):
            plots_people.people_grid(people(3), badges=["match"])


class TestMap:
    def test_cameras_views_and_ways(self):
        axes = plots_people.town_map(TOWN).axes[0]
        assert labels(axes) == {"gate": False, "park": False, "hall": False}
        views = [p for p in axes.patches if isinstance(p, Wedge)]
        assert [(v.theta1 + v.theta2) / 2 for v in views] == [0, 90, 180] and views[1].center.tolist() == [50, 10]
        ways = [line.get_xydata().tolist() for line in axes.lines if line.get_linewidth() == 5]
        assert ways == [[[0, 0], [50, 10]], [[50, 10], [20, 40]]]

    @pytest.mark.parametrize("pictures", [None, people(3)])
    def test_a_walk_is_numbered_by_visits(self, pictures):
        cams, times = [2, 2, 1, 1, 1, 2], [32400, 32401, 32460, 32461, 32463, 32520.2]
        axes = plots_people.town_map(TOWN, cams, times, pictures).axes[0]
        seen = labels(axes)
        assert seen == {"gate": False, "2. park\n9:01": pictures is not None, "3. hall\n9:02": pictures is not None}
        steps = [(a.xyann, a.xy) for a in axes.texts if a.get_text() == "" and hasattr(a, "xyann")]
        assert [np.array(s).tolist() for s in steps] == [[[20, 40], [50, 10]], [[50, 10], [20, 40]]]

    def test_refuses(self):
        with pytest.raises(ValueError, match="1 pictures for 2 cameras visited"):
            plots_people.town_map(TOWN, [0, 1], [1.0, 2.0], people(1))


class TestTimeline:
    TIMES, CAMS = np.array([32400.0, 32500, 32410, 32700]), np.array([0, 1, 0, 2])

    def test_everybody_is_a_tick_and_the_named_ones_a_line(self):
        who = {"Ada": np.array([False, True, False, False]), "Bo": [3, 0, 2]}
        axes = plots_people.timeline(self.TIMES, self.CAMS, ["a", "b", "c"], who).axes[0]
        ticks, ada, bo = axes.lines
        assert ticks.get_xdata().tolist() == self.TIMES.tolist() and ticks.get_ydata().tolist() == [0, 1, 0, 2]
        assert ada.get_xdata().tolist() == [32500] and bo.get_xdata().tolist() == [32400, 32410, 32700]  # in time
        assert np.round(bo.get_ydata()).tolist() == [0, 0, 2] and bo.get_ydata()[0] > 0 > ada.get_ydata()[0] - 1
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["Ada", "Bo"]
        assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
        assert axes.get_ylim() == (2.5, -0.5)

    @pytest.mark.parametrize("hours, step", [(0.1, 60), (1, 600), (8, 3600), (60, 14400 * 6)])
    def test_hours_are_whole_minutes(self, hours, step):
        axes = plots_people.timeline([0.0, 3600 * hours], [0, 0], ["a"]).axes[0]
        places = axes.xaxis.get_majorticklocs()
        assert set(np.diff(places)) == {step} and not axes.get_legend()
        assert axes.xaxis.get_major_formatter()(32700.0, 0) == "9:05"


MAPS = np.random.default_rng(0).random((3, 4, 2))


class TestHeatMaps:
    def test_images_above_their_maps_with_a_scale_per_row(self):
        maps = {"GRN": MAPS, "mask": torch.as_tensor(1 + MAPS)}
        axes = np.array(plots_people.heat_maps(people(3), maps, ["a", "b", "c"]).axes).reshape(3, 3)
        assert [a.get_ylabel() for a in axes[:, 0]] == ["image", "GRN", "mask"]
        assert [a.get_title() for a in axes[0]] == ["a", "b", "c"] and not axes[1, 0].get_title()
        assert [len(a.images) for a in axes.flat] == [1] * 3 + [2] * 6
        for row, values in zip(axes[1:], maps.values(), strict=True):
            for ax, value in zip(row, values, strict=True):
                assert np.array_equal(ax.images[1].get_array(), value)
                assert ax.images[1].get_clim() == (float(values.min()), float(values.max()))
                assert ax.images[1].get_extent() == ax.images[0].get_extent(), "the map lies over the whole image"

    def test_refuses(self):
        with pytest.raises(ValueError, match=r"there are 3 images, but maps for others: {'GRN': 2}"):
            plots_people.heat_maps(people(3), {"GRN": MAPS[:2]})
