"""Every figure of the book: one theme, one palette, one font size. Each function returns the Figure it drew.

Images are uint8 tensors or arrays, [H, W], [1, H, W] or [3, H, W]; line drawings are shown in grey. In a notebook, end
the cell with a semicolon, or nothing but the figure shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

RIGHT, WRONG = "#0b7d3e", "#c0392b"  # frames, beside the words "right" and "wrong" for those who see no difference
STYLE = Path(__file__).with_name("book.mplstyle")
FONT = 9  # points, as in STYLE
#: seaborn's "colorblind", as in STYLE
PALETTE = tuple(rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"].by_key()["color"])
INK = "#262626"


def style() -> None:
    """The look of all figures: seaborn's theme and colour-blind palette, white paper, one font size."""
    plt.style.use(STYLE)


def bare(figure: Figure, *sides: str) -> None:
    """Take the frame's sides ("top", "right", "left", "bottom"; the first two by default) off all axes."""
    for axes in figure.axes:
        axes.spines[list(sides or ("top", "right"))].set_visible(False)


def _picture(image) -> np.ndarray:
    """[H, W], [1, H, W] or [3, H, W] -> what matplotlib draws."""
    array = np.asarray(image)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] == 3):
        raise ValueError(f"an image must be [H, W], [1, H, W] or [3, H, W]; got shape {np.shape(image)}")
    return array


def _show(axes, image, title: str | None = None, frame: str | None = None, width: float = 2.5) -> None:
    """One image without ticks, framed in grey or in the colour given."""
    array = _picture(image)
    axes.imshow(array, cmap="gray", vmin=0, vmax=255 if array.dtype == np.uint8 else None, interpolation="bilinear")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=frame or "0.8", linewidth=width if frame else 0.6)
    if title:
        axes.set_title(title, pad=3)


def image_grid(
    images: Sequence, titles: Sequence[str] | None = None, columns: int = 6, *, row_names: Sequence[str] | None = None,
    size: float = 1.1,
) -> Figure:
    """Images side by side, ``columns`` in a row; ``row_names`` stand on the left; ``size`` is inches per image."""
    count = len(images)
    if count == 0:
        raise ValueError("there is no image to show")
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} images")
    columns = min(columns, count)
    rows = -(-count // columns)
    extra = 0.2 if titles is not None else 0.0
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + extra)), squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number < count:
            _show(ax, images[number], titles[number] if titles is not None else None)
        else:
            ax.axis("off")
    for ax, name in zip(axes[:, 0], row_names or (), strict=False):
        ax.set_ylabel(name)
    return figure


def ranked_lists(
    query_images: Sequence, gallery_images: Sequence[Sequence], *, query_names: Sequence[str] | None = None,
    gallery_names: Sequence[Sequence[str]] | None = None, correct=None, scores=None, size: float = 1.15,
) -> Figure:
    """One row per query: the query, then its best gallery images, best first.

    gallery_images: for every query its k images, best first. correct: booleans [Q, k]; frames an image green when it
    shows the query's identity and red when not, and ticks its title. scores: numbers [Q, k], under the images.
    """
    rows, columns = len(query_images), max((len(g) for g in gallery_images), default=0)
    if rows == 0 or columns == 0:
        raise ValueError(f"nothing to show: {rows} queries with up to {columns} gallery images each")
    shape = {"figsize": ((columns + 1.25) * size, rows * (size + 0.22)), "squeeze": False}
    figure, axes = plt.subplots(rows, columns + 1, gridspec_kw={"width_ratios": [1.25] + [1] * columns}, **shape)
    for r in range(rows):
        name = query_names[r] if query_names is not None else "query"
        _show(axes[r, 0], query_images[r], name, frame="0.3", width=1.2)
        for k in range(columns):
            ax = axes[r, k + 1]
            if k >= len(gallery_images[r]):
                ax.axis("off")
                continue
            title, frame = gallery_names[r][k] if gallery_names is not None else str(k + 1), None
            if correct is not None:
                frame = RIGHT if correct[r][k] else WRONG
                title = f"{title} {'✓' if correct[r][k] else '✗'}"
            _show(ax, gallery_images[r][k], title, frame)
            if scores is not None:
                ax.set_xlabel(f"{scores[r][k]:.2f}", labelpad=2, fontsize=FONT - 1)
    return figure


def best_matches(benchmark, similarity, queries: Sequence[int] | None = None, k: int = 5) -> Figure:
    """Ranked lists of a benchmark: query images, and for each the ``k`` best of the gallery with score and frame.

    similarity: [Q, G], higher is more alike; queries: which rows to show (default: the first four).
    """
    similarity = np.asarray(similarity)
    query, gallery = benchmark.query, benchmark.gallery
    if similarity.shape != (len(query), len(gallery)):
        raise ValueError(f"similarity has shape {similarity.shape}, expected {(len(query), len(gallery))} (Q, G)")
    queries = list(range(min(4, len(query)))) if queries is None else list(queries)
    order = np.argsort(-similarity[queries], axis=1, kind="stable")[:, :k]
    return ranked_lists(
        [query.images[q] for q in queries], [gallery.images[o] for o in order],
        query_names=[f"query {q}" for q in queries],
        correct=[gallery.ids[o] == query.ids[q] for q, o in zip(queries, order, strict=True)],
        scores=[similarity[q, o] for q, o in zip(queries, order, strict=True)],
    )


