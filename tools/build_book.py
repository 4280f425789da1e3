"""Execute and render the book, with warnings as errors: ``make book``.

Jupyter Book's execution cache looks at the notebook alone, so a page would keep its old numbers after the library or
the data changed. The cache here lies under a key of everything else that a page depends on; when the key changes,
everything is executed again, several notebooks side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import execute_notebooks

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ("cdimlib", "data/papers", "data/results", "pyproject.toml", "constraints.txt", "_config.yml")


def input_files(root: Path) -> list[Path]:
    """Every file, notebooks aside, on which the contents of a page depend."""
    found = []
    for name in INPUTS:
        path = root / name
        found += [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [p for p in found if "__pycache__" not in p.parts]


def cache_key(root: Path, profile: str) -> str:
    """A hash of library, data, settings, environment and profile."""
    digest = hashlib.sha256()
    for path in input_files(root):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    # Where real data lies decides which figures a page draws.
    digest.update(repr((profile, sys.version, os.environ.get("CDIM_DATA"), os.environ.get("CDIM_CACHE"))).encode())
    return digest.hexdigest()[:16]


def drop_stale(out: Path, key: str) -> bool:
    """Remove what an earlier build left if its key was another one; True if the old build can be continued."""
    stamp = out / "_build" / "inputs.key"
    current = stamp.is_file() and stamp.read_text() == key
    if not current:
        for name in (".jupyter_cache", ".doctrees", "html", "jupyter_execute"):
            shutil.rmtree(out / "_build" / name, ignore_errors=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(key)
    return current


def heartbeat(started: float, done: threading.Event) -> None:
    """A line every half minute, so that a long cell does not look like a hang."""
    while not done.wait(30):
        print(f"... still at work after {time.time() - started:.0f} s", flush=True)


def build(root: Path, out: Path, profile: str) -> int:
    """Run jupyter-book; returns its exit status, which is not 0 after any warning or failing cell."""
    current = drop_stale(out, cache_key(root, profile))
    print(f"Building the book in the {profile} profile" + ("" if current else ": every page is executed"), flush=True)
    environment = {**execute_notebooks.without_backend(os.environ), "CDIM_PROFILE": profile, "PYTHONUNBUFFERED": "1"}
    program = "from jupyter_book.cli.main import main; main()"  # the package has no __main__
    command = [sys.executable, "-c", program, "build", str(root), "--path-output", str(out), "-W", "--keep-going"]
    started, done = time.time(), threading.Event()
    threading.Thread(target=heartbeat, args=(started, done), daemon=True).start()
    try:
        execute_notebooks.execute(root, out, environment)
        status = subprocess.run(command, env=environment, cwd=root).returncode
    finally:
        done.set()
    if status:
        # A page whose cell failed must be read again the next time, although the notebook has not changed.
        shutil.rmtree(out / "_build" / ".doctrees", ignore_errors=True)
        print(f"\nThe book was NOT built (exit status {status}): see the warnings above.", file=sys.stderr)
        reports = sorted((out / "_build" / "html" / "reports").rglob("*.log"))
        for report in reports:
            print(f"\n--- {report}\n{report.read_text(encoding='utf8')[-3000:]}", file=sys.stderr)
        return status
    print(f"\nThe book is ready after {time.time() - started:.0f} s. Open {out / '_build' / 'html' / 'index.html'}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="demo", choices=("smoke", "demo", "full"))
    parser.add_argument("--out", type=Path, default=ROOT, help="the book is rendered to OUT/_build/html")
    options = parser.parse_args()
    return build(ROOT, options.out.resolve(), options.profile)


if __name__ == "__main__":
    sys.exit(main())
