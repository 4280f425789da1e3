"""CMC and mean average precision, exactly, without sorting the gallery.

Rules, the same for every table of the book:

* A gallery image with the query's identity *and* the query's camera is ignored (not counted as a rank), if cameras
  are given.
* A query without any remaining match is skipped, not scored zero; ``num_valid`` says how many are left.
* Ties are broken against us: a wrong image with the same score as a right one ranks before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

DEFINITIONS = ("rectangle", "trapezoid")
CHUNK = 256  # rows brought to the CPU together


@dataclass(frozen=True)
class RankMetrics:
    """cmc: float array [G], share of queries with a match among the first k (rank 1 first); mean_ap in 0..1;
    first_rank: int array [Q], rank of the first match (0 where the query was skipped);
    average_precision: float array [Q] (nan where skipped); num_valid: queries that count; definition: of AP;
    match_ranks: of each query that counts the ranks of all its matches.
    """

    cmc: np.ndarray
    mean_ap: float
    first_rank: np.ndarray
    average_precision: np.ndarray
    num_valid: int
    definition: str
    match_ranks: list[np.ndarray] = field(repr=False)

    def mean_ap_by(self, definition: str) -> float:
        """Mean AP by another definition, in 0..1."""
        return float(np.mean([average_precision(ranks, definition) for ranks in self.match_ranks]))

    def accuracy(self, k: int) -> float:
        """acc.@k in percent."""
        if k < 1:
            raise ValueError(f"k must be at least 1 (got {k})")
        return 100.0 * float(self.cmc[min(k, len(self.cmc)) - 1])

    def percent(self, *ranks: int) -> dict:
        """What a result keeps: acc@k for each of ``ranks`` and mAP in percent, and every query's first rank."""
        shown = {f"acc@{k}": self.accuracy(k) for k in ranks}
        return shown | {"mAP": 100 * self.mean_ap, "first_rank": self.first_rank.tolist()}


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


_ap = average_precision


def rank_metrics(
    similarity, query_ids, gallery_ids, query_cams=None, gallery_cams=None, *, average_precision: str = "rectangle"
) -> RankMetrics:
    """Judge a similarity matrix [Q, G] (NumPy or torch, higher = more alike) -> :class:`RankMetrics`.

    Nothing is sorted but a query's few matches: a match's rank is one plus the images that count and score at least as
    much. The matrix is read in place and in its own precision (from a GPU, and half precision, some rows at a time).
    """
    definition = average_precision
    _ap([1], definition)  # refuses an unknown one
    similarity = similarity if hasattr(similarity, "detach") else np.asarray(similarity)
    shape = tuple(similarity.shape)
    if len(shape) != 2:
        raise ValueError(f"similarity must be a matrix [Q, G], got shape {shape}")
    query_ids, gallery_ids = labels_of(query_ids), labels_of(gallery_ids)
    if shape != (len(query_ids), len(gallery_ids)):
        sizes = f"{len(query_ids)} queries and {len(gallery_ids)} gallery images"
        raise ValueError(f"similarity has shape {shape}, but there are {sizes}")
    if (query_cams is None) != (gallery_cams is None):
        raise ValueError("give query_cams and gallery_cams together, or neither")
    no_cams = np.zeros(shape[0]), np.ones(shape[1])  # different everywhere
    query_cams, gallery_cams = no_cams if query_cams is None else (labels_of(query_cams), labels_of(gallery_cams))
    if (len(query_cams), len(gallery_cams)) != shape:
        raise ValueError(f"{len(query_cams)} and {len(gallery_cams)} cameras for a matrix {shape}")
    _check_cameras(query_cams, gallery_cams)

    order = np.argsort(gallery_ids, kind="stable")  # the gallery by identity: a query's own is one slice of it
    begin, end = (np.searchsorted(gallery_ids[order], query_ids, side) for side in ("left", "right"))
    first = np.zeros(len(query_ids), dtype=np.int64)
    precision = np.full(len(query_ids), np.nan)
    same_camera_only, match_ranks = 0, []
    for q in range(len(query_ids)):
        if q % CHUNK == 0:
            block = np.ascontiguousarray(_host(similarity[q : q + CHUNK]))
        row = block[q % CHUNK]
        if row.size and np.isnan(row.max()):
            raise ValueError(f"similarity contains NaN (query {q}): scores cannot be ranked")
        same = order[begin[q] : end[q]]
        right = same[gallery_cams[same] != query_cams[q]]
        same_camera_only += len(right) == 0 < len(same)
        if len(right):
            ranks = _ranks(row, row[right], row[same])
            first[q], precision[q] = ranks[0], _ap(ranks, definition)
            match_ranks.append(ranks)
    valid = first > 0
    if not valid.any():
        differ = _differ(query_ids, gallery_ids)
        raise ValueError(
            f"none of the {len(query_ids)} queries has a match in the gallery: "
            f"{same_camera_only} have matches from their own camera only (these are ignored by rule), "
            f"{len(query_ids) - same_camera_only} have no gallery image of their identity"
            + (f"; the queries' identities are {differ[0]}, the gallery's {differ[1]}: make them the same kind"
               if differ else "")
        )
    hits = np.bincount(first[valid], minlength=shape[1] + 1)[1:]
    return RankMetrics(
        cmc=hits.cumsum() / valid.sum(), mean_ap=float(precision[valid].mean()), first_rank=first,
        average_precision=precision, num_valid=int(valid.sum()), definition=definition,
        match_ranks=match_ranks,
    )


def _ranks(row, right, same) -> np.ndarray:
    """Ranks (1 = best) of the scores ``right`` in ``row``, where of those in ``same`` only the right ones count."""
    right, same = np.sort(right), np.sort(same)
    if len(right) <= 64:  # few: comparing the row with each is faster than placing each of the row among them
        at_least = np.array([np.count_nonzero(row >= score) for score in right])
    else:
        beaten = np.searchsorted(right, row, side="right")  # how many right scores are <= each score
        at_least = np.bincount(beaten, minlength=len(right) + 1)[::-1].cumsum()[-2::-1]
    ahead = at_least - (len(same) - np.searchsorted(same, right))  # wrong scores >= each right one
    return np.arange(1, len(right) + 1) + ahead[::-1]


def labels_of(values) -> np.ndarray:
    """Labels, numbers or text, as a NumPy array: of what a table's column of text holds, text."""
    values = _host(values)
    return np.array(values.tolist()) if values.dtype == object else values


def _check_cameras(query_cams: np.ndarray, gallery_cams: np.ndarray) -> None:
    """ValueError if one side's cameras are text and the other's numbers: then none would be a query's own."""
    if differ := _differ(query_cams, gallery_cams):
        raise ValueError(f"the queries' cameras are {differ[0]}, the gallery's {differ[1]}: make them the same kind")


def _differ(one: np.ndarray, other: np.ndarray) -> list[str] | None:
    """What the labels are, in words, if one side's are text and the other's numbers (then no two are equal)."""
    kinds = ["text" if side.dtype.kind in "US" else "numbers" for side in (one, other)]
    if not len(one) or not len(other) or kinds[0] == kinds[1]:
        return None
    return [f"{kind} such as {side[:1].tolist()}" for kind, side in zip(kinds, (one, other))]


def _host(values) -> np.ndarray:
    """A NumPy array of anything, without a copy where it is one; half precision, slow on a CPU, becomes single."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.itemsize < 4 else values).numpy()
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype == np.float16 else values
