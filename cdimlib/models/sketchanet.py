"""Sketch-a-Net, the base network of the sketch models, with every stage by its name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: (name, input channels, output channels, kernel, stride, padding, pooled afterwards?)
CONVOLUTIONS = (
    ("conv1", 1, 64, 15, 3, 0, True),
    ("conv2", 64, 128, 5, 1, 0, True),
    ("conv3", 128, 256, 3, 1, 1, False),
    ("conv4", 256, 256, 3, 1, 1, False),
    ("conv5", 256, 256, 3, 1, 1, True),
)
TAPS = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")


class SketchANet(nn.Module):
    """Five convolutions and two fully connected layers, an AlexNet for line drawings.

    Input: [N, 1, 225, 225] (any side of at least 81 pixels works; fc6 then has another width).
    Output: fc7 [N, 256] without a ReLU. :meth:`stages` returns every named map.
    With ``batch_norm=False`` and 225 pixels it has the 8,249,088 parameters of the released network.

    With ``batch_norm=True`` (our modern track, not in the paper) every layer but fc7 is normalised before its ReLU.

    Midlevel-fusion, Sec. 3.2; Yu et al., "Sketch-a-Net that beats humans".
    """

    def __init__(self, *, input_size: int = 225, batch_norm: bool = False, dropout: float = 0.0, embedding: int = 256):
        super().__init__()
        if input_size < 81:
            raise ValueError(f"input_size must be at least 81 pixels (got {input_size}): pool5 would be empty")
        self.input_size = input_size
        for name, c_in, c_out, kernel, stride, padding, _ in CONVOLUTIONS:
            conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=not batch_norm)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.add_module(name, conv)
            self.add_module(f"bn_{name}", nn.BatchNorm2d(c_out) if batch_norm else nn.Identity())
        width = self.shapes(input_size)["pool5"]
        self.fc6 = nn.Linear(width[0] * width[1] * width[2], 512, bias=not batch_norm)
        self.bn_fc6 = nn.BatchNorm1d(512) if batch_norm else nn.Identity()
        self.fc7 = nn.Linear(512, embedding)
        self.dropout = nn.Dropout(dropout)

    @staticmethod
    def shapes(input_size: int = 225) -> dict[str, tuple[int, int, int]]:
        """Shape (C, H, W) of every tap for a square input of ``input_size`` pixels."""
        side, out = input_size, {}
        for name, _, c_out, kernel, stride, padding, pooled in CONVOLUTIONS:
            side = (side + 2 * padding - kernel) // stride + 1
            out[name] = (c_out, side, side)
            if pooled:
                side = (side - 3) // 2 + 1
                out["pool" + name[-1]] = (c_out, side, side)
        return out

    def stages(self, images: Tensor, keep=TAPS) -> dict[str, Tensor]:
        """The named maps in ``keep`` (each after its ReLU), and fc6 (after its ReLU) and fc7 (without one)."""
        out, x = {}, images
        for name, *_, pooled in CONVOLUTIONS:
            x = getattr(self, f"bn_{name}")(getattr(self, name)(x))
            if name in keep:
                out[name] = F.relu(x)
            x = F.relu(F.max_pool2d(x, 3, 2) if pooled else x)  # max and ReLU commute: the smaller map goes second
            if pooled and "pool" + name[-1] in keep:
                out["pool" + name[-1]] = x
        out["fc6"] = self.head6(x)
        out["fc7"] = self.fc7(self.dropout(out["fc6"]))
        return out

    def head6(self, pool5: Tensor) -> Tensor:
        """fc6 with its ReLU on a pool5 map [N, 256, h, w] -> [N, 512]."""
        expected = self.shapes(self.input_size)["pool5"]
        if tuple(pool5.shape[1:]) != expected:
            raise ValueError(
                f"pool5 is {list(pool5.shape[1:])}, of images of {self.input_size} x {self.input_size} pixels it is "
                f"{list(expected)}: resize the images, or build the model with their input_size="
            )
        return F.relu(self.bn_fc6(self.fc6(self.dropout(pool5.flatten(1)))))  # [N, 256 * h * w] -> [N, 512]

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 1, H, W] -> the output of fc7, [N, 256]."""
        return self.stages(images, keep=())["fc7"]


def check_taps(taps, known=TAPS) -> tuple[str, ...]:
    """The taps as a tuple, or a ValueError that lists the known ones."""
    taps = (taps,) if isinstance(taps, str) else tuple(taps)
    for tap in taps:
        if tap not in known:
            raise ValueError(f"unknown tap {tap!r}: choose from {', '.join(known)}")
    if len(set(taps)) != len(taps):
        raise ValueError(f"a tap is named twice in {taps}")
    return taps


@torch.no_grad()
def parameter_table(model: nn.Module) -> dict[str, int]:
    """Number of parameters of each direct child that has any, in order."""
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    return {name: count for name, count in counts.items() if count}
