"""Bring your own data: a table (CSV) with one row per image.

======== ======== =====================================================================================
column   needed   meaning
======== ======== =====================================================================================
path     yes      image file, relative to the table's own folder (or to ``root``)
id       yes      which object or person; any text; ``-1`` is junk and left out (Market-1501's rule)
split    yes      ``train``, ``query`` or ``gallery``
camera   yes      domain or camera, a whole number; for sketches: 0 a photo or edge map, 1 a sketch
time     no       seconds, a number
category no       kind of object; any text
======== ======== =====================================================================================

A gallery identity that no query asks about is a distractor and stays.

:func:`check` says in words what is wrong with a table, :func:`load` reads it as a
:class:`~cdimlib.data.Benchmark`. Rows are numbered as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .benchmark import Benchmark, Split
from .images import height_width, read_image

NEEDED = ("path", "id", "split", "camera")
OPTIONAL = ("time", "category")
SPLITS = ("train", "query", "gallery")
WARNING = "warning: "
JUNK = "-1"


@dataclass
class _Table:
    rows: list[dict] = field(default_factory=list)  # the good fields of every row, and "row", its number
    columns: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    images: dict[int, torch.Tensor] = field(default_factory=dict)  # row number -> image


def check(path: str | Path, root: str | Path | None = None) -> list[str]:
    """Everything that is wrong with a table, in words, with row numbers; an empty list for a sound one.

    What starts with "warning: " does not keep :func:`load` from reading the table. Every image is opened once.
    """
    return _read(Path(path), root, size=8, channels=1, keep=False).problems


def load(
    path: str | Path, root: str | Path | None = None, size: int | tuple[int, int] = 256, channels: int = 1,
    verbose: bool = True,
) -> Benchmark:
    """Read a table as a benchmark; images become uint8 [N, channels, H, W].

    size: (H, W), such as (128, 64) for people, or one number for a square; images are stretched to it.
    root: folder that the paths are relative to (default: the table's own). ``meta["ids"]`` holds the id of the table
    for every number in ``Split.ids``, ``meta["paths"]`` the paths of each split, ``meta["junk"]`` how many rows of each
    were left out. With ``verbose`` the accounting is printed.

    Raises one ValueError that lists what :func:`check` found (the first ten).
    """
    path, size = Path(path), height_width(size)
    table = _read(path, root, size=size, channels=channels, keep=True)
    wrong = [p for p in table.problems if not p.startswith(WARNING)]
    if wrong:
        more = f"\n... and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        listed = "\n".join(f"- {p}" for p in wrong[:10])
        raise ValueError(f"{path} has {len(wrong)} problem{'s' * (len(wrong) > 1)}:\n{listed}{more}")
    for problem in table.problems:
        warnings.warn(f"{path}: {problem.removeprefix(WARNING)}", stacklevel=2)
    junk = {s: sum(r["split"] == s and r["id"] == JUNK for r in table.rows) for s in SPLITS}
    table.rows = [r for r in table.rows if r["id"] != JUNK]
    names = sorted({r["id"] for r in table.rows})
    number = {name: n for n, name in enumerate(names)}
    categories = tuple(sorted({r["category"] for r in table.rows})) if "category" in table.columns else ()
    timed = "time" in table.columns

    def split(name: str) -> Split:
        rows = [r for r in table.rows if r["split"] == name]
        images = [table.images[r["row"]] for r in rows]
        return Split(
            torch.stack(images) if images else torch.empty(0, channels, *size, dtype=torch.uint8),
            np.array([number[r["id"]] for r in rows], np.int64),
            np.array([r["camera"] for r in rows], np.int64),
            np.array([r["time"] for r in rows], float) if timed else None,
            np.array([categories.index(r["category"]) for r in rows], np.int64) if categories else None,
        )

    benchmark = Benchmark(
        path.stem, *(split(s) for s in SPLITS), categories=categories, note=f"own images, listed in {path.name}",
        meta={"ids": names, "junk": junk,
              "paths": {s: [r["path"] for r in table.rows if r["split"] == s] for s in SPLITS}},
    )
    if verbose:
        print(f"{path.name}\n{benchmark.accounting()}")
    return benchmark


def _read(path: Path, root, *, size, channels: int, keep: bool) -> _Table:
    table = _Table()
    lines = _lines(path, table)
    if table.problems:
        return table
    folder = Path(root) if root is not None else path.parent
    seen: dict[str, int] = {}
    for number, line in lines:
        row = _row(number, line, table)
        name = row.get("path")
        if name is None:
            continue
        plain = os.path.normpath(name)  # "./a.png" is "a.png"
        if plain in seen:
            table.problems.append(f"row {number}: {name} is listed already in row {seen[plain]}: keep one of the two")
        seen.setdefault(plain, number)
        try:
            image = read_image(folder / name, size, channels)
            if keep:
                table.images[number] = image
        except OSError as error:
            if not isinstance(error, FileNotFoundError):  # a path that no file can have
                table.problems.append(f"row {number}: {name[:60]!r} cannot be opened ({error.strerror})")
                continue
            table.problems.append(f"row {number}: there is no file {folder / name}")
        except ValueError as error:
            table.problems.append(f"row {number}: {error}")
    _check_whole(table)
    return table


def _lines(path: Path, table: _Table) -> list[tuple[int, dict]]:
    """The rows below the header as dictionaries, numbered; complaints about the file as a whole."""
    if not path.is_file():
        table.problems.append(f"there is no file {path}")
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="too many", skipinitialspace=True)
            table.columns = tuple((c or "").strip() for c in reader.fieldnames or ())
            reader.fieldnames = list(table.columns)
            lines = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        table.problems.append(f"{path} is not a CSV file in UTF-8 ({error}): save it as CSV, UTF-8")
        return []
    twice = sorted({c for c in table.columns if c and table.columns.count(c) > 1})
    if twice:
        table.problems.append(f"column {', '.join(twice)} stands twice in the first row: keep one of the two")
        return []
    missing = [c for c in NEEDED if c not in table.columns]
    if missing:
        found = ", ".join(table.columns) or "nothing"
        hint = " (are the columns separated by commas?)" if len(table.columns) == 1 else ""
        table.problems.append(f"missing column {', '.join(missing)}: the first row must name the columns; "
                              f"found {found}{hint}")
    elif not lines:
        table.problems.append("the table has a header but no rows")
    for extra in [c for c in table.columns if c not in NEEDED + OPTIONAL]:
        if not missing:
            table.problems.append(f"{WARNING}column {extra!r} is not used; known are {', '.join(NEEDED + OPTIONAL)}")
    if any(not p.startswith(WARNING) for p in table.problems):
        return []
    return lines


def _row(number: int, line: dict, table: _Table) -> dict:
    """One row with the fields that are sound; complaints about the others."""
    def complain(what):
        table.problems.append(f"row {number}: {what}")

    row = {"row": number}
    if line.pop("too many", None) is not None:
        complain("more fields than columns (a path with a comma needs quotes)")
    for name in table.columns:
        value = (line[name] or "").strip()
        if name not in NEEDED + OPTIONAL:
            continue
        if not value:
            complain(f"{name} is missing")
        elif name == "split" and value not in SPLITS:
            complain(f"unknown split {value!r}: use {', '.join(SPLITS)}")
        elif name == "camera":
            try:
                row[name] = int(np.int64(int(value)))
            except (ValueError, OverflowError):
                complain(f"camera must be a whole number, not {value!r}")
        elif name == "time":
            try:
                row[name] = float(value)
            except ValueError:
                row[name] = math.nan
            if not math.isfinite(row[name]):
                complain(f"time must be a number of seconds, not {value!r}")
        else:
            row[name] = value
    table.rows.append(row)
    return row


def _check_whole(table: _Table) -> None:
    """What no single row can show: empty splits, queries without a match, identities on both sides."""
    rows = [r for r in table.rows if r.get("id") != JUNK]
    used = [r for r in rows if {"id", "split", "camera"} <= r.keys()]
    for name in ("query", "gallery"):
        if not any(r.get("split") == name for r in rows):
            table.problems.append(f"no row has split {name}: nothing can be {'asked' if name == 'query' else 'found'}")
    cameras = defaultdict(set)
    for r in used:
        if r["split"] == "gallery":
            cameras[r["id"]].add(r["camera"])
    for r in used:
        if r["split"] == "query" and not cameras[r["id"]]:
            table.problems.append(f"row {r['row']}: query {r['id']!r} has no match in the gallery")
        elif r["split"] == "query" and cameras[r["id"]] == {r["camera"]}:
            table.problems.append(f"row {r['row']}: query {r['id']!r} has a match in the gallery only under its own "
                                  f"camera {r['camera']}, and such matches are ignored")
    kinds = defaultdict(set)
    for r in rows:
        if {"id", "category"} <= r.keys():
            kinds[r["id"]].add(r["category"])
    if several := sorted(name for name in kinds if len(kinds[name]) > 1):
        table.problems.append(f"{len(several)} identities stand under two categories ({', '.join(several[:5])}"
                              f"{', ...' if len(several) > 5 else ''}): ids must be unique in the whole table")
    train = {r["id"] for r in used if r["split"] == "train"}
    both = sorted(train & {r["id"] for r in used if r["split"] != "train"})
    if both:
        table.problems.append(f"{WARNING}{len(both)} identities are in train and in query or gallery "
                              f"({', '.join(both[:5])}{', ...' if len(both) > 5 else ''}): the test is not of new ones")
