"""Readers for the benchmarks of people: Market-1501, DukeMTMC-reID, CUHK03, CUHK01, VIPeR, MSMT17, RandPerson.

The photographs show real people (those of RandPerson are rendered). The library downloads none of them and writes none
anywhere, and no page of the book shows one: get a set from its owners, on their terms. Identity and camera numbers are
those of the file names.

Rules (Zheng et al., 2015): images named -1 are *junk* and dropped before anything is ranked; identity 0 of Market-1501
stands for *distractors*, which stay in the gallery and can only be wrong. Every ``load`` prints what came of it
(:meth:`cdimlib.data.Benchmark.accounting`) and warns where that is not what was published.

A reader makes a table (pandas) of names before any image is read: "source", "id", "cam", "split" and, where there is
one, "time". A "split" other than train, query and gallery goes into ``Benchmark.meta``.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .benchmark import Benchmark, Split
from .images import IMAGE_ENDINGS, on_white
from .paths import DataNotFound, find_root

JUNK = -1
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
#: what a file name looks like up to its first dot, and an example
PATTERNS = {
    "market1501": (r"(?P<id>-1|\d{1,9})_c(?P<cam>[1-6])s(?P<session>[1-6])_(?P<frame>-?\d{1,9})_\d+",
                   "0002_c1s1_000451_03.jpg"),
    "dukemtmc-reid": (r"(?P<id>-1|\d{1,9})_c(?P<cam>[1-8])_f(?P<frame>\d{1,9})", "0002_c1_f0044158.jpg"),
    "cuhk03-np": (r"(?P<id>\d{1,9})_c(?P<cam>[12])_\d+", "0003_c1_21.png"),
    "cuhk01": (r"(?P<id>\d{4})(?P<index>00[1-4])", "0001001.png"),
    "viper": (r"(?P<id>\d{1,9})_\d+", "001_45.bmp"),
    "msmt17": (r"\d+_\d+_(?P<cam>\d{1,9})_.*", "0000_000_01_0303morning_0015_0.jpg"),
    "randperson": (r"(?P<id>\d{1,9})(?=\w*_s(?P<scene>\d\d?)_)(?=\w*_c(?P<cam>\d\d?)_)"
                   r"(?:_[sc]\d+){2}_f(?P<frame>\d{1,9})", "000000_s00_c00_f000264.jpg"),
}
#: published (images, identities, cameras) of train, query and gallery
COUNTS = {
    "market1501": ((12_936, 751, 6), (3_368, 750, 6), (15_913, 751, 6)),
    "dukemtmc-reid": ((16_522, 702, 8), (2_228, 702, 8), (17_661, 1_110, 8)),
    "cuhk03-np": ((7_365, 767, 2), (1_400, 700, 2), (5_332, 700, 2)),
    "cuhk03-np/labeled": ((7_368, 767, 2), (1_400, 700, 2), (5_328, 700, 2)),
    "viper": ((632, 316, 2), (316, 316, 1), (316, 316, 1)),
    "msmt17": ((32_621, 1_041, 15), (11_659, 3_060, 15), (82_161, 3_060, 15)),
    "randperson": ((132_145, 8_000, 19), (0, 0, 0), (0, 0, 0)),  # nothing to test on
}
DUKE_OFFSETS = np.array([5542, 3606, 27243, 31181, 0, 22401, 18967, 46765])  # frames, cameras 1 to 8
RANDPERSON_OFFSETS = np.array([0, 2, 4, 6, 8, 9, 10, 12, 13, 14, 15])  # cameras of the scenes before, scenes 0 to 10
DUKE_RATE, MARKET_RATE, RANDPERSON_RATE = 59.94, 25.0, 24.0  # frames a second


def read_photo(source, pixels: tuple[int, int] = (128, 64)) -> Tensor:
    """One photograph -> uint8 [3, H, W], resized to ``pixels`` = (H, W) by antialiased bilinear interpolation.

    source: a Path, or an array [3, W, H] (of an HDF5 file). Transparent parts become white, 16-bit grey becomes 8-bit.
    Raises ValueError that names a file which is missing, empty or does not decode.
    """
    from PIL import Image

    try:
        with Image.open(source) if isinstance(source, Path) else Image.fromarray(source[()].T) as image:
            image = on_white(image).resize((pixels[1], pixels[0]), Image.Resampling.BILINEAR)
    except Exception as error:  # decoders raise a dozen kinds
        why = "it is empty" if os.path.isfile(str(source)) and not os.path.getsize(source) else error
        raise ValueError(f"{source} cannot be read as an image ({why}): copy it again from the original") from error
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())  # [H, W, 3] -> [3, H, W]


def read_photos(sources, pixels: tuple[int, int] = (128, 64), title: str = "", verbose: bool = True) -> Tensor:
    """Many photographs, in order -> uint8 [N, 3, H, W]; a thread per core, a progress bar."""
    images = torch.empty(len(sources), 3, *pixels, dtype=torch.uint8)
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        stream = pool.imap(lambda source: read_photo(source, pixels), sources, chunksize=16)
        for index, image in enumerate(tqdm(stream, title, len(sources), disable=not verbose, leave=False)):
            images[index] = image
    return images


def parse(name: str, files) -> pd.DataFrame:
    """What file names of a set say: a table of "source" (the file), "id", "cam", "session", "frame" (if they do).

    Names that do not fit are left out with one warning; ValueError where none fits.
    """
    pattern, example = PATTERNS[name]
    files = pd.Series(list(files), dtype=object)
    plain = files.map(lambda f: Path(f).name)
    fields = plain.map(lambda f: f.partition(".")[0]).astype(str).str.extract(rf"\A{pattern}\Z", flags=re.ASCII)
    fits = fields.notna().all(axis=1)
    strange = plain[~fits].tolist()
    listed = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
    if not fits.any():
        raise ValueError(f"{name}: no image is named like {example}; found {listed or 'no image at all'}")
    if strange:
        warnings.warn(f"{name}: {len(strange)} file(s) not named like {example} are left out: {listed}", stacklevel=2)
    return fields[fits].astype(np.int64).assign(source=files[fits]).reset_index(drop=True)


def market_seconds(cams, sessions, frames, *, official_offsets: bool = False) -> np.ndarray:
    """Seconds float64 [N] of Market-1501: frame / 25 after the sessions of a camera are laid end to end.

    Frame numbers start anew in each session of a camera, so a session is shifted by the largest frame numbers of the
    sessions before it: pass the images of train, query and gallery together. Cameras have three, four or six sessions,
    but laid end to end five of them last 4.6 or 4.7 hours; camera 6 lasts 3.8.

    official_offsets: as the code published with the paper does it. It adds up the largest frames of the sessions before
    too, but takes each of them *after* that session was shifted: from the third session on, shifts count twice.
    Sessions of 1,000 frames start at 1, 1001, 3001, 7001, 15001, 31001 instead of 1, 1001, 2001, 3001, 4001, 5001.
    QAConv, Sec. 3.5.
    """
    cams, sessions, frames = (np.asarray(a) for a in (cams, sessions, frames))
    shifted = frames.astype(float)
    for cam in np.unique(cams):
        shift = 0.0
        for session in np.unique(sessions[cams == cam]):
            mine = (cams == cam) & (sessions == session)
            shifted[mine] += shift
            shift += (shifted if official_offsets else frames)[mine].max()
    return shifted / MARKET_RATE


def duke_seconds(cams, frames) -> np.ndarray:
    """Seconds float64 [N] of DukeMTMC-reID: (frame + offset of camera 1 to 8) / 59.94. QAConv, Sec. 3.5."""
    return (np.asarray(frames) + DUKE_OFFSETS[np.asarray(cams) - 1]) / DUKE_RATE


def check_split(number: int, count: int) -> None:
    """Refuse the number of a split that there is not."""
    if number not in range(count):
        raise ValueError(f"split must be a whole number from 0 to {count - 1}, not {number!r}")


def _folder(folder: Path, name: str, **columns) -> pd.DataFrame:
    """The table of one folder, in the order of its file names, hidden files left out."""
    if not folder.is_dir():
        raise DataNotFound(f"{name}: there is no folder {folder}. {_mend(name)}")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith("."))
    try:
        return parse(name, files).assign(**columns)
    except ValueError as error:
        raise ValueError(f"{error} (in {folder})") from None


def _three_folders(base, name, more=()):
    """Market-1501, DukeMTMC-reID, CUHK03-NP: all that is known stands in the names of folders and files."""
    folders = [*FOLDERS.items(), *more]
    stem = name.partition("/")[0]
    table = pd.concat([_folder(base / folder, stem, split=split) for split, folder in folders], ignore_index=True)
    if stem == "dukemtmc-reid":
        table["time"] = duke_seconds(table.cam, table.frame)
    return table, COUNTS[name], SETS[stem].title


def _market1501(base, name, *, official_offsets=False, multi_query=False):
    table, *rest = _three_folders(base, name, [("multi_query", "gt_bbox")] if multi_query else [])
    pairs = pd.MultiIndex.from_frame(table[["id", "cam"]])  # hand-drawn boxes: those that say more about a query
    table = table[(table.split != "multi_query") | pairs.isin(pairs[table.split == "query"])]
    timed = (table.split != "multi_query") & (table.id != JUNK)
    columns = (table.loc[timed, c] for c in ("cam", "session", "frame"))
    table.loc[timed, "time"] = market_seconds(*columns, official_offsets=official_offsets)
    return table, *rest


def _cuhk03(base, name, **options):
    from .cuhk03 import read_raw

    return read_raw(base, _kind(name), **options)


def _msmt17(base, name):
    parts, rows = ("mask_train_v2", "mask_test_v2") if (base / "mask_train_v2").is_dir() else ("train", "test"), []
    for file in SETS[name].holds:
        for number, line in enumerate((base / file).read_text(encoding="utf-8").splitlines(), 1):
            match = re.fullmatch(r"\s*(.+?)\s+(\d{1,9})\s*", line, re.ASCII)
            if not match and line.strip():
                raise ValueError(f"{base / file}, line {number}: {line.strip()!r} is not a path and an identity number")
            if match:
                split = file[5:-4].replace("val", "train")  # list_val.txt belongs to train
                rows.append((base / parts[split != "train"] / match[1], int(match[2]), split))
    table = pd.DataFrame(rows, columns=["source", "id", "split"])
    train = table.split == "train"
    table.loc[~train, "id"] += table.id[train].max() + 1  # in the lists both start at 0
    return parse(name, table.source).merge(table, on="source"), COUNTS[name], f"MSMT17 ({parts[0]})"


def _cuhk01(base, name, *, split=0, test=100):
    table = _folder(base / "campus", name)
    table["cam"] = np.where(table["index"] <= 2, 1, 2)
    counts = (3_884 - 4 * test, 971 - test, 2), (2 * test, test, 1), (2 * test, test, 1)
    return _random_split(table, test, split, 1), counts, f"CUHK01, {971 - test}/{test} identities, random split {split}"


def _viper(base, name, *, split=0, direction="a->b"):
    if direction not in ("a->b", "b->a"):
        raise ValueError(f"direction must be 'a->b' (cam_a asks, cam_b is searched) or 'b->a', not {direction!r}")
    table = pd.concat([_folder(base / f, name, cam=c) for c, f in ((1, "cam_a"), (2, "cam_b"))], ignore_index=True)
    seen = table.groupby("id").cam.agg(list)
    odd = seen.index[seen.map(lambda cams: cams != [1, 2])]
    if len(odd):
        raise ValueError(f"{base}: each person needs one image in cam_a and one in cam_b; not so for {len(odd)} of "
                         f"{len(seen)}, the first of them {odd[0]:03d}")
    table = _random_split(table, len(seen) // 2, split, 1 if direction == "a->b" else 2)
    return table, COUNTS[name], f"VIPeR, random split {split}, {direction}"


def _random_split(table: pd.DataFrame, test: int, split: int, asks: int) -> pd.DataFrame:
    """``test`` identities drawn with the split's number (0 to 9) as the seed; camera ``asks`` is the query's.

    VIPeR and CUHK01 come without official splits: their results are means over ten of one's own.
    """
    check_split(split, 10)
    ids = np.unique(table.id)
    if not 0 < test < len(ids):
        raise ValueError(f"{test} test identities do not fit into {len(ids)}: some must be left for training")
    tested = table.id.isin(np.random.default_rng(split).choice(ids, test, replace=False))
    return table.assign(split=np.where(tested, np.where(table.cam == asks, "query", "gallery"), "train"))


def _randperson(base, name):
    """Names say scene, camera of that scene and frame; an older release has the camera before the scene."""
    folders = [base / "randperson_subset", base / "randperson_subset" / "randperson_subset"]  # as some unpack it
    table = _folder(folders[folders[1].is_dir()], name, split="train")
    last = len(RANDPERSON_OFFSETS) - 1
    if table.scene.max() > last:
        raise ValueError(f"{base}: a file name speaks of scene {table.scene.max()}, but there are only 0 to {last}")
    table["cam"] += RANDPERSON_OFFSETS[table.scene]
    return table.assign(time=table.frame / RANDPERSON_RATE), COUNTS[name], SETS[name].title


class PeopleSet(NamedTuple):
    """Which ``folders`` a set may lie in and what they ``hold``, who offers it, how it is read, with which options."""

    title: str
    folders: tuple[str, ...]
    holds: tuple[str, ...]
    owner: str
    read: Callable
    options: tuple[str, ...] = ()


THREE, CUHK = tuple(FOLDERS.values()), "Its owners offer it at www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html."
SETS = {
    "market1501": PeopleSet(
        "Market-1501", ("Market-1501-v15.09.15", "market1501/Market-1501-v15.09.15", "market1501"), THREE,
        "Its owners offer it at zheng-lab.cecs.anu.edu.au/Project/project_reid.html.",
        _market1501, ("official_offsets", "multi_query")),
    "dukemtmc-reid": PeopleSet(
        "DukeMTMC-reID", ("DukeMTMC-reID", "dukemtmc-reid/DukeMTMC-reID", "dukemtmc-reid"), THREE,
        "Its owners withdrew it in 2019: there is no download; the book's page on ethics says why.", _three_folders),
    "cuhk03-np": PeopleSet(
        "CUHK03, new protocol", ("cuhk03-np/{kind}", "CUHK03-NP/{kind}", "{kind}"), THREE,
        "The authors of the protocol offer it at github.com/zhunzhong07/person-re-ranking.", _three_folders),
    "cuhk03": PeopleSet("CUHK03", ("cuhk03_release", "cuhk03/cuhk03_release", "cuhk03"), ("cuhk-03.mat",), CUHK,
                        _cuhk03, ("protocol", "split", "validation")),
    "cuhk01": PeopleSet("CUHK01", ("CUHK01", "cuhk01"), ("campus",), CUHK, _cuhk01, ("split", "test")),
    "viper": PeopleSet("VIPeR", ("VIPeR", "viper/VIPeR", "viper"), ("cam_a", "cam_b"),
                       "Its owners offer it at vision.soe.ucsc.edu/node/178.", _viper, ("split", "direction")),
    "msmt17": PeopleSet("MSMT17", ("MSMT17_V1", "MSMT17_V2", "msmt17/MSMT17_V1", "msmt17/MSMT17_V2", "msmt17"),
                        ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt"),
                        "Its owners give it on request, see www.pkuvmc.com.", _msmt17),
    "randperson": PeopleSet("RandPerson (rendered, training only)", ("RandPerson", "randperson"),
                            ("randperson_subset",), "Its authors offer it at github.com/VideoObjectSearch/RandPerson.",
                            _randperson),
}
NAMES = (*SETS, "cuhk03/labeled", "cuhk03-np/labeled")


def _kind(name: str) -> str:
    return name.partition("/")[2] or "detected"


def _mend(name: str) -> str:
    chosen = SETS[name.partition("/")[0]]
    return (f"Put {', '.join(chosen.holds)} into a folder {chosen.folders[0].format(kind=_kind(name))}, and name the "
            f"folder around that by root= or CDIM_DATA. {chosen.owner} The library downloads no photographs of people.")


def load_people(
    name: str, root: str | Path | None = None, *, pixels: tuple[int, int] = (128, 64), verbose: bool = True, **options
) -> Benchmark:
    """A benchmark of people, uint8 [N, 3, H, W]; :func:`cdimlib.data.load` lists names and options.

    pixels: (height, width). All images are kept in memory: 128 x 64 takes 24 kB each (MSMT17: 3.1 GB). ``meta`` holds
    "paths" and "junk" of each split and, as further Splits, "multi_query" (Market-1501: the hand-drawn boxes of each
    query's person under its own camera) or "validation" (CUHK03, classic). RandPerson is for training only: its query
    and gallery are empty (``with_validation`` makes some).

    Raises DataNotFound (what to put where), ValueError (a file that does not decode, a bad option).
    """
    if not isinstance(pixels, tuple) or len(pixels) != 2 or not all(isinstance(p, int) and p > 0 for p in pixels):
        raise ValueError(f"pixels must be (height, width) in whole pixels, such as (128, 64), not {pixels!r}")
    chosen = SETS[name.partition("/")[0]]
    table, published, note = chosen.read(home(name, root), name, **options)
    junk, splits, paths = table.id == JUNK, {}, {}
    for split, rows in table[~junk].groupby("split", sort=False):
        times = rows.time.to_numpy(float) if "time" in rows and rows.time.notna().all() else None
        paths[split] = rows["name" if "name" in rows else "source"].map(str).tolist()
        images = read_photos(rows.source.tolist(), pixels, f"{name} {split}", verbose)
        splits[split] = Split(images, rows.id.to_numpy(np.int64), rows.cam.to_numpy(np.int64), times)
    empty = [split for split, row in zip(FOLDERS, published, strict=True) if split not in splits and row[0] != 0]
    if empty:
        raise ValueError(f"{name}: no image is left for {', '.join(sorted(empty))}")
    nothing = splits["train"].where(np.arange(0))
    benchmark = Benchmark(
        name, *(splits.pop(s, nothing) for s in FOLDERS), note=f"{note}, {pixels[0]} x {pixels[1]}",
        meta={"junk": table.split[junk].value_counts().to_dict(), "paths": paths, **splits})
    counts = benchmark.accounting()
    wrong = [
        f"{split} has {counts.loc[split, what]:,} {what}, published are {expected:,}"
        for split, row in zip(FOLDERS, published, strict=True)
        for what, expected in zip(("images", "identities", "cameras"), row, strict=True)
        if expected not in (None, counts.loc[split, what])]
    if wrong:
        warnings.warn(f"{name}: {'; '.join(wrong)}. Is the copy complete and unchanged?", stacklevel=3)
    if verbose:
        print(f"{name}: {benchmark.note}\n{counts.to_string()}")
    return benchmark


def home(name: str, root: str | Path | None = None) -> Path:
    """The folder of the set, or one message: what is missing, and whether the folder given is a level off."""
    chosen = SETS[name.partition("/")[0]]

    def holds_all(folder):
        return all((folder / h).exists() for h in chosen.holds)

    try:
        base = find_root(name, tuple(f.format(kind=_kind(name)) for f in chosen.folders), root, mend=_mend(name))
        if holds_all(base):
            return base
        lacking = [h for h in chosen.holds if not (base / h).exists()]
        message = f"{name}: {base} holds no {', '.join(lacking)}. {_mend(name)}"
    except DataNotFound as error:
        base, message = Path(root or os.environ.get("CDIM_DATA") or "."), str(error)
    below = (f.parent for levels in ("*", "*/*") for f in sorted(base.glob(f"{levels}/{chosen.holds[0]}")))
    right = next((f for f in (base, base.parent, *below) if holds_all(f)), None)
    if right is not None:
        level = "is too low a level" if right == base.parent else "is too high a level" if right != base else "is it"
        message += f" But {base} {level}: give root={str(right)!r}."
    raise DataNotFound(message)
