"""Bring up to date what follows from the results (`make index`): data/results/INDEX.json, GRID.json (what is left of
the grid, for the report card), and the table in the README."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]

import grid  # noqa: E402

from cdimlib import report  # noqa: E402

NAMES = {
    "midlevel-fusion": "The Devil is in the Middle",
    "feature-mask-network": "Feature Mask Network",
    "multilevel-similarity": "Multi-level similarity",
    "qaconv-tlift": "QAConv and TLift",
}
BLOCK = re.compile(r"(<!-- results: made by `make index` -->\n).*?(<!-- end of results -->)", re.DOTALL)


def table() -> str:
    """The README's table of what was measured, in Markdown."""
    frame = report.summary()
    lines = ["| paper | tables: on its data / stand-in / partly / not run | claims: hold / open / reversed / not run |",
             "|---|---|---|"]  # fmt: skip
    for paper, row in frame.iterrows():
        own = row["tables", "on its data"] + row["tables", "computed"]
        tables = [own, *(row["tables", name] for name in ("on a stand-in", "partly", "not run"))]
        said = [row["claims", name] for name in report.VERDICTS]
        lines.append(f"| {NAMES[paper]} | {' / '.join(map(str, tables))} | {' / '.join(map(str, said))} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The README with a fresh table; ValueError where its marks are gone."""
    if not BLOCK.search(text):
        raise ValueError("README.md has lost the two comments between which the table of results stands: restore them")
    return BLOCK.sub(lambda match: match[1] + table() + match[2], text)


def left() -> str:
    """The text of data/results/GRID.json."""
    return report.line_by_line(grid.standing(grid.all_jobs()))


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf8")), encoding="utf8")
    (ROOT / "data" / "results" / "GRID.json").write_text(left(), encoding="utf8")
    print(f"wrote {report.write_index()} and the table in {readme}")
