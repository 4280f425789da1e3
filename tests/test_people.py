"""Readers of the benchmarks of people, on miniature trees with the owners' names (and the real CUHK03-NP)."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from cdimlib.data import DataNotFound, at_hand, load, names, people, to_judge
from cdimlib.data.cuhk03 import read_raw
from cdimlib.data.people import DUKE_OFFSETS, duke_seconds, market_seconds, parse, read_photo, read_photos
from cdimlib.models.matcher import VectorMatcher
from cdimlib.people_experiments import PersonRun
from cdimlib.retrieval import evaluate

pytestmark = pytest.mark.filterwarnings("ignore:.*published are")  # miniature trees are smaller than the real ones


@pytest.fixture(autouse=True)
def no_other_data(monkeypatch, tmp_path):
    """Nothing is found but what a test makes."""
    monkeypatch.delenv("CDIM_DATA", raising=False)
    monkeypatch.setenv("CDIM_CACHE", str(tmp_path / "cache"))


def draw(folder: Path, files, start=1) -> None:
    """A plain grey-level picture for each name; the level counts from ``start``, so the order can be seen."""
    folder.mkdir(parents=True, exist_ok=True)
    for level, file in enumerate(files, start):
        Image.new("RGB", (5, 9), (level, level, level)).save(folder / file, quality=100)


def levels(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def small(name, root, **options):
    return load(name, root=root, pixels=(8, 4), verbose=False, **options)


# ------------------------------------------------------------------------------------------------------------- images


class TestImages:
    @pytest.mark.parametrize("mode, value, ending, expected", [
        ("RGB", (10, 20, 30), "png", (10, 20, 30)),
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("P", 3, "png", (9, 8, 7)),
        ("LA", (50, 255), "png", (50, 50, 50)),
        ("RGBA", (10, 20, 30, 0), "png", (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), "png", (10, 20, 30)),
        ("I;16", 257 * 90, "png", (90, 90, 90)),
        ("I;16", 257 * 90, "tif", (90, 90, 90)),
        ("CMYK", (255, 255, 255, 255), "tif", (0, 0, 0)),
    ])
    def test_modes(self, tmp_path, mode, value, ending, expected):
        image = Image.new(mode, (6, 10), value)
        if mode == "P":
            image.putpalette([0] * 9 + [9, 8, 7])
        image.save(tmp_path / f"a.{ending}")
        photo = read_photo(tmp_path / f"a.{ending}", (8, 4))
        assert photo.shape == (3, 8, 4) and photo.dtype == torch.uint8
        assert photo[:, 3, 2].tolist() == list(expected)

    def test_transparent_palette(self, tmp_path):
        image = Image.new("P", (6, 10), 1)
        image.putpalette([0, 0, 0, 9, 8, 7])
        image.save(tmp_path / "a.png", transparency=1)
        assert (read_photo(tmp_path / "a.png", (8, 4)) == 255).all()

    def test_resizing_is_antialiased_bilinear(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (97, 41, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        got = read_photo(tmp_path / "a.png", (32, 16)).float()
        source = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()  # [H, W, 3] -> [1, 3, H, W]
        wanted = torch.nn.functional.interpolate(source, (32, 16), mode="bilinear", antialias=True)[0]
        assert (got - wanted).abs().max() <= 1.01

    def test_unchanged_at_its_own_size(self, tmp_path):
        pixels = np.random.default_rng(1).integers(0, 256, (12, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert (read_photo(tmp_path / "a.png", (12, 7)).permute(1, 2, 0).numpy() == pixels).all()

    def test_order_is_kept(self, tmp_path):
        draw(tmp_path, [f"{i}.png" for i in range(60)])
        assert read_photos([tmp_path / f"{i}.png" for i in range(60)], (3, 2), verbose=False)[:, 0, 0, 0].tolist() == \
            list(range(1, 61))

    @pytest.mark.parametrize("content, why", [(b"", "it is empty"), (b"no", "cannot identify"), (None, "No such")])
    def test_a_file_that_does_not_decode_is_named(self, tmp_path, content, why):
        if content is not None:
            (tmp_path / "broken.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=rf"broken.jpg cannot be read as an image \(.*{why}.*\): copy it again"):
            read_photo(tmp_path / "broken.jpg")

    @given(data=st.data())
    def test_damaged_files_never_give_another_error(self, data, tmp_path_factory):
        path = tmp_path_factory.getbasetemp() / "fuzz.png"
        Image.new("RGB", (20, 30), (1, 2, 3)).save(path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            assert read_photo(path, (8, 4)).shape == (3, 8, 4)
        except ValueError as error:
            assert str(path) in str(error)


# -------------------------------------------------------------------------------------------------------------- names


NEARLY = st.builds(
    lambda a, b, c, d, e: f"{a}_c{b}{c}{d}_{e}.jpg", st.integers(-2, 10**12), st.integers(0, 16),
    st.sampled_from(["", "s", "_f", "_"]), st.integers(0, 10**9), st.sampled_from(["00", "000451_03", "7 (1)", ""]))


class TestNames:
    @pytest.mark.parametrize("name, file, expected", [
        ("market1501", "0002_c1s1_000451_03.jpg", {"id": 2, "cam": 1, "session": 1, "frame": 451}),
        ("market1501", "-1_c3s2_093128_05.jpg.jpg", {"id": -1, "cam": 3, "session": 2, "frame": 93128}),
        ("market1501", "0000_c6s4_000001_01.jpg", {"id": 0, "cam": 6, "session": 4, "frame": 1}),
        ("dukemtmc-reid", "0002_c8_f0044158.jpg", {"id": 2, "cam": 8, "frame": 44158}),
        ("cuhk03-np", "0003_c2_21.png", {"id": 3, "cam": 2}),
        ("cuhk01", "0971004.png", {"id": 971, "index": 4}),
        ("viper", "001_45.bmp", {"id": 1}),
        ("msmt17", "0001/0001_003_14_0303morning_0015_0_ex.jpg", {"cam": 14}),
        ("randperson", "000017_s03_c01_f000264.jpg", {"id": 17, "scene": 3, "cam": 1, "frame": 264}),
        ("randperson", "000017_c01_s03_f000264.jpg", {"id": 17, "scene": 3, "cam": 1, "frame": 264}),
    ])
    def test_examples(self, name, file, expected):
        row = parse(name, [file]).iloc[0]
        assert row.source == file and {k: row[k] for k in row.index if k != "source"} == expected

    def test_names_that_do_not_fit_are_left_out_with_one_warning(self):
        good = ["0002_c1s1_000451_03.jpg", "0007_c6s6_000001_00.jpg"]
        bad = ["0002_c1s1_000451_03 (1).jpg", "0002_c7s1_000451_03.jpg", "x.jpg", "-2_c1s1_000451_03.jpg"]
        with pytest.warns(UserWarning, match=r"4 file\(s\) not named like 0002_c1s1_000451_03.jpg are left out: 0002"):
            table = parse("market1501", [bad[0], good[0], *bad[1:], good[1]])
        assert table.source.tolist() == good and table.id.tolist() == [2, 7]
        with pytest.raises(ValueError, match=r"market1501: no image is named like .*; found x.jpg"):
            parse("market1501", ["x.jpg"])
        with pytest.raises(ValueError, match=r"found no image at all"):
            parse("market1501", [])

    @settings(max_examples=60)
    @given(name=st.sampled_from(sorted(people.PATTERNS)), files=st.lists(
        st.one_of(st.text(max_size=30), st.text("-_csf٣0123456789.", max_size=30), NEARLY), max_size=6))
    def test_any_names(self, name, files):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                table = parse(name, files)
            except ValueError as error:
                assert "no image is named like" in str(error)
                return
        assert set(table.source) <= set(files) and len(table) <= len(files)
        for column in set(table) - {"source"}:
            assert table[column].dtype == np.int64
            assert all(str(abs(v)) in Path(f).name for v, f in zip(table[column], table.source, strict=True))


# --------------------------------------------------------------------------------------------------------------- time


class TestTimes:
    def test_duke(self):
        """QAConv, Sec. 3.4 (TLift)."""
        assert DUKE_OFFSETS.tolist() == [5542, 3606, 27243, 31181, 0, 22401, 18967, 46765]
        assert duke_seconds([1, 5, 8], [44158, 44158, 100]) == pytest.approx(
            [49700 / 59.94, 44158 / 59.94, 46865 / 59.94])

    def test_market_sessions_of_a_thousand_frames(self):
        """QAConv, Sec. 3.4 (TLift): laid end to end, and as the published code shifts them."""
        sessions = np.repeat(np.arange(1, 7), 2)
        frames = np.tile([1, 1000], 6)
        cams = np.ones(12, int)
        right = market_seconds(cams, sessions, frames) * 25
        assert right[::2].round(6).tolist() == [1, 1001, 2001, 3001, 4001, 5001]
        official = market_seconds(cams, sessions, frames, official_offsets=True) * 25
        assert official[::2].round(6).tolist() == [1, 1001, 3001, 7001, 15001, 31001]

    @given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 500)), min_size=1, max_size=40))
    def test_market_against_loops(self, rows):
        """QAConv, Sec. 3.4 (TLift): any sessions missing, any order."""
        cams, sessions, frames = (list(c) for c in zip(*rows, strict=True))
        right, official = [], []
        for cam, session, frame in rows:
            before = [max((f for c, s, f in rows if (c, s) == (cam, k)), default=0) for k in range(1, session)]
            right.append(frame + sum(before))
            shift = 0
            for largest in before:  # a session without images passes its shift on
                shift = shift + (largest + shift if largest else 0)
            official.append(frame + shift)
        assert market_seconds(cams, sessions, frames) * 25 == pytest.approx(right)
        assert market_seconds(cams, sessions, frames, official_offsets=True) * 25 == pytest.approx(official)


# ------------------------------------------------------------------------------------------------- three folders a set


@pytest.fixture
def market(tmp_path):
    """2 people to learn from, 2 to ask about; junk, distractors, hand-drawn boxes, files of other kinds."""
    base = tmp_path / "data" / "Market-1501-v15.09.15"
    draw(base / "bounding_box_train", ["0007_c1s1_000100_00.jpg", "0002_c2s2_000050_01.jpg", "0002_c1s1_000200_03.jpg"])
    draw(base / "query", ["0001_c1s2_000010_00.jpg", "0003_c2s1_000300_00.jpg"])
    draw(base / "bounding_box_test", [
        "-1_c1s1_009999_01.jpg", "0000_c1s3_000020_01.jpg", "0000_c2s1_000040_01.jpg", "0001_c1s2_000011_02.jpg",
        "0001_c2s1_000012_02.jpg", "0003_c1s1_000013_02.jpg"])
    draw(base / "gt_bbox", ["0001_c1s2_000010_00.jpg", "0001_c1s2_000060_00.jpg", "0001_c2s1_000012_00.jpg",
                            "0002_c1s1_000200_00.jpg"])
    (base / "query" / "Thumbs.db").write_bytes(b"x")
    (base / "query" / "._0001_c1s2_000010_00.jpg").write_bytes(b"x")
    return base


class TestMarket:
    def test_counts_junk_and_distractors(self, market):
        bench = small("market1501", market.parent)
        assert bench.train.images.shape == (3, 3, 8, 4)
        assert bench.train.ids.tolist() == [2, 2, 7] and levels(bench.train) == [3, 2, 1]  # the order of names
        assert bench.query.ids.tolist() == [1, 3] and bench.query.cams.tolist() == [1, 2]
        assert bench.gallery.ids.tolist() == [0, 0, 1, 1, 3] and levels(bench.gallery) == [2, 3, 4, 5, 6]
        assert bench.meta["junk"] == {"gallery": 1} and set(bench.meta) == {"junk", "paths"}
        assert Path(bench.meta["paths"]["query"][1]).name == "0003_c2s1_000300_00.jpg"
        table = bench.accounting()
        assert table.loc["gallery"].to_dict() == {
            "images": 5, "identities": 3, "cameras": 2, "distractors": 2, "junk dropped": 1}
        assert table.loc["train", ["images", "identities", "distractors"]].tolist() == [3, 2, 0]

    def test_times(self, market):
        """QAConv, Sec. 3.4 (TLift). Camera 1: sessions end at 200 (not at the junk image's 9999) and 11."""
        right, official = small("market1501", market), small("market1501", market, official_offsets=True)
        assert right.query.times * 25 == pytest.approx([210, 300])
        assert right.gallery.times[0] * 25 == pytest.approx(20 + 200 + 11)
        assert official.gallery.times[0] * 25 == pytest.approx(20 + 200 + 211)
        assert right.train.times * 25 == pytest.approx([200, 350, 100])

    def test_multi_query_boxes_are_those_of_the_queries(self, market):
        more = small("market1501", market, multi_query=True).meta["multi_query"]
        assert more.ids.tolist() == [1, 1] and more.cams.tolist() == [1, 1] and levels(more) == [1, 2]
        assert more.times is None
        for file in (market / "gt_bbox").iterdir():
            file.unlink()
        (market / "gt_bbox").rmdir()
        with pytest.raises(DataNotFound, match=r"there is no folder .*gt_bbox"):
            small("market1501", market, multi_query=True)

    def test_an_experiment_asks_with_the_data_sets_own_list_where_it_is_at_hand(self, market):
        run = PersonRun("vanilla", "market1501", backbone="resnet18", pixels=(64, 32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(run.load("market1501", market).meta["multi_query"]) == 2
            for file in (market / "gt_bbox").iterdir():
                file.unlink()
            (market / "gt_bbox").rmdir()
            assert "multi_query" not in run.load("market1501", market).meta

    def test_prints_an_accounting_and_warns_of_unexpected_counts(self, market, capsys):
        with pytest.warns(UserWarning, match=r"train has 3 images, published are 12,936; .*gallery has 2 cam"):
            load("market1501", root=market, pixels=(8, 4))
        out = capsys.readouterr().out
        assert out.startswith("market1501: Market-1501, 8 x 4\n")
        assert re.search(r"gallery +5 +3 +2 +2 +1\b", out)
        small("market1501", market)
        assert capsys.readouterr().out == ""

    def test_does_not_warn_of_what_was_published(self, market, monkeypatch):
        monkeypatch.setitem(people.COUNTS, "market1501", ((3, 2, 2), (2, 2, 2), (5, 3, None)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small("market1501", market)

    def test_nothing_is_written(self, market):
        before = {p: p.stat().st_mtime_ns for p in market.parent.rglob("*")}
        small("market1501", market)
        assert before == {p: p.stat().st_mtime_ns for p in market.parent.rglob("*")}

    def test_a_zero_byte_image_is_named(self, market):
        (market / "query" / "0003_c2s1_000300_00.jpg").write_bytes(b"")
        with pytest.raises(ValueError, match=r"0003_c2s1_000300_00.jpg cannot be read as an image \(it is empty\)"):
            small("market1501", market)

    def test_odd_files_among_the_good_ones(self, market):
        """Names that do not fit are left out with a warning, images of any mode are read."""
        train, query = market / "bounding_box_train", market / "query"
        strange = "0002.jpg", "0002_c9s1_000200_03.jpg", "copy of 0002_c1s1_000200_03.jpg", "x.PNG"
        for number, name in enumerate(strange):
            (train / name).write_bytes(b"" if number % 2 else b"never read")
        (train / "folder.jpg").mkdir()
        for number, mode in enumerate(("P", "RGBA", "I;16", "LA", "1", "CMYK")):
            suffix = "tif" if mode == "CMYK" else "png"
            Image.new(mode, (5, 9)).save(query / f"0003_c1s1_00040{number}_00.{suffix}")
        with pytest.warns(UserWarning, match=r"market1501: 5 file\(s\) not named like .* are left out"):
            bench = small("market1501", market)
        assert len(bench.train) == 3 and len(bench.query) == 8
        black = [0, 255, 0, 255, 0, 255]  # transparent parts, and no ink, are white
        assert bench.query.images[bench.query.ids == 3][:-1].amax((1, 2, 3)).tolist() == black

    @settings(max_examples=15)
    @given(files=st.lists(st.tuples(NEARLY, st.sampled_from(["", "no image", "image"])), max_size=4))
    def test_any_files(self, files, tmp_path_factory):
        base = tmp_path_factory.mktemp("market")
        draw(base / "bounding_box_train", ["0002_c1s1_000200_03.jpg"])
        draw(base / "query", ["0001_c1s2_000010_00.jpg"])
        draw(base / "bounding_box_test", ["0001_c2s1_000012_02.jpg"])
        broken = 0
        for name, content in dict(files).items():
            path = base / "bounding_box_train" / name
            if content == "image":
                draw(path.parent, [name])
            else:
                path.write_bytes(content.encode())
            broken += content != "image" and bool(re.fullmatch(people.PATTERNS["market1501"][0], name[:-4]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if broken:
                with pytest.raises(ValueError, match="cannot be read as an image"):
                    small("market1501", base)
            else:
                assert len(small("market1501", base).train) >= 1

    def test_only_junk_and_an_empty_folder(self, market):
        for file in (market / "bounding_box_test").glob("0*"):
            file.unlink()
        with pytest.raises(ValueError, match=r"market1501: no image is left for gallery"):
            small("market1501", market)
        (market / "bounding_box_test" / "-1_c1s1_009999_01.jpg").unlink()
        with pytest.raises(ValueError, match=r"found no image at all \(in .*bounding_box_test\)"):
            small("market1501", market)


class TestWhere:
    """The folder is found, or the message says how far off the one given is."""

    def test_found_by_root_environment_and_cache(self, market, monkeypatch):
        for root in (market, market.parent, str(market)):
            assert len(small("market1501", root).query) == 2
        monkeypatch.setenv("CDIM_DATA", str(market.parent))
        assert len(small("market1501", None).query) == 2
        monkeypatch.delenv("CDIM_DATA")
        monkeypatch.setenv("CDIM_CACHE", str(market.parent))
        assert len(small("market1501", None).query) == 2

    def test_level_too_high_and_too_low(self, market):
        renamed = market.rename(market.with_name("mine"))
        for root in (renamed.parent, renamed.parent.parent):
            with pytest.raises(DataNotFound, match=rf"{root} is too high a level: give root='{renamed}'"):
                small("market1501", root)
        with pytest.raises(DataNotFound, match=rf"query is too low a level: give root='{renamed}'"):
            small("market1501", renamed / "query")
        assert len(small("market1501", renamed).query) == 2

    def test_the_variable_names_the_set_itself(self, market, monkeypatch):
        monkeypatch.setenv("CDIM_DATA", str(market))
        with pytest.raises(DataNotFound, match=rf"no data found. .*But {market} is it: give root='{market}'"):
            small("market1501", None)

    def test_a_folder_is_missing(self, market):
        (market / "query").rename(market / "queries")
        with pytest.raises(DataNotFound, match=r"holds no query\. Put bounding_box_train, query, .*zheng-lab"):
            small("market1501", market)

    @pytest.mark.parametrize("name, says", [
        ("market1501", "zheng-lab"), ("dukemtmc-reid", "withdrew it in 2019: there is no download"),
        ("cuhk03", "CUHK_identification"), ("cuhk03/labeled", "cuhk-03.mat"),
        ("cuhk03-np", "folder cuhk03-np/detected"), ("msmt17", "on request"),
        ("cuhk03-np/labeled", "folder cuhk03-np/labeled"), ("randperson", "VideoObjectSearch"),
        ("cuhk01", "Put campus"), ("viper", "cam_a, cam_b")])
    def test_nowhere(self, name, says, tmp_path):
        assert name in names()
        for root in (None, tmp_path / "nowhere"):
            with pytest.raises(DataNotFound, match=rf"{name}: no data found. .*{says}.*no photographs of people"):
                load(name, root=root)

    def test_at_hand(self, market, monkeypatch):
        assert at_hand("market1501", market.parent) and at_hand("market1501", market)
        assert not at_hand("market1501")
        assert not at_hand("cuhk03/labeled", market) and not at_hand("qmul/shoes", market)
        monkeypatch.setenv("CDIM_DATA", str(market.parent))
        assert at_hand("market1501") and at_hand("toytown-plaza") and at_hand("toy-shop/shoes")
        assert not at_hand("table:nowhere.csv")
        (market / "query").rename(market / "queries")
        assert not at_hand("market1501")
        with pytest.raises(ValueError, match=r"unknown benchmark 'market': choose from "):
            at_hand("market")

    def test_options(self, market):
        with pytest.raises(ValueError, match=r"unknown option split of benchmark 'market1501': choose from pixels, "):
            small("market1501", market, split=1)
        for pixels in (128, (128,), (0, 4), (8.0, 4)):
            with pytest.raises(ValueError, match=r"pixels must be \(height, width\)"):
                load("market1501", root=market, pixels=pixels)


def test_duke(tmp_path):
    base = tmp_path / "DukeMTMC-reID"
    draw(base / "bounding_box_train", ["0001_c2_f0046182.jpg", "0001_c5_f0046000.jpg"])
    draw(base / "query", ["0005_c1_f0000001.jpg"])
    draw(base / "bounding_box_test", ["0005_c8_f0000059.jpg", "0006_c1_f0000001.jpg"])
    bench = small("dukemtmc-reid", tmp_path)
    assert bench.train.times == pytest.approx([(46182 + 3606) / 59.94, 46000 / 59.94])
    assert bench.gallery.cams.tolist() == [8, 1] and bench.accounting().loc["gallery", "distractors"] == 1


def test_cuhk03_np_detected_and_labeled(tmp_path):
    for number, kind in enumerate(("detected", "labeled")):
        base = tmp_path / "cuhk03-np" / kind
        draw(base / "bounding_box_train", ["0001_c1_1.png", "0001_c2_6.png"], start=10 + 100 * number)
        draw(base / "query", ["0003_c1_21.jpg"])
        draw(base / "bounding_box_test", ["0003_c2_25.jpg", "0003_c1_22.jpg"])
    for root in (tmp_path, tmp_path / "cuhk03-np"):
        assert levels(small("cuhk03-np", root).train) == [10, 11]
        assert levels(small("cuhk03-np/labeled", root).train) == [110, 111]
    bench = small("cuhk03-np/labeled", tmp_path)
    assert bench.name == "cuhk03-np/labeled" and bench.gallery.cams.tolist() == [1, 2] and bench.train.times is None


def test_the_real_cuhk03_np(monkeypatch):
    """Published: 7,365 / 1,400 / 5,332 images of 767 and 700 identities. All names, every fiftieth image decoded."""
    if not REAL or not (Path(REAL) / "cuhk03-np" / "detected").is_dir():
        pytest.skip("CUHK03-NP is not at hand (CDIM_DATA)")

    def some(sources, *args):
        return read_photos(sources[::50], *args).repeat_interleave(50, 0)[: len(sources)]

    monkeypatch.setattr(people, "read_photos", some)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench = load("cuhk03-np", root=REAL, pixels=(16, 8), verbose=False)
    table = bench.accounting()
    assert table["images"].tolist() == [7_365, 1_400, 5_332] and table["identities"].tolist() == [767, 700, 700]
    assert table["cameras"].tolist() == [2, 2, 2] and not set(bench.train.ids) & set(bench.query.ids)
    assert set(bench.query.ids) == set(bench.gallery.ids) and bench.train.images.float().std() > 20


REAL = os.environ.get("CDIM_DATA")  # before any test takes it away


# -------------------------------------------------------------------------------------------------------------- MSMT17


@pytest.fixture(params=["V1", "V2"])
def msmt(request, tmp_path):
    train, test = ("train", "test") if request.param == "V1" else ("mask_train_v2", "mask_test_v2")
    base = tmp_path / f"MSMT17_{request.param}"
    files = {
        "list_train.txt": (train, ["0000/0000_000_01_0303morning_0015_0.jpg", "0001/0001_000_05_0303noon_0015_0.jpg"]),
        "list_val.txt": (train, ["0001/0001_001_15_0303morning_0015_0.jpg"]),
        "list_query.txt": (test, ["0000/0000_000_02_0303morning_0015_0.jpg"]),
        "list_gallery.txt": (test, ["0000/0000_001_03_0303morning_0015_0.jpg", "0001/0001_000_04_0303noon_0015_0.jpg"]),
    }
    for start, (file, (part, paths)) in zip((1, 3, 4, 5), files.items(), strict=True):
        for level, path in enumerate(paths, start):
            draw((base / part / path).parent, [Path(path).name], start=level)
        (base / file).write_text("".join(f"{p} {int(p[:4])}\n" for p in paths) + "\n")
    return base


class TestMSMT17:
    def test_both_versions(self, msmt):
        bench = small("msmt17", msmt.parent)
        assert levels(bench.train) == [1, 2, 3] and bench.train.ids.tolist() == [0, 1, 1]
        assert bench.train.cams.tolist() == [1, 5, 15]
        assert bench.query.ids.tolist() == [2] and bench.gallery.ids.tolist() == [2, 3]  # after those of train
        assert bench.gallery.cams.tolist() == [3, 4] and levels(bench.gallery) == [5, 6]
        assert bench.accounting().loc["gallery", "distractors"] == 1

    def test_broken_list(self, msmt):
        (msmt / "list_query.txt").write_text("0000/0000_000_02_0303morning_0015_0.jpg\n")
        with pytest.raises(ValueError, match=r"list_query.txt, line 1: '0000.*' is not a path and an identity number"):
            small("msmt17", msmt)

    def test_a_listed_image_is_missing(self, msmt):
        (msmt / "list_query.txt").write_text("0000/0009_000_02_0303morning_0015_0.jpg 0\n")
        with pytest.raises(ValueError, match=r"0009_000_02_0303morning_0015_0.jpg cannot be read .*No such file"):
            small("msmt17", msmt)

    def test_a_list_is_missing(self, msmt):
        (msmt / "list_val.txt").unlink()
        with pytest.raises(DataNotFound, match=r"holds no list_val.txt"):
            small("msmt17", msmt)


# ---------------------------------------------------------------------------------------------------------- RandPerson


@pytest.fixture
def randperson(tmp_path):
    """Both orders of the letters; scene 3 comes after six cameras of scenes 0 to 2."""
    files = ["000000_s00_c01_f000024.jpg", "000000_s03_c01_f000048.jpg", "000001_c00_s00_f000012.jpg",
             "000001_c00_s10_f000000.jpg", *(f"00000{i}_s0{s}_c00_f000001.jpg" for i in (2, 3) for s in (1, 2))]
    draw(tmp_path / "RandPerson" / "randperson_subset", files)
    return tmp_path


class TestRandPerson:
    def test_for_training_only(self, randperson):
        bench = small("randperson", randperson)
        assert bench.train.ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and levels(bench.train) == list(range(1, 9))
        assert bench.train.cams.tolist() == [1, 7, 0, 15, 2, 4, 2, 4]
        assert bench.train.times[:4].tolist() == [1.0, 2.0, 0.5, 0.0]
        assert len(bench.query) == len(bench.gallery) == 0 and bench.query.images.shape == (0, 3, 8, 4)
        assert bench.accounting()["images"].tolist() == [8, 0, 0]
        assert at_hand("randperson", randperson / "RandPerson")
        outer = randperson / "again" / "randperson_subset"
        outer.mkdir(parents=True)
        (randperson / "RandPerson" / "randperson_subset").rename(outer / "randperson_subset")
        assert levels(small("randperson", outer.parent).train) == list(range(1, 9))

    def test_nothing_to_evaluate_but_on_held_out_people(self, randperson):
        class Mean(VectorMatcher):
            def encode(self, images):
                return images.mean((2, 3))

        bench = small("randperson", randperson)
        with pytest.raises(ValueError, match=r"'randperson' has 0 queries and 0 gallery images.* with_validation\(\)"):
            evaluate(Mean(), bench)
        assert evaluate(Mean(), bench.with_validation(0.5)).num_valid == 2

    @pytest.mark.parametrize("kind", ["person", "match"])
    def test_nothing_to_test_on_is_said_before_the_training(self, randperson, kind, monkeypatch):
        """And what has no test images is trained on, and judged elsewhere."""
        from cdimlib import people_experiments, qaconv_experiments

        module = {"person": people_experiments, "match": qaconv_experiments}[kind]
        monkeypatch.setattr(module, f"train_{kind}", lambda *_, **__: pytest.fail("it was trained"))
        bench, town = small("randperson", randperson), load("toytown-plaza", size="tiny", pixels=(32, 24))
        assert [b.name for b in to_judge([bench, town])] == ["toytown-plaza"]
        with pytest.raises(ValueError, match="nothing to test on: no queries or no gallery in 'randperson'"):
            if kind == "person":
                module.run_person(module.PersonRun("vanilla", "randperson"), bench=bench)
            else:
                module.run_match(module.MatchRun("qaconv", "randperson"), benches=[bench])

    def test_published_counts_and_scenes(self, randperson):
        with pytest.warns(UserWarning, match=r"train has 8 images, published are 132,145; .* published are 19\. "):
            small("randperson", randperson)
        draw(randperson / "RandPerson" / "randperson_subset", ["000009_s11_c00_f000001.jpg"])
        with pytest.raises(ValueError, match=r"speaks of scene 11, but there are only 0 to 10"):
            small("randperson", randperson)
        with pytest.raises(DataNotFound, match=r"is too low a level: give root='.*RandPerson'"):
            small("randperson", randperson / "RandPerson" / "randperson_subset")


# ------------------------------------------------------------------------------------------------------- random splits


@pytest.fixture
def cuhk01(tmp_path):
    draw(tmp_path / "CUHK01" / "campus", [f"{p:04d}{i:03d}.png" for p in range(1, 13) for i in range(1, 5)])
    return tmp_path


@pytest.fixture
def viper(tmp_path):
    people = [3 * p for p in range(12)]
    draw(tmp_path / "VIPeR" / "cam_a", [f"{p:03d}_45.bmp" for p in people])
    draw(tmp_path / "VIPeR" / "cam_b", [f"{p:03d}_{90 + p}.bmp" for p in people], start=101)
    return tmp_path


class TestRandomSplits:
    def test_cuhk01(self, cuhk01):
        seen = set()
        for split in range(10):
            bench = small("cuhk01", cuhk01, split=split, test=4)
            assert len(bench.train) == 32 and len(bench.query) == len(bench.gallery) == 8
            tested = set(bench.query.ids)
            assert tested == set(bench.gallery.ids) and len(tested) == 4 and not tested & set(bench.train.ids)
            assert set(bench.query.cams) == {1} and set(bench.gallery.cams) == {2} and set(bench.train.cams) == {1, 2}
            assert levels(bench.query) == [4 * (p - 1) + i for p in sorted(tested) for i in (1, 2)]
            seen.add(tuple(sorted(tested)))
        assert len(seen) == 10
        again = small("cuhk01", cuhk01, split=9, test=4)
        assert set(again.query.ids) == tested and torch.equal(bench.train.images, again.train.images)

    @pytest.mark.parametrize("direction, asks", [("a->b", 1), ("b->a", 2)])
    def test_viper(self, viper, direction, asks):
        for split in range(10):
            bench = small("viper", viper, split=split, direction=direction)
            assert len(bench.train) == 12 and len(bench.query) == len(bench.gallery) == 6
            assert bench.query.ids.tolist() == bench.gallery.ids.tolist()
            assert not set(bench.query.ids) & set(bench.train.ids)
            assert set(bench.query.cams) == {asks} and set(bench.gallery.cams) == {3 - asks}
            a, b = (bench.query, bench.gallery) if asks == 1 else (bench.gallery, bench.query)
            assert [x + 100 for x in levels(a)] == levels(b)  # a pair is one person

    def test_options(self, viper, cuhk01):
        for split in (-1, 10, 1.5, "1"):
            with pytest.raises(ValueError, match=r"split must be a whole number from 0 to 9, not "):
                small("viper", viper, split=split)
        with pytest.raises(ValueError, match=r"direction must be 'a->b' .* not 'a'"):
            small("viper", viper, direction="a")
        with pytest.raises(ValueError, match=r"100 test identities do not fit into 12"):
            small("cuhk01", cuhk01)

    def test_viper_with_a_person_missing(self, viper):
        (viper / "VIPeR" / "cam_b" / "006_96.bmp").unlink()
        with pytest.raises(ValueError, match=r"one in cam_b; not so for 1 of 12, the first of them 006"):
            small("viper", viper)

    def test_cuhk01_given_the_folder_of_the_images(self, cuhk01):
        with pytest.raises(DataNotFound, match=r"campus is too low a level: give root='.*CUHK01'"):
            small("cuhk01", cuhk01 / "CUHK01" / "campus", test=4)


# ------------------------------------------------------------------------------------------------------- CUHK03, raw


@pytest.fixture
def cuhk03(tmp_path):
    """The layout of cuhk-03.mat with 8, 4, 3, 2 and 2 persons; level: person's number, upper right pixel: image's."""
    h5py = pytest.importorskip("h5py")
    base = tmp_path / "cuhk03_release"
    base.mkdir()
    counter = 0
    with h5py.File(base / "cuhk-03.mat", "w") as file:
        def put(array):
            nonlocal counter
            counter += 1
            return file.create_dataset(f"#refs#/{counter}", data=array).ref

        for kind in ("detected", "labeled"):
            whole, number = np.empty((1, 5), h5py.ref_dtype), 0
            for pair, persons in enumerate((8, 4, 3, 2, 2)):
                cell = np.empty((10, persons), h5py.ref_dtype)
                for person in range(persons):
                    number += 1
                    for image in range(10):
                        picture = np.full((9, 5, 3), number + 100 * (kind == "labeled"), np.uint8)  # [H, W, 3]
                        picture[0, 4] = image + 1
                        empty = image in (4, 8, 9) or (pair == 1 and image == 1)
                        cell[image, person] = put(np.zeros(2, np.uint64) if empty else picture.T)
                whole[0, pair] = put(cell)
            file.create_dataset(kind, data=whole)
        sets = np.empty((1, 20), h5py.ref_dtype)
        for split in range(20):
            sets[0, split] = put(np.array([[1, 1 + split % 8], [2, 1 + split % 4], [5, 2]], float).T)
        file.create_dataset("testsets", data=sets)
    return base


class TestCUHK03:
    def test_classic_splits(self, cuhk03):
        seen = []
        for split in range(20):
            table, _, _ = read_raw(cuhk03, "detected", split=split, validation=3)
            ids = table.groupby("split").id.agg(frozenset)
            assert ids.map(len).to_dict() == {"train": 10, "query": 3, "gallery": 3, "validation": 3}
            assert not ids.train & ids["query"] | ids.train & ids.validation | ids["query"] & ids.validation
            assert ids["query"] == ids.gallery == {1 + split % 8, 9 + split % 4, 19}  # 19: from the fifth pair
            assert set(table.cam[table.split == "query"]) == {1} and set(table.cam[table.split == "gallery"]) == {2}
            seen.append(ids.validation)
        assert len(set(seen)) > 10
        bench = small("cuhk03", cuhk03, split=19, validation=3)
        assert set(bench.meta["validation"].ids) == seen[-1] and not set(bench.train.ids) & seen[-1]
        assert levels(bench.query) == bench.query.ids.tolist()  # each image shows its person's number
        assert len(bench.query) == 4 + 3 + 4 and len(bench.gallery) == 9  # pair 2 lacks one image of view 1

    def test_images_stand_upright(self, cuhk03):
        bench = load("cuhk03", root=cuhk03, pixels=(9, 5), validation=0, verbose=False)
        assert "validation" not in bench.meta
        assert bench.query.images[0, 0, 0].tolist() == [1, 1, 1, 1, 1] and bench.query.images[1, 0, 0, 4] == 2
        assert bench.gallery.images[:3, 0, 0, 4].tolist() == [6, 7, 8]
        assert bench.meta["paths"]["gallery"][0] == "1_001_2_06.png"

    def test_labeled(self, cuhk03):
        bench = small("cuhk03/labeled", cuhk03.parent, validation=2)
        assert levels(bench.query)[0] == 101 and "labeled boxes" in bench.note

    def test_new_protocol(self, cuhk03):
        files = [f"{pair}_{person:03d}_{view}_{image:02d}.png" for pair, person in ((1, 1), (1, 2), (4, 1), (5, 2))
                 for view, image in ((1, 1), (1, 3), (2, 6), (2, 7))]
        config = {
            "filelist": np.array(files, object)[:, None], "labels": np.repeat([11, 12, 13, 14], 4)[:, None],
            "train_idx": np.arange(1, 9)[:, None], "query_idx": np.array([[9, 11, 13, 15]]),
            "gallery_idx": np.array([10, 12, 14, 16])[:, None]}
        savemat(cuhk03.parent / "cuhk03_new_protocol_config_detected.mat", config)
        bench = small("cuhk03", cuhk03, protocol="new")
        assert bench.train.ids.tolist() == [11] * 4 + [12] * 4 and levels(bench.train) == [1] * 4 + [2] * 4
        assert bench.query.ids.tolist() == [13, 13, 14, 14] and bench.query.cams.tolist() == [1, 2, 1, 2]
        assert levels(bench.gallery) == [16, 16, 19, 19] and bench.meta["paths"]["query"][0] == "4_001_1_01.png"
        with pytest.raises(DataNotFound, match=r"needs cuhk03_new_protocol_config_labeled.mat in .*zhunzhong07"):
            small("cuhk03/labeled", cuhk03, protocol="new")
        config["filelist"][0, 0] = "1_001_1_05.png"  # an empty cell
        savemat(cuhk03 / "cuhk03_new_protocol_config_detected.mat", config)
        with pytest.raises(ValueError, match=r"names 1 images that the raw file has not, such as 1_001_1_05.png"):
            small("cuhk03", cuhk03, protocol="new")
        (cuhk03 / "cuhk03_new_protocol_config_detected.mat").write_bytes(b"no")
        with pytest.raises(ValueError, match=r"cannot be read as the new protocol"):
            small("cuhk03", cuhk03, protocol="new")

    def test_errors(self, cuhk03, monkeypatch):
        with pytest.raises(ValueError, match=r"protocol must be 'classic' or 'new', not 'old'"):
            small("cuhk03", cuhk03, protocol="old")
        with pytest.raises(ValueError, match=r"split must be a whole number from 0 to 19, not 20"):
            small("cuhk03", cuhk03, split=20)
        with pytest.raises(ValueError, match=r"100 identities for validation do not fit into the 13 "):
            small("cuhk03", cuhk03)
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(ImportError, match=r"cuhk-03.mat needs the package h5py: pip install h5py"):
            small("cuhk03", cuhk03)
        monkeypatch.undo()
        (cuhk03 / "cuhk-03.mat").write_bytes(b"")
        with pytest.raises(ValueError, match=r"cuhk-03.mat is not the raw file of CUHK03, or is damaged"):
            small("cuhk03", cuhk03)
