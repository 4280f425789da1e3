"""Bring your own data: every complaint of the validator, and a table that has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cdimlib.csn_experiments import CSNRun, open_benchmark
from cdimlib.data import load, table
from cdimlib.data.images import read_image
from cdimlib.people_runs import PersonRun
from cdimlib.qaconv_experiments import MatchRun, load_for
from cdimlib.retrieval.search import read_folder

HEADER = "path,id,split,camera,time,category"
ROWS = [
    "a0.png,anna,train,0,1.5,mug",
    "a1.png,anna,train,1,2.5,mug",
    "b0.png,bert,gallery,0,3.0,cup",
    "b1.png,bert,query,1,4.0,cup",
    "c0.png,cleo,gallery,0,5,mug",
    "c1.png,cleo,query,1,6,mug",
]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate("abc"):
        for camera in (0, 1):
            Image.new("L", (20, 30), 40 * number + 100 * camera).save(tmp_path / f"{name}{camera}.png")
    return tmp_path


def write(folder, rows, header=HEADER, encoding="utf-8"):
    path = folder / "mine.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


def changed(row, old, new):
    rows = list(ROWS)
    assert old in rows[row - 2]
    rows[row - 2] = rows[row - 2].replace(old, new)
    return rows


def test_a_column_that_stands_twice(folder):
    path = write(folder, [f"{row},1" for row in ROWS], HEADER + ",camera")
    assert table.check(path) == ["column camera stands twice in the first row: keep one of the two"]


def test_a_sound_table_is_read(folder):
    path = write(folder, ROWS)
    assert table.check(path) == []
    bench = table.load(path, size=16)
    assert bench.name == "mine" and bench.categories == ("cup", "mug")
    assert bench.train.images.shape == (2, 1, 16, 16) and bench.train.images.dtype == torch.uint8
    assert bench.meta["ids"] == ["anna", "bert", "cleo"] and bench.meta["paths"]["query"] == ["b1.png", "c1.png"]
    assert bench.query.ids.tolist() == [1, 2] == bench.gallery.ids.tolist()
    assert bench.query.cams.tolist() == [1, 1] and bench.gallery.times.tolist() == [3.0, 5.0]
    assert bench.query.groups.tolist() == [0, 1]
    assert bench.gallery.images[:, 0, 3, 3].tolist() == [40, 80]
    same = load(f"table:{path}", size=16)
    assert torch.equal(same.query.images, bench.query.images)
    colour = load("table:" + str(path), root=folder, channels=3)
    assert colour.query.images.shape == (2, 3, 256, 256)


def test_junk_is_left_out_and_everything_is_counted_aloud(folder, capsys):
    """Market-1501's rule: an identity of -1 is neither right nor wrong; one that no query asks about stays."""
    Image.new("L", (20, 30)).save(folder / "d0.png")
    path = write(folder, [*ROWS[:3], ROWS[3], *ROWS[4:5], "d0.png,-1,gallery,0,7,mug"])
    assert table.check(path) == []
    bench = load(f"table:{path}", size=16)
    assert bench.meta["ids"] == ["anna", "bert", "cleo"] and len(bench.gallery) == 2
    assert bench.meta["junk"] == {"train": 0, "query": 0, "gallery": 1}
    counts = bench.accounting()
    assert counts.loc["gallery", "junk dropped"] == 1 and counts.loc["gallery", "distractors"] == 1
    said = capsys.readouterr().out
    assert "mine.csv" in said and "junk dropped" in said
    load(f"table:{path}", size=16, verbose=False)
    assert capsys.readouterr().out == ""
    only = write(folder, [*ROWS[:2], ROWS[3], "d0.png,-1,gallery,0,7,mug"])
    assert any("no row has split gallery" in problem for problem in table.check(only))


def test_people_are_taller_than_wide(folder):
    path = write(folder, ROWS)
    bench = load(f"table:{path}", size=(32, 16), channels=3)
    assert bench.query.images.shape == (2, 3, 32, 16)
    assert torch.equal(bench.query.images[0], read_image(folder / "b1.png", (32, 16), 3))
    empty = table.load(write(folder, [r for r in ROWS if "train" not in r]), size=(32, 16)).train
    assert empty.images.shape == (0, 1, 32, 16)
    for size in (0, (128,), (128, 64.0), "128", (1, 2, 3)):
        with pytest.raises(ValueError, match=r"size must be a number of pixels or \(height, width\), such as 256"):
            table.load(path, size=size)


