"""Colour and texture in stripes, the learned metric, and the classical rows on people."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cdimlib import baselines, results
from cdimlib.data import Benchmark, Split
from cdimlib.models.colour import CODES, SHRINK, ColourTexture, PairMetric, grey_world, lab_unit, votes
from cdimlib.models.matcher import VectorMatcher
from cdimlib.retrieval import encode, evaluate, rank_metrics, similarity


def people(count: int, shots: int = 4, *, cast: float = 0.0, seed: int = 0, first: int = 0) -> Split:
    """Noisy flags of three colours, one per person, before two cameras; ``cast`` tints what the second one sees."""
    rng = np.random.default_rng(seed)
    ids, cams, images = [], [], []
    for person in range(first, first + count):
        hues = np.random.default_rng([9, person]).random(3)
        flag = np.array([colorsys.hsv_to_rgb(h, 0.7, 0.8) for h in hues]).repeat([8, 12, 12], axis=0)  # [32, 3]
        for shot in range(shots):
            cam = shot % 2
            picture = flag.T[:, :, None] * np.exp(cam * cast * np.array([1, 0, -1]))[:, None, None]
            images.append((255 * picture + rng.normal(0, 12, (3, 32, 16))).clip(0, 255))
            ids.append(person)
            cams.append(cam)
    return Split(torch.tensor(np.array(images)).byte(), np.array(ids), np.array(cams))


def small_benchmark(cast: float = 0.25, name: str = "flags") -> Benchmark:
    test = people(12, cast=cast, seed=1, first=100)
    asked = np.arange(len(test)) % 4 == 0
    return Benchmark(name, people(20, cast=cast), test.where(asked), test.where(~asked))


# ------------------------------------------------------------------------------------------------------- features


@given(arrays(float, (5, 3), elements=st.floats(0, 1)), st.tuples(*[st.integers(1, 6)] * 3))
def test_votes_against_a_loop(values, bins):
    """Interpolation on each axis by itself, by numpy."""
    number, weight = votes(values, bins)
    counted = np.stack([np.bincount(number[:, i], weight[:, i], np.prod(bins)) for i in range(5)])
    for value, mine in zip(values, counted):
        axes = [np.array([np.interp(v, (np.arange(b) + 0.5) / b, np.eye(b)[k]) for k in range(b)])
                for v, b in zip(value, bins)]  # fmt: skip
        np.testing.assert_allclose(mine, np.einsum("i,j,k", *axes).ravel(), atol=1e-9)


def test_histograms_against_a_loop():
    image = people(1, shots=1).images.float()[..., ::2, ::2]
    matcher = ColourTexture(stripes=4, bins=(3, 4, 5), centre=0.3)
    colour, pattern = matcher.histograms(image)
    lab = lab_unit(grey_world(image / 255))[0]
    expected = np.zeros((4, 60))
    for y in range(16):
        for x in range(8):
            column = np.exp(-0.5 * (((x + 0.5) / 8 - 0.5) / 0.3) ** 2)
            for stripe in range(4):
                near = max(0, 1 - abs((y + 0.5) / 4 - (stripe + 0.5)))
                number, weight = votes(lab[y, x], (3, 4, 5))
                np.add.at(expected[stripe], number, weight * near * column)
    np.testing.assert_allclose(colour[0], expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    assert pattern.shape == (1, 4, CODES)
    torch.testing.assert_close(pattern.sum(dim=2), torch.ones(1, 4))


def test_lab_of_known_colours():
    """White, black and the grey of half the light (CIE: L = 76)."""
    lab = lab_unit(torch.tensor([1.0, 0.0, 0.7354]).repeat(3, 1).view(1, 3, 1, 3))[0, 0]
    np.testing.assert_allclose(lab, [[1, 0.5, 0.5], [0, 0.5, 0.5], [0.761, 0.5, 0.5]], atol=2e-3)


def test_features_are_roots_of_shares():
    images = people(3, shots=1).images.float()
    matcher = ColourTexture(texture=0.5)
    colour, pattern = matcher.histograms(images)
    features = matcher.encode(images)
    assert features.shape == (3, 6 * (6 * 8 * 8 + CODES))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    bhattacharyya = [(p[0] * p[1]).sqrt().sum() for p in (colour, pattern)]
    torch.testing.assert_close(features[0] @ features[1], (bhattacharyya[0] + 0.25 * bhattacharyya[1]) / (6 * 1.25))


def test_colour_constancy_undoes_a_cast():
    images = people(2, shots=1).images.float()
    tinted = images * torch.tensor([1.15, 0.9, 0.75]).view(3, 1, 1)
    look = lambda images, constancy: ColourTexture(constancy=constancy).encode(images)  # noqa: E731
    helped, plain = (torch.dist(look(images, c), look(tinted, c)) for c in (True, False))
    assert helped < 0.2 * plain
    balanced = grey_world(torch.rand(2, 3, 8, 8) * 0.5)
    torch.testing.assert_close(balanced.mean(dim=(2, 3)), torch.full((2, 3), 0.45), atol=1e-3, rtol=0)
    assert (grey_world(torch.zeros(1, 3, 8, 8)) == 0).all()


def test_texture_sees_what_colours_cannot():
    plain = torch.full((1, 3, 32, 16), 128.0)
    fine, coarse = plain.clone(), plain.clone()
    fine[..., ::2, :], coarse[..., 0::8, :], coarse[..., 1::8, :], coarse[..., 2::8, :], coarse[..., 3::8, :] = [60] * 5
    matcher = ColourTexture(constancy=False)
    colour, pattern = (h[:, 2] for h in matcher.histograms(torch.cat([fine, coarse])))  # a stripe of the middle
    assert (colour[0] - colour[1]).abs().sum() < 0.2 < 0.5 < (pattern[0] - pattern[1]).abs().sum()
    blind, seeing = (torch.dist(*ColourTexture(constancy=False, texture=t).encode(torch.cat([fine, coarse])))
                     for t in (0.0, 1.0))  # fmt: skip
    assert blind < 0.5 * seeing


def test_the_middle_counts_most():
    person = people(1, shots=1).images.float()
    other = person.clone()
    other[..., :3], other[..., -3:] = 0, 0
    narrow, wide = (float(torch.dist(*ColourTexture(centre=c, constancy=False).encode(torch.cat([person, other]))))
                    for c in (0.15, 10.0))  # fmt: skip
    assert narrow < 0.6 * wide


# --------------------------------------------------------------------------------------------------------- metric


def planted(count: int = 60, seed: int = 0):
    """Two cameras; the person is in the first four axes, the camera in the fifth, noise in the others."""
    rng = np.random.default_rng(seed)
    ids, cams = np.repeat(np.arange(count), 4), np.tile([0, 0, 1, 1], count)
    features = rng.normal(0, 0.3, (4 * count, 8)) * [0.4, 0.4, 0.4, 0.4, 1, 4, 4, 4]
    features[:, :4] += rng.normal(size=(count, 4))[ids]
    features[:, 4] += 3 * cams
    return torch.from_numpy(features).float(), ids, cams


def test_metric_is_kissme():
    """Köstinger et al. (2012), by inverses and a loop over pairs; D is that of all pairs of images."""
    features, ids, cams = planted(20)
    metric = PairMetric(VectorMatcher(), dims=8).fit(features, ids, cams)
    x = features.double().numpy()
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    covariance = lambda chosen: np.mean([np.outer(x[i] - x[j], x[i] - x[j]) for i, j in chosen], axis=0)  # noqa: E731
    different = covariance(pairs)
    same = covariance([(i, j) for i, j in pairs if ids[i] == ids[j] and cams[i] != cams[j]])
    m = np.linalg.inv((1 - SHRINK) * same + SHRINK * different) - np.linalg.inv(different)
    root = np.linalg.cholesky(different)  # clip what is negative where D is the unit matrix
    values, vectors = np.linalg.eigh(root.T @ m @ root)
    m = np.linalg.inv(root).T @ (vectors * values.clip(0)) @ vectors.T @ np.linalg.inv(root)
    mapped = metric.project(features).double().numpy()
    for i, j in pairs[::37]:
        apart = x[i] - x[j]
        assert np.sum((mapped[i] - mapped[j]) ** 2) == pytest.approx(apart @ m @ apart, rel=1e-3, abs=1e-5)


def test_metric_finds_what_belongs_to_a_person():
    train, test = planted(seed=0), planted(seed=1)
    metric = PairMetric(VectorMatcher(), dims=8).fit(*train)

    def accuracy(score, features):
        return rank_metrics(score(features, features), test[1], test[1], test[2], test[2]).mean_ap

    assert accuracy(metric.score, metric.project(test[0])) > 0.6 > 3 * accuracy(VectorMatcher().score, test[0])
    weight = metric.weight.norm(dim=1)
    assert weight[:4].min() > 5 * weight[4:].max()  # the camera and the noise have no say


def test_metric_is_a_matcher_over_another():
    bench = small_benchmark()
    metric = PairMetric(ColourTexture(), dims=20)
    with pytest.raises(RuntimeError, match="fit"):
        metric.encode(bench.query.images[:1].float())
    features = encode(metric.matcher, bench.train.images)
    metric.fit(features, bench.train.ids, bench.train.cams)
    mapped = encode(metric, bench.query.images)
    torch.testing.assert_close(mapped, metric.project(encode(metric.matcher, bench.query.images)))
    gallery = encode(metric, bench.gallery.images)
    torch.testing.assert_close(similarity(metric, mapped, gallery), metric.cosine(mapped, gallery))
    assert evaluate(metric, bench).accuracy(1) >= evaluate(metric.matcher, bench).accuracy(1)


def test_metric_asks_for_no_more_than_there_is():
    features, ids, cams = planted(5)
    assert PairMetric(VectorMatcher(), dims=500).fit(features, ids, cams).weight.shape == (8, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ColourTexture(stripes=0), "stripes.*got 0"),
        (lambda: ColourTexture(bins=(4, 4)), r"three bins.*\(4, 4\)"),
        (lambda: ColourTexture(centre=0), "above 0"),
        (lambda: ColourTexture().encode(torch.zeros(1, 1, 32, 16)), r"colour images.*\(1, 1, 32, 16\)"),
        (lambda: ColourTexture(stripes=9).encode(torch.zeros(1, 3, 8, 8)), "row per stripe"),
        (lambda: PairMetric(VectorMatcher()).fit(torch.rand(4, 3), np.arange(4), np.arange(4)), "4 identities"),
        (lambda: PairMetric(VectorMatcher()).fit(torch.rand(4, 3), np.zeros(4), np.zeros(4)), "no pairs"),
        (lambda: baselines.run_people("sift", 0, baselines.Encoder(small_benchmark())), "unknown row 'sift'.*colour"),
    ],
)
def test_one_clear_error(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ----------------------------------------------------------------------------------------------------- the runner


@pytest.fixture(scope="module")
def encoders():
    return [baselines.Encoder(small_benchmark(cast, name)) for cast, name in ((0.25, "here"), (0.5, "there"))]


@pytest.mark.parametrize("row", baselines.PEOPLE)
def test_run_people_reports_what_it_did(row, encoders, tmp_path):
    result = baselines.run_people(row, 0, *encoders, budget="small")
    assert (result["row"], result["data"]["name"], result["data"]["train_identities"]) == (row, "here", 20)
    assert list(result["metrics"]) == ["here", "there"] and result["data"]["pixels"] == [32, 16]
    for metrics in result["metrics"].values():
        ranks = np.array(metrics["first_rank"])
        assert len(ranks) == 12 and metrics["acc@1"] == pytest.approx(100 * np.mean(ranks == 1))
    choices = baselines.FEATURES[row.removesuffix("-metric")] | (baselines.METRIC if row.endswith("metric") else {})
    settings = result["config"]["settings"]
    assert settings.keys() == choices.keys() and all(value in choices[name] for name, value in settings.items())
    path = results.save(result, tmp_path)
    assert path.name == f"classical-{row}-here-small-s0.json"
    assert results.load("people", tmp_path, row=row)[0]["metrics"] == result["metrics"]


def test_the_rows_are_what_evaluate_says(encoders):
    """The runner's short cuts (remembered features, projection) change nothing."""
    result = baselines.run_people("colour-texture-metric", 0, *encoders)
    settings = dict(result["config"]["settings"])
    bench, dims = encoders[0].benchmark, settings.pop("dims")
    metric = PairMetric(ColourTexture(**settings), dims=dims)
    metric.fit(encode(metric.matcher, bench.train.images), bench.train.ids, bench.train.cams)
    for encoder in encoders:
        judged = evaluate(metric, encoder.benchmark)
        assert judged.first_rank.tolist() == result["metrics"][encoder.benchmark.name]["first_rank"]


def test_nothing_is_chosen_by_the_test_set():
    bench = small_benchmark()
    noise = torch.randint(256, bench.query.images.shape, generator=torch.Generator().manual_seed(0)).byte()
    spoilt = Benchmark("flags", bench.train, Split(noise, bench.query.ids, bench.query.cams), bench.gallery)
    runs = [baselines.run_people("colour-texture-metric", 0, baselines.Encoder(b)) for b in (bench, spoilt)]
    assert runs[0]["config"] == runs[1]["config"]
    assert runs[0]["metrics"]["flags"]["mAP"] > runs[1]["metrics"]["flags"]["mAP"]


def test_images_from_0_to_1_are_refused():
    """All of them would be nearly black."""
    images = people(2, shots=1).images
    with pytest.raises(ValueError, match="multiply them by 255"):
        ColourTexture().encode(images / 255)
    assert ColourTexture().encode(torch.zeros(1, 3, 12, 6)).isfinite().all()  # black is black by any scale
