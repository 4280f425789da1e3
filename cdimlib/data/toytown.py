"""The toy town: people who walk past cameras, in two towns, drawn here and free for any use.

``toytown-plaza`` has six cameras around a square in summer, ``toytown-campus`` eight on a university's grounds in
autumn: other cameras, other backgrounds, other fashions, as Market-1501 and DukeMTMC differ. People walk alone or in
groups from camera to camera, so every image has a camera and a time, and those seen together at one camera are seen
together at the next. Every difficulty is a knob of :class:`ToyTown`.

Person ``i`` depends on the town, the seed and ``i`` alone; how an image is taken on its person, camera and number, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .benchmark import Benchmark, Split, usual_size, whole
from .toycameras import OCCLUDERS, SPAN, Camera, Canvas, backdrop, expose, occlude
from .toypeople import Person, draw, dress_up, lookalike

SIZES = {"tiny": (12, 12, 4), "demo": (100, 80, 20), "full": (700, 700, 350)}  # train, test, distractors
TEST, OTHERS, PASSERS = 10_000, 20_000, 30_000  # train is 1 .., test TEST + 1 .., distractors OTHERS + 1 ..
FAMILY = 3  # people 3k + 1 and 3k + 2 may be lookalikes of person 3k
GAP = 150.0  # seconds between groups that set out on ways of their own, on average; the first one at nine


@dataclass(frozen=True)
class Place:
    """Cameras, which of them are joined by a way on foot, what people wear, and the town's usual knobs."""

    cameras: tuple[Camera, ...]
    links: tuple[tuple[int, int], ...]
    fashion: dict[str, str]
    knobs: dict[str, float]

    def routes(self, length: int) -> list[tuple[int, ...]]:
        """All ways that pass this many cameras, none of them twice."""
        if length == 1:
            return [(i,) for i in range(len(self.cameras))]
        both = (*self.links, *((b, a) for a, b in self.links))
        return [(*way, b) for way in self.routes(length - 1) for a, b in both if a == way[-1] and b not in way]


PLACES = {
    "plaza": Place((
        Camera("fountain", 60, 50, 90, "paving+fountain+lamps", "#cfc4ae", "#d8c9a8", 0.62, tilt=0.1),
        Camera("market", 15, 20, 200, "wall+shops+paving", "#b9ad9c", "#d9b98c", 0.55, (1.08, 1.0, 0.88), 1.08),
        Camera("arcade", 110, 15, 320, "hall+paving", "#a79f98", "#c9b79c", 0.6, (0.82, 0.84, 0.92), 0.85, 0.9, 0.04),
        Camera("cafe", 105, 85, 45, "brick+shops+paving", "#c7b8a5", "#b56a4c", 0.52, (1.12, 1.0, 0.95), 1.1, tilt=0.2),
        Camera("steps", 20, 90, 135, "wall+steps+paving", "#bcb7ad", "#cdbfa9", 0.66, (0.94, 1, 1.1), 0.9, 0.7, 0.03),
        Camera("tram stop", 60, -10, 270, "glass+lamps+paving", "#9ea3a6", "#93b3bd", 0.5, (0.9, 1, 1.1), 0.8, 0.8),
    ), ((0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 5), (5, 2), (2, 3), (3, 4), (4, 1)), dict(
        top="t-shirt 5,long sleeve 2,jacket 1.5,coat 0.5,dress 2.5", bottom="trousers 4,shorts 3,skirt 2",
        hat="none 8,cap 1.5,beanie 0.2,sun hat 1.3",
        colours="white 3,cream 1,yellow 1.5,orange 1,red 2,pink 1.5,violet 1,sky 1.5,blue 2,navy 1.5,mint 1,green 1.5,"
                "teal 1,beige 1,grey 1,black 2",
    ), dict(misalignment=0.5, occlusion=0.15, viewpoint=1, colour_shift=0.7, background=1, blur=0.7, noise=0.7,
            lookalikes=0.3, groups=0.6)),
    "campus": Place((
        Camera("library", 0, 0, 180, "brick+windows+paving", "#a9a294", "#8f4f3d", 0.6, (0.95, 0.98, 1.05), 0.88),
        Camera("lawn", 70, 40, 60, "trees+hedge+lawn+path", "#7fa35c", "", 0.64, (1.05, 1.05, 0.85), 1.05, tilt=0.2),
        Camera("laboratory", 140, 10, 0, "glass+paving", "#8d9296", "#7d99a5", 0.55, (0.85, 0.95, 1.1), 0.8, 0.9, 0.03),
        Camera("refectory", 130, 90, 30, "wall+windows+paving", "#b7a78f", "#d4c29b", 0.5, (1.15, 1, 0.8), 1, 0.7),
        Camera("gate", 60, -50, 270, "brick+lamps+lawn+path", "#6f9150", "#a4694f", 0.58, (0.8, 0.8, 0.9), 0.8, 1),
        Camera("sports hall", 10, 110, 120, "wall+hedge+planks", "#b98c5a", "#9fb0a8", 0.56, (0.9, 1.1, 1), 0.9),
        Camera("park", 70, 120, 90, "trees+lawn+path", "#8fae62", "", 0.7, (1.0, 1.1, 0.9), 1.1, 0.8, 0.02, 0.3),
        Camera("halls", -40, 60, 160, "brick+windows+lawn", "#6d8355", "#7c5a4e", 0.57, (0.9, 0.9, 1.1), 0.8, 0.7),
    ), ((0, 1), (0, 4), (1, 2), (1, 4), (1, 3), (2, 3), (2, 4), (3, 6), (6, 5), (5, 7), (7, 0), (1, 6), (1, 5)), dict(
        top="t-shirt 1.5,long sleeve 3,jacket 4,coat 3.5,dress 0.8", bottom="trousers 7,shorts 0.7,skirt 1.5",
        hat="none 6,cap 1,beanie 2.5,sun hat 0.1", bag="none 2,backpack 5,handbag 1,shoulder bag 2",
        shoes="shoes 2,trainers 2,boots 2.5",
        colours="cream 1,mustard 1.5,rust 1.5,burgundy 2,plum 1,denim 2.5,navy 3,olive 2,forest 1.5,teal 0.7,beige 1.5,"
                "brown 2,grey 2,charcoal 2.5,black 3,red 0.7,white 0.8",
    ), dict(misalignment=0.3, occlusion=0.2, viewpoint=1, colour_shift=0.7, background=1, blur=0.8, noise=0.7,
            lookalikes=0.3, groups=0.7)),
}


