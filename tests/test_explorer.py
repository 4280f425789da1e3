"""The explorer's data: rankings are the library's, scores taken apart add up, the output is small and repeatable."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cdimlib import experiments, explorer
from cdimlib.data import Split, load
from cdimlib.data.augment import normalise
from cdimlib.data.toyshop import ToyShop
from cdimlib.explorer import Entry, Explorer
from cdimlib.models.classical import DenseHOG
from cdimlib.models.colour import ColourTexture, PairMetric
from cdimlib.models.matcher import VectorMatcher
from cdimlib.models.qaconv import PooledMaps, QAConv
from cdimlib.retrieval import encode, rank_metrics, similarity

PIXELS = (64, 32)
MAPS = dict(backbone="resnet18", tap="res3", channels=8)


class Means(VectorMatcher):
    """Mean colours; the explorer does not know how to take them apart."""

    def encode(self, images):
        return images.mean(dim=(2, 3))


def matchers(bench) -> list[Entry]:
    colour = ColourTexture()
    metric = PairMetric(colour, dims=10).fit(encode(colour, bench.train.images), bench.train.ids, bench.train.cams)
    nets = [net(PIXELS, **MAPS).eval() for net in (PooledMaps, QAConv)]
    return [Entry("vector", "the vector", nets[0], normalise), Entry("pairs", "QAConv", nets[1], normalise),
            *(Entry(k, k, m) for k, m in (("colour", colour), ("metric", metric), ("mean", Means())))]  # fmt: skip


@pytest.fixture(scope="module")
def town():
    """A tiny town, its matchers and the scene made of them."""
    torch.manual_seed(0)
    bench = load("toytown-plaza", train=4, test=3, distractors=1, pixels=PIXELS)
    entries = matchers(bench)
    return bench, entries, people(bench, entries)


def people(bench, entries) -> dict:
    return explorer.town_scene("People", bench, entries, shown=3, start=("vector", "pairs"), sharp=1)


def unpack(text: str, kind) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_schema(town):
    """What explorer.js reads is there, of the shapes that it takes for granted, and is JSON."""
    bench, _, scene = town
    n, asked, gallery, top = 3, len(bench.query), len(scene["gallery"]), scene["top"]
    assert json.loads(json.dumps(scene)) == scene
    assert [q["id"] for q in scene["queries"]] == sorted(set(bench.query.ids))[:n] and scene["asked"] == asked
    assert [len(k["levels"]) for k in scene["knobs"]] == [4, 4] and len(scene["shown"]) == n
    assert [m["kind"] for m in scene["matchers"]] == ["heat", "lines", "heat", "heat", "none"]
    sizes = {"vector": 2 * 32, "pairs": explorer.LINES * 4, "colour": 2 * 6, "metric": 2 * 6, "mean": 0}
    for m in scene["matchers"]:
        lists, ranks = unpack(m["lists"], "<u2"), unpack(m["ranks"], "<u2")
        assert len(lists) == 16 * n * (top + 1) == len(unpack(m["scores"], "<f4")) and lists.max() < gallery
        assert len(ranks) == 16 * asked and len(unpack(m["parts"], np.int8)) == len(lists) * sizes[m["key"]]
    page = Image.open(io.BytesIO(base64.b64decode(scene["sheet"]["image"])))
    height, width = scene["sheet"]["size"]
    assert (height, width) == PIXELS and page.format == "WEBP"
    assert page.size == (width * scene["sheet"]["columns"], height * scene["sheet"]["rows"])
    assert scene["sheet"]["columns"] * scene["sheet"]["rows"] >= 16 * n + gallery


def test_lists_are_the_rankings_of_the_library(town):
    """At the easiest setting, drawn anew: lists in the order of the library's similarity, ranks as it judges them."""
    bench, entries, scene = town
    query, shots = bench.query, bench.meta["shots"]
    told = {k: shots["query"][k] for k in ("view", "phase", "passer", "place", "light")}
    images = bench.meta["town"].render(shots["query"]["person"], query.cams, **told)
    query, top = replace(query, images=images), scene["top"]
    visits = np.unique([shots["gallery"]["person"], bench.gallery.cams], axis=1, return_index=True)[1]
    gallery = bench.gallery.where(visits)
    for m, entry in zip(scene["matchers"], entries, strict=True):
        features = [encode(entry.matcher, s.images, entry.prepare) for s in (query, gallery)]
        scores = similarity(entry.matcher, *features).numpy()
        judged = rank_metrics(scores, query.ids, gallery.ids, query.cams, gallery.cams)
        assert np.array_equal(unpack(m["ranks"], "<u2")[: len(query)], judged.first_rank)
        lists = unpack(m["lists"], "<u2").reshape(16, 3, top + 1)[0]
        values = unpack(m["scores"], "<f4").reshape(16, 3, top + 1)[0]
        for q, found, value in zip(scene["shown"], lists, values, strict=True):
            own = (gallery.ids == query.ids[q]) & (gallery.cams == query.cams[q])
            assert not own[found].any() and np.allclose(value, scores[q, found], atol=1e-5)
            assert np.allclose(value[:top], np.sort(scores[q, ~own])[::-1][:top], atol=1e-5)
            first = judged.first_rank[q]
            assert gallery.ids[found[top]] == query.ids[q] and (first > top or found[first - 1] == found[top])


