"""Benchmarks: ``load(name, root=None)`` gives train, query and gallery, whatever the source."""

from .benchmark import PHOTO, SKETCH, Benchmark, Split, pool
from .paths import DataNotFound
from .registry import load, names

__all__ = ["PHOTO", "SKETCH", "Benchmark", "DataNotFound", "Split", "load", "names", "pool"]
