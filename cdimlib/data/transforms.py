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


def fit_ink(images: Tensor, size: int, *, fill: float = 0.8, frame: int = 4, pen: int = 3) -> Tensor:
    """Bring drawings to one scale, place and pen: uint8 [N, 1, H, W] -> uint8 [N, 1, size, size].

    A frame of ``frame`` pixels is wiped (QMUL's edge maps have a line along the border, its sketches have not), lines
    are thickened to at least ``pen`` pixels (one-pixel lines fade when an image is made smaller), and the ink's
    bounding box (without the outermost 0.3 % of ink on each side: specks) is centred and scaled, keeping its
    proportions, until its longer side takes up ``fill`` of the canvas. Blank images stay blank.
    Not from the papers: the input of this book's modern track.
    """
    ink = 255 - images
    if frame:
        inside = torch.zeros_like(ink)
        inside[..., frame:-frame, frame:-frame] = ink[..., frame:-frame, frame:-frame]
        ink = inside
    out = torch.zeros(len(ink), 1, size, size, dtype=torch.uint8, device=ink.device)
    target = round(size * fill)
    for i, drawing in enumerate(ink):
        if not drawing.any():
            continue
        thick = F.max_pool2d(drawing[None].float(), pen, 1, pen // 2)[0] if pen > 1 else drawing.float()
        (top, bottom), (left, right) = (_extent(drawing[0].float().sum(dim=d)) for d in (1, 0))
        box = thick[None, :, max(0, top - 1) : bottom + 2, max(0, left - 1) : right + 2]
        ratio = target / max(box.shape[-2:])
        shape = [max(1, round(side * ratio)) for side in box.shape[-2:]]
        small = F.interpolate(box, shape, mode="bilinear", antialias=True)[0].round().clamp(0, 255).byte()
        y, x = (size - shape[0]) // 2, (size - shape[1]) // 2
        out[i, :, y : y + shape[0], x : x + shape[1]] = small
    return 255 - out


def _extent(mass: Tensor, skip: float = 0.003) -> tuple[int, int]:
    """First and last index between which all but a share ``skip`` of the mass on either side lies."""
    share = mass.cumsum(0) / mass.sum()
    return int((share > skip).nonzero()[0]), int((share >= 1 - skip).nonzero()[0])


def to_input(images: Tensor, *, mean: float = SKETCH_MEAN, scale: float = 1.0) -> Tensor:
    """uint8 or float images in 0..255 -> float input of a network, ``(images - mean) * scale``."""
    return (images.float() - mean) * scale


def random_crop_flip(images: Tensor, size: int, generator: torch.Generator, *, flip: float = 0.5) -> Tensor:
    """An independent random crop of ``size`` pixels and a horizontal flip for each image (midlevel-fusion, Sec. 4.1).

    [N, C, H, W] -> [N, C, size, size], same dtype. Offsets are uniform over all that fit, 0 .. H - size inclusive
    (the released code never draws the last one).
    """
    _large_enough(images, size)
    n, _, height, width = images.shape
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
    """Random affine and elastic deformation of drawings; every field is the largest amount drawn.

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

    @classmethod
    def of(cls, strength: float, flip: float = 0.5) -> Warp:
        """Every amount in proportion to ``strength``: 1 is mild, 2 strong, 0 none (but for the flip)."""
        s = strength
        return cls(8 * s, 0.12 * s, 0.08 * s, 0.04 * s, 0.08 * s, 0.03 * s, flip=flip)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Affine matrices [count, 3, 3] (output to input, in units of half the side), bends [count, 2, g, g]."""

        def uniform(*shape):  # in [-1, 1]
            return torch.rand(*shape, generator=generator) * 2 - 1

        angle = uniform(count) * self.rotate * torch.pi / 180
        zoom, aspect = 1 + uniform(count) * self.scale, 1 + uniform(count) * self.stretch
        shear, shift = uniform(count) * self.shear, uniform(count, 2) * self.shift * 2
        mirror = 1.0 - 2.0 * (torch.rand(count, generator=generator) < self.flip).float()
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        matrix = torch.zeros(count, 3, 3)
        matrix[:, 0, 0], matrix[:, 0, 1] = mirror * cos * aspect, mirror * (shear - sin)
        matrix[:, 1, 0], matrix[:, 1, 1] = sin * aspect, cos
        matrix[:, :2, 2], matrix[:, 2, 2] = shift, 1
        return matrix, uniform(count, 2, self.grid, self.grid) * self.elastic * 2

    def __call__(
        self, images: Tensor, size: int, generator: torch.Generator, *, together: Warp | None = None
    ) -> Tensor:
        """Square images [N, C, H, H] in 0..255 -> float [N, C, size, size]; outside the image is white (255).

        Every image is warped by a draw of its own. ``together`` adds one draw that all images of the batch share: what
        matches and what does not stay aligned with each other, so no image can be told from another by its warp.
        With every amount at zero this is the centre crop of ``size`` pixels; where H - size is odd its middle lies
        between two pixels, half a pixel from :meth:`SketchInput.centre`, and each value is the mean of four.
        """
        matrix, bend = self.draw(len(images), generator)
        if together is not None:
            common, common_bend = together.draw(1, generator)
            matrix, bend = matrix @ common, bend + common_bend
        matrix = matrix.clone()
        matrix[:, :2, :2] *= size / images.shape[-1]  # a crop, not a reduction
        matrix, bend = matrix.to(images.device), bend.to(images.device)
        grid = F.affine_grid(matrix[:, :2], [len(images), 1, size, size], align_corners=False)
        bend = F.interpolate(bend, (size, size), mode="bicubic", align_corners=True)
        ink = 255.0 - images.float()
        grid = grid + bend.movedim(1, -1)
        return 255.0 - F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def wear(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Drawings with another pen, and with holes: float [N, 1, s, s] in 0..255 -> the same, white (255) outside.

    Each image has its lines thickened by a pixel on either side with probability ``share``, and, independently, one
    rectangle of 10 to 35 % of each side erased. Not from the papers: it keeps the modern track from learning its few
    hundred drawings by heart.
    """
    n, size = len(images), images.shape[-1]
    thicker, holed = torch.rand(2, n, generator=generator) < share
    extent = (torch.rand(n, 2, generator=generator) * 0.25 + 0.1) * size
    start = torch.rand(n, 2, generator=generator) * (size - extent)
    at = torch.arange(size)
    inside = (at >= start[..., None]) & (at < (start + extent)[..., None])  # [N, 2, s]: rows, then columns
    hole = inside[:, 0, :, None] & inside[:, 1, None, :] & holed[:, None, None]  # [N, s, s]
    ink = 255 - images
    thicker = thicker.to(ink.device)
    ink[thicker] = F.max_pool2d(ink[thicker], 3, 1, 1)
    return 255 - ink.masked_fill(hole[:, None].to(ink.device), 0)


def _large_enough(images: Tensor, size: int) -> None:
    if size > min(images.shape[-2:]):
        raise ValueError(f"cannot crop {size} pixels from images of {images.shape[-2]} x {images.shape[-1]}")


def centre_crop(images: Tensor, size: int) -> Tensor:
    """[N, C, H, W] -> [N, C, size, size] around the centre."""
    _large_enough(images, size)
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def ten_views(images: Tensor, size: int) -> Tensor:
    """Four corners and the centre, each with its mirror image: [N, C, H, W] -> [N, 10, C, size, size]."""
    _large_enough(images, size)
    bottom, right = images.shape[-2] - size, images.shape[-1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = torch.stack([images[..., top : top + size, left : left + size] for top, left in corners], dim=1)
    return torch.cat([crops, crops.flip(-1)], dim=1)


@dataclass(frozen=True)
class SketchInput:
    """How drawings become network input: brought to a canvas of ``size * 256 / 225`` pixels, then cropped to ``size``.

    At the paper's 225 pixels the canvas is the database's own 256; at other sizes the proportion stays.
    fit: bring every drawing to one scale, place and pen first (:func:`fit_ink`; the modern track).
    """

    size: int = 225
    mean: float = SKETCH_MEAN
    scale: float = 1.0
    fit: bool = False

    @property
    def canvas(self) -> int:
        return round(self.size * 256 / 225)

    def on_canvas(self, images: Tensor) -> Tensor:
        """uint8 [N, 1, H, W] -> uint8 [N, 1, canvas, canvas]; call it once, ahead of :meth:`centre` and :meth:`ten`."""
        return fit_ink(images, self.canvas) if self.fit else resize(images, self.canvas)

    def normalise(self, images: Tensor) -> Tensor:
        return to_input(images, mean=self.mean, scale=self.scale)

    def centre(self, images: Tensor) -> Tensor:
        """Images on the canvas -> float [N, 1, size, size], their middle."""
        return self.normalise(centre_crop(self._checked(images), self.size))

    def ten(self, images: Tensor) -> Tensor:
        """Images on the canvas -> float [N, 10, 1, size, size]: the test's ten views (after "Sketch me that shoe")."""
        return self.normalise(ten_views(self._checked(images), self.size))

    def _checked(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.canvas, self.canvas):
            raise ValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]}, the canvas {self.canvas} x {self.canvas}: "
                "bring them to it first with on_canvas"
            )
        return images
