"""Move the book to another repository address: ``make rehost URL=https://github.com/someone/fork``.

pyproject.toml decides the address. This rewrites it there and in every place that is derived from it: _config.yml,
CITATION.cff, the README, the pages, and the first cell of every notebook. Running it again with the same address
mends places that have fallen out of step.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from first_cell import ROOT, first_cell, release, repository

ADDRESS = re.compile(r"https://[\w.-]+(?::\d+)?(?:/[\w.~-]+){2,}")


def check_address(url: str) -> str:
    """The address without a trailing slash or ".git"; ValueError if it is no address of a repository."""
    url = url.strip().rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"URL must look like https://github.com/owner/name, not {url!r}")
    return url


def text_files(root: Path) -> list[Path]:
    """Every text file, pyproject.toml first, in which the address may stand."""
    named = [root / name for name in ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md")]
    pages = sorted(p for p in (root / "book").rglob("*.md") if ".ipynb_checkpoints" not in p.parts)
    return [p for p in named if p.exists()] + pages


def notebooks(root: Path) -> list[Path]:
    return sorted(p for p in (root / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def replace_address(text: str, old: str, new: str) -> str:
    """Replace ``old`` where it is the whole address of a repository (with a path behind it or not)."""
    return re.sub(re.escape(old) + r"(?![\w-]|\.(?!git\b)\w)", new, text)


def rehosted_text(path: Path, text: str, old: str, new: str) -> str:
    """A text file with the new address; the keys that hold it are set whatever stood there."""
    text = replace_address(text, old, new)
    if path.name == "pyproject.toml":
        text = re.sub(r'(?m)^(Repository\s*=\s*)"[^"]*"', lambda m: f'{m[1]}"{new}"', text)
    elif path.name == "_config.yml":
        text = re.sub(r"(?m)^(repository:\n(?:[ \t]+.*\n)*?[ \t]+url:)[ \t]*\S*", lambda m: f"{m[1]} {new}", text)
    elif path.name == "CITATION.cff":
        text = re.sub(r"(?m)^repository-code:.*$", lambda m: f"repository-code: {new}", text)
    return text


def rehosted_notebook(text: str, old: str, new: str, tag: str = "") -> str:
    """A notebook with the new address in its prose and the canonical first code cell."""
    notebook = json.loads(replace_address(text, old, new))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            text = first_cell(new, tag)  # a source is a string or a list of lines: both are notebooks
            cell["source"] = text if isinstance(cell["source"], str) else text.splitlines(keepends=True)
            break
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def rehost(url: str, root: Path = ROOT) -> list[Path]:
    """Rewrite the address everywhere; returns the files that changed."""
    new, old, tag = check_address(url), repository(root), release(root)
    changed = []
    for path in text_files(root) + notebooks(root):
        text = path.read_text(encoding="utf8")
        rewritten = (
            rehosted_notebook(text, old, new, tag) if path.suffix == ".ipynb" else rehosted_text(path, text, old, new)
        )
        same = json.loads(text) == json.loads(rewritten) if path.suffix == ".ipynb" else text == rewritten
        if not same:
            path.write_text(rewritten, encoding="utf8")
            changed.append(path)
    return changed


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: make rehost URL=https://github.com/owner/name", file=sys.stderr)
        return 2
    try:
        changed = rehost(sys.argv[1])
    except ValueError as error:
        print(f"rehost: {error}", file=sys.stderr)
        return 2
    for path in changed:
        print("rewrote", path.relative_to(ROOT))
    print(f"{len(changed)} files changed; the repository's address is {repository()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
