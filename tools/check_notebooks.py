"""Execute notebooks by nbval, several side by side with one thread each: ``make test-notebooks``.

Every notebook is a pytest run of its own. Of a sound one the last line is shown, of a failing one everything.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from execute_notebooks import cores

NOTHING_COLLECTED = 5


def check(notebook: Path, options: list[str], threads: int) -> tuple[int, str]:
    """One notebook -> the exit status of its pytest run, what it printed."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*command, *options, str(notebook)], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell")
    parser.add_argument("--jobs", type=int, default=min(4, cores()), help="notebooks at a time")
    given = parser.parse_args(arguments)
    if gone := [str(path) for path in given.notebooks if not path.is_file()]:
        parser.error(f"there is no {', '.join(gone)}")
    options, threads, bad = [f"--nbval-cell-timeout={given.timeout}"], max(1, cores() // given.jobs), []
    largest_first = sorted(given.notebooks, key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(given.jobs) as pool:
        waiting = {pool.submit(check, notebook, options, threads): notebook for notebook in largest_first}
        for number, done in enumerate(as_completed(waiting), start=1):
            status, said = done.result()
            line = said.strip().splitlines()[-1].strip("= ") if said.strip() else ""
            print(f"[{number}/{len(waiting)}] {waiting[done]}: {line}", flush=True)
            if status == NOTHING_COLLECTED:
                print(f"{waiting[done]} has no code cell", flush=True)
            elif status:
                bad.append(str(waiting[done]))
                print(said, flush=True)
    print(f"{len(waiting) - len(bad)} of {len(waiting)} notebooks run" + "".join(f"\nFAILED {name}" for name in bad))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
