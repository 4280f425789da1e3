"""The toy shop: the same pictures everywhere, two domains, disjoint identities, honest lookalikes and judgements."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cdimlib.data import PHOTO, SKETCH, load
from cdimlib.data.strokes import Pen, densify, inside, rasterise
from cdimlib.data.toyshop import CATALOGUE, CATEGORIES, JUDGE_NOISE, TEST, ToyShop, parameter_distance, shop_for

TESTS = Path(__file__).resolve().parent
SHOP = ToyShop(train=40, test=8, pixels=64)


def digest(images: torch.Tensor) -> str:
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("domain", [PHOTO, SKETCH])
def test_a_picture_does_not_depend_on_the_batch(category, domain):
    numbers = np.array([0, 1, 5, TEST, TEST + 3])
    vectors = SHOP.objects(category, numbers)
    together = SHOP.render(category, vectors, domain, numbers)
    assert together.dtype == torch.uint8 and together.shape == (5, 1, 64, 64)
    in_twos = SHOP.render(category, vectors, domain, numbers, batch_size=2)
    alone = torch.cat([SHOP.render(category, vectors[i : i + 1], domain, numbers[i : i + 1]) for i in range(5)])
    assert torch.equal(together, in_twos) and torch.equal(together, alone)
    assert torch.equal(together, SHOP.render(category, vectors[::-1], domain, numbers[::-1]).flip(0))
    bigger = replace(SHOP, train=80, test=30)  # nor on how many objects the shop has
    assert np.array_equal(bigger.objects(category, numbers), vectors)


def digests(train: int, test: int, pixels: int) -> dict[str, str]:
    """Category -> digest of all its drawings."""
    found = {}
    for category in CATEGORIES:
        bench = ToyShop(train=train, test=test, pixels=pixels, lookalikes=0.0).benchmark(category)
        found[category] = digest(torch.cat([bench.train.images, bench.query.images, bench.gallery.images]))[:16]
    return found


def test_the_same_pictures_on_every_machine():
    """Digests of small drawings: a change of the drawings is a change of every number measured on them."""
    assert digests(2, 2, 48) == DIGESTS


def test_the_same_pictures_without_what_this_processor_is_good_at():
    """NumPy and its BLAS as on an old machine, whose sines and products differ in their last digit."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    old = {"NPY_DISABLE_CPU_FEATURES": " ".join(extensions), "ATEN_CPU_CAPABILITY": "default",
           "OPENBLAS_CORETYPE": "Nehalem", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}  # fmt: skip
    script = "import test_toyshop; print(test_toyshop.digests(60, 20, 64))"
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", script], env={**os.environ, **old}, capture_output=True,
                         text=True, timeout=300)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ast.literal_eval(ran.stdout) == digests(60, 20, 64)


def test_another_seed_is_another_shop():
    numbers = np.arange(3)
    other = replace(SHOP, seed=1)
    assert not np.array_equal(SHOP.objects("shoes", numbers), other.objects("shoes", numbers))


@pytest.mark.parametrize("category", CATEGORIES)
def test_drawings_are_dark_lines_on_white_in_two_domains(category):
    numbers = np.arange(16)
    vectors = SHOP.objects(category, numbers)
    photo, sketch = (SHOP.render(category, vectors, d, numbers).float() for d in (PHOTO, SKETCH))
    for images in (photo, sketch):
        assert (images.flatten(1).median(1).values > 245).all()  # mostly paper
        assert (images.flatten(1).min(1).values < 60).all()  # with dark lines
        share = (images < 128).float().mean(dim=(1, 2, 3))
        assert (share > 0.01).all() and (share < 0.3).all()
        border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
        assert (border > 200).all()  # and nothing cut off
    assert ((photo - sketch).abs().mean(dim=(1, 2, 3)) > 5).all()


