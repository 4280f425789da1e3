"""The ladder's tables and figures: every matcher beside every other, and the rungs above each as arrows."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import results
from .ladder import ROWS, TOWNS, K
from .plots import FONT, INK, PALETTE

PLACES = ("plaza", "campus", "plaza → campus", "campus → plaza")
#: a figure's short words for the rungs, and the rung from which an arrow leads there
RUNGS = {"": "alone", "+rerank": "re-ranked", "+tlift": "lifted", "+rerank+tlift": "re-ranked and lifted"}


def cost_table(runs: list[dict]) -> pd.DataFrame:
    """Row x (encode_ms, pair_us, bytes, parameters), from results of :func:`cdimlib.ladder.measure`; nan if missing.

    ``attrs["measured"]``: the processors on which they were measured, by name.
    """
    names = ["encode_ms", "pair_us", "bytes", "parameters"]
    found = {r["row"]: {name: r["costs"][name] for name in names} for r in runs}
    frame = pd.DataFrame(found, names).T.reindex(list(ROWS)).astype(float)
    frame.attrs["measured"] = sorted({r["processor"] for r in runs if "processor" in r})
    return frame


def points(runs: list[dict], k: int = K[1]) -> pd.DataFrame:
    """A line per run, rung and test town: row, rung, place ("plaza", "campus → plaza"), across, seed, acc@1, mAP, ranks
    (``first_rank``) and asked (numbers of the queries ranked for, or None: all). k: pivots of the lifting."""
    lines = []
    for r in runs:
        for name, m in r["metrics"].items():
            (town, plus, rung), pivots = name.partition(" K=")[0].partition("+"), name.partition(" K=")[2]
            if town in TOWNS and pivots in ("", str(k)):
                ends = [t.removeprefix("toytown-") for t in (r["data"]["name"], town)]
                lines.append((r["row"], plus + rung, " → ".join(dict.fromkeys(ends)), ends[0] != ends[1], r["seed"],
                              m["acc@1"], m["mAP"], m["first_rank"], m.get("asked")))  # fmt: skip
    names = ["row", "rung", "place", "across", "seed", "acc@1", "mAP", "ranks", "asked"]
    return pd.DataFrame(lines, columns=names)


def _say(values: pd.Series, most: int = 0) -> str:
    """Mean ± standard deviation; with the number of values where it is below ``most``."""
    few = f" ({len(values)})" if len(values) < most else ""
    return f"{values.mean():.1f}" + f" ± {values.std():.1f}" * (len(values) > 1) + few if len(values) else "not run"


def accuracy_table(frame: pd.DataFrame, rung: str = "", metric: str = "acc@1") -> pd.DataFrame:
    """Mean ± spread over seeds for each row and place, and for the mean of the four places; "not run" where there are
    none; with the seeds that every place has. frame: of :func:`points`."""
    wide = frame[frame["rung"] == rung].pivot_table(metric, ["row", "seed"], "place").reindex(columns=list(PLACES))
    wide["mean"] = wide.mean(axis=1, skipna=False)
    text = {row: {name: _say(part[name].dropna()) for name in wide} for row, part in wide.groupby(level="row")}
    lines = pd.DataFrame(text, wide.columns).T.reindex(list(ROWS)).fillna("not run")
    lines["seeds"] = wide["mean"].groupby(level="row").count().reindex(list(ROWS), fill_value=0)
    return lines.rename(index=ROWS).rename_axis(columns=None)


def rung_table(frame: pd.DataFrame, metric: str = "acc@1", *, across: bool = True) -> pd.DataFrame:
    """The same by rung: the mean over both towns of each seed; (n) where fewer seeds climbed so far than stand in
    the row's first rung."""
    part = frame[frame["across"] == across]
    wide = part.pivot_table(metric, ["row", "rung", "seed"], "place").mean(axis=1, skipna=False).unstack("rung")
    text = {row: {RUNGS[r]: _say(p[r].dropna(), p.notna().sum().max()) for r in wide}
            for row, p in wide.groupby(level="row")}  # fmt: skip
    lines = pd.DataFrame(text, list(RUNGS.values())).T.reindex(list(ROWS))
    return lines.fillna("not run").rename(index=ROWS)


