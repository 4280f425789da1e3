"""Ways to ask: one random gallery image per identity (single-shot), or several images of one query (multi-query).

Every query against the whole gallery, without the query's own camera, is ``rank_metrics`` itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .metrics import RankMetrics, _host, labels_of, rank_metrics
from .search import similarity as score_all

STYLES = ("cross-camera", "x-corr")


@dataclass(frozen=True)
class SingleShot:
    """cmc: float array [I], mean over the galleries drawn (I identities); spread [I]: standard deviation over them;
    num_valid: queries that count; protocol: what was done, for captions. first_rank: int array [num_valid], where each
    of these queries found its match in the first of the galleries drawn.
    """

    cmc: np.ndarray
    spread: np.ndarray
    num_valid: int
    protocol: str
    first_rank: np.ndarray

    accuracy = RankMetrics.accuracy


def single_shot(
    similarity, query_ids, gallery_ids, query_cams, gallery_cams, *, repeats=10, seed=0, style="cross-camera"
) -> SingleShot:
    """Mean CMC over random galleries with one image per identity; similarity [Q, G], higher = more alike.

    style "cross-camera": every query is asked against one drawn image of each identity. Where the one drawn for the
    query's own identity is from the query's own camera, another is drawn for this query; a query without any is
    skipped. (CUHK03, CUHK01 and VIPeR have query and gallery from different cameras anyway.)

    style "x-corr": as the test code of Subramaniam et al. (2016) does it, with which the multi-level similarity network
    is compared: one drawn image per identity is the gallery and *all* other images are queries, those of the same
    camera too. That is easier; never put the two in one column. Both sides must be the same images in the same order
    (join query and gallery first); cameras are not used.

    With one image of each identity (and style "cross-camera") there is nothing to draw: the one gallery is judged once.

    Raises ValueError where no query is left (and says which rule dropped how many), or no cameras are given.
    """
    if style not in STYLES or repeats < 1:
        raise ValueError(f"style must be one of {', '.join(STYLES)} and repeats at least 1, not {style!r}, {repeats}")
    scores, query_ids, gallery_ids = _host(similarity), labels_of(query_ids), labels_of(gallery_ids)
    if scores.shape != (len(query_ids), len(gallery_ids)) or scores.size == 0:
        raise ValueError(f"similarity is {scores.shape}, but ids are given for {len(query_ids)} x {len(gallery_ids)}")
    if style == "x-corr":
        if not np.array_equal(query_ids, gallery_ids) or len(np.unique(query_ids)) == len(query_ids):
            raise ValueError("style='x-corr' needs the same images, in the same order, as queries and as gallery, "
                             "and more than one of an identity")
    elif query_cams is None or gallery_cams is None:
        raise ValueError("no cameras given: the cross-camera rule needs query_cams and gallery_cams (zeros and ones "
                         "where the two sides are never of one camera)")
    else:
        query_cams, gallery_cams = labels_of(query_cams), labels_of(gallery_cams)
        possible = rank_metrics(scores, query_ids, gallery_ids, query_cams, gallery_cams).first_rank > 0  # or it raises
    rng, people, results = np.random.default_rng(seed), np.unique(gallery_ids), []
    only = style == "cross-camera" and len(people) == len(gallery_ids)  # nothing to draw
    for _ in range(1 if only else repeats):
        order = rng.permutation(len(gallery_ids))
        drawn = order[np.unique(gallery_ids[order], return_index=True)[1]]  # of each identity the first in that order
        if style == "x-corr":
            asked = np.setdiff1d(order, drawn)
            results.append(rank_metrics(scores[np.ix_(asked, drawn)], query_ids[asked], people))
            continue
        asked = np.flatnonzero(possible)
        picked, own = scores[np.ix_(asked, drawn)], np.searchsorted(people, query_ids[asked])
        for row in np.flatnonzero(gallery_cams[drawn[own]] == query_cams[asked]):
            q = asked[row]
            others = (gallery_ids[order] == query_ids[q]) & (gallery_cams[order] != query_cams[q])
            picked[row, own[row]] = scores[q, order[others][0]]
        results.append(rank_metrics(picked, query_ids[asked], people))
    curves, first = np.stack([r.cmc for r in results]), results[0]  # curves: [repeats, I]
    label = f"single-shot, {style}, " + ("one image of each identity" if only else f"mean of {repeats} galleries")
    return SingleShot(curves.mean(axis=0), curves.std(axis=0), first.num_valid, label, first.first_rank)


def multi_query(features, ids, cams) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """One descriptor per person and camera: features [N, d] of the same id and camera averaged, then L2-normalised.

    Returns features [P, d], ids [P], cams [P] of the P pairs, ordered by id, then camera: rank them as queries. For
    Market-1501 the images are ``load("market1501", multi_query=True).meta["multi_query"]`` (Zheng et al., 2015).
    """
    features = torch.as_tensor(features).float()
    if features.ndim != 2 or cams is None or not len(features) == len(ids) == len(cams):
        raise ValueError("multi_query needs features [N, d] with an id and a camera each; got "
                         f"{tuple(features.shape)}, {len(ids)} ids, {'no' if cams is None else len(cams)} cameras")
    (people, person), (views, view) = (np.unique(labels_of(x), return_inverse=True) for x in (ids, cams))
    pairs, group = np.unique(person * len(views) + view, return_inverse=True)
    where = torch.as_tensor(group, device=features.device)
    total = features.new_zeros(len(pairs), features.shape[1]).index_add_(0, where, features)
    # normalising the sum or the mean is the same
    return F.normalize(total), people[pairs // len(views)], views[pairs % len(views)]


def judge(matcher, queries, gallery) -> dict:
    """acc@1, 5, 10 and 20, mean AP by both definitions (percent) and every query's first rank (0: skipped).

    matcher: a matcher, or the similarity [Q, G] itself; queries, gallery: (features, ids, cams).
    """
    scores = score_all(matcher, queries[0], gallery[0]) if isinstance(matcher, nn.Module) else matcher
    metrics = rank_metrics(scores, queries[1], gallery[1], queries[2], gallery[2])
    return metrics.percent(1, 5, 10, 20) | {"mAP (trapezoid)": 100 * metrics.mean_ap_by("trapezoid")}
