"""The book's structure: this book passes every check, and every check finds what it is there to find."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import book_checks
import pytest
from first_cell import first_cell

URL = "https://github.com/someone/book"


@pytest.mark.parametrize("check", book_checks.CHECKS, ids=lambda check: check.__name__)
def test_this_book(check, root):
    assert check(root) == []


def test_there_is_a_book(root):
    """The checks above say nothing about an empty folder."""
    assert len(book_checks.pages(root, ".ipynb")) >= 6 and len(book_checks.pages(root, ".md")) >= 4
    assert book_checks.toc_entries(root)[0] == "book/intro"


def cell(kind: str, source: str, **metadata) -> dict:
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "id": f"c{zlib.crc32(source.encode())}", "metadata": metadata, "source": source, **code}


def notebook(*middle: dict) -> dict:
    cells = [
        cell("markdown", "# Title\n\nYou will be able to\n\n- match. See [the notes](notes.md#part). **Time**: 0"),
        cell("code", first_cell(URL)),
        *middle,
        cell("markdown", "## Recap\n\nThat was it."),
    ]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf8")


@pytest.fixture
def book(tmp_path) -> Path:
    """A small book without a fault."""
    write(tmp_path / "pyproject.toml", f'[project.urls]\nRepository = "{URL}"\n')
    write(tmp_path / "_config.yml", f"repository:\n  url: {URL}\n")
    write(tmp_path / "CITATION.cff", f"repository-code: {URL}\n")
    write(tmp_path / "README.md", f'Code: {URL}\n\nmake full NB=book/experiments/run.ipynb P="-p epochs 3"\n')
    write(
        tmp_path / "_toc.yml",
        "format: jb-book\nroot: book/intro\nchapters:\n- file: book/notes\n- file: book/experiments/run\n",
    )
    write(
        tmp_path / "book" / "notes.md", "# Notes\n\n(part)=\n## Part\n\nBack to [the start](intro.ipynb) or [](part).\n"
    )
    write(tmp_path / "book" / "intro.ipynb", notebook(cell("markdown", "Now."), cell("code", "1 + 1")))
    run = notebook(cell("markdown", "Set."), cell("code", "epochs = 2\nrate: float = 0.1", tags=["parameters"]))
    run["cells"][0]["source"] = run["cells"][0]["source"].replace("notes.md", "../notes.md")
    write(tmp_path / "book" / "experiments" / "run.ipynb", run)
    return tmp_path


def test_a_book_without_a_fault(book):
    assert [found for check in book_checks.CHECKS for found in check(book)] == []


def edit(path: Path, change) -> None:
    """Apply ``change`` to a notebook's content and write it back."""
    content = json.loads(path.read_text())
    change(content)
    write(path, content)


