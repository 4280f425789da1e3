"""Mid-level fusion ("The Devil is in the Middle"): join maps of the middle of a network with its last feature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .matcher import VectorMatcher
from .sketchanet import SketchANet, check_taps

POOLINGS = ("flatten", "gap")


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
