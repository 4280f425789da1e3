"""Experiments: a configuration becomes one result (see :mod:`cdimlib.results`).

The sketch experiments come in two tracks. *faithful* is the paper's recipe: one category at a time, triplet loss on
the human judgements, SGD. *modern* keeps the architecture and the one idea and changes how it is trained: batch
normalisation, an in-batch contrastive loss, stronger augmentation, AdamW with a cosine schedule, and the three
categories pooled. Both choose their checkpoint on identities held out of the training set.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import results
from .data import Benchmark, load_words
from .data.benchmark import usual_size
from .data.samplers import PairSampler, TripletSampler, generator_for
from .data.transforms import SketchInput, Warp, random_crop_flip, wear
from .losses import in_batch_contrastive, triplet
from .models.dssa import DSSA
from .models.inception import InceptionFusion
from .models.matcher import Matcher, MultiView
from .models.midlevel import SketchFusion
from .pretraining import Pretraining, start_pretrained
from .retrieval import evaluate
from .training import TrainConfig, fit, pick_device, seed_everything

PAPER = "midlevel-fusion"
#: weight of DSSA's regulariser, ours
PENALTY = 5e-4
#: our rows; "ours" is the paper's model
ROWS = {
    "vanilla": dict(taps=()),
    "ours": dict(taps=("conv5",)),
    "pool5": dict(taps=("pool5",)),
    "conv3": dict(taps=("conv3",)),
    "conv4": dict(taps=("conv4",)),
    "conv4,5": dict(taps=("conv4", "conv5")),
    "gap": dict(taps=("conv5",), pooling="gap"),
    "dssa-attention": dict(fusion=False, holef=False),
    "dssa": dict(fusion=True, holef=True),
    "inception": dict(fused=False),
    "inception-fusion": dict(fused=True),
}
#: method as printed -> our row, per table
TABLES = {
    3: {"Vanilla": "vanilla", "Ours": "ours", "DSSA (attention only)": "dssa-attention", "DSSA": "dssa",
        "HOG-BoW+rankSVM": "hog-bow-ranksvm", "Dense-HOG+rankSVM": "dense-hog-ranksvm",
        "ISN Deep+rankSVM": "isn-deep-ranksvm"},
    7: {"conv3": "conv3", "conv4": "conv4", "conv4,5": "conv4,5", "conv5 (Ours)": "ours"},
    9: {"GAP": "gap", "Flattening (Ours)": "ours"},
    11: {"InceptionV3": "inception", "InceptionV3+fusion module": "inception-fusion"},
}


@dataclass(frozen=True)
class SketchRun:
    """One training run on drawings.

    row: a key of ``ROWS``; track: "modern" or "faithful"; benchmark: a name for :func:`cdimlib.data.load`;
    warp, jitter: strength of the deformation of a whole batch, and of each image (modern);
    wear: share of drawings that get a thicker pen, and share that get a hole (modern);
    size: input pixels (the paper: 225); steps: updates; batch: pairs per category (modern) or triplets (faithful);
    init: "random", "imagenet" (the inception rows; torchvision fetches the weights), or such as "pretrained-400x128"
    (faithful): weights of our own :class:`~cdimlib.pretraining.Pretraining`, of so many steps and drawings a step;
    validation: share of training identities held out to choose the checkpoint, 0 to hold out none: then the weights of
    the last step count, so ``steps`` must have been chosen before, by runs that do hold out; evaluations: how often
    it is chosen.
    precision: of training, see :class:`~cdimlib.training.TrainConfig`; tests are in fp32.
    """

    row: str
    track: str = "modern"
    benchmark: str = "qmul"
    seed: int = 0
    size: int = 141
    steps: int = 200
    batch: int = 48
    lr: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.0
    temperature: float = 0.07
    warp: float = 1.0
    jitter: float = 0.2
    wear: float = 0.5
    margin: float = 0.3
    squared: bool = True
    hard_ratio: float = 0.75
    init: str = "random"
    validation: float = 0.1
    evaluations: int = 5
    precision: str = "auto"

    def __post_init__(self):
        results.check_run(self, ROWS, from_one=("evaluations",))
        if self.track not in ("modern", "faithful"):
            raise ValueError(f"track must be 'modern' or 'faithful', not {self.track!r}")
        if self.init == "imagenet" and not self.row.startswith("inception"):
            raise ValueError(f"there are no ImageNet weights for row {self.row!r}: use init='random' or a checkpoint")
        if self.init not in ("random", "imagenet"):
            if not re.fullmatch(r"pretrained-[1-9]\d*x[1-9]\d*", self.init):
                raise ValueError(f"unknown init {self.init!r}: give 'random', 'imagenet', or steps and drawings a step "
                                 "of our own pretraining, such as 'pretrained-400x128'")
            if self.row.startswith("inception"):
                raise ValueError(f"row {self.row!r} is no Sketch-a-Net, so init={self.init!r} does not fit: use "
                                 "'imagenet' or 'random'")
            if self.track != "faithful":
                raise ValueError(f"init={self.init!r} is of the faithful track: its networks have no batch norm, those "
                                 "of the modern track do")

    @property
    def input(self) -> SketchInput:
        return SketchInput(self.size) if self.track == "faithful" else SketchInput(self.size, scale=1 / 255, fit=True)

    @property
    def world(self) -> str:
        """How large a toy shop is drawn: "tiny", "demo" or "full", by the profile; "" for other data."""
        return usual_size() if self.benchmark.startswith("toy-shop") else ""

    @property
    def budget(self) -> str:
        world = f"{self.world}-" if self.world else ""
        start = "" if self.init == "random" else f"{self.init}-"
        whole = "" if self.validation else "-all"
        asked = "" if self.precision == "auto" else f"-{self.precision}"
        return f"{world}{start}{self.size}px-{self.steps}x{self.batch}{whole}{asked}"

    @property
    def settings(self) -> dict:
        """All settings, as a result keeps them; ``precision`` only where it is not the default."""
        return results.settings_of(self, precision="auto")

    @property
    def stub(self) -> dict:
        """The part of a result that is known before the run."""
        return {"paper": PAPER, "row": self.row, "track": self.track, "budget": self.budget, "seed": self.seed,
                "config": self.settings, "data": {"name": self.benchmark}}

    @property
    def pretraining(self) -> Pretraining | None:
        """What the first weights are trained by, if by us: on all categories of the data, with what this run holds out
        held out."""
        if not self.init.startswith("pretrained"):
            return None
        steps, batch = map(int, self.init.removeprefix("pretrained-").split("x"))
        return Pretraining(self.benchmark.split("/")[0], self.seed, self.size, steps, batch, validation=self.validation,
                           precision=self.precision)


def build(run: SketchRun) -> Matcher:
    """The untrained model of a row."""
    common = dict(input_size=run.size, batch_norm=run.track == "modern", dropout=run.dropout)
    if run.row.startswith("inception"):
        weights = "imagenet" if run.init == "imagenet" else None
        return InceptionFusion(**ROWS[run.row], input_size=run.size, weights=weights, squared=run.squared)
    if run.row.startswith("dssa"):
        return DSSA(**ROWS[run.row], **common)
    return SketchFusion(**ROWS[run.row], **common, squared=run.squared)


def modern_batches(run: SketchRun, train, device):
    """(seed, step) -> (photos, sketches, category) of a modern step.

    One strong warp (mirroring included) for the whole batch, and a weak one for each image: a match and its rivals stay
    aligned, and the network must tell them apart by what is drawn.
    """
    images = train.images.to(device)
    sampler, own, together = PairSampler(train, run.batch), Warp.of(run.jitter, flip=0.0), Warp.of(run.warp)

    def batches(seed: int, step: int):
        photo, sketch, group = sampler(seed, step)
        generator = generator_for(seed, step)
        both = images[torch.as_tensor(np.concatenate([photo, sketch]), device=device)]
        both = wear(own(both, run.size, generator, together=together), run.wear, generator)
        both = run.input.normalise(both).to(memory_format=torch.channels_last)
        return (*both.chunk(2), torch.as_tensor(group, device=device))

    return batches


def modern_objective(run: SketchRun):
    """In-batch contrastive loss between the sketches and the photos of a batch, within each category."""

    def objective(model: Matcher, batch) -> Tensor:
        photos, sketches, group = batch
        photo, sketch = model.encode(torch.cat([photos, sketches])).chunk(2)
        with torch.autocast(photo.device.type, enabled=False):  # steps of bf16 near a cosine of 1 are too coarse
            loss = in_batch_contrastive(model.cosine(sketch, photo), temperature=run.temperature, groups=group)
            return loss + PENALTY * model.penalty() if hasattr(model, "penalty") else loss

    return objective


def faithful_batches(run: SketchRun, bench: Benchmark, device):
    """(seed, step) -> (sketches, positive photos, negative photos), each cropped and mirrored on its own."""
    if len(bench.categories) > 1:
        raise ValueError(f"the faithful track trains on one category, {bench.name!r} has {len(bench.categories)}: "
                         f"name one, such as {run.benchmark}/{bench.categories[0]}")
    images = bench.train.images.to(device)
    sampler = TripletSampler(bench.train, bench.triplets, run.batch, run.hard_ratio)

    def batches(seed: int, step: int):
        generator = generator_for(seed, step)
        index = torch.as_tensor(np.concatenate(sampler(seed, step)), device=device)
        crops = random_crop_flip(images[index], run.size, generator)
        return run.input.normalise(crops).to(memory_format=torch.channels_last).chunk(3)

    return batches


def faithful_objective(run: SketchRun):
    """The paper's triplet loss on a batch of sketches and two photos each: see :func:`cdimlib.losses.triplet`.

    Of DSSA on its own learned distance, with its penalty.
    """

    def objective(model: Matcher, batch) -> Tensor:
        anchor, positive, negative = model.encode(torch.cat(batch)).chunk(3)
        if not hasattr(model, "pair_energy"):
            return triplet(anchor, positive, negative, margin=run.margin, squared=run.squared)
        with torch.autocast(anchor.device.type, enabled=False):  # near and far differ by less than steps of bf16
            near, far = (model.pair_energy(anchor, photo).clamp_min(1e-12) for photo in (positive, negative))
            near, far = (near, far) if run.squared else (near.sqrt(), far.sqrt())
            return torch.relu(run.margin + near - far).mean() + PENALTY * model.penalty()

    return objective


def on_canvas(bench: Benchmark, view: SketchInput) -> Benchmark:
    """The benchmark with every image brought to the canvas once, ahead of training."""
    bring = lambda split: replace(split, images=view.on_canvas(split.images))  # noqa: E731
    return replace(bench, train=bring(bench.train), query=bring(bench.query), gallery=bring(bench.gallery))


def judge(model: Matcher, bench: Benchmark, prepare) -> dict[str, dict]:
    """acc@1, acc@10, mean AP (percent) and every query's rank, per category."""
    return {name: evaluate(model, part, prepare).percent(1, 10) for name, part in bench.by_category()}


