"""Temporal lifting against a loop over queries and cameras, QAConv, Eq. (3) and (4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import dense_reranking, looped_lift

from cdimlib.retrieval import k_reciprocal, temporal_lift, tlift

OFFICIAL = {"kernel": "official", "ties": "enlarge", "alpha": 0.1}


def world(queries=12, gallery=40, cameras=3, seed=0, length=400.0):
    """Scores, cameras and times at random."""
    rng = np.random.default_rng(seed)
    scores = rng.random((queries, gallery))
    labels = ((rng.integers(cameras, size=n), np.round(length * rng.random(n), 1)) for n in (queries, gallery))
    return scores, *[label for pair in labels for label in pair]


@st.composite
def cases(draw):
    """Few distinct scores and times (ties, windows whose edge is met), cameras on one side only, empty galleries."""
    queries, gallery, cameras = draw(st.integers(0, 7)), draw(st.integers(0, 12)), draw(st.integers(1, 4))
    listed = lambda what, n: np.array(draw(st.lists(what, min_size=n, max_size=n)))  # noqa: E731
    scores = listed(st.integers(0, 4), queries * gallery).reshape(queries, gallery) / 4
    labels = []
    for n in (queries, gallery):
        labels += [listed(st.integers(0, cameras - 1), n).astype(int), listed(st.integers(0, 6), n).astype(float)]
    options = {
        "tau": draw(st.sampled_from([0.5, 1.0, 2.0, 100.0])), "sigma": draw(st.sampled_from([0.5, 2.0, 100.0])),
        "k": draw(st.integers(1, 30)), "alpha": draw(st.sampled_from([0.0, 0.1])), "same_camera": draw(st.booleans()),
    }
    return (scores, *labels), options, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=300)
@given(cases(), st.sampled_from([1, tlift.BLOCK]), st.sampled_from([np.float64, np.float32, torch.float32]))
def test_agrees_with_the_loop(case, block, kind):
    """QAConv, Eq. (3) and (4), and the authors' variant."""
    (scores, *labels), options, official, enlarge = case
    expected = looped_lift(scores, *labels, **options, two=1.0 if official else 2.0, enlarge=enlarge)
    given = torch.tensor(scores, dtype=kind) if kind is torch.float32 else scores.astype(kind)
    if kind is torch.float32:
        labels = [torch.from_numpy(label) for label in labels]
    options |= {"kernel": "official" if official else "paper", "ties": "enlarge" if enlarge else "share"}
    before, tlift.BLOCK = tlift.BLOCK, block
    try:
        lifted = temporal_lift(given, *labels, **options)
    finally:
        tlift.BLOCK = before
    assert type(lifted) is type(given) and lifted.dtype == given.dtype and lifted.shape == given.shape
    np.testing.assert_allclose(np.asarray(lifted), expected, atol=1e-12 if kind is np.float64 else 1e-6)


@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_on_larger_sets(seed, k):
    given = world(60, 200, 4, seed, 3000.0)
    np.testing.assert_allclose(temporal_lift(*given, k=k), looped_lift(*given, k=k), atol=1e-12)
    official = looped_lift(*given, k=k, two=1.0, enlarge=True, alpha=0.1)
    np.testing.assert_allclose(temporal_lift(*given, k=k, **OFFICIAL), official, atol=1e-12)


def test_by_hand():
    """Query at 0 s with a neighbour at 60 s, another too far; the neighbour's best match is the pivot at 500 s.

    QAConv, Eq. (3): only |dt| < tau counts; Eq. (4): one pivot, so p = exp(-dt^2 / (2 sigma^2)).
    """
    scores = np.array([[0.5, 0.4, 0.3], [0.2, 0.1, 0.9], [1.0, 0.0, 0.0]])
    times = np.array([400.0, 300.0, 500.0])
    lifted = temporal_lift(scores, [0, 0, 0], [0.0, 60.0, 100.0], [1, 1, 1], times, k=1)
    p = np.exp(-((times - 500) ** 2) / (2 * 100**2))
    np.testing.assert_allclose(lifted[0], scores[0] * p)  # the query at 100 s is not *less* than 100 s away
    np.testing.assert_allclose(lifted[1], scores[1] * np.exp(-((times - 400) ** 2) / (2 * 100**2)))  # but from 60 s
    np.testing.assert_allclose(
        temporal_lift(scores, [0, 0, 0], [0.0, 60.0, 100.0], [1, 1, 1], times, k=1, **OFFICIAL)[0],
        scores[0] * (np.exp(-((times - 500) ** 2) / 100**2) + 0.1),
    )


def test_ties_share_a_place_or_enlarge_the_set():
    scores, gallery = np.array([[0.9, 0.5, 0.5]]), np.array([0.0, 100.0, 300.0])
    given = scores, [0], [0.0], [1, 1, 1], gallery
    kernel = np.exp(-np.subtract.outer(gallery, gallery) ** 2 / (2 * 100**2))
    shared = temporal_lift(*given, k=2)
    np.testing.assert_allclose(shared, scores * (kernel[0] + kernel[1] / 2 + kernel[2] / 2) / 2)
    np.testing.assert_allclose(temporal_lift(*given, k=2, ties="enlarge"), scores * kernel.mean(axis=0))
    np.testing.assert_allclose(temporal_lift(*given, k=100), scores * kernel.mean(axis=0))  # fewer than k


def test_the_lifted_one_wins():
    """Figure 2 (b): E is more similar to A than A' is, but only A' was there when B and C were."""
    scores = np.array([[0.6, 0.7, 0.1, 0.1], [0.1, 0.1, 0.9, 0.1], [0.1, 0.2, 0.1, 0.8]])  # of A, B, C to A', E, B', C'
    lifted = temporal_lift(scores, [0] * 3, [0.0, 20.0, 40.0], [1] * 4, [1000.0, 5000.0, 1020.0, 1050.0], k=2)
    assert scores[0].argmax() == 1 and lifted[0].argmax() == 0


