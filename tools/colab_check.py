"""Execute notebooks as Colab would run them: ``python tools/colab_check.py [NOTEBOOK ...]`` (all of them by default).

The look-alike: a fresh environment that holds what Colab brings (the library's dependencies and a few more, taken from
the environment that runs this script; nothing else of it can be imported), `google.colab` importable, no repository in
sight, an empty folder to work in, and Colab's way of drawing. The first cell then installs the library with pip from a
git repository at the published address, for which a copy of this working tree stands in. Afterwards torch, numpy and
every other package must be as they were.

``--versions FILE`` reads a `pip freeze` of Colab and prints our dependencies at its versions, for a `pip -c`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib import metadata
from pathlib import Path

from first_cell import release, repository
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
#: what Colab has beside our dependencies: what runs a notebook there, what pip needs, and packages that pages may try
BROUGHT = ("ipykernel", "nbclient", "nbformat", "pip", "setuptools", "wheel", "pyyaml", "requests", "pooch", "h5py")
PUBLISHED = ("pyproject.toml", "README.md", "LICENSE", "cdimlib", "data")
#: what is not there in a notebook just opened
UNSET = ("PYTHONPATH", "PYTHONHOME", "MPLBACKEND", "CDIM_DATA", "VIRTUAL_ENV")

STATE = """\
import json, sys
from importlib import metadata, util
def _state():
    found = {d.metadata["Name"]: [d.version, str(d.locate_file(""))] for d in metadata.distributions()}
    for name in ("torch", "numpy"):
        module = sys.modules.get(name)
        found[f"import {name}"] = [module.__file__] if module else [util.find_spec(name).origin]
    return found
"""
PROBE = f"""\
{STATE}
import cdimlib, os
print("STATE " + json.dumps({{"packages": _state(), "cdimlib": cdimlib.__file__, "colab": "google.colab" in sys.modules,
                             "left": sorted(os.listdir("."))}}))"""
RUNNER = """\
import json, sys
import nbformat
from nbclient import NotebookClient
source, folder, target, timeout = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
notebook.cells.insert(0, nbformat.v4.new_code_cell("import google.colab"))
notebook.cells.append(nbformat.v4.new_code_cell(sys.stdin.read()))
place = {"metadata": {"path": folder}}
try:
    NotebookClient(notebook, kernel_name="python3", timeout=int(timeout), resources=place).execute()
finally:
    nbformat.write(notebook, target)
"""


def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))


def dependencies() -> list[str]:
    return [canonicalize_name(Requirement(text).name) for text in settings()["project"]["dependencies"]]


def can_build() -> bool:
    """Whether what pip needs to build the library is installed, and in a version that it takes."""
    needed = map(Requirement, settings()["build-system"]["requires"])
    there = {canonicalize_name(d.metadata["Name"] or ""): d.version for d in metadata.distributions()}
    return all(r.specifier.contains(there.get(canonicalize_name(r.name), "0")) for r in needed)


def closure(names) -> dict[str, metadata.Distribution]:
    """Name -> installed distribution, of these and all that they require."""
    found, seen, waiting = {}, set(), [(canonicalize_name(name), "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for needed in map(Requirement, found[name].requires or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), extra) for extra in ("", *needed.extras)]
    return found


def look_alike(place: Path) -> Path:
    """Make the environment below ``place``; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    packages, stub = place / "packages", place / "stub" / "google" / "colab"
    packages.mkdir()
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text('"""A stand-in: notebooks and libraries ask whether this can be imported."""\n')
    for distribution in closure([*dependencies(), *BROUGHT]).values():
        base = Path(distribution.locate_file(""))
        for top in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not top.endswith(".pth") and (base / top).exists() and not (packages / top).exists():
                (packages / top).symlink_to(base / top)
    python = place / "venv" / "bin" / "python"
    site = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    Path(site, "colab.pth").write_text(f"{packages}\n{place / 'stub'}\n")
    return python


def stand_in(place: Path) -> Path:
    """A git repository that holds what the published one holds for pip, from this working tree."""
    target, leave = place / "published", shutil.ignore_patterns("__pycache__", "cache", "*.egg-info")
    target.mkdir()
    for name in PUBLISHED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=leave)
        else:
            shutil.copy(ROOT / name, target / name)
    git = ["git", "-C", str(target), "-c", "user.name=check", "-c", "user.email=check@localhost"]
    tag = [["tag", release()]] if release() else []
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "stand-in"], *tag):
        subprocess.run([*git, *command], check=True, capture_output=True)
    return target


