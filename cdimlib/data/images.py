"""Reading image files: on white, at one size, as uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def on_white(image, written_as: str | None = None):
    """A PIL image of any mode in RGB: transparent parts become white, 16-bit grey becomes 8-bit.

    written_as: the file's format ("PNG"). ValueError for grey of more bits or with decimals: what is white is not said.
    """
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and written_as == "PNG"):  # PIL would cut off at 255
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).round().astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("grey of 32 bits, of which nobody knows what is white; save it with 8 or 16 bits")
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size: one number is a square. ValueError for anything but whole pixels."""
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(p, (int, np.integer)) and p > 0 for p in pair):
        raise ValueError(f"size must be a number of pixels or (height, width), such as 256 or (128, 64), not {size!r}")
    return int(pair[0]), int(pair[1])


def read_image(path: str | Path, size: int | tuple[int, int] = 256, channels: int = 1) -> Tensor:
    """One image file -> uint8 [channels, H, W] on white, upright as the camera noted; 1 channel is grey, 3 are RGB.

    size: (H, W), or one number for a square. The image is stretched to it, its aspect ratio is not kept. Raises
    FileNotFoundError or ValueError (a file that does not decode), both naming the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width = height_width(size)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB), not {channels}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with Image.open(path) as image:
            picture = on_white(ImageOps.exif_transpose(image), image.format)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): remove or replace it") from error
    array = np.array((picture.convert("L") if channels == 1 else picture).resize((width, height)))
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())  # [C, H, W]
