"""Slow, plain versions of the ranking tools, written from their definitions, for tests and benchmarks."""

from __future__ import annotations

import numpy as np


def slow_reference(similarity, query_ids, gallery_ids, query_cams=None, gallery_cams=None):
    """Per query: (rank of the first match, AP by rectangles, AP by trapezoids), or None if it is skipped.

    Walks down the sorted list, and computes the trapezoids as Market-1501's evaluation code does.
    """
    out = []
    for q in range(len(query_ids)):
        listed = []
        for g in range(len(gallery_ids)):
            match = gallery_ids[g] == query_ids[q]
            if match and query_cams is not None and gallery_cams[g] == query_cams[q]:
                continue
            listed.append((-float(similarity[q][g]), bool(match)))
        listed.sort()  # False sorts before True: at equal scores the wrong image comes first
        matches = [match for _, match in listed]
        total = sum(matches)
        if not total:
            out.append(None)
            continue
        rectangle = trapezoid = 0.0
        found, old_precision = 0, 1.0
        for rank, match in enumerate(matches, start=1):
            found += match
            precision = found / rank
            if match:
                rectangle += precision / total
                trapezoid += (old_precision + precision) / 2 / total
            old_precision = precision
        out.append((matches.index(True) + 1, rectangle, trapezoid))
    return out


def sorted_metrics(scores, query_ids, gallery_ids, query_cams, gallery_cams):
    """Rank-1 and mAP the usual way: for every query sort the gallery, drop what does not count, look for matches."""
    firsts, precisions = [], []
    for q in range(len(query_ids)):
        order = np.argsort(-scores[q])
        matches = gallery_ids[order] == query_ids[q]
        matches = matches[~(matches & (gallery_cams[order] == query_cams[q]))]
        if matches.any():
            ranks = np.flatnonzero(matches) + 1
            firsts.append(ranks[0])
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return np.mean(np.array(firsts) == 1), np.mean(precisions)


def dense_reranking(
    query_gallery, query_query, gallery_gallery, k1=20, k2=6, lambda_=0.3, squared=False, kind="stable"
):
    """k-reciprocal re-ranking with whole matrices, step by step as Zhong et al. (2017) describe it.

    The common code's choices where the paper leaves one: k1 + 1 neighbours, the image itself included, half of them
    rounded plus one for the expansion, each image's distances divided by their largest. kind: how to sort; "stable"
    puts the first of equally near images first, None is faster.
    """
    top, bottom = np.hstack([query_query, query_gallery]), np.hstack([query_gallery.T, gallery_gallery])
    distance = np.vstack([top, bottom]).astype(np.float32) ** (2 if squared else 1)
    distance = np.ascontiguousarray((distance / np.maximum(distance.max(axis=0), 1e-30)).T)
    total, half = len(distance), round(k1 / 2) + 1
    order = np.argsort(distance, axis=1, kind=kind)

    def reciprocal(image, k):
        near = order[image, :k]
        return near[(order[near, :k] == image).any(axis=1)]

    near = [reciprocal(i, k1 + 1) for i in range(total)]
    core = [reciprocal(i, half) for i in range(total)]
    weights = np.zeros((total, total), np.float32)
    for i in range(total):
        wide = set(near[i].tolist())
        for j in near[i]:
            if len(core[j]) and np.isin(core[j], near[i]).mean() > 2 / 3:
                wide.update(core[j].tolist())
        wide = sorted(wide)
        if wide:
            weight = np.exp(-distance[i, wide])
            weights[i, wide] = weight / weight.sum()
    if k2 > 1:
        weights = np.stack([weights[order[i, :k2]].mean(axis=0) for i in range(total)])
    count = len(query_gallery)
    holders = [np.flatnonzero(column) for column in np.ascontiguousarray(weights.T)]  # who has this neighbour
    result = np.zeros((count, total), np.float32)
    for q in range(count):
        smaller = np.zeros(total, np.float32)
        for neighbour in np.flatnonzero(weights[q]):
            who = holders[neighbour]
            smaller[who] += np.minimum(weights[q, neighbour], weights[who, neighbour])
        result[q] = 1 - smaller / (2 - smaller)  # both sum to one, so the larger weights sum to 2 - smaller
    return ((1 - lambda_) * result + lambda_ * distance[:count])[:, count:]


def looped_lift(
    similarity, query_cams, query_times, gallery_cams, gallery_times, tau=100.0, sigma=100.0, k=100, alpha=0.0,
    two=2.0, enlarge=False, same_camera=True,
):
    """TLift as its text says it, a query and a gallery camera at a time, QAConv, Eq. (3) and (4).

    Ties at place k share the places left, or (enlarge) are pivots all of them; two: the 2 of the exponent.
    """
    lifted = np.array(similarity, dtype=float)
    for a in range(len(query_cams)):
        near = np.flatnonzero((query_cams == query_cams[a]) & (np.abs(query_times - query_times[a]) < tau))
        for camera in np.unique(gallery_cams):
            images = np.flatnonzero(gallery_cams == camera)
            pairs = similarity[np.ix_(near, images)]
            worst = np.sort(pairs, axis=None)[::-1][: int(k)][-1]
            pivots = np.nonzero(pairs >= worst)[1]
            share = np.ones(len(pivots))
            if not enlarge:
                tied = pairs[pairs >= worst] == worst
                share[tied] = min(1.0, (k - (~tied).sum()) / tied.sum())
            apart = gallery_times[images[pivots]][:, None] - gallery_times[images]
            density = share @ np.exp(-(apart**2) / (two * sigma**2)) / share.sum()
            if camera == query_cams[a] and not same_camera:
                density[:] = 0
            lifted[a, images] *= density + alpha
    return lifted


def nearest_vectors(queries, gallery, metric, k):
    """Scores and indices of the k best, comparing every pair; of equally good ones the first comes first."""
    scores = np.empty((len(queries), len(gallery)))
    for q, query in enumerate(np.asarray(queries, float)):
        for g, image in enumerate(np.asarray(gallery, float)):
            if metric == "euclidean":
                scores[q, g] = -np.sqrt(np.square(query - image).sum())
            else:
                lengths = np.linalg.norm(query) * np.linalg.norm(image) if metric == "cosine" else 1.0
                scores[q, g] = query @ image / (lengths or 1.0)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order