@given(st.integers(0, 999), st.integers(1, 3), st.integers(1, 50))
def test_equal_times_leave_the_order_within_a_camera(seed, cameras, k):
    scores, query_cams, query_times, gallery_cams, gallery_times = world(5, 20, cameras, seed)
    lifted = temporal_lift(scores, query_cams, 0 * query_times, gallery_cams, 0 * gallery_times + 7.0, k=k)
    for camera in range(cameras):
        mine = gallery_cams == camera
        assert (lifted[:, mine].argsort(axis=1) == scores[:, mine].argsort(axis=1)).all()
    np.testing.assert_allclose(lifted, scores, rtol=1e-12)  # all p are 1


def test_order_of_images_and_names_of_cameras_do_not_matter():
    scores, query_cams, query_times, gallery_cams, gallery_times = world()
    scores = np.round(scores, 1)  # with ties
    lifted = temporal_lift(scores, query_cams, query_times, gallery_cams, gallery_times, k=5)
    rng = np.random.default_rng(1)
    q, g = rng.permutation(len(query_cams)), rng.permutation(len(gallery_cams))
    asked, stored = (-3 * query_cams[q], query_times[q] + 1e6), (-3 * gallery_cams[g], gallery_times[g] - 1e6)
    shuffled = temporal_lift(scores[np.ix_(q, g)], *asked, *stored, k=5)  # clocks of the two sides need not agree
    np.testing.assert_allclose(shuffled, lifted[np.ix_(q, g)], atol=1e-9)


def test_one_camera_and_cameras_on_one_side():
    scores, _, query_times, _, gallery_times = world()
    lifted = temporal_lift(scores, [4] * 12, query_times, [4] * 40, gallery_times)
    np.testing.assert_allclose(lifted, temporal_lift(scores, [4] * 12, query_times, [5] * 40, gallery_times))
    alone = temporal_lift(scores, [4] * 12, query_times, [4] * 40, gallery_times, same_camera=False, alpha=0.5)
    np.testing.assert_allclose(alone, scores / 2)


def test_both_orders_with_reranking():
    """The authors lift what re-ranking gives; the other order is a call as well."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(52, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    whole = (1 - features @ features.T).clip(0) / 2
    _, *labels = world()
    blocks = whole[:12, 12:], whole[:12, :12], whole[12:, 12:]
    knobs = dict(tau=150.0, sigma=80.0, k=7, alpha=0.1)
    after = temporal_lift(1 - k_reciprocal(*blocks), *labels, **knobs)
    before = 1 - k_reciprocal(1 - temporal_lift(1 - blocks[0], *labels, **knobs), *blocks[1:])
    np.testing.assert_allclose(after, looped_lift(1 - dense_reranking(*blocks), *labels, **knobs), atol=1e-6)
    expected = 1 - dense_reranking(1 - looped_lift(1 - blocks[0], *labels, **knobs), *blocks[1:])
    np.testing.assert_allclose(before, expected, atol=1e-6)
    assert not np.allclose(after, before), "the order does not matter: then one of the two is not applied"


def test_kind_precision_and_input_are_kept():
    scores, *labels = world()
    given = scores.copy()
    lifted = temporal_lift(given, *labels)
    assert (given == scores).all() and lifted.dtype == np.float64
    single = temporal_lift(torch.tensor(scores, dtype=torch.float32), *labels)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, lifted, rtol=1e-5)
    half = temporal_lift(torch.tensor(scores).bfloat16(), *labels)
    assert half.dtype == torch.float32 and temporal_lift((9 * scores).astype(int), *labels).dtype == np.float64
    clock = temporal_lift(single, labels[0], labels[1] + 1.6e9, labels[2], labels[3] + 1.6e9)  # seconds since 1970
    np.testing.assert_allclose(clock, temporal_lift(single, *labels), rtol=1e-4)


S, QC, QT, GC, GT = world(2, 3)
ERRORS = {
    "no times": ((S, QC, None, GC, GT), {}, "time of every image, but some are None"),
    "no cameras": ((S, None, QT, GC, GT), {}, "camera and the time"),
    "counts": ((S, QC, QT[:1], GC, GT), {}, r"\(2, 3\) does not fit \[2, 3, 1, 3\]"),
    "cameras": ((S, QC.astype(str), QT, GC, GT), {}, "cameras are text such as .*the gallery's numbers"),
    "vector": ((S[0], QC, QT, GC, GT), {}, r"similarity \(3,\)"),
    "nan time": ((S, QC, QT * np.nan, GC, GT), {}, "times must be finite"),
    "nan score": ((S * np.nan, QC, QT, GC, GT), {}, "scores finite"),
    "minus the distance": ((-S, QC, QT, GC, GT), {}, "not negative: take the sigmoid"),
    "tau": ((S, QC, QT, GC, GT), {"tau": 0}, "tau, sigma and k must be positive"),
    "sigma": ((S, QC, QT, GC, GT), {"sigma": -1.0}, r"got 100.0, -1.0, 100, 0.0"),
    "k": ((S, QC, QT, GC, GT), {"k": 0}, "must be positive"),
    "alpha": ((S, QC, QT, GC, GT), {"alpha": -0.1}, "alpha not negative"),
    "kernel": ((S, QC, QT, GC, GT), {"kernel": "box"}, "not 'box', 'share'"),
    "ties": ((S, QC, QT, GC, GT), {"ties": "first"}, "ties 'share' or 'enlarge'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_one_clear_error(name):
    given, options, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        temporal_lift(*given, **options)
