"""Reading image files: on white, as a square, as uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def read_image(path: str | Path, size: int = 256, channels: int = 1) -> Tensor:
    """One image file -> uint8 [channels, size, size], transparent parts white; 1 channel is grey, 3 are RGB.

    The image is stretched to the square, its aspect ratio is not kept. Raises FileNotFoundError or ValueError (a file
    that does not decode), both naming the file.
    """
    from PIL import Image, UnidentifiedImageError

    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB), not {channels}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with Image.open(path) as image:
            picture = image.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): remove or replace it") from error
    paper = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(paper, picture).convert("L" if channels == 1 else "RGB").resize((size, size))
    array = np.array(flat)
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())  # [C, size, size]
