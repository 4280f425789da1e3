"""The training loop: against an optimiser written out, and against real kills."""

from __future__ import annotations

import json
import math
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cdimlib.training import TrainConfig, autocast, fit, make_optimizer, pick_device, save_atomically, seed_everything

#: A small run with everything that has state: dropout, batch norm, AdamW, a schedule, validation, a checkpoint.
#: ``kill`` is "never", "batch" (while drawing the batch of step 17) or "save" (after the second checkpoint is written
#: to its temporary file, before it is moved into place).
SCRIPT = """
import os, signal, sys
import torch
from torch import nn
from cdimlib.data.samplers import generator_for
from cdimlib.training import TrainConfig, fit

torch.set_num_threads(1)


def train(checkpoint, kill):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 3))
    replaced = []

    def batches(seed, step):
        if kill == "batch" and step == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.randn(12, 6, generator=generator_for(seed, step))
        return x, x[:, :3].argmax(dim=1)

    def objective(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def validate(model):
        model.eval()
        x = torch.randn(40, 6, generator=generator_for(99, 0))
        return (model(x).argmax(dim=1) == x[:, :3].argmax(dim=1)).float().mean()

    if kill == "save":
        replace = os.replace

        def dying(part, path):
            replaced.append(path)
            if str(path).endswith(".pt") and sum(str(p).endswith(".pt") for p in replaced) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(part, path)

        os.replace = dying
    config = TrainConfig(40, 0.02, "adamw", 0.1, "cosine", seed=5, evaluate_every=4, checkpoint_every=5)
    history = fit(model, batches, objective, config, validate=validate, checkpoint=checkpoint, progress=False)
    return model, history


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2])
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "small_run.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def train(script):
    threads = torch.get_num_threads()
    yield runpy.run_path(str(script))["train"]
    torch.set_num_threads(threads)


class TestResume:
    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
    @pytest.mark.parametrize(("kill", "reached"), [("batch", 15), ("save", 5)])
    def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(self, script, train, tmp_path, kill, reached):
        checkpoint = tmp_path / "run.pt"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        process = subprocess.run([sys.executable, str(script), str(checkpoint), kill], env=environment, timeout=120)
        assert process.returncode == -signal.SIGKILL
        assert torch.load(checkpoint, weights_only=True)["step"] == reached
        resumed, history = train(checkpoint, "never")
        whole, expected = train(None, "never")
        assert history.losses == expected.losses and len(history.losses) == 40
        assert history.validation == expected.validation and history.best_step == expected.best_step
        assert 0 < history.earlier < history.seconds and expected.earlier == 0, "seconds of the killed process count"
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name

    def test_a_finished_run_is_not_repeated(self, train, tmp_path):
        first, before = train(tmp_path / "run.pt", "never")
        again, after = train(tmp_path / "run.pt", "never")
        assert before.losses == after.losses and before.model_seconds == after.model_seconds
        assert after.earlier == 0, "what was only read was not waited for"
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
        log = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
        assert [(line["step"], line["score"]) for line in log] == before.validation
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run.jsonl", "run.pt"]


def quadratic(model, batch):
    """Loss whose gradient is known: half the squared distance of the weights to ``batch``."""
    return 0.5 * sum((p - batch).pow(2).sum() for p in model.parameters())


def line(**changed):
    """One weight matrix and one bias, both starting at one."""
    model = nn.Linear(2, 1)
    for p in model.parameters():
        nn.init.ones_(p)
    return model


CONFIG = TrainConfig(steps=6, lr=0.1)
quiet = {"progress": False}


class TestOptimisers:
    @pytest.mark.parametrize("schedule", ["constant", "cosine"])
    def test_sgd_with_momentum_and_schedule_by_hand(self, schedule):
        config = TrainConfig(steps=10, lr=0.1, schedule=schedule, warmup=0.3, weight_decay=0.5)
        model = line()
        fit(model, lambda seed, step: float(step), quadratic, config, **quiet)
        for parameter, decay in ((model.weight, 0.5), (model.bias, 0.0)):  # decay acts on matrices only
            value, speed = 1.0, 0.0
            for step in range(10):
                speed = 0.9 * speed + (value - step) + decay * value
                value -= config.lr_at(step) * speed
            assert parameter.flatten()[0].item() == pytest.approx(value, rel=1e-4)

    def test_adamw_decays_matrices_only(self):
        model = line()
        config = TrainConfig(steps=3, lr=0.1, optimizer="adamw", weight_decay=0.5)
        fit(model, lambda seed, step: None, lambda m, b: 0 * sum(p.sum() for p in m.parameters()), config, **quiet)
        assert model.weight[0, 0].item() == pytest.approx(0.95**3) and model.bias.item() == 1

    def test_adam_takes_the_decay_for_a_term_of_the_loss(self):
        """The gradient is the decay's alone: Adam's first step is then the whole rate, whatever the decay."""
        for decay in (0.5, 0.001):
            model = line()
            config = TrainConfig(steps=1, lr=0.1, optimizer="adam", weight_decay=decay)
            fit(model, lambda seed, step: None, lambda m, b: 0 * sum(p.sum() for p in m.parameters()), config, **quiet)
            assert model.weight[0, 0].item() == pytest.approx(0.9, abs=1e-4) and model.bias.item() == 1

    def test_frozen_parameters_stay(self):
        model = line()
        model.weight.requires_grad_(False)
        fit(model, lambda seed, step: 5.0, quadratic, CONFIG, **quiet)
        assert model.weight.tolist() == [[1, 1]] and model.bias.item() != 1
        model.bias.requires_grad_(False)
        with pytest.raises(ValueError, match="no parameter to train"):
            make_optimizer(model, CONFIG)
        with pytest.raises(ValueError, match="no parameter to train"):
            fit(nn.Identity(), lambda seed, step: 5.0, quadratic, CONFIG, **quiet)

    def test_schedule(self):
        config = TrainConfig(steps=100, lr=2.0, schedule="cosine", warmup=0.2)
        rates = [config.lr_at(step) for step in range(100)]
        assert rates[:20] == pytest.approx([2 * (t + 1) / 21 for t in range(20)])
        assert rates[20:] == pytest.approx([1 + math.cos(math.pi * t / 80) for t in range(80)])
        assert max(rates) == rates[20] == 2 and 0 < rates[-1] < 0.002
        assert TrainConfig(steps=5, lr=0.3).lr_at(4) == 0.3
        assert TrainConfig(steps=1, lr=0.3, schedule="cosine").lr_at(0) > 0

    def test_decay_in_periods_and_rates_of_their_own_by_hand(self):
        """Each parameter walks as SGD with its own rate does; momentum, and a Nesterov step."""
        config = TrainConfig(steps=7, lr=0.1, schedule="decay", decay=0.5, period=3, nesterov=True,
                             lr_scale=(("bias", 0.01), ("b", 7.0)))  # fmt: skip
        assert [config.lr_at(t) for t in range(7)] == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025])
        model = line()
        fit(model, lambda seed, step: float(step), quadratic, config, **quiet)
        for parameter, scale in ((model.weight, 1), (model.bias, 0.01)):
            value, speed = 1.0, 0.0
            for step in range(7):
                gradient = value - step
                speed = 0.9 * speed + gradient
                value -= scale * config.lr_at(step) * (gradient + 0.9 * speed)
            assert parameter.flatten()[0].item() == pytest.approx(value, rel=1e-4)
        with pytest.raises(ValueError, match=r"no parameter of the model is called 'head'"):
            make_optimizer(model, replace(config, lr_scale=(("head", 0.1),)))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"optimizer": "lion"}, "optimizer must be one of sgd, adam, adamw, not 'lion'"),
            ({"schedule": "step"}, "schedule must be one of constant, cosine, decay, not 'step'"),
            ({"schedule": "decay"}, "need period >= 1 and 0 < decay <= 1; got 0 and 0.1"),
            ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16, not 'fp16'"),
            ({"steps": 0}, r"need steps >= 1, lr > 0 and 0 <= warmup < 1; got 0"),
            ({"lr": -1.0}, r"got 6, -1.0"),
            ({"warmup": 1.0}, r"got 6, 0.1, 1.0"),
            ({"steps": 2.5}, r"need a whole number of steps and patience >= 1 or None; got 2.5 and None"),
            ({"patience": 0}, r"got 6 and 0"),
            ({"checkpoint_every": 0}, r"need checkpoint_every >= 1 and evaluate_every >= 0; got 0 and 0"),
        ],
    )
    def test_configuration_errors(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            replace(CONFIG, **wrong)


class TestValidation:
    """A model whose weight counts its steps, so that every state is known by its value."""

    @staticmethod
    def count(config, scores, **options):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        seen = iter(scores)
        history = fit(model, lambda seed, step: None, lambda m, b: -m.weight.sum(), config,
                      validate=lambda m: next(seen), **quiet, **options)  # fmt: skip
        return model.weight.item(), history

    def weights(self, steps):
        """Weight after each number of steps (momentum makes the walk uneven)."""
        return self.count(TrainConfig(steps=steps, lr=1.0), [0.0])[0]

    def test_ends_with_the_best_weights(self):
        value, history = self.count(TrainConfig(steps=10, lr=1.0, evaluate_every=2), [1, 5, 3, 4, 2])
        assert (history.best_step, history.best_score) == (4, 5) and value == pytest.approx(self.weights(4))
        assert history.validation == [(2, 1), (4, 5), (6, 3), (8, 4), (10, 2)]
        assert not history.stopped_early and len(history.losses) == 10

    def test_a_tie_keeps_the_earlier(self):
        _, history = self.count(TrainConfig(steps=6, lr=1.0, evaluate_every=2), [1, 1, 1])
        assert history.best_step == 2

    def test_last_step_is_always_validated(self):
        _, history = self.count(TrainConfig(steps=7, lr=1.0, evaluate_every=3), [1, 2, 3])
        assert [step for step, _ in history.validation] == [3, 6, 7]

    def test_early_stopping(self):
        config = TrainConfig(steps=100, lr=1.0, evaluate_every=2, patience=2)
        value, history = self.count(config, [1, 3, 2, 3])
        assert history.stopped_early and len(history.losses) == 8 and history.best_step == 4
        assert value == pytest.approx(self.weights(4))

    def test_a_run_that_stopped_early_stays_stopped(self, tmp_path):
        config = TrainConfig(steps=100, lr=1.0, evaluate_every=2, patience=1)
        first = self.count(config, [1, 0], checkpoint=tmp_path / "run.pt")
        again = self.count(config, [], checkpoint=tmp_path / "run.pt")
        assert again[0] == first[0] and again[1].losses == first[1].losses and again[1].stopped_early

    def test_notes_with_numpys_numbers_survive_a_stop(self, tmp_path):
        config, note = TrainConfig(steps=4, lr=1.0, evaluate_every=2), {2: (np.float64(0.5), [np.int64(3)], np.ones(2))}
        histories = [self.count(config, scores, checkpoint=tmp_path / "run.pt")[1]
                     for scores in ([(1.0, note), (2.0, note)], [])]  # fmt: skip
        assert histories[0].notes == histories[1].notes == 2 * [{2: [0.5, [3], [1.0, 1.0]]}]

    def test_without_validation_the_last_weights_stay(self):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        fit(model, lambda seed, step: None, lambda m, b: -m.weight.sum(), TrainConfig(steps=3, lr=1.0), **quiet)
        assert model.weight.item() == pytest.approx(self.weights(3))

    def test_training_mode_during_steps(self):
        modes = []
        model = line()

        def objective(m, batch):
            modes.append(m.training)
            return quadratic(m, 0.0)

        def validate(m):
            m.eval()
            return 0.0

        fit(model, lambda seed, step: None, objective, replace(CONFIG, evaluate_every=1), validate=validate, **quiet)
        assert modes == [True] * 6


class TestErrors:
    def test_loss_that_is_not_a_number(self):
        def objective(model, batch):
            return quadratic(model, batch) * (float("nan") if batch == 2 else 1.0)

        with pytest.raises(FloatingPointError, match=r"the loss is nan at step 2: lower the learning rate \(0.1\)"):
            fit(line(), lambda seed, step: step, objective, CONFIG, **quiet)

    def run(self, path, model=None, config=CONFIG):
        return fit(model or line(), lambda seed, step: 0.0, quadratic, config, checkpoint=path, **quiet)

    def test_checkpoint_of_another_configuration(self, tmp_path):
        self.run(tmp_path / "run.pt")
        with pytest.raises(ValueError, match=r"run.pt belongs to another configuration \(lr=0.1\): use another"):
            self.run(tmp_path / "run.pt", config=replace(CONFIG, lr=0.2))
        self.run(tmp_path / "run.pt", config=replace(CONFIG, checkpoint_every=7))  # this one may change

    def test_checkpoint_of_another_model(self, tmp_path):
        self.run(tmp_path / "run.pt")
        with pytest.raises(ValueError, match=r"run.pt belongs to another model .*size mismatch"):
            self.run(tmp_path / "run.pt", model=nn.Linear(3, 1))

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
    def test_corrupted_checkpoint(self, tmp_path, content):
        path = tmp_path / "run.pt"
        self.run(path)
        path.write_bytes(path.read_bytes()[:700] if content is None else content)
        with pytest.raises(ValueError, match=r"run.pt cannot be read as a checkpoint \(.*delete it to start again"):
            self.run(path)

    @pytest.mark.parametrize("content", [{"net": torch.zeros(1)}, [1, 2]])
    def test_a_file_of_something_else(self, tmp_path, content):
        torch.save(content, tmp_path / "run.pt")
        with pytest.raises(ValueError, match=r"run.pt is not a checkpoint that fit\(\) wrote"):
            self.run(tmp_path / "run.pt")

    def test_failed_write_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "deep" / "file.txt"
        save_atomically(path, lambda part: part.write_text("old"))

        def fails(part):
            part.write_text("ne")
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            save_atomically(path, fails)
        assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["file.txt"]


class TestSeedsAndDevices:
    def test_every_generator(self):
        import random

        import numpy as np

        def draw():
            return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

        seed_everything(3)
        first = draw()
        seed_everything(3)
        second = draw()
        seed_everything(4)
        assert first == second and all(a != b for a, b in zip(first, draw(), strict=True))

    def test_dropout_depends_on_seed_and_step_alone(self):
        def masks(seed, disturb):
            seen = []

            def objective(model, batch):
                seen.append(F.dropout(torch.ones(16), 0.5).tolist())
                return quadratic(model, 0.0)

            def batches(seed, step):
                torch.rand(disturb)

            fit(line(), batches, objective, replace(CONFIG, seed=seed), **quiet)
            return seen

        assert masks(0, 1) == masks(0, 5) != masks(1, 1)
        assert len({str(mask) for mask in masks(0, 1)}) == 6

    def test_precision(self):
        cpu = torch.device("cpu")
        a = torch.ones(2, 2)
        for precision, expected in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("auto", torch.float32)):
            with autocast(cpu, precision):
                assert (a @ a).dtype == expected
        assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
