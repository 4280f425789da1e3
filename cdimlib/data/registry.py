"""The names that :func:`load` knows."""

from __future__ import annotations

from pathlib import Path

from . import qmul
from .benchmark import Benchmark, pool


def names() -> list[str]:
    """Every name that :func:`load` accepts."""
    return sorted(["qmul", *(f"qmul/{c}" for c in qmul.CATEGORIES)])


def load(name: str, root: str | Path | None = None, **options) -> Benchmark:
    if name == "qmul":
        return pool("qmul", [qmul.load_category(c, root) for c in qmul.CATEGORIES])
    if name.startswith("qmul/"):
        return qmul.load_category(name.split("/")[1], root)
    raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(names())}")
