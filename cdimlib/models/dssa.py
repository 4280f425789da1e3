"""Deep spatial-semantic attention (DSSA, Song et al., ICCV 2017): the baseline that mid-level fusion beats.

Three parts, each a flag, so that the paper's two rows "DSSA (attention only)" and "DSSA" are two settings:
a residual attention mask on pool5, the fusion of the attended map (pooled over space) with fc7, and the HOLEF loss
(a learned quadratic form over all pairs of feature dimensions).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .matcher import Matcher
from .sketchanet import SketchANet


class SpatialAttention(nn.Module):
    """Mask over positions from two 1x1 convolutions and a spatial softmax, added residually: f + mask * f.

    [N, C, h, w] -> attended map [N, C, h, w] and mask [N, 1, h, w], whose sum over positions is 1.
    """

    def __init__(self, channels: int = 256):
        super().__init__()
        self.hidden = nn.Conv2d(channels, channels, 1)
        self.logits = nn.Conv2d(channels, 1, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [N, C, h, w] -> (attended maps of that shape, the mask [N, 1, h, w], whose cells add up to 1)."""
        logits = self.logits(F.relu(self.hidden(maps)))  # [N, 1, h, w]
        mask = logits.flatten(2).softmax(dim=2).view_as(logits)
        return maps + mask * maps, mask


class DSSA(Matcher):
    """Attention on pool5 of Sketch-a-Net; with ``fusion`` its pooled map joins fc7; with ``holef`` a learned energy.

    ``encode``: [N, 1, s, s] -> [N, 256] (attention only) or [N, 512] (fusion), each part of unit length.
    ``score``: minus Euclidean distance, or minus the root of the HOLEF energy
    ``sum_ij W_ij (q_i - g_j)^2``, where W starts as the identity (then both are equal).
    The energy of a pair is clamped at zero: nothing keeps W positive.
    """

    def __init__(
        self, *, fusion: bool = True, holef: bool = True, input_size: int = 225, batch_norm: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.net = SketchANet(input_size=input_size, batch_norm=batch_norm, dropout=dropout)
        self.attention = SpatialAttention(256)
        self.fusion, self.holef = fusion, holef
        width = 512 if fusion else 256
        self.weight = nn.Parameter(torch.eye(width)) if holef else None

    def attend(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Attended pool5 map and mask of images [N, 1, s, s]."""
        return self.attention(self.net.stages(images, keep=("pool5",))["pool5"])

    def encode(self, images: Tensor) -> Tensor:
        attended, _ = self.attend(images)
        fc7 = self.net.fc7(self.net.dropout(self.net.head6(attended)))
        parts = [fc7, attended.sum(dim=(2, 3))] if self.fusion else [fc7]
        return torch.cat([F.normalize(part.float(), dim=1) for part in parts], dim=1)

    def energy(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """HOLEF energy of every pair: [Q, D], [G, D] -> [Q, G].

        sum_ij W_ij (q_i - g_j)^2 expands to q^2 . rows(W) + g^2 . columns(W) - 2 q W g', so no [Q, G, D, D] is built.
        """
        if self.weight is None:
            return torch.cdist(queries, gallery).square()
        rows, columns = self.weight.sum(dim=1), self.weight.sum(dim=0)
        cross = queries @ self.weight @ gallery.T  # [Q, G]
        return (queries.square() @ rows)[:, None] + (gallery.square() @ columns)[None, :] - 2 * cross

    def pair_energy(self, first: Tensor, second: Tensor) -> Tensor:
        """HOLEF energy of the pairs of rows: [B, D], [B, D] -> [B]."""
        if self.weight is None:
            return (first - second).square().sum(dim=1)
        rows, columns = self.weight.sum(dim=1), self.weight.sum(dim=0)
        return first.square() @ rows + second.square() @ columns - 2 * ((first @ self.weight) * second).sum(dim=1)

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return -self.energy(queries, gallery).clamp_min(0).sqrt()

    def cosine(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """1 - energy / (2 * parts), which is the cosine of the joined features as long as W is the identity."""
        return 1 - self.energy(queries, gallery) / (4 if self.fusion else 2)

    def penalty(self) -> Tensor:
        """Regulariser of the energy: sum of ``abs(W - I)`` plus the Frobenius norm of ``W - I``, per dimension."""
        if self.weight is None:
            return next(self.parameters()).new_zeros(())
        away = self.weight - torch.eye(len(self.weight), device=self.weight.device)
        return (away.abs().sum() + away.norm()) / len(self.weight)
