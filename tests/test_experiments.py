"""Experiments: every row of both tracks runs from benchmark to result; grids resume."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cdimlib import experiments as ex
from cdimlib import pretraining, results
from cdimlib.csn_experiments import CSNRun
from cdimlib.data import load
from cdimlib.pretraining import Pretraining, load_pretrained, never_held_out, pretrain
from cdimlib.training import fit

TINY = dict(benchmark="toy-shop", size=81, steps=2, batch=4, evaluations=1, validation=0.2)


@pytest.mark.parametrize("row", [r for r in ex.ROWS if not r.startswith("inception")])
def test_every_row_takes_a_training_step(row):
    run = ex.SketchRun(row, **TINY)
    bench = ex.on_canvas(load("toy-shop", size="tiny"), run.input)
    model = ex.build(run)
    before = {k: v.clone() for k, v in model.named_parameters()}
    loss = ex.modern_objective(run)(model, ex.modern_batches(run, bench.train, torch.device("cpu"))(0, 0))
    loss.backward()
    still = [k for k, v in model.named_parameters() if v.grad is None]
    assert loss.isfinite() and not still, f"no gradient reaches {still}"
    assert before.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("track", ["modern", "faithful"])
def test_a_run_from_benchmark_to_result(track, tmp_path, monkeypatch):
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    run = ex.SketchRun("ours", track, **{**TINY, "benchmark": "toy-shop/shoes"})
    result, _ = ex.run_sketch(run, progress=False)
    path = results.save(result, tmp_path)
    metrics = json.loads(path.read_text())["metrics"]["shoes"]
    assert 0 <= metrics["acc@1"] <= metrics["acc@10"] <= 100
    assert len(metrics["first_rank"]) == result["data"]["test_queries"]
    assert result["curve"]["best_step"] == 2 and len(result["curve"]["test_single_view"]) == 1
    again, _ = ex.run_sketch(run, progress=False)
    assert again["metrics"] == result["metrics"], "the same configuration must give the same numbers"


def test_a_table_of_sketches_without_categories(tmp_path):
    """It is one category; and its grid, named by the table's path, counts as done."""
    shop, rows = load("toy-shop/shoes", size="tiny", pixels=64), ["path,id,split,camera"]
    for name in ("train", "query", "gallery"):
        split = getattr(shop, name)
        for n, (image, identity, cam) in enumerate(zip(split.images, split.ids, split.cams)):
            Image.fromarray(image[0].numpy()).save(tmp_path / f"{name}{n}.png")
            rows.append(f"{name}{n}.png,{identity},{name},{cam}")
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    run = ex.SketchRun("vanilla", **{**TINY, "benchmark": f"table:{tmp_path}/mine.csv"})
    (result,) = ex.run_grid([run], folder=tmp_path, progress=False)
    assert list(result["metrics"]) == [run.benchmark] and result["curve"]["validation"][0][1] > 0
    assert len(result["metrics"][run.benchmark]["first_rank"]) == len(shop.query)
    assert ex.run_grid([run], folder=tmp_path, progress=False) == []


def test_the_faithful_track_refuses_pooled_categories(monkeypatch):
    """Their triplets are judgements within one category, and pooling drops them."""
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    with pytest.raises(ValueError, match="trains on one category, .* has 3: name one, such as toy-shop/shoes"):
        ex.run_sketch(ex.SketchRun("ours", "faithful", **TINY), progress=False)


def test_the_curve_of_a_resumed_run_is_whole(tmp_path, monkeypatch):
    """Each validation keeps its look at the test set, those before the interruption included."""
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    run = ex.SketchRun("vanilla", **{**TINY, "benchmark": "toy-shop/shoes", "evaluations": 2})
    first, _ = ex.run_sketch(run, work=tmp_path, progress=False)
    again, _ = ex.run_sketch(run, work=tmp_path, progress=False)
    assert len(again["curve"]["test_single_view"]) == len(again["curve"]["validation"]) == 2
    assert again["curve"] == first["curve"] and again["metrics"] == first["metrics"]


