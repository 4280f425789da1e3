"""Nothing on a GPU meets anything on a CPU. No GPU is needed to see it: PyTorch's fake tensors have a shape and a
device, but no numbers, and refuse to be mixed as real ones do. (What depends on numbers, such as which classes a memory
has seen, can't be tried.)"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cdimlib.csn_experiments import CSNRun, pair_batches
from cdimlib.data import Split
from cdimlib.data.augment import PersonInput, normalise
from cdimlib.identities import identity_objective, resident_batches
from cdimlib.models import qaconv
from cdimlib.models.csn import ConvSimilarityNet, pair_objective, part_sizes
from cdimlib.models.dssa import DSSA
from cdimlib.models.fmn import FeatureMaskNet
from cdimlib.models.midlevel import PersonFusion, SketchFusion
from cdimlib.models.qaconv import Classifier, PooledMaps, QAConv
from cdimlib.qaconv_experiments import BlockInput
from cdimlib.retrieval import encode, similarity

PIXELS, SMALL = (64, 32), (64, 24)
NET = dict(backbone="squeezenet1_1", pixels=PIXELS)
MAPS = dict(backbone="squeezenet1_1", channels=16)
MATCHERS = {
    "qaconv": lambda: QAConv(PIXELS, **MAPS), "pooled": lambda: PooledMaps(PIXELS, **MAPS),
    "csn": lambda: ConvSimilarityNet.variant("L2,L3", size=SMALL, part_sizes=part_sizes(SMALL)),
    "csn cls": lambda: ConvSimilarityNet.variant("cls", size=SMALL, part_sizes=part_sizes(SMALL)),
    "fusion": lambda: PersonFusion(5, **NET), "vanilla": lambda: PersonFusion(5, (), **NET),
    "fmn": lambda: FeatureMaskNet(5, "pool1", **NET), "sketch": SketchFusion, "dssa": DSSA,
}  # fmt: skip


@pytest.fixture(autouse=True)
def fake():
    with FakeTensorMode():
        yield


def made(make):
    with torch.device("cuda"):
        return make()


def town(pixels) -> Split:
    """Twelve images of three people by two cameras, in the computer's memory."""
    return Split(torch.zeros(12, 3, *pixels, dtype=torch.uint8), np.arange(12) // 4, np.arange(12) % 2)


@pytest.mark.parametrize("name", MATCHERS)
def test_encoded_and_scored_on_a_gpu_beside_a_gallery_in_memory(name):
    model = made(MATCHERS[name]).eval()
    sizes = {"csn": SMALL, "csn cls": SMALL, "sketch": (225, 225), "dssa": (225, 225)}
    shape = 1 if name in ("sketch", "dssa") else 3, *sizes.get(name, PIXELS)
    features = encode(model, torch.zeros(5, *shape, dtype=torch.uint8))
    assert features.device.type == "cuda" and len(features) == 5
    scores = similarity(model, features[:2], features[2:].cpu())
    assert scores.shape == (2, 3) and scores.device.type == "cpu"
    with torch.inference_mode(), pytest.raises(RuntimeError, match="device"):  # as strict as real tensors
        model.score(features[:2], features[2:].cpu())


@pytest.mark.parametrize("center", [0.0, 0.1])
def test_a_step_over_identities(center, monkeypatch):
    monkeypatch.setattr(qaconv, "_check_labels", lambda *_: None)  # which reads them: these have no values
    batches, sampler = resident_batches(town(PIXELS), BlockInput(PIXELS, block=0.0), 4, device="cuda")
    model = made(lambda: Classifier(PooledMaps(PIXELS, **MAPS), sampler.classes, center=center))
    assert model(*batches(0, 0)).device.type == "cuda"


def test_a_step_of_a_person_network():
    batches, sampler = resident_batches(town(PIXELS), PersonInput(PIXELS), 4, device="cuda")
    model = made(lambda: PersonFusion(sampler.classes, **NET))
    assert identity_objective(0.1)(model, batches(0, 0)).device.type == "cuda"


def test_a_step_over_pairs():
    batches, _ = pair_batches(town(SMALL), CSNRun(pixels=SMALL, batch=6), "cuda")
    assert pair_objective(made(MATCHERS["csn"]), batches(0, 0)).device.type == "cuda"


def test_local_matches_of_a_pair():
    model = made(MATCHERS["qaconv"]).eval()
    maps = encode(model, torch.zeros(2, 3, *PIXELS, dtype=torch.uint8), normalise)
    found = model.correspondences(*maps)
    assert {part.device.type for part in (found.query, found.gallery, found.similarity, found.weight)} == {"cuda"}