class Colab:
    """The look-alike; ``run(notebook)`` returns what is wrong, a sentence each (nothing: all is well)."""

    def __init__(self, place: Path, profile: str = "smoke", timeout: int = 600):
        self.place, self.timeout = place, timeout
        self.python, published = look_alike(place), stand_in(place)
        rewrite = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
                   "GIT_CONFIG_VALUE_0": repository()}  # fmt: skip
        plain = {key: value for key, value in os.environ.items() if key not in UNSET}
        plain |= {"PIP_NO_BUILD_ISOLATION": "0"} if can_build() else {}  # otherwise pip fetches what it needs
        self.environment = {**plain, **rewrite, "CDIM_PROFILE": profile, "CDIM_CACHE": str(place / "cache"),
                            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # fmt: skip
        self.before = self._state()

    def _state(self) -> dict:
        told = subprocess.run([self.python, "-c", f"{STATE}\nprint(json.dumps(_state()))"], env=self.environment,
                              cwd=self.place, capture_output=True, text=True, check=True).stdout  # fmt: skip
        return json.loads(told)

    def run(self, notebook: Path) -> list[str]:
        folder = Path(tempfile.mkdtemp(dir=self.place, prefix="content-"))
        target = self.place / "executed" / f"{notebook.parent.name}-{notebook.name}"
        target.parent.mkdir(exist_ok=True)
        command = [self.python, "-c", RUNNER, str(notebook.resolve()), str(folder), str(target), str(self.timeout)]
        answer = subprocess.run(command, input=PROBE, env=self.environment, cwd=folder, capture_output=True, text=True)
        if answer.returncode:
            return [f"{notebook.name} fails there:\n{answer.stderr.strip()[-3000:]}"]
        cells = json.loads(target.read_text(encoding="utf8"))["cells"]
        texts = ["".join(output.get("text", "")) for output in cells[-1]["outputs"]]
        state = json.loads("".join(texts).split("STATE ", 1)[1])
        return [f"{notebook.name}: {fault}" for fault in faults(self.before, state, self.place)]


def faults(before: dict, state: dict, place: Path) -> list[str]:
    """What a notebook left otherwise than it found it."""
    after = {name: value for name, value in state["packages"].items() if canonicalize_name(name) != "cdimlib"}
    found = []
    for name in sorted({**before, **after}):
        if name != "cdimlib" and before.get(name) != after.get(name):
            found.append(f"{name} was {before.get(name)} and is {after.get(name)}: a notebook must leave it alone")
    if not Path(state["cdimlib"]).is_relative_to(place / "venv"):
        found.append(f"cdimlib came from {state['cdimlib']}, not from what the first cell installed")
    if not state["colab"]:
        found.append("google.colab could not be imported: this was no look-alike")
    return found


def at_their_versions(freeze: str) -> list[str]:
    """Our dependencies as pins, at the versions of a `pip freeze` (torch stands there with the address of a file)."""
    wanted, pins = set(dependencies()), {}
    for line in freeze.splitlines():
        match = re.match(r"([\w.-]+)(?:==| @ \S*/[\w.]+-)(\d[\w.]*)", line)
        if match and canonicalize_name(match[1]) in wanted:
            pins[canonicalize_name(match[1])] = f"{canonicalize_name(match[1])}=={match[2]}"
    return [pins[name] for name in sorted(pins)]


def all_notebooks() -> list[Path]:
    """The chapters and experiments, the assignments as students get them, and their solutions."""
    found = [*ROOT.glob("book/*.ipynb"), *ROOT.glob("book/*/*.ipynb"), *ROOT.glob("book/assignments/solutions/*.ipynb")]
    return sorted(found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--profile", default="smoke", choices=("smoke", "demo", "full"))
    parser.add_argument("--timeout", type=int, default=600, help="seconds a cell")
    parser.add_argument("--versions", type=Path, metavar="FILE", help="print pins from a `pip freeze` and stop")
    options = parser.parse_args(arguments)
    if options.versions:
        print("\n".join(at_their_versions(options.versions.read_text(encoding="utf8"))))
        return 0
    bad = 0
    with tempfile.TemporaryDirectory(prefix="colab-") as place:
        colab = Colab(Path(place).resolve(), options.profile, options.timeout)
        for notebook in options.notebooks or all_notebooks():
            started = time.time()
            found = colab.run(notebook)
            bad += bool(found)
            print(f"{'FAILS' if found else 'runs '} {time.time() - started:5.0f} s  {notebook}", flush=True)
            print("\n".join(found), end="\n" * bool(found), file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
