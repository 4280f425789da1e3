"""Chairs of the toy shop, drawn in space and seen from their front right, a little from above."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from .strokes import DETAIL, OUTLINE, Pen
from .toyshapes import Category, arc


def draw_chair(pen: Pen, p: SimpleNamespace) -> None:
    """A chair in space: x to its right, y up, z towards its front; the floor is y = 0."""
    w, d, y, t = p.width, p.depth, p.seat_height, p.thick
    _chair_legs(pen, p, w, d, y)
    _chair_back(pen, p, w, d, y)
    pen.begin(OUTLINE)
    if p.seat_shape == "round":
        ring = [(w * c, y, d * s) for c, s in arc((0, 0), (1, 1), 0, 330, 12)]
        low = [(w * c, y - t, d * s) for c, s in arc((0, 0), (1, 1), 170, 370, 9)]
        pen.solid([*low, (w, y, 0.0)][:-1] + ring[:1] + ring[::-1][:1])
        pen.solid(ring)
    else:
        flare = 1.12 if p.seat_shape == "flared" else 1.0
        corners = [(-w, -d), (w, -d), (w * flare, d), (-w * flare, d)]
        front = [(-w * flare, y, d), (w * flare, y, d), (w * flare, y - t, d), (-w * flare, y - t, d)]
        side = [(w * flare, y, d), (w, y, -d), (w, y - t, -d), (w * flare, y - t, d)]
        left = [(-w * flare, y, d), (-w, y, -d), (-w, y - t, -d), (-w * flare, y - t, d)]
        for face in (left, side, front, [(x, y, z) for x, z in corners]):
            pen.solid(face, smooth=False)
    pen.begin(DETAIL)
    _chair_seat(pen, p, w, d, y)
    for x in (-w, w) if pen.yaw < 0 else (w, -w):
        pen.begin(DETAIL)
        _chair_arm(pen, p, x, d, y)


def _chair_legs(pen, p, w, d, y):
    pen.begin(OUTLINE)
    splay = 1.0 + p.splay
    a, b = w * 0.9, d * 0.9
    corners = [(-a, -b), (a, -b), (a, b), (-a, b)]
    under = y - 0.02
    if p.legs in ("straight", "tapered", "rockers"):
        taper = 0.45 if p.legs == "tapered" else 1.0
        for x, z in corners:
            foot = (x * splay, 0.1 if p.legs == "rockers" else 0.0, z * splay)
            pen.post((x, under, z), foot, p.leg_width * (1.3 if p.legs == "tapered" else 1.0), taper)
        if p.legs == "rockers":
            for x in (-a * splay, a * splay):
                pen.tube([(x, 0.2, -b - 0.35), (x, 0.06, -b), (x, 0.0, 0), (x, 0.06, b), (x, 0.18, b + 0.3)], 0.06)
    elif p.legs == "crossed":
        for z in (-b, b):
            pen.post((-a, under, z), (a, 0, z), p.leg_width)
            pen.post((a, under, z), (-a, 0, z), p.leg_width)
    elif p.legs == "star":
        hub = 0.16
        for k in range(5):
            angle = np.radians(72 * k + 20)
            x, z = 0.62 * np.cos(angle), 0.62 * np.sin(angle)
            pen.post((0, hub + 0.03, 0), (x, 0.09, z), 0.09, 0.6)
            pen.ring((x, 0.04, z), 0.055, corners=7)
        pen.post((0, under, 0), (0, hub, 0), 0.11)
    else:  # sled: two runners
        for x in (-a, a):
            pen.post((x, under, -b), (x, 0, -b), 0.05)
            pen.post((x, under, b), (x, 0, b), 0.05)
            pen.post((x, 0.0, -b - 0.1), (x, 0.0, b + 0.12), 0.06)
    pen.begin(DETAIL)
    low = 0.42 * y
    at = 1 + p.splay * 0.58
    if p.stretcher == "side":
        for x in (-a * at, a * at):
            pen.post((x, low, -b * at), (x, low, b * at), 0.045)
    elif p.stretcher == "front":
        for level in (low, low + 0.13):
            pen.post((-a * at, level, b * at), (a * at, level, b * at), 0.045)
    elif p.stretcher == "ring":
        pen.line([(0.62 * w * c, low, 0.62 * d * s) for c, s in arc((0, 0), (1, 1), 0, 330, 12)], closed=True)
        pen.line([(0.5 * w * c, low, 0.5 * d * s) for c, s in arc((0, 0), (1, 1), 0, 330, 12)], closed=True)


def _chair_back(pen, p, w, d, y):
    """The back leans: a point (u, v) of its plane, u in -1 .. 1 and v in 0 .. 1, stands at ``at(u, v)``."""
    tall, lean, inset = p.back_height, p.lean, 1.0 - p.narrow

    def at(u, v):
        return (u * w * (1 + (inset - 1) * v), y + v * tall, -d - lean * v * tall)

    crown = [at(u, 1 + p.crown * (1 - u * u)) for u in (-1, -0.5, 0, 0.5, 1)]
    pen.begin(OUTLINE)
    if p.back in ("padded", "buttons", "holes"):
        pen.solid([at(-1, 0.08), at(-1.02, 0.5), *crown, at(1.02, 0.5), at(1, 0.08), at(0, 0.04)])
        pen.begin(DETAIL)
        if p.back == "padded":
            small = [at(0.78 * u, 0.9 + p.crown * (1 - u * u)) for u in (-1, 0, 1)]
            pen.line([at(-0.78, 0.2), *small, at(0.78, 0.2)], closed=True)
        elif p.back == "buttons":
            for u, v in ((-0.5, 0.75), (0.5, 0.75), (0, 0.52), (-0.5, 0.3), (0.5, 0.3)):
                pen.ring(at(u, v), 0.028, solid=False, corners=6)
        else:
            for v in (0.35, 0.6, 0.85):
                pen.line([at(-0.55, v), at(-0.6, v + 0.05), at(0, v + 0.07), at(0.6, v + 0.05), at(0.55, v),
                          at(0, v - 0.02)], closed=True)
    else:
        pen.begin(DETAIL)
        _chair_lattice(pen, p, at)
        pen.begin(OUTLINE)
        for u in (-1, 1):
            pen.post(at(u, -0.02), at(u, 1.0), 0.07)
        pen.tube(crown, 0.1)
    pen.begin(DETAIL)
    if p.top == "balls":
        for u in (-1, 1):
            x, high, z = at(u, 1.0)
            pen.ring((x, high + 0.09, z), 0.06, corners=8)
    elif p.top == "headrest":
        x, high, z = at(0, 1 + p.crown)
        pen.solid([(x - 0.62 * w, high + 0.04, z), (x - 0.55 * w, high + 0.22, z), (x, high + 0.26, z),
                   (x + 0.55 * w, high + 0.22, z), (x + 0.62 * w, high + 0.04, z), (x, high + 0.02, z)])
    elif p.top == "handle":
        pen.ring(at(0, 0.93 + p.crown * 0.9), (0.24 * w, 0.035))


def _chair_lattice(pen, p, at):
    if p.back == "slats":
        for u in (-0.6, -0.2, 0.2, 0.6):
            pen.post(at(u, 0.02), at(u, 1.0), 0.05)
    elif p.back == "ladder":
        for v in (0.25, 0.5, 0.75):
            pen.post(at(-1, v), at(1, v), 0.09)
    elif p.back == "cross":
        pen.post(at(-0.95, 0.12), at(0.95, 0.95), 0.06)
        pen.post(at(0.95, 0.12), at(-0.95, 0.95), 0.06)
    elif p.back == "mesh":
        for u in np.linspace(-0.75, 0.75, 6):
            pen.line([at(u, 0.1), at(u, 0.95)])
        for v in np.linspace(0.1, 0.85, 6):
            pen.line([at(-0.95, v), at(0.95, v)])
    elif p.back == "splat":  # a vase between the posts
        left = [at(-0.2, 0.02), at(-0.12, 0.25), at(-0.42, 0.55), at(-0.2, 0.8), at(-0.36, 1.0)]
        pen.solid(left + [at(0.36, 1.0), at(0.2, 0.8), at(0.42, 0.55), at(0.12, 0.25), at(0.2, 0.02)])
    else:  # heart
        heart = [(0, 0.32), (-0.5, 0.6), (-0.45, 0.8), (-0.2, 0.85), (0, 0.72), (0.2, 0.85), (0.45, 0.8), (0.5, 0.6)]
        pen.solid([at(-0.8, 0.15), at(-0.8, 0.97), at(0.8, 0.97), at(0.8, 0.15)], smooth=False)
        pen.line([at(*c) for c in heart], closed=True)


def _chair_seat(pen, p, w, d, y):
    if p.seat == "cushion":
        pen.solid([(-w * 0.9, y + 0.02, d * 0.95), (-w * 0.95, y + 0.12, 0), (-w * 0.85, y + 0.1, -d * 0.85),
                   (w * 0.85, y + 0.1, -d * 0.85), (w * 0.95, y + 0.12, 0), (w * 0.9, y + 0.02, d * 0.95)])
        pen.line([(-w * 0.88, y + 0.07, d * 0.9), (0, y + 0.09, d * 0.98), (w * 0.88, y + 0.07, d * 0.9)])
    elif p.seat == "planks":
        for u in (-0.5, 0, 0.5):
            pen.line([(u * w, y, -d * 0.85), (u * w, y, d * 0.92)])
    elif p.seat == "woven":
        for u in (0.25, 0.5, 0.75):
            pen.line([(-w * u, y, -d * u), (w * u, y, -d * u), (w * u, y, d * u), (-w * u, y, d * u)],
                     smooth=False, closed=True)


def _chair_arm(pen, p, x, d, y):
    high, out = y + p.arm_height, x * 1.08
    if p.arms == "posts":
        pen.post((out, y - 0.02, d * 0.6), (out, high, d * 0.6), 0.055)
        pen.post((out, high, -d - 0.05), (out, high, d * 0.85), 0.07)
    elif p.arms == "loops":
        pen.tube([(out, y - 0.02, -d * 0.5), (out, high * 0.99, -d * 0.75), (out, high + 0.03, 0),
                  (out, high * 0.98, d * 0.8), (out, y - 0.02, d * 0.6)], 0.05)
    elif p.arms == "padded":
        pen.solid([(out, y, -d), (out, high - 0.03, -d), (out, high, d * 0.85), (out, high - 0.1, d), (out, y, d)])
        pen.solid([(out * 1.0, high + 0.04, -d), (out, high + 0.06, d * 0.9), (out, high - 0.05, d * 1.02),
                   (out, high - 0.06, -d)])


CHAIRS = Category(
    "chairs",
    shape={
        "width": (0.36, 0.6), "depth": (0.34, 0.5), "seat_height": (0.6, 1.0), "thick": (0.05, 0.13),
        "back_height": (0.55, 1.15), "lean": (0.0, 0.3), "crown": (0.0, 0.22), "narrow": (-0.15, 0.3),
        "splay": (0.0, 0.3), "leg_width": (0.06, 0.1), "arm_height": (0.3, 0.42),
        "seat_shape": ("square", "flared", "round"),
    },
    details={
        "back": ("slats", "ladder", "cross", "mesh", "splat", "heart", "padded", "buttons", "holes"),
        "legs": ("straight", "tapered", "crossed", "star", "sled", "rockers"),
        "arms": ("plain", "posts", "loops", "padded"),
        "stretcher": ("plain", "side", "front", "ring"),
        "seat": ("plain", "cushion", "planks", "woven"),
        "top": ("plain", "balls", "headrest", "handle"),
    },
    draw=draw_chair, yaw=-28.0, pitch=17.0,
)
