"""How benchmarks measure: contenders take turns, the fastest turn of each counts, and what they compute is compared.

``CDIM_BENCH=small`` is a quick look; ``CDIM_BENCH=market`` adds re-ranking and temporal lifting at the size of
Market-1501 (3,368 queries, 15,913 gallery images; about 3 GiB). Nothing asserts a time.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import torch

from cdimlib import results
from cdimlib.training import pick_device, save_atomically

SIZE = os.environ.get("CDIM_BENCH", "promised")
REPEATS, PATIENCE = 3, 15.0  # turns of each contender; CPU seconds of a table after which no further turn begins
MIB = 2**20
TABLES = []  # of the module at work


def machine() -> str:
    """The machine in words."""
    return results.processor() + (f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")


def write(path: Path) -> None:
    """The tables of a module as JSON, with the machine, the date, the commit and the versions."""
    ran = results.machine(pick_device())
    about = {"machine": machine(), "note": os.environ.get("CDIM_BENCH_NOTE", "")}
    about |= {name: ran[name] for name in ("date", "commit", "versions")}
    text = json.dumps(about | {"tables": TABLES}, indent=1) + "\n"
    save_atomically(path, lambda part: part.write_text(text))
    print(f"\nwritten: {path}")


def cpu_seconds() -> float:
    """Of this process and of its children that ended."""
    return time.process_time() + sum(os.times()[2:4])


def peak_of(run, traced: bool) -> float:
    """Peak MiB of new memory of this process while it runs once more: what the system counts, or, where asked, what
    Python traces if that is more."""
    status = Path("/proc/self/status")
    read = lambda key: int(status.read_text().split(f"{key}:")[1].split()[0]) / 1024  # noqa: E731
    peak = 0.0
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what is free, so that what is used again counts
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = read("VmRSS")
        run()
        peak = max(0.0, read("VmHWM") - before)
    except (OSError, AttributeError, TypeError):  # not Linux
        traced = True
    if traced:
        tracemalloc.start()
        run()
        peak = max(peak, tracemalloc.get_traced_memory()[1] / MIB)
        tracemalloc.stop()
    return peak


def keep(title: str, rows: list[dict]) -> None:
    """A table of its own columns, the first of which is ``name``: numbers to four digits, kept and printed."""
    rows = [{k: v if isinstance(v, str) else float(f"{v:.4g}") for k, v in row.items()} for row in rows]
    TABLES.append({"title": title, "rows": rows})
    columns = [c for c in rows[0] if c != "name"]
    print(f"\n{title}\n{'':48}" + "".join(f"{c:>16}" for c in columns))
    for row in rows:
        print(f"{row['name']:48}" + "".join(f"{row[c]:16,.6g}" for c in columns))


def compare(title: str, contenders: dict, check=None, each: tuple[int, str] | None = None) -> list[dict]:
    """Keep and return a table of the contenders {name: run}, which take turns; ratios are to the first.

    check: sees all results, and asserts. each: (count, "pairs") adds how many of these a second.
    """
    best, computed, started = dict.fromkeys(contenders, (np.inf, np.inf)), {}, cpu_seconds()
    for _ in range(REPEATS):
        for name, run in contenders.items():
            wall, cpu = time.perf_counter(), cpu_seconds()
            computed[name] = run()
            best[name] = tuple(map(min, best[name], (time.perf_counter() - wall, cpu_seconds() - cpu)))
        if cpu_seconds() - started > PATIENCE:
            break
    if check:
        check(*computed.values())
    computed.clear()
    rows = []
    for name, run in contenders.items():
        (seconds, cpu), memory = best[name], max(peak_of(run, traced=best[name][1] < 1), 0.01)
        first = rows[0] if rows else {"seconds": seconds, "CPU seconds": cpu, "peak MiB": memory}
        row = {"name": name, "seconds": seconds, "faster": first["seconds"] / seconds}
        row |= {"CPU seconds": cpu, "less CPU": first["CPU seconds"] / cpu}
        row |= {"peak MiB": memory, "smaller": first["peak MiB"] / memory}
        rows.append(row | ({f"{each[1]}/s": each[0] / seconds} if each else {}))
    keep(title, rows)
    return rows
