"""Seconds and memory of every page: ``make costs`` executes what ``make book`` does not hold, and writes them down.

data/results/PAGES.json gets what was measured; the sentence about memory behind every page's **Time** follows from it.
The pages of the book are measured by ``make book`` itself (:mod:`execute_notebooks`); the solutions of assignments, and
experiments with the parameters as they stand, are executed here, one thread each, two at a time. How long an experiment
takes depends on its parameters: of that each result tells. With names of notebooks, those alone are measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import yaml
from execute_notebooks import COSTS, Execution, cores, notebooks, open_cache

from cdimlib.training import save_atomically

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = "book/experiments/"
APART = ("book/assignments/solutions/*.ipynb", f"{EXPERIMENTS}*.ipynb")  # not executed by `make book`
TIME = re.compile(r"(?s)\*\*Time\*\*.*?(?=\n\n|\Z)")
MEMORY = re.compile(r"(?s)\s*\*\*Memory\*\*:.*\Z")


def from_cache(root: Path, out: Path) -> dict[str, dict]:
    """page -> seconds and MiB, of the pages in the cache of a book built below ``out``."""
    costs = {}
    for record in open_cache(out).list_cache_records():
        if record.data.get("peak_memory_mib"):
            name = Path(record.uri).resolve().relative_to(root).as_posix()
            costs[name] = _cost(record.data["execution_seconds"], record.data["peak_memory_mib"])
    return costs


def _cost(seconds: float, mebibytes: float) -> dict:
    return {"seconds": round(seconds), "peak_memory_mib": round(mebibytes)}


def executed(path: Path) -> dict:
    """Execute a notebook, keep nothing of it but its cost."""
    started = time.time()
    with tempfile.TemporaryDirectory() as empty:
        client = Execution(nbformat.read(path, as_version=4), empty, timeout=900)
        client.execute()
    return _cost(time.time() - started, client.peak)


def sentence(mebibytes: float, name: str = "") -> str:
    """What a page says about memory: a tenth more than measured, rounded up to half a gigabyte."""
    most = math.ceil(1.1 * mebibytes * 2**20 / 5e8) / 2
    if name.startswith(EXPERIMENTS):
        return f"**Memory**: as it stands, on toy data, under {most:g} GB on a CPU; larger runs need more."
    return f"**Memory**: under {most:g} GB on a CPU; a T4-class GPU (16 GB) has enough."


def measured_as(name: str) -> str:
    """The notebook whose cost a notebook states: of an assignment's three forms it is the solution."""
    folder, _, file = name.rpartition("/")
    if folder in ("book/assignments", "book/assignments/source"):
        return f"book/assignments/solutions/{file}"
    return name


def with_memory(text: str, said: str) -> str:
    """A cell's text with the sentence behind its **Time**."""
    return TIME.sub(lambda match: f"{MEMORY.sub('', match[0])}\n{said}", text, count=1)


def stated(root: Path, costs: dict[str, dict]) -> dict[Path, str]:
    """Every notebook that states its time -> its text as it should be."""
    found = {}
    for path in sorted((root / "book").rglob("*.ipynb")):
        name = path.relative_to(root).as_posix()
        cost, notebook = costs.get(measured_as(name)), json.loads(path.read_text(encoding="utf8"))
        texts = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        cell = next((cell for cell in texts if TIME.search("".join(cell["source"]))), None)
        if cell is not None and cost is not None:
            text = with_memory("".join(cell["source"]), sentence(cost["peak_memory_mib"], name))
            cell["source"] = text.splitlines(keepends=True) if isinstance(cell["source"], list) else text
            found[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return found


def write(costs: dict[str, dict]) -> None:
    """Keep what has been measured so far, and say it on the pages."""
    machine = f"{platform.system()} {platform.machine()}, {cores()} cores, a page on each"
    written = {"machine": machine, "profile": os.environ["CDIM_PROFILE"], "pages": dict(sorted(costs.items()))}
    for path, text in {ROOT / COSTS: json.dumps(written, indent=1) + "\n", **stated(ROOT, costs)}.items():
        save_atomically(path, lambda part, text=text: part.write_text(text, encoding="utf8"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="measure these alone, keep what is known of the others")
    apart = [path.resolve() for path in parser.parse_args(arguments).notebooks]
    os.environ.setdefault("CDIM_PROFILE", "demo")
    os.environ["OMP_NUM_THREADS"] = "1"
    if apart:
        costs = json.loads((ROOT / COSTS).read_text(encoding="utf8"))["pages"]
    elif costs := from_cache(ROOT, ROOT):
        pages = notebooks(ROOT, yaml.safe_load((ROOT / "_config.yml").read_text()))
        apart = [path for path in pages if path.relative_to(ROOT).as_posix() not in costs]
        apart += [path for pattern in APART for path in sorted(ROOT.glob(pattern))]
    else:
        print("There is no book yet: run 'make book' first", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(min(2, cores())) as pool:
        waiting = {pool.submit(executed, path): path.relative_to(ROOT).as_posix() for path in apart}
        for done in as_completed(waiting):
            name, cost = waiting[done], done.result()
            print(f"{name}: {cost['seconds']} s, {cost['peak_memory_mib']} MiB", flush=True)
            if name.startswith(EXPERIMENTS):
                del cost["seconds"]
            costs[name] = cost
            write(costs)
    write(costs)
    print(f"wrote {COSTS} and the pages' sentences about memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
