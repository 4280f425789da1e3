"""Two processes against one: every scenario below runs in both, and the outcomes are compared."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn

from cdimlib import distributed as dd
from cdimlib import people_experiments as pe
from cdimlib import qaconv_experiments as qe
from cdimlib.data import load
from cdimlib.data.augment import PersonInput
from cdimlib.data.samplers import generator_for
from cdimlib.losses import in_batch_contrastive
from cdimlib.models.matcher import VectorMatcher
from cdimlib.models.qaconv import Classifier, ClassMemory, PooledMaps, QAConv
from cdimlib.retrieval.protocols import judge
from cdimlib.training import TrainConfig

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch is built without torch.distributed")
SECONDS = 300  # for any one launch; a launch that takes longer is killed, and the test fails
TINY = dict(backbone="squeezenet1_1", pixels=(64, 32), size="tiny")


def drawn(batch, classes=5, size=(3, 8, 6), dtype=torch.float64):
    """(seed, step) -> this process's share of a joint batch of noise with labels, some of them twice."""

    def batches(seed, step):
        generator = generator_for(seed, step)
        images = torch.randn(batch, *size, generator=generator, dtype=dtype)
        labels = torch.randint(classes, (batch,), generator=generator)
        return dd.share(images + labels[:, None, None, None]), dd.share(labels)

    return batches


