"""Execute notebooks by nbval, several side by side with one thread each: ``make test-notebooks``.

Every notebook is a pytest run of its own. Of a sound one the last line is shown, of a failing one everything. With
``--book OUT`` the outputs of the book's own pages are kept for ``make smoke-book``, which then only renders them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from build_book import ROOT, cache_key, drop_stale
from execute_notebooks import cores, keep, longest_first, open_cache, side_by_side, without_backend

NOTHING_COLLECTED = 5


def check(notebook: Path, options: list[str], threads: int, kept: Path) -> tuple[int, str, float]:
    """One notebook -> the exit status of its pytest run, what it printed, seconds; a sound one is written to ``kept``
    with its outputs. A copy runs, in a folder of its own beside ``kept``: what it writes is never among the user's."""
    copy = kept.with_suffix("") / notebook.name
    copy.parent.mkdir()
    shutil.copyfile(notebook, copy)
    command = [sys.executable, "-m", "pytest", "-p", "nbval.plugin", "--nbval-lax", "--nbval-current-env",
               "-p", "no:cacheprovider", "-p", "keep_outputs", f"--keep-outputs={kept}"]
    tools = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**without_backend(os.environ), "OMP_NUM_THREADS": str(threads), "PYTHONPATH": tools,
                   "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # a second less for every notebook
    started = time.time()
    done = subprocess.run([*command, *options, str(copy)], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, time.time() - started


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell")
    parser.add_argument("--jobs", type=int, default=side_by_side(), help="notebooks at a time")
    parser.add_argument("--book", type=Path, metavar="OUT", help="keep the outputs for the book that is rendered there")
    given = parser.parse_args(arguments)
    if gone := [str(path) for path in given.notebooks if not path.is_file()]:
        parser.error(f"there is no {', '.join(gone)}")
    if given.book:
        drop_stale(given.book.resolve(), cache_key(ROOT, os.environ.get("CDIM_PROFILE", "demo")))
        cache = open_cache(given.book.resolve())
    options, threads, bad = [f"--nbval-cell-timeout={given.timeout}"], max(1, cores() // given.jobs), []
    with ThreadPoolExecutor(given.jobs) as pool, tempfile.TemporaryDirectory() as scratch:
        waiting = {}
        names = {path.resolve(): path for path in given.notebooks}
        for number, path in enumerate(longest_first(ROOT, list(names))):
            kept = Path(scratch, f"{number}.ipynb")
            waiting[pool.submit(check, path, options, threads, kept)] = path, kept
        for number, done in enumerate(as_completed(waiting), start=1):
            (status, said, seconds), (path, kept) = done.result(), waiting[done]
            line = said.strip().splitlines()[-1].strip("= ") if said.strip() else ""
            print(f"[{number}/{len(waiting)}] {names[path]}: {line}", flush=True)
            if status == NOTHING_COLLECTED:
                print(f"{names[path]} has no code cell", flush=True)
            elif status:
                bad.append(str(names[path]))
                print(said, flush=True)
            elif given.book:
                keep(cache, path, nbformat.read(kept, as_version=4), seconds)
    print(f"{len(waiting) - len(bad)} of {len(waiting)} notebooks run" + "".join(f"\nFAILED {name}" for name in bad))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
