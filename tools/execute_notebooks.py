"""Execute the book's notebooks side by side, one thread each, into the cache that Jupyter Book renders from.

Jupyter Book itself executes one page after the other, and most cells here cannot use a second core well. What fails is
left to Jupyter Book, which executes it again and says what is wrong in its usual way.
"""

from __future__ import annotations

import fnmatch
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
from jupyter_cache.executors.utils import single_nb_execution


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def notebooks(root: Path, config: dict) -> list[Path]:
    """The notebooks of the table of contents that are executed, largest file first: it is often the longest to run."""
    excluded = config.get("execute", {}).get("exclude_patterns", [])
    names = [f"{name.removesuffix('.ipynb')}.ipynb" for name in toc_entries(root)]
    names = [n for n in names if (root / n).is_file() and not any(fnmatch.fnmatch(n, pattern) for pattern in excluded)]
    return sorted((root / n for n in names), key=lambda path: -path.stat().st_size)


def execute(root: Path, out: Path, environment: dict[str, str], jobs: int | None = None) -> list[Path]:
    """Execute what the cache below ``out`` does not hold yet -> the notebooks that failed."""
    config = yaml.safe_load((root / "_config.yml").read_text()) or {}
    settings, cache, lock = config.get("execute", {}), get_cache(str(out / "_build" / ".jupyter_cache")), Lock()
    jobs = jobs or min(4, cores())
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
        result = single_nb_execution(notebook, cwd=str(path.parent), timeout=settings.get("timeout", 30),
                                     allow_errors=settings.get("allow_errors", False))
        if result.err is not None:
            failed.append(path)
            return f"{path.relative_to(root)}: FAILED after {time.time() - started:.0f} s"
        with lock:
            cache.cache_notebook_bundle(CacheBundleIn(notebook, str(path), data={"execution_seconds": result.time}),
                                        check_validity=False, overwrite=True)
        return f"{path.relative_to(root)}: executed in {result.time:.0f} s"

    # A kernel takes its environment from this process.
    with patch.dict(os.environ, environment, clear=True), ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(one, path) for path in notebooks(root, config)]
        for number, done in enumerate(as_completed(waiting), start=1):
            print(f"[{number}/{len(waiting)}] {done.result()}", flush=True)
    return failed
