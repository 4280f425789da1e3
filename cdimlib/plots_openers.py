"""The first page of each paper: its idea as a picture, its claims as one plot, its doubts as a table.

Pictures are drawn on one canvas, whose coordinates are inches, from the images and numbers given. Styled as plots.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from . import report, results
from .plots import FONT, PALETTE, _picture, bare

#: paper -> (question that no row of the paper answers, row, control, data): experiments of this book
CONTROLS = {
    "midlevel-fusion": [("Is it the middle? Over the same layers, fed the end", "fusion", "control", town)
                        for town in ("toytown-plaza", "toytown-campus")],
    "feature-mask-network": [
        ("Is it the mask? Over two networks without one", "fmn", "nomask", "toytown-plaza"),
        ("Is it the mask? Over two networks without one", "fmn", "nomask", "toytown-campus"),
        ("Is it the mask? Over two networks without one", "fmn", "nomask", "cuhk03-np"),
        ("Is it the mask? Over two global networks", "fmn", "two-grn", "toytown-plaza"),
        ("Is it the mask? Over two global networks", "fmn", "two-grn", "toytown-campus"),
    ],
}  # fmt: skip


def _canvas(width: float, height: float):
    axes = plt.subplots(figsize=(width, height))[1]
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def _put(axes, image, x: float, y: float, height: float, name: str = "", width: float | None = None, **how) -> float:
    """An image with its lower left corner at (x, y) and its name below; returns its right side."""
    array = _picture(image)
    width = width or height * array.shape[1] / array.shape[0]
    how = {"cmap": "gray", "interpolation": "bilinear", "vmax": 255 if array.dtype == np.uint8 else None} | how
    axes.imshow(array, extent=(x, x + width, y, y + height), zorder=2, aspect="equal", **how)
    axes.add_patch(plt.Rectangle((x, y), width, height, fill=False, edgecolor="0.6", linewidth=0.8, zorder=3))
    axes.text(x + width / 2, y - 0.07, name, ha="center", va="top", fontsize=FONT)
    return x + width


def _strip(axes, values, x: float, y: float, width: float, name: str) -> None:
    """A vector as a row of colours around height y."""
    _put(axes, np.asarray(values, float)[None], x, y - 0.1, 0.2, name, width, cmap="YlGnBu", interpolation="nearest")


def _box(axes, text: str, x: float, y: float, width: float = 0.95, height: float = 0.5) -> None:
    """A network, as a rounded box whose left side has its middle at (x, y)."""
    shape = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": "#e8eef5", "edgecolor": "0.4", "zorder": 2}
    axes.add_patch(FancyBboxPatch((x, y - height / 2), width, height, **shape))
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=FONT, zorder=3)


def _arrows(axes, *ends: tuple[float, float, float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 3, "shrinkB": 3}
    for x0, y0, x1, y1 in ends:
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=style, zorder=4)


def fusion_idea(image, stages: Sequence, middle, end, *, joined: str = "laid out") -> Figure:
    """An image and the maps [h, w] of a network's stages; the last one, the middle, also goes straight to the feature.

    middle, end: the two vectors, as short as they are to be drawn. joined: what is done to the middle, in few words.
    """
    axes = _canvas(6.6, 2.75)
    right = _put(axes, image, 0.05, 1.3, 1.1, "image")
    for number, stage in enumerate(stages):
        size = 0.85 - 0.12 * number
        _arrows(axes, (right, 1.85, right + 0.22, 1.85))
        right = _put(axes, stage, right + 0.22, 1.85 - size / 2, size, cmap="Reds")
    axes.text(right - size / 2, 1.92 + size / 2, "the middle", ha="center", fontsize=FONT)
    _box(axes, "the rest of\nthe network", right + 0.25, 1.85)
    _strip(axes, end, 5.5, 1.85, 1.0, "the end")
    _strip(axes, middle, 2.5, 0.5, 4.0, f"the middle, {joined}")
    _arrows(axes, (right, 1.85, right + 0.25, 1.85), (right + 1.2, 1.85, 5.5, 1.85), (6, 1.5, 6, 1.25),
            (6, 0.62, 6, 0.93), (right - size / 2, 1.85 - size / 2, right - size / 2, 0.62))  # fmt: skip
    axes.text(5.95, 1.09, "both are the feature", ha="center", va="center", fontsize=FONT, style="italic")
    return axes.figure


def mask_idea(image, lookalike, mask, impression, second) -> Figure:
    """A first network's impression of an image becomes a mask, through which a second network looks at the image.

    lookalike: another image, drawn beside; mask: [h, w], from 1 upwards; impression, second: the networks' vectors.
    """
    axes, picture = _canvas(6.6, 2.9), _picture(image).astype(float)
    share = np.kron(np.asarray(mask, float) - 1, np.ones([n // m for n, m in zip(picture.shape[:2], np.shape(mask))]))
    share = share[..., None] / max(share.max(), 1e-9)
    looked = (share * picture + (1 - share) * (0.35 * picture + 150)).astype(np.uint8).transpose(2, 0, 1)
    for what, x, y, height, name in ((lookalike, 0.05, 0.45, 1.5, "lookalike"), (image, 0.95, 0.45, 1.5, "image"),
                                     (looked, 3.5, 0.55, 1.4, "through it")):  # fmt: skip
        _put(axes, what, x, y, height, name)
    _put(axes, mask, 2.5, 0.55, 1.4, "mask", cmap="Reds", interpolation="nearest", vmin=1)
    _box(axes, "first network", 0.85, 2.45, 1.1)
    _box(axes, "second\nnetwork", 4.4, 1.2, 0.8)
    _strip(axes, impression, 2.35, 2.45, 1.0, "first impression")
    _strip(axes, second, 5.45, 1.2, 1.0, "second look")
    axes.text(5.95, 2.45, "both are\nthe feature", ha="center", va="center", fontsize=FONT, style="italic")
    _arrows(axes, (1.33, 1.95, 1.33, 2.2), (1.95, 2.45, 2.35, 2.45), (2.85, 2.15, 2.85, 1.97), (1.7, 1.2, 2.5, 1.2),
            (3.2, 1.2, 3.5, 1.2), (4.2, 1.2, 4.4, 1.2), (5.2, 1.2, 5.45, 1.2), (3.35, 2.45, 5.35, 2.45),
            (5.95, 1.32, 5.95, 2.2))  # fmt: skip
    return axes.figure


def measured(claims: pd.DataFrame, paper: str) -> pd.DataFrame:
    """The lines of :func:`cdimlib.report.claims` of a paper with ``report.SEEDS`` seeds, then this book's controls.

    Columns claim, data, printed (nan for a control), ours, low, high, verdict.
    """
    names, runs = ["claim", "data", "printed", "ours", "low", "high", "verdict"], results.load(paper)
    frame = report.measured_once(claims[claims["paper"] == paper])
    lines = frame[frame["seeds"] >= report.SEEDS][names].to_dict("records")
    for question, row, control, data in CONTROLS.get(paper, ()):
        a, b = report.pair(report.selected(runs, data, data), row, control)
        if a:
            gain = results.gain(a, b, data)
            lines.append(dict(zip(names, (question, data, np.nan, *gain, report.verdict(*gain[1:], len(a))))))
    return pd.DataFrame(lines, columns=names)


def claim_lines(frame: pd.DataFrame) -> Figure:
    """A line for each row of :func:`measured`: ours with its interval, the printed difference, the verdict in a word.

    A full dot where the claim holds, a hollow one where it is open, a hollow square where it is reversed.
    """
    figure, axes = plt.subplots(figsize=(6.4, 0.42 * len(frame) + 0.9))
    ends = frame[["low", "high", "printed"]]
    axes.set(xlim=(min(ends.min().min(), 0) - 2, ends.max().max() + 2), ylim=(len(frame) - 0.5, -0.8), yticks=[])
    for y, line in enumerate(frame.itertuples()):
        colour = "0.3" if np.isnan(line.printed) else PALETTE[0]
        axes.plot([line.low, line.high], [y, y], color=colour, linewidth=1.6)
        axes.plot(line.ours, y, "s" if line.verdict == "reversed" else "o", color=colour, markeredgewidth=1.6,
                  markerfacecolor=colour if line.verdict == "holds" else "white", zorder=3)  # fmt: skip
        axes.plot([line.ours, line.printed], [y, y], color="0.75", linewidth=1, linestyle=":", zorder=1)
        axes.plot(line.printed, y, "X", color="#de8f05", markersize=7, markeredgecolor="white")
        words = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": FONT - 1}
        axes.annotate(f"{line.claim}, on {line.data}", (0, y - 0.22), (4, 0), va="bottom", **words,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        axes.annotate(line.verdict, (1, y), (4, 0), va="center", **words)
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_xlabel("points of acc.@1; dot: ours with 95 % interval, cross: printed in the paper")
    bare(figure, "top", "right", "left")
    return figure


def doubts(claims: pd.DataFrame, paper: str) -> pd.DataFrame:
    """What is still in doubt: each claim that is not shown on the data it is about with enough seeds, and why.

    claims: of :func:`cdimlib.report.claims`. Controls that show no difference stand at the end.
    """
    lines = []
    for line in claims[claims["paper"] == paper].itertuples():
        why, stand_in = f"{line.verdict}: {line.low:+.1f} to {line.high:+.1f} points", line.data not in ("", line.asked)
        why = "holds" if line.verdict == "holds" else why if line.seeds >= report.SEEDS else line.verdict
        if why != "holds" or stand_in:
            lines.append((line.claim, line.asked, why + f", on {line.data} instead" * stand_in))
    for line in measured(claims, paper).itertuples():
        if np.isnan(line.printed) and line.verdict != "holds":
            lines.append((line.claim, line.data, f"{line.verdict}: {line.low:+.1f} to {line.high:+.1f} points"))
    table = pd.DataFrame(lines, columns=["claim", "asked on", "in doubt because"])
    return table.groupby(["claim", "in doubt because"], sort=False, as_index=False)["asked on"].agg(", ".join)
