"""The ladder: one run climbs every rung, costs are counted on known models, tables say what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdimlib import ladder, people_experiments, plots_ladder
from cdimlib import results as store
from cdimlib.data import load
from cdimlib.data.samplers import CrossViewPairSampler
from cdimlib.ladder import LadderRun
from cdimlib.models.colour import ColourTexture, PairMetric
from cdimlib.models.csn import ConvSimilarityNet, part_sizes
from cdimlib.models.matcher import VectorMatcher
from cdimlib.models.midlevel import PersonFusion
from cdimlib.models.qaconv import PooledMaps, QAConv
from cdimlib.retrieval import encode, k_reciprocal, rank_metrics, similarity, temporal_lift

TINY = dict(size="tiny", epochs=0.1, pixels=(64, 32), pair_pixels=(64, 24), weights=None)
TWO = [f"{base} K={k}" for base in ("+tlift", "+rerank+tlift") for k in ladder.K]


class Mean(VectorMatcher):
    """The mean colour of an image, and a classifier that no search needs."""

    def __init__(self):
        super().__init__()
        self.fc, self.classifier = torch.nn.Linear(3, 5), torch.nn.Linear(5, 7)

    def encode(self, images):
        return self.fc(images.mean(dim=(2, 3)) / 255)


@pytest.fixture(scope="module")
def towns():
    return {name: load(name, size="tiny", pixels=(64, 32)) for name in ladder.TOWNS}


class TestRuns:
    def test_unknown_row(self):
        with pytest.raises(ValueError, match="unknown row 'fusoin': choose from 'colour-texture', "):
            LadderRun("fusoin")

    def test_every_query_or_every_other_but_not_none(self):
        with pytest.raises(ValueError, match=r"every must be at least 1 \(got 0\)"):
            LadderRun("L2,L3", every=0)

    def test_every_row_belongs_to_one_experiment_and_has_a_rate_if_it_learns(self):
        from cdimlib import baselines, csn_experiments, people_experiments, qaconv_experiments

        owners = (baselines.PEOPLE, csn_experiments.VARIANTS, people_experiments.ROWS, qaconv_experiments.ROWS)
        assert all(sum(row in rows for rows in owners) == 1 for row in ladder.ROWS)
        assert {row for row in ladder.ROWS if row not in baselines.PEOPLE} == set(ladder.RATES)

    def test_budgets_join_those_of_qaconv(self):
        assert LadderRun("vanilla").stub["budget"] == "demo-squeezenet1_1-128x64-2ep"
        assert [LadderRun(row).stub["track"] for row in ("colour-texture", "L2,L3", "fmn")] == [
            "classical", "scratch", "imagenet"]  # fmt: skip

    @pytest.mark.parametrize("row", ["fmn", "qaconv", "L2,L3", "colour-texture-metric"])
    def test_what_is_trained_and_what_it_saw(self, row):
        run = LadderRun(row, **{**TINY, "epochs": 0.3})
        bench = run.load(run.benchmark)
        matcher, prepare, seen, histories = ladder.train(run, bench, progress=False)
        features = encode(matcher, bench.query.images[:3], prepare)
        assert ladder.score(matcher.eval(), features, features).shape == (3, 3)
        if row == "colour-texture-metric":  # there are no steps: every training image is seen once
            assert isinstance(matcher, PairMetric) and seen == len(bench.train) and not histories
        else:  # a budget is met but for the rounding of steps; two stages may round twice
            index = CrossViewPairSampler(bench.train, 48)(0, 0)[0] if row == "L2,L3" else range(32)
            assert abs(seen - run.epochs * len(bench.train)) <= len(index) and seen % len(index) == 0

    def test_a_run_climbs_in_both_towns_and_repeats_itself(self, tmp_path):
        run = LadderRun("vanilla", also=(ladder.TOWNS[1],), **TINY)
        work = tmp_path / "work"
        (result,) = ladder.run_grid([run], folder=tmp_path, work=work, progress=False)
        assert work.exists() and not [path for path in work.rglob("*") if path.is_file()], "checkpoints are cleared"
        assert set(result["metrics"]) == {f"{t}{rung}" for t in ladder.TOWNS for rung in ("", "+rerank", *TWO)}
        assert ladder.run_grid([run], folder=tmp_path, work=work, progress=False) == []
        again = ladder.run_ladder(run, progress=False)
        assert again["metrics"] == result["metrics"] and again["data"]["images_seen"] == result["data"]["images_seen"]
        with pytest.raises(ValueError, match="label of its own"):
            ladder.run_grid([LadderRun("vanilla", lr=0.5, **TINY)], folder=tmp_path, progress=False)

    def test_seconds_before_a_stop_count(self, monkeypatch):
        train = people_experiments.train_person

        def resumed(*args, **options):
            model, histories = train(*args, **options)
            histories[0].earlier = 1000.0
            return model, histories

        monkeypatch.setattr(people_experiments, "train_person", resumed)
        assert ladder.run_ladder(LadderRun("vanilla", **TINY), progress=False)["wall_seconds"] > 1000

    def test_validation_looks_at_no_test_person(self):
        run = LadderRun("vanilla", also=(ladder.TOWNS[1],), validation=0.3, **TINY)
        result = ladder.run_ladder(run, progress=False)
        assert {name.split("+")[0] for name in result["metrics"]} == {"toytown-plaza[validation]"}
        assert result["data"]["train_identities"] == 8


class TestClimb:
    def test_rungs_are_those_of_the_library(self, towns):
        """Each rung computed here by its own functions, from the same features."""
        bench, matcher = towns[ladder.TOWNS[0]], ColourTexture()
        found = ladder.climb(matcher, None, bench)
        q, g = (encode(matcher, s.images) for s in (bench.query, bench.gallery))
        labels = bench.query.ids, bench.gallery.ids, bench.query.cams, bench.gallery.cams
        when = bench.query.cams, bench.query.times, bench.gallery.cams, bench.gallery.times
        reranked = 1 - k_reciprocal(1 - q @ g.T, (1 - q @ q.T).clamp(min=0), (1 - g @ g.T).clamp(min=0))
        expected = {"": similarity(matcher, q, g), "+rerank": reranked}
        expected |= {f"+rerank+tlift K={k}": temporal_lift(reranked, *when, k=k) for k in ladder.K}
        rng = np.random.default_rng(0)
        rng.permutation(len(bench.query))  # nobody is left out, but the order is drawn
        known = np.isin(bench.train.ids, rng.permutation(np.unique(bench.train.ids))[:20])
        model = ladder.calibrate(matcher, encode(matcher, bench.train.images[known]), *(
            labels[known] for labels in (bench.train.ids, bench.train.cams)))
        likely = model.predict_proba((q @ g.T).numpy().reshape(-1, 1))[:, 1].reshape(len(q), len(g))
        expected |= {f"+tlift K={k}": temporal_lift(likely, *when, k=k) for k in ladder.K}
        for rung, scores in expected.items():
            metrics = rank_metrics(scores, *labels)
            assert found[bench.name + rung]["mAP"] == pytest.approx(100 * metrics.mean_ap, abs=0.3), rung
        assert set(found) == {bench.name + rung for rung in ("", "+rerank", *TWO)}

    def test_without_times_it_climbs_no_farther_than_re_ranking(self, towns):
        bench = towns[ladder.TOWNS[0]]
        timeless = replace(bench, **{side: replace(getattr(bench, side), times=None) for side in ("query", "gallery")})
        assert set(ladder.climb(ColourTexture(), None, timeless)) == {bench.name, f"{bench.name}+rerank"}

    def test_some_queries(self, towns):
        bench = towns[ladder.TOWNS[0]]
        whole, part = (ladder.climb(ColourTexture(), None, bench, every=n)[bench.name] for n in (1, 3))
        assert 0 < len(part["asked"]) <= -(-len(bench.query) // 3) and "asked" not in whole
        assert part["first_rank"] == [whole["first_rank"][i] for i in part["asked"]]

    def test_calibration_finds_the_probabilities_that_made_the_pairs(self):
        """Scores +1 for one identity and -1 for another, with one pair in ten the wrong way round."""
        rng = np.random.default_rng(0)
        ids, cams = np.repeat([0, 1], 60), np.tile([0, 1], 60)

        class Noisy(torch.nn.Module):
            def score(self, queries, gallery):
                same = torch.from_numpy(np.where(ids[:, None] == ids, 1.0, -1.0))
                return torch.where(torch.from_numpy(rng.random((120, 120)) < 0.1), -same, same)

        model = ladder.calibrate(Noisy(), torch.zeros(120, 1), ids, cams)
        assert model.predict_proba([[1.0], [-1.0]])[:, 1] == pytest.approx([0.9, 0.1], abs=0.03)


class TestCosts:
    def test_a_known_model(self):
        threads = torch.get_num_threads()
        found = ladder.costs(Mean(), (32, 16), images=4, block=(2, 6), repeats=2)
        assert (found["bytes"], found["parameters"]) == (20, 20)
        assert (found["block"], found["pixels"], found["images"]) == ([2, 6], [32, 16], 4)
        assert found["encode_ms"] > 0 and found["pair_us"] > 0 and found["threads"] == 1
        assert torch.get_num_threads() == threads

    @pytest.mark.parametrize(("model", "pixels", "size"), [
        (PersonFusion(9, (), backbone="squeezenet1_1", pixels=(64, 32)), (64, 32), 512),
        (PooledMaps((64, 32), backbone="squeezenet1_1", channels=16), (64, 32), 16),
        (QAConv((64, 32), backbone="squeezenet1_1", channels=16), (64, 32), 16 * 3 * 1),
    ])  # fmt: skip
    def test_bytes_are_those_of_the_features(self, model, pixels, size):
        found = ladder.costs(model, pixels, images=2, block=(1, 2), repeats=1)
        assert found["bytes"] == 4 * size
        assert found["parameters"] == sum(p.numel() for n, p in model.named_parameters() if not n.startswith("class"))

    def test_a_pair_network_keeps_all_a_pair_needs(self):
        model = ConvSimilarityNet.variant("L3", size=(64, 24), part_sizes=part_sizes((64, 24)))
        assert ladder.costs(model, (64, 24), images=2, block=(1, 2), repeats=1)["bytes"] == 4 * model.dimension

    def test_what_a_metric_learned_counts(self, towns):
        train = towns[ladder.TOWNS[0]].train
        metric = PairMetric(ColourTexture(), dims=10)
        metric.fit(encode(metric.matcher, train.images), train.ids, train.cams)
        found = ladder.costs(metric, (64, 32), images=2, block=(1, 2), repeats=1)
        assert (found["parameters"], found["bytes"]) == (2364 * 11, 40)

    def test_measured_as_a_result(self, tmp_path):
        store.save(ladder.measure(LadderRun("L2,L3", **TINY), images=2, block=(1, 2), repeats=1), tmp_path)
        (result,) = store.load("ladder", tmp_path, track="costs")
        assert result["costs"]["pixels"] == [64, 24] and result["metrics"] == {}
        assert ladder.collect(result["budget"], tmp_path) == []  # costs are no runs
        shown = plots_ladder.cost_table([result])
        assert shown.loc["L2,L3", "parameters"] == result["costs"]["parameters"] and shown.loc["fmn"].isna().all()


def made(row, source, seed, ranks, rungs=("",), asked=None):
    """A result with these first ranks everywhere."""
    ranks = np.asarray(ranks)
    metric = {"acc@1": 100 * float((ranks == 1).mean()), "acc@10": 0.0, "mAP": 10.0, "first_rank": ranks.tolist()}
    metric |= {"asked": asked} if asked else {}
    return {"row": row, "seed": seed, "data": {"name": f"toytown-{source}"},
            "metrics": {f"{town}{rung}": metric for town in ladder.TOWNS for rung in rungs}}  # fmt: skip


class TestTables:
    def test_mean_spread_and_what_is_missing(self):
        runs = [made("vanilla", source, seed, [1] * (5 + seed) + [2] * (5 - seed), ("", "+rerank", "+tlift K=20"))
                for source in ("plaza", "campus") for seed in (0, 1)] + [made("fmn", "plaza", 0, [1, 2])]  # fmt: skip
        frame = plots_ladder.points(runs)
        table = plots_ladder.accuracy_table(frame)
        assert table.loc["Vanilla"].tolist() == ["55.0 ± 7.1"] * 5 + [2]
        line = table.loc["Feature Mask Network"]
        assert tuple(line[["plaza", "campus", "mean", "seeds"]]) == ("50.0", "not run", "not run", 0)
        assert table.loc["QAConv"].tolist() == ["not run"] * 5 + [0] and len(table) == len(ladder.ROWS)
        assert plots_ladder.points(runs, k=100).rung.unique().tolist() == ["", "+rerank"]
        rungs = plots_ladder.rung_table(frame)
        assert rungs.loc["Vanilla"].tolist() == ["55.0 ± 7.1"] * 3 + ["not run"]
        assert rungs.loc["Feature Mask Network"].tolist() == ["not run"] * 4
        assert plots_ladder.means(frame).index.tolist() == [("vanilla", r) for r in ("", "+rerank", "+tlift")]
        more = plots_ladder.points(runs + [made("vanilla", source, 2, [2]) for source in ("plaza", "campus")])
        assert plots_ladder.means(more).equals(plots_ladder.means(frame))  # seed 2 stands alone: no rungs to compare
        counted = plots_ladder.rung_table(more).loc["Vanilla"].tolist()
        assert counted == ["36.7 ± 32.1", "55.0 ± 7.1 (2)", "55.0 ± 7.1 (2)", "not run"]

    def test_lead_is_paired_and_on_the_same_queries(self):
        always, never = [1] * 8, [1, 1, 2, 2, 2, 2, 2, 2]
        runs = [made(row, source, seed, ranks) for source in ("plaza", "campus") for seed in (0, 1, 2)
                for row, ranks in (("vanilla", never), ("fusion", always))]  # fmt: skip
        runs += [made("L2,L3", source, 0, [1, 1], asked=[0, 1]) for source in ("plaza", "campus")]
        frame = plots_ladder.points(runs)
        mean, low, high, seeds = plots_ladder.lead(frame, ("fusion", ""), ("vanilla", ""), across=True)
        assert mean == 75 and low < 75 < high and seeds == 3
        assert plots_ladder.lead(frame, ("L2,L3", ""), ("vanilla", ""), across=True) == (0, 0, 0, 1)
        assert plots_ladder.lead(frame, ("qaconv", ""), ("vanilla", ""), across=True)[3] == 0
        # a seed that was asked for all queries weighs as much as one that was asked for two
        runs += [made("L2,L3", source, 1, never) for source in ("plaza", "campus")]
        frame = plots_ladder.points(runs)
        assert plots_ladder.lead(frame, ("fusion", ""), ("L2,L3", ""), across=True) == (0, 0, 0, 2)

    def test_knobs_are_turned_one_at_a_time(self, tmp_path):
        common = {"track": "imagenet", "seed": 0, "config": {}, "versions": {}, "wall_seconds": 1, "device": "",
                  "commit": "", "data": {"name": "toytown-plaza"}}  # fmt: skip
        _, where = ladder.turned("b", tmp_path)
        assert where["occlusion"] == {0.15: ladder.EASY, 0.5: f"toytown-plaza occlusion=0.5 {ladder.EASY[14:]}",
                                      1: f"toytown-plaza occlusion=1 {ladder.EASY[14:]}"}  # fmt: skip
        own = [next(v for v, name in names.items() if name == ladder.EASY) for names in where.values()]
        assert own == [0.5, 0.15, 1]
        names = sorted({name for knob in where.values() for name in knob.values()})
        metrics = {name: {"acc@1": 10.0 * i, "acc@10": 100.0, "first_rank": [1]} for i, name in enumerate(names)}
        for paper, row, budget in (("ladder", "vanilla", "b-knobs"), ("qaconv-tlift", "qaconv", "b")):
            store.save({**common, "paper": paper, "row": row, "budget": budget, "metrics": metrics}, tmp_path)
        by_row, where = ladder.turned("b", tmp_path)
        assert list(by_row) == ["vanilla", "qaconv"]
        panels = plots_ladder.knobs(by_row, where).axes
        for ax, knob in zip(panels, where.values(), strict=True):
            drawn = [10.0 * names.index(name) for name in knob.values()]
            assert [line.get_ydata().tolist() for line in ax.lines] == 2 * [drawn]

    def test_others_results_join(self, tmp_path):
        common = {"paper": "qaconv-tlift", "track": "imagenet", "seed": 0, "budget": "tiny-net-64x32-1ep", "config": {},
                  "versions": {}, "data": {"name": "toytown-plaza"}, "wall_seconds": 1, "device": "", "commit": ""}
        metric = {"acc@1": 1.0, "acc@10": 1.0, "mAP": 1.0, "first_rank": [1]}
        names = {"qaconv": ["", " misalignment=1"], "qaconv+rerank": [""]}
        names |= {"qaconv+rerank+tlift": ["", " K=20", " official"]}
        for row, words in names.items():
            store.save({**common, "row": row, "metrics": {f"toytown-plaza{w}": metric for w in words}}, tmp_path)
        (run,) = ladder.collect("tiny-net-64x32-1ep", tmp_path)
        assert set(run["metrics"]) == {f"toytown-plaza{w}" for w in ("", "+rerank", *TWO[2:])}
        classical = {**common, "row": "colour-texture", "paper": "people", "budget": "tiny-64x32"}
        for row in ("colour", "colour-texture"):  # the first is no row of the ladder
            store.save({**classical, "row": row, "metrics": {"toytown-plaza": metric}}, tmp_path)
        assert [r["row"] for r in ladder.collect("tiny-net-64x32-1ep", tmp_path)] == ["colour-texture", "qaconv"]
        store.save({**classical, "paper": "ladder", "budget": "tiny-net-64x32-1ep", "metrics": {}}, tmp_path)
        assert ladder.collect("tiny-net-64x32-1ep", tmp_path)[0]["metrics"] == {}  # the ladder's own comes first
        assert ladder.collect("another", tmp_path) == []
        store.save({**common, "row": "qaconv", "track": "scratch", "metrics": {"toytown-plaza": metric}}, tmp_path)
        with pytest.raises(ValueError, match="qaconv toytown-plaza 0 was run twice .* as 'imagenet' and as 'scratch'"):
            ladder.collect("tiny-net-64x32-1ep", tmp_path)


def test_figures():
    import pandas as pd

    runs = [made(row, source, 0, [1] * n + [2] * (9 - n), ("", "+rerank", "+rerank+tlift K=20"))
            for source in ("plaza", "campus") for n, row in enumerate(("vanilla", "fusion"), 3)]  # fmt: skip
    frame = plots_ladder.points(runs)
    costs = pd.DataFrame({"bytes": {"vanilla": 8, "fusion": 16, "qaconv": 99}})
    (axes,) = plots_ladder.against_cost(frame, costs, {"bytes": "bytes an image"}).axes
    assert axes.get_xscale() == "log" and [line.get_xdata()[0] for line in axes.lines] == [8, 16]
    (axes,) = plots_ladder.within_across(frame).axes
    assert [line.get_label() for line in axes.lines[:2]] == ["Vanilla", "mid-level fusion"]
    assert sum(bool(text.arrow_patch) for text in axes.texts) == 4
