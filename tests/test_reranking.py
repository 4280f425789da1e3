"""k-reciprocal re-ranking against whole matrices and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import dense_reranking

from cdimlib.retrieval import k_reciprocal, reranking


def distances(queries, gallery, seed=0, dimensions=3, identities=None):
    """Distances between random points, those of one identity near each other."""
    rng = np.random.default_rng(seed)
    identities = identities or max(1, (queries + gallery) // 6)
    centres, who = rng.normal(size=(identities, dimensions)), rng.integers(identities, size=queries + gallery)
    points = centres[who] + 0.3 * rng.normal(size=(queries + gallery, dimensions))
    whole = np.sqrt(np.square(points[:, None] - points).sum(axis=2)).astype(np.float32)
    return whole[:queries, queries:], whole[:queries, :queries], whole[queries:, queries:]


@st.composite
def cases(draw):
    """Points on a line with whole coordinates (ties, doubles) or random ones; as many neighbours as one likes."""
    queries, gallery = draw(st.integers(1, 8)), draw(st.integers(1, 20))
    if draw(st.booleans()):
        points = np.array(draw(st.lists(st.integers(0, 9), min_size=queries + gallery, max_size=queries + gallery)))
        whole = np.abs(points[:, None] - points).astype(np.float32)
        given = whole[:queries, queries:], whole[:queries, :queries], whole[queries:, queries:]
    else:
        given = distances(queries, gallery, draw(st.integers(0, 99)))
    if draw(st.booleans()):  # not symmetric, as scores of pairs may be
        rng = np.random.default_rng(queries)
        given = (given[0], *(d * rng.integers(1, 3, d.shape).astype(np.float32) for d in given[1:]))
    options = {"k1": draw(st.integers(1, 30)), "k2": draw(st.integers(1, 8))}
    options |= {"lambda_": draw(st.sampled_from([0.0, 0.3, 1.0])), "squared": draw(st.booleans())}
    return given, options


@settings(max_examples=200)
@given(cases(), st.sampled_from([1, 50, reranking.BLOCK]), st.booleans())
def test_agrees_with_the_dense_reference(case, block, as_torch):
    given, options = case
    expected = dense_reranking(*given, **options)
    before, reranking.BLOCK = reranking.BLOCK, block
    try:
        result = k_reciprocal(*(torch.from_numpy(d.copy()) if as_torch else d for d in given), **options)
    finally:
        reranking.BLOCK = before
    assert isinstance(result, torch.Tensor if as_torch else np.ndarray) and result.shape == expected.shape
    np.testing.assert_allclose(np.asarray(result), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("squared", [False, True])
def test_agrees_on_a_larger_set(squared):
    given = distances(40, 160, dimensions=8)
    result = k_reciprocal(*given, squared=squared)
    np.testing.assert_allclose(result, dense_reranking(*given, squared=squared), atol=1e-5, rtol=0)
    if squared:
        np.testing.assert_allclose(k_reciprocal(*(d**2 for d in given)), result, atol=1e-5, rtol=0)
    else:
        assert np.abs(result - k_reciprocal(*given, squared=True)).max() > 0.01


def test_by_hand():
    """Four points 0, 1 | 10, 11, the first of each pair a query, one neighbour each: the pairs are sure of each other.

    Within a pair both images have the same two neighbours, at distances 0 and 1 divided by the largest, 11 for the
    outer points and 10 for the inner ones; across pairs nothing is shared, and the Jaccard distance is 1.
    """
    points = np.array([0.0, 10.0, 1.0, 11.0])
    whole = np.abs(points[:, None] - points)
    result = k_reciprocal(whole[:2, 2:], whole[:2, :2], whole[2:, 2:], k1=1, k2=1)
    outer, inner = np.exp([0, -1 / 11]), np.exp([0, -1 / 10])
    outer, inner = outer / outer.sum(), inner / inner.sum()  # weights of itself and of the other
    overlap = min(outer[0], inner[1]) + min(outer[1], inner[0])
    jaccard = 1 - overlap / (2 - overlap)
    expected = 0.7 * np.array([[jaccard, 1], [1, jaccard]]) + 0.3 * np.array([[1 / 11, 1], [9 / 10, 1 / 10]])
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_the_order_of_gallery_and_queries_does_not_matter():
    cross, queries, gallery = distances(12, 60)
    result = k_reciprocal(cross, queries, gallery, k1=8, k2=3)
    rng = np.random.default_rng(1)
    q, g = rng.permutation(12), rng.permutation(60)
    shuffled = k_reciprocal(cross[np.ix_(q, g)], queries[np.ix_(q, q)], gallery[np.ix_(g, g)], k1=8, k2=3)
    np.testing.assert_allclose(shuffled, result[np.ix_(q, g)], atol=1e-6)


def test_ties_go_to_the_first():
    """One query, three gallery images at the same place: with one neighbour, the first of them is taken."""
    whole = np.ones((4, 4)) - np.eye(4)
    result = k_reciprocal(whole[:1, 1:], whole[:1, :1], whole[1:, 1:], k1=1, k2=1, lambda_=0.0)
    overlap = 2 * np.exp(-1) / (1 + np.exp(-1))  # the smaller weight of either, of itself and of the other
    np.testing.assert_allclose(result, [[1 - overlap / (2 - overlap), 1, 1]], atol=1e-6)


def test_extremes():
    given = distances(5, 20)
    divided = given[0] / np.maximum(given[0].max(axis=1), given[1].max(axis=1))[:, None]
    np.testing.assert_allclose(k_reciprocal(*given, lambda_=1.0), divided, rtol=1e-6)
    result = k_reciprocal(*given, lambda_=0.0)
    assert result.min() >= -1e-6 and result.max() <= 1 + 1e-6
    same = k_reciprocal(np.zeros((2, 3)), np.zeros((2, 2)), np.zeros((3, 3)))
    np.testing.assert_allclose(same, 0, atol=1e-6)  # nothing to tell apart, and no division by zero
    assert k_reciprocal(np.zeros((2, 0)), np.zeros((2, 2)), np.zeros((0, 0))).shape == (2, 0)
    assert k_reciprocal(np.zeros((0, 2)), np.zeros((0, 0)), np.zeros((2, 2))).shape == (0, 2)


def test_inputs_stay_as_they_are_in_any_precision():
    given = distances(6, 30)
    expected = k_reciprocal(*given, squared=True)
    copies = [d.copy() for d in given]
    k_reciprocal(*copies, squared=True)
    assert all((a == b).all() for a, b in zip(copies, given))
    np.testing.assert_allclose(k_reciprocal(*(d.astype(float) for d in given), squared=True), expected, atol=1e-5)
    half = k_reciprocal(*(torch.from_numpy(d).requires_grad_().bfloat16() for d in given), squared=True)
    assert half.dtype == torch.float32 and not half.requires_grad and (half.numpy() - expected).max() < 0.5


def test_it_finds_what_hangs_together():
    """A chain of images links a query to its match; a wrong image is nearer, but has other neighbours."""
    points = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [0, 2.5], [0, 3], [0, 3.5], [0.5, 3]], float)
    whole = np.linalg.norm(points[:, None] - points, axis=2)
    cross, query, gallery = whole[:1, 1:], whole[:1, :1], whole[1:, 1:]
    assert cross[0, 2] > cross[0, 3]  # before: the far end of the chain behind the nearest of the others
    result = k_reciprocal(cross, query, gallery, k1=3, k2=2)
    assert result[0, 2] < result[0, 3]


good = distances(3, 8)
ERRORS = {
    "shapes": ((good[0], good[2], good[1]), {}, r"\[Q, Q\].*\(3, 8\), \(8, 8\), \(3, 3\)"),
    "vector": ((good[0][0], good[1], good[2]), {}, r"must be \[Q, G\]"),
    "nan": ((good[0] * np.nan, good[1], good[2]), {}, "NaN, infinite or negative"),
    "nan in the gallery": ((good[0], good[1], good[2] + np.diag([np.nan] + [0] * 7)), {}, "NaN"),
    "infinite": ((good[0] + np.inf, good[1], good[2]), {}, "NaN, infinite"),
    "minus the similarity": ((good[0] - 2, good[1], good[2]), {}, "1 - similarity"),
    "k1": (good, {"k1": 0}, "k1 and k2 must be at least 1"),
    "k2": (good, {"k2": 0}, r"got 20, 0 and 0.3"),
    "lambda": (good, {"lambda_": 1.5}, "lambda_ within 0..1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_one_clear_error(name):
    given, options, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        k_reciprocal(*given, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    given = distances(20, 80)
    result = k_reciprocal(*(torch.from_numpy(d).cuda() for d in given))
    assert result.is_cuda
    np.testing.assert_allclose(result.cpu(), k_reciprocal(*given), atol=1e-5)
