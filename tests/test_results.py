"""Results: written, read and compared; intervals against a plain bootstrap."""

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cdimlib import results
from cdimlib.csn_experiments import CSNRun
from cdimlib.experiments import SketchRun
from cdimlib.ladder import LadderRun
from cdimlib.people_experiments import PersonRun
from cdimlib.qaconv_experiments import MatchRun

ROOT = Path(__file__).resolve().parents[1]


def make(row="ours", seed=0, ranks=(1, 2, 1, 11), **more):
    ranks = list(ranks)
    metrics = {"shoes": {
        "acc@1": 100 * float(np.mean(np.array(ranks) <= 1)), "acc@10": 100 * float(np.mean(np.array(ranks) <= 10)),
        "first_rank": ranks,
    }}
    return {
        "paper": "midlevel-fusion", "row": row, "track": "modern", "budget": "8px-1x1", "seed": seed, "config": {},
        "data": {"name": "toy"}, "metrics": metrics, "wall_seconds": 1.0, **results.machine("cpu"), **more,
    }


def test_save_and_load_round_trip(tmp_path):
    path = results.save(make(), tmp_path)
    assert path.name == "modern-ours-toy-8px-1x1-s0.json"
    assert '"first_rank": [1, 2, 1, 11]' in path.read_text()
    (back,) = results.load("midlevel-fusion", tmp_path)
    assert back == json.loads(json.dumps(make()))
    assert results.load("midlevel-fusion", tmp_path, row="vanilla") == []
    assert len(results.load("midlevel-fusion", tmp_path, budget=["8px-1x1", "other"])) == 1


def test_a_result_names_its_machine():
    machine = results.machine("cpu")
    assert {"device", "versions", "commit", "date"} <= machine.keys() and "torch" in machine["versions"]


