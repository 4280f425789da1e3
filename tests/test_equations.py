"""The equation map: no gap in this book, and every kind of gap is found in a small one."""

from __future__ import annotations

import json
import sys
from collections import Counter

import equations
import pytest

NAME = "feature-mask-network"


def test_every_numbered_equation_is_listed(root):
    """The four papers number 3, 6, 7 and 4 equations."""
    counted = Counter(paper for paper, _ in equations.listed(root))
    assert list(counted.values()) == [3, 6, 7, 4] and counted.keys() == equations.PAPERS.keys()
    for paper in equations.PAPERS:
        numbers = [number for of, number in equations.listed(root) if of == paper]
        assert numbers == list(range(1, len(numbers) + 1))


def test_this_book_has_no_gap_and_its_page_is_fresh(root):
    places, faults = equations.gather(root)
    assert faults == []
    assert (root / equations.PAGE).read_text(encoding="utf8") == equations.page(root, places), "run tools/equations.py"


@pytest.fixture
def small(tmp_path):
    """A book about one equation, without a fault."""
    said = "Feature-mask-network, Eq. (5)"
    prose = f"# Masks\n\n## A hinge\n\n$$\na\n$$ (hinge)\n\n({said}.) So.".splitlines(keepends=True)
    code = {"cell_type": "code", "source": "# Feature-mask-network, Eq. (8)"}
    notebook = {"cells": [{"cell_type": "markdown", "source": prose}, code]}
    files = {
        equations.LIST: f'paper,number,meaning,deviation,errata\n{NAME},5,the hinge,no default,"Sec. 3.3, Eq. (5)"\n',
        "book/masks/mask.ipynb": json.dumps(notebook),
        "book/appendix/errata.md": "# E\n\n## Feature-mask-network\n\n|place|x|\n|---|---|\n| Sec. 3.3, Eq. (5) | y |",
        "cdimlib/losses.py": f'def hinge():\n    """A hinge.\n\n    {said.replace(" ", chr(10))}, Sec. 3.3.\n    """\n',
        "tests/test_losses.py": f'class TestHinge:\n    def test_it(self):\n        """{said}: a case."""\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf8")
    return tmp_path


def test_a_small_map(small):
    places, faults = equations.gather(small)
    assert faults == []
    assert places[NAME, 5] == {
        "page": [("masks/mask", "A hinge", "hinge")], "function": ["cdimlib.losses.hinge"],
        "test": ["test_losses.py::TestHinge::test_it"],
    }  # fmt: skip
    assert "| (5) | the hinge | {doc}`A hinge <../masks/mask>` {eq}`hinge` |" in equations.page(small, places)


GAPS = {
    "page": ("book/masks/mask.ipynb", "Eq. (5)", "Eq. 5", "no page carries its key"),
    "formula": ("book/masks/mask.ipynb", "$$ (hinge)", "$$", "no labelled formula"),
    "function": ("cdimlib/losses.py", "Sec. 3.3.", "Sec. 3.3. See there.", "no function carries its key"),
    "test": ("tests/test_losses.py", "test_it", "helper", "no test carries its key"),
    "unknown in code": ("cdimlib/losses.py", "(5)", "(5) and (7)", "has no Eq. (7)"),
    "unknown in a test": ("tests/test_losses.py", "Eq. (5)", "Eq. (9)", "has no Eq. (9)"),
    "unknown on a page": ("book/masks/mask.ipynb", "So.", "QAConv, Eq. (1).", "QAConv has no Eq. (1)"),
    "erratum": ("book/appendix/errata.md", "Sec. 3.3", "Sec. 3.4", "no row 'Sec. 3.3, Eq. (5)'"),
}


@pytest.mark.parametrize("gap", GAPS)
def test_a_gap_is_found(gap, small):
    path, old, new, words = GAPS[gap]
    text = (small / path).read_text(encoding="utf8")
    assert old in text
    (small / path).write_text(text.replace(old, new), encoding="utf8")
    assert any(words in fault for fault in equations.gather(small)[1])


def test_command(small, monkeypatch, capsys):
    """It writes; with --check it fails until it has written; a gap leaves the page alone."""
    run = lambda *words: (monkeypatch.setattr(sys, "argv", ["equations.py", *words]), equations.main(small))[1]  # noqa: E731
    page = small / equations.PAGE
    page.write_text("old", encoding="utf8")
    assert run("--check") == 1 and "differs" in capsys.readouterr().out and page.read_text() == "old"
    assert run() == 0 and run("--check") == 0
    (small / "tests/test_losses.py").unlink()
    assert run() == 1 and "no test carries its key" in capsys.readouterr().out
