"""The grid of experiments: what it says of itself, and real runs of it by Snakemake with two jobs at a time."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
import run_notebook

from cdimlib import report, results

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "workflow"))
import grid  # noqa: E402

needs_snakemake = pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None, reason="snakemake is not installed (pip install -e '.[workflow]')"
)


@pytest.fixture(scope="module")
def jobs() -> dict[str, grid.Job]:
    return grid.all_jobs()


# ---------------------------------------------------------------------------------------------- the grid as data


def test_every_job_passes_what_its_notebook_knows(jobs):
    known = {job.notebook: run_notebook.known_parameters(job.notebook) for job in jobs.values()}
    for job in jobs.values():
        names = known[job.notebook]
        assert {*job.parameters, "folder"} <= names.keys(), job.name
        for name, text in job.parameters.items():
            run_notebook.parse_value(name, text, names[name])  # raises for a value of the wrong kind


def test_every_table_of_the_papers_has_an_entry():
    """All tables but those that need no run, each in an entry of the notebook that the report card names for it."""
    covered = defaultdict(set)
    for entry in grid.read().values():
        for paper, tables in entry.get("tables", {}).items():
            for table in tables:
                covered[paper, table].add(entry["notebook"])
    card = {(line["paper"], line["table"]): line for line in report.index()}
    assert set(covered) <= set(card)
    assert {key for key, line in card.items() if line["status"] != "computed"} == set(covered)
    for key, found in covered.items():
        assert {card[key]["experiment"], "midlevel_classical"} & found, f"{key} is run by {found}"


def test_every_data_set_of_a_table_is_in_the_grid(jobs):
    """Each data set that a table asks for is trained on or judged by some job of that table, under its own name."""
    entries, reached = grid.read(), defaultdict(set)
    for job in jobs.values():
        words = {*job.data, *(word for value in job.parameters.values() for word in value.replace(",", " ").split())}
        for paper, tables in entries[job.entry].get("tables", {}).items():
            for table in tables:
                reached[paper, table] |= words
    lacking = []
    for line in (line for line in report.index() if line["status"] != "computed"):
        there = {name for word in reached[line["paper"], line["table"]] for name in (word, word.split("/")[-1])}
        there |= {"shoes", "chairs", "handbags"} & ({"shoes", "chairs", "handbags"} if "qmul" in there else set())
        lacking += [(line["paper"], line["table"], name) for name in line["asked"] if name not in there]
    assert lacking == []


def test_words_are_those_of_results():
    """Else a grid's job would look for another file than its notebook writes."""
    for value in ("cuhk03/labeled", "L2,L3", "toytown-plaza blur=1", "table:/my data/people.csv"):
        stub = {"paper": PAPER, "track": "t", "row": "r", "seed": 0, "data": {"name": value}}
        assert results.path_of(stub, "x").name == f"t-r-{grid.word(value)}-s0.json"


