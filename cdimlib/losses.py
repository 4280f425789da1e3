"""Losses: one function each, reduced to a mean over the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def euclidean(a: Tensor, b: Tensor, *, squared: bool = False) -> Tensor:
    """Distance of row i of ``a`` [B, D] to row i of ``b`` [B, D] -> [B].

    The plain distance has a safe gradient (zero) where two rows coincide.
    """
    square = (a - b).pow(2).sum(dim=1)
    if squared:
        return square
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, torch.ones_like(square)).sqrt(), square)


def triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, margin: float = 0.3, squared: bool = False
) -> Tensor:
    """Triplet ranking loss on features [B, D] -> scalar: mean of max(0, margin + D(a, p) - D(a, n)).

    The paper says Euclidean distance; its released code uses the *squared* distance (``squared=True``).
    Midlevel-fusion, Eq. (2).
    """
    if margin < 0:
        raise ValueError(f"margin must not be negative (got {margin})")
    near = euclidean(anchor, positive, squared=squared)
    far = euclidean(anchor, negative, squared=squared)
    return F.relu(margin + near - far).mean()


def in_batch_contrastive(similarity: Tensor, *, temperature: float = 0.07, groups: Tensor | None = None) -> Tensor:
    """Symmetric in-batch softmax contrastive loss (InfoNCE) on similarities [B, B] -> scalar.

    Entry (i, j) compares sketch i with photo j; i matches i and no other. With ``groups`` [B] (category of each pair)
    only pairs of the same category serve as negatives, as in a gallery of one category.
    Not from the paper: the loss of this book's *modern* track.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive (got {temperature})")
    logits = similarity / temperature
    if groups is not None:
        logits = logits.masked_fill(groups[:, None] != groups[None, :], float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def ranking_hinge(global_probability: Tensor, local_probability: Tensor, *, margin: float) -> Tensor:
    """Ranking loss between two classifiers' probabilities of the right class, [B] each -> scalar.

    Mean of max(0, p_global - p_local + margin): the second classifier is to beat the first by the margin. The first is
    a reference; no gradient flows into it. The paper never gives its margin, so there is no default. Where p_global is
    close to 1 no p_local can satisfy a positive margin, and the gradient through a softmax dies as p_local nears 1.
    Feature-mask-network, Eq. (5), Sec. 3.3.
    """
    if not 0 <= margin <= 1:
        raise ValueError(f"margin must lie in [0, 1] (got {margin}): it is a difference of two probabilities")
    return F.relu(global_probability.detach() - local_probability + margin).mean()
