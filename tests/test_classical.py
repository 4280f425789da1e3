"""HOG, bag of words, deep features and rankSVM, and the runner that chooses their settings on validation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.feature import hog

from cdimlib import baselines, results
from cdimlib.data import PHOTO, SKETCH, Benchmark, Split
from cdimlib.models.classical import DeepFeatures, DenseHOG, HOGBoW, RankSVM
from cdimlib.models.colour import PairMetric
from cdimlib.models.matcher import VectorMatcher
from cdimlib.models.sketchanet import SketchANet
from cdimlib.retrieval import encode, evaluate, rank_folders, rank_metrics, similarity


def drawings(count: int, *, jitter: float = 0.0, seed: int = 0, side: int = 64, lines: int = 6) -> torch.Tensor:
    """Random polylines, one per object: uint8 [N, 1, side, side]. ``jitter`` pixels move every corner."""
    out = np.full((count, 1, side, side), 255, np.uint8)
    for i in range(count):
        corners = np.random.default_rng([seed, i]).uniform(8, side - 8, (lines, 2))
        corners += jitter * np.random.default_rng([seed, i, 1]).standard_normal(corners.shape)
        for (y0, x0), (y1, x1) in pairwise(corners):
            t = np.linspace(0, 1, 4 * side)
            y, x = (np.clip(np.rint(a + (b - a) * t).astype(int), 0, side - 2) for a, b in ((y0, y1), (x0, x1)))
            out[i, 0, y, x] = out[i, 0, y + 1, x] = 0
    return torch.from_numpy(out)


def small_benchmark(train: int = 24, test: int = 10) -> Benchmark:
    """Drawings and shaky copies of them, with judgements that prefer the true photo."""
    photos, sketches = drawings(train + test), drawings(train + test, jitter=1.5)
    ids = np.arange(train + test)
    cut = lambda images, keep, cam: Split(images[keep], ids[keep], np.full(len(ids[keep]), cam))  # noqa: E731
    first, last = slice(0, train), slice(train, None)
    rng = np.random.default_rng(0)
    others = np.stack([rng.permutation(np.delete(np.arange(train), a))[:9] for a in range(train)])
    judged = np.stack([np.broadcast_to(np.arange(train)[:, None], others.shape), others], axis=2)  # [train, 9, 2]
    return Benchmark(
        "drawings", Split.join([cut(photos, first, PHOTO), cut(sketches, first, SKETCH)]),
        cut(sketches, last, SKETCH), cut(photos, last, PHOTO), triplets=judged, categories=("drawings",),
    )


# ------------------------------------------------------------------------------------------------------------- HOG


def test_dense_hog_is_scikit_image_on_the_ink():
    images = drawings(2, side=128).float()
    expected = [hog(1 - image[0].numpy() / 255, 9, (16, 16), (2, 2)) for image in images]
    features = DenseHOG(blur=0).encode(images)
    assert features.shape == (2, 7 * 7 * 2 * 2 * 9)
    torch.testing.assert_close(features, torch.tensor(np.array(expected)).float(), atol=1e-5, rtol=1e-4)
    assert DenseHOG(side=64, cells=4, block=1, orientations=6).encode(images).shape == (2, 4 * 4 * 6)


def test_dense_hog_bins_are_directions():
    stripes = torch.full((1, 1, 64, 64), 255.0)
    stripes[..., ::8] = 0  # vertical lines: all gradients are horizontal, so they fall into the first bin
    hog_of = DenseHOG(side=64, cells=4, block=1, blur=0)
    upright, lying = (hog_of.encode(s).reshape(16, 9) for s in (stripes, stripes.transpose(2, 3)))
    assert (upright[:, 0] > 0.9).all() and (upright[:, 1:] == 0).all()
    assert (lying[:, 4] > 0.9).all() and (lying[:, [0, 1, 2, 3, 5, 6, 7, 8]] == 0).all()


def test_dense_hog_finds_shaky_copies_and_knows_no_parameters():
    matcher = DenseHOG()
    photos, sketches = drawings(12), drawings(12, jitter=1.0)
    scores = similarity(matcher, encode(matcher, sketches), encode(matcher, photos))
    assert rank_metrics(scores, np.arange(12), np.arange(12)).accuracy(1) == 100.0
    assert not list(matcher.parameters())


def test_dense_hog_blur_forgives_a_shift():
    image = drawings(1, side=128).float()
    shifted = image.roll(2, dims=3)
    apart = [float(torch.dist(*DenseHOG(blur=blur).encode(torch.cat([image, shifted])))) for blur in (0, 1 / 64)]
    assert apart[1] < apart[0]


def test_rank_folders_needs_no_training(tmp_path):
    for folder, images in (("sketches", drawings(4, jitter=1.0)), ("photos", drawings(4))):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(tmp_path / folder / f"{i}.png")
    ranking = rank_folders(tmp_path / "sketches", tmp_path / "photos")
    assert [best[0][0] for best in ranking.top(1).values()] == ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DenseHOG(side=8, cells=8), "at least 16"),
        (lambda: DenseHOG(block=9), "blocks of 1 to 8"),
        (lambda: DenseHOG(side=60, cells=16), "16 cells do not divide a side of 60: take side=48"),
        (lambda: DenseHOG().encode(torch.zeros(1, 3, 64, 64)), r"grey drawings.*\(1, 3, 64, 64\)"),
        (lambda: HOGBoW(patch=30, stride=8), "multiple of stride"),
        (lambda: HOGBoW(words=1), "at least two words"),
        (lambda: HOGBoW(words=50).fit(torch.full((2, 1, 64, 64), 255.0)), "0 patches with ink in 2 images.*50 words"),
        (lambda: DeepFeatures(SketchANet(input_size=99), "fc8"), "unknown tap 'fc8'"),
        (lambda: RankSVM(DenseHOG(), c=0), "c > 0"),
        (lambda: RankSVM(DenseHOG()).fit(*torch.zeros(3, 1, 4)), "one triplet is too few"),
        (lambda: RankSVM(DenseHOG()).fit(*torch.ones(3, 5, 4)), "nothing to learn"),
        (lambda: RankSVM(DenseHOG()).fit(torch.ones(5, 4), torch.ones(5, 4), torch.ones(5, 3)), r"\[T, D\]"),
    ],
)
def test_one_clear_error(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ---------------------------------------------------------------------------------------------------- bag of words


def test_bag_of_words_forgets_where():
    one = torch.full((1, 1, 128, 128), 255.0)
    one[..., 40:72, 40:72] = drawings(1, side=32, lines=4).float()
    moved = one.roll((16, 8), dims=(2, 3))  # whole strides, so the patches are the same ones elsewhere
    bag = HOGBoW(words=10).fit(drawings(20, side=128).float())
    here, there = bag.encode(one), bag.encode(moved)
    torch.testing.assert_close(here, there)
    assert torch.dist(*DenseHOG().encode(torch.cat([one, moved]))) > 1


def test_bag_of_words_counts_each_patch_with_ink_once():
    images = torch.cat([drawings(6).float(), torch.full((1, 1, 64, 64), 255.0)])
    bag = HOGBoW(words=12, seed=3).fit(images)
    described = bag.describe(images)
    assert [len(d) > 0 for d in described] == [True] * 6 + [False]
    histogram = bag.encode(images)
    assert histogram.shape == (7, 12)
    assert histogram.norm(dim=1).tolist() == pytest.approx([1.0] * 6 + [0.0], abs=1e-5)
    for row, patches in zip(histogram[:6], described, strict=False):
        nearest = np.linalg.norm(patches[:, None] - bag.vocabulary.numpy()[None], axis=2).argmin(axis=1)
        counts = np.array([(nearest == word).sum() for word in range(12)], float)
        np.testing.assert_allclose(row, counts / np.linalg.norm(counts), atol=1e-5)
    bag.root = True
    np.testing.assert_allclose(bag.encode(images)[5], np.sqrt(counts / counts.sum()), atol=1e-5)
    again = HOGBoW(words=12, seed=3).fit(described=described)
    torch.testing.assert_close(again.encode(images), HOGBoW(words=12, seed=3).fit(images).encode(images))


def test_unfitted_says_so():
    with pytest.raises(RuntimeError, match="no vocabulary yet: call fit"):
        HOGBoW().encode(drawings(1).float())
    with pytest.raises(RuntimeError, match="no weights yet: call fit"):
        RankSVM(DenseHOG()).score(torch.zeros(1, 3), torch.zeros(1, 3))


# --------------------------------------------------------------------------------------------------- deep features


@pytest.mark.parametrize(("layer", "width"), [("fc6", 512), ("fc7", 256), ("pool5", 256)])
def test_deep_features_are_a_layer_of_unit_length(layer, width):
    net = SketchANet(input_size=99).eval()
    images = torch.randn(2, 1, 99, 99)
    features = DeepFeatures(net, layer).encode(images)
    expected = net.stages(images)[layer].flatten(1)
    assert features.shape == (2, width) and not features.requires_grad
    torch.testing.assert_close(features, expected / expected.norm(dim=1, keepdim=True))


# --------------------------------------------------------------------------------------------------------- rankSVM


def planted(count: int, seed: int, dimensions: int = 30):
    """Triplets [T, D] ordered by a distance that knows only the first five dimensions, and that weighting."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(dimensions)
    weight[:5] = torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5])
    query, a, b = torch.randn(3, count, dimensions, generator=generator)
    nearer = ((query - a).square() @ weight < (query - b).square() @ weight)[:, None]
    return (query, torch.where(nearer, a, b), torch.where(nearer, b, a)), weight


