"""Run a parameterised notebook in full: ``make full NB=book/experiments/x.ipynb P="-p epochs 40 -p seed 1"``.

The executed copy goes to runs/, never in place. papermill only warns about a parameter that the notebook does not
know and then trains with the default; here that is an error, before anything runs.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]


class UnknownParameter(ValueError):
    """A parameter that the notebook's parameters cell does not set."""


def known_parameters(notebook: Path) -> dict:
    """Name and default of what the one cell tagged ``parameters`` assigns (None where the default is no literal)."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [c for c in cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{notebook} must have exactly one code cell tagged 'parameters', it has {len(tagged)}")
    known = {}
    for statement in ast.parse(tagged[0].source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            try:
                known[name] = ast.literal_eval(statement.value)
            except (ValueError, TypeError):
                known[name] = None
    return known


def parse_value(name: str, text: str, default=None):
    """A value from the command line, of the default's kind: text stays text, a number must be one.

    Otherwise a Python literal ([1, 2], None), true or false, or else the text itself.
    """
    if isinstance(default, str):
        return text
    if text.lower() in ("true", "false"):
        value = text.lower() == "true"
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"parameter {name!r} must be true or false, not {text!r}")
    number = isinstance(default, int | float) and not isinstance(default, bool)
    if number and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"parameter {name!r} must be a number like {default!r}, not {text!r}")
    return value


def read_parameters(notebook: Path, given: dict[str, str]) -> dict:
    """The values of ``given``; UnknownParameter, naming the known ones, for a name that the notebook does not set."""
    known = known_parameters(notebook)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UnknownParameter(
            f"{notebook} has no parameter {', '.join(map(repr, unknown))}. Its parameters are: {', '.join(known)}."
        )
    return {name: parse_value(name, text, known[name]) for name, text in given.items()}


def run(notebook: Path, given: dict, out_dir: Path) -> Path:
    """Execute with papermill, in the repository's root; returns the executed copy below ``out_dir``."""
    import papermill

    out_dir.mkdir(parents=True, exist_ok=True)
    output = out_dir / f"{notebook.stem}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.ipynb"
    papermill.execute_notebook(
        str(notebook), str(output), parameters=given, cwd=str(ROOT), kernel_name="python3", language="python",
        log_output=True, progress_bar=True, stdout_file=sys.stdout, stderr_file=sys.stderr,
    )  # fmt: skip
    return output


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make full NB=...", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    options = parser.parse_args(arguments)
    if not options.notebook.is_file():
        print(f"full: there is no notebook {options.notebook}", file=sys.stderr)
        return 2
    try:
        given = read_parameters(options.notebook, dict(options.parameters))
    except ValueError as error:
        print(f"full: {error}", file=sys.stderr)
        return 2
    os.environ.setdefault("CDIM_PROFILE", "full")
    print(
        f"Running {options.notebook} in the {os.environ['CDIM_PROFILE']} profile with {given or 'its own parameters'}"
    )
    print(f"The executed notebook: {run(options.notebook, given, options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
