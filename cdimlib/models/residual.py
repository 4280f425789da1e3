"""The backbones of the person models: torchvision's ResNets, MobileNetV2 and SqueezeNet, every place by its name."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from string import ascii_lowercase
from urllib.error import URLError

import torch
from torch import Tensor, nn

from .sketchanet import check_taps

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
           "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")  # fmt: skip
BACKBONES = (*RESNETS, "mobilenet_v2", "squeezenet1_1")
UNITS = [*ascii_lowercase, *("a" + letter for letter in ascii_lowercase)]  # a .. z, aa .. az
#: torchvision's ``features[i]`` that lie at stride 2, 4, 8, 16 and 32 (SqueezeNet's last two: both at 16)
STAGES = {
    "mobilenet_v2": (range(2), range(2, 4), range(4, 7), range(7, 14), range(14, 19)),
    "squeezenet1_1": ((1,), (3, 4), (6, 7), (9, 10), (11, 12)),
}


class Backbone(nn.Module):
    """A torchvision network without its classifier, whose maps can be asked for by name.

    =============  ===================================  =========  =========  =========  ==========
    name           res1 (pool1)                         res2       res3       res4       res5
    =============  ===================================  =========  =========  =========  ==========
    resnet18, 34   64 channels, stride 2 (4)            64, 4      128, 8     256, 16    512, 32
    resnet50..152  64 channels, stride 2 (4)            256, 4     512, 8     1024, 16   2048, 32
    resnext, wide  as resnet50
    mobilenet_v2   16, 2 (no pool1)                     24, 4      32, 8      96, 16     1280, 32
    squeezenet1_1  64, 2 (4)                            128, 4     256, 8     384, 16    512, 16
    =============  ===================================  =========  =========  =========  ==========

    ``res1`` is conv1 after batch normalisation and ReLU, ``pool1`` the pool behind it, ``resK`` the end of stage K, and
    ``resKa``, ``resKb``, ... the units of that stage in order (behind ``resKz`` comes ``resKaa``): ResNet-50's stage 5
    has ``res5a`` to ``res5c``. In MobileNetV2 and SqueezeNet ``blockI`` is torchvision's ``features[I]`` (SqueezeNet's
    ``block1`` is its first convolution with its ReLU), and the same ``res`` names stand for the same strides: stage K
    is every layer at stride 2^K. SqueezeNet never reaches stride 32; its last two units are called stage 5, and
    ``last_stride`` does not apply to it.

    taps: names of the maps that :meth:`stages` returns unless told otherwise.
    weights: None (random) or "imagenet" (torchvision's IMAGENET1K_V1, fetched on first use).
    last_stride: stride of stage 5; 1 keeps the size of ``res4``, as is usual in re-identification.
    up_to: the last map needed (default: the deepest of ``taps``); nothing behind it is built.
    after: leave out everything up to this map, which :meth:`stages` then takes in the image's place.

    Input: [N, 3, H, W]; normalising it is the caller's (:func:`cdimlib.data.augment.normalise`).
    """

    def __init__(
        self, name: str = "resnet50", *, weights: str | None = None, taps: str | tuple[str, ...] = "res5",
        last_stride: int = 2, up_to: str | None = None, after: str | None = None,
    ):
        super().__init__()
        if weights not in (None, "imagenet"):
            raise ValueError(f"weights must be None or 'imagenet', not {weights!r}")
        layers, self.places = _layers(name, weights, last_stride)
        order = list(layers)
        self.taps = check_taps(taps, self.places)
        if not self.taps:
            raise ValueError(f"a backbone needs a tap: one or more of {', '.join(self.places)}")
        ends = check_taps(up_to, self.places) if up_to else self.taps
        first = order.index(self.places[check_taps(after, self.places)[0]]) + 1 if after else 0
        built = order[first : 1 + max(order.index(self.places[end]) for end in ends)]
        self.name, self.last_stride = name, last_stride
        self.layers = nn.ModuleDict({layer: layers[layer] for layer in built})
        self._built(self.taps)

    def _built(self, taps) -> tuple[str, ...]:
        taps = check_taps(taps, self.places)
        for tap in taps:
            if self.places[tap] not in self.layers:
                there = ", ".join(t for t, layer in self.places.items() if layer in self.layers)
                raise ValueError(f"{tap!r} is not in this part of {self.name}, which holds {there or 'no layer'}")
        return taps

    def stages(self, images: Tensor, keep: str | tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """The maps named in ``keep`` (default: the backbone's taps), [N, C, h, w] each; layers behind them do not run.

        images: [N, 3, H, W], or the map ``after`` if the backbone was built with it.
        """
        keep = self.taps if keep is None else self._built(keep)
        wanted, out, x = {self.places[tap] for tap in keep}, {}, images
        for name, layer in self.layers.items():
            if not wanted:
                break
            x = layer(x)
            out.update({tap: x for tap in keep if self.places[tap] == name})
            wanted.discard(name)
        return out

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images [N, 3, H, W] -> {tap: maps [N, C, h, w]}, as :meth:`stages`."""
        return self.stages(images)

    def channels(self, tap: str) -> int:
        """Number of channels of a map."""
        return self.shapes((64, 64))[check_taps(tap, self.places)[0]][0]

    def shapes(self, pixels: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
        """Shape (C, h, w) of every map of the whole network for an image of (H, W) pixels."""
        return dict(_shapes(self.name, self.last_stride, *pixels))


@contextmanager
def fetching(name: str):
    """Around torchvision's fetching of weights: says what to do where they cannot be fetched."""
    try:
        yield
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f"ImageNet weights of {name} could not be fetched ({error}): put torchvision's file into "
            f"{torch.hub.get_dir()}/checkpoints, or pass weights=None"
        ) from error


def _layers(name: str, weights: str | None, last_stride: int) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers of a network in order, by name; and for every tap the layer whose output it is."""
    from torchvision.models import get_model

    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose from {', '.join(BACKBONES)}")
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride must be 1 or 2, not {last_stride!r}")
    with fetching(name):
        net = get_model(name, weights="IMAGENET1K_V1" if weights else None)
    if name in RESNETS:
        layers = {"res1": nn.Sequential(net.conv1, net.bn1, net.relu), "pool1": net.maxpool}
        places, stages = dict(zip(layers, layers)), {}
        for k, stage in enumerate((net.layer1, net.layer2, net.layer3, net.layer4), start=2):
            stages[k] = [f"res{k}{unit}" for unit, _ in zip(UNITS, stage)]
            layers.update(zip(stages[k], stage))
    else:
        layers = {f"block{i}": layer for i, layer in enumerate(net.features)}
        if name == "squeezenet1_1":  # its ReLU works in place: alone, block0 would change after it was handed out
            layers["block1"] = nn.Sequential(layers.pop("block0"), layers["block1"])
        places = dict(zip(layers, layers))
        stages = {k: [f"block{i}" for i in blocks] for k, blocks in enumerate(STAGES[name], start=1)}
        if name == "squeezenet1_1":
            places["pool1"] = "block2"
    for k, units in stages.items():
        places |= {f"res{k}{unit}": layer for unit, layer in zip(UNITS, units)} | {f"res{k}": units[-1]}
    if last_stride == 1 and name != "squeezenet1_1":
        for module in layers[stages[5][0]].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return layers, places


@lru_cache(maxsize=64)
def _shapes(name: str, last_stride: int, height: int, width: int) -> tuple:
    with torch.device("meta"):  # shapes without numbers
        layers, places = _layers(name, None, last_stride)
        x, sizes = torch.empty(1, 3, height, width), {}
        for layer_name, layer in layers.items():
            x = layer.eval()(x)
            sizes[layer_name] = tuple(x.shape[1:])
    return tuple((tap, sizes[layer]) for tap, layer in places.items())
