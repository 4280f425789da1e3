"""QAConv against four loops, its class memory against what a dictionary would do, and the kernel against both."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cdimlib.data.augment import random_block
from cdimlib.losses import focal
from cdimlib.models import qaconv, qaconv_gpu
from cdimlib.models.qaconv import Classifier, ClassMemory, LocalMaps, PooledMaps, QAConv
from cdimlib.training import TrainConfig, fit

PIXELS = (64, 32)  # maps of 4 x 2
SMALL = dict(backbone="squeezenet1_1", channels=16, tap="res3")


def random_maps(n, d=16, h=4, w=2, seed=0, dtype=torch.float32):
    maps = torch.randn(n, d, h, w, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return F.normalize(maps, dim=1)


class Given(nn.Module):
    """Stands in for the backbone: the maps are the images."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, images):
        return images


def matcher_of(d=16, h=4, w=2, seed=0, **options) -> QAConv:
    """A QAConv that takes maps for images, with weights and statistics that a forgotten term would show."""
    old, qaconv.LocalMaps = qaconv.LocalMaps, lambda pixels, **_: Given((d, h, w))
    try:
        model = QAConv((h, w), **options)
    finally:
        qaconv.LocalMaps = old
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            positive = name.endswith(("bn.weight", "var"))
            value.copy_(torch.rand(value.shape, generator=generator) + (0.7 if positive else -0.4))
    return model.eval()


def plain_values(queries, gallery):
    """Best similarities [Q, G, 2hw] with every similarity in memory, differentiable by torch itself."""
    every = torch.einsum("qcp,gcr->qgpr", queries.flatten(2), gallery.flatten(2))
    return torch.cat([every.amax(2), every.amax(3)], dim=-1)


def plain_logits(model, queries, gallery):
    """BN-FC-BN by torch's own modules on all similarities."""
    values = plain_values(queries, gallery)
    values = model.bn(values.reshape(-1, 1)).view_as(values)
    weight = model.fc.weight.repeat(1, 2 if model.symmetric else 1)
    logits = values @ weight[0] + model.fc.bias * (2 if model.symmetric else 1)
    return model.logit_bn(logits.view(-1, 1)).view_as(logits)


