"""Galleries in shards: the search equals that of the whole, writing goes on after a kill, and errors name the file."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from references import nearest_vectors
from torch.nn import functional as F

from cdimlib import plots_scale
from cdimlib.models.classical import DenseHOG, HOGBoW
from cdimlib.models.colour import PairMetric
from cdimlib.models.matcher import Matcher, VectorMatcher
from cdimlib.models.qaconv import QAConv
from cdimlib.retrieval import VectorIndex, encode, similarity
from cdimlib.retrieval.shards import MANIFEST, Gallery, fingerprint, recall, two_stage, write_gallery


class Agreement(Matcher):
    """A pair matcher in whole numbers, so that ties are ties: how many entries of two features are the same."""

    def score(self, queries, gallery):
        return (queries[:, None] == gallery).flatten(2).sum(2).float()


@pytest.fixture(scope="module")
def qaconv():
    """Maps [3, 2, 2], weights of the two directions that differ."""
    torch.manual_seed(0)
    matcher = QAConv((32, 32), channels=3).eval()
    torch.nn.init.normal_(matcher.fc.weight)
    return matcher


def maps(n, seed=0):
    return F.normalize(torch.randn(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed)), dim=1)


def gallery_of(folder, features, **options):
    return write_gallery(folder, features, np.arange(len(features)) % 7, **{"matcher": "test"} | options)


def first_best(scores, k):
    """The k best by plain sorting, of equals the first in the gallery first."""
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(np.asarray(scores), order, axis=1), order


sizes = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 12), st.integers(1, 40)).filter(
    lambda s: s[3] <= s[1])  # queries, gallery, shard, k  # fmt: skip
BACKENDS = [False, pytest.param(True, marks=pytest.mark.skipif(find_spec("faiss") is None, reason="needs FAISS"))]


class TestSearch:
    @pytest.mark.parametrize("faiss", BACKENDS)
    @settings(max_examples=30)
    @given(sizes, st.integers(1, 3), st.integers(0, 99), st.sampled_from(["euclidean", "cosine", "inner"]),
           st.booleans(), st.sampled_from(["float32", "float16"]))
    @example((2, 12, 1, 12), 2, 0, "euclidean", True, "float32")  # shards of one image
    @example((2, 12, 12, 5), 1, 0, "inner", True, "float32")  # one shard, many ties
    @example((2, 12, 2, 7), 1, 0, "inner", True, "float16")  # k above the shard
    def test_shards_find_what_the_whole_finds(self, faiss, size, dimension, seed, metric, whole, dtype):
        """Exactly, ties included: whole numbers make many. And both find what a loop over all pairs finds."""
        (queries, gallery, shard, k), rng = size, np.random.default_rng(seed)
        draw = (lambda *shape: rng.integers(-1, 2, shape)) if whole else (lambda *shape: rng.normal(size=shape))
        query, stored = (draw(n, dimension).astype(dtype).astype(np.float32) for n in (queries, gallery))
        with tempfile.TemporaryDirectory() as folder:
            sharded = gallery_of(folder, stored, shard=shard, dtype=dtype)
            scores, found = sharded.search(metric, query, k, faiss=faiss)
        expected_scores, expected = VectorIndex(stored, metric, faiss=faiss).search(query, k)
        assert torch.equal(found, expected) and torch.equal(scores, expected_scores)
        if metric != "cosine" or not whole:  # normalising rounds: parallel vectors may come out a little different
            assert found.tolist() == nearest_vectors(query, stored, metric, k)[1].tolist()

    def test_nearly_equal_scores_of_different_shards_keep_their_order(self, tmp_path):
        """Different in double precision, equal in single: the better one comes first, though it is stored last."""
        stored = np.array([[1.0, 2e-5], [1.0, 0.0]], np.float32)
        sharded, query = gallery_of(tmp_path, stored, shard=1), np.array([[3.0, 0.0]], np.float32)
        scores, found = sharded.search("euclidean", query, 2)
        assert scores[0, 0] == scores[0, 1] and found.tolist() == [[1, 0]]
        assert sharded.search("euclidean", query, 1)[1].tolist() == [[1]]

    @settings(max_examples=25)
    @given(sizes, st.integers(1, 12), st.integers(0, 99))
    def test_any_matcher(self, size, chunk, seed):
        (queries, gallery, shard, k), rng = size, np.random.default_rng(seed)
        query, stored = (torch.from_numpy(rng.integers(0, 2, (n, 2, 2, 1))).float() for n in (queries, gallery))
        with tempfile.TemporaryDirectory() as folder:
            scores, found = gallery_of(folder, stored, shard=shard).search(Agreement(), query, k, chunk=chunk)
        expected_scores, expected = first_best(Agreement().score(query, stored), k)
        assert found.tolist() == expected.tolist() and scores.tolist() == expected_scores.tolist()

    @pytest.mark.parametrize("shard", [1, 4, 23, 100])
    def test_qaconv(self, qaconv, shard, tmp_path):
        query, stored = maps(5, 1), maps(23, 2)
        scores, found = gallery_of(tmp_path, stored, shard=shard).search(qaconv, query, 9, chunk=3)
        whole = similarity(qaconv, query, stored)
        expected_scores, expected = first_best(whole, 9)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
        assert found.tolist() == expected.tolist()

    def test_training_mode_changes_neither_scores_nor_the_matcher(self, qaconv, tmp_path):
        sharded, query, before = gallery_of(tmp_path, maps(6), shard=4), maps(2, 1), fingerprint(qaconv)
        expected = sharded.search(qaconv, query, 6)
        try:
            scores, found = sharded.search(qaconv.train(), query, 6)
            assert qaconv.training and fingerprint(qaconv) == before
        finally:
            qaconv.eval()
        assert torch.equal(found, expected[1]) and torch.equal(scores, expected[0])

    def test_a_second_search_of_the_same_gallery(self, tmp_path):
        """Indices of shards are kept, but not mixed up between metrics."""
        stored = torch.randn(30, 3) * torch.arange(1, 31)[:, None]
        sharded, query = gallery_of(tmp_path, stored, shard=8), torch.randn(2, 3)
        for metric in ("euclidean", "inner", "cosine", "euclidean", "inner"):
            assert torch.equal(sharded.search(metric, query, 5)[1], VectorIndex(stored, metric).search(query, 5)[1])

    @pytest.mark.parametrize(("metric", "dtype", "kept"), [("inner", "float32", 3), ("cosine", "float32", 0),
                                                           ("inner", "float16", 0)])  # fmt: skip
    def test_only_indices_that_read_from_the_files_are_kept(self, metric, dtype, kept, tmp_path):
        sharded = gallery_of(tmp_path, torch.randn(30, 3), shard=10, dtype=dtype)
        sharded.search(metric, torch.randn(2, 3), 5)
        indices = [index for index in sharded._open.values() if isinstance(index, VectorIndex)]
        assert len(indices) == kept
        for n, index in enumerate(indices):
            assert np.shares_memory(index.vectors.numpy(), sharded._shard(n))


class TestTwoStages:
    @settings(max_examples=25)
    @given(sizes, st.integers(0, 99))
    def test_a_list_as_long_as_the_gallery_finds_what_scoring_everything_finds(self, qaconv, size, seed):
        queries, n, shard, k = size
        query, stored = maps(queries, seed), maps(n, seed + 1)
        with tempfile.TemporaryDirectory() as folder:
            sides = [gallery_of(Path(folder) / name, f, shard=shard) for name, f in
                     (("vectors", stored.mean((2, 3))), ("maps", stored))]  # fmt: skip
            scores, found = two_stage(sides[0], "cosine", query.mean((2, 3)), sides[1], qaconv, query, k, shortlist=n)
            everything = sides[1].search(qaconv, query, k)
        torch.testing.assert_close(scores, everything[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(similarity(qaconv, query, stored).gather(1, found), scores, atol=1e-6, rtol=0)
        apart = (everything[0][:, 1:] - everything[0][:, :-1]).abs().amin() > 1e-6 if k > 1 else True
        assert not apart or torch.equal(found[:, :-1], everything[1][:, :-1])

    def test_only_the_list_is_scored(self, tmp_path):
        """The list is the nearest vectors; of these the matcher's best, though better ones lie outside."""
        stored = torch.tensor([[0.0, 0], [1, 9], [2, 5], [3, 9]])  # position, kind
        vectors, sides = gallery_of(tmp_path / "v", stored[:, :1], shard=3), gallery_of(tmp_path / "m", stored, shard=2)

        class Kind(Matcher):
            def score(self, queries, gallery):
                return -(queries[:, None, 1] - gallery[:, 1]).abs()

        query = torch.tensor([[0.0, 9], [4, 5]])
        find = lambda n: two_stage(vectors, "euclidean", query[:, :1], sides, Kind(), query, 1, shortlist=n)  # noqa: E731
        assert [find(n)[1].flatten().tolist() for n in (1, 2, 4)] == [[0, 3], [1, 2], [1, 2]]
        assert find(2)[0].tolist() == [[0], [0]]

    @settings(max_examples=25)
    @given(st.integers(1, 4), st.permutations(range(9)), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
    def test_equals_come_in_the_order_of_the_gallery(self, queries, order, k, chunk, seed):
        rng = np.random.default_rng(seed)
        query, stored = (torch.from_numpy(rng.integers(0, 2, (n, 2))).float() for n in (queries, 9))
        with tempfile.TemporaryDirectory() as folder:
            scores, found = gallery_of(folder, stored, shard=4).rescore(
                Agreement(), query, torch.tensor([order] * queries), k, chunk=chunk)  # fmt: skip
        expected_scores, expected = first_best(Agreement().score(query, stored), k)
        assert found.tolist() == expected.tolist() and scores.tolist() == expected_scores.tolist()

    def test_recall_by_hand(self):
        """Best of query 0: 5 and 7, found at places 1 and 3; of query 1: 2 and 9, of which 9 is not in the list."""
        assert recall([[5, 1, 7], [8, 2, 4]], torch.tensor([[7, 5], [2, 9]])).tolist() == [0.25, 0.5, 0.75]
        assert recall([[3, 1, 2, 0]], [[0]]).tolist() == [0, 0, 0, 1]


class TestFiles:
    def test_what_is_written(self, tmp_path):
        features = torch.randn(10, 3, 2, dtype=torch.float64)
        ids, cams = np.array([f"person {n}" for n in range(10)]), np.arange(10) % 3
        gallery = write_gallery(tmp_path / "new" / "gallery", features, ids, cams, matcher="test", shard=4)
        assert sorted(p.name for p in gallery.folder.iterdir()) == [
            "00000.npy", "00001.npy", "00002.npy", "cams.npy", "gallery.json", "ids.npy"]  # fmt: skip
        assert np.load(gallery.folder / "00002.npy").tolist() == features[8:].float().tolist()
        assert len(gallery) == 10 and gallery.shape == (3, 2) and gallery.verify() is None
        assert gallery.ids.tolist() == ids.tolist() and gallery.cams.tolist() == cams.tolist()
        numbers = [9, 0, 4, 4, 3]
        assert torch.equal(gallery.rows(numbers), features[numbers].float())
        assert torch.equal(gallery.rows(torch.tensor(numbers)), gallery.rows(numbers))
        assert write_gallery(tmp_path / "plain", features, ids, matcher="test").cams is None

    def test_half_precision_takes_half_the_bytes(self, tmp_path):
        features = torch.randn(5, 8)
        gallery = gallery_of(tmp_path, features, dtype="float16")
        array = np.load(tmp_path / "00000.npy")
        assert array.dtype == np.float16 and array.nbytes == 5 * 8 * 2
        assert torch.equal(gallery.rows(range(5)), features.half().float())

    def test_features_made_shard_by_shard(self, tmp_path):
        class Pixels(VectorMatcher):
            def encode(self, images):
                return images.flatten(1)

        images, matcher, asked = torch.randint(256, (7, 1, 4, 4), dtype=torch.uint8), Pixels(), []
        make = lambda a, b: asked.append((a, b)) or encode(matcher, images[a:b])  # noqa: E731
        gallery = write_gallery(tmp_path, make, np.arange(7), matcher=matcher, shard=3)
        assert asked == [(0, 3), (3, 6), (6, 7)]
        assert torch.equal(gallery.rows(range(7)), images.flatten(1).float())

    def test_opening_reads_no_features_and_a_row_only_its_shard(self, tmp_path, monkeypatch):
        gallery_of(tmp_path, torch.randn(9, 4), shard=3)
        read, load = [], np.load
        monkeypatch.setattr(np, "load", lambda path, **how: read.append((path.name, how)) or load(path, **how))
        gallery = Gallery(tmp_path, "test")
        assert read == [("ids.npy", {"mmap_mode": "c"})]
        gallery.rows([4, 5])
        assert read[1:] == [("00001.npy", {"mmap_mode": "c"})]
        gallery._shard(0)[:] = 0  # in memory only, never in the file
        assert gallery.verify() is None

    def test_fingerprint(self, qaconv):
        before = fingerprint(qaconv)
        assert before.startswith("QAConv-") and before == fingerprint(qaconv) and fingerprint("by hand") == "by hand"
        with torch.no_grad():
            qaconv.fc.bias += 1e-6
        assert fingerprint(qaconv) != before

    def test_fingerprint_of_what_has_no_weights_at_first(self):
        """Settings count, and what was learned outside of torch; how a score is computed does not."""
        assert fingerprint(DenseHOG(side=64)) != fingerprint(DenseHOG(side=128)) == fingerprint(DenseHOG())
        assert fingerprint(VectorMatcher("cosine")) == fingerprint(VectorMatcher("euclidean"))
        rng, ids, cams = np.random.default_rng(0), np.repeat(np.arange(8), 4), np.tile([0, 1], 16)
        learned = [PairMetric(VectorMatcher(), dims=4).fit(torch.as_tensor(rng.normal(size=(32, 6))), ids, cams)
                   for _ in range(2)]
        assert len({fingerprint(matcher) for matcher in (*learned, PairMetric(VectorMatcher(), dims=4))}) == 3
        described = [rng.normal(size=(40, 144)).astype(np.float32) for _ in range(2)]
        bags = [HOGBoW(words=5, seed=0).fit(described=[patches]) for patches in described]
        assert fingerprint(bags[0]) != fingerprint(bags[1])

    def test_labels_of_a_table(self, tmp_path):
        """A column of text, which pandas holds as objects."""
        gallery = write_gallery(tmp_path, torch.eye(3), np.array(["a", "b", "a"], object), matcher="by hand")
        assert gallery.ids.tolist() == ["a", "b", "a"] and not list(tmp_path.glob(".*"))


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


class Killed(BaseException):
    pass


class TestStoppedWriting:
    features = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))

    def test_a_stop_before_any_step(self, tmp_path, monkeypatch):
        """Stopped before and in the middle of every file in turn: the same files in the end, none made twice."""
        whole, replace, stops = contents(gallery_of(tmp_path / "whole", self.features, shard=3).folder), os.replace, 0
        for last in range(100):
            done, folder = [], tmp_path / str(last)

            def moved(part, path, done=done, last=last):
                if len(done) == last:
                    part.write_bytes(part.read_bytes()[: last % 40])  # not even the part is whole
                    raise Killed
                done.append(Path(path).name)
                replace(part, path)

            monkeypatch.setattr(os, "replace", moved)
            try:
                gallery_of(folder, self.features, shard=3)
                break
            except Killed:
                stops += 1
            monkeypatch.setattr(os, "replace", replace)
            if MANIFEST in done and done.count(MANIFEST) < 4:
                with pytest.raises(ValueError, match=rf"{MANIFEST} has {done.count(MANIFEST)} of 4 shards: call write"):
                    Gallery(folder)
            made = []
            features = lambda a, b, made=made: made.append((a, b)) or self.features[a:b]  # noqa: E731
            write_gallery(folder, features, np.arange(10) % 7, matcher="test", shard=3)
            there, spans = done.count(MANIFEST), [(0, 3), (3, 6), (6, 9), (9, 10)]
            assert made == [(a, a + 1) for a, _ in spans[:there]] + spans[there:] and contents(folder) == whole
        assert stops == 1 + 2 * 4  # ids; and a shard and the manifest, four times

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs fork")
    def test_killed_for_good(self, tmp_path):
        """By the system, in the middle of the third shard's features."""

        def work():
            def features(start, stop):
                if start == 6:
                    os.kill(os.getpid(), signal.SIGKILL)
                return self.features[start:stop]

            write_gallery(tmp_path / "killed", features, np.arange(10) % 7, matcher="test", shard=3)

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert sorted(contents(tmp_path / "killed")) == ["00000.npy", "00001.npy", "gallery.json", "ids.npy"]
        gallery = gallery_of(tmp_path / "killed", self.features, shard=3)
        assert contents(gallery.folder) == contents(gallery_of(tmp_path / "whole", self.features, shard=3).folder)

    @pytest.mark.parametrize("change", [{"matcher": "other"}, {"dtype": "float16"}, {"shard": 4}])
    def test_another_gallery_is_not_written_into_this_one(self, change, tmp_path):
        gallery_of(tmp_path, self.features, shard=3)
        (name, value), = change.items()
        with pytest.raises(ValueError, match=rf"gallery.json is of another gallery \({name} .* there, {value!r} here"):
            gallery_of(tmp_path, self.features, **{"shard": 3} | change)
        with pytest.raises(ValueError, match=r"of another gallery \(labels .*: take another folder"):
            write_gallery(tmp_path, self.features, np.arange(10), matcher="test", shard=3)

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_other_features_are_not_taken_for_those_that_are_there(self, dtype, tmp_path):
        """The same labels and matcher, but other images: neither kept nor mixed with the old ones."""
        other, ids = self.features.flip(0), np.arange(10)

        def stopped(features):
            def some(start, stop):
                if start == 3:
                    raise Killed
                return features[start:stop]

            return write_gallery(tmp_path, some, ids, matcher="test", shard=3, dtype=dtype)

        with pytest.raises(Killed):
            stopped(self.features)
        with pytest.raises(ValueError, match="00000.npy holds other features than those given"):
            stopped(other)
        with pytest.raises(ValueError, match="00000.npy holds other features than those given"):
            write_gallery(tmp_path, other, ids, matcher="test", shard=3, dtype=dtype)
        whole = write_gallery(tmp_path, self.features, ids, matcher="test", shard=3, dtype=dtype)
        for again in (self.features, lambda a, b: self.features[a:b] * (1 + 1e-6)):
            assert len(write_gallery(tmp_path, again, ids, matcher="test", shard=3, dtype=dtype)) == len(whole) == 10


