"""The first code cell of every notebook, kept in this one place, and the address and release that it installs."""

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


def release(root: Path = ROOT) -> str:
    """The tag that the first cell installs: [tool.cdim] release in pyproject.toml, "" before the first release."""
    tools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8")).get("tool", {})
    return tools.get("cdim", {}).get("release", "")


def first_cell(url: str, tag: str = "") -> str:
    """The source of the first code cell for a repository at ``url``: it installs ``tag``, or the default branch."""
    return TEMPLATE.format(url=f"{url}@{tag}" if tag else url)


def canonical(root: Path = ROOT) -> str:
    """The first code cell as it has to stand in every notebook of a checkout."""
    return first_cell(repository(root), release(root))


if __name__ == "__main__":
    print(canonical())
