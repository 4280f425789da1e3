"""The report card: statuses and verdicts follow from files by the stated rules."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from cdimlib import report, results
from cdimlib.people_runs import PersonRun


def result(row, seed, hits, *, paper="midlevel-fusion", name="shoes", budget="b", track="modern", seconds=60.0):
    rank = np.where(np.asarray(hits, bool), 1, 5).tolist()
    return {"paper": paper, "row": row, "track": track, "seed": seed, "budget": budget, "config": {},
            "data": {"name": name}, "wall_seconds": seconds, "device": "CPU, 1", "versions": {}, "commit": "c",
            "metrics": {name: {"acc@1": 100 * float(np.mean(hits)), "acc@10": 100.0, "first_rank": rank}}}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Vanilla 2 of 10 right, Ours 8 of 10, three seeds each."""
    for seed in range(3):
        results.save(result("vanilla", seed, [1] * 2 + [0] * 8), tmp_path)
        results.save(result("ours", seed, [1] * 8 + [0] * 2), tmp_path)
    return tmp_path


def test_every_table_of_the_papers_has_an_experiment_and_a_page(root):
    """All 22 tables of results are there, and each names a notebook that exists and is in the table of contents."""
    lines, contents = report.index(), (root / "_toc.yml").read_text()
    assert len(lines) == 22
    for line in lines:
        assert (root / f"book/experiments/{line['experiment']}.ipynb").exists(), line
        assert f"book/experiments/{line['experiment']}" in contents, line
        assert line["cells"] > 0 or line["status"] == "computed", line


def test_the_committed_index_is_the_one_that_follows_from_the_results(root):
    stored = json.loads((root / "data/results/INDEX.json").read_text())
    assert stored == report.index(), "data/results/INDEX.json is out of date: run make index"


def test_the_readme_shows_what_follows_from_the_results(root):
    import refresh

    text = (root / "README.md").read_text(encoding="utf8")
    assert refresh.with_table(text) == text, "the README's table of results is out of date: run make index"
    kept = (root / "data" / "results" / "GRID.json").read_text(encoding="utf8")
    assert refresh.left() == kept, "what is left of the grid is out of date: run make index"
    with pytest.raises(ValueError, match="restore"):
        refresh.with_table("# no marks")


def test_rows_and_claims_name_methods_as_printed():
    for (paper, table), rows in report.tables().items():
        assert set(rows) <= set(results.paper_table(paper, table)["method"]), (paper, table)
    for claim in pd.read_csv(results.ROOT / "papers" / "claims.csv").itertuples():
        assert {claim.better, claim.base} <= set(results.paper_table(claim.paper, claim.table)["method"]), claim
        assert {claim.better, claim.base} <= set(report.tables()[claim.paper, claim.table]), claim


def test_status_by_seeds_and_data(folder):
    rows = {"Vanilla": "vanilla", "Ours": "ours"}
    runs = results.load("midlevel-fusion", folder)
    line = report.status("midlevel-fusion", 3, rows, runs)
    assert (line["status"], line["run on"], line["with seeds"], line["cells"]) == ("partly", ["shoes"], 2, 6)
    assert report.status("midlevel-fusion", 7, {"conv5 (Ours)": "ours"}, runs)["status"] == "on its data"
    assert report.status("midlevel-fusion", 7, {"conv5 (Ours)": "ours"}, runs[:2])["status"] == "partly"
    assert report.status("midlevel-fusion", 11, {"InceptionV3": "inception"}, runs)["status"] == "not run"
    town = [result("fusion", s, [1], name="toytown-plaza") for s in range(3)]
    line = report.status("midlevel-fusion", 4, {"Ours": "fusion"}, town)
    assert (line["status"], line["run on"]) == ("on a stand-in", ["toytown-plaza"])


def test_a_claim_holds_or_is_reversed(folder):
    frame = report.claims(folder).set_index(["claim", "asked"])
    line = frame.loc[("Joining the middle with the final feature helps on sketches", "shoes")]
    assert line["ours"] == pytest.approx(60) and line["seeds"] == 3 and line["verdict"] == "holds"
    assert line["printed"] == pytest.approx(12.18)
    line = frame.loc[("Joining the middle with the final feature helps on sketches", "chairs")]
    assert math.isnan(line["ours"]) and line["verdict"] == "not run"


