"""Shoes of the toy shop, seen from the side with the toe to the left."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np

from .strokes import DETAIL, OUTLINE, Pen
from .toyshapes import Category, bow, mix


def draw_shoe(pen: Pen, p: SimpleNamespace) -> None:
    """A shoe from its side, toe to the left."""
    h, t = p.heel_height, p.sole
    lift = 0.03 + 0.05 * p.toe_round
    boot = p.shaft > 0.55
    top = h + (0.8 + 0.9 * (p.shaft - 0.55) / 0.45 if boot else 0.50 + 0.25 * p.shaft)
    back = (0.97, h + t)
    front_y = top if boot else 0.40 + 0.2 * p.shaft + 0.25 * h + t
    throat = (0.16 if boot else p.throat, front_y)
    rim = (0.93 if boot else 0.99, top)
    tip = (-1.0, lift + t + 0.05)
    nose = (-0.97 + 0.05 * (1 - p.toe_round), lift + t + 0.06 + 0.2 * p.toe_round)
    vamp = (-0.62, 0.22 + t + 0.15 * p.toe_round + 0.05 * h)
    instep = (-0.2, 0.46 + t + 0.2 * h) if boot else mix(vamp, throat, 0.55)
    dip = ((throat[0] + rim[0]) / 2, (throat[1] + rim[1]) / 2 - (0.07 if boot else 0.12 + 0.4 * (top - h - 0.4)))
    far = ((throat[0] + rim[0]) / 2, (throat[1] + rim[1]) / 2 + (0.07 if boot else -0.02))

    _shoe_heel(pen, p, h, t)
    pen.begin(OUTLINE)  # the far rim of the opening, then the upper over it
    pen.line([throat, far, rim])
    shin = [(0.06, 0.5 * (instep[1] + throat[1]) + 0.06)] if boot else []
    calf = [(0.90, h + t + 0.55 * (top - h)), (1.0, h + t + 0.18)] if boot else [(1.0, h + t + 0.2)]
    ground = [(0.5, h * 0.85 + t), (0.1, h * 0.42 + t), (-0.4, t), (-0.75, 0.01 + t)]
    pen.solid([tip, nose, vamp, instep, *shin, throat, dip, rim, *calf, back, *ground])
    upper = SimpleNamespace(
        throat=throat, rim=rim, dip=dip, vamp=vamp, instep=instep, tip=tip, back=back, boot=boot, h=h, t=t, nose=nose
    )
    _shoe_sole(pen, p, h, t, lift)
    for part in (_shoe_toe, _shoe_side, _shoe_back, _shoe_front):
        pen.begin(DETAIL)
        part(pen, p, upper)


def _shoe_heel(pen, p, h, t):
    pen.begin(OUTLINE)
    if p.heel == "wedge":
        pen.line([(-0.35, 0.0), (0.2, 0.0), (0.96, 0.0), (0.99, h)], smooth=False)
    elif p.heel == "block":
        pen.line([(0.42, h * 0.78), (0.45, 0), (0.94, 0), (0.99, h)], smooth=False)
        pen.line([(0.45, 0.05), (0.94, 0.05)])
    elif p.heel == "stiletto":
        pen.line([(0.62, h * 0.9), (0.8, h * 0.6), (0.84, 0), (0.91, 0), (0.93, h * 0.5), (0.99, h)])
    else:  # cone
        pen.line([(0.5, h * 0.8), (0.66, 0), (0.88, 0), (0.99, h)], smooth=False)


def _shoe_sole(pen, p, h, t, lift):
    pen.begin(OUTLINE)
    bottom = [(-1.01, lift + 0.02), (-0.78, 0), (-0.4, 0), (0.1, h * 0.42), (0.5, h * 0.85), (0.99, h)]
    over = [(x, y + t) for x, y in reversed(bottom)]
    pen.solid(bottom + over)
    pen.begin(DETAIL)
    along = [mix(a, b, u) for a, b in pairwise(bottom) for u in (0, 0.33, 0.67)]
    if p.tread == "grooves":
        for x, y in along[1:]:
            pen.line([(x, y), (x + 0.015, y + 0.6 * t)])
    elif p.tread == "welt":
        pen.line([(x, y + 0.5 * t) for x, y in along])
    elif p.tread == "teeth":
        zigzag = [(x, y - (0.05 if i % 2 else 0.0)) for i, (x, y) in enumerate(along)]
        pen.line(zigzag, smooth=False)


def _shoe_toe(pen, p, s):
    low = s.t
    if p.toe == "cap":
        pen.line([(-0.66, low + 0.02), (-0.6, low + 0.1), mix(s.vamp, s.instep, 0.06)])
    elif p.toe == "wing":
        mid = mix(s.vamp, s.instep, 0.42)
        pen.line([(-0.12, low + 0.02), (-0.42, low + 0.12), (mid[0] - 0.06, mid[1] - 0.05), (mid[0], mid[1] - 0.01)])
        for i in range(4):
            pen.ring((-0.8 + 0.1 * i, low + 0.13 + 0.015 * i), 0.014, solid=False, corners=5)
    elif p.toe == "peep":
        pen.ring((-0.9, low + 0.12), (0.07, 0.055))
    elif p.toe == "apron":
        mid = mix(s.vamp, s.instep, 0.8)
        pen.line([(mid[0] + 0.1, mid[1] - 0.12), (-0.5, s.vamp[1] - 0.08), (-0.82, s.nose[1] - 0.05),
                  (-0.86, s.nose[1] + 0.02)])


def _shoe_side(pen, p, s):
    x, y = 0.38, s.h * 0.7 + s.t
    tall = s.dip[1] - y
    if p.side == "stripes":
        for i in range(3):
            pen.line([(x - 0.30 + 0.13 * i, y + 0.03), (x - 0.17 + 0.13 * i, y + 0.8 * min(tall, 0.45))])
    elif p.side == "swoosh":
        reach = min(tall, 0.5)
        pen.solid([(x + 0.42, y + 0.75 * reach), (x - 0.1, y + 0.12 * reach), (x - 0.34, y + 0.25 * reach),
                   (x - 0.24, y + 0.02), (x, y + 0.03 * reach)])
    elif p.side == "star":
        r = 0.4 * min(tall, 0.42)
        points = [(x + (r if i % 2 == 0 else 0.45 * r) * np.sin(i * np.pi / 5),
                   y + 0.5 * tall + (r if i % 2 == 0 else 0.45 * r) * np.cos(i * np.pi / 5)) for i in range(10)]
        pen.solid(points, smooth=False)
    elif p.side == "panel":
        pen.line([(x - 0.42, y - 0.02), (x - 0.2, y + 0.55 * tall), (x + 0.06, y + 0.96 * tall)])
        pen.line([(x - 0.34, y - 0.02), (x - 0.13, y + 0.52 * tall), (x + 0.13, y + 0.96 * tall)])
    elif p.side == "zip":
        at = [(x + 0.05 * np.sin(2 * u), y + 0.05 + u * (tall - 0.06)) for u in np.linspace(0, 1, 6)]
        pen.line(at)
        for px, py in at[:-1]:
            pen.line([(px - 0.04, py + 0.03), (px + 0.04, py + 0.03)])


def _shoe_back(pen, p, s):
    x, y = s.back[0], s.back[1]
    if p.back == "counter":
        pen.line([(0.6, s.h * 0.9 + s.t + 0.01), (0.66, y + 0.17), (0.8, y + 0.24), (x + 0.01, y + 0.25)])
    elif p.back == "tab":
        pen.solid([(s.rim[0] - 0.06, s.rim[1] - 0.05), (s.rim[0] - 0.05, s.rim[1] + 0.12),
                   (s.rim[0] + 0.05, s.rim[1] + 0.12), (s.rim[0] + 0.05, s.rim[1] - 0.07)], smooth=False)
    elif p.back == "ankle":  # a strap around the ankle
        if s.boot:
            level = s.rim[1] - 0.3
            pen.solid([(0.13, level), (0.6, level - 0.06), (0.97, level), (0.98, level - 0.1), (0.6, level - 0.16),
                       (0.11, level - 0.1)])
        else:
            level = s.rim[1] + 0.12
            pen.line([(0.97, level - 0.02), (1.0, s.rim[1] - 0.05)])
            pen.ring((0.66, level), (0.34, 0.085))
            pen.ring((0.66, level + 0.015), (0.30, 0.045))
    elif p.back == "collar":
        drop = 0.09
        pen.line([(s.throat[0] + 0.01, s.throat[1] - drop), (s.dip[0], s.dip[1] - drop),
                  (s.rim[0] + 0.02, s.rim[1] - drop)])


def _shoe_front(pen, p, s):
    a, b = s.vamp, s.throat
    if p.front == "laces":
        for i in range(4):
            x, y = mix(mix(s.instep, a, 0.35), b, 0.08 + 0.27 * i)
            pen.line([(x - 0.03, y + 0.035), (x + 0.05, y - 0.03), (x + 0.15, y - 0.10)])
            pen.ring((x + 0.16, y - 0.11), 0.018, solid=False, corners=5)
    elif p.front == "bow":
        x, y = mix(s.instep, b, 0.25) if s.boot else mix(a, b, 0.72)
        bow(pen, x + 0.01, y + 0.01, 0.17)
    elif p.front in ("strap", "buckle"):
        x, y = mix(s.instep, b, 0.2) if s.boot else mix(a, b, 0.6)
        foot = (x + 0.34, s.h * 0.5 + s.t + 0.02)
        pen.solid([(x - 0.03, y + 0.045), (x + 0.12, y), (foot[0] + 0.06, foot[1]), (foot[0] - 0.08, foot[1]),
                   (x, y - 0.09), (x - 0.14, y - 0.02)])
        if p.front == "buckle":
            cx, cy = mix((x, y), foot, 0.5)
            pen.solid([(cx - 0.1, cy + 0.09), (cx + 0.1, cy + 0.09), (cx + 0.1, cy - 0.09), (cx - 0.1, cy - 0.09)],
                      smooth=False)
            pen.line([(cx, cy + 0.09), (cx, cy - 0.09)])
    elif p.front == "tongue":
        pen.solid([(b[0] - 0.2, b[1] - 0.1), (b[0] - 0.15, b[1] + 0.17), (b[0] + 0.03, b[1] + 0.2),
                   (b[0] + 0.1, b[1] - 0.06)], smooth=False)
        pen.line([(b[0] - 0.12, b[1] + 0.1), (b[0] + 0.02, b[1] + 0.13)])
    elif p.front == "fringe":
        for i in range(6):
            x, y = mix(mix(a, s.instep, 0.4), b, 0.05 + 0.18 * i)
            pen.line([(x, y - 0.01), (x + 0.06, y - 0.17)])


SHOES = Category(
    "shoes",
    shape={
        "heel_height": (0.03, 0.7), "toe_round": (0.0, 1.0), "shaft": (0.0, 1.0), "throat": (-0.32, 0.12),
        "sole": (0.05, 0.14), "heel": ("block", "stiletto", "wedge", "cone"),
    },
    details={
        "front": ("plain", "laces", "bow", "strap", "buckle", "tongue", "fringe"),
        "toe": ("plain", "cap", "wing", "peep", "apron"),
        "side": ("plain", "stripes", "swoosh", "star", "panel", "zip"),
        "back": ("plain", "counter", "tab", "ankle", "collar"),
        "tread": ("plain", "grooves", "welt", "teeth"),
    },
    draw=draw_shoe,
)