def main_budget(runs: list[dict]) -> str:
    """The budget under which most rows of the modern track were run: the one a table may compare across."""
    rows = {}
    for result in runs:
        if result["track"] == "modern":
            rows.setdefault(result["budget"], set()).add((result["row"], result["seed"]))
    if not rows:
        raise ValueError("there are no results of the modern track yet: run book/experiments/midlevel_sketch.ipynb")
    return max(rows, key=lambda budget: (len(rows[budget]), budget))


def mean_metric(judged: dict[str, dict], metric: str) -> float:
    """A metric averaged over the categories."""
    return float(np.mean([values[metric] for values in judged.values()]))


def run_sketch(
    run: SketchRun, *, bench: Benchmark | None = None, root=None, work: str | Path | None = None,
    progress: bool = True,
) -> tuple[dict, Matcher]:
    """Train and test one configuration -> (result, trained model).

    bench: a benchmark to use instead of ``load_words(run.benchmark, root)``, for instance one of your own.
    work: folder of checkpoints to resume from, and of the weights of pretraining, which stay there for other rows (the
    result's seconds are without it).

    The checkpoint is the one with the best mean AP on the held-out training identities (one central view). The test
    split is looked at with it once, by the paper's ten views. Beside it, the curve's ``test_single_view`` records what
    one central view scores on the test set at each validation; nothing is chosen by it: it is there to show what
    choosing would do. With ``run.validation`` 0 nothing is held out and nothing chosen: the last weights are tested.
    """
    device = pick_device()
    seed_everything(run.seed)
    model = build(run).to(device, memory_format=torch.channels_last)
    if run.pretraining:
        start_pretrained(model, run.pretraining, bench=bench, root=root, work=work, progress=progress)
    started = time.perf_counter()
    whole = on_canvas(bench or load_words(run.benchmark, root), run.input)
    bench = whole.with_validation(run.validation, seed=run.seed) if run.validation else whole
    if run.track == "modern":
        batches, objective = modern_batches(run, bench.train, device), modern_objective(run)
        optimizer, schedule = "adamw", "cosine"
    else:
        batches, objective = faithful_batches(run, bench, device), faithful_objective(run)
        optimizer, schedule = "sgd", "constant"
    config = TrainConfig(run.steps, run.lr, optimizer, run.weight_decay, schedule, seed=run.seed,
                         evaluate_every=max(1, run.steps // run.evaluations), precision=run.precision)

    def validate(model: nn.Module) -> tuple[float, dict]:
        seen = judge(model, whole, run.input.centre)
        test = {name: values["acc@1"] for name, values in seen.items()}
        return mean_metric(judge(model, bench, run.input.centre), "mAP"), test

    checkpoint = work and Path(work) / f"{checkpoint_name(run)}-{bench.train.digest}.pt"
    history = fit(model, batches, objective, config, validate=validate if run.validation else None,
                  checkpoint=checkpoint, progress=progress, label=f"{run.row} s{run.seed}")
    metrics = judge(MultiView(model, run.input.ten), whole, lambda images: images)
    result = {
        **run.stub, "config": run.settings,
        "data": {"name": whole.name, "note": whole.note, "train_images": len(bench.train),
                 "held_out_images": len(whole.train) - len(bench.train), "test_queries": len(whole.query)},
        "metrics": metrics,
        "protocol": "query sketch against all test photos of its category; ten views, view i against view i",
        "average_precision": "rectangle",
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": {"loss": [round(v, 4) for v in history.losses[:: max(1, run.steps // 100)]],
                  "validation": history.validation, "test_single_view": history.notes,
                  "best_step": history.best_step if run.validation else run.steps},
        "wall_seconds": round(time.perf_counter() - started + history.earlier, 1),
        "data_seconds": round(history.data_seconds, 1), "model_seconds": round(history.model_seconds, 1),
        **results.machine(device, run.precision),
    }
    return result, model


def checkpoint_name(run: SketchRun) -> str:
    """The name of the run's result and a digest of all settings."""
    return f"{results.path_of(run.stub).stem}-{results.digest(run.settings)}"


def run_grid(runs: list[SketchRun], *, root=None, folder: str | Path | None = None, progress: bool = True,
             work: str | Path | None = None) -> list[dict]:
    """Every run that has no result yet, in order; results are written as they come, so a stopped grid resumes.

    work: folder for the checkpoints of unfinished runs (deleted when a run is done).
    """
    return results.run_missing(runs, lambda run: [run_sketch(run, root=root, work=work, progress=progress)[0]],
                               folder=folder, work=work, leftovers=lambda run: f"{checkpoint_name(run)}-*",
                               mend="give another folder, or move it away")
