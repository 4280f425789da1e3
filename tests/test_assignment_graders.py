"""Coursework in otter-grader and in nbgrader, for real: kernels, archives, a gradebook. Skipped where a grader is not
installed (``pip install otter-grader nbgrader``, best into an environment of its own). Minutes, not seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import assignments
import nbformat
import pytest
import test_assignment_correlation as a4
import test_assignment_mask as a3
import test_assignments as a

WRONG = [*a.WRONG, *(("feature_mask", *case) for case in a3.WRONG),
         *(("correlation_and_attention", *case) for case in a4.WRONG)]  # fmt: skip


def total(name: str) -> float:
    return sum(p.points for p in a.pieces(name) if p.kind == "test")


def command(*words, where: Path) -> None:
    """A command of a grader, installed beside this Python, in a folder."""
    program = Path(sys.executable).parent / words[0]
    done = subprocess.run([program, *words[1:]], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(autouse=True)
def library(root, monkeypatch):
    """The kernels that graders start find this copy of the library."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "tools")]))
    monkeypatch.setenv("CDIM_PROFILE", "smoke")


@pytest.fixture(scope="module")
def dist(root, tmp_path_factory):
    """name -> what ``otter assign`` makes of a source."""
    made = {}

    def assign(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            shutil.copy(root / assignments.FOLDER / "source" / f"{name}.ipynb", made[name])
            command("otter", "assign", "--no-run-tests", f"{name}.ipynb", "dist", where=made[name])
        return made[name] / "dist"

    return assign


@pytest.mark.parametrize("name", a.NAMES)
def test_otter(name, dist, root, tmp_path, monkeypatch):
    """The students' notebook and the solution, each graded with all tests, visible and hidden."""
    pytest.importorskip("otter")
    from otter.api import grade_submission

    (archive,) = (dist(name) / "autograder").glob("*.zip")
    monkeypatch.chdir(tmp_path)
    for folder, points in (("", 0), ("solutions", total(name))):
        path = root / assignments.FOLDER / folder / f"{name}.ipynb"
        found = grade_submission(str(path), str(archive), quiet=True)
        assert (found.total, found.possible) == (points, total(name)), path


@pytest.mark.parametrize("name", a.NAMES)
def test_otter_exports(name, dist):
    """The notebook that otter gives out, run from top to bottom as a student would, hands in an archive."""
    pytest.importorskip("otter")
    student = dist(name) / "student"
    command("jupyter-nbconvert", "--execute", "--allow-errors", "--inplace", "--to", "notebook", f"{name}.ipynb",
            where=student)  # fmt: skip
    (archive,) = student.glob(f"{name}_*.zip")
    assert f"{name}.ipynb" in zipfile.ZipFile(archive).namelist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", a.NAMES)
def test_otter_takes_the_same_points(name, dist):
    """Every wrong answer through the test files of otter's archive."""
    pytest.importorskip("otter")
    from otter.test_files.exception_test import ExceptionTestFile

    (archive,) = (dist(name) / "autograder").glob("*.zip")
    with zipfile.ZipFile(archive) as packed:
        tests = [packed.read(n).decode() for n in packed.namelist() if re.match(r"(.*/)?tests/.*\.py$", n)]
    for case in (case for case in WRONG if case[0] == name):
        env, files = a.answered(*case[:3])[1], [ExceptionTestFile.from_string(test) for test in tests]
        for file in files:
            file.run(env)
        assert sum(file.possible - file.score for file in files) == case[3], case


@pytest.mark.parametrize("name", a.NAMES)
def test_nbgrader(name, root, tmp_path):
    """generate_assignment and autograde: the release handed in as it is has no point, with the answers it has all."""
    pytest.importorskip("nbgrader")
    from nbgrader.api import Gradebook

    (tmp_path / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.course_id = "cdim"\nc.ExecutePreprocessor.timeout = 600\n')  # fmt: skip
    source = tmp_path / "source" / name / f"{name}.ipynb"
    source.parent.mkdir(parents=True)
    path = root / assignments.FOLDER / "source" / f"{name}.ipynb"
    source.write_text(assignments.notebook(path, "nbgrader"), encoding="utf8")
    command("nbgrader", "generate_assignment", name, where=tmp_path)
    release = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", as_version=4)
    assert not any("HIDDEN" in cell.source for cell in release.cells)
    answers = {c.id: c.source for c in nbformat.read(source, 4).cells if c.metadata.get("nbgrader", {}).get("solution")}
    for student in ("untouched", "solved"):
        if student == "solved":
            for cell in release.cells:
                cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
        submitted = tmp_path / "submitted" / student / name / f"{name}.ipynb"
        submitted.parent.mkdir(parents=True)
        nbformat.write(release, submitted)
    command("nbgrader", "autograde", name, where=tmp_path)
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        earned = {s.student_id: s.score for s in book.assignment_submissions(name)}
    assert earned == {"untouched": 0, "solved": total(name)}  # the written exercise still waits for its mark