def network(out=5):
    """No bias before batch normalisation: its gradient is zero but for rounding, which AdamW would blow up."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 16, bias=False),
        nn.BatchNorm1d(16, momentum=None, affine=False), nn.ReLU(), nn.Linear(16, out),
    ).double()  # fmt: skip


def outcome(model, history):
    return {"losses": history.losses, "validation": history.validation, "state": dict(model.state_dict())}


def classify(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], label_smoothing=0.1)


CONFIG = TrainConfig(6, 0.01, "adamw", 0.1, "cosine", seed=3, evaluate_every=2, checkpoint_every=2)


def uneven(folder):
    """Shares of 4 and 3 images, with batch normalisation, weight decay, validation and a checkpoint."""
    model = network()
    images = torch.randn(9, 3, 8, 6, generator=generator_for(9, 9), dtype=torch.float64)
    validate = lambda net: (-net.eval()(images).square().mean().item(), {"rank": 0})  # noqa: E731
    work = folder / f"files-of-{dd.rank()}"
    history = dd.fit(model, drawn(7), classify, CONFIG, validate=validate, checkpoint=work / "run.pt", progress=False)
    return outcome(model, history)


def whole(folder):
    """An objective in which every image is a negative of every other, whichever process has it."""
    model = network()

    def objective(net, batch):
        features, labels = F.normalize(net(batch[0])), dd.gather(batch[1])
        return in_batch_contrastive(dd.gather(features) @ dd.gather(features.flip(1)).T) + 0 * labels.sum()

    return outcome(model, dd.fit(model, drawn(7), objective, CONFIG, progress=False))


def memory(folder, matcher=QAConv):
    """Eight images a step of five people: a person comes up in both shares, and twice in one."""
    torch.manual_seed(0)
    model = dd.SharedMemory(matcher((64, 32), backbone="squeezenet1_1", tap="res2", channels=4), 5)
    batches, seen = drawn(8, size=(3, 64, 32), dtype=torch.float32), []

    def objective(net, batch):
        loss = net(*batch)
        seen.append((net.features.clone(), net.written.clone()))
        return loss

    history = dd.fit(model, batches, objective, replace(CONFIG, optimizer="sgd"), progress=False)
    return {**outcome(model, history), "seen": seen}


def cosine(folder):
    return memory(folder, PooledMaps)


def centred(folder):
    """Softmax with the centre loss, on the images of :func:`memory`."""
    torch.manual_seed(0)
    maps = PooledMaps((64, 32), backbone="squeezenet1_1", tap="res2", channels=4)
    model = dd.SharedClassifier(maps, 5, center=0.1)
    batches = drawn(8, size=(3, 64, 32), dtype=torch.float32)
    config = replace(CONFIG, optimizer="sgd")
    return outcome(model, dd.fit(model, batches, lambda net, batch: net(*batch), config, progress=False))


def augmented(folder):
    """The images of two steps; of a share, joined again."""
    bench = load("toytown-plaza", size="tiny", pixels=(64, 32))
    view = qe.BlockInput((64, 32), pad=3, crop=0.8, erase=0.5, block=0.5)
    batches, sampler = dd.resident_batches(bench.train, view, 7)
    people, _ = dd.resident_batches(bench.train, PersonInput((64, 32)), 8, identities=4)
    steps = [batches(1, 0), batches(1, 5), people(0, 1)]
    return {"images": [dd.gather(i) for i, _ in steps], "labels": [dd.gather(n) for _, n in steps],
            "own": [len(i) for i, _ in steps], "classes": sampler.classes}  # fmt: skip


def judged(folder):
    """Features, scores and metrics of a town; few enough images that one process has none to encode."""
    bench = load("toytown-plaza", size="tiny", pixels=(64, 32))
    torch.manual_seed(0)
    matcher, prepare = QAConv((64, 32), backbone="squeezenet1_1", tap="res2", channels=4), PersonInput((64, 32))
    seen = [(dd.encode(matcher, s.images, prepare, batch_size=10), s.ids, s.cams) for s in (bench.query, bench.gallery)]
    matcher.eval()
    scores = dd.similarity(matcher, seen[0][0], seen[1][0])
    few = dd.encode(matcher, bench.query.images[:3], prepare), dd.similarity(VectorMatcher(), *torch.rand(2, 1, 5))
    return {"features": [s[0] for s in seen], "scores": scores, "metrics": judge(scores, *seen), "few": few[0],
            "counted": dd.once(lambda: dd.rank())()}  # fmt: skip


def person(folder):
    """A row with two stages, validation and re-ranking, by the grid that writes its JSON; once more, which does not."""
    run = pe.PersonRun("fmn", epochs=0.25, batch=15, margin=0.1, rerank=True, validation=0.3, evaluations=2, **TINY)
    first = pe.run_grid([run], folder=folder / "results", work=folder / "work", progress=False)
    again = pe.run_grid([run], folder=folder / "results", progress=False)
    return {"rows": [r["row"] for r in first], "again": len(again), "result": first[0]}


def refused(folder):
    """What every process has to refuse, and say why."""
    bench = load("toytown-plaza", size="tiny", pixels=(64, 32))
    lonely = folder / f"lonely-{dd.rank()}.pt"
    if dd.rank() == 0:
        lonely.write_bytes(b"one")
    attempts = {
        "small": lambda: drawn(3)(0, 0),
        "data": lambda: dd.resident_batches(bench.train.where(bench.train.ids > dd.rank()), None, 8),
        "disk": lambda: dd.fit(network(), drawn(7), classify, CONFIG, checkpoint=lonely),
        "compile": lambda: pe.train_person(pe.PersonRun("vanilla", compile=True), bench),
        "nan": lambda: dd.fit(network(), drawn(7), lambda *a: classify(*a) * (float("nan") if dd.rank() else 1), CONFIG,
                              progress=False),
    }  # fmt: skip
    said = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except (ValueError, FloatingPointError) as error:
            said[name] = str(error)
    return said


def dropout(folder):
    """Masks of the two shares; of one process."""
    seen = []

    def objective(net, batch):
        seen.append(F.dropout(torch.ones(2, 16), 0.5))
        return classify(net, batch)

    dd.fit(network(), drawn(4), objective, replace(CONFIG, steps=1), progress=False)
    return {"masks": dd.gather(seen[0])}


def resumable(folder, dies=False, name="killed.pt"):
    model = network()
    own = drawn(7)

    def batches(seed, step):
        if dies and step == 5 and dd.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(seed, step)

    return outcome(model, dd.fit(model, batches, classify, CONFIG, checkpoint=folder / name, progress=False))


def killed(folder):
    return resumable(folder, dies=True)


def straight(folder):
    return resumable(folder, name="straight.pt")


SCENARIOS = (uneven, whole, memory, cosine, centred, augmented, judged, person, dropout, resumable, straight)


def process(number, port, folder, scenarios):
    """One of the two: as torchrun starts it, with the store of the process that started it."""
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2", MASTER_ADDR="localhost",
                      MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
    torch.set_num_threads(1)
    with dd.group(timeout=200):
        torch.save({scenario.__name__: scenario(folder) for scenario in scenarios}, folder / f"{number}.pt")


def launch(folder, *scenarios):
    """Run scenarios in two processes; their exit codes."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # finds a free port, and keeps it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cdimlib.qaconv_experiments", "cdimlib.people_experiments"])
    both = [context.Process(target=process, args=(n, store.port, folder, scenarios), daemon=True) for n in range(2)]
    end = time.monotonic() + SECONDS
    for one in both:
        one.start()
    try:
        while any(one.is_alive() for one in both) and time.monotonic() < end:
            time.sleep(0.05)
            if any(one.exitcode for one in both):  # what torchrun does: one has failed, the other need not wait for it
                end = min(end, time.monotonic() + 10)
    finally:
        for one in both:
            one.kill()
            one.join()
    return [one.exitcode for one in both]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """folder, (outcomes of the first process, of the second), outcomes of one process."""
    folder, alone = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    codes = launch(folder, killed)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None)
    (folder / "as-killed").write_bytes((folder / "killed.pt").read_bytes())
    assert launch(folder, *SCENARIOS, refused) == [0, 0]
    two = [torch.load(folder / f"{n}.pt", weights_only=False) for n in (0, 1)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = {scenario.__name__: scenario(alone) for scenario in SCENARIOS}
    torch.set_num_threads(threads)
    return folder, two, one


def close(found, expected, **tolerance):
    assert found["losses"] == pytest.approx(expected["losses"], rel=tolerance["rtol"], abs=tolerance["atol"])
    assert found["state"].keys() == expected["state"].keys()
    for name, value in expected["state"].items():
        torch.testing.assert_close(found["state"][name], value, **tolerance, msg=lambda m, name=name: f"{name}: {m}")


class TestTraining:
    @pytest.mark.parametrize("name", ["uneven", "whole"])
    def test_loss_and_weights_are_those_of_one_process(self, ran, name):
        _, two, one = ran
        for found in two:
            close(found[name], one[name], rtol=1e-9, atol=1e-11)
        assert len(set(one[name]["losses"])) == 6

    @pytest.mark.parametrize("name", ["uneven", "whole", "memory", "cosine", "centred", "resumable"])
    def test_both_processes_hold_the_same_bits(self, ran, name):
        _, (first, second), _ = ran
        assert first[name]["losses"] == second[name]["losses"]
        assert all(torch.equal(v, second[name]["state"][k]) for k, v in first[name]["state"].items())

    def test_validation_chooses_alike(self, ran):
        _, two, one = ran
        for found in two:
            assert [step for step, _ in found["uneven"]["validation"]] == [2, 4, 6]
            assert found["uneven"]["validation"] == [(s, pytest.approx(v)) for s, v in one["uneven"]["validation"]]

    def test_dropout_masks_differ_between_shares(self, ran):
        _, two, one = ran
        own, other = two[0]["dropout"]["masks"].split(2)
        assert torch.equal(own, one["dropout"]["masks"]) and not torch.equal(own, other)

    def test_killed_and_resumed(self, ran, tmp_path):
        """Of a killed training the checkpoint is whole; resumed it ends with the bits of one that was not killed, and
        in one process instead of two with its numbers."""
        folder, two, one = ran
        assert torch.load(folder / "as-killed", weights_only=True)["step"] == 4
        (tmp_path / "killed.pt").write_bytes((folder / "as-killed").read_bytes())
        close(resumable(tmp_path), one["resumable"], rtol=1e-9, atol=1e-11)
        close(two[0]["resumable"], two[0]["straight"], rtol=0, atol=0)
        assert len(two[0]["resumable"]["losses"]) == 6


class TestMemory:
    @pytest.mark.parametrize("name", ["memory", "cosine"])
    def test_every_write_is_seen_by_all_in_the_order_of_one_process(self, ran, name):
        _, two, one = ran
        for found in two:
            close(found[name], one[name], rtol=1e-4, atol=2e-6)
            for (features, written), (expected, expected_written) in zip(found[name]["seen"], one[name]["seen"]):
                assert torch.equal(written, expected_written)
                torch.testing.assert_close(features, expected, rtol=1e-4, atol=2e-5)
        labels = torch.stack([drawn(8)(3, step)[1] for step in range(6)])
        assert any(set(row[:4].tolist()) & set(row[4:].tolist()) for row in labels)  # a person in both shares

    def test_without_it_half_of_the_writes_are_lost(self, ran):
        """What the comparison above would see if each process wrote its own share only."""
        _, _, one = ran
        share, labels = (part[:4] for part in drawn(8, size=(3, 64, 32), dtype=torch.float32)(3, 0))
        plain = ClassMemory(QAConv((64, 32), backbone="squeezenet1_1", tap="res2", channels=4), 5)
        plain(share, labels)
        assert plain.written.sum() < one["memory"]["seen"][0][1].sum()


class TestCentres:
    def test_every_process_moves_them_by_the_images_of_all(self, ran):
        _, two, one = ran
        for found in two:
            close(found["centred"], one["centred"], rtol=1e-4, atol=2e-6)

    def test_otherwise_they_move_elsewhere(self, ran):
        """What the comparison above would see if each process moved them by its own share only."""
        _, _, one = ran
        torch.manual_seed(0)
        maps = PooledMaps((64, 32), backbone="squeezenet1_1", tap="res2", channels=4)
        plain = Classifier(maps, 5, center=0.1)
        own = lambda seed, step: tuple(part[:4] for part in drawn(8, size=(3, 64, 32), dtype=torch.float32)(seed, step))  # noqa: E731
        dd.fit(plain, own, lambda net, batch: net(*batch), replace(CONFIG, optimizer="sgd"), progress=False)
        found, expected = plain.centers, one["centred"]["state"]["centers"]
        assert (found - expected).abs().max() > 100 * 2e-6 and expected.abs().min(1).values.max() > 0


class TestData:
    def test_shares_joined_are_the_batch_of_one_process_bit_for_bit(self, ran):
        _, two, one = ran
        assert [found["augmented"]["own"] for found in two] == [[4, 4, 4], [3, 3, 4]]
        for found in two:
            assert found["augmented"]["classes"] == one["augmented"]["classes"]
            for name in ("images", "labels"):
                for joined, expected in zip(found["augmented"][name], one["augmented"][name]):
                    torch.testing.assert_close(joined, expected, rtol=0, atol=0)
        assert not torch.equal(*one["augmented"]["images"][:2])


class TestEvaluation:
    def test_gathered_is_that_of_one_process(self, ran):
        _, two, one = ran
        expected = one["judged"]
        for found in (outcomes["judged"] for outcomes in two):
            for features, alone in zip((*found["features"], found["few"]), (*expected["features"], expected["few"])):
                torch.testing.assert_close(features, alone, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-5, atol=1e-6)
            assert found["metrics"] == two[0]["judged"]["metrics"] and found["counted"] == 0
            assert found["metrics"]["mAP"] == pytest.approx(expected["metrics"]["mAP"], abs=1e-3)


class TestFiles:
    def test_only_the_first_process_writes(self, ran):
        folder, _, _ = ran
        assert sorted(p.name for p in (folder / "files-of-0").iterdir()) == ["run.jsonl", "run.pt"]
        assert not (folder / "files-of-1").exists() and not list(folder.rglob("*.part"))

    def test_a_grid_writes_one_json_that_tells_processes_and_batches(self, ran):
        folder, two, one = ran
        written = sorted((folder / "results").rglob("*.json"))
        assert len(written) == len(one["person"]["rows"]) == len(two[0]["person"]["rows"])
        for path in written:
            result = json.loads(path.read_text())
            assert (result["processes"], result["batch_per_process"]) == (2, [8, 7])
            assert result["config"] == json.loads(json.dumps(one["person"]["result"]["config"]))
        assert (one["person"]["result"]["processes"], one["person"]["result"]["batch_per_process"]) == (1, [15])
        assert [outcomes["person"]["again"] for outcomes in (*two, one)] == [0, 0, 0]
        found, expected = (outcomes["person"]["result"]["curve"]["loss"] for outcomes in (two[0], one))
        assert len(found) == 2 and all(a == pytest.approx(b, abs=2e-3) for a, b in zip(found, expected))
        left = {path.name.split("-")[0] for path in (folder / "work").iterdir()}
        assert left == {"grn"}  # of the second stage nothing; the first one's is for other runs, too


class TestErrors:
    @pytest.mark.parametrize(("name", "words"), [
        ("small", "a batch of 3 is too small for 2 processes: each needs two images at least"),
        ("data", "the processes have different training images: give all machines the same data"),
        ("disk", "put it on a disk that all machines share"),
        ("compile", "compile=True is for one process"),
        ("nan", "the loss is nan at step 0"),
    ])  # fmt: skip
    def test_on_every_process(self, ran, name, words):
        assert all(words in outcomes["refused"][name] for outcomes in ran[1])

    @pytest.mark.parametrize(("environment", "words"), [
        ({"RANK": "0"}, "has RANK, but lacks LOCAL_RANK, MASTER_ADDR, MASTER_PORT, WORLD_SIZE: start with torchrun"),
        (dict(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="localhost"), "lacks MASTER_PORT"),
        (dict(zip(dd.VARIABLES, ("2", "2", "0", "localhost", "1"))), "RANK=2 is not below WORLD_SIZE=2"),
    ])  # fmt: skip
    def test_an_environment_half_set(self, monkeypatch, environment, words):
        for name in dd.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=words), dd.group():
            pass

    @pytest.mark.parametrize("environment", [{}, {"MASTER_ADDR": "localhost"}])
    def test_alone_everything_is_plain(self, monkeypatch, environment):
        for name in dd.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        with dd.group():
            assert (dd.size(), dd.rank(), dd.agree(3), dd.settings(5)["batch_per_process"]) == (1, 0, 3, [5])
            ones = torch.ones(1, 2)
            assert dd.gather(ones) is ones and torch.equal(dd.share(ones), ones)


