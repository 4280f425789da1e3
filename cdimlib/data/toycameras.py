"""The brush that draws the toy town, and its cameras: backdrops, things that stand in the way, light and lens.

Everything is painted back to front with signed distance functions, for a whole batch of images at a time. Positions and
sizes are worked out in NumPy; pixels see nothing but exactly rounded operations (+, -, *, /, square root, minimum), so
an image is the same in every batch, and the same within one grey level on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
import torch
from torch import Tensor

LINE = 0.010  # width of the dark outline, in body heights


def rgb(colour: str) -> np.ndarray:
    """"#rrggbb" -> float [3] in 0 .. 1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


# ------------------------------------------------------------------------------------------------------------ the brush


@dataclass(frozen=True)
class Shape:
    """A region: ``distance(x, y, *numbers)`` gives (signed distance, position along the shape or None)."""

    box: tuple  # left, right, bottom, top: a number, or one per image [N]
    distance: object
    numbers: tuple


def ellipse(cx, cy, rx, ry, floor=-9.0) -> Shape:
    """The part of an ellipse above ``floor``."""

    def distance(x, y, cx, cy, rx, ry, floor):
        u, v = (x - cx) / rx, (y - cy) / ry
        k, g = (u * u + v * v).sqrt(), ((u / rx) * (u / rx) + (v / ry) * (v / ry)).sqrt()
        return torch.maximum(k * (k - 1) / (g + 1e-6), floor - y), None

    return Shape((cx - rx, cx + rx, np.maximum(cy - ry, floor), cy + ry), distance, (cx, cy, rx, ry, floor))


def slab(cx, bottom, top, w0, w1, r=0.02, bulge=0.0) -> Shape:
    """A rounded box whose half-width goes from ``w0`` at the bottom to ``w1`` at the top."""

    def distance(x, y, cx, bottom, top, w0, w1, r, bulge):
        t = ((y - bottom) / (top - bottom)).clamp(0, 1)  # [n, h, 1]
        dx = (x - cx).abs() - (w0 + (w1 - w0) * t + bulge * 4 * t * (1 - t) - r)
        dy = (y - (bottom + top) / 2).abs() - ((top - bottom) / 2 - r)
        outside = (dx.clamp(min=0).square() + dy.clamp(min=0).square()).sqrt()
        return outside + torch.maximum(dx, dy).clamp(max=0) - r, (x - cx) / (w0 + (w1 - w0) * t + 1e-3)

    w = np.maximum(w0, w1) + np.maximum(bulge, 0)
    return Shape((cx - w, cx + w, bottom, top), distance, (cx, bottom, top, w0, w1, r, bulge))


