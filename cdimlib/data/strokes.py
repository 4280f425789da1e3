"""Line drawings as strokes: a pen that collects them, their dense form, and a rasteriser.

An object is a list of strokes in its own coordinates (x to the right, y *up*, about -1 .. 1). Strokes later in the
list lie nearer to the eye: a ``solid`` one hides what was drawn before it. :func:`densify` turns the strokes of many
drawings into one flat table of points, :func:`rasterise` lays that table on paper. All sums that could depend on an
order of addition are sums of integers, and places are :func:`settled`, so a picture is the same in every batch and on
every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

OUTLINE, DETAIL, TEXTURE = 0, 1, 2
STEP = 0.03  # distance between neighbouring points of a dense stroke, in object coordinates
SLACK = 1e-6  # by which a length may exceed a whole number of steps and still count as that number


def settled(places: np.ndarray) -> np.ndarray:
    """Places on a grid of 2^-24: the last digit of a sine differs between processors (NumPy has one for AVX-512 and
    another for the rest), and where lines meet exactly it would decide what hides what.

    What follows from them up to there is computed by +, -, *, / and square roots alone, which are the same everywhere.
    """
    return np.rint(np.asarray(places) * 2.0**24) / 2.0**24


def length_of(vectors: np.ndarray) -> np.ndarray:
    """Euclidean lengths of vectors [..., 2], the same to the last digit on every machine (``np.hypot`` is not)."""
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


@dataclass
class Stroke:
    """Control points [K, 2]; ``smooth`` joins them by a curve, ``closed`` repeats the first, ``solid`` hides."""

    points: np.ndarray
    kind: int
    part: int
    smooth: bool
    closed: bool
    solid: bool

    def __post_init__(self):
        self.points = settled(self.points)


@dataclass
class Pen:
    """Collects the strokes of one object, seen from ``yaw`` and ``pitch`` (degrees) without perspective."""

    yaw: float = 0.0
    pitch: float = 0.0
    strokes: list[Stroke] = field(default_factory=list)
    part: int = 0
    kind: int = OUTLINE

    def __post_init__(self):
        yaw, pitch = np.radians([self.yaw, self.pitch])
        right = [np.cos(yaw), 0.0, np.sin(yaw)]
        up = [np.sin(pitch) * np.sin(yaw), np.cos(pitch), -np.sin(pitch) * np.cos(yaw)]
        self.camera = np.array([right, up])

    def begin(self, kind: int) -> None:
        """The strokes that follow belong together (a sketcher misplaces a part as a whole)."""
        self.part, self.kind = self.part + 1, kind

    def flat(self, points) -> np.ndarray:
        """[K, 2] or [K, 3] object coordinates -> [K, 2] on the paper."""
        points = np.asarray(points, float)
        return settled(points @ self.camera[:, : points.shape[-1]].T)

    def line(self, points, *, smooth=True, closed=False, solid=False) -> None:
        points = self.flat(points)
        if closed:
            points = np.concatenate([points, points[:1]])
        self.strokes.append(Stroke(points, self.kind, self.part, smooth, closed, solid))

    def solid(self, points, *, smooth=True) -> None:
        self.line(points, smooth=smooth, closed=True, solid=True)

    def ring(self, centre, radius, *, solid=True, corners=10) -> None:
        """A circle (radius) or ellipse (two radii) that faces the viewer."""
        angle = np.arange(corners) * (2 * np.pi / corners) + 0.3
        around = np.stack([np.cos(angle), np.sin(angle)], 1) * np.broadcast_to(radius, 2)
        points = np.concatenate([around, around[:1]]) + self.flat([centre])
        self.strokes.append(Stroke(points, self.kind, self.part, True, True, solid))

    def post(self, start, end, width, taper=1.0) -> None:
        """A straight bar of this width from one point to another; ``taper`` times as wide at its end."""
        a, b = self.flat([start, end])
        across = np.array([a[1] - b[1], b[0] - a[0]]) / (length_of(b - a) + 1e-9) * (width / 2)
        points = np.array([a + across, b + across * taper, b - across * taper, a - across, a + across])
        self.strokes.append(Stroke(points, self.kind, self.part, False, True, True))

    def tube(self, points, width) -> None:
        """A bent bar of this width along a curve."""
        points = self.flat(points)
        along = np.gradient(points, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], 1) / (length_of(along)[:, None] + 1e-9) * (width / 2)
        border = np.concatenate([points + across, (points - across)[::-1]])
        border = np.concatenate([border, border[:1]])
        self.strokes.append(Stroke(border, self.kind, self.part, True, True, True))


@dataclass(frozen=True)
class Dense:
    """Strokes of many drawings as one table of points, in drawing order.

    xy: float64 [P, 2]; stroke: int [P], counted over all drawings; along: float [P], distance from the stroke's
    start; seen: bool [P], not hidden by a nearer solid. Per stroke: image, part (counted over all drawings), kind,
    closed: arrays [S]. ``weight`` [P] is how dark the pen is there.
    """

    xy: np.ndarray
    stroke: np.ndarray
    along: np.ndarray
    seen: np.ndarray
    image: np.ndarray
    part: np.ndarray
    kind: np.ndarray
    closed: np.ndarray
    weight: np.ndarray

    def copies(self, which: np.ndarray) -> Dense:
        """Append a second copy of the strokes for which ``which`` [S] holds."""
        points = which[self.stroke]
        renumber = np.cumsum(which) - 1 + len(self.image)
        both = lambda a, keep: np.concatenate([a, a[keep]])  # noqa: E731
        return replace(
            self, xy=both(self.xy, points), along=both(self.along, points), seen=both(self.seen, points),
            weight=both(self.weight, points), stroke=np.concatenate([self.stroke, renumber[self.stroke[points]]]),
            image=both(self.image, which), part=both(self.part, which), kind=both(self.kind, which),
            closed=both(self.closed, which),
        )

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the first and of the last point of every stroke."""
        cut = np.flatnonzero(np.diff(self.stroke)) + 1
        return np.concatenate([[0], cut]), np.concatenate([cut, [len(self.stroke)]]) - 1


