"""CUHK03 from its one raw file, ``cuhk-03.mat`` (Li et al., 2014): classic splits and the new protocol.

Layout (HDF5, arrays transposed): ``detected`` and ``labeled`` are five cells, one per pair of cameras, with 843, 440,
77, 58 and 49 persons by ten images; images 1 to 5 are of the pair's first view, 6 to 10 of its second, and some are
empty. ``testsets`` are twenty lists of 100 (pair, person), counted from 1. Reading it needs ``h5py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .benchmark import Benchmark, Split
from .people import COUNTS, SETS, DataNotFound, check_split

CLASSIC_PEOPLE = 1_360  # of the first three pairs of cameras


def read_raw(base: Path, kind: str, *, protocol: str = "classic", split: int = 0, validation: int = 100):
    """The table, published counts and note that :func:`cdimlib.data.people.load_people` wants.

    kind: "detected" or "labeled" boxes.
    protocol: "classic": test set ``split`` (0 to 19) of the file, 100 identities, view 1 against view 2. Of the other
    1,260 of the first three pairs, ``validation`` are drawn with the split's number as the seed and go to
    ``meta["validation"]`` (1160/100/100). To be judged single-shot, as a mean over the splits.
    protocol "new" (Zhong et al., 2017): 767/700 identities, as ``cuhk03_new_protocol_config_<kind>.mat`` beside the raw
    file or one folder up says; the other options do not apply.
    """
    if protocol not in ("classic", "new"):
        raise ValueError(f"protocol must be 'classic' or 'new', not {protocol!r}")
    check_split(split, 20)
    table, tested = _read(base / "cuhk-03.mat", kind, split)
    note = f"CUHK03, {protocol} protocol, {kind} boxes"
    if protocol == "new":
        return _new_protocol(base, kind, table), COUNTS["cuhk03-np" + "/labeled" * (kind == "labeled")], note
    table["id"] = table.groupby(["pair", "person"]).ngroup() + 1  # 1 to 1,467, in the order of the file
    test = np.unique(table.id[pd.MultiIndex.from_frame(table[["pair", "person"]]).isin(tested)])
    rest = np.setdiff1d(table.id[table.pair <= 3], test)
    if not 0 <= validation < len(rest):
        raise ValueError(f"{validation} identities for validation do not fit into the {len(rest)} that are not tested")
    held = np.random.default_rng(split).choice(rest, validation, replace=False)
    table["split"] = np.where(table.cam == 1, "query", "gallery")
    table.loc[table.id.isin(rest), "split"] = "train"
    table.loc[table.id.isin(held), "split"] = "validation"
    counts = (None, 1_260 - validation, 2), (None, 100, 1), (None, 100, 1)
    return table[table.id.isin(rest) | table.id.isin(test)], counts, f"{note}, split {split}"


def _read(path: Path, kind: str, split: int) -> tuple[pd.DataFrame, pd.MultiIndex]:
    """All images ("source", "name", "pair", "person", "cam", "image") and the (pair, person) of the test set."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"reading {path} needs the package h5py: pip install h5py") from error
    try:
        file, rows = h5py.File(path, "r"), []
        for pair, cell in enumerate(file[kind][0], 1):
            for image, column in enumerate(file[cell][()], 1):  # [10, persons]
                sources = [file[ref] for ref in column]  # an image is [3, W, H]; an empty cell holds its size instead
                rows += [(s, pair, n, 1 + (image > 5), image) for n, s in enumerate(sources, 1) if s.ndim == 3]
        tested = file[file["testsets"][0, split]][()].astype(int)  # [2, 100]
        table = pd.DataFrame(rows, columns=["source", "pair", "person", "cam", "image"])
    except Exception as error:
        raise ValueError(f"{path} is not the raw file of CUHK03, or is damaged ({error}): copy it again") from error
    table = table.sort_values(["pair", "person", "image"], ignore_index=True)
    name = [f"{r.pair}_{r.person:03d}_{r.cam}_{r.image:02d}.png" for r in table.itertuples()]
    return table.assign(name=name), pd.MultiIndex.from_arrays(tested)


def _new_protocol(base: Path, kind: str, table: pd.DataFrame) -> pd.DataFrame:
    from scipy.io import loadmat

    name = f"cuhk03_new_protocol_config_{kind}.mat"
    path = next((p for p in (base / name, base.parent / name) if p.is_file()), None)
    if path is None:
        raise DataNotFound(f"protocol='new' needs {name} in {base} or one folder up. {SETS['cuhk03-np'].owner}")
    try:
        config = loadmat(path)
        names = [str(f.item()) for f in config["filelist"].ravel()]
        files = pd.DataFrame({"name": names, "id": config["labels"].ravel().astype(np.int64)})
        parts = [files.iloc[config[f"{s}_idx"].ravel() - 1].assign(split=s) for s in ("train", "query", "gallery")]
    except Exception as error:
        raise ValueError(f"{path} cannot be read as the new protocol ({error}): copy it again") from error
    chosen = pd.concat(parts, ignore_index=True).merge(table, on="name", how="left")
    lost = chosen.name[chosen.source.isna()]
    if len(lost):
        raise ValueError(f"{path} names {len(lost)} images that the raw file has not, such as {lost.iloc[0]}: "
                         "is one of the two files another release, or cut short?")
    return chosen


def classic(bench: Benchmark, split: int = 0, *, test: int = 100, validation: int = 100) -> Benchmark:
    """The new protocol's images, cut anew into a random classic split, for those who have no raw file.

    The new protocol numbers all 1,467 people in the order of the raw file, so the first 1,360 are those of the first
    three pairs of cameras: 13,164 detected images, as the classic protocol counts them. Of these, ``test`` and
    ``validation`` identities are drawn with the split's number (0 to 19) as the seed; view 1 asks, view 2 is searched.
    These are not the twenty test sets of the raw file, and the copies that go round are of 64 x 128 pixels.
    Multilevel-similarity, Sec. 4.1 (1160/100/100, chosen at random).
    """
    check_split(split, 20)
    whole = Split.join([bench.train, bench.query, bench.gallery])
    whole = whole.where((whole.ids >= 1) & (whole.ids <= CLASSIC_PEOPLE))
    people = np.random.default_rng(split).permutation(np.unique(whole.ids))
    if test < 1 or validation < 0 or len(people) < test + validation + 2:
        raise ValueError(f"{test} identities for testing and {validation} for validation do not fit into {len(people)}")
    tested, held = people[:test], people[test : test + validation]
    mine = np.isin(whole.ids, tested)
    name, used = bench.name.replace("cuhk03-np", "cuhk03"), len(people) - test - validation
    height, width = whole.images.shape[2:]
    kind = bench.name.partition("/")[2] or "detected"
    note = (f"CUHK03, {kind} boxes, random classic split {split} of the first 1,360 people in the new protocol's "
            f"folders, {used}/{validation}/{test} identities, view 1 against view 2, {height} x {width} from copies of "
            "128 x 64")
    return Benchmark(
        name, whole.where(~np.isin(whole.ids, people[: test + validation])), whole.where(mine & (whole.cams == 1)),
        whole.where(mine & (whole.cams == 2)), note=note, meta={"validation": whole.where(np.isin(whole.ids, held))})
