"""What a run on images of people is: the rows of two papers, their settings, and the model of each.

:mod:`cdimlib.people_experiments` trains and judges it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .data import Benchmark, load_words, words_of
from .data.augment import PersonInput
from .data.people import home
from .models.fmn import FeatureMaskNet
from .models.midlevel import PersonFusion
from .models.residual import Backbone
from .results import check_run, digest, settings_of

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
        check_run(self, ROWS, from_one=("evaluations",))
        if self.masked and ROWS[self.row] and self.margin is None:
            raise ValueError(f"row {self.row!r} needs margin=, of the ranking hinge: the paper does not give it")
        if self.identities and self.batch % self.identities:
            raise ValueError(f"a batch of {self.batch} does not divide into {self.identities} identities")

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
        return settings_of(self, also=(), mask_lr=1)

    def load(self, words: str, root=None) -> Benchmark:
        """The benchmark that a name, perhaps with knobs, stands for, in this run's size and pixels; of Market-1501 with
        its list for several queries at once, where that is at hand."""
        name, _ = words_of(words)
        several = {"multi_query": True} if name == "market1501" and (home(name, root) / "gt_bbox").is_dir() else {}
        return load_words(words, root, pixels=self.pixels, size=self.size, **several)

    def budget(self, stage: int = 2) -> str:
        """The part of a result's name that says how large a run was; stage 1 is the global network's alone."""
        words = [self.backbone, f"{self.pixels[0]}x{self.pixels[1]}", f"{self.epochs:g}ep", self.label]
        if ROWS[self.row] and self.masked and stage == 2:
            hinge = f"m{self.margin:g}" + (f"w{self.rank_weight:g}" if self.rank_weight != 1 else "")
            words[3:3] = [f"{self.mask_epochs or self.epochs:g}ep", hinge]
        return "-".join(word for word in words if word)

    @property
    def stub(self) -> dict:
        """The part of a result that is known before the run."""
        return {"paper": MASK if self.masked else FUSION, "row": self.row, "track": self.track,
                "budget": self.budget(), "seed": self.seed, "config": self.settings, "data": {"name": self.benchmark}}


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


def checkpoint_name(run: PersonRun) -> str:
    """Row, seed and a digest of all settings of the training."""
    return f"{run.row.replace(',', '_')}-s{run.seed}-{digest(replace(run, also=()).settings)}"


def first_stage(run: PersonRun) -> PersonRun:
    """What the global network of a mask network's run depends on: runs that share it train it once."""
    return replace(run, row="fmn", margin=0, rank_weight=1, mask_epochs=0, mask_period=0, mask_lr=1, alpha=0.5,
                   rerank=False, label="", also=())  # fmt: skip
