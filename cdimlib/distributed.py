"""One training on several GPUs or machines, started by ``torchrun``; in one process everything here is the plain thing.

Every process takes its share of the same joint batch, and PyTorch's DistributedDataParallel joins the gradients. Equal
to one process with the joint batch, up to rounding: the images of a step and their augmentation (the random numbers of
all are drawn everywhere, only the share is augmented); loss and gradient, for uneven shares, too; the statistics of
batch normalisation in training, over all images, and all pairs of QAConv, also on CPUs, where torch's SyncBatchNorm
does not go (and in plain operations, slower than its kernels); QAConv's class memory and the centre loss's centres;
validation and test. Not equal: dropout, which draws other masks. Every process holds all training images and the whole
memory; the first one alone writes files.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import identities, retrieval, training
from .models.qaconv import Classifier, ClassMemory

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def size() -> int:
    """Processes of this training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; the first has 0."""
    return dist.get_rank() if size() > 1 else 0


@contextmanager
def group(timeout: float = 3600):
    """Join the processes that ``torchrun`` started: gloo on CPUs; on GPUs, one for each process, NCCL. Alone: nothing.

    timeout: seconds to wait for the others in an exchange. ValueError where the environment is half set. An error ends
    the process with the group as it is; ``torchrun`` then ends the others.
    """
    here = [name for name in VARIABLES if name in os.environ]
    if not set(VARIABLES[:3]) & set(here):
        yield
        return
    if missing := sorted(set(VARIABLES) - set(here)):
        raise ValueError(f"the environment has {', '.join(here)}, but lacks {', '.join(missing)}: "
                         "start with torchrun, which sets them all, or unset them to train in one process")
    number, world, local = (int(os.environ[name]) for name in VARIABLES[:3])
    if not 0 <= number < world:
        raise ValueError(f"RANK={number} is not below WORLD_SIZE={world}: start with torchrun, which sets both")
    gpus = torch.cuda.device_count()
    if 0 < gpus <= local:
        raise ValueError(f"process {local} of this machine has no GPU: start with --nproc-per-node {gpus}")
    if gpus:
        torch.cuda.set_device(local)
    if world > 1:
        dist.init_process_group("nccl" if gpus else "gloo", timeout=timedelta(seconds=timeout))
    yield
    if world > 1:
        dist.destroy_process_group()


def agree(value):
    """The first process's value, for all of them: anything that can be pickled."""
    held = [value]
    if size() > 1:
        dist.broadcast_object_list(held)
    return held[0]


def once(function: Callable) -> Callable:
    """A function that the first process alone computes; the others get its result."""
    return lambda *a, **k: agree(function(*a, **k) if rank() == 0 else None)


def _same(value, message: str) -> None:
    """ValueError, on every process, unless all hold the same value."""
    found = [None] * size()
    dist.all_gather_object(found, value)
    if len(set(found)) > 1:
        raise ValueError(f"{message} (process by process: {', '.join(map(str, found))})")


def settings(batch: int) -> dict:
    """What a result says about its training: the number of processes, and of a joint batch the share of each."""
    return {"processes": size(), "batch_per_process": [len(part) for part in np.array_split(np.empty(batch), size())]}


