"""Figures of a pair model: windows on people, numbers in a grid, maps of similarity. Styled as plots.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from .plots import FONT, PALETTE, _picture, _show


def number_grids(grids: Mapping[str, np.ndarray], *, signs: Sequence[str] = (), fmt: str = "g") -> Figure:
    """Small matrices with their numbers side by side, title -> [H, W]; ``signs`` stand between them ("*", "=")."""
    import seaborn as sns  # here, since it takes seconds

    grids = {title: np.asarray(values, float) for title, values in grids.items()}
    widths, tall = [values.shape[1] for values in grids.values()], max(values.shape[0] for values in grids.values())
    figure, axes = plt.subplots(1, len(grids), figsize=(0.42 * sum(widths) + 0.5 * len(grids), 0.42 * tall + 0.5),
                                gridspec_kw={"width_ratios": widths}, squeeze=False)
    for ax, (title, values) in zip(axes[0], grids.items(), strict=True):
        sns.heatmap(values, annot=True, fmt=fmt, cmap="crest", cbar=False, linewidths=1, square=True, ax=ax,
                    xticklabels=False, yticklabels=False, annot_kws={"size": FONT - 1})
        ax.set_title(title)
    for ax, sign in zip(axes[0][1:], signs, strict=False):
        ax.set_ylabel(sign, rotation=0, fontsize=FONT + 5, labelpad=12, va="center")
    return figure


def window_corners(transform, part: int, parts: int) -> np.ndarray:
    """Corners [4, 2] of a window, as shares (x, y) of the whole image, of part ``part`` of ``parts`` (1 or 3) stripes.

    transform [2, 3]: as :func:`cdimlib.models.stn.bounded_transform` gives it, in coordinates of the stripe.
    """
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], float) @ np.asarray(transform, float).T
    top, tall = (part / 4, 0.5) if parts == 3 else (0.0, 1.0)
    return np.stack([(corners[:, 0] + 1) / 2, top + tall * (corners[:, 1] + 1) / 2], 1)


def windows(
    images: Sequence, transforms: Mapping[str, np.ndarray], *, columns: int = 6, size: float = 1.15,
) -> Figure:
    """People with the windows that an attention looks through: one row of images per entry of ``transforms``.

    images: N of [3, H, W]; transforms: name of the row -> [N, K, 2, 3] with K = 3 (stripes) or 1 (the whole map).
    """
    images, count = images[:columns], min(columns, len(images))
    if count == 0:
        raise ValueError("there is no image to show")
    height, width = _picture(images[0]).shape[:2]
    shape = (count * (size + 0.08) + 0.4, len(transforms) * (size * height / width + 0.05))
    figure, axes = plt.subplots(len(transforms), count, figsize=shape, squeeze=False)
    for row, (name, here) in zip(axes, transforms.items(), strict=True):
        row[0].set_ylabel(name)
        for ax, image, places in zip(row, images, np.asarray(here), strict=False):
            _show(ax, image)
            for k, (place, colour) in enumerate(zip(places, PALETTE, strict=False)):
                corners = window_corners(place, k, len(places)) * (width, height) - 0.5
                style = {"linewidth": 2, "linestyle": ("-", "--", ":")[k % 3]}
                ax.add_patch(Polygon(corners, closed=True, fill=False, edgecolor=colour, **style))
    return figure


def similarity_rows(
    query, tests: Sequence, maps: Mapping[str, np.ndarray], *, row_names: Sequence[str], size: float = 1.15
) -> Figure:
    """For each test image a row: the query, the test image, then the test image under each of its maps.

    maps: title -> [T, h, w], one map for each test image, stretched over it; a title's maps share one scale of colour.
    """
    height, width = _picture(query).shape[:2]
    shape = ((len(maps) + 2) * (size + 0.1) + 0.4, len(tests) * (size * height / width + 0.1) + 0.2)
    figure, axes = plt.subplots(len(tests), len(maps) + 2, figsize=shape, squeeze=False)
    for number, (row, test, name) in enumerate(zip(axes, tests, row_names, strict=True)):
        _show(row[0], query, None if number else "query")
        _show(row[1], test, None if number else "test")
        row[0].set_ylabel(name)
        for ax, (title, values) in zip(row[2:], maps.items(), strict=True):
            values = np.asarray(values, float)
            _show(ax, test, None if number else title)
            ax.imshow(values[number], cmap="viridis", vmin=values.min(), vmax=values.max(), alpha=0.75,
                      interpolation="bilinear", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    return figure
