"""Set the version, and the tag that every first cell installs: ``make release VERSION=0.2.0``.

Before the first release the first cell of a notebook installs the default branch. Afterwards it installs the tag that
pyproject.toml names, so that a notebook opened years later meets the library it was written for.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from first_cell import ROOT, repository
from rehost import rehost

VERSION = re.compile(r"\d+\.\d+\.\d+")


def set_release(version: str, root: Path = ROOT) -> list[Path]:
    """Write the version into the library, CITATION.cff, pyproject.toml and the first cells; returns what changed."""
    library = root / "cdimlib" / "__init__.py"
    current = re.search(r'(?m)^__version__ = "(.*)"$', library.read_text(encoding="utf8"))[1]
    if not VERSION.fullmatch(version):
        raise ValueError(f"VERSION must look like 0.2.0, not {version!r}")
    if tuple(map(int, version.split("."))) < tuple(map(int, current.split("."))):
        raise ValueError(f"{version} is older than the library's {current}")
    lines = {
        library: (r'^__version__ = ".*"$', f'__version__ = "{version}"'),
        root / "pyproject.toml": (r'^release = ".*?"', f'release = "v{version}"'),
        root / "CITATION.cff": (r"^version: .*(\ndate-released: .*)?$",
                                f"version: {version}\ndate-released: {datetime.now(UTC).date()}"),
    }  # fmt: skip
    changed = []
    for path, (pattern, line) in lines.items():
        text = path.read_text(encoding="utf8")
        written, times = re.subn(f"(?m){pattern}", lambda match, line=line: line, text)
        if times != 1:
            raise ValueError(f"{path}: the line of the version was not found")
        if written != text:
            path.write_text(written, encoding="utf8")
            changed.append(path)
    return changed + rehost(repository(root), root)


def steps(version: str) -> str:
    """What is left to do by hand."""
    return (f"Now: make test; git commit -am 'Release {version}'; git tag v{version}; git push origin HEAD v{version}\n"
            "Until the tag is pushed, no notebook opened in Colab can install the library.")  # fmt: skip


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: make release VERSION=0.2.0", file=sys.stderr)
        return 2
    try:
        changed = set_release(sys.argv[1])
    except ValueError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    print(f"{len(changed)} files changed. {steps(sys.argv[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
