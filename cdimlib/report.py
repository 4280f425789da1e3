"""The report card: where we stand with every table and every claim of the four papers, computed from the results.

Which runs count for a table: those of the rows that the experiment's ``TABLES`` names, on the data set that the table
asks for or on a stand-in for it (``STAND_INS``), which is always named.
"""

from __future__ import annotations

import json
import math
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
#: data set a paper asks for -> data sets that may stand in for it, the closest first
_TOWNS = ("toytown-plaza", "toytown-campus")
STAND_INS = {
    "market1501": _TOWNS, "dukemtmc-reid": _TOWNS[::-1],
    "cuhk03-np": _TOWNS, "cuhk03-np/labeled": ("cuhk03-np", *_TOWNS),
    "cuhk03": ("cuhk03-np/classic", *_TOWNS), "cuhk03/labeled": ("cuhk03-np/classic", *_TOWNS),
    "cuhk01": _TOWNS, "viper": _TOWNS,
}  # fmt: skip
SEEDS = 3
STATUSES = ("reproduced", "on a stand-in", "partly", "computed", "not run")
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


def seeds_of(runs: list[dict], row: str, dataset: str) -> int:
    """The largest number of seeds of a row on a data set within one track and budget."""
    groups = {}
    for run in runs:
        if run["row"] == row and dataset in run["metrics"]:
            groups.setdefault((run["track"], run.get("budget")), set()).add(run["seed"])
    return max(map(len, groups.values()), default=0)


def status(paper: str, table: int, rows: dict[str, str], runs: list[dict]) -> dict:
    """One table's line: what it asks for, what was run, and a status by this rule.

    "reproduced": every row of ours has ``SEEDS`` seeds on every data set asked for; "on a stand-in": on it or on a
    stand-in; "partly": some row has a run; "computed": the table needs no training (complexity); else "not run".
    That says what was run, not at which budget and not that the numbers agree: the table's page does.
    """
    printed = results.paper_table(paper, table)
    asked = [name for name in printed["dataset"].unique() if name]
    used, own, any_, counts, ours = set(), [], [], [], []
    for dataset in asked:
        for row in {rows[m] for m in printed[printed["dataset"] == dataset]["method"].unique() if m in rows}:
            found = {name: seeds_of(runs, row, name) for name in (dataset, *STAND_INS.get(dataset, ()))}
            best = max(found, key=lambda name: (min(found[name], SEEDS), name == dataset))
            used |= {best} if found[best] else set()
            own.append(found[dataset] >= SEEDS)
            any_.append(found[best] >= SEEDS)
            counts.append(found[best])
            ours.append(row)
    if not asked:
        verdict = "computed"
    elif not any(counts):
        verdict = "not run"
    else:
        verdict = "reproduced" if all(own) else "on a stand-in" if all(any_) else "partly"
    return {"paper": paper, "table": table, "experiment": notebook(paper, table), "asked": asked,
            "run on": sorted(used), "rows": len(set(ours)), "with seeds": f"{sum(any_)} of {len(any_)}",
            "runs": sum(r["row"] in ours and bool(used & r["metrics"].keys()) for r in runs), "status": verdict}


def index(folder: str | Path | None = None) -> list[dict]:
    """A line for every table of results in the four papers (data/papers/*.csv)."""
    lines, known = [], tables()
    for paper in MODULES:
        runs = results.load(paper, folder)
        for table in sorted(set(results.paper_table(paper)["table"])):
            lines.append(status(paper, table, known.get((paper, table), {}), runs))
    return lines


def pair(runs: list[dict], better: str, base: str, dataset: str) -> tuple[list[dict], list[dict]]:
    """The runs of two rows on one data set that may be compared: of one track and budget, with most common seeds.

    Where two trainings share a first stage, the budget of one begins with the other's. Ties go to the longer training.
    """
    groups = []
    mine = [r for r in runs if dataset in r["metrics"]]
    for track, budget in {(r["track"], r.get("budget", "")) for r in mine if r["row"] == better}:
        def fits(r, row, track=track, budget=budget):
            other = r.get("budget", "")
            near = other == budget or budget.startswith(f"{other}-") or other.startswith(f"{budget}-")
            return r["row"] == row and r["track"] == track and near

        a, b = ([r for r in mine if fits(r, row)] for row in (better, base))
        a = [r for r in a if r.get("budget", "") == budget]
        common = {r["seed"] for r in a} & {r["seed"] for r in b}
        minutes = sum(r["wall_seconds"] for r in a)
        groups.append((len(common), minutes, budget, [r for r in a if r["seed"] in common],
                       [r for r in b if r["seed"] in common]))  # fmt: skip
    best = max(groups, key=lambda g: g[:3], default=(0, 0, "", [], []))
    return best[3], best[4]