@dataclass(frozen=True)
class ToyTown:
    """The knobs. Each goes from 0, the easy end, to 1; None stands for the town's own value (``PLACES``).

    town: "plaza" or "campus".
    train, test, distractors: people to learn from, people to ask about, others who only fill the gallery (identity 0).
    pixels: (rows, columns) of an image; the box around a person is twice as high as wide and resized to that.
    seed: of the whole world; another seed is another town.
    misalignment: how badly boxes are drawn: shifts, wrong sizes, heads and feet cut off.
    occlusion: probability that a bin, bench, planter, bicycle or another person stands in the way.
    viewpoint: 0 shows everybody from the front, 1 from wherever the camera sees them walk.
    colour_shift: how much light and colour differ from camera to camera and moment to moment.
    background: 0 is plain grey, 1 what the camera sees.
    blur, noise: of lens and sensor; 0 is perfect.
    lookalikes: in each family of three people, the probability for each but the first to be a copy of the first in all
    but one detail (bag, logo, shoes, hat or pattern). Otherwise that number is somebody of their own, so other
    lookalikes mean other people under the same numbers.
    groups: share of people who walk in company, two to four together, and of groups that follow those before them.
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
        whole(train=self.train, test=self.test, distractors=self.distractors, seed=self.seed)
        for name, least in (("train", 2), ("test", 2), ("distractors", 0)):
            if not least <= getattr(self, name) < TEST:
                raise ValueError(f"{name} must lie between {least} and {TEST - 1:,} people (got {getattr(self, name)})")
        if np.ndim(self.pixels) != 1 or len(self.pixels) != 2 or not all(24 <= side <= 1024 for side in self.pixels):
            raise ValueError(f"pixels must be (rows, columns), each between 24 and 1024 (got {self.pixels})")
        object.__setattr__(self, "pixels", tuple(map(int, self.pixels)))
        for name, usual in self.place.knobs.items():
            value = usual if getattr(self, name) is None else float(getattr(self, name))
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1 (got {value})")
            object.__setattr__(self, name, value)

    @property
    def place(self) -> Place:
        return PLACES[self.town]

    def rng(self, *key: int) -> np.random.Generator:
        """The random numbers of one purpose."""
        return np.random.default_rng([self.seed, list(PLACES).index(self.town), *map(int, key)])

    def numbers(self, part: str) -> np.ndarray:
        """Numbers of the people of "train", "test" or "distractors"; those of train and test are their identities."""
        return {"train": 0, "test": TEST, "distractors": OTHERS}[part] + 1 + np.arange(getattr(self, part))

    def person(self, number: int) -> Person:
        """Who that is."""
        return _person(self.town, self.seed, self.lookalikes, int(number))

    # -------------------------------------------------------------------------------------------------- walks, pictures

    def walks(self, *parts: str) -> dict[str, np.ndarray]:
        """A day of the people of these parts: one entry per image, by person and time.

        person, cam, group, shot (number within the visit), passer (somebody of the same group, or else a stranger):
        int64 [N]. time: seconds since midnight; heading: degrees, 0 towards the camera, 90 to the right of the image,
        between -180 and 180: float64 [N].
        """
        rng, cameras, rows, start, i, way = self.rng(len(parts), 1), self.place.cameras, [], 9 * 3600.0, 0, ()
        people = rng.permutation(np.concatenate([self.numbers(part) for part in parts]))
        routes = {n: self.place.routes(n) for n in (3, 4, 5, 6)}
        together = self.groups / (3 - 2 * self.groups)  # of groups of two and more, so that people are as told
        while i < len(people):
            group = people[i : i + (rng.integers(2, 5) if rng.random() < together else 1)]
            ways = routes[rng.choice((3, 4, 5, 6), p=(0.3, 0.3, 0.25, 0.15))]
            if way and rng.random() < self.groups:  # they follow those before them
                start += rng.uniform(10, 40)
            else:
                way, start = ways[rng.integers(len(ways))], start + rng.exponential(GAP)
            speed, time, visits = rng.normal(1.3, 0.1), start, []
            for k, cam in enumerate(way):
                here, last, coming = (cameras[way[min(max(j, 0), len(way) - 1)]] for j in (k, k - 1, k + 1))
                time += np.hypot(here.x - last.x, here.y - last.y) / speed + (rng.exponential(6.0) if k else 0)
                heading = 180 - here.look + np.degrees(np.arctan2(coming.y - last.y, coming.x - last.x))
                visits.append((cam, time, heading))
            for person in group:
                company, lag = group[group != person], rng.uniform(-3, 3)
                for cam, time, heading in visits:
                    times = np.sort(time + lag + rng.uniform(0, 8, rng.choice((3, 4, 5, 6), p=(0.4, 0.3, 0.2, 0.1))))
                    for shot, at in enumerate(np.round(25 * times) / 25):  # 25 frames a second
                        other = rng.choice(company) if len(company) else PASSERS + rng.integers(1000)
                        rows.append((person, cam, i, shot, other, at, (heading + rng.normal(0, 17) + 180) % 360 - 180))
            i += len(group)
        table = np.array(rows)[np.lexsort(([row[5] for row in rows], [row[0] for row in rows]))].T
        whole = dict(zip(("person", "cam", "group", "shot", "passer"), table[:5].astype(np.int64)))
        return {**whole, "time": table[5], "heading": table[6]}

    def conditions(self, walks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """How each image of ``walks`` is taken, by the knobs and by chance: the keyword arguments of :meth:`render`."""
        rngs = [self.rng(*key, 2) for key in zip(walks["person"], walks["cam"], walks["shot"])]
        u, g = np.stack([r.random(12) for r in rngs], 1), np.stack([r.standard_normal(7) for r in rngs], 1)
        m, kinds = self.misalignment, np.array((*OCCLUDERS, "none"))
        cut = np.where(u[0] < 0.3 * m, np.where(u[1] < 0.5, 1.0, -1.0), 0.0)  # the head or the feet
        return dict(
            view=self.viewpoint * walks["heading"], phase=np.where(u[6] < 0.1, np.nan, 360 * u[7]),
            shift=np.stack([0.09 * m * g[0], 0.05 * m * g[1] + cut * (0.1 + 0.12 * u[8])], 1),
            zoom=np.exp(0.1 * m * g[2] + 0.1 * np.abs(cut)), passer=walks["passer"],
            occluder=kinds[np.where(u[2] < self.occlusion, (len(OCCLUDERS) * u[3]).astype(int), -1)],
            side=np.where(u[4] < 0.5, -1, 1) * (0.05 + 0.17 * u[5]), place=u[9:12].T, light=g[3:7].T,
        )

    def render(self, people, camera, *, view=0.0, phase=40.0, shift=(0.0, 0.0), zoom=1.0, occluder="none", side=0.15,
               passer=PASSERS, place=(0.3, 0.5, 0.5), light=(0.0, 0.0, 0.0, 0.0), device="cpu", chunk=None) -> Tensor:
        """Photograph people: uint8 [N, 3, rows, columns]. Every argument is one for all images, or one per image.

        people: numbers or :class:`Person`. camera: number or :class:`Camera`. view: degrees, 0 facing the camera, 90 to
        the right of the image, 180 from behind. phase: degrees of the walking cycle, nan stands still. shift: (right,
        up) in box widths and heights. zoom: size in the box, 1 fills it. occluder: of OCCLUDERS, or "none"; side: where
        it stands, from the middle; passer: who the passer-by is. place: in 0 .. 1, which piece of the backdrop and of
        the sensor's grain. light: brightness, red, green and blue of the moment, in standard deviations. chunk: images
        to draw at a time; None is 64, on a CPU fewer of large ones, whose maps would not stay in its cache.
        Nothing is random. The camera's light, backdrop, blur and noise follow the town's knobs, the rest is as told.
        """
        told = dict(view=view, phase=phase, zoom=zoom, occluder=occluder, side=side, passer=passer)
        lists = [[v] if isinstance(v, int | np.integer | Person | Camera) else list(v) for v in (people, camera)]
        flat, rows = map(np.atleast_1d, told.values()), map(np.atleast_2d, (shift, place, light))
        count = max(map(len, (*lists, *flat, *rows)))
        told = {k: np.broadcast_to(v, count) for k, v in told.items()}
        for name, v, width in (("shift", shift, 2), ("place", place, 3), ("light", light, 4)):
            told[name] = np.broadcast_to(v, (count, width))
        wrong, last = set(told["occluder"]) - {*OCCLUDERS, "none"}, len(self.place.cameras) - 1
        if wrong:
            raise ValueError(f"unknown occluder {', '.join(sorted(wrong))}: choose from {', '.join(OCCLUDERS)}, none")
        who, where = (v * count if len(v) == 1 else v for v in lists)
        if len(who) != count or len(where) != count:
            raise ValueError(f"{len(who)} people and {len(where)} cameras for {count} images: give one for all, or one "
                             "for each")
        if bad := [c for c in where if not isinstance(c, Camera) and not 0 <= c <= last]:
            raise ValueError(f"the town has {last + 1} cameras, 0 to {last} (got {bad[0]})")
        who = [p if isinstance(p, Person) else self.person(p) for p in who]
        where = [c if isinstance(c, Camera) else self.place.cameras[c] for c in where]
        chunk = chunk or (64 if str(device) != "cpu" else min(64, max(1, 2**19 // (self.pixels[0] * self.pixels[1]))))
        cuts = [slice(i, i + chunk) for i in range(0, count, chunk)]
        return torch.cat([self._render(who[c], where[c], device, **{k: v[c] for k, v in told.items()}) for c in cuts])

    def _render(self, people, cameras, device, view, phase, zoom, occluder, side, passer, shift, place, light):
        height, width = self.pixels
        image = torch.empty(len(people), 3, height, width, device=device)
        for i, camera in enumerate(cameras):
            scene = backdrop(camera, height, width)
            left, top = int(place[i, 0] * (SPAN - 1) * width), int(place[i, 1] * 0.5 * (scene.shape[1] - height))
            image[i] = scene[:, top : top + height, left : left + width]
        image = 0.6 + self.background * (image - 0.6)
        column = lambda name: np.array([getattr(c, name) for c in cameras])  # noqa: E731
        tall = np.array([p.height + 0.15 * (p.umbrella != "none") + 0.05 * (p.hat != "none") for p in people])
        box = (1.14 * tall / zoom)[:, None]
        y = (0.5 - (np.arange(height) + 0.5) / height - shift[:, 1:]) * box + 0.5 * tall[:, None] - 0.005
        y = y - column("tilt")[:, None] * 0.5 * y * (y - 1)
        x = ((np.arange(width) + 0.5) / width - 0.5 - shift[:, :1]) * 0.5 * box
        view, phase = np.radians(view), np.radians(phase)
        draw(Canvas(image, x, y), people, view, phase)
        occlude(Canvas(image, x, y), occluder, side)
        near = np.flatnonzero(occluder == "passer-by")
        if len(near):
            front = Canvas(image[near], x[near] - 1.2 * side[near, None], y[near] + 0.05)
            draw(front, [self.person(k) for k in passer[near]], view[near] + 0.5, phase[near] + 2)
            image[near] = front.image
        k = self.colour_shift
        gain = column("cast") ** k * np.exp(k * (0.10 * light[:, :1] + 0.03 * light[:, 1:]))
        blur = self.blur * column("blur") * 1.4 * height / 128
        return expose(image, gain, column("clarity") ** k, blur, self.noise * column("noise"), place[:, 1:]).cpu()

    def benchmark(self, device="cpu") -> Benchmark:
        """Train, query and gallery: of each test identity one query per camera that saw it, the rest in the gallery.

        ``meta``: "town" (this object), "knobs", "cameras" (:class:`Camera`, by number), "links" (cameras joined by a
        way), "lookalikes" ((person, person, detail), of all parts), and "shots": for "train", "query" and "gallery" a
        dict of arrays [N] with all of :meth:`walks` (distractors keep their numbers there) and :meth:`conditions`.
        """
        splits, shots = {}, {}
        for name, *parts in (("train", "train"), ("test", "test", "distractors")):
            walks = self.walks(*parts)
            how = self.conditions(walks)
            images = self.render(walks["person"], walks["cam"], device=device, **how)
            ids = np.where(walks["person"] > OTHERS, 0, walks["person"])
            splits[name], shots[name] = Split(images, ids, walks["cam"], walks["time"]), {**walks, **how}
        split, shot = splits.pop("test"), shots.pop("test")
        visits = np.stack([split.ids, split.cams], 1)
        asked = np.zeros(len(visits), bool)
        for visit in np.unique(visits[split.ids > 0], axis=0):
            asked[self.rng(*visit, 3).choice(np.flatnonzero((visits == visit).all(1)))] = True
        for name, keep in (("query", asked), ("gallery", ~asked)):
            splits[name], shots[name] = split.where(keep), {k: v[keep] for k, v in shot.items()}
        people = {n: self.person(n) for part in ("train", "test", "distractors") for n in self.numbers(part).tolist()}
        return Benchmark(
            f"toytown-{self.town}", **splits, note=f"toy town, drawn by cdimlib: {self.train} + {self.test} people",
            meta=dict(town=self, knobs=asdict(self), cameras=self.place.cameras, links=self.place.links, shots=shots,
                      lookalikes=[(p.twin, n, p.detail) for n, p in people.items() if p.twin in people]))


@lru_cache(maxsize=50_000)
def _person(town: str, seed: int, lookalikes: float, number: int) -> Person:
    rng = np.random.default_rng([seed, list(PLACES).index(town), number, 0])
    fashion, original = PLACES[town].fashion, number - number % FAMILY
    person = dress_up(number, fashion, rng)
    if number == original or number >= PASSERS or rng.random() >= lookalikes:
        return person
    taken = _person(town, seed, lookalikes, original + 1).detail if number == original + 2 else ""
    return lookalike(_person(town, seed, lookalikes, original), number, fashion, rng, taken)


def town_for(name: str, size: str | None = None, **knobs) -> ToyTown:
    """The town that a name ("toytown-plaza" or "toytown-campus"), a size and some knobs of :class:`ToyTown` ask for.

    size: "tiny", "demo", "full", or None for the one of the current profile.
    """
    town, allowed = name.removeprefix("toytown-"), [f.name for f in fields(ToyTown)][1:]
    unknown = sorted(set(knobs) - set(allowed))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)} of the toy town: choose from size, {', '.join(allowed)}")
    size = usual_size() if size is None else size
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, not {size!r}")
    return ToyTown(**{"town": town, **dict(zip(("train", "test", "distractors"), SIZES[size])), **knobs})


@lru_cache(maxsize=4)
def _benchmark(town: ToyTown, device: str) -> Benchmark:
    return town.benchmark(device)


def load_toytown(name: str, size: str | None = None, *, device="cpu", **knobs) -> Benchmark:
    """A toy town as a benchmark; :func:`town_for` has the options.

    device: where to draw ("cuda" is faster, and the same but for rounding). The images come back on the CPU.
    A town drawn once is kept in memory: do not write into its images.
    """
    return _benchmark(town_for(name, size, **knobs), str(device))
