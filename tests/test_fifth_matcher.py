"""CONTRIBUTING.md says how to add a paper. Here its own example is added, by exactly those steps and no other."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path

import book_checks
import nbformat
import numpy as np
import pytest
import torch
import yaml
from first_cell import canonical

import cdimlib.models
from cdimlib import results
from cdimlib.data import load
from cdimlib.data.augment import PersonInput
from cdimlib.retrieval import encode, evaluate, similarity

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")


def block(heading: str) -> str:
    """The code below the line that starts with this file's name."""
    return re.search(rf"(?ms)^`{re.escape(heading)}\n\n```\w+\n(.*?)^```", TEXT)[1]


MODEL, PRINTED, ENTRY = "cdimlib/models/stripes.py", "data/papers/stripes.csv", "workflow/grid.yaml"
EXPERIMENT, CHAPTER = "book/experiments/stripes.ipynb", "book/stripes/stripes.ipynb"
CELLS = {name: block(f"{EXPERIMENT}`, {name}") for name in ("the cell tagged `parameters`", "the run", "side by side")}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project to which the model file and the CSV were added; the library finds them as if they were its own."""
    for name in (MODEL, PRINTED):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(block(f"{name}`"), encoding="utf8")
    shutil.copytree(ROOT / "data" / "papers", tmp_path / "data" / "papers", dirs_exist_ok=True)
    monkeypatch.setattr(cdimlib.models, "__path__", [*cdimlib.models.__path__, str(tmp_path / "cdimlib" / "models")])
    monkeypatch.setattr(results, "ROOT", tmp_path / "data")
    yield tmp_path
    sys.modules.pop("cdimlib.models.stripes", None)


def run(folder: Path, **parameters) -> dict:
    """The experiment's cells, as papermill would run them; returns the names they leave."""
    names: dict = {}
    for name, source in CELLS.items():
        if name == "side by side":
            source = f"table = {source}"
        exec(compile(source, name, "exec"), names)
        if "parameters" in name:
            assert parameters.keys() <= names.keys()
            names |= {**parameters, "folder": str(folder)}
    return names


def test_the_matcher_keeps_the_contract(project):
    """Encoding in parts or at once is the same; scores are [Q, G], and nothing is more alike than an image itself."""
    Stripes = importlib.import_module("cdimlib.models.stripes").Stripes
    bench, view = load("toytown-plaza", size="tiny", pixels=(64, 32)), PersonInput((64, 32))
    model = Stripes(classes=5)
    images = bench.query.images[:7]
    features = encode(model, images, view)
    assert features.shape == (7, 32) and torch.allclose(features, encode(model, images, view, batch_size=2), atol=1e-6)
    scores = similarity(model, features, encode(model, bench.gallery.images, view))
    assert scores.shape == (7, len(bench.gallery))
    assert similarity(model, features, features).argmax(dim=1).tolist() == list(range(7))
    metrics = evaluate(model, bench, view)
    assert metrics.num_valid > 0 and 0 <= metrics.mean_ap <= 1
    with pytest.raises(ValueError, match="images of 4 rows have no 6 stripes"):
        model.encode(torch.zeros(1, 3, 4, 2))


def test_the_chapters_cell_runs(project):
    exec(compile(block(f"{CHAPTER}`, a cell"), CHAPTER, "exec"), {})


def test_experiment_results_and_the_table_beside_the_papers(project, tmp_path):
    """Two seeds: trained, tested, saved, compared with the printed number, and skipped the second time."""
    folder = tmp_path / "results"
    names = run(folder, seeds="0 1", steps=15)
    runs = results.load("stripes", folder)
    assert [r["seed"] for r in runs] == [0, 1] and all(len(r["curve"]["loss"]) == 15 for r in runs)
    accuracy = [r["metrics"]["toytown-plaza"]["acc@1"] for r in runs]
    mean, spread, count = results.spread(runs, "toytown-plaza")
    assert (mean, spread, count) == (pytest.approx(np.mean(accuracy)), pytest.approx(np.std(accuracy, ddof=1)), 2)
    last = evaluate(names["model"], names["bench"], names["view"])
    assert last.accuracy(1) == pytest.approx(accuracy[1]) and last.first_rank.tolist() == runs[1]["metrics"][
        "toytown-plaza"]["first_rank"]  # fmt: skip
    (line,) = names["table"].data.to_dict("records")
    assert line["paper acc@1"] == 50.0 and line["ours acc@1"] == f"{mean:.1f} ± {spread:.1f}" and line["seeds"] == 2
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    again = run(folder, seeds="0 1", steps=15)
    assert "model" not in again and {path: path.stat().st_mtime_ns for path in written} == written
    assert results.gain(runs, runs, "toytown-plaza") == (0.0, 0.0, 0.0)


def test_the_grid_finds_what_the_experiment_writes(project, tmp_path):
    sys.path.append(str(ROOT / "workflow"))
    import grid

    entries = yaml.safe_load(block(f"{ENTRY}`"))
    jobs = grid.jobs_of("stripes", entries["stripes"])
    assert len(jobs) == 3 and set(entries["stripes"]) <= grid.NEEDED | grid.OPTIONAL
    run(tmp_path / "tiny", seeds="0", steps=1)
    (path,) = (tmp_path / "tiny").rglob("*.json")
    said = jobs[0].writes[0].replace("demo-200", "tiny-1")
    assert path.relative_to(tmp_path / "tiny").as_posix() == said


def test_both_pages_pass_the_checks_of_the_book(project):
    """The two notebooks with their frame, in a table of contents: every check of the book that needs no other page."""
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    parameters, *others = CELLS.values()
    title = "# Stripes\n\n**You will be able to** see them. **Time**: seconds."
    first = [text(title), code(canonical(ROOT)), text("Now.")]
    middle = [code(parameters, metadata={"tags": ["parameters"]})]
    for source in others:
        middle += [text("Go on."), code(source.rstrip("\n"))]
    pages = {EXPERIMENT: middle, CHAPTER: [code(block(f"{CHAPTER}`, a cell").rstrip("\n"))]}
    for name, cells in pages.items():
        (project / name).parent.mkdir(parents=True)
        book = nbformat.v4.new_notebook(cells=[*first, *cells, text("## Recap\n\nThat was it.")])
        nbformat.write(book, project / name)
    shutil.copy(ROOT / "pyproject.toml", project / "pyproject.toml")
    (project / "_toc.yml").write_text(f"root: {CHAPTER[:-6]}\nchapters: [{{file: {EXPERIMENT[:-6]}}}]\n")
    checks = [check for check in book_checks.CHECKS if check.__name__ != "check_address"]
    assert [found for check in checks for found in check(project)] == []


def test_every_file_that_contributing_names_exists(root):
    """Names in backticks that look like files or folders, but for those of the example."""
    prose = re.sub(r"(?ms)^```.*?^```", "", TEXT)
    names = {n for n in re.findall(r"`([\w./-]+)`", prose) if "/" in n or re.search(r"\.(py|md|ya?ml|csv|ipynb)$", n)}
    names = {name for name in names if "stripes" not in name}
    assert len(names) > 10
    assert [name for name in sorted(names) if not (root / name).exists()] == []


def test_every_command_that_contributing_names_exists(root):
    targets = set(re.findall(r"(?m)^([a-z][a-z-]*):(?!=)", (root / "Makefile").read_text(encoding="utf8")))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", TEXT)) - {"a"} <= targets
