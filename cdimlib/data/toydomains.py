"""The two domains of the toy shop: what an edge detector, and what a hand, makes of the same strokes.

Both take the dense strokes of a batch and one random generator per picture; all numbers of a picture come from its own
generator, so its neighbours in the batch do not matter. Lengths are in half sides of the paper.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .strokes import DETAIL, OUTLINE, TEXTURE, Dense, Stroke, length_of


def _draws(rngs, dense: Dense, per_picture: int, per_stroke: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal numbers per picture [N, a] and per stroke [S, b]."""
    counts = np.bincount(dense.image, minlength=len(rngs))
    picture = np.stack([rng.standard_normal(per_picture) for rng in rngs])
    stroke = np.empty((len(dense.image), per_stroke))
    order = np.argsort(dense.image, kind="stable")
    stroke[order] = np.concatenate(
        [rng.standard_normal((n, per_stroke)) for rng, n in zip(rngs, counts, strict=True)]
    )
    return picture.clip(-2.5, 2.5), stroke.clip(-2.5, 2.5)


def _waves(along: np.ndarray, z: np.ndarray, lengths: tuple[float, ...]) -> np.ndarray:
    """Smooth noise of about unit size along a stroke; ``z`` [P, 2 * waves] holds each wave's size and phase."""
    total = np.zeros_like(along)
    for k, length in enumerate(lengths):
        total += z[:, 2 * k] * np.sin(2 * np.pi * along / length + 3.0 * z[:, 2 * k + 1])
    return total / np.sqrt(len(lengths) / 2)


def _normals(dense: Dense) -> np.ndarray:
    """Unit vectors across the stroke at every point [P, 2]."""
    first, last = dense.ends()
    here = np.arange(len(dense.xy))
    before, after = here - 1, here + 1
    before[first], after[last] = first, last
    along = dense.xy[after] - dense.xy[before]
    return np.stack([-along[:, 1], along[:, 0]], 1) / (length_of(along)[:, None] + 1e-9)


def creases(strokes: list[Stroke], amount: float, rng: np.random.Generator) -> list[Stroke]:
    """Short lines inside the object that only the edge detector sees: folds, shadows, material."""
    count = round(amount * (3 + 5 * rng.random()))
    border = np.concatenate([s.points for s in strokes if s.kind == OUTLINE])
    made = []
    for _ in range(count):
        a, b, c = (border[int(rng.random() * len(border))] for _ in range(3))
        middle = (a + b + c) / 3
        angle, length, bend = 6.283 * rng.random(), 0.06 + 0.16 * rng.random() ** 2, rng.standard_normal()
        along = np.array([np.cos(angle), np.sin(angle)]) * length
        across = np.array([-along[1], along[0]]) * 0.3 * bend
        points = np.stack([middle - along, middle + across, middle + along])
        made.append(Stroke(points, TEXTURE, 63, smooth=True, closed=False, solid=False))
    return made


def as_edges(dense: Dense, shop, rngs) -> tuple[Dense, np.ndarray]:
    """Double lines, broken and faint stretches, a little jitter -> (strokes, pen width of each picture)."""
    _, z = _draws(rngs, dense, 1, 16)
    doubled = (dense.kind != TEXTURE) & (z[:, 0] > 1.5 - 0.9 * min(shop.texture, 2.0)) & (shop.texture > 0)
    originals = len(dense.image)
    dense = dense.copies(doubled)
    z = np.concatenate([z, z[doubled][:, ::-1]])
    copy = np.arange(len(dense.image)) >= originals
    p = z[dense.stroke]
    is_copy = copy[dense.stroke]
    aside = np.where(is_copy, np.sign(p[:, 2]) * 0.032, 0.0) + 0.0022 * _waves(dense.along, p[:, 3:7], (0.23, 0.1))
    xy = dense.xy + aside[:, None] * _normals(dense)

    wave = _waves(dense.along, p[:, 7:13], (0.9, 0.37, 0.17))
    strength = np.choose(dense.kind, [2.6, 2.0, 1.2])[dense.stroke] - 1.2 * is_copy
    seen = dense.seen & ((wave > -strength / max(shop.broken, 1e-6)) | (shop.broken == 0))
    weight = np.clip(0.95 - 0.18 * is_copy + 0.12 * wave, 0.5, 1.0)
    return replace(dense, xy=xy, seen=seen, weight=weight), np.full(len(rngs), 1.0)


