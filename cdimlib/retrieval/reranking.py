"""k-reciprocal re-ranking: two images are alike if they are near the same images."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

BLOCK = 2**22  # distances looked at together when neighbours are searched (16 MiB)


def k_reciprocal(
    query_gallery, query_query, gallery_gallery, *, k1: int = 20, k2: int = 6, lambda_: float = 0.3, squared=False
):
    """Re-ranked distances [Q, G] from the distances [Q, G], [Q, Q] and [G, G] (NumPy or torch, any device).

    Each image is described by its k-reciprocal neighbours among all Q + G images: those of its k1 + 1 nearest (itself
    included) that have it among theirs, and, with each of them, its own round(k1 / 2) + 1 reciprocal ones if more than
    two thirds of those are already there. Neighbours weigh exp(-distance), each image's distances being divided by its
    largest; the description is averaged over the k2 nearest images. The result is
    (1 - lambda_) * Jaccard distance of the descriptions + lambda_ * divided distance.

    squared: square the distances first, as the authors' code does with Euclidean ones; QAConv's takes them as given.
    Ties: among equally near images queries come before gallery images, and either in the order given. Where k1 + 1 or
    k2 exceeds the number of images, all are taken. Distances must not be negative: pass 1 - similarity, not
    -similarity. Should query_query or gallery_gallery not be symmetric, entry [j, i] is read as the distance of image
    j from image i, as in the common code.

    Only the neighbours are kept, in sparse matrices: the distances are read in blocks, so beside them and the result
    there are about 2 (k1 + 1)^2 numbers per image. For tensors on a GPU the neighbours are searched there and the
    sparse part is done on the CPU; the result is of the kind, on the device and (at least) in single precision as
    query_gallery. Not for galleries with one image per identity: there is no neighbourhood to share, and it hurts.

    Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017, Eq. (2) to (5), (8), (10)
    to (12).
    """
    cross, queries, gallery = (torch.as_tensor(d).detach() for d in (query_gallery, query_query, gallery_gallery))
    if cross.ndim != 2 or queries.shape != (len(cross),) * 2 or gallery.shape != (cross.shape[1],) * 2:
        raise ValueError(
            f"distances must be query_gallery [Q, G], query_query [Q, Q] and gallery_gallery [G, G], "
            f"got {tuple(cross.shape)}, {tuple(queries.shape)} and {tuple(gallery.shape)}"
        )
    if k1 < 1 or k2 < 1 or not 0 <= lambda_ <= 1:
        raise ValueError(f"k1 and k2 must be at least 1 and lambda_ within 0..1 (got {k1}, {k2} and {lambda_})")
    count, total = len(cross), sum(cross.shape)  # queries, all images
    if not cross.numel():
        return query_gallery
    find = max(min(k1 + 1, total), min(k2, total))
    neighbours, largest = map(torch.cat, zip(*(_nearest(block, find) for block in _rows(cross, queries, gallery))))
    near, core = (_reciprocal(neighbours[:, :k]) for k in (k1 + 1, round(k1 / 2) + 1))
    shared = (near @ core.T).multiply(near).tocsr()  # [image, neighbour]: core neighbours of the latter near the former
    shared.data = (3 * shared.data > 2 * np.diff(core.indptr)[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    weights = (near + shared @ core).tocsr()
    image = np.repeat(np.arange(total), np.diff(weights.indptr))
    divided = _look_up(cross, queries, gallery, image, weights.indices) / largest.cpu()[image]
    weights.data = np.exp(-(divided.square_() if squared else divided).numpy())
    weights.data /= np.asarray(weights.sum(axis=1)).ravel()[image]
    if k2 > 1:
        weights = _indicator(neighbours[:, :k2], 1 / min(k2, total)) @ weights
    result = np.empty(cross.shape, np.float32)
    query, column = weights[:count], weights[count:].tocsc()
    for q in range(count):  # the sum of the smaller weights over the neighbours that a query and a gallery image share
        begin, end = query.indptr[[q, q + 1]]
        part = column[:, query.indices[begin:end]]
        smaller = np.minimum(part.data, np.repeat(query.data[begin:end], np.diff(part.indptr)))
        overlap = np.bincount(part.indices, smaller, minlength=cross.shape[1])
        result[q] = (1 - lambda_) * (1 - overlap / (2 - overlap))
    result = torch.from_numpy(result).to(cross.device)
    divided = cross.float() / largest[:count, None]
    result.add_(divided.square_() if squared else divided, alpha=lambda_)
    return result if isinstance(query_gallery, torch.Tensor) else result.numpy()


def _rows(cross, queries, gallery):
    """The rows of the whole matrix [N, N], a block at a time, without the matrix."""
    for top, bottom in ((queries, cross.T), (cross, gallery)):
        step = max(1, BLOCK // (len(top) + len(bottom)))
        for start in range(0, top.shape[1], step):
            # copied before it is turned: reading a large matrix down its columns is slow
            yield torch.cat([top[:, start : start + step], bottom[:, start : start + step]]).T.contiguous().float()


def _nearest(block, k):
    """Indices [n, k] of the k smallest of each row [n, N], nearest first, at equal values the first; largest [n]."""
    found, index = block.topk(min(k + 1, block.shape[1]), dim=1, largest=False)
    largest = block.amax(dim=1)
    if not torch.isfinite(largest).all() or (found[:, 0] < -1e-4 * largest).any():
        raise ValueError(
            "distances must be neither NaN or infinite nor negative: pass 1 - similarity, not minus the similarity"
        )
    index = index[:, :k]
    if k < block.shape[1]:
        tied = (found[:, k - 1] == found[:, k]).nonzero()[:, 0]  # any of them may have been found
        index[tied] = block[tied].argsort(dim=1, stable=True)[:, :k]
    index = index.sort(dim=1).values
    return index.gather(1, block.gather(1, index).argsort(dim=1, stable=True)), largest.clamp_min(1e-30)


def _look_up(cross, queries, gallery, i, j):
    """Distances [n] of the images j [n] from the images i [n], on the CPU."""
    i, j = torch.as_tensor(i, device=cross.device), torch.as_tensor(j, device=cross.device, dtype=torch.int64)
    count, values = len(cross), torch.empty(len(i), device=cross.device)
    a, b = i < count, j < count  # which are queries
    for at, matrix, row, column in (
        (a & b, queries, j, i), (a & ~b, cross, i, j - count), (~a & b, cross, j, i - count),
        (~a & ~b, gallery, j - count, i - count),
    ):  # fmt: skip
        values[at] = matrix[row[at], column[at]].float()
    return values.cpu()


def _indicator(neighbours, value: float = 1.0):
    """Sparse [N, N] with ``value`` at each image's neighbours [N, k]."""
    count, k = neighbours.shape
    values = np.full(count * k, value, np.float32)
    index = neighbours.cpu().numpy().ravel()
    return sparse.csr_matrix((values, index, np.arange(0, count * k + 1, k)), (count, count))


def _reciprocal(neighbours):
    """Sparse 0/1 [N, N]: which neighbours [N, k] of an image have it among theirs."""
    near = _indicator(neighbours)
    return near.multiply(near.T).tocsr()
