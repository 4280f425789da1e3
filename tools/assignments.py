"""Coursework from one source: ``python tools/assignments.py`` writes the notebooks, ``--check`` compares them.

A source, book/assignments/source/NAME.ipynb, is a master notebook that otter-grader's ``otter assign`` reads: raw cells
``# BEGIN QUESTION`` (name; manual and points for a written answer), ``# BEGIN SOLUTION``, ``# BEGIN TESTS`` and their
ends. A test cell is a ``# BEGIN TEST CONFIG`` (points, hidden) above one function, whose docstring says what it tests
and whose arguments are names of the notebook. From a source come

* book/assignments/NAME.ipynb for students: each region ``# BEGIN SOLUTION`` .. ``# END SOLUTION`` becomes its lines
  ``# STUB: code``, or ``...``; the visible tests stay, behind a function ``check`` that needs no grader;
* book/assignments/solutions/NAME.ipynb for teachers: solutions and all tests;
* with ``--nbgrader FOLDER``: FOLDER/NAME/NAME.ipynb, a source for ``nbgrader generate_assignment``.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from first_cell import ROOT, canonical

FOLDER = Path("book/assignments")
REGION = re.compile(r"(?ms)^([ \t]*)# BEGIN SOLUTION\n(.*?)^[ \t]*# END SOLUTION[ \t]*(?:\n|\Z)")
STUB = re.compile(r"(?m)^([ \t]*)# STUB: ?(.*\n?)")
CONFIG = re.compile(r'(?s)\A""" # BEGIN TEST CONFIG\n(.*?)\n""" # END TEST CONFIG\n')
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
          "language_info": {"name": "python"}}
NOTE = """The next cell defines `check`. It runs one test on what stands in this notebook, says in words what is wrong,
and never stops the notebook. Run it, and leave it as it is."""
CHECK = """\
from cdimlib import coursework

earned = {}
check = coursework.checker(globals(), earned)"""
WARNING = """:::{warning}
Solutions and hidden tests, for teachers. Students get the notebook of the same name one folder up.
:::"""
HERE = "*Write your answer here, in place of this line.*"


@dataclass
class Piece:
    """A cell of a source: kind is text, code, answer or test; name is the question's, or the test function's."""

    kind: str
    cell: nbformat.NotebookNode
    name: str = ""
    points: float = 0
    hidden: bool = False