def pair_by_loops(model, query, gallery):
    """One logit, position by position over plain floats: QAConv, Sec. 3.1 and 3.2."""
    d, h, w = query.shape
    cells = list(itertools.product(range(h), range(w)))
    q, g = query.tolist(), gallery.tolist()

    def cosine(p, r):
        return sum(q[c][p[0]][p[1]] * g[c][r[0]][r[1]] for c in range(d))

    numbers = [max(cosine(p, r) for p in cells) for r in cells]  # over the query's positions first
    numbers += [max(cosine(p, r) for r in cells) for p in cells]

    def normed(x, norm):
        mean, var, gain, shift = (t.item() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
        return (x - mean) / math.sqrt(var + norm.eps) * gain + shift

    weight = model.fc.weight[0].tolist()
    weight = weight * 2 if model.symmetric else weight
    total = sum(w * normed(x, model.bn) for w, x in zip(weight, numbers, strict=True))
    return normed(total + model.fc.bias.item() * (2 if model.symmetric else 1), model.logit_bn)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor any operation made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.numbers = max(self.numbers, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


class TestScore:
    @pytest.mark.parametrize("symmetric", [False, True])
    def test_equals_four_loops(self, symmetric):
        """QAConv, Sec. 3.1 and 3.2."""
        model = matcher_of(5, 3, 2, symmetric=symmetric)
        queries, gallery = random_maps(3, 5, 3, 2), random_maps(4, 5, 3, 2, seed=1)
        logits = model.logits(queries, gallery)
        expected = [[pair_by_loops(model, q, g) for g in gallery] for q in queries]
        torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.score(queries, gallery), torch.sigmoid(logits / 10))

    @given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 50))
    def test_no_chunk_changes_anything(self, n_queries, n_gallery, chunk):
        queries, gallery = random_maps(n_queries), random_maps(n_gallery, seed=1)
        model = matcher_of(chunk=chunk)
        torch.testing.assert_close(model.logits(queries, gallery), plain_logits(model, queries, gallery))

    @pytest.mark.parametrize("chunk", [1, 3, 5, 7, 100, None])
    @pytest.mark.parametrize("symmetric", [False, True])
    def test_batch_statistics_are_those_of_all_pairs(self, chunk, symmetric):
        ours, theirs = (matcher_of(chunk=chunk, symmetric=symmetric).train() for _ in range(2))
        queries = [random_maps(5).requires_grad_() for _ in range(2)]
        gallery = random_maps(7, seed=1)
        ours.logits(queries[0], gallery).square().sum().backward()
        plain_logits(theirs, queries[1], gallery).square().sum().backward()
        torch.testing.assert_close(queries[0].grad, queries[1].grad, rtol=1e-4, atol=1e-5)
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4, msg=name)
        for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            if "num_batches" not in name:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)

    def test_gradient_of_the_matching(self):
        queries, gallery = (random_maps(n, 3, 2, 2, seed=n, dtype=torch.float64).flatten(2) for n in (2, 3))
        both = queries.requires_grad_(), gallery.requires_grad_()
        for chunk in (1, 2, 4):
            assert torch.autograd.gradcheck(lambda q, g: qaconv._BestMatches.apply(q, g, q.dtype, chunk), both)  # noqa: B023

    def test_gradient_in_eval_mode_for_maps_that_ask(self):
        model, queries, gallery = matcher_of(), random_maps(2).requires_grad_(), random_maps(3, seed=1)
        logits = model.logits(queries, gallery)
        torch.testing.assert_close(logits.detach(), model.logits(queries.detach(), gallery))
        (gradient,) = torch.autograd.grad(logits.sum(), queries)
        (expected,) = torch.autograd.grad(plain_logits(model, queries, gallery).sum(), queries)
        torch.testing.assert_close(gradient, expected)

    def test_similarities_of_one_chunk_only(self):
        hw, queries, gallery = 64, random_maps(6, 4, 8, 8), random_maps(40, 4, 8, 8, seed=1)
        model = matcher_of(4, 8, 8)
        with Largest() as scoring:
            model.logits(queries, gallery)
        assert scoring.numbers == 120 * hw**2 <= 2**19  # all would be 240 * hw^2
        with Largest() as training:
            model.train().logits(queries.clone().requires_grad_(), gallery).sum().backward()
        assert training.numbers == 120 * hw**2  # and the best similarities of all pairs, 240 * 2hw

    def test_permuting_positions_with_the_weights(self):
        """A position is where the FC has its weight, and nothing else."""
        model, queries, gallery = matcher_of(), random_maps(3), random_maps(4, seed=1)
        before = model.logits(queries, gallery)
        order = torch.randperm(8)
        queries, gallery = (x.flatten(2)[..., order].view_as(x) for x in (queries, gallery))
        assert not torch.allclose(model.logits(queries, gallery), before, atol=1e-4)
        with torch.no_grad():
            model.fc.weight.copy_(model.fc.weight.view(2, 8)[:, order].view(1, 16))
        torch.testing.assert_close(model.logits(queries, gallery), before)

    def test_asymmetric_unless_asked(self):
        a, b = random_maps(4), random_maps(5, seed=1)
        model, shared = matcher_of(), matcher_of(symmetric=True)
        assert not torch.allclose(model.logits(a, b), model.logits(b, a).T, atol=1e-2)
        torch.testing.assert_close(shared.logits(a, b), shared.logits(b, a).T)

    @pytest.mark.parametrize(("precision", "error"), [("bf16", 0.004), ("fp16", 0.0005)])
    def test_half_precision(self, precision, error):
        """The errors the docstring states, at the paper's map size; weights 1 / 2hw, so logits are means."""
        queries, gallery = random_maps(2, 128, 24, 8), random_maps(5, 128, 24, 8, seed=1)
        dtype, exact = qaconv.PRECISIONS[precision], plain_values(queries, gallery)
        values = qaconv._BestMatches.apply(queries.flatten(2), gallery.flatten(2), dtype, None)
        assert 0 < (values - exact).abs().max() < error
        model = matcher_of(128, 24, 8, precision=precision)
        model.load_state_dict(QAConvWeights(model))
        assert (model.logits(queries, gallery) - exact.mean(-1)).abs().max() < error / 5

    def test_autocast_leaves_similarities_alone(self):
        model, queries, gallery = matcher_of(), random_maps(2), random_maps(3, seed=1)
        expected = plain_logits(model, queries, gallery)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model.logits(queries, gallery), expected)


