"""Mid-level fusion for people: counts, shapes, parts by hand; and whole runs on a tiny world of coloured people."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cdimlib import people_experiments as pe
from cdimlib import people_runs, results
from cdimlib.data import Benchmark, Split, load
from cdimlib.identities import identity_objective, load_trained, mask_objective, resident_batches
from cdimlib.models.midlevel import PersonFusion
from cdimlib.models.residual import Backbone
from cdimlib.retrieval import rank_metrics
from cdimlib.training import TrainConfig, fit

PIXELS = (64, 32)
TINY = dict(benchmark="world", backbone="squeezenet1_1", pixels=PIXELS, width=8, norm=False, epochs=1, batch=8, lr=1e-3)


def people(count, cams=2, shots=2, start=0, seed=0):
    """A split of people who are two colours, top and bottom, seen by cameras with some noise."""
    rng = np.random.default_rng([seed, start])
    colours = rng.integers(0, 256, (count, 2, 3))
    ids = np.repeat(np.arange(start, start + count), cams * shots)
    images = np.repeat(colours[ids - start].transpose(0, 2, 1), PIXELS[0] // 2, axis=2)  # [N, 3, H]
    images = images[..., None] + rng.normal(0, 20, (*images.shape, PIXELS[1]))
    cams = np.tile(np.repeat(np.arange(cams), shots), count)
    return Split(torch.from_numpy(images.clip(0, 255).astype(np.uint8)), ids, cams)


@pytest.fixture(scope="module")
def world():
    test = people(5, start=20)
    return Benchmark("world", people(8), test.where(test.cams == 0), test.where(test.cams == 1), note="coloured people")


@pytest.fixture
def images():
    return torch.randn(3, 3, *PIXELS, generator=torch.Generator().manual_seed(0))


def small(classes=4, taps=("res4", "res5a"), **options):
    options = {"backbone": "resnet18", "pixels": PIXELS, "width": 8, **options}
    return PersonFusion(classes, taps, **options).eval()


class TestModel:
    @pytest.mark.parametrize(
        ("options", "millions", "dimension"),
        [({"taps": ()}, 25.05, 2048), ({}, 30.01, 3072), ({"width": 512, "norm": False}, 27.53, 2560),
         ({"width": 2048, "norm": False}, 34.98, 4096), ({"width": 1024, "pooling": "flatten"}, 160.04, 3072)],
    )  # fmt: skip
    def test_parameters_with_resnet50_and_market(self, options, millions, dimension):
        """Midlevel-fusion, Sec. 3.3: the published shapes; flattened, the FC layer takes 131,072 numbers."""
        with torch.device("meta"):
            model = PersonFusion(751, **options)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions
        assert sum(model.dimensions) == dimension == model.classifier.in_features
        if options.get("pooling"):
            assert model.reduce[0].in_features == 131_072

    @pytest.mark.parametrize("pooling", ["gap", "flatten"])
    def test_feature_from_its_parts(self, images, pooling):
        """Midlevel-fusion, Sec. 3.3: pool, join, FC, join with the last map's average, classify."""
        model = small(pooling=pooling)
        caught = {}
        for name, place in (("res4", "res4b"), ("res5a", "res5a"), ("res5", "res5b")):
            hook = lambda module, inputs, output, name=name: caught.__setitem__(name, output)  # noqa: E731
            model.backbone.layers[place].register_forward_hook(hook)
        feature = model.feature(images)
        pool = (lambda x: x.flatten(1)) if pooling == "flatten" else (lambda x: x.mean(dim=3).mean(dim=2))
        fc, norm = model.reduce[0], model.reduce[1]
        mid = torch.cat([pool(caught["res4"]), pool(caught["res5a"])], dim=1) @ fc.weight.T + fc.bias
        mid = ((mid - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias).relu()
        expected = torch.cat([mid, caught["res5"].mean(dim=3).mean(dim=2)], dim=1)
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-5)
        expected = expected @ model.classifier.weight.T + model.classifier.bias
        torch.testing.assert_close(model.logits(images), expected, rtol=1e-4, atol=1e-5)

    def test_the_last_map_can_be_joined_with_itself(self, images):
        """The control: through the reducing layer, and as it is."""
        model = small(taps=("res5",))
        last = model.backbone.stages(images, keep=("res5",))["res5"].mean(dim=(2, 3))
        torch.testing.assert_close(model.feature(images), torch.cat([model.reduce(last), last], dim=1))

    def test_unit_lengths(self, images):
        lengths = {unit: small(unit=unit)(images) for unit in ("whole", "parts", "none")}
        assert lengths["whole"].norm(dim=1).tolist() == pytest.approx([1] * 3)
        for part in lengths["parts"].split([8, 512], dim=1):
            assert part.norm(dim=1).tolist() == pytest.approx([1] * 3)
        model = small(unit="none")
        assert torch.equal(model(images), model.feature(images))

    @pytest.mark.parametrize("unit", ["whole", "parts"])
    def test_vanilla_joined_untrained(self, images, unit):
        """Midlevel-fusion, Table 8, "Vanilla+fusion": the trained network's own maps, nothing learned on top."""
        vanilla = small(taps=())
        joined = vanilla.join(("res4", "res5a"), unit=unit)
        maps = vanilla.backbone.stages(images, keep=("res4", "res5a", "res5"))
        mid = torch.cat([maps["res4"].mean(dim=(2, 3)), maps["res5a"].mean(dim=(2, 3))], dim=1)
        last = maps["res5"].mean(dim=(2, 3))
        norm = F.normalize
        expected = norm(torch.cat([mid, last], 1)) if unit == "whole" else torch.cat([norm(mid), norm(last)], 1)
        torch.testing.assert_close(joined(images), expected)
        assert joined.backbone is vanilla.backbone and not joined.training

    def test_neck_and_dropout_act_where_they_should(self, images):
        model = small(neck=True, dropout=0.5).train()
        first, second = model.feature(images), model.feature(images)
        assert torch.equal(first, second) and first.mean(dim=0).abs().max() < 1e-5, "the neck centres each batch"
        assert not torch.equal(model.logits(images), model.logits(images)), "dropout acts on the classifier's input"
        assert torch.equal(model.eval().logits(images), model.logits(images))

    def test_clear_errors(self):
        with pytest.raises(ValueError, match=r"unknown tap 'res6': choose from .*res5a"):
            small(taps=("res6",))
        with pytest.raises(ValueError, match="pooling must be one of flatten, gap, not 'max'"):
            small(pooling="max")
        with pytest.raises(ValueError, match="unit must be one of whole, parts, none"):
            small(unit="all")
        with pytest.raises(ValueError, match="no classifier"):
            small(None).logits(torch.zeros(1, 3, *PIXELS))


