"""Figures: what is in them, and what they refuse."""

from __future__ import annotations

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from cdimlib import plots
from cdimlib.data import load


@pytest.fixture(autouse=True)
def closed():
    plots.style()
    yield
    plt.close("all")


def images(count, channels=1):
    return torch.randint(0, 256, (count, channels, 8, 8), dtype=torch.uint8)


def frame(axes):
    return to_hex(axes.spines["left"].get_edgecolor())


def test_style_is_white_and_readable_by_the_colour_blind():
    figure, axes = plt.subplots()
    assert to_hex(figure.get_facecolor()) == "#ffffff" and figure.dpi == 110
    assert to_hex(axes.plot([1, 2])[0].get_color()) == "#0173b2"  # seaborn's "colorblind"


def test_the_style_file_is_seaborns_theme_but_for_what_it_calls_ours():
    import seaborn as sns

    assert list(plots.PALETTE) == sns.color_palette("colorblind").as_hex()
    ours = {line.split(":")[0] for line in plots.STYLE.read_text().split("# ours")[1].splitlines()[1:]}
    with plt.rc_context():
        plt.rcdefaults()
        plots.style()
        got = dict(plt.rcParams)
        plt.rcdefaults()
        sns.set_theme(style="whitegrid", palette="colorblind")
        assert {name for name, value in plt.rcParams.items() if value != got[name]} <= ours | {"axes.prop_cycle"}
    assert [to_hex(c) for c in got["axes.prop_cycle"].by_key()["color"]] == list(plots.PALETTE)
    assert ours <= got.keys() and got["font.size"] == plots.FONT


def test_opening_a_notebook_does_not_wait_for_seaborn():
    told = "import sys, cdimlib; cdimlib.start(); print(sorted({'seaborn', 'pandas'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"


def test_image_grid():
    figure = plots.image_grid(images(5), list("abcde"), columns=3, row_names=["one", "two"])
    shown = [a for a in figure.axes if a.images]
    assert [a.get_title() for a in shown] == list("abcde") and len(figure.axes) == 6
    assert shown[0].get_ylabel() == "one" and shown[3].get_ylabel() == "two"
    assert plots.image_grid(images(2, 3)).axes[0].images[0].get_array().shape == (8, 8, 3)
    with pytest.raises(ValueError, match="no image"):
        plots.image_grid([])
    with pytest.raises(ValueError, match="2 titles for 3 images"):
        plots.image_grid(images(3), ["a", "b"])
    with pytest.raises(ValueError, match="an image must be"):
        plots.image_grid(images(1, 2))


def test_ranked_lists_frame_right_and_wrong_and_give_the_score():
    correct = [[False, True], [True, False]]
    figure = plots.ranked_lists(images(2), [images(2), images(2)], correct=correct, scores=[[0.9, 0.5], [0.25, 0.1]])
    rows = [figure.axes[:3], figure.axes[3:]]
    for row, right in zip(rows, correct, strict=True):
        assert [frame(a) for a in row[1:]] == [plots.RIGHT if r else plots.WRONG for r in right]
        assert [("✓" in a.get_title()) for a in row[1:]] == right
    assert [a.get_xlabel() for a in rows[1][1:]] == ["0.25", "0.10"]
    plain = plots.ranked_lists(images(1), [images(2)], query_names=["q"], gallery_names=[["g", "h"]])
    assert [a.get_title() for a in plain.axes] == ["q", "g", "h"]
    assert frame(plain.axes[1]) not in (plots.RIGHT, plots.WRONG)
    with pytest.raises(ValueError, match="nothing to show"):
        plots.ranked_lists([], [])


def test_best_matches_puts_the_most_alike_first():
    bench = load("toy-shop/shoes", size="tiny", pixels=32)
    similarity = np.eye(len(bench.query))
    similarity[1] = similarity[1][::-1]  # wrong for query 1
    figure = plots.best_matches(bench, similarity, queries=[0, 1], k=3)
    assert frame(figure.axes[1]) == plots.RIGHT and frame(figure.axes[5]) == plots.WRONG
    assert figure.axes[1].get_xlabel() == "1.00"
    with pytest.raises(ValueError, match=r"similarity has shape \(2, 3\)"):
        plots.best_matches(bench, np.zeros((2, 3)))


def test_curves_show_their_values():
    figure = plots.cmc_curves({"fusion": [0.5, 0.75, 1.0], "vanilla": [0.25, 0.5, 0.5]}, ranks=2)
    first, second = figure.axes[0].lines
    assert first.get_xdata().tolist() == [1, 2] and first.get_ydata().tolist() == [50, 75]
    assert second.get_label() == "vanilla (25.0 at 1)"
    line = plots.loss_curves({"run": [4.0, 2.0, 0.0]}, smooth=2).axes[0].lines[0]
    assert line.get_xdata().tolist() == [2, 3] and line.get_ydata().tolist() == [3, 1]
    figure = plots.lines([1, 2], {"a": [3, 4], "b": [5, 6]}, xlabel="x", ylabel="y", spread={"a": [1, 1]})
    assert len(figure.axes[0].lines) == 2 and len(figure.axes[0].collections) == 1
    bars = plots.bars({"a": 1.0, "b": 2.5}, xlabel="acc.@1").axes[0]
    assert [p.get_width() for p in bars.patches] == [1.0, 2.5] and [t.get_text() for t in bars.texts] == ["1.0", "2.5"]


def test_matrix_and_feature_maps():
    axes = plots.matrix([[1, 0.5], [0.25, 0]], ["q0", "q1"], ["g0", "g1"]).axes[0]
    assert [t.get_text() for t in axes.texts] == ["1.00", "0.50", "0.25", "0.00"]
    figure = plots.feature_maps(images(1)[0], torch.rand(4, 3, 3), columns=3)
    assert sum(bool(a.images) for a in figure.axes) == 5
