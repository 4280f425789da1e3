"""Operations of the pair model, on maps, at the speed a CPU allows: depthwise correlation and 2x2 pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: cells of maps (of one channel) that go through the correlation together on a CPU, which is what fits its cache: those
#: of 4 pairs at 40 x 15; and pairs on a GPU
CPU_CELLS, GPU_PAIRS = 4 * 40 * 15, 256


def correlate(maps: Tensor, parts: Tensor, *, chunk: int | None = None) -> Tensor:
    """Every part slid over the maps, channel by channel: [P, C, H, W], [P, K, C, f, f] -> [P, K * C, H, W].

    Depthwise cross-correlation, stride 1, zeros around the maps: (f - 1) // 2 before and f // 2 behind, so that the
    result has the maps' size (TensorFlow's SAME; 4 and 5 for f = 10). As every pair has filters of its own, this is one
    grouped convolution with P * K * C groups, run for ``chunk`` pairs at a time: few enough for the CPU's cache.
    Multilevel-similarity, Eq. (2), Sec. 3.1.
    """
    usual = max(1, CPU_CELLS // (maps.shape[2] * maps.shape[3])) if maps.device.type == "cpu" else GPU_PAIRS
    if maps.device.type != "cpu":
        return _Correlate.apply(maps, parts, chunk or usual)
    precise = torch.promote_types(maps.dtype, torch.float32)  # channel by channel, a CPU is slower in half precision
    with torch.autocast("cpu", enabled=False):
        return _Correlate.apply(maps.to(precise), parts.to(precise), chunk or usual)


class _Correlate(torch.autograd.Function):
    """:func:`correlate` with its gradients as grouped convolutions too, since torch's own take ten times as long on a
    CPU: towards the maps with the parts turned round, towards the parts with the gradient as the filter."""

    @staticmethod
    def forward(ctx, maps, parts, chunk):
        ctx.save_for_backward(maps, parts)
        ctx.chunk = chunk
        repeated = zip(maps.split(chunk), parts.split(chunk))
        return _joined([_slide(m[:, None].expand(-1, p.shape[1], -1, -1, -1), p).flatten(1, 2) for m, p in repeated])

    @staticmethod
    def backward(ctx, gradient):
        maps, parts = (x.to(gradient.dtype) for x in ctx.saved_tensors)  # under autocast they differ
        gradient = gradient.unflatten(1, parts.shape[1:3])  # [P, K * C, H, W] -> [P, K, C, H, W]
        to_maps, to_parts = [], []
        for m, p, g in zip(*(x.split(ctx.chunk) for x in (maps, parts, gradient))):
            to_maps.append(_slide(g, p.flip(-1, -2), before=p.shape[-1] // 2).sum(dim=1))
            to_parts.append(_slide(m[:, None].expand_as(g), g, before=(p.shape[-1] - 1) // 2, size=p.shape[-1]))
        return _joined(to_maps), _joined(to_parts), None


def _slide(signal: Tensor, filters: Tensor, *, before: int | None = None, size: int | None = None) -> Tensor:
    """Correlate [P, K, C, H, W] with [P, K, C, h, w] each on its own, with ``before`` zeros ahead of the signal and as
    many behind as give a result of the signal's size, or of ``size`` x ``size``."""
    (height, width), (h, w) = signal.shape[-2:], filters.shape[-2:]
    before = (h - 1) // 2 if before is None else before
    behind = [(size or side) + f - 1 - side - before for side, f in ((width, w), (height, h))]
    inner = min(before, *behind)  # zeros that the convolution adds itself
    signal = F.pad(signal.reshape(1, -1, height, width), [n - inner for b in behind for n in (before, b)])
    out = F.conv2d(signal, filters.reshape(-1, 1, h, w), padding=inner, groups=signal.shape[1])
    return out.view(*filters.shape[:3], *out.shape[-2:])


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def halve(x: Tensor) -> Tensor:
    """2x2 max-pooling with stride 2; an odd side is halved upwards: [..., H, W] -> [..., (H + 1) // 2, (W + 1) // 2].

    On a CPU, where channels are not the innermost, by comparing rows and then columns: on some several times as fast as
    torch's pool, gradient included.
    """
    if x.device.type != "cpu" or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return F.max_pool2d(x, 2, ceil_mode=True)
    return _Larger.apply(_Larger.apply(x, -2), -1)


class _Larger(torch.autograd.Function):
    """The larger of each two neighbours along one of the last two axes; the first where they are equal."""

    @staticmethod
    def forward(ctx, x, axis):
        even, odd = _alternate(x, axis)
        first = even.narrow(axis, 0, odd.shape[axis])
        out = torch.maximum(first, odd)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(first >= odd)
        ctx.axis, ctx.shape = axis, x.shape
        return torch.cat([out, even.narrow(axis, odd.shape[axis], 1)], axis) if x.shape[axis] % 2 else out

    @staticmethod
    def backward(ctx, gradient):
        (chosen,), axis = ctx.saved_tensors, ctx.axis
        out = gradient.new_empty(ctx.shape)
        even, odd = _alternate(out, axis)
        both = gradient.narrow(axis, 0, odd.shape[axis])
        even.copy_(gradient)  # an odd side's last has no neighbour
        first = even.narrow(axis, 0, odd.shape[axis])
        torch.mul(both, chosen.to(both.dtype), out=first)
        torch.sub(both, first, out=odd)
        return out, None


def _alternate(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    return (x[..., ::2], x[..., 1::2]) if axis == -1 else (x[..., ::2, :], x[..., 1::2, :])


class Halve(nn.Module):
    """:func:`halve` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] -> [N, C, H / 2, W / 2], odd sides rounded up."""
        return halve(x)
