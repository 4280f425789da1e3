"""Multi-level similarity: loops written from the paper, shapes and costs of its tables, bounds of its windows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cdimlib.data import Split
from cdimlib.data.augment import shift_or_flip
from cdimlib.data.samplers import CrossViewPairSampler
from cdimlib.losses import contrastive
from cdimlib.models.correlation import correlate, halve
from cdimlib.models.csn import (
    PART_SIZES,
    VARIANTS,
    ConvSimilarityNet,
    complexity,
    pair_objective,
    part_sizes,
    simi_score,
)
from cdimlib.models.stn import INITIAL_SCALE, CentreCrop, PartSTN, bounded_transform, sample, stripes
from cdimlib.results import paper_table
from cdimlib.retrieval import encode, similarity
from cdimlib.training import TrainConfig, fit

SMALL = (80, 40)
PAPER = "multilevel-similarity"


def shake(net):
    """Random biases and localisation and the batch-norm statistics of a few pairs, so that a forgotten term shows."""
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.ndim == 1 or "localise.5" in name:
                value.add_(0.2 * torch.randn(value.shape))
        for module in net.modules():
            module.momentum = 1.0  # the last batch's statistics
        net.train().compare(people(3, net.size), people(3, net.size))
    return net.eval()


def slide_by_loop(signal, part):
    """One part [f, f] slid over one map [H, W], zeros around it, the extra one of an even f behind."""
    f = part.shape[-1]
    padded = F.pad(signal, [(f - 1) // 2, f // 2] * 2)
    return F.conv2d(padded[None, None], part[None, None])[0, 0]


def people(count, size=SMALL):
    return torch.randn(count, 3, *size)


class TestCorrelate:
    @pytest.mark.parametrize(("height", "width", "f"), [(6, 5, 4), (5, 4, 3), (4, 5, 2), (3, 3, 1)])
    def test_equals_the_loop(self, height, width, f):
        """Multilevel-similarity, Eq. (2): every cell, part and channel written out; even filters pad less before."""
        maps, parts = torch.randn(2, 2, height, width), torch.randn(2, 3, 2, f, f)
        expected = torch.zeros(2, 3, 2, height, width)
        for p, k, c, y, x in np.ndindex(2, 3, 2, height, width):
            for dy, dx in np.ndindex(f, f):
                row, column = y + dy - (f - 1) // 2, x + dx - (f - 1) // 2
                if 0 <= row < height and 0 <= column < width:
                    expected[p, k, c, y, x] += maps[p, c, row, column] * parts[p, k, c, dy, dx]
        for chunk in (None, 1, 2):
            torch.testing.assert_close(correlate(maps, parts, chunk=chunk), expected.flatten(1, 2))

    def test_even_filters_pad_four_before_and_five_behind(self):
        maps, parts = torch.zeros(1, 1, 40, 15), torch.zeros(1, 1, 1, 10, 10)
        maps[0, 0, 20, 7] = parts[0, 0, 0, 0, 9] = 1
        assert correlate(maps, parts)[0, 0].nonzero().tolist() == [[24, 2]]  # 20 = 24 + 0 - 4 and 7 = 2 + 9 - 4

    @pytest.mark.parametrize(("height", "width", "f"), [(5, 4, 4), (4, 5, 3), (4, 3, 2)])
    def test_gradients(self, height, width, f):
        maps = torch.randn(3, 2, height, width, dtype=torch.float64, requires_grad=True)
        parts = torch.randn(3, 2, 2, f, f, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda m, p: correlate(m, p, chunk=2), (maps, parts))

    def test_finds_a_part_wherever_it_went(self):
        maps = torch.zeros(1, 1, 12, 9)
        part = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
        maps[0, 0, 7:10, 2:5] = part
        assert correlate(maps, part.view(1, 1, 1, 3, 3)).flatten().argmax() == 8 * 9 + 3


class TestAttention:
    @given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
    def test_no_corner_leaves_the_map(self, raw):
        """Multilevel-similarity, Eq. (1): whatever the localisation net says."""
        transform = bounded_transform(torch.tensor(raw, dtype=torch.float64))
        corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)], dtype=torch.float64)
        assert (corners @ transform.T).abs().max() <= 1 + 1e-12
        assert transform[0, 0] >= 0 and transform[1, 1] >= 0

    def test_identity(self):
        maps = torch.randn(2, 3, 10, 10)
        transform = bounded_transform(torch.tensor([1.0, 0.3, -0.8, 1, 0.1, 0.2])).expand(2, 2, 3)
        assert transform[0].tolist() == [[1, 0, 0], [0, 1, 0]]  # full scale leaves room for nothing else
        torch.testing.assert_close(sample(maps, transform, 10), maps, rtol=1e-4, atol=1e-5)

    def test_sample_equals_bilinear_by_hand(self):
        maps, transform = torch.randn(1, 1, 7, 5), bounded_transform(torch.tensor([[0.1, 0.5, -0.4, -0.2, 0.3, 0.9]]))
        out = sample(maps, transform, 4)[0, 0]
        for i, j in np.ndindex(4, 4):
            x, y = (transform[0] @ torch.tensor([(2 * j + 1) / 4 - 1, (2 * i + 1) / 4 - 1, 1.0])).tolist()
            column, row = (x + 1) * 5 / 2 - 0.5, (y + 1) * 7 / 2 - 0.5  # cell centres
            left, top = int(np.floor(column)), int(np.floor(row))
            value = 0.0
            for r, c in np.ndindex(2, 2):
                weight = abs(1 - r - (row - top)) * abs(1 - c - (column - left))
                value += weight * maps[0, 0, min(max(top + r, 0), 6), min(max(left + c, 0), 4)].item()
            assert out[i, j].item() == pytest.approx(value, abs=1e-5)

    def test_begins_in_the_middle_at_one_scale(self):
        part, transform = PartSTN(96, 5)(torch.randn(4, 96, 10, 8))
        start = torch.tensor([[INITIAL_SCALE, 0, 0], [0, INITIAL_SCALE, 0]])
        torch.testing.assert_close(transform, start.expand(4, 2, 3))
        assert part.shape == (4, 96, 5, 5)

    def test_localisation_learns(self):
        stn = PartSTN(96, 5)
        stn(torch.randn(4, 96, 10, 8))[0].square().sum().backward()
        assert stn.localise[-2].weight.grad.abs().sum() > 0

    def test_stripes_of_the_paper(self):
        rows = torch.arange(40.0).view(1, 1, 40, 1)
        for height, expected in ((40, [(0, 19), (10, 29), (20, 39)]), (20, [(0, 9), (5, 14), (10, 19)])):
            ends = stripes(rows[:, :, :height])[0, :, 0, [0, -1], 0]
            assert [tuple(pair) for pair in ends.tolist()] == expected

    def test_centre_crop_is_the_window_it_names(self):
        """With an even number of cells to spare the samples fall on the cells themselves."""
        maps = torch.randn(2, 3, 20, 14)
        part, transform = CentreCrop(10)(maps)
        assert torch.equal(part, maps[:, :, 5:15, 2:12])
        torch.testing.assert_close(sample(maps, transform, 10), part, rtol=1e-4, atol=1e-5)
        part, transform = CentreCrop(10)(maps[..., :13])
        torch.testing.assert_close(sample(maps[..., :13], transform, 10), part, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("shape", [(2, 3, 8, 6), (1, 2, 7, 5), (3, 1, 1, 4), (40, 15), (1, 1, 3, 1)])
    def test_halve(self, shape):
        """Values and gradient of torch's own pool, which rounds odd sides up when asked to."""
        x = torch.randn(shape, requires_grad=True)
        pooled = F.max_pool2d(x.view(1, -1, *shape[-2:]), 2, ceil_mode=True).view(*shape[:-2], *halve(x).shape[-2:])
        assert torch.equal(halve(x), pooled)
        weight = torch.randn(pooled.shape)
        torch.testing.assert_close(*(torch.autograd.grad((out * weight).sum(), x)[0] for out in (halve(x), pooled)))


