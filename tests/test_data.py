"""Benchmarks, and the QMUL reader and its download on fabricated files."""

from __future__ import annotations

import functools
import hashlib
import http.server
import itertools
import json
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from cdimlib.data import PHOTO, SKETCH, Benchmark, DataNotFound, Split, load, names, option, pool, qmul, words_of
from cdimlib.data.paths import cache_dir, find_root


def pairs(count, start=0, group=None, size=8):
    """A split with one photo and one sketch of each of ``count`` identities; every image is filled with its index."""
    images = torch.arange(2 * count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, size, size).clone()
    ids = np.tile(np.arange(start, start + count), 2)
    groups = None if group is None else np.full(2 * count, group)
    return Split(images, ids, np.repeat([PHOTO, SKETCH], count), groups=groups)


class TestBenchmark:
    def test_split_checks_itself(self):
        with pytest.raises(ValueError, match=r"uint8 tensor \[N, C, H, W\]; got torch.float32"):
            Split(torch.zeros(1, 1, 2, 2), np.zeros(1))
        with pytest.raises(ValueError, match=r"Split.ids has 2 entries for 1 images"):
            Split(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), np.zeros(2))

    def test_where(self):
        split = pairs(4)
        by_mask, by_index = split.where(split.cams == SKETCH), split.where(np.array([4, 5, 6, 7]))
        assert torch.equal(by_mask.images, by_index.images) and by_mask.images[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
        assert by_mask.ids.tolist() == [0, 1, 2, 3] and by_mask.times is None

    @staticmethod
    def one(name, count):
        train, test = pairs(count), pairs(3, start=count)
        query, gallery = test.where(test.cams == SKETCH), test.where(test.cams == PHOTO)
        return Benchmark(name, train, query, gallery, categories=(name,))

    def test_pool_and_take_apart(self):
        whole = pool("shop", [self.one("shoes", 5), self.one("chairs", 7)])
        assert whole.categories == ("shoes", "chairs") and len(whole.train) == 24 and len(whole.query) == 6
        shoes, chairs = whole.category("shoes"), whole.category("chairs")
        assert not set(shoes.train.ids) & set(chairs.train.ids) and not set(shoes.query.ids) & set(chairs.query.ids)
        assert not set(whole.train.ids) & set(whole.query.ids)
        assert torch.equal(chairs.train.images, pairs(7).images)
        assert sorted(chairs.query.ids) == sorted(chairs.gallery.ids)
        with pytest.raises(ValueError, match=r"no category 'hats'; it has shoes, chairs"):
            whole.category("hats")

    def test_validation_takes_whole_identities_from_train(self):
        whole = pool("shop", [self.one("shoes", 20), self.one("chairs", 30)])
        part = whole.with_validation(0.1, seed=3)
        held = set(part.query.ids)
        assert held == set(part.gallery.ids) and not held & set(part.train.ids)
        assert held | set(part.train.ids) == set(whole.train.ids)
        assert np.bincount(part.query.groups).tolist() == [2, 3]
        assert set(part.query.cams) == {SKETCH} and set(part.gallery.cams) == {PHOTO}
        again, other = whole.with_validation(0.1, seed=3), whole.with_validation(0.1, seed=4)
        assert set(again.query.ids) == held != set(other.query.ids)

    def test_validation_errors(self):
        with pytest.raises(ValueError, match=r"fraction must lie between 0 and 1 \(got 1\)"):
            self.one("shoes", 5).with_validation(1)
        with pytest.raises(ValueError, match=r"2 training identities that two cameras saw are too few to hold out 2"):
            self.one("shoes", 2).with_validation(0.5)

    def test_who_was_seen_by_one_camera_is_not_held_out(self):
        """They would be queries without a match: they stay in the training set."""
        whole = self.one("shoes", 10)
        alone = np.isin(whole.train.ids, [0, 3, 7]) & (whole.train.cams == PHOTO)
        held = replace(whole, train=whole.train.where(~alone)).with_validation(0.5)
        assert len(held.query) == len(held.gallery) == 4 and set(held.query.ids) == set(held.gallery.ids)
        assert {0, 3, 7} <= set(held.train.ids)

    def test_masks_and_counts_are_checked(self):
        split = self.one("shoes", 3).train
        assert len(split.where([])) == len(split.where(np.zeros(6, bool))) == 0
        with pytest.raises(ValueError, match=r"the mask has shape \(2,\) for 6 images"):
            split.where(np.array([True, False]))
        for count in (0, -1):
            with pytest.raises(ValueError, match=rf"count must be at least 1 \(got {count}\)"):
                self.one("shoes", 3).with_people(count)

    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"unknown benchmark 'qmul2': choose from .*qmul/shoes"):
            load("qmul2")
        assert {"qmul", "qmul/shoes", "qmul/chairs", "qmul/handbags"} <= set(names())
        with pytest.raises(ValueError, match=r"unknown category 'hats': choose from shoes, chairs, handbags"):
            qmul.load_category("hats")
        with pytest.raises(ValueError, match=r"unknown option colour of benchmark 'qmul': it takes none"):
            load("qmul", colour=True)


