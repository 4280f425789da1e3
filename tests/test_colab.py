"""Notebooks in a look-alike of Colab: the first cell installs the library there, and touches nothing else."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import colab_check
import nbformat
import pytest
from first_cell import canonical

missing = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]
missing += ["git"] * (shutil.which("git") is None)
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the first cell installs the library with {', '.join(missing)}")


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> colab_check.Colab:
    """As it is when a notebook was just opened there; the first test that runs one installs the library."""
    return colab_check.Colab(tmp_path_factory.mktemp("colab").resolve())


def test_it_brings_what_colab_brings_and_nothing_of_ours(colab):
    assert {"torch", "numpy", "scikit-image", "pip"} <= {name.lower() for name in colab.before}
    assert not {"cdimlib", "pytest", "nbval", "papermill", "jupyter-book"} & {name.lower() for name in colab.before}
    script = "import google.colab, sys; print(sys.prefix)"
    assert str(colab.place) in colab_check.subprocess.run(
        [colab.python, "-c", script], env=colab.environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("name", ["book/report.ipynb", "book/assignments/fusion.ipynb"])
def test_notebooks_run_there(name, root, colab):
    """A page drawn from the results that travel with the library, and an assignment as students get it."""
    assert colab.run(root / name) == []


def write(path: Path, *cells: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


def test_a_failing_notebook_is_reported(colab, tmp_path):
    """With what it says; and a page that wants a package that Colab does not bring fails here too."""
    (found,) = colab.run(write(tmp_path / "page.ipynb", canonical(), "import papermill"))
    assert "page.ipynb fails there" in found and "No module named 'papermill'" in found


def test_a_changed_package_is_a_fault(tmp_path):
    inside = {"cdimlib": str(tmp_path / "venv" / "lib" / "cdimlib"), "colab": True}
    before = {"torch": ["2.11", "there"], "numpy": ["2.0", "there"]}
    after = {"torch": ["2.15", "here"], "numpy": ["2.0", "there"], "cdimlib": ["0.1.0", "here"]}
    sound = {"packages": {**before, "cdimlib": ["0.1.0", "here"]}, **inside}
    assert colab_check.faults(before, sound, tmp_path) == []
    (found,) = colab_check.faults(before, {**sound, "packages": after}, tmp_path)
    assert "torch was ['2.11', 'there'] and is ['2.15', 'here']" in found
    (found,) = colab_check.faults(before, {**sound, "packages": {**before, "tqdm": ["4", "here"]}}, tmp_path)
    assert "tqdm was None" in found
    (found,) = colab_check.faults(before, {**sound, "cdimlib": "/checkout/cdimlib/__init__.py"}, tmp_path)
    assert "cdimlib came from /checkout" in found
    (found,) = colab_check.faults(before, {**sound, "colab": False}, tmp_path)
    assert "google.colab" in found


def test_pins_at_colabs_versions():
    """Only our own dependencies, with the address of a file or without, local versions cut off."""
    freeze = "numpy==2.0.2\nPillow==11.3.0\ntorch @ https://host/whl/torch-2.11.0%2Bcu128-cp312-x.whl#sha256=ab\n"
    freeze += "torchvision==0.26.0+cu128\nscikit-image==0.25.2\nkeras==3.1\n# a comment\n"
    wanted = ["numpy==2.0.2", "pillow==11.3.0", "scikit-image==0.25.2", "torch==2.11.0", "torchvision==0.26.0"]
    assert colab_check.at_their_versions(freeze) == wanted
