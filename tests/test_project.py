"""The project's files agree with one another, and nothing lies in the tree that should not."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cdimlib

#: what a package is called on conda-forge, where that differs
CONDA_NAMES = {"pytorch": "torch"}
DATA_ENDINGS = (".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".mat", ".pth", ".pt", ".ckpt", ".npz", ".npy", ".h5", ".pkl")


@pytest.fixture(scope="module")
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]


def requirement(text: str) -> tuple[str, str]:
    """("torch", ">=2.11") of a requirement, under pip's name for it."""
    parsed = Requirement(text)
    name = canonicalize_name(parsed.name)
    return CONDA_NAMES.get(name, name), str(parsed.specifier)


def direct(project) -> dict[str, str]:
    """Everything that pyproject.toml names, extras included."""
    named = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    return dict(requirement(text) for text in named)


def tracked(root) -> list[str]:
    """The files of the repository, or all that git would not ignore where this is no clone."""
    if not (root / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git clone: what belongs to the repository cannot be told")
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"git does not answer here: {listed.stderr.strip()}")
    return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


def test_environment_yml_agrees_with_pyproject(root, project):
    listed = yaml.safe_load((root / "environment.yml").read_text(encoding="utf8"))["dependencies"]
    by_pip = next(item["pip"] for item in listed if isinstance(item, dict))
    by_conda = [item for item in listed if isinstance(item, str)]
    assert f"python{project['requires-python']}" in by_conda and "pip" in by_conda and "-e ." in by_pip
    itself = {"pip", "-e .", f"python{project['requires-python']}"}
    environment = dict(requirement(text) for text in [*by_conda, *by_pip] if text not in itself)
    assert environment == direct(project)


def test_one_requirement_one_range(project):
    """A package named in several extras has one range."""
    ranges: dict[str, set] = {}
    for text in [*project["dependencies"], *(r for e in project["optional-dependencies"].values() for r in e)]:
        name, specifier = requirement(text)
        ranges.setdefault(name, set()).add(specifier)
    assert {name: found for name, found in ranges.items() if len(found) > 1} == {}


def pins(root) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (root / "constraints.txt").read_text(encoding="utf8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def test_constraints_pin_every_direct_dependency(root, project):
    pinned = pins(root)
    for name, specifier in direct(project).items():
        assert name in pinned, f"{name} is not in constraints.txt"
        for pin in pinned[name]:
            version = str(pin.specifier).removeprefix("==")
            assert re.fullmatch(r"[\w.!+]+", version), f"{pin} must pin one version"
            assert Requirement(f"{name}{specifier}").specifier.contains(version), f"{pin} is outside {specifier}"


def test_constraints_are_plain_pins(root):
    """No addresses, no local folders: the file must work on any machine."""
    for found in pins(root).values():
        for pin in found:
            assert pin.url is None and str(pin.specifier).startswith("=="), str(pin)
    assert "://" not in (root / "constraints.txt").read_text(encoding="utf8")


def test_packages_are_complete(root):
    """Every folder of the library is installed: pyproject.toml lists them by hand."""
    listed = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(p.parent.relative_to(root).parts) for p in (root / "cdimlib").rglob("*.py")}
    assert folders == set(listed) - {"cdimlib.shipped"}


def code_blocks(text: str) -> list[str]:
    return re.findall(r"(?ms)^```bash\n(.*?)^```", text)


def make_targets(root) -> set[str]:
    return set(re.findall(r"(?m)^([a-z][a-z-]*):(?!=)", (root / "Makefile").read_text(encoding="utf8")))


def test_readme_commands_exist_and_ci_runs_them(root):
    readme = (root / "README.md").read_text(encoding="utf8")
    blocks = code_blocks(readme)
    first = re.findall(r"(?m)^make ([a-z-]+)", blocks[0])
    assert first == ["book", "test"], "the README's first commands are `make book` and `make test`"
    # first screen: the block ends within the first 25 lines
    assert readme[: readme.index(blocks[0])].count("\n") < 25
    mentioned = set(re.findall(r"\bmake ([a-z-]+)", "\n".join([*blocks, *re.findall(r"`[^`\n]+`", readme)])))
    assert mentioned <= make_targets(root), "the README names targets that the Makefile lacks"
    lines = [line.strip() for line in (root / ".ci" / "run").read_text(encoding="utf8").splitlines()]
    run = {t for line in lines if not line.startswith("#") for t in re.findall(r"\bmake ([a-z-]+)", line)}
    assert run and run <= set(first), "CI runs a command of the README's first screen, and no other"


def test_make_test_is_library_then_notebooks_then_book(root):
    recipe = re.search(r"(?m)^test:.*\n((?:\t.*\n)+)", (root / "Makefile").read_text(encoding="utf8"))[1]
    assert re.findall(r"test-[a-z]+", recipe) == ["test-library", "test-notebooks", "test-book"]


def test_every_target_is_phony_and_explained(root):
    makefile = (root / "Makefile").read_text(encoding="utf8")
    phony = set(re.search(r"(?m)^\.PHONY:(.*)$", makefile)[1].split())
    explained = set(re.findall(r"(?m)^([a-z-]+):.*## ", makefile))
    assert make_targets(root) == phony == explained


def test_no_file_over_one_megabyte(root):
    assert [name for name in tracked(root) if (root / name).stat().st_size > 1_000_000] == []


def test_no_data_weights_or_photographs(root):
    assert [name for name in tracked(root) if name.lower().endswith(DATA_ENDINGS)] == []


def test_images_in_the_tree_are_drawings(root):
    """The pictures that are committed are drawn ones (SVG) and the README's, which `tools/readme_picture.py` makes of
    toy people; everything else is made when the book is built."""
    assert [
        n for n in tracked(root) if n.lower().endswith((".png", ".gif", ".webp")) and not n.startswith("_vendor/")
    ] == ["_static/readme.png"]


def test_results_are_small_json(root):
    """Committed results are JSON files of at most 200 kB, with the queue beside them."""
    names = [name for name in tracked(root) if name.startswith("data/results/")]
    assert [n for n in names if not n.endswith((".json", "QUEUE.md", "README.md"))] == []
    assert [n for n in names if (root / n).stat().st_size > 200_000] == []


def test_vendored_mathjax_is_complete(root):
    """What _config.yml asks MathJax to load is in the repository, with its licence."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))["sphinx"]["config"]
    folder = root / "_vendor" / "_static" / "mathjax"
    assert (root / "_vendor" / "_static" / config["mathjax_path"]).is_file() and (folder / "LICENSE").is_file()
    for component in config["mathjax3_config"]["loader"]["load"]:
        path = component.replace("[tex]", "input/tex/extensions")
        assert (folder / f"{path}.js").is_file(), f"{component} is not in {folder}"
    # the formula scripts must not lie below _static, where Jupyter Book would add each of them to every page
    assert [path.name for path in (root / "_static").rglob("*.js")] == ["book.js"]


def test_no_page_of_the_reference_repeats_torchs_advice_on_forward():
    """A ``forward`` without a docstring inherits torch's, which says nothing about ours."""
    from torch import nn

    silent = []
    for path in sorted(Path(cdimlib.__file__).parent.rglob("*.py")):
        name = ".".join(path.relative_to(Path(cdimlib.__file__).parent.parent).with_suffix("").parts)
        module = importlib.import_module(name.removesuffix(".__init__"))
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == module.__name__:
                public = "forward" in vars(kind) and not kind.__name__.startswith("_")
                silent += [f"{name}.{kind.__name__}"] if public and not kind.forward.__doc__ else []
    assert silent == []
