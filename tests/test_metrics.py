"""CMC and average precision against hand-computed ranks, scikit-learn and a slow reference that sorts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import slow_reference
from sklearn.metrics import average_precision_score

from cdimlib.retrieval import average_precision, metrics, rank_metrics


def test_hand_computed_average_precision():
    # rectangle: (1/1 + 2/2 + 3/4 + 4/7) / 4; trapezoid: ((1 + 1) + (1 + 1) + (2/3 + 3/4) + (3/6 + 4/7)) / 8
    assert average_precision([1, 2, 4, 7]) == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
    assert average_precision([7, 1, 4, 2]) == pytest.approx(0.8304, abs=5e-5)  # the order of the ranks is no matter
    assert average_precision([1, 2, 4, 7], "trapezoid") == pytest.approx(0.8110, abs=5e-5)
    assert average_precision([5]) == pytest.approx(0.2)
    assert average_precision([5], "trapezoid") == pytest.approx(0.1)
    assert average_precision([1]) == average_precision([1], "trapezoid") == 1.0


def test_five_items_by_hand():
    similarity = [[0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]]
    metrics = rank_metrics(np.array(similarity), [1, 2], [1, 3, 1, 2, 2])
    # query 0: matches at ranks 1 and 3; query 1: order is items 4, 3, 2, 1, 0, matches at ranks 1 and 2
    assert metrics.first_rank.tolist() == [1, 1]
    assert metrics.average_precision.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1.0])
    assert metrics.cmc.tolist() == [1.0] * 5
    assert (metrics.num_valid, metrics.definition) == (2, "rectangle")


def test_first_rank_cmc_and_accuracy():
    similarity = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    metrics = rank_metrics(similarity, [0, 1, 2, 2], [0, 1, 2])
    assert metrics.first_rank.tolist() == [1, 2, 3, 1]
    assert metrics.cmc.tolist() == [0.5, 0.75, 1.0]
    assert [metrics.accuracy(k) for k in (1, 2, 3, 10)] == [50.0, 75.0, 100.0, 100.0]
    assert metrics.mean_ap == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4)
    with pytest.raises(ValueError, match="k must be at least 1"):
        metrics.accuracy(0)


def test_ties_are_broken_against_us():
    # everything looks the same: a match is found after every wrong image, whatever the order of the gallery
    for gallery in ([7, 1, 2, 3], [1, 2, 3, 7]):
        assert rank_metrics(np.zeros((1, 4)), [7], gallery).first_rank.tolist() == [4]
    metrics = rank_metrics(np.array([[0.5, 0.5, 0.2]]), [1], [1, 2, 1])
    assert metrics.average_precision[0] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_same_camera_is_ignored_and_not_counted_as_a_rank():
    similarity = np.array([[0.9, 0.8, 0.7]])
    metrics = rank_metrics(similarity, [1], [1, 2, 1], [0], [0, 0, 1])
    assert metrics.first_rank.tolist() == [2]  # item 0 is gone, the wrong item 1 of the same camera stays
    assert metrics.average_precision[0] == pytest.approx(1 / 2)
    assert rank_metrics(similarity, [1], [1, 2, 1]).first_rank.tolist() == [1]


def test_queries_without_a_match_are_skipped():
    metrics = rank_metrics(np.eye(3), [0, 1, 9], [0, 1, 2])
    assert metrics.num_valid == 2
    assert metrics.first_rank.tolist() == [1, 1, 0]
    assert np.isnan(metrics.average_precision[2])
    assert (metrics.mean_ap, metrics.accuracy(1)) == (1.0, 100.0)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    similarity = rng.standard_normal((12, 40))
    query_ids, gallery_ids = rng.integers(6, size=12), np.concatenate([np.arange(6), rng.integers(6, size=34)])
    metrics = rank_metrics(similarity, query_ids, gallery_ids)
    expected = [average_precision_score(gallery_ids == i, row) for i, row in zip(query_ids, similarity, strict=True)]
    np.testing.assert_allclose(metrics.average_precision, expected)
    assert metrics.mean_ap == pytest.approx(np.mean(expected))


@st.composite
def cases(draw):
    """Small matrices with few distinct scores, identities and cameras: full of ties, junk and matchless queries."""
    queries, gallery = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    scores = st.integers(-3, 3).map(lambda v: v / 4)
    row = st.lists(scores, min_size=gallery, max_size=gallery)
    similarity = draw(st.lists(row, min_size=queries, max_size=queries))
    label = lambda n, high: draw(st.lists(st.integers(0, high), min_size=n, max_size=n))  # noqa: E731
    cams = draw(st.booleans())
    return (
        np.array(similarity), label(queries, 3), label(gallery, 3),
        label(queries, 1) if cams else None, label(gallery, 1) if cams else None,
    )


@settings(max_examples=200)
@given(cases(), st.booleans())
def test_agrees_with_the_slow_reference(case, as_torch):
    similarity = case[0]
    expected = slow_reference(*case)
    if as_torch:
        similarity = torch.tensor(similarity, requires_grad=True)
        tensor = lambda v: None if v is None else torch.tensor(v)  # noqa: E731
        labels = [tensor(v) for v in case[1:]]
    else:
        labels = case[1:]
    arguments = (similarity, *labels)
    valid = [e for e in expected if e is not None]
    if not valid:
        with pytest.raises(ValueError, match="has a match in the gallery"):
            rank_metrics(*arguments)
        return
    for place, definition in ((1, "rectangle"), (2, "trapezoid")):
        metrics = rank_metrics(*arguments, average_precision=definition)
        assert metrics.num_valid == len(valid)
        assert metrics.first_rank.tolist() == [e[0] if e else 0 for e in expected]
        np.testing.assert_allclose(metrics.average_precision, [e[place] if e else np.nan for e in expected])
        assert metrics.mean_ap == pytest.approx(np.mean([e[place] for e in valid]))
        assert metrics.definition == definition
        size = len(case[2])
        assert metrics.cmc.tolist() == pytest.approx([np.mean([e[0] <= k for e in valid]) for k in range(1, size + 1)])
        assert (np.diff(metrics.cmc) >= 0).all()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8, unique=True))
def test_trapezoid_never_exceeds_rectangle(ranks):
    rectangle, trapezoid = average_precision(ranks), average_precision(ranks, "trapezoid")
    assert 0 < trapezoid <= rectangle <= 1
    assert rectangle - trapezoid <= np.mean(1 / (2 * np.array(ranks))) + 1e-12  # (r - k) / (2 r (r - 1)) <= 1 / (2 r)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_ranked(half):
    similarity = torch.tensor([[0.5, 1.0], [2.0, 0.25]], dtype=half)
    assert rank_metrics(similarity, [1, 0], [0, 1]).first_rank.tolist() == [1, 1]
    if half == torch.float16:
        assert rank_metrics(similarity.numpy(), [1, 0], [0, 1]).first_rank.tolist() == [1, 1]


@pytest.mark.parametrize("double", [np.float64, torch.float64])
def test_double_precision_is_not_cut(double):
    """The wrong image is better by less than single precision can tell."""
    scores = np.array([[0.5 + 1e-12, 0.5]])
    scores = scores if double is np.float64 else torch.tensor(scores)
    assert rank_metrics(scores, [1], [0, 1]).first_rank.tolist() == [2]
    assert rank_metrics(scores, [0], [0, 1]).first_rank.tolist() == [1]


def test_many_queries_many_matches_and_turned_matrices(monkeypatch):
    """More rows than a chunk holds, more matches than are compared one by one, columns in memory order."""
    monkeypatch.setattr(metrics, "CHUNK", 7)
    rng = np.random.default_rng(0)
    similarity = rng.integers(40, size=(300, 30)).astype(np.float32).T
    query_ids, gallery_ids = rng.integers(2, size=30), rng.integers(2, size=300)
    cams = rng.integers(3, size=30), rng.integers(3, size=300)
    expected = slow_reference(similarity, query_ids, gallery_ids, *cams)
    measured = rank_metrics(similarity, query_ids, gallery_ids, *cams)
    assert measured.first_rank.tolist() == [e[0] for e in expected]
    np.testing.assert_allclose(measured.average_precision, [e[1] for e in expected])


def test_distractors_and_names_as_identities():
    """Identity 0 of Market-1501 is a wrong image for every query; identities may be words."""
    measured = rank_metrics([[0.9, 0.8, 0.7]], [3], [0, 3, 0])
    assert (measured.first_rank.tolist(), measured.mean_ap) == ([2], 0.5)
    assert rank_metrics([[0.9, 0.8, 0.7]], ["ann"], ["bob", "ann", "cat"]).first_rank.tolist() == [2]


def test_infinite_scores():
    measured = rank_metrics([[-np.inf, np.inf, 0.0, np.inf]], [1], [1, 1, 2, 2])
    assert measured.average_precision[0] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_empty_gallery_and_no_queries():
    for shape, text in (((2, 0), "none of the 2 queries"), ((0, 3), "none of the 0 queries")):
        with pytest.raises(ValueError, match=text):
            rank_metrics(np.zeros(shape), np.arange(shape[0]), np.arange(shape[1]))


def call(similarity, query_ids, gallery_ids, **options):
    return lambda: rank_metrics(np.array(similarity), query_ids, gallery_ids, **options)


ERRORS = {
    "shape": (call(np.zeros((2, 3)), [0, 1], [0, 1]), r"shape \(2, 3\).*2 queries.*2 gallery"),
    "vector": (call(np.zeros(3), [0], [0, 1, 2]), r"must be a matrix \[Q, G\]"),
    "one camera list": (call([[0.0]], [0], [0], query_cams=[0]), "together, or neither"),
    "camera counts": (call([[0.0, 0.0]], [0], [0, 0], query_cams=[0], gallery_cams=[1]), r"1 and 1 cameras .*\(1, 2\)"),
    "nan": (call([[np.nan, 0.0]], [0], [0, 1]), "contains NaN"),
    "definition": (call([[0.0]], [0], [0], average_precision="area"), "rectangle, trapezoid, not 'area'"),
    "no match": (
        call(np.zeros((2, 2)), [0, 5], [0, 1], query_cams=[0, 0], gallery_cams=[0, 1]),
        "none of the 2 queries.*1 have matches from their own camera only.*1 have no gallery image",
    ),
}


def test_identities_of_another_type_are_pointed_out():
    for words in (["0001", "0002"], np.array(["0001", "0002"], object)):
        says = r"queries' identities are text such as \['0001'\], the gallery's numbers such as \[1\]: make them"
        with pytest.raises(ValueError, match=says):
            rank_metrics(np.zeros((2, 3)), words, [1, 2, 3])
    with pytest.raises(ValueError, match=r"no gallery image of their identity$"):
        rank_metrics(np.zeros((2, 3)), ["0001", "0002"], ["1", "2", "3"])


@pytest.mark.parametrize("name", ERRORS)
def test_one_clear_error(name):
    judge, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        judge()


def test_errors_of_average_precision():
    with pytest.raises(ValueError, match="a query without a match"):
        average_precision([])
    with pytest.raises(ValueError, match="not 'area'"):
        average_precision([1], "area")


def test_cameras_of_two_kinds_are_refused():
    """As text and as numbers no camera would be the query's own, and every query would find itself."""
    with pytest.raises(ValueError, match=r"cameras are text such as \['0'\], the gallery's numbers such as \[0\]"):
        rank_metrics([[0.9, 0.8, 0.1]], [1], [1, 2, 1], ["0"], [0, 1, 1])


@pytest.mark.parametrize("definition", metrics.DEFINITIONS)
def test_mean_ap_by_another_definition(definition):
    rng = np.random.default_rng(0)
    asked = rng.random((20, 50)), rng.integers(8, size=20), rng.integers(8, size=50)
    cams = rng.integers(2, size=20), rng.integers(2, size=50)
    expected = rank_metrics(*asked, *cams, average_precision=definition).mean_ap
    assert rank_metrics(*asked, *cams).mean_ap_by(definition) == pytest.approx(expected)
