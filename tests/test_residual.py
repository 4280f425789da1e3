"""The backbones' named maps against forward hooks on torchvision's own networks."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import get_model

from cdimlib.models.residual import BACKBONES, Backbone

#: (backbone, tap, torchvision's module)
SAME_PLACE = [
    ("resnet18", "res1", "relu"), ("resnet18", "pool1", "maxpool"), ("resnet18", "res2a", "layer1.0"),
    ("resnet18", "res2", "layer1.1"), ("resnet18", "res4", "layer3"), ("resnet18", "res5a", "layer4.0"),
    ("resnet50", "res3d", "layer2"), ("resnet50", "res5b", "layer4.1"), ("resnet50", "res5c", "layer4.2"),
    ("mobilenet_v2", "block0", "features.0"), ("mobilenet_v2", "res2", "features.3"),
    ("mobilenet_v2", "res4", "features.13"), ("mobilenet_v2", "res5a", "features.14"),
    ("mobilenet_v2", "res5", "features.18"), ("squeezenet1_1", "block1", "features.1"),
    ("squeezenet1_1", "pool1", "features.2"), ("squeezenet1_1", "res3", "features.7"),
    ("squeezenet1_1", "res5", "features.12"),
]  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    """Small torchvision networks with random weights, and ours holding the same ones."""
    pairs = {}
    for name in ("resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1"):
        torch.manual_seed(0)
        theirs = get_model(name, weights=None)
        torch.manual_seed(0)  # the same network is drawn, and then cut at its names
        pairs[name] = theirs.eval(), Backbone(name).eval()
    return pairs


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "tap", "module"), SAME_PLACE)
@torch.no_grad()
def test_taps_equal_forward_hooks(networks, images, name, tap, module):
    theirs, ours = networks[name]
    if module == "relu":  # torchvision uses this module once, in place: its output is what the pool reads
        module, seen = "maxpool", {}
        hook = theirs.maxpool.register_forward_pre_hook(lambda _, inputs: seen.update(map=inputs[0].clone()))
    else:
        seen = {}
        hook = theirs.get_submodule(module).register_forward_hook(lambda *call: seen.update(map=call[2].clone()))
    theirs(images)
    hook.remove()
    maps = ours.stages(images, tap)
    assert list(maps) == [tap]
    torch.testing.assert_close(maps[tap], seen["map"], rtol=0, atol=0)


@torch.no_grad()
def test_a_map_is_not_changed_by_the_layers_behind_it(networks, images):
    for _, ours in networks.values():
        every = ours.stages(images, tuple(ours.places))
        for tap, value in every.items():
            torch.testing.assert_close(value, ours.stages(images, tap)[tap], rtol=0, atol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_strides(name):
    with torch.device("meta"):
        shapes = Backbone(name, taps="res1").shapes((384, 128))
    for k in range(1, 6):
        stride = 16 if (name, k) == ("squeezenet1_1", 5) else 2**k
        assert abs(shapes[f"res{k}"][1] - 384 / stride) <= 1 and abs(shapes[f"res{k}"][2] - 128 / stride) <= 1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
@torch.no_grad()
def test_announced_shapes_are_the_real_ones(networks, name):
    ours = networks[name][1] if name != "resnet18" else Backbone(name, last_stride=1).eval()
    maps = ours.stages(torch.zeros(1, 3, 96, 48), tuple(ours.places))
    assert {tap: tuple(value.shape[1:]) for tap, value in maps.items()} == ours.shapes((96, 48))
    assert ours.channels("res4") == maps["res4"].shape[1]


def test_sizes_in_the_literature():
    """Midlevel-fusion and feature mask network name these places; QAConv stops at res4."""
    with torch.device("meta"):
        to_res4 = Backbone("resnet50", taps="res4")
    shapes = to_res4.shapes((224, 224))
    expected = {"res1": (64, 112), "pool1": (64, 56), "res2": (256, 56), "res3": (512, 28), "res4": (1024, 14)}
    assert {k: (shapes[k][0], shapes[k][1]) for k in expected} == expected and shapes["res5c"] == (2048, 7, 7)
    assert sum(p.numel() for p in to_res4.parameters()) == 8_543_296  # the whole: 23.508 M
    assert list(to_res4.layers)[-1] == "res4f" and "res5" not in to_res4.state_dict()


def test_only_the_needed_layers():
    torch.manual_seed(0)
    whole = Backbone("resnet18").eval()
    torch.manual_seed(0)
    back = Backbone("resnet18", after="pool1", taps=("res3", "res5")).eval()
    assert next(iter(back.layers)) == "res2a"
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        pool1, res5 = whole.stages(x, ("pool1", "res5")).values()
        torch.testing.assert_close(back(pool1)["res5"], res5)
    assert list(Backbone("resnet18", taps="res2", up_to="res3").layers)[-1] == "res3b"


def test_last_stride():
    for name in ("resnet18", "resnet50", "mobilenet_v2"):
        with torch.device("meta"):
            maps = Backbone(name, last_stride=1).eval().stages(torch.zeros(1, 3, 64, 64), ("res4", "res5"))
        assert maps["res4"].shape[2:] == maps["res5"].shape[2:] == (4, 4)
    with pytest.raises(ValueError, match="last_stride must be 1 or 2, not 3"):
        Backbone("resnet18", last_stride=3)


def test_unit_names_go_past_z():
    with torch.device("meta"):
        places = Backbone("resnet152", taps="res1").places
    assert places["res4"] == "res4aj" and "res4z" in places and "res3h" in places  # 36 and 8 units


def test_errors_list_what_there_is():
    with pytest.raises(ValueError, match=r"unknown tap 'res9': choose from res1, pool1, res2a, .*res5"):
        Backbone("resnet18", taps="res9")
    with pytest.raises(ValueError, match="a backbone needs a tap: one or more of"):
        Backbone("resnet18", taps=())
    with pytest.raises(ValueError, match=r"'res5' is not in this part of resnet18, which holds res1, .*res4$"):
        Backbone("resnet18", taps="res4").stages(torch.zeros(1, 3, 32, 32), "res5")
    with pytest.raises(ValueError, match="not in this part of resnet18"):
        Backbone("resnet18", taps="res2", after="res3")
    with pytest.raises(ValueError, match="unknown backbone 'vgg16': choose from resnet18, .*squeezenet1_1"):
        Backbone("vgg16")
    with pytest.raises(ValueError, match="weights must be None or 'imagenet'"):
        Backbone("resnet18", weights="cifar")


def test_missing_weights_say_where_to_put_them(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match=rf"resnet18 could not be fetched.*{tmp_path}.*weights=None"):
        Backbone("resnet18", weights="imagenet")