@pytest.fixture
def tiny_qmul(tmp_path, monkeypatch):
    """A database of 4 + 2 objects a category, in the published layout; returns the folder of the categories."""
    monkeypatch.setattr(qmul, "COUNTS", dict.fromkeys(qmul.CATEGORIES, (4, 2)))
    monkeypatch.setenv("CDIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CDIM_DATA", raising=False)
    base = tmp_path / "qmul-fgsbir"
    for number, name in enumerate(qmul.CATEGORIES):
        (base / name).mkdir(parents=True)
        sizes, domains = (("train", 4), ("test", 2)), enumerate(("edge", "sketch"))
        for (split, count), (cam, domain) in itertools.product(sizes, domains):
            fill = np.arange(count) + 10 * cam + 50 * (split == "test") + 100 * (number == 1)
            data = np.broadcast_to(fill.astype(np.uint8)[:, None, None], (count, 256, 256)).copy()
            data[:, 0, 1] = 7  # row 0, column 1: a transposed reader would be seen
            savemat(base / name / f"{name}_{domain}_db_{split}.mat", {"data": data}, do_compression=True)
        triplets = np.stack([np.stack([np.full(135, a), (a + 1 + np.arange(135) % 3) % 4], 1) for a in range(4)])
        text = json.dumps({"train": {"triplets": triplets.tolist()}, "test": {"triplets": []}})
        (base / name / f"{name}_annotation.json").write_text(text)
    return base


