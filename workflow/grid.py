"""The grid of experiments as data: ``workflow/grid.yaml`` -> jobs, what is left of them, and one job run.

A job is one combination of the values under ``each`` of an entry, and is done when the JSON files that it ``writes``
lie in the results folder. ``python workflow/grid.py list`` says where the grid stands; `make grid` runs what is left.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
GRID, RESULTS, WORK = ROOT / "workflow" / "grid.yaml", ROOT / "data" / "results", ROOT / "runs" / "checkpoints"
NEEDED, OPTIONAL = {"what", "notebook", "each", "writes", "minutes"}, {"tables", "set", "after", "data", "machine"}
MACHINES = ("cpu", "gpu")


@dataclass(frozen=True)
class Job:
    """One run of a notebook. ``after``: jobs whose first stage it takes over; ``minutes``: of one core, or of a GPU."""

    name: str
    entry: str
    notebook: Path
    parameters: dict[str, str]
    writes: tuple[str, ...]
    after: tuple[str, ...]
    data: tuple[str, ...]
    machine: str
    minutes: float

    def done(self, folder: Path = RESULTS) -> bool:
        return all((folder / name).is_file() for name in self.writes)


def word(value) -> str:
    """A parameter's value as it stands in file names (:func:`cdimlib.results.path_of`)."""
    return re.sub(r"[/, :]", "_", str(value))


def read(path: Path = GRID) -> dict[str, dict]:
    """Entry -> its fields; ValueError that names entry and field where one is missing or unknown."""
    entries = yaml.safe_load(Path(path).read_text(encoding="utf8"))
    for name, entry in entries.items():
        if missing := NEEDED - entry.keys():
            raise ValueError(f"{path}: entry {name!r} lacks {', '.join(sorted(missing))}")
        if unknown := entry.keys() - NEEDED - OPTIONAL:
            raise ValueError(f"{path}: entry {name!r} has unknown fields {', '.join(sorted(unknown))}")
        if entry.get("machine", "cpu") not in MACHINES:
            raise ValueError(f"{path}: machine of entry {name!r} must be cpu or gpu, not {entry['machine']!r}")
    return entries


def jobs_of(name: str, entry: dict) -> list[Job]:
    """The jobs of an entry, one for each combination of the values under ``each``."""
    notebook = Path(entry["notebook"])
    notebook = ROOT / "book" / "experiments" / f"{notebook}.ipynb" if notebook.suffix != ".ipynb" else ROOT / notebook
    called = lambda values: ".".join([name, *map(word, values.values())])  # noqa: E731
    writes = [entry["writes"]] if isinstance(entry["writes"], str) else entry["writes"]
    jobs = []
    for values in itertools.product(*entry["each"].values()):
        chosen = dict(zip(entry["each"], values, strict=True))
        first = chosen | entry.get("after", {})
        parameters = {key: os.path.expandvars(str(value)) for key, value in (entry.get("set", {}) | chosen).items()}
        data = tuple(name.format(**chosen) for name in entry.get("data", ()))
        files = tuple(pattern.format(**{key: word(value) for key, value in chosen.items()}) for pattern in writes)
        jobs.append(Job(called(chosen), name, notebook, parameters, files, (called(first),) * (first != chosen),
                        data, entry.get("machine", "cpu"), entry["minutes"]))  # fmt: skip
    return jobs


def all_jobs(path: Path = GRID) -> dict[str, Job]:
    """Name -> job, in the order of the file; ValueError for two jobs of one name or one result."""
    jobs, written = {}, {}
    for job in (job for name, entry in read(path).items() for job in jobs_of(name, entry)):
        for file in job.writes:
            if file in written:
                raise ValueError(f"{path}: {written[file]} and {job.name} would both write {file}")
            written[file] = job.name
        if job.name in jobs:
            raise ValueError(f"{path}: two jobs are called {job.name}")
        jobs[job.name] = job
    for job in jobs.values():
        if lost := set(job.after) - jobs.keys():
            raise ValueError(f"{path}: {job.name} comes after {', '.join(lost)}, which is not in the grid")
    return jobs


def at_hand(name: str) -> bool:
    """Whether a data set is found here. A name in capitals is an environment variable that must name a file."""
    if name.isupper():
        return os.path.exists(os.environ.get(name, ""))
    from cdimlib.data import at_hand

    return at_hand(name)


