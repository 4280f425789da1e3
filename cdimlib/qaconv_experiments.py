"""Experiments with QAConv and the baselines of its paper: one training, judged in its own town and in others.

One training fills several rows: the matcher itself ("qaconv"), re-ranked ("qaconv+rerank"), lifted by time
("qaconv+tlift") and both ("qaconv+rerank+tlift"). The metrics of a row are keyed by the name of the data they are of.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import distributed as dd
from . import results
from .data import Benchmark, load_words, to_judge, words_of
from .data.augment import IMAGENET_MEAN, IMAGENET_STD, PersonInput, random_block
from .distributed import encode, fit, once, resident_batches, settings, similarity
from .models.qaconv import Classifier, ClassMemory, PooledMaps, QAConv
from .retrieval import k_reciprocal, temporal_lift
from .retrieval.protocols import judge
from .training import History, TrainConfig, pick_device, seed_everything

PAPER = "qaconv-tlift"
#: what can be trained, and the name of each in Table 2
ROWS = {"qaconv": "QAConv", "softmax": "Softmax-CE", "center": "Center loss", "memory-cosine": "Class memory"}
_OURS = {"QAConv": "qaconv", "QAConv+RR": "qaconv+rerank", "QAConv+RR+TLift": "qaconv+rerank+tlift"}
_EACH = {f"{name}{a}": f"{row}{b}" for row, name in ROWS.items() for a, b in (("", ""), ("+RR", "+rerank"))}
#: (paper, table) -> method as printed -> our row. The lines of Table 1 are all "qaconv", of other budgets.
TABLES = {(PAPER, 1): {f"Resnet{n} H{h}": "qaconv" for n in (50, 152) for h in (256, 384)},
          (PAPER, 2): {**_EACH, **_OURS}, (PAPER, 3): _OURS, (PAPER, 4): _OURS}  # fmt: skip
#: the paper's TLift, and the authors' code's
LIFT = {"tau": 100.0, "sigma": 100.0, "k": 100}
OFFICIAL = {**LIFT, "alpha": 0.1, "kernel": "official", "ties": "enlarge"}


@dataclass(frozen=True)
class BlockInput(PersonInput):
    """Paints :func:`~cdimlib.data.augment.random_block` on training images first; block: its ``largest``, 0: none."""

    block: float = 0.0

    def training(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return super().training(random_block(images, generator, self.block) if self.block else images, generator)


@dataclass(frozen=True)
class MatchRun:
    """One training of a matcher on images of people. :func:`as_published` gives the paper's own settings.

    row: a key of ``ROWS``; benchmark, size: name and ``size`` for :func:`cdimlib.data.load` (size: of toy towns).
    also: more data to be judged on with the same weights. A name may be followed by options of ``load``,
    "toytown-plaza misalignment=1", or by "plain": such data are judged without re-ranking and lifting.
    backbone, weights, tap, channels, pixels, symmetric: of :class:`~cdimlib.models.qaconv.QAConv`; scaled: bring images
    to ImageNet's mean and deviation (False: to 0..1 only, as the released code does); block: of :class:`BlockInput`.
    epochs, batch: passes over as many images as the training set has, images of a step; optimizer to schedule: see
    :class:`~cdimlib.training.TrainConfig` (SGD is Nesterov's, and "decay" divides the rate by 10 every ``period``
    epochs); backbone_lr: the backbone's factor.
    gamma, reduction, mask_unwritten: of :class:`~cdimlib.models.qaconv.ClassMemory`; center: weight of the centre loss.
    pivots: further K of the lifting, beside the paper's 100.
    validation: share of training identities held out; their mAP, looked at five times at most, chooses the
    checkpoint, and "<benchmark>[validation]" is judged, too (so K can be chosen there). With 0 the last weights are
    taken. label: a word for the file name, to tell runs apart that differ in other settings.
    """

    row: str = "qaconv"
    benchmark: str = "toytown-plaza"
    also: tuple[str, ...] = ()
    seed: int = 0
    size: str | None = None
    backbone: str = "resnet50"
    weights: str | None = None
    tap: str = "res4"
    channels: int = 128
    pixels: tuple[int, int] = (128, 64)
    symmetric: bool = False
    scaled: bool = True
    block: float = 0.8
    epochs: float = 6
    batch: int = 32
    optimizer: str = "adamw"
    lr: float = 3e-4
    weight_decay: float = 0.0
    schedule: str = "cosine"
    period: float = 1.0
    backbone_lr: float = 1.0
    gamma: float = 2.0
    reduction: str = "mean"
    mask_unwritten: bool = True
    center: float = 0.003
    pivots: tuple[int, ...] = (10,)
    validation: float = 0.0
    label: str = ""

    def __post_init__(self):
        results.check_run(self, ROWS)
        if min(self.pivots, default=1) < 1:
            raise ValueError(f"pivots must be at least 1 each (got {', '.join(map(str, self.pivots))})")

    @property
    def input(self) -> BlockInput:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if self.scaled else ((0.0,) * 3, (1.0,) * 3)
        return BlockInput(self.pixels, mean=mean, std=std, block=self.block)

    @property
    def budget(self) -> str:
        """The part of a result's name that says how large a run was."""
        words = [self.size, self.backbone, f"{self.pixels[0]}x{self.pixels[1]}", f"{self.epochs:g}ep", self.label]
        return "-".join(word for word in words if word)

    @property
    def stub(self) -> dict:
        """The part of a result that is known before the run."""
        return {"paper": PAPER, "row": self.row, "track": self.weights or "scratch", "budget": self.budget,
                "seed": self.seed, "config": asdict(self), "data": {"name": self.benchmark}}

    @property
    def checkpoint(self) -> str:
        """Beginning of a checkpoint's name: row, seed and a digest of all settings."""
        return f"{self.row}-s{self.seed}-{results.digest(asdict(self))}"