def test_knobs_do_what_they_say():
    numbers = np.arange(12)
    still = ToyShop(pixels=64, distortion=0, dropped=0, viewpoint=0, broken=0, texture=0, lookalikes=0)
    vectors = still.objects("handbags", numbers)
    clean = still.render("handbags", vectors, PHOTO, numbers).float()

    def away(**knobs):  # mean change of the sketch from the clean drawing
        images = replace(still, **knobs).render("handbags", vectors, SKETCH, numbers).float()
        return float((images - clean).abs().mean())

    assert away() < away(distortion=0.5) < away(distortion=1) < away(distortion=2)
    assert away() < away(viewpoint=2)

    def ink(domain, **knobs):
        images = replace(still, **knobs).render("handbags", vectors, domain, numbers).float()
        return float((255 - images).mean())

    assert ink(SKETCH, dropped=0.8) < ink(SKETCH, dropped=0.3) < ink(SKETCH)
    assert ink(PHOTO, broken=2) < ink(PHOTO)
    assert ink(PHOTO, texture=1) > ink(PHOTO)
    assert torch.equal(replace(still, texture=2, broken=2).render("handbags", vectors, SKETCH, numbers),
                       still.render("handbags", vectors, SKETCH, numbers))  # the edge detector's knobs, not the hand's


@pytest.mark.parametrize("category", CATEGORIES)
def test_lookalikes_differ_in_one_detail_that_can_be_seen(category):
    shop = ToyShop(pixels=64, lookalikes=1.0, distortion=0, dropped=0, viewpoint=0, broken=0, texture=0)
    kind, numbers = CATALOGUE[category], np.arange(16)
    vectors = shop.objects(category, numbers)
    images = shop.render(category, vectors, SKETCH, np.zeros(16, int)).float()
    for i in numbers[numbers % 4 > 0]:
        base = i - i % 4
        changed = np.flatnonzero(vectors[i] != vectors[base])
        assert len(changed) == 1 and kind.parameters[changed[0]] in kind.details
        name = kind.parameters[changed[0]]
        assert getattr(kind.decode(vectors[i]), name) != getattr(kind.decode(vectors[base]), name)
        assert ((images[i] - images[base]).abs() > 60).sum() > 15  # pixels
    free = replace(shop, lookalikes=0.0).objects(category, numbers)
    assert all((free[i] != free[i - i % 4]).all() for i in numbers[numbers % 4 > 0])


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_choice_of_every_detail_is_drawn(category):
    """No two options of a detail give the same strokes (some may be hidden behind a flap, but not always)."""
    kind = CATALOGUE[category]
    rng = np.random.default_rng(0)
    vectors = rng.random((6, len(kind.parameters)))
    for name, options in kind.details.items():
        place = kind.parameters.index(name)
        looks = []
        for option in range(len(options)):
            prints = []
            for vector in vectors:
                vector = vector.copy()
                vector[place] = (option + 0.5) / len(options)
                pen = Pen(yaw=kind.yaw, pitch=kind.pitch)
                kind.draw(pen, kind.decode(vector))
                dense = densify([pen.strokes])
                prints.append(np.round(dense.xy[dense.seen], 6).tobytes())
            looks.append(tuple(prints))
        for a in range(len(options)):
            for b in range(a):
                different = sum(x != y for x, y in zip(looks[a], looks[b], strict=True))
                assert different >= 3, f"{name}: {options[a]} and {options[b]} look alike"


def test_benchmark_has_disjoint_identities_and_two_domains():
    bench = load("toy-shop", size="tiny", pixels=32)
    assert bench.categories == CATEGORIES and bench.triplets is None
    assert len(bench.train) == 2 * 3 * 12 and len(bench.query) == len(bench.gallery) == 3 * 8
    assert not set(bench.train.ids) & set(bench.query.ids)
    assert np.array_equal(bench.query.ids, bench.gallery.ids)
    assert set(bench.query.cams) == {SKETCH} and set(bench.gallery.cams) == {PHOTO}
    one = bench.category("chairs")
    alone = load("toy-shop/chairs", size="tiny", pixels=32)
    assert torch.equal(one.query.images, alone.query.images)
    held = alone.with_validation(0.2)
    assert set(held.query.ids) == set(held.gallery.ids) and not set(held.query.ids) & set(held.train.ids)


