"""What a page says about memory is what was measured."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import execute_notebooks
import nbformat
import page_costs
import pytest

#: experiments that take so long as they stand that `make costs` has not been waited for
UNMEASURED = {"ladder.ipynb"}


@pytest.fixture
def costs(root):
    return json.loads((root / page_costs.COSTS).read_text(encoding="utf8"))["pages"]


def test_every_notebook_that_states_its_time_states_its_memory(root, costs):
    should_be = page_costs.stated(root, costs)
    assert [str(path) for path, text in should_be.items() if path.read_text(encoding="utf8") != text] == []
    silent = [path for path in (root / "book").rglob("*.ipynb") if "**Time**" in path.read_text(encoding="utf8")
              and not {".ipynb_checkpoints", "runs"} & set(path.parts) and path not in should_be
              and path.name not in UNMEASURED]
    assert [str(path) for path in silent] == []
    assert len(should_be) >= 50


def test_every_measured_page_exists(root, costs):
    assert [name for name in costs if not (root / name).is_file()] == []
    assert all(0 < cost.get("seconds", 1) < 900 and 100 < cost["peak_memory_mib"] < 16000 for cost in costs.values())


@pytest.mark.parametrize(("mebibytes", "words"), [(400, "under 0.5 GB"), (440, "under 1 GB"), (1000, "under 1.5 GB")])
def test_a_tenth_more_rounded_up_to_half_a_gigabyte(mebibytes, words):
    assert words in page_costs.sentence(mebibytes)
    assert words in (said := page_costs.sentence(mebibytes, "book/experiments/x.ipynb")) and "as it stands" in said


def test_the_sentence_is_put_behind_the_time_and_replaced_there():
    text = "# A\n\n**Needs** x. **Time**: a\nminute.\n\nMore **Memory**: stays."
    once = page_costs.with_memory(text, "**Memory**: 1.")
    assert once == "# A\n\n**Needs** x. **Time**: a\nminute.\n**Memory**: 1.\n\nMore **Memory**: stays."
    assert page_costs.with_memory(once, "**Memory**: 2.") == once.replace("1.", "2.")


def test_an_assignment_costs_what_its_solution_costs():
    for name in ("book/assignments/a.ipynb", "book/assignments/source/a.ipynb"):
        assert page_costs.measured_as(name) == "book/assignments/solutions/a.ipynb"
    for name in ("book/assignments/project/start.ipynb", "book/pairs/a.ipynb"):
        assert page_costs.measured_as(name) == name


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="this system does not tell a process's peak memory")
def test_the_peak_is_that_of_the_kernel_and_outlives_what_held_it(tmp_path):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    peaks = []
    for mebibytes in (1, 200):
        sources = f"held = bytearray({mebibytes} << 20)", "del held"
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        client = execute_notebooks.Execution(notebook, tmp_path, timeout=60)
        client.execute()
        peaks.append(client.peak)
    assert 150 < peaks[1] - peaks[0] < 250


def test_costs_are_read_from_the_cache_of_a_book(tmp_path, monkeypatch):
    data = {"a": {"execution_seconds": 9.6, "peak_memory_mib": 5.4}, "b": {"execution_seconds": 1.0}}
    records = [SimpleNamespace(uri=str(tmp_path / f"book/{name}.ipynb"), data=of) for name, of in data.items()]
    monkeypatch.setattr(page_costs, "open_cache", lambda path: SimpleNamespace(list_cache_records=lambda: records))
    assert page_costs.from_cache(tmp_path, tmp_path) == {"book/a.ipynb": {"seconds": 10, "peak_memory_mib": 5}}
