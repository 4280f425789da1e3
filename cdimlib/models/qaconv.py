"""QAConv ("Interpretable and generalizable deep image matching with query-adaptive convolutions"): two images are as
alike as their best local matches. With the class memory it trains with, and its three baselines on the same backbone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import focal
from . import qaconv_gpu
from .matcher import Matcher, VectorMatcher
from .residual import Backbone

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LocalMaps(nn.Module):
    """A backbone up to ``tap``, a 3x3 convolution to ``channels`` without bias, batch normalisation; no ReLU.

    Images [N, 3, H, W] of ``pixels`` = (H, W) -> [N, channels, h, w]. The paper says "a 128-channel convolution"; its
    kernel is the released code's. With resnet152 at (384, 128): 44.36 M parameters, 1.18 M of them in the neck.
    """

    def __init__(self, pixels, *, backbone="resnet18", weights: str | None = None, tap="res4", channels: int = 128):
        super().__init__()
        self.backbone = Backbone(backbone, weights=weights, taps=tap)
        self.neck = nn.Conv2d(self.backbone.channels(tap), channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.tap, self.pixels = tap, tuple(pixels)
        self.shape = (channels, *self.backbone.shapes(self.pixels)[tap][1:])

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] of ``pixels`` -> local features [N, channels, h, w], of any length."""
        maps = self.bn(self.neck(self.backbone(images)[self.tap])).float()
        if maps.shape[1:] != self.shape:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])} pixels, but the model was made for {self.pixels}: "
                "resize them, or pass pixels="
            )
        return maps


class QAConv(Matcher):
    """Local matching in both directions, then BN-FC-BN.

    ``encode``: images [N, 3, H, W] -> maps [N, d, h, w] of unit length over the channels at every position. (The first
    release stores raw maps and normalises at use: the same numbers.)
    ``score``: sigmoid(logit / 10), as the released code tests: monotone in the logit, so rankings are the same.

    For a pair: cosines of all positions with all positions; their maximum over the query's positions (one number for
    each gallery position), then over the gallery's (one for each query position); these 2hw numbers go through
    one-channel batch normalisation, FC(2hw -> 1) and one-channel batch normalisation. The FC has other weights for each
    direction, so score(a, b) is not score(b, a); with ``symmetric`` (the later release) the directions share hw weights
    and it is. It starts as a plain mean of the 2hw numbers (the later release, too).

    pixels: (H, W) of the images; the FC belongs to that size. maps: backbone, weights, tap, channels of
    :class:`LocalMaps`. The paper: (384, 128), resnet152, "imagenet"; its code scales images to 0..1, no further.
    precision: of the similarities: "fp32", "bf16" or "fp16" (best similarities off by up to 0.004 and 0.0005).
    chunk: pairs whose hw x hw similarities exist at one time (default: 2 MiB of them on a CPU, to stay in its cache,
    256 MiB on a GPU). It changes no result: in training, batch statistics are those of all pairs.
    In eval mode on a GPU half precision uses the fused kernel of :mod:`.qaconv_gpu`, where Triton is installed.

    QAConv, Sec. 3.1 and 3.2.
    """

    def __init__(
        self, pixels: tuple[int, int] = (128, 64), *, symmetric: bool = False, precision: str = "fp32",
        chunk: int | None = None, **maps,
    ):
        super().__init__()
        if precision not in PRECISIONS or (chunk is not None and chunk < 1):
            raise ValueError(f"need precision {', '.join(PRECISIONS)} and chunk >= 1; got {precision!r}, {chunk}")
        self.maps = LocalMaps(pixels, **maps)
        self.shape, self.symmetric, self.precision, self.chunk = self.maps.shape, symmetric, precision, chunk
        positions = self.shape[1] * self.shape[2]
        self.bn, self.logit_bn = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
        self.fc = nn.Linear(positions if symmetric else 2 * positions, 1)
        nn.init.constant_(self.fc.weight, 0.5 / positions)
        self.register_buffer("layout", torch.tensor([*self.shape[1:], symmetric]))  # of the FC: rows, columns, shared
        self.register_load_state_dict_pre_hook(_same_fc)

    def encode(self, images: Tensor) -> Tensor:
        return F.normalize(self.maps(images), dim=1)

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Maps [Q, d, h, w], [G, d, h, w] -> [Q, G] in 0..1."""
        return torch.sigmoid(self.logits(queries, gallery) / 10)

    def logits(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """What the sigmoid of the loss takes: [Q, d, h, w], [G, d, h, w] -> [Q, G].

        Gradients flow in training mode, and in eval mode if one of the maps asks for them.
        """
        self._check(queries, gallery)
        queries, gallery = queries.flatten(2).float(), gallery.flatten(2).float()  # [N, d, h, w] -> [N, d, hw]
        how = PRECISIONS[self.precision], self.chunk
        with torch.autocast(queries.device.type, enabled=False):
            if self.training or queries.requires_grad or gallery.requires_grad:
                values, (weight, bias) = _BestMatches.apply(queries, gallery, *how), self._fc()  # [Q, G, 2hw]
                values = self.bn(values.view(1, 1, -1)).view_as(values)  # statistics over all Q * G * 2hw numbers
                return self.logit_bn((values @ weight + bias).view(1, 1, -1)).view(len(queries), len(gallery))
            with torch.no_grad():
                return _folded_logits(queries, gallery, *self.folded(), *how)

    def _fc(self) -> tuple[Tensor, Tensor]:
        """Weights [2hw] and bias of the FC over both directions."""
        weight, bias = self.fc.weight[0], self.fc.bias[0]
        return (weight.repeat(2), 2 * bias) if self.symmetric else (weight, bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """BN-FC-BN of eval mode as one affine map: logit = weight [2hw] @ best similarities [2hw] + bias [1]."""
        weight, bias = self._fc()
        scales = [norm.weight * (norm.running_var + norm.eps).rsqrt() for norm in (self.bn, self.logit_bn)]
        shifts = [norm.bias - norm.running_mean * by for norm, by in zip((self.bn, self.logit_bn), scales)]
        return weight * scales[0] * scales[1], (weight.sum() * shifts[0] + bias) * scales[1] + shifts[1]

    @torch.no_grad()
    def correspondences(self, query: Tensor, gallery: Tensor) -> Correspondences:
        """The 2hw best local matches of two maps [d, h, w]: what the score is made of, and what to draw."""
        self._check(query[None], gallery[None])
        similarity = query.flatten(1).T @ gallery.flatten(1)  # [d, h, w] -> [hw, hw]: query position, gallery position
        (to_gallery, best_query), (to_query, best_gallery) = similarity.max(0), similarity.max(1)
        here = torch.arange(len(similarity), device=query.device)
        cells = torch.stack([torch.cat([best_query, here]), torch.cat([here, best_gallery])])  # [2, 2hw]
        cells = torch.stack([cells // self.shape[2], cells % self.shape[2]], dim=-1)  # [2, 2hw, (row, column)]
        return Correspondences(*cells, torch.cat([to_gallery, to_query]), *self.folded())

    def _check(self, queries: Tensor, gallery: Tensor) -> None:
        for name, maps in (("queries", queries), ("gallery", gallery)):
            if maps.ndim != 4 or len(maps) == 0:
                raise ValueError(f"{name} must be maps [N, d, h, w] of at least one image, got {tuple(maps.shape)}")
        ours, theirs = tuple(queries.shape[1:]), tuple(gallery.shape[1:])
        if ours != theirs:
            raise ValueError(f"maps of queries are {ours}, of the gallery {theirs}: encode both with the same model")
        if ours != self.shape:
            raise ValueError(f"maps are {ours}, but the FC was made for {self.shape}: pass pixels= of these images")


@dataclass(frozen=True)
class Correspondences:
    """Best local matches of a pair, two for each position: first, for every gallery position in turn, its best query
    position; then, for every query position, its best gallery position.

    query, gallery: cells (row, column), [2hw, 2]. similarity: cosines [2hw]. weight [2hw], bias [1]: BN-FC-BN as one
    affine map, logit = (weight * similarity).sum() + bias.
    """

    query: Tensor
    gallery: Tensor
    similarity: Tensor
    weight: Tensor
    bias: Tensor


def _same_fc(model: QAConv, state: dict, prefix: str, *_) -> None:
    """Before weights are loaded: are they for maps of this size? Weights of other code say it by their number alone."""
    there, here = state.get(prefix + "fc.weight", model.fc.weight).shape[1], model.fc.weight.shape[1]
    layouts = [t.tolist() for t in (state.setdefault(prefix + "layout", model.layout), model.layout)]
    if there != here or layouts[0] != layouts[1]:
        (h, w, shared), known = layouts[0], there == math.prod(layouts[0][:2]) * (1 if layouts[0][2] else 2)
        raise ValueError(
            f"these weights have an FC of {there} numbers{f' (maps of {h} x {w}, symmetric={bool(shared)})' * known}, "
            f"the model's has {here} (maps of {model.shape[1]} x {model.shape[2]}, symmetric={model.symmetric}): build "
            "it with the pixels= and symmetric= of their training"
        )


def _blocks(queries: Tensor, gallery: Tensor, chunk: int | None) -> Iterator[tuple]:
    """Blocks of at most ``chunk`` pairs: gallery and query slice, gallery positions [g * hw, d], query positions
    [d, q * hw], and one piece of memory for their products, [g, hw, q, hw], the same for every block."""
    hw = queries.shape[2]
    chunk = chunk or max(1, (2**19 if queries.device.type == "cpu" else 2**26) // hw**2)
    across = min(len(gallery), chunk)
    down = min(len(queries), chunk // across)
    memory = queries.new_empty(across * hw * down * hw)
    for g in range(0, len(gallery), across):
        rows = gallery[g : g + across].transpose(1, 2).flatten(0, 1)  # [g, d, hw] -> [g * hw, d]
        for q in range(0, len(queries), down):
            columns = queries[q : q + down].transpose(0, 1).flatten(1)  # [q, d, hw] -> [d, q * hw]
            block = memory[: rows.shape[0] * columns.shape[1]].view(-1, hw, columns.shape[1] // hw, hw)
            yield slice(g, g + across), slice(q, q + down), rows, columns, block


class _BestMatches(torch.autograd.Function):
    """Maps [Q, d, hw], [G, d, hw] -> best similarities [Q, G, 2hw], computed in ``dtype``; its gradient is not.

    Keeps the places of the maxima, never all similarities.
    """

    @staticmethod
    def forward(ctx, queries, gallery, dtype, chunk):
        hw = queries.shape[2]
        values = queries.new_empty(len(queries), len(gallery), 2 * hw)
        places = torch.empty_like(values, dtype=torch.int16 if hw < 2**15 else torch.int32)
        for g, q, rows, columns, block in _blocks(queries.to(dtype), gallery.to(dtype), chunk):
            torch.mm(rows, columns, out=block.view(len(rows), -1))
            for half, axis, order in ((slice(hw), 3, (2, 0, 1)), (slice(hw, None), 1, (1, 0, 2))):
                best, place = block.max(axis)  # [g, hw, q] and [g, q, hw] -> [q, g, hw]
                values[q, g, half], places[q, g, half] = best.permute(order), place.permute(order)
        ctx.save_for_backward(queries, gallery, places)
        ctx.chunk = chunk
        return values

    @staticmethod
    def backward(ctx, gradient):
        queries, gallery, places = ctx.saved_tensors
        hw, needed = queries.shape[2], ctx.needs_input_grad
        to_queries, to_gallery = (torch.zeros_like(x) if n else None for x, n in zip((queries, gallery), needed))
        for g, q, rows, columns, block in _blocks(queries, gallery, ctx.chunk):
            block.zero_()
            for half, axis, order in ((slice(hw), 3, (1, 2, 0)), (slice(hw, None), 1, (1, 0, 2))):
                place, pull = (x[q, g, half].permute(order).unsqueeze(axis) for x in (places, gradient))
                block.scatter_add_(axis, place.long(), pull)  # the maxima of one direction never share a cell
            pull = block.view(len(rows), -1)  # [g * hw, q * hw]
            if needed[0]:
                to_queries[q] += (rows.T @ pull).unflatten(1, (-1, hw)).transpose(0, 1)  # [d, q * hw] -> [q, d, hw]
            if needed[1]:
                to_gallery[g] += (pull @ columns.T).unflatten(0, (-1, hw)).transpose(1, 2)  # [g * hw, d] -> [g, d, hw]
        return to_queries, to_gallery, None, None


def _folded_logits(queries: Tensor, gallery: Tensor, weight: Tensor, bias: Tensor, dtype, chunk) -> Tensor:
    """Logits [Q, G] of maps [Q, d, hw], [G, d, hw]; a block's similarities are forgotten as soon as it is scored."""
    queries, gallery = queries.to(dtype), gallery.to(dtype)
    if qaconv_gpu.usable(queries):
        return qaconv_gpu.fused_logits(queries, gallery, weight, bias)
    out = weight.new_empty(len(queries), len(gallery))
    per_gallery, per_query = weight.chunk(2)
    for g, q, rows, columns, block in _blocks(queries, gallery, chunk):
        torch.mm(rows, columns, out=block.view(len(rows), -1))
        logits = per_gallery @ block.amax(3).float() + block.amax(1).float() @ per_query  # [g, hw, q], [g, q, hw]
        out[q, g] = logits.T + bias
    return out


