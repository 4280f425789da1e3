"""The brush that draws the toy town, and its cameras: backdrops, things that stand in the way, light and lens.

Everything is painted back to front with signed distance functions, for a whole batch of images at a time. Positions and
sizes are worked out in NumPy; pixels see nothing but exactly rounded operations (the four of arithmetic, square root,
minimum), so an image is the same in every batch, and on every device but for rounding.
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


# A shape is (left, right, bottom, top), a function (x, y, *numbers) -> (signed distance, position in it), and numbers.


def ellipse(cx, cy, rx, ry, floor=-9.0) -> tuple:
    """The part of an ellipse above ``floor``."""

    def distance(x, y, cx, cy, rx, ry, floor):
        u, v = (x - cx) / rx, (y - cy) / ry
        k, g = (u * u + v * v).sqrt().clamp(min=1e-3), ((u / rx).square() + (v / ry).square()).sqrt()
        return torch.maximum(k * (k - 1) / (g + 1e-6), floor - y), None

    return (cx - rx, cx + rx, np.maximum(cy - ry, floor), cy + ry), distance, (cx, cy, rx, ry, floor)


def slab(cx, bottom, top, w0, w1, r=0.01, bulge=0.0) -> tuple:
    """A rounded box of half-width ``w0`` at the bottom and ``w1`` at the top; the position is -1 left to 1 right."""

    def distance(x, y, cx, bottom, top, w0, w1, r, bulge):
        t = ((y - bottom) / (top - bottom)).clamp(0, 1)  # [n, h, 1]
        w = w0 + (w1 - w0) * t + bulge * 4 * t * (1 - t)
        dx, dy = (x - cx).abs() - (w - r), (y - (bottom + top) / 2).abs() - ((top - bottom) / 2 - r)
        outside = (dx.clamp(min=0).square() + dy.clamp(min=0).square()).sqrt()
        return outside + torch.maximum(dx, dy).clamp(max=0) - r, (x - cx) / (w + 1e-3)

    w = np.maximum(w0, w1) + np.maximum(bulge, 0)
    return (cx - w, cx + w, bottom, top), distance, (cx, bottom, top, w0, w1, r, bulge)


def limb(*joints) -> tuple:
    """Tapered segments through joints (x, y, radius); the position is 0 at the first joint, 1 at the second, ..."""

    def distance(x, y, *numbers):
        best = place = None
        for i in range(len(joints) - 1):
            ax, ay, ra, bx, by, rb = numbers[3 * i : 3 * i + 6]
            ux, uy = bx - ax, by - ay
            s = (((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy + 1e-9)).clamp(0, 1)
            d = ((x - ax - ux * s).square() + (y - ay - uy * s).square()).sqrt() - (ra + (rb - ra) * s)
            place = s if best is None else torch.where(d < best, s + i, place)
            best = d if best is None else torch.minimum(best, d)
        return best, place

    reach = lambda k, sign: sign * reduce(np.maximum, [sign * j[k] + j[2] for j in joints])  # noqa: E731
    return (reach(0, -1), reach(0, 1), reach(1, -1), reach(1, 1)), distance, tuple(v for j in joints for v in j)


class Canvas:
    """Images [N, 3, H, W], float in 0 .. 1, with a coordinate frame of their own each: x [N, W], y [N, H] (upwards)."""

    def __init__(self, image: Tensor, x: np.ndarray, y: np.ndarray):
        self.image, self.x, self.y = image, x, y
        self.pixel = np.sqrt(np.abs((x[:, 1] - x[:, 0]) * (y[:, 1] - y[:, 0])))  # side of a pixel [N]

    def paint(self, shape: tuple, colour, where=True, *, line=LINE, shade=0.0, alpha=1.0) -> None:
        """Fill a shape in the images ``where`` (bool [N]).

        colour: [3], [N, 3], or a function of (x, y, position, get), where ``get`` makes a tensor of an array [N] or
        [N, 3]. line: width of the darker rim. shade: how much darker the right side is. alpha: opacity, also [N].
        """
        (box, signed_distance, numbers), count, device = shape, len(self.x), self.image.device
        left, right, bottom, top, where, *numbers = (np.broadcast_to(v, (count,)) for v in (*box, where, *numbers))
        near = lambda at, low, high: (  # noqa: E731
            (at > (low - self.pixel)[:, None]) & (at < (high + self.pixel)[:, None]) & where[:, None])
        cols, rows = near(self.x, left, right), near(self.y, bottom, top)  # [N, W], [N, H]
        who = np.flatnonzero(cols.any(1) & rows.any(1))
        if not len(who):
            return
        cols, rows = np.flatnonzero(cols[who].any(0)), np.flatnonzero(rows[who].any(0))
        r, c = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)

        def get(values) -> Tensor:  # [N] -> [n, 1, 1], [N, 3] -> [n, 3, 1, 1]
            values = torch.as_tensor(np.asarray(values)[who].astype(np.float32), device=device)
            return values[..., None, None]

        x, y = get(self.x[:, c])[:, None, :, 0, 0], get(self.y[:, r])[..., 0]  # [n, 1, w], [n, h, 1]
        numbers = np.stack([self.pixel, np.broadcast_to(alpha, (count,)), left + right, right - left, *numbers], 1)
        pixel, alpha, middle, wide, *numbers = get(numbers).unbind(1)  # one transfer for all of them
        distance, place = signed_distance(x, y, *numbers)
        cover = (0.5 - distance / pixel).clamp_(0, 1) * alpha
        fill = colour(x, y, place, get) if callable(colour) else get(np.broadcast_to(colour, (count, 3)))
        if line or shade:
            tone = 1 - 0.42 * (1 + distance / line).clamp_(0, 1) if line else 1.0
            fill = fill * (tone * (1 - shade * (2 * x - middle) / wide))[:, None]
        pick = slice(None) if len(who) == count else torch.as_tensor(who, device=device)
        region = self.image[pick, :, r, c]  # [n, 3, h, w]
        region += (fill - region).mul_(cover[:, None])
        if len(who) < count:
            self.image[pick, :, r, c] = region


# ----------------------------------------------------------------------------------------------------------- backdrops


@dataclass(frozen=True)
class Camera:
    """One camera: where it hangs, what it sees behind people, its light and its lens.

    A box is cut to the person, so how far off people are shows as ``blur``.
    """

    name: str
    x: float  # on the map, metres to the east
    y: float  # and to the north
    look: float  # direction it looks in, degrees (0 east, 90 north)
    scene: str  # parts of the backdrop, back to front: words of SCENES joined by "+"
    ground: str  # colour
    wall: str
    horizon: float = 0.6  # where ground and wall meet, in body heights
    cast: tuple = (1.0, 1.0, 1.0)  # gains of red, green and blue
    clarity: float = 1.0  # of contrast and colours
    blur: float = 0.5  # in pixels of an image of 128 rows
    noise: float = 0.02  # standard deviation, for a white of 1
    tilt: float = 0.0  # how much it looks down on people: 0 level, 0.3 from a roof


SPAN, RISE = 5, 1.2  # size of a backdrop, in widths and heights of an image
# What scenes are made of. Surfaces: whether they lie on the ground, bottom and top above the horizon, width and height
# of a tile, shade of joints, shift of every other row, colour. Rows of boxes and discs: distance between two, place of
# the first, width, bottom, top, how far each is scattered sideways and downwards, colours in turn.
SCENES = {
    "sky": [("tiles", 0, -1, 2, 99, 99, 1, 0, "#bfdcee")], "wall": [("tiles", 0, 0, 0.45, 99, 99, 1, 0, "wall")],
    "brick": [("tiles", 0, 0, 2, 0.13, 0.05, 1.2, 0.5, "wall")],
    "glass": [("tiles", 0, 0, 2, 0.2, 0.3, 0.6, 0, "wall")],
    "hall": [("tiles", 0, 0, 2, 99, 99, 1, 0, "wall"), ("box", 0.42, 0.31, 0.29, 0, 1, 0, 0, "#5d564d")],
    "steps": [("tiles", 0, 0, 0.3, 99, 0.06, 0.7, 0, "wall")],
    "path": [("tiles", 0, -2, -0.4, 99, 99, 1, 0, "#d3c3a0")],
    "paving": [("tiles", 1, -2, 0, 0.2, 0.22, 0.8, 0.5, "ground")],
    "planks": [("tiles", 1, -2, 0, 3, 0.09, 0.75, 0.3, "ground")],
    "lawn": [("tiles", 0, -2, 0, 99, 99, 1, 0, "ground"), ("disc", 0.03, 0, 0.1, -0.03, -0.01, 0.1, 0.7, "ground"),
             ("disc", 0.1, 0, 0.02, -0.06, -0.04, 0.1, 0.6, "#f6f1d0 #f2cf4a #e08aa8")],
    "hedge": [("tiles", 0, -0.03, 0.14, 99, 99, 1, 0, "#3f6f3c"),
              ("disc", 0.06, 0, 0.1, 0.1, 0.16, 0.05, 0.13, "#568c4c")],
    "trees": [("box", 0.36, 0.1, 0.05, -0.02, 0.3, 0, 0, "#6b4c33"),
              ("disc", 0.36, 0.1, 0.4, 0.2, 0.66, 0.02, 0.06, "#4f8a4a")],
    "windows": [("box", 0.5, 0.25, w, 0.28 - h, 0.28 + h, 0, 0, colour)
                for w, h, colour in ((0.24, 0.14, "#e9e4d8"), (0.19, 0.115, "#6f93a8"))],
    "shops": [("box", 0.55, 0.2, 0.36, 0.02, 0.3, 0, 0, "#a9cbd6"), ("box", 0.55, 0.44, 0.1, 0, 0.3, 0, 0, "#5b4a3c"),
              ("box", 0.55, 0.2, 0.42, 0.27, 0.37, 0, 0, "#3c7a6b #d9a441 #46659c #8d5a86 #c2503f"),
              *(("box", 0.55, a, 0.07, 0.27, 0.37, 0, 0, "#f1ede2") for a in (0.06, 0.2, 0.34))],
    "lamps": [("box", 0.8, 0.35, 0.022, -0.05, 0.42, 0, 0, "#3c4348"),
              ("disc", 0.8, 0.35, 0.1, 0.37, 0.47, 0, 0, "#f7efc4")],
    "fountain": [("disc", 1.3, 0.6, 0.7, -0.1, 0.04, 0, 0, "#b9b2a4"),
                 ("disc", 1.3, 0.6, 0.6, -0.07, 0.03, 0, 0, "#7fb9d4"),
                 *(("disc", 1.3, 0.6 + a, 0.04, 0, 0.3 - abs(a), 0, 0, "#eef8fb") for a in (-0.1, -0.04, 0.03, 0.09))],
}


@lru_cache(maxsize=128)
def backdrop(camera: Camera, height: int, width: int) -> Tensor:
    """What a camera sees without people: float [3, 1.2 height, 5 width]. Do not write into it."""
    rng = np.random.default_rng([ord(letter) for letter in camera.name])
    rows, columns, hz, right = round(RISE * height), SPAN * width, camera.horizon, 0.5 * SPAN
    x, y = right * (np.arange(columns) + 0.5) / columns, RISE * (1 - (np.arange(rows) + 0.5) / rows) - 0.06
    canvas = Canvas(torch.zeros(1, 3, rows, columns), x[None], y[None])

    def tiles(lying, low, high, wide, tall, joint, shift, colour):
        def fill(x, y, place, get):
            depth = 0.35 / (hz + 0.3 - y) if lying else 1 + 0 * y  # tiles shrink towards the horizon
            u, v = (x - right / 2) * depth / wide + 0.3, (depth * 3 if lying else y) / tall
            u = u + shift * v.floor().remainder(2)
            stone = 0.07 * ((u.floor() * 7 + v.floor() * 13).remainder(5) / 5 - 0.4) * (joint != 1)
            lines = ((u - u.round()).abs() < 0.035) | ((v - v.round()).abs() < 0.05)
            return get(rgb(colour)[None]) * (1 + stone + (joint - 1) * lines)[:, None]

        canvas.paint(slab(right / 2, hz + low, hz + high, right, right, 0.0), fill, line=0.012 * (not lying))

    for part in ("sky", *camera.scene.split("+")):
        if part not in SCENES:
            raise ValueError(f"camera {camera.name!r}: no {part!r} to put in a scene; choose from {', '.join(SCENES)}")
        for kind, *numbers, colours in SCENES[part]:
            colours = [getattr(camera, colour, colour) for colour in colours.split()]
            if kind == "tiles":
                tiles(*numbers, colours[0])
                continue
            step, first, wide, low, high, aside, below = numbers
            for i, cx in enumerate(np.arange(first, right, step)):
                dx, dy, tone = rng.uniform((-aside, -below, 0.85), (aside, 0, 1.15))
                box = slab(cx, hz + low, hz + high, wide / 2, wide / 2)
                disc = ellipse(cx + dx, hz + dy + (low + high) / 2, wide / 2, (high - low) / 2)
                canvas.paint(box if kind == "box" else disc, rgb(colours[i % len(colours)]) * (tone if aside else 1),
                             shade=0.1, line=0.006 * (wide > 0.02 and aside < 0.1))
    return canvas.image[0]


# Things that stand in the way. Boxes: middle, half-widths below and above, bottom, top. Discs: middle, height, radius.
# Rods: thickness, then points.
_WHEEL = [(0.135 * np.cos(t), 0.07 + 0.135 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 10)]
THINGS = {
    "bin": [("box", "#4d6b57", 0, 0.105, 0.13, -0.08, 0.36), ("box", "#3a5243", 0, 0.145, 0.145, 0.34, 0.40),
            ("box", "#e8e3d2", 0, 0.06, 0.06, 0.16, 0.24)],
    "bench": [*(("box", "#3b3b3f", x, 0.018, 0.018, -0.08, 0.2) for x in (-0.2, 0.2)),
              *(("box", "#a8743f", 0, 0.27, 0.27, y, y + 0.055) for y in (0.16, 0.24, 0.31))],
    "planter": [*(("disc", "#4b8a4f", x, y, 0.09) for x, y in ((-0.09, 0.33), (0.08, 0.34), (0, 0.42), (0, 0.25))),
                *(("disc", "#ef9fb4", x, y, 0.018) for x, y in ((-0.09, 0.36), (0.06, 0.3), (0.02, 0.45))),
                ("box", "#b5754f", 0, 0.12, 0.15, -0.08, 0.19)],
    "bicycle": [*(("rod", "#2b2b2f", 0.012, [(x + dx, y) for dx, y in _WHEEL]) for x in (-0.2, 0.2)),
                ("rod", "#c2503f", 0.01, [(0, 0.08), (-0.2, 0.07), (-0.07, 0.28), (0.13, 0.3), (0, 0.08), (-0.1, 0.3)]),
                ("rod", "#c2503f", 0.011, [(0.2, 0.07), (0.12, 0.36), (0.18, 0.38)]),
                ("rod", "#2b2b2f", 0.014, [(-0.13, 0.32), (-0.04, 0.32)])],
}
OCCLUDERS = (*THINGS, "passer-by")


def occlude(canvas: Canvas, kind: np.ndarray, side: np.ndarray) -> None:
    """Paint what stands between camera and person; kind: words [N] (of THINGS, or others: nothing); side: its x [N]."""
    for name in set(kind) & set(THINGS):
        for form, colour, *n in THINGS[name]:
            if form == "rod":
                shape = limb(*((side + x, y, n[0]) for x, y in n[1]))
            elif form == "disc":
                shape = ellipse(side + n[0], n[1], n[2], n[2])
            else:
                shape = slab(side + n[0], n[3], n[4], n[1], n[2])
            canvas.paint(shape, rgb(colour), kind == name, line=0 if form == "rod" else LINE, shade=0.12)


@lru_cache(maxsize=8)
def _grain(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(7).standard_normal((3, 2 * height, 2 * width), dtype=np.float32))


def expose(image: Tensor, gain, clarity, blur, noise, place) -> Tensor:
    """Light, lens and sensor: float [N, 3, H, W] in 0 .. 1 -> uint8.

    gain: [N, 3]. clarity (contrast and saturation), noise: [N]. blur: sigma in pixels [N]. place: [N, 2] in 0 .. 1,
    which piece of a sheet of grain lies on each image.
    """
    n, _, height, width = image.shape
    put = lambda v, c=1: torch.as_tensor(v, dtype=torch.float32, device=image.device).reshape(n, c, 1, 1)  # noqa: E731
    grey, clarity = 0.30 * image[:, :1] + 0.59 * image[:, 1:2] + 0.11 * image[:, 2:], put(clarity)
    image = (0.5 + clarity * (grey + clarity * (image - grey) - 0.5)).mul_(put(gain, 3)).clamp_(0, 1)
    reach = max(1, -(-height // 64))  # pixels on either side, whatever the batch
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / np.maximum(blur, 1e-3)[:, None]) ** 2)
    taps /= taps.sum(1, keepdims=True)
    for dim, pad in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded = torch.nn.functional.pad(image, pad, mode="replicate")
        image = sum(put(tap) * padded.narrow(dim, k, image.shape[dim]) for k, tap in enumerate(taps.T))
    rows, columns = (place * [height, width]).astype(int).T
    sheet = _grain(height, width).to(image.device)
    image += put(noise) * torch.stack([sheet[:, r : r + height, c : c + width] for r, c in zip(rows, columns)])
    return image.mul_(255).round_().clamp_(0, 255).byte()