def test_what_a_plan_will_cost(tmp_path, monkeypatch):
    """The median of committed runs of the same row, data and budget; other rows and data do not count."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    for seed, (row, seconds) in enumerate((("ours", 60), ("ours", 120), ("ours", 600), ("vanilla", 6000))):
        results.save({**make(seed=seed), "row": row, "wall_seconds": seconds, "device": "CPU, 1 thread(s)"})
    stub = make()
    assert results.took(SimpleNamespace(stub=stub)) == "took 2.0 min on CPU"
    assert results.took(SimpleNamespace(stub={**stub, "data": {"name": "other"}})) == "not timed yet"


def test_missing_fields_are_named(tmp_path):
    broken = make()
    del broken["seed"], broken["device"]
    with pytest.raises(ValueError, match="lacks seed, device"):
        results.save(broken, tmp_path)
    broken = make()
    del broken["metrics"]["shoes"]["first_rank"]
    with pytest.raises(ValueError, match="shoes"):
        results.check(broken)


@pytest.mark.parametrize("make", [lambda: PersonRun("vanilla"), CSNRun, MatchRun])
def test_a_result_says_how_large_a_toy_town_was(make, monkeypatch):
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    tiny = make()
    monkeypatch.setenv("CDIM_PROFILE", "demo")
    assert [run.stub["config"]["size"] for run in (tiny, make())] == ["tiny", "demo"]
    assert replace(tiny, benchmark="cuhk03-np", size=None).size is None


@pytest.mark.parametrize("kind", [SketchRun, PersonRun, CSNRun, MatchRun, LadderRun])
def test_what_every_run_refuses(kind):
    first = {} if kind in (CSNRun, MatchRun) else {"row": "vanilla"}
    run = kind(**first, **({} if kind is SketchRun else {"pixels": [96, 48]}))
    assert kind is SketchRun or run.pixels == (96, 48)
    with pytest.raises(ValueError, match=r"validation must lie between 0 and 1 \(got 1.5\): the share of training"):
        replace(run, validation=1.5)
    with pytest.raises(ValueError, match=r"unknown (row|variant) 'nothing': choose from '"):
        replace(run, **{"variant" if kind is CSNRun else "row": "nothing"})
    if kind is not SketchRun:
        with pytest.raises(ValueError, match="names a benchmark twice, or 'toytown-plaza', the run's own"):
            replace(run, also=["toytown-plaza"])
    for name in {"evaluations", "draws", "every"} & vars(run).keys():
        with pytest.raises(ValueError, match=rf"{name} must be at least 1 \(got 0\)"):
            replace(run, **{name: 0})


def test_broken_json_and_two_results_of_one_run_are_refused(tmp_path):
    path = results.save(make(), tmp_path)
    copy = path.with_name("again.json")
    copy.write_text(path.read_text())
    with pytest.raises(ValueError, match="two results of one run"):
        results.load("midlevel-fusion", tmp_path)
    copy.write_text("{")
    with pytest.raises(ValueError, match="again.json is not valid JSON"):
        results.load("midlevel-fusion", tmp_path)
    with pytest.raises(ValueError, match="again.json is not valid JSON"):
        results.is_done(copy, {}, "")
    copy.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="again.json lacks paper"):
        results.is_done(copy, {}, "")


def test_unknown_table_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no table 2.*\[3, 4, 5, 6, 7, 8, 9, 10, 11\]"):
        results.paper_table("midlevel-fusion", 2)


def test_compare_puts_paper_and_ours_side_by_side(tmp_path):
    for seed, ranks in enumerate([(1, 1, 1, 1), (1, 1, 2, 2)]):
        results.save(make(seed=seed, ranks=ranks), tmp_path)
    table = results.compare("midlevel-fusion", 9, {"Flattening (Ours)": "ours", "GAP": "gap"}, folder=tmp_path)
    ours = table.set_index("method").loc["Flattening (Ours)"]
    assert ours["paper acc@1"] == 64.35 and ours["seeds"] == 2
    assert ours["ours acc@1"] == f"75.0 ± {np.std([100, 50], ddof=1):.1f}"
    assert table.set_index("method").loc["GAP", "ours acc@1"] == "not run"


def test_gain_is_paired_and_its_interval_matches_a_plain_bootstrap(tmp_path):
    rng = np.random.default_rng(1)
    base = [make("vanilla", s, rng.integers(1, 4, 200)) for s in range(3)]
    ranks = lambda run: np.array(run["metrics"]["shoes"]["first_rank"])  # noqa: E731
    better = [make("ours", s, np.maximum(1, ranks(b) - 1)) for s, b in enumerate(base)]
    mean, low, high = results.gain(better, base, "shoes")
    hits = np.stack([(ranks(a) == 1) * 1.0 - (ranks(b) == 1) for a, b in zip(better, base, strict=True)])
    assert mean == pytest.approx(100 * hits.mean())
    draws = []
    for _ in range(300):
        queries = rng.integers(200, size=200)
        draws.append(np.mean([[hits[s, q] for q in queries] for s in rng.integers(3, size=3)]))
    plain = 100 * np.percentile(draws, [2.5, 97.5])
    assert low < mean < high and np.allclose([low, high], plain, atol=2.5)


def test_gain_over_splits_of_different_sizes():
    """Seeds that are random splits have different queries: each weighs by their number."""
    base = [make("vanilla", s, [2] * n) for s, n in enumerate((4, 6))]
    better = [make("ours", 0, [1] * 4), make("ours", 1, [1] * 3 + [2] * 3)]
    mean, low, high = results.gain(better, base, "shoes")
    assert mean == pytest.approx(70) and 20 < low < 70 < high <= 100


def test_gain_over_splits_of_one_size():
    """Query 3 of one split has nothing to do with query 3 of another, though each split has a hundred."""
    rng = np.random.default_rng(2)
    base = [make("vanilla", s, [2] * 100) for s in range(4)]
    better = [make("ours", s, np.where(np.arange(100) < 30, 1, 2)) for s in range(4)]  # the same 30 queries every time
    together = results.gain(better, base, "shoes")
    for s, run in enumerate(better):
        run["data"] = {**run["data"], "note": f"VIPeR, random split {s}, cam_a against cam_b"}
    apart = results.gain(better, base, "shoes")
    own = [np.mean([rng.choice(100, 100) < 30 for _ in range(4)]) for _ in range(2000)]  # each split resampled alone
    assert np.allclose(apart[1:], 100 * np.percentile(own, [2.5, 97.5]), atol=1)
    assert together[0] == apart[0] == pytest.approx(30) and together[2] - together[1] > 1.7 * (apart[2] - apart[1])


def test_gain_of_a_row_over_itself_is_nothing():
    runs = [make(seed=s, ranks=(1, 2, 3)) for s in range(2)]
    assert results.gain(runs, runs, None) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="share no seed"):
        results.gain(runs[:1], runs[1:], "shoes")
    for run in runs:
        run["metrics"]["chairs"] = {**run["metrics"]["shoes"], "first_rank": [2, 2, 1]}
    assert results.gain(runs, runs, "shoes", "chairs")[0] == results.gain(runs, runs, "chairs", "shoes")[0] == 0
    runs[0]["metrics"]["chairs"]["first_rank"] = [2, 2, 2]
    assert results.gain(runs, runs, "shoes", "chairs")[0] == pytest.approx(100 / 6)


def test_committed_results_are_whole_and_counted_right():
    """Accuracies follow from the ranks that are committed with them; queries are those of the test split."""
    runs = results.load("midlevel-fusion")
    assert runs, "data/results/midlevel-fusion holds no result"
    sizes = {"shoes": 115, "chairs": 97, "handbags": 168}
    for run in runs + results.load("feature-mask-network"):
        for name, values in run["metrics"].items():
            ranks = np.array(values["first_rank"])
            if name in sizes:
                assert len(ranks) == sizes[name] and ranks.min() >= 1 and ranks.max() <= sizes[name]
            ranks = ranks[ranks > 0]  # of people, those whose query has a match
            assert values["acc@1"] == pytest.approx(100 * (ranks == 1).mean())
            assert values["acc@10"] == pytest.approx(100 * (ranks <= 10).mean())


def test_compare_keeps_what_was_trained_on_another_set_of_the_table_apart(tmp_path):
    """A network of one real set that is judged on another is not that other set's row."""
    def run(name, metrics, seed=0):
        ranks = {key: {"acc@1": value, "acc@10": value, "first_rank": [1]} for key, value in metrics.items()}
        return {"paper": "feature-mask-network", "row": "fmn", "track": "t", "seed": seed, "config": {},
                "metrics": ranks, "data": {"name": name}, "wall_seconds": 1.0, "device": "CPU", "versions": {},
                "commit": "c"}  # fmt: skip

    results.save(run("market1501", {"market1501": 50.0, "dukemtmc-reid": 10.0}), tmp_path)
    line = lambda: results.compare("feature-mask-network", 3, {"FMN": "fmn"}, folder=tmp_path,  # noqa: E731
                                   datasets=["dukemtmc-reid"]).set_index("method").loc["FMN"]
    assert line()["ours acc@1"] == "not run"
    results.save(run("dukemtmc-reid", {"dukemtmc-reid": 40.0}), tmp_path)
    assert line()["ours acc@1"] == "40.0" and line()["seeds"] == 1


