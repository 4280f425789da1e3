"""Mid-level fusion ("The Devil is in the Middle"): join maps of the middle of a network with its last feature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .matcher import VectorMatcher
from .residual import Backbone
from .sketchanet import SketchANet, check_taps

POOLINGS = ("flatten", "gap")
UNITS = ("whole", "parts", "none")


def mid_vector(feature_map: Tensor, pooling: str = "flatten") -> Tensor:
    """A feature map [N, C, H, W] as a vector: flattened [N, C * H * W], or averaged over space [N, C] ("gap").

    Flattening keeps where a feature fired, averaging forgets it. Midlevel-fusion, Eq. (1).
    """
    if pooling == "flatten":
        return feature_map.flatten(1)  # [N, C, H, W] -> [N, C * H * W]
    if pooling == "gap":
        return feature_map.mean(dim=(2, 3))  # [N, C, H, W] -> [N, C]
    raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, not {pooling!r}")


class SketchFusion(VectorMatcher):
    """The sketch model of the paper, and its Vanilla baseline when ``taps`` is empty.

    Feature of an image: [l2(mid of each tap), l2(fc7)], concatenated; similarity is minus Euclidean distance.
    With the default (pool5, flattened) at 225 pixels: 256*7*7 + 256 = 12,800 numbers.

    taps: maps of Sketch-a-Net to fuse. The paper says "the fifth convolutional/pooling layer"; we take ``pool5``
    (as the same author's released attention code does) and keep ``conv5`` as a choice.
    pooling: "flatten" (the paper's choice for sketches) or "gap".
    batch_norm, dropout: not in the paper; used by the modern track.
    freeze_convolutions: train fc6 and fc7 only, as the released Vanilla code does.

    Midlevel-fusion, Sec. 3.2, Eq. (1).
    """

    def __init__(
        self,
        taps: str | tuple[str, ...] = ("pool5",),
        pooling: str = "flatten",
        *,
        input_size: int = 225,
        batch_norm: bool = False,
        dropout: float = 0.0,
        freeze_convolutions: bool = False,
        squared: bool = False,
    ):
        super().__init__(squared=squared)
        self.taps = check_taps(taps)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, not {pooling!r}")
        self.pooling = pooling
        self.net = SketchANet(input_size=input_size, batch_norm=batch_norm, dropout=dropout)
        if freeze_convolutions:
            if self.taps:
                raise ValueError("freeze_convolutions leaves a fused map untrained: use it with taps=() only")
            for name, parameter in self.net.named_parameters():
                parameter.requires_grad_(name.startswith("fc"))

    def encode(self, images: Tensor) -> Tensor:
        """[N, 1, s, s] -> [N, D], each part of unit length."""
        stages = self.net.stages(images, keep=self.taps)
        parts = [mid_vector(stages[tap], self.pooling) for tap in self.taps] + [stages["fc7"]]
        return torch.cat([F.normalize(part.float(), dim=1) for part in parts], dim=1)

    @property
    def dimension(self) -> int:
        """Length of the feature vector."""
        shapes = SketchANet.shapes(self.net.input_size)
        keep = 3 if self.pooling == "flatten" else 1  # C * H * W, or C alone
        return sum(math.prod(shapes[tap][:keep]) for tap in self.taps) + self.net.fc7.out_features


class PersonFusion(VectorMatcher):
    """The person model of the paper, and its Vanilla baseline when ``taps`` is empty.

    Feature of an image: [FC(mid of each tap, joined), pool5], where pool5 is the last map averaged over space. It is
    trained by a softmax classifier over the training identities, and is itself what test images are compared by.
    With ResNet-50 and 751 classes:

    ==================================  ============  ==========
    taps, width                         parameters    feature
    ==================================  ============  ==========
    none (Vanilla)                      25.05 M       2,048
    res5a, res5b, 1024 with norm        30.01 M       3,072
    res5a, res5b, 2048 without norm     34.98 M       4,096
    ==================================  ============  ==========

    classes: training identities; None leaves the classifier out.
    taps: maps to fuse, by the names of :class:`~cdimlib.models.residual.Backbone`.
    backbone, weights, last_stride: see there; a Backbone that exists already is taken as it is, shared.
    pooling: "gap" (the paper's choice for people) or "flatten".
    width: outputs of the FC layer, which the paper does not give; 0 joins the mid-level vectors without one.
    norm: batch normalisation and ReLU behind the FC layer (not in the paper; common code has them).
    neck, dropout: batch normalisation of the whole feature, dropout before the classifier; neither is in the paper.
    unit: which vectors have length one at the end: the "whole" feature (then Euclidean distance ranks as the cosine
    does), its "parts" (as the paper's sketch model), or "none". The paper leaves it open for people; no influence on
    training.
    pixels: (H, W) of the input; it decides the sizes for "flatten" only.

    Midlevel-fusion, Sec. 3.3.
    """

    def __init__(
        self,
        classes: int | None = None,
        taps: str | tuple[str, ...] = ("res5a", "res5b"),
        *,
        backbone: str | Backbone = "resnet50",
        weights: str | None = None,
        last_stride: int = 2,
        pooling: str = "gap",
        width: int = 1024,
        norm: bool = True,
        neck: bool = False,
        dropout: float = 0.0,
        unit: str = "whole",
        pixels: tuple[int, int] = (256, 128),
    ):
        super().__init__()
        for name, value, choices in (("pooling", pooling, POOLINGS), ("unit", unit, UNITS)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        if isinstance(backbone, str):
            backbone = Backbone(backbone, weights=weights, taps="res5", last_stride=last_stride)
        self.taps = check_taps(taps, backbone.places)
        self.pooling, self.unit, self.pixels = pooling, unit, pixels
        shapes = backbone.shapes(pixels)
        mid = sum(math.prod(shapes[tap][: 3 if pooling == "flatten" else 1]) for tap in self.taps)
        self.backbone = backbone
        self.reduce = nn.Identity()
        if mid and width:
            self.reduce = nn.Sequential(nn.Linear(mid, width), *([nn.BatchNorm1d(width), nn.ReLU()] if norm else []))
        self.dimensions = ([width or mid] if mid else []) + [shapes["res5"][0]]
        self.neck = nn.BatchNorm1d(sum(self.dimensions)) if neck else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(sum(self.dimensions), classes) if classes else None

    def feature(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] -> the joined feature [N, D] that the classifier sees, of any length."""
        maps = self.backbone.stages(images, keep=tuple(dict.fromkeys((*self.taps, "res5"))))
        parts = [maps["res5"].mean(dim=(2, 3))]  # [N, C, h, w] -> [N, C]
        if self.taps:
            parts.insert(0, self.reduce(torch.cat([mid_vector(maps[tap], self.pooling) for tap in self.taps], dim=1)))
        return self.neck(torch.cat(parts, dim=1))

    def logits(self, images: Tensor) -> Tensor:
        """Scores of the training identities, [N, 3, H, W] -> [N, classes]."""
        if self.classifier is None:
            raise ValueError("this model has no classifier: build it with classes=")
        return self.classifier(self.dropout(self.feature(images)))

    def encode(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, D], of unit length as ``unit`` says."""
        feature = self.feature(images).float()
        if self.unit == "parts":
            return torch.cat([F.normalize(part, dim=1) for part in feature.split(self.dimensions, dim=1)], dim=1)
        return F.normalize(feature, dim=1) if self.unit == "whole" else feature

    def join(self, taps: str | tuple[str, ...] = ("res5a", "res5b"), **options) -> PersonFusion:
        """This network with maps of ``taps`` joined to its feature untrained, without an FC layer; weights are shared.

        The "Vanilla+fusion" of Table 8: what the middle of a trained Vanilla holds as it is. options: ``pooling``,
        ``unit``. Midlevel-fusion, Sec. 4.3.
        """
        settings = {"pooling": self.pooling, "unit": self.unit, **options}
        joined = PersonFusion(None, taps, backbone=self.backbone, width=0, pixels=self.pixels, **settings)
        return joined.train(self.training)