def shorter(path):
    path.write_bytes(path.read_bytes()[:-4])


def other_numbers(path):
    np.save(path, np.load(path).view(np.int32))


def other_shape(path):
    np.save(path, np.load(path).reshape(-1))


def edited(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": [4]}))


DAMAGES = {  # file, what happens to it, what the message says
    "missing shard": ("00001.npy", Path.unlink, "00001.npy is missing, not 164 bytes: call write_gallery"),
    "truncated shard": ("00001.npy", shorter, "00001.npy is 160 bytes, not 164 bytes: call write_gallery"),
    "missing labels": ("ids.npy", Path.unlink, "ids.npy is not what was written .*No such file.*: delete it, then"),
    "truncated labels": ("ids.npy", shorter, "ids.npy is not what was written"),
    "numbers of another kind": ("00001.npy", other_numbers, r"00001.npy .*it holds int32 \(3, 3\), not float32"),
    "numbers of another shape": ("00001.npy", other_shape, r"00001.npy .*holds float32 \(9,\), not float32 \(3, 3\)"),
    "missing manifest": (MANIFEST, Path.unlink, f"{MANIFEST} cannot be read .*give a folder that write_gallery"),
    "truncated manifest": (MANIFEST, shorter, f"{MANIFEST} cannot be read .*delete this one and write it anew"),
    "edited manifest": (MANIFEST, edited, f"{MANIFEST} cannot be read .its digest does not fit"),
}


class TestErrors:
    @pytest.fixture
    def gallery(self, tmp_path):
        return gallery_of(tmp_path / "g", torch.randn(10, 3), shard=3)

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damaged_files(self, damage, gallery):
        name, change, message = DAMAGES[damage]
        change(gallery.folder / name)
        with pytest.raises(ValueError, match=message):
            Gallery(gallery.folder).search("inner", torch.zeros(1, 3), 2)

    def test_a_damaged_shard_is_written_again(self, gallery):
        features, before = gallery.rows(range(10)), contents(gallery.folder)
        shorter(gallery.folder / "00001.npy")
        (gallery.folder / "00002.npy").unlink()
        gallery_of(gallery.folder, features, shard=3)
        assert contents(gallery.folder) == before

    def test_changed_numbers_are_found_by_their_digest(self, gallery):
        path = gallery.folder / "00002.npy"
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
        with pytest.raises(ValueError, match=r"00002.npy is not what was written: delete it"):
            Gallery(gallery.folder).verify()

    @pytest.mark.parametrize("name", ["ids", "cams"])
    def test_changed_labels_are_found_by_their_digest(self, name, tmp_path):
        write_gallery(tmp_path, torch.randn(4, 3), np.arange(4), np.arange(4), matcher="test").verify()
        np.save(tmp_path / f"{name}.npy", np.array([1, 0, 2, 3]))
        with pytest.raises(ValueError, match=f"{name}.npy is not what was written: delete it"):
            Gallery(tmp_path).verify()

    def test_rows(self, gallery):
        assert gallery.rows([]).shape == (0, 3)
        for mask in (np.arange(10) < 3, [[0, 1]], [0.5]):
            with pytest.raises(ValueError, match="a list of whole numbers; got (bool|int64|float64).*np.flatnonzero"):
                gallery.rows(mask)

    def test_an_image_named_twice(self, gallery):
        with pytest.raises(ValueError, match="listed must be gallery numbers .* row 1 names an image twice"):
            gallery.rescore(VectorMatcher(), torch.zeros(2, 3), [[0, 1], [2, 2]], 1)
        with pytest.raises(ValueError, match="best must be gallery numbers .* row 0 names an image twice"):
            recall([[1, 3]], [[1, 1]])

    def test_two_stages_of_a_small_gallery(self, gallery):
        query = torch.randn(2, 3)
        _, found = two_stage(gallery, "euclidean", query, gallery, VectorMatcher(), query, 3)
        assert found.tolist() == gallery.search("euclidean", query, 3)[1].tolist()
        with pytest.raises(ValueError, match="a short list of 2 cannot give the best 3"):
            two_stage(gallery, "euclidean", query, gallery, VectorMatcher(), query, 3, shortlist=2)
        with pytest.raises(ValueError, match="k = 11, but the gallery has 10"):
            two_stage(gallery, "euclidean", query, gallery, VectorMatcher(), query, 11)

    def test_another_matcher(self, gallery, qaconv):
        assert len(Gallery(gallery.folder, "test")) == 10
        with pytest.raises(ValueError, match=r"gallery.json holds features of test, not of QAConv-\w{12}: load the"):
            Gallery(gallery.folder, qaconv)

    @pytest.mark.parametrize(
        ("queries", "k", "message"),
        [(torch.zeros(1, 3), 11, r"k = 11, but the gallery has 10 images .*g\): ask for 1 to 10"),
         (torch.zeros(1, 3), 0, "ask for 1 to 10"),
         (torch.zeros(2, 4), 1, r"queries are \[2, 4\], features in .*g \[10, 3\]: encode both with the same"),
         (torch.zeros(0, 3), 1, r"queries are \[0, 3\]")],
    )  # fmt: skip
    def test_queries(self, queries, k, message, gallery):
        for by in ("inner", VectorMatcher()):
            with pytest.raises(ValueError, match=message):
                gallery.search(by, queries, k)

    def test_short_lists(self, gallery):
        query = torch.zeros(2, 3)
        with pytest.raises(ValueError, match="k = 3, but the short list has 2 images"):
            gallery.rescore(VectorMatcher(), query, [[0, 1], [2, 3]], 3)
        with pytest.raises(ValueError, match="1 short lists for 2 queries"):
            gallery.rescore(VectorMatcher(), query, [[0, 1]], 1)
        with pytest.raises(ValueError, match=r"g has no image -1: its 10 are numbered from 0"):
            gallery.rescore(VectorMatcher(), query, [[0, 1], [2, -1]], 1)

    def test_galleries_of_different_images(self, gallery, tmp_path):
        other = write_gallery(tmp_path / "h", torch.randn(10, 3), np.arange(10)[::-1].copy(), matcher="test")
        with pytest.raises(ValueError, match=r"g and .*h hold different images"):
            two_stage(gallery, "inner", torch.zeros(1, 3), other, VectorMatcher(), torch.zeros(1, 3), 1, shortlist=2)

    def test_scores_that_cannot_be_ranked(self, gallery):
        with pytest.raises(ValueError, match="VectorMatcher gave scores that are not a number"):
            gallery.search(VectorMatcher(), torch.full((1, 3), torch.nan), 1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"dtype": "int8"}, "need dtype float32 or float16.* got 'int8'"), ({"shard": 0}, "shard >= 1"),
         ({"ids": []}, "and an image"), ({"ids": np.arange(4)}, "as many; got {'features': 5, 'ids': 4}"),
         ({"cams": np.arange(4)}, "'ids': 5, 'cams': 4}"),
         ({"features": torch.full((5, 2), 7e4), "dtype": "float16"}, r"images 0 to 1 must be \[2, 2\] .* in float16"),
         ({"features": lambda a, b: torch.zeros(b - a, 2 + (a > 0))}, r"images 2 to 3 must be \[2, 2\] .*got \[2, 3\]"),
         ({"features": lambda a, b: torch.zeros(1, 2)}, r"images 0 to 1 must be \[2, 2\] .*got \[1, 2\]")],
    )  # fmt: skip
    def test_writing(self, change, message, tmp_path):
        given = dict(features=torch.zeros(5, 2), ids=np.arange(5), matcher="test", shard=2) | change
        with pytest.raises(ValueError, match=message):
            write_gallery(tmp_path, given.pop("features"), given.pop("ids"), **given)
        shutil.rmtree(tmp_path)


