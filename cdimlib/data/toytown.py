"""The toy town: people who walk past cameras, in two towns, drawn here and free for any use.

``toytown-plaza`` has six cameras around a square in summer, ``toytown-campus`` eight on a university's grounds in
autumn: other cameras, other backgrounds, other fashions, as Market-1501 and DukeMTMC differ. People walk alone or in
groups from camera to camera, so every image has a camera and a time, and those seen together at one camera are seen
together at the next. Every difficulty is a knob of :class:`ToyTown`.

Person ``i`` depends on the town, the seed and ``i`` alone; an image on its person, camera and number, too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .. import by_profile
from .benchmark import Benchmark, Split
from .toycameras import OCCLUDERS, RISE, SPAN, Camera, Canvas, backdrop, expose, occlude
from .toypeople import DETAILS, Person, draw, dress_up, lookalike

SIZES = {"tiny": (12, 12, 4), "demo": (100, 80, 20), "full": (700, 700, 350)}  # train, test, distractors
TEST, OTHERS, PASSERS = 10_000, 20_000, 30_000  # people: 1 .. train, TEST + 1 .. , OTHERS + 1 .. ; passers-by are never sought
FAMILY = 3  # people 3k+1 and 3k+2 may be lookalikes of person 3k
GAP = 60.0  # seconds between two groups that set out, on average
MORNING = 9 * 3600.0  # when the first one does
KNOBS = ("misalignment", "occlusion", "viewpoint", "colour_shift", "background", "blur", "noise", "lookalikes", "groups")


@dataclass(frozen=True)
class Place:
    """A town: its cameras, which of them are joined by a way on foot, what people wear, and its usual knobs."""

    cameras: tuple[Camera, ...]
    links: tuple[tuple[int, int], ...]
    fashion: dict
    knobs: dict

    def routes(self, shortest: int = 3, longest: int = 6) -> dict[int, list[tuple[int, ...]]]:
        """All ways through the town that see no camera twice, by how many cameras they see."""
        ways = [(i,) for i in range(len(self.cameras))]
        found = {}
        for length in range(2, longest + 1):
            ways = [w + (b,) for w in ways for b in range(len(self.cameras))
                    if b not in w and ((w[-1], b) in self.links or (b, w[-1]) in self.links)]
            if length >= shortest:
                found[length] = ways
        return found

    def metres(self, a: int, b: int) -> float:
        """Way on foot between two cameras."""
        return float(np.hypot(self.cameras[a].x - self.cameras[b].x, self.cameras[a].y - self.cameras[b].y))


PLACES = {
    "plaza": Place(
        cameras=(
            Camera("fountain", 60, 50, 90, "paving+fountain+lamps", "#cfc4ae", "#d8c9a8", 0.62, tilt=0.1),
            Camera("market", 15, 20, 200, "wall+shops+paving", "#b9ad9c", "#d9b98c", 0.55, (1.08, 1.0, 0.88), 1.05, 1.1),
            Camera("arcade", 110, 15, 320, "columns+paving", "#a79f98", "#c9b79c", 0.6, (0.82, 0.84, 0.92), 0.85, 0.85, 0.9, 0.04),
            Camera("cafe", 105, 85, 45, "brick+windows+shops+paving", "#c7b8a5", "#b56a4c", 0.52, (1.12, 1.02, 0.95), 1.1, 1.05,
                   tilt=0.2),
            Camera("steps", 20, 90, 135, "wall+stairs+paving", "#bcb7ad", "#cdbfa9", 0.66, (0.94, 1.02, 1.1), 0.95, 0.9, 0.7, 0.03),
            Camera("tram stop", 60, -10, 270, "glass+lamps+paving", "#9ea3a6", "#93b3bd", 0.5, (0.9, 1.0, 1.12), 0.9, 0.8, 0.8, 0.03,
                   tilt=0.25),
        ),
        links=((0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 5), (5, 2), (2, 3), (3, 4), (4, 1)),
        fashion=dict(
            top="t-shirt 5,long sleeve 2,jacket 1.5,coat 0.5,dress 2.5", bottom="trousers 4,shorts 3,skirt 2",
            hat="none 8,cap 1.5,beanie 0.2,sun hat 1.3",
            colours="white 3,cream 1,yellow 1.5,orange 1,red 2,pink 1.5,violet 1,sky 1.5,blue 2,navy 1.5,mint 1,green 1.5,teal 1,"
                    "beige 1,grey 1,black 2",
        ),
        knobs=dict(misalignment=0.5, occlusion=0.15, viewpoint=0.8, colour_shift=0.7, background=1.0, blur=0.7, noise=0.7,
                   lookalikes=0.3, groups=0.6),
    ),
    "campus": Place(
        cameras=(
            Camera("library", 0, 0, 180, "brick+windows+paving", "#a9a294", "#8f4f3d", 0.6, (0.95, 0.98, 1.05), 0.9, 0.85),
            Camera("main lawn", 70, 40, 60, "trees+hedge+lawn+path", "#7fa35c", "#b9a58a", 0.64, (1.05, 1.05, 0.85), 1.05, 1.05,
                   tilt=0.2),
            Camera("laboratory", 140, 10, 0, "glass+paving", "#8d9296", "#7d99a5", 0.55, (0.85, 0.95, 1.12), 0.85, 0.75, 0.9, 0.03),
            Camera("refectory", 130, 90, 30, "wall+windows+paving", "#b7a78f", "#d4c29b", 0.5, (1.15, 1.0, 0.82), 0.95, 1.0, 0.7, 0.03),
            Camera("gate", 60, -50, 270, "brick+lamps+lawn+path", "#6f9150", "#a4694f", 0.58, (0.8, 0.8, 0.85), 0.8, 0.9, 1.0, 0.04),
            Camera("sports hall", 10, 110, 120, "wall+hedge+planks", "#b98c5a", "#9fb0a8", 0.56, (0.92, 1.08, 0.95), 1.0, 0.9, 0.6),
            Camera("park", 70, 120, 90, "trees+lawn+path", "#8fae62", "#b9a58a", 0.7, (1.0, 1.1, 0.9), 1.1, 1.1, 0.8, 0.02, tilt=0.3),
            Camera("halls", -40, 60, 160, "brick+windows+hedge+lawn+path", "#8a8a80", "#7c5a4e", 0.57, (0.88, 0.9, 1.05), 0.9, 0.8, 0.7, 0.04),
        ),
        links=((0, 1), (0, 4), (1, 2), (1, 4), (1, 3), (2, 3), (2, 4), (3, 6), (6, 5), (5, 7), (7, 0), (1, 6), (1, 5)),
        fashion=dict(
            top="t-shirt 1.5,long sleeve 3,jacket 4,coat 3.5,dress 0.8", bottom="trousers 7,shorts 0.7,skirt 1.5",
            hat="none 6,cap 1,beanie 2.5,sun hat 0.1", bag="none 2,backpack 5,handbag 1,shoulder bag 2",
            shoes="shoes 2,trainers 2,boots 2.5",
            colours="cream 1,mustard 1.5,rust 1.5,burgundy 2,plum 1,denim 2.5,navy 3,olive 2,forest 1.5,teal 0.7,beige 1.5,"
                    "brown 2,grey 2,charcoal 2.5,black 3,red 0.7,white 0.8",
        ),
        knobs=dict(misalignment=0.3, occlusion=0.25, viewpoint=0.8, colour_shift=0.9, background=1.0, blur=0.9, noise=0.9,
                   lookalikes=0.3, groups=0.7),
    ),
}


@dataclass(frozen=True)
class ToyTown:
    """The knobs. Each goes from 0, the easy end, to 1; where None is given, the town's own value counts.

    town: "plaza" or "campus".
    train, test, distractors: people to learn from, to ask about, and others who only fill the gallery (identity 0).
    pixels: (rows, columns) of an image. The box around a person is always twice as high as wide and is resized.
    seed: of the whole world; another seed is another town.
    misalignment: how badly boxes are drawn: shifts, wrong sizes, heads and feet cut off.
    occlusion: probability that a bin, bench, planter, bicycle or another person stands in the way.
    viewpoint: 0 shows everybody from the front, 1 from wherever the camera sees them walk.
    colour_shift: how much light and colour differ from camera to camera and moment to moment.
    background: 0 is a plain grey one, 1 what the camera sees.
    blur, noise: of lens and sensor.
    lookalikes: in each family of three people, the probability for each but the first to be a copy of the first that
    differs in one detail only (bag, print, shoes, hat or pattern).
    groups: share of people who walk in company of one to three others.
    """

    town: str = "plaza"
    train: int = 100
    test: int = 80
    distractors: int = 20
    pixels: tuple[int, int] = (128, 64)
    seed: int = 0
    misalignment: float | None = None
    occlusion: float | None = None
    viewpoint: float | None = None
    colour_shift: float | None = None
    background: float | None = None
    blur: float | None = None
    noise: float | None = None
    lookalikes: float | None = None
    groups: float | None = None

    def __post_init__(self):
        if self.town not in PLACES:
            raise ValueError(f"unknown toy town {self.town!r}: choose from {', '.join(PLACES)}")
        for name in ("train", "test", "distractors"):
            least = 0 if name == "distractors" else 2
            if not least <= getattr(self, name) < TEST:
                raise ValueError(f"{name} must lie between {least} and {TEST - 1:,} people (got {getattr(self, name)})")
        object.__setattr__(self, "pixels", tuple(int(side) for side in np.broadcast_to(self.pixels, 2)))
        if not all(24 <= side <= 1024 for side in self.pixels):
            raise ValueError(f"pixels must be (rows, columns), each between 24 and 1024 (got {self.pixels})")
        for name in KNOBS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.place.knobs[name])
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1 (got {getattr(self, name)})")

    @property
    def place(self) -> Place:
        """Cameras, ways and fashion."""
        return PLACES[self.town]

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, list(PLACES).index(self.town), *key])

    # ---------------------------------------------------------------------------------------------------------- people

    def person(self, number: int) -> Person:
        """Who that is. Identities of training images are numbers from 1, of query and gallery from TEST + 1."""
        return _person(self.town, self.seed, self.lookalikes, int(number))

    def numbers(self, part: str) -> np.ndarray:
        """Numbers of the people of "train", "test" or "distractors"."""
        start = {"train": 0, "test": TEST, "distractors": OTHERS}[part]
        return start + 1 + np.arange(getattr(self, part))

    def lookalike_pairs(self, part: str) -> list[tuple[int, int, str]]:
        """(person, person, the detail in which they differ) for all lookalikes of a part."""
        people = [self.person(n) for n in self.numbers(part)]
        known = {p.number for p in people}
        return [(p.twin, p.number, p.detail) for p in people if p.twin in known]

    # ----------------------------------------------------------------------------------------------------------- walks

    def walks(self, parts: tuple[str, ...]) -> dict[str, np.ndarray]:
        """A day of these people: one entry per image, by person and time.

        person, cam, group, shot (number of the image within its visit): int64; time: seconds since midnight, float64;
        view: radians at full viewpoint, 0 facing the camera, between -pi and pi.
        """
        rng = self._rng(len(parts), 1)
        people = rng.permutation(np.concatenate([self.numbers(p) for p in parts]))
        together = self.groups / (3 - 2 * self.groups)  # probability of a group, so that ``groups`` is a share of people
        routes, place = self.place.routes(), self.place
        table, start, group, i = [], MORNING, 0, 0
        while i < len(people):
            size = int(rng.integers(2, 5)) if rng.random() < together else 1
            start += rng.exponential(GAP)
            ways = routes[int(rng.choice(sorted(routes), p=(0.3, 0.3, 0.25, 0.15)))]
            way = ways[int(rng.integers(len(ways)))]
            speed, time, passing = rng.normal(1.3, 0.12), start, []
            for step, cam in enumerate(way):
                if step:
                    time += place.metres(way[step - 1], cam) / speed + rng.exponential(6.0)
                passing.append((cam, time, self._view(way, step)))
            for person in people[i : i + size]:
                lag = rng.uniform(-3, 3)
                for cam, time, view in passing:
                    shots = int(rng.choice((3, 4, 5, 6), p=(0.3, 0.3, 0.25, 0.15)))
                    times = np.sort(time + lag + rng.uniform(0, 8, shots))
                    for shot, at in enumerate(np.round(times * 25) / 25):  # 25 frames a second
                        turned = view + rng.normal(0, 0.3)
                        table.append((person, cam, group, shot, at, (turned + np.pi) % (2 * np.pi) - np.pi))
            i, group = i + size, group + 1
        columns = dict(zip(("person", "cam", "group", "shot", "time", "view"), np.array(table).T))
        order = np.lexsort((columns["time"], columns["person"]))
        return {k: v[order] if k in ("time", "view") else v[order].astype(np.int64) for k, v in columns.items()}

    def _view(self, way: tuple[int, ...], step: int) -> float:
        """From which side the camera sees somebody who comes from the last camera and goes on to the next."""
        a, b = (self.place.cameras[way[k]] for k in (max(step - 1, 0), min(step + 1, len(way) - 1)))
        heading = np.arctan2(b.y - a.y, b.x - a.x)
        return heading - np.radians(self.place.cameras[way[step]].look) + np.pi

    # -------------------------------------------------------------------------------------------------------- pictures

    def conditions(self, walks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """How each image of ``walks`` is taken, by the knobs and by chance: the keyword arguments of :meth:`render`."""
        key = zip(walks["person"], walks["cam"], walks["shot"])
        rngs = [self._rng(int(p), int(c), int(s), 2) for p, c, s in key]
        u, g = np.stack([r.random(12) for r in rngs]).T, np.stack([r.standard_normal(8) for r in rngs]).T
        m = self.misalignment
        cut = np.where(u[0] < 0.3 * m, np.where(u[1] < 0.5, -1.0, 1.0), 0.0)  # head or feet
        hidden = u[2] < self.occlusion
        kind = np.array(("none", *OCCLUDERS))[np.where(hidden, 1 + (u[3] * len(OCCLUDERS)).astype(int), 0)]
        side = np.where(u[4] < 0.5, -1, 1) * (0.05 + 0.17 * u[5])
        return dict(
            view=np.degrees(self.viewpoint * walks["view"]),
            phase=np.where(u[6] < 0.1, np.nan, 360 * u[7]),
            shift=np.stack([0.09 * m * g[0], 0.05 * m * g[1] + cut * (0.1 + 0.12 * u[8])], 1),
            zoom=np.exp(0.10 * m * g[2] + 0.10 * np.abs(cut)),
            occluder=kind, side=side, place=np.stack([u[9], u[10], u[11]], 1), light=g[3:7].T,
        )

    def render(self, people, camera, *, view=0.0, phase=40.0, shift=(0.0, 0.0), zoom=1.0, occluder="none", side=0.15,
               place=(0.3, 0.5, 0.5), light=(0.0, 0.0, 0.0, 0.0), passer=PASSERS, device="cpu", batch_size=96) -> Tensor:
        """Photograph people: uint8 [N, 3, rows, columns]. Every argument is one for all images or one per image.

        people: numbers or :class:`Person`. camera: number or :class:`Camera`.
        view: degrees, 0 facing the camera, 90 walking to the right of the image, 180 from behind. phase: degrees of the
        walking cycle, nan stands still. shift: (right, up) of the person in the box, in box widths and heights. zoom:
        size of the person, 1 fills the box. occluder: one of OCCLUDERS, or "none"; side: where it stands, from the
        middle. place: in 0 .. 1, what of the backdrop and of the sensor's grain is behind the person. light: in standard
        deviations, this moment's brightness and gains of red, green and blue. passer: who the passer-by is.
        Nothing here is random; colours, blur and noise of the camera follow the town's knobs.
        """
        people = [people] if isinstance(people, int | np.integer | Person) else list(people)
        people = [p if isinstance(p, Person) else self.person(p) for p in people]
        cameras = [camera] if isinstance(camera, int | np.integer | Camera) else list(camera)
        count = max(len(people), len(cameras), *(
            len(v) for v, dims in ((view, 1), (phase, 1), (shift, 2), (zoom, 1), (occluder, 1)) if np.ndim(v) == dims))
        spread = lambda v, *shape: np.broadcast_to(np.asarray(v), (count, *shape))  # noqa: E731
        people, cameras = (v * count if len(v) == 1 else v for v in (people, cameras))
        cameras = [c if isinstance(c, Camera) else self.place.cameras[c] for c in cameras]
        shot = dict(view=np.radians(spread(view)), phase=np.radians(spread(phase)), shift=spread(shift, 2), zoom=spread(zoom),
                    occluder=spread(occluder), side=spread(side), place=spread(place, 3), light=spread(light, 4),
                    passer=spread(passer))
        parts = []
        for i in range(0, count, batch_size):
            cut = slice(i, i + batch_size)
            parts.append(self._render(people[cut], cameras[cut], {k: v[cut] for k, v in shot.items()}, device).cpu())
        return torch.cat(parts)

    def _render(self, people: list[Person], cameras: list[Camera], shot: dict, device) -> Tensor:
        height, width = self.pixels
        column = lambda name: np.array([getattr(c, name) for c in cameras])  # noqa: E731
        image = torch.empty(len(people), 3, height, width, device=device)
        for i, (camera, place) in enumerate(zip(cameras, shot["place"])):
            scene = backdrop(camera, height, width)
            left, top = int(place[0] * (SPAN - 1) * width), int(place[1] * 0.5 * (scene.shape[1] - height))
            image[i] = scene[:, top : top + height, left : left + width].to(device)
        image = 0.6 + self.background * (image - 0.6)
        tall = np.array([p.height + 0.15 * (p.umbrella != "none") + 0.05 * (p.hat != "none") for p in people])
        box = 1.14 * tall / shot["zoom"]
        v = 1 - (np.arange(height) + 0.5) / height  # 0 at the bottom of the image
        y = (v - 0.5 - shot["shift"][:, 1:]) * box[:, None] + 0.5 * tall[:, None] - 0.005
        y = y - column("tilt")[:, None] * 0.5 * y * (y - 1)
        x = ((np.arange(width) + 0.5) / width - 0.5 - shot["shift"][:, :1]) * 0.5 * box[:, None]
        canvas = Canvas(image, x, y)
        draw(canvas, people, shot["view"], shot["phase"])
        occlude(canvas, shot["occluder"], shot["side"])
        passing = np.flatnonzero(shot["occluder"] == "passer-by")
        if len(passing):
            near = Canvas(image[torch.as_tensor(passing)], x[passing] - shot["side"][passing, None] * 1.2, y[passing] + 0.05)
            others = [self.person(n) for n in shot["passer"][passing]]
            draw(near, others, shot["view"][passing] + 0.5, shot["phase"][passing] + 2)
            image[torch.as_tensor(passing)] = near.image
        k = self.colour_shift
        gain = column("cast") ** k * np.exp(k * (0.10 * shot["light"][:, :1] + 0.03 * shot["light"][:, 1:]))
        colour = dict(gain=gain, contrast=column("contrast") ** k, saturation=column("saturation") ** k)
        return expose(image, colour, self.blur * column("blur") * 1.4 * height / 128, self.noise * column("noise"),
                      shot["place"][:, 1:])

    # ------------------------------------------------------------------------------------------------------- benchmark

    def benchmark(self, device="cpu") -> Benchmark:
        """Train, query and gallery: of each test identity one query per camera that saw it, the rest in the gallery.

        ``meta``: "town" (this object), "knobs", "cameras" (name, x and y in metres), "links" (pairs of cameras with a way
        on foot), "lookalikes" ((id, id, detail) by "train" and "test"), and "shots" by "train", "query", "gallery": for
        every image of that split the person (distractors, too, keep their numbers here), group and conditions.
        """
        splits, shots = {}, {}
        for name, parts in (("train", ("train",)), ("test", ("test", "distractors"))):
            walks = self.walks(parts)
            how = self.conditions(walks)
            how["passer"] = self._company(walks)
            images = self.render(walks["person"], walks["cam"], device=device, **how)
            ids = np.where(walks["person"] > OTHERS, 0, walks["person"])
            splits[name] = Split(images, ids, walks["cam"], walks["time"])
            shots[name] = {**walks, **how}
        asked = self._queries(shots["test"])
        pick = lambda keep: {k: v[keep] for k, v in shots["test"].items()}  # noqa: E731
        return Benchmark(
            f"toytown-{self.town}", train=splits["train"], query=splits["test"].where(asked),
            gallery=splits["test"].where(~asked),
            note=f"toy town, drawn by cdimlib: {self.train} training and {self.test} test people, "
                 f"{len(self.place.cameras)} cameras",
            meta=dict(
                town=self, knobs={f.name: getattr(self, f.name) for f in fields(self)},
                cameras=[dict(name=c.name, x=c.x, y=c.y) for c in self.place.cameras], links=list(self.place.links),
                lookalikes={part: self.lookalike_pairs(part) for part in ("train", "test")},
                shots=dict(train=shots["train"], query=pick(asked), gallery=pick(~asked)),
            ),
        )

    def _company(self, walks: dict[str, np.ndarray]) -> np.ndarray:
        """Who would stand in the way: somebody of the same group, or else a stranger. [N] numbers of people."""
        members = {g: np.unique(walks["person"][walks["group"] == g]) for g in np.unique(walks["group"])}
        out = np.empty(len(walks["person"]), np.int64)
        for i, (person, group, shot) in enumerate(zip(walks["person"], walks["group"], walks["shot"])):
            others = members[group][members[group] != person]
            out[i] = others[shot % len(others)] if len(others) else PASSERS + (7 * person + shot) % 1000
        return out

    def _queries(self, shots: dict[str, np.ndarray]) -> np.ndarray:
        """One image of each visit of each test person: bool [N]."""
        visit = shots["person"] * 100 + shots["cam"]
        out = np.zeros(len(visit), bool)
        for number in np.unique(visit[shots["person"] < OTHERS]):
            mine = np.flatnonzero(visit == number)
            out[mine[int(self._rng(int(number), 3).integers(len(mine)))]] = True
        return out


@lru_cache(maxsize=20_000)
def _person(town: str, seed: int, lookalikes: float, number: int) -> Person:
    rng = lambda n: np.random.default_rng([seed, list(PLACES).index(town), n, 0])  # noqa: E731
    fashion, mine = PLACES[town].fashion, rng(number)
    person = dress_up(number, fashion, mine)
    original = number - number % FAMILY
    if number == original or number >= PASSERS or mine.random() >= lookalikes:
        return person
    before = _person(town, seed, lookalikes, original + 1).detail if number > original + 1 else ""
    return lookalike(_person(town, seed, lookalikes, original), number, mine, fashion, taken=(before,))


def town_for(name: str, size: str | ToyTown | None = None, **knobs) -> ToyTown:
    """The town that a name ("toytown-plaza" or "toytown-campus"), a size and some knobs ask for.

    size: "tiny", "demo", "full", a :class:`ToyTown`, or None for the one of the current profile.
    """
    allowed = [f.name for f in fields(ToyTown) if f.name != "town"]
    unknown = sorted(set(knobs) - set(allowed))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)} of the toy town: choose from size, {', '.join(allowed)}")
    if name not in [f"toytown-{town}" for town in PLACES]:
        raise ValueError(f"unknown toy town {name!r}: choose from {', '.join(f'toytown-{town}' for town in PLACES)}")
    town = name.removeprefix("toytown-")
    if size is None:
        size = by_profile(smoke="tiny", demo="demo", full="full")
    if isinstance(size, ToyTown):
        return replace(size, town=town, **knobs)
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)} or a ToyTown, not {size!r}")
    counts = dict(zip(("train", "test", "distractors"), SIZES[size]))
    return ToyTown(**{"town": town, **counts, **knobs})


@lru_cache(maxsize=4)
def _benchmark(town: ToyTown, device: str) -> Benchmark:
    return town.benchmark(device)


def load_toytown(name: str, size: str | ToyTown | None = None, *, device: str = "cpu", **knobs) -> Benchmark:
    """A toy town as a benchmark; see :func:`town_for` for the options.

    device: where to draw ("cuda" draws the same within one grey level, and faster). The images come back on the CPU.
    A town drawn once is kept in memory: do not write into its images.
    """
    return _benchmark(town_for(name, size, **knobs), str(device))
