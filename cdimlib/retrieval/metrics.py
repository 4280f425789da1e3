"""CMC and mean average precision, exactly, without sorting the gallery.

Rules, the same for every table of the book:

* A gallery image with the query's identity *and* the query's camera is ignored (not counted as a rank), if cameras
  are given.
* A query without any remaining match is skipped, not scored zero; ``num_valid`` says how many are left.
* Ties are broken against us: a wrong image with the same score as a right one ranks before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEFINITIONS = ("rectangle", "trapezoid")


@dataclass(frozen=True)
class RankMetrics:
    """cmc: float array [G'], share of queries with a match among the first k (rank 1 first); mean_ap in 0..1;
    first_rank: int array [Q], rank of the first match (0 where the query was skipped);
    average_precision: float array [Q] (nan where skipped); num_valid: queries that count; definition: of AP.
    """

    cmc: np.ndarray
    mean_ap: float
    first_rank: np.ndarray
    average_precision: np.ndarray
    num_valid: int
    definition: str

    def accuracy(self, k: int) -> float:
        """acc.@k in percent."""
        if k < 1:
            raise ValueError(f"k must be at least 1 (got {k})")
        return 100.0 * float(self.cmc[min(k, len(self.cmc)) - 1])


def average_precision(ranks, definition: str = "rectangle") -> float:
    """Average precision of one query from the ranks (1 = best) of all its matches.

    "rectangle": mean of k / rank_k, as in scikit-learn and most re-ID code.
    "trapezoid": Market-1501's evaluation code, which averages that with the precision one rank earlier.
    """
    if definition not in DEFINITIONS:
        raise ValueError(f"average_precision must be one of {', '.join(DEFINITIONS)}, not {definition!r}")
    ranks = np.sort(np.asarray(ranks, dtype=float))
    if len(ranks) == 0:
        raise ValueError("a query without a match has no average precision")
    found = np.arange(1, len(ranks) + 1)
    precision = found / ranks
    if definition == "rectangle":
        return float(precision.mean())
    earlier = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float((precision + earlier).mean() / 2)


def rank_metrics(
    similarity, query_ids, gallery_ids, query_cams=None, gallery_cams=None, *, average_precision: str = "rectangle"
) -> RankMetrics:
    """Judge a similarity matrix [Q, G] (NumPy or torch, higher = more alike) -> :class:`RankMetrics`."""
    definition = average_precision
    if definition not in DEFINITIONS:
        raise ValueError(f"average_precision must be one of {', '.join(DEFINITIONS)}, not {definition!r}")
    similarity = _array(similarity, "similarity")
    query_ids, gallery_ids = _array(query_ids, "query_ids"), _array(gallery_ids, "gallery_ids")
    if similarity.shape != (len(query_ids), len(gallery_ids)):
        raise ValueError(
            f"similarity has shape {similarity.shape}, but there are {len(query_ids)} queries and "
            f"{len(gallery_ids)} gallery images"
        )
    if (query_cams is None) != (gallery_cams is None):
        raise ValueError("give query_cams and gallery_cams together, or neither")
    if query_cams is not None:
        query_cams, gallery_cams = _array(query_cams, "query_cams"), _array(gallery_cams, "gallery_cams")
        if (len(query_cams), len(gallery_cams)) != similarity.shape:
            raise ValueError(f"{len(query_cams)} and {len(gallery_cams)} cameras for a matrix {similarity.shape}")

    first = np.zeros(len(query_ids), dtype=np.int64)
    precision = np.full(len(query_ids), np.nan)
    same_camera_only = 0
    for q, row in enumerate(similarity):
        if np.isnan(row).any():
            raise ValueError(f"similarity contains NaN (query {q}): scores cannot be ranked")
        match = gallery_ids == query_ids[q]
        if query_cams is not None:
            same_camera = gallery_cams == query_cams[q]
            right = match & ~same_camera
            same_camera_only += bool(match.any() and not right.any())
        else:
            right = match
        if right.any():
            ranks = _ranks(row[right], row[~match])
            first[q] = ranks[0]
            precision[q] = _ap(ranks, definition)
    valid = first > 0
    if not valid.any():
        raise ValueError(
            f"none of the {len(query_ids)} queries has a match in the gallery: "
            f"{same_camera_only} have matches from their own camera only (these are ignored by rule), "
            f"{len(query_ids) - same_camera_only} have no gallery image of their identity"
        )
    hits = np.bincount(first[valid], minlength=similarity.shape[1] + 1)[1:]
    return RankMetrics(
        cmc=hits.cumsum() / valid.sum(), mean_ap=float(precision[valid].mean()), first_rank=first,
        average_precision=precision, num_valid=int(valid.sum()), definition=definition,
    )


_ap = average_precision


def _ranks(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Ranks (1 = best) of the scores ``right`` among themselves and ``wrong``; O((R + W) log R), no gallery sort."""
    ascending = np.sort(right)
    wrong = wrong[wrong >= ascending[0]]  # the rest is behind all of them, and it is most of the gallery
    beaten = np.searchsorted(ascending, wrong, side="right")  # how many right scores are <= each wrong one
    ahead = np.bincount(beaten, minlength=len(right) + 1)[::-1].cumsum()[::-1]  # wrong scores >= the k-th right one
    return np.arange(1, len(right) + 1) + ahead[1:][::-1]


def _array(values, name: str) -> np.ndarray:
    array = values.detach().float().cpu().numpy() if hasattr(values, "detach") and name == "similarity" else values
    array = np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    if name == "similarity" and array.ndim != 2:
        raise ValueError(f"similarity must be a matrix [Q, G], got shape {array.shape}")
    return array