def limb(*joints) -> Shape:
    """Tapered segments through joints (x, y, radius); the position is 0 at the first joint, 1 at the second, ..."""
    joints = [tuple(np.asarray(v, float) for v in j) for j in joints]

    def distance(x, y, *numbers):
        best = place = None
        for i in range(len(joints) - 1):
            ax, ay, ra, bx, by, rb = numbers[3 * i : 3 * i + 6]
            ux, uy = bx - ax, by - ay
            s = (((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy + 1e-9)).clamp(0, 1)
            ex, ey = x - ax - ux * s, y - ay - uy * s
            d = (ex * ex + ey * ey).sqrt() - (ra + (rb - ra) * s)
            if best is None:
                best, place = d, s
            else:
                place = torch.where(d < best, s + i, place)
                best = torch.minimum(best, d)
        return best, place

    reach = lambda k, sign: sign * reduce(np.maximum, [sign * j[k] + j[2] for j in joints])  # noqa: E731
    box = (reach(0, -1), reach(0, 1), reach(1, -1), reach(1, 1))
    return Shape(box, distance, tuple(v for j in joints for v in j))


class Canvas:
    """Images [N, 3, H, W], float in 0 .. 1, with a coordinate frame of their own each: x [N, W], y [N, H] (upwards)."""

    def __init__(self, image: Tensor, x: np.ndarray, y: np.ndarray):
        self.image, self.x, self.y = image, x, y
        self.pixel = np.sqrt(np.abs((x[:, 1] - x[:, 0]) * (y[:, 1] - y[:, 0])))

    def paint(self, shape: Shape, colour, where=True, *, line=LINE, shade=0.0, alpha=1.0) -> None:
        """Fill a shape in the images ``where`` (bool [N]).

        colour: [3], [N, 3], or a function of (x, y, position, get), where ``get`` makes a tensor of an array [N] or
        [N, 3]. line: width of the darker rim. shade: how much darker the right side is. alpha: opacity, also [N].
        """
        count, device = len(self.x), self.image.device
        where = np.broadcast_to(where, (count,)) & (np.broadcast_to(alpha, (count,)) > 0)
        left, right, bottom, top = (np.broadcast_to(b, (count,))[:, None] for b in shape.box)
        edge = self.pixel[:, None]
        cols = (self.x > left - edge) & (self.x < right + edge) & where[:, None]  # [N, W]
        rows = (self.y > bottom - edge) & (self.y < top + edge) & where[:, None]  # [N, H]
        who = np.flatnonzero(cols.any(1) & rows.any(1))
        if not len(who):
            return
        cols, rows = np.flatnonzero(cols[who].any(0)), np.flatnonzero(rows[who].any(0))
        r, c = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)

        def get(values) -> Tensor:  # [N] -> [n, 1, 1], [N, 3] -> [n, 3, 1, 1]
            values = torch.as_tensor(np.asarray(values)[who].astype(np.float32), device=device)
            return values.reshape(*values.shape, 1, 1)

        spread = lambda v: get(np.broadcast_to(v, (count,)))  # noqa: E731
        x, y = get(self.x)[:, None, c, 0, 0], get(self.y)[:, r, 0]  # [n, 1, w], [n, h, 1]
        distance, place = shape.distance(x, y, *map(spread, shape.numbers))
        cover = (0.5 - distance / spread(self.pixel)).clamp(0, 1) * spread(alpha)
        fill = colour(x, y, place, get) if callable(colour) else get(np.broadcast_to(colour, (count, 3)))
        tone = 1.0
        if line:
            tone = 1 - 0.42 * (1 + distance / line).clamp(0, 1)
        if shade:
            tone = tone * (1 - shade * ((2 * x - spread(right[:, 0] + left[:, 0])) / spread((right - left)[:, 0])))
        fill = fill * (tone[:, None] if line or shade else tone)
        pick = slice(None) if len(who) == count else torch.as_tensor(who, device=device)
        region = self.image[pick, :, r, c]  # [n, 3, h, w]
        region += cover[:, None] * (fill - region)
        if len(who) < count:
            self.image[pick, :, r, c] = region


# ---------------------------------------------------------------------------------------------------------- the cameras


@dataclass(frozen=True)
class Camera:
    """One camera: where it hangs, what it sees behind people, its light and its lens.

    x, y: position on the map, metres. look: direction it looks in, degrees (0 east, 90 north). scene: what is painted
    behind people (see :func:`backdrop`). horizon: where ground and wall meet, in body heights. cast: gains of red,
    green, blue. contrast, saturation: 1 leaves them. blur: in pixels of an image of 128 rows. noise: standard deviation,
    of a white of 1. tilt: how much it looks down on people (0 level, 0.3 from a roof).
    """

    name: str
    x: float
    y: float
    look: float
    scene: str
    ground: str
    wall: str
    horizon: float = 0.6
    cast: tuple = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    saturation: float = 1.0
    blur: float = 0.5
    noise: float = 0.02
    tilt: float = 0.0


SPAN = 5  # width of a backdrop, in image widths
RISE = 1.2  # its height, in image heights