def densify(drawings: list[list[Stroke]]) -> Dense:
    """Points about ``STEP`` apart along every stroke, hidden ones marked."""
    strokes = [s for drawing in drawings for s in drawing]
    counts = np.array([len(s.points) for s in strokes])
    smooth, closed = (np.array([getattr(s, n) for s in strokes]) for n in ("smooth", "closed"))
    control = np.concatenate([s.points for s in strokes])
    owner = np.repeat(np.arange(len(strokes)), counts)
    last = np.cumsum(counts) - 1
    first = last - counts + 1
    here = np.arange(len(control))
    before, after = np.maximum(here - 1, first[owner]), np.minimum(here + 1, last[owner])
    before[first] = np.where(closed, last - 1, first)
    beyond = after.copy()  # the point after the last one of a closed stroke, for its tangent
    beyond[last] = np.where(closed, first + 1, last)

    chord = length_of(control[after] - control)  # length of the segment that starts here (0 at a stroke's end)
    spread = length_of(control[beyond] - control) + length_of(control - control[before])
    tangent = (control[beyond] - control[before]) / (spread[:, None] + 1e-12)
    pieces = np.maximum(1, np.ceil(chord / STEP - SLACK)).astype(int)
    pieces[last] = 1
    at = np.repeat(here, pieces)  # [P] segment of every point
    u = (np.arange(len(at)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / pieces[at]
    p, q, u = control[at], control[after[at]], u[:, None]
    bent = smooth[owner[at]][:, None]
    m = np.where(bent, tangent[at] * chord[at][:, None], q - p)
    n = np.where(bent, tangent[after[at]] * chord[at][:, None], q - p)
    square, cube = u * u, u * u * u
    rise = 3 * square - 2 * cube
    xy = (1 - rise) * p + (cube - 2 * square + u) * m + rise * q + (cube - square) * n

    stroke = owner[at]
    begin = np.searchsorted(stroke, np.arange(len(strokes)))
    along = (np.arange(len(at)) - begin[stroke]) * STEP
    image = np.repeat(np.arange(len(drawings)), [len(d) for d in drawings])
    local = np.array([s.part for s in strokes])
    seen = _seen(xy, stroke, begin, image, strokes)
    return Dense(
        xy, stroke, along, seen, image, image * 64 + local, np.array([s.kind for s in strokes]), closed,
        np.ones(len(xy)),
    )


def _seen(xy, stroke, begin, image, strokes) -> np.ndarray:
    """Which points are outside of every solid that is drawn after them in the same drawing."""
    seen = np.ones(len(xy), bool)
    end = np.append(begin[1:], len(xy))
    start = begin[np.searchsorted(image, image)]  # first point of the drawing that a stroke belongs to
    for number, s in enumerate(strokes):
        if not s.solid or start[number] == begin[number]:
            continue
        border = xy[begin[number] : end[number]] if s.smooth else s.points
        earlier = slice(start[number], begin[number])
        box = ((xy[earlier] > border.min(0)) & (xy[earlier] < border.max(0))).all(1) & seen[earlier]
        index = np.flatnonzero(box) + start[number]
        if len(index):
            seen[index[inside(xy[index], border)]] = False
    return seen


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which of the points [P, 2] lie in the closed polygon [K, 2] (even-odd rule)."""
    (ax, ay), (bx, by) = polygon[:-1].T, polygon[1:].T
    x, y = points[:, :1], points[:, 1:]
    crosses = (ay > y) != (by > y)
    where = ax + (y - ay) * (bx - ax) / np.where(by == ay, 1.0, by - ay)
    return (crosses & (x < where)).sum(1) % 2 == 1


UNIT = 256  # one pixel length of full ink in integer units


def rasterise(dense: Dense, count: int, pixels: int, width: np.ndarray, *, chunk: int = 64) -> Tensor:
    """Lay dense strokes on paper: dark lines on white, uint8 [count, 1, pixels, pixels].

    Coordinates -1 .. 1 span the paper (y up). width: pen width of every drawing [count], in 1/128 of the side.
    Ink is splatted bilinearly along every stroke, spread by a Gaussian of the pen's width and clipped at black.
    """
    here = np.flatnonzero((dense.stroke[1:] == dense.stroke[:-1]) & dense.seen[1:] & dense.seen[:-1])
    place = settled((dense.xy * [1, -1] + 1) * (pixels / 2) - 0.5)
    start, step = place[here], place[here + 1] - place[here]
    length = length_of(step)
    samples = np.maximum(1, np.ceil(length * 2 - SLACK)).astype(int)
    at = np.repeat(np.arange(len(here)), samples)
    u = (np.arange(len(at)) - np.repeat(np.cumsum(samples) - samples, samples) + 0.5) / samples[at]
    point = start[at] + u[:, None] * step[at]
    ink = UNIT * length[at] / samples[at] * dense.weight[here][at]
    image = dense.image[dense.stroke[here]][at]
    order = np.argsort(image, kind="stable")
    cuts = np.searchsorted(image[order], np.arange(0, count + chunk, chunk))
    out = torch.empty(count, 1, pixels, pixels, dtype=torch.uint8)
    for number, begin in enumerate(range(0, count, chunk)):
        pick = order[cuts[number] : cuts[number + 1]]
        size = min(chunk, count - begin)
        canvas = _splat(point[pick], ink[pick], image[pick] - begin, size, pixels)
        out[begin : begin + size, 0] = _develop(canvas, width[begin : begin + size], pixels)
    return out


def _splat(point, ink, image, count, pixels) -> Tensor:
    """Bilinear splat of integer ink, with a border of one pixel for what falls off the paper: int32 [count, S, S]."""
    side = pixels + 2
    canvas = torch.zeros(count * side * side, dtype=torch.int32)
    point = point.clip(-1, pixels - 1e-6) + 1
    low = np.floor(point).astype(np.int64)
    fraction = point - low
    for dy in (0, 1):
        for dx in (0, 1):
            share = (fraction[:, 0] if dx else 1 - fraction[:, 0]) * (fraction[:, 1] if dy else 1 - fraction[:, 1])
            index = (image * side + low[:, 1] + dy) * side + low[:, 0] + dx
            canvas.scatter_add_(0, torch.from_numpy(index), torch.from_numpy(np.rint(share * ink).astype(np.int32)))
    return canvas.view(count, side, side)[:, 1:-1, 1:-1].contiguous()


def _develop(canvas: Tensor, width: np.ndarray, pixels: int) -> Tensor:
    """Spread integer ink by each drawing's pen and turn it into paper: uint8 [n, S, S]."""
    out = torch.empty(canvas.shape, dtype=torch.uint8)
    for pen in np.unique(width):
        pick = torch.from_numpy(np.flatnonzero(width == pen))
        sigma = max(0.42, 0.42 * pen * pixels / 128)  # pixels
        radius = max(1, int(np.ceil(2.5 * sigma)))
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        taps = np.rint(taps / taps.sum() * 32).astype(int)  # integers: every order of addition gives the same sum
        ink = canvas[pick]
        for axis in (1, 2):
            total = torch.zeros_like(ink)
            for tap, shift in zip(taps, range(-radius, radius + 1), strict=True):
                if tap:
                    from_, to = max(0, -shift), max(0, shift)
                    size = pixels - abs(shift)
                    total.narrow(axis, to, size).add_(ink.narrow(axis, from_, size), alpha=int(tap))
            ink = total
        full = UNIT * taps.sum() * taps.max()  # ink on the middle of a straight line
        out[pick] = (255 - torch.clamp(ink * 1.0 * (255 / full), max=255).floor()).to(torch.uint8)
    return out
