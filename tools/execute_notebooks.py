"""Execute the book's notebooks side by side, one thread each, into the cache that Jupyter Book renders from.

Jupyter Book itself executes one page after the other, and most cells here cannot use a second core well. What fails is
left to Jupyter Book, which executes it again and says what is wrong in its usual way. The cache keeps the seconds and
the peak memory of every page.
"""

from __future__ import annotations

import fnmatch
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock
from unittest.mock import patch

import nbformat
import yaml
from book_checks import toc_entries
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

COSTS = Path("data/results/PAGES.json")  # seconds and memory of every page, written by `make costs`


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side() -> int:
    """How many notebooks are executed at a time."""
    return min(4, cores())


def longest_first(root: Path, paths: list[Path]) -> list[Path]:
    """Notebooks, the longest to run first, so that none is left alone at the end; those that have not been measured are
    taken by the size of their files, before the others."""
    costs = json.loads((root / COSTS).read_text(encoding="utf8"))["pages"] if (root / COSTS).is_file() else {}
    seconds = {root / name: cost["seconds"] for name, cost in costs.items() if "seconds" in cost}
    return sorted(paths, key=lambda path: (-seconds.get(path, float("inf")), -path.stat().st_size))


def notebooks(root: Path, config: dict) -> list[Path]:
    """The notebooks of the table of contents that are executed, the longest to run first."""
    excluded = config.get("execute", {}).get("exclude_patterns", [])
    names = [f"{name.removesuffix('.ipynb')}.ipynb" for name in toc_entries(root)]
    names = [n for n in names if (root / n).is_file() and not any(fnmatch.fnmatch(n, pattern) for pattern in excluded)]
    return longest_first(root, [root / name for name in names])


def without_backend(environment) -> dict[str, str]:
    """An environment for kernels: one draws into the page only where MPLBACKEND is not set."""
    return {name: value for name, value in environment.items() if name != "MPLBACKEND"}


def open_cache(out: Path):
    """The cache that a book built below ``out`` is rendered from."""
    return get_cache(str(out / "_build" / ".jupyter_cache"))


def keep(cache, path: Path, notebook, seconds: float, peak: float | None = None) -> None:
    """Put an executed notebook into the cache, with its seconds and the peak memory of its kernel in MiB."""
    data = {"execution_seconds": seconds, "peak_memory_mib": peak}
    cache.cache_notebook_bundle(CacheBundleIn(notebook, str(path), data=data), check_validity=False, overwrite=True)


def peak_memory(process: int) -> float | None:
    """The most memory that a process has held so far, in MiB; None where the system does not say (not on Linux)."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


class Execution(NotebookClient):
    """Executes a notebook in place, whose cells stay as the cache knows them (without times), and whose kernel only
    reports errors; then ``peak`` is the peak memory of its kernel in MiB."""

    peak: float | None = None

    def __init__(self, notebook, folder: Path, **options):
        super().__init__(notebook, resources={"metadata": {"path": folder}}, record_timing=False,
                         extra_arguments=["--log-level=ERROR"], **options)

    async def async_execute_cell(self, *arguments, **options):
        done = await super().async_execute_cell(*arguments, **options)
        self.peak = peak_memory(self.km.provisioner.pid) or self.peak
        return done


def execute(root: Path, out: Path, environment: dict[str, str], jobs: int | None = None) -> list[Path]:
    """Execute what the cache below ``out`` does not hold yet -> the notebooks that failed."""
    config = yaml.safe_load((root / "_config.yml").read_text()) or {}
    settings, cache, lock = config.get("execute", {}), open_cache(out), Lock()
    jobs = jobs or side_by_side()
    environment = {**environment, "OMP_NUM_THREADS": str(max(1, cores() // jobs))}
    failed = []

    def one(path: Path) -> str:
        notebook, started = nbformat.read(path, as_version=4), time.time()
        with lock:
            try:
                cache.match_cache_notebook(notebook)
                return f"{path.relative_to(root)}: unchanged"
            except KeyError:
                pass
        client = Execution(notebook, path.parent, timeout=settings.get("timeout", 30),
                           allow_errors=settings.get("allow_errors", False))
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError):
            failed.append(path)
            return f"{path.relative_to(root)}: FAILED after {time.time() - started:.0f} s"
        seconds = time.time() - started
        with lock:
            keep(cache, path, notebook, seconds, client.peak)
        used = f", {client.peak / 1024:.1f} GiB" if client.peak else ""
        return f"{path.relative_to(root)}: executed in {seconds:.0f} s{used}"

    # A kernel takes its environment from this process.
    with patch.dict(os.environ, environment, clear=True), ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(one, path) for path in notebooks(root, config)]
        for number, done in enumerate(as_completed(waiting), start=1):
            print(f"[{number}/{len(waiting)}] {done.result()}", flush=True)
    return failed