def test_simulated_judgements_look_like_those_of_qmul():
    assert JUDGE_NOISE > 0
    shop = ToyShop(train=100)
    wins = []
    for category in CATEGORIES:
        vectors = shop.objects(category, shop.numbers("train"))
        judged = shop.judgements(category, vectors)
        assert judged.shape == (100, 135, 2) and judged.dtype == np.int64
        anchors = np.arange(100)[:, None]
        has_true = (judged == anchors[..., None]).any(2)
        assert (has_true.sum(1) == 27).all()  # 9 of 45 pairs, three annotators
        for a in range(0, 100, 17):
            assert len(np.unique(judged[a])) == 10
            pairs = {tuple(sorted(p)) for p in judged[a].tolist()}
            assert len(pairs) == 45 and all(x != y for x, y in pairs)
        wins.append((judged[..., 0] == anchors)[has_true].mean())
        distance = parameter_distance(CATALOGUE[category], vectors)
        near, far = (distance[anchors, judged[..., k]] for k in (0, 1))
        assert (near < far).mean() > 0.6  # the preferred photo is nearer, mostly
    assert 0.91 < np.mean(wins) < 0.955
    assert ToyShop(train=9).judgements("shoes", shop.objects("shoes", np.arange(9))) is None


def test_occlusion_and_ink():
    square = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
    points = np.array([(0, 0), (0.6, 0), (0.49, -0.49), (0, 0.51)])
    assert inside(points, square).tolist() == [True, False, True, False]
    pen = Pen()
    pen.line([(-0.9, 0.1), (0.9, 0.1)], smooth=False)
    pen.solid(square[:-1], smooth=False)
    dense = densify([pen.strokes])
    line = dense.stroke == 0
    assert np.array_equal(dense.seen[line], np.abs(dense.xy[line, 0]) > 0.5)
    image = rasterise(dense, 1, 65, np.array([1.0]))[0, 0]
    assert image[29, 3:14].max() < 120 and image[29, 20:45].min() == 255  # y = 0.1 is row 29: hidden in the square
    assert image[48, 20:45].max() < 120 and image[3:12].min() == 255


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("toy-shop/shoes", {"distorsion": 1}, "unknown option distorsion of the toy shop: choose from size, train"),
        ("toy-shop/hats", {}, "unknown benchmark 'toy-shop/hats'.*toy-shop/shoes"),
        ("toy-shop", {"size": "huge"}, "size must be one of tiny, demo, full"),
        ("toy-shop", {"size": "tiny", "lookalikes": 1.5}, "lookalikes is a probability"),
        ("toy-shop", {"size": "tiny", "distortion": -1}, "distortion must lie between 0 and 4"),
        ("toy-shop", {"size": "tiny", "pixels": 8}, "pixels must lie between 32 and 512"),
        ("toy-shop", {"train": 1}, "needs 2 to 1,000,000 objects"),
        ("toy-shop", {"seed": -1}, r"seed must be a whole number, 0 or more \(got -1\)"),
        ("toy-shop", {"category": "shoes"}, "unknown option category of the toy shop"),
        ("qmul/shoes", {"size": "tiny"}, "unknown option size of benchmark 'qmul/shoes': it takes none"),
    ],
)
def test_wrong_options_are_named(name, options, says):
    with pytest.raises(ValueError, match=says):
        load(name, **options)


def test_size_follows_the_profile(monkeypatch):
    for profile, train in (("smoke", 12), ("demo", 120), ("full", 400)):
        monkeypatch.setenv("CDIM_PROFILE", profile)
        assert shop_for().train == train
    assert shop_for(ToyShop(train=7), test=5) == ToyShop(train=7, test=5)
    assert shop_for("tiny", seed=3) == ToyShop(train=12, test=8, seed=3)


DIGESTS = {"shoes": "7167cd416ff241ef", "chairs": "25b3e2c1f79e32e5", "handbags": "e87f8600301adcea"}
