"""QAConv's score on a GPU in one Triton kernel: similarities live in registers, only the logits are written."""

from __future__ import annotations

import os

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no Triton, no kernel: the chunked version in .qaconv does the same
    triton = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # runs the kernel on a CPU, slowly, for its tests
TILE = 64  # positions taken at a time


def usable(queries: Tensor) -> bool:
    """Whether the kernel takes maps [Q, d, hw]: half precision on a GPU, at most 256 positions, d = 16, 32, ... 256.

    A GPU has to be of Ampere's generation or later, and hold a query's tiles in the memory that its programs share: at
    most 128 x 192 numbers (which compiles to 80 KB for an A100 and 96 KB for an H100).
    """
    _, d, hw = queries.shape
    if triton is None or hw > 4 * TILE or d not in (16, 32, 64, 128, 256):
        return False
    if INTERPRETED or not queries.is_cuda or queries.dtype == torch.float32:
        return INTERPRETED
    return d * triton.cdiv(hw, TILE) * TILE <= 128 * 192 and torch.cuda.get_device_capability(queries.device) >= (8, 0)


def fused_logits(queries: Tensor, gallery: Tensor, weight: Tensor, bias: Tensor, *, per_program: int = 32) -> Tensor:
    """Logits [Q, G] of maps [Q, d, hw], [G, d, hw], with BN-FC-BN folded into weight [2hw] and bias [1].

    Half-precision products on the tensor cores, summed in single precision. Which maps fit: :func:`usable`.
    """
    (n_queries, d, hw), n_gallery = queries.shape, len(gallery)
    out = torch.empty(n_queries, n_gallery, device=queries.device)
    _kernel[(n_queries, triton.cdiv(n_gallery, per_program))](
        queries.contiguous(), gallery.contiguous(), weight.float().contiguous(), bias.float(), out, n_gallery,
        hw, d, TILE, triton.cdiv(hw, TILE), per_program, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _kernel(queries, gallery, weight, bias, out, n_gallery, hw: tl.constexpr, d: tl.constexpr, tile: tl.constexpr,
            tiles: tl.constexpr, per_program: tl.constexpr):  # fmt: skip
    """One query against ``per_program`` gallery images; a step takes a tile of gallery positions to all its tiles."""
    query, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * per_program
    at, channel = tl.arange(0, tile), tl.arange(0, d)
    rows, best, total = (), (), 0.0  # query tiles [tile, d]; running maxima over gallery positions; the logit so far
    for t in tl.static_range(tiles):
        p = t * tile + at
        if hw % tile:
            p = tl.minimum(p, hw - 1)  # beyond the last position comes the last again: no maximum changes
        rows += (tl.load(queries + query * d * hw + p[:, None] + channel[None, :] * hw),)
        best += (tl.full((tile, tile), float("-inf"), tl.float32),)
    for step in range(tl.minimum(per_program, n_gallery - first) * tiles):
        image, start = first + step // tiles, (step % tiles) * tile
        p = start + at
        here = tl.load(weight + p, mask=p < hw, other=0.0)
        if hw % tile:
            p = tl.minimum(p, hw - 1)
        columns = tl.load(gallery + image.to(tl.int64) * d * hw + channel[:, None] * hw + p[None, :])  # [d, tile]
        over, grown = tl.full((tile, tile), float("-inf"), tl.float32), ()
        for t in tl.static_range(tiles):
            similarity = tl.dot(rows[t], columns)  # [query positions, gallery positions]
            over = tl.maximum(over, similarity)
            grown += (tl.maximum(similarity, tl.where(start == 0, float("-inf"), best[t])),)
        best = grown
        total = tl.where(start == 0, tl.load(bias), total) + tl.sum(tl.max(over, 0) * here)
        if start + tile >= hw:
            for t in tl.static_range(tiles):
                here = tl.load(weight + hw + t * tile + at, mask=t * tile + at < hw, other=0.0)
                total += tl.sum(tl.max(best[t], 1) * here)
            tl.store(out + query * n_gallery + image, total)


if triton is not None:
    _kernel = triton.jit(_kernel)
