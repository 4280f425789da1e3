"""The report card: where we stand with every table and every claim of the four papers, computed from the results.

Which runs count for a table: those of the rows that the experiment's ``TABLES`` names, on the data set that the table
asks for or on a stand-in for it (``STAND_INS``), which is always named.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pandas as pd

from . import results
from .training import save_atomically

#: paper -> (modules of cdimlib whose TABLES serve it)
MODULES = {
    "midlevel-fusion": ("experiments", "people_experiments"),
    "feature-mask-network": ("people_experiments",),
    "multilevel-similarity": ("csn_experiments",),
    "qaconv-tlift": ("qaconv_experiments",),
}
#: (paper, table) -> the notebook that runs it; None: every other table of the paper
NOTEBOOKS = {
    ("midlevel-fusion", 3): "midlevel_sketch", ("midlevel-fusion", 7): "midlevel_sketch",
    ("midlevel-fusion", 9): "midlevel_sketch", ("midlevel-fusion", 11): "midlevel_sketch",
    ("midlevel-fusion", None): "midlevel_people", ("feature-mask-network", None): "feature_mask",
    ("multilevel-similarity", None): "multilevel", ("qaconv-tlift", None): "qaconv_transfer",
}  # fmt: skip
CLAIMS = results.ROOT / "papers" / "claims.csv"
#: data set a paper asks for -> data sets that may stand in for it, the closest first
STAND_INS = {
    "market1501": ("toytown-plaza",), "dukemtmc-reid": ("toytown-campus",), "cuhk03-np": ("toytown-plaza",),
    "cuhk03-np/labeled": ("cuhk03-np", "toytown-plaza"), "cuhk03": ("toytown-plaza single-shot",),
    "cuhk03/labeled": ("cuhk03", "toytown-plaza single-shot"),
    "cuhk01": ("toytown-campus single-shot",), "viper": ("toytown-campus single-shot",),
}  # fmt: skip
#: (paper, table) -> method as printed -> words that the budget of a run must hold, where methods differ by it alone
BUDGETS = {("qaconv-tlift", 1): {f"Resnet{n} H{h}": f"resnet{n}-{h}x128" for n in (50, 152) for h in (256, 384)}}
SEEDS = 3
STATUSES = ("on its data", "on a stand-in", "partly", "computed", "not run")
VERDICTS = ("holds", "open", "reversed", "not run")


def tables() -> dict[tuple[str, int], dict[str, str]]:
    """(paper, table) -> method as printed -> our row, of every experiment."""
    found = {}
    for paper, modules in MODULES.items():
        for name in modules:
            for key, rows in import_module(f".{name}", __package__).TABLES.items():
                key = key if isinstance(key, tuple) else (paper, key)
                if key[0] == paper:
                    found[key] = rows
    return found


def notebook(paper: str, table: int) -> str:
    """Name of the notebook in book/experiments that runs a table."""
    return NOTEBOOKS.get((paper, table)) or NOTEBOOKS[paper, None]


def selected(runs: list[dict], dataset: str, asked: str, source: str | None = None) -> list[dict]:
    """The runs that were tested on ``dataset`` in the way the table asks for on ``asked``.

    source: the data set the table trained on, where it says so. Where it is another than ``asked``, only runs trained
    elsewhere count; otherwise only those trained on the data set itself. (Drawings are trained with all categories.)
    """
    across = source is not None and source != asked

    def fits(run) -> bool:
        own = run["data"]["name"] if run["data"]["name"] in run["metrics"] else dataset
        return dataset in run["metrics"] and (own != dataset) == across

    return [run for run in runs if fits(run)]


def sources(printed: pd.DataFrame) -> dict[str, str | None]:
    """Test set -> training set of a printed table ("trained on ..." in its protocol), None where it does not say."""
    found = printed["protocol"].str.extract(r"^trained on (\S+)$")[0]
    return {name: next(iter(found[printed["dataset"] == name].dropna()), None) for name in printed["dataset"].unique()}


def kind(run: dict) -> tuple[str, str, str]:
    """What runs must share to be averaged over seeds: training set, track and budget."""
    return run["data"]["name"], run["track"], run.get("budget", "")


def length(run: dict) -> tuple[float, bool]:
    """How long a run was trained: pairs, steps, or epochs of both stages; what a clock says depends on the machine. Of
    equally long ones the one without a label comes first: a label marks a variation."""
    config = run.get("config", {})
    long = run.get("train_pairs") or config.get("steps") or config.get("epochs", 0) + config.get("mask_epochs", 0)
    return long, not config.get("label")


def seeds_of(runs: list[dict], row: str) -> int:
    """The largest number of seeds of a row within one training set, track and budget."""
    groups = {}
    for run in runs:
        if run["row"] == row:
            groups.setdefault(kind(run), set()).add(run["seed"])
    return max(map(len, groups.values()), default=0)


def cells(paper: str, table: int, rows: dict[str, str], runs: list[dict]) -> list[dict]:
    """A table's cells: every method of ours on every data set the table asks for, and what was run for it.

    asked, method, row: as printed, and ours; data: where most seeds were run, the data set itself or a stand-in; seeds:
    there; own: seeds on the data set itself; runs: of that row there.
    """
    printed, found = results.paper_table(paper, table), []
    for dataset, source in {k: v for k, v in sources(printed).items() if k}.items():
        for method in printed[printed["dataset"] == dataset]["method"].unique():
            if method not in rows:
                continue
            settings = BUDGETS.get((paper, table), {}).get(method, "")
            able = [r for r in runs if r["row"] == rows[method] and settings in r.get("budget", "")]
            tried = (dataset, *STAND_INS.get(dataset, ()))
            tested = {name: selected(able, name, dataset, source) for name in tried}
            seeds = {name: seeds_of(group, rows[method]) for name, group in tested.items()}
            best = max(seeds, key=lambda name: (min(seeds[name], SEEDS), name == dataset))
            found.append({"asked": dataset, "method": method, "row": rows[method], "data": best if seeds[best] else "",
                          "seeds": seeds[best], "own": seeds[dataset], "runs": tested[best]})  # fmt: skip
    return found


def status(paper: str, table: int, rows: dict[str, str], runs: list[dict]) -> dict:
    """One table's line: what it asks for, what was run, and a status by this rule.

    "on its data": every row of ours has ``SEEDS`` seeds on every data set asked for; "on a stand-in": on it or on a
    stand-in; "partly": some row has a run; "computed": the table needs no training (complexity); else "not run".
    "seeds": those that every cell has; "needs": the data sets on which runs are missing.
    That says what was run, not at which budget and not that the numbers agree: the table's page does.
    """
    asked = [name for name in sources(results.paper_table(paper, table)) if name]
    found = cells(paper, table, rows, runs)
    own, enough = (sum(cell[name] >= SEEDS for cell in found) for name in ("own", "seeds"))
    if not asked:
        word = "computed"
    elif not any(cell["seeds"] for cell in found):
        word = "not run"
    else:
        word = "on its data" if own == len(found) else "on a stand-in" if enough == len(found) else "partly"
    return {"paper": paper, "table": table, "experiment": notebook(paper, table), "asked": asked,
            "run on": sorted({cell["data"] for cell in found if cell["data"]}), "cells": len(found),
            "with seeds": enough, "seeds": min((cell["seeds"] for cell in found), default=0),
            "runs": sum(len(cell["runs"]) for cell in found), "status": word,
            "needs": sorted({cell["asked"] for cell in found if cell["own"] < SEEDS})}  # fmt: skip


def index(folder: str | Path | None = None) -> list[dict]:
    """A line for every table of results in the four papers (``data/papers/*.csv``)."""
    lines, known = [], tables()
    for paper in MODULES:
        runs = results.load(paper, folder)
        for table in sorted(set(results.paper_table(paper)["table"])):
            lines.append(status(paper, table, known.get((paper, table), {}), runs))
    return lines


def numbers(paper: str, folder: str | Path | None = None) -> pd.DataFrame:
    """acc.@1 of every cell of a paper's tables: columns table, experiment, asked, method, printed, ours (mean ± spread
    over seeds of one budget: one with enough seeds, if there is any, among those the one from which the table's claims
    are judged, then that of most of the table's cells; of a table without claims, and among equals, the longest
    training), data and budget of ours."""
    lines, runs = [], results.load(paper, folder)
    judged = {(entry.table, asked): a[0].get("budget", "") for entry, asked, _, (_, a, _) in compared(paper, runs) if a}
    for (name, table), rows in sorted(tables().items()):
        if name != paper:
            continue
        printed, found = results.paper_table(paper, table), cells(paper, table, rows, runs)
        shared = Counter(group for cell in found for group in set(map(kind, cell["runs"])))
        for cell in found:
            at = (printed["dataset"] == cell["asked"]) & (printed["method"] == cell["method"])
            value = printed[at & (printed["metric"] == "acc@1")]["value"]
            groups = {group: [r for r in cell["runs"] if kind(r) == group] for group in map(kind, cell["runs"])}
            claimed = judged.get((table, cell["asked"]), "")

            def rank(group):
                some = groups[group]  # noqa: B023
                seeds = min(len({r["seed"] for r in some}), SEEDS)
                told = group[2] in (claimed, stage1(claimed))  # noqa: B023
                return seeds, told, shared[group] if claimed else 0, length(some[0]), group  # noqa: B023

            best = groups[max(groups, key=rank)] if groups else []
            lines.append({"table": table, "experiment": notebook(paper, table), "asked": cell["asked"],
                          "method": cell["method"], "printed": float(value.iloc[0]) if len(value) else math.nan,
                          "ours": results.cell(best, cell["data"]) if best else "not run", "data": cell["data"],
                          "budget": best[0].get("budget", "") if best else ""})
    return pd.DataFrame(lines)


def stage1(budget: str) -> str:
    """The budget of the first stage alone, of a network that is trained in two."""
    return re.sub(r"(-[^-]+ep)-[^-]+ep-m[\d.]+(e-?\d+)?(w[\d.]+(e-?\d+)?)?", r"\1", budget)


def pair(runs: list[dict], better: str, base: str, shared: Counter | None = None) -> tuple[list[dict], list[dict]]:
    """The runs of two rows that may be compared: of one training set, track and budget, with most common seeds.

    A network trained in two stages may be compared with its first. Ties go to the budget under which most of the
    table's comparisons stand (``shared``), then to the longer training, then to the budget with most runs.
    """
    shared, none = shared or Counter(), ((), [], [])
    best = max(pairs(runs, better, base), key=lambda g: (g[0], shared[g[3:6]], *g[1:6]), default=none)
    return best[-2], best[-1]


def pairs(runs: list[dict], better: str, base: str) -> list[tuple]:
    """Where two rows may be compared: (common seeds, length, runs there, data, track, budget, runs of each row)."""
    groups, used = [], Counter(map(kind, runs))
    for data, track, budget in {kind(r) for r in runs if r["row"] == better}:
        kin = {budget, stage1(budget)}
        near = [r for r in runs if kind(r)[:2] == (data, track) and (kind(r)[2] in kin or stage1(kind(r)[2]) == budget)]
        a, b = [r for r in near if r["row"] == better and kind(r)[2] == budget], [r for r in near if r["row"] == base]
        common = {r["seed"] for r in a} & {r["seed"] for r in b}
        a, b = ([r for r in group if r["seed"] in common] for group in (a, b))
        where = data, track, budget
        groups.append((len(common), max(map(length, a), default=(0, False)), used[where], *where, a, b))
    return groups


def compared(paper: str, runs: list[dict]) -> Iterator[tuple]:
    """(claim, data set asked for, difference printed, (data set of ours, runs of the better row, of its base)) for each
    claim of a paper and each data set of its table: where most seeds were run, the data set itself or a stand-in."""
    known, said = tables(), list(pd.read_csv(CLAIMS).query("paper == @paper").itertuples())
    for entry in said:
        rows, printed = known.get((paper, entry.table), {}), results.paper_table(paper, entry.table)
        first = printed[printed["metric"] == "acc@1"]
        for dataset, source in sources(first).items():
            values = first[first["dataset"] == dataset].drop_duplicates("method").set_index("method")["value"]
            if not {entry.better, entry.base} <= set(values.index):
                continue
            ours = "", [], []
            for name in (dataset, *STAND_INS.get(dataset, ())):
                able = selected(runs, name, dataset, source)
                shared = Counter(group[3:6] for other in said if other.table == entry.table for group in pairs(
                    able, rows.get(other.better), rows.get(other.base)) if group[0] >= SEEDS)
                a, b = pair(able, rows.get(entry.better), rows.get(entry.base), shared)
                ours = (name, a, b) if len(a) > len(ours[1]) else ours
                if len(a) >= SEEDS:
                    break
            yield entry, dataset, float(values[entry.better]) - float(values[entry.base]), ours


def verdict(low: float, high: float, seeds: int) -> str:
    """What an interval says: "holds" where it lies above zero, "reversed" below, "open" otherwise or with few seeds."""
    if seeds < SEEDS:
        return f"open ({seeds} seed{'s' * (seeds != 1)})" if seeds else "not run"
    return "holds" if low > 0 else "reversed" if high < 0 else "open"


def claims(folder: str | Path | None = None) -> pd.DataFrame:
    """The papers' verbal claims (``data/papers/claims.csv``): the difference printed and ours, in acc.@1 points.

    One line per claim and data set that its table asks for; columns paper, table, claim, better, base, asked, data
    (what ours was measured on), printed, ours, low, high (95 %, paired by query, nested in seeds:
    :func:`cdimlib.results.gain`), seeds, budget, verdict.
    """
    lines = []
    for paper in pd.read_csv(CLAIMS)["paper"].unique():
        for entry, asked, difference, (data, a, b) in compared(paper, results.load(paper, folder)):
            mean, low, high = results.gain(a, b, data) if a else (math.nan,) * 3
            lines.append({"paper": paper, "table": entry.table, "claim": entry.claim, "better": entry.better,
                          "base": entry.base, "asked": asked, "data": data, "printed": difference, "ours": mean,
                          "low": low, "high": high, "seeds": len(a), "budget": a[0].get("budget", "") if a else "",
                          "verdict": verdict(low, high, len(a))})  # fmt: skip
    return pd.DataFrame(lines)


def measured_once(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of :func:`claims` without repetitions: each comparison once a data set, whatever it stands in for."""
    return frame[~(frame.duplicated(["paper", "better", "base", "data"]) & (frame["seeds"] > 0))].copy()


def cost(folder: str | Path | None = None) -> pd.DataFrame:
    """What the committed runs took, those of no paper (the ladder, the classical rows of people, time) as well: folder
    of the results, device, runs, hours. One training can fill several rows, re-ranked or lifted in time: results of one
    data set, seed and duration count once."""
    place = Path(folder or results.ROOT / "results")
    names = sorted(path.name for path in place.iterdir() if path.is_dir() and path.name not in ("bench", "benchmarks"))
    runs = {(paper, r["device"].split(",")[0], r["data"]["name"], r["seed"], r["wall_seconds"] / 3600)
            for paper in names for r in results.load(paper, folder) if "wall_seconds" in r}  # fmt: skip
    frame = pd.DataFrame(sorted(runs), columns=["paper", "device", "data", "seed", "hours"])
    return frame.groupby(["paper", "device"], as_index=False).agg(runs=("hours", "size"), hours=("hours", "sum"))


def summary(folder: str | Path | None = None) -> pd.DataFrame:
    """A line for each paper: its tables by status, its claims by verdict; the README shows it."""
    card, said = pd.DataFrame(index(folder)), measured_once(claims(folder))
    said["verdict"] = said["verdict"].str.split(" (", regex=False).str[0]
    counts = [frame.groupby(["paper", column]).size().unstack(fill_value=0).reindex(columns=names, fill_value=0)
              for frame, column, names in ((card, "status", STATUSES), (said, "verdict", VERDICTS))]  # fmt: skip
    return pd.concat(counts, axis=1, keys=["tables", "claims"]).reindex(MODULES)


def line_by_line(entries: list[dict]) -> str:
    """JSON with an entry on each line: a change of one shows as one."""
    return "[\n" + ",\n".join(f" {json.dumps(entry)}" for entry in entries) + "\n]\n"


def write_index(path: str | Path | None = None) -> Path:
    """Write :func:`index` to data/results/INDEX.json (``make index`` after runs were added)."""
    path = Path(path or results.ROOT / "results" / "INDEX.json")
    save_atomically(path, lambda part: part.write_text(line_by_line(index())))
    return path