@lru_cache(maxsize=128)
def backdrop(camera: Camera, height: int, width: int) -> Tensor:
    """What a camera sees without people: float [3, 1.2 height, 5 width]. Do not write into it."""
    rng = np.random.default_rng([ord(letter) for letter in camera.name])
    rows, columns = round(RISE * height), SPAN * width
    y = RISE * (1 - (np.arange(rows) + 0.5) / rows)[None] - 0.06
    x = 0.5 * SPAN * ((np.arange(columns) + 0.5) / columns)[None]
    canvas = Canvas(torch.zeros(1, 3, rows, columns), x, y)
    hz, right = camera.horizon, 0.5 * SPAN
    paint = canvas.paint
    flat = lambda bottom, top: slab(right / 2, bottom, top, right, right, 0.0)  # noqa: E731
    box = lambda cx, w, bottom, top, r=0.01: slab(cx, bottom, top, w / 2, w / 2, r)  # noqa: E731
    tones = lambda colour, *by: [rgb(colour) * b for b in by]  # noqa: E731

    def tiled(colour, wide, high, mortar, shift=0.5, perspective=False):
        """Bricks or slabs with joints; in perspective they shrink towards the horizon."""
        base, joint = (torch.tensor(c, dtype=torch.float32)[:, None, None] for c in tones(colour, 1.0, mortar))

        def fill(x, y, place, get):
            depth = 0.35 / (hz + 0.3 - y) if perspective else 1 + 0 * y
            u, v = (x - right / 2) * depth / wide, (depth * 3 if perspective else y) / high
            u = u + shift * (v.floor() - 2 * (v.floor() / 2).floor())
            near = lambda t, w: ((t - t.round()).abs() < w).float()  # noqa: E731
            speck = (u.floor() * 7 + v.floor() * 13).remainder(5) / 5 - 0.4  # every stone a little different
            lines = torch.maximum(near(u, 0.035), near(v + 0 * u, 0.05))
            return (base * (1 + 0.07 * speck) * (1 - lines) + joint * lines)[None] if base.ndim == 3 else base

        return lambda x, y, place, get: fill(x[0], y[0], place, get)

    paint(flat(-0.2, 1.4), rgb("#bfdcee"), line=0)  # sky
    for part in camera.scene.split("+"):
        if part == "wall":
            paint(flat(hz, 1.02), rgb(camera.wall), line=0)
        elif part == "brick":
            paint(flat(hz, 1.3), tiled(camera.wall, 0.13, 0.05, 1.25), line=0)
        elif part == "glass":
            paint(flat(hz, 1.3), tiled(camera.wall, 0.22, 0.3, 0.55, 0), line=0)
        elif part == "windows":
            for cx in np.arange(0.25, right, 0.5):
                paint(box(cx, 0.24, hz + 0.14, hz + 0.42), rgb("#e9e4d8"))
                paint(box(cx, 0.19, hz + 0.165, hz + 0.395), rgb("#6f93a8"), line=0)
        elif part == "shops":
            for i, cx in enumerate(np.arange(0.2, right, 0.55)):
                sign = rgb(("#c2503f", "#3c7a6b", "#d9a441", "#46659c", "#8d5a86")[(i + len(camera.name)) % 5])
                paint(box(cx, 0.36, hz + 0.02, hz + 0.30), rgb("#a9cbd6"))
                paint(box(cx + 0.24, 0.10, hz, hz + 0.30), sign * 0.6)
                for k in range(6):
                    paint(slab(cx - 0.175 + 0.07 * k, hz + 0.27, hz + 0.37, 0.035, 0.03, 0.0), sign if k % 2 else rgb("#f1ede2"),
                          line=0)
        elif part == "trees":
            for cx in rng.uniform(0, right, 7):
                size = rng.uniform(0.16, 0.26)
                paint(box(cx, 0.05, hz - 0.02, hz + 0.3), rgb("#6b4c33"))
                paint(ellipse(cx, hz + 0.42, size, size * 1.05), rgb("#4f8a4a") * rng.uniform(0.8, 1.1), shade=0.2)
        elif part == "hedge":
            paint(flat(hz - 0.03, hz + 0.14), rgb("#3f6f3c"), line=0.02)
            for cx in rng.uniform(0, right, 40):
                paint(ellipse(cx, hz + rng.uniform(0, 0.12), 0.05, 0.03), rgb("#568c4c") * rng.uniform(0.85, 1.1), line=0)
        elif part == "columns":
            paint(flat(hz, 1.3), rgb(camera.wall) * 0.55, line=0)
            for cx in np.arange(0.1, right, 0.42):
                paint(box(cx, 0.13, hz, 1.3), rgb(camera.wall), shade=0.25)
        elif part == "paving":
            paint(flat(-0.2, hz), tiled(camera.ground, 0.2, 0.22, 0.8, 0.5, True), line=0)
        elif part == "planks":
            paint(flat(-0.2, hz), tiled(camera.ground, 3.0, 0.09, 0.75, 0.3, True), line=0)
        elif part == "lawn":
            paint(flat(-0.2, hz), rgb(camera.ground), line=0)
            for cx, cy in zip(rng.uniform(0, right, 90), rng.uniform(-0.1, hz - 0.02, 90)):
                paint(ellipse(cx, cy, 0.05, 0.010), rgb(camera.ground) * rng.uniform(0.82, 1.15), line=0)
            for cx, cy in zip(rng.uniform(0, right, 25), rng.uniform(-0.1, hz - 0.05, 25)):
                paint(ellipse(cx, cy, 0.011, 0.011), rgb(("#f6f1d0", "#f2cf4a", "#e08aa8")[int(60 * cx) % 3]), line=0)
        elif part == "path":
            paint(flat(-0.06, 0.20), rgb("#d3c3a0"), line=0.01)
        elif part == "stairs":
            for k in range(6):
                paint(flat(hz + 0.1 * k - 0.3, hz + 0.1 * k - 0.2), rgb(camera.wall) * (0.8 + 0.05 * k), line=0.02)
        elif part == "fountain":
            for cx in (0.6, 1.9):
                for a in (-0.12, -0.05, 0.05, 0.12):
                    paint(limb((cx, hz + 0.0, 0.008), (cx + a * 0.7, hz + 0.28 - abs(a), 0.01), (cx + a * 1.6, hz + 0.0, 0.008)),
                          rgb("#dff1f7"), line=0)
                paint(ellipse(cx, hz - 0.02, 0.36, 0.06), rgb("#b9b2a4"))
                paint(ellipse(cx, hz - 0.01, 0.31, 0.04), rgb("#7fb9d4"), line=0)
        elif part == "lamps":
            for cx in np.arange(0.35, right, 0.8):
                paint(box(cx, 0.022, hz - 0.05, 1.0), rgb("#3c4348"))
                paint(ellipse(cx, 1.02, 0.05, 0.05), rgb("#f7efc4"))
        else:
            raise ValueError(f"camera {camera.name!r}: unknown part {part!r} of its scene")
    return canvas.image[0]


