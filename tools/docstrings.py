"""Sphinx extension: paragraphs of "name: text" lines in our docstrings become lists on the API page."""

from __future__ import annotations

import re

NAME = re.compile(r"^(?P<names>`{0,2}\w[\w.()]*`{0,2}(?:, `{0,2}\w[\w.()]*`{0,2})*): (?P<text>\S.*)$")


def as_lists(lines: list[str]) -> list[str]:
    """The docstring with every paragraph that opens with "name: text" as a list, one item for each name."""
    out, inside = [], False
    for line in lines:
        match = NAME.match(line)
        fresh = not out or not out[-1].strip()
        if match and (inside or fresh):
            names = ", ".join(f"**{name.strip().strip('`')}**" for name in match["names"].split(","))
            out.append(f"- {names}: {match['text']}")
            inside = True
        elif not line.strip():
            out.append(line)
            inside = False
        else:
            out.append(f"  {line.strip()}" if inside else line)
    return out


def process(app, what, name, obj, options, lines):
    """Sphinx hands the docstring over as a list to be changed in place."""
    lines[:] = as_lists(lines)


def setup(app):
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
