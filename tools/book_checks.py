"""Checks of the book's structure. Each takes the repository's root and returns its findings, one sentence each.

tests/test_book.py runs every check on this book, and on small broken books to see that it finds what it should.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import nbformat
import yaml
from first_cell import canonical, repository
from run_notebook import known_parameters

LINES, LINES_EXPERIMENT = 15, 30
WORK_FOLDERS = {".ipynb_checkpoints", "runs", "_build"}
COURSEWORK = ("book", "assignments")  # below it: source (tools/assignments.py checks it), solutions (in no contents)


def pages(root: Path, *suffixes: str) -> list[Path]:
    """The sources of the pages below book/ with these suffixes (all: .md and .ipynb)."""
    suffixes = suffixes or (".md", ".ipynb")
    found = (p for p in (root / "book").rglob("*") if p.suffix in suffixes)
    found = (p for p in found if not WORK_FOLDERS & set(p.relative_to(root).parts))
    return sorted(p for p in found if p.relative_to(root).parts[:3] != (*COURSEWORK, "source"))


def is_experiment(root: Path, path: Path) -> bool:
    return path.relative_to(root).parts[:2] == ("book", "experiments")


def cells_of(path: Path) -> list[dict]:
    """Cells with their source as one string."""
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def markdown_of(path: Path) -> str:
    """The prose of a page: the file, or a notebook's markdown cells."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf8")
    return "\n\n".join(cell["source"] for cell in cells_of(path) if cell["cell_type"] == "markdown")


def is_solution(cell: dict) -> bool:
    return "# BEGIN SOLUTION" in cell["source"]


def toc_entries(root: Path) -> list[str]:
    """Every page that _toc.yml names, root first, without suffix."""

    def files(node) -> list[str]:
        if isinstance(node, list):
            return [name for item in node for name in files(item)]
        if not isinstance(node, dict):
            return []
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [name for value in node.values() for name in files(value)]

    return files(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8")))


def check_toc(root: Path) -> list[str]:
    """Every page stands once in the table of contents, every entry is a page."""
    entries = toc_entries(root)
    sources = [str(p.relative_to(root).with_suffix("")) for p in pages(root)]
    sources = [name for name in sources if not name.startswith("book/assignments/solutions/")]
    found = [f"_toc.yml names {name}, but there is no such page" for name in entries if name not in sources]
    found += [f"{name} is not in _toc.yml" for name in sources if name not in entries]
    found += [f"_toc.yml names {name} more than once" for name in sorted(set(entries)) if entries.count(name) > 1]
    found += [f"{name} exists as .md and as .ipynb" for name in sorted(set(sources)) if sources.count(name) > 1]
    return found


def link_targets(text: str) -> list[str]:
    """The targets of links and images in a page's prose that may be files."""
    targets = re.findall(r"```+\{(?:figure|image|include|literalinclude)\}[ \t]+(\S+)", text)
    text = re.sub(r"(?ms)^(```+|~~~+).*?^\1[ \t]*$", "", text)  # code, and directives
    targets += [t.split("<")[-1].strip("> ") for t in re.findall(r"\{(?:doc|download)\}`([^`]+)`", text)]
    text = re.sub(r"`[^`\n]*`", "", text)
    targets += re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)\n]*\)", text)
    targets += re.findall(r"""<(?:a|img)\b[^>]*\b(?:href|src)=["']([^"']+)""", text)
    targets += re.findall(r"(?m)^\[[^\]^]+\]:[ \t]+(\S+)", text)
    return targets


def labels(root: Path) -> set[str]:
    """Names that a link can point at instead of a file."""
    found = set()
    for path in pages(root):
        text = markdown_of(path)
        found |= set(re.findall(r"(?m)^\(([^)\s]+)\)=", text))
        found |= set(re.findall(r"(?m)^:(?:label|name):[ \t]*(\S+)", text))
        found |= set(re.findall(r"\$\$[ \t]*\(([^)\s]+)\)", text))
        found |= set(re.findall(r"\{[^}\n]*#([\w:-]+)[^}\n]*\}", text))
        if path.suffix == ".ipynb":
            for cell in cells_of(path):
                name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
                found |= {name} if name else set()
    return found


