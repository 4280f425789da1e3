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
    """Open a notebook: seed everything, set the figure style, say what runs here; returns the torch device."""
    import torch

    from . import plots
    from .training import pick_device, seed_everything

    seed_everything(seed)
    plots.style()
    device = pick_device()
    what = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"cdimlib {__version__} | torch {torch.__version__} | {what} | profile {profile()}")
    expect = {
        ("cpu", "demo"): "No GPU needed: a page takes minutes at most.",
        ("cpu", "full"): "The full profile is meant for a GPU: on a CPU expect hours; CDIM_PROFILE=demo takes minutes.",
        ("cuda", "demo"): "Pages are sized for a CPU and take minutes; CDIM_PROFILE=full is what a GPU is for.",
    }
    if (device.type, profile()) in expect:
        print(expect[device.type, profile()])
    return device