def test_benchmarks_are_read_from_every_file(tmp_path, monkeypatch):
    row = {"name": "plain", "seconds": 2.0, "faster": 1.0, "less CPU": 1.0, "peak MiB": 4.0, "smaller": 1.0}
    quick = row | {"name": "ours", "seconds": 0.5, "faster": 4.0, "pairs/s": 800.0}
    files = {"a": [{"title": "Search, small", "rows": [row, quick]}],
             "b": [{"title": "Search, large", "rows": [row]}, {"title": "Draw", "rows": [{"name": "x", "share": 3.0}]}]}
    (place := tmp_path / "results" / "bench").mkdir(parents=True)
    for name, tables in files.items():
        (place / f"{name}.json").write_text(json.dumps({"machine": f"m-{name}", "tables": tables}))
    monkeypatch.setattr(results, "ROOT", tmp_path)
    found = results.bench("Search")
    assert list(found.pop("machine")) == ["m-a", "m-a", "m-b"]
    assert list(found["task"]) == ["Search, small"] * 2 + ["Search, large"]
    assert found["times as fast"][1] == 4 and found["pairs/s"][1] == 800 and "less CPU" not in found
    assert results.bench("Draw").to_dict("records") == [{"task": "Draw", "version": "x", "share": 3}]
    assert results.bench("Draw").attrs["machine"] == "m-b"
    small, large = results.bench_tables("Search")
    assert small.caption == "Search, small" and list(small.data["version"]) == ["plain", "ours"]
    assert results.Tables([small, large])._repr_html_().count("<caption>") == 2
    with pytest.raises(ValueError, match="begins with 'Fly': run `make bench`"):
        results.bench("Fly")


