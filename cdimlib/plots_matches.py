"""Figures of matching by parts: local matches as lines, the class memory's life, curves over the knobs of a town."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

from . import plots
from .plots import FONT, _picture, _show


def colour_maps(maps: Sequence, names: Sequence[str]) -> Figure:
    """Tiny maps [3, h, w] of values in 0..1, drawn as coloured cells, each with its numbers in it."""
    figure, axes = plt.subplots(1, len(maps), figsize=(1.7 * len(maps), 1.9), squeeze=False)
    for ax, cells, name in zip(axes[0], maps, names, strict=True):
        cells = np.moveaxis(np.asarray(cells, float), 0, -1)  # [3, h, w] -> [h, w, 3]
        ax.imshow(0.12 + 0.6 * cells.clip(0, 1), interpolation="nearest")  # muted: white numbers stay legible
        for row, column in np.ndindex(cells.shape[:2]):
            ax.text(column, row, "\n".join(f"{v:g}" for v in cells[row, column]), ha="center", va="center",
                    color="white", fontsize=FONT, fontweight="bold")
        ax.set(xticks=[], yticks=[], title=name)
        ax.grid(False)
    return figure


def match_lines(
    pairs: Sequence[tuple], shape: tuple[int, int], *, titles: Sequence[str] | None = None, top: int = 8, size=1.3
) -> Figure:
    """Pairs of images side by side, their ``top`` best local matches as lines between the middles of cells.

    pairs: (query image, gallery image, matches), where matches has ``query`` and ``gallery`` [M, (row, column)],
    ``similarity`` and ``weight`` [M], as :meth:`cdimlib.models.qaconv.QAConv.correspondences` gives them; shape: (h, w)
    of the maps. "Best" is the largest weight * similarity, which also is a line's width; its colour is the similarity,
    and at its end stands "similarity x weight", or the similarity alone where all weights are 1. A match found from
    both sides is drawn once.
    """
    if not pairs:
        raise ValueError("there is no pair to show")
    import seaborn as sns  # here, since it takes seconds

    colours, (height, width) = sns.color_palette("crest_r", as_cmap=True), _picture(pairs[0][0]).shape[:2]
    figure, axes = plt.subplots(1, 2 * len(pairs), squeeze=False,
                                figsize=(2 * len(pairs) * (size + 0.25), size * height / width + 0.4))
    for n, (query, gallery, found) in enumerate(pairs):
        left, right = axes[0, 2 * n : 2 * n + 2]
        _show(left, query, titles[n] if titles is not None else None)
        _show(right, gallery)
        starts, stops, similarity, weight = (torch.as_tensor(part).cpu().numpy() for part in (
            found.query, found.gallery, found.similarity, found.weight))
        share, points = weight * similarity, 72 * size / width  # points: of a pixel
        ends, placed = {}, []
        for i in np.argsort(-share, kind="stable"):
            ends.setdefault((*starts[i].tolist(), *stops[i].tolist()), i)
        for (*a, r, c), i in list(ends.items())[:top]:
            spots = [((x + 0.5) * width / shape[1], (y + 0.5) * height / shape[0]) for y, x in (a, (r, c))]
            colour = colours(float(np.clip(similarity[i], 0, 1)))
            for ax, (x, y) in zip((left, right), spots, strict=True):
                cell = width / shape[1], height / shape[0]
                ax.add_patch(Rectangle((x - cell[0] / 2, y - cell[1] / 2), *cell, fill=False, edgecolor=colour))
            figure.add_artist(ConnectionPatch(*spots, "data", "data", axesA=left, axesB=right, color=colour,
                                              linewidth=0.6 + 2.2 * max(0.0, share[i]) / max(share.max(), 1e-9)))
            label = f"{similarity[i]:.2f}" + f" x {weight[i]:.2g}" * bool((weight != 1).any())
            (x, y), down = spots[1], 0  # below the labels that are there
            while any(abs(x - u) * points < 5 * len(label) and abs(y * points + down - v) < 9 for u, v in placed):
                down += 3
            placed.append((x, y * points + down))
            right.annotate(label, spots[1], (2, -down), textcoords="offset points",
                           fontsize=FONT - 3, va="center", color="white",
                           bbox={"boxstyle": "round,pad=0.1", "fc": "0.2", "ec": "none"})
    return figure


def memory_life(ages, *, labels: Sequence[str] | None = None) -> Figure:
    """The class memory over the steps: age of every class [steps, classes], steps since it was written; -1: never.

    A row per class, a column per step; the fresher, the darker; grey where it was never written.
    """
    ages = np.asarray(ages).T  # [classes, steps]
    figure, axes = plt.subplots(figsize=(7.2, 0.8 + 0.11 * min(len(ages), 24)))
    shown = np.ma.masked_less(ages, 0)
    drawn = axes.imshow(shown, aspect="auto", cmap="YlGnBu_r", interpolation="nearest")
    empty = np.ma.masked_where(ages >= 0, np.ones_like(ages))
    axes.imshow(empty, aspect="auto", cmap=ListedColormap(["0.88"]), interpolation="nearest")
    axes.set(xlabel="step", ylabel="class", yticks=range(len(labels)) if labels is not None else [])
    if labels is not None:
        axes.set_yticklabels(labels)
    axes.grid(False)
    figure.colorbar(drawn, label="steps since written", ax=axes)
    return figure


def panels(
    curves: Mapping[str, tuple[Sequence, Mapping]], *, ylabel: str, spread: Mapping[str, Mapping] | None = None
) -> Figure:
    """Curves side by side on one scale: name of a panel, also its x label -> (x, curves); see :func:`plots.lines`."""
    figure, axes = plt.subplots(1, len(curves), figsize=(2.5 * len(curves), 2.7), sharey=True, squeeze=False)
    for n, (ax, (name, (x, lines))) in enumerate(zip(axes[0], curves.items(), strict=True)):
        plots.lines(x, lines, xlabel=name, ylabel=ylabel if n == 0 else "", spread=(spread or {}).get(name), axes=ax)
        if n and ax.get_legend():
            ax.get_legend().remove()
    plots.bare(figure)
    return figure
