"""Mid-level fusion on InceptionV3: the same module on another, deeper base network (midlevel-fusion, Table 11)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .matcher import VectorMatcher
from .midlevel import POOLINGS, mid_vector
from .residual import fetching

TAP = "Mixed_7b"
CHANNELS = 2048  # of Mixed_7b, and of Mixed_7c, whose average is the network's last feature
SMALLEST = 75


class InceptionFusion(VectorMatcher):
    """InceptionV3 with ``Mixed_7b`` joined to its last pooled feature; with ``fused=False`` the last feature alone.

    Feature of an image: [l2(mid of Mixed_7b), l2(average of Mixed_7c)]; similarity is minus Euclidean distance.

    ===========  =====================  ================  =====================
    input        Mixed_7b               flattened + last  averaged (gap) + last
    ===========  =====================  ================  =====================
    299 x 299    2048 x 8 x 8           133,120           4,096
    225 x 225    2048 x 5 x 5           53,248            4,096
    139 x 139    2048 x 3 x 3           20,480            4,096
    ===========  =====================  ================  =====================

    images: [N, 1, s, s] (a drawing, repeated to three channels) or [N, 3, s, s], scaled to about -1 .. 1.
    pooling: "flatten" (the paper's choice for sketches) or "gap".
    input_size: side of the input in pixels, at least 75; the paper does not say its own, 299 is the network's.
    weights: None (random) or "imagenet" (torchvision's file, fetched on first use); the paper starts from ImageNet.

    The auxiliary classifier and the last linear layer are left out: 21,785,568 parameters.

    Midlevel-fusion, Sec. 4.3, Table 11; Szegedy et al., "Rethinking the Inception architecture".
    """

    def __init__(
        self,
        fused: bool = True,
        pooling: str = "flatten",
        *,
        input_size: int = 299,
        weights: str | None = None,
        squared: bool = False,
    ):
        super().__init__(squared=squared)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, not {pooling!r}")
        if weights not in (None, "imagenet"):
            raise ValueError(f"weights must be None or 'imagenet', not {weights!r}")
        if input_size < SMALLEST:
            raise ValueError(f"input_size must be at least {SMALLEST} pixels (got {input_size}): no map would be left")
        self.fused, self.pooling, self.input_size = fused, pooling, input_size
        self.stages = _stages(weights)

    def encode(self, images: Tensor) -> Tensor:
        """[N, 1 or 3, s, s] -> [N, D], each part of unit length."""
        if images.shape[-2:] != (self.input_size, self.input_size):
            raise ValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels, the model was made for "
                f"{self.input_size} x {self.input_size}: resize them, or pass input_size="
            )
        x = images.expand(-1, 3, -1, -1)  # [N, 1, s, s] -> [N, 3, s, s]; colour stays as it is
        parts = []
        for name, stage in self.stages.named_children():
            x = stage(x)
            if name == TAP and self.fused:
                parts.append(mid_vector(x, self.pooling))  # [N, 2048, h, w] -> [N, 2048 * h * w]
        parts.append(x.mean(dim=(2, 3)))  # [N, 2048, h, w] -> [N, 2048]
        return torch.cat([F.normalize(part.float(), dim=1) for part in parts], dim=1)

    @property
    def dimension(self) -> int:
        """Length of the feature vector."""
        side = _side(self.input_size)
        mid = CHANNELS * (side * side if self.pooling == "flatten" else 1)
        return CHANNELS + (mid if self.fused else 0)


def _side(size: int) -> int:
    """Side of Mixed_7b's map: five halvings of the input, none of them padded."""
    side = (size - 3) // 2 + 1 - 2  # Conv2d_1a, stride 2; Conv2d_2a
    side = (side - 3) // 2 + 1 - 2  # maxpool1; Conv2d_4a
    for _ in range(3):  # maxpool2, Mixed_6a, Mixed_7a
        side = (side - 3) // 2 + 1
    return side


def _stages(weights: str | None) -> nn.Sequential:
    """Every stage of torchvision's InceptionV3 up to Mixed_7c, in order and by its name."""
    from torchvision.models import Inception_V3_Weights, inception_v3

    if weights:
        with fetching("inception_v3"):
            net = inception_v3(weights=Inception_V3_Weights.IMAGENET1K_V1, transform_input=False)
    else:
        net = inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=True)
    stages = nn.Sequential()
    for name, child in net.named_children():
        if name == "avgpool":
            return stages
        if name != "AuxLogits":
            stages.add_module(name, child)
    raise RuntimeError("torchvision's inception_v3 has no stage 'avgpool': this version is not supported")
