"""Losses against loops over plain floats, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from cdimlib.losses import contrastive, euclidean, focal, in_batch_contrastive, ranking_hinge, triplet


def features(*shape, seed=0, requires_grad=False):
    values = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_(requires_grad)


def distance(a, b, squared):
    square = sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return square if squared else math.sqrt(square)


@pytest.mark.parametrize("squared", [False, True])
class TestEuclidean:
    def test_equals_the_loop(self, squared):
        a, b = features(6, 5), features(6, 5, seed=1)
        expected = [distance(a[i], b[i], squared) for i in range(6)]
        assert euclidean(a, b, squared=squared).tolist() == pytest.approx(expected)

    def test_gradient(self, squared):
        a, b = features(4, 3, requires_grad=True), features(4, 3, seed=1, requires_grad=True)
        assert torch.autograd.gradcheck(lambda a, b: euclidean(a, b, squared=squared), (a, b))

    def test_no_nan_where_two_rows_coincide(self, squared):
        a = features(3, 4).requires_grad_()
        b = a.detach().clone()
        b[2] += 1
        values = euclidean(a, b, squared=squared)
        values.sum().backward()
        assert values[:2].tolist() == [0, 0]
        assert a.grad[:2].abs().max() == 0 and a.grad[2].abs().min() > 0


@pytest.mark.parametrize("squared", [False, True])
class TestTriplet:
    """Midlevel-fusion, Eq. (2)."""

    @pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
    def test_equals_the_loop(self, squared, margin):
        anchor, positive, negative = (features(64, 3, seed=s) for s in range(3))
        terms = [
            max(0.0, margin + distance(anchor[i], positive[i], squared) - distance(anchor[i], negative[i], squared))
            for i in range(64)
        ]
        assert 0 in terms and max(terms) > 0  # both sides of the hinge
        loss = triplet(anchor, positive, negative, margin=margin, squared=squared)
        assert loss.item() == pytest.approx(sum(terms) / 64)

    def test_gradient(self, squared):
        inputs = [features(6, 3, seed=s, requires_grad=True) for s in range(3)]
        assert torch.autograd.gradcheck(lambda a, p, n: triplet(a, p, n, squared=squared), inputs)

    def test_three_points_by_hand(self, squared):
        anchor, positive, negative = (torch.tensor([point]) for point in ([0.0, 0.0], [3.0, 4.0], [0.0, 5.1]))
        expected = 0.3 + 25 - 26.01 if squared else 0.3 + 5 - 5.1
        assert float(triplet(anchor, positive, negative, squared=squared)) == pytest.approx(max(0, expected), abs=1e-5)

    def test_a_collapsed_triplet_has_the_loss_margin_and_a_finite_gradient(self, squared):
        same = torch.ones(2, 3, requires_grad=True)
        loss = triplet(same, same, same, margin=0.3, squared=squared)
        loss.backward()
        assert loss.item() == pytest.approx(0.3) and same.grad.abs().max() == 0

    def test_negative_margin(self, squared):
        with pytest.raises(ValueError, match=r"margin must not be negative \(got -0.1\)"):
            triplet(*[features(1, 2)] * 3, margin=-0.1, squared=squared)


class TestContrastive:
    @staticmethod
    def loop(similarity, temperature, groups):
        table, n = similarity.tolist(), len(similarity)
        total = 0.0
        for i in range(n):
            rivals = [j for j in range(n) if groups[j] == groups[i]]
            row = sum(math.exp(table[i][j] / temperature) for j in rivals)
            column = sum(math.exp(table[j][i] / temperature) for j in rivals)
            own = math.exp(table[i][i] / temperature)
            total += -math.log(own / row) - math.log(own / column)
        return total / (2 * n)

    @pytest.mark.parametrize("groups", [None, [0, 1, 0, 1, 1, 2]])
    @pytest.mark.parametrize("temperature", [0.07, 1.0])
    def test_equals_the_loop(self, groups, temperature):
        similarity = features(6, 6).tanh()
        index = None if groups is None else torch.tensor(groups)
        value = float(in_batch_contrastive(similarity, temperature=temperature, groups=index))
        assert value == pytest.approx(self.loop(similarity, temperature, groups or [0] * 6))

    @pytest.mark.parametrize("groups", [None, [0, 1, 0, 1]])
    def test_gradient(self, groups):
        index = None if groups is None else torch.tensor(groups)
        similarity = features(4, 4, requires_grad=True)
        assert torch.autograd.gradcheck(lambda s: in_batch_contrastive(s, temperature=0.5, groups=index), (similarity,))

    def test_other_categories_get_no_gradient(self):
        similarity = features(4, 4, requires_grad=True)
        in_batch_contrastive(similarity, groups=torch.tensor([0, 0, 1, 1])).backward()
        assert similarity.grad[:2, 2:].abs().max() == 0 and similarity.grad[2:, :2].abs().max() == 0
        assert similarity.grad[0, 1] != 0

    def test_bounds(self):
        assert float(in_batch_contrastive(torch.zeros(8, 8))) == pytest.approx(math.log(8))
        assert float(in_batch_contrastive(torch.eye(8), temperature=0.01)) == pytest.approx(0, abs=1e-6)

    def test_temperature(self):
        with pytest.raises(ValueError, match=r"temperature must be positive \(got 0\)"):
            in_batch_contrastive(torch.eye(2), temperature=0)


@pytest.mark.parametrize("loss", [
    lambda: contrastive(torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3, 1)),
    lambda: ranking_hinge(torch.zeros(3), torch.zeros(3, 1), margin=0.1),
    lambda: focal(torch.zeros(3, 4), torch.ones(3, 1)),
])
def test_shapes_that_torch_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"must have one shape, not \[3.*\] and \[3, 1\]"):
        loss()
