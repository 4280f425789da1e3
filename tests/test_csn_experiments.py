"""Experiments with the pair model: what is judged and how, one whole run, tables that name rows which exist."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cdimlib import csn_experiments, results
from cdimlib.csn_experiments import PAPER, TABLES, CSNRun, as_published, few, judge_pairs, open_benchmark, pair_batches
from cdimlib.data import Benchmark, DataNotFound, Split, registry
from cdimlib.data.augment import normalise
from cdimlib.data.cuhk03 import classic
from cdimlib.models.csn import VARIANTS, ConvSimilarityNet, part_sizes
from cdimlib.models.matcher import VectorMatcher
from cdimlib.retrieval import encode, rank_metrics
from cdimlib.retrieval.protocols import judge

TINY = CSNRun("L3", "toytown-plaza", size="tiny", pixels=(48, 24), steps=2, batch=12, shots=(1, 1), draws=2)


def views(ids, cams, start=0):
    """Images whose first pixel counts from ``start``."""
    images = torch.zeros(len(ids), 3, 4, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = start + torch.arange(len(ids), dtype=torch.uint8)
    return Split(images, np.array(ids), np.array(cams))


class Pixel(VectorMatcher):
    """The first pixel is the feature."""

    def encode(self, images):
        return images[:, :1, 0, 0]


class TestJudge:
    def test_few(self):
        split = views([5, 5, 5, 5, 7, 7, 7], [1, 1, 1, 2, 3, 3, 3])
        for seed in range(6):
            one, two = few(split, 1, seed), few(split, 2, seed)
            assert one.ids.tolist() == [5, 7] and two.ids.tolist() == [5, 5, 7, 7]
            assert set(two.cams[:2]) == {1, 2}  # different cameras before a second image of one
        assert len({few(split, 1, seed).images[0, 0, 0, 0].item() for seed in range(20)}) == 4
        assert few(split, 0).images.equal(split.images) and few(split, 9).images.equal(split.images)

    @pytest.mark.parametrize("town", [False, True])
    def test_names(self, town):
        """Real data: single-shot under its own name. Towns: the ordinary protocol, and single-shot beside it."""
        ids = np.repeat(np.arange(1, 6), 2)
        query, gallery = views(ids, np.tile([1, 1], 5)), views(ids, np.tile([2, 3], 5), start=3)
        bench = Benchmark("toytown-plaza" if town else "cuhk03", query, query, gallery)
        run = replace(TINY, shots=(0, 0), draws=50)
        metrics, pairs = judge_pairs(run, Pixel(), bench, x_corr=True)
        names = [bench.name + end for end in ((" single-shot", " x-corr", "") if town else ("", " x-corr"))]
        assert list(metrics) == names and pairs == 20 * 20
        features = [normalise(s.images)[:, :1, 0, 0] for s in (query, gallery)]
        plain = judge(Pixel(), *((f, s.ids, s.cams) for f, s in zip(features, (query, gallery), strict=True)))
        assert not town or metrics["toytown-plaza"] == plain
        strict = metrics[names[0]]
        once = judge_pairs(replace(run, draws=1), Pixel(), bench)[0][names[0]]  # ranks are those of the first gallery
        assert strict["first_rank"] == once["first_rank"] != plain["first_rank"] and strict["queries"] == 10
        np.testing.assert_allclose(once["acc@1"], 100 * np.mean(np.equal(once["first_rank"], 1)))
        assert strict["acc@1"] != plain["acc@1"] and "cross-camera" in strict["protocol"]
        assert metrics[names[1]]["queries"] == 15 and "x-corr" in metrics[names[1]]["protocol"]
        only, pairs = judge_pairs(replace(run, shots=(1, 1)), Pixel(), bench)
        assert list(only) == names[:1] and pairs == 25  # not the ordinary protocol where images were left out
        assert only[names[0]]["spread@1"] == 0 and "one image of each identity" in only[names[0]]["protocol"]
        np.testing.assert_allclose(only[names[0]]["acc@1"], 100 * np.mean(np.equal(only[names[0]]["first_rank"], 1)))

    def test_skipped_queries_have_no_rank(self):
        """Person 2 is in the gallery before the query's own camera only."""
        query = views([1, 2, 3], [1, 2, 1])
        bench = Benchmark("cuhk01", query, query, views([1, 2, 3], [2, 2, 2]))
        metrics = judge_pairs(replace(TINY, shots=(0, 0)), Pixel(), bench)[0]["cuhk01"]
        assert metrics["queries"] == 2 and metrics["first_rank"] == [1, 1] and metrics["acc@1"] == 100

    def test_branches_run_once_an_image(self, monkeypatch):
        """The judge scores every pair from features that were encoded once."""
        seen, encode = [], ConvSimilarityNet.encode
        monkeypatch.setattr(ConvSimilarityNet, "encode", lambda net, x: seen.append(len(x)) or encode(net, x))
        net = ConvSimilarityNet((3,), size=(48, 24), part_sizes=part_sizes((48, 24))).eval()
        ids = np.arange(1, 5)
        images = torch.randint(256, (8, 3, 48, 24), dtype=torch.uint8)
        splits = [Split(images[cam::2], ids, np.full(4, cam)) for cam in (0, 1)]
        metrics, pairs = judge_pairs(replace(TINY, shots=(0, 0)), net, Benchmark("viper", splits[0], *splits))
        assert sum(seen) == 8 and pairs == 16
        with torch.inference_mode():
            table = [[net.compare(normalise(q[None]), normalise(g[None])).item() for g in splits[1].images]
                     for q in splits[0].images]  # fmt: skip
        ranks = rank_metrics(np.array(table), ids, ids, np.zeros(4), np.ones(4)).first_rank
        assert metrics["viper"]["first_rank"] == ranks.tolist()

    def test_either_term_alone(self):
        """SimiScore is made of both, on the same queries; without the ranking net there is one term."""
        net = ConvSimilarityNet((3,), size=(48, 24), part_sizes=part_sizes((48, 24))).train()
        rows = encode(net, torch.randint(256, (5, 3, 48, 24), dtype=torch.uint8), normalise)
        found = csn_experiments.scores_by_term(net, rows[:2], rows[2:])
        assert net.training and list(found) == ["", " probability", " distance"]
        vectors = net.unpack(rows)[1]
        for q in range(2):
            for g in range(3):
                p = net.eval().logits(rows[q : q + 1], rows[2 + g : 3 + g]).softmax(1)[0, 1].item()
                d = (vectors[q] - vectors[2 + g]).norm().item()
                assert found[" probability"][q, g].item() == pytest.approx(p, abs=1e-6)
                assert -found[" distance"][q, g].item() == pytest.approx(d, abs=1e-6)
                assert found[""][q, g].item() == pytest.approx(p + 0.2 / (d + 1e-4), rel=1e-4)
        bare = ConvSimilarityNet((3,), size=(48, 24), part_sizes=part_sizes((48, 24)), contrastive=False)
        rows = encode(bare, torch.randint(256, (5, 3, 48, 24), dtype=torch.uint8), normalise)
        assert list(csn_experiments.scores_by_term(bare, rows[:2], rows[2:])) == [""]