class PooledMaps(VectorMatcher):
    """The baselines' matcher: the same maps averaged over space, a vector [N, d]; the score is the cosine.

    ``logits`` (for the class memory) sends the cosine through one-channel batch normalisation: the paper says only "the
    Cosine similarity measure ... instead of the QAConv similarity", and a sigmoid needs a scale. The scale's size is
    taken: at the rates of the paper its sign turns in the first steps, and then what is *unlike* would be a match.
    QAConv, Sec. 5.3.
    """

    def __init__(self, pixels: tuple[int, int] = (128, 64), **maps):
        super().__init__("cosine")
        self.maps = LocalMaps(pixels, **maps)
        self.shape = self.maps.shape[:1]
        self.logit_bn = nn.BatchNorm1d(1)

    def encode(self, images: Tensor) -> Tensor:
        return self.maps(images).mean(dim=(2, 3))  # [N, d, h, w] -> [N, d]

    def logits(self, queries: Tensor, gallery: Tensor) -> Tensor:
        with torch.autocast(queries.device.type, enabled=False):  # as QAConv does: bf16 is too coarse for cosines
            return self.logits_of(self.cosine(queries.float(), gallery.float()))

    def logits_of(self, cosine: Tensor) -> Tensor:
        """Cosines of any shape -> the logits of a match."""
        norm = self.logit_bn
        statistics = norm.running_mean, norm.running_var, norm.weight.abs(), norm.bias, norm.training, norm.momentum
        return F.batch_norm(cosine.view(1, 1, -1), *statistics, norm.eps).view_as(cosine)


