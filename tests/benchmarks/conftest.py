"""Every benchmark's tables as a file of their own: ``CDIM_BENCH_JSON=folder``, with ``CDIM_BENCH_NOTE`` as a remark.

The pages show what lies below ``data/results/bench``, which
``CDIM_BENCH=market CDIM_BENCH_JSON=data/results/bench make bench`` measures anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import measuring
import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def written(request):
    """Refuse an unknown size; write the module's tables down at its end, if somebody asked for them."""
    if measuring.SIZE not in ("small", "promised", "market"):
        pytest.fail(f"CDIM_BENCH must be one of small, promised, market, not {measuring.SIZE!r}")
    measuring.TABLES.clear()
    yield
    folder = os.environ.get("CDIM_BENCH_JSON")
    if folder and measuring.TABLES:
        measuring.write(Path(folder, request.module.__name__.removeprefix("test_bench_") + ".json"))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
