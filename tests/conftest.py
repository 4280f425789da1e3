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


@pytest.fixture
def closed():
    """The book's style for figures, and no figure left open (``pytestmark = pytest.mark.usefixtures("closed")``)."""
    import matplotlib.pyplot as plt

    from cdimlib import plots

    plots.style()
    yield
    plt.close("all")


def people(count: int):
    """Noise in the shape of people's images: uint8 [count, 3, 16, 8]."""
    import torch

    return torch.randint(0, 256, (count, 3, 16, 8), dtype=torch.uint8)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT
