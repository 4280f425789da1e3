"""Multi-level similarity: parts of one person's maps, laid as filters over the maps of the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..losses import contrastive, euclidean
from .correlation import correlate, halve
from .matcher import Matcher, single
from .stn import CentreCrop, PartSTN, conv_block, stripes

CHANNELS = 96
#: level -> side of its parts at 160 x 60; the paper gives 10 and 5 for levels 2 and 3, and nothing for level 4
PART_SIZES = {2: 10, 3: 5, 4: 5}


def part_sizes(size: tuple[int, int]) -> dict[int, int]:
    """``PART_SIZES`` for images of another (height, width), in proportion to the height: 6, 3, 3 at 96 x 36."""
    return {level: max(2, round(side * size[0] / 160)) for level, side in PART_SIZES.items()}


#: rows of Tables 3 and 4; "cls" is "L2,L3" without the contrastive loss, C3 is L4 and C4 is L2,L3,L4
VARIANTS = {
    "L2": {"levels": (2,)}, "L3": {"levels": (3,)}, "L4": {"levels": (4,)}, "L2,L3": {"levels": (2, 3)},
    "L2,L3,L4": {"levels": (2, 3, 4)}, "cls": {"levels": (2, 3), "contrastive": False},
    "C1": {"levels": (2, 3, 4), "parts": "whole"}, "C2": {"levels": (2, 3, 4), "parts": "centre"},
    "C3": {"levels": (4,)}, "C4": {"levels": (2, 3, 4)},
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One level of encoded images: maps [N, C, H, W], parts [N, K, C, f, f], transforms [N, K, 2, 3] of the parts."""

    maps: Tensor
    parts: Tensor
    transforms: Tensor


def simi_score(probability: Tensor, distance: Tensor, *, weight: float = 0.2, epsilon: float = 1e-4) -> Tensor:
    """Probability of a match plus ``weight / (distance + epsilon)``.

    With unit vectors the second term lies between 0.1 and 2,000: from a distance of about 0.2 downwards it outweighs
    the probability. Multilevel-similarity, Eq. (7).
    """
    return probability + weight / (distance + epsilon)


class RankingNet(nn.Module):
    """Attended parts of all levels -> unit vectors [N, 256].

    A convolution with pool for each level, the parts stacked from top to bottom, a convolution that the levels share,
    global average. The paper concatenates the levels' maps, which differ in size: here their averages are. Three
    convolutions for two levels, as it says. Multilevel-similarity, Sec. 3.1.
    """

    def __init__(self, levels: tuple[int, ...], *, batch_norm: bool = True):
        super().__init__()
        block = lambda pool: conv_block(CHANNELS, CHANNELS, 3, pool=pool, batch_norm=batch_norm)  # noqa: E731
        self.first = nn.ModuleDict({str(level): block(True) for level in levels})
        self.second = block(False)
        self.linear = nn.Linear(CHANNELS * len(levels), 256)

    def forward(self, parts: dict[int, Tensor]) -> Tensor:
        """{level: its attended parts [N, K, C, f, f]} -> features [N, 256] of unit length."""
        means = []
        for level, part in parts.items():  # [N, K, C, f, f]
            x = self.first[str(level)](part.flatten(0, 1)).unflatten(0, part.shape[:2])  # [N, K, C, g, g]
            x = x.transpose(1, 2).flatten(2, 3)  # [N, C, K * g, g]
            means.append(self.second(x).mean(dim=(2, 3)))
        return F.normalize(self.linear(torch.cat(means, dim=1)).float(), dim=1)


