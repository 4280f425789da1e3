"""The people of the toy town: what they wear and carry, and how they are drawn.

A :class:`Person` is a handful of words ("brown bob", "red coat", "navy backpack"). :func:`draw` paints them in a frame
of their own (feet at y = 0, the crown of a tall adult at y = 1), from any side: every part has a place sideways, ahead
and upwards, which the view turns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch

from .toycameras import Canvas, ellipse, limb, rgb, slab

COLOURS = {word[:-7]: word[-7:] for word in re.findall(r"\S+", """
    white#f4f1ea cream#eadfc0 yellow#f2c230 mustard#c99a2c orange#ee7f2d rust#b4532a red#d23b35 burgundy#7d2438
    pink#ef9fb4 violet#8e62b0 plum#5a3a63 sky#8cc4e8 blue#3a6fc4 denim#4b6584 navy#26355e mint#a4dcc0 green#4ca64f
    olive#7a7a3a forest#2c5a42 teal#2b8c8c beige#c9b08c brown#75502f grey#9a9a9c charcoal#48494f black#26262b
    chestnut#8a4b2a blond#dcb565 ginger#b8512a silver#a9a7a4 pale#f6d3b8 light#e8b48c tan#c98d62 deep#9a6440 dark#6a4129
""")}
VIVID = "white 1,yellow 1,red 1,sky 1,navy 1,black 1,green 1,pink 1,orange 1"
CHOICES = {  # what there is and how common it is, unless the town has a fashion of its own
    "face": "plain 5,glasses 2,beard 1.5", "hair": "short 5,bob 3,long 3,bun 2,ponytail 2,curly 2,bald 1",
    "pattern": "none 5,stripes 2,checks 1.3,dots 1.3,band 1", "logo": "none 2,disc 1,square 1,heart 1,star 1,bars 1",
    "shoes": "shoes 2,trainers 3,boots 1", "bag": "none 3,backpack 2,handbag 1.5,shoulder bag 2",
    "hat": "none 7,cap 1.5,beanie 1,sun hat 1", "umbrella": "none 30,umbrella 1", "inner": "shirt 1",
}
TINTS = {  # its colours; everything else has those of the town
    "face": "pale 1,light 1,tan 1,deep 1,dark 1", "shoes": "white 3,black 3,brown 2,red 1,navy 1,yellow 0.7",
    "hair": "black 4,brown 4,chestnut 3,blond 3,ginger 1,silver 2,blue 0.2",
    "inner": VIVID, "pattern": VIVID, "logo": VIVID,
}
DETAILS = ("bag", "logo", "shoes", "hat", "pattern")  # lookalikes differ in one of these


@dataclass(frozen=True)
class Person:
    """What one person looks like: a colour and a kind for every part ("red t-shirt"), or "none"."""

    number: int
    height: float  # 1 is tall
    build: float  # 0 slight .. 1 broad
    face: str  # its colour is that of the skin
    hair: str
    top: str
    inner: str  # under a jacket
    pattern: str
    logo: str
    bottom: str
    shoes: str
    bag: str
    hat: str
    umbrella: str
    twin: int = -1  # whose copy this is (-1: nobody's), in all but ``detail``
    detail: str = ""

    def describe(self) -> str:
        """What they wear and carry: "blue t-shirt, white stripes, navy shorts, red trainers, green backpack"."""
        parts = (self.top, self.pattern, self.logo, self.bottom, self.shoes, self.bag, self.hat, self.umbrella)
        return ", ".join(part for part in parts if part != "none")


def choose(options: str, u: float, *, but: str = "", apart: str = "") -> str:
    """The one of "a 3,b 1" (a three times as common) on which ``u`` in 0 .. 1 falls.

    but: an option that does not count; apart: nor do colours too much like this one.
    """
    pairs = [(name, float(weight)) for name, weight in (pair.rsplit(" ", 1) for pair in options.split(","))]
    far = lambda name: np.abs(rgb(COLOURS[name]) - rgb(COLOURS[apart])).sum() > 0.75  # noqa: E731
    pairs = [(name, weight) for name, weight in pairs if name != but and (not apart or far(name))]
    ends = np.cumsum([weight for _, weight in pairs])
    return pairs[np.searchsorted(ends, u * ends[-1], side="right")][0]


def dress_up(number: int, fashion: dict[str, str], rng: np.random.Generator) -> Person:
    """A person at random. ``fashion`` has "top", "bottom" and "colours", and overrides :data:`CHOICES`."""
    table = {**CHOICES, **fashion}
    colours = table.pop("colours")
    build, *u = rng.random((len(table) + 1, 2))
    kind = {part: choose(options, v) for (part, options), (v, _) in zip(table.items(), u)}
    covered = kind["top"] in ("jacket", "coat")
    if kind["top"] == "dress":
        kind["bottom"] = "tights" if build[1] < 0.4 else "none"
    if covered and kind["pattern"] != "checks":
        kind["pattern"] = "none"
    if covered or kind["pattern"] != "none":
        kind["logo"] = "none"
    if kind["umbrella"] != "none":
        kind["hat"] = "none"
    tint = {}
    for part, (_, v) in sorted(zip(kind, u), key=lambda pair: pair[0] not in ("top", "hair")):  # these two first
        apart = "" if part in ("top", "hair", "face", "shoes") else tint["hair" if part == "hat" else "top"]
        tint[part] = choose(TINTS.get(part, colours), v, apart=apart)
    words = {part: what if what == "none" else f"{tint[part]} {what}" for part, what in kind.items()}
    return Person(number, 0.7 if build[0] < 0.1 else 0.82 + 0.18 * build[0], float(build[1]), **words)


def lookalike(twin: Person, number: int, fashion: dict[str, str], rng: np.random.Generator, taken: str = "") -> Person:
    """A copy of ``twin`` in which one of :data:`DETAILS` (but not ``taken``) plainly differs."""
    barred = {taken, *(("logo", "pattern") if twin.top.endswith(("jacket", "coat")) else ())}
    rivals = {"logo": "pattern", "pattern": "logo", "hat": "umbrella"}
    barred |= {one for one, other in rivals.items() if getattr(twin, other) != "none"}
    can = [d for d in DETAILS if d not in barred]
    detail, u, v = can[rng.integers(len(can))], *rng.random(2)
    colour, _, kind = getattr(twin, detail).partition(" ")
    if detail == "shoes":
        colour = choose(TINTS["shoes"], v, apart=colour)
    else:
        kind = choose({**CHOICES, **fashion}[detail], u, but=kind or "none")
        clash = (twin.hair if detail == "hat" else twin.top).split()[0]
        colour = choose(VIVID, v, apart=clash) if colour == "none" else colour
    look = {detail: "none" if kind == "none" else f"{colour} {kind}"}
    return replace(twin, number=number, twin=twin.number, detail=detail, **look)


class Crowd:
    """People as arrays: ``crowd.bag`` is the colour of their bags [N, 3], ``crowd.has("backpack")`` who has one."""

    def __init__(self, people: list[Person]):
        self.kinds = {}
        for f in fields(Person):
            values = [getattr(p, f.name) for p in people]
            if f.type == "str" and f.name != "detail":
                for i, (colour, _, kind) in enumerate(v.partition(" ") for v in values):
                    self.kinds.setdefault(kind or f"no {f.name}", np.zeros(len(people), bool))[i] = True
                    values[i] = rgb(COLOURS.get(colour, "#000000"))
            setattr(self, f.name, np.array(values))

    def has(self, *kinds: str) -> np.ndarray:
        """Who wears or carries one of these: bool [N]."""
        return np.logical_or.reduce([self.kinds.get(kind, np.zeros(len(self.height), bool)) for kind in kinds])


def draw(canvas: Canvas, people: list[Person], view: np.ndarray, phase: np.ndarray) -> None:
    """Paint one person into each image of the canvas.

    view: [N] radians, 0 facing us, pi/2 walking to the right, pi from behind. phase: [N] radians of the walking cycle;
    nan stands still.
    """
    p, s, c, paint, flat = Crowd(people), np.sin(view), np.cos(view), canvas.paint, partial(canvas.paint, line=0)
    h, b, has = p.height, p.build, p.has
    stride, phase = np.where(np.isnan(phase), 0.06, 0.42), np.where(np.isnan(phase), 0.6, phase)
    size = 0.5 + 0.5 * h  # how broad: a child's head is as large as an adult's
    shoulder, hip, depth = (size * (a + d * b) for a, d in ((0.102, 0.034), (0.076, 0.034), (0.062, 0.036)))
    neck, crotch, front, back = h - 0.172, 0.46 * h, c > 0, c <= 0
    far = np.where(s >= 0, 1.0, -1.0)  # which side is away from us: +1 the person's left
    long_top, dress, umbrella = has("coat", "dress"), has("dress"), has("umbrella")
    wide = lambda side, ahead: np.sqrt((side * c) ** 2 + (ahead * s) ** 2)  # half-width of a body part  # noqa: E731
    plain, pixel, ink, thick_top = has("no pattern"), canvas.pixel, rgb("#2a2422"), has("coat", "jacket")

    def cloth(x, y, u, get):
        """The top's colour and pattern; u: place around the body, in body heights."""
        soft = lambda t: (t / get(pixel) + 0.5).clamp(0, 1)  # noqa: E731
        saw = lambda t: (t - t.floor() - 0.5).abs()  # noqa: E731
        worn = lambda name: get(has(name)).to(y.dtype)  # noqa: E731
        rows, columns = (soft((saw(v / 0.054) - 0.25) * 0.054) for v in (y, u))
        v = y / 0.058
        dots = soft((0.3 - (saw(u / 0.058 + 0.5 * v.floor().remainder(2)).square() + saw(v).square()).sqrt()) * 0.058)
        amount = worn("stripes") * rows + worn("checks") * 0.5 * (rows + columns) + worn("dots") * dots
        amount = amount + worn("band") * soft(0.036 - (y - get(neck - 0.13 * h)).abs())
        return get(p.top) + amount[:, None] * (get(p.pattern) - get(p.top))

    def around(x, y, place, get):
        u = place.clamp(-1, 1)
        return cloth(x, y, u * (1 + 0.25 * u * u) * get(shoulder) - get(0.13 * view), get)

    def backpack(there):
        x, w, there = -(depth + 0.045) * s, wide(0.092, 0.058), there & has("backpack")
        paint(slab(x, 0.57 * h, neck - 0.005, w, w * 0.92, 0.035), p.bag, there, shade=0.1)
        paint(slab(x * 1.1, 0.595 * h, 0.69 * h, w * 0.68, w * 0.68), p.bag * 0.85, there & back)

    def hair(there):
        x, w = -0.04 * s, wide(0.076, 0.042)
        paint(slab(x, h - 0.27, h - 0.06, w, w, 0.03), p.hair, there & has("long"), shade=0.1)
        paint(slab(x, h - 0.185, h - 0.05, w * 1.14, w, 0.03), p.hair, there & has("bob"), shade=0.1)
        tail = limb((-0.085 * s, h - 0.06, 0.02), (-0.145 * s, h - 0.13, 0.026), (-0.135 * s, h - 0.2, 0.012))
        paint(tail, p.hair, there & has("ponytail"))
        paint(ellipse(-0.06 * s, np.where(front, h + 0.004, h - 0.03), 0.036, 0.036), p.hair, there & has("bun"))

    bag_x, pole_x = (hip + 0.045) * c, (0.056 - shoulder) * c + 0.115 * s

    def pole(there):
        flat(limb((pole_x, neck - 0.09, 0.006), (pole_x * 0.8, h + 0.12, 0.006)), ink, umbrella & there)

    def hip_bag(there):
        w, there = wide(0.034, 0.064), there & has("shoulder bag")
        for low, tone in ((0.395, 1), (0.455, 0.85)):
            paint(slab(bag_x, low * h, 0.505 * h, w * 1.05, w, 0.012), p.bag * tone, there)

    def arm(side, there):
        swing, lift = -stride * np.sin(phase + (side < 0) * np.pi), umbrella & (side < 0)  # the right hand holds it
        z1, y1 = np.where(lift, 0.02, 0.155 * h * np.sin(swing)), np.where(lift, 0.13 * h, 0.155 * h * np.cos(swing))
        z2 = np.where(lift, 0.115, z1 + 0.15 * h * np.sin(swing + 0.25))
        y2 = np.where(lift, 0.03 * h, y1 + 0.15 * h * np.cos(swing + 0.25))
        out, y0, thick = side * (shoulder - 0.006), neck - 0.036, size * (0.025 + 0.009 * b + 0.006 * thick_top)
        x, y = (out + side * np.where(lift, -0.05, 0.016)) * c + z2 * s, y0 - y2  # hand
        sleeve = np.where(has("t-shirt"), 0.72, np.where(dress, 0.3, 1.78))
        elbow = (out + side * 0.018) * c + z1 * s, y0 - y1
        shape = limb((out * c, y0, thick), (*elbow, thick * 0.94), (x, y, thick * 0.8))

        def colour(px, py, place, get, patterned=False):
            top = cloth(px, py, px - get(x), get) if patterned else get(p.top)
            return torch.where((place < get(sleeve))[:, None], top * 0.95, get(p.face))

        paint(shape, colour, there & plain, shade=0.05)
        paint(shape, partial(colour, patterned=True), there & ~plain, shade=0.05)
        held, w = there & has("handbag") & (side > 0), wide(0.042, 0.075)
        flat(limb((x - w * 0.5, y - 0.07, 0.008), (x, y, 0.008), (x + w * 0.5, y - 0.07, 0.008)), p.bag * 0.7, held)
        paint(slab(x, y - 0.15, y - 0.055, w * 1.1, w * 0.85, 0.015), p.bag, held, shade=0.12)

    def leg(side):
        turn = phase + (side < 0) * np.pi
        swing, bend = stride * np.sin(turn), 2.0 * stride * np.maximum(0, np.cos(turn)) + 0.05
        z1, y1 = 0.235 * h * np.sin(swing), crotch + 0.02 - 0.235 * h * np.cos(swing)  # knee
        z2, y2 = z1 + 0.21 * h * np.sin(swing - bend), y1 - 0.21 * h * np.cos(swing - bend)  # ankle
        y1, y2 = y1 - 0.1 * z1 * c, np.maximum(y2 - 0.1 * z2 * c, 0.035)  # nearer feet are lower in the picture
        x0 = side * size * (0.042 + 0.014 * b) * c
        x1, x2, thick = x0 + z1 * s, x0 + z2 * s, np.where(has("trousers"), 1.0, 0.86) * size
        r0, r2 = thick * (0.052 + 0.016 * b), thick * (0.034 + 0.007 * b)
        cloth_to = np.select([has("trousers", "tights"), has("shorts")], [9, 0.8], 0.0)
        boots = np.where(has("boots"), 1.45, 9.0)

        def colour(x, y, place, get):
            legs = torch.where((place < get(cloth_to))[:, None], get(p.bottom), get(p.face))
            return torch.where((place > get(boots))[:, None], get(p.shoes), legs)

        def shoe(x, y, place, get):
            sole = (y + 0 * x < get(y2 - 0.022)) & get(has("trainers")).bool()
            return torch.where(sole[:, None], y.new_tensor(0.95), get(p.shoes))

        paint(limb((x0, crotch + 0.02, r0), (x1, y1, (r0 + r2) / 2), (x2, y2, r2)), colour, shade=0.1)
        paint(limb((x2 - 0.014 * s, y2 - 0.012, 0.026), (x2 + 0.062 * s, y2 - 0.014 - 0.018 * c, 0.022)), shoe)

    paint(ellipse(0.02, 0.015, 0.15 + 0.03 * b, 0.025), rgb("#1a1a26"), line=0, alpha=0.35)  # shadow
    backpack(front)
    pole(back)
    hair(front)
    hip_bag(far > 0)
    arm(far, np.abs(s) > 0.35)
    leg(far)
    leg(-far)

    # Skirt and body; coats and dresses go down to the knee.
    sway = 0.07 * np.abs(s) * stride
    paint(slab(0, 0.29 * h, 0.53 * h, wide(hip + 0.035, depth + 0.035) + sway, wide(hip, depth), 0.015), p.bottom,
          has("skirt") & ~dress, shade=0.14)
    low, flare = np.where(long_top, 0.265, 0.455) * h, np.select([dress, long_top], [0.045, 0.02], 0.004)
    w0, w1 = wide(hip + flare, depth + flare) + sway * long_top, wide(shoulder, depth * 0.82)
    bulge = np.select([dress, long_top], [-0.018, 0], -0.004 + 0.012 * b)
    body = slab(0, low, neck + 0.012, w0, w1, 0.04, bulge)
    paint(body, p.top, plain, shade=0.12)
    paint(body, around, ~plain, shade=0.12)
    chest, narrow = depth * 0.92 * s, np.abs(c)
    flat(slab(chest, low + 0.008, neck + 0.005, 0.038 * narrow, 0.048 * narrow), p.inner, has("jacket") & (c > 0.15))
    flat(limb((chest, low + 0.01, 0.005), (chest, neck - 0.02, 0.005)), p.top * 0.6, has("coat") & (c > 0.1))
    t = (0.51 * h - low) / (neck + 0.012 - low)
    belt = w0 + (w1 - w0) * t + bulge * 4 * t * (1 - t)
    flat(slab(0, 0.498 * h, 0.522 * h, belt, belt, 0.001), p.top * 0.7, long_top)

    # A print on the chest; straps; the other arm.
    y, r, turn = neck - 0.13 * h, 0.046 * size, np.maximum(c, 0.2)
    wr, tips = r * turn, [(np.cos(a), np.sin(a)) for a in np.pi * (0.5 + 0.4 * np.arange(5))]
    marks = [("disc", ellipse(chest, y, wr, r)), ("square", slab(chest, y - r, y + r, wr, wr))]
    marks += [("bars", slab(chest, y + (k - 0.2) * r, y + (k + 0.2) * r, wr, wr)) for k in (-0.7, 0, 0.7)]
    marks += [("heart", limb((chest + k * wr, y + 0.35 * r, wr / 2), (chest, y - 0.8 * r, 0.008))) for k in (-0.4, 0.4)]
    marks += [("star", limb((chest, y, 0.42 * wr), (chest + 1.15 * wr * a, y + 1.15 * r * b, 0.004))) for a, b in tips]
    for name, mark in marks:
        flat(mark, p.logo, has(name) & (c > 0.2))
    for side in (-1, 1):
        x = side * 0.068 * c + depth * 0.6 * s
        flat(limb((x, neck - 0.005, 0.011), (x * 1.08, 0.62 * h, 0.011)), p.bag * 0.8,
             has("backpack") & front & ((c > 0.5) | (side * s < 0)))
    flat(limb((-0.085 * c, neck, 0.009), (bag_x, 0.49 * h, 0.009)), p.bag * 0.7, has("shoulder bag"))
    flat(limb((0, neck - 0.015, 0.03), (0, neck + 0.03, 0.03)), p.face * 0.9, front)
    arm(far, np.abs(s) <= 0.35)
    arm(-far, True)
    hip_bag(far < 0)

    # Head: hair all over, the face on the side that we see.
    x, y, rx, ry, bald = 0.012 * s, h - 0.085, wide(0.066, 0.07), 0.078, has("bald")
    puff = np.select([has("curly"), bald], [1.42, 1.0], 1.12)
    paint(ellipse(x - 0.008 * s, y + 0.004 + 0.012 * has("curly"), rx * puff, ry * (0.55 + 0.45 * puff)),
          np.where(bald[:, None], p.face, p.hair), shade=0.12)
    facing = np.clip((c + 0.55) / 1.55, 0, 1)  # how much of the face is seen
    seen, w, fx = facing > 0.12, np.maximum(0.06 * np.sqrt(facing), 0.004), x + 0.034 * s
    flat(ellipse(fx, y - 0.012, w, 0.062), p.face, seen & ~bald)
    flat(ellipse(fx, y - 0.048, w * 0.86, 0.034), p.hair, seen & has("beard"))
    for angle in (-0.42, 0.42):
        ahead, ex = np.cos(angle + view), x + 0.064 * np.sin(angle + view)
        turn, seen = np.clip(ahead + 0.25, 0.5, 1), ahead > 0.12
        flat(ellipse(ex, y - 0.004, 0.0085 * turn, 0.0115), ink, seen)
        paint(ellipse(ex, y - 0.004, 0.021 * turn, 0.02), ink, seen & has("glasses"), line=0, alpha=0.55)
        paint(ellipse(ex, y - 0.032, 0.012, 0.008), rgb("#e8786a"), seen & ~has("beard"), line=0, alpha=0.35)
    mx, my = x + 0.06 * s, y - 0.04
    flat(limb((mx - 0.016 * c, my, 0.004), (mx, my - 0.007, 0.0045), (mx + 0.016 * c, my, 0.004)), rgb("#7a2f2a"),
         (c > 0.25) & ~has("beard"))
    hair(back)

    # Hats, and what is in front of everything.
    cut, hat = y + 0.024, p.hat
    paint(ellipse(x - 0.008 * s, y + 0.008, rx * 1.18, ry * 1.18, cut), hat, ~has("no hat"), shade=0.12)
    paint(limb((x + 0.045 * s - 0.035 * c, cut, 0.012), (x + 0.11 * s + 0.035 * c, cut - 0.004, 0.011)), hat * 0.75,
          has("cap") & (c > -0.75))
    paint(slab(x - 0.006 * s, cut - 0.012, cut + 0.022, rx * 1.2, rx * 1.17), hat * 0.8, has("beanie"))
    paint(ellipse(x, y + 0.106, 0.026, 0.026), 0.5 + 0.5 * hat, has("beanie"))
    paint(ellipse(x, cut, 0.125, 0.02), hat * 0.9, has("sun hat"))
    backpack(back)
    pole(front)
    x, y = 0.6 * pole_x, h + 0.055
    paint(ellipse(x, y, 0.27, 0.13, y), p.umbrella, umbrella, shade=0.15)
    for k in (-0.09, 0.09):
        flat(limb((x, y + 0.12, 0.004), (x + k, y, 0.004)), p.umbrella * 0.75, umbrella)
