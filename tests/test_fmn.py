"""Feature Mask Network: the mask against loops, the frozen half, the descriptor, and both stages of training."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from cdimlib.identities import identity_objective, mask_objective
from cdimlib.losses import ranking_hinge
from cdimlib.models.fmn import FeatureMaskNet, GlobalPair, column_major, descriptor, feature_mask
from cdimlib.models.residual import Backbone
from cdimlib.training import TrainConfig, fit

PIXELS = (64, 32)


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def model():
    """A small network with a mask that is far from flat."""
    return FeatureMaskNet(5, "pool1", backbone="squeezenet1_1", pixels=PIXELS, mask_std=0.05).eval()


@pytest.fixture
def images():
    return torch.randn(4, 3, *PIXELS, generator=torch.Generator().manual_seed(0))


class TestMask:
    def test_columns_come_first(self):
        """Feature-mask-network, Eq. (2): entry (i, j), from 1, is number k = (j - 1) h + i."""
        height, width = 5, 3
        values = torch.randn(2, height * width)
        maps = column_major(values, height, width)
        assert maps.shape == (2, 1, height, width)
        for k in range(1, height * width + 1):
            j = (k - 1) // height + 1
            i = k - height * (j - 1)
            assert torch.equal(maps[:, 0, i - 1, j - 1], values[:, k - 1])

    def test_against_a_loop(self):
        """Feature-mask-network, Eq. (1) and (2)."""
        transition = 3 * torch.randn(2, 6)
        mask = feature_mask(transition, 3, 2)
        for n in range(2):
            for k in range(6):
                assert mask[n, 0, k % 3, k // 3].item() == pytest.approx(math.exp(max(0.0, transition[n, k].item())))

    def test_it_amplifies_and_never_overflows(self):
        mask = feature_mask(torch.tensor([[-1e30, -1.0, 0.0, 1e30]]), 2, 2, limit=10.0)
        assert mask.min() == 1 and mask.max().item() == pytest.approx(math.exp(10))
        assert feature_mask(torch.full((1, 4), 60000.0, dtype=torch.bfloat16), 2, 2).isfinite().all()

    def test_no_weight_no_mask_and_no_gradient(self, model, images):
        """With W = 0 the local network sees the map as it is; and W would never leave 0."""
        torch.nn.init.zeros_(model.mask.weight)
        seen = model.look(images)
        assert (seen["mask"] == 1).all()
        early = model.grn.backbone.stages(images, keep="pool1")["pool1"]
        assert torch.equal(seen["local"], model.lan.backbone.stages(early)["res5"])
        seen["local"].sum().backward()
        assert not model.mask.weight.grad.any()

    @pytest.mark.parametrize("layer", ["res1", "pool1", "res2", "res3", "res4"])
    def test_every_channel_is_masked_alike_before_the_local_network(self, images, layer):
        """Feature-mask-network, Eq. (3); the whole forward pass put together from its parts."""
        net = FeatureMaskNet(5, layer, backbone="resnet18", pixels=PIXELS, mask_std=0.05).eval()
        maps = net.grn.backbone.stages(images, keep=(layer, "res5"))
        transition = maps["res5"].mean(dim=(2, 3)) @ net.mask.weight.T
        early = maps[layer].clone()
        for i in range(early.shape[2]):
            for j in range(early.shape[3]):
                early[:, :, i, j] *= transition[:, i + j * early.shape[2]].relu().exp()[:, None]
        seen = net.look(images)
        torch.testing.assert_close(seen["local"], net.lan.backbone.stages(early)["res5"], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(seen["local"], net.lan.backbone.stages(maps[layer])["res5"], rtol=1e-2)

    def test_another_size_is_refused(self, model):
        with pytest.raises(ValueError, match=r"the mask is 15 x 7.*15 x 15: build the model with pixels=\(64, 64\)"):
            model.look(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("layer", "total", "mask", "local"),
    [("pool1", 56.51, 6.42, 23.50), ("res1", 75.77, 25.69, 23.50), ("res2", 56.29, 6.42, 23.28),
     ("res3", 50.25, 1.61, 22.06), ("res4", 41.95, 0.40, 14.96)],
)  # fmt: skip
def test_parameters_of_the_papers_network(layer, total, mask, local):
    """At 224 x 224 with 751 identities; the mask at res1 is four times that at pool1 ("only a quarter", Sec. 4.3)."""
    with torch.device("meta"):
        net = FeatureMaskNet(751, layer)
    for module, expected in ((net, total), (net.mask, mask), (net.lan.backbone, local)):
        assert round(count(module) / 1e6, 2) == expected


def test_shapes_of_the_global_network():
    shapes = Backbone("resnet50", taps="res5").shapes((224, 224))
    expected = {"res1": (64, 112, 112), "pool1": (64, 56, 56), "res2": (256, 56, 56), "res3": (512, 28, 28),
                "res4": (1024, 14, 14), "res5": (2048, 7, 7)}  # fmt: skip
    assert {name: shapes[name] for name in expected} == expected


class TestDescriptor:
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
    def test_halves_of_known_length(self, alpha):
        """Feature-mask-network, Eq. (6)."""
        g, l = 7 * torch.randn(3, 4), torch.randn(3, 4)  # noqa: E741
        d = descriptor(g, l, alpha)
        for n in range(3):
            for half, feature, share in ((d[n, :4], g[n], alpha), (d[n, 4:], l[n], 1 - alpha)):
                length = math.sqrt(sum(v * v for v in feature.tolist()))
                assert half.tolist() == pytest.approx([share * v / length for v in feature.tolist()])

    @pytest.mark.parametrize("alpha", [-0.1, 1.1])
    def test_alpha_outside_is_refused(self, alpha):
        with pytest.raises(ValueError, match=rf"alpha must lie in \[0, 1\] \(got {alpha}\)"):
            descriptor(torch.ones(1, 2), torch.ones(1, 2), alpha)
        with pytest.raises(ValueError, match="alpha"):
            FeatureMaskNet(5, backbone="resnet18", pixels=PIXELS, alpha=alpha)

    def test_images_are_described_by_both_networks(self, model, images):
        seen = model.look(images)
        expected = descriptor(seen["global"].mean(dim=(2, 3)), seen["local"].mean(dim=(2, 3)), 0.5)
        assert torch.equal(model(images), expected) and expected.shape == (4, 1024)
        model.alpha = 1.0  # the global network alone: distances are those of the plain network
        torch.testing.assert_close(model.score(model(images), model(images)),
                                   model.grn.score(model.grn(images), model.grn(images)))  # fmt: skip

    def test_two_global_networks(self, images):
        """The control without mask and ranking: each half is a network that can be used on its own."""
        nets = [FeatureMaskNet(None, backbone="squeezenet1_1", pixels=PIXELS).grn.eval() for _ in range(2)]
        found = GlobalPair(*nets, alpha=0.3)(images)
        for half, net, share in zip(found.chunk(2, dim=1), nets, (0.3, 0.7)):
            torch.testing.assert_close(half, share * net(images))  # a Vanilla's own descriptor has length one


class TestHinge:
    def test_against_a_loop(self):
        """Feature-mask-network, Eq. (5)."""
        g, l = torch.rand(50), torch.rand(50)  # noqa: E741
        for margin in (0.0, 0.2, 1.0):
            loop = [max(0.0, a - b + margin) for a, b in zip(g.tolist(), l.tolist())]
            assert ranking_hinge(g, l, margin=margin).item() == pytest.approx(sum(loop) / 50)

    def test_only_the_local_network_learns_from_it(self):
        g, l = torch.full((2,), 0.5, requires_grad=True), torch.tensor([0.2, 0.9], requires_grad=True)  # noqa: E741
        ranking_hinge(g, l, margin=0.1).backward()
        assert g.grad is None and l.grad.tolist() == [-0.5, 0.0]

    @pytest.mark.parametrize("margin", [-0.1, 1.5])
    def test_margin_is_required_and_a_difference_of_probabilities(self, margin):
        with pytest.raises(ValueError, match=r"margin must lie in \[0, 1\]"):
            ranking_hinge(torch.ones(1), torch.ones(1), margin=margin)
        with pytest.raises(TypeError, match="margin"):
            ranking_hinge(torch.ones(1), torch.ones(1))

    def test_objective_by_hand(self, model, images):
        """Algorithm 1, stage 2: cross-entropy of the local network, and the hinge on the right class's probability."""
        labels = torch.tensor([0, 1, 2, 3])
        loss = mask_objective(0.3, 2.0)(model, (images, labels))
        g, l = (logits.softmax(dim=1).tolist() for logits in model.logits(images))  # noqa: E741
        expected = sum(-math.log(l[n][n]) + 2.0 * max(0.0, g[n][n] - l[n][n] + 0.3) for n in range(4))
        assert loss.item() == pytest.approx(expected / 4, rel=1e-4)


