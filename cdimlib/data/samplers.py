"""Samplers: pure functions of (seed, step), so that a resumed training sees exactly the batches it would have seen."""

from __future__ import annotations

import numpy as np
import torch

from .benchmark import PHOTO, SKETCH, Split


def generator_for(seed: int, step: int) -> torch.Generator:
    """A generator that depends on the seed and the step alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63))


def index_by_identity(split: Split, cam: int) -> dict[int, np.ndarray]:
    """identity -> indices of its images in domain ``cam``."""
    where = np.flatnonzero(split.cams == cam)
    where = where[np.argsort(split.ids[where], kind="stable")]
    ids, starts = np.unique(split.ids[where], return_index=True)
    return dict(zip(ids.tolist(), np.split(where, starts[1:])))


class PairSampler:
    """Batches of matching (sketch, photo) pairs, ``per_group`` distinct identities from every category.

    ``sampler(seed, step)`` -> (photo index [B], sketch index [B], group [B]). Within a category the identities come in
    random order without replacement until too few are left for a batch, then in a new order. Of an identity with
    several photos or sketches, one of each is drawn every time.
    """

    def __init__(self, split: Split, per_group: int):
        if per_group < 1:
            raise ValueError(f"per_group must be at least 1 (got {per_group}): pairs of each category in a batch")
        photo, sketch = index_by_identity(split, PHOTO), index_by_identity(split, SKETCH)
        groups = np.zeros(len(split), int) if split.groups is None else split.groups
        self.pairs = []
        for group in np.unique(groups):
            ids = [i for i in np.unique(split.ids[groups == group]) if int(i) in photo and int(i) in sketch]
            if len(ids) < 2:
                raise ValueError(f"category {group} has {len(ids)} identities with both a photo and a sketch; need two")
            self.pairs.append(np.array([(i, group) for i in ids]))
        self.photo, self.sketch, self.per_group = photo, sketch, per_group

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which the largest category has been seen once."""
        return -(-max(len(p) for p in self.pairs) // self.per_group)

    def __call__(self, seed: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = []
        for number, pairs in enumerate(self.pairs):
            count = min(self.per_group, len(pairs))
            rounds = len(pairs) // count  # full batches in one order of this category
            order = np.random.default_rng([seed, number, step // rounds]).permutation(len(pairs))
            at = step % rounds * count
            chosen.append(pairs[order[at : at + count]])
        ids, group = np.concatenate(chosen).T
        rng = np.random.default_rng([seed, step, 1])
        photo, sketch = (np.array([_one(images[int(i)], rng) for i in ids]) for images in (self.photo, self.sketch))
        return photo, sketch, group


def _one(images: np.ndarray, rng: np.random.Generator) -> int:
    """One of the images at random; nothing is drawn where there is one."""
    return int(images[rng.integers(len(images)) if len(images) > 1 else 0])


class TripletSampler:
    """Batches of (sketch, positive photo, negative photo) from human judgements, as in the released code.

    Anchors come in circular order; each draws one of its annotated (preferred, other) pairs; with probability
    ``1 - hard_ratio`` the negative becomes a photo outside the anchor's annotated ones. Without judgements
    (handbags) the positive is the true match and the negative any other photo. Judgements are about identities: of one
    with several photos or sketches, one is drawn every time.

    ``sampler(seed, step)`` -> three index arrays [B].
    """

    def __init__(self, split: Split, triplets: np.ndarray | None, batch_size: int = 128, hard_ratio: float = 0.75):
        if not 0 <= hard_ratio <= 1:
            raise ValueError(f"hard_ratio must lie in [0, 1] (got {hard_ratio})")
        self.photo, self.sketch = index_by_identity(split, PHOTO), index_by_identity(split, SKETCH)
        self.ids = np.array(sorted(set(self.photo) & set(self.sketch)))
        if not len(self.ids):
            raise ValueError(f"no identity has both a photo (camera {PHOTO}) and a sketch (camera {SKETCH})")
        self.batch_size, self.hard_ratio = batch_size, hard_ratio
        self.judged, near = None, {int(i): [i] for i in self.ids}
        if triplets is not None and len(self.ids) and self.ids[-1] >= len(triplets):
            raise ValueError(f"there are judgements for {len(triplets)} sketches, none for identity {self.ids[-1]}")
        if triplets is not None:  # judgements about identities that are not in the split (validation) are left out
            known = np.isin(triplets, self.ids).all(axis=2)
            self.judged = {int(i): triplets[i][known[i]] for i in self.ids}
            self.ids = np.array([i for i in self.ids if len(self.judged[int(i)])])
            if not len(self.ids):
                raise ValueError("no training sketch has a judgement about two photos of the training set")
            near = {int(i): triplets[i].ravel() for i in self.ids}  # with those that only left-out judgements mention
        photos = np.array(sorted(self.photo))
        self.others = {anchor: np.setdiff1d(photos, annotated) for anchor, annotated in near.items()}
        for anchor, others in self.others.items():
            if not len(others) and (hard_ratio < 1 or self.judged is None):
                raise ValueError(f"every photo is annotated for sketch {anchor}: no other is left, use hard_ratio=1")

    def __call__(self, seed: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([seed, step])
        anchors = self.ids[(step * self.batch_size + np.arange(self.batch_size)) % len(self.ids)]
        batch, pick = [self._draw(int(a), rng) for a in anchors], np.random.default_rng([seed, step, 1])
        sources = (self.sketch, self.photo, self.photo)
        return tuple(np.array([[_one(at[i], pick) for at, i in zip(sources, ids)] for ids in batch]).T)

    def _draw(self, anchor: int, rng: np.random.Generator) -> tuple[int, int, int]:
        if self.judged is None:
            positive, negative = anchor, None
        else:
            judged = self.judged[anchor]
            positive, negative = judged[rng.integers(len(judged))]
        if negative is None or rng.random() >= self.hard_ratio:
            others = self.others[anchor]
            negative = others[rng.integers(len(others))]
        return anchor, int(positive), int(negative)


class PlainSampler:
    """Batches of images in random order, without replacement until too few are left for a batch, then in a new order.

    ``sampler(seed, step)`` -> image index [B]; ``labels[index]`` are class numbers 0 .. classes - 1, in the order of
    the identities. A split smaller than a batch gives all its images every time.
    """

    def __init__(self, split: Split, batch_size: int):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 (got {batch_size})")
        if not len(split):
            raise ValueError("there are no training images: the training split of the data is empty")
        self.identities, self.labels = np.unique(split.ids, return_inverse=True)
        self.batch_size = min(batch_size, len(split))

    @property
    def classes(self) -> int:
        return len(self.identities)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one order of the images."""
        return len(self.labels) // self.batch_size

    def __call__(self, seed: int, step: int) -> np.ndarray:
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(self.labels))
        return order[at * self.batch_size : (at + 1) * self.batch_size]


class IdentitySampler(PlainSampler):
    """Batches of ``identities`` x ``images``: every identity equally often, however many images it has (P x K).

    Identities come in random order as in :class:`PlainSampler`; each brings ``images`` of its images, all different
    where it has that many, else each of them before any comes twice. A batch is ordered by identity.
    """

    def __init__(self, split: Split, identities: int, images: int = 4):
        if identities < 1 or images < 1:
            raise ValueError(f"identities and images must be at least 1 (got {identities} and {images})")
        super().__init__(split, identities * images)
        self.images = images
        self.members = [np.flatnonzero(self.labels == label) for label in range(self.classes)]
        self.per_batch = min(identities, self.classes)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one order of the identities."""
        return self.classes // self.per_batch

    def __call__(self, seed: int, step: int) -> np.ndarray:
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(self.classes)
        rng = np.random.default_rng([seed, step, 1])
        chosen = []
        for label in order[at * self.per_batch : (at + 1) * self.per_batch]:
            rounds = -(-self.images // len(self.members[label]))  # permutations needed for that many images
            chosen.append(np.concatenate([rng.permutation(self.members[label]) for _ in range(rounds)])[: self.images])
        return np.concatenate(chosen)


class CrossViewPairSampler:
    """Batches of pairs of images, ``negatives`` mismatches for each match, as pair models learn from.

    ``sampler(seed, step)`` -> (image index [M], first [P], second [P], match [P]): first and second are positions in
    the image index, so that every image is encoded once. A batch takes P // (1 + negatives) identities, each of them
    once, and of each one image from either of two cameras (any two images where the split has no cameras). A mismatch
    joins the first of these images to the second of another identity of the batch, drawn at random; none is mined.
    Drawing mismatches from within the batch needs 2 images for 3 pairs where fresh ones would need 4; the paper says
    only "we only randomly choose two negative pairs for each positive pair" (multilevel-similarity, Sec. 4.2).
    Identities that were seen by one camera only are left out.
    """

    def __init__(self, split: Split, pairs: int = 256, negatives: int = 2):
        if negatives < 0 or pairs < 2 * (1 + negatives):
            raise ValueError(f"need negatives >= 0 and at least 2 * (1 + negatives) pairs; got {negatives} and {pairs}")
        self.views, self.negatives, self.matches = [], negatives, 0
        for identity in np.unique(split.ids):
            mine = np.flatnonzero(split.ids == identity)
            cams = np.arange(len(mine)) if split.cams is None else split.cams[mine]
            views = [mine[cams == cam] for cam in np.unique(cams)]
            if len(views) > 1:
                self.views.append(views)
                self.matches += (len(mine) ** 2 - sum(len(v) ** 2 for v in views)) // 2
        if len(self.views) < 2:
            raise ValueError(f"{len(self.views)} identities were seen by two cameras: pairs need at least two of them")
        self.per_batch = min(pairs // (1 + negatives), len(self.views))

    @property
    def pairs(self) -> int:
        """Pairs of a batch: as many as were asked for, or a few less, so that every match has its mismatches."""
        return self.per_batch * (1 + self.negatives)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold as many matches as the split has (cross-camera pairs of one identity)."""
        return -(-self.matches // self.per_batch)

    def __call__(self, seed: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        rounds, n = len(self.views) // self.per_batch, self.per_batch
        order = np.random.default_rng([seed, step // rounds]).permutation(len(self.views))
        rng = np.random.default_rng([seed, step, 1])
        images = np.empty((2, n), int)
        for i, identity in enumerate(order[step % rounds * n :][:n]):
            views = self.views[identity]
            images[:, i] = [rng.choice(views[v]) for v in rng.choice(len(views), 2, replace=False)]
        anchor = np.repeat(np.arange(n), 1 + self.negatives)  # [P]: identities' places, the match first
        other = anchor + rng.integers(1, n, size=len(anchor))  # of another identity
        match = np.arange(len(anchor)) % (1 + self.negatives) == 0
        return images.ravel(), anchor, n + np.where(match, anchor, other % n), match