class ClassMemory(nn.Module):
    """Trains a matcher against the most recent features of every class; ``memory(images, labels)`` is the loss.

    Every image of the batch is paired with every class. After the loss, each image's features replace those of its
    class (of two images of one class the later one stays). Gradient flows through the batch only.

    matcher: :class:`QAConv`, or :class:`PooledMaps` for the baseline. classes: c; labels are 0 .. c - 1.
    gamma, reduction: see :func:`cdimlib.losses.focal`. mask_unwritten: leave out classes not written yet, from the
    batch statistics too; without it they take part as zeros, as in the first release (a later one masks the loss only).
    While there are fewer than two pairs (the first batch), the loss is zero.

    QAConv, Sec. 3.3.
    """

    def __init__(self, matcher: Matcher, classes: int, *, gamma=2.0, reduction="mean", mask_unwritten: bool = True):
        super().__init__()
        self.matcher, self.gamma, self.reduction, self.mask_unwritten = matcher, gamma, reduction, mask_unwritten
        self.register_buffer("features", torch.zeros(classes, *matcher.shape))
        self.register_buffer("written", torch.zeros(classes, dtype=torch.bool))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images [N, 3, H, W] and their classes [N] -> the loss, a scalar; then the memory is written."""
        features = self.matcher.encode(images)
        loss = self.loss(features, labels)
        self.write(features, labels)
        return loss

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Focal loss of features [B, ...] with labels [B] against the memory as it is -> scalar."""
        _check_labels(labels, len(self.written))
        taking_part = self.written if self.mask_unwritten else torch.ones_like(self.written)
        classes = taking_part.nonzero()[:, 0]  # [c']
        if len(features) * len(classes) < 2:
            return (0.0 * features).sum()
        logits = self.matcher.logits(features, self.features[classes])  # a copy: writing does not disturb the gradient
        return focal(logits, labels[:, None] == classes, gamma=self.gamma, reduction=self.reduction)

    @torch.no_grad()
    def write(self, features: Tensor, labels: Tensor) -> None:
        """Put features [B, ...] in the places of their labels [B]."""
        _check_labels(labels, len(self.written))
        order = torch.arange(len(labels), device=labels.device)
        last = torch.full_like(self.written, -1, dtype=torch.long).scatter_reduce(0, labels, order, "amax")
        self.written |= last >= 0
        self.features[last >= 0] = features[last[last >= 0]].float()


