"""The classical rows of the paper's Table 3: HOG-BoW, Dense-HOG and deep features, each plain and with rankSVM.

The paper prints one number for each with rankSVM and no settings. Here they are chosen on a quarter of the training
identities, held out: first those of the feature, by its plain distance, then those of the SVM. Then the matcher is
learned again on the whole training set and the test set is looked at once.

What no grid asks was fixed beforehand, by looking at plain distances on 100 training identities of each QMUL category:
the 8 x 8 cells and the blur of Dense-HOG, the patch of a quarter of the image of HOG-BoW.

People have classical rows of their own (:func:`run_people`), chosen in the same way. Fixed beforehand, by looking at
400 training identities of CUHK03 and the plaza's: Lab rather than HSV, the root of the shares, the weight of texture.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from . import results
from .data import SKETCH, Benchmark, Split
from .data.samplers import TripletSampler
from .data.transforms import fit_ink
from .models.classical import DeepFeatures, DenseHOG, HOGBoW, RankSVM
from .models.colour import ColourTexture, PairMetric
from .models.matcher import Matcher, VectorMatcher
from .retrieval import RankMetrics, encode, rank_metrics, similarity
from .retrieval.protocols import judge as judge_people

ROWS = ("hog-bow", "hog-bow-ranksvm", "dense-hog", "dense-hog-ranksvm", "isn-deep", "isn-deep-ranksvm")
PEOPLE = ("colour", "colour-texture", "colour-texture-metric")
#: settings of the features to choose from
FEATURES = {
    "dense-hog": {"cells": (8,), "blur": (1 / 64,)},
    "hog-bow": {"words": (200, 500), "root": (False, True)},
    "isn-deep": {"layer": ("fc6",)},
    "colour": {"constancy": (True, False), "texture": (0.0,)},
    "colour-texture": {"constancy": (True, False), "texture": (1.0,)},
}
#: settings of the learned metric to choose from
METRIC = {"dims": (40, 80, 120, 160, 240)}
#: settings of the SVM to choose from: share of triplets that are human (others get a random other photo), C, prior
SVM = {"hard_ratio": (1.0, 0.75, 0.5), "c": (0.03, 0.1, 0.3), "prior": (0.0, 3.0)}
TRIPLETS = 4000
VALIDATION = 0.25


def grid(choices: dict[str, tuple]) -> list[dict]:
    """Every combination of the choices, as keyword arguments."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def draw_triplets(train: Split, judgements: np.ndarray | None, count: int, hard_ratio: float, seed: int):
    """``count`` triplets as three index arrays into ``train``: sketch, preferred photo, other photo.

    With human judgements, a share ``hard_ratio`` takes both photos from them; without (handbags), the true match is
    preferred to any other photo. A photo is never set against itself.
    """
    anchor, preferred, other = TripletSampler(train, judgements, count, hard_ratio)(seed, 0)
    apart = preferred != other
    return anchor[apart], preferred[apart], other[apart]


class Encoder:
    """Encodes the images of one benchmark for the rows, and remembers what does not depend on the seed.

    fit: bring every drawing to one scale, place and pen first (the input of our modern track) instead of taking it
    as it was drawn. net, prepare: for the "isn-deep" rows, the trained network and what turns uint8 images into its
    input.
    """

    def __init__(self, benchmark: Benchmark, *, fit: bool = False, net=None, prepare=None):
        self.benchmark, self.fit, self.net, self.prepare = benchmark, fit, net, prepare
        self._images: dict[str, Tensor] = {}
        self._kept: dict[tuple, object] = {}

    def images(self, split: str) -> Tensor:
        """uint8 [N, C, H, W] of "train", "query" or "gallery"."""
        if split not in self._images:
            images = getattr(self.benchmark, split).images
            self._images[split] = fit_ink(images, images.shape[-1]) if self.fit else images
        return self._images[split]

    def matcher(self, row: str, setting: dict, learn_from: np.ndarray, seed: int) -> tuple[VectorMatcher, tuple]:
        """The matcher of a row without SVM, its vocabulary learned from the training images in the boolean array;
        and the key under which its features may be remembered."""
        key = (row, *sorted(setting.items()))
        if row == "dense-hog":
            return DenseHOG(**setting), key
        if row in PEOPLE:
            return ColourTexture(**setting), key
        if row == "isn-deep":
            if self.net is None:
                raise ValueError("the isn-deep rows need net=, a SketchANet trained on drawings, and its prepare=")
            return DeepFeatures(self.net, **setting), key
        key = (*key, seed, int(learn_from.sum()))
        if key not in self._kept:
            described = [d for d, use in zip(self.described("train"), learn_from, strict=True) if use]
            self._kept[key] = HOGBoW(**setting, seed=seed).fit(described=described)
        return self._kept[key], key

    def described(self, split: str) -> list[np.ndarray]:
        if ("patches", split) not in self._kept:
            self._kept["patches", split] = HOGBoW().describe(self.images(split).float())
        return self._kept["patches", split]

    def features(self, matcher: Matcher, key: tuple, split: str) -> Tensor:
        """[N, D] of all images of a split."""
        if (key, split) not in self._kept:
            if isinstance(matcher, HOGBoW):
                self._kept[key, split] = matcher.histogram(self.described(split))
            else:
                prepare = self.prepare if isinstance(matcher, DeepFeatures) else None
                self._kept[key, split] = encode(matcher, self.images(split), prepare).cpu()
        return self._kept[key, split]


def with_svm(matcher: VectorMatcher, features: Tensor, train: Split, judgements, setting: dict, seed: int) -> RankSVM:
    """The matcher with a rankSVM learned from triplets of ``train``, whose features are given [N, D]."""
    setting = dict(setting)
    sketch, preferred, other = draw_triplets(train, judgements, TRIPLETS, setting.pop("hard_ratio"), seed)
    return RankSVM(matcher, **setting, seed=seed).fit(features[sketch], features[preferred], features[other])


def run_classical(
    row: str, category: str, seed: int, benchmark: Benchmark, *, fit: bool = False, encoder: Encoder | None = None,
    net=None, prepare=None,
) -> dict:
    """One row of Table 3 on one category: choose on validation, learn on all of train, test once.

    row: one of ``ROWS``. benchmark: of one category, e.g. ``load("qmul/shoes")``. seed: of the validation cut, the
    vocabulary and the draw of triplets. encoder: to share features between calls (it then decides about ``fit``,
    ``net`` and ``prepare``, see :class:`Encoder`).

    Returns row, category, seed, benchmark, fit, train_identities, test_queries, acc1 and acc10 (percent), mean_ap,
    first_ranks (per test query), settings (chosen), validation (its mean AP and acc@1), wall_seconds.
    """
    if row not in ROWS:
        raise ValueError(f"unknown row {row!r}: choose from {', '.join(ROWS)}")
    started = time.perf_counter()
    base, svm = row.removesuffix("-ranksvm"), row.endswith("-ranksvm")
    encoder = encoder or Encoder(benchmark, fit=fit, net=net, prepare=prepare)
    train, judgements = benchmark.train, benchmark.triplets
    held_out = benchmark.with_validation(VALIDATION, seed=seed)
    held = np.isin(train.ids, held_out.query.ids)
    svm_choices = dict(SVM) if judgements is not None else SVM | {"hard_ratio": (1.0,)}

    def judge(matcher: Matcher, queries: Tensor, query_ids, gallery: Tensor, gallery_ids) -> RankMetrics:
        return rank_metrics(similarity(matcher, queries, gallery), query_ids, gallery_ids)

    def validate(setting: dict, svm_setting: dict | None) -> RankMetrics:
        matcher, key = encoder.matcher(base, setting, ~held, seed)
        features = encoder.features(matcher, key, "train")
        if svm_setting is not None:
            matcher = with_svm(matcher, features[~held], held_out.train, judgements, svm_setting, seed)
        query, gallery = held & (train.cams == SKETCH), held & (train.cams != SKETCH)
        return judge(matcher, features[query], train.ids[query], features[gallery], train.ids[gallery])

    tried = [(validate(setting, None), setting, None) for setting in grid(FEATURES[base])]
    metrics, setting, svm_setting = max(tried, key=lambda t: t[0].mean_ap)  # the first of equals
    if svm:
        tried = [(validate(setting, s), setting, s) for s in grid(svm_choices)]
        metrics, setting, svm_setting = max(tried, key=lambda t: t[0].mean_ap)
    matcher, key = encoder.matcher(base, setting, np.ones(len(train), bool), seed)
    if svm:
        features = encoder.features(matcher, key, "train")
        learned = with_svm(matcher, features, train, judgements, svm_setting, seed)
    else:
        learned = matcher
    test = judge(
        learned, encoder.features(matcher, key, "query"), benchmark.query.ids,
        encoder.features(matcher, key, "gallery"), benchmark.gallery.ids,
    )
    return {
        "row": row, "category": category, "seed": seed, "benchmark": benchmark.name, "fit": encoder.fit,
        "train_identities": len(np.unique(train.ids)), "test_queries": len(benchmark.query),
        "acc1": test.accuracy(1), "acc10": test.accuracy(10), "mean_ap": 100 * test.mean_ap,
        "first_ranks": test.first_rank.tolist(), "settings": setting | (svm_setting or {}),
        "validation": {"mean_ap": 100 * metrics.mean_ap, "acc1": metrics.accuracy(1), "queries": metrics.num_valid},
        "wall_seconds": round(time.perf_counter() - started, 1),
    }