def test_the_own_camera_is_left_out_and_ties_go_against_us():
    query, gallery = (Split(torch.zeros(len(i), 3, 2, 2, dtype=torch.uint8), np.array(i), np.array(c))
                      for i, c in (([7], [0]), ([7, 7, 1, 2], [0, 1, 1, 1])))  # fmt: skip
    found, first = explorer.ranked(np.array([[0.9, 0.5, 0.5, 0.8]]), query, gallery, top=3)
    assert found.tolist() == [[3, 2, 1, 1]] and first.tolist() == [3]


def rises_with(values, scores) -> bool:
    values, scores = torch.as_tensor(values), torch.as_tensor(scores)
    return bool((values[:, None] - values[None])[(scores[:, None] - scores[None]) > 1e-4].min() > -1e-5)


def drawings():
    run = experiments.SketchRun("ours", size=81)
    net = experiments.build(run).eval()
    return Entry("fusion", "fusion", net, lambda x: run.input.centre(run.input.on_canvas(x))), Entry(
        "hog", "HOG", DenseHOG(metric="cosine"))  # fmt: skip


def test_located_vectors_add_up_to_the_score(town):
    """Inner products of the sums rank as the matcher does, and so do the cells that are drawn."""
    bench, entries, _ = town
    shop = ToyShop(train=2, test=9, pixels=48)
    drawn = shop.render("shoes", shop.objects("shoes", range(9)), 0, range(9))
    for entry, images in [*((e, bench.gallery.images[:12]) for e in entries), *((e, drawn) for e in drawings())]:
        parts = explorer.located(entry, images)
        if entry.key in ("pairs", "mean"):
            assert parts is None
            continue
        cells, grid = parts
        assert cells.shape[1] in (grid[0] * grid[1], grid[0] * grid[1] + (entry.key == "fusion"))
        features = encode(entry.matcher, images, entry.prepare)
        scores = similarity(entry.matcher, features[:1], features)[0]
        whole = cells.sum(1)
        assert torch.allclose(whole.norm(dim=1), torch.ones(len(whole)), atol=1e-4)
        assert rises_with(whole @ whole[0], scores)
        lifts = explorer.heat(cells[0], cells, np.arange(len(cells))).sum(-1)  # [G, 2]
        products = (whole @ whole[0]).numpy()
        assert np.allclose(lifts, (products - products.mean())[:, None], atol=1e-4)


def test_maps_of_more_places_than_a_byte_can_name():
    bench = load("toytown-plaza", train=4, test=3, distractors=1, pixels=(128, 136))
    entry = Entry("pairs", "QAConv", QAConv((128, 136), **MAPS).eval(), normalise)
    with pytest.raises(ValueError, match="pairs: maps of 16 x 17 have more than the 256 places .* use smaller images"):
        explorer.town_scene("People", bench, [entry], shown=3, start=("pairs", "pairs"), sharp=1)