def check_links(root: Path) -> list[str]:
    """Every link or image between pages leads to a file or a label. (Sphinx checks the roles ref, eq, numref, cite.)"""
    known, found = labels(root), []
    for path in pages(root):
        for target in link_targets(markdown_of(path)):
            plain = target.split("#")[0]
            if not plain or re.match(r"[a-z][a-z0-9+.-]*:", target) or plain in known:
                continue
            base = root if plain.startswith("/") else path.parent
            goal = base / plain.lstrip("/")
            if not any(
                c.is_file() for c in (goal, goal.with_name(goal.name + ".md"), goal.with_name(goal.name + ".ipynb"))
            ):
                found.append(f"{path.relative_to(root)}: broken link to {target}")
    return found


def check_notebooks_are_clean(root: Path) -> list[str]:
    """nbformat 4.5 with cell ids, no outputs, no execution counts, nothing left by a run."""
    found = []
    for path in pages(root, ".ipynb"):
        name = path.relative_to(root)
        notebook = json.loads(path.read_text(encoding="utf8"))
        if (notebook.get("nbformat"), notebook.get("nbformat_minor")) != (4, 5):
            found.append(f"{name} must be nbformat 4.5")
            continue
        ids = [cell.get("id") for cell in notebook["cells"]]
        if None in ids or len(set(ids)) < len(ids):
            found.append(f"{name} has cells without an id, or two with the same")
        else:  # nbformat mends ids while it looks
            try:
                nbformat.validate(notebook)
            except nbformat.ValidationError as error:
                found.append(f"{name} is no valid notebook: {str(error).splitlines()[0]}")
        if "widgets" in notebook["metadata"] or "papermill" in notebook["metadata"]:
            found.append(f"{name} carries the metadata of a run")
        for number, cell in enumerate(notebook["cells"]):
            if cell.get("outputs") or cell.get("execution_count") is not None:
                found.append(f"{name}: cell {number} carries outputs; strip them with nbstripout")
    return found


def check_first_cell(root: Path) -> list[str]:
    """The first code cell is the canonical one (tools/first_cell.py), and stands after the objectives."""
    expected, found = canonical(root), []
    for path in pages(root, ".ipynb"):
        cells = cells_of(path)
        code = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
        if not code or cells[code[0]]["source"] != expected:
            found.append(
                f"{path.relative_to(root)}: the first code cell is not the one in tools/first_cell.py (make rehost)"
            )
        elif code[0] == 0:
            found.append(f"{path.relative_to(root)}: a title and objectives must stand before the first code cell")
    return found


def check_rhythm(root: Path) -> list[str]:
    """Short code cells, and a sentence between any two of them (solutions may follow one another)."""
    found = []
    for path in pages(root, ".ipynb"):
        name, cells = path.relative_to(root), cells_of(path)
        limit = LINES_EXPERIMENT if is_experiment(root, path) else LINES
        for number, cell in enumerate(cells):
            if cell["cell_type"] != "code":
                continue
            lines = len(cell["source"].strip("\n").split("\n"))
            allowed = LINES_EXPERIMENT if is_solution(cell) else limit
            if lines > allowed:
                found.append(f"{name}: code cell {number} has {lines} lines, at most {allowed} are allowed")
            if (
                number
                and cells[number - 1]["cell_type"] == "code"
                and not (is_solution(cell) or is_solution(cells[number - 1]))
            ):
                found.append(f"{name}: code cells {number - 1} and {number} stand without a sentence between them")
    return found


