"""Results: one run, one JSON; tables are computed from these and from the papers' own numbers.

A result holds ``REQUIRED`` and, per data set in ``metrics``: acc@1, acc@10 (percent), the rank of each query's match
(``first_rank``, 1 = best, for intervals) and the CMC curve follows from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from . import __version__
from .data.benchmark import usual_size
from .distributed import agree
from .training import device_name, is_first, precision_on, save_atomically

#: the checkout's data/ folder; an installed library carries a copy of the tables and results as cdimlib/shipped
_CHECKOUT = Path(__file__).resolve().parent.parent / "data"
ROOT = _CHECKOUT if (_CHECKOUT / "papers").is_dir() else Path(__file__).resolve().parent / "shipped"
REQUIRED = (
    "paper", "row", "track", "seed", "config", "data", "metrics", "wall_seconds", "device", "versions", "commit",
)


def _commit(folder: Path) -> str:
    """The commit of the checkout ``folder``, with "-dirty" where the library there differs from it."""
    if ROOT != _CHECKOUT:
        return "unknown"  # an installed library; the folder around it may be a checkout of anything

    def git(*words) -> str:
        call = ["git", "-C", str(folder), *words]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(git("status", "--porcelain", "--", "cdimlib"))
    except (OSError, subprocess.SubprocessError):
        return "unknown"


#: of the code that runs, so asked when it is imported and not when a run ends
COMMIT = _commit(ROOT.parent)


def settings_of(run, **unasked) -> dict:
    """All settings of a run (a dataclass), as a result keeps them; those in ``unasked`` only where they differ."""
    return {name: value for name, value in asdict(run).items() if name not in unasked or value != unasked[name]}


def check_run(run, rows: Iterable[str], *, row: str = "row", from_one: tuple[str, ...] = ()) -> None:
    """What the settings of every kind of run have to meet, or a ValueError; lists (JSON has no tuples) become tuples,
    and a toy town's size is the profile's where none is given: a tiny town's result is not a large one's.

    rows: the known values of the field called ``row``; from_one: fields that must be at least 1.
    """
    for name, value in vars(run).items():
        if isinstance(value, list):
            object.__setattr__(run, name, tuple(value))
    if getattr(run, "size", "") is None and run.benchmark.startswith("toytown-"):
        object.__setattr__(run, "size", usual_size())
    if getattr(run, row) not in rows:
        raise ValueError(f"unknown {row} {getattr(run, row)!r}: choose from {', '.join(map(repr, rows))}")
    for name in from_one:
        if getattr(run, name) < 1:
            raise ValueError(f"{name} must be at least 1 (got {getattr(run, name)})")
    if not 0 <= run.validation < 1:
        raise ValueError(f"validation must lie between 0 and 1 (got {run.validation}): the share of training "
                         "identities held out, 0 for none")
    also = getattr(run, "also", ())
    if len({run.benchmark, *also}) <= len(also):
        raise ValueError(f"also={also} names a benchmark twice, or {run.benchmark!r}, the run's own")


def digest(settings: dict) -> str:
    """Ten hexadecimal digits of settings, for a checkpoint's name: other settings must not resume from it."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


def machine(device: torch.device | str = "cpu", precision: str = "auto") -> dict:
    """Where a run ran: device, what its precision was there, versions, commit, date; merged into its JSON."""
    device = torch.device(device)
    name = device_name(device) + (f", {platform.machine()}" if device.type == "cpu" else "")
    versions = {"cdimlib": __version__, "torch": torch.__version__, "numpy": np.__version__,
                "python": platform.python_version()}
    return {"device": name, "precision": precision_on(device, precision), "versions": versions, "commit": COMMIT,
            "date": datetime.now(UTC).date().isoformat()}


def processor() -> str:
    """This machine's processor in words, with its cores: what seconds depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def peak_memory(device: torch.device) -> float | None:
    """Largest memory use so far in MiB: of the GPU, or of this process (None on Windows, which does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)


def path_of(result: dict, folder: str | Path | None = None) -> Path:
    """Where a result lives: <folder>/<paper>/<track>-<row>-<data>-<budget>-s<seed>.json."""
    words = [result["track"], result["row"], result["data"]["name"], result.get("budget", ""), f"s{result['seed']}"]
    stem = re.sub("[/, :]", "_", "-".join(str(w) for w in words if w))
    return Path(folder or ROOT / "results") / result["paper"] / f"{stem}.json"


