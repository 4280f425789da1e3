"""Temporal lifting: people seen together in one camera are likely to be together in another."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from .metrics import _check_cameras, _host, labels_of

BLOCK = 2**21  # values of the kernel computed together


def temporal_lift(
    similarity, query_cams, query_times, gallery_cams, gallery_times, *, tau: float = 100.0, sigma: float = 100.0,
    k: int = 100, alpha: float = 0.0, kernel: str = "paper", ties: str = "share", same_camera: bool = True,
):
    """Lifted similarity [Q, G] = (p + alpha) * similarity, from the camera and the time (seconds) of every image.

    Near query A are the queries of its camera less than tau seconds away, itself included, Eq. (3). Of all pairs of
    one of them and an image of gallery camera G, the k most similar make their images pivots. p(A, X), Eq. (4), is the
    mean over the pivots of exp(-dt^2 / (2 sigma^2)), with the time dt between the pivot and image X of camera G.

    What the paper leaves open: the k pivots are those of A's neighbours *together*, as in the authors' code, and an
    image found by several counts as often; with fewer than k pairs, all are pivots. Images of the query's own camera
    are lifted like the others, so that all scores compare; with same_camera=False their p is 0. Where several pairs
    share place k, they "share" what is left of the k (so the order of the images does not matter), or they "enlarge"
    the pivots. With alpha=0 a score vanishes where no pivot is near; alpha > 0 keeps the order there. Scores must not
    be negative (a smaller p would lift them): give the sigmoid, or (1 + cosine) / 2.

    The authors' code differs: kernel="official" (no 2 in the exponent), ties="enlarge", alpha=0.1, all after
    re-ranking: temporal_lift(1 - k_reciprocal(1 - s, ...), ..., alpha=0.1, kernel="official", ties="enlarge"). The
    other order is k_reciprocal(1 - temporal_lift(s, ...) / (1 + alpha), ...), since lifted scores reach 1 + alpha;
    distances within a side are not lifted then.

    NumPy or torch in and out; computed on the CPU, one gallery camera at a time. (B is a person near A in Eq. (3) and a
    pivot in Eq. (4): a slip of the paper's.) QAConv, Eq. (3) and (4), Sec. 3.5.
    """
    labels = [query_cams, gallery_cams, query_times, gallery_times]
    if any(v is None for v in labels):
        raise ValueError("temporal lifting needs the camera and the time of every image, but some are None")
    if not (tau > 0 and sigma > 0 and k >= 1 and alpha >= 0):
        raise ValueError(f"tau, sigma and k must be positive, alpha not negative (got {tau}, {sigma}, {k}, {alpha})")
    if kernel not in ("paper", "official") or ties not in ("share", "enlarge"):
        raise ValueError(f"kernel is 'paper' or 'official', ties 'share' or 'enlarge'; not {kernel!r}, {ties!r}")
    scores, (query_times, gallery_times) = _host(similarity), map(_host, labels[2:])
    query_cams, gallery_cams = map(labels_of, labels[:2])
    _check_cameras(query_cams, gallery_cams)
    if scores.ndim != 2 or [len(v) for v in labels] != 2 * list(scores.shape):
        raise ValueError(f"similarity {scores.shape} does not fit {[len(v) for v in labels]} cameras and times")
    times, query_times = gallery_times / (sigma * np.sqrt(2 if kernel == "paper" else 1)), query_times.astype(float)
    if not all(np.isfinite(v).all() for v in (times, query_times, scores)) or (scores < 0).any():
        raise ValueError("times must be finite, scores finite and not negative: take the sigmoid, or (1 + cosine) / 2")

    scores = scores.astype(np.result_type(scores, np.float32), copy=False)
    order, windows, window_of = _windows(query_cams, query_times, tau)
    lifted = np.empty_like(scores)
    for camera in np.unique(gallery_cams) if len(order) else ():
        columns = np.flatnonzero(gallery_cams == camera)
        block = scores[order[:, None], columns]  # [Q, G of this camera], queries by camera and time
        pivots = _pivots(block, windows, int(k), ties == "enlarge")
        for part in np.array_split(np.arange(len(columns)), 1 + len(columns) ** 2 // BLOCK):
            apart = (times[columns][:, None] - times[columns[part]]).astype(scores.dtype)
            p = (pivots @ np.exp(-(apart**2)))[window_of]
            if not same_camera:
                p[query_cams[order] == camera] = 0
            lifted[order[:, None], columns[part]] = (p + scores.dtype.type(alpha)) * block[:, part]
    return torch.as_tensor(lifted, device=similarity.device) if isinstance(similarity, torch.Tensor) else lifted


def _windows(cams, times, tau):
    """Queries by camera and time [Q]; the different windows [U, 2] of those less than tau away; whose is which [Q]."""
    order = np.lexsort((times, cams))
    cams, times, window = cams[order], times[order], np.zeros((len(order), 2), int)
    for camera in np.unique(cams):
        begin, end = np.searchsorted(cams, camera), np.searchsorted(cams, camera, "right")
        near = times[begin:end]
        window[begin:end, 0] = begin + np.searchsorted(near, near - tau, "right")
        window[begin:end, 1] = begin + np.searchsorted(near, near + tau, "left")
    return order, *np.unique(window, axis=0, return_inverse=True)


def _pivots(block, windows, k, enlarge):
    """Sparse [U, G]: the share that each gallery image has among the pivots of each window; rows sum to one.

    The k best pairs of a window are among the k best of each of its rows, which are found once, with all ties.
    """
    place = max(0, block.shape[1] - k)
    good = block >= np.partition(block, place, axis=1)[:, place, None]
    values, index = block[good], good.nonzero()[1]
    row, columns, shares = np.append(0, good.sum(axis=1).cumsum()), [], []
    for begin, end in row[windows]:
        found = values[begin:end]
        least = np.partition(found, -k)[-k] if len(found) > k else found.min()
        pivot = (found >= least).nonzero()[0]
        share = np.full(len(pivot), 1 / len(pivot), block.dtype)
        if len(pivot) > k and not enlarge:
            tied = found[pivot] == least
            share[:] = 1 / k
            share[tied] -= (len(pivot) - k) / (k * tied.sum())
        found, where = index[begin:end][pivot], slice(None)
        if len(found) > block.shape[1]:  # many tie: an image found by several neighbours is kept once
            share = np.bincount(found, share, block.shape[1]).astype(block.dtype)
            found = where = share.nonzero()[0]
        columns.append(found)
        shares.append(share[where])
    ends = np.cumsum([0] + [len(c) for c in columns])
    return sparse.csr_matrix((np.concatenate(shares), np.concatenate(columns), ends), (len(windows), block.shape[1]))
