"""Figures of re-ranking and temporal lifting: neighbours as a graph of people, pivots on a timeline, lifted scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import ConnectionPatch, FancyArrowPatch

from .plots import FONT, PALETTE, RIGHT, WRONG, _picture

QUERY = "#0173b2"


def _portrait(axes, image, place, height: float, frame: str, name: str) -> None:
    """One image, ``height`` inches tall, centred on ``place`` in data coordinates, with its name above."""
    array = _picture(image)
    picture = OffsetImage(array, zoom=72 * height / len(array), interpolation="bilinear", cmap="gray")
    options = {"edgecolor": frame, "linewidth": 2.2 if frame != "0.75" else 0.8, "boxstyle": "square,pad=0"}
    axes.add_artist(AnnotationBbox(picture, place, pad=0, bboxprops=options, zorder=5))
    if name:
        axes.annotate(name, place, (0, 36 * height + 3), textcoords="offset points", ha="center", va="bottom",
                      fontsize=FONT - 1, zorder=6)  # fmt: skip


def neighbour_graph(
    images: Sequence, places, one_way: Sequence[tuple[int, int]] = (), mutual: Sequence[tuple[int, int]] = (), *,
    names: Sequence[str] | None = None, frames: Sequence[str | None] | None = None, size=(7.2, 2.6), height=0.75,
    bend=0.35,
) -> Figure:
    """Images at ``places`` [N, 2]; a thin arrow from each to a neighbour that does not return it, a thick line where
    both are among each other's nearest.

    one_way, mutual: pairs of image numbers; frames: a colour per image or None; height: of an image, in inches; bend:
    of the lines, 0 is straight.
    """
    places = np.asarray(places, float)
    if places.shape != (len(images), 2):
        raise ValueError(f"places has shape {places.shape}, expected {(len(images), 2)}")
    figure, axes = plt.subplots(figsize=size)
    margin = 0.5 * height / (np.array(size) - height) * np.maximum(np.ptp(places, axis=0), 1e-9)
    for axis, low, high, more in zip("xy", places.min(0), places.max(0), np.maximum(margin, 0.05), strict=True):
        getattr(axes, f"set_{axis}lim")(low - more, high + more)
    axes.axis("off")
    for pairs, style in (
        (one_way, {"arrowstyle": "-|>", "color": "0.6", "linewidth": 1.0, "mutation_scale": 9, "zorder": 2}),
        (mutual, {"arrowstyle": "-", "color": QUERY, "linewidth": 2.6, "zorder": 3}),
    ):
        for a, b in pairs:
            side = bend * (1 if style["arrowstyle"] == "-" else -1) * (1 if places[a, 0] <= places[b, 0] else -1)
            axes.add_patch(FancyArrowPatch(places[a], places[b], connectionstyle=f"arc3,rad={side}",
                                           shrinkA=20 * height, shrinkB=20 * height, **style))  # fmt: skip
    for number, (image, place) in enumerate(zip(images, places, strict=True)):
        frame = (frames[number] if frames is not None else None) or "0.75"
        _portrait(axes, image, place, height, frame, names[number] if names is not None else "")
    thick, thin = Line2D([], [], color=QUERY, linewidth=2.6), Line2D([], [], color="0.6", marker=">", markersize=4)
    axes.legend([thick, thin], ["each among the other's nearest", "one way only"], loc="upper center",
                bbox_to_anchor=(0.5, 0), ncols=2, frameon=False)  # fmt: skip
    return figure


def lift_timeline(
    query_times, gallery_times, links: Sequence[tuple[int, int]], *, query: int = 0, tau: float, sigma: float,
    query_images: Sequence, gallery_images: Sequence, query_names: Sequence[str], gallery_names: Sequence[str],
    matches: Sequence[bool] | None = None, height: float = 0.52,
) -> Figure:
    """Above, the query's camera, with the window of Eq. (3); below, a gallery camera, with the density p of Eq. (4).

    Times in seconds, of one camera each (the two clocks are never compared). links: the pairs (query, gallery image)
    whose gallery images are pivots, drawn from one to the other. matches: which gallery images show the query.
    """
    if not links:
        raise ValueError("there is no pivot: give at least one link (query, gallery image)")
    query_times, gallery_times = np.asarray(query_times, float), np.asarray(gallery_times, float)
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 3.9), height_ratios=(1, 1.35))
    for axes, times, label in ((above, query_times, "query's camera"), (below, gallery_times, "gallery camera")):
        more = 0.07 * max(np.ptp(times), 1.0)
        axes.set(xlim=(times.min() - more, times.max() + more), ylim=(-0.75, 1.05), xlabel=f"seconds, {label}")
        axes.set_yticks([])
        axes.grid(False)
        axes.spines[["left", "right", "bottom" if axes is above else "top"]].set_visible(False)
        axes.axhline(0, color="0.7", linewidth=1, zorder=1)
    above.xaxis.tick_top()  # out of the arrows' way
    above.xaxis.set_label_position("top")
    above.axvspan(query_times[query] - tau, query_times[query] + tau, color=QUERY, alpha=0.12)
    above.annotate("near the query: less than τ away", (query_times[query] + tau, 0.98), (4, 0), va="top",
                   textcoords="offset points", fontsize=FONT - 1, color=QUERY)  # fmt: skip
    near = np.abs(query_times - query_times[query]) < tau
    for i, (time, image, name) in enumerate(zip(query_times, query_images, query_names, strict=True)):
        frame = QUERY if i == query else "0.45" if near[i] else "0.75"
        _portrait(above, image, (time, 0), height, frame, name)
    pivots = gallery_times[[g for _, g in links]]
    x = np.linspace(*below.get_xlim(), 600)
    p = np.exp(-((x[:, None] - pivots) ** 2) / (2 * sigma**2)).mean(axis=1)  # [600, P] -> [600]
    orange = PALETTE[1]
    below.fill_between(x, -0.75, -0.75 + 1.7 * p, color=orange, alpha=0.3, linewidth=0, zorder=0)
    below.set_yticks([-0.75, 0.1, 0.95], ["0", "0.5", "1"])
    below.set_ylabel("p, orange area")
    for g, (time, image, name) in enumerate(zip(gallery_times, gallery_images, gallery_names, strict=True)):
        frame = orange if time in pivots and g in {b for _, b in links} else "0.75"
        mark = "" if matches is None else " ✓" if matches[g] else ""
        _portrait(below, image, (time, 0), height, frame, name + mark)
    for a, g in links:
        figure.add_artist(ConnectionPatch(
            (query_times[a], -0.5), (gallery_times[g], 0.6), "data", "data", axesA=above, axesB=below, color=orange,
            linewidth=1.6, arrowstyle="-|>", zorder=4,
        ))
    return figure


def lifted_scores(columns: Mapping[str, Sequence[float]], names: Sequence[str], matches: Sequence[bool]) -> Figure:
    """Bars side by side, a panel per column ("score", "p", "score x p"), a row per gallery image, matches in green.

    The largest bar of each panel is framed, and the names of matches carry a tick.
    """
    figure, panels = plt.subplots(1, len(columns), figsize=(7.2, 0.3 * len(names) + 0.8), sharey=True, squeeze=False)
    rows = [f"{name} ✓" if match else name for name, match in zip(names, matches, strict=True)]
    for axes, (title, values) in zip(panels[0], columns.items(), strict=True):
        values = np.asarray(values, float)
        edges = ["0.1" if v == values.max() else "none" for v in values]
        colours = [RIGHT if match else WRONG for match in matches]
        drawn = axes.barh(rows, values, color=colours, edgecolor=edges, linewidth=1.6, height=0.62)
        axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize=FONT - 1)
        axes.set(title=title, xlim=(0, 1.3 * max(values.max(), 1e-9)), xticks=[])
        axes.grid(False)
    panels[0, 0].invert_yaxis()
    return figure