def test_local_matches_add_up_to_the_logit():
    """All of them (none left out, none negative left out) are the logit minus its mean over the gallery."""
    torch.manual_seed(0)
    net = QAConv(PIXELS, **MAPS).eval()
    torch.nn.init.uniform_(net.fc.weight, 0.01, 0.1)
    maps = torch.nn.functional.normalize(torch.randn(9, *net.shape), dim=1)
    query, gallery, cells = maps[0], maps[1:], net.shape[1] * net.shape[2]
    logits = net.logits(query[None], gallery)[0]
    for g, best in enumerate(explorer.local_matches(net, query, gallery, range(8))):
        pair = net.correspondences(query, gallery[g])
        usual = torch.stack([net.correspondences(query, other).similarity for other in gallery]).mean(0)
        lift = pair.weight * (pair.similarity - usual)
        assert torch.allclose(lift.sum(), logits[g] - logits.mean(), atol=1e-4)
        places = torch.stack([at[:, 0] * net.shape[2] + at[:, 1] for at in (pair.query, pair.gallery)], 1)
        total = {}
        for place, value in zip(places.tolist(), lift.tolist(), strict=True):
            total[tuple(place)] = total.get(tuple(place), 0) + value
        expected = sorted(total.values(), reverse=True)[: explorer.LINES]
        assert best.shape == (explorer.LINES, 4) and best[:, :2].max() < cells
        assert np.allclose(best[:, 3], np.clip(expected, 0, None), atol=1e-5)
        a, b = best[0, :2].astype(int)
        assert np.isclose(best[0, 2], query.flatten(1)[:, a] @ gallery[g].flatten(1)[:, b], atol=1e-5)


def test_it_begins_with_the_largest_disagreement(town):
    _, _, scene = town
    ranks = [unpack(m["ranks"], "<u2").reshape(4, 4, -1)[1, 1][scene["shown"]].astype(int) for m in scene["matchers"]]
    assert scene["start"]["matchers"] == [0, 1] and scene["start"]["knobs"] == [1, 1]
    assert scene["start"]["query"] == np.abs(1 / ranks[0] - 1 / ranks[1]).argmax()


def test_the_output_is_whole_small_and_repeatable(town, tmp_path):
    """One piece of HTML that fetches nothing; made twice it is the same, byte for byte."""
    bench, entries, scene = town
    made, few = Explorer(scene), bench.query.where([0, 1])
    whole = bench.gallery
    twice = [explorer.scene("x", "x", {"a": ["b"]}, [few], whole, entries, [1], words=("?", "?" * len(whole)),
                            pictures=([few.images[1:]], whole.images), start=("mean", "pairs")) for _ in "ab"]
    assert twice[0] == twice[1] and len(made._repr_html_()) < 1_000_000
    outside = re.sub(r"http://www\.w3\.org/2000/svg", "", made.html)
    assert "http" not in outside and "ID_OF_THIS" not in outside and "import" not in outside.replace("!important", "")
    assert made.html.count("</script>") == 2 and str(len(made.html))[-3:] in repr(made)
    page = made.save(tmp_path / "x.html", "A page")
    text = page.read_text(encoding="utf8")
    assert text.startswith("<!doctype html>") and made.html in text


def test_shoes():
    shop = ToyShop(train=2, test=9, pixels=48)
    fusion, hog = drawings()
    scene = explorer.shop_scene("Shoes", shop, "shoes", [hog, fusion], shown=2, start=("hog", "fusion"))
    assert [m["cells"] for m in scene["matchers"]] == [49, 3 * 3 + 1] and scene["noun"] == "the photo of this shoe"
    ranks = unpack(scene["matchers"][0]["ranks"], "<u2").reshape(4, 4, 9)
    assert (ranks[0, 0] == 1).mean() > (ranks[3, 3] == 1).mean()  # a traced drawing is easier than a wild one


def test_errors(town, monkeypatch):
    bench, entries, scene = town
    few = Split(bench.gallery.images[:5], bench.gallery.ids[:5], bench.gallery.cams[:5])
    with pytest.raises(ValueError, match="unknown matcher 'vectors': choose from vector, pairs, colour"):
        explorer.scene("x", "x", {}, [], few, entries, [0], pictures=(), words=(), start=("vectors", "pairs"))
    with pytest.raises(ValueError, match=r"1 settings for \[1\] levels, 5 images for lists of 7"):
        explorer.scene("x", "x", {"a": "b"}, [bench.query], few, entries, [0], pictures=(), words=(), start=("mean",))
    with pytest.raises(ValueError, match="at least one is needed"):
        Explorer()
    monkeypatch.setattr(explorer, "LIMIT", 10_000)
    with pytest.raises(ValueError, match="at most 10,000 bytes"):
        Explorer(scene)
