"""Weights to start a sketch run from: our stand-in for the paper's staged pretraining."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import results
from .data import Benchmark, Split, load
from .data.samplers import generator_for
from .data.transforms import SketchInput, Warp
from .models.matcher import Matcher
from .models.midlevel import SketchFusion
from .training import TrainConfig, fit, pick_device, read_checkpoint, save_atomically, seed_everything


@dataclass(frozen=True)
class Pretraining:
    """Our stand-in for the paper's staged pretraining, whose weights and data cannot be had.

    Sketch-a-Net learns to recognise which object a drawing shows, from the training drawings of all categories, edge
    maps and sketches alike, one class per object (cosine softmax). It sees no test identity, and none that a run of the
    same ``seed`` and ``validation`` holds out, of one category or of all.
    """

    benchmark: str = "qmul"
    seed: int = 0
    size: int = 141
    steps: int = 200
    batch: int = 128
    lr: float = 1e-3
    warp: float = 1.0
    jitter: float = 0.2
    validation: float = 0.1
    precision: str = "auto"


def never_held_out(bench: Benchmark, fraction: float, seed: int) -> Split:
    """The training images that no ``with_validation(fraction, seed)`` holds out, of all categories or of one.

    All of them where ``fraction`` is 0.
    """
    if not fraction:
        return bench.train
    cuts = [part.with_validation(fraction, seed) for part in (bench, *(part for _, part in bench.by_category()))]
    return bench.train.where(~np.isin(bench.train.ids, np.concatenate([cut.query.ids for cut in cuts])))


def pretrain(
    plan: Pretraining, path: str | Path, *, bench: Benchmark | None = None, root=None, progress: bool = True
) -> Path:
    """Train and write the weights of a Sketch-a-Net (``{"net": state, "plan": ...}``) to ``path``; returns it.

    bench: a benchmark to use instead of ``load(plan.benchmark, root)``. A stopped pretraining goes on where it was.
    """
    path, device = Path(path), pick_device()
    train = never_held_out(bench or load(plan.benchmark, root), plan.validation, plan.seed)
    seed_everything(plan.seed)
    model = SketchFusion(taps=(), input_size=plan.size).to(device, memory_format=torch.channels_last)
    classes, labels = np.unique(train.ids, return_inverse=True)
    model.classifier = nn.Linear(256, len(classes), bias=False).to(device)
    view = SketchInput(plan.size)
    images, labels = view.on_canvas(train.images).to(device), torch.as_tensor(labels, device=device)
    warp = Warp.of(plan.warp)

    def batches(seed: int, step: int):
        generator = generator_for(seed, step)
        index = torch.randint(len(images), (plan.batch,), generator=generator).to(device)
        return view.normalise(warp(images[index], plan.size, generator)), labels[index]

    def objective(model, batch) -> Tensor:
        feature = model.encode(batch[0])  # unit length
        logits = 16 * feature @ nn.functional.normalize(model.classifier.weight, dim=1).T
        return nn.functional.cross_entropy(logits, batch[1])

    config = TrainConfig(plan.steps, plan.lr, "adamw", 0.05, "cosine", seed=plan.seed, precision=plan.precision)
    partial = path.with_name(f"{path.stem}-{results.digest(asdict(plan) | {'data': train.digest})}.partial")
    fit(model, batches, objective, config, checkpoint=partial, progress=progress, label=f"pretrain s{plan.seed}")
    state = {"net": model.net.state_dict(), "plan": asdict(plan)}
    save_atomically(path, lambda part: torch.save(state, part))
    for done in (partial, partial.with_suffix(".jsonl")):
        done.unlink(missing_ok=True)
    return path


def start_pretrained(
    model: Matcher, plan: Pretraining, *, bench: Benchmark | None = None, root=None, work=None, progress: bool = True
) -> None:
    """Give a model the weights of a pretraining, which is done here unless the folder ``work`` has it.

    bench: a benchmark to use instead of ``load(plan.benchmark, root)``.
    """
    bench = bench or load(plan.benchmark, root)
    with tempfile.TemporaryDirectory() as passing:
        mark = results.digest(asdict(plan) | {"data": bench.train.digest})
        path = Path(work or passing) / f"pretrained-s{plan.seed}-{mark}.pt"
        if not path.exists():
            pretrain(plan, path, bench=bench, progress=progress)
        load_pretrained(model, path)


def load_pretrained(model: Matcher, path: str | Path) -> None:
    """Copy the weights that :func:`pretrain` wrote into ``model.net``."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no pretrained weights; write them with cdimlib.pretraining.pretrain")
    state = read_checkpoint(path)
    if not isinstance(state, dict) or "net" not in state:
        raise ValueError(f"{path} was not written by cdimlib.pretraining.pretrain")
    try:
        model.net.load_state_dict(state["net"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this model (another input size or batch norm?): {error}") from error
