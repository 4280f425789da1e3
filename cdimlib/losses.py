"""Losses: one function each, reduced to a mean over the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _alike(what: str, one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(f"{what} must have one shape, not {list(one.shape)} and {list(other.shape)}: torch would "
                         "compare each with each")


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
    _alike("global_probability and local_probability", global_probability, local_probability)
    return F.relu(global_probability.detach() - local_probability + margin).mean()


def contrastive(first: Tensor, second: Tensor, match: Tensor, *, margin: float = 1.0) -> Tensor:
    """Contrastive loss of pairs of vectors [P, D], [P, D] with ``match`` [P] (true: one identity) -> scalar.

    Half the mean of d^2 for a match and of max(0, margin - d)^2 for a mismatch, d the Euclidean distance. Where two
    vectors coincide d has no gradient; zero is taken, so a mismatch of equal vectors is not pushed apart.
    Multilevel-similarity, Eq. (4) and (5), Sec. 3.1.
    """
    if margin <= 0:
        raise ValueError(f"margin must be positive (got {margin})")
    near = euclidean(first, second, squared=True)
    _alike("the pairs and match", near, match)
    far = F.relu(margin - euclidean(first, second)).square()
    return 0.5 * torch.where(match.bool(), near, far).mean()


def focal(logits: Tensor, positive: Tensor, *, gamma: float = 2.0, reduction: str = "mean") -> Tensor:
    """Focal loss of pairs [B, C] with ``positive`` [B, C] (true: one identity) -> scalar.

    The cross-entropy -log p of each pair times (1 - p)^gamma, p the probability of the right answer: what is settled
    counts little. gamma 0 is binary cross-entropy. reduction: "mean" over all pairs, as the paper writes, or "sum" over
    C and mean over B, as its code computes (C times the gradient at the same learning rate).
    QAConv, Eq. (1) and (2), Sec. 3.4.
    """
    if gamma < 0 or reduction not in ("mean", "sum"):
        raise ValueError(f"gamma must not be negative and reduction be 'mean' or 'sum'; got {gamma}, {reduction!r}")
    _alike("logits and positive", logits, positive)
    right = torch.where(positive.bool(), logits, -logits)  # logit of p
    loss = -F.logsigmoid(right) * (gamma * F.logsigmoid(-right)).exp()
    return loss.mean() if reduction == "mean" else loss.sum(dim=1).mean()