class ConvSimilarityNet(Matcher):
    """The pair model of the paper. Features are rows [N, D] that hold all a pair needs of an image; D = ``dimension``.

    levels: which of levels 2, 3, 4 are compared. Level 4 is one more 3x3 convolution behind conv3. The paper says no
    more of it; the cost in its Table 5 is met (1.31 G) if the pool moves from conv3 to behind that convolution, so that
    is done. early_pool: leave the pool where it was, which would be 1.07 G.
    parts: "stn" (a window in each of three stripes), "whole" (one window of the undivided map: C1), or "centre" (the
    middle of each stripe: C2).
    contrastive: with the ranking net; without it the score is the probability alone.
    size: (height, width) of the images. part_sizes: level -> side of its parts, by default ``PART_SIZES``.
    batch_norm: False leaves exactly the parameters that the paper's Table 1 names.

    An image is encoded once; a pair costs the correlations and three small convolutions. The score is symmetric only as
    far as training makes it so: swapping the images swaps groups of channels ahead of conv4.
    Multilevel-similarity, Sec. 3.1, Table 1.
    """

    def __init__(
        self, levels: tuple[int, ...] = (2, 3), *, parts: str = "stn", contrastive: bool = True,
        size: tuple[int, int] = (160, 60), batch_norm: bool = True, early_pool: bool = False,
        part_sizes: dict[int, int] | None = None,
    ):
        super().__init__()
        levels = tuple(levels)
        if not levels or list(levels) != sorted(set(levels) & set(PART_SIZES)):
            raise ValueError(f"levels must be some of 2, 3, 4 in this order, not {levels!r}")
        if parts not in ("stn", "whole", "centre"):
            raise ValueError(f"parts must be 'stn', 'whole' or 'centre', not {parts!r}")
        self.levels, self.size, self.divided = levels, tuple(size), parts != "whole"
        self.part_sizes = {**PART_SIZES, **(part_sizes or {})}
        half, quarter, eighth = (tuple(-(-side // by) for side in size) for by in (2, 4, 8))
        late = 4 in levels and not early_pool  # level 3 keeps level 2's size
        self.map_sizes = {1: half, 2: quarter, 3: quarter if late else eighth, 4: eighth}
        for level in levels:
            (height, width), f = self.map_sizes[level], self.part_sizes[level]
            if height // 2 < f or width < f:
                raise ValueError(
                    f"images of {size[0]} x {size[1]} are too small: at level {level} half the map is {height // 2} x "
                    f"{width} cells, a part {f} x {f}; use at least {8 * f if level == 2 else 16 * f} x "
                    f"{(4 if level == 2 else 8) * f} pixels or smaller part_sizes"
                )
        plan = {"1": (3, 32, 5, True), "2": (32, 96, 3, True), "3": (96, 96, 3, not late), "4": (96, 96, 3, late)}
        self.trunk = nn.ModuleDict({
            name: conv_block(*plan[name][:3], pool=plan[name][3], batch_norm=batch_norm)
            for name in plan if int(name) <= max(levels)
        })
        self.attend = nn.ModuleDict({
            str(level): CentreCrop(self.part_sizes[level]) if parts == "centre"
            else PartSTN(CHANNELS, self.part_sizes[level], batch_norm=batch_norm)
            for level in levels
        })
        self.ranking = RankingNet(levels, batch_norm=batch_norm) if contrastive else None
        groups = 2 * self.parts_per_level * len(levels)
        self.decide = nn.Sequential(
            conv_block(CHANNELS * groups, 32, 1, pool=False, batch_norm=batch_norm),
            conv_block(32, 32, 3, batch_norm=batch_norm),
            conv_block(32, 500, 1, pool=False, batch_norm=batch_norm),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(500, 2),
        )

    @classmethod
    def variant(cls, name: str, **options) -> ConvSimilarityNet:
        """The model of a row of Table 3 or 4: a key of ``VARIANTS``. Multilevel-similarity, Sec. 4.4."""
        if name not in VARIANTS:
            raise ValueError(f"unknown variant {name!r}: choose from {', '.join(map(repr, VARIANTS))}")
        return cls(**{**VARIANTS[name], **options})

    @property
    def parts_per_level(self) -> int:
        return 3 if self.divided else 1

    @property
    def layout(self) -> list[tuple[int, ...]]:
        """Shapes of what a row of features holds: maps, parts and transforms of each level, then the unit vector."""
        shapes = []
        for level in self.levels:
            k, f = self.parts_per_level, self.part_sizes[level]
            shapes += [(CHANNELS, *self.map_sizes[level]), (k, CHANNELS, f, f), (k, 2, 3)]
        return shapes + ([(256,)] if self.ranking else [])

    @property
    def dimension(self) -> int:
        """Length of a row of features."""
        return sum(map(math.prod, self.layout))

    def encode(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] of the model's size -> rows [N, D]; :meth:`unpack` takes them apart."""
        if tuple(images.shape[1:]) != (3, *self.size):
            raise ValueError(
                f"images are {list(images.shape)}, the model's are [N, 3, {self.size[0]}, {self.size[1]}]: "
                "resize them, or build the model with their size=(height, width)"
            )
        x, columns, parts = images.contiguous(memory_format=torch.channels_last), [], {}
        for name, convolve in self.trunk.items():
            x, level = convolve(x), int(name)
            if level not in self.levels:
                continue
            regions = stripes(x) if self.divided else x[:, None]  # [N, K, C, h, W]
            part, transform = self.attend[name](regions.flatten(0, 1))
            parts[level] = part.unflatten(0, regions.shape[:2])  # [N * K, C, f, f] -> [N, K, C, f, f]
            columns += [x, parts[level], transform.unflatten(0, regions.shape[:2])]
        columns += [self.ranking(parts)] if self.ranking else []
        return torch.cat([column.flatten(1) for column in columns], dim=1)

    def unpack(self, features: Tensor) -> tuple[dict[int, Level], Tensor | None]:
        """Rows [N, D] -> (level -> :class:`Level`, unit vectors [N, 256] or None); views, not copies."""
        if features.shape[-1] != self.dimension:
            raise ValueError(
                f"features have {features.shape[-1]} numbers an image, this model's have {self.dimension}: "
                "were they encoded by the same variant, for images of the same size?"
            )
        columns = features.split([math.prod(shape) for shape in self.layout], dim=1)
        columns = [column.unflatten(1, shape) for column, shape in zip(columns, self.layout)]
        levels = {level: Level(*columns[3 * i : 3 * i + 3]) for i, level in enumerate(self.levels)}
        return levels, columns[-1] if self.ranking else None

    def similarity_maps(self, first: Tensor, second: Tensor) -> dict[int, Tensor]:
        """Rows [P, D] of the two images of each pair -> level -> maps [P, 2 * K * C, H / 8, W / 8], sides rounded up.

        Channels: the parts of the second over the first, then the parts of the first over the second; within, part by
        part. Maps of twice that size (level 2) go through a 2x2 pool. Multilevel-similarity, Sec. 3.1.
        """
        out, (one, _), (other, _) = {}, self.unpack(first), self.unpack(second)
        for level in self.levels:
            a, b = one[level], other[level]
            pool = halve if self.map_sizes[level] != self.map_sizes[4] else nn.Identity()
            out[level] = torch.cat([pool(correlate(a.maps, b.parts)), pool(correlate(b.maps, a.parts))], dim=1)
        return out

    def logits(self, first: Tensor, second: Tensor) -> Tensor:
        """Rows [P, D] of the two images of each pair -> logits [P, 2] of "different" and "the same"."""
        return self.decide(torch.cat(list(self.similarity_maps(first, second).values()), dim=1))

    def terms(self, queries: Tensor, gallery: Tensor, *, chunk: int | None = None) -> tuple[Tensor, Tensor | None]:
        """What SimiScore is made of, for every pair, [Q, D], [G, D] -> (probability [Q, G], distance [Q, G] or None).

        chunk: pairs alive at once (about 3 MB each at 160 x 60); by default 4 of that size on a CPU, 512 on a GPU.
        """
        if not len(queries) or not len(gallery):
            raise ValueError(f"nothing to score: {len(queries)} queries, {len(gallery)} gallery images")
        chunk = chunk or (max(1, 4 * 160 * 60 // math.prod(self.size)) if queries.device.type == "cpu" else 512)
        pairs = torch.arange(len(queries) * len(gallery), device=queries.device)
        logits = [self.logits(queries[p // len(gallery)], gallery[p % len(gallery)]) for p in pairs.split(chunk)]
        probability = torch.cat(logits).float().softmax(dim=1)[:, 1].view(len(queries), len(gallery))
        if self.ranking is None:
            return probability, None
        one, other = (single(self.unpack(side)[1]) for side in (queries, gallery))
        return probability, torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")

    def score(self, queries: Tensor, gallery: Tensor, *, chunk: int | None = None) -> Tensor:
        """SimiScore of every pair, [Q, D], [G, D] -> [Q, G], from :meth:`terms`; the probability alone without the
        ranking net. Multilevel-similarity, Eq. (7)."""
        probability, distance = self.terms(queries, gallery, chunk=chunk)
        return probability if distance is None else simi_score(probability, distance)

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """SimiScore [P] of pairs of *images* [P, 3, H, W], as the paper runs its model: both branches for each pair."""
        first, second = self.encode(first), self.encode(second)
        probability = self.logits(first, second).float().softmax(dim=1)[:, 1]
        if self.ranking is None:
            return probability
        return simi_score(probability, euclidean(self.unpack(first)[1], self.unpack(second)[1]))


def pair_objective(model: ConvSimilarityNet, batch, *, margin: float = 1.0, rotation: float = 0.1) -> Tensor:
    """Loss of a batch (images [M, 3, H, W], first [P], second [P], match [P]) -> scalar; each image is encoded once.

    ``first`` and ``second`` are indices into the images, ``match`` says which pairs show one person. Cross-entropy,
    plus the contrastive loss on the ranking net's vectors, plus ``rotation`` times the mean of abs(r_w) + abs(r_h) over
    all parts (the weight is not in the paper; its Eq. (3) lacks the logarithm and the sign that "softmax loss" means).
    Multilevel-similarity, Eq. (3) and (6).
    """
    images, first, second, match = batch
    features = model.encode(images)
    levels, vectors = model.unpack(features)
    logits = model.logits(features[first], features[second])
    loss = F.cross_entropy(logits.float(), match.long())
    if vectors is not None:
        loss = loss + contrastive(vectors[first], vectors[second], match, margin=margin)
    turned = [level.transforms[..., 0, 1].abs() + level.transforms[..., 1, 0].abs() for level in levels.values()]
    return loss + rotation * torch.stack([t.mean() for t in turned]).mean()


@dataclass(frozen=True)
class Complexity:
    """parameters: all, with batch normalisation; plain: without it; flops: of an image's branch and of a pair's part,
    two for each multiplication with its addition, as torch counts them (convolutions and linear layers)."""

    parameters: int
    plain: int
    flops_image: int
    flops_pair: int

    @property
    def flops(self) -> int:
        """A pair as the paper runs it: both branches and the pair's part."""
        return 2 * self.flops_image + self.flops_pair


def complexity(variant: str, **options) -> Complexity:
    """What a variant costs, counted by torch. Multilevel-similarity, Table 5.

    Printed: 0.5 M and 0.96 G for "L2,L3", 0.8 M and 1.31 G for "L2,L3,L4".
    """
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    net = ConvSimilarityNet.variant(variant, **options).eval()
    bare = ConvSimilarityNet.variant(variant, **{**options, "batch_norm": False})
    with torch.inference_mode():
        with FlopCounterMode(display=False) as image:
            row = net.encode(torch.zeros(1, 3, *net.size))
        with FlopCounterMode(display=False) as pair:
            net.logits(row, row)
    return Complexity(count(net), count(bare), image.get_total_flops(), pair.get_total_flops())