def test_what_the_pages_show_of_benchmarks_was_measured():
    text = "".join(path.read_text(encoding="utf8") for path in sorted((ROOT / "book").rglob("*.ipynb")))
    asked = re.findall(r'results\.bench(?:_tables)?\(\\"(.+?)\\"\)', text)
    assert len(asked) >= 10
    for start in asked:
        assert len(results.bench(start)) >= 2, start


def test_compare_refuses_one_seed_under_two_budgets(tmp_path):
    """Their mean would be of no budget, and the count not of seeds."""
    for budget in ("8px-1x1", "8px-2x1"):
        results.save(make(budget=budget), tmp_path)
    rows = {"Flattening (Ours)": "ours"}
    with pytest.raises(ValueError, match=r"Flattening \(Ours\) on shoes: .* several budgets \(8px-1x1, 8px-2x1\)"):
        results.compare("midlevel-fusion", 9, rows, folder=tmp_path)
    assert results.compare("midlevel-fusion", 9, rows, folder=tmp_path, budget="8px-1x1")["seeds"].max() == 1


@dataclass(frozen=True)
class Run:
    """A run whose stub leaves ``optimizer`` out where it is the default."""

    lr: float = 0.1
    optimizer: str = "adamw"

    @property
    def stub(self):
        config = {"lr": self.lr} | ({} if self.optimizer == "adamw" else {"optimizer": self.optimizer})
        return {**make(), "config": config}


def test_settings_that_are_left_out_count(tmp_path):
    execute = lambda run: [run.stub]  # noqa: E731
    assert len(results.run_missing([Run(optimizer="adam")], execute, folder=tmp_path)) == 1
    assert results.run_missing([Run(optimizer="adam")], execute, folder=tmp_path) == []
    with pytest.raises(ValueError, match=r"other settings than \{'optimizer': 'adamw'\}"):
        results.run_missing([Run()], execute, folder=tmp_path)


def test_the_row_by_which_a_run_counts_as_done_is_saved_last(tmp_path, monkeypatch):
    """A kill between two rows must leave the run undone."""
    saved, save = [], results.save
    monkeypatch.setattr(results, "save", lambda r, folder: (saved.append(r["row"]), save(r, folder)))
    rows = lambda run: [{**run.stub, "row": row} for row in ("grn", "ours", "ours+rerank")]  # noqa: E731
    results.run_missing([Run()], rows, folder=tmp_path)
    assert saved == ["grn", "ours+rerank", "ours"]


def test_the_commit_is_that_of_this_library(tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "cdimlib").mkdir()
    (tmp_path / "cdimlib" / "x.py").write_text("")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(results, "ROOT", results._CHECKOUT)
    (tmp_path / "notes.txt").write_text("beside the library")
    assert results._commit(tmp_path) == head
    (tmp_path / "cdimlib" / "x.py").write_text("changed = True\n")
    assert results._commit(tmp_path) == f"{head}-dirty"
    monkeypatch.setattr(results, "ROOT", tmp_path)  # installed: the checkout around it is not its own
    assert results._commit(tmp_path) == "unknown"


def test_gain_leaves_out_what_both_rows_skip():
    """A query without a match by another camera counts in neither accuracy, nor in their difference."""
    better, base = make("ours", 0, [1, 1, 0, 0]), make("vanilla", 0, [1, 2, 0, 0])
    assert results.gain([better], [base], "shoes")[0] == pytest.approx(50)
    assert results.gain([make("ours", 0, [1, 1, 1, 0])], [base], "shoes")[0] == pytest.approx(100 * 2 / 3)
    with pytest.raises(ValueError, match="nothing to compare"):
        results.gain([make("ours", 0, [0, 0])], [make("vanilla", 0, [0, 0])], "shoes")


def test_the_first_row_is_of_one_budget(tmp_path):
    for budget in ("demo-128x64", "full-128x64"):
        run = make("colour-texture-metric", 0, [1], paper="people", track="classical", budget=budget)
        results.save(run | {"data": {"name": "toytown-plaza"}}, tmp_path)
    with pytest.raises(ValueError, match="several budgets .demo-128x64, full-128x64.: keep one"):
        results.first_row("toytown-plaza", tmp_path)
    assert results.first_row("toytown-campus", tmp_path) == []
