"""The papers' first pages: what the pictures show, which claims are drawn, what is in doubt and why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cdimlib import plots_openers, results

pytestmark = pytest.mark.usefixtures("closed")
PAPER = "multilevel-similarity"  # without controls
LINES = [  # claim, better, asked, data, printed, ours, low, high, seeds, verdict
    ("a", "A", "cuhk03", "cuhk03", 3.0, 2.0, 1.0, 3.0, 3, "holds"),
    ("b", "B", "cuhk03", "town", 3.0, 2.0, 1.0, 3.0, 3, "holds"),
    ("c", "C", "cuhk03", "cuhk03", 3.0, 0.5, -1.0, 2.0, 4, "open"),
    ("d", "D", "cuhk03", "town", 3.0, -2.0, -3.0, -1.0, 3, "reversed"),
    ("e", "E", "cuhk03", "cuhk03", 3.0, 2.0, 1.0, 3.0, 1, "open (1 seed)"),
    ("f", "F", "cuhk01", "", 3.0, np.nan, np.nan, np.nan, 0, "not run"),
    ("f", "F", "viper", "", 3.0, np.nan, np.nan, np.nan, 0, "not run"),
]


@pytest.fixture
def claims() -> pd.DataFrame:
    names = ["claim", "better", "asked", "data", "printed", "ours", "low", "high", "seeds", "verdict"]
    return pd.DataFrame(LINES, columns=names).assign(paper=PAPER, base="X")


def test_measured_are_the_claims_with_enough_seeds(claims):
    assert list(plots_openers.measured(claims, PAPER)["claim"]) == ["a", "b", "c", "d"]


def test_doubts(claims):
    """What holds on its own data is not in doubt; data sets with one reason share a line."""
    found = plots_openers.doubts(claims, PAPER)
    assert [tuple(line) for line in found[["claim", "in doubt because", "asked on"]].to_numpy()] == [
        ("b", "holds, on town instead", "cuhk03"),
        ("c", "open: -1.0 to +2.0 points", "cuhk03"),
        ("d", "reversed: -3.0 to -1.0 points, on town instead", "cuhk03"),
        ("e", "open (1 seed)", "cuhk03"),
        ("f", "not run", "cuhk01, viper"),
    ]


def test_controls_follow_and_are_in_doubt_where_they_show_nothing(claims, monkeypatch):
    """A control's line has no printed number; one that is far ahead is no doubt."""
    ranks = {"fmn": [1, 1, 1, 1], "nomask": [1, 1, 1, 1], "two-grn": [2, 2, 2, 2]}
    same = {"budget": "b", "track": "t", "wall_seconds": 1.0, "data": {"name": "town"}}
    runs = [{"row": row, "seed": seed, "metrics": {"town": {"first_rank": np.array(r)}}, **same}
            for row, r in ranks.items() for seed in range(3)]  # fmt: skip
    monkeypatch.setattr(results, "load", lambda paper: runs)
    questions = [("mask?", "fmn", "nomask", "town"), ("two?", "fmn", "two-grn", "town"), ("gone?", "fmn", "x", "town")]
    monkeypatch.setattr(plots_openers, "CONTROLS", {PAPER: questions})
    lines = plots_openers.measured(claims, PAPER).iloc[4:]
    assert list(lines["claim"]) == ["mask?", "two?"] and lines["printed"].isna().all()
    assert list(lines["ours"]) == [0, 100] and list(lines["verdict"]) == ["open", "holds"]
    doubted = list(plots_openers.doubts(claims, PAPER)["claim"])
    assert doubted[-1] == "mask?" and "two?" not in doubted


def test_claim_lines_draw_every_verdict(claims):
    figure = plots_openers.claim_lines(plots_openers.measured(claims, PAPER))
    axes = figure.axes[0]
    words = [text.get_text() for text in axes.texts]
    assert words == ["a, on cuhk03", "holds", "b, on town", "holds", "c, on cuhk03", "open", "d, on town", "reversed"]
    dots = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    assert [dot.get_xdata()[0] for dot in dots] == [2.0, 2.0, 0.5, -2.0]
    assert [dot.get_marker() for dot in dots] == ["o", "o", "o", "s"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, False, True, True]
    low, high = axes.get_xlim()
    assert low < -3 and high > 3


def test_the_mask_picture_fades_what_the_mask_leaves_alone():
    image = np.full((3, 32, 16), 40, np.uint8)
    mask = np.ones((8, 4))
    mask[0, 0] = 3
    figure = plots_openers.mask_idea(image, image, mask, np.arange(5), np.arange(5))
    looked = np.asarray(figure.axes[0].images[2].get_array())  # after the lookalike and the image
    assert (looked[:4, :4] == 40).all() and (looked[4:] == 164).all()
    same = plots_openers.mask_idea(image, image, np.ones((8, 4)), np.arange(5), np.arange(5))  # a mask of ones
    assert (np.asarray(same.axes[0].images[2].get_array()) == 164).all()


def test_the_fusion_picture_shows_every_stage():
    figure = plots_openers.fusion_idea(
        np.zeros((1, 8, 8), np.uint8), [np.eye(4), np.eye(2)], np.arange(9), np.arange(3), joined="averaged"
    )
    axes = figure.axes[0]
    assert [image.get_array().shape for image in axes.images] == [(8, 8), (4, 4), (2, 2), (1, 3), (1, 9)]
    words = {text.get_text() for text in axes.texts}
    assert {"image", "the middle", "the end", "the middle, averaged", "both are the feature"} <= words
    for image in axes.images:  # nothing is drawn outside the canvas
        left, right, bottom, top = image.get_extent()
        assert 0 <= left < right <= axes.get_xlim()[1] and 0 <= bottom < top <= axes.get_ylim()[1]
