"""The toy shop: shoes, chairs and handbags as line drawings in two domains, made up here and free for any use.

Domain ``PHOTO`` is what an edge detector gives for a photo of an object: an exact outline, double lines, creases and
other fine texture, edges that break off. Domain ``SKETCH`` is a hand drawing of the same object: proportions are off,
parts sit where they should not, lines wobble and overshoot, details are missing. Both come from one vector of
parameters per object, so it is known how alike two objects are, which human annotators could only be asked.

Every difficulty is a knob of :class:`ToyShop`. Object number ``i`` depends on the seed and on ``i`` alone, never on how
many objects are made or in which batches.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .benchmark import PHOTO, SKETCH, Benchmark, Split, pool, usual_size, whole
from .strokes import Pen, Stroke, densify, rasterise
from .toybags import HANDBAGS
from .toychairs import CHAIRS
from .toydomains import as_edges, as_sketch, creases
from .toyshapes import Category
from .toyshoes import SHOES

CATALOGUE = {kind.name: kind for kind in (SHOES, CHAIRS, HANDBAGS)}
CATEGORIES = tuple(CATALOGUE)
SIZES = {"tiny": (12, 8), "demo": (120, 60), "full": (400, 200)}
TEST = 1_000_000  # number of the first test object: train and test draws never meet
JUDGE_NOISE = 1.8  # of a simulated annotator, in units of parameter_distance
FAMILY = 4  # objects 4k+1, 4k+2, 4k+3 may be lookalikes of object 4k


@dataclass(frozen=True)
class ToyShop:
    """The knobs. Zero is always the easy end, one the strength that the book's numbers are for.

    train, test: objects per category.
    pixels: side of the images.
    seed: of the whole world; another seed is another shop.
    distortion: how far the sketch is from a tracing: proportions, smooth warp, misplaced parts, wobble, overshoot.
    dropped: probability that the sketcher leaves out a stroke of a detail; below 0.014 none, above 0.986 every one.
    lookalikes: in each family of four objects, the probability for each but the first to be a copy of the first that
    differs in one detail only. Where one detail decides, the middle of a network should help.
    viewpoint: how much the photographer's and the sketcher's points of view differ (1: about 6 degrees).
    broken: how much of its lines the edge detector loses.
    texture: how many creases and double lines the edge detector finds that no person would draw.
    """

    train: int = 120
    test: int = 60
    pixels: int = 128
    seed: int = 0
    distortion: float = 1.0
    dropped: float = 0.06
    lookalikes: float = 0.5
    viewpoint: float = 1.0
    broken: float = 1.0
    texture: float = 1.0

    def __post_init__(self):
        whole(train=self.train, test=self.test, pixels=self.pixels, seed=self.seed)
        if self.train < 2 or self.test < 2 or self.train > TEST:
            sizes = f"train={self.train}, test={self.test}"
            raise ValueError(f"the toy shop needs 2 to {TEST:,} objects per split (got {sizes})")
        if not 32 <= self.pixels <= 512:
            raise ValueError(f"pixels must lie between 32 and 512 (got {self.pixels})")
        for name in ("dropped", "lookalikes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1 (got {getattr(self, name)})")
        for name in ("distortion", "viewpoint", "broken", "texture"):
            if not 0 <= getattr(self, name) <= 4:
                raise ValueError(f"{name} must lie between 0 and 4 (got {getattr(self, name)}); 1 is usual")

    # ------------------------------------------------------------------------------------------------- the objects

    def objects(self, category: str, numbers) -> np.ndarray:
        """Parameter vectors in 0 .. 1 of the objects with these numbers: float64 [N, P].

        The names of the P parameters are ``CATALOGUE[category].parameters``, shape first, then details.
        """
        return np.stack([self._object(category, int(n)) for n in numbers])

    def _object(self, category: str, number: int) -> np.ndarray:
        kind = CATALOGUE[category]
        rng = self._rng(category, number, 2)
        vector = rng.random(len(kind.parameters))
        original = number - number % FAMILY
        if number == original or rng.random() >= self.lookalikes:
            return vector
        vector = self._object(category, original)
        look = _footprint(kind, vector)
        choices = [(n, o) for n, options in kind.details.items() for o in range(len(options))]
        best, most = vector, -1
        for index in rng.permutation(len(choices))[:8]:
            name, option = choices[index]
            place, count = kind.parameters.index(name), len(kind.details[name])
            if int(vector[place] * count) == option:
                continue
            other = vector.copy()
            other[place] = (option + 0.5) / count
            change = int((look ^ _footprint(kind, other)).sum())
            if change > most:
                best, most = other, change
            if 30 <= change <= 160:  # plainly visible, yet one detail
                return other
        return best

    def numbers(self, split: str) -> np.ndarray:
        """Numbers of the objects of "train" or "test"."""
        return np.arange(self.train) if split == "train" else TEST + np.arange(self.test)

    def _rng(self, category: str, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, CATEGORIES.index(category), number, purpose])

    # ------------------------------------------------------------------------------------------------ the pictures

    def render(self, category: str, vectors: np.ndarray, domain: int, numbers, *, batch_size: int = 256) -> Tensor:
        """Draw objects in one domain: uint8 [N, 1, pixels, pixels], dark lines on white.

        vectors: parameters [N, P] in 0 .. 1; numbers: [N], whose chance events (viewpoint, wobble, gaps) to use.
        """
        numbers = np.asarray(numbers)
        parts = [
            self._render(category, vectors[i : i + batch_size], domain, numbers[i : i + batch_size])
            for i in range(0, len(numbers), batch_size)
        ]
        return torch.cat(parts)

    def _render(self, category: str, vectors: np.ndarray, domain: int, numbers: np.ndarray) -> Tensor:
        kind = CATALOGUE[category]
        rngs = [self._rng(category, int(n), domain) for n in numbers]
        drawings, framing = [], []
        for vector, rng in zip(vectors, rngs, strict=True):
            turn = 4.0 * self.viewpoint * rng.standard_normal(2).clip(-2, 2)
            strokes = _draw(kind, vector, turn)
            low, high = _bounds(strokes)
            if domain == PHOTO:
                strokes = strokes + creases(strokes, self.texture, rng)
            drawings.append(strokes)
            framing.append((*(low + high) / 2, 0.86 / max((high - low).max() / 2, 1e-6)))
        dense = densify(drawings)
        centre, zoom = np.array(framing)[:, :2], np.array(framing)[:, 2]
        owner = dense.image[dense.stroke]
        dense = replace(dense, xy=(dense.xy - centre[owner]) * zoom[owner, None])
        if domain == PHOTO:
            dense, width = as_edges(dense, self, rngs)
        elif domain == SKETCH:
            dense, width = as_sketch(dense, self, rngs)
        else:
            raise ValueError(f"the toy shop has the domains PHOTO = 0 and SKETCH = 1, not {domain}")
        return rasterise(dense, len(numbers), self.pixels, width)

    # ----------------------------------------------------------------------------------------------- the benchmark

    def benchmark(self, category: str) -> Benchmark:
        """One category: train (both domains), query (test sketches), gallery (test edge maps), simulated judgements."""
        made, start = {}, 0
        for split in ("train", "test"):
            numbers = self.numbers(split)
            vectors = self.objects(category, numbers)
            ids = np.arange(start, start + len(numbers))
            start += len(numbers)
            for domain in (PHOTO, SKETCH):
                images = self.render(category, vectors, domain, numbers)
                made[split, domain] = Split(images, ids, np.full(len(ids), domain))
            if split == "train":
                triplets = self.judgements(category, vectors)
        return Benchmark(
            f"toy-shop/{category}",
            train=Split.join([made["train", PHOTO], made["train", SKETCH]]),
            query=made["test", SKETCH], gallery=made["test", PHOTO], triplets=triplets, categories=(category,),
            note=f"toy shop, drawn by cdimlib: {self.train} training and {self.test} test objects per category",
            meta={"knobs": {f.name: getattr(self, f.name) for f in fields(self)}},
        )

    def judgements(self, category: str, vectors: np.ndarray) -> np.ndarray | None:
        """Simulated annotators: int64 [A, 135, 2] of (preferred, other), as the QMUL database has them.

        For each training sketch ten candidate photos, its own among them, are the nearest in parameter space, with
        noise. Three annotators say for each of the 45 pairs which is more like the sketch; they, too, see the
        distances with noise, so the true photo wins about 93 % of its comparisons. None for fewer than ten objects.
        """
        if len(vectors) < 10:
            return None
        distance = parameter_distance(CATALOGUE[category], vectors)
        first, second = np.triu_indices(10, 1)
        out = np.empty((len(vectors), 135, 2), np.int64)
        for anchor in range(len(vectors)):
            rng = self._rng(category, anchor, 3)
            noisy = distance[anchor] * np.exp(0.25 * rng.standard_normal(len(vectors)))
            noisy[anchor] = -1.0  # its own photo is always shown
            shown = rng.permutation(np.argsort(noisy, kind="stable")[:10])
            noise = JUDGE_NOISE * rng.standard_normal((3, 45))
            wins = distance[anchor, shown[first]] - distance[anchor, shown[second]] + noise < 0
            pairs = np.where(wins[..., None], np.stack([shown[first], shown[second]], -1),
                             np.stack([shown[second], shown[first]], -1))
            out[anchor] = pairs.reshape(135, 2)
        return out


def _draw(kind: Category, vector: np.ndarray, turn=(0.0, 0.0)) -> list[Stroke]:
    pen = Pen(yaw=kind.yaw + turn[0], pitch=kind.pitch + 0.5 * turn[1])
    kind.draw(pen, kind.decode(vector))
    return pen.strokes


def _bounds(strokes: list[Stroke]) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate([s.points for s in strokes])
    return points.min(0), points.max(0)


def _footprint(kind: Category, vector: np.ndarray, cells: int = 48) -> np.ndarray:
    """Which cells of a coarse grid the clean drawing touches: bool [cells, cells]; in object coordinates."""
    dense = densify([_draw(kind, vector)])
    cell = np.floor((dense.xy[dense.seen] + [1.3, 0.3]) / 2.6 * cells).astype(int).clip(0, cells - 1)
    grid = np.zeros((cells, cells), bool)
    grid[cell[:, 0], cell[:, 1]] = True
    return grid


def parameter_distance(kind: Category, vectors: np.ndarray) -> np.ndarray:
    """How unlike objects are: [N, P] -> [N, N]; a range counts its difference, a choice 0 or 0.5."""
    names = {**kind.shape, **kind.details}
    total = np.zeros((len(vectors), len(vectors)))
    for column, domain in zip(vectors.T, names.values(), strict=True):
        if isinstance(domain[0], str):
            option = np.minimum((column * len(domain)).astype(int), len(domain) - 1)
            total += 0.5 * (option[:, None] != option[None])
        else:
            total += np.abs(column[:, None] - column[None])
    return total


def shop_for(size: str | ToyShop | None = None, **knobs) -> ToyShop:
    """The shop that a size and some knobs ask for.

    size: "tiny", "demo", "full", a :class:`ToyShop`, or None for the one of the current profile.
    """
    allowed = [f.name for f in fields(ToyShop)]
    unknown = sorted(set(knobs) - set(allowed))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)} of the toy shop: choose from size, {', '.join(allowed)}")
    if size is None:
        size = usual_size()
    if isinstance(size, ToyShop):
        return replace(size, **knobs)
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)} or a ToyShop, not {size!r}")
    train, test = SIZES[size]
    return replace(ToyShop(train=train, test=test), **knobs)


@lru_cache(maxsize=6)
def _benchmark(shop: ToyShop, category: str) -> Benchmark:
    return shop.benchmark(category)


def load_toyshop(category: str | None = None, /, size: str | ToyShop | None = None, **knobs) -> Benchmark:
    """The toy shop as a benchmark: one category, or (None) all three pooled, without judgements.

    See :func:`shop_for` for the options. A shop drawn once is kept in memory: do not write into its images.
    """
    shop = shop_for(size, **knobs)
    if category is None:
        return pool("toy-shop", [_benchmark(shop, c) for c in CATEGORIES])
    if category not in CATALOGUE:
        raise ValueError(f"unknown category {category!r} of the toy shop: choose from {', '.join(CATEGORIES)}")
    return _benchmark(shop, category)
