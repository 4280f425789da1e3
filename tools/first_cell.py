"""The first code cell of every notebook, kept in this one place, and the repository's address that it needs."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TEMPLATE = """\
# The same first cell opens every notebook: it installs this library if it is missing, and nothing else.
try:
    import cdimlib
except ImportError:
    %pip install --quiet --no-deps "git+{url}"
    import cdimlib
device = cdimlib.start(seed=0)"""


def repository(root: Path = ROOT) -> str:
    """The repository's address: [project.urls] Repository in pyproject.toml, the only place that decides it."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]["urls"]["Repository"]


def first_cell(url: str) -> str:
    """The source of the first code cell for a repository at ``url``."""
    return TEMPLATE.format(url=url)


if __name__ == "__main__":
    print(first_cell(repository()))
