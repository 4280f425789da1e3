"""Single-shot and multi-query against loops written from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdimlib.retrieval import rank_metrics
from cdimlib.retrieval.protocols import multi_query, single_shot


def ranked(right, wrong):
    """Rank of one right score among wrong ones, ties against us."""
    return 1 + sum(w >= right for w in wrong)


def slow_cross_camera(scores, qi, gi, qc, gc, repeats, seed):
    """One gallery per query: each identity's first allowed image in a random order."""
    rng, people, curves = np.random.default_rng(seed), sorted(set(gi)), []
    for _ in range(repeats):
        order, ranks = rng.permutation(len(gi)), []
        for q in range(len(qi)):
            drawn = {}
            for g in order:
                if not (gi[g] == qi[q] and gc[g] == qc[q]):
                    drawn.setdefault(gi[g], g)
            if qi[q] in drawn:
                ranks.append(ranked(scores[q][drawn[qi[q]]], [scores[q][g] for i, g in drawn.items() if i != qi[q]]))
        curves.append([np.mean([r <= k for r in ranks]) for k in range(1, len(people) + 1)])
    return np.mean(curves, axis=0), len(ranks)


def slow_x_corr(scores, ids, repeats, seed):
    rng, curves = np.random.default_rng(seed), []
    for _ in range(repeats):
        drawn = {}
        for g in rng.permutation(len(ids)):
            drawn.setdefault(ids[g], g)
        asked = [q for q in range(len(ids)) if q not in drawn.values()]
        wrong = {q: [scores[q][g] for i, g in drawn.items() if i != ids[q]] for q in asked}
        ranks = [ranked(scores[q][drawn[ids[q]]], wrong[q]) for q in asked]
        curves.append([np.mean([r <= k for r in ranks]) for k in range(1, len(drawn) + 1)])
    return np.mean(curves, axis=0), len(asked)


@st.composite
def cases(draw):
    """Scores with ties, few identities and cameras, distractors, queries without a match."""
    q, g = draw(st.integers(1, 7)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    people, cameras, values = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.sampled_from([2, 6, 1000]))
    ids, cams = rng.integers(0, people, q + g), rng.integers(0, cameras, q + g)
    return rng.integers(0, values, (q, g)) / 7, ids[:q], ids[q:], cams[:q], cams[q:]


class TestSingleShot:
    @settings(max_examples=200)
    @given(cases(), st.integers(1, 4), st.integers(0, 99), st.booleans())
    def test_cross_camera_against_loops(self, case, repeats, seed, as_torch):
        scores, qi, gi, qc, gc = case
        given_scores = torch.from_numpy(scores) if as_torch else scores
        if not any((gi == i)[gc != c].any() for i, c in zip(qi, qc, strict=True)):
            with pytest.raises(ValueError, match="none of the"):
                single_shot(given_scores, qi, gi, qc, gc, repeats=repeats, seed=seed)
            return
        wanted, valid = slow_cross_camera(scores, qi, gi, qc, gc, repeats, seed)
        got = single_shot(given_scores, qi, gi, qc, gc, repeats=repeats, seed=seed)
        assert got.cmc == pytest.approx(wanted) and got.num_valid == valid
        assert got.spread.shape == got.cmc.shape and (got.spread >= 0).all()

    @settings(max_examples=100)
    @given(cases(), st.integers(1, 4), st.integers(0, 99))
    def test_x_corr_against_loops(self, case, repeats, seed):
        _, _, ids, _, _ = case
        if len(set(ids)) == len(ids):
            ids = np.append(ids, ids[0])
        scores = np.random.default_rng(seed).integers(0, 5, (len(ids), len(ids))) / 3
        wanted, valid = slow_x_corr(scores, ids, repeats, seed)
        got = single_shot(scores, ids, ids, None, None, style="x-corr", repeats=repeats, seed=seed)
        assert got.cmc == pytest.approx(wanted) and got.num_valid == valid
        assert got.protocol == f"single-shot, x-corr, mean of {repeats} galleries"

    def test_mean_over_the_images_that_may_be_drawn(self):
        """Three images of the right person, one of which beats the wrong one: a third of the galleries succeed."""
        scores, cams = np.array([[0.9, 0.1, 0.2, 0.5]]), ([0], [1, 1, 1, 1])
        got = single_shot(scores, [7], [7, 7, 7, 8], *cams, repeats=600)
        assert got.accuracy(1) == pytest.approx(100 / 3, abs=6) and got.accuracy(2) == got.accuracy(9) == 100
        assert got.spread[0] == pytest.approx(np.sqrt(2) / 3, abs=0.05) and got.spread[1] == 0

    def test_one_gallery_image_per_identity_is_rank_metrics(self):
        rng = np.random.default_rng(0)
        scores, ids = rng.normal(size=(40, 40)), np.arange(40)
        got = single_shot(scores, ids, ids, np.zeros(40), np.ones(40), repeats=3)
        assert got.cmc == pytest.approx(rank_metrics(scores, ids, ids).cmc) and got.spread.max() < 1e-12

    def test_same_seed_same_galleries(self):
        rng = np.random.default_rng(0)
        args = rng.normal(size=(30, 90)), np.arange(30), np.arange(90) % 30, np.zeros(30), np.ones(90)
        a, b, c = (single_shot(*args, seed=seed) for seed in (5, 5, 6))
        assert (a.cmc == b.cmc).all() and (a.cmc != c.cmc).any()

    def test_x_corr_is_easier_when_same_camera_images_look_alike(self):
        """People seen by two cameras, twice each; the camera says more than the person."""
        rng = np.random.default_rng(0)
        ids, cams = np.repeat(np.arange(50), 4), np.tile([0, 0, 1, 1], 50)
        seen = rng.normal(size=(50, 2, 6))[ids, cams] + 0.8 * rng.normal(size=(50, 6))[ids]
        features = seen + 0.2 * rng.normal(size=seen.shape)
        scores = -np.linalg.norm(features[:, None] - features[None], axis=2)
        one, two = cams == 0, cams == 1
        strict = single_shot(scores[one][:, two], ids[one], ids[two], cams[one], cams[two])
        easy = single_shot(scores, ids, ids, cams, cams, style="x-corr")
        assert easy.accuracy(1) > strict.accuracy(1) + 10

    def test_errors(self):
        scores, two = np.ones((2, 2)), [1, 2]
        with pytest.raises(ValueError, match="no cameras given: the cross-camera rule needs query_cams and"):
            single_shot(scores, two, two, None, [0, 0])
        with pytest.raises(ValueError, match="2 have matches from their own camera only .* 0 have no gallery image"):
            single_shot(scores, two, two, [0, 0], [0, 0])
        with pytest.raises(ValueError, match="0 have matches from their own camera only .* 2 have no gallery image"):
            single_shot(scores, two, [3, 4], [0, 0], [1, 1])
        with pytest.raises(ValueError, match=r"similarity is \(2, 2\), but ids are given for 3 x 2"):
            single_shot(scores, [1, 2, 3], two, [0, 0, 0], [1, 1])
        with pytest.raises(ValueError, match=r"similarity is \(0, 0\)"):
            single_shot(np.ones((0, 0)), [], [], [], [])
        with pytest.raises(ValueError, match="style must be one of cross-camera, x-corr and repeats at least 1"):
            single_shot(scores, two, two, [0, 0], [1, 1], style="easy")
        with pytest.raises(ValueError, match="repeats at least 1, not 'cross-camera', 0"):
            single_shot(scores, two, two, [0, 0], [1, 1], repeats=0)
        for ids in (([1, 1], [1, 2]), (two, two)):
            with pytest.raises(ValueError, match="style='x-corr' needs the same images"):
                single_shot(scores, *ids, None, None, style="x-corr")


