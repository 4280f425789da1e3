"""What every data set looks like here: a :class:`Benchmark` of three splits.

A benchmark for matching across domains has images to learn from (``train``) and, for identities never seen in
training, images to ask about (``query``) and to search (``gallery``). The *domain* an image comes from is its
``cams`` value: for people it is the camera, for sketches it is 0 for an edge map of a photo and 1 for a hand-drawn
sketch. A sketch is one more camera; everything downstream relies on nothing else.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from .. import by_profile

PHOTO, SKETCH = 0, 1


@dataclass(frozen=True)
class Split:
    """Images with their labels. All arrays have one entry per image.

    images: uint8 tensor [N, C, H, W] (C = 1 for line drawings, 3 for colour).
    ids:    int64 array [N], the identity (which object, which person).
    cams:   int64 array [N] or None, the domain or camera.
    times:  float64 array [N] or None, seconds.
    groups: int64 array [N] or None, the category of the object, an index into ``Benchmark.categories``.
    """

    images: Tensor
    ids: np.ndarray
    cams: np.ndarray | None = None
    times: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"Split.images must be a uint8 tensor [N, C, H, W]; got {self.images.dtype} "
                f"with shape {tuple(self.images.shape)}"
            )
        for name in ("ids", "cams", "times", "groups"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.images):
                raise ValueError(f"Split.{name} has {len(value)} entries for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of images, identities and cameras, for a checkpoint's name: other data must not
        resume from it."""
        labels = (values for values in (self.ids, self.cams) if values is not None)
        of_images = zlib.crc32(self.images.contiguous().numpy())
        return f"{zlib.crc32(repr([np.asarray(v).tolist() for v in labels]).encode(), of_images):08x}"

    def where(self, keep) -> Split:
        """The images for which the boolean array (or index array) ``keep`` [N] says so."""
        keep = np.asarray(keep)
        if keep.dtype == bool and keep.shape != (len(self),):
            raise ValueError(f"the mask has shape {keep.shape} for {len(self)} images: it needs one value for each")
        keep = keep if keep.size else keep.astype(np.int64)
        index = np.flatnonzero(keep) if keep.dtype == bool else keep
        pick = lambda a: None if a is None else a[index]  # noqa: E731
        return Split(
            self.images[torch.as_tensor(index)], self.ids[index], pick(self.cams), pick(self.times), pick(self.groups)
        )

    @staticmethod
    def join(splits: list[Split]) -> Split:
        """One split after the other; a label that one of them lacks is dropped."""

        def cat(name):
            values = [getattr(s, name) for s in splits]
            return None if any(v is None for v in values) else np.concatenate(values)

        return Split(
            torch.cat([s.images for s in splits]), cat("ids"), cat("cams"), cat("times"), cat("groups")
        )