def set_output(nb):
    nb["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "hello"}]


def repeat_an_id(nb):
    nb["cells"][0]["id"] = nb["cells"][1]["id"]


INTRO, RUN = "book/intro.ipynb", "book/experiments/run.ipynb"
NOTEBOOK_FAULTS = {
    "outputs": (INTRO, set_output, "check_notebooks_are_clean", "outputs"),
    "count": (INTRO, lambda nb: nb["cells"][3].update(execution_count=7), "check_notebooks_are_clean", "outputs"),
    "format": (INTRO, lambda nb: nb.update(nbformat_minor=4), "check_notebooks_are_clean", "4.5"),
    "same id": (INTRO, repeat_an_id, "check_notebooks_are_clean", "id"),
    "first cell": (
        INTRO,
        lambda nb: nb["cells"][1].update(source="import cdimlib"),
        "check_first_cell",
        "first code cell",
    ),
    "first cell's end": (
        INTRO,
        lambda nb: nb["cells"][1].update(source=first_cell(URL) + "\n"),
        "check_first_cell",
        "first code cell",
    ),
    "long cell": (INTRO, lambda nb: nb["cells"][3].update(source="x = 1\n" * 16), "check_rhythm", "16 lines"),
    "two cells": (INTRO, lambda nb: nb["cells"].insert(4, cell("code", "2")), "check_rhythm", "without a sentence"),
    "objectives": (INTRO, lambda nb: nb["cells"][0].update(source="# A\n\n**Time**: 0"), "check_frame", "objectives"),
    "time": (INTRO, lambda nb: nb["cells"][0].update(source="# A\n\nYou will be able to."), "check_frame", "how long"),
    "title": (INTRO, lambda nb: nb["cells"][0].update(source="You will be able to **Time**"), "check_frame", "title"),
    "recap": (INTRO, lambda nb: nb["cells"][-1].update(source="## The end"), "check_frame", "recap"),
    "open solution": (INTRO, lambda nb: nb["cells"][3].update(source="# BEGIN SOLUTION\n1"), "check_frame", "closing"),
    "plain solution": (
        INTRO,
        lambda nb: nb["cells"][3].update(source="# BEGIN SOLUTION\n1\n# END SOLUTION"),
        "check_frame",
        "hidden",
    ),
    "no parameters": (RUN, lambda nb: nb["cells"][3].update(metadata={}), "check_parameters", "0 cells"),
    "parameters in a chapter": (
        INTRO,
        lambda nb: nb["cells"][3].update(metadata={"tags": ["parameters"]}),
        "check_parameters",
        "1 cells",
    ),
    "link in a notebook": (
        INTRO,
        lambda nb: nb["cells"][2].update(source="[x](gone.ipynb)"),
        "check_links",
        "gone.ipynb",
    ),
}


@pytest.mark.parametrize("fault", NOTEBOOK_FAULTS)
def test_a_fault_in_a_notebook_is_found(fault, book):
    path, change, check, words = NOTEBOOK_FAULTS[fault]
    edit(book / path, change)
    found = getattr(book_checks, check)(book)
    assert len(found) == 1 and words in found[0] and Path(path).name in found[0]


FILE_FAULTS = {
    "page not in the toc": ("book/extra.md", "# Extra", "check_toc", "book/extra is not in"),
    "entry without a page": (
        "_toc.yml",
        "root: book/intro\nchapters: [{file: book/notes}, {file: book/experiments/run}, {file: book/none}]",
        "check_toc",
        "book/none",
    ),
    "two sources": ("book/intro.md", "# Again", "check_toc", ".md and as .ipynb"),
    "broken link": ("book/notes.md", "# Notes\n\n[x](intro.ipynb) [y](nowhere.md)", "check_links", "nowhere.md"),
    "broken image": ("book/notes.md", "# Notes\n\n![a cat](cat.png)", "check_links", "cat.png"),
    "broken figure": ("book/notes.md", "# Notes\n\n```{figure} cat.svg\n:alt: x\n```", "check_links", "cat.svg"),
    "broken doc role": ("book/notes.md", "# Notes\n\n{doc}`the start <gone>`", "check_links", "gone"),
    "unknown parameter": (
        "data/results/QUEUE.md",
        '- `make full NB=book/experiments/run.ipynb P="-p epochs 3 -p sed 1"`',
        "check_parameters",
        "'sed'",
    ),
    "unknown notebook": (
        "data/results/QUEUE.md",
        "make full NB=book/experiments/other.ipynb",
        "check_parameters",
        "other",
    ),
    "papermill by hand": (
        "data/results/QUEUE.md",
        "papermill book/experiments/run.ipynb out.ipynb -p epoch 3",
        "check_parameters",
        "'epoch'",
    ),
    "address in the settings": ("_config.yml", "repository:\n  url: https://github.com/a/b\n", "check_address", "a/b"),
    "address in the citation": ("CITATION.cff", "repository-code: https://github.com/a/b\n", "check_address", "a/b"),
    "address on a page": (
        "book/notes.md",
        "# Notes\n\npip install git+https://github.com/a/b\n",
        "check_address",
        "a/b",
    ),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_fault_in_a_file_is_found(fault, book):
    path, content, check, words = FILE_FAULTS[fault]
    write(book / path, content)
    found = getattr(book_checks, check)(book)
    assert len(found) == 1 and words in found[0]


def test_links_in_code_and_to_other_sites_are_left_alone(book):
    text = "# Notes\n\n(part)=\n`[x](y.md)` [a](https://example.org/b.md) [](part)\n\n```\n[x](z.md)\n```\n"
    write(book / "book" / "notes.md", text)
    assert book_checks.check_links(book) == []


def test_solutions_may_follow_one_another(book):
    solutions = [cell("code", f"# BEGIN SOLUTION\n{i}\n# END SOLUTION", tags=["hide-cell"]) for i in range(2)]
    edit(book / INTRO, lambda nb: nb["cells"].extend(solutions))
    assert book_checks.check_rhythm(book) == [] and book_checks.check_frame(book) == []