def QAConvWeights(model):
    """A fresh state: identity batch norms and the FC's mean."""
    state = {k: torch.zeros_like(v) if k.endswith(("bias", "mean")) else v for k, v in model.state_dict().items()}
    state |= {k: torch.ones_like(v) for k, v in state.items() if k.endswith(("bn.weight", "var"))}
    return state | {"fc.weight": torch.full_like(model.fc.weight, 1 / model.fc.in_features)}


class TestErrors:
    def test_maps_of_different_sizes(self):
        with pytest.raises(ValueError, match=r"queries are \(16, 4, 2\), of the gallery \(16, 6, 2\)"):
            matcher_of().logits(random_maps(1), random_maps(1, h=6))

    def test_fc_of_another_size(self):
        with pytest.raises(ValueError, match=r"maps are \(16, 6, 2\), but the FC was made for \(16, 4, 2\)"):
            matcher_of().logits(random_maps(1, h=6), random_maps(2, h=6))
        here = r"the model's has 16 \(maps of 4 x 2, symmetric=False\): build it with"
        with pytest.raises(ValueError, match=r"FC of 24 numbers \(maps of 6 x 2, symmetric=False\), " + here):
            matcher_of().load_state_dict(matcher_of(h=6).state_dict())
        with pytest.raises(ValueError, match=r"FC of 16 numbers \(maps of 2 x 4, symmetric=False\), " + here):
            matcher_of().load_state_dict(matcher_of(h=2, w=4).state_dict())  # as many, in other places
        with pytest.raises(ValueError, match=r"FC of 16 numbers \(maps of 8 x 2, symmetric=True\), " + here):
            matcher_of().load_state_dict(matcher_of(h=8, symmetric=True).state_dict())
        others = {name: value for name, value in matcher_of().state_dict().items() if name != "layout"}
        model = matcher_of(h=4)
        model.load_state_dict(others)  # of code that does not note the layout: only the number can be compared
        assert model.layout.tolist() == [4, 2, 0]
        with pytest.raises(ValueError, match=r"FC of 16 numbers, the model's has 24"):
            matcher_of(h=6).load_state_dict(others)

    def test_images_of_another_size(self):
        with pytest.raises(ValueError, match=r"\(32, 32\) pixels, but the model was made for \(64, 32\)"):
            QAConv(PIXELS, **SMALL).encode(torch.rand(2, 3, 32, 32))

    def test_nothing_to_score(self):
        with pytest.raises(ValueError, match=r"gallery must be maps .* of at least one image, got \(0, 16, 4, 2\)"):
            matcher_of().score(random_maps(1), random_maps(3)[:0])
        with pytest.raises(ValueError, match="queries must be maps"):
            matcher_of().score(random_maps(1)[0], random_maps(3))

    @pytest.mark.parametrize("label", [-1, 5])
    def test_labels_outside_the_memory(self, label):
        labels = torch.tensor([0, label])
        for trainer in (ClassMemory(matcher_of(), 5), Classifier(PooledMaps(PIXELS, **SMALL), 5)):
            with pytest.raises(ValueError, match=rf"label {label} is outside 0 .. 4"):
                trainer(random_maps(2) if isinstance(trainer, ClassMemory) else torch.rand(2, 3, *PIXELS), labels)

    def test_options(self):
        with pytest.raises(ValueError, match="precision fp32, bf16, fp16"):
            matcher_of(precision="int8")
        with pytest.raises(ValueError, match="chunk >= 1"):
            matcher_of(chunk=0)