def as_result(runs: Sequence[dict], **fields) -> dict:
    """What :func:`run_classical` returned for the categories of one row and seed, as one result for
    :func:`cdimlib.results.save`: track and budget "classical", or "classical-fit" for drawings brought to one scale.

    fields: to add or replace, for instance ``commit``.
    """
    first = runs[0]
    for run in runs:
        if any(run[name] != first[name] for name in ("row", "seed", "fit")):
            raise ValueError("one result holds one row, seed and fit; only the categories may differ")
    track = "classical-fit" if first["fit"] else "classical"
    names = {run["benchmark"].split("/")[0] for run in runs}
    return {
        "paper": "midlevel-fusion", "row": first["row"], "track": track, "budget": track, "seed": first["seed"],
        "config": {
            "settings": {run["category"]: run["settings"] for run in runs},
            "validation": {run["category"]: run["validation"] for run in runs},
            "fit": first["fit"], "triplets": TRIPLETS, "held_out": VALIDATION,
        },
        "data": {
            "name": names.pop() if len(runs) > 1 and len(names) == 1 else first["benchmark"],
            "train_identities": {run["category"]: run["train_identities"] for run in runs},
            "test_queries": sum(run["test_queries"] for run in runs),
        },
        "metrics": {
            run["category"]: {
                "acc@1": run["acc1"], "acc@10": run["acc10"], "mAP": run["mean_ap"], "first_rank": run["first_ranks"]
            }
            for run in runs
        },
        "protocol": "query sketch against all test photos of its category; one view; settings chosen on validation",
        "wall_seconds": round(sum(run["wall_seconds"] for run in runs), 1),
        **results.machine("cpu"), **fields,
    }


def run_people(row: str, seed: int, source: Encoder, *targets: Encoder, budget: str = "classical", **fields) -> dict:
    """A classical row on people: choose on validation and learn on ``source``, test there and on every target, once.

    row: one of ``PEOPLE``. seed: of the validation cut and of PCA. source, targets: benchmarks with cameras, wrapped to
    share features between calls. In validation every held-out image asks for those of other cameras.
    Returns a result for :func:`cdimlib.results.save`; ``data`` names the source, ``metrics`` all that was tested on.
    """
    if row not in PEOPLE:
        raise ValueError(f"unknown row {row!r}: choose from {', '.join(PEOPLE)}")
    started, bench, base = time.perf_counter(), source.benchmark, row.removesuffix("-metric")
    train, everyone = bench.train, np.ones(len(bench.train), bool)
    held = np.isin(train.ids, bench.with_validation(VALIDATION, seed=seed).query.ids)

    def learn(setting: dict, metric: dict | None, keep: np.ndarray):
        """The matcher to judge with, and (encoder, split, images) -> (features, ids, cams)."""
        matcher, key = source.matcher(base, setting, keep, seed)
        learned = matcher if metric is None else PairMetric(matcher, **metric, seed=seed).fit(
            source.features(matcher, key, "train")[keep], train.ids[keep], train.cams[keep])  # fmt: skip

        def look(encoder: Encoder, split: str, keep=slice(None)) -> tuple[Tensor, np.ndarray, np.ndarray]:
            features, labels = encoder.features(matcher, key, split)[keep], getattr(encoder.benchmark, split)
            return learned.project(features) if metric else features, labels.ids[keep], labels.cams[keep]

        return learned, look

    def validate(setting: dict, metric: dict | None) -> dict:
        learned, look = learn(setting, metric, ~held)
        seen = look(source, "train", held)
        return judge_people(learned, seen, seen)

    setting = max(grid(FEATURES[base]), key=lambda s: validate(s, None)["mAP"])  # the first of equals
    metric = max(grid(METRIC), key=lambda m: validate(setting, m)["mAP"]) if row != base else None
    validation = validate(setting, metric)
    learned, look = learn(setting, metric, everyone)
    return {
        "paper": "people", "row": row, "track": "classical", "budget": budget, "seed": seed,
        "config": {"settings": setting | (metric or {}), "held_out": VALIDATION,
                   "validation": {name: validation[name] for name in ("mAP", "acc@1")}},
        "data": {"name": bench.name, "note": bench.note, "train_images": len(train),
                 "train_identities": len(np.unique(train.ids)), "pixels": list(train.images.shape[2:])},
        "metrics": {e.benchmark.name: judge_people(learned, look(e, "query"), look(e, "gallery"))
                    for e in (source, *targets)},
        "protocol": "every query against the gallery, the query's own camera left out",
        "average_precision": "rectangle", "wall_seconds": round(time.perf_counter() - started, 1),
        **results.machine("cpu"), **fields,
    }
