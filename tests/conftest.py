"""Settings for all tests: the smoke profile, no window for figures, and the tools folder importable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

os.environ.setdefault("CDIM_PROFILE", "smoke")
os.environ.setdefault("MPLBACKEND", "agg")

# No deadline (slow machines), and the same cases everywhere.
settings.register_profile("book", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("book")


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whichever tests ran before it."""
    from cdimlib.training import seed_everything

    seed_everything(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT
