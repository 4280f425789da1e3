"""One ladder: every matcher of the book on the same towns under one budget, and what each costs.

One training fills four rungs: the matcher itself (""), "+rerank", "+tlift" and "+rerank+tlift". A result's metrics are
keyed by town and rung, the latter two with K: "toytown-campus+tlift K=20".
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from . import baselines, csn_experiments, people_experiments, qaconv_experiments, results
from .data import Benchmark, load_words, to_judge
from .data.augment import normalise
from .data.samplers import CrossViewPairSampler
from .data.toytown import PLACES
from .models.colour import ColourTexture, PairMetric
from .models.csn import ConvSimilarityNet
from .models.matcher import Matcher, VectorMatcher
from .retrieval import encode, k_reciprocal, similarity, temporal_lift
from .retrieval.protocols import judge
from .training import pick_device

PAPER, TOWNS, K = "ladder", ("toytown-plaza", "toytown-campus"), (100, 20)
#: rows, from the simplest to the costliest score; and what each is called on the page
ROWS = {"colour-texture": "colour and texture", "colour-texture-metric": "the same, learned metric",
        "vanilla": "Vanilla", "fusion": "mid-level fusion", "fmn": "Feature Mask Network", "softmax": "128-d softmax",
        "center": "128-d centre loss", "memory-cosine": "128-d class memory", "qaconv": "QAConv",
        "L2,L3": "multi-level similarity"}  # fmt: skip
#: settings of the rows' own experiments beside the common budget
_MAPS = dict(optimizer="sgd", backbone_lr=0.1, weight_decay=5e-4, reduction="sum")
_VECTORS = dict(optimizer="adamw", schedule="constant")
OWN = {"colour-texture": {}, "colour-texture-metric": {}, "vanilla": _VECTORS, "fusion": _VECTORS,
       "fmn": _VECTORS | {"margin": 0.1, "mask_lr": 0.01}, "softmax": _MAPS, "center": _MAPS, "memory-cosine": _MAPS,
       "qaconv": _MAPS, "L2,L3": dict(batch=48, schedule="cosine")}  # fmt: skip
#: 25 people of the plaza, under conditions of which one is turned at a time, from easy to hard
EASY = "toytown-plaza test=25 distractors=0 train=2"
KNOBS = {"misalignment": (0, 0.5, 1), "occlusion": (0.15, 0.5, 1), "viewpoint": (0, 0.5, 1)}
#: learning rates, chosen on held-out training people
RATES = {"vanilla": 3.5e-4, "fusion": 3.5e-4, "fmn": 3.5e-4, "softmax": 0.1, "center": 0.1, "memory-cosine": 0.01,
         "qaconv": 0.03, "L2,L3": 1e-3}  # fmt: skip


@dataclass(frozen=True)
class LadderRun:
    """One training of one matcher, judged in its own town and in ``also``.

    row: a key of ``ROWS``; epochs: training images seen, as passes over the training set: both stages of the mask
    network together, and of the pair network the images in its batches of pairs; lr: 0 for the row's own of ``RATES``.
    pixels, backbone, weights: of all rows that have them; pair_pixels: of the pair network, which starts from nothing.
    every: the pair network ranks the whole gallery for one query in so many, drawn at random, and does not climb.
    validation: share of training people held out to be judged *instead of* any test people.
    """

    row: str
    benchmark: str = TOWNS[0]
    also: tuple[str, ...] = ()
    seed: int = 0
    size: str = "demo"
    epochs: float = 2
    batch: int = 32
    lr: float = 0.0
    pixels: tuple[int, int] = (128, 64)
    pair_pixels: tuple[int, int] = (64, 24)
    backbone: str = "squeezenet1_1"
    weights: str | None = "imagenet"
    every: int = 6
    validation: float = 0.0
    label: str = ""

    def __post_init__(self):
        results.check_run(self, ROWS, from_one=("every",))

    @property
    def stub(self) -> dict:
        """The part of a result that is known before the run; the budget is QAConv's, so that its results join in."""
        track = "classical" if self.row in baselines.PEOPLE else "scratch" if self.row in csn_experiments.VARIANTS \
            else self.weights or "scratch"  # fmt: skip
        budget = qaconv_experiments.MatchRun(size=self.size, backbone=self.backbone, pixels=self.pixels,
                                             epochs=self.epochs, label=self.label).budget  # fmt: skip
        return {"paper": PAPER, "row": self.row, "track": track, "budget": budget, "seed": self.seed,
                "config": asdict(self), "data": {"name": self.benchmark}}

    def load(self, name: str, root=None) -> Benchmark:
        """A benchmark at the pixels of this row."""
        pixels = self.pair_pixels if self.row in csn_experiments.VARIANTS else self.pixels
        return load_words(name, root, pixels=pixels, size=self.size)


def train(run: LadderRun, bench: Benchmark, *, work=None, progress: bool = True) -> tuple[Matcher, object, int, list]:
    """Train a row by its own experiment -> (matcher, what prepares images for it, training images seen, histories)."""
    common = dict(seed=run.seed, size=run.size, epochs=run.epochs, lr=run.lr or RATES.get(run.row, 0.0),
                  batch=run.batch) | OWN[run.row]  # fmt: skip
    vector = dict(backbone=run.backbone, weights=run.weights, pixels=run.pixels)
    if run.row in baselines.PEOPLE:
        return *_classical(run, bench), len(bench.train), []
    if run.row in csn_experiments.VARIANTS:
        per_step = 2 * CrossViewPairSampler(bench.train, common["batch"]).per_batch  # two images a match
        common |= dict(steps=max(1, round(run.epochs * len(bench.train) / per_step)), pixels=run.pair_pixels)
        model, history = csn_experiments.train_csn(csn_experiments.CSNRun(run.row, **common), bench, work=work,
                                                   progress=progress)  # fmt: skip
        return model, normalise, per_step * len(history.losses), [history]
    if run.row in people_experiments.ROWS:
        if run.row == "fmn":
            common["epochs"] = run.epochs / 2  # of either stage
        own = people_experiments.PersonRun(run.row, **common, **vector)
        model, histories = people_experiments.train_person(own, bench, work=work, progress=progress)
        return model, own.input, own.batch * sum(len(h.losses) for h in histories), histories
    own = qaconv_experiments.MatchRun(run.row, **common, **vector)
    model, history = qaconv_experiments.train_match(own, bench, work=work, progress=progress)
    return model.matcher, own.input, own.batch * len(history.losses), [history]


def _classical(run: LadderRun, bench: Benchmark) -> tuple[Matcher, None]:
    """The settings that were chosen on held-out people, from the classical results or else anew; then learned."""
    words = "-".join(word for word in (run.size, "x".join(map(str, run.pixels))) if word)
    known = [r for r in results.load("people", row=run.row, seed=run.seed, budget=words)
             if r["data"]["name"] == bench.name]  # fmt: skip
    found = known[0] if known else baselines.run_people(run.row, run.seed, baselines.Encoder(bench))
    chosen = found["config"]["settings"]
    matcher = ColourTexture(**{name: chosen[name] for name in ("constancy", "texture")})
    if "dims" in chosen:
        features = encode(matcher, bench.train.images)
        matcher = PairMetric(matcher, dims=chosen["dims"], seed=run.seed).fit(features, bench.train.ids,
                                                                              bench.train.cams)  # fmt: skip
    return matcher, None


def score(matcher: Matcher, queries: Tensor, gallery: Tensor) -> Tensor:
    """[Q, G]: cosines of vectors, whose ranking is that of the distances between unit vectors; else the own score."""
    return similarity(VectorMatcher("cosine") if isinstance(matcher, VectorMatcher) else matcher, queries, gallery)


def calibrate(matcher: Matcher, features: Tensor, ids: np.ndarray, cams: np.ndarray) -> LogisticRegression:
    """Score -> probability of one person, learned from pairs of training images of different cameras."""
    other = cams[:, None] != cams
    scores, same = score(matcher, features, features).numpy()[other], (ids[:, None] == ids)[other]
    return LogisticRegression(C=1e4).fit(scores[:, None], same)


