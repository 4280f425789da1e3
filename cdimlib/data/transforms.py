"""Batched augmentation and the papers' test-time views, on whatever device the images are.

Drawings are dark lines on white: 255 is background. Networks see ``(image - mean) * scale``, with the released
code's mean of 250.42 (a constant of its pretraining) by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SKETCH_MEAN = 250.42


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 [N, C, H, W] -> uint8 [N, C, size, size], antialiased bilinear."""
    if images.shape[-2:] == (size, size):
        return images
    out = [
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
        for part in images.split(256)
    ]
    return torch.cat(out)


def to_input(images: Tensor, *, mean: float = SKETCH_MEAN, scale: float = 1.0) -> Tensor:
    """uint8 or float images in 0..255 -> float input of a network, ``(images - mean) * scale``."""
    return (images.float() - mean) * scale


def random_crop_flip(images: Tensor, size: int, generator: torch.Generator, *, flip: float = 0.5) -> Tensor:
    """An independent random crop of ``size`` pixels and a horizontal flip for each image (midlevel-fusion, Sec. 4.1).

    [N, C, H, W] -> [N, C, size, size], same dtype. Offsets are uniform over all that fit, 0 .. H - size inclusive
    (the released code never draws the last one).
    """
    n, _, height, width = images.shape
    if size > min(height, width):
        raise ValueError(f"cannot crop {size} pixels from images of {height} x {width}")
    top = torch.randint(height - size + 1, (n,), generator=generator)
    left = torch.randint(width - size + 1, (n,), generator=generator)
    mirrored = torch.rand(n, generator=generator) < flip
    span = torch.arange(size)
    rows = top[:, None] + span  # [N, size]
    columns = left[:, None] + torch.where(mirrored[:, None], span.flip(0), span)
    rows, columns = rows.to(images.device), columns.to(images.device)
    index = torch.arange(n, device=images.device)[:, None, None]
    return images.movedim(1, -1)[index, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


@dataclass(frozen=True)
class Warp:
    """Random affine and elastic deformation of a drawing; every field is the largest amount drawn.

    rotate: degrees; scale: relative size change; shear: relative; shift: share of the side;
    stretch: relative change of the aspect ratio; elastic: share of the side, for a smooth random displacement on a
    ``grid`` x ``grid`` lattice; flip: probability.
    """

    rotate: float = 8.0
    scale: float = 0.12
    shear: float = 0.08
    shift: float = 0.05
    stretch: float = 0.08
    elastic: float = 0.03
    grid: int = 5
    flip: float = 0.5

    def __call__(self, images: Tensor, size: int, generator: torch.Generator, flips: Tensor | None = None) -> Tensor:
        """[N, C, H, W] in 0..255 -> float [N, C, size, size]; outside the image is white (255).

        flips: boolean [N], to mirror given images (so that both images of a pair are mirrored together).
        """
        n = len(images)

        def uniform(*shape):  # in [-1, 1]
            return torch.rand(*shape, generator=generator) * 2 - 1

        angle = uniform(n) * self.rotate * torch.pi / 180
        zoom = 1 + uniform(n) * self.scale
        aspect = 1 + uniform(n) * self.stretch
        shear = uniform(n) * self.shear
        if flips is None:
            flips = torch.rand(n, generator=generator) < self.flip
        sign = 1.0 - 2.0 * flips.float()
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        theta = torch.stack(
            [
                torch.stack([sign * cos * aspect, sign * (shear - sin), uniform(n) * self.shift * 2], 1),
                torch.stack([sin * aspect, cos, uniform(n) * self.shift * 2], 1),
            ],
            1,
        )  # [N, 2, 3]
        bend = uniform(n, 2, self.grid, self.grid) * self.elastic * 2
        grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
        bend = F.interpolate(bend, (size, size), mode="bicubic", align_corners=True)
        grid = (grid + bend.movedim(1, -1)).to(images.device)
        ink = 255.0 - images.float()
        return 255.0 - F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def centre_crop(images: Tensor, size: int) -> Tensor:
    """[N, C, H, W] -> [N, C, size, size] around the centre."""
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def ten_views(images: Tensor, size: int) -> Tensor:
    """Four corners and the centre, each with its mirror image: [N, C, H, W] -> [N, 10, C, size, size]."""
    bottom, right = images.shape[-2] - size, images.shape[-1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = torch.stack([images[..., t : t + size, l : l + size] for t, l in corners], dim=1)
    return torch.cat([crops, crops.flip(-1)], dim=1)