class TestQMUL:
    def test_reads_the_layout(self, tiny_qmul):
        shoes = load("qmul/shoes", root=tiny_qmul.parent)
        assert shoes.train.images.shape == (8, 1, 256, 256) and len(shoes.query) == len(shoes.gallery) == 2
        assert shoes.train.ids.tolist() == [0, 1, 2, 3] * 2 and shoes.query.ids.tolist() == [4, 5]
        assert shoes.train.images[:, 0, 9, 9].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
        assert shoes.query.images[:, 0, 9, 9].tolist() == [60, 61]
        assert shoes.gallery.images[:, 0, 9, 9].tolist() == [50, 51]
        assert shoes.train.images[0, 0, 0, 1] == 7 and shoes.train.images[0, 0, 1, 0] == 0
        assert set(shoes.query.cams) == {SKETCH} and set(shoes.gallery.cams) == {PHOTO}
        assert shoes.triplets.shape == (4, 135, 2) and (shoes.triplets[2, :, 0] == 2).all()

    def test_found_by_root_then_environment_then_cache(self, tiny_qmul, tmp_path, monkeypatch):
        for root in (tiny_qmul, tiny_qmul.parent):
            assert len(load("qmul/chairs", root=root).train) == 8
        with pytest.raises(DataNotFound):
            load("qmul/chairs")
        monkeypatch.setenv("CDIM_DATA", str(tmp_path))
        assert len(load("qmul/chairs").train) == 8
        monkeypatch.setenv("CDIM_DATA", str(tmp_path / "nowhere"))
        monkeypatch.setenv("CDIM_CACHE", str(tmp_path))
        assert len(load("qmul/chairs").train) == 8

    def test_pooled(self, tiny_qmul):
        whole = load("qmul", root=tiny_qmul)
        assert whole.categories == ("shoes", "chairs", "handbags") and len(whole.train) == 24
        assert len(set(whole.train.ids)) == 12 and not set(whole.train.ids) & set(whole.query.ids)
        assert whole.category("chairs").train.images[0, 0, 9, 9] == 100

    def test_missing_folder(self, tmp_path):
        with pytest.raises(DataNotFound, match=r"qmul/shoes: no data found. Looked at: .*nowhere.*qmul.download\(\)"):
            load("qmul/shoes", root=tmp_path / "nowhere")

    def test_missing_file(self, tiny_qmul):
        (tiny_qmul / "shoes" / "shoes_edge_db_test.mat").unlink()
        with pytest.raises(DataNotFound, match=r"shoes_edge_db_test.mat is missing. Call"):
            load("qmul/shoes", root=tiny_qmul)

    def test_wrong_size(self, tiny_qmul):
        savemat(tiny_qmul / "shoes" / "shoes_edge_db_train.mat", {"data": np.zeros((4, 128, 128), np.uint8)})
        with pytest.raises(ValueError, match=r"edge_db_train.mat holds uint8 \(4, 128, 128\), expected uint8 \(4, 256"):
            load("qmul/shoes", root=tiny_qmul)

    def test_wrong_type(self, tiny_qmul):
        floats = {"data": np.zeros((4, 256, 256))}
        savemat(tiny_qmul / "shoes" / "shoes_edge_db_train.mat", floats, do_compression=True)
        with pytest.raises(ValueError, match=r"holds float64 .*delete it and fetch it again"):
            load("qmul/shoes", root=tiny_qmul)

    def test_wrong_key(self, tiny_qmul):
        savemat(tiny_qmul / "shoes" / "shoes_edge_db_train.mat", {"images": np.zeros(4)})
        with pytest.raises(ValueError, match=r"shoes_edge_db_train.mat has no variable 'data'"):
            load("qmul/shoes", root=tiny_qmul)

    @pytest.mark.parametrize("damage", ["cut", "not a .mat", "empty"])
    def test_corrupted_file(self, tiny_qmul, damage):
        path = tiny_qmul / "shoes" / "shoes_sketch_db_train.mat"
        whole, page = path.read_bytes(), b"<html>404</html>" * 20
        path.write_bytes({"cut": whole[: len(whole) // 2], "not a .mat": page, "empty": b""}[damage])
        with pytest.raises(ValueError, match=r"sketch_db_train.mat cannot be read as a .mat file .*fetch it again"):
            load("qmul/shoes", root=tiny_qmul)

    def test_annotations(self, tiny_qmul):
        path = tiny_qmul / "shoes" / "shoes_annotation.json"
        path.write_text('{"train": {"triplets": [[[0, 1]]]}}')
        with pytest.raises(ValueError, match=r"expected triplets of shape \(4, 135, 2\), got \(1, 1, 2\)"):
            load("qmul/shoes", root=tiny_qmul)
        path.write_text("{")
        with pytest.raises(ValueError, match=r"shoes_annotation.json is not the annotation file of shoes"):
            load("qmul/shoes", root=tiny_qmul)
        path.unlink()
        with pytest.raises(DataNotFound, match=r"shoes_annotation.json is missing"):
            load("qmul/shoes", root=tiny_qmul)

    def test_handbag_judgements_are_refused_with_the_reason(self, tiny_qmul):
        assert load("qmul/handbags", root=tiny_qmul).triplets is None  # though the file lies there
        with pytest.raises(ValueError, match=r"handbags_annotation.json is a copy of the shoes' file .*true match"):
            qmul.read_triplets("handbags", tiny_qmul / "handbags")

    @pytest.mark.skipif(not os.environ.get("CDIM_DATA"), reason="real data: set CDIM_DATA to a folder with qmul-fgsbir")
    def test_the_real_database(self):
        whole = load("qmul")
        assert np.bincount(whole.train.groups).tolist() == [608, 400, 800]
        assert np.bincount(whole.query.groups).tolist() == [115, 97, 168]
        shoes = load("qmul/shoes")
        assert all(len(np.unique(judged)) == 10 and a in judged for a, judged in enumerate(shoes.triplets))
        drawn = shoes.train.images[shoes.train.cams == SKETCH].float().mean().item()
        assert drawn == pytest.approx(250.70, abs=0.01)
        base = qmul.find_root("qmul", qmul.FOLDERS, None, mend="")
        for name, expected in qmul.SHA256.items():
            assert hashlib.sha256((base / name).read_bytes()).hexdigest() == expected, name


class TestDownload:
    @pytest.fixture
    def address(self, tmp_path):
        """A web server with two files, of which the first is what its hash says."""

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args):
                pass

        site = tmp_path / "site" / "shoes"
        site.mkdir(parents=True)
        (site / "good.mat").write_bytes(b"good")
        (site / "bad.mat").write_bytes(b"damaged on the way")
        handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        server.server_close()

    @pytest.fixture
    def hashes(self, monkeypatch):
        pytest.importorskip("pooch")
        good = hashlib.sha256(b"good").hexdigest()
        table = {"shoes/good.mat": good, "shoes/bad.mat": good}
        monkeypatch.setattr(qmul, "SHA256", table)
        return table

    def test_checked_and_kept(self, tmp_path, address, hashes):
        del hashes["shoes/bad.mat"]
        assert qmul.download(tmp_path / "here", address) == tmp_path / "here"
        assert (tmp_path / "here" / "shoes" / "good.mat").read_bytes() == b"good"

    def test_default_target_is_the_cache(self, tmp_path, address, hashes, monkeypatch):
        del hashes["shoes/bad.mat"]
        monkeypatch.setenv("CDIM_CACHE", str(tmp_path / "cache"))
        assert qmul.download(address=address) == tmp_path / "cache" / "qmul-fgsbir"
        assert (tmp_path / "cache" / "qmul-fgsbir" / "shoes" / "good.mat").is_file()

    def test_a_damaged_file_is_reported_and_not_kept(self, tmp_path, address, hashes):
        with pytest.raises(ValueError, match=r"bad.mat.*does not match the known hash"):
            qmul.download(tmp_path / "here", address)
        kept = sorted(p.name for p in (tmp_path / "here").rglob("*") if p.is_file())
        assert kept == ["good.mat"]

    def test_no_server(self, tmp_path, hashes):
        with pytest.raises(OSError, match=r"good.mat could not be fetched from http://127.0.0.1:9/ .*root="):
            qmul.download(tmp_path / "here", "http://127.0.0.1:9/")
        assert not [p for p in (tmp_path / "here").rglob("*") if p.is_file()]

    def test_missing_on_the_server(self, tmp_path, address, hashes):
        hashes.clear()
        hashes["shoes/gone.mat"] = "0" * 64
        with pytest.raises(OSError, match=r"gone.mat could not be fetched .*404"):
            qmul.download(tmp_path / "here", address)


@pytest.mark.parametrize(("word", "read"), [("misalignment=1", ("misalignment", 1)), ("blur=0.5", ("blur", 0.5)),
                                            ("direction=b->a", ("direction", "b->a")), ("multi_query=True",
                                            ("multi_query", True)), ("official_offsets=false",
                                            ("official_offsets", False))])  # fmt: skip
def test_an_option_as_a_notebook_writes_it(word, read):
    found = option(word)
    assert found == read and type(found[1]) is type(read[1])


def test_the_words_behind_a_name():
    assert words_of("toytown-plaza misalignment=1  plain") == ("toytown-plaza", ["misalignment=1", "plain"])
    assert words_of("table:my data/two  men.csv verbose=false") == ("table:my data/two  men.csv", ["verbose=false"])


@pytest.mark.parametrize("place", ["~/data", "root"])
def test_a_home_folder_is_understood(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data" / "here").mkdir(parents=True)
    if place == "root":
        found = find_root("x", ("here",), "~/data", mend="")
    else:
        monkeypatch.setenv("CDIM_DATA", place)
        found = find_root("x", ("here",), None, mend="")
    assert found == tmp_path / "data" / "here"
    for value, expected in (("", tmp_path / ".cache" / "cdimlib"), ("~/c", tmp_path / "c")):
        monkeypatch.setenv("CDIM_CACHE", value)
        assert cache_dir() == expected


@pytest.mark.parametrize("word", ["toytown-plaza", "blur=", "=1", "toytown-campus,"])
def test_what_is_no_option_is_refused_by_its_name(word):
    with pytest.raises(ValueError, match=f"'{word}' is not an option like misalignment=1"):
        option(word)
