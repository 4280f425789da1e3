"""Matchers against networks composed by hand, loops, and the shapes of the released network."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cdimlib.data.transforms import ten_views
from cdimlib.models.dssa import DSSA
from cdimlib.models.inception import InceptionFusion
from cdimlib.models.matcher import Matcher, MultiView, VectorMatcher
from cdimlib.models.midlevel import SketchFusion, mid_vector
from cdimlib.models.sketchanet import TAPS, SketchANet, check_taps, parameter_table

SMALL = 99  # pixels: pool5 is 1 x 1, conv5 4 x 4

#: stage -> (C, H, W) at 225 pixels, the released network (caffe and TensorFlow agree)
SHAPES_225 = {
    "conv1": (64, 71, 71), "pool1": (64, 35, 35), "conv2": (128, 31, 31), "pool2": (128, 15, 15),
    "conv3": (256, 15, 15), "conv4": (256, 15, 15), "conv5": (256, 15, 15), "pool5": (256, 7, 7),
}  # fmt: skip
PARAMETERS = {
    "conv1": 14_464, "conv2": 204_928, "conv3": 295_168, "conv4": 590_080, "conv5": 590_080,
    "fc6": 6_423_040, "fc7": 131_328,
}  # fmt: skip


@pytest.fixture
def drawings():
    """Four float drawings [4, 1, 99, 99] with the range a network sees."""
    return 10 * torch.randn(4, 1, SMALL, SMALL, generator=torch.Generator().manual_seed(0))


def by_hand(net: SketchANet, images):
    """Sketch-a-Net written out: convolution, (batch norm,) ReLU, pool, in the paper's order."""
    plan = [("conv1", 3, 0, True), ("conv2", 1, 0, True), ("conv3", 1, 1, False), ("conv4", 1, 1, False)]
    out, x = {}, images
    for name, stride, padding, pooled in [*plan, ("conv5", 1, 1, True)]:
        layer, norm = getattr(net, name), getattr(net, f"bn_{name}")
        x = F.conv2d(x, layer.weight, layer.bias, stride, padding)
        if isinstance(norm, nn.BatchNorm2d):
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        x = out[name] = x.relu()
        if pooled:
            x = out["pool" + name[-1]] = F.max_pool2d(x, 3, 2)
    x = F.linear(x.reshape(len(x), -1), net.fc6.weight, net.fc6.bias)
    if isinstance(net.bn_fc6, nn.BatchNorm1d):
        x = F.batch_norm(x, net.bn_fc6.running_mean, net.bn_fc6.running_var, net.bn_fc6.weight, net.bn_fc6.bias)
    out["fc6"] = x.relu()
    out["fc7"] = F.linear(out["fc6"], net.fc7.weight, net.fc7.bias)
    return out


