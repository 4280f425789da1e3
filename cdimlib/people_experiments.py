"""Experiments with people: a configuration becomes results (see :mod:`cdimlib.results`), one for each row of a table.

Two papers share this floor, since both learn a vector from identities: mid-level fusion and the Feature Mask Network.
One training can fill several rows: a Vanilla is also judged with its middle joined untrained, and a Feature Mask
Network by its global network, its local one, and both.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from . import results
from .data import Benchmark, load, option
from .data.augment import PersonInput
from .data.people import home
from .distributed import encode, fit, once, resident_batches, settings, similarity, size
from .identities import identity_objective, mask_objective
from .models.fmn import FeatureMaskNet, GlobalPair, descriptor
from .models.matcher import VectorMatcher
from .models.midlevel import PersonFusion
from .models.residual import Backbone
from .retrieval.protocols import judge, multi_query
from .retrieval.reranking import k_reciprocal
from .training import History, TrainConfig, pick_device, seed_everything

FUSION, MASK = "midlevel-fusion", "feature-mask-network"
#: what can be trained: for mid-level fusion the maps to fuse, where "res4:" is every unit of stage 4 and "res5:-1" all
#: of stage 5 but the last (in ResNet-50: a to f, a and b); for the mask network its layer, and two controls of ours:
#: "nomask" is "fmn" with a mask that is 1 everywhere, "two-grn" two global networks of neighbouring seeds
ROWS = {
    "vanilla": (),
    "fusion": ("res5:-1",),
    "flatten": ("res5:-1",),
    "res2,3,4": ("res2", "res3", "res4"),
    "res4a-f": ("res4:",),
    "res2,3,4,5ab": ("res2", "res3", "res4", "res5:-1"),
    "control": ("res5",),  # ours: the same layers on the last map itself, so that nothing of the middle is added
    "fmn": "pool1",
    **{f"fmn-{layer}": layer for layer in ("res1", "res2", "res3", "res4")},
    "nomask": "pool1",
    "two-grn": "",
}
_OVERALL = {"Vanilla": "vanilla", "Ours": "fusion"}
_SEARCH = {"Basel.": "grn", "FMN": "fmn", "FMN+re-rank": "fmn+rerank"}
#: (paper, table) -> method as printed -> our row
TABLES = {
    (FUSION, 4): _OVERALL, (FUSION, 5): _OVERALL, (FUSION, 6): _OVERALL,
    (FUSION, 8): {"Vanilla+fusion": "vanilla+fusion", "res2, res3, res4": "res2,3,4", "res4(a-f)": "res4a-f",
                  "res2,3,4 + res5(a,b)": "res2,3,4,5ab", "res5(a,b) (Ours)": "fusion"},
    (FUSION, 10): {"Flattening": "flatten", "GAP (Ours)": "fusion"},
    (MASK, 1): {"GRN": "grn", "LAN": "lan", "FMN": "fmn"},
    (MASK, 2): _SEARCH, (MASK, 3): _SEARCH, (MASK, 4): _SEARCH,
    (MASK, 5): {"Pool1": "fmn", "Res2": "fmn-res2", "Res3": "fmn-res3", "Res4": "fmn-res4"},
}  # fmt: skip
ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))


@dataclass(frozen=True)
class PersonRun:
    """One training on images of people. :func:`as_published` gives the papers' own settings.

    row: a key of ``ROWS``; benchmark, size: name and ``size`` for :func:`cdimlib.data.load`; people: training
    identities to use (0: all); backbone, weights, width, norm, neck, dropout, unit: see
    :class:`~cdimlib.models.midlevel.PersonFusion`; pixels: (H, W).
    epochs, batch: passes over as many images as the training set has, images of a step; identities: distinct people
    of a batch (0: plain sampling); smoothing: of the labels.
    optimizer, lr, weight_decay, schedule: see :class:`~cdimlib.training.TrainConfig`; decay acts every ``period``
    epochs; backbone_lr: factor on the learning rate of backbone parameters.
    flip, pad, crop, erase: see :class:`~cdimlib.data.augment.PersonInput`.
    margin, rank_weight: of the ranking hinge; a mask network has no default margin, since its paper gives none.
    mask_epochs, mask_period: of stage 2 (0: as stage 1); mask_lr: factor on the learning rate of the mask's W, which
    needs one where no batch normalisation follows; alpha: of the descriptor; rerank: judge re-ranked lists too.
    validation: share of training identities held out to choose a checkpoint, ``evaluations`` times; with 0 all are
    trained on and the last weights are taken, which looks at no test image either.
    precision: see :class:`~cdimlib.training.TrainConfig`; compile: run the network through ``torch.compile``, in one
    process only: pays in a long training on a GPU.
    label: a word for the file name, to tell runs apart that differ in other settings.
    also: further benchmarks whose test sets the same weights are judged on, after training; a town's name may be
    followed by knobs ("toytown-plaza lookalikes=1"). A result's metrics are keyed by these words.
    """

    row: str
    benchmark: str = "toytown-plaza"
    seed: int = 0
    size: str | None = None
    people: int = 0
    backbone: str = "resnet50"
    weights: str | None = None
    pixels: tuple[int, int] = (128, 64)
    width: int = 1024
    norm: bool = True
    neck: bool = False
    dropout: float = 0.0
    unit: str = "whole"
    epochs: float = 12
    batch: int = 64
    identities: int = 0
    smoothing: float = 0.0
    optimizer: str = "adamw"
    lr: float = 3.5e-4
    weight_decay: float = 0.0
    schedule: str = "decay"
    decay: float = 0.95
    period: float = 1.0
    backbone_lr: float = 1.0
    flip: float = 0.5
    pad: int = 0
    crop: float | None = None
    erase: float = 0.0
    margin: float | None = None
    rank_weight: float = 1.0
    mask_epochs: float = 0
    mask_period: float = 0
    mask_lr: float = 1.0
    alpha: float = 0.5
    rerank: bool = False
    validation: float = 0.0
    evaluations: int = 5
    precision: str = "auto"
    compile: bool = False
    label: str = ""
    also: tuple[str, ...] = ()

    def __post_init__(self):
        if self.row not in ROWS:
            raise ValueError(f"unknown row {self.row!r}: choose from {', '.join(ROWS)}")
        if self.masked and ROWS[self.row] and self.margin is None:
            raise ValueError(f"row {self.row!r} needs margin=, of the ranking hinge: the paper does not give it")
        if self.identities and self.batch % self.identities:
            raise ValueError(f"a batch of {self.batch} does not divide into {self.identities} identities")
        object.__setattr__(self, "pixels", tuple(self.pixels))
        object.__setattr__(self, "also", tuple(self.also))
        if len({self.benchmark, *self.also}) <= len(self.also):
            raise ValueError(f"also={self.also} names a benchmark twice, or {self.benchmark!r}, the run's own")

    @property
    def masked(self) -> bool:
        return isinstance(ROWS[self.row], str)

    @property
    def input(self) -> PersonInput:
        return PersonInput(self.pixels, self.flip, self.pad, self.crop, self.erase)

    @property
    def track(self) -> str:
        return self.weights or "scratch"

    @property
    def settings(self) -> dict:
        """All settings, as a result keeps them; ``also`` and ``mask_lr`` only where they are not the default."""
        unasked = {"also": (), "mask_lr": 1}
        return {k: value for k, value in asdict(self).items() if k not in unasked or value != unasked[k]}

    def load(self, words: str, root=None) -> Benchmark:
        """The benchmark that a name, perhaps with knobs, stands for, in this run's size and pixels; of Market-1501 with
        its list for several queries at once, where that is at hand."""
        name, *knobs = words.split()
        options = {"size": self.size} if self.size and name.startswith("toytown-") else {}
        options |= dict(map(option, knobs))
        if name == "market1501" and (home(name, root) / "gt_bbox").is_dir():
            options["multi_query"] = True
        return replace(load(name, root, pixels=self.pixels, **options), name=words)

    def budget(self, stage: int = 2) -> str:
        """The part of a result's name that says how large a run was; stage 1 is the global network's alone."""
        words = [self.backbone, f"{self.pixels[0]}x{self.pixels[1]}", f"{self.epochs:g}ep", self.label]
        if ROWS[self.row] and self.masked and stage == 2:
            hinge = f"m{self.margin:g}" + (f"w{self.rank_weight:g}" if self.rank_weight != 1 else "")
            words[3:3] = [f"{self.mask_epochs or self.epochs:g}ep", hinge]
        return "-".join(word for word in words if word)


def as_published(row: str, **changes) -> PersonRun:
    """The paper's recipe of a row, as far as it is known.

    Mid-level fusion (Sec. 4.1): Adam 3.5e-4 (5e-4 for CUHK03), decay factor 0.95, 64 images of 256 x 128, flips,
    60,000 steps, about 297 epochs of Market-1501. Unknown: the period of the decay (here 5 epochs).
    Feature mask network (Sec. 4.2): SGD, flips and crops of 224 x 224; the rate 0.1 falls to 0.01 after 20 epochs, for
    stage 2 after 35. It must be that of new layers, pretrained ones having a thousandth: so does the code of the
    alignment network on which the paper builds, from which batch, epochs, weight decay, dropout and crop are taken. Its
    two stages differ in these (batch 16 and 32, decay 1e-4 and 5e-4, dropout 0.75 and 0.9, crops from 0.85 and 0.875);
    ours share one value, and Nesterov's momentum is left out.
    """
    if isinstance(ROWS.get(row), str):
        recipe = dict(pixels=(224, 224), epochs=25, mask_epochs=40, batch=32, optimizer="sgd", lr=0.1, decay=0.1,
                      period=20, mask_period=35, backbone_lr=1e-3, weight_decay=5e-4, crop=0.85, dropout=0.75)
    else:
        recipe = dict(pixels=(256, 128), epochs=297, period=5, lr=3.5e-4)
        if changes.get("benchmark", "").startswith("cuhk03"):
            recipe |= dict(epochs=652, lr=5e-4)  # 75,000 steps
    return PersonRun(row, **{"benchmark": "market1501", "weights": "imagenet", **recipe, **changes})


def taps_of(row: str, backbone: Backbone) -> tuple[str, ...]:
    """Names of the maps that a row fuses in a backbone."""
    taps = []
    for word in ROWS[row]:
        stage, colon, end = word.partition(":")
        units = [place for place in backbone.places if re.fullmatch(rf"{stage}[a-z]+", place)]
        taps += units[: int(end) if end else None] if colon else [stage]
    return tuple(taps)


def build(run: PersonRun, classes: int) -> PersonFusion | FeatureMaskNet:
    """The model of a row for that many training identities, untrained but for ImageNet weights.

    Of "two-grn" it is the first network, with a mask network's other parts.
    """
    if run.masked:
        layer = ROWS[run.row] or "pool1"
        if (layer, run.backbone) == ("pool1", "mobilenet_v2"):
            layer = "res2a"  # it has no pool; this is its first map at stride 4
        return FeatureMaskNet(classes, layer, backbone=run.backbone, weights=run.weights, pixels=run.pixels,
                              alpha=run.alpha, dropout=run.dropout, mask_std=0.0 if run.row == "nomask" else 1e-3)
    backbone = Backbone(run.backbone, weights=run.weights)
    return PersonFusion(classes, taps_of(run.row, backbone), backbone=backbone, width=run.width, norm=run.norm,
                        pooling="flatten" if run.row == "flatten" else "gap", neck=run.neck, dropout=run.dropout,
                        unit=run.unit, pixels=run.pixels)


def train_person(
    run: PersonRun, bench: Benchmark, *, work: str | Path | None = None, progress: bool = True
) -> tuple[nn.Module, list[History]]:
    """Train one configuration on ``bench.train`` -> (model, history of each stage).

    work: folder of checkpoints to resume from; the global network's is shared by all runs with the same stage 1.
    """
    if run.compile and size() > 1:
        raise ValueError("compile=True is for one process: leave it out with several")
    device = pick_device()
    held = bench.with_validation(run.validation, seed=run.seed) if run.validation else bench
    batches, sampler = resident_batches(held.train, run.input, run.batch, identities=run.identities, device=device)
    seed_everything(run.seed)
    model = build(run, sampler.classes).to(device, memory_format=torch.channels_last)
    per_epoch, histories = len(held.train) / run.batch, []

    def validate(net) -> float:
        seen = [(encode(net, s.images, run.input), s.ids, s.cams) for s in (held.query, held.gallery)]
        return judge(net, *seen)["mAP"]

    def stage(net, objective, epochs, period, name, scales, seed=run.seed) -> None:
        steps = max(1, round(epochs * per_epoch))
        config = TrainConfig(
            steps, run.lr, run.optimizer, run.weight_decay, run.schedule, decay=run.decay, seed=seed,
            period=max(1, round(period * per_epoch)), lr_scale=tuple(scale for scale in scales if scale[1] != 1),
            evaluate_every=max(1, steps // run.evaluations), precision=run.precision,
        )
        if run.compile:
            net.logits = torch.compile(net.logits)
        histories.append(fit(
            net, batches, objective, config, validate=validate if run.validation else None,
            checkpoint=Path(work) / f"{name}.pt" if work else None, progress=progress, label=name,
        ))

    data = held.train.digest
    name = f"{checkpoint_name(run)}-{data}"
    def train_global(net, seed) -> None:
        first = checkpoint_name(replace(run, row="fmn", seed=seed, margin=0, rank_weight=1, mask_epochs=0,
                                        mask_period=0, mask_lr=1, alpha=0.5, rerank=False, label=""))  # fmt: skip
        stage(net, identity_objective(run.smoothing), run.epochs, run.period, f"grn-{first}-{data}",
              (("backbone", run.backbone_lr),), seed)

    if run.masked:
        train_global(model.grn, run.seed)
        if run.row == "two-grn":
            seed_everything(run.seed + 1)
            other = build(run, sampler.classes).grn.to(device, memory_format=torch.channels_last)
            train_global(other, run.seed + 1)
            return GlobalPair(model.grn, other, run.alpha), histories
        model.freeze_global()
        stage(model, mask_objective(run.margin, run.rank_weight, run.smoothing), run.mask_epochs or run.epochs,
              run.mask_period or run.period, name, (("lan.backbone", run.backbone_lr), ("mask", run.mask_lr)))
    else:
        stage(model, identity_objective(run.smoothing), run.epochs, run.period, name, (("backbone", run.backbone_lr),))
    return model, histories


def checkpoint_name(run: PersonRun) -> str:
    """Row, seed and a digest of all settings of the training."""
    digest = hashlib.sha256(json.dumps(replace(run, also=()).settings, sort_keys=True).encode()).hexdigest()[:10]
    return f"{run.row.replace(',', '_')}-s{run.seed}-{digest}"


def several(queries, gallery) -> tuple:
    """Those that may ask together, (features, ids, cams): every test image of a query's person and camera.

    The rule that leaves a query's own camera out of its ranking makes those of the gallery free to ask.
    """
    asked = set(zip(queries[1], queries[2]))
    free = np.array([pair in asked for pair in zip(gallery[1], gallery[2])])
    features = torch.cat([queries[0], gallery[0][torch.as_tensor(free, device=gallery[0].device)]])
    return features, *(np.concatenate([queries[i], gallery[i][free]]) for i in (1, 2))


def judge_rows(run: PersonRun, model: nn.Module, bench: Benchmark) -> dict[str, dict]:
    """row -> metrics by data set: its name (single query) and "<name> multi-query".

    Those who ask together are ``bench.meta["multi_query"]`` if there is one (Market-1501's list), else :func:`several`.
    Of a joined feature also what its parts score, by cosine: "<name> middle", "<name> end" (the last map), and
    "<name> even", both brought to unit length. A mask network's own row holds, under "alpha", what every share of the
    global network would score.
    """
    splits, plain, cosine, out = [bench.query, bench.gallery], VectorMatcher(), VectorMatcher("cosine"), {}
    splits += [bench.meta["multi_query"]] if "multi_query" in bench.meta else []
    look = lambda m: [(encode(m, s.images, run.input).float(), s.ids, s.cams) for s in splits]  # noqa: E731
    mix = lambda seen, alpha: [(descriptor(*f.chunk(2, dim=1), alpha), *labels) for f, *labels in seen]  # noqa: E731
    if run.masked:
        model.alpha = 0.5  # both halves are there; other shares follow from it
        both, model.alpha = look(model), run.alpha
        local = run.row.replace("fmn", "lan") if run.row.startswith("fmn") else f"lan-{run.row}"
        shares = {"grn": 1.0, local: 0.0, run.row: run.alpha}
        views = {row: mix(both, alpha) for row, alpha in shares.items()}
    else:
        nets = {run.row: model}
        if run.row == "vanilla":
            nets["vanilla+fusion"] = model.join(taps_of("fusion", model.backbone))
        views = {row: look(net) for row, net in nets.items()}
    for row, (queries, gallery, *more) in views.items():
        together = multi_query(*(more[0] if more else several(queries, gallery)))
        together = judge(cosine, together, gallery)
        out[row] = {bench.name: judge(plain, queries, gallery), f"{bench.name} multi-query": together}
        if not run.masked and nets[row].taps:
            halves = [features.split(nets[row].dimensions, dim=1) for features in (queries[0], gallery[0])]
            even = [torch.cat([F.normalize(part) for part in parts], dim=1) for parts in halves]
            for word, q, g in (("middle", *(h[0] for h in halves)), ("end", *(h[1] for h in halves)), ("even", *even)):
                out[row][f"{bench.name} {word}"] = judge(cosine, (q, *queries[1:]), (g, *gallery[1:]))
        if run.rerank:
            pairs = ((queries, gallery), (queries, queries), (gallery, gallery))
            distance = once(k_reciprocal)(*(-similarity(plain, a[0], b[0]) for a, b in pairs), squared=True)
            out[f"{row}+rerank"] = {bench.name: judge(-distance, queries, gallery)}
    if run.masked:
        swept = {str(a): judge(plain, *mix(both[:2], a)) for a in ALPHAS}
        out[run.row][bench.name]["alpha"] = {a: {m: round(j[m], 3) for m in ("acc@1", "mAP")} for a, j in swept.items()}
    return out


def run_person(
    run: PersonRun, *, bench: Benchmark | None = None, root=None, work: str | Path | None = None, progress: bool = True
) -> tuple[list[dict], nn.Module]:
    """Train and test one configuration -> (a result for each row it fills, trained model).

    bench: a benchmark to use instead of ``load(run.benchmark, root, pixels=run.pixels)``.
    work: folder of checkpoints (see :func:`train_person`).
    The test split is looked at once, with the last weights, or with those chosen on held-out training identities.
    """
    started, device = time.perf_counter(), pick_device()
    bench = bench or run.load(run.benchmark, root)
    if run.people:
        kept = np.random.default_rng(0).permutation(np.unique(bench.train.ids))[: run.people]
        bench = replace(bench, train=bench.train.where(np.isin(bench.train.ids, kept)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    others = [run.load(words, root) for words in run.also]  # what is not there is missed before the training
    model, histories = train_person(run, bench, work=work, progress=progress)
    rows, last = judge_rows(run, model, bench), histories[-1]
    for other in others:
        for row, metrics in judge_rows(run, model, other).items():
            rows[row] |= metrics
    data, net = (sum(getattr(h, name) for h in histories) for name in ("data_seconds", "model_seconds"))
    common = {
        "paper": MASK if run.masked else FUSION, "track": run.track, "seed": run.seed, "config": run.settings,
        "data": {"name": bench.name, "note": bench.note, "train_images": len(bench.train),
                 "train_identities": len(np.unique(bench.train.ids)), "test_queries": len(bench.query),
                 "gallery_images": len(bench.gallery)},
        "protocol": "every query against the gallery, the query's own camera left out",
        "multi_query": "the data set's own list" if "multi_query" in bench.meta else "test images of a query's camera",
        "average_precision": "rectangle", "parameters": sum(p.numel() for p in model.parameters()),
        "curve": {"loss": [[round(v, 4) for v in h.losses[:: max(1, len(h.losses) // 100)]] for h in histories],
                  "validation": last.validation, "best_step": last.best_step},
        **settings(run.batch), "data_seconds": round(data, 1), "model_seconds": round(net, 1),
        "train_images_per_second": round(run.batch * sum(len(h.losses) for h in histories) / (data + net), 1),
        "peak_memory_mib": round(results.peak_memory(device) or 0) or None,
        "wall_seconds": round(time.perf_counter() - started, 1), **results.machine(device, run.precision),
    }
    return [{**common, "row": row, "budget": run.budget(1 if row.startswith("grn") else 2), "metrics": metrics}
            for row, metrics in rows.items()], model


def run_grid(runs: list[PersonRun], *, root=None, folder=None, work=None, progress: bool = True) -> list[dict]:
    """Every run that has no result yet, in order; results are written as they come, so a stopped grid resumes.

    work: folder for checkpoints; a run's own is deleted when it is done, a global network's stays for others.
    """
    def known(run):
        return {"paper": MASK if run.masked else FUSION, "track": run.track, "row": run.row, "seed": run.seed,
                "data": {"name": run.benchmark}, "budget": run.budget(), "config": run.settings}

    return results.run_missing(runs, lambda run: run_person(run, root=root, work=work, progress=progress)[0],
                               known=known, leftovers=lambda run: f"{checkpoint_name(run)}-*", folder=folder, work=work)


def beside(paper: str, table: int, found: list[dict], benchmark: str, *, first: bool = False) -> pd.DataFrame:
    """The rows of a printed table that are ours, beside results on a benchmark: rank-1 and mAP, mean ± spread (seeds).

    found: results, of one budget; of a table with several data sets the benchmark's own is shown. A toy town has none
    and stands beside all of them: a stand-in, whose numbers say something about each other and not about the paper's.
    first: begin with colours and textures (:func:`cdimlib.results.first_row`), from images of 128 x 64.
    """
    printed, rows, lines = results.paper_table(paper, table), TABLES[paper, table], []
    if first and (classical := results.first_row(benchmark)):
        line = {"paper's data": None, "protocol": "single query", "method": "colour and texture, learned metric",
                "our row": "colour-texture-metric"}  # fmt: skip
        for metric in ("acc@1", "mAP"):
            line |= {f"paper {metric}": None, f"ours {metric}": results.cell(classical, benchmark, metric)}
        lines.append(line)
    printed = printed[(printed["dataset"] == benchmark) | (benchmark not in set(printed["dataset"]))]
    for (data, protocol, method), part in printed.groupby(["dataset", "protocol", "method"], sort=False):
        if method in rows:
            mine = [r for r in found if r["row"] == rows[method]]
            words = f"{benchmark} multi-query" if protocol == "multi query" else benchmark
            values = part.set_index("metric")["value"]
            cells = {m: (values.get(m), results.cell(mine, words, m)) for m in ("acc@1", "mAP")}
            lines.append({"paper's data": data, "protocol": protocol, "method": method, "our row": rows[method]}
                         | {f"{who} {m}": cells[m][i] for m in cells for i, who in enumerate(("paper", "ours"))})
    return pd.DataFrame(lines)