class TestFigures:
    """Marks are what was measured, lines what is extrapolated; axes are logarithmic."""

    pytestmark = pytest.mark.usefixtures("closed")

    def test_growth(self):
        ax = plots_scale.growth(
            {"a": ([10, 100], [2.0, 11.0])}, {"a": (1.0, 0.1), "b": np.square}, ylabel="seconds", sizes=(10, 1e6),
            levels={"a minute": 60},
        ).axes[0]  # fmt: skip
        line, marks, curve, level = ax.lines
        np.testing.assert_allclose(line.get_ydata(), 1 + 0.1 * line.get_xdata())
        assert line.get_xdata()[[0, -1]].round().tolist() == [10, 1e6]
        np.testing.assert_allclose(curve.get_ydata(), curve.get_xdata() ** 2)
        assert marks.get_linestyle() == "None" and marks.get_xydata().tolist() == [[10, 2], [100, 11]]
        assert level.get_ydata()[0] == 60 and [t.get_text() for t in ax.texts] == ["a minute"]
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["a", "b"]

    def test_short_lists(self):
        ax = plots_scale.short_lists({"a": [20, 50, 100], "b": [100, 100]}, ylabel="%").axes[0]
        assert [line.get_xydata().tolist() for line in ax.lines] == [
            [[1, 20], [2, 50], [3, 100]], [[1, 100], [2, 100]]]  # fmt: skip
        assert ax.get_xscale() == "log" and ax.get_xlim() == (1, 3)

    def test_needed_lengths(self):
        ax = plots_scale.needed_lengths([100, 1000], {"a": [20, 90]}, {"a": ([15, 80], [30, 95])}).axes[0]
        assert ax.lines[0].get_xydata().tolist() == [[100, 20], [1000, 90]]
        assert ax.lines[1].get_xydata().tolist() == [[100, 100], [1000, 1000]]  # the whole gallery
        assert [t.get_text() for t in ax.get_yticklabels()] == ["10", "20", "50", "100", "200", "500", "1,000"]
        assert len(ax.collections) == 1 and [t.get_text() for t in ax.get_xticklabels()] == ["100", "1,000"]