class TestNet:
    def test_shapes_of_the_paper(self):
        """The maps of Sec. 3.1 at 160 x 60; width 15 is halved to 8."""
        net, seen = ConvSimilarityNet().eval(), {}
        for name, module in [*net.trunk.items(), *((f"decide{i}", m) for i, m in enumerate(net.decide))]:
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: tuple(out.shape[1:])}))
        with torch.no_grad():
            rows = net.encode(people(1, (160, 60)))
            sims = net.similarity_maps(rows, rows)
            net.logits(rows, rows)
        assert [seen[n] for n in "123"] == [(32, 80, 30), (96, 40, 15), (96, 20, 8)]
        assert {level: tuple(sim.shape[1:]) for level, sim in sims.items()} == {2: (576, 20, 8), 3: (576, 20, 8)}
        assert net.decide[0][0].in_channels == 1152
        assert [seen[f"decide{i}"] for i in (0, 1, 2, 5)] == [(32, 20, 8), (32, 10, 4), (500, 10, 4), (2,)]
        levels, vector = net.unpack(rows)
        assert levels[2].parts.shape == (1, 3, 96, 10, 10) and levels[3].parts.shape == (1, 3, 96, 5, 5)
        assert vector.shape == (1, 256) and vector.norm().item() == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_cached_equals_naive(self, variant):
        """Multilevel-similarity, Eq. (7): images encoded once give the scores of pairs of images."""
        net = shake(ConvSimilarityNet.variant(variant, size=SMALL))
        queries, gallery = people(2), people(3)
        with torch.no_grad():
            naive = torch.stack([net.compare(q.expand(3, -1, -1, -1), gallery) for q in queries])
            rows = [net.encode(queries), net.encode(gallery)]
            for chunk in (1, 4, 100):
                torch.testing.assert_close(net.score(*rows, chunk=chunk), naive, rtol=1e-5, atol=1e-5)
        assert naive.shape == (2, 3) and naive.std() > 1e-4
        assert rows[0].shape == (2, net.dimension)

    def test_one_image_and_one_pair(self):
        net = shake(ConvSimilarityNet(size=SMALL))
        images = people(4)
        with torch.no_grad():
            whole = net.encode(images)
            torch.testing.assert_close(net.encode(images[2:3]), whole[2:3], rtol=1e-4, atol=1e-4)
            alone = net.score(whole[:1], whole[2:3])
            torch.testing.assert_close(alone, net.score(whole, whole)[:1, 2:3], rtol=1e-4, atol=1e-4)

    def test_one_pair_to_learn_from(self):
        """Two images, one pair: batch statistics come from the maps' cells, gradients are finite."""
        net = shake(ConvSimilarityNet(size=SMALL)).train()
        first, second = torch.tensor([0]), torch.tensor([1])
        pair_objective(net, (people(2), first, second, torch.tensor([True]))).backward()
        gradients = [p.grad for p in net.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert any(g.abs().max() > 0 for g in gradients)

    def test_goes_through_the_search(self):
        net = shake(ConvSimilarityNet((3,), size=SMALL)).train()
        images = torch.randint(256, (5, 3, *SMALL), dtype=torch.uint8)
        rows = encode(net, images, lambda x: x / 255, batch_size=2)
        scores = similarity(net, rows[:2], rows[2:], chunk=2)
        assert scores.shape == (2, 3) and net.training

    @pytest.mark.parametrize(("size", "sides"), [((160, 60), PART_SIZES), ((96, 36), {2: 6, 3: 3, 4: 3}),
                                                 ((48, 24), {2: 3, 3: 2, 4: 2})])  # fmt: skip
    def test_parts_shrink_with_the_image(self, size, sides):
        net = ConvSimilarityNet((2, 3, 4), size=size, part_sizes=part_sizes(size)).eval()
        with torch.no_grad():
            levels, _ = net.unpack(net.encode(people(2, size)))
            assert net.score(*2 * [net.encode(people(2, size))]).shape == (2, 2)
        assert {level: part.parts.shape[-1] for level, part in levels.items()} == sides == part_sizes(size)

    def test_similarity_maps_are_ordered_as_said(self):
        net = shake(ConvSimilarityNet((3,), size=SMALL))
        with torch.no_grad():
            a, b = net.encode(people(1)), net.encode(people(1))
            sims, (one, _), (other, _) = net.similarity_maps(a, b)[3], net.unpack(a), net.unpack(b)
            middle = correlate(one[3].maps, other[3].parts[:, 1:2])  # the middle part of the second over the first
            torch.testing.assert_close(sims[:, 96:192], middle)
            swapped = net.similarity_maps(b, a)[3]
        assert torch.equal(swapped[:, :288], sims[:, 288:])

    @pytest.mark.parametrize("levels", [(2,), (2, 3), (2, 3, 4)])
    def test_pair_part_written_out(self, levels):
        """Every pair, level, direction, part and channel by a convolution of its own; maps of twice the last level's
        size through torch's 2x2 max-pool; then everything before conv4. Multilevel-similarity, Sec. 3.1."""
        net = shake(ConvSimilarityNet(levels, size=SMALL))
        with torch.no_grad():
            rows = [net.encode(people(2)), net.encode(people(2))]
            (one, _), (other, _) = (net.unpack(side) for side in rows)
            stacks = []
            for pair in range(2):
                groups = []
                for level in levels:
                    for maps, parts in ((one[level].maps, other[level].parts), (other[level].maps, one[level].parts)):
                        for part in parts[pair]:
                            answers = [slide_by_loop(maps[pair, c], part[c]) for c in range(96)]
                            if tuple(maps.shape[2:]) == (20, 10):  # level 2, and 3 ahead of a pooled level 4
                                answers = [F.max_pool2d(x[None, None], 2, ceil_mode=True)[0, 0] for x in answers]
                            groups += answers
                stacks.append(torch.stack(groups))
            stack = torch.stack(stacks)
            assert stack.shape == (2, 576 * len(levels), 10, 5)
            torch.testing.assert_close(net.logits(*rows), net.decide(stack), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(torch.cat(list(net.similarity_maps(*rows).values()), 1), stack,
                                       rtol=1e-4, atol=1e-4)  # fmt: skip

    @pytest.mark.parametrize("levels", [(3,), (2, 3)])
    def test_ranking_net_written_out(self, levels):
        """A convolution with pool for each level, the three parts stacked from top to bottom (15 x 5 and 9 x 3 for
        parts of 10 and 5), a shared convolution, the average. Multilevel-similarity, Sec. 3.1."""
        net = shake(ConvSimilarityNet(levels, size=(160, 60))).ranking
        parts = {level: torch.randn(2, 3, 96, PART_SIZES[level], PART_SIZES[level]) for level in levels}

        def convolve(block, x, pool):
            x = F.conv2d(x, block[0].weight, block[0].bias, padding=1)
            x = F.batch_norm(x, block[1].running_mean, block[1].running_var, block[1].weight, block[1].bias)
            return F.max_pool2d(x.relu(), 2, ceil_mode=True) if pool else x.relu()

        with torch.no_grad():
            means = []
            for level in levels:
                tops = [convolve(net.first[str(level)], parts[level][:, k], pool=True) for k in range(3)]
                tall = torch.cat(tops, dim=2)
                assert tall.shape[2:] == {2: (15, 5), 3: (9, 3)}[level]
                means.append(convolve(net.second, tall, pool=False).mean(dim=(2, 3)))
            expected = F.normalize(F.linear(torch.cat(means, 1), net.linear.weight, net.linear.bias), dim=1)
            torch.testing.assert_close(net(parts), expected, rtol=1e-4, atol=1e-5)

    def test_without_contrastive_loss_the_score_is_a_probability(self):
        net = shake(ConvSimilarityNet.variant("cls", size=SMALL))
        with torch.no_grad():
            scores = net.score(*2 * [net.encode(people(3))])
        assert net.ranking is None and (scores > 0).all() and (scores < 1).all()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (lambda: ConvSimilarityNet.variant("L5"), "unknown variant 'L5': choose from 'L2', .*'C4'"),
            (lambda: ConvSimilarityNet((3, 2)), r"levels must be some of 2, 3, 4 in this order, not \(3, 2\)"),
            (lambda: ConvSimilarityNet((1, 2)), r"levels must be some of 2, 3, 4"),
            (lambda: ConvSimilarityNet(()), r"levels must be some of 2, 3, 4"),
            (lambda: ConvSimilarityNet(parts="pose"), "parts must be 'stn', 'whole' or 'centre', not 'pose'"),
            (lambda: ConvSimilarityNet(size=(64, 40)), "64 x 40 are too small: at level 2 half the map is 8 x"),
            (lambda: ConvSimilarityNet().encode(people(2)), r"\[2, 3, 80, 40\].*\[N, 3, 160, 60\].*size="),
            (lambda: ConvSimilarityNet().encode(torch.zeros(1, 1, 160, 60)), r"images are \[1, 1, 160, 60\]"),
            (lambda: ConvSimilarityNet((3,)).score(torch.zeros(1, 7), torch.zeros(1, 7)), "features have 7 numbers"),
            (lambda: ConvSimilarityNet().score(torch.zeros(0, 7), torch.zeros(1, 7)), "nothing to score: 0 queries"),
            (lambda: ConvSimilarityNet().score(torch.zeros(1, 7), torch.zeros(0, 7)), "1 queries, 0 gallery images"),
        ],
    )
    def test_errors(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            wrong()


class TestScore:
    def test_order(self):
        """Multilevel-similarity, Eq. (7): more probable is better, nearer is better, and near beats probable."""
        p, d = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.05, 0.5, 1.4])
        table = simi_score(p[:, None], d[None, :])
        assert (table.diff(dim=0) > 0).all() and (table.diff(dim=1) < 0).all()
        assert simi_score(torch.tensor(0.0), torch.tensor(0.1)) > simi_score(torch.tensor(1.0), torch.tensor(0.5))
        assert simi_score(torch.tensor(0.0), torch.tensor(0.0)).item() == pytest.approx(2000, rel=1e-4)

    def test_contrastive_by_hand(self):
        """Multilevel-similarity, Eq. (4) and (5): pairs at distances 0.6 (match), 0.6 and 2 (mismatches)."""
        first, second = torch.zeros(3, 2), torch.tensor([[0.6, 0.0], [0.0, 0.6], [2.0, 0.0]])
        loss = contrastive(first, second, torch.tensor([True, False, False]))
        assert loss.item() == pytest.approx((0.36 + 0.16 + 0) / 6)
        with pytest.raises(ValueError, match="margin"):
            contrastive(first, second, torch.zeros(3), margin=0)

    @pytest.mark.parametrize("match", [True, False])
    def test_gradient_at_distance_zero(self, match):
        vectors = torch.ones(2, 4, requires_grad=True)
        contrastive(vectors, vectors.detach().clone(), torch.tensor([match, match])).backward()
        assert torch.isfinite(vectors.grad).all()


