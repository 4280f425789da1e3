"""Benchmarks: ``load(name, root=None)`` gives train, query and gallery, whatever the source."""

from .benchmark import PHOTO, SKETCH, Benchmark, Split, pool, to_judge
from .paths import DataNotFound
from .registry import at_hand, load, load_words, names, option, words_of

__all__ = ["PHOTO", "SKETCH", "Benchmark", "DataNotFound", "Split", "at_hand", "load", "load_words", "names",
           "option", "pool", "to_judge", "words_of"]
