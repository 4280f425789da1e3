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
WORDS = {"holds": "hold", "open": "are open", "reversed": "are reversed", "not run": "were not run"}
BLOCK = re.compile(r"(<!-- results: made by `make index` -->\n).*?(<!-- end of results -->)", re.DOTALL)


def table() -> str:
    """The README's table of what was measured, in Markdown: of each paper its first claim, and what became of all."""
    claims, counts = report.claims(), report.summary().sum()
    told, lines = set(), ["| claim | measured on | paper's gain | our gain, 95 % interval |", "|---|---|---|---|"]
    first = claims[claims["claim"].isin(claims.groupby("paper", sort=False)["claim"].first())]
    for _, one in report.measured_once(first).iterrows():
        where = one["data"] or one["asked"]
        where += f", for {one['asked']}" if not where.startswith(one["asked"]) else ""
        ours = f"{one['ours']:+.1f} [{one['low']:+.1f}, {one['high']:+.1f}]" if one["seeds"] else "not run"
        ours += f" ({one['seeds']} of {report.SEEDS} seeds)" if 0 < one["seeds"] < report.SEEDS else ""
        claim = "" if one["claim"] in told else f"{NAMES[one['paper']]}: {one['claim'].lower()}"
        told.add(one["claim"])
        lines.append(f"| {claim} | {where} | {one['printed']:+.1f} | {ours} |")
    said = ", ".join(f"{counts['claims', name]} {words}" for name, words in WORDS.items())
    names = ("on its data", "computed", "on a stand-in", "partly", "not run")
    done = ", ".join(f"{counts['tables', name]} {name.replace('its', 'their')}" for name in names)
    return "\n".join(lines) + f"\n\nAll comparisons that the papers claim: {said}. Their tables: {done}.\n"


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