def plan(
    jobs: dict[str, Job], folder: Path = RESULTS, *, only: str = "", machine: str = "cpu", found=at_hand
) -> tuple[list[Job], list[tuple[Job, str]]]:
    """(jobs to run, jobs left out with the reason); what is done is in neither.

    only: patterns of entries or jobs, separated by commas (``masks-*``); machine: "cpu", "gpu" or "any".
    """
    if machine not in (*MACHINES, "any"):
        raise ValueError(f"machine must be cpu, gpu or any, not {machine!r}")
    patterns = [p.strip() for p in only.split(",") if p.strip()]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for job in jobs.values() for name in (job.entry, job.name)):
            raise ValueError(f"the grid has no entry or job {pattern!r}; `python workflow/grid.py list` names them")
    todo, left_out, there = [], [], {}
    for job in jobs.values():
        if job.done(folder) or (patterns and not any(fnmatch(n, p) for p in patterns for n in (job.entry, job.name))):
            continue
        there.update({name: found(name) for name in job.data if name not in there})
        lacking = [name for name in job.data if not there[name]]
        if machine not in ("any", job.machine):
            left_out.append((job, f"wants a {job.machine.upper()}"))
        elif lacking:
            left_out.append((job, f"needs {', '.join(lacking)}"))
        else:
            todo.append(job)
    return todo, left_out


def summary(todo: list[Job], left_out: list[tuple[Job, str]], jobs: dict[str, Job], folder: Path) -> str:
    """Where the grid stands, a line for each entry with something left and one for the whole."""
    lines = []
    for entry in dict.fromkeys(job.entry for job in [*todo, *(job for job, _ in left_out)]):
        here = [job for job in todo if job.entry == entry]
        away = [why for job, why in left_out if job.entry == entry]
        count = sum(job.entry == entry for job in jobs.values())
        left = [f"{len(here)} to run, {sum(j.minutes for j in here):.0f} min"] * bool(here)
        minutes = sum(job.minutes for job, _ in left_out if job.entry == entry)
        left += [f"{len(away)} not here, {minutes:.0f} min: {'; '.join(sorted(set(away)))}"] * bool(away)
        lines.append(f"{entry:28} {', '.join(left)} (of {count})")
    done, left = sum(job.done(folder) for job in jobs.values()), [*todo, *(job for job, _ in left_out)]
    hours = {m: sum(job.minutes for job in left if job.machine == m) / 60 for m in MACHINES}
    lines.append(f"{done} of {len(jobs)} jobs are done, {len(todo)} to run here; all that is left: about "
                 f"{hours['cpu']:.0f} hours of a CPU core and {hours['gpu']:.0f} of a GPU")
    return "\n".join(lines)


def standing(jobs: dict[str, Job], folder: Path = RESULTS, path: Path = GRID) -> list[dict]:
    """A line for every entry: what it is, its tables, machine and data, jobs, those done, minutes a job."""
    entries, lines = read(path), []
    for name, entry in entries.items():
        own = [job for job in jobs.values() if job.entry == name]
        data = sorted({word for job in own for word in job.data if not word.isupper()})
        lines.append({"entry": name, "what": entry["what"], "tables": entry.get("tables", {}),
                      "machine": own[0].machine, "data": data,
                      "jobs": len(own), "done": sum(job.done(folder) for job in own), "minutes": entry["minutes"]})
    return lines


def run(job: Job, folder: Path, work: Path, out: Path) -> None:
    """Run a job's notebook; RuntimeError where it ended without writing what the grid says it writes."""
    import run_notebook

    given = {"folder": str(folder), "work": str(work), **job.parameters}
    known = run_notebook.known_parameters(job.notebook)
    given = {key: value for key, value in given.items() if key != "work" or key in known}
    run_notebook.run(job.notebook, run_notebook.read_parameters(job.notebook, given), out)
    if lacking := [name for name in job.writes if not (folder / name).is_file()]:
        raise RuntimeError(f"{job.name} ended well, but wrote no {', '.join(lacking)}: mend `writes` in the grid")


def write_index(folder: Path) -> None:
    """INDEX.json of a results folder; of the repository's own all that follows from it (`make index`)."""
    if folder == RESULTS:
        import runpy

        runpy.run_path(str(ROOT / "tools" / "refresh.py"), run_name="__main__")
        return
    from cdimlib import report
    from cdimlib.training import save_atomically

    text = json.dumps(report.index(folder), indent=1)
    save_atomically(folder / "INDEX.json", lambda part: part.write_text(text + "\n"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("list", "run", "index"))
    parser.add_argument("job", nargs="?", help="for run: the job's name")
    for name, default in (("grid", GRID), ("folder", RESULTS), ("work", WORK), ("out", ROOT / "runs")):
        parser.add_argument(f"--{name}", type=Path, default=default)
    parser.add_argument("--only", default="")
    parser.add_argument("--machine", default="any")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    try:
        if options.command == "index":
            write_index(folder)
            return 0
        jobs = all_jobs(options.grid)
        if options.command == "list":
            print(summary(*plan(jobs, folder, only=options.only, machine=options.machine), jobs, folder))
        elif options.job not in jobs:
            raise ValueError(f"the grid has no job {options.job!r}")
        else:
            os.environ.setdefault("CDIM_PROFILE", "full")
            run(jobs[options.job], folder, options.work.resolve(), options.out.resolve())
    except (ValueError, RuntimeError) as error:
        print(f"grid: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