def verdict(low: float, high: float, seeds: int) -> str:
    """What an interval says: "holds" where it lies above zero, "reversed" below, "open" otherwise or with few seeds."""
    if seeds < SEEDS:
        return f"open ({seeds} seed{'s' * (seeds != 1)})" if seeds else "not run"
    return "holds" if low > 0 else "reversed" if high < 0 else "open"


def claims(folder: str | Path | None = None) -> pd.DataFrame:
    """The papers' verbal claims (data/papers/claims.csv): the difference printed and ours, in acc.@1 points.

    One line per claim and data set that its table asks for; columns paper, table, claim, better, base, asked, data
    (what ours was measured on), printed, ours, low, high (95 %, paired by query, nested in seeds:
    :func:`cdimlib.results.gain`), seeds, budget, verdict.
    """
    lines, known = [], tables()
    stored = {paper: results.load(paper, folder) for paper in MODULES}
    for entry in pd.read_csv(results.ROOT / "papers" / "claims.csv").itertuples():
        rows, printed = known.get((entry.paper, entry.table), {}), results.paper_table(entry.paper, entry.table)
        first = printed[printed["metric"] == "acc@1"]
        for dataset in first["dataset"].unique():
            values = first[first["dataset"] == dataset].drop_duplicates("method").set_index("method")["value"]
            if not {entry.better, entry.base} <= set(values.index):
                continue
            line = {"paper": entry.paper, "table": entry.table, "claim": entry.claim, "better": entry.better,
                    "base": entry.base, "asked": dataset, "data": "",
                    "printed": float(values[entry.better]) - float(values[entry.base]),
                    "ours": math.nan, "low": math.nan, "high": math.nan, "seeds": 0, "budget": ""}  # fmt: skip
            for name in (dataset, *STAND_INS.get(dataset, ())):
                a, b = pair(stored[entry.paper], rows.get(entry.better), rows.get(entry.base), name)
                if len(a) > line["seeds"]:
                    mean, low, high = results.gain(a, b, name)
                    line |= {"data": name, "ours": mean, "low": low, "high": high, "seeds": len(a),
                             "budget": a[0].get("budget", "")}  # fmt: skip
                if line["seeds"] >= SEEDS:
                    break
            line["verdict"] = verdict(line["low"], line["high"], line["seeds"])
            lines.append(line)
    return pd.DataFrame(lines)


def cost(folder: str | Path | None = None) -> pd.DataFrame:
    """What the committed runs took: paper, device, runs, hours."""
    runs = [(paper, r["device"].split(",")[0], r["wall_seconds"] / 3600) for paper in MODULES
            for r in results.load(paper, folder)]  # fmt: skip
    frame = pd.DataFrame(runs, columns=["paper", "device", "hours"])
    return frame.groupby(["paper", "device"], as_index=False).agg(runs=("hours", "size"), hours=("hours", "sum"))


def summary(folder: str | Path | None = None) -> pd.DataFrame:
    """A line for each paper: its tables by status, its claims by verdict; the README shows it."""
    card, said = pd.DataFrame(index(folder)), claims(folder)
    said["verdict"] = said["verdict"].str.split(" (", regex=False).str[0]
    counts = [frame.groupby(["paper", column]).size().unstack(fill_value=0).reindex(columns=names, fill_value=0)
              for frame, column, names in ((card, "status", STATUSES), (said, "verdict", VERDICTS))]  # fmt: skip
    return pd.concat(counts, axis=1, keys=["tables", "claims"]).reindex(MODULES)


def write_index(path: str | Path | None = None) -> Path:
    """Write :func:`index` to data/results/INDEX.json (``make index`` after runs were added)."""
    path = Path(path or results.ROOT / "results" / "INDEX.json")
    text = "[\n" + ",\n".join(f" {json.dumps(line)}" for line in index()) + "\n]\n"
    save_atomically(path, lambda part: part.write_text(text))
    return path