def right(matcher: VectorMatcher, triplets) -> float:
    """Share of triplets whose preferred photo scores higher."""
    query, preferred, other = triplets
    return float((matcher.score(query, preferred).diag() > matcher.score(query, other).diag()).float().mean())


@pytest.mark.parametrize("prior", [0.0, 3.0])
def test_ranksvm_learns_a_planted_weighting(prior):
    triplets, weight = planted(600, seed=0)
    svm = RankSVM(VectorMatcher(), c=10, prior=prior, max_iter=5000).fit(*triplets)
    unseen, _ = planted(400, seed=1)
    assert right(VectorMatcher(), unseen) < 0.8 < 0.93 < right(svm, unseen)
    assert np.corrcoef(svm.weight, weight)[0, 1] > 0.97


def test_ranksvm_closed_form_is_the_explicit_sum():
    triplets, _ = planted(50, seed=2, dimensions=7)
    svm = RankSVM(VectorMatcher()).fit(*triplets)
    query, gallery = torch.randn(4, 7), torch.randn(6, 7)
    one = lambda q, p: -sum(w * (a - b) ** 2 for w, a, b in zip(svm.weight, q, p, strict=True))  # noqa: E731
    expected = [[one(q, p) for p in gallery] for q in query]
    torch.testing.assert_close(svm.score(query, gallery), torch.tensor(expected), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="the gallery 6, the weights 7"):
        svm.score(torch.zeros(1, 7), torch.zeros(1, 6))