class TestRows:
    def test_units_of_the_paper_in_resnet50_and_their_like_elsewhere(self):
        with torch.device("meta"):
            nets = {name: Backbone(name) for name in ("resnet50", "mobilenet_v2")}
        assert pe.taps_of("fusion", nets["resnet50"]) == ("res5a", "res5b")
        assert pe.taps_of("res4a-f", nets["resnet50"]) == tuple(f"res4{u}" for u in "abcdef")
        assert pe.taps_of("res2,3,4,5ab", nets["resnet50"]) == ("res2", "res3", "res4", "res5a", "res5b")
        assert pe.taps_of("vanilla", nets["resnet50"]) == ()
        assert pe.taps_of("control", nets["resnet50"]) == ("res5",)
        assert pe.taps_of("fusion", nets["mobilenet_v2"]) == ("res5a", "res5b", "res5c", "res5d")

    def test_every_printed_method_of_ours_is_a_row(self):
        made = {*pe.ROWS, "vanilla+fusion", "grn", "lan", "fmn+rerank"}
        for (paper, table), methods in pe.TABLES.items():
            printed = set(results.paper_table(paper, table)["method"])
            assert methods.keys() <= printed and set(methods.values()) <= made

    def test_printed_rows_beside_ours(self):
        """A town stands beside a table's only database, CUHK03 beside its own half; multi query has its own metrics."""
        judged = {"acc@1": 50.0, "mAP": 40.0}
        runs = [{"row": "fusion", "metrics": {"toytown-plaza": judged, "cuhk03-np": {**judged, "mAP": 30.0 + i},
                                              "toytown-plaza multi-query": {**judged, "mAP": 60.0}}} for i in (0, 2)]
        town = pe.beside(pe.FUSION, 4, runs, "toytown-plaza").set_index(["method", "protocol"])
        assert list(town["ours mAP"]) == ["not run", "not run", "40.0 ± 0.0 (2)", "60.0 ± 0.0 (2)"]
        assert town.loc[("Ours", "multi query"), "paper mAP"] == 82.37 and set(town["our row"]) == {"vanilla", "fusion"}
        real = pe.beside(pe.FUSION, 6, runs, "cuhk03-np")
        assert list(real["paper's data"]) == ["cuhk03-np"] * 2
        assert list(real.loc[1, ["paper mAP", "ours mAP"]]) == [43.51, "31.0 ± 1.4 (2)"]

    def test_published_recipes(self):
        run = pe.as_published("fusion", benchmark="cuhk03-np")
        assert (run.lr, run.batch, run.pixels, run.backbone, run.decay) == (5e-4, 64, (256, 128), "resnet50", 0.95)
        run = pe.as_published("fmn", margin=0.1)
        assert (run.lr, run.backbone_lr, run.period, run.mask_period) == (0.1, 1e-3, 20, 35)
        assert pe.PersonRun("two-grn").budget() == pe.PersonRun("vanilla").budget()  # it has no hinge, so no margin

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [({"row": "grn"}, "unknown row 'grn': choose from 'vanilla'"), ({"row": "fmn"}, "needs margin="),
         ({"row": "fusion", "batch": 10, "identities": 4}, "batch of 10 does not divide into 4")],
    )  # fmt: skip
    def test_impossible_runs(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            pe.PersonRun(**wrong)


class TestTraining:
    @pytest.mark.parametrize("row", ["fusion", "fmn"])
    def test_the_loss_falls_on_a_tiny_town(self, row):
        """Every objective, each stage of the mask network on its own."""
        town = load("toytown-plaza", size="tiny", pixels=PIXELS)
        run = pe.PersonRun(row, backbone="resnet18", pixels=PIXELS, width=32, margin=0.1)
        batches, sampler = resident_batches(town.train, run.input, 16, identities=4)
        model, config = pe.build(run, sampler.classes), TrainConfig(7, 1e-3, "adamw")
        stages = [(getattr(model, "grn", model), identity_objective(0.05))]
        stages += [(model, mask_objective(0.1))] if run.masked else []
        for net, objective in stages:
            losses = fit(net, batches, objective, config, progress=False).losses
            assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])
            if run.masked:
                model.freeze_global()

    def test_objective_by_hand(self):
        """Midlevel-fusion, Eq. (3); Feature-mask-network, Eq. (4); and the same with smoothed labels."""

        class Fixed:
            logits = staticmethod(lambda images: images)

        logits = torch.randn(4, 5)
        labels = torch.tensor([0, 3, 3, 1])
        log = logits.log_softmax(dim=1)
        plain = -sum(log[n, t].item() for n, t in enumerate(labels)) / 4
        assert identity_objective()(Fixed, (logits, labels)).item() == pytest.approx(plain, rel=1e-5)
        smooth = 0.9 * plain - 0.1 * log.mean().item()
        assert identity_objective(0.1)(Fixed, (logits, labels)).item() == pytest.approx(smooth, rel=1e-5)

    def test_a_checkpoint_and_the_number_of_classes(self, world, images, tmp_path):
        run = pe.PersonRun("vanilla", **TINY)
        model, _ = pe.train_person(run, world, work=tmp_path, progress=False)
        (path,) = tmp_path.glob(f"{pe.checkpoint_name(run)}-*.pt")
        copy = pe.build(run, 8).eval()
        load_trained(copy, path)
        search = PersonFusion(None, (), backbone="squeezenet1_1", pixels=PIXELS).eval()
        load_trained(search, path)
        torch.testing.assert_close(copy(images), model.eval()(images))  # up to the order of sums: channels last
        assert torch.equal(search(images), copy(images))
        with pytest.raises(ValueError, match=r"trained with 8 identities, this model has 9: build it with classes=8"):
            load_trained(pe.build(run, 9), path)
        with pytest.raises(ValueError, match="belongs to another model"):
            load_trained(PersonFusion(8, (), backbone="mobilenet_v2", pixels=PIXELS), path)
        with pytest.raises(FileNotFoundError, match=r"none\.pt does not exist: train first"):
            load_trained(copy, tmp_path / "none.pt")
        torch.save([1], tmp_path / "list.pt")
        with pytest.raises(ValueError, match="is not a checkpoint"):
            load_trained(copy, tmp_path / "list.pt")
        for broken in (b"no weights", path.read_bytes()[:1000]):
            (tmp_path / "broken.pt").write_bytes(broken)
            with pytest.raises(ValueError, match=r"broken\.pt cannot be read as a checkpoint"):
                load_trained(copy, tmp_path / "broken.pt")