class TestStages:
    """Algorithm 1 on four images of four people."""

    LABELS = torch.arange(4)

    def fresh(self, backbone):
        return FeatureMaskNet(5, backbone=backbone, pixels=PIXELS, dropout=0.2, mask_std=0.05)

    def train(self, model, images, objective, steps=6, **options):
        config = TrainConfig(steps, 2e-3, "adamw", 1e-2)
        return fit(model, lambda seed, step: (images, self.LABELS), objective, config, progress=False, **options)

    def test_the_frozen_network_does_not_move(self, images):
        """Neither its weights nor its batch statistics, though weight decay and training mode pull at both."""
        model = self.fresh("resnet18")
        first = self.train(model.grn, images, identity_objective())
        assert first.losses[-1] < 0.7 * first.losses[0]
        model.freeze_global()
        before, parts = copy.deepcopy(model.grn.state_dict()), ("lan", "mask")
        moving = {name: p.detach().clone() for name, p in model.named_parameters() if name.startswith(parts)}
        second = self.train(model, images, mask_objective(0.1))
        for name, value in model.grn.state_dict().items():
            assert torch.equal(value, before[name]), f"grn.{name} moved"
        still = [name for name, p in model.named_parameters() if name in moving and torch.equal(p, moving[name])]
        assert not still, "both the mask and the local network must learn"
        assert second.losses[-1] < 0.8 * second.losses[0]
        assert model.train().lan.training and not any(m.training for m in model.grn.modules())

    def test_before_freezing_the_global_network_trains(self, model, images):
        assert model.train().grn.training
        F.cross_entropy(model.logits(images)[0], self.LABELS).backward()
        assert all(p.grad is not None for p in model.grn.parameters())

    def test_both_stages_resume_bit_for_bit(self, images, tmp_path):
        """A run stopped in the middle of stage 2 ends with the weights of one that was not."""

        def run(checkpoint, stop):
            torch.manual_seed(0)
            model = self.fresh("squeezenet1_1")
            self.train(model.grn, images, identity_objective(), 2, checkpoint=checkpoint and tmp_path / "grn.pt")
            model.freeze_global()
            objective, seen = mask_objective(0.1), []

            def stopping(net, batch):
                seen.append(1)
                if len(seen) > stop:
                    raise KeyboardInterrupt
                return objective(net, batch)

            config = TrainConfig(5, 1e-3, "adamw", checkpoint_every=2)
            history = fit(model, lambda seed, step: (images, self.LABELS), stopping, config, progress=False,
                          checkpoint=checkpoint and tmp_path / "fmn.pt")  # fmt: skip
            return model, history

        with pytest.raises(KeyboardInterrupt):
            run(True, 3)
        (resumed, after), (whole, expected) = run(True, 99), run(None, 99)
        assert after.losses == expected.losses and len(after.losses) == 5
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name