def test_ranksvm_with_a_strong_prior_is_plain_distance():
    triplets, _ = planted(60, seed=3)
    svm = RankSVM(VectorMatcher(), c=1e-4, prior=100, max_iter=20_000).fit(*triplets)
    query, gallery = torch.randn(5, 30), torch.randn(9, 30)
    plain = VectorMatcher().score(query, gallery)
    rows = torch.cat([svm.score(query, gallery).flatten()[None], -plain.flatten().square()[None]])
    assert torch.corrcoef(rows)[0, 1] > 0.9999  # weights differ by a percent, so near ties may change places
    assert svm.weight.std() < 0.01 * svm.weight.mean()


def test_ranksvm_is_a_matcher_over_another():
    bench = small_benchmark()
    svm = RankSVM(DenseHOG(cells=4))
    features = encode(svm, bench.train.images)
    torch.testing.assert_close(features, DenseHOG(cells=4).encode(bench.train.images.float()))
    sketch, preferred, other = baselines.draw_triplets(bench.train, bench.triplets, 200, 1.0, seed=0)
    assert (bench.train.cams[sketch] == SKETCH).all() and (bench.train.cams[preferred] == PHOTO).all()
    assert (bench.train.ids[sketch] == bench.train.ids[preferred]).all()  # these judges are never wrong
    svm.fit(features[sketch], features[preferred], features[other])
    assert evaluate(svm, bench).accuracy(1) >= 90.0


# ---------------------------------------------------------------------------------------------------- the runner


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr(baselines, "TRIPLETS", 100)
    monkeypatch.setattr(baselines, "SVM", {"hard_ratio": (1.0, 0.5), "c": (0.1,), "prior": (0.0, 3.0)})
    choices = {"dense-hog": {"cells": (4, 8)}, "hog-bow": {"words": (8, 16)}, "isn-deep": {"layer": ("fc6",)}}
    monkeypatch.setattr(baselines, "FEATURES", choices)


