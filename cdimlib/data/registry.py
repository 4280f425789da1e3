"""The names that :func:`load` knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from . import people, qmul, table, toyshop, toytown
from .benchmark import Benchmark, pool
from .paths import DataNotFound, find_root


def names() -> list[str]:
    """Every name that :func:`load` accepts, besides ``table:<path of a CSV file>``."""
    return sorted([
        "qmul", *(f"qmul/{c}" for c in qmul.CATEGORIES), "toy-shop", *(f"toy-shop/{c}" for c in toyshop.CATEGORIES),
        *people.NAMES, *(f"toytown-{town}" for town in toytown.PLACES),
    ])


def words_of(text: str) -> tuple[str, list[str]]:
    """A benchmark as it is written in a notebook's parameter -> its name, and the words behind it (options, "plain").

    The path of a table may hold blanks.
    """
    name, *words = text.split(" ") if text.startswith("table:") else text.split()
    while words and text.startswith("table:") and words[0] != "plain" and "=" not in words[0]:
        name += " " + words.pop(0)
    return name, [word for word in words if word]


def option(word: str) -> tuple[str, bool | int | float | str]:
    """An option of :func:`load` as it is written in a notebook's parameter: "misalignment=1" -> ("misalignment", 1).

    "true" and "false" are truth values, however they are written.
    """
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise ValueError(f"{word!r} is not an option like misalignment=1: separate benchmarks as the notebook says")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def load(name: str, root: str | Path | None = None, **options) -> Benchmark:
    """A benchmark by its name: train, query and gallery, with identities and domains.

    name: one of :func:`names`:

        - ``"toy-shop"`` (shoes, chairs and handbags pooled) or ``"toy-shop/shoes"`` and so on: drawn by the library,
          nothing to download. Options: ``size`` ("tiny", "demo", "full"; by default that of the profile) and the
          knobs of :class:`cdimlib.data.toyshop.ToyShop` (``pixels``, ``seed``, ``distortion``, ``lookalikes``, ...).
        - ``"toytown-plaza"``, ``"toytown-campus"``: people before the cameras of two towns, drawn by the library, uint8
          [N, 3, H, W]. Options: ``size`` and the knobs of :class:`cdimlib.data.toytown.ToyTown`.
        - ``"qmul"`` or ``"qmul/shoes"`` and so on: the QMUL database of sketches and edge maps, uint8
          [N, 1, 256, 256]. No options.
        - people, uint8 [N, 3, H, W], from your own copy (:mod:`cdimlib.data.people`). Options: ``pixels`` (height,
          width), ``verbose`` and what is named here. ``"market1501"``: ``official_offsets`` (times as published code
          counts them), ``multi_query``; ``"dukemtmc-reid"``; ``"msmt17"``; ``"randperson"`` (to train on only);
          ``"cuhk03-np"`` (detected boxes) and ``"cuhk03-np/labeled"``; the raw file ``"cuhk03"`` and
          ``"cuhk03/labeled"``: ``protocol`` ("classic", "new"), ``split`` (0 to 19), ``validation`` (identities kept
          out of training); ``"cuhk01"``: ``split`` (0 to 9), ``test`` (identities); ``"viper"``: ``split``,
          ``direction`` ("a->b" or "b->a").
        - ``"table:<path>"``: your own images, listed in a CSV file (:mod:`cdimlib.data.table`). Options: ``size``
          (a number for squares, or (height, width)), ``channels``, ``verbose``; or, as for people, ``pixels`` (height,
          width), in colour.

    root: where the data lies. By default the folder that ``CDIM_DATA`` names is looked at, then the cache; for a table,
    the folder of the CSV file. Toy worlds need none.

    Raises ValueError for an unknown name or option (and lists the choices), DataNotFound where files are missing.
    """
    if name.startswith("table:"):
        _only(name, options, ("size", "channels", "verbose", "pixels"))
        if "pixels" in options:
            if "size" in options:
                raise ValueError(f"{name!r}: give size or pixels, not both; they say the same")
            options = {"channels": 3, "size": options.pop("pixels"), **options}
        return table.load(name.removeprefix("table:"), root, **options)
    _known(name)
    source, _, category = name.partition("/")
    if source == "toy-shop":
        return toyshop.load_toyshop(category or None, **options)
    if source.startswith("toytown-"):
        return toytown.load_toytown(name, **options)
    if name in people.NAMES:
        _only(name, options, ("pixels", "verbose", *people.SETS[source].options))
        return people.load_people(name, root, **options)
    _only(name, options, ())
    if not category:
        return pool("qmul", [qmul.load_category(c, root) for c in qmul.CATEGORIES])
    return qmul.load_category(category, root)


def load_words(text: str, root: str | Path | None = None, **usual) -> Benchmark:
    """What a name with options behind it stands for ("toytown-plaza misalignment=1"), called by these very words.

    usual: options of :func:`load` that the text may override; ``size`` is for toy worlds alone, None is the profile's.
    """
    name, words = words_of(text)
    if not (usual.get("size") and name.startswith("toy")):
        usual.pop("size", None)
    return replace(load(name, root, **usual | dict(option(word) for word in words if word != "plain")), name=text)


def at_hand(name: str, root: str | Path | None = None) -> bool:
    """Whether :func:`load` would find the files of a benchmark: always so for toy worlds. Nothing is read or counted.

    Raises ValueError for an unknown name.
    """
    if name.startswith("table:"):
        return Path(name.removeprefix("table:")).is_file()
    _known(name)
    source, _, category = name.partition("/")
    try:
        if source in people.SETS:
            return people.home(name, root).is_dir()
        base = find_root(name, qmul.FOLDERS, root, mend="") if source == "qmul" else None
    except DataNotFound:
        return False
    needed = [Path(f) for f in qmul.SHA256 if base and f.startswith(category)]
    return all((base / f).is_file() or (base / f.name).is_file() for f in needed)


def _known(name: str) -> None:
    if name not in names():
        raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(names())}, or table:<path of a CSV file>")


def _only(name: str, options: dict, allowed: tuple[str, ...]) -> None:
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        choices = f"choose from {', '.join(allowed)}" if allowed else "it takes none"
        raise ValueError(f"unknown option {', '.join(unknown)} of benchmark {name!r}: {choices}")