def climb(matcher: Matcher, prepare, bench: Benchmark, *, people: int = 20, every: int = 1, seed: int = 0) -> dict:
    """Name -> metrics of every rung, see the head of this file.

    Re-ranking takes 1 - score for a distance (1 - probability of the pair network, whose scores have no bound), lifting
    the probability that :func:`calibrate` learns from ``people`` training identities, or after re-ranking 1 - distance.
    every: rank for one query in so many, drawn at random; there are no other rungs then. Without times nothing lifts.
    """
    rng, pairs = np.random.default_rng(seed), isinstance(matcher, ConvSimilarityNet)
    asked, gallery = np.sort(rng.permutation(len(bench.query))[::every]), bench.gallery
    query = bench.query.where(asked)
    matcher.eval()
    seen = [(encode(matcher, s.images, prepare).float(), s.ids, s.cams) for s in (query, gallery)]
    scores = score(matcher, seen[0][0], seen[1][0])
    out, when = {bench.name: judge(scores, *seen)}, (query.cams, query.times, gallery.cams, gallery.times)
    if every > 1:
        out[bench.name]["asked"] = asked.tolist()
        return out
    sample = bench.train.where(np.isin(bench.train.ids, rng.permutation(np.unique(bench.train.ids))[:people]))
    model = calibrate(matcher, encode(matcher, sample.images, prepare).float(), sample.ids, sample.cams)
    likely = lambda s: torch.from_numpy(model.predict_proba(s.numpy().reshape(-1, 1))[:, 1]).view_as(s).float()  # noqa: E731
    all_pairs = scores, *(score(matcher, side[0], side[0]) for side in seen)
    reranked = 1 - k_reciprocal(*((1 - (likely(s) if pairs else s)).clamp(min=0) for s in all_pairs))
    out[f"{bench.name}+rerank"] = judge(reranked, *seen)
    if any(times is None for times in when[1::2]):
        return out
    for rung, base in (("+tlift", likely(scores)), ("+rerank+tlift", reranked)):
        out |= {f"{bench.name}{rung} K={k}": judge(temporal_lift(base, *when, k=k), *seen) for k in K}
    return out


def run_ladder(run: LadderRun, *, root=None, work=None, progress: bool = True) -> dict:
    """Train and judge one row -> its result. Test splits are looked at once, with the last weights."""
    started, bench = time.perf_counter(), run.load(run.benchmark, root)
    bench = bench.with_validation(run.validation, seed=run.seed) if run.validation else bench
    places = to_judge([bench] if run.validation else [bench, *(run.load(name, root) for name in run.also)])
    work = work and Path(work) / _folder(run)
    matcher, prepare, images, histories = train(run, bench, work=work, progress=progress)
    metrics, every = {}, run.every if run.row in csn_experiments.VARIANTS else 1
    for place in places:  # the calibration is learned where the matcher was
        metrics |= climb(matcher, prepare, replace(place, train=bench.train), every=every)
    return {**run.stub, "metrics": metrics, "average_precision": "rectangle",
            "settings": {**OWN[run.row], "lr": run.lr or RATES.get(run.row)},
            "protocol": "every query against the gallery, the query's own camera left out",
            "data": {"name": run.benchmark, "note": bench.note, "train_images": len(bench.train),
                     "train_identities": len(np.unique(bench.train.ids)), "images_seen": images,
                     "judged_on": {place.name: [len(place.query), len(place.gallery)] for place in places}},
            "wall_seconds": round(time.perf_counter() - started + sum(h.earlier for h in histories), 1),
            **results.machine(pick_device())}


def _folder(run: LadderRun) -> str:
    """Of a run's checkpoints: several rows call theirs alike."""
    return results.path_of(run.stub).stem


def run_grid(runs: list[LadderRun], *, root=None, folder=None, work=None, progress: bool = True) -> list[dict]:
    """Every run that has no result yet, in order; results are written as they come, so a stopped grid resumes."""
    return results.run_missing(runs, lambda run: [run_ladder(run, root=root, work=work, progress=progress)],
                               folder=folder, work=work, leftovers=lambda run: f"{_folder(run)}/*")