@pytest.mark.parametrize(
    "low, high, seeds, said",
    [(0.1, 2, 3, "holds"), (-2, -0.1, 3, "reversed"), (-1, 1, 3, "open"), (1, 2, 1, "open (1 seed)"),
     (1, 2, 2, "open (2 seeds)"), (math.nan, math.nan, 0, "not run")],
)  # fmt: skip
def test_verdict_follows_the_rule(low, high, seeds, said):
    assert report.verdict(low, high, seeds) == said


def test_only_runs_of_one_budget_are_compared():
    """Most common seeds decide, then the longer training; a first stage's budget may be the head of the second's."""
    runs = [result("ours", s, [1], budget="long", seconds=900) for s in range(2)]
    runs += [result("vanilla", s, [0], budget="short") for s in range(3)]
    assert report.pair(runs, "ours", "vanilla") == ([], [])
    runs += [result("ours", 0, [1], budget="short"), *(result("vanilla", s, [0], budget="long") for s in range(2))]
    a, b = report.pair(runs, "ours", "vanilla")
    assert [r["budget"] for r in a + b] == ["long"] * 4
    staged = [result("grn", 0, [0], budget="net-12ep-demo"), result("fmn", 0, [1], budget="net-12ep-9ep-m0.1-demo")]
    assert report.pair(staged, "fmn", "grn") == (staged[1:], staged[:1])
    assert report.pair(staged, "grn", "fmn") == (staged[:1], staged[1:])
    for other in (dict(budget="net-12ep-demo", name="x"), dict(budget="net-12ep"), dict(budget="net-12ep-neck")):
        assert report.pair([staged[1], result("grn", 0, [0], **other)], "fmn", "grn") == ([], [])


def test_how_long_a_training_was_is_not_told_by_a_clock(tmp_path):
    """A long run on a fast machine, and a short one on a slow machine."""
    runs = []
    for budget, steps, seconds in (("short", 10, 900.0), ("long", 20, 9.0)):
        for row in ("vanilla", "ours"):
            more = [result(row, seed, [1], budget=budget, seconds=seconds) for seed in range(3)]
            runs += [run | {"config": {"steps": steps}} for run in more]
    a, b = report.pair(runs, "ours", "vanilla")
    assert {r["budget"] for r in a + b} == {"long"}
    for run in runs:
        results.save(run, tmp_path)
    ours = report.numbers("midlevel-fusion", tmp_path).query("table == 3 and asked == 'shoes' and ours != 'not run'")
    assert set(ours["method"]) == {"Vanilla", "Ours"} and set(ours["budget"]) == {"long"}


def test_a_variation_does_not_stand_for_the_recipe(tmp_path):
    """Of two trainings of one length the one without a label is shown, whatever the label."""
    for label in ("a", "", "z"):
        for row in ("vanilla", "ours"):
            for seed in range(3):
                config = {"steps": 10, "label": label}
                results.save(result(row, seed, [1], budget=f"b-{label}".strip("-")) | {"config": config}, tmp_path)
    ours = report.numbers("midlevel-fusion", tmp_path).query("table == 3 and asked == 'shoes' and ours != 'not run'")
    assert set(ours["budget"]) == {"b"}
    claimed = report.claims(tmp_path).query("table == 3 and asked == 'shoes' and seeds == 3")
    assert set(claimed["budget"]) == {"b"}


def test_a_tables_claims_stand_under_one_budget(tmp_path):
    """A longer training of two rows alone does not tear them from the rows that they share a table with."""
    for budget, steps, rows in (("short", 10, ("vanilla", "ours", "dssa")), ("long", 20, ("vanilla", "ours"))):
        for row in rows:
            for seed in range(3):
                results.save(result(row, seed, [1], budget=budget) | {"config": {"steps": steps}}, tmp_path)
    said = report.claims(tmp_path).query("table == 3 and asked == 'shoes' and seeds == 3")
    assert len(said) > 1 and set(said["budget"]) == {"short"}


