"""The equation map: ``python tools/equations.py`` writes book/appendix/equations.md, ``--check`` compares it.

data/papers/equations.csv lists every numbered equation of the four papers. Its key, for instance "QAConv, Eq. (1)",
ends the docstring of the function that implements it, stands in the docstring of a test, and follows, in a chapter, the
labelled formula that states it. A missing place, a key that no paper has, an errata row that does not exist are faults.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST, PAGE = Path("data/papers/equations.csv"), Path("book/appendix/equations.md")
#: paper -> its name in keys, its cite key
PAPERS = {"midlevel-fusion": ("Midlevel-fusion", "yu2017devil"), "qaconv-tlift": ("QAConv", "liao2019interpretable"),
          "feature-mask-network": ("Feature-mask-network", "ding2017features"),
          "multilevel-similarity": ("Multilevel-similarity", "guo2018efficient")}  # fmt: skip
KEY = re.compile(rf"\b({'|'.join(name for name, _ in PAPERS.values())}),(?: Sec\. [\d.]+,)? Eq\. (\(\d+\)"
                 r"(?:(?:,| and) \(\d+\))*)", re.IGNORECASE)  # fmt: skip
LAST = re.compile(rf"(?:{KEY.pattern}(?:, Sec\. [\d.]*\d)?(?:; |\.?$))+$", re.IGNORECASE)
LABEL = re.compile(r"(?m)^\$\$[ \t]*\(([^)\s]+)\)")
SAID = {name.lower(): paper for paper, (name, _) in PAPERS.items()}  # name in a key -> paper
COLUMNS = "| Eq. | what it is | stated in | computed by | tested by | deviation |\n|---|---|---|---|---|---|\n"
HEAD = """\
<!-- Made by tools/equations.py from data/papers/equations.csv, docstrings and chapters: do not edit. -->
# Equation map

Every numbered equation of the four papers: where the book states it, what computes it, what tests it, and where we
deviate from the print. In the code a key such as "QAConv, Eq. (1)" ends the docstring of the function that implements
the equation, and stands in the docstring of its test. The numbers under *stated in* are this book's.
{doc}`errata` gives the reasons for every deviation, in the row named in brackets.
"""


def listed(root: Path) -> dict[tuple[str, int], dict]:
    """(paper, number) -> the line of the list."""
    with open(root / LIST, encoding="utf8", newline="") as file:
        return {(line["paper"], int(line["number"])): line for line in csv.DictReader(file)}


def keys(text: str) -> list[tuple[str, int]]:
    """The equations that a text names by their keys."""
    found = KEY.findall(" ".join(text.split()))
    return [(SAID[name.lower()], int(n)) for name, numbers in found for n in re.findall(r"\d+", numbers)]


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of every function, class and method of a file."""
    queue = [("", ast.parse(path.read_text(encoding="utf8")))]
    for above, node in queue:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield f"{above}{child.name}", " ".join((ast.get_docstring(child) or "").split())
                queue.append((f"{above}{child.name}.", child))


def functions(root: Path) -> Iterator[tuple[tuple[str, int], str]]:
    """Equation and the full name of what implements it."""
    for path in sorted((root / "cdimlib").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for name, text in documented(path):
            last = LAST.search(text)
            yield from ((equation, f"{module}.{name}") for equation in keys(last[0] if last else ""))


def tests(root: Path) -> Iterator[tuple[tuple[str, int], str]]:
    """Equation and the address, below tests/, of what tests it."""
    for path in sorted((root / "tests").glob("test_*.py")):
        for name, text in documented(path):
            if name.split(".")[-1].lower().startswith("test"):
                yield from ((equation, f"{path.name}::{name.replace('.', '::')}") for equation in keys(text))


def statements(root: Path) -> Iterator[tuple[tuple[str, int], tuple[str, str, str] | str]]:
    """Equation and (page, section, label) of the formula before its key; a text says what is wrong."""
    chapters = [p for p in (root / "book").glob("*/*.ipynb") if p.parent.name not in ("assignments", "experiments")]
    for path in sorted(chapters):
        page, section = str(path.relative_to(root / "book").with_suffix("")), ""
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
            label, text = None, "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
            for part in re.split(r"(?m)(^#+ .*$|^\$\$[ \t]*\([^)\s]+\))", text):
                if part.startswith("#"):
                    section, label = part.lstrip("# "), None
                label = LABEL.match(part)[1] if LABEL.match(part) else label
                place = (page, section, label) if label else f"{path.name}: no labelled formula before its key"
                yield from ((equation, place) for equation in keys(part))


def gather(root: Path) -> tuple[dict, list[str]]:
    """(paper, number) -> {"page", "function", "test"} -> places; and the faults."""
    equations, places, faults = listed(root), defaultdict(lambda: defaultdict(list)), []
    for kind, found in (("page", statements(root)), ("function", functions(root)), ("test", tests(root))):
        for equation, place in found:
            if isinstance(place, str) and kind == "page":
                faults.append(place)
            elif equation not in equations:
                faults.append(f"{place}: {PAPERS[equation[0]][0]} has no Eq. ({equation[1]}) in {LIST}")
            elif place not in places[equation][kind]:
                places[equation][kind].append(place)
    for (paper, number), line in equations.items():
        name, rows = f"{PAPERS[paper][0]}, Eq. ({number})", errata(root, paper)
        at, named = places[paper, number], filter(None, line["errata"].split("; "))
        faults += [f"{name}: no {kind} carries its key" for kind in ("page", "function", "test") if not at[kind]]
        faults += [f"{name}: the errata have no row {place!r}" for place in named if place not in rows]
    return places, faults


def errata(root: Path, paper: str) -> set[str]:
    """The places that the errata name for a paper: the first column of its tables."""
    parts = re.split(r"(?m)^## (.+)$", (root / "book/appendix/errata.md").read_text(encoding="utf8"))
    text = dict(zip(parts[1::2], parts[2::2], strict=True)).get(paper.capitalize(), "")
    return {line.split(" | ")[0].lstrip("| ") for line in text.splitlines() if line.startswith("| ")}


def page(root: Path, places: dict) -> str:
    """The generated page."""
    text = HEAD
    for name, cite in (PAPERS[paper] for paper in dict.fromkeys(paper for paper, _ in listed(root))):
        text += f"\n## {name}\n\n{{cite:t}}`{cite}`.\n\n{COLUMNS}"
        for (paper, number), line in listed(root).items():
            if paper == SAID[name.lower()]:
                at, why = places[paper, number], line["deviation"] or "none"
                stated = "; ".join(f"{{doc}}`{s} <../{p}>` {{eq}}`{label}`" for p, s, label in at["page"])
                computed = ", ".join(f"{{py:obj}}`~{f}`" for f in at["function"])
                tested = ", ".join(f"`{t}`" for t in at["test"])
                why += f" ({line['errata']})" if line["errata"] else ""
                text += f"| ({number}) | {line['meaning']} | {stated} | {computed} | {tested} | {why} |\n"
    return text


def main(root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page differs")
    check = parser.parse_args().check
    places, faults = gather(root)
    if not faults and not check:
        (root / PAGE).write_text(page(root, places), encoding="utf8")
    elif not faults and (root / PAGE).read_text(encoding="utf8") != page(root, places):
        faults = [f"{PAGE} differs from what chapters, docstrings and tests say: run python tools/equations.py"]
    print("\n".join(faults) or f"{len(listed(root))} equations")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
