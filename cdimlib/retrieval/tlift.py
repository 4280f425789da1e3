"""Temporal lifting: people seen together in one camera are likely to be together in another."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from .metrics import _host

BLOCK = 2**21  # kernel values computed together (16 MiB)


def temporal_lift(
    similarity, query_cams, query_times, gallery_cams, gallery_times, *, tau: float = 100.0, sigma: float = 100.0,
    k: int = 100, alpha: float = 0.0, kernel: str = "paper", ties: str = "share", same_camera: bool = True,
):
    """Lifted similarity [Q, G] = (p + alpha) * similarity, from cameras and times (seconds) of both sides.

    The people near query A are those of its camera less than ``tau`` seconds away, A among them, Eq. (3). The ``k``
    most similar pairs of one of them and an image of gallery camera G are the pivots there. p(A, X), Eq. (4), is the
    mean over the pivots of exp(-dt^2 / (2 sigma^2)), dt being the seconds between pivot and image X in camera G.

    What the paper leaves open, and what is done:

    * The ``k`` pivots are the best of all retrievals of A's neighbours *together*, as in the authors' code, not k for
      each; an image that several of them retrieve counts as often. With fewer than k pairs all of them are pivots.
    * "Cross-camera" retrieval: images of the query's own camera are lifted in the same way, else their scores could
      not be compared with the others'. With ``same_camera=False`` their p is 0. Cameras on one side only are no error.
    * ties: where several pairs are equally similar at place k, they "share" the places left (each counts less than
      one), so that no order of the images matters. "enlarge": all of them become pivots, as in the authors' code.
    * Scores must not be negative, for p would lift a bad match by making it smaller: use the sigmoid or
      (1 + cosine) / 2. With alpha = 0 the score vanishes where no pivot is near; an alpha keeps the order there.

    The authors' code differs: ``kernel="official"`` leaves out the 2 in the exponent (sigma / sqrt(2) with it),
    ``alpha=0.1``, ``ties="enlarge"``, and it lifts what re-ranking gives:
    ``temporal_lift(1 - k_reciprocal(1 - s, ...), ..., kernel="official", alpha=0.1, ties="enlarge")``. The other order
    is ``k_reciprocal(1 - temporal_lift(s, ...), ...)``, whose distances between two queries or two gallery images no
    time has touched.

    NumPy or torch; computed on the CPU, the result is of the same kind, on the same device. Beside it and the part of
    the matrix that belongs to one gallery camera, memory does not grow with Q * G.

    QAConv, Eq. (3) and (4), Sec. 3.5 (where (4) calls the pivots B, as (3) does the people near A).
    """
    if any(v is None for v in (query_cams, query_times, gallery_cams, gallery_times)):
        raise ValueError("temporal lifting needs the camera and the time of every image, and some are None")
    if not (tau > 0 and sigma > 0 and k >= 1 and alpha >= 0):
        raise ValueError(f"tau, sigma, k must be positive, alpha not negative (got {tau}, {sigma}, {k}, {alpha})")
    if kernel not in ("paper", "official") or ties not in ("share", "enlarge"):
        raise ValueError(f"kernel is 'paper' or 'official', ties 'share' or 'enlarge'; not {kernel!r}, {ties!r}")
    scores = _host(similarity)
    scores = scores.astype(np.result_type(scores, np.float32), copy=False)
    query_cams, gallery_cams = _host(query_cams), _host(gallery_cams)
    query_times, gallery_times = _host(query_times).astype(float), _host(gallery_times).astype(float)
    lengths = [len(v) for v in (query_cams, query_times, gallery_cams, gallery_times)]
    if scores.ndim != 2 or lengths != [n for n in scores.shape for _ in range(2)]:
        raise ValueError(f"similarity {scores.shape} does not fit {lengths} query and gallery cameras and times")
    if not (np.isfinite(query_times).all() and np.isfinite(gallery_times).all()):
        raise ValueError("every time must be a finite number of seconds")
    if scores.size and not (scores.min() >= 0 and scores.max() < np.inf):
        raise ValueError("similarity holds NaN, infinite or negative scores: use e.g. the sigmoid, or (1 + cosine) / 2")

    order, windows, window_of = _windows(query_cams, query_times, tau)
    lifted = np.empty_like(scores)
    for camera in np.unique(gallery_cams) if len(order) else ():
        columns = np.flatnonzero(gallery_cams == camera)
        block = scores[order[:, None], columns]  # [Q, G of this camera], queries by camera and time
        pivots = _pivots(block, windows, k, ties == "enlarge")
        times = gallery_times[columns] / (sigma * np.sqrt(2 if kernel == "paper" else 1))
        step = max(1, BLOCK // len(columns))
        for start in range(0, len(columns), step):
            part = slice(start, start + step)
            apart = (times[:, None] - times[part]).astype(scores.dtype)
            density = pivots @ np.exp(np.negative(np.square(apart, out=apart), out=apart), out=apart)
            density = density[window_of]
            if not same_camera:
                density[query_cams[order] == camera] = 0
            density += scores.dtype.type(alpha)
            lifted[order[:, None], columns[part]] = np.multiply(density, block[:, part], out=density)
    return torch.as_tensor(lifted, device=similarity.device) if isinstance(similarity, torch.Tensor) else lifted


def _windows(cams, times, tau):
    """Queries by camera and time [Q]; the different windows [U, 2] of those less than tau away; whose is which [Q]."""
    order = np.lexsort((times, cams))
    window = np.zeros((len(order), 2), int)
    for camera in np.unique(cams):
        begin, end = np.searchsorted(cams[order], camera), np.searchsorted(cams[order], camera, "right")
        sorted_times = times[order[begin:end]]
        window[begin:end, 0] = begin + np.searchsorted(sorted_times, sorted_times - tau, "right")
        window[begin:end, 1] = begin + np.searchsorted(sorted_times, sorted_times + tau, "left")
    return order, *np.unique(window, axis=0, return_inverse=True)


def _pivots(block, windows, k, enlarge):
    """Sparse [U, G]: the share that each gallery image has among the pivots of each window; rows sum to one.

    The k best pairs of a window are among the k best of each of its rows, which are found once, with all ties.
    """
    place = max(0, block.shape[1] - k)
    good = block >= np.partition(block, place, axis=1)[:, place, None]
    values, index = block[good], good.nonzero()[1]
    rows = np.append(0, good.sum(axis=1).cumsum())  # where each row begins in these
    columns, shares = [], []
    for begin, end in rows[windows]:
        found = values[begin:end]
        least = np.partition(found, -k)[-k] if len(found) > k else found.min()
        pivot = (found >= least).nonzero()[0]
        share = np.full(len(pivot), 1 / len(pivot), block.dtype)
        if len(pivot) > k and not enlarge:
            tied = found[pivot] == least
            share[:] = 1 / k
            share[tied] -= (len(pivot) - k) / (k * tied.sum())
        columns.append(index[begin:end][pivot])
        shares.append(share)
    ends = np.cumsum([0] + [len(c) for c in columns])
    return sparse.csr_matrix((np.concatenate(shares), np.concatenate(columns), ends), (len(windows), block.shape[1]))