def check(result: dict, source: str = "result") -> dict:
    """The result itself, or a ValueError that names what is missing."""
    missing = [name for name in REQUIRED if name not in result]
    if missing:
        raise ValueError(f"{source} lacks {', '.join(missing)}: it was not written by results.save; run it again")
    for name, values in result["metrics"].items():
        if not {"acc@1", "acc@10", "first_rank"} <= values.keys():
            raise ValueError(f"{source}: metrics of {name!r} need acc@1, acc@10 and first_rank")
    return result


def read(path: Path) -> dict:
    """The result in a file; ValueError that names the file where it holds none."""
    try:
        return check(json.loads(path.read_text()), str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore it or delete it and run again") from error


def is_done(path: Path, settings: dict, mend: str, run=None) -> bool:
    """Whether a run has its result at ``path``; ValueError (that ends with ``mend``) if with other settings.

    run: gives the settings that ``settings`` leaves out, which a run's ``stub`` does where they are the default. That a
    result was judged on more (``also``) is no other setting.
    """
    if not path.exists():
        return False
    stored = read(path)["config"]
    left_out = stored.keys() - settings.keys() - {"also"}
    settings = {**settings, **{name: getattr(run, name) for name in left_out if hasattr(run, name)}}
    settings = json.loads(json.dumps(settings))
    if set(settings.get("also", ())) <= set(stored.get("also", ())):
        settings.pop("also", None)
    if other := {name: value for name, value in settings.items() if stored.get(name) != value}:
        raise ValueError(f"{path} was run with other settings than {other}: {mend}")
    return True


def took(run) -> str:
    """What committed runs of this row, data set and budget took, in words: the cost of a plan, where it is known.

    run: with a ``stub`` (see :func:`run_missing`).
    """
    stub = run.stub
    same = [r for r in load(stub["paper"], **{key: stub[key] for key in ("row", "track", "budget")})
            if r["data"]["name"] == stub["data"]["name"] and "wall_seconds" in r]  # fmt: skip
    if not same:
        return "not timed yet"
    minutes, where = [r["wall_seconds"] / 60 for r in same], sorted({r["device"].split(",")[0] for r in same})
    return f"took {np.median(minutes):.1f} min on {' or '.join(where)}"


def run_missing(
    runs: Iterable, execute: Callable[..., list[dict]], *, folder: str | Path | None, work: str | Path | None = None,
    leftovers: Callable[..., str] | None = None, mend: str = "give the run a label of its own",
) -> list[dict]:
    """Execute every run that has no result yet, in order; results are written as they come, so a stopped grid resumes.

    runs: their ``stub`` is what is known of a result before the run: the fields that name its file, and its ``config``;
    execute: a run -> its results; the one with the stub's name, by which the run counts as done, is saved last; work,
    leftovers: a folder, and a run -> a pattern for its checkpoints there, deleted when it is done; mend: what to
    do about a result of other settings under the same name.
    """
    done = []
    for run in runs:
        if agree(is_first() and is_done(path_of(run.stub, folder), run.stub["config"], mend, run)):
            continue
        found = execute(run)
        for result in sorted(found, key=lambda result: path_of(result) == path_of(run.stub)):
            save(result, folder)
        for leftover in Path(work).glob(leftovers(run)) if work and leftovers and is_first() else ():
            leftover.unlink()
        done += found
    return done


def save(result: dict, folder: str | Path | None = None) -> Path:
    """Write one result atomically; returns its path."""
    check(result)
    path = path_of(result, folder)
    text = _one_line_lists(json.dumps(result, indent=1, default=_plain))
    save_atomically(path, lambda part: part.write_text(text + "\n"))
    return path


def load(paper: str, folder: str | Path | None = None, **where) -> list[dict]:
    """All committed results of a paper whose fields equal ``where`` (``track="modern"``), ordered by file name.

    A list stands for any of its values: ``budget=["112px-150x64", "classical"]``.
    """
    found = []
    for path in sorted((Path(folder or ROOT / "results") / paper).glob("*.json")):
        result = read(path)
        if all(result.get(k) in (v if isinstance(v, list) else [v]) for k, v in where.items()):
            found.append(result)
    seen = {}
    for result in found:
        key = path_of(result, ".")
        if key in seen:
            raise ValueError(f"two results of one run: {key}; delete one of them")
        seen[key] = result
    return found


def paper_table(paper: str, table: int | None = None) -> pd.DataFrame:
    """A table as printed in the paper: columns table, dataset, protocol, method, metric, value."""
    frame = pd.read_csv(ROOT / "papers" / f"{paper}.csv", dtype={"table": int}, keep_default_na=False)
    if table is None:
        return frame
    if table not in set(frame["table"]):
        raise ValueError(f"{paper}.csv has no table {table}; it has {sorted(set(frame['table']))}")
    return frame[frame["table"] == table]


def spread(runs: list[dict], dataset: str, metric: str = "acc@1") -> tuple[float, float, int]:
    """Mean, standard deviation over seeds (ddof 1; nan for one run) and number of runs of one metric."""
    values = [r["metrics"][dataset][metric] for r in runs if dataset in r["metrics"]]
    if not values:
        return float("nan"), float("nan"), 0
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"), len(values)


def cell(runs: list[dict], dataset: str, metric: str = "acc@1") -> str:
    """Mean ± spread (number of runs) of one metric as text; "not run" without runs."""
    mean, sd, count = spread(runs, dataset, metric)
    return f"{mean:.1f} ± {sd:.1f} ({count})" if count > 1 else f"{mean:.1f} (1)" if count else "not run"


def compare(
    paper: str, table: int, rows: dict[str, str], *, metrics=("acc@1", "acc@10"), datasets=None, folder=None, **where
) -> pd.DataFrame:
    """Side by side: the paper's number and ours (mean and spread over seeds), one line per data set and method.

    rows: method as printed in the paper -> our row. A method without a run stays in the table as "not run".
    where: further fields our results must have (``track="modern"``, ``budget=...``). A network that was trained on one
    of the paper's data sets and judged on another is in no line.
    """
    printed, real, lines = paper_table(paper, table), set(paper_table(paper)["dataset"]), []
    found = load(paper, folder, **where)
    for dataset in datasets or printed["dataset"].unique():
        part = printed[printed["dataset"] == dataset]
        for method in part["method"].unique():
            runs = [r for r in found if r["row"] == rows.get(method) and dataset in r["metrics"]
                    and (r["data"]["name"] == dataset or r["data"]["name"] not in real)]  # fmt: skip
            if len({r["seed"] for r in runs}) < len(runs):
                raise ValueError(f"table {table}, {method} on {dataset}: a seed was run under several budgets "
                                 f"({', '.join(sorted({r['budget'] for r in runs}))}): say which, by budget=")
            line = {"data": dataset, "method": method}
            for metric in metrics:
                value = part[(part["method"] == method) & (part["metric"] == metric)]["value"]
                mean, sd, count = spread(runs, dataset, metric)
                line[f"paper {metric}"] = float(value.iloc[0]) if len(value) else None
                ours = f"{mean:.1f}" if count else "not run"
                line[f"ours {metric}"] = f"{ours} ± {sd:.1f}" if count > 1 else ours
            line["seeds"] = count
            lines.append(line)
    return pd.DataFrame(lines)


def first_row(benchmark: str, folder=None) -> list[dict]:
    """Results of colours and textures with a learned metric, learned and tested on a set of people: the first row of
    its tables, by which a network that has learned less than that can be told."""
    found = load("people", folder, row="colour-texture-metric", track="classical")
    found = [r for r in found if r["data"]["name"] == benchmark]
    if len(budgets := {r["budget"] for r in found}) > 1:
        raise ValueError(f"colours and textures were measured on {benchmark} under several budgets "
                         f"({', '.join(sorted(budgets))}): keep one of them in {folder or ROOT / 'results'}/people")
    return found


def bench(start: str) -> pd.DataFrame:
    """What ``make bench`` measured, of the tasks whose titles begin with ``start``: seconds and peak memory beside the
    input of each version, and how many times as fast, and as small, as the first of its task it is; or what else that
    table holds. Where is a column, or, if all was measured on one machine, ``attrs["machine"]``."""
    lines = []
    for path in sorted((ROOT / "results" / "bench").rglob("*.json")):
        kept = json.loads(path.read_text(encoding="utf8"))
        for part in (part for part in kept["tables"] if part["title"].startswith(start)):
            lines += [{"machine": kept["machine"], "task": part["title"], **row} for row in part["rows"]]
    if not lines:
        raise ValueError(f"no table in {ROOT / 'results' / 'bench'} begins with {start!r}: run `make bench`")
    names = {"name": "version", "faster": "times as fast", "smaller": "times as small"}
    frame = pd.DataFrame(lines).rename(columns=names).drop(columns="less CPU", errors="ignore")
    if frame["machine"].nunique() == 1:
        frame.attrs["machine"] = frame.pop("machine")[0]
    return frame


class Tables(list):
    """Tables for a page, one below the other."""

    def _repr_html_(self) -> str:
        return "".join(table.to_html() for table in self)


def bench_tables(start: str) -> Tables:
    """What :func:`bench` finds, for a page: a table for each task, with the task above it; numbers to three digits."""

    def short(value):
        return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    parts = bench(start).drop(columns="CPU seconds", errors="ignore").groupby("task", sort=False)
    return Tables(
        tidy(part.drop(columns="task").dropna(axis=1)).format(short).set_caption(task) for task, part in parts
    )


def tidy(frame: pd.DataFrame):
    """A table for a page: no row numbers, a dash where the paper prints nothing, two decimals."""
    return frame.style.hide(axis="index").format(precision=2, na_rep="–")


def gain(
    better: list[dict], base: list[dict], dataset: str | None, of_base: str | None = None, *, k: int = 1,
    samples: int = 4000, seed: int = 0,
) -> tuple[float, float, float]:
    """Difference of acc.@k in points between two rows, with a 95 % interval: (mean, low, high).

    dataset: a key of ``metrics``, or None for the queries of all of them together; of_base: another key, of as many
    queries, for the second row.
    Paired bootstrap: runs are paired by seed and resampled, and within them the queries are resampled (the same
    queries for both rows), so the interval covers both the choice of test objects and the luck of training. All runs
    share a sample of queries, unless each has queries of its own: random splits, which the data's note numbers. Queries
    that both rows skip (no match by another camera, ``first_rank`` 0) do not count.
    """
    pairs = [(a, b) for a in better for b in base if a["seed"] == b["seed"]]
    if not pairs:
        raise ValueError("the two rows share no seed: nothing to pair")

    def ranks(result, key):
        chosen = [key] if key else sorted(result["metrics"])
        return np.concatenate([result["metrics"][name]["first_rank"] for name in chosen])

    difference = []  # seeds x [queries]
    for a, b in (map(ranks, pair, (dataset, of_base or dataset)) for pair in pairs):
        hits = [((r > 0) & (r <= k)).astype(float)[(a > 0) | (b > 0)] for r in (a, b)]  # 0: skipped by both
        difference.append(hits[0] - hits[1])
    if not all(map(len, difference)):
        raise ValueError("both rows skip every query of a seed: nothing to compare")
    splits = {tuple(re.findall(r"split (\d+)", a.get("data", {}).get("note") or "")) for a, _ in pairs}
    even = len({len(part) for part in difference}) == 1
    rng = np.random.default_rng(seed)
    s = rng.integers(len(pairs), size=(samples, len(pairs)))
    if even and len(splits) == 1:
        q = rng.integers(len(difference[0]), size=(samples, len(difference[0])))
        drawn = (s[:, :, None] == np.arange(len(pairs))).mean(axis=1)  # samples x seeds: share of each in a sample
        means = np.take_along_axis(drawn @ np.stack(difference), q, axis=1).mean(axis=1)
    elif even:
        q = rng.integers(len(difference[0]), size=(*s.shape, len(difference[0])))
        means = np.stack(difference)[s[..., None], q].mean(axis=(1, 2))
    else:
        means = np.array([
            np.concatenate([rng.choice(difference[n], len(difference[n])) for n in s[i]]).mean() for i in range(samples)
        ])
    low, high = np.percentile(means, [2.5, 97.5])
    return 100 * float(np.concatenate(difference).mean()), 100 * float(low), 100 * float(high)


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} into a result")


def _one_line_lists(text: str) -> str:
    """Lists of numbers on one line each: the files stay readable and small."""
    return re.sub(r"\[\s+([-\d.,\seE]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)