def as_published(row: str = "qaconv", **changes) -> MatchRun:
    """The paper's recipe (Sec. 5.1), with what only the released code tells.

    Paper: ResNet-152's layer 3, 384 x 128, batch 32, SGD, 0.01 for new layers, 0.001 for the backbone, one fall by 0.1.
    Code: after 40 of 60 epochs, momentum 0.9 (Nesterov), weight decay 5e-4, images in 0..1, and the focal loss summed
    over the classes: with the paper's mean these rates would move nothing.
    """
    recipe = dict(benchmark="market1501", also=("dukemtmc-reid",), backbone="resnet152", weights="imagenet",
                  pixels=(384, 128), epochs=60, optimizer="sgd", lr=0.01, backbone_lr=0.1, schedule="decay", period=40,
                  weight_decay=5e-4, reduction="sum", scaled=False)  # fmt: skip
    return MatchRun(row, **{**recipe, **changes})


def build(run: MatchRun, classes: int) -> ClassMemory | Classifier:
    """What is trained for a row, untrained but for ImageNet weights; its ``matcher`` is what is judged."""
    maps = dict(backbone=run.backbone, weights=run.weights, tap=run.tap, channels=run.channels)
    qaconv = run.row == "qaconv"
    matcher = QAConv(run.pixels, symmetric=run.symmetric, **maps) if qaconv else PooledMaps(run.pixels, **maps)
    if run.row in ("softmax", "center"):
        return dd.SharedClassifier(matcher, classes, center=run.center if run.row == "center" else 0.0)
    memory = dict(gamma=run.gamma, reduction=run.reduction, mask_unwritten=run.mask_unwritten)
    return dd.SharedMemory(matcher, classes, **memory)


def load_for(run: MatchRun, name: str, root=None) -> Benchmark:
    """The data of ``run.benchmark`` or of one of ``run.also``, at the run's size and pixels, under that very name."""
    return load_words(name, root, pixels=run.pixels, size=run.size)


def look(run: MatchRun, matcher, bench: Benchmark) -> list[tuple]:
    """(features, ids, cams) of query and gallery; the matcher is left in eval mode, as it has to be to score."""
    matcher.eval()
    return [(encode(matcher, s.images, run.input).float(), s.ids, s.cams) for s in (bench.query, bench.gallery)]


def train_match(
    run: MatchRun, bench: Benchmark, *, work: str | Path | None = None, progress: bool = True
) -> tuple[ClassMemory | Classifier, History]:
    """Train one configuration on ``bench.train``. work: folder of checkpoints to resume from."""
    device = pick_device()
    held = bench.with_validation(run.validation, seed=run.seed) if run.validation else bench
    batches, sampler = resident_batches(held.train, run.input, run.batch, device=device)
    seed_everything(run.seed)
    model = build(run, sampler.classes).to(device, memory_format=torch.channels_last)
    steps, period = (max(1, round(epochs * len(held.train) / run.batch)) for epochs in (run.epochs, run.period))
    config = TrainConfig(
        steps, run.lr, run.optimizer, run.weight_decay, run.schedule, period=period, seed=run.seed,
        nesterov=run.optimizer == "sgd", evaluate_every=-(-steps // 5),
        lr_scale=(("matcher.maps.backbone", run.backbone_lr),) if run.backbone_lr != 1 else (),
    )
    return model, fit(
        model, batches, lambda net, batch: net(*batch), config, progress=progress, label=f"{run.row} s{run.seed}",
        validate=(lambda net: judge(net.matcher, *look(run, net.matcher, held))["mAP"]) if run.validation else None,
        checkpoint=Path(work) / f"{run.checkpoint}-{held.train.digest}.pt" if work else None,
    )


def probability(matcher, scores: Tensor) -> Tensor:
    """The trained sigmoid of a matcher's scores [Q, G]. (QAConv scores by sigmoid(logit / 10), as its code does: the
    same ranking, but nearly equal numbers, and lifting multiplies.)"""
    if isinstance(matcher, QAConv):
        return torch.sigmoid(10 * torch.logit(scores.double()))  # in double: single precision is 1 from logit 17 on
    with torch.no_grad():
        return torch.sigmoid(matcher.logits_of(scores.to(matcher.logit_bn.weight.device))).cpu()


def judge_rows(run: MatchRun, matcher, bench: Benchmark) -> dict[str, dict]:
    """Row -> metrics by name, of one benchmark; for the rows see the head of this file.

    Re-ranking takes 1 - score for a distance (not squared); lifting the :func:`probability`, or 1 - distance after
    re-ranking, with the paper's ``LIFT``. Beside it, if the data have times: "<name> K=10" (each of ``run.pivots``),
    "<name> official" (``OFFICIAL``, after re-ranking) and "<name> flat" (QAConv's own scores).
    """
    queries, gallery = seen = look(run, matcher, bench)
    pairs, name = ((queries, gallery), (queries, queries), (gallery, gallery)), bench.name
    scores = similarity(matcher, queries[0], gallery[0])
    out = {run.row: {name: judge(scores, *seen)}}
    if words_of(name)[1]:
        return out
    others = (similarity(matcher, a[0], b[0]) for a, b in pairs[1:])
    distance = once(k_reciprocal)(*((1 - s).clamp(min=0) for s in (scores, *others)))
    out[f"{run.row}+rerank"] = {name: judge(-distance, *seen)}
    if bench.query.times is None or bench.gallery.times is None:
        return out
    when = bench.query.cams, bench.query.times, bench.gallery.cams, bench.gallery.times
    forms = {name: LIFT, **{f"{name} K={k}": {**LIFT, "k": k} for k in run.pivots}}
    lift = lambda s, forms: {key: judge(temporal_lift(s, *when, **how), *seen) for key, how in forms.items()}  # noqa: E731
    if run.row in ("qaconv", "memory-cosine"):
        flat = lift(scores, {f"{name} flat": LIFT}) if run.row == "qaconv" else {}
        out[f"{run.row}+tlift"] = {**lift(probability(matcher, scores), forms), **flat}
    return {**out, f"{run.row}+rerank+tlift": lift(1 - distance, {**forms, f"{name} official": OFFICIAL})}


def run_match(
    run: MatchRun, *, benches: list[Benchmark] | None = None, root=None, work=None, progress: bool = True
) -> tuple[list[dict], ClassMemory | Classifier]:
    """Train and test one configuration -> (a result for each row it fills, trained module).

    benches: to use instead of loading ``run.benchmark`` and ``run.also``, in this order; the first is trained on.
    work: folder of checkpoints. Test splits are looked at once, with the last weights, or with those chosen on held-out
    training identities.
    """
    started, device = time.perf_counter(), pick_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    targets = list(benches or (load_for(run, name, root) for name in (run.benchmark, *run.also)))
    bench, targets, rows = targets[0], to_judge(targets), {}
    model, history = train_match(run, bench, work=work, progress=progress)
    for target in targets + ([bench.with_validation(run.validation, seed=run.seed)] if run.validation else []):
        for row, metrics in judge_rows(run, model.matcher, target).items():
            rows.setdefault(row, {}).update(metrics)
    speed = run.batch * len(history.losses) / (history.data_seconds + history.model_seconds)
    common = {
        **run.stub, "protocol": "every query against the gallery, the query's own camera left out",
        "data": {"name": bench.name, "note": bench.note, "train_images": len(bench.train),
                 "train_identities": len(np.unique(bench.train.ids)),
                 "judged_on": {t.name: [len(t.query), len(t.gallery)] for t in targets}},
        "average_precision": "rectangle", "parameters": sum(p.numel() for p in model.matcher.parameters()),
        "feature": list(model.matcher.shape), "train_images_per_second": round(speed, 1),
        "data_seconds": round(history.data_seconds, 1), "model_seconds": round(history.model_seconds, 1),
        "peak_memory_mib": round(results.peak_memory(device) or 0) or None, **settings(run.batch),
        "wall_seconds": round(time.perf_counter() - started + history.earlier, 1), **results.machine(device),
    }
    losses = [round(v, 4) for v in history.losses[:: max(1, len(history.losses) // 100)]]
    curve = {"loss": losses, "validation": history.validation}
    return [{**common, **({"curve": curve} if row == run.row else {}), "row": row, "metrics": metrics}
            for row, metrics in rows.items()], model


def run_grid(runs: list[MatchRun], *, root=None, folder=None, work=None, progress: bool = True) -> list[dict]:
    """Every run that has no result yet, in order; results are written as they come, so a stopped grid resumes.

    work: folder for checkpoints; a run's own is deleted when it is done.
    """
    return results.run_missing(
        runs, lambda run: run_match(run, root=root, work=work, progress=progress)[0],
        leftovers=lambda run: f"{run.checkpoint}-*", folder=folder, work=work)
