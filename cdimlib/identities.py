"""Training on identities: batches from images that live on the device, the papers' objectives, trained weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Split
from .data.augment import PersonInput
from .data.samplers import IdentitySampler, PlainSampler, generator_for
from .losses import ranking_hinge
from .models.fmn import FeatureMaskNet
from .models.midlevel import PersonFusion
from .training import read_checkpoint


def resident_batches(
    train: Split, view: PersonInput, batch: int, *, identities: int = 0, device: torch.device | str = "cpu"
) -> tuple[Callable, PlainSampler]:
    """(seed, step) -> (float images [B, 3, H, W], class numbers [B]) for :func:`cdimlib.training.fit`; and its sampler.

    The whole split stays on the device as uint8 and is augmented there: no files, no worker processes.
    identities: distinct people of a batch, each with as many images (:class:`IdentitySampler`); 0: images as they come.
    """
    sampler = IdentitySampler(train, identities, batch // identities) if identities else PlainSampler(train, batch)
    images, labels = train.images.to(device), torch.as_tensor(sampler.labels, device=device)

    def batches(seed: int, step: int) -> tuple[Tensor, Tensor]:
        index = torch.as_tensor(sampler(seed, step), device=device)
        return view.training(images.index_select(0, index), generator_for(seed, step)), labels[index]

    return batches, sampler


def identity_objective(smoothing: float = 0.0) -> Callable:
    """Cross-entropy over the training identities, with ``smoothing`` of its labels (ours).

    Midlevel-fusion, Eq. (3); Feature-mask-network, Eq. (4), Sec. 3.3.
    """

    def objective(model: PersonFusion, batch) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model.logits(images).float(), labels, label_smoothing=smoothing)

    return objective


def mask_objective(margin: float, weight: float = 1.0, smoothing: float = 0.0) -> Callable:
    """Cross-entropy of the local network, plus the ranking hinge (feature-mask-network, Algorithm 1, stage 2)."""

    def objective(model: FeatureMaskNet, batch) -> Tensor:
        images, labels = batch
        reference, local = (logits.float() for logits in model.logits(images))
        right = [logits.softmax(dim=1).gather(1, labels[:, None])[:, 0] for logits in (reference, local)]
        classification = F.cross_entropy(local, labels, label_smoothing=smoothing)
        return classification + weight * ranking_hinge(*right, margin=margin)

    return objective


def load_trained(model: nn.Module, checkpoint: str | Path) -> None:
    """Copy a checkpoint of :func:`cdimlib.training.fit` into a model (the weights of its best validation, if any).

    A model without a classifier takes the rest. Raises FileNotFoundError, or ValueError where the two do not fit.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"{checkpoint} does not exist: train first, with checkpoint= or work= set to keep it")
    state = read_checkpoint(checkpoint)
    if not isinstance(state, dict) or not {"model", "best"} <= state.keys():
        raise ValueError(f"{checkpoint} is not a checkpoint of cdimlib.training.fit")
    state, own = state["best"] or state["model"], model.state_dict()
    for name in [n for n in state if n.endswith("classifier.weight") and n in own]:
        if len(state[name]) != len(own[name]):
            raise ValueError(f"{checkpoint} was trained with {len(state[name])} identities, this model has "
                             f"{len(own[name])}: build it with classes={len(state[name])}, or with None for search")
    state = {name: value for name, value in state.items() if name in own or "classifier." not in name}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} belongs to another model ({' '.join(str(error).split())})") from error