def test_cells_and_claims_are_of_the_same_runs():
    """Of what is committed: a claim's difference is that of the two cells of its table, where both have three seeds."""
    checked, claims = 0, report.claims()
    for paper in report.MODULES:
        cells = report.numbers(paper).set_index(["table", "asked", "method"])
        for claim in claims.query("paper == @paper and seeds == 3").itertuples():
            two = [cells.loc[(claim.table, claim.asked, method)] for method in (claim.better, claim.base)]
            if all("(3)" in cell["ours"] and cell["data"] == claim.data for cell in two):
                better, base = (float(cell["ours"].split(" ")[0]) for cell in two)
                assert better - base == pytest.approx(claim.ours, abs=0.11), claim
                checked += 1
    assert checked > 20


def test_one_measurement_is_counted_once():
    """A stand-in for two data sets gives two lines and one verdict; what was not run stays."""
    line = {"paper": "p", "better": "a", "base": "b", "data": "toytown-plaza", "seeds": 3}
    frame = pd.DataFrame([line, line, {**line, "data": "shoes"}, {**line, "data": "", "seeds": 0},
                          {**line, "data": "", "seeds": 0}])  # fmt: skip
    assert len(report.measured_once(frame)) == 4


def test_within_and_across_are_kept_apart():
    """A run trained in one town and tested in two counts within the first, and across for the second."""
    run = result("qaconv", 0, [1], name="toytown-plaza")
    run["metrics"]["toytown-campus"] = run["metrics"]["toytown-plaza"]
    market, duke, plaza, campus = "market1501", "dukemtmc-reid", "toytown-plaza", "toytown-campus"
    pick = lambda *way: report.selected([run], *way) == [run]  # noqa: E731
    assert pick(plaza, market) and not pick(campus, duke)
    assert pick(campus, duke, market) and not pick(plaza, market, duke)
    assert pick(plaza, market, market) and not pick("shoes", "shoes")
    assert report.sources(results.paper_table("qaconv-tlift", 2)) == {market: duke, duke: market}
    assert report.sources(results.paper_table("midlevel-fusion", 7)) == {"shoes": None}


def test_lines_that_differ_by_their_budget_alone():
    """Another backbone does not fill a line of QAConv's Table 1."""
    runs = [result("qaconv", s, [1], name="toytown-plaza", budget="demo-squeezenet1_1-128x64-8ep") for s in range(3)]
    for run in runs:
        run["metrics"]["toytown-campus"] = run["metrics"]["toytown-plaza"]
    rows = report.tables()["qaconv-tlift", 1]
    assert report.status("qaconv-tlift", 1, rows, runs)["status"] == "not run"
    for run in runs:
        run["budget"] = "full-resnet50-384x128-60ep"
    assert report.status("qaconv-tlift", 1, rows, runs)["with seeds"] == 1


def test_a_training_that_fills_several_rows_costs_once(tmp_path):
    for row in ("grn", "fmn", "fmn+rerank"):
        results.save(result(row, 0, [1], seconds=7200.0), tmp_path)
    for row, seed, seconds in (("grn", 1, 7200.0), ("vanilla", 0, 3600.0)):
        results.save(result(row, seed, [1], seconds=seconds), tmp_path)
    (line,) = report.cost(tmp_path).itertuples()
    assert (line.paper, line.device, line.runs, line.hours) == ("midlevel-fusion", "CPU", 3, pytest.approx(5.0))


def test_index_is_written_whole(tmp_path):
    path = report.write_index(tmp_path / "INDEX.json")
    assert json.loads(path.read_text()) == report.index() and not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("changes", [{}, {"rank_weight": 2.0}, {"margin": 1e-5}, {"margin": 1e-5, "rank_weight": 1e-5}])
def test_the_first_stage_of_every_budget_is_found(changes):
    run = PersonRun("fmn", **{"margin": 0.1, "mask_epochs": 3, "label": "200people", **changes})
    assert report.stage1(run.budget()) == run.budget(1)