class TestRuns:
    def test_a_vanilla_fills_two_rows_and_repeats_itself(self, world):
        run = pe.PersonRun("vanilla", **TINY, rerank=True)
        found, model = pe.run_person(run, bench=world, progress=False)
        rows = {result["row"]: results.check(result) for result in found}
        assert list(rows) == ["vanilla", "vanilla+rerank", "vanilla+fusion", "vanilla+fusion+rerank"]
        metrics = rows["vanilla"]["metrics"]["world"]
        queries, gallery = (model.eval()(run.input(s.images)) for s in (world.query, world.gallery))
        with torch.no_grad():
            mine = rank_metrics(-torch.cdist(queries, gallery), world.query.ids, world.gallery.ids, world.query.cams,
                                world.gallery.cams)  # fmt: skip
        assert metrics["first_rank"] == mine.first_rank.tolist() and metrics["mAP"] == pytest.approx(100 * mine.mean_ap)
        assert rows["vanilla"]["peak_memory_mib"] > 50 and rows["vanilla"]["parameters"] > 7e5
        again, _ = pe.run_person(run, bench=world, progress=False)
        assert [r["metrics"] for r in again] == [r["metrics"] for r in found]

    def test_several_images_ask_together(self, world):
        """Each person and camera asks once, by the mean of its own images, those of the gallery included."""
        queries = torch.arange(4.0)[:, None] + 1, np.array([3, 3, 5, 6]), np.array([0, 0, 0, 1])
        gallery = torch.arange(4.0)[:, None] + 10, np.array([3, 5, 5, 9]), np.array([0, 1, 0, 0])
        features, ids, cams = pe.several(queries, gallery)
        assert features[:, 0].tolist() == [1, 2, 3, 4, 10, 12]
        assert ids.tolist() == [3, 3, 5, 6, 3, 5] and cams.tolist() == [0, 0, 0, 1, 0, 0]
        found, _ = pe.run_person(pe.PersonRun("vanilla", **TINY), bench=world, progress=False)
        name = "world multi-query"
        assert len(found[0]["metrics"][name]["first_rank"]) == 5 < len(world.query)
        once = replace(world, meta={"multi_query": world.query.where(world.query.ids < 23)})
        found, _ = pe.run_person(pe.PersonRun("vanilla", **TINY), bench=once, progress=False)
        assert len(found[0]["metrics"][name]["first_rank"]) == 3, "a benchmark's own list goes first"

    def test_the_parts_of_a_joined_feature_are_judged_alone(self, world):
        """Middle and end by their own cosine, and the two at equal weight, against plain cuts of the feature."""
        run = pe.PersonRun("fusion", **TINY)
        (result,), model = pe.run_person(run, bench=world, progress=False)
        with torch.no_grad():
            features = [model.eval().feature(run.input(s.images)) for s in (world.query, world.gallery)]
        labels = world.query.ids, world.gallery.ids, world.query.cams, world.gallery.cams
        cuts = {"middle": [f[:, :8] for f in features], "end": [f[:, 8:] for f in features]}
        scores = {word: F.normalize(q) @ F.normalize(g).T for word, (q, g) in cuts.items()}
        scores["even"] = scores["middle"] + scores["end"]
        for word, similarity in scores.items():
            assert result["metrics"][f"world {word}"]["mAP"] == pytest.approx(
                100 * rank_metrics(similarity, *labels).mean_ap
            )
        found, _ = pe.run_person(pe.PersonRun("vanilla", **TINY), bench=world, progress=False)
        assert [len(r["metrics"]) for r in found] == [2, 5], "a Vanilla has no parts, joined it has"

    def test_the_same_weights_are_judged_elsewhere_too(self, world, tmp_path):
        """``also``: metrics of further towns under their own words; names and checkpoints of results do not change."""
        near, far = "toytown-plaza lookalikes=1", "toytown-campus"
        settings = {**TINY, "benchmark": "toytown-plaza", "size": "tiny"}
        run = pe.PersonRun("fusion", **settings, also=(near, far))
        (result,), model = pe.run_person(run, work=tmp_path, progress=False)
        names = [n for n in result["metrics"] if n.split()[-1] not in ("multi-query", "middle", "end", "even")]
        assert names == ["toytown-plaza", near, far]
        for words in names:
            bench = run.load(words)
            assert bench.name == words and len(bench.query) == len(result["metrics"][words]["first_rank"])
            assert pe.judge_rows(run, model, bench)["fusion"][words] == result["metrics"][words]
        assert run.load(near).meta["knobs"]["lookalikes"] == 1 and len(run.load(near).meta["lookalikes"]) > 0
        alone = replace(run, also=())
        assert pe.checkpoint_name(run) == pe.checkpoint_name(alone) and run.budget() == alone.budget()
        assert "also" not in alone.settings and {**alone.settings, "also": (near, far)} == result["config"]

    @pytest.mark.parametrize("also", [("toytown-plaza",), ("viper", "viper")])
    def test_a_benchmark_is_judged_once(self, also):
        with pytest.raises(ValueError, match="names a benchmark twice, or 'toytown-plaza', the run's own"):
            pe.PersonRun("fusion", also=also)

    def test_a_mask_network_fills_three_rows_and_sweeps_alpha(self, world):
        run = pe.PersonRun("fmn-res2", **TINY, margin=0.1, alpha=0.7, identities=4, mask_epochs=2)
        found, _ = pe.run_person(run, bench=world, progress=False)
        rows = {result["row"]: result for result in found}
        assert list(rows) == ["grn", "lan-res2", "fmn-res2"] and {r["paper"] for r in found} == {pe.MASK}
        swept = rows["fmn-res2"]["metrics"]["world"]["alpha"]
        assert list(swept) == [str(a) for a in pe.ALPHAS]
        for row, alpha in (("grn", "1.0"), ("lan-res2", "0.0"), ("fmn-res2", "0.7")):
            assert swept[alpha]["mAP"] == pytest.approx(rows[row]["metrics"]["world"]["mAP"], abs=1e-3)
        assert [len(c) for c in rows["grn"]["curve"]["loss"]] == [4, 8]
        assert rows["grn"]["budget"] != rows["lan-res2"]["budget"], "the global network does not depend on stage 2"

    def test_controls_of_the_mask_network(self, world, tmp_path):
        """One with a mask of ones that stays so; and two global networks, each as its own seed trains it."""
        run = pe.PersonRun("nomask", **TINY, margin=0.1)
        found, model = pe.run_person(run, bench=world, work=tmp_path, progress=False)
        assert [r["row"] for r in found] == ["grn", "lan-nomask", "nomask"]
        assert not model.mask.weight.any() and (model.look(torch.randn(2, 3, *PIXELS))["mask"] == 1).all()
        grn = {0: model.grn.state_dict()}
        grn[1] = pe.train_person(replace(run, row="fmn", seed=1), world, progress=False)[0].grn.state_dict()
        found, pair = pe.run_person(replace(run, row="two-grn"), bench=world, work=tmp_path, progress=False)
        assert [r["row"] for r in found] == ["grn", "lan-two-grn", "two-grn"]
        assert found[0]["metrics"]["world"]["mAP"] != found[1]["metrics"]["world"]["mAP"]
        for seed, net in enumerate((pair.grn, pair.lan)):
            assert all(torch.equal(value, grn[seed][name]) for name, value in net.state_dict().items())
        assert len(list(tmp_path.glob("grn-*.pt"))) == 2 and "m0.1" not in found[2]["budget"]
        assert replace(run, rank_weight=0.0).budget().endswith("m0.1w0")
        still = replace(run, row="fmn", mask_lr=0.0)
        pe.seed_everything(0)
        start = pe.build(still, 8).mask.weight
        assert torch.equal(pe.train_person(still, world, work=tmp_path, progress=False)[0].mask.weight, start)
        assert start.any() and len(list(tmp_path.glob("grn-*.pt"))) == 2, "stage 1 does not depend on it"
        assert "mask_lr" not in run.settings and still.settings["mask_lr"] == 0

    def test_a_global_row_is_not_overwritten_by_that_of_another_training(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(pe.PersonRun, "load", lambda run, words, root=None: world)
        run = pe.PersonRun("fmn", **TINY, margin=0.1)
        pe.run_grid([run], folder=tmp_path, progress=False)
        (stored,) = tmp_path.rglob("*grn-*.json")
        before = stored.read_text()
        pe.run_grid([replace(run, row="nomask", margin=0.2)], folder=tmp_path, progress=False)
        with pytest.raises(ValueError, match=f"{stored.name} is of a global network .* a label of its own"):
            pe.run_grid([replace(run, row="fmn-res2", lr=0.5)], folder=tmp_path, progress=False)
        assert json.loads(before)["metrics"] == json.loads(stored.read_text())["metrics"]
        pe.run_grid([replace(run, row="fmn-res2", lr=0.5, label="fast")], folder=tmp_path, progress=False)

    @pytest.mark.parametrize("row", ["fusion", "fmn"])
    def test_a_compiled_network_trains_alike_and_is_left_plain(self, row, world, monkeypatch):
        """Compiled by dynamo alone: a compiler of C++ need not be here."""
        calls, plain = [], torch.compile
        monkeypatch.setattr(torch, "compile", lambda f: calls.append(f) or plain(f, backend="eager"))
        run = pe.PersonRun(row, **TINY | {"margin": 0.1})
        (net, histories), (compiled, again) = (
            pe.train_person(replace(run, compile=way), world, progress=False) for way in (False, True)
        )
        assert len(calls) == (2 if row == "fmn" else 1)
        for one, other in zip(histories, again, strict=True):
            np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)
        assert net.state_dict().keys() == compiled.state_dict().keys()

    def test_held_out_people_choose_the_checkpoint(self, world):
        run = pe.PersonRun("fusion", **TINY, validation=0.25, evaluations=3)
        (result,), _ = pe.run_person(run, bench=world, progress=False)
        curve = result["curve"]
        assert len(curve["validation"]) == 3 and curve["best_step"] == max(curve["validation"], key=lambda v: v[1])[0]
        assert len(np.unique(world.with_validation(0.25, seed=0).train.ids)) == 6

    def test_another_world_of_the_same_name_does_not_resume(self, world, tmp_path):
        run = pe.PersonRun("vanilla", **TINY)
        pe.train_person(run, world, work=tmp_path, progress=False)
        pe.train_person(run, replace(world, train=people(8, seed=1)), work=tmp_path, progress=False)
        assert len(list(tmp_path.glob("*.pt"))) == 2

    def test_fewer_people(self, world):
        (result,), _ = pe.run_person(pe.PersonRun("fusion", **TINY, people=4), bench=world, progress=False)
        assert result["data"]["train_identities"] == 4 and result["data"]["train_images"] == 16

    def test_a_grid_resumes_shares_the_global_network_and_refuses_other_settings(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(people_runs, "load_words", lambda name, root, **options: world)
        runs = [pe.PersonRun("fmn", **TINY, margin=margin) for margin in (0.0, 0.5)]
        pe.run_grid(runs[:1], folder=tmp_path, work=tmp_path / "work", progress=False)
        first = sorted(p.name for p in (tmp_path / "work").glob("*.pt"))
        assert len(first) == 1 and first[0].startswith("grn-fmn")
        stamp = (tmp_path / "work" / first[0]).stat().st_mtime_ns
        done = pe.run_grid(runs, folder=tmp_path, work=tmp_path / "work", progress=False)
        assert [r["row"] for r in done] == ["grn", "lan", "fmn"] and done[0]["config"]["margin"] == 0.5
        assert sorted(p.name for p in (tmp_path / "work").glob("*.pt")) == first
        assert (tmp_path / "work" / first[0]).stat().st_mtime_ns == stamp, "stage 1 is not trained again"
        assert not pe.run_grid(runs, folder=tmp_path, progress=False)
        assert {p.name for p in (tmp_path / pe.MASK).iterdir()} == {results.path_of(r).name for r in done} | {
            f"scratch-{row}-world-squeezenet1_1-64x32-1ep-1ep-m0-s0.json" for row in ("lan", "fmn")
        }
        assert json.loads(results.path_of(done[0], tmp_path).read_text())["config"]["pixels"] == list(PIXELS)
        with pytest.raises(ValueError, match="other settings than {'lr': 1.0}"):
            pe.run_grid([replace(runs[0], lr=1.0)], folder=tmp_path, progress=False)
        assert pe.PersonRun(**{**asdict(runs[0]), "pixels": list(PIXELS)}) == runs[0], "as read from JSON"
