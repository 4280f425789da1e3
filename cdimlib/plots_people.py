"""Figures with people in them: grids with badges, a town map with a walk, a timeline. Styled as plots.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage, TextArea, VPacker
from matplotlib.patches import Wedge
from matplotlib.ticker import FuncFormatter, MultipleLocator

from .plots import FONT, PALETTE, RIGHT, WRONG, _axes, _picture, _show

QUIET = "#6b6b6b"  # what a rule takes out: grey, and its image is faded
BADGES = {"match": RIGHT, "wrong": WRONG, "ignored": QUIET, "dropped": QUIET}  # by the first word; others are blue
FADED = ("ignored", "dropped")


def clock(seconds: float, _=None) -> str:
    """Seconds since midnight as "9:05", or "9:05:12" where it is no whole minute."""
    seconds = round(float(seconds))
    text = f"{seconds // 3600}:{seconds // 60 % 60:02d}"
    return text + f":{seconds % 60:02d}" if seconds % 60 else text


def people_grid(
    images: Sequence, captions: Sequence[str] | None = None, badges: Sequence[str] | None = None, columns: int = 6, *,
    row_names: Sequence[str] | None = None, size: float = 1.2,
) -> Figure:
    """Tall images [3, H, W] side by side, with a caption above and a badge below each.

    badges: text such as "match", "wrong", "ignored: same camera", "dropped: junk", or "" for none; the first word
    chooses the colour, what follows a colon goes onto a second line, and ignored or dropped images are faded.
    row_names: on the left, one per row; size: width of an image in inches (its height follows from its shape).
    """
    count = len(images)
    if count == 0:
        raise ValueError("there is no image to show")
    for name, texts in (("captions", captions), ("badges", badges)):
        if texts is not None and len(texts) != count:
            raise ValueError(f"{len(texts)} {name} for {count} images")
    height, width = _picture(images[0]).shape[:2]
    columns = min(columns, count)
    rows = -(-count // columns)
    lines = max((str(c).count("\n") + 1 for c in captions or ()), default=0)
    each = size * height / width + 0.17 * lines + (0.46 if badges is not None else 0.06)
    shape = (columns * (size + 0.08) + (0.3 if row_names else 0), rows * each)
    figure, axes = plt.subplots(rows, columns, figsize=shape, squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number >= count:
            ax.axis("off")
            continue
        badge = str(badges[number]) if badges is not None else ""
        word = badge.split(":")[0].split(" ")[0]
        colour = BADGES.get(word, PALETTE[0])
        caption = str(captions[number]) if captions is not None else None
        _show(ax, images[number], caption, colour if badge else None, 2.0)
        if word in FADED:
            ax.imshow(np.full((height, width), 255), cmap="gray", vmin=0, vmax=255, alpha=0.6)
        if badge:
            box = {"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "none"}
            text = badge.replace(": ", ":\n")
            ax.set_xlabel(text, color="white", fontsize=FONT - 1, fontweight="bold", labelpad=6, bbox=box)
    for ax, name in zip(axes[:, 0], row_names or (), strict=False):
        ax.set_ylabel(name)
    return figure


def town_map(place, cams=None, times=None, pictures: Sequence | None = None, *, size: float = 6.5) -> Figure:
    """Cameras, which way they look, and the ways on foot between them; a walk, if given, with its order and times.

    place: has ``cameras`` (each with name, x, y in metres and look in degrees) and ``links`` (pairs of cameras).
    cams, times: of all images of one person in the order of time; pictures: one image for each camera visited.
    """
    visits = _visits(cams, times) if cams is not None else []
    if pictures is not None and len(pictures) != len(visits):
        raise ValueError(f"{len(pictures)} pictures for {len(visits)} cameras visited")
    spots = np.array([(c.x, c.y) for c in place.cameras], float)  # [cameras, 2]
    low, high, reach = spots.min(0), spots.max(0), np.ptp(spots, axis=0).max()
    margin = (0.2 if pictures is None else 0.42) * reach
    wide, tall = high - low + 2 * margin
    figure, ax = plt.subplots(figsize=(size, size * tall / wide))
    ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
    ax.axis("off")
    ax.plot(low[0] - margin + np.array([5, 25]), [low[1] - margin + 5] * 2, color="0.3", linewidth=2)
    ax.text(low[0] - margin + 5, low[1] - margin + 8, "20 metres", fontsize=FONT - 1)
    for a, b in place.links:
        ax.plot(*spots[[a, b]].T, color="0.87", linewidth=5, solid_capstyle="round", zorder=1)
    colour = PALETTE[0]
    for (a, _), (b, _) in pairwise(visits):
        arrow = {"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "color": colour, "linewidth": 2.2}
        ax.annotate("", spots[b], spots[a], arrowprops={**arrow, "shrinkA": 7, "shrinkB": 7}, zorder=3)
    order = {cam: k for k, (cam, _) in enumerate(visits)}
    for number, (camera, spot) in enumerate(zip(place.cameras, spots, strict=True)):
        view = {"color": "#f2cf4a", "alpha": 0.55, "zorder": 2}
        ax.add_patch(Wedge(spot, 0.17 * reach, camera.look - 28, camera.look + 28, **view))
        ax.plot(*spot, "o", color=colour if number in order else "0.4", markersize=8, zorder=4)
        k, parts, half = order.get(number), [], np.array([3.2 * len(camera.name), 7.0])  # half: of the label, in points
        text = camera.name if k is None else f"{k + 1}. {camera.name}\n{clock(visits[k][1])}"
        if k is not None and pictures is not None:
            picture, half = _picture(pictures[k]), np.array([24.0, 6.5 * size + 12])
            parts = [OffsetImage(picture, zoom=13 * size / len(picture), interpolation="bilinear")]
        font = {"fontsize": FONT, "ha": "center", "fontweight": "normal" if k is None else "bold"}
        parts.append(TextArea(text, multilinebaseline=True, textprops=font))
        near = [spots[b if a == number else a] - spot for a, b in place.links if number in (a, b)]
        ways = np.sort([np.arctan2(y, x) for x, y in near] or [-np.pi / 2])
        gaps = np.diff(ways, append=ways[0] + 2 * np.pi)
        angle = (ways + gaps / 2)[gaps.argmax()]  # where there is most room between the ways
        away = np.array([np.cos(angle), np.sin(angle)])
        away = away * ((half / np.maximum(np.abs(away), 1e-6)).min() + 12)
        label = VPacker(children=parts, align="center", pad=0, sep=2)
        ax.add_artist(AnnotationBbox(label, spot, tuple(away), boxcoords="offset points", frameon=False, zorder=5))
    return figure


def _visits(cams, times) -> list[tuple[int, float]]:
    """(camera, first time) of each visit, from all images of one person in the order of time."""
    return [(int(c), float(t)) for i, (c, t) in enumerate(zip(cams, times, strict=True)) if i == 0 or c != cams[i - 1]]


def timeline(
    times, cams, camera_names: Sequence[str], people: Mapping[str, np.ndarray] | None = None, *, axes=None
) -> Figure:
    """Who was where when: one row per camera, a tick per image, and a line for each of ``people``.

    times [N] seconds since midnight, cams [N] numbers into ``camera_names``; people: name -> boolean mask [N] or
    indices of this person's images.
    """
    times, cams = np.asarray(times, float), np.asarray(cams)
    axes = axes or _axes(7.2, 0.34 * len(camera_names) + 1.0)
    axes.plot(times, cams, "|", color="0.6", markersize=9, markeredgewidth=0.8, zorder=1)
    for k, (name, mine) in enumerate((people or {}).items()):
        mine = np.flatnonzero(mine) if np.asarray(mine).dtype == bool else np.asarray(mine)
        mine = mine[np.argsort(times[mine], kind="stable")]
        beside = 0.18 * (k - (len(people) - 1) / 2)  # companions would hide each other
        style = {"marker": "osD^vPX*"[k % 8], "markersize": 4.5, "linewidth": 1.2, "color": PALETTE[k % len(PALETTE)]}
        axes.plot(times[mine], cams[mine] + beside, label=name, **style)
    axes.set_yticks(range(len(camera_names)), camera_names)
    axes.set(ylim=(len(camera_names) - 0.5, -0.5), xlabel="time of day")
    steps, span = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400), np.ptp(axes.get_xlim())
    axes.xaxis.set_major_locator(MultipleLocator(next((s for s in steps if span / s <= 9), 86400)))
    axes.xaxis.set_major_formatter(FuncFormatter(clock))
    if people:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return axes.figure


def heat_maps(
    images: Sequence, maps: Mapping[str, Sequence], captions: Sequence[str] | None = None, *, size: float = 0.8
) -> Figure:
    """Images [3, H, W] in a row, and below them the same under each of ``maps`` (name -> N maps [h, w]).

    Red is large; each row has one colour scale, from its smallest value (clear) to its largest. size: width of an image
    in inches.
    """
    if wrong := {name: len(rows) for name, rows in maps.items() if len(rows) != len(images)}:
        raise ValueError(f"there are {len(images)} images, but maps for others: {wrong}")
    height, width = _picture(images[0]).shape[:2]
    shape = (len(images) * (size + 0.06) + 0.3, (len(maps) + 1) * (size * height / width + 0.06) + 0.2)
    figure, axes = plt.subplots(len(maps) + 1, len(images), figsize=shape, squeeze=False)
    for row, (name, values) in enumerate({"image": None, **maps}.items()):
        for column, (ax, image) in enumerate(zip(axes[row], images, strict=True)):
            _show(ax, image, captions[column] if captions is not None and not row else None)
            if values is not None:
                values = [np.asarray(value) for value in values]
                ends = {"vmin": np.min(values), "vmax": np.max(values)}
                ax.imshow(values[column], cmap="Reds", alpha=0.65, interpolation="bilinear",
                          extent=(-0.5, width - 0.5, height - 0.5, -0.5), **ends)  # fmt: skip
        axes[row, 0].set_ylabel(name)
    return figure