def planned(job: grid.Job) -> dict[str, dict]:
    """File -> settings of what a job's notebook would run (its cells up to the plan are executed)."""
    cells = [c for c in nbformat.read(job.notebook, as_version=4).cells if c.cell_type == "code"][1:]
    names: dict = {}
    for cell in cells:
        exec(compile(cell.source, job.notebook.name, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= run_notebook.read_parameters(job.notebook, job.parameters)
        if "plan" in names:
            break
    found = {}
    for run in names["plan"]:
        found[results.path_of(run.stub, "here").relative_to("here").as_posix()] = run.stub["config"]
    return found


def test_jobs_write_where_the_grid_looks(jobs, monkeypatch):
    """One job of every entry whose notebook plans its runs, at full size: nothing is trained."""
    monkeypatch.setenv("CDIM_PROFILE", "full")
    firsts = {job.entry: job for job in reversed(jobs.values())}
    checked = 0
    for job in firsts.values():
        if "plan = [" in job.notebook.read_text(encoding="utf8"):
            assert planned(job).keys() == set(job.writes), job.name
            checked += 1
    assert checked > 30


def test_what_is_committed_was_run_as_the_grid_says(jobs, monkeypatch):
    """Else the grid could not make it again: a page may need what a run of other settings does not hold."""
    monkeypatch.setenv("CDIM_PROFILE", "full")
    ended = {job.entry: job for job in jobs.values() if job.done()}
    checked, other = 0, []
    for job in ended.values():
        for file, settings in planned(job).items() if "plan = [" in job.notebook.read_text(encoding="utf8") else ():
            checked += 1
            try:
                results.is_done(grid.RESULTS / file, settings, job.name)
            except ValueError as error:
                other.append(str(error))
    assert other == [] and checked > 10


def test_committed_results_are_recognised(jobs):
    """What was committed counts as done: names in the grid and on disk cannot drift apart unseen."""
    done = {job.entry for job in jobs.values() if job.done()}
    assert {"sketches", "sketches-classical", "people-classical-plaza", "fusion-plaza", "masks-plaza", "masks-cuhk03",
            "multilevel-plaza", "qaconv-plaza", "qaconv-campus", "time-market", "ladder-vectors"} <= done  # fmt: skip


def write_grid(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf8")
    return path


ENTRY = """a: {what: x, notebook: multilevel, each: {rows: ['L2,L3', L3], seeds: [0]}, minutes: 1, writes: '%s',
    after: {rows: L3}}
"""
OTHERS = """b: {what: y, notebook: multilevel, each: {seeds: [0]}, minutes: 9, machine: gpu, writes: b.json}
c: {what: z, notebook: multilevel, each: {benchmark: [cuhk01]}, data: ['{benchmark}'], minutes: 1, writes: c.json}
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {what: x, notebook: n, each: {}, minutes: 1}\n", "'a' lacks writes"),
        (ENTRY.replace("what", "tracks: 1, what") % "{rows}.json", "unknown fields tracks"),
        (ENTRY.replace("what", "machine: tpu, what") % "{rows}.json", "cpu or gpu, not 'tpu'"),
        (ENTRY % "same.json", "would both write same.json"),
        (ENTRY.replace("{rows: L3}", "{rows: L9}") % "{rows}.json", "which is not in the grid"),
    ],
)
def test_a_fault_in_the_grid_is_named(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        grid.all_jobs(write_grid(tmp_path / "grid.yaml", text))


def test_the_plan_leaves_out_what_is_done_or_cannot_run_here(tmp_path):
    jobs = grid.all_jobs(write_grid(tmp_path / "grid.yaml", ENTRY % "{rows}.json" + OTHERS))
    assert list(jobs) == ["a.L2_L3.0", "a.L3.0", "b.0", "c.cuhk01"]
    assert jobs["a.L2_L3.0"].after == ("a.L3.0",) and jobs["a.L3.0"].after == ()
    assert jobs["a.L2_L3.0"].parameters == {"rows": "L2,L3", "seeds": "0"} and jobs["c.cuhk01"].data == ("cuhk01",)
    names = lambda part: [job.name for job in part]  # noqa: E731
    todo, left_out = grid.plan(jobs, tmp_path, found=lambda name: False)
    assert names(todo) == ["a.L2_L3.0", "a.L3.0"]
    assert [(job.name, why) for job, why in left_out] == [("b.0", "wants a GPU"), ("c.cuhk01", "needs cuhk01")]
    (tmp_path / "L3.json").touch()
    todo, _ = grid.plan(jobs, tmp_path, machine="any", found=lambda name: True)
    assert names(todo) == ["a.L2_L3.0", "b.0", "c.cuhk01"]
    assert names(grid.plan(jobs, tmp_path, only="b, a.L2*", machine="any")[0]) == ["a.L2_L3.0", "b.0"]
    with pytest.raises(ValueError, match="no entry or job .d."):
        grid.plan(jobs, tmp_path, only="d")
    said = grid.summary(todo, [], jobs, tmp_path)
    assert f"{'b':28} 1 to run, 9 min (of 1)" in said and "1 of 4 jobs are done, 3 to run here" in said


# ---------------------------------------------------------------------------------------------- real runs


PAPER = "multilevel-similarity"


class Place:
    """A grid of its own with folders for everything it writes."""

    PARAMETERS = "rows = ''\nfolder = ''\nwork = ''"
    #: "one" and "two" wait for each other, so that they only end if both run at once; "breaks" does until it is mended
    RUN = """
import json, pathlib, time
folder, work = pathlib.Path(folder), pathlib.Path(work)
(work / f"started-{rows}").touch()
while rows in ("one", "two") and not all((work / f"started-{name}").exists() for name in ("one", "two")):
    time.sleep(0.1)
if rows == "breaks" and not (work / "mended").exists():
    raise RuntimeError("this row breaks")
while rows == "later" and (work / "hold").exists():
    time.sleep(0.1)
result = json.loads((work / "template.json").read_text()) | {"row": rows}
part = folder / "multilevel-similarity" / f"{rows}.part"
part.parent.mkdir(parents=True, exist_ok=True)
part.write_text(json.dumps(result))
part.rename(part.with_suffix(".json"))"""

    def __init__(self, home: Path, rows: dict[str, str], more: str = ""):
        self.home, self.folder, self.work = home, home / "results", home / "work"
        self.work.mkdir(parents=True)
        cells = [nbformat.v4.new_code_cell(self.PARAMETERS, metadata={"tags": ["parameters"]}),
                 nbformat.v4.new_code_cell(self.RUN)]  # fmt: skip
        nbformat.write(nbformat.v4.new_notebook(cells=cells), home / "run.ipynb")
        template = dict.fromkeys(results.REQUIRED, "") | {"paper": PAPER, "seed": 0, "track": "t"}
        template |= {"data": {"name": "cuhk03"}, "metrics": {"cuhk03": {"acc@1": 1, "acc@10": 1, "first_rank": [1]}}}
        (self.work / "template.json").write_text(json.dumps(template))
        entry = f"{{what: x, notebook: %s, each: {{rows: [%s]}}, minutes: 1, writes: '{PAPER}/{{rows}}.json'%s}}\n"
        text = "".join(f"{name}: " + entry % (home / "run.ipynb", *spec) for name, spec in rows.items())
        self.grid = write_grid(home / "grid.yaml", text + more)

    def start(self, *more: str) -> subprocess.Popen:
        """Snakemake as `make grid` calls it, two jobs at a time, in a process group of its own."""
        settings = dict(grid=self.grid, folder=self.folder, work=self.work, out=self.home / "out")
        flow = ROOT / "workflow"
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(flow / "Snakefile"), "--cores", "2",
                   "--profile", str(flow / "profiles" / "local"), "--directory", str(self.home / "state"), *more,
                   "--config", *(f"{name}={value}" for name, value in settings.items())]  # fmt: skip
        self.log = self.home / "log.txt"
        with open(self.log, "w") as log:
            # Where the tests run in the background Ctrl-C is ignored, and children would inherit that.
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home, start_new_session=True,
                                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                                    env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip

    def finish(self, process: subprocess.Popen) -> int:
        try:
            return process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise

    def interrupt(self, process: subprocess.Popen, once: Path, with_signal: int) -> None:
        """Send a signal to the whole group once a file is there, as Ctrl-C or a power cut would."""
        deadline = time.time() + 300
        while not once.exists() and process.poll() is None and time.time() < deadline:
            time.sleep(0.05)
        assert once.exists() and process.poll() is None, self.log.read_text()
        os.killpg(process.pid, with_signal)
        assert self.finish(process) != 0

    def done(self) -> set[str]:
        return {path.stem for path in self.folder.rglob("*.json")} - {"INDEX"}

    def runs(self) -> int:
        """Notebooks that were started: each leaves a copy."""
        return len(list((self.home / "out").glob("*.ipynb")))


ROWS = {"a": ("one, two", ""), "b": ("breaks, later", ", after: {rows: breaks}")}


@needs_snakemake
def test_two_interrupted_grids_resume_and_end_with_the_same_index(tmp_path):
    """A failing job stops only what comes after it, what is done is skipped, Ctrl-C and a power cut lose nothing."""
    first = Place(tmp_path / "first", ROWS)
    assert first.finish(first.start()) != 0
    said = first.log.read_text()
    assert first.done() == {"one", "two"} and not (first.work / "started-later").exists(), said
    assert "this row breaks" in said and not (first.folder / "INDEX.json").exists()
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.json")}
    (first.work / "mended").touch()
    (first.work / "hold").touch()
    first.interrupt(first.start(), first.work / "started-later", signal.SIGINT)  # Ctrl-C
    assert first.done() == {"one", "two", "breaks"}
    (first.work / "hold").unlink()
    assert first.finish(first.start()) == 0, first.log.read_text()
    assert first.done() == {"one", "two", "breaks", "later"} and first.runs() == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done was run again"

    second = Place(tmp_path / "second", ROWS)
    (second.work / "mended").touch()
    second.interrupt(second.start(), second.work / "started-breaks", signal.SIGKILL)  # a power cut
    assert second.done() < {"one", "two", "breaks", "later"}
    assert second.finish(second.start("--unlock")) == 0
    assert second.finish(second.start()) == 0, second.log.read_text()
    index = (second.folder / "INDEX.json").read_text()
    assert json.loads(index) and index == (first.folder / "INDEX.json").read_text()


def test_make_grid_passes_its_settings_on(root):
    said = subprocess.run(["make", "--no-print-directory", "-n", "grid", "JOBS=3", "ONLY=masks-*", "DRY=--dry-run"],
                          cwd=root, capture_output=True, text=True, timeout=300).stdout  # fmt: skip
    for words in ("--profile workflow/profiles/local", "--cores 3", "--dry-run", 'only="masks-*"', 'machine="cpu"'):
        assert words in said


@needs_snakemake
def test_a_real_experiment_through_the_grid(tmp_path):
    """An experiment of the book in its smallest form; when its result is deleted it runs again."""
    entry = """real: {what: x, notebook: people_classical, each: {rows: [colour], seeds: [0]}, minutes: 1,
  set: {benchmark: toytown-plaza, targets: '', size: tiny, pixels: 64 32}, data: [toytown-plaza],
  writes: 'people/classical-{rows}-toytown-plaza-tiny-64x32-s{seeds}.json'}\n"""
    place = Place(tmp_path, {}, entry)
    assert place.finish(place.start()) == 0, place.log.read_text()
    (result,) = results.load("people", place.folder)
    assert result["row"] == "colour" and place.runs() == 1
    (job,) = grid.all_jobs(place.grid).values()
    assert job.done(place.folder) and (tmp_path / "state" / "done" / "cpu" / job.name).exists()
    (place.folder / job.writes[0]).unlink()
    assert place.finish(place.start("--dry-run")) == 0 and f"job={job.name}" in place.log.read_text()


@needs_snakemake
@pytest.mark.parametrize("name", ["local", "slurm", "cloud"])
def test_profiles_are_options_that_snakemake_knows(name, root):
    """Every key of a profile is an option of Snakemake, or of an executor or storage plugin that is named beside it."""
    import yaml

    settings = yaml.safe_load((root / "workflow" / "profiles" / name / "config.yaml").read_text(encoding="utf8"))
    command = [sys.executable, "-m", "snakemake", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    known = set(re.findall(r"--([a-z][a-z-]+)", told))
    assert {key for key in settings if key not in known and not key.startswith("kubernetes-")} == set()
    rules = set(settings.get("set-resources", {})) | set(settings.get("set-threads", {}))
    assert rules <= {"cpu_job", "gpu_job", "index"}