class TestMultiQuery:
    @given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), min_size=1, max_size=12), st.booleans())
    def test_against_loops(self, rows, as_torch):
        features = np.random.default_rng(len(rows)).normal(size=(len(rows), 5))
        ids, cams = np.array(rows).T
        given_rows = (torch.from_numpy(features), torch.from_numpy(ids.copy())) if as_torch else (features, ids)
        got, people, cameras = multi_query(*given_rows, cams)
        assert list(zip(people, cameras, strict=True)) == sorted(set(rows))
        for vector, pair in zip(got.numpy(), sorted(set(rows)), strict=True):
            mean = np.mean([f for f, row in zip(features, rows, strict=True) if row == pair], axis=0)
            assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)

    def test_mean_not_maximum(self):
        got, _, _ = multi_query([[3.0, 0.0], [0.0, 1.0]], [4, 4], [1, 1])
        assert got[0].tolist() == pytest.approx([3 / np.sqrt(10), 1 / np.sqrt(10)])

    def test_more_images_of_a_query_help(self):
        """Noisy looks at 60 people: the mean of five finds more than one alone."""
        rng = np.random.default_rng(0)
        people = rng.normal(size=(60, 8))
        ids = np.repeat(np.arange(60), 5)
        looks, gallery = people[ids] + 1.2 * rng.normal(size=(300, 8)), people + 0.6 * rng.normal(size=(60, 8))
        gallery, gallery_ids, _ = multi_query(gallery, np.arange(60), np.ones(60))

        def first(features, asked):
            return rank_metrics(features @ gallery.T, asked, gallery_ids, np.zeros(len(asked)), np.ones(60)).accuracy(1)

        several, several_ids, _ = multi_query(looks, ids, np.zeros(300))
        single, single_ids, _ = multi_query(looks[::5], ids[::5], np.zeros(60))
        assert first(several, several_ids) > first(single, single_ids) + 20

    def test_errors(self):
        for features, ids, cams, says in (
            (np.ones((2, 3, 4)), [1, 2], [0, 0], r"got \(2, 3, 4\), 2 ids, 2 cameras"),
            (np.ones((2, 3)), [1, 2, 3], [0, 0], r"3 ids"), (np.ones((2, 3)), [1, 2], None, r"no cameras"),
        ):
            with pytest.raises(ValueError, match=rf"needs features \[N, d\] with an id and a camera.*{says}"):
                multi_query(features, ids, cams)


def test_multi_query_keeps_the_kind_of_its_labels():
    """Identities of text leave cameras numbers, as they are compared with the gallery's."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    together, ids, cams = multi_query(features, np.array(["a", "a", "b"], object), [1, 2, 1])
    assert ids.tolist() == ["a", "a", "b"] and cams.tolist() == [1, 2, 1]
    assert torch.allclose(together, torch.nn.functional.normalize(features))