OCCLUDERS = ("bin", "bench", "planter", "bicycle", "passer-by")


def occlude(canvas: Canvas, kind: np.ndarray, side: np.ndarray) -> None:
    """Paint what stands between camera and person; kind: words [N] of OCCLUDERS or "none"; side: x of its middle [N]."""
    paint = lambda name, shape, colour, **k: canvas.paint(shape, rgb(colour), kind == name, **k)  # noqa: E731
    s = side
    paint("bin", slab(s, -0.08, 0.36, 0.105, 0.13, 0.02), "#4d6b57", shade=0.2)
    paint("bin", slab(s, 0.34, 0.40, 0.145, 0.145, 0.015), "#3a5243")
    paint("bin", slab(s, 0.16, 0.24, 0.06, 0.06, 0.01), "#e8e3d2", line=0)
    for x in (-0.2, 0.2):
        paint("bench", slab(s + x, -0.08, 0.2, 0.018, 0.018, 0.005), "#3b3b3f")
    for y in (0.16, 0.24, 0.31):
        paint("bench", slab(s, y, y + 0.055, 0.27, 0.27, 0.01), "#a8743f")
    for x, y in ((-0.09, 0.33), (0.08, 0.34), (0.0, 0.42), (-0.05, 0.25), (0.07, 0.25)):
        paint("planter", ellipse(s + x, y, 0.085, 0.10), "#4b8a4f", shade=0.2)
    for x, y in ((-0.09, 0.36), (0.06, 0.30), (0.02, 0.45)):
        paint("planter", ellipse(s + x, y, 0.018, 0.018), "#ef9fb4", line=0)
    paint("planter", slab(s, -0.08, 0.19, 0.12, 0.15, 0.015), "#b5754f", shade=0.15)
    for x in (-0.2, 0.2):
        for a, colour in ((0.135, "#2b2b2f"),):
            ring = [(s + x + a * np.cos(t), 0.07 + a * np.sin(t), 0.012) for t in np.linspace(0, 2 * np.pi, 13)]
            paint("bicycle", limb(*ring), colour, line=0)
    frame = [(-0.2, 0.07), (-0.07, 0.28), (0.13, 0.30), (-0.02, 0.08), (-0.07, 0.28), (-0.02, 0.08), (-0.2, 0.07)]
    paint("bicycle", limb(*((s + x, y, 0.011) for x, y in frame)), "#c2503f", line=0)
    paint("bicycle", limb((s + 0.2, 0.07, 0.011), (s + 0.12, 0.36, 0.011), (s + 0.18, 0.38, 0.011)), "#c2503f", line=0)
    paint("bicycle", limb((s - 0.12, 0.32, 0.014), (s - 0.03, 0.32, 0.014)), "#2b2b2f", line=0)


