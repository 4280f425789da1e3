"""A pytest plugin: what nbval's cells put out is written into a copy of their notebook, ``--keep-outputs=FILE``.

nbval compares outputs and throws them away. With this, a notebook that was executed to be checked need not be executed
again to be rendered. Nothing is written where a cell failed.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from IPython.core.displayhook import DisplayHook


def pytest_addoption(parser):
    parser.addoption("--keep-outputs", type=Path, metavar="FILE", help="write the one notebook with its outputs here")


def pytest_sessionfinish(session, exitstatus):
    path, executed = session.config.option.keep_outputs, [i for i in session.items if hasattr(i, "test_outputs")]
    if path is None or exitstatus or not executed:
        return
    for number, item in enumerate(executed, start=1):
        # nbval runs a cell without history, and IPython then misses the semicolon that silences a cell's last value.
        silent = DisplayHook.semicolon_at_end_of_expression(item.cell.source)  # also with a comment behind it
        kept = [out for out in item.test_outputs or [] if not (silent and out.output_type == "execute_result")]
        item.cell.outputs, item.cell.execution_count = kept, number
    nbformat.write(executed[0].parent.nb, path)
