"""cdimlib: the small library behind the CDIM book (cross-domain instance matching)."""

from __future__ import annotations

import os

__version__ = "0.1.0"
PROFILES = ("smoke", "demo", "full")


def profile() -> str:
    """The profile that ``CDIM_PROFILE`` asks for: "smoke" (tests), "demo" (the book, the default) or "full" (a GPU)."""
    name = os.environ.get("CDIM_PROFILE", "demo")
    if name not in PROFILES:
        raise ValueError(f"CDIM_PROFILE must be one of {', '.join(PROFILES)}, not {name!r}")
    return name


def by_profile(smoke, demo, full):
    """The value for the current profile: ``steps = by_profile(smoke=2, demo=60, full=20_000)``."""
    return {"smoke": smoke, "demo": demo, "full": full}[profile()]


def start(seed: int = 0):
    """Open a notebook: seed everything, set the figure style, say what runs here; returns the torch device.

    ImportError that names the mend where a package is missing: the first cell installs this library alone.
    """
    try:
        import torch

        from . import plots
        from .training import device_name, pick_device, seed_everything
    except ModuleNotFoundError as error:
        raise ImportError(f"{error.name} is not installed here, and the first cell installs cdimlib alone: "
                          f"%pip install {error.name}, then run this cell again (all that it needs: python -m cdimlib)",
                          name=error.name) from error  # fmt: skip

    seed_everything(seed)
    plots.style()
    device = pick_device()
    print(f"cdimlib {__version__} | torch {torch.__version__} | {device_name(device)} | profile {profile()}")
    expect = {
        ("cpu", "smoke"): "The smoke profile shows that a page runs: its numbers mean nothing.",
        ("cuda", "smoke"): "The smoke profile shows that a page runs: its numbers mean nothing.",
        ("cpu", "demo"): "No GPU needed: a page takes minutes at most.",
        ("cpu", "full"): "The full profile is meant for a GPU: on a CPU expect hours; CDIM_PROFILE=demo takes minutes.",
        ("cuda", "demo"): "Pages are sized for a CPU and take minutes; CDIM_PROFILE=full is what a GPU is for.",
        ("cuda", "full"): "The full profile is for experiments: each prints its plan and its cost before it begins.",
    }
    if (device.type, profile()) in expect:
        print(expect[device.type, profile()])
    return device