class TestRun:
    def test_a_result_and_a_grid_that_resumes(self, tmp_path):
        run = replace(TINY, batch=13, also=("toytown-campus",), validation=0.3, evaluations=2)
        folder, work = tmp_path / "results", tmp_path / "work"
        (result,) = csn_experiments.run_grid([run], folder=folder, work=work, progress=False)
        assert [p.name for p in (folder / PAPER).iterdir()] == ["scratch-L3-toytown-plaza-48x24-2x13-s0.json"]
        stored = results.load(PAPER, folder)[0]
        assert stored == json.loads(json.dumps(result)) and not list(work.iterdir())
        towns = [f"toytown-{town} single-shot" for town in ("plaza", "campus")]
        assert list(stored["metrics"]) == [town + term for town in towns for term in ("", " probability", " distance")]
        assert stored["train_pairs"] == 2 * 12 and len(stored["curve"]["validation"]) == 2
        assert stored["judged_pairs"] == 12 * 13 * 2  # 12 people, and one image of somebody else in the gallery
        assert csn_experiments.run_grid([run], folder=folder, work=work) == []
        assert csn_experiments.run_grid([replace(run, also=())], folder=folder) == []  # it was judged on more
        with pytest.raises(ValueError, match="other settings than {'also': "):
            csn_experiments.run_grid([replace(run, also=("toytown-campus", "viper"))], folder=folder)
        with pytest.raises(ValueError, match="give the run a label"):
            csn_experiments.run_grid([replace(run, lr=1)], folder=folder)

    def test_same_seed_same_weights(self):
        bench = open_benchmark(TINY, TINY.benchmark)
        nets = [csn_experiments.train_csn(replace(TINY, seed=s), bench, progress=False)[0] for s in (0, 0, 1)]
        state = [torch.cat([p.flatten() for p in net.parameters()]) for net in nets]
        assert torch.equal(*state[:2]) and not torch.equal(state[0], state[2])

    def test_augmentation(self):
        train = views([1, 1, 2, 2], [0, 1, 0, 1])
        plain, sampler = pair_batches(train, replace(TINY, shifts=None))
        images, first, second, match = plain(0, 0)
        assert torch.equal(images, normalise(train.images[torch.as_tensor(sampler(0, 0)[0])]))
        assert match.tolist() == [True, False, False] * 2 and len(first) == len(second) == 6
        rich, _ = pair_batches(train, TINY)
        assert any(not torch.equal(rich(0, s)[0], plain(0, s)[0]) for s in range(8))

    def test_settings(self):
        assert as_published("L2,L3").batch == 256 and as_published("L3", "viper", lr=1).shifts == 5
        run = as_published("cls", "cuhk03/labeled")
        assert (run.lr, run.weight_decay, run.epochs, run.pixels) == (5e-4, 5e-4, 5, (160, 60))
        assert run.budget == "160x60-5ep"
        with pytest.raises(ValueError, match="unknown variant 'L5': choose from 'L2'"):
            CSNRun("L5")
        for bad, words in ({"draws": 0}, "draws must be at least 1"), ({"shots": (1,)}, "shots are two numbers"), \
                ({"shots": (-1, 1)}, "shots are two numbers"), ({"evaluations": 0}, "evaluations must be at least 1"):
            with pytest.raises(ValueError, match=words):
                CSNRun(**bad)
        with pytest.raises(DataNotFound, match="viper"):
            open_benchmark(CSNRun(benchmark="viper"), "viper", root="/nowhere")