def test_nothing_held_out_means_all_trained_on_and_the_last_weights(monkeypatch):
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    bench = load("toy-shop/shoes", size="tiny")
    run = ex.SketchRun("vanilla", **{**TINY, "benchmark": "toy-shop/shoes", "evaluations": 2, "validation": 0.0})
    seen = []
    monkeypatch.setattr(ex, "modern_batches", lambda run, split, device, make=ex.modern_batches: (
        seen.append(split), make(run, split, device))[1])
    result, _ = ex.run_sketch(run, bench=bench, progress=False)
    assert [split.digest for split in seen] == [ex.on_canvas(bench, run.input).train.digest]
    assert result["data"]["held_out_images"] == 0 and result["data"]["train_images"] == len(bench.train)
    assert result["curve"]["best_step"] == 2 and result["curve"]["validation"] == []
    assert never_held_out(bench, 0.0, seed=0) is bench.train
    assert "-all" in result["budget"] and "-all" not in replace(run, validation=0.1).budget
    with pytest.raises(ValueError, match=r"validation must lie between 0 and 1 \(got 1.0\)"):
        replace(run, validation=1.0)


def test_a_checkpoint_is_of_its_settings_and_data(tmp_path, monkeypatch):
    """What the trainer's own configuration does not hold (warp, corrected labels) keeps a run apart, too."""
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    run = ex.SketchRun("vanilla", **{**TINY, "benchmark": "toy-shop/shoes"})
    bench = load("toy-shop/shoes", size="tiny")
    relabelled = replace(bench, train=replace(bench.train, ids=np.roll(bench.train.ids, 2)))
    for a, b in ((run, bench), (replace(run, warp=2.0), bench), (run, relabelled)):
        ex.run_sketch(a, bench=b, work=tmp_path, progress=False)
    assert len(list(tmp_path.glob("*.pt"))) == 3


def test_held_out_and_test_identities_are_never_trained_on():
    whole = load("toy-shop", size="tiny")
    bench = whole.with_validation(0.2, seed=0)
    train = set(bench.train.ids.tolist())
    assert not train & set(bench.query.ids.tolist()) and not train & set(whole.query.ids.tolist())


def test_a_grid_resumes_and_refuses_other_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    runs = [ex.SketchRun(row, **{**TINY, "benchmark": "toy-shop/chairs", "steps": 1}) for row in ("vanilla", "gap")]
    assert len(ex.run_grid(runs[:1], folder=tmp_path, work=tmp_path / "work", progress=False)) == 1
    done = ex.run_grid(runs, folder=tmp_path, work=tmp_path / "work", progress=False)
    assert [r["row"] for r in done] == ["gap"], "the finished run must be skipped"
    assert not list((tmp_path / "work").iterdir()), "checkpoints of finished runs are removed"
    with pytest.raises(ValueError, match="other settings"):
        ex.run_grid([replace(runs[0], lr=1.0)], folder=tmp_path, progress=False)


def test_pretraining_is_loaded_and_a_misfit_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    path = pretrain(Pretraining("toy-shop", size=81, steps=1, batch=4), tmp_path / "net.pt", progress=False)
    model = ex.build(ex.SketchRun("vanilla", "faithful", size=81))
    load_pretrained(model, path)
    state = torch.load(path, weights_only=True)["net"]
    assert torch.equal(model.net.conv5.weight, state["conv5.weight"])
    with pytest.raises(ValueError, match="does not fit"):
        load_pretrained(ex.build(ex.SketchRun("vanilla", "faithful", size=105)), path)
    with pytest.raises(FileNotFoundError, match="pretrain"):
        load_pretrained(model, tmp_path / "none.pt")