def shake(model: nn.Module) -> nn.Module:
    """Give biases and batch-norm statistics values that a forgotten term would show."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if "var" in name else -0.3))
    return model


class TestSketchANet:
    def test_shapes_at_225(self):
        net = SketchANet()
        with torch.no_grad():
            maps = net.stages(torch.zeros(1, 1, 225, 225))
        assert {name: tuple(maps[name].shape[1:]) for name in TAPS} == SHAPES_225
        assert (maps["fc6"].shape, maps["fc7"].shape) == ((1, 512), (1, 256))
        assert SketchANet.shapes(225) == SHAPES_225

    def test_parameters(self):
        net = SketchANet()
        assert parameter_table(net) == PARAMETERS
        assert sum(p.numel() for p in net.parameters()) == 8_249_088

    @pytest.mark.parametrize("size", [81, 99, 112, 150])
    def test_announced_shapes_are_the_real_ones(self, size):
        with torch.no_grad():
            maps = SketchANet(input_size=size).stages(torch.zeros(1, 1, size, size))
        assert {name: tuple(maps[name].shape[1:]) for name in TAPS} == SketchANet.shapes(size)

    def test_too_small(self):
        with pytest.raises(ValueError, match=r"at least 81 pixels \(got 80\)"):
            SketchANet(input_size=80)
        assert SketchANet.shapes(81)["pool5"] == (256, 1, 1)

    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_every_stage_equals_the_written_out_network(self, drawings, batch_norm):
        net = shake(SketchANet(input_size=SMALL, batch_norm=batch_norm)).eval()
        with torch.no_grad():
            ours, theirs = net.stages(drawings), by_hand(net, drawings)
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)
        assert (ours["fc7"] < 0).any() and not (ours["fc6"] < 0).any()  # ReLU after fc6, none after fc7

    def test_keep_only_keeps(self, drawings):
        net = SketchANet(input_size=SMALL).eval()
        with torch.no_grad():
            few = net.stages(drawings, keep=("conv4",))
            assert few.keys() == {"conv4", "fc6", "fc7"}
            torch.testing.assert_close(few["fc7"], net(drawings))

    def test_dropout_only_in_training(self, drawings):
        net = SketchANet(input_size=SMALL, dropout=0.5)
        with torch.no_grad():
            assert not torch.equal(net(drawings), net(drawings))
            net.eval()
            assert torch.equal(net(drawings), net(drawings))

    def test_taps(self):
        assert check_taps("conv5") == ("conv5",)
        with pytest.raises(ValueError, match=r"unknown tap 'conv9': choose from conv1, .*pool5"):
            check_taps(("conv9",))
        with pytest.raises(ValueError, match="named twice"):
            check_taps(("conv5", "conv5"))


class TestFusion:
    """Midlevel-fusion, Eq. (1)."""

    def test_flatten_and_gap(self):
        maps = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
        assert mid_vector(maps, "flatten")[1].tolist() == list(range(12, 24))
        assert mid_vector(maps, "gap")[0].tolist() == [1.5, 5.5, 9.5]
        with pytest.raises(ValueError, match="pooling must be one of flatten, gap, not 'max'"):
            mid_vector(maps, "max")

    @pytest.mark.parametrize("taps", [(), ("pool5",), ("conv5",), ("conv4", "conv5"), ("conv3",)])
    @pytest.mark.parametrize("pooling", ["flatten", "gap"])
    def test_output_is_the_concatenation(self, drawings, taps, pooling):
        model = shake(SketchFusion(taps, pooling, input_size=SMALL)).eval()
        with torch.no_grad():
            maps, feature = by_hand(model.net, drawings), model.encode(drawings)
        parts = []
        for name in taps:
            part = maps[name].reshape(len(drawings), -1) if pooling == "flatten" else maps[name].mean(-1).mean(-1)
            parts.append(part / part.norm(dim=1, keepdim=True))
        parts.append(maps["fc7"] / maps["fc7"].norm(dim=1, keepdim=True))
        torch.testing.assert_close(feature, torch.cat(parts, dim=1), rtol=1e-4, atol=1e-5)
        assert feature.shape == (len(drawings), model.dimension)
        torch.testing.assert_close(feature.norm(dim=1), torch.full((4,), (len(taps) + 1) ** 0.5))

    @pytest.mark.parametrize(
        ("taps", "pooling", "dimension"),
        [("pool5", "flatten", 12_800), ("conv5", "flatten", 57_856), ((), "flatten", 256), ("conv5", "gap", 512)],
    )
    def test_dimension_at_225(self, taps, pooling, dimension):
        model = SketchFusion(taps, pooling).eval()
        assert model.dimension == dimension
        with torch.no_grad():
            assert model.encode(torch.randn(1, 1, 225, 225)).shape == (1, dimension)

    @pytest.mark.parametrize("tap", ["conv5", "pool5"])
    def test_gradient_reaches_conv5_through_the_middle_alone(self, drawings, tap):
        model = SketchFusion(tap, input_size=SMALL)
        middle = model.encode(drawings)[:, :-256]
        (middle * torch.randn(middle.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        for name in ("conv1", "conv5"):
            assert getattr(model.net, name).weight.grad.abs().sum() > 0
        assert all(p.grad is None or not p.grad.any() for p in model.net.fc6.parameters())

    def test_frozen_convolutions_get_no_gradient(self, drawings):
        model = SketchFusion((), input_size=SMALL, freeze_convolutions=True)
        model.encode(drawings)[:, 0].sum().backward()
        assert all(p.grad is None for n, p in model.net.named_parameters() if n.startswith("conv"))
        assert model.net.fc6.weight.grad.abs().sum() > 0 and model.net.fc7.weight.grad.abs().sum() > 0
        with pytest.raises(ValueError, match="freeze_convolutions leaves a fused map untrained"):
            SketchFusion("pool5", freeze_convolutions=True)

    def test_unknown_choices(self):
        with pytest.raises(ValueError, match="unknown tap 'conv6'"):
            SketchFusion("conv6")
        with pytest.raises(ValueError, match="pooling must be one of flatten, gap, not 'sum'"):
            SketchFusion("conv5", "sum")


class TestVectorMatcher:
    def test_scores_are_the_loop(self):
        generator = torch.Generator().manual_seed(0)
        queries, gallery = torch.randn(3, 7, generator=generator), torch.randn(5, 7, generator=generator)
        for q, g in itertools.product(range(3), range(5)):
            distance = sum((a - b) ** 2 for a, b in zip(queries[q].tolist(), gallery[g].tolist(), strict=True)) ** 0.5
            assert float(VectorMatcher().score(queries, gallery)[q, g]) == pytest.approx(-distance, rel=1e-5)
            squared = VectorMatcher(squared=True).score(queries, gallery)[q, g]
            assert float(squared) == pytest.approx(-(distance**2), rel=1e-5)
            cosine = F.cosine_similarity(queries[q], gallery[g], dim=0)
            similar = VectorMatcher("cosine").score(queries, gallery)[q, g]
            assert float(similar) == pytest.approx(float(cosine), rel=1e-4)

    def test_errors(self):
        with pytest.raises(ValueError, match="metric must be 'euclidean' or 'cosine', not 'manhattan'"):
            VectorMatcher("manhattan")
        with pytest.raises(ValueError, match="queries have 3 dimensions, the gallery 4"):
            VectorMatcher().score(torch.zeros(1, 3), torch.zeros(1, 4))


class Pixels(VectorMatcher):
    """The picture itself as its feature."""

    def encode(self, images):
        return images.flatten(1)


class TestMultiView:
    def test_equals_the_loop_over_views(self):
        images = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(0))
        matcher = MultiView(Pixels(), lambda batch: ten_views(batch, 9))
        features = matcher.encode(images)
        assert features.shape == (5, 10, 81)
        scores = matcher.score(features[:2], features[2:])
        for q, g in itertools.product(range(2), range(3)):
            distances = [(features[q, v] - features[2 + g, v]).norm() for v in range(10)]
            assert float(scores[q, g]) == pytest.approx(-float(sum(distances)) / 10, rel=1e-5)

    def test_views_are_encoded_one_by_one(self):
        images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
        views = ten_views(images, 9)
        features = MultiView(Pixels(), lambda batch: ten_views(batch, 9)).encode(images)
        for n, v in itertools.product(range(2), range(10)):
            assert torch.equal(features[n, v], views[n, v].flatten())

    def test_base_class_has_no_verbs(self):
        with pytest.raises(NotImplementedError):
            Matcher()(torch.zeros(1))
        with pytest.raises(NotImplementedError):
            Matcher().score(torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("build", [SketchFusion, DSSA])
def test_images_of_another_size_are_refused(build):
    with pytest.raises(ValueError, match=r"of images of 99 x 99 pixels it is \[256, 1, 1\]: resize the images"):
        build(input_size=99).encode(torch.zeros(1, 1, 141, 141))


class TestDSSA:
    @pytest.mark.parametrize("fusion", [False, True])
    def test_feature_composed_by_hand(self, drawings, fusion):
        size = 131  # pool5 is 3 x 3 here: a mask over one position would hide mistakes
        drawings = F.interpolate(drawings, (size, size))
        model = shake(DSSA(fusion=fusion, input_size=size)).eval()
        with torch.no_grad():
            maps, feature = by_hand(model.net, drawings), model.encode(drawings)
            attended, mask = model.attend(drawings)
        pool5, attention = maps["pool5"], model.attention
        hidden = torch.einsum("nchw,dc->ndhw", pool5, attention.hidden.weight[..., 0, 0])
        hidden = (hidden + attention.hidden.bias[:, None, None]).relu()
        logits = torch.einsum("nchw,c->nhw", hidden, attention.logits.weight[0, :, 0, 0]) + attention.logits.bias
        expected = logits.exp() / logits.exp().sum(dim=(1, 2), keepdim=True)  # [N, h, w]
        assert mask.shape == (4, 1, 3, 3)
        torch.testing.assert_close(mask[:, 0], expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(mask.sum(dim=(1, 2, 3)), torch.ones(4))
        torch.testing.assert_close(attended, pool5 * (1 + expected[:, None]), rtol=1e-3, atol=1e-4)
        fc7 = F.linear(F.linear(attended.flatten(1), model.net.fc6.weight, model.net.fc6.bias).relu(),
                       model.net.fc7.weight, model.net.fc7.bias)  # fmt: skip
        parts = [fc7 / fc7.norm(dim=1, keepdim=True)]
        if fusion:
            pooled = attended.sum(-1).sum(-1)
            parts.append(pooled / pooled.norm(dim=1, keepdim=True))
        torch.testing.assert_close(feature, torch.cat(parts, dim=1), rtol=1e-3, atol=1e-5)

    def test_energy_is_the_four_loops(self):
        model = DSSA(input_size=SMALL)
        generator = torch.Generator().manual_seed(3)
        model.weight = nn.Parameter(torch.randn(6, 6, generator=generator))
        queries, gallery = torch.randn(3, 6, generator=generator), torch.randn(4, 6, generator=generator)
        weight, expected = model.weight.tolist(), torch.zeros(3, 4)
        for q in range(3):
            for g in range(4):
                for i in range(6):
                    for j in range(6):
                        expected[q, g] += weight[i][j] * (float(queries[q, i]) - float(gallery[g, j])) ** 2
        torch.testing.assert_close(model.energy(queries, gallery), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.score(queries, gallery), -expected.clamp(min=0).sqrt(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model.pair_energy(queries, gallery[:3]), expected.diag(), rtol=1e-4, atol=1e-4)

    def test_identity_weight_is_euclidean(self):
        model = DSSA(input_size=SMALL)
        generator = torch.Generator().manual_seed(4)
        parts = [F.normalize(torch.randn(5, 256, generator=generator), dim=1) for _ in range(2)]
        features = torch.cat(parts, dim=1)  # [5, 512], as encode gives them
        distance = (features[:2, None] - features[None, 2:]).norm(dim=2)
        torch.testing.assert_close(model.score(features[:2], features[2:]), -distance, rtol=1e-4, atol=1e-4)
        cosine = F.cosine_similarity(features[:2, None], features[None, 2:], dim=2)
        torch.testing.assert_close(model.cosine(features[:2], features[2:]), cosine, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.pair_energy(features[:2], features[2:4]), distance.diag().square())
        without = DSSA(input_size=SMALL, holef=False)
        torch.testing.assert_close(without.pair_energy(features[:2], features[2:4]), distance.diag().square())
        assert without.weight is None and float(without.penalty()) == 0
        torch.testing.assert_close(without.score(features[:2], features[2:]), -distance, rtol=1e-4, atol=1e-4)

    def test_penalty(self):
        model = DSSA(input_size=SMALL)
        assert model.penalty().item() == 0
        with torch.no_grad():
            model.weight[0, 1], model.weight[2, 2] = 3.0, 5.0
        assert model.penalty().item() == pytest.approx((3 + 4 + 5) / 512)  # |3| + |4| + sqrt(9 + 16)


@pytest.fixture(scope="module")
def inception():
    """Random weights at 139 pixels, where Mixed_7b is 3 x 3 (building it takes seconds: one for all tests)."""
    torch.manual_seed(0)
    return InceptionFusion(input_size=139).eval()


class TestInception:
    def test_feature_is_mixed_7b_and_the_last_average(self, inception):
        """Against torchvision's own forward pass, with the tap read by a hook."""
        from torchvision.models import inception_v3

        whole = inception_v3(weights=None, aux_logits=False, init_weights=False)
        assert not whole.load_state_dict(inception.stages.state_dict(), strict=False).unexpected_keys
        seen = {}
        whole.Mixed_7b.register_forward_hook(lambda module, args, out: seen.update(middle=out))
        whole.avgpool.register_forward_hook(lambda module, args, out: seen.update(last=out))
        images = torch.rand(2, 1, 139, 139, generator=torch.Generator().manual_seed(1)) * 2 - 1
        with torch.no_grad():
            feature = inception.encode(images)
            whole.eval()(images.repeat(1, 3, 1, 1))
            gap = self._with(inception, pooling="gap").encode(images)
            plain = self._with(inception, fused=False).encode(images)
        assert seen["middle"].shape == (2, 2048, 3, 3)
        middle, last = seen["middle"].flatten(1), seen["last"].flatten(1)
        unit = [part / part.norm(dim=1, keepdim=True) for part in (middle, seen["middle"].mean((2, 3)), last)]
        torch.testing.assert_close(feature, torch.cat([unit[0], unit[2]], dim=1), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(gap, torch.cat([unit[1], unit[2]], dim=1), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(plain, unit[2], rtol=1e-3, atol=1e-5)

    @staticmethod
    def _with(model, **changed):
        """The same stages under other settings."""
        other = InceptionFusion.__new__(InceptionFusion)
        nn.Module.__init__(other)
        other.__dict__.update({**model.__dict__, **changed})
        return other

    @pytest.mark.parametrize(
        ("size", "fused", "pooling", "dimension"),
        [(299, True, "flatten", 133_120), (225, True, "flatten", 53_248), (139, True, "flatten", 20_480),
         (139, True, "gap", 4_096), (139, False, "flatten", 2_048), (75, True, "flatten", 4_096)],
    )  # fmt: skip
    def test_dimension(self, inception, size, fused, pooling, dimension):
        model = self._with(inception, input_size=size, fused=fused, pooling=pooling)
        assert model.dimension == dimension
        with torch.no_grad():
            assert model.encode(torch.zeros(1, 1, size, size)).shape == (1, dimension)

    def test_parameters_and_gradient(self, inception):
        assert sum(p.numel() for p in inception.parameters()) == 21_785_568
        middle = inception.encode(torch.randn(1, 1, 139, 139))[:, :-2048]
        middle[:, ::7].sum().backward()
        assert inception.stages.Mixed_7b.branch1x1.conv.weight.grad.abs().sum() > 0
        assert not inception.stages.Mixed_7c.branch1x1.conv.weight.grad.any()
        inception.zero_grad(set_to_none=True)

    def test_errors(self, inception):
        with pytest.raises(ValueError, match="images are 99 x 99 pixels, the model was made for 139 x 139"):
            inception.encode(torch.zeros(1, 1, 99, 99))
        with pytest.raises(ValueError, match="weights must be None or 'imagenet', not 'places'"):
            InceptionFusion(weights="places")
        with pytest.raises(ValueError, match="pooling must be one of flatten, gap, not 'max'"):
            InceptionFusion(pooling="max")
        with pytest.raises(ValueError, match=r"at least 75 pixels \(got 74\)"):
            InceptionFusion(input_size=74)