class TestComplexity:
    def test_parameters_of_table_1(self):
        """Layer by layer, without batch normalisation."""
        net = ConvSimilarityNet(batch_norm=False)
        count = lambda *modules: sum(p.numel() for m in modules for p in m.parameters())  # noqa: E731
        assert [count(net.trunk[n]) for n in "123"] == [2_432, 27_744, 83_040]
        assert [count(net.attend[n]) for n in "23"] == [41_926, 41_926]
        assert [count(net.decide[i]) for i in (0, 1, 2, 5)] == [36_896, 9_248, 16_500, 1_002]
        assert count(net.ranking) == 3 * 83_040 + 49_408
        assert count(net) == complexity("L2,L3").plain == 559_242

    def test_table_5(self):
        """Multilevel-similarity, Table 5: 0.5 M and 0.96 G printed for two levels, 0.8 M and 1.31 G for three."""
        table = paper_table(PAPER, 5).set_index(["method", "metric"])["value"].astype(float)
        for variant, method, slack in (("L2,L3", "Ours-(L2, L3)", 0.02), ("L2,L3,L4", "Ours-(L2, L3, L4)", 0.005)):
            cost = complexity(variant)
            printed = table[method, "parameters (M)"]
            assert printed - 0.01 <= cost.plain / 1e6 < printed + 0.1  # 0.559 is printed as 0.5: cut, not rounded
            assert cost.flops / 1e9 == pytest.approx(table[method, "FLOPs (G)"], abs=slack)
        assert complexity("L2,L3,L4", early_pool=True).flops / 1e9 == pytest.approx(1.07, abs=0.005)

    def test_parts_of_the_cost(self):
        cost = complexity("L2,L3")
        assert cost.flops == 2 * cost.flops_image + cost.flops_pair
        correlations = 2 * 6 * 96 * (40 * 15 * 10**2 + 20 * 8 * 5**2)
        decision = 2 * (160 * 1152 * 32 + 160 * 9 * 32 * 32 + 40 * 32 * 500 + 500 * 2)
        assert cost.flops_pair == correlations + decision
        assert complexity("cls").flops_image < cost.flops_image

    def test_accuracies_are_means_of_twenty_runs_of_a_hundred_queries(self):
        """Every number on CUHK03 and CUHK01 is a multiple of 0.05, but one, which no 20 x 100 queries can give."""
        table = paper_table(PAPER)
        ours = table[table["method"].str.match("Ours|C[1-4]") & table["dataset"].str.match("cuhk")]
        assert len(ours) == 2 * 9 + 18 + 12
        odd = ours[[round(100 * float(v)) % 5 != 0 for v in ours["value"]]]
        assert [(r.table, r.method, r.metric, r.value) for r in odd.itertuples()] == [(3, "Ours-L2", "acc@5", 93.52)]


