"""Feature Mask Network ("Let Features Decide for Themselves"): a global network says where a local one shall look."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .matcher import VectorMatcher
from .midlevel import PersonFusion
from .residual import Backbone


def column_major(values: Tensor, height: int, width: int) -> Tensor:
    """Vectors [N, h * w] as maps [N, 1, h, w], filled column by column as MATLAB does.

    Entry (i, j), from 1, is number k = (j - 1) h + i. The paper's index, j = floor(k / h) + 1, gives row 0 for k = h;
    floor((k - 1) / h) + 1 is meant. Feature-mask-network, Eq. (2), Sec. 3.2.
    """
    return values.unflatten(1, (1, width, height)).mT  # [N, h * w] -> [N, 1, w, h] -> [N, 1, h, w]


def feature_mask(transition: Tensor, height: int, width: int, *, limit: float = 10.0) -> Tensor:
    """Mask exp(ReLU(W'g)) [N, 1, h, w] from ``transition`` = W'g [N, h * w].

    No entry is below 1: the mask can amplify a place, never hide it. limit: largest exponent (ours), against overflow.
    Feature-mask-network, Eq. (1) and (2), Sec. 3.2.
    """
    return column_major(F.relu(transition.float()).clamp(max=limit).exp(), height, width)


def descriptor(global_feature: Tensor, local_feature: Tensor, alpha: float = 0.5) -> Tensor:
    """[alpha g / abs(g), (1 - alpha) l / abs(l)], [N, D] and [N, D] -> [N, 2 D].

    alpha: 1 is the global network alone, 0 the local one. Feature-mask-network, Eq. (6), Sec. 3.4.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1] (got {alpha}): the global network's share of the descriptor")
    normal = [F.normalize(feature.float(), dim=1) for feature in (global_feature, local_feature)]
    return torch.cat([alpha * normal[0], (1 - alpha) * normal[1]], dim=1)


class FeatureMaskNet(VectorMatcher):
    """Global network (GRN), mask network (MN) and locally attentive network (LAN).

    GRN: a Vanilla :class:`~cdimlib.models.midlevel.PersonFusion`. From its pooled last map g (2,048 numbers; the text
    says "final fully connected layer", Table 1's dimensions say this) MN makes a mask for one of its early maps, the
    same for every channel. LAN, with weights of its own, goes on from the masked map. Both have a classifier over the
    training identities; test images are compared by :func:`descriptor`, Euclidean distance.

    With ResNet-50 at 224 x 224, 751 classes, mask at pool1 (56 x 56): 56.51 M parameters, descriptor 4,096.

    layer: where the mask acts: "pool1" (the paper's), "res1", "res2", "res3" or "res4", or any other tap.
    pixels: (H, W) of the input; the mask's W is made for it.
    mask_std: deviation of W's random start (ours: the paper says random). With W = 0 the mask would be the identity
    and stay so: ReLU passes no gradient at 0.
    limit: see :func:`feature_mask`.

    Training has two stages (Algorithm 1): the GRN on its own (:attr:`grn` has ``logits``), then :meth:`freeze_global`
    and MN with LAN.

    Feature-mask-network, Sec. 3.1 to 3.4.
    """

    def __init__(
        self,
        classes: int | None = None,
        layer: str = "pool1",
        *,
        backbone: str = "resnet50",
        weights: str | None = None,
        pixels: tuple[int, int] = (224, 224),
        alpha: float = 0.5,
        dropout: float = 0.0,
        mask_std: float = 1e-3,
        limit: float = 10.0,
    ):
        super().__init__()
        descriptor(torch.zeros(1, 1), torch.zeros(1, 1), alpha)  # refuses an alpha outside [0, 1]
        common = {"dropout": dropout, "pixels": pixels}
        self.grn = PersonFusion(classes, (), backbone=backbone, weights=weights, **common)
        rest = Backbone(backbone, weights=weights, taps="res5", after=layer)
        self.lan = PersonFusion(classes, (), backbone=rest, **common)
        _, self.height, self.width = rest.shapes(pixels)[layer]
        self.mask = nn.Linear(self.grn.dimensions[-1], self.height * self.width, bias=False)
        nn.init.normal_(self.mask.weight, std=mask_std)
        self.layer, self.alpha, self.limit, self.frozen = layer, alpha, limit, False

    def freeze_global(self) -> None:
        """End of stage 1: the GRN's weights are fixed, and it stays in eval mode, its batch statistics with it."""
        self.frozen = True
        self.grn.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureMaskNet:
        super().train(mode)
        if self.frozen:
            self.grn.eval()
        return self

    def look(self, images: Tensor) -> dict[str, Tensor]:
        """What the three networks see: "global" and "local" last maps [N, C, h, w], "mask" [N, 1, h', w'].

        No gradient flows back into the GRN once it is frozen. Feature-mask-network, Eq. (3).
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.grn.backbone.stages(images, keep=(self.layer, "res5"))
        early, last = maps[self.layer], maps["res5"]
        if early.shape[-2:] != (self.height, self.width):
            raise ValueError(
                f"the mask is {self.height} x {self.width}, {self.layer} of these images {early.shape[-2]} x "
                f"{early.shape[-1]}: build the model with pixels={tuple(images.shape[-2:])}"
            )
        mask = feature_mask(self.mask(last.mean(dim=(2, 3))), self.height, self.width, limit=self.limit)
        return {"global": last, "mask": mask, "local": self.lan.backbone.stages(early * mask)["res5"]}

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features g and l of the two networks, [N, D] each."""
        seen = self.look(images)
        return seen["global"].mean(dim=(2, 3)), seen["local"].mean(dim=(2, 3))

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the training identities by GRN and LAN, [N, classes] each."""
        if self.lan.classifier is None:
            raise ValueError("this model has no classifier: build it with classes=")
        return tuple(net.classifier(net.dropout(f)) for net, f in zip((self.grn, self.lan), self.features(images)))

    def encode(self, images: Tensor) -> Tensor:
        """Descriptor [N, 2 D] of images [N, 3, H, W]."""
        return descriptor(*self.features(images), self.alpha)


class GlobalPair(VectorMatcher):
    """Control, not from the paper: two global networks trained apart, joined by :func:`descriptor`.

    It has the cost of a mask network and nothing else of it. grn, lan: the two, Vanilla networks; alpha: of the first.
    """

    def __init__(self, grn: PersonFusion, lan: PersonFusion, alpha: float = 0.5):
        super().__init__()
        self.grn, self.lan, self.alpha = grn, lan, alpha

    def encode(self, images: Tensor) -> Tensor:
        """Descriptor [N, 2 D] of images [N, 3, H, W]."""
        return descriptor(self.grn.feature(images), self.lan.feature(images), self.alpha)
