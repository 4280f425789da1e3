"""Spatial attention: a small network looks at a map and says which window of it to sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .correlation import Halve

#: where the localisation net begins: a window of 0.8 of the map, in its middle, upright
INITIAL_SCALE = 0.8


def conv_block(inputs: int, outputs: int, kernel: int, *, pool: bool = True, batch_norm: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation, 2x2 max-pooling, ReLU; an odd side is halved upwards, 15 -> 8.

    Multilevel-similarity has batch normalisation, without saying where: here it follows every convolution. ReLU comes
    behind the pool, where it gives the same map with a quarter of the work.
    """
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)]
    layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
    layers += [Halve()] if pool else []
    return nn.Sequential(*layers, nn.ReLU())


def stripes(maps: Tensor) -> Tensor:
    """Upper, middle and lower half of maps [N, C, H, W], each overlapping the next by half -> [N, 3, C, H // 2, W].

    Of 40 rows: 0-20, 10-30 and 20-40, ends excluded; of 20 rows: 0-10, 5-15 and 10-20. (The paper counts "row 1 to 20",
    "10 to 30", "20 to 40", which would be 20, 21 and 21 rows.) Multilevel-similarity, Sec. 4.2.
    """
    height = maps.shape[2] // 2
    starts = (0, (maps.shape[2] - height) // 2, maps.shape[2] - height)
    return torch.stack([maps[:, :, start : start + height] for start in starts], dim=1)


def bounded_transform(raw: Tensor) -> Tensor:
    """Six numbers in (-1, 1), [..., 6] -> transform [..., 2, 3] whose window has positive scale and lies in the map.

    Rows of the result: (s_w, r_w, t_w) and (r_h, s_h, t_h), as in Eq. (1), in normalised coordinates (-1 and 1 are the
    edges of the map). From raw numbers (s, r, t) of an axis: scale = (s + 1) / 2, rotation = (1 - scale) * r, and
    translation = (1 - scale - abs(rotation)) * t, so that no corner of the window can leave the map. The paper says
    that it constrains the scale to be positive and the window to stay inside, not how.
    Multilevel-similarity, Eq. (1), Sec. 4.2.
    """
    s, r, t = raw.unflatten(-1, (2, 3)).unbind(-1)  # [..., 6] -> [..., 2 axes, 3] -> three of [..., 2]
    scale = (s + 1) / 2
    rotation = (1 - scale) * r
    translation = (1 - scale - rotation.abs()) * t
    (sw, sh), (rw, rh), (tw, th) = (v.unbind(-1) for v in (scale, rotation, translation))
    return torch.stack([torch.stack([sw, rw, tw], -1), torch.stack([rh, sh, th], -1)], -2)


def sample(maps: Tensor, transform: Tensor, size: int) -> Tensor:
    """Bilinear samples of maps [N, C, h, w] at the windows of ``transform`` [N, 2, 3] -> [N, C, size, size].

    ``align_corners=False``: -1 and 1 are the outer edges of the border cells, so a window of scale ``size / w`` reads
    the map at its own resolution, and the identity with h = w = size gives the map itself. Half a cell before the edge
    the border's value is held.
    """
    with torch.autocast(maps.device.type, enabled=False):  # in bf16 a place would be off by a part of a cell
        grid = F.affine_grid(transform, [len(maps), 1, size, size], align_corners=False)
        return F.grid_sample(maps.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=False)


class PartSTN(nn.Module):
    """Localisation net and sampler: maps [N, C, h, w] -> (parts [N, C, size, size], transforms [N, 2, 3]).

    Two 3x3 convolutions with pools, a 1x1 convolution, global average, six numbers through tanh. Fully convolutional,
    so one net serves stripes of any size; its last layer starts at zero, with a bias that gives ``INITIAL_SCALE``
    (without one the scale would start where it has no window at all). Multilevel-similarity, Table 1, Sec. 3.1.
    """

    def __init__(self, channels: int, size: int, *, batch_norm: bool = True):
        super().__init__()
        self.size = size
        self.localise = nn.Sequential(
            conv_block(channels, 32, 3, batch_norm=batch_norm),
            conv_block(32, 32, 3, batch_norm=batch_norm),
            conv_block(32, 128, 1, pool=False, batch_norm=batch_norm),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 6), nn.Tanh(),
        )
        with torch.no_grad():
            linear = self.localise[-2]
            linear.weight.zero_()
            linear.bias.copy_(torch.tensor([2 * INITIAL_SCALE - 1, 0.0, 0.0]).repeat(2).atanh())

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [N, C, h, w] -> (the windows [N, C, size, size], their transforms [N, 2, 3])."""
        transform = bounded_transform(self.localise(maps.contiguous(memory_format=torch.channels_last)).float())
        return sample(maps, transform, self.size), transform


class CentreCrop(nn.Module):
    """What configuration C2 puts in the STN's place: the ``size`` x ``size`` cells in the middle of each map.

    Where a side has an odd number of cells to spare, the window lies half a cell towards the beginning.
    Multilevel-similarity, Sec. 4.4.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [N, C, h, w] -> (the windows [N, C, size, size], their transforms [N, 2, 3], the same for all)."""
        (height, width), size = maps.shape[-2:], self.size
        top, left = (height - size) // 2, (width - size) // 2
        rows = [[size / width, 0, (2 * left + size) / width - 1], [0, size / height, (2 * top + size) / height - 1]]
        transform = torch.tensor(rows, device=maps.device).expand(len(maps), 2, 3)
        return maps[..., top : top + size, left : left + size], transform