@pytest.mark.parametrize("mode, value, expected", [
    ("P", 3, 8), ("RGBA", (10, 20, 30, 0), 255), ("LA", (50, 255), 50), ("I;16", 257 * 90, 90), ("1", 1, 255),
    ("CMYK", (255, 255, 255, 255), 0)])
def test_image_modes(folder, mode, value, expected):
    image = Image.new(mode, (6, 10), value)
    if mode == "P":
        image.putpalette([0] * 9 + [9, 8, 7])
    image.save(folder / "odd.tif")
    assert (read_image(folder / "odd.tif", (5, 3)) == expected).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_of_which_white_is_unknown_is_refused(folder, kind):
    Image.fromarray(np.full((6, 10), 1, kind)).save(folder / "odd.tif")
    with pytest.raises(ValueError, match="odd.tif cannot be read .*save it with 8 or 16 bits"):
        read_image(folder / "odd.tif", 8)


def test_a_table_of_people_may_be_named_in_an_experiment(folder, tmp_path_factory):
    """By a path with blanks, too."""
    path = write(tmp_path_factory.mktemp("my people"), ROWS)
    for bench in (load_for(MatchRun(pixels=(32, 16)), f"table:{path} plain", folder),
                  PersonRun("vanilla", pixels=(32, 16)).load(f"table:{path} verbose=false", folder),
                  open_benchmark(CSNRun(pixels=(32, 16)), f"table:{path}", folder)):
        assert bench.query.images.shape == (2, 3, 32, 16)
    with pytest.raises(ValueError, match="give size or pixels, not both"):
        load(f"table:{path}", folder, size=8, pixels=(8, 8))


def test_what_no_file_can_be_called(folder):
    says = table.check(write(folder, [*ROWS, f"{'x' * 300}.png,dora,train,0,1,mug"]))
    assert len(says) == 1 and says[0].startswith("row 8: 'xxx") and "cannot be opened" in says[0]


def test_a_photo_held_upright(folder):
    """What the camera noted about its position is obeyed: the red top of a photo taken sideways is on top."""
    image = Image.new("RGB", (10, 6), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 5, 6))  # lying: red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    image.save(folder / "phone.png", exif=exif)
    upright = read_image(folder / "phone.png", (10, 6), 3)
    assert upright[0, 1].min() > 200 and upright[0, 8].max() < 50


def test_optional_columns_may_be_missing(folder):
    rows = [",".join(r.split(",")[:4]) for r in ROWS if "train" not in r]
    bench = table.load(write(folder, rows, "path,id,split,camera"), size=16)
    assert len(bench.train) == 0 and bench.categories == () and bench.query.times is None and bench.query.groups is None


def test_a_spreadsheet_may_add_a_byte_order_mark_and_spaces(folder):
    path = write(folder, [r.replace(",", ", ") for r in ROWS], HEADER.replace(",", ", "), encoding="utf-8-sig")
    assert table.check(path) == []


def test_the_folder_may_be_elsewhere(folder, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("elsewhere"), ROWS)
    assert len(table.check(path)) == 6
    assert table.check(path, root=folder) == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (changed(3, "train", "training"), "row 3: unknown split 'training': use train, query, gallery"),
        (changed(4, "b0.png", "b9.png"), "row 4: there is no file"),
        (changed(4, ",0,", ",left,"), "row 4: camera must be a whole number, not 'left'"),
        (changed(4, ",0,", ",1.5,"), "row 4: camera must be a whole number, not '1.5'"),
        (changed(4, ",0,", f",{10**20},"), "row 4: camera must be a whole number, not '1000"),
        (changed(4, ",0,", ",,"), "row 4: camera is missing"),
        (changed(2, "anna", ""), "row 2: id is missing"),
        (changed(2, "a0.png", ""), "row 2: path is missing"),
        (changed(2, "train", ""), "row 2: split is missing"),
        (changed(2, "1.5", "noon"), "row 2: time must be a number of seconds, not 'noon'"),
        (changed(2, "1.5", "inf"), "row 2: time must be a number of seconds, not 'inf'"),
        (changed(2, "1.5", ""), "row 2: time is missing"),
        (changed(2, "mug", ""), "row 2: category is missing"),
        (changed(3, "a1.png", "a0.png"), "row 3: a0.png is listed already in row 2: keep one of the two"),
        (changed(3, "a1.png", "./a0.png"), "row 3: ./a0.png is listed already in row 2: keep one of the two"),
        (changed(2, "mug", "mug,blue"), "row 2: more fields than columns"),
        (changed(5, "bert", "dora"), "row 5: query 'dora' has no match in the gallery"),
        (changed(5, ",1,", ",0,"), "row 5: query 'bert' has a match in the gallery only under its own camera 0"),
        (changed(2, "anna,train,0,1.5,mug", "bert,train,0,1.5,cup"),
         "warning: 1 identities are in train and in query or gallery (bert)"),
        (changed(3, "mug", "cup"), "1 identities stand under two categories (anna): ids must be unique in the whole"),
        ([r for r in ROWS if "query" not in r], "no row has split query: nothing can be asked"),
        ([], "the table has a header but no rows"),
    ],
)
def test_each_mistake_is_named(folder, rows, says):
    path = write(folder, rows)
    problems = table.check(path)
    assert any(p.startswith(says) for p in problems), problems
    if says.startswith("warning: "):
        with pytest.warns(UserWarning, match="1 identities are in train"):
            table.load(path, size=8)
    else:
        with pytest.raises(ValueError) as error:
            table.load(path, size=8)
        assert says in str(error.value) and str(path) in str(error.value)