def test_tables_name_methods_and_rows_that_exist():
    for (paper, table), rows in TABLES.items():
        assert set(rows) <= set(results.paper_table(paper, table).method) and set(rows.values()) <= set(VARIANTS)
    assert set(VARIANTS) - {"C3", "C4"} == {row for rows in TABLES.values() for row in rows.values()}
    assert VARIANTS["C3"] == VARIANTS["L4"] and VARIANTS["C4"] == VARIANTS["L2,L3,L4"]


class TestClassicCut:
    def bench(self, people=30):
        ids, cams = np.repeat(np.arange(1, people + 1), 2), np.tile([1, 2], people)
        half = ids <= people // 2
        parts = [views(ids[keep], cams[keep]) for keep in (half, ~half & (cams == 1), ~half & (cams == 2))]
        return Benchmark("cuhk03-np/labeled", *parts)

    def test_split(self):
        bench = classic(self.bench(), split=3, test=5, validation=4)
        held = bench.meta["validation"]
        people = [set(s.ids) for s in (bench.train, bench.query, bench.gallery, held)]
        assert [len(p) for p in people] == [21, 5, 5, 4] and people[1] == people[2]
        assert people[0] | people[1] | people[3] == set(range(1, 31))
        assert set(bench.query.cams) == {1} and set(bench.gallery.cams) == {2} and set(held.cams) == {1, 2}
        assert bench.name == "cuhk03/labeled" and "split 3" in bench.note and "21/4/5" in bench.note
        again, other = (classic(self.bench(), split=s, test=5, validation=4) for s in (3, 4))
        assert set(again.query.ids) == people[1] != set(other.query.ids)

    def test_two_pairs_of_cameras_are_left_out(self, monkeypatch):
        monkeypatch.setattr("cdimlib.data.cuhk03.CLASSIC_PEOPLE", 20)
        bench = classic(self.bench(), test=5, validation=4)
        assert max(bench.train.ids.max(), bench.query.ids.max(), bench.meta["validation"].ids.max()) == 20

    @pytest.mark.parametrize("options", [{"test": 0}, {"test": 20, "validation": 9}, {"validation": -1}])
    def test_errors(self, options):
        with pytest.raises(ValueError, match="do not fit into 30"):
            classic(self.bench(), **{"test": 5, "validation": 5, **options})
        with pytest.raises(ValueError, match="split must be"):
            classic(self.bench(), split=20)

    def test_stands_in_for_the_raw_file(self, monkeypatch):
        """CUHK03 without its raw file comes from the new protocol's folders; other sets have no such way out."""
        def load(name, root=None, **options):
            if name != "cuhk03-np/labeled":
                raise DataNotFound(name)
            return self.bench(210)

        for module in (csn_experiments, registry):
            monkeypatch.setattr(module, "load", load)
        monkeypatch.setenv("CDIM_DATA", "/nowhere")
        bench = open_benchmark(CSNRun(seed=2), "cuhk03/labeled")
        assert "split 2" in bench.note and len(np.unique(bench.train.ids)) == 10
        with pytest.raises(DataNotFound, match="cuhk01"):
            open_benchmark(CSNRun(), "cuhk01")

    def test_a_split_for_those_that_have_several(self, monkeypatch):
        asked = {}
        monkeypatch.setattr(registry, "load", lambda name, root=None, **o: asked.update({name: o}) or self.bench())
        for name in ("cuhk01", "viper", "cuhk03-np", "market1501", "table:mine.csv"):
            assert open_benchmark(CSNRun(seed=3), name).name == name
        plain = {"pixels": (160, 60), "verbose": False}
        assert asked["cuhk01"] == asked["viper"] == plain | {"split": 3}
        assert asked["cuhk03-np"] == asked["market1501"] == asked["table:mine.csv"] == plain
        town = open_benchmark(TINY, "toytown-plaza occlusion=1 size=demo")
        assert town.name == "toytown-plaza occlusion=1 size=demo" and asked["toytown-plaza"]["size"] == "demo"