class Classifier(nn.Module):
    """Trains a :class:`PooledMaps` by naming the identity: softmax cross-entropy, and with ``center`` the centre loss.

    ``classifier(images, labels)`` is the loss: cross-entropy + center * mean of half the squared distance of a feature
    to its identity's centre. A centre moves by ``rate`` times the sum of its batch's offsets over (1 + their number),
    in training mode. Wen et al., "A discriminative feature learning approach for deep face recognition", which has
    center 0.003 and rate 0.5; the paper names this baseline and gives neither. QAConv, Sec. 5.3.
    """

    def __init__(self, matcher: PooledMaps, classes: int, *, center: float = 0.0, rate: float = 0.5):
        super().__init__()
        self.matcher, self.center, self.rate = matcher, center, rate
        self.linear = nn.Linear(matcher.shape[0], classes)
        self.register_buffer("centers", torch.zeros(classes, matcher.shape[0]))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images [N, 3, H, W] and their identities [N] -> the loss, a scalar; in training mode centres move."""
        _check_labels(labels, len(self.centers))
        features = self.matcher.encode(images)
        loss, offsets = F.cross_entropy(self.linear(features), labels), features - self.centers[labels]
        if self.center and self.training:
            self.move(offsets.detach(), labels)
        return loss + self.center * 0.5 * offsets.square().sum(1).mean()

    @torch.no_grad()
    def move(self, offsets: Tensor, labels: Tensor) -> None:
        """Move the centres of labels [B] towards their features, which lie offsets [B, C] from them."""
        mine = F.one_hot(labels, len(self.centers)).to(offsets.dtype)  # [B, c]
        self.centers += self.rate * (mine.T @ offsets) / (1 + mine.sum(0))[:, None]


def _check_labels(labels: Tensor, classes: int) -> None:
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"label {int(outside[0])} is outside 0 .. {classes - 1}: number identities from 0")