def cmc_curves(curves: Mapping[str, Sequence[float]], ranks: int = 20, *, axes=None) -> Figure:
    """CMC: share of queries (percent) whose match is among the first k. name -> cmc array, rank 1 first."""
    axes = axes or _axes()
    for (name, curve), marker in zip(curves.items(), "osD^vPX*" * len(curves), strict=False):
        part = 100 * np.asarray(curve)[:ranks]
        axes.plot(np.arange(1, len(part) + 1), part, marker=marker, markersize=3, label=f"{name} ({part[0]:.1f} at 1)")
    axes.set(xlabel="rank k", ylabel="queries with a match among the first k (%)", ylim=(0, 102))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0.5)
    axes.legend(loc="lower right")
    return axes.figure


def loss_curves(curves: Mapping[str, Sequence[float]], *, smooth: int = 1, axes=None) -> Figure:
    """Training losses over the steps; ``smooth`` averages that many neighbouring steps."""
    axes = axes or _axes()
    for name, values in curves.items():
        values = np.asarray(values, float)
        width = max(1, min(smooth, len(values)))
        values = np.convolve(values, np.full(width, 1 / width), "valid")
        axes.plot(np.arange(len(values)) + width, values, label=name)
    axes.set(xlabel="step", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.legend()
    return axes.figure


def lines(
    x: Sequence, curves: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str, spread=None, axes=None
) -> Figure:
    """Curves over a common x; ``spread``: name -> half widths of a band around a curve."""
    axes = axes or _axes()
    for (name, values), marker in zip(curves.items(), "osD^vPX*" * len(curves), strict=False):
        (line,) = axes.plot(x, values, marker=marker, markersize=4, label=name)
        if spread and name in spread:
            middle, half = np.asarray(values), np.asarray(spread[name])
            axes.fill_between(x, middle - half, middle + half, color=line.get_color(), alpha=0.2)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if len(curves) > 1:
        axes.legend()
    return axes.figure


def bars(values: Mapping[str, float], *, xlabel: str, spread: Mapping[str, float] | None = None, axes=None) -> Figure:
    """Horizontal bars, one per name, with its number beside it; ``spread``: half length of an error bar."""
    axes = axes or _axes(height=0.35 * len(values) + 0.8)
    names = list(values)
    numbers = [values[n] for n in names]
    error = [spread.get(n, 0) for n in names] if spread else None
    drawn = axes.barh(names, numbers, xerr=error, color=PALETTE[0], height=0.65)
    axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=FONT - 1)
    axes.invert_yaxis()
    axes.set(xlabel=xlabel)
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    return axes.figure


def feature_maps(image, maps, titles: Sequence[str] | None = None, columns: int = 6) -> Figure:
    """An image, then feature maps [C, h, w] in colour, each from its own smallest to its largest value."""
    maps = np.asarray(maps)
    columns = min(columns, len(maps) + 1)
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.2 * columns, 1.4 * rows), squeeze=False)
    _show(axes[0, 0], image, "image")
    for number, ax in enumerate(axes.flat[1:]):
        if number >= len(maps):
            ax.axis("off")
            continue
        ax.imshow(maps[number], cmap="viridis", interpolation="nearest")
        ax.set(xticks=[], yticks=[], title=titles[number] if titles is not None else f"channel {number}")
        ax.grid(False)
    return figure


def filter_maps(images, maps, titles: Sequence[str], *, row_names: Sequence[str]) -> Figure:
    """Images [N, 1, H, W], one per row, each bare and then under its maps [N, K, h, w]; one colour scale per map."""
    maps = np.asarray(maps)
    rows, count = maps.shape[:2]
    figure, axes = plt.subplots(rows, count + 1, figsize=(1.25 * (count + 1), 1.35 * rows), squeeze=False)
    for row in range(rows):
        _show(axes[row, 0], images[row], row_names[row])
        height, width = _picture(images[row]).shape
        for k in range(count):
            _show(axes[row, k + 1], images[row], titles[k] if row == 0 else None)
            axes[row, k + 1].imshow(
                maps[row, k], cmap="Reds", vmin=0, vmax=maps[:, k].max() or 1, alpha=0.6, interpolation="bilinear",
                extent=(0, width, height, 0),
            )
    return figure


def gain_intervals(frame, *, title: str = "") -> Figure:
    """Gains with 95 % intervals. ``frame`` has columns data, ours, low, high (points) and perhaps paper (a cross)."""
    longest = max(frame["data"].astype(str).str.len())
    axes = _axes(3.8 + 0.075 * longest, height=0.33 * len(frame) + 1.3)
    place = np.arange(len(frame))
    blue, orange = PALETTE[:2]
    error = np.abs(np.stack([frame["ours"] - frame["low"], frame["high"] - frame["ours"]]))
    axes.errorbar(frame["ours"], place, xerr=error, fmt="o", color=blue, capsize=4, label="ours, 95 % interval")
    if "paper" in frame:
        axes.plot(frame["paper"], place, "X", color=orange, markersize=8, label="printed in the paper")
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_yticks(place, frame["data"])
    axes.set_ylim(len(frame) - 0.5, -0.5)
    axes.set(xlabel="points of acc.@1", title=title)
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return axes.figure


def matrix(
    values, row_names: Sequence[str], column_names: Sequence[str], *, fmt: str = ".2f", title: str = ""
) -> Figure:
    """A small matrix as a heat map with its numbers, for instance similarities [Q, G]."""
    import seaborn as sns  # here, since it takes seconds

    values = np.asarray(values)
    figure, axes = plt.subplots(figsize=(0.75 * values.shape[1] + 1.2, 0.45 * values.shape[0] + 0.9))
    sns.heatmap(values, annot=True, fmt=fmt, cmap="crest", cbar=False, linewidths=1, ax=axes,
                xticklabels=list(column_names), yticklabels=list(row_names), annot_kws={"size": FONT - 1})
    axes.tick_params(left=False, bottom=False)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    axes.set_title(title)
    return figure


def _axes(width: float = 5.0, height: float = 3.2):
    return plt.subplots(figsize=(width, height))[1]