def test_a_run_starts_from_its_own_pretraining(tmp_path, monkeypatch):
    """Done once for all rows and categories of a seed, named in the budget, and resumed where it was stopped."""
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    run = ex.SketchRun("vanilla", "faithful", **{**TINY, "benchmark": "toy-shop/shoes", "init": "pretrained-2x4"})
    assert run.pretraining == Pretraining("toy-shop", 0, 81, 2, 4, validation=run.validation)
    assert run.budget == "tiny-pretrained-2x4-81px-2x4" and replace(run, init="random").pretraining is None
    calls, began = [], {}
    monkeypatch.setattr(pretraining, "pretrain", lambda plan, path, make=pretrain, **more: (
        calls.append(plan.seed), make(plan, path, **more))[1])

    def noted(model, *args, **more):
        began.setdefault(more["label"], model.state_dict()["net.conv5.weight"].clone())
        return fit(model, *args, **more)

    for module in (ex, pretraining):
        monkeypatch.setattr(module, "fit", noted)
    first, _ = ex.run_sketch(run, work=tmp_path, progress=False)
    ex.run_sketch(replace(run, row="ours", benchmark="toy-shop/chairs"), work=tmp_path, progress=False)
    (path,) = tmp_path.glob("pretrained-*")
    assert calls == [0], "another row and category of the seed start from the same weights"
    learned = torch.load(path, weights_only=True)["net"]["conv5.weight"]
    assert torch.equal(began["vanilla s0"], learned) and torch.equal(began["ours s0"], learned)
    assert not torch.equal(began["pretrain s0"], learned)
    again, _ = ex.run_sketch(run, progress=False)
    assert calls == [0, 0] and again["metrics"] == first["metrics"], "without a folder it is done anew, and alike"