def read(path: Path) -> list[Piece]:
    """The pieces of a source in order; ValueError where a test cell is not well formed."""
    pieces, block, question = [], "", {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "raw":
            if marker := re.match(r"# (BEGIN|END) (QUESTION|SOLUTION|TESTS)", cell.source):
                block = marker[2] if marker[1] == "BEGIN" else ""
                question = yaml.safe_load(cell.source) if block == "QUESTION" else question
        elif block == "SOLUTION":
            pieces.append(Piece("answer", cell, question["name"], question.get("points", 0)))
        elif block == "TESTS":
            config = CONFIG.match(cell.source)
            body = ast.parse(cell.source[config.end() :]).body if config else []
            if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or not ast.get_docstring(body[0]):
                raise ValueError(f"{path.name}: not a TEST CONFIG and a function with a docstring:\n{cell.source}")
            settings, cell.source = yaml.safe_load(config[1]), cell.source[config.end() :].strip()
            pieces.append(Piece("test", cell, body[0].name, settings["points"], settings.get("hidden", False)))
        else:
            pieces.append(Piece("text" if cell.cell_type == "markdown" else "code", cell, question.get("name", "")))
    return pieces


def stubs(region: str) -> str:
    return "".join(indent + line for indent, line in STUB.findall(region))


def stubbed(source: str) -> str:
    """An answer as students get it."""
    return REGION.sub(lambda region: stubs(region[2]) or f"{region[1]}...\n", source).rstrip("\n")


def solved(source: str) -> str:
    """An answer without markers and stubs."""
    return REGION.sub(lambda region: STUB.sub("", region[2]), source).rstrip("\n")


def bound(source: str) -> dict[str, str]:
    """Names that a cell binds at its top level, with their arguments if they are functions."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = f"({ast.unparse(node.args)})" if isinstance(node, ast.FunctionDef) else "a class"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(name.asname or name.name).split(".")[0]: "a module" for name in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            keys = [ast.unparse(key) for key in node.value.keys if key] if isinstance(node.value, ast.Dict) else []
            found |= {name.id: f"a value with {', '.join(keys)}" if keys else "a value" for name in stored}
    return found


def faults(path: Path) -> list[str]:
    """What is wrong with a source: stubs that do not match, tests of names that students lack, outputs."""
    found, names, seen = [], {"env"}, set()
    for piece in read(path):
        source, where = piece.cell.source, f"{path.name}, {piece.name}"
        if piece.kind == "answer" and piece.cell.cell_type == "code":
            given, full = bound(stubbed(source)), bound(solved(source))
            plain = {n: "a value" if what[:7] == given.get(n) == "a value" else what for n, what in full.items()}
            wrong = {name: what for name, what in given.items() if plain.get(name) != what}
            found += [f"{where}: the stub of {n} is {w}, its solution {full.get(n)}" for n, w in wrong.items()]
            if "..." not in stubbed(source) or re.search("(BEGIN|END) SOLUTION|# STUB", stubbed(source)):
                found.append(f"{where}: no '...' is left for students, or a marker stands in a wrong place")
            names |= set(given)
        elif piece.kind == "code" and "%pip" not in source:
            names |= set(bound(source))
        elif piece.kind == "test":
            lacking = {a.arg for a in ast.parse(source).body[0].args.args} - names
            found += [f"{where} tests {name}, which students do not define before it" for name in sorted(lacking)]
            found += [f"{where}: two tests have this name"] * (piece.name in seen)
            seen.add(piece.name)
        if piece.cell.get("outputs") or piece.cell.get("execution_count"):
            found.append(f"{where} carries outputs; strip them with nbstripout")
    return found


def number(points: float) -> str:
    return f"{points:g} point" + "s" * (points != 1)


def locked(name: str) -> dict:
    """nbgrader's metadata of a cell that students must leave alone."""
    return {"schema_version": 3, "grade_id": name, "locked": True, "solution": False, "grade": False, "task": False}


def notebook(path: Path, version: str) -> str:
    """A generated notebook as text; version: "student", "solution" or "nbgrader"."""
    if wrong := faults(path):
        raise ValueError("\n".join(wrong))
    cells, pieces = [], read(path)

    def add(kind: str, name: str, source: str):
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        cells.append(make(source, id=name.replace("_", "-")[:64]))
        if version == "nbgrader" and kind == "code":
            cells[-1].metadata["nbgrader"] = locked(cells[-1].id)

    for piece in pieces:
        cell, hide = piece.cell, piece.hidden and version != "solution"
        if piece.kind == "text" and version == "solution":
            cell.source = cell.source.replace("../", "../../")
            if not cells:
                cell.source = re.sub(r"\A# (.*)\n", rf"# Solutions: \1\n\n{WARNING}\n", cell.source)
        elif piece.kind == "answer" and cell.cell_type == "markdown":
            cell.source = HERE if version == "student" else cell.source
        elif piece.kind == "answer":
            regions = cell.source
            cell.source = solved(regions) if version == "solution" else stubbed(regions)
            if version == "nbgrader":
                cell.source = stubs(regions) + STUB.sub("", regions)
        elif piece.kind == "test":
            cell.source += f"\n\ncheck({piece.name}, {piece.points:g})"
            if not hide:
                kind, what = "Hidden check" if piece.hidden else "Check", ast.parse(cell.source).body[0]
                add("markdown", f"{piece.name}-note", f"**{kind}**, {number(piece.points)}. {ast.get_docstring(what)}")
            elif version == "student":
                continue
            else:
                cell.source = f"### BEGIN HIDDEN TESTS\n{cell.source}\n### END HIDDEN TESTS"
        if version == "nbgrader" and piece.kind != "text":
            answer, grade = piece.kind == "answer", piece.kind == "test" or cell.cell_type == "markdown"
            points = {"points": piece.points} if grade else {}
            kind = {"solution": answer, "locked": not answer, "grade": grade}
            cell.metadata["nbgrader"] = {**locked(cell.id), **kind, **points}
        cells.append(cell)
        if piece.kind == "code" and "%pip" in cell.source:
            cell.source = canonical()
            add("markdown", "check-note", NOTE)
            add("code", "check", CHECK)
    every = sum(p.points for p in pieces if p.kind == "test")
    here = sum(p.points for p in pieces if p.kind == "test" and (version == "solution" or not p.hidden))
    more = f" Your teacher's own tests hold {number(every - here)} more." if every > here else ""
    add("markdown", "total-note", f"**How far are you?** The checks of this notebook hold {number(here)}.{more}")
    proof = f"\nassert sum(earned.values()) == {here:g}" if version == "solution" else ""
    add("code", "total", f'print(f"{{sum(earned.values()):g}} of {here:g} points"){proof}')
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)) + "\n"


def sources(root: Path) -> list[Path]:
    return sorted((root / FOLDER / "source").glob("*.ipynb"))


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Every generated file with its content."""
    kinds = (("student", FOLDER), ("solution", FOLDER / "solutions"))
    return {root / folder / p.name: notebook(p, kind) for p in sources(root) for kind, folder in kinds}


def stale(root: Path = ROOT) -> list[str]:
    """Generated files that are not what their source says, one sentence each."""
    wanted = generated(root)
    there = {p for folder in (FOLDER, FOLDER / "solutions") for p in (root / folder).glob("*.ipynb")}
    found = [f"{p.relative_to(root)} has no source" for p in sorted(there - set(wanted))]
    changed = [p for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf8") != text]
    return found + [f"{p.relative_to(root)} differs from its source: run python tools/assignments.py" for p in changed]


def main(arguments=None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    parser.add_argument("--nbgrader", type=Path, metavar="FOLDER", help="write sources for nbgrader below FOLDER")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            found = stale(root)
            print("\n".join(found) or "The assignments are what their sources say.")
            return int(bool(found))
        files = generated(root)
        if folder := options.nbgrader:
            files = {folder / p.stem / p.name: notebook(p, "nbgrader") for p in sources(root)}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
        print("wrote", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
