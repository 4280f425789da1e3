"""The people of the toy town: what they wear and carry, and how they are drawn.

A :class:`Person` is a handful of words ("bob", "coat", "stripes", "backpack"). :func:`draw` paints people in a frame of
their own (feet at y = 0, an adult's crown near y = 1), seen from any side: every part has a place sideways, ahead and
upwards, which the view turns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from .toycameras import Canvas, ellipse, limb, rgb, slab

COLOURS = {name: "#" + code for name, code in (pair.split() for pair in (
    "white f4f1ea,cream eadfc0,yellow f2c230,mustard c99a2c,orange ee7f2d,rust b4532a,red d23b35,burgundy 7d2438,"
    "pink ef9fb4,violet 8e62b0,plum 5a3a63,sky 8cc4e8,blue 3a6fc4,denim 4b6584,navy 26355e,mint a4dcc0,green 4ca64f,"
    "olive 7a7a3a,forest 2c5a42,teal 2b8c8c,beige c9b08c,brown 75502f,grey 9a9a9c,charcoal 48494f,black 26262b"
).split(","))}
SKINS = ("#f6d3b8", "#e8b48c", "#c98d62", "#9a6440", "#6a4129")
HAIRS = {"black": "#2a2322", "brown": "#5b3a24", "chestnut": "#8a4b2a", "blond": "#dcb565", "red": "#b8512a",
         "grey": "#a9a7a4", "blue": "#4f7fc0"}
DETAILS = ("bag", "logo", "shoes", "hat", "pattern")  # lookalikes differ in one of these


@dataclass(frozen=True)
class Person:
    """What one person looks like. ``twin`` is the person this one was copied from, ``detail`` all that differs."""

    number: int
    height: float  # 1: an adult of usual height
    build: float  # 0 slight .. 1 broad
    skin: str
    hair: str
    hair_colour: str
    face: str
    top: str
    top_colour: str
    inner_colour: str
    pattern: str
    pattern_colour: str
    logo: str
    logo_colour: str
    bottom: str
    bottom_colour: str
    shoes: str
    shoe_colour: str
    bag: str
    bag_colour: str
    hat: str
    hat_colour: str
    umbrella: str
    umbrella_colour: str
    twin: int = -1
    detail: str = ""

    def describe(self) -> str:
        """A line such as "red t-shirt with white stripes, navy shorts, white trainers, green backpack"."""
        words = [f"{self.top_colour} {self.top}" + (f" over {self.inner_colour}" if self.top == "jacket" else "")]
        for part in ("pattern", "logo"):
            if getattr(self, part) != "none":
                words[0] += f" with {getattr(self, part + '_colour')} {getattr(self, part)}"
        for part in ("bottom", "shoes", "bag", "hat", "umbrella"):
            if getattr(self, part) != "none":
                colour = getattr(self, ("shoe" if part == "shoes" else part) + "_colour")
                words.append(f"{colour} {getattr(self, part)}")
        return ", ".join(words)


CHOICES = {  # every field that is a word: its options, with how common they are unless the town has its own fashion
    "hair": "short 5,bob 3,long 3,bun 2,ponytail 2,curly 2,bald 1", "hair_colour": "black 4,brown 4,chestnut 3,blond 3,"
    "red 1,grey 2,blue 0.3", "face": "plain 5,glasses 2,beard 1.5",
    "pattern": "none 5,stripes 2,checks 1.3,dots 1.3,band 1", "logo": "none 2,disc 1,square 1,heart 1,star 1,bars 1",
    "shoes": "shoes 2,trainers 3,boots 1", "bag": "none 3,backpack 2,handbag 1.5,shoulder bag 2",
    "hat": "none 7,cap 1.5,beanie 1,sun hat 1", "umbrella": "none 30,umbrella 1",
}


def choose(table: str, u: float, without: tuple = ()) -> str:
    """The option of "a 3,b 1" on which ``u`` in 0 .. 1 falls."""
    pairs = [pair.rsplit(" ", 1) for pair in table.split(",")]
    pairs = [(name, float(weight)) for name, weight in pairs if name not in without]
    ends = np.cumsum([weight for _, weight in pairs])
    return pairs[min(int(np.searchsorted(ends, u * ends[-1], side="right")), len(pairs) - 1)][0]


def dress_up(number: int, fashion: dict, rng: np.random.Generator) -> Person:
    """A person at random. ``fashion`` overrides :data:`CHOICES` and has "top", "bottom" and "colours"."""
    table = {**CHOICES, **fashion}
    u = dict(zip((f.name for f in fields(Person)), rng.random(len(fields(Person)))))
    word = {name: choose(options, u[name]) for name, options in table.items() if name != "colours"}
    if word["top"] == "dress":
        word["bottom"] = "tights" if u["bottom"] < 0.4 else "none"
    if word["top"] in ("jacket", "coat"):
        word["logo"] = "none"
        word["pattern"] = word["pattern"] if word["pattern"] in ("none", "checks") else "none"
    if word["pattern"] != "none":
        word["logo"] = "none"
    if word["umbrella"] != "none":
        word["hat"] = "none"
    colour = lambda name, *without: choose(table["colours"], u[name], without)  # noqa: E731
    top = colour("top_colour")
    bottom = colour("bottom_colour", top)
    return Person(
        number, height=0.84 + 0.2 * u["height"] if u["height"] > 0.12 else 0.72, build=u["build"],
        skin=SKINS[int(u["skin"] * len(SKINS))], **word, top_colour=top, inner_colour=contrast(top, u["inner_colour"]),
        pattern_colour=contrast(top, u["pattern_colour"]), logo_colour=contrast(top, u["logo_colour"]),
        bottom_colour=bottom, shoe_colour=choose("white 3,black 3,brown 2,red 1,navy 1,yellow 0.7", u["shoe_colour"]),
        bag_colour=colour("bag_colour", top), hat_colour=colour("hat_colour"), umbrella_colour=colour("umbrella_colour"),
    )


def contrast(colour: str, u: float) -> str:
    """One of the plain colours that stand out against ``colour``."""
    far = [c for c in ("white", "yellow", "red", "sky", "navy", "black", "green", "pink", "orange")
           if np.abs(rgb(COLOURS[c]) - rgb(COLOURS[colour])).sum() > 0.9]
    return far[int(u * len(far))]


def lookalike(original: Person, number: int, rng: np.random.Generator, fashion: dict, taken: tuple = ()) -> Person:
    """A copy of a person in which one of :data:`DETAILS` (none of ``taken``) differs, plainly."""
    can = [d for d in DETAILS if d not in taken]
    if original.umbrella != "none" and "hat" in can:
        can.remove("hat")
    if original.top in ("jacket", "coat"):
        can = [d for d in can if d not in ("logo", "pattern")]
    elif original.pattern != "none" and "logo" in can:
        can.remove("logo")
    elif original.logo != "none" and "pattern" in can:
        can.remove("pattern")
    detail, u, v = can[int(rng.integers(len(can)))], rng.random(), rng.random()
    if detail == "shoes":
        now = original.shoe_colour
        change = {"shoe_colour": choose("white 1,red 1,yellow 1" if now in ("black", "brown", "navy") else "black 1", u)}
    else:
        old = getattr(original, detail)
        change = {detail: choose({**CHOICES, **fashion}[detail], u, (old,))}
        if old == "none":
            plain = "white 1,yellow 1,red 1,navy 1,black 1"
            near = original.top_colour if detail == "bag" else original.hair_colour
            change |= {f"{detail}_colour": choose(plain, v, (near,))} if detail in ("bag", "hat") else {}
    return replace(original, number=number, twin=original.number, detail=detail, **change)


# ------------------------------------------------------------------------------------------------------------- drawing


class Crowd:
    """People as arrays: ``crowd.bag`` is [N] of words, ``crowd.bag_colour`` [N, 3]; ``crowd.has(bag="none")`` a mask."""

    def __init__(self, people: list[Person]):
        for f in fields(Person):
            values = [getattr(p, f.name) for p in people]
            if f.name == "skin" or f.name.endswith("_colour"):
                code = {**COLOURS, **HAIRS} if f.name == "hair_colour" else COLOURS
                values = [rgb(v if v[0] == "#" else code[v]) for v in values]
            setattr(self, f.name, np.array(values))

    def has(self, **wanted) -> np.ndarray:
        """Where the person has it: ``has(top=("coat", "jacket"), hat="cap")``."""
        return np.logical_and.reduce([np.isin(getattr(self, k), v) for k, v in wanted.items()])


def draw(canvas: Canvas, people: list[Person], view, phase, who=True) -> None:
    """Paint one person per image of the canvas.

    view: [N] radians, 0 facing us, pi/2 walking to the right, pi seen from behind. phase: [N] radians of the walking
    cycle; nan stands still. who: bool [N], the images to paint in.
    """
    p = Crowd(people)
    s, c = np.sin(view), np.cos(view)
    who = np.broadcast_to(who, s.shape)
    h, b = p.height, p.build
    still = np.isnan(phase)
    phase = np.where(still, 0.6, phase)
    stride = np.where(still, 0.06, 0.42)
    wide = lambda side, ahead: np.sqrt((side * c) ** 2 + (ahead * s) ** 2)  # half-width of a body part  # noqa: E731
    paint = lambda shape, colour, where=True, **k: canvas.paint(shape, colour, who & where, **k)  # noqa: E731
    front, back = c > 0, c <= 0
    far = np.where(s >= 0, 1.0, -1.0)  # which side is away from us: +1 the person's left
    shoulder, hip, depth = 0.104 + 0.034 * b, 0.076 + 0.034 * b, 0.062 + 0.036 * b
    neck, crotch = h - 0.175, 0.46 * h
    coat, dress = p.has(top="coat"), p.has(top="dress")
    open_umbrella = p.has(umbrella="umbrella")
    dark = lambda colour, by=0.75: colour * by  # noqa: E731

    paint(ellipse(0.02, 0.015, 0.15 + 0.03 * b, 0.025), [0.1, 0.1, 0.15], line=0, alpha=0.35)  # shadow

    # What lies behind the body.
    pack = (p.has(bag="backpack"), -(depth + 0.045) * s, wide(0.092, 0.058))
    tail = (-0.085 * s, h - 0.06)

    def backpack(where):
        there, x, w = pack
        paint(slab(x, 0.57 * h, neck - 0.005, w, w * 0.92, 0.035), p.bag_colour, there & where, shade=0.1)
        pocket = there & where & back
        paint(slab(x * 1.1, 0.595 * h, 0.69 * h, w * 0.68, w * 0.68, 0.015), dark(p.bag_colour, 0.85), pocket)

    def long_hair(where):
        w = wide(0.078, 0.06)
        x = -0.03 * s
        paint(slab(x, h - 0.27, h - 0.06, w, w, 0.035), p.hair_colour, where & p.has(hair="long"), shade=0.1)
        paint(slab(x, h - 0.165, h - 0.05, w * 1.02, w, 0.03), p.hair_colour, where & p.has(hair="bob"), shade=0.1)
        pony = limb((tail[0], tail[1], 0.02), (tail[0] * 1.7, h - 0.13, 0.026), (tail[0] * 1.6, h - 0.2, 0.012))
        paint(pony, p.hair_colour, where & p.has(hair="ponytail"))

    shoulder_bag = p.has(bag="shoulder bag")
    bag_x = (hip + 0.045) * c + 0.0 * s  # at the left hip

    def hip_bag(where):
        w = wide(0.03, 0.062)
        paint(slab(bag_x, 0.40 * h, 0.50 * h, w * 1.05, w, 0.015), p.bag_colour, shoulder_bag & where)
        paint(slab(bag_x, 0.455 * h, 0.50 * h, w * 1.05, w, 0.012), dark(p.bag_colour, 0.85), shoulder_bag & where)

    backpack(front)
    long_hair(front)
    hip_bag(far > 0)

    def arm(side, where):
        swing = -stride * np.sin(phase + (side < 0) * np.pi)
        lift = open_umbrella & (side < 0)  # the right hand holds the umbrella
        out = side * (shoulder - 0.008)
        zu, yu = 0.155 * h * np.sin(swing), -0.155 * h * np.cos(swing)
        bend = swing + 0.25
        zl, yl = zu + 0.15 * h * np.sin(bend), yu - 0.15 * h * np.cos(bend)
        zu, yu = np.where(lift, 0.02, zu), np.where(lift, -0.13 * h, yu)
        zl, yl = np.where(lift, 0.115, zl), np.where(lift, -0.03 * h, yl)
        elbow_out, hand_out = out + side * 0.018, out + side * np.where(lift, -0.05, 0.014)
        y0 = neck - 0.04
        thick = 0.029 + 0.010 * b + 0.006 * p.has(top=("coat", "jacket"))
        hand = hand_out * c + zl * s, y0 + yl
        shape = limb((out * c, y0, thick), (elbow_out * c + zu * s, y0 + yu, thick * 0.92), (*hand, 0.7 * thick + 0.004))
        sleeve = np.where(p.has(top="t-shirt"), 0.72, np.where(dress, 0.3, 1.78))

        def colour(x, y, place, get):
            return torch.where((place < get(sleeve))[:, None], get(p.top_colour) * 0.93, get(p.skin))

        paint(shape, colour, where, shade=0.05)
        held = where & p.has(bag="handbag") & (side > 0)
        w = wide(0.025, 0.075)
        hx, hy = hand
        paint(limb((hx - w * 0.5, hy - 0.07, 0.008), (hx, hy, 0.008), (hx + w * 0.5, hy - 0.07, 0.008)),
              dark(p.bag_colour, 0.7), held, line=0)
        paint(slab(hx, hy - 0.15, hy - 0.055, w * 1.1, w * 0.85, 0.015), p.bag_colour, held, shade=0.12)
        return hand

    aside = np.abs(s) > 0.35
    arm(far, aside)

    # Legs and shoes.
    for side in (far, -far):
        turn = phase + (side < 0) * np.pi
        swing, bend = stride * np.sin(turn), 2.0 * stride * np.maximum(0, np.cos(turn)) + 0.05
        out = side * (0.042 + 0.014 * b)
        zk, yk = 0.235 * h * np.sin(swing), crotch + 0.02 - 0.235 * h * np.cos(swing)
        za, ya = zk + 0.21 * h * np.sin(swing - bend), yk - 0.21 * h * np.cos(swing - bend)
        yk, ya = yk - 0.10 * zk * c, ya - 0.10 * za * c  # nearer feet are lower in the picture
        ya = np.maximum(ya, 0.035)
        bare = p.has(bottom=("none", "tights", "skirt", "shorts"))
        r0, r2 = np.where(bare, 0.046, 0.052) + 0.016 * b, np.where(bare, 0.027, 0.036) + 0.007 * b
        xk, xa = out * c + zk * s, out * c + za * s
        covered = np.select([p.has(bottom="trousers"), p.has(bottom="shorts"), p.has(bottom="tights")], [9, 0.8, 9], 0.0)
        boots = np.where(p.has(shoes="boots"), 1.45, 9.0)

        def leg_colour(x, y, place, get, covered=covered, boots=boots):
            cloth = torch.where((place < get(covered))[:, None], get(p.bottom_colour), get(p.skin))
            return torch.where((place > get(boots))[:, None], get(p.shoe_colour), cloth)

        def shoe_colour(x, y, place, get, ya=ya):
            sole = (y < get(ya - 0.022)) & (get(p.has(shoes="trainers")) > 0)
            return torch.where((sole & (x == x))[:, None], get(np.full_like(p.skin, 0.93)), get(p.shoe_colour))

        paint(limb((out * c, crotch + 0.02, r0), (xk, yk, (r0 + r2) / 2), (xa, ya, r2)), leg_colour, shade=0.1)
        toe = limb((xa - 0.014 * s, ya - 0.012, 0.026), (xa + 0.062 * s + 0.01 * out * c, ya - 0.014 - 0.018 * c, 0.022))
        paint(toe, shoe_colour)

    # Skirt and body; a coat or dress goes on down to the knee.
    sway = 0.03 * np.abs(s) * stride / 0.42
    skirt = p.has(bottom="skirt") & ~dress
    w = wide(hip + 0.035, depth + 0.035) + sway
    paint(slab(0.0, 0.29 * h, 0.53 * h, w, wide(hip, depth), 0.015), p.bottom_colour, skirt, shade=0.14)
    low = np.select([coat, dress], [0.27, 0.26], 0.455) * h
    flare = np.where(dress, 0.045, np.where(coat, 0.02, 0.004))
    w_low, w_top = wide(hip + flare, depth + flare) + np.where(coat | dress, sway, 0), wide(shoulder, depth * 0.82)
    waist = np.where(dress, -0.018, np.where(coat, 0.0, -0.004 + 0.012 * b))
    turned = view

    def cloth(x, y, place, get):
        """The top's colour with its pattern, which turns with the body."""
        u = place.clamp(-1, 1)
        u = u * (1 + 0.25 * u * u) * 0.13 - get(0.13 * np.where(turned > np.pi, turned - 2 * np.pi, turned))
        px = get(canvas.pixel)

        def wave(v, period):  # 0 .. 1 .. 0, a soft square wave
            t = v / period
            t = (t - t.floor() - 0.5).abs() - 0.25
            return (t * period / px + 0.5).clamp(0, 1)

        rows, columns = wave(y, 0.052), wave(u, 0.058)
        is_ = lambda name: get(p.has(pattern=name).astype(float))  # noqa: E731
        gx, gy = u / 0.056, y / 0.056 + 0.0
        gx = gx + 0.5 * (gy.floor() - 2 * (gy.floor() / 2).floor())
        gx, gy = gx - gx.floor() - 0.5, gy - gy.floor() - 0.5
        dot = ((0.30 - (gx * gx + gy * gy).sqrt()) * 0.056 / px + 0.5).clamp(0, 1)
        band = ((0.035 - (y - get(neck - 0.13 * h)).abs()) / px + 0.5).clamp(0, 1)
        amount = is_("stripes") * rows + is_("checks") * 0.5 * (rows + columns) + is_("dots") * dot + is_("band") * band
        base, other = get(p.top_colour), get(p.pattern_colour)
        return base + amount[:, None] * (other - base)

    body = slab(0.0, low, neck + 0.012, w_low, w_top, 0.04, waist)
    plain = p.has(pattern="none")
    paint(body, p.top_colour, plain, shade=0.12)
    paint(body, cloth, ~plain, shade=0.12)
    opening = p.has(top="jacket") & (c > 0.15)
    paint(slab(depth * 0.9 * s, low + 0.008, neck + 0.005, 0.038 * np.abs(c), 0.048 * np.abs(c), 0.01), p.inner_colour,
          opening, line=0)
    lapel = coat & (c > 0.1)
    x = depth * 0.9 * s
    paint(limb((x, low + 0.01, 0.005), (x, neck - 0.02, 0.005)), dark(p.top_colour, 0.6), lapel, line=0)
    belt = dress | coat
    paint(slab(0.0, 0.5 * h, 0.522 * h, wide(hip, depth) + 0.006, wide(hip, depth) + 0.004, 0.005),
          dark(p.top_colour, 0.7), belt, line=0)

    # Print on the chest.
    cx, cy, r = depth * 0.95 * s, neck - 0.13 * h, 0.046
    seen = (c > 0.2) & ~p.has(logo="none")
    rx = r * np.maximum(c, 0.2)
    flat = {"line": 0, "alpha": 0.95}
    paint(ellipse(cx, cy, rx, r), p.logo_colour, seen & p.has(logo="disc"), **flat)
    paint(slab(cx, cy - r * 0.9, cy + r * 0.9, rx * 0.9, rx * 0.9, 0.004), p.logo_colour, seen & p.has(logo="square"), **flat)
    for k in (-1, 0, 1):
        y = cy + 0.62 * k * r
        paint(slab(cx, y - 0.2 * r, y + 0.2 * r, rx, rx, 0.002), p.logo_colour, seen & p.has(logo="bars"), **flat)
    heart, star = seen & p.has(logo="heart"), seen & p.has(logo="star")
    for k in (-1, 1):
        lobe = limb((cx + k * 0.42 * rx, cy + 0.35 * r, 0.5 * r * np.maximum(c, 0.2)), (cx, cy - 0.75 * r, 0.008))
        paint(lobe, p.logo_colour, heart, **flat)
    for k in range(5):
        a = np.pi / 2 + 2 * np.pi * k / 5
        ray = limb((cx, cy, 0.42 * rx), (cx + 1.1 * rx * np.cos(a), cy + 1.1 * r * np.sin(a), 0.004))
        paint(ray, p.logo_colour, star, **flat)

    # Straps, arms, head.
    strap = {"line": 0}
    for side in (-1, 1):
        x = side * 0.068 * c + depth * 0.6 * s
        paint(limb((x, neck - 0.005, 0.011), (x * 1.08, 0.62 * h, 0.011)), dark(p.bag_colour, 0.8),
              pack[0] & front & ((np.abs(c) > 0.5) | (side * s < 0.0)), **strap)
    paint(limb((-0.085 * c, neck, 0.009), (bag_x, 0.49 * h, 0.009)), dark(p.bag_colour, 0.7), shoulder_bag, **strap)
    paint(limb((0.0, neck - 0.015, 0.030), (0.0, neck + 0.03, 0.030)), dark(p.skin, 0.9), front, line=0)
    arm(far, ~aside)
    hand = arm(-far, True)
    hip_bag(far <= 0)

    hx, hy = 0.012 * s, h - 0.085
    rx, ry = wide(0.066, 0.07), 0.078
    bald = p.has(hair="bald")
    cap = np.where(bald[:, None], p.skin, p.hair_colour)
    puff = np.where(p.has(hair="curly"), 1.42, np.where(bald, 1.0, 1.12))
    bun = p.has(hair="bun")
    paint(ellipse(-0.045 * s, h + 0.012, 0.034, 0.034), p.hair_colour, bun & front, shade=0.1)
    paint(ellipse(hx - 0.008 * s, hy + 0.004 + 0.012 * (puff > 1.3), rx * puff, ry * (0.55 + 0.45 * puff)), cap, shade=0.12)
    facing = np.clip((c + 0.55) / 1.55, 0, 1)  # how much of the face is seen
    fx, fy = hx + 0.034 * s, hy - 0.012
    fw = 0.060 * np.sqrt(facing) * np.where(np.abs(s) > 0.7, 0.92, 1)
    face = (facing > 0.12) & ~bald
    paint(ellipse(fx, fy, np.maximum(fw, 0.004), 0.062), p.skin, face, line=0)
    beard = p.has(face="beard") & (facing > 0.12)
    paint(ellipse(fx + 0.004 * s, fy - 0.036, np.maximum(fw * 0.86, 0.004), 0.034), np.where(
        bald[:, None], rgb("#5b3a24"), p.hair_colour), beard, line=0)
    for k in (-1, 1):
        angle = k * 0.42
        side, ahead = np.sin(angle) * c + np.cos(angle) * s, np.cos(angle) * c - np.sin(angle) * s
        ex, ey = hx + 0.064 * side, hy - 0.004
        eye = ahead > 0.12
        paint(ellipse(ex, ey, 0.0085 * np.clip(ahead + 0.3, 0.5, 1), 0.0115), rgb("#231f20"), eye, line=0)
        glasses = eye & p.has(face="glasses")
        paint(ellipse(ex, ey, 0.021 * np.clip(ahead + 0.2, 0.5, 1), 0.020), rgb("#231f20"), glasses, line=0, alpha=0.55)
        paint(ellipse(ex, ey - 0.028, 0.012, 0.008), rgb("#e8786a"), eye & ~beard, line=0, alpha=0.35)
    smile = (c > 0.25) & ~beard
    mx = hx + 0.06 * s
    paint(limb((mx - 0.016 * c, hy - 0.038, 0.004), (mx, hy - 0.045, 0.0045), (mx + 0.016 * c, hy - 0.038, 0.004)),
          rgb("#7a2f2a"), smile, line=0)

    # Hats.
    for name, top, brim in (("cap", 1.16, 0.035), ("beanie", 1.2, 0.0), ("sun hat", 1.12, 0.0)):
        on = p.has(hat=name)
        cut = hy + 0.024
        paint(ellipse(hx - 0.008 * s, hy + 0.008, rx * top, ry * top, cut), p.hat_colour, on, shade=0.12)
        if name == "cap":
            toe = hx + 0.11 * s
            paint(limb((hx + 0.045 * s - 0.035 * c, cut, 0.012), (toe + 0.035 * c, cut - 0.004, 0.011)), dark(p.hat_colour),
                  on & (c > -0.75))
        elif name == "beanie":
            paint(slab(hx - 0.006 * s, cut - 0.012, cut + 0.022, rx * 1.2, rx * 1.16, 0.012), dark(p.hat_colour, 0.8), on)
            paint(ellipse(hx, hy + 0.11, 0.026, 0.026), p.hat_colour * 0.5 + 0.5, on)
        else:
            paint(ellipse(hx, cut, 0.125, 0.02), dark(p.hat_colour, 0.9), on)

    # From behind, hair and backpack are in front of everything.
    long_hair(back)
    paint(ellipse(-0.045 * s, hy + 0.055, 0.036, 0.036), p.hair_colour, bun & back)
    backpack(back)

    ux, uy = hand[0] * 0 + np.where(far > 0, hand[0], 0), h + 0.055
    ux = 0.25 * (-(shoulder) * c) + 0.06 * s
    up = open_umbrella
    paint(limb((ux, neck - 0.08, 0.006), (ux, h + 0.13, 0.006)), rgb("#3a2f28"), up, line=0)
    paint(ellipse(ux, uy, 0.27, 0.13, uy), p.umbrella_colour, up, shade=0.15)
    for k in (-1, 1):
        paint(limb((ux, uy + 0.12, 0.004), (ux + k * 0.09, uy, 0.004)), dark(p.umbrella_colour), up, line=0)
