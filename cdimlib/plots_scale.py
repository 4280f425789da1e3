"""Figures of large galleries: how costs grow with the gallery, and what a short list loses. Styled as plots.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .plots import FONT, INK, PALETTE

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)))


def _style(number: int) -> dict:
    colours = list(PALETTE)
    colours[8] = INK  # its yellow is too pale for a line
    return {"color": colours[number % 10], "marker": "osD^vPX*<>"[number % 10]}


def growth(
    measured: Mapping[str, tuple[Sequence[float], Sequence[float]]], rates: Mapping[str, tuple | Callable], *,
    ylabel: str, sizes: tuple[float, float] = (15, 1e9), levels: Mapping[str, float] | None = None,
) -> Figure:
    """Costs against the size of the gallery, both axes logarithmic: marks are measured, lines are extrapolated.

    measured: name -> (sizes, costs), drawn as marks; a name may be missing. rates: name -> (fixed, per image), or a
    function of sizes, drawn as a line over ``sizes``. levels: name -> cost, a grey line across, with its name.
    """
    figure, ax = plt.subplots(figsize=(7.2, 4.0))
    x = np.geomspace(*sizes, 100)
    for number, (name, rate) in enumerate(rates.items()):
        style, cost = _style(number), rate(x) if callable(rate) else rate[0] + rate[1] * x
        ax.plot(x, cost, color=style["color"], linestyle=LINES[number % len(LINES)], linewidth=1.4)
        if name in measured:
            ax.plot(*measured[name], linestyle="", markersize=6, **style)
    for name, level in (levels or {}).items():
        ax.axhline(level, color="0.6", linewidth=0.8, zorder=1)
        ax.annotate(name, (sizes[0], level), (2, 2), textcoords="offset points", color="0.4", fontsize=FONT - 1)
    ax.set(xscale="log", yscale="log", xlabel="images in the gallery", ylabel=ylabel, xlim=sizes)
    handles = [
        Line2D([], [], color=_style(n)["color"], linestyle=LINES[n % len(LINES)], linewidth=1.4, markersize=5,
               marker=_style(n)["marker"] if name in measured else "", label=name)
        for n, name in enumerate(rates)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def short_lists(curves: Mapping[str, Sequence[float]], *, ylabel: str) -> Figure:
    """Percent for lists of 1, 2, ... S images, name -> [S], over the logarithm of the length."""
    figure, ax = plt.subplots(figsize=(6.4, 3.3))
    for number, (name, values) in enumerate(curves.items()):
        style = {"color": _style(number)["color"], "linestyle": LINES[number % len(LINES)]}
        ax.plot(np.arange(1, len(values) + 1), values, linewidth=1.6, label=name, **style)
    ax.set(xscale="log", xlabel="length of the short list", ylabel=ylabel)
    ax.set_xlim(1, max(map(len, curves.values())))
    ax.set_ylim(top=102)
    ax.legend(loc="lower right")
    return figure


def needed_lengths(
    sizes: Sequence[int], needed: Mapping[str, Sequence[float]], spread: Mapping | None = None
) -> Figure:
    """Length of list that keeps a share of the best, against the size of the gallery; both axes logarithmic.

    needed: name -> lengths, one for each size; spread: name -> (lowest, highest), two such lists, as a band.
    """
    figure, ax = plt.subplots(figsize=(6.0, 3.3))
    for number, (name, lengths) in enumerate(needed.items()):
        style = _style(number)
        ax.plot(sizes, lengths, markersize=5, linewidth=1.4, label=name, **style)
        if spread and name in spread:
            ax.fill_between(sizes, *spread[name], color=style["color"], alpha=0.2, linewidth=0)
    ax.plot(sizes, sizes, color="0.7", linewidth=0.8, label="the whole gallery")
    ax.set(xscale="log", yscale="log", xlabel="images in the gallery", ylabel="length of list needed")
    lengths = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    lengths = [n for n in lengths if min(map(min, needed.values())) / 2 <= n <= max(sizes)]
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set_yticks(lengths, [f"{n:,}" for n in lengths])
    ax.minorticks_off()
    ax.legend()
    return figure