class TestNetwork:
    @pytest.mark.parametrize(("name", "total", "height", "giga"), [
        ("resnet152", 44_358_976, 384, 10.71), ("resnet152", 44_358_976, 256, 7.14),
        ("resnet50", 9_723_200, 384, 3.44), ("resnet50", 9_723_200, 256, 2.29),
    ])  # fmt: skip
    def test_parameters(self, name, total, height, giga):
        """The paper's networks: 44.36 M (ResNet-152), neck 1.180 M; the matching itself has 389 at 384 x 128. Billions
        of multiplications with their additions, counted by torch."""
        with torch.device("meta"):
            model = QAConv((height, 128), backbone=name)
            with FlopCounterMode(display=False) as counter:
                model.maps(torch.empty(1, 3, height, 128))
        counts = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
        assert counts["maps"] == total and model.shape == (128, height // 16, 8)
        assert sum(counts.values()) - total == 2 * height // 16 * 8 + 5 == {384: 389, 256: 261}[height]
        neck = sum(p.numel() for m in (model.maps.neck, model.maps.bn) for p in m.parameters())
        assert neck == 1_179_904 and counter.get_total_flops() / 2e9 == pytest.approx(giga, abs=0.006)

    def test_smaller_maps_with_shared_weights(self):
        assert QAConv((384, 128), backbone="squeezenet1_1", symmetric=True).fc.in_features == 23 * 7

    def test_maps_have_unit_length(self):
        model, images = QAConv(PIXELS, **SMALL).eval(), torch.rand(3, 3, *PIXELS)
        maps = model.encode(images)
        assert maps.shape == (3, *model.shape)
        torch.testing.assert_close(maps.norm(dim=1), torch.ones(3, *model.shape[1:]))
        raw = model.maps(images)  # the first release stores these
        torch.testing.assert_close(F.normalize(raw, dim=1), maps)
        assert (raw < 0).any()  # no ReLU behind the neck

    @pytest.mark.parametrize("training", [False, True])
    def test_one_image(self, training):
        model = QAConv(PIXELS, **SMALL).train(training)
        maps = model.encode(torch.rand(1, 3, *PIXELS))
        assert model.logits(maps, random_maps(2, *model.shape)).shape == (1, 2)
        memory = ClassMemory(model, 3).train(training)
        for label in (2, 0, 2):
            loss = memory(torch.rand(1, 3, *PIXELS), torch.tensor([label]))
            assert loss.ndim == 0 and loss.isfinite()
            loss.backward()


class TestCorrespondences:
    def test_a_shifted_map_is_found_again(self):
        """Every position of the query, moved down by one row, is matched to where it went."""
        model, query = matcher_of(), random_maps(1)[0]
        gallery = query.roll(1, dims=1)
        found = model.correspondences(query, gallery)
        cells = torch.cartesian_prod(torch.arange(4), torch.arange(2))
        moved = torch.stack([(cells[:, 0] + 1) % 4, cells[:, 1]], dim=1)
        assert torch.equal(found.query[8:], cells) and torch.equal(found.gallery[8:], moved)
        back = torch.stack([(cells[:, 0] - 1) % 4, cells[:, 1]], dim=1)
        assert torch.equal(found.query[:8], back) and torch.equal(found.gallery[:8], cells)
        torch.testing.assert_close(found.similarity, torch.ones(16))

    def test_they_make_up_the_logit(self):
        model, query, gallery = matcher_of(), random_maps(1), random_maps(1, seed=1)
        found = model.correspondences(query[0], gallery[0])
        total = (found.weight * found.similarity).sum() + found.bias
        torch.testing.assert_close(total, model.logits(query, gallery)[0])
        for k in range(16):
            (i, j), (r, s) = found.query[k].tolist(), found.gallery[k].tolist()
            torch.testing.assert_close(found.similarity[k], query[0, :, i, j] @ gallery[0, :, r, s])


class TestFocal:
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_equals_the_loop(self, gamma):
        """QAConv, Eq. (1) and (2)."""
        logits, positive = 3 * torch.randn(3, 4, dtype=torch.float64), torch.rand(3, 4) < 0.3
        terms = []
        for z, y in zip(logits.flatten().tolist(), positive.flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-z))
            p = p if y else 1 - p
            terms.append(-((1 - p) ** gamma) * math.log(p))
        assert float(focal(logits, positive, gamma=gamma)) == pytest.approx(sum(terms) / 12)
        assert float(focal(logits, positive, gamma=gamma, reduction="sum")) == pytest.approx(sum(terms) / 3)

    def test_gamma_zero_is_cross_entropy(self):
        logits, positive = torch.randn(5, 6), torch.rand(5, 6) < 0.3
        expected = F.binary_cross_entropy_with_logits(logits, positive.float())
        torch.testing.assert_close(focal(logits, positive, gamma=0), expected)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_gradient(self, gamma):
        logits, positive = torch.randn(2, 3, dtype=torch.float64).requires_grad_(), torch.rand(2, 3) < 0.5
        assert torch.autograd.gradcheck(lambda x: focal(x, positive, gamma=gamma), (logits,))
        far = torch.tensor([[-500.0, 500.0]], requires_grad=True)
        focal(far, torch.tensor([[True, True]]), gamma=gamma).backward()
        assert far.grad.isfinite().all() and far.grad[0, 0] < 0

    def test_errors(self):
        for wrong in (dict(gamma=-1), dict(reduction="max")):
            with pytest.raises(ValueError, match="gamma must not be negative and reduction"):
                focal(torch.zeros(1, 2), torch.zeros(1, 2), **wrong)


