"""Where data lies: ``root=`` first, then the folder named by ``CDIM_DATA``, then the cache."""

from __future__ import annotations

import os
from pathlib import Path


class DataNotFound(FileNotFoundError):
    """Data that the user has to supply is not where it was looked for."""


def cache_dir() -> Path:
    """``CDIM_CACHE``, or ``~/.cache/cdimlib``: where downloads are kept."""
    return Path(os.environ.get("CDIM_CACHE") or Path.home() / ".cache" / "cdimlib").expanduser()


def find_root(name: str, folders: tuple[str, ...], root: str | Path | None, *, mend: str) -> Path:
    """The first folder that holds one of ``folders``, looked for below ``root``, ``CDIM_DATA`` and the cache.

    root: if given, only this folder is looked at (itself or a folder in it).
    mend: what to say when nothing is found.
    """
    tried = []
    if root is not None:
        places = [Path(root).expanduser()]
    else:
        places = [Path(os.environ["CDIM_DATA"]).expanduser()] if os.environ.get("CDIM_DATA") else []
        places.append(cache_dir())
    for place in places:
        for candidate in [place / folder for folder in folders] + ([place] if root is not None else []):
            tried.append(str(candidate))
            if candidate.is_dir():
                return candidate
    raise DataNotFound(f"{name}: no data found. Looked at: {'; '.join(tried)}. {mend}")
