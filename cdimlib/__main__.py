"""``python -m cdimlib``: does this environment run the book's code? What is here and, of each fault, what mends it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from . import __version__, profile


def wrong(requirement: Requirement) -> str:
    """What is the matter with an installed package, in words; "" if it is as required."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    good = requirement.specifier.contains(found, prereleases=True)
    return "" if good else f"{requirement.name} is {found}, not {requirement.specifier}"


def packages() -> tuple[list[str], list[str]]:
    """(faults with their mends, remarks): what the library requires, and the extras that are not complete here."""
    try:
        required = [Requirement(text) for text in metadata.requires("cdimlib") or ()]
    except metadata.PackageNotFoundError:
        return ["cdimlib is imported from a folder and not installed: pip install -e . in its root"], []
    faults, remarks = [], []
    for one in (one for one in required if not one.marker):
        if said := wrong(one):
            faults.append(f'{said}: pip install "{one.name}{one.specifier}"')
    for extra in metadata.metadata("cdimlib").get_all("Provides-Extra") or ():
        optional = [one for one in required if one.marker and one.marker.evaluate({"extra": extra})]
        if lacking := [said for one in optional if (said := wrong(one))]:
            remarks.append(f'without the extra "{extra}": {", ".join(lacking)} (pip install "cdimlib[{extra}]")')
    return faults, remarks


def device() -> tuple[list[str], list[str]]:
    """(faults with their mends, remarks): torch, torchvision, and what they compute on."""
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        return [f"torch and torchvision do not work together ({error}): install both in one command, from one place: "
                "pip install --force-reinstall torch torchvision"], []  # fmt: skip
    from .training import device_name, pick_device

    what, gpu = device_name(pick_device()), torch.cuda.is_available()
    what += f", {torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB" if gpu else f" of {os.cpu_count()} cores"
    return [], [f"torch {torch.__version__}, torchvision {torchvision.__version__}, on {what}"]


def data() -> tuple[list[str], list[str]]:
    """(faults with their mends, remarks): the profile, and which real data is at hand; toy worlds need none."""
    faults, remarks = [], []
    try:
        remarks.append(f"profile {profile()}")
    except ValueError as error:
        faults.append(str(error))
    place = os.environ.get("CDIM_DATA")
    if place and not Path(place).is_dir():
        faults.append(f"CDIM_DATA names {place}, which is not a folder: correct it, or unset it for toy worlds alone")
    from .data.registry import at_hand, names

    found = [name for name in names() if not name.startswith("toy") and at_hand(name)]
    remarks.append(f"real data at hand: {', '.join(found) or 'none (the toy worlds need none)'}")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    remarks.append(f"{free:.0f} GiB free on this disk")
    return faults, remarks


def main() -> int:
    """Print what was found; 0 if the book's code runs here."""
    print(f"cdimlib {__version__}, Python {platform.python_version()}, {platform.platform()}")
    faults = []
    for look in (packages, device, data):
        found, remarks = look()
        faults += found
        for line in remarks:
            print(f"  {line}")
        if found:
            break  # what comes after would fail on an import
    for line in faults:
        print(f"NOT IN ORDER: {line}")
    print("The book's code does not run here yet." if faults else "The book's code runs here.")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
