"""k-reciprocal re-ranking: two images are alike if they are near the same images."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

BLOCK = 2**21  # distances looked at together when neighbours are searched (8 MiB)


def k_reciprocal(
    query_gallery, query_query, gallery_gallery, *, k1: int = 20, k2: int = 6, lambda_: float = 0.3, squared=False
):
    """Re-ranked distances [Q, G] from the distances [Q, G], [Q, Q] and [G, G] (NumPy or torch, single precision).

    Near an image are those of its k1 + 1 nearest, itself included, that have it among theirs; and with each of these
    its own reciprocal ones of round(k1 / 2) + 1, if more than two thirds of them are already there (as in the authors'
    code; their paper prints "at least"). An image is described by their weights exp(-distance), of sum one, where its
    distances are divided by the largest, averaged over its k2 nearest images. The result is (1 - lambda) * Jaccard
    distance of two descriptions + lambda * divided distance. Numbers of neighbours above that of all images mean all.

    squared: square the distances first, as the authors' code does with Euclidean ones; QAConv's takes them as given.
    Of equally near images queries come before gallery images, and either in their order. Distances must not be
    negative: give 1 - similarity. Where query_query or gallery_gallery is not symmetric, entry [j, i] is the distance
    of j from i, as in the common code. Leave it out where each identity has one gallery image: it hurts there.

    The distances are read in blocks and only neighbours are kept, in sparse matrices; the largest thing made is the
    result. A GPU's tensors are searched for neighbours there; the sparse part is done on the CPU, the result goes back.

    Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017, Sec. 3.
    """
    distances = tuple(torch.as_tensor(d).detach() for d in (query_gallery, query_query, gallery_gallery))
    cross, shapes = distances[0], [tuple(d.shape) for d in distances]
    if cross.ndim != 2 or shapes[1:] != [(n, n) for n in shapes[0]]:
        raise ValueError(f"distances must be [Q, G] (query_gallery), [Q, Q] and [G, G] (gallery_gallery), not {shapes}")
    if k1 < 1 or k2 < 1 or not 0 <= lambda_ <= 1:
        raise ValueError(f"k1 and k2 must be at least 1 and lambda_ within 0..1 (got {k1}, {k2} and {lambda_})")
    count, total = len(cross), sum(cross.shape)  # queries, all images
    if not cross.numel():
        return query_gallery
    neighbours, largest = map(torch.cat, zip(*(_nearest(rows, max(k1 + 1, k2)) for rows in _blocks(*distances))))
    near, core = (_reciprocal(neighbours[:, :k]) for k in (k1 + 1, round(k1 / 2) + 1))
    shared = (near @ core.T).multiply(near).tocsr()  # [image, neighbour]: core neighbours of the latter near the former
    shared.data = (3 * shared.data > 2 * np.diff(core.indptr)[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    weights = (near + shared @ core).tocsr()
    image = np.repeat(np.arange(total), np.diff(weights.indptr))
    divided = _look_up(*distances, *torch.as_tensor(np.stack([image, weights.indices]), device=cross.device))
    divided = (divided / largest[image]).cpu().numpy()
    weights.data = np.exp(-np.square(divided) if squared else -divided)
    weights.data /= np.asarray(weights.sum(axis=1)).ravel()[image]
    if k2 > 1:
        weights = _indicator(neighbours[:, :k2]) @ weights / min(k2, total)
    query, gallery = weights[:count], weights[count:].tocsc()
    result = np.empty(cross.shape, np.float32)
    for q in range(count):  # smaller of the two weights, summed over the neighbours that query and gallery image share
        begin, end = query.indptr[[q, q + 1]]
        part = gallery[:, query.indices[begin:end]]
        smaller = np.minimum(part.data, np.repeat(query.data[begin:end], np.diff(part.indptr)))
        overlap = np.bincount(part.indices, smaller, minlength=cross.shape[1])
        result[q] = (1 - lambda_) * (1 - overlap / (2 - overlap))
    divided = cross.float() / largest[:count, None]
    result = torch.from_numpy(result).to(cross.device)
    result.add_(divided.square_() if squared else divided, alpha=lambda_)
    return result if isinstance(query_gallery, torch.Tensor) else result.numpy()


def _blocks(cross, queries, gallery):
    """The rows of the whole matrix [N, N], some at a time."""
    for top, bottom in ((queries, cross.T), (cross, gallery)):
        step = max(1, BLOCK // (len(top) + len(bottom)))
        for start in range(0, top.shape[1], step):  # copied, then turned: a large matrix's columns are slow to read
            yield torch.cat([top[:, start : start + step], bottom[:, start : start + step]]).T.contiguous().float()


def _nearest(rows, k: int):
    """Indices [n, k] of the smallest of each row [n, N], the smallest first, of equals the first; the largest [n]."""
    size, k = rows.shape[1], min(k, rows.shape[1])
    (found, index), largest = rows.topk(min(k + 1, size), dim=1, largest=False), rows.amax(dim=1)
    if not torch.isfinite(largest).all() or (found[:, 0] < -1e-4 * largest).any():
        raise ValueError("distances are NaN, infinite or negative: give e.g. 1 - similarity, not minus the similarity")
    tied = (found[:, k - 1] == found[:, k]).nonzero()[:, 0] if k < size else []  # any of these may have been found
    index = index[:, :k]
    index[tied] = rows[tied].argsort(dim=1, stable=True)[:, :k]
    index = index.sort(dim=1).values
    return index.gather(1, rows.gather(1, index).argsort(dim=1, stable=True)), largest.clamp_min(1e-30)


def _look_up(cross, queries, gallery, i, j):
    """Distances [n] of the images j [n] from the images i [n]."""
    count, values = len(cross), torch.empty(len(i), device=cross.device)
    a, b = i < count, j < count  # which are queries
    parts = (a & b, queries, j, i), (a & ~b, cross, i, j - count), (~a & b, cross, j, i - count)
    for at, matrix, row, column in (*parts, (~a & ~b, gallery, j - count, i - count)):
        values[at] = matrix[row[at], column[at]].float()
    return values


def _indicator(neighbours):
    """Sparse [N, N], one at the neighbours [N, k] of each image."""
    (count, k), index = neighbours.shape, neighbours.cpu().numpy().ravel()
    return sparse.csr_matrix((np.ones(count * k, np.float32), index, np.arange(0, count * k + 1, k)), (count, count))


def _reciprocal(neighbours):
    """Sparse [N, N], one at those of an image's neighbours [N, k] that have it among theirs."""
    near = _indicator(neighbours)
    return near.multiply(near.T).tocsr()
