"""Handbags of the toy shop, seen from the front."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from .strokes import DETAIL, OUTLINE, Pen
from .toyshapes import Category, bow


def draw_bag(pen: Pen, p: SimpleNamespace) -> None:
    """A handbag from the front, a little from above."""
    top, bottom, high = p.top_width, p.bottom_width, p.height
    body = _bag_body(top, bottom, high, p.body)
    depth = p.depth
    pen.begin(DETAIL)
    _bag_handle(pen, p, top, high, behind=True)
    pen.begin(OUTLINE)
    pen.solid([(x * 0.97 + depth, y + 0.6 * depth, -0.2) for x, y in body], smooth=True)
    pen.solid([(x, y, 0) for x, y in body])
    if p.body != "pouch":
        pen.line([(top, high, 0), (top * 0.97 + depth, high + 0.6 * depth, -0.2)])
        pen.line([(-top, high, 0), (-top * 0.97 + depth, high + 0.6 * depth, -0.2)])
    wide = lambda v: bottom + (top - bottom) * v  # noqa: E731  half width at height v * high
    for part in (_bag_base, _bag_pattern, _bag_pocket, _bag_flap, _bag_clasp):
        pen.begin(DETAIL)
        part(pen, p, wide, high)
    pen.begin(DETAIL)
    _bag_handle(pen, p, top, high, behind=False)
    pen.begin(DETAIL)
    _bag_charm(pen, p, top, high)


def _bag_body(top, bottom, high, kind):
    if kind == "box":
        r = 0.07
    elif kind == "soft":
        r = 0.22
    else:  # pouch: a round sack
        belly = max(bottom, top) * 1.12
        return [(-top * 0.75, high), (-belly * 0.93, high * 0.62), (-belly, high * 0.35), (-belly * 0.8, high * 0.06),
                (0, -0.02), (belly * 0.8, high * 0.06), (belly, high * 0.35), (belly * 0.93, high * 0.62),
                (top * 0.75, high), (0, high * 0.97)]
    s = 0.03 if kind == "box" else 0.06
    return [(-top, high), (-top - s * 0.2, high - 0.06), (-bottom - s, high * 0.4), (-bottom, r),
            (-bottom + 0.3 * r, 0.3 * r), (-bottom + r, 0), (0, -s * 0.3), (bottom - r, 0),
            (bottom - 0.3 * r, 0.3 * r), (bottom, r), (bottom + s, high * 0.4), (top + s * 0.2, high - 0.06),
            (top, high), (0.5 * top, high - s * 0.4), (-0.5 * top, high - s * 0.4)]


def _bag_handle(pen, p, top, high, *, behind):
    y, reach = high - (0.0 if behind else 0.14), p.handle_height
    span = top * p.handle_span
    shift = (0.07, 0.05) if behind else (0, 0)
    arch = [(-span, y), (-span * 0.97, y + 0.55 * reach), (-0.6 * span, y + 0.92 * reach), (0, y + reach),
            (0.6 * span, y + 0.92 * reach), (span * 0.97, y + 0.55 * reach), (span, y)]
    arch = [(px + shift[0], py + shift[1]) for px, py in arch]
    if p.handle == "tote":
        pen.tube(arch, 0.05)
        if not behind:
            for x in (-span, span):
                pen.ring((x, y), 0.035, corners=6)
    elif behind:
        if p.handle == "top":
            pen.tube(arch, 0.09)
        elif p.handle == "chain":
            links = 15
            for k in range(links + 1):
                a = np.pi * k / links
                pen.ring((-0.9 * top * np.cos(a), high + 1.15 * reach * np.sin(a)), (0.045, 0.035), corners=6)
        elif p.handle == "strap":
            pen.tube([(-top * 0.98, high - 0.1), (-top * 0.8, high + 0.75 * reach), (-0.1, high + 1.3 * reach),
                      (top * 0.7, high + 0.85 * reach), (top * 0.98, high - 0.1)], 0.06)
        elif p.handle == "rings":
            for x in (-0.45 * top, 0.45 * top):
                pen.ring((x, high + 0.22), (0.2, 0.25))
                pen.ring((x, high + 0.22), (0.14, 0.19))
    elif p.handle == "top":
        for x in (-span, span):
            pen.solid([(x - 0.07, y + 0.16), (x + 0.07, y + 0.16), (x + 0.05, y), (x - 0.05, y)], smooth=False)


def _bag_base(pen, p, wide, high):
    if p.base == "band":
        pen.line([(-wide(0.2) - 0.02, 0.2 * high), (0, 0.185 * high), (wide(0.2) + 0.02, 0.2 * high)])
    elif p.base == "feet":
        for x in (-0.7, 0.7):
            pen.solid([(x * wide(0) - 0.05, 0.0), (x * wide(0) + 0.05, 0.0), (x * wide(0) + 0.04, -0.08),
                       (x * wide(0) - 0.04, -0.08)], smooth=False)
    elif p.base == "corners":
        for side in (-1, 1):
            pen.line([(side * (wide(0.3) + 0.03), 0.3 * high), (side * 0.72 * wide(0.2), 0.24 * high),
                      (side * 0.6 * wide(0), 0.0)])


def _bag_pattern(pen, p, wide, high):
    if p.pattern == "quilted":
        for k in np.linspace(-1.2, 1.2, 7):
            for lean in (-1, 1):
                u = np.linspace(0.06, 0.86, 12)
                x = k + lean * (u - 0.46) * 0.9
                keep = np.abs(x) < 0.93
                if keep.sum() > 2:
                    pen.line(np.stack([x * [wide(v) for v in u], u * high], 1)[keep], smooth=False)
    elif p.pattern == "stripes":
        for v in (0.3, 0.42, 0.62, 0.74):
            pen.line([(-wide(v) - 0.02, v * high), (0, v * high - 0.02), (wide(v) + 0.02, v * high)])
    elif p.pattern == "seams":
        for side in (-1, 1):
            pen.line([(side * 0.62 * wide(1), high * 0.98), (side * 0.66 * wide(0.5), high * 0.5),
                      (side * 0.58 * wide(0), 0.01)])
    elif p.pattern == "stitches":
        for v in np.linspace(0.12, 0.9, 8):
            for side in (-1, 1):
                pen.line([(side * (wide(v) - 0.07), v * high - 0.035), (side * (wide(v) - 0.07), v * high + 0.035)])


def _bag_pocket(pen, p, wide, high):
    if p.pocket == "patch":
        x, v = 0.55 * wide(0.3), 0.48 * high
        pen.solid([(-x, v), (-x, 0.1 * high), (x, 0.1 * high), (x, v)], smooth=False)
        pen.line([(-x, v - 0.07), (x, v - 0.07)])
    elif p.pocket == "zip":
        x, v = 0.6 * wide(0.4), 0.4 * high
        pen.line([(-x, v), (x, v)])
        pen.line([(-x, v - 0.035), (x, v - 0.035)])
        pen.solid([(x - 0.02, v - 0.02), (x + 0.03, v - 0.13), (x - 0.05, v - 0.13)], smooth=False)
    elif p.pocket == "two":
        for side in (-1, 1):
            x = side * 0.48 * wide(0.3)
            pen.solid([(x - 0.19, 0.42 * high), (x - 0.18, 0.12 * high), (x + 0.18, 0.12 * high),
                       (x + 0.19, 0.42 * high)], smooth=False)
            pen.line([(x - 0.19, 0.42 * high), (x, 0.33 * high), (x + 0.19, 0.42 * high)], smooth=False)


def _bag_flap(pen, p, wide, high):
    top = wide(1.0) + 0.03
    if p.flap == "straight":
        pen.solid([(-top, high + 0.01), (top, high + 0.01), (wide(0.6) + 0.02, 0.6 * high),
                   (-wide(0.6) - 0.02, 0.6 * high)], smooth=False)
    elif p.flap == "curved":
        pen.solid([(-top, high), (0, high + 0.02), (top, high), (0.85 * top, 0.7 * high), (0.4 * top, 0.56 * high),
                   (0, 0.53 * high), (-0.4 * top, 0.56 * high), (-0.85 * top, 0.7 * high)])
    elif p.flap == "envelope":
        pen.solid([(-top, high), (top, high), (0.04, 0.45 * high), (-0.04, 0.45 * high)], smooth=False)
    elif p.flap == "rim":
        pen.line([(-wide(0.88) - 0.02, 0.86 * high), (0, 0.84 * high), (wide(0.88) + 0.02, 0.86 * high)])


def _bag_clasp(pen, p, wide, high):
    low = {"straight": 0.6, "curved": 0.53, "envelope": 0.47, "rim": 0.85, "plain": 0.86}[p.flap] * high
    if p.clasp == "button":
        pen.ring((0, low + 0.03), 0.06, corners=8)
        pen.ring((0, low + 0.03), 0.02, solid=False, corners=5)
    elif p.clasp == "lock":
        pen.solid([(-0.09, low + 0.08), (0.09, low + 0.08), (0.09, low - 0.08), (-0.09, low - 0.08)], smooth=False)
        pen.line([(0, low + 0.03), (0, low - 0.04)])
    elif p.clasp == "tongue":
        pen.solid([(-0.07, high + 0.02), (0.07, high + 0.02), (0.07, low - 0.1), (0, low - 0.17), (-0.07, low - 0.1)],
                  smooth=False)
        pen.ring((0, low - 0.05), 0.025, solid=False, corners=5)
    elif p.clasp == "bow":
        bow(pen, 0, low + 0.02, 0.2)
    elif p.clasp == "balls":
        for x in (-0.05, 0.05):
            pen.ring((x, high + 0.06), 0.055, corners=7)


def _bag_charm(pen, p, top, high):
    x, y = -0.72 * top, high - 0.05
    if p.charm == "tassel":
        pen.line([(x, y + 0.02), (x - 0.02, y - 0.15)])
        pen.ring((x - 0.02, y - 0.18), 0.045, corners=6)
        pen.solid([(x - 0.06, y - 0.21), (x - 0.1, y - 0.46), (x + 0.07, y - 0.46), (x + 0.02, y - 0.21)],
                  smooth=False)
        for k in (-0.05, 0.0, 0.04):
            pen.line([(x + 0.5 * k - 0.02, y - 0.23), (x + k, y - 0.45)])
    elif p.charm == "tag":
        pen.line([(x, y + 0.02), (x + 0.02, y - 0.12)])
        pen.solid([(x - 0.07, y - 0.15), (x + 0.02, y - 0.1), (x + 0.1, y - 0.15), (x + 0.1, y - 0.4),
                   (x - 0.07, y - 0.4)], smooth=False)
    elif p.charm == "heart":
        pen.line([(x, y + 0.02), (x, y - 0.14)])
        pen.solid([(x, y - 0.2), (x + 0.07, y - 0.15), (x + 0.12, y - 0.23), (x, y - 0.38), (x - 0.12, y - 0.23),
                   (x - 0.07, y - 0.15)])


HANDBAGS = Category(
    "handbags",
    shape={
        "top_width": (0.5, 0.95), "bottom_width": (0.6, 1.0), "height": (0.75, 1.3), "depth": (0.03, 0.2),
        "handle_height": (0.35, 0.75), "handle_span": (0.42, 0.72), "body": ("box", "soft", "pouch"),
    },
    details={
        "handle": ("top", "tote", "chain", "strap", "rings"),
        "flap": ("plain", "straight", "curved", "envelope", "rim"),
        "clasp": ("plain", "button", "lock", "tongue", "bow", "balls"),
        "pocket": ("plain", "patch", "zip", "two"),
        "pattern": ("plain", "quilted", "stripes", "seams", "stitches"),
        "base": ("plain", "band", "feet", "corners"),
        "charm": ("plain", "tassel", "tag", "heart"),
    },
    draw=draw_bag, pitch=6.0,
)