class TestClassMemory:
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    def test_last_write_wins(self, labels):
        """QAConv, Sec. 3.3: direct assignment."""
        memory, maps, shelf = ClassMemory(matcher_of(), 6), random_maps(12), {}
        for part in (labels[:5], labels[5:]):
            start = 0 if part is labels[:5] else 5
            batch = maps[: len(part)] if start == 0 else maps[5 : 5 + len(part)]
            memory.write(batch, torch.tensor(part, dtype=torch.long))
            shelf |= dict(zip(part, batch, strict=True))
        assert memory.written.nonzero()[:, 0].tolist() == sorted(shelf)
        for label in range(6):
            assert torch.equal(memory.features[label], shelf.get(label, torch.zeros(16, 4, 2)))

    def test_loss_of_the_written_classes(self):
        memory = ClassMemory(matcher_of(), 6).train()
        stored, queries = random_maps(3), random_maps(2, seed=1)
        memory.write(stored, torch.tensor([4, 1, 2]))
        loss = memory.loss(queries, torch.tensor([2, 5]))  # 5 has nothing stored: negatives only
        logits = plain_logits(matcher_of().train(), queries, stored[[1, 2, 0]])  # classes 1, 2, 4
        positive = torch.tensor([[False, True, False], [False, False, False]])
        torch.testing.assert_close(loss, focal(logits, positive))

    def test_first_release_lets_zeros_take_part(self):
        memory = ClassMemory(matcher_of(), 4, mask_unwritten=False, reduction="sum").train()
        stored, queries = random_maps(1), random_maps(2, seed=1)
        memory.write(stored, torch.tensor([2]))
        every = torch.zeros(4, 16, 4, 2)
        every[2] = stored
        expected = focal(
            plain_logits(matcher_of().train(), queries, every), torch.eye(4)[[2, 0]].bool(), reduction="sum"
        )
        torch.testing.assert_close(memory.loss(queries, torch.tensor([2, 0])), expected)

    def test_gradient_through_the_batch_only(self):
        memory = ClassMemory(matcher_of(), 3).train()
        before, now = (random_maps(2, seed=s).requires_grad_() for s in (0, 1))
        memory.write(before, torch.tensor([0, 1]))
        assert not memory.features.requires_grad
        loss = memory.loss(now, torch.tensor([0, 2]))
        memory.write(now, torch.tensor([0, 2]))  # before backward, as in training: must not disturb it
        loss.backward()
        assert before.grad is None and now.grad.abs().sum() > 0
        again = random_maps(2, seed=1).requires_grad_()
        focal(
            plain_logits(matcher_of().train(), again, before.detach()), torch.tensor([[True, False], [False, False]])
        ).backward()
        torch.testing.assert_close(now.grad, again.grad, rtol=1e-4, atol=1e-6)

    def test_update_comes_after_the_loss(self):
        memory = ClassMemory(matcher_of(), 3).train()
        first, second = random_maps(2), random_maps(2, seed=1)
        labels = torch.tensor([0, 1])
        assert memory(first, labels) == 0  # nothing stored yet
        torch.testing.assert_close(memory.features[:2], F.normalize(first, dim=1))
        other = ClassMemory(matcher_of(), 3).train()
        other.write(first, labels)
        torch.testing.assert_close(memory(second, labels), other.loss(second, labels))

    def test_travels_with_the_checkpoint(self):
        memory, other = (ClassMemory(matcher_of(seed=s), 3) for s in (0, 1))
        memory.write(random_maps(2), torch.tensor([0, 2]))
        other.load_state_dict(memory.state_dict())
        queries, labels = random_maps(2, seed=1), torch.tensor([0, 1])
        torch.testing.assert_close(other.loss(queries, labels), memory.loss(queries, labels))

    def test_training_tells_two_patterns_apart(self):
        """Red above blue and blue above red have the same colours: only where they are differs."""
        images = torch.rand(16, 3, *PIXELS) * 0.3
        labels = torch.arange(16) % 2
        for k, label in enumerate(labels.tolist()):
            images[k, 0, :32] += 0.7 * label
            images[k, 0, 32:] += 0.7 * (1 - label)
        memory = ClassMemory(QAConv(PIXELS, **SMALL), 2)
        config = TrainConfig(steps=12, lr=0.01, precision="fp32")
        history = fit(memory, lambda *_: (images, labels), lambda m, batch: m(*batch), config, progress=False)
        assert history.losses[0] == 0  # nothing to compare with yet
        assert history.losses[1:] == sorted(history.losses[1:], reverse=True)
        matcher = memory.matcher.eval()
        with torch.no_grad():
            maps = matcher.encode(images)
        scores = matcher.score(maps, maps)
        same = labels[:, None] == labels
        assert scores[same].min() > scores[~same].max()


