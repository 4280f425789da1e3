"""Train an experiment on several GPUs or machines, with its notebook's own parameters, and write its JSON as usual:

torchrun --nproc-per-node 2 tools/train_distributed.py book/experiments/qaconv_transfer.ipynb -p rows qaconv

The notebook's cells run as they are, from its parameters to the one that calls ``run_grid``. Afterwards
``make full NB=...`` with the same parameters finds the results, trains nothing, and draws the curves and tables.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import nbformat
from run_notebook import ROOT, read_parameters

from cdimlib import distributed, start
from cdimlib.people_experiments import PersonRun
from cdimlib.qaconv_experiments import MatchRun


def train(notebook: Path, given: dict) -> list[dict]:
    """Run the cells; the new results. ValueError for an experiment that knows one process only."""
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    first = next(n for n, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    last = next((n for n, cell in enumerate(cells) if "run_grid(plan" in cell.source), None)
    if last is None:
        raise ValueError(f"{notebook} has no cell that calls run_grid(plan, ...): there is no training to share")
    names = {"device": start(seed=0)}
    for n in range(first, last + 1):
        if n == last and not all(isinstance(run, PersonRun | MatchRun) for run in names["plan"]):
            raise ValueError(f"{notebook} trains in one process only: use make full NB={notebook}")
        exec(compile(cells[n].source, str(notebook), "exec"), names)
        names |= given if n == first else {}
    return names["done"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="torchrun tools/train_distributed.py", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args(arguments)
    quiet = open(os.devnull, "w") if os.environ.get("RANK", "0") != "0" else None  # noqa: SIM115
    with redirect_stdout(quiet) if quiet else nullcontext():
        try:
            if not options.notebook.is_file():
                raise ValueError(f"there is no notebook {options.notebook}")
            notebook, given = options.notebook.resolve(), read_parameters(options.notebook, dict(options.parameters))
            os.environ.setdefault("CDIM_PROFILE", "full")
            os.chdir(ROOT)
            with distributed.group():
                print(f"{distributed.size()} process(es), profile {os.environ['CDIM_PROFILE']}, {given or 'as is'}")
                done = train(notebook, given)
                print(len(done), "new results")
        except ValueError as error:
            where = f" (process {os.environ['RANK']})" if quiet else ""
            print(f"train_distributed{where}: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