def test_a_stopped_pretraining_goes_on(tmp_path, monkeypatch):
    bench, plan = load("toy-shop/shoes", size="tiny"), Pretraining("toy-shop/shoes", size=81, steps=3, batch=4)
    whole = torch.load(pretrain(plan, tmp_path / "whole.pt", bench=bench, progress=False), weights_only=True)
    done = []

    def stopping(model, batches, objective, config, **more):
        def batch(seed, step):
            if step == 2 and not done:
                done.append(step)
                raise KeyboardInterrupt
            return batches(seed, step)
        return fit(model, batch, objective, replace(config, checkpoint_every=1), **more)

    monkeypatch.setattr(pretraining, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(plan, tmp_path / "net.pt", bench=bench, progress=False)
    assert list(tmp_path.glob("*.partial")) and not (tmp_path / "net.pt").exists()
    found = torch.load(pretrain(plan, tmp_path / "net.pt", bench=bench, progress=False), weights_only=True)
    assert all(torch.equal(value, found["net"][name]) for name, value in whole["net"].items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt", "whole.pt"]


def test_pretraining_sees_nothing_that_is_held_out_later(monkeypatch):
    """Neither the cut of all categories together nor that of one."""
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    whole = load("toy-shop")
    trained = set(never_held_out(whole, 0.1, seed=3).ids.tolist())
    for bench in (whole, *(part for _, part in whole.by_category())):
        cut = bench.with_validation(0.1, seed=3)
        assert trained and not trained & set(cut.query.ids.tolist()) and not trained & set(whole.query.ids.tolist())
    alone, within = load("toy-shop/chairs").with_validation(0.1, seed=3), dict(whole.by_category())["chairs"]
    assert torch.equal(alone.query.images, within.with_validation(0.1, seed=3).query.images), "loaded alone or not"


def test_faithful_dssa_trains_its_distance(monkeypatch):
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    run = ex.SketchRun("dssa", "faithful", "toy-shop/shoes", size=81, batch=4)
    model, bench = ex.build(run), ex.on_canvas(load("toy-shop/shoes"), run.input)
    ex.faithful_objective(run)(model, ex.faithful_batches(run, bench, torch.device("cpu"))(0, 0)).backward()
    assert model.weight.grad.abs().sum() > 0


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="unknown row 'our'"):
        ex.SketchRun("our")
    with pytest.raises(ValueError, match="track"):
        ex.SketchRun("ours", "best")
    with pytest.raises(ValueError, match="ImageNet"):
        ex.SketchRun("ours", init="imagenet")
    with pytest.raises(ValueError, match="unknown init 'some.pt': give .* such as 'pretrained-400x128'"):
        ex.SketchRun("ours", "faithful", init="some.pt")
    with pytest.raises(ValueError, match="init='pretrained-1x4' does not fit"):
        ex.SketchRun("inception", "faithful", init="pretrained-1x4")
    with pytest.raises(ValueError, match="is of the faithful track"):
        ex.SketchRun("ours", init="pretrained-1x4")
    with pytest.raises(ValueError, match="evaluations must be at least 1"):
        ex.SketchRun("ours", evaluations=0)


def test_main_budget_is_the_one_with_most_rows():
    runs = [{"track": "modern", "budget": b, "row": r, "seed": 0} for b, r in [("a", "x"), ("b", "x"), ("b", "y")]]
    assert ex.main_budget(runs) == "b"
    with pytest.raises(ValueError, match="no results"):
        ex.main_budget([])


def test_table_rows_exist():
    """Every method a table maps to is a row that can be run, here or among the classical ones."""
    from cdimlib.baselines import ROWS as CLASSICAL

    for table, methods in ex.TABLES.items():
        printed = set(results.paper_table("midlevel-fusion", table)["method"])
        assert set(methods) == printed
        assert set(methods.values()) <= set(ex.ROWS) | set(CLASSICAL)
        assert np.all([isinstance(m, str) for m in methods])


@pytest.mark.parametrize("run", [ex.SketchRun("ours"), CSNRun("L3")], ids=["sketches", "pairs"])
def test_asked_precision_names_a_run_apart(run):
    half = replace(run, precision="bf16")
    assert "precision" not in run.settings and half.settings["precision"] == "bf16"  # kept results stay
    assert half.budget == f"{run.budget}-bf16" and results.path_of(half.stub) != results.path_of(run.stub)


def test_precision_is_that_of_training():
    """Half precision moves the loss a little, and the result says what it was."""
    run, bench = ex.SketchRun("ours", **TINY), load("toy-shop", size="tiny")
    both = (run, replace(run, precision="bf16"))
    (plain, _), (half, _) = (ex.run_sketch(r, bench=bench, progress=False) for r in both)
    assert (plain["precision"], half["precision"]) == ("fp32", "bf16")
    one, other = plain["curve"]["loss"], half["curve"]["loss"]
    assert one != other and one[0] == pytest.approx(other[0], rel=0.02)


def test_a_result_says_how_large_a_toy_shop_was(monkeypatch):
    """Else one of a small profile would be taken for one of the full profile, and nothing be trained."""
    run, names = ex.SketchRun("vanilla", benchmark="toy-shop"), set()
    for name in ("smoke", "demo", "full"):
        monkeypatch.setenv("CDIM_PROFILE", name)
        names.add(results.path_of(run.stub, ".").name)
    assert names == {f"modern-vanilla-toy-shop-{world}-141px-200x48-s0.json" for world in ("tiny", "demo", "full")}
    assert replace(run, benchmark="qmul").budget == "141px-200x48"


def test_dssa_compares_in_single_precision(monkeypatch):
    """Near and far energies differ by less than what bf16 can tell apart."""
    monkeypatch.setenv("CDIM_PROFILE", "smoke")
    run = ex.SketchRun("dssa", "faithful", "toy-shop/shoes", size=81, batch=4)
    model, seen = ex.build(run), []
    monkeypatch.setattr(model, "pair_energy", lambda a, b, own=model.pair_energy: (
        seen.append((own(a, b).dtype, (a @ b.T).dtype)), own(a, b))[1])
    batch = ex.faithful_batches(run, ex.on_canvas(load("toy-shop/shoes"), run.input), torch.device("cpu"))(0, 0)
    with torch.autocast("cpu", torch.bfloat16):
        ex.faithful_objective(run)(model, batch)
    assert seen == [(torch.float32, torch.float32)] * 2