def lead(frame: pd.DataFrame, better: tuple[str, str], base: tuple[str, str], across: bool) -> tuple:
    """acc@1 points by which one (row, rung) leads another, both towns together: (mean, low, high, seeds), with an
    interval of 95 %, nan for 0 seeds. Where a seed of one of them ranked for some queries only, all are judged on
    these. See :func:`cdimlib.results.gain`.
    """
    part = frame[frame["across"] == across]
    sides = [{(p.seed, p.place): p for p in part[(part["row"] == row) & (part["rung"] == rung)].itertuples()}
             for row, rung in (better, base)]  # fmt: skip
    some = {p.place: p.asked for side in sides for p in side.values() if p.asked is not None}  # the same in all seeds
    found = {}
    for seed, place in sorted(sides[0].keys() & sides[1].keys()):
        both = [side[seed, place] for side in sides]
        ranks = [np.asarray(p.ranks)[some[place] if place in some and p.asked is None else slice(None)] for p in both]
        found.setdefault(seed, {})[place] = [{"first_rank": r} for r in ranks]
    found = {seed: places for seed, places in found.items() if len(places) == 2}  # judged in both directions
    if not found:
        return (float("nan"),) * 3 + (0,)
    runs = [[{"seed": s, "metrics": {name: m[i] for name, m in places.items()}} for s, places in found.items()]
            for i in (0, 1)]  # fmt: skip
    return *results.gain(*runs, None), len(found)


def means(frame: pd.DataFrame, metric: str = "acc@1") -> pd.DataFrame:
    """Row and rung x (within, across): mean over both towns and over the seeds that climbed highest, so that all rungs
    of a row are of the same trainings; only what was judged in all four places."""
    wide = frame.pivot_table(metric, ["row", "seed", "rung"], "place").reindex(columns=list(PLACES)).dropna()
    rungs = wide.groupby(level=["row", "seed"]).transform("size")
    wide = wide[rungs == rungs.groupby(level="row").transform("max")].groupby(level=["row", "rung"]).mean()
    return pd.DataFrame({"within": wide.iloc[:, :2].mean(axis=1), "across": wide.iloc[:, 2:].mean(axis=1)})


def _style(rows) -> dict:
    """row -> colour and marker, the same in every figure."""
    colours, marks = list(PALETTE), "oosDPv^<*X"
    colours[8] = INK  # its yellow is too pale for a mark
    return {row: dict(color=colours[i], marker=marks[i]) for i, row in enumerate(ROWS) if row in rows}


def against_cost(frame: pd.DataFrame, costs: pd.DataFrame, columns: dict[str, str], metric: str = "acc@1") -> Figure:
    """Accuracy across towns, alone, over each of the costs on a logarithmic axis, every row a mark with its name.

    costs: row x columns; columns: name -> label of the axis.
    """
    shown = means(frame, metric)["across"].xs("", level="rung")
    figure, axes = plt.subplots(1, len(columns), figsize=(3.9 * len(columns), 3.4), sharey=True, squeeze=False)
    for ax, (column, label) in zip(axes[0], columns.items()):
        for row, style in _style(shown.index.intersection(costs.index)).items():
            ax.plot(costs.loc[row, column], shown[row], linestyle="", markersize=7, **style, label=ROWS[row])
        ax.set(xscale="log", xlabel=label)
    axes[0, 0].set_ylabel(f"{metric} across towns (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def knobs(by_row: dict[str, list[dict]], where: dict[str, dict[float, str]], metric: str = "acc@1") -> Figure:
    """A panel a knob, from :func:`cdimlib.ladder.turned`: the mean over seeds of every row, in the colour and mark it
    has elsewhere, over the knob's values."""
    figure, axes = plt.subplots(1, len(where), figsize=(2.6 * len(where), 3.6), sharey=True, squeeze=False)
    for ax, (knob, names) in zip(axes[0], where.items(), strict=True):
        for row, style in _style(by_row).items():
            values = [results.spread(by_row[row], name, metric)[0] for name in names.values()]
            ax.plot([*names], values, markersize=5, linewidth=1.2, **style, label=ROWS[row])
        ax.set(xlabel=knob, xticks=[*names])
    axes[0, 0].set_ylabel(f"{metric} (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def within_across(frame: pd.DataFrame, metric: str = "acc@1", path=("", "+rerank", "+rerank+tlift")) -> Figure:
    """Across over within: a mark where a row stands alone, arrows along ``path``. On the line nothing would be lost."""
    where, (figure, ax) = means(frame, metric), plt.subplots(figsize=(6.2, 4.6))
    for row, style in _style(where.index.get_level_values("row")).items():
        steps = [where.loc[row, rung] for rung in path if (row, rung) in where.index]
        if not steps:
            continue
        ax.plot(*steps[0], linestyle="", markersize=8, **style, label=ROWS[row], zorder=3)
        ax.update_datalim(steps)
        for a, b in pairwise(steps):
            ax.annotate("", b, a, arrowprops=dict(arrowstyle="->", color=style["color"], shrinkA=3, shrinkB=1))
    ax.autoscale_view()
    low, high = ax.get_ylim()
    ax.axline((low, low), (high, high), color="0.7", linewidth=0.8, zorder=1)
    ax.annotate("as good abroad as at home", (high, high), (-6, -6), textcoords="offset points", ha="right", va="top",
                color="0.45", fontsize=FONT - 1)  # fmt: skip
    ax.set(xlabel=f"{metric} within a town (%)", ylabel=f"{metric} across towns (%)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure
