"""Experiments with multi-level similarity: a configuration becomes a result (see :mod:`cdimlib.results`).

A pair model is judged single-shot, as its paper does, and in the toy towns also as every other matcher of the book.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from . import results
from .data import Benchmark, Split, at_hand, load, load_words, to_judge, words_of
from .data.augment import normalise, shift_or_flip
from .data.cuhk03 import classic
from .data.people import SETS
from .data.samplers import CrossViewPairSampler, generator_for
from .models.csn import VARIANTS, ConvSimilarityNet, pair_objective, part_sizes, simi_score
from .retrieval import encode, similarity
from .retrieval.protocols import judge, single_shot
from .retrieval.search import eval_mode
from .training import History, TrainConfig, fit, pick_device, seed_everything

PAPER = "multilevel-similarity"
_LEVELS = {"Ours-(L2, L3)": "L2,L3", "Ours-(L2, L3, L4)": "L2,L3,L4"}
_SINGLE = {"Ours-cls": "cls", "Ours-L2": "L2", "Ours-L3": "L3", "Ours-L4": "L4"}
#: (paper, table) -> method as printed -> our row; C3 and C4 are rows of Table 3 under another name
TABLES = {(PAPER, 2): _LEVELS, (PAPER, 3): _SINGLE | _LEVELS,
          (PAPER, 4): {"C1": "C1", "C2": "C2", "C3": "L4", "C4": "L2,L3,L4"}}


@dataclass(frozen=True)
class CSNRun:
    """One training of a pair model, by default as in the paper (Sec. 4.2).

    variant: a key of ``VARIANTS``; benchmark: "cuhk03", "cuhk03/labeled", "cuhk01", "viper", or a toy town, with its
    ``size``; also: others on which to judge the same weights; seed: of the training, and the number of the random split
    where a set has several; people: training identities to use (0: all); pixels: (H, W), the parts follow from it.
    epochs: passes over the cross-camera matches of the training set; steps: optimiser updates instead, if not 0.
    batch: pairs of a step; shifts: shifted copies beside each image and its mirror image, None for no augmentation; lr,
    weight_decay, schedule, optimizer: see ``TrainConfig``; rotation: weight of the L1 term.
    validation: share of training identities held out (CUHK03 has 100 for it, whatever the number) to choose among
    at most ``evaluations`` checkpoints; with 0 the last weights are taken. shots: most images of an identity among the
    queries and in the gallery, 0 for all; draws: random galleries; x_corr: judge by that easier style too (every image
    against every other). label: for the file name. precision: of training, see ``TrainConfig``; tests are in fp32.
    """

    variant: str = "L2,L3"
    benchmark: str = "toytown-plaza"
    also: tuple[str, ...] = ()
    seed: int = 0
    size: str | None = None
    people: int = 0
    pixels: tuple[int, int] = (160, 60)
    epochs: float = 5
    steps: int = 0
    batch: int = 256
    shifts: int | None = 2
    lr: float = 5e-4
    weight_decay: float = 5e-4
    schedule: str = "constant"
    rotation: float = 0.1
    validation: float = 0.0
    evaluations: int = 5
    shots: tuple[int, int] = (0, 0)
    draws: int = 10
    x_corr: bool = False
    label: str = ""
    optimizer: str = "adamw"
    precision: str = "auto"

    def __post_init__(self):
        results.check_run(self, VARIANTS, row="variant", from_one=("evaluations", "draws"))
        if len(self.shots) != 2 or min(self.shots) < 0:
            raise ValueError(f"shots are two numbers, of queries and of gallery images, 0 for all (got {self.shots})")

    @property
    def settings(self) -> dict:
        """All settings, as a result keeps them; ``optimizer`` and ``precision`` only where they are not the default."""
        return results.settings_of(self, optimizer="adamw", precision="auto")

    @property
    def budget(self) -> str:
        """The part of a result's name that says how large a run was."""
        long = f"{self.steps}x{self.batch}" if self.steps else f"{self.epochs:g}ep"
        asked = "" if self.precision == "auto" else self.precision
        return "-".join(word for word in (f"{self.pixels[0]}x{self.pixels[1]}", long, asked, self.label) if word)

    @property
    def stub(self) -> dict:
        """The part of a result that is known before the run."""
        return {"paper": PAPER, "row": self.variant, "track": "scratch", "budget": self.budget, "seed": self.seed,
                "config": self.settings, "data": {"name": self.benchmark}}


def as_published(variant: str, benchmark: str = "cuhk03", **changes) -> CSNRun:
    """The paper's recipe: batches of 256 and 2 shifted copies for CUHK03, 128 and 5 for the others; Adam, with weight
    decay as a term of the loss (Sec. 4.2)."""
    batch, shifts = (256, 2) if benchmark.startswith("cuhk03") else (128, 5)
    return CSNRun(variant, benchmark, **{"batch": batch, "shifts": shifts, "optimizer": "adam", **changes})


def open_benchmark(run: CSNRun, name: str, root=None) -> Benchmark:
    """A benchmark as a run wants it; where CUHK03 has no raw file, cut from the folders of its new protocol."""
    if name.startswith("toytown"):
        return load_words(name, root, pixels=run.pixels, size=run.size)
    options = dict(pixels=run.pixels, verbose=False)
    if name in ("cuhk03", "cuhk03/labeled") and not at_hand(name, root):
        return classic(load(name.replace("cuhk03", "cuhk03-np"), root, **options), run.seed)
    of_set = SETS.get(words_of(name)[0].partition("/")[0])
    split = {"split": run.seed} if of_set and "split" in of_set.options else {}
    return load_words(name, root, **options, **split)


def pair_batches(train: Split, run: CSNRun, device="cpu") -> tuple[Callable, CrossViewPairSampler]:
    """(seed, step) -> the batch that ``pair_objective`` takes, from images that live on the device; and its sampler."""
    sampler, images = CrossViewPairSampler(train, run.batch), train.images.to(device)

    def batches(seed: int, step: int):
        index, *pairs = (torch.as_tensor(part, device=device) for part in sampler(seed, step))
        augment = (lambda x, _: x) if run.shifts is None else partial(shift_or_flip, shifts=run.shifts)
        return normalise(augment(images[index], generator_for(seed, step))), *pairs

    return batches, sampler


def few(split: Split, shots: int, seed: int = 0) -> Split:
    """At most ``shots`` random images of each identity (0: all), of as many different cameras as there are."""
    table = pd.DataFrame({"id": split.ids, "cam": split.cams}).sample(frac=1, random_state=seed)
    turn = table.groupby(["id", "cam"]).cumcount()  # first one image of every camera
    kept = table.loc[turn.sort_values(kind="stable").index].groupby("id").head(shots or len(split))
    return split.where(np.sort(kept.index))


@torch.inference_mode()
def scores_by_term(model: nn.Module, queries: torch.Tensor, gallery: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores [Q, G] under the key ""; and of a pair network with a ranking net either of their terms alone, under
    " probability" and " distance" (with its sign turned: higher is more alike)."""
    if not getattr(model, "ranking", None):
        return {"": similarity(model, queries, gallery)}
    with eval_mode(model):
        probability, distance = (term.cpu() for term in model.terms(queries, gallery))
    return {"": simi_score(probability, distance), " probability": probability, " distance": -distance}


def judge_pairs(run: CSNRun, model: nn.Module, bench: Benchmark, *, x_corr: bool = False) -> tuple[dict, int]:
    """Metrics by name, and how many pairs were scored.

    On real data the benchmark's name stands for the single-shot protocol, strictly across cameras ("first_rank": of
    each query that counts, in the first gallery drawn). In a toy town it stands for the ordinary protocol,
    if nothing was left out, and "<name> single-shot" for that. " probability" and " distance" behind it: ranked by one
    of SimiScore's terms alone. "<name> x-corr" is the other style of single-shot.
    """
    sides = [few(split, shots) for split, shots in zip((bench.query, bench.gallery), run.shots, strict=True)]
    query, gallery = (encode(model, split.images, normalise) for split in sides)
    model.eval()
    both, everybody = torch.cat([query, gallery]), np.concatenate([split.ids for split in sides])
    found = scores_by_term(model, *((both, both) if x_corr else (query, gallery)))
    blocks = {term: scores[: len(query), len(query) :] if x_corr else scores for term, scores in found.items()}
    labels, town = (*(s.ids for s in sides), *(s.cams for s in sides)), bench.name.startswith("toytown")
    name, out = bench.name + " single-shot" * town, {}
    asked = {name + term: (block, *labels, "cross-camera") for term, block in blocks.items()}
    if x_corr:
        asked[f"{bench.name} x-corr"] = (found[""], everybody, everybody, None, None, "x-corr")
    for name, (matrix, *marks, style) in asked.items():
        shown = single_shot(matrix, *marks, repeats=run.draws, seed=run.seed, style=style)
        out[name] = {**{f"acc@{k}": shown.accuracy(k) for k in (1, 5, 10, 20)}, "spread@1": 100 * shown.spread[0],
                     "queries": shown.num_valid, "protocol": shown.protocol, "first_rank": shown.first_rank.tolist()}
    if town and run.shots == (0, 0):
        out[bench.name] = judge(blocks[""], *((None, s.ids, s.cams) for s in sides))
    return out, found[""].numel()


def held_out(run: CSNRun, bench: Benchmark) -> Benchmark:
    """The benchmark that a run trains and chooses its weights on: of CUHK03 with its own 100 people for that."""
    part = bench.meta.get("validation")
    if run.validation and part:
        return replace(bench, query=part.where(part.cams == 1), gallery=part.where(part.cams == 2))
    return bench.with_validation(run.validation, seed=run.seed) if run.validation else bench


def train_csn(run: CSNRun, bench: Benchmark, *, work=None, progress: bool = True) -> tuple[ConvSimilarityNet, History]:
    """Train one configuration on ``bench.train``; work: folder of checkpoints to resume from."""
    device, held = pick_device(), held_out(run, bench)
    batches, sampler = pair_batches(held.train, run, device)
    steps = run.steps or max(1, round(run.epochs * sampler.steps_per_epoch))
    seed_everything(run.seed)
    model = ConvSimilarityNet.variant(run.variant, size=run.pixels, part_sizes=part_sizes(run.pixels)).to(device)
    config = TrainConfig(steps, run.lr, run.optimizer, run.weight_decay, run.schedule, seed=run.seed,
                         evaluate_every=-(-steps // run.evaluations), precision=run.precision)

    def validate(net) -> float:
        return next(iter(judge_pairs(replace(run, shots=(1, 1)), net, held)[0].values()))["acc@1"]

    return model, fit(
        model, batches, partial(pair_objective, rotation=run.rotation), config, progress=progress, label=run.variant,
        validate=validate if run.validation else None,
        checkpoint=work and Path(work) / f"{name_of(run)}-{held.train.digest}.pt")


def name_of(run: CSNRun) -> str:
    """Variant, seed and a digest of all settings."""
    return f"csn-{run.variant.replace(',', '_')}-s{run.seed}-{results.digest(run.settings)}"


def run_csn(
    run: CSNRun, *, bench: Benchmark | None = None, root=None, work: str | Path | None = None, progress: bool = True
) -> tuple[dict, ConvSimilarityNet]:
    """Train and test one configuration -> (its result, trained model).

    bench: a benchmark to use instead of :func:`open_benchmark`'s. The test split is looked at once.
    """
    started, device, bench = time.perf_counter(), pick_device(), bench or open_benchmark(run, run.benchmark, root)
    bench = bench.with_people(run.people) if run.people else bench
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # what is not there is missed before the training
    places = to_judge([bench, *(open_benchmark(run, name, root) for name in run.also)])
    model, history = train_csn(run, bench, work=work, progress=progress)
    judging = time.perf_counter()
    found = [judge_pairs(run, model, place, x_corr=run.x_corr) for place in places]
    judging, seconds = time.perf_counter() - judging, history.data_seconds + history.model_seconds
    metrics, pairs = {name: m for part, _ in found for name, m in part.items()}, sum(count for _, count in found)
    trained = len(history.losses) * CrossViewPairSampler(held_out(run, bench).train, run.batch).pairs
    return {
        **run.stub, "metrics": metrics,
        "data": {"name": bench.name, "note": bench.note, "train_images": len(bench.train),
                 "train_identities": len(np.unique(bench.train.ids)), "test_queries": len(bench.query),
                 "gallery_images": len(bench.gallery)},
        "protocol": next(iter(metrics.values()))["protocol"], "average_precision": "rectangle",
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": {"loss": np.round(history.losses[:: max(1, len(history.losses) // 100)], 4).tolist(),
                  "validation": history.validation, "best_step": history.best_step},
        "train_pairs": trained, "train_pairs_per_second": round(trained / seconds, 1), "judged_pairs": pairs,
        "judged_pairs_per_second": round(pairs / judging, 1),
        "data_seconds": round(history.data_seconds, 1), "model_seconds": round(history.model_seconds, 1),
        "peak_memory_mib": round(results.peak_memory(device) or 0) or None,
        "wall_seconds": round(time.perf_counter() - started + history.earlier, 1),
        **results.machine(device, run.precision),
    }, model


def run_grid(runs: list[CSNRun], *, root=None, folder=None, work=None, progress: bool = True) -> list[dict]:
    """Every run that has no result yet, in order; results are written as they come, so a stopped grid resumes."""
    return results.run_missing(runs, lambda run: [run_csn(run, root=root, work=work, progress=progress)[0]],
                               leftovers=lambda run: f"{name_of(run)}-*", folder=folder, work=work)