def test_without_a_gallery_every_query_is_named(folder):
    problems = table.check(write(folder, [r for r in ROWS if "gallery" not in r]))
    assert "no row has split gallery: nothing can be found" in problems
    assert "row 5: query 'cleo' has no match in the gallery" in problems


def test_files_that_are_not_images(folder):
    (folder / "a0.png").write_text("this is no picture")
    (folder / "a1.png").write_bytes(b"")
    problems = table.check(write(folder, ROWS))
    assert len(problems) == 2
    assert all(p.startswith(f"row {r}: ") and "cannot be read as an image" in p for r, p in zip((2, 3), problems))
    half = (folder / "b0.png").read_bytes()
    (folder / "b0.png").write_bytes(half[: len(half) // 2])
    assert any(p.startswith("row 4: ") for p in table.check(folder / "mine.csv"))


def test_the_header(folder):
    path = write(folder, ROWS, HEADER.replace("camera", "cam"))
    assert table.check(path) == [
        "missing column camera: the first row must name the columns; found path, id, split, cam, time, category"
    ]
    path = write(folder, [r.replace(",", ";") for r in ROWS], HEADER.replace(",", ";"))
    assert "are the columns separated by commas?" in table.check(path)[0]
    path = write(folder, ROWS, HEADER.replace("time", "when"))
    assert table.check(path) == [
        "warning: column 'when' is not used; known are path, id, split, camera, time, category"
    ]
    (folder / "mine.csv").write_text("")
    assert "found nothing" in table.check(path)[0]


def test_files_that_are_not_tables(folder):
    assert table.check(folder / "none.csv") == [f"there is no file {folder / 'none.csv'}"]
    (folder / "mine.csv").write_bytes(b"\xff\xfe\x00p\x00a")
    assert "is not a CSV file in UTF-8" in table.check(folder / "mine.csv")[0]


def test_the_first_ten_of_many_problems(folder):
    path = write(folder, [f"x{i}.png,{i},train,0,0,mug" for i in range(30)])
    with pytest.raises(ValueError, match=r"has 32 problems:(?s:.)*row 11: there is no file(?s:.)*\.\.\. and 22 more$"):
        table.load(path)


def test_options_of_a_table(folder):
    with pytest.raises(ValueError, match=r"unknown option split of benchmark 'table:.*choose from size, channels"):
        load(f"table:{write(folder, ROWS)}", split=3)


def test_read_image(folder):
    transparent = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    transparent.save(folder / "ghost.png")
    assert (read_image(folder / "ghost.png", 4) == 255).all()  # transparent is white
    Image.new("RGB", (8, 4), (10, 20, 30)).save(folder / "colour.bmp")
    assert read_image(folder / "colour.bmp", 4, 3)[:, 0, 0].tolist() == [10, 20, 30]
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        read_image(folder / "nothing.png")
    with pytest.raises(ValueError, match="channels must be 1"):
        read_image(folder / "ghost.png", 4, 2)
    paths, images = read_folder(folder, size=8)
    assert [p.name for p in paths][:2] == ["a0.png", "a1.png"] and images.shape == (8, 1, 8, 8)
    assert np.array_equal(images[0], read_image(folder / "a0.png", 8))