def as_sketch(dense: Dense, shop, rngs) -> tuple[Dense, np.ndarray]:
    """A hand drawing -> (strokes, pen width of each picture).

    In this order: strokes are left out, corners rounded, parts misplaced, lines wobble and overshoot, some are drawn
    twice, and the whole drawing is warped and gets wrong proportions.
    """
    d = shop.distortion
    g, z = _draws(rngs, dense, 28, 26)
    pen = np.choose(((g[:, 27] + 2.5) / 5.001 * 3).astype(int), [1.1, 1.3, 1.6])
    twice = (z[:, 0] > 1.35) & (dense.kind == OUTLINE) & (d > 0)
    dense = replace(dense, xy=_rounded(dense, np.rint(6 * d * np.abs(g[:, 26])).astype(int)))
    originals = len(dense.image)
    dense = dense.copies(twice)
    z = np.concatenate([z, z[twice][:, ::-1]])
    copy = np.arange(len(dense.image)) >= originals
    p, picture = z[dense.stroke], dense.image[dense.stroke]

    xy = _misplaced(dense, d, rngs) + 0.010 * d * p[:, 1:3]
    length = dense.along[dense.ends()[1]][dense.stroke] + 1e-9
    wobble = _waves(dense.along, p[:, 3:9], (1.7, 0.8, 0.37)) * np.minimum(1.0, 0.4 + 0.6 * length)
    aside = 0.011 * d * wobble + np.where(copy[dense.stroke], 0.02, 0.0) * d
    drift = 0.05 * d * np.minimum(length, 1.0)[:, None] * p[:, 9:11] * (dense.along / length - 0.5)[:, None] ** 3 * 4
    xy = xy + aside[:, None] * _normals(dense) + drift
    xy = _overshot(replace(dense, xy=xy), 0.04 * d * np.abs(z[:, 11:13]) * ~dense.closed[:, None])
    xy = _warped(xy, g[picture], d)
    reach = np.full(len(rngs), 0.95)
    np.maximum.at(reach, picture, np.abs(xy).max(1))
    xy = xy * (0.95 / reach)[picture, None]  # what does not fit the paper is drawn smaller

    leave_out = (_uniform(z[:, 13]) < shop.dropped) & (dense.kind == DETAIL)
    weight = np.clip(0.92 + 0.10 * _waves(dense.along, p[:, 14:18], (1.3, 0.5)), 0.6, 1.0)
    return replace(dense, xy=xy, seen=dense.seen & ~leave_out[dense.stroke], weight=weight), pen


def _uniform(z: np.ndarray) -> np.ndarray:
    """Standard normal -> about uniform in 0 .. 1 (logistic approximation of the normal distribution function)."""
    return 1 / (1 + np.exp(-1.702 * z))


def _rounded(dense: Dense, times: np.ndarray) -> np.ndarray:
    """Move every point towards the middle of its neighbours, ``times`` [N] over per picture; ends stay."""
    first, last = dense.ends()
    xy, here = dense.xy.copy(), np.arange(len(dense.xy))
    inner = np.ones(len(xy), bool)
    inner[first] = inner[last] = False
    rounds = times[dense.image[dense.stroke]]
    for turn in range(times.max(initial=0)):
        move = here[inner & (rounds > turn)]
        xy[move] = 0.5 * xy[move] + 0.25 * (xy[move - 1] + xy[move + 1])
    return xy


def _misplaced(dense: Dense, d: float, rngs) -> np.ndarray:
    """Every part shifted, turned and scaled around its own middle; outlines less than details."""
    z = np.stack([rng.standard_normal((64, 4)).clip(-2.5, 2.5) for rng in rngs]).reshape(-1, 4)
    part = dense.part[dense.stroke]
    size = np.bincount(part, minlength=len(z)).astype(float).clip(1)
    middle = np.stack([np.bincount(part, weights=dense.xy[:, k], minlength=len(z)) / size for k in (0, 1)], 1)[part]
    loose = np.choose(dense.kind, [0.35, 1.0, 1.0])[dense.stroke]
    shift, angle, zoom = 0.022 * z[part, :2], 0.07 * z[part, 2], 0.08 * z[part, 3]
    angle, zoom, shift = d * loose * angle, np.exp(d * loose * zoom), d * loose[:, None] * shift
    x, y = (dense.xy - middle).T
    turned = np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], 1)
    return middle + zoom[:, None] * turned + shift


def _overshot(dense: Dense, by: np.ndarray) -> np.ndarray:
    """Lengthen open strokes beyond their first and last point: ``by`` [S, 2]."""
    first, last = dense.ends()
    xy = dense.xy.copy()
    for tip, inner, column in ((first, np.minimum(first + 2, last), 0), (last, np.maximum(last - 2, first), 1)):
        out = dense.xy[tip] - dense.xy[inner]
        xy[tip] += out / (length_of(out)[:, None] + 1e-9) * by[:, column : column + 1]
    return xy


def _warped(xy: np.ndarray, g: np.ndarray, d: float) -> np.ndarray:
    """Wrong proportions for the whole drawing and a smooth warp of a few long waves; ``g`` [P, 28]."""
    aspect, angle, shear = 0.14 * d * g[:, 0], 0.09 * d * g[:, 1], 0.08 * d * g[:, 2]
    zoom = np.exp(-0.19 * d * np.abs(g[:, 3]))
    x, y = xy[:, 0] * np.exp(aspect / 2) * zoom, xy[:, 1] * np.exp(-aspect / 2) * zoom
    x = x + shear * y
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    moved = np.stack([x, y], 1) + 0.09 * d * g[:, 4:6]
    for k in range(4):  # wave k bends across one axis; about half to one and a half waves per side
        z = g[:, 6 + 5 * k : 11 + 5 * k]
        phase = (1.6 * z[:, 0] * x + 1.6 * z[:, 1] * y) + (2.2 + 0.8 * k) * (x if k % 2 else y) + 3 * z[:, 2]
        moved = moved + 0.024 * d * z[:, 3:5] * np.sin(phase)[:, None]
    return moved