@dataclass(frozen=True)
class Benchmark:
    """A data set ready for matching: ``train``, ``query``, ``gallery`` and what is known about them.

    triplets: int64 array [A, P, 2] or None; for the sketch of training identity ``a``, P human judgements
    (preferred identity, other identity). Identities are those of ``train.ids``.
    categories: names of the object categories that ``Split.groups`` indexes.
    note: one line on where the data comes from, for tables and results.
    """

    name: str
    train: Split
    query: Split
    gallery: Split
    triplets: np.ndarray | None = None
    categories: tuple[str, ...] = ()
    note: str = ""
    meta: dict = field(default_factory=dict)

    def accounting(self):
        """A table (pandas): images, identities and cameras of train, query and gallery.

        "distractors": gallery images whose identity no query asks about; they stay and can only be wrong. "junk
        dropped": images left out on reading (``meta["junk"]``), since by rule they are neither right nor wrong.
        """
        import pandas as pd

        return pd.DataFrame({
            name: {
                "images": len(split), "identities": len(np.unique(split.ids)),
                "cameras": 0 if split.cams is None else len(np.unique(split.cams)),
                "distractors": int((~np.isin(split.ids, self.query.ids)).sum()) if name == "gallery" else 0,
                "junk dropped": self.meta.get("junk", {}).get(name, 0),
            } for name, split in (("train", self.train), ("query", self.query), ("gallery", self.gallery))
        }).T

    def category(self, name: str) -> Benchmark:
        """The part of a pooled benchmark that belongs to one category."""
        if name not in self.categories:
            raise ValueError(f"{self.name!r} has no category {name!r}; it has {', '.join(self.categories) or 'none'}")
        if len(self.categories) == 1:
            return self
        group = self.categories.index(name)
        cut = lambda s: replace(s.where(s.groups == group), groups=None)  # noqa: E731
        return Benchmark(
            f"{self.name}/{name}", cut(self.train), cut(self.query), cut(self.gallery),
            categories=(name,), note=self.note,
        )

    def by_category(self) -> list[tuple[str, Benchmark]]:
        """(category, its benchmark) for each category: a gallery never mixes categories. Where nothing is said of
        categories, all is one, under the benchmark's own name."""
        return [(name, self.category(name)) for name in self.categories] or [(self.name, self)]

    def with_people(self, count: int) -> Benchmark:
        """With ``count`` of the training identities, drawn at random, always the same ones; all if there are fewer."""
        if count < 1:
            raise ValueError(f"count must be at least 1 (got {count}): the number of training identities to keep")
        kept = np.random.default_rng(0).permutation(np.unique(self.train.ids))[:count]
        return replace(self, train=self.train.where(np.isin(self.train.ids, kept)))

    def with_validation(self, fraction: float = 0.1, seed: int = 0) -> Benchmark:
        """Hold out a share of the *training identities* as query and gallery; the test split is not touched.

        In every category ``round(fraction * identities)`` of the identities that were seen by two cameras or more
        (at least two of them) leave the training set: the others would have no match, and stay in it. The result is
        a benchmark whose query and gallery are the held-out images: the query takes the highest camera number of
        each identity (for sketches the sketch), the gallery the rest. Human triplets stay as they are:
        :class:`~cdimlib.data.samplers.TripletSampler` leaves out those that mention a held-out identity, and
        anchors that have no other. What ``meta`` says of single images is left out.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1 (got {fraction}): the share of identities held out")
        if self.train.cams is None:
            raise ValueError(f"{self.name!r} has no cams: cannot tell query from gallery images of one identity")
        rng = np.random.default_rng(seed)
        groups = np.zeros(len(self.train), int) if self.train.groups is None else self.train.groups
        held = []
        for group in np.unique(groups):
            seen = np.unique(np.stack([self.train.ids, self.train.cams])[:, groups == group], axis=1)[0]
            ids, cameras = np.unique(seen, return_counts=True)
            ids = ids[cameras > 1]
            count = max(2, round(fraction * len(ids)))
            if count >= len(ids):
                raise ValueError(f"{self.name!r}: {len(ids)} training identities that two cameras saw are too few to "
                                 f"hold out {count}")
            held.append(rng.choice(ids, count, replace=False))
        out = np.isin(self.train.ids, np.concatenate(held))
        part = self.train.where(out)
        people, number = np.unique(part.ids, return_inverse=True)
        highest = np.full(len(people), part.cams.min())
        np.maximum.at(highest, number, part.cams)
        top = part.cams == highest[number]
        return replace(
            self, name=f"{self.name}[validation]", train=self.train.where(~out), query=part.where(top),
            gallery=part.where(~top), meta={k: v for k, v in self.meta.items() if k not in ("junk", "shots", "paths")},
        )


def usual_size() -> str:
    """How large a toy world the current profile draws: "tiny", "demo" or "full"."""
    return by_profile(smoke="tiny", demo="demo", full="full")


def whole(**values) -> None:
    """ValueError where one of these is not a whole number, or below zero."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise ValueError(f"{name} must be a whole number, 0 or more (got {value!r})")


def to_judge(benches: list[Benchmark]) -> list[Benchmark]:
    """Those that have queries and a gallery (RandPerson has neither); ValueError if none has."""
    found = [bench for bench in benches if len(bench.query) and len(bench.gallery)]
    if not found:
        named = ", ".join(repr(bench.name) for bench in benches)
        raise ValueError(f"nothing to test on: no queries or no gallery in {named}; name another benchmark beside it")
    return found


def pool(name: str, benchmarks: list[Benchmark]) -> Benchmark:
    """Several single-category benchmarks as one; identities are renumbered so that they never collide."""

    def shifted(split_name):
        parts, offset = [], 0
        for group, bench in enumerate(benchmarks):
            split = getattr(bench, split_name)
            parts.append(replace(split, ids=split.ids + offset, groups=np.full(len(split), group)))
            offset += 1 + max(int(getattr(bench, s).ids.max()) for s in ("train", "query", "gallery"))
        return Split.join(parts)

    return Benchmark(
        name, *(shifted(s) for s in ("train", "query", "gallery")),
        categories=tuple(b.categories[0] for b in benchmarks), note=benchmarks[0].note,
    )