class TestBaselines:
    def test_pooled_maps(self):
        model = PooledMaps(PIXELS, **SMALL).eval()
        images = torch.rand(3, 3, *PIXELS)
        vectors = model.encode(images)
        assert vectors.shape == (3, 16)
        torch.testing.assert_close(vectors, model.maps(images).flatten(2).mean(2))
        torch.testing.assert_close(model.score(vectors, vectors).diag(), torch.ones(3))

    def test_cosine_class_memory(self):
        memory = ClassMemory(PooledMaps(PIXELS, **SMALL), 3).train()
        stored, queries, labels = torch.randn(3, 16), torch.randn(2, 16), torch.tensor([2, 0])
        memory.write(stored, torch.tensor([0, 1, 2]))
        cosine = F.cosine_similarity(queries[:, None], stored, dim=2)
        logits = (cosine - cosine.mean()) / (cosine.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(memory.loss(queries, labels), focal(logits, torch.eye(3)[labels].bool()))

    @pytest.mark.parametrize("scale", [2.0, -2.0])
    @pytest.mark.parametrize("training", [False, True])
    def test_a_larger_cosine_is_a_larger_logit(self, scale, training):
        model = PooledMaps(PIXELS, **SMALL).train(training)
        torch.nn.init.constant_(model.logit_bn.weight, scale)
        vectors = torch.randn(5, 16)
        order = model.cosine(vectors, vectors).flatten().argsort()
        assert (model.logits(vectors, vectors).flatten()[order].diff() >= 0).all()
        assert (model.logit_bn.running_var != 1) == training

    def test_softmax_and_centre_loss(self):
        images, labels = torch.rand(4, 3, *PIXELS), torch.tensor([1, 1, 0, 1])
        model = Classifier(PooledMaps(PIXELS, **SMALL), 3, center=0.1).train()
        model.centers.copy_(torch.randn(3, 16))
        old = model.centers.clone()
        features = model.matcher.encode(images).detach()
        plain = F.cross_entropy(features @ model.linear.weight.T + model.linear.bias, labels)
        apart = sum(0.5 * (features[i] - old[y]).square().sum() for i, y in enumerate(labels.tolist())) / 4
        torch.testing.assert_close(model(images, labels), plain + 0.1 * apart)
        for label in range(3):
            mine = [i for i, y in enumerate(labels.tolist()) if y == label]
            offset = sum((old[label] - features[i] for i in mine), torch.zeros(16)) / (1 + len(mine))
            torch.testing.assert_close(model.centers[label], old[label] - 0.5 * offset)
        model.eval()(images, labels)
        softmax = Classifier(model.matcher, 3)
        softmax.linear = model.linear
        torch.testing.assert_close(softmax.train()(images, labels), plain)
        assert not softmax.centers.any()


KERNEL = """
import torch
from cdimlib.models import qaconv_gpu
from cdimlib.models.qaconv import _folded_logits
for d, hw, n_queries, n_gallery, per_program in ((16, 6, 2, 3, 2), (16, 64, 1, 1, 32), (32, 70, 1, 2, 1)):
    queries, gallery, weight = torch.randn(n_queries, d, hw), torch.randn(n_gallery, d, hw), torch.randn(2 * hw)
    every, bias = torch.einsum("qcp,gcr->qgpr", queries, gallery), torch.randn(1)
    plain = torch.cat([every.amax(2), every.amax(3)], dim=-1) @ weight + bias
    fused = qaconv_gpu.fused_logits(queries, gallery, weight, bias, per_program=per_program)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)
    assert per_program < 32 or torch.equal(_folded_logits(queries, gallery, weight, bias, torch.float32, None), fused)
print("equal")
"""


class TestKernel:
    def test_equals_the_plain_version(self, root):
        """The kernel in Triton's interpreter, on the CPU; positions fill no tile, one tile, a tile and a bit."""
        if qaconv_gpu.triton is None:
            pytest.skip("Triton is not installed")
        env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", KERNEL], env=env, capture_output=True, text=True,
                              cwd=root)  # fmt: skip
        assert done.returncode == 0 and done.stdout.endswith("equal\n"), done.stderr

    def test_without_triton(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "triton", None)
        spec = importlib.util.spec_from_file_location("cdimlib.models.qaconv_gpu_bare", qaconv_gpu.__file__)
        bare = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(bare)
        assert bare.triton is None and not bare.usable(torch.zeros(1, 16, 4))

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the fused kernel runs on CUDA devices only")
    def test_on_a_gpu(self):
        model = matcher_of(128, 24, 8, precision="fp16").cuda()
        queries, gallery = random_maps(3, 128, 24, 8).cuda(), random_maps(70, 128, 24, 8, seed=1).cuda()
        assert qaconv_gpu.usable(queries.flatten(2).half())
        expected = plain_logits(model, queries.half().float(), gallery.half().float())
        torch.testing.assert_close(model.logits(queries, gallery), expected, rtol=1e-3, atol=1e-3)