@pytest.mark.parametrize("row", baselines.ROWS)
def test_run_classical_reports_what_it_did(row, small_grid):
    bench = small_benchmark()
    net = {"net": SketchANet(input_size=99), "prepare": lambda x: torch.nn.functional.interpolate(x.float(), (99, 99))}
    result = baselines.run_classical(row, "drawings", 0, bench, **(net if row.startswith("isn") else {}))
    assert (result["row"], result["train_identities"], result["test_queries"]) == (row, 24, 10)
    ranks = np.array(result["first_ranks"])
    assert result["acc1"] == pytest.approx(100 * np.mean(ranks == 1))
    assert result["acc10"] == pytest.approx(100 * np.mean(ranks <= 10)) == 100.0
    assert result["mean_ap"] == pytest.approx(100 * np.mean(1 / ranks))
    assert result["validation"]["queries"] == 6  # a quarter of 24
    base = row.removesuffix("-ranksvm")
    choices = baselines.FEATURES[base] | (baselines.SVM if row.endswith("ranksvm") else {})
    assert result["settings"].keys() == choices.keys()
    assert all(value in choices[name] for name, value in result["settings"].items())
    if row == "dense-hog":
        assert result["acc1"] >= 80.0


def test_nothing_is_chosen_by_the_test_set(small_grid):
    bench = small_benchmark()
    noise = torch.randint(256, bench.query.images.shape, generator=torch.Generator().manual_seed(0)).byte()
    spoilt = Benchmark(
        "spoilt", bench.train, Split(noise, bench.query.ids, bench.query.cams), bench.gallery, triplets=bench.triplets,
    )
    honest, blind = (baselines.run_classical("hog-bow-ranksvm", "drawings", 1, b) for b in (bench, spoilt))
    assert (honest["settings"], honest["validation"]) == (blind["settings"], blind["validation"])
    assert honest["first_ranks"] != blind["first_ranks"]


def test_only_the_network_sees_its_prepare(small_grid):
    bench = small_benchmark()
    encoder = baselines.Encoder(bench, net=SketchANet(input_size=99), prepare=lambda images: 0 * images.float())
    shared = baselines.run_classical("dense-hog", "drawings", 0, bench, encoder=encoder)
    assert shared["first_ranks"] == baselines.run_classical("dense-hog", "drawings", 0, bench)["first_ranks"]


def test_runs_become_one_result(small_grid, tmp_path):
    bench = small_benchmark()
    runs = [baselines.run_classical("dense-hog", category, 0, bench) for category in ("shoes", "chairs")]
    path = results.save(baselines.as_result(runs, commit="abc"), tmp_path)
    (result,) = results.load("midlevel-fusion", tmp_path, row="dense-hog", budget="classical", commit="abc")
    assert path.name == "classical-dense-hog-drawings-classical-s0.json"
    assert result["metrics"].keys() == {"shoes", "chairs"}
    assert results.spread([result], "chairs")[0] == runs[1]["acc1"]
    with pytest.raises(ValueError, match="only the categories may differ"):
        baselines.as_result([*runs, runs[0] | {"seed": 1}])


def test_without_judgements_the_true_match_is_preferred():
    bench = small_benchmark()
    sketch, preferred, other = baselines.draw_triplets(bench.train, None, 100, 1.0, seed=0)
    ids = bench.train.ids
    assert (ids[sketch] == ids[preferred]).all() and (ids[other] != ids[preferred]).all()


def test_runner_errors():
    bench = small_benchmark(8, 4)
    with pytest.raises(ValueError, match="unknown row 'sift': choose from hog-bow"):
        baselines.run_classical("sift", "drawings", 0, bench)
    with pytest.raises(ValueError, match="need net="):
        baselines.run_classical("isn-deep", "drawings", 0, bench)


def test_what_is_fitted_can_be_saved_and_loaded():
    """The learned tensors come back into a matcher that has not learned anything, also inside another module."""
    torch.manual_seed(0)
    features, ids, cams = torch.randn(40, 12), np.arange(40) // 4, np.arange(40) % 2
    fitted = PairMetric(VectorMatcher(), dims=5).fit(features, ids, cams)
    ranker = RankSVM(VectorMatcher()).fit(*torch.rand(3, 20, 12))
    words = HOGBoW(words=3)
    words.vocabulary = torch.rand(3, 7)
    for learned, fresh in ((fitted, PairMetric(VectorMatcher(), dims=5)), (ranker, RankSVM(VectorMatcher())),
                           (words, HOGBoW(words=3))):  # fmt: skip
        outer = torch.nn.ModuleList([fresh])
        outer.load_state_dict({f"0.{name}": value for name, value in learned.state_dict().items()})
        assert learned.state_dict().keys() == fresh.state_dict().keys() != set()
        assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in learned.state_dict().items())
    assert torch.equal(fitted.project(features), fresh_project(fitted, features))


def fresh_project(fitted, features):
    again = PairMetric(VectorMatcher(), dims=5)
    again.load_state_dict(fitted.state_dict())
    return again.project(features)