def views(identities=8, cams=2, images=2):
    """Noise with a mark that only one identity has: its place."""
    ids = np.repeat(np.arange(identities), cams * images)
    cameras = np.tile(np.repeat(np.arange(cams), images), identities)
    pixels = torch.randint(60, (len(ids), 3, *SMALL), dtype=torch.uint8)
    for i, identity in enumerate(ids):
        pixels[i, identity % 3, 10 * (identity // 2) : 10 * (identity // 2) + 10, 10 : 30] = 250
    return Split(pixels, ids, cameras)


class TestTraining:
    def test_sampler(self):
        split = views()
        sampler = CrossViewPairSampler(split, pairs=17, negatives=2)
        seen = set()
        for step in range(40):
            index, first, second, match = sampler(3, step)
            a, b = index[first], index[second]
            assert len(match) == sampler.pairs == 15 and match.sum() == 5 and len(index) == 10
            assert ((split.ids[a] == split.ids[b]) == match).all()
            assert (split.cams[a] != split.cams[b])[match].all()
            assert len(set(split.ids[a])) == 5  # every identity once
            seen |= set(index)
        assert seen == set(range(len(split)))
        assert sampler.steps_per_epoch == -(-8 * 4 // 5)
        again, other = CrossViewPairSampler(split, pairs=17)(3, 7), sampler(4, 7)
        assert all(np.array_equal(x, y) for x, y in zip(sampler(3, 7), again))
        assert not np.array_equal(sampler(3, 7)[0], other[0])

    def test_sampler_of_few(self):
        split = views(3)
        assert len(CrossViewPairSampler(split, pairs=30)(0, 0)[3]) == 9
        plain = Split(split.images, split.ids)  # no cameras: any two images of one identity
        index, first, second, match = CrossViewPairSampler(plain, pairs=6, negatives=1)(0, 0)
        assert (index[first] != index[second]).all() and match.tolist() == [True, False] * 3
        with pytest.raises(ValueError, match="0 identities were seen by two cameras"):
            CrossViewPairSampler(split.where(split.cams == 0))
        with pytest.raises(ValueError, match="negatives"):
            CrossViewPairSampler(split, pairs=5, negatives=2)

    def test_shift_or_flip(self):
        images = torch.randint(256, (60, 3, 20, 40), dtype=torch.uint8)
        out = shift_or_flip(images, torch.Generator().manual_seed(0))
        kinds = {"same": 0, "mirrored": 0, "shifted": 0}
        for image, new in zip(images, out):
            padded = F.pad(image.float(), (2, 2, 1, 1), mode="replicate").byte()
            moves = [padded[:, 1 + dy : 21 + dy, 2 + dx : 42 + dx] for dy in (-1, 0, 1) for dx in range(-2, 3)]
            kind = "same" if torch.equal(image, new) else "mirrored" if torch.equal(image.flip(-1), new) else "shifted"
            assert kind != "shifted" or any(torch.equal(new, move) for move in moves)
            kinds[kind] += 1
        assert kinds["mirrored"] > 5 and kinds["same"] > 5 and kinds["shifted"] > 20
        assert out.dtype == torch.uint8

    def test_objective_by_hand(self):
        """Multilevel-similarity, Eq. (3) and (6): with Eq. (3)'s logarithm put back."""
        net = shake(ConvSimilarityNet(size=SMALL))
        images, first, second = people(4), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3])
        match = torch.tensor([True, False, False])
        loss = pair_objective(net, (images, first, second, match), rotation=0.5)
        with torch.no_grad():
            rows = net.encode(images)
            p = net.logits(rows[first], rows[second]).softmax(1)
            cls = -torch.log(torch.where(match, p[:, 1], p[:, 0])).mean()
            levels, r = net.unpack(rows)
            d = (r[first] - r[second]).norm(dim=1)
            ctr = (d[0] ** 2 + (1 - d[1:]).clamp(min=0).square().sum()) / 6
            turns = [level.transforms for level in levels.values()]
            turn = sum(t[..., 0, 1].abs().mean() + t[..., 1, 0].abs().mean() for t in turns)
        assert turn > 1e-3
        assert loss.item() == pytest.approx((cls + ctr + 0.5 * turn / 2).item(), rel=1e-4)

    def test_half_precision(self):
        """Mixed precision changes the loss and the gradients by its rounding only."""
        net = shake(ConvSimilarityNet((3,), size=SMALL))
        batch = people(3), torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([True, False])
        results = []
        for on in (False, True):
            net.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=on):
                loss = pair_objective(net, batch)
            loss.backward()
            results.append((loss.item(), net.trunk["2"][0].weight.grad.flatten().clone()))
        assert results[1][0] == pytest.approx(results[0][0], rel=0.1)
        assert torch.cosine_similarity(results[0][1], results[1][1], dim=0) > 0.9

    def test_learns(self):
        """A few steps teach a small variant to tell marks apart that it has seen."""
        split = views()
        net = ConvSimilarityNet((3,), size=SMALL)
        sampler = CrossViewPairSampler(split, pairs=24)

        def batches(seed, step):
            index, *pairs = sampler(seed, step)
            return split.images[index].float() / 255, *map(torch.as_tensor, pairs)

        history = fit(net, batches, pair_objective, TrainConfig(16, lr=2e-3, optimizer="adamw"), progress=False)
        assert np.mean(history.losses[-4:]) < 0.7 * np.mean(history.losses[:4])
        net.eval()
        query, gallery = (encode(net, split.where(split.cams == cam).images, lambda x: x / 255) for cam in (0, 1))
        best = similarity(net, query, gallery).argmax(dim=1)
        assert (split.ids[split.cams == 1][best] == split.ids[split.cams == 0]).mean() > 0.5


def test_equation_keys_are_in_the_docstrings():
    """Equations 1 to 7, each at the end of the function that implements it."""
    import cdimlib.losses as losses
    import cdimlib.models.correlation as correlation
    import cdimlib.models.csn as csn
    import cdimlib.models.stn as stn

    keys = set()
    for module in (losses, correlation, csn, stn):
        for part in re.findall(r"Multilevel-similarity, Eq\.([^.]*)", Path(module.__file__).read_text()):
            keys |= set(re.findall(r"\((\d)\)", part))
    assert keys == set("1234567")