def collect(budget: str, folder=None) -> list[dict]:
    """All results of one budget: the ladder's own; and of rows it did not run, QAConv's experiment's, with its rungs
    as keys of ``metrics``, and the classical ones, which stand alone. A row that was trained from two starts, ImageNet
    and none, is refused: they are two rows."""
    key, size, pixels = lambda r: (r["row"], r["data"]["name"], r["seed"]), *(budget.split("-") + [""] * 3)[:3:2]
    own = [r for r in results.load(PAPER, folder, budget=budget) if r["track"] != "costs"]
    merged = {key(r): r for r in results.load("people", folder, budget=f"{size}-{pixels}") if r["row"] in ROWS}
    theirs = [({**r, "row": row}, plus, rung) for r in results.load(qaconv_experiments.PAPER, folder, budget=budget)
              for row, plus, rung in [r["row"].partition("+")]]
    starts = {}
    for r in own + [r for r, *_ in theirs]:
        if starts.setdefault(key(r), r["track"]) != r["track"]:
            raise ValueError(f"{' '.join(map(str, key(r)))} was run twice at {budget}, as {starts[key(r)]!r} and as "
                             f"{r['track']!r}: give one of them a label of its own, or move its files")
    for r, plus, rung in theirs:
        into = merged.setdefault(key(r), {**r, "metrics": {}})["metrics"]
        for name, metrics in r["metrics"].items():
            town, _, words = name.partition(" ")
            if not words or words.startswith("K="):
                words = f" {words or f'K={K[0]}'}" if "tlift" in rung else ""
                into[f"{town}{plus}{rung}{words}"] = metrics
    return list((merged | {key(r): r for r in own}).values())


def turned(budget: str, folder=None) -> tuple[dict[str, list[dict]], dict[str, dict[float, str]]]:
    """What was judged with one knob of the plaza turned: row -> its results; and by which name of ``metrics``: knob ->
    value -> name (``EASY`` at the plaza's own value)."""
    own = PLACES["plaza"].knobs
    where = {knob: {v: EASY if v == own[knob] else EASY.replace(" test", f" {knob}={v} test") for v in values}
             for knob, values in KNOBS.items()}  # fmt: skip
    found = results.load(PAPER, folder, budget=f"{budget}-knobs")
    found += results.load(qaconv_experiments.PAPER, folder, budget=budget)
    rows = {row: [r for r in found if r["row"] == row and EASY in r["metrics"]] for row in ROWS}
    return {row: mine for row, mine in rows.items() if mine}, where


@torch.inference_mode()
def costs(matcher: Matcher, pixels: tuple[int, int], *, images: int = 64, block=(16, 128), repeats: int = 5) -> dict:
    """What a matcher costs on one thread of this CPU, on random images; CPU seconds, medians of ``repeats``.

    encode_ms: to encode one image, in batches of ``images``; pair_us: to score one pair, in a block [Q, G]; bytes: of
    an image's features; parameters: all that encoding and scoring need, so without a classifier.
    """
    threads, clock, times = torch.get_num_threads(), time.process_time, ([], [])
    torch.set_num_threads(1)
    batch, matcher = torch.rand(images, 3, *pixels) * 255, matcher.eval().cpu()
    try:
        features = matcher.encode(batch)
        queries, gallery = (features[torch.arange(n) % images].clone() for n in block)
        for _ in range(repeats):
            began = clock()
            matcher.encode(batch)
            times[0].append((clock() - began) / images)
            loops, began = 0, clock()
            while not loops or clock() - began < 0.05:
                matcher.score(queries, gallery)
                loops += 1
            times[1].append((clock() - began) / loops / (block[0] * block[1]))
    finally:
        torch.set_num_threads(threads)
    needed = sum(p.numel() for name, p in matcher.named_parameters() if "classifier" not in name)
    needed += sum(t.numel() for t in (getattr(matcher, n, None) for n in ("mean", "weight")) if isinstance(t, Tensor))
    return {"encode_ms": 1e3 * float(np.median(times[0])), "pair_us": 1e6 * float(np.median(times[1])),
            "bytes": features[0].numel() * features.element_size(), "parameters": needed,
            "pixels": list(pixels), "images": images, "block": list(block), "repeats": repeats, "threads": 1}


def measure(run: LadderRun, *, root=None, **options) -> dict:
    """The :func:`costs` of a row as a result, after a single step of training: they do not depend on the weights."""
    started, bench = time.perf_counter(), run.load(run.benchmark, root)
    matcher, *_ = train(replace(run, epochs=1e-9), bench, progress=False)
    found = costs(matcher, bench.train.images.shape[2:], **options)
    return {**run.stub, "track": "costs", "metrics": {}, "costs": found, "processor": results.processor(),
            "wall_seconds": round(time.perf_counter() - started, 1), **results.machine()}  # fmt: skip