class TestRandomBlock:
    @pytest.mark.parametrize("pixels", [(384, 128), (40, 20), (9, 3)])
    def test_one_white_square_inside(self, pixels):
        height, width = pixels
        images = torch.randint(0, 255, (64, 3, height, width), dtype=torch.uint8)
        out = random_block(images, torch.Generator().manual_seed(0))
        sides = []
        for before, after in zip(images, out, strict=True):
            white = (after == 255).all(0)
            assert torch.equal(torch.where(white, before, after), before)  # nothing else changed
            rows, columns = white.any(1).nonzero()[:, 0], white.any(0).nonzero()[:, 0]
            side = int(rows[-1] - rows[0]) + 1
            assert side == int(columns[-1] - columns[0]) + 1 and white.sum() == side**2
            sides.append(side)
        assert min(sides) >= 1 and max(sides) <= max(1, int(0.8 * width) - 1)
        assert len(set(sides)) > min(10, width // 2 - 1) and out.dtype == torch.uint8

    def test_every_side_and_both_corners(self):
        out = random_block(torch.zeros(3000, 3, 8, 5, dtype=torch.uint8), torch.Generator().manual_seed(1))
        white = out[:, 0] == 255
        assert set(white.flatten(1).sum(1).tolist()) == {1, 4, 9}  # int(0.8 * 5) - 1 = 3
        assert white.any(0).all()  # every pixel is reached
        again = random_block(torch.zeros(3000, 3, 8, 5, dtype=torch.uint8), torch.Generator().manual_seed(1))
        assert torch.equal(out, again)


def test_local_maps_stop_at_their_tap():
    maps = LocalMaps(PIXELS, backbone="resnet18")
    assert maps.shape == (128, 4, 2) and list(maps.backbone.layers)[-1] == "res4b"