class TestCommand:
    @pytest.fixture
    def notebook(self, root, tmp_path):
        """The QAConv experiment with its small recipe made smaller still."""
        book = nbformat.read(root / "book" / "experiments" / "qaconv_transfer.ipynb", as_version=4)
        for cell in book.cells:
            cell.source = cell.source.replace('backbone="resnet18", tap="res3", channels=64, pixels=(64, 32)',
                                              'backbone="squeezenet1_1", tap="res2", channels=4, pixels=(64, 32)')
        assert any("channels=4" in cell.source for cell in book.cells)
        nbformat.write(book, tmp_path / "qaconv.ipynb")
        return tmp_path / "qaconv.ipynb"

    def run(self, notebook, *words, processes=2):
        code = Path(dd.__file__).resolve().parents[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   str(code / "tools" / "train_distributed.py"), str(notebook), *words]
        inherited = {k: v for k, v in os.environ.items() if k not in dd.VARIABLES}
        environment = {**inherited, "PYTHONPATH": str(code), "CDIM_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, env=environment, text=True, start_new_session=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as torchrun:  # fmt: skip
            try:
                out, error = torchrun.communicate(timeout=SECONDS)
            finally:
                if torchrun.poll() is None:
                    os.killpg(torchrun.pid, signal.SIGKILL)
        return torchrun.returncode, out, error

    def test_torchrun_trains_a_row_and_writes_its_json(self, notebook, tmp_path):
        folder = str(tmp_path / "results")
        given = dict(rows="qaconv", benchmarks="toytown-plaza", folder=folder, work=str(tmp_path / "work"))
        code, out, error = self.run(notebook, *(word for p in given.items() for word in ("-p", *p)))
        assert code == 0, error
        assert out.count("2 process(es), profile smoke") == out.count("new results in") == 1
        written = {p.name: json.loads(p.read_text()) for p in Path(folder).rglob("*.json")}
        ends = ("", "+rerank", "+tlift", "+rerank+tlift")
        assert {r["row"] for r in written.values()} == {f"qaconv{end}" for end in ends}
        assert {(r["processes"], *r["batch_per_process"]) for r in written.values()} == {(2, 16, 16)}

    @pytest.mark.parametrize(("words", "message"), [
        (("-p", "epoch", "3"), "has no parameter 'epoch'. Its parameters are: rows, benchmarks"),
        (("-p", "epochs", "many"), "parameter 'epochs' must be a number"),
    ])  # fmt: skip
    def test_what_the_notebook_does_not_know_is_refused(self, notebook, words, message, capsys):
        import train_distributed

        assert train_distributed.main([str(notebook), *words]) == 2
        assert message in capsys.readouterr().err

    def test_an_error_of_another_process_is_said_too(self, notebook, capsys, monkeypatch):
        """Only process 3 knows that there is no third GPU."""
        import train_distributed

        monkeypatch.setenv("RANK", "3")
        assert train_distributed.main([str(notebook), "-p", "epoch", "3"]) == 2
        said = capsys.readouterr()
        assert "train_distributed (process 3):" in said.err and "no parameter 'epoch'" in said.err and not said.out

    @pytest.mark.parametrize(("name", "message"), [
        ("book/experiments/nothing.ipynb", "there is no notebook"),
        ("book/experiments/multilevel.ipynb", "trains in one process only"),
        ("book/experiments/time_market.ipynb", "no cell that calls run_grid"),
    ])  # fmt: skip
    def test_experiments_of_one_process_are_refused(self, root, name, message, capsys, monkeypatch):
        import train_distributed

        monkeypatch.chdir(root)
        assert train_distributed.main([name]) == 2
        assert message in capsys.readouterr().err