@lru_cache(maxsize=8)
def _grain(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(7).standard_normal((3, 2 * height, 2 * width), dtype=np.float32))


def expose(image: Tensor, colour: dict, blur: np.ndarray, noise: np.ndarray, place: np.ndarray) -> Tensor:
    """Light, lens and sensor: float [N, 3, H, W] in 0 .. 1 -> uint8.

    colour: gain [N, 3], contrast [N], saturation [N]. blur: sigma in pixels [N]. noise: [N]. place: [N, 2] in 0 .. 1,
    where in a sheet of grain each image lies.
    """
    n, _, height, width = image.shape
    put = lambda v, *shape: torch.as_tensor(np.asarray(v, np.float32), device=image.device).reshape(n, *shape)  # noqa: E731
    grey = (0.30 * image[:, 0] + 0.59 * image[:, 1] + 0.11 * image[:, 2])[:, None]
    image = grey + put(colour["saturation"], 1, 1, 1) * (image - grey)
    image = 0.5 + put(colour["contrast"], 1, 1, 1) * (image - 0.5)
    image = (image * put(colour["gain"], 3, 1, 1)).clamp(0, 1)
    reach = max(1, -(-height // 64))  # pixels on either side; does not depend on the batch
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / np.maximum(blur, 1e-3)[:, None]) ** 2)
    taps = put(taps / taps.sum(1, keepdims=True), 2 * reach + 1, 1, 1, 1)
    for dim, size in ((2, height), (3, width)):
        pad = [0, 0, reach, reach] if dim == 2 else [reach, reach, 0, 0]
        wide = torch.nn.functional.pad(image, pad, mode="replicate")
        image = torch.zeros_like(image)
        for k in range(2 * reach + 1):
            image += taps[:, k] * wide.narrow(dim, k, size)
    sheet = _grain(height, width).to(image.device)
    rows, columns = (place * [height, width]).astype(int).T
    grain = torch.stack([sheet[:, r : r + height, c : c + width] for r, c in zip(rows, columns)])
    image += put(noise, 1, 1, 1) * grain
    return (image * 255).round().clamp(0, 255).byte()
