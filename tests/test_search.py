"""Search: encode once, score in chunks, rank two folders."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from references import nearest_vectors
from torch import nn

from cdimlib.data import PHOTO, SKETCH, Benchmark, Split
from cdimlib.models.matcher import MultiView, VectorMatcher
from cdimlib.models.midlevel import SketchFusion
from cdimlib.retrieval import VectorIndex, encode, evaluate, rank_folders, similarity
from cdimlib.retrieval.search import read_folder


class Small(VectorMatcher):
    """A network with dropout and batch norm, so that the mode it is in can be seen in its output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Dropout(0.5))

    def encode(self, images):
        return self.net(images)


class Broken(Small):
    def encode(self, images):
        raise RuntimeError("out of order")


@pytest.fixture
def images():
    return torch.randint(256, (11, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class TestEncode:
    @pytest.mark.parametrize("mode", [True, False])
    def test_mode_is_eval_inside_and_restored_outside(self, images, mode):
        matcher = Small().train(mode)
        features = encode(matcher, images)
        assert matcher.training is mode and all(m.training is mode for m in matcher.modules())
        with torch.no_grad():
            assert torch.equal(features, matcher.eval().encode(images.float()))

    def test_mode_is_restored_after_a_failure(self, images):
        matcher = Broken().train()
        with pytest.raises(RuntimeError, match="out of order"):
            encode(matcher, images)
        assert matcher.training

    @pytest.mark.parametrize("batch_size", [1, 3, 11, 64])
    def test_batch_size_does_not_matter(self, images, batch_size):
        torch.testing.assert_close(encode(Small(), images, batch_size=batch_size), encode(Small(), images))

    def test_order_and_preparation(self, images):
        seen = []

        def prepare(batch):
            seen.append((len(batch), batch.dtype))
            return batch.float() / 255

        features = encode(Small(), images, prepare, batch_size=4)
        assert seen == [(4, torch.uint8), (4, torch.uint8), (3, torch.uint8)]
        one = encode(Small(), images[9:10], lambda batch: batch.float() / 255)
        torch.testing.assert_close(features[9:10], one)

    def test_no_gradient_is_kept(self, images):
        assert not encode(Small(), images).requires_grad

    def test_nothing_to_encode(self, images):
        with pytest.raises(ValueError, match="no images to encode"):
            encode(Small(), images[:0])


class TestSimilarity:
    @pytest.mark.parametrize("chunk", [1, 2, 5, 7, 4096])
    def test_chunk_does_not_matter(self, images, chunk):
        features = encode(Small(), images)
        whole = Small().score(features[:4], features[4:])
        torch.testing.assert_close(similarity(Small(), features[:4], features[4:], chunk=chunk), whole)
        assert whole.shape == (4, 7)

    def test_views_are_chunked_too(self, images):
        matcher = MultiView(Small(), lambda batch: torch.stack([batch, batch.flip(-1)], dim=1))
        features = encode(matcher, images)
        assert features.shape == (11, 2, 10)
        whole = matcher.score(features[:4], features[4:])
        torch.testing.assert_close(similarity(matcher, features[:4], features[4:], chunk=3), whole)

    def test_one_score_a_pair(self, images):
        class Narrow(Small):
            def score(self, queries, gallery):
                return super().score(queries, gallery)[:, :1]

        features = encode(Small(), images)
        with pytest.raises(ValueError, match=r"Narrow.score gave \[4, 1\] for 4 queries and 7 gallery images"):
            similarity(Narrow(), features[:4], features[4:])

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, images, dtype, metric):
        features, matcher = encode(Small(), images).to(dtype), VectorMatcher(metric)
        torch.testing.assert_close(similarity(matcher, features[:4], features[4:]),
                                   similarity(matcher, features[:4].float(), features[4:].float()))

    def test_scores_where_the_queries_are(self):
        """No GPU is needed to see it: the meta device stands for one."""
        met = []

        class Places(VectorMatcher):
            def score(self, queries, gallery):
                met.append((queries.device.type, gallery.device.type))
                return torch.zeros(len(queries), len(gallery))

        assert similarity(Places(), torch.zeros(2, 3, device="meta"), torch.zeros(5, 3), chunk=3).shape == (2, 5)
        assert met == [("meta", "meta")] * 2

    def test_nothing_to_score(self, images):
        with pytest.raises(ValueError, match="nothing to score: 0 queries, 11 gallery images"):
            similarity(Small(), torch.zeros(0, 10), encode(Small(), images))


BACKENDS = [False, pytest.param(True, marks=pytest.mark.skipif(find_spec("faiss") is None, reason="needs FAISS"))]


@pytest.mark.parametrize("faiss", BACKENDS)
class TestVectorIndex:
    """Torch and FAISS against a loop that compares with every vector; ties and doubles included."""

    @settings(max_examples=100)
    @given(
        st.integers(1, 6), st.integers(1, 40), st.integers(1, 3), st.integers(1, 45), st.integers(0, 99),
        st.sampled_from(["euclidean", "cosine", "inner"]), st.booleans(), st.booleans(),
    )
    def test_agrees_with_the_loop(self, faiss, queries, gallery, dimension, k, seed, metric, whole, small):
        """Whole numbers make ties, of which the first in the gallery must come first, at place k too."""
        rng = np.random.default_rng(seed)
        draw = (lambda *shape: rng.integers(-2, 3, shape)) if whole else (lambda *shape: rng.normal(size=shape))
        query, stored = draw(queries, dimension).astype(np.float32), draw(gallery, dimension).astype(np.float32)
        if metric == "cosine" and whole:  # normalising rounds, and parallel vectors may come out a little different
            query, stored = query / 2, rng.normal(size=stored.shape).astype(np.float32)
        index = VectorIndex(stored, metric, faiss=faiss)
        index.BLOCK, index.SPARE = (1, 1) if small else (index.BLOCK, index.SPARE)
        scores, found = index.search(query, k)
        expected_scores, expected = nearest_vectors(query, stored, metric, k)
        assert scores.shape == found.shape == (queries, min(k, gallery))
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
        if metric != "cosine" or not whole:
            assert found.tolist() == expected.tolist()

    def test_same_ranking_as_the_whole_matrix(self, faiss, images):
        matcher = Small()
        features = encode(matcher, images)
        whole = similarity(matcher, features[:4], features[4:])
        scores, found = VectorIndex(features[4:], faiss=faiss).search(features[:4], 3)
        best = whole.topk(3, dim=1)
        assert torch.equal(found, best.indices)
        torch.testing.assert_close(scores, best.values, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(("metric", "offset", "spread"), [("euclidean", 100, 0.1), ("euclidean", 10, 0.05),
                                                              ("inner", 10, 0.001), ("cosine", 10, 0.001)])
    def test_far_from_the_origin(self, faiss, metric, offset, spread):
        """Where the rounding of single precision is larger than the differences: still what the loop finds."""
        vectors = torch.randn(400, 128, generator=torch.Generator().manual_seed(0)) * spread + offset
        index = VectorIndex(vectors[5:], metric, faiss=faiss)
        stored, query = index.vectors, index._checked(vectors[:5], metric)
        _, found = index.search(vectors[:5], 10)
        rough = (query @ stored.T - index.shift).topk(10, dim=1).indices
        kind = "inner" if metric == "cosine" else metric  # of vectors made unit once
        assert found.tolist() == nearest_vectors(query.numpy(), stored.numpy(), kind, 10)[1].tolist()
        assert found.tolist() != rough.tolist(), "this must be a case that single precision gets wrong"

    def test_a_blank_query_among_many(self, faiss, monkeypatch):
        """Everything ties with it: it alone is compared with everything, in pieces, and the others are not."""
        vectors, queries = torch.randn(3000, 16), torch.randn(20, 16)
        queries[7] = 0
        asked = []
        monkeypatch.setattr(VectorIndex, "_all", lambda self, query, k, one=VectorIndex._all: (
            asked.append(query.norm().item()), one(self, query, k))[1])
        monkeypatch.setattr(VectorIndex, "BLOCK", 16 * 700)
        scores, found = VectorIndex(vectors, "cosine", faiss=faiss).search(queries, 10)
        assert asked == [0] and found[7].tolist() == list(range(10)) and (scores[7] == 0).all()
        rest = torch.arange(20) != 7
        unit = (nn.functional.normalize(v, dim=1).numpy() for v in (queries[rest], vectors))
        assert found[rest].tolist() == nearest_vectors(*unit, "inner", 10)[1].tolist()

    def test_itself_is_found_at_distance_zero(self, faiss):
        """Far from the origin |q|^2 - 2 q.g + |g|^2 is not zero in single precision."""
        vectors = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) + 100
        scores, found = VectorIndex(vectors, faiss=faiss).search(vectors, 1)
        assert found[:, 0].tolist() == list(range(50)) and (scores == 0).all()


class TestVectorIndexChoices:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_one_query_of_a_large_gallery_goes_to_faiss_if_it_is_there(self, monkeypatch, threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        asked = []
        monkeypatch.setattr(VectorIndex, "PAYS", 6)
        monkeypatch.setattr(VectorIndex, "_best",
                            lambda *given, best=VectorIndex._best: asked.append(given[-1]) or best(*given))
        for size, queries, faiss in ((6, 1, None), (6, 2, None), (5, 1, None), (6, 1, False), (5, 2, True)):
            if find_spec("faiss") or not faiss:
                VectorIndex(torch.eye(8)[:size], faiss=faiss).search(torch.eye(8)[:queries])
        there = find_spec("faiss") is not None
        assert asked == [there and threads == 1, False, False, False] + [True] * there

    def test_without_faiss(self, monkeypatch):
        monkeypatch.setattr("cdimlib.retrieval.search.find_spec", lambda name: None)
        monkeypatch.setattr(VectorIndex, "PAYS", 1)
        assert VectorIndex(torch.eye(6)).search(torch.eye(6)[:1], 2)[1].tolist() == [[0, 1]]
        with pytest.raises(ValueError, match="pip install faiss-cpu"):
            VectorIndex(torch.eye(6), faiss=True)

    @pytest.mark.parametrize(
        ("given", "message"),
        [(torch.zeros(0, 4), r"at least one; got shape \(0, 4\)"), (torch.zeros(4), r"\[N, D\]"),
         (torch.full((2, 2), torch.nan), "finite")],
    )  # fmt: skip
    def test_vectors(self, given, message):
        with pytest.raises(ValueError, match=message):
            VectorIndex(given)
        with pytest.raises(ValueError, match=message):
            VectorIndex(torch.zeros(1, 4)).search(given)

    def test_other_errors(self):
        with pytest.raises(ValueError, match="not 'l2'"):
            VectorIndex(torch.zeros(1, 4), "l2")
        with pytest.raises(ValueError, match=r"queries \(2, 3\), gallery \(1, 4\)"):
            VectorIndex(torch.zeros(1, 4)).search(torch.zeros(2, 3))
        with pytest.raises(ValueError, match=r"k = 0 \(at least 1\?\)"):
            VectorIndex(torch.zeros(1, 4)).search(torch.zeros(2, 4), 0)


class TestEvaluate:
    def test_against_a_loop(self):
        """Rank of each sketch's own photo, counted one by one."""
        generator = torch.Generator().manual_seed(0)
        photos = torch.randint(256, (9, 1, 99, 99), generator=generator, dtype=torch.uint8)
        noise = torch.randint(256, (9, 1, 99, 99), generator=generator, dtype=torch.uint8)
        sketches = ((photos.int() + 2 * noise.int()) // 3).to(torch.uint8)
        ids = np.arange(9)
        bench = Benchmark("toy", *[Split(x, ids, np.full(9, c)) for x, c in
                                   ((photos, PHOTO), (sketches, SKETCH), (photos, PHOTO))])  # fmt: skip
        torch.manual_seed(0)
        matcher = SketchFusion("conv5", input_size=99).eval()
        metrics = evaluate(matcher, bench, lambda batch: batch.float() / 255, batch_size=4)
        with torch.no_grad():
            query, gallery = matcher.encode(sketches.float() / 255), matcher.encode(photos.float() / 255)
        ranks = []
        for q in range(9):
            distances = [(query[q] - gallery[g]).norm().item() for g in range(9)]
            ranks.append(1 + sum(d < distances[q] for d in distances))
        assert metrics.first_rank.tolist() == ranks and len(set(ranks)) > 1
        assert metrics.accuracy(1) == pytest.approx(100 * ranks.count(1) / 9)
        assert metrics.mean_ap == pytest.approx(np.mean([1 / r for r in ranks]))


def draw(path, shape, shift=0, background="white", mode="RGB"):
    """A circle, a square, a triangle or a bar in black."""
    image = Image.new(mode, (90, 90), background)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = 20 + shift, 20 + shift, 70 + shift, 70 + shift
    ink = (0, 0, 0, 255) if mode == "RGBA" else "black"
    if shape == "circle":
        pen.ellipse((left, top, right, bottom), outline=ink, width=3)
    elif shape == "square":
        pen.rectangle((left, top, right, bottom), outline=ink, width=3)
    elif shape == "triangle":
        pen.polygon([(left, bottom), (right, bottom), (45 + shift, top)], outline=ink, width=3)
    else:
        pen.line((left, 45 + shift, right, 45 + shift), fill=ink, width=3)
    image.save(path)


@pytest.fixture
def folders(tmp_path):
    """Four drawings, and the same four moved by two pixels in another order of names."""
    sketches, photos = tmp_path / "sketches", tmp_path / "photos"
    sketches.mkdir()
    photos.mkdir()
    for number, shape in enumerate(("triangle", "circle", "bar", "square")):
        draw(sketches / f"{shape}.png", shape, shift=2)
        draw(photos / f"{number}_{shape}.bmp", shape)
    (photos / "notes.txt").write_text("not an image")
    return sketches, photos


class TestFolders:
    def test_three_lines_rank_two_folders(self, folders):
        """The default matcher needs no training."""
        ranking = rank_folders(*folders)
        top = ranking.top(4)
        assert list(top) == ["bar.png", "circle.png", "square.png", "triangle.png"]
        for name, ranked in top.items():
            scores = [score for _, score in ranked]
            assert scores == sorted(scores, reverse=True) and len(ranked) == 4
            assert ranked[0][0].endswith(f"{name.removesuffix('.png')}.bmp")

    def test_with_a_matcher_and_its_preparation(self, folders):
        class Pixels(VectorMatcher):
            def encode(self, images):
                return images.flatten(1)

        ranking = rank_folders(*folders, Pixels(), lambda images: images.float() / 255, size=30)
        assert ranking.similarity.shape == (4, 4) and ranking.query_images.shape == (4, 1, 30, 30)
        q, g = ranking.query_images.float() / 255, ranking.gallery_images.float() / 255
        for i in range(4):
            for j in range(4):
                expected = -(q[i] - g[j]).pow(2).sum().sqrt().item()
                assert ranking.similarity[i, j] == pytest.approx(expected, rel=1e-4)
        assert [name for name, _ in ranking.top(1)["circle.png"]] == ["1_circle.bmp"]

    def test_show_draws_the_ranked_pictures(self, folders):
        pytest.importorskip("cdimlib.plots")
        import matplotlib.pyplot as plt

        figure = rank_folders(*folders).show(k=3, rows=2)
        shown = [ax for ax in figure.axes if ax.images]
        assert len(shown) == 2 * (1 + 3)
        plt.close(figure)

    def test_missing_and_empty_folders(self, folders, tmp_path):
        sketches, _ = folders
        with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder: give the folder that holds"):
            rank_folders(sketches, tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match=r"holds no image \(.png, .*one level too high"):
            rank_folders(sketches, tmp_path)

    def test_a_file_that_is_no_image(self, folders):
        sketches, photos = folders
        (photos / "0_broken.png").write_bytes((photos / "1_circle.bmp").read_bytes()[:40])
        with pytest.raises(ValueError, match=r"0_broken.png cannot be read as an image .*remove or replace it"):
            rank_folders(sketches, photos)

    def test_transparent_paper_is_white(self, tmp_path):
        draw(tmp_path / "a.png", "circle", background=(0, 0, 0, 0), mode="RGBA")
        draw(tmp_path / "b.png", "circle")
        paths, images = read_folder(tmp_path, size=90)
        assert [p.name for p in paths] == ["a.png", "b.png"] and images.dtype == torch.uint8
        assert torch.equal(images[0], images[1]) and images[0, 0, 0, 0] == 255 and images.min() == 0

    def test_colour(self, tmp_path):
        Image.new("RGB", (10, 20), (10, 200, 30)).save(tmp_path / "green.png")
        _, images = read_folder(tmp_path, size=4, channels=3)
        assert images.shape == (1, 3, 4, 4) and images[0, :, 2, 2].tolist() == [10, 200, 30]
        assert read_folder(tmp_path, size=4)[1].shape == (1, 1, 4, 4)


class TestMode:
    def test_a_matcher_in_training_mode_scores_as_in_eval_mode_and_stays_as_it_was(self):
        from cdimlib.models.qaconv import QAConv

        torch.manual_seed(0)
        matcher = QAConv((64, 32), backbone="squeezenet1_1", tap="res2", channels=4).train()
        maps = torch.randn(6, 4, *matcher.shape[1:])
        before = {name: value.clone() for name, value in matcher.state_dict().items()}
        whole, parts = similarity(matcher, maps[:3], maps), similarity(matcher, maps[:3], maps, chunk=2)
        torch.testing.assert_close(whole, parts)
        assert matcher.training and all(torch.equal(before[k], v) for k, v in matcher.state_dict().items())
        torch.testing.assert_close(whole, similarity(matcher.eval(), maps[:3], maps))