def share(joint: Tensor) -> Tensor:
    """This process's rows of a joint batch [B, ...]: consecutive, as many as the others' or one more or less."""
    if size() > 1 and len(joint) < 2 * size():
        raise ValueError(f"a batch of {len(joint)} is too small for {size()} processes: each needs two images at least")
    return joint.tensor_split(size())[rank()]


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes. What each makes of it adds to its gradient, so that is a sum as well."""

    @staticmethod
    def forward(ctx, tensor):
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = tensor.detach().to(device, copy=True, memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.to(tensor.device)

    @staticmethod
    def backward(ctx, gradient):
        return _Sum.apply(gradient)


def _lengths(tensor: Tensor) -> list[int]:
    return _Sum.apply(F.one_hot(torch.tensor(rank()), size()) * len(tensor)).tolist()


def gather(own: Tensor) -> Tensor:
    """Shares [b, ...] of all processes -> the joint batch [B, ...], for each of them.

    Gradients flow to the shares: an objective that must see the whole batch (hardest examples, negatives in it) is the
    mean over gathered features, computed by every process.
    """
    if size() == 1:
        return own
    lengths = _lengths(own)
    around = sum(lengths[: rank()]), sum(lengths[rank() + 1 :])
    return _Sum.apply(F.pad(own, (0, 0) * (own.ndim - 1) + around))  # elsewhere zeros, so the sum is exact


class _Joint(TorchFunctionMode):
    """Inside, batch normalisation in training takes its statistics over the images of all processes; and with
    ``whole``, random numbers for the images of a share are those they have in a joint batch of that size."""

    def __init__(self, whole: int = 0):
        super().__init__()
        self.whole = whole

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        if self.whole and "generator" in kwargs:
            *first, sizes = args if isinstance(args[-1], tuple) else (args,)  # randint(2, 5, (n, 1)) or rand(n, 1)
            return share(function(*first, (self.whole, *sizes[1:]), **kwargs))
        return function(*args, **kwargs)


def _batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    wide, channels = x if x.dtype == torch.float64 else x.float(), x.shape[1]
    axes, shape = [d for d in range(x.ndim) if d != 1], [1, -1] + [1] * (x.ndim - 2)
    total, count = _Sum.apply(torch.cat([wide.sum(axes), wide.new_tensor([x.numel() / channels])])).split([channels, 1])
    mean = total / count.detach()
    centred = wide - mean.view(shape)
    var = _Sum.apply(centred.square().sum(axes)) / count.detach()
    with torch.no_grad():
        for running, seen in ((running_mean, mean), (running_var, var * count / (count - 1))):
            if running is not None:
                running.lerp_(seen.to(running.dtype), momentum)
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)
    return (centred * scale.view(shape) + (0 if bias is None else bias.view(shape))).to(x.dtype)


def resident_batches(train, view, batch: int, **options) -> tuple[Callable, Callable]:
    """:func:`cdimlib.identities.resident_batches`, for :func:`fit`: of several processes each gets its share."""
    if size() == 1:
        return identities.resident_batches(train, view, batch, **options)
    _same((len(train), zlib.crc32(np.ascontiguousarray(train.ids))),
          "the processes have different training images: give all machines the same data")

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        with _Joint(len(images)):
            return view.training(share(images), generator)

    joint, sampler = identities.resident_batches(train, SimpleNamespace(training=augment), batch, **options)

    def batches(seed: int, step: int) -> tuple[Tensor, Tensor]:
        images, labels = joint(seed, step)
        return images, share(labels)

    return batches, sampler


class SharedMemory(ClassMemory):
    """A class memory into which every process writes the features of all, in the order of the joint batch, so that all
    stay alike. (Of the official code under DataParallel only the first replica's writes last.)"""

    def write(self, features: Tensor, labels: Tensor) -> None:
        super().write(gather(features.detach()), gather(labels))


class SharedClassifier(Classifier):
    """A classifier whose centres every process moves by the offsets of all, so that all stay alike."""

    def move(self, offsets: Tensor, labels: Tensor) -> None:
        super().move(gather(offsets), gather(labels))


class _Step(nn.Module):
    """What DistributedDataParallel wraps: model and objective in one call; of the model it need know the parameters."""

    def __init__(self, model: nn.Module, objective: Callable):
        super().__init__()
        self.parameters_, self.call = nn.ParameterList(model.parameters()), lambda batch: objective(model, batch)

    def forward(self, batch) -> Tensor:
        with _Joint():
            return self.call(batch)


def fit(model: nn.Module, batches: Callable, objective: Callable, config, *, validate=None, checkpoint=None, **options):
    """:func:`cdimlib.training.fit` by all processes of the :func:`group`; they end with the same weights.

    batches(seed, step): a process's own share, tensors [b, ...] (:func:`resident_batches`; or :func:`share` of each
    tensor of a joint batch). objective: a mean over the images it is given. validate: called by all; the first one's
    score counts. checkpoint: a file that all can read; a resumed run may have another number of processes.
    """
    if size() == 1:
        return training.fit(model, batches, objective, config, validate=validate, checkpoint=checkpoint, **options)
    seen = zlib.crc32(Path(checkpoint).read_bytes()) if checkpoint and Path(checkpoint).exists() else None
    _same(seen, f"the processes see different files {checkpoint}: put it on a disk that all machines share")
    partly = isinstance(model, ClassMemory | Classifier)  # a step may leave out parameters: the memory's first does
    replica = nn.parallel.DistributedDataParallel(_Step(model, objective), find_unused_parameters=partly)

    def joint(_, batch) -> Tensor:
        torch.manual_seed(torch.initial_seed() + rank() * 0x9E3779B1)  # for dropout: other images, other masks
        lengths = _lengths(batch[0])
        # the backward pass of the sum multiplies by the number of processes, DistributedDataParallel divides by it
        return _Sum.apply(replica(batch) * (lengths[rank()] / sum(lengths)))

    judged = validate and (lambda net: agree(validate(net)))
    return training.fit(model, batches, joint, config, validate=judged, checkpoint=checkpoint, **options)


@torch.inference_mode()
def encode(matcher, images: Tensor, prepare=None, *, batch_size: int = 64) -> Tensor:
    """:func:`cdimlib.retrieval.encode`: of several processes each encodes its share of the batches; all get all."""
    batches = -(-len(images) // batch_size)
    if size() == 1 or not batches:
        return retrieval.encode(matcher, images, prepare, batch_size=batch_size)
    start, stop = (batches * at // size() * batch_size for at in (rank(), rank() + 1))
    own = images[start:stop] if start < stop else images[:1]
    return gather(retrieval.encode(matcher, own, prepare, batch_size=batch_size)[: stop - start])


@torch.inference_mode()
def similarity(matcher, queries: Tensor, gallery: Tensor, *, chunk: int = 4096) -> Tensor:
    """:func:`cdimlib.retrieval.similarity`: of several processes each scores its share of the queries; all get all."""
    if size() == 1 or len(queries) < size():
        return retrieval.similarity(matcher, queries, gallery, chunk=chunk)
    return gather(retrieval.similarity(matcher, queries.tensor_split(size())[rank()], gallery, chunk=chunk))
