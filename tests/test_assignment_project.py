"""The project: its page names claims that the report knows, its rubric adds up, its starter notebook runs."""

from __future__ import annotations

import re

import assignments
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
from test_assignments import run

from cdimlib import experiments, ladder, people_experiments, results
from cdimlib.models import csn


def page(root, name: str) -> str:
    return (root / assignments.FOLDER / f"{name}.md").read_text(encoding="utf8")


def test_the_claims_are_the_reports(root):
    """What stands in italics in the third column of the questions is a claim of ``data/papers/claims.csv``."""
    known = set(pd.read_csv(results.ROOT / "papers" / "claims.csv")["claim"])
    rows = [line.split("|") for line in page(root, "project").split("\n") if re.match(r"\| [A-I] \|", line)]
    named = {claim for row in rows for claim in re.findall(r"\*([^*]+)\*", row[3])}
    assert len(rows) == 9 and len(named) >= 12
    assert named <= known, named - known


def test_the_rows_to_start_from_exist(root):
    """The last column of the questions names rows of the experiments."""
    known = {"PersonRun": people_experiments.ROWS, "CSNRun": csn.VARIANTS, "SketchRun": experiments.ROWS,
             "ladder": ladder.RATES}  # fmt: skip
    lines = [line for line in page(root, "project").split("\n") if re.match(r"\| [A-I] \|.*rows", line)]
    assert len(lines) == 7
    for line in lines:
        start = line.split("|")[-2]
        (rows,) = (known[name] for name in known if name in start)
        named = set(re.findall(r"`([^`]+)`", start)) - set(known) - {"../pairs/ladder"}
        assert named and named <= set(rows), named


def test_the_rubric_adds_up(root):
    """Six criteria, four levels in words each, one hundred points, as the guide says."""
    rows = [line for line in page(root, "project").split("\n") if re.match(r"\| \*\*[A-Z].*\*\* \(\d+\) \|", line)]
    assert len(rows) == 6 and all(line.count("|") == 6 for line in rows)
    assert sum(int(re.search(r"\((\d+)\)", line)[1]) for line in rows) == 100
    guide = (root / "book" / "teaching.md").read_text(encoding="utf8").split("\n")
    assert "| 100 |" in next(line for line in guide if "assignments/project>" in line)


def test_the_starter_runs(root, capsys):
    """From the open claim to the sentence, with a log of every look and no look at test people before the runs."""
    env = run(root / assignments.FOLDER / "project" / "start.ipynb")
    plt.close("all")
    plan, people = env["plan"], [look["people"] for look in env["looks"]]
    held, test = env["held"].name, env["town"].name
    first = people.index(test)
    assert people[:first] == [held] * len(plan["chosen_on_held_out"]["lr"]) and held not in people[first:]
    assert people[first:] == [test] * (2 * len(plan["seeds"]) + 1)
    assert plan["claim"] in capsys.readouterr().out


def test_the_starter_has_no_answers_to_copy(root):
    """It is a page like others: no gaps, no solutions."""
    nb = nbformat.read(root / assignments.FOLDER / "project" / "start.ipynb", as_version=4)
    assert not any("SOLUTION" in cell.source or "..." in cell.source for cell in nb.cells if cell.cell_type == "code")
