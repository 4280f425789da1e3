"""Augmentation of images of people: whole batches of uint8 [N, 3, H, W], on the device they live on.

Every function draws from a generator and nothing else, and every image draws for itself. They give uint8 back, so they
can be put in any order; :func:`normalise` turns the outcome into the float input of a network. No loop over images, no
worker process: the same few kernels for a batch on a CPU and on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: channel means and deviations of ImageNet for images in 0..1: what torchvision's weights expect of their input
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def flip(images: Tensor, generator: torch.Generator, probability: float = 0.5) -> Tensor:
    """Mirror each image left to right with a probability."""
    chosen = torch.rand(len(images), generator=generator) < probability
    both = torch.cat([images, images.flip(-1)])
    return both.index_select(0, (torch.arange(len(images)) + len(images) * chosen).to(images.device))


def pad_crop(images: Tensor, generator: torch.Generator, pad: int = 10, fill: int = 0) -> Tensor:
    """Shift each image by up to ``pad`` pixels along both sides; what comes in from outside has the value ``fill``."""
    n, c, height, width = images.shape
    top, left = (torch.randint(2 * pad + 1, (n, 1, 1), generator=generator) for _ in range(2))
    padded = F.pad(images, (pad, pad, pad, pad), value=fill)
    high, wide = padded.shape[-2:]
    # first pixel of every row of the result, in the padded batch as one long line: [N, C, H]
    rows = torch.arange(n * c).view(n, c, 1) * high + top + torch.arange(height)
    starts = (rows * wide + left).flatten().to(images.device)
    return padded.flatten().unfold(0, width, 1).index_select(0, starts).view(n, c, height, width)


def crop_resize(
    images: Tensor, generator: torch.Generator, pixels: tuple[int, int], fraction: tuple[float, float] = (0.85, 1.0),
    mode: str = "bicubic",
) -> Tensor:
    """Cut a window from each image and bring it to ``pixels`` (H, W).

    Height and width of the window are each a share of the image's, drawn from ``fraction`` on their own; the window
    lies anywhere inside. As in the code of the pedestrian alignment network, on which feature-mask-network builds
    (0.85 for its base, 0.875 for its second stage); the paper says "cropping the original images", Sec. 4.2.
    mode: "bicubic" or "bilinear". Made for enlarging and slight reductions: it does not antialias.
    """
    low, high = fraction
    if not 0 < low <= high <= 1:
        raise ValueError(f"fraction must be two shares of the image, 0 < low <= high <= 1 (got {fraction})")
    n = len(images)
    share = low + (high - low) * torch.rand(n, 2, generator=generator)  # of width and height
    centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - share)  # in half sides, as below
    share, centre = share.to(images.device), centre.to(images.device)
    grid = torch.empty(n, *pixels, 2, device=images.device)
    for axis, side in ((0, pixels[1]), (1, pixels[0])):
        at = (torch.arange(side, device=images.device) + 0.5) * (2 / side) - 1  # middles of the new pixels
        line = share[:, axis, None] * at + centre[:, axis, None]  # [N, side]
        grid[..., axis] = line[:, None, :] if axis == 0 else line[:, :, None]
    out = F.grid_sample(images.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return out.round_().clamp_(0, 255).byte()


def erase(
    images: Tensor, generator: torch.Generator, probability: float = 0.5, area: tuple[float, float] = (0.02, 0.4),
    aspect: float = 0.3, fill: tuple[int, int, int] = (124, 116, 104),
) -> Tensor:
    """Random erasing: with a probability, paint a rectangle of each image in one colour (ImageNet's mean).

    The rectangle takes a share of the image drawn from ``area`` and has height / width between ``aspect`` and its
    inverse (evenly on a logarithmic scale), cut to the image's sides; it lies anywhere inside.
    Not from the papers: Zhong et al., "Random erasing data augmentation".
    """
    n, _, height, width = images.shape
    draw = torch.rand(n, 5, generator=generator)
    size = (area[0] + (area[1] - area[0]) * draw[:, 0]) * height * width
    ratio = torch.exp((2 * draw[:, 1] - 1) * torch.tensor(aspect).log())
    high = (size * ratio).sqrt().round().clamp(1, height)
    wide = (size / ratio).sqrt().round().clamp(1, width)
    high = torch.where(draw[:, 4] < probability, high, 0.0)
    top, left = ((draw[:, 2] * (height - high + 1)).floor(), (draw[:, 3] * (width - wide + 1)).floor())
    rows, columns = _inside(height, top, high).to(images.device), _inside(width, left, wide).to(images.device)
    keep = 1 - rows[:, None, :, None] * columns[:, None, None, :]  # [N, 1, H, W]
    colour = torch.tensor(fill, dtype=torch.uint8, device=images.device).view(1, -1, 1, 1)
    return (images - colour) * keep + colour  # modulo 256: exact


def _inside(side: int, start: Tensor, length: Tensor) -> Tensor:
    """Which of the pixels 0 .. side - 1 lie in [start, start + length): uint8 [N, side], 0 or 1."""
    at = torch.arange(side)
    return ((at >= start[:, None]) & (at < (start + length)[:, None])).byte()


def normalise(
    images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """uint8 [N, C, H, W] -> float32 ``(images / 255 - mean) / std``; mean and std per channel, in units of 0..1."""
    mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) * 255 for v in (mean, std))
    return images.float().sub_(mean).mul_(1 / std)


@dataclass(frozen=True)
class PersonInput:
    """How images of people become network input: called as it is for testing, :meth:`training` for training.

    pixels: (H, W) of the input; flip: probability; pad: pixels (0: none); crop: smallest share of a side that a window
    keeps, or None (windows are resized, see :func:`crop_resize`); erase: probability.
    """

    pixels: tuple[int, int] = (256, 128)
    flip: float = 0.5
    pad: int = 0
    crop: float | None = None
    erase: float = 0.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def training(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented float input [N, C, H, W]."""
        images = flip(images, generator, self.flip) if self.flip else images
        images = crop_resize(images, generator, self.pixels, (self.crop, 1.0)) if self.crop else self._fits(images)
        images = pad_crop(images, generator, self.pad) if self.pad else images
        return normalise(erase(images, generator, self.erase) if self.erase else images, self.mean, self.std)

    def __call__(self, images: Tensor) -> Tensor:
        return normalise(self._fits(images), self.mean, self.std)

    def _fits(self, images: Tensor) -> Tensor:
        if tuple(images.shape[-2:]) != tuple(self.pixels):
            (height, width), (high, wide) = images.shape[-2:], self.pixels
            raise ValueError(
                f"images are {height} x {width} pixels, the model's input is {high} x {wide}: "
                f"load the benchmark with pixels=({high}, {wide})"
            )
        return images


def shift_or_flip(images: Tensor, generator: torch.Generator, shifts: int = 2, share: float = 0.05) -> Tensor:
    """Each image as it is, mirrored, or shifted: one of 2 + ``shifts`` equally likely choices.

    A shift is up to ``share`` of the height and of the width, in whole pixels; what comes in from outside repeats the
    border. This is the enlarged training set of multilevel-similarity, Sec. 4.2 (the image, its mirror image and 2
    shifted copies on CUHK03, 5 on the others, "as [2] and [31]", whose range is 5 %), drawn afresh every time.
    """
    n, _, height, width = images.shape
    kind = torch.randint(shifts + 2, (n,), generator=generator)
    rows, columns = torch.arange(height).expand(n, -1), torch.arange(width).expand(n, -1)
    columns = torch.where(kind[:, None] == 1, columns.flip(1), columns)
    moved = (kind > 1)[:, None]
    reach = [int(share * side) for side in (height, width)]
    down, right = (torch.randint(-pixels, pixels + 1, (n, 1), generator=generator) for pixels in reach)
    rows = torch.where(moved, (rows + down).clamp(0, height - 1), rows).to(images.device)
    columns = torch.where(moved, (columns + right).clamp(0, width - 1), columns).to(images.device)
    index = torch.arange(n, device=images.device)[:, None, None]
    return images.movedim(1, -1)[index, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def random_block(images: Tensor, generator: torch.Generator, largest: float = 0.8) -> Tensor:
    """Paint one white square on every image, anywhere inside it.

    Its side is drawn evenly from 1 to int(``largest`` * width) - 1 pixels (1 to 101 for a width of 128), as in
    QAConv's released code; the paper (Sec. 5.1) only names a "random block module", similar to random erasing.
    """
    n, _, height, width = images.shape
    limit = max(1, min(int(largest * width) - 1, height))
    draw = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    side = 1 + (draw[:, 0] * limit).floor()
    top, left = ((draw[:, i] * (whole - side + 1)).floor() for i, whole in ((1, height), (2, width)))
    rows, columns = _inside(height, top, side).to(images.device), _inside(width, left, side).to(images.device)
    return images | (255 * rows[:, None, :, None] * columns[:, None, None, :])