def check_frame(root: Path) -> list[str]:
    """Title, objectives and time at the top, a recap at the end, solutions closed and hidden."""
    found = []
    for path in pages(root, ".ipynb"):
        name, cells = path.relative_to(root), cells_of(path)
        prose = markdown_of(path)
        top = "\n".join(cell["source"] for cell in cells[:3] if cell["cell_type"] == "markdown")
        if not re.match(r"(?:\([^)\n]+\)=\n+)?# \S", top):
            found.append(f"{name} does not start with a title")
        if "you will be able to" not in top.lower():
            found.append(f'{name} has no objectives ("You will be able to ...") at its top')
        if "**Time**" not in top:
            found.append(f"{name} does not say at its top how long it takes (**Time**: ...)")
        if not re.search(r"(?mi)^#+ .*\brecap\b", prose):
            found.append(f"{name} has no recap (a heading with that word)")
        for number, cell in enumerate(cells):
            if cell["source"].count("# BEGIN SOLUTION") != cell["source"].count("# END SOLUTION"):
                found.append(f"{name}: cell {number} opens a solution without closing it, or the other way round")
            elif is_solution(cell) and not {"hide-cell", "hide-input"} & set(cell["metadata"].get("tags", [])):
                found.append(f"{name}: the solution in cell {number} is not hidden (tag hide-cell)")
    return found


def calls(text: str) -> list[tuple[str, list[str]]]:
    """(notebook, names passed) of every `make full NB=... P="-p name value"` and `papermill x.ipynb ...` in a text."""
    text = re.sub(r"\\\n[ \t]*", " ", text)
    found = [(nb, given) for nb, given in re.findall(r"""NB=(\S+\.ipynb)(?:[ \t]+P=("[^"]*"|'[^']*'))?""", text)]
    found += re.findall(r"papermill[ \t]+(\S+\.ipynb)([^\n`]*)", text)
    return [(nb, re.findall(r"(?:^|\s)-[pr]\s+(\w+)", " ".join(shlex.split(given)))) for nb, given in found]


def texts_with_calls(root: Path) -> list[Path]:
    named = [root / "Makefile", root / "README.md", root / "data" / "results" / "QUEUE.md"]
    return [p for p in named if p.is_file()] + pages(root)


def check_parameters(root: Path) -> list[str]:
    """Each experiment has one `parameters` cell, no other page has one, and every name passed to it exists."""
    found = []
    for path in pages(root, ".ipynb"):
        tagged = sum("parameters" in cell["metadata"].get("tags", []) for cell in cells_of(path))
        wanted = 1 if is_experiment(root, path) else 0
        if tagged != wanted:
            found.append(f"{path.relative_to(root)} has {tagged} cells tagged 'parameters', it must have {wanted}")
    if found:
        return found
    for path in texts_with_calls(root):
        text = path.read_text(encoding="utf8") if path.suffix != ".ipynb" else markdown_of(path)
        for notebook, names in calls(text):
            if notebook in ("book/experiments/x.ipynb", "x.ipynb"):  # the placeholder of the help texts
                continue
            if not (root / notebook).is_file():
                found.append(f"{path.relative_to(root)} runs {notebook}, which does not exist")
                continue
            unknown = [name for name in names if name not in known_parameters(root / notebook)]
            found += [
                f"{path.relative_to(root)} passes {name!r} to {notebook}, which does not know it" for name in unknown
            ]
    return found


def check_address(root: Path) -> list[str]:
    """Every place derived from the repository's address says what pyproject.toml says."""
    url, found = repository(root), []
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))["repository"]["url"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf8"))["repository-code"]
    for name, stands in (("_config.yml", config), ("CITATION.cff", citation)):
        if stands != url:
            found.append(f"{name} says {stands}, pyproject.toml says {url}: run make rehost URL=...")
    if url not in (root / "README.md").read_text(encoding="utf8"):
        found.append(f"README.md does not name {url}")
    for path in [root / "README.md", *pages(root)]:
        for other in re.findall(r"git\+(https?://[^\s\"'\\)]+)", path.read_text(encoding="utf8")):
            if other.removesuffix(".git") != url:
                found.append(f"{path.relative_to(root)} installs from {other}, pyproject.toml says {url}")
    return found


CHECKS = (
    check_toc,
    check_links,
    check_notebooks_are_clean,
    check_first_cell,
    check_rhythm,
    check_frame,
    check_parameters,
    check_address,
)
