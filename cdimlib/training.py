"""One training loop for every model of the book.

A run is a pure function of its configuration: step ``t`` draws its batch, its augmentation and its dropout from
generators seeded with ``(seed, t)`` and nothing else, so a run that was killed and resumed ends with the same weights
(bit for bit on the CPU).
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm.auto import tqdm

#: what a checkpoint holds
CHECKPOINT = {"model", "optimizer", "step", "best", "history", "config"}


@dataclass(frozen=True)
class TrainConfig:
    """steps: optimiser updates; lr: peak learning rate; optimizer: "sgd" (momentum 0.9), "adamw" or "adam" (alike but
    for weight_decay, which "adam" takes for a term of the loss);
    schedule: "constant", "cosine" with a linear warm-up over the first ``warmup`` share of the steps, or "decay":
    times ``decay`` after every ``period`` steps;
    lr_scale: ((beginning of a parameter's name, factor), ...); the first that fits multiplies its learning rate;
    evaluate_every: steps between validations (0: only at the end); patience: validations without a new best before
    stopping (None: never); checkpoint_every: steps between checkpoints; precision: "fp32", or "bf16" autocast where
    the device has it ("auto": bf16 on a GPU that supports it, else fp32).
    """

    steps: int
    lr: float = 1e-3
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.2
    seed: int = 0
    evaluate_every: int = 0
    patience: int | None = None
    checkpoint_every: int = 100
    precision: str = "auto"
    decay: float = 0.1
    period: int = 0
    lr_scale: tuple[tuple[str, float], ...] = ()
    nesterov: bool = False

    def __post_init__(self):
        choices = {
            "optimizer": ("sgd", "adam", "adamw"), "schedule": ("constant", "cosine", "decay"),
            "precision": ("auto", "fp32", "bf16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if not isinstance(self.steps, int) or (self.patience is not None and self.patience < 1):
            raise ValueError(f"need a whole number of steps and patience >= 1 or None; got {self.steps!r} and "
                             f"{self.patience}")
        if self.steps < 1 or self.lr <= 0 or not 0 <= self.warmup < 1:
            raise ValueError(f"need steps >= 1, lr > 0 and 0 <= warmup < 1; got {self.steps}, {self.lr}, {self.warmup}")
        if self.checkpoint_every < 1 or self.evaluate_every < 0:
            raise ValueError("need checkpoint_every >= 1 and evaluate_every >= 0; got "
                             f"{self.checkpoint_every} and {self.evaluate_every}")
        if self.schedule == "decay" and (self.period < 1 or not 0 < self.decay <= 1):
            raise ValueError(f"need period >= 1 and 0 < decay <= 1; got {self.period} and {self.decay}")

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "decay":
            return self.lr * self.decay ** (step // self.period)
        rise = self.warmup * self.steps
        if step < rise:
            return self.lr * (step + 1) / (rise + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))


@dataclass
class History:
    """What a run did: loss per step, (step, score) and note of each validation, seconds on data and on the model.

    seconds: of the whole training, validation included, as far as it is in a checkpoint; earlier: those of processes
    that were stopped before this one went on (none where a finished training is only read).
    """

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    notes: list = field(default_factory=list)
    best_step: int = 0
    best_score: float = -math.inf
    data_seconds: float = 0.0
    model_seconds: float = 0.0
    stopped_early: bool = False
    seconds: float = 0.0
    earlier: float = 0.0


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device() -> torch.device:
    """A CUDA GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What computes there, in words: the GPU's name, or "CPU, 2 thread(s)"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"


def precision_on(device: torch.device, precision: str = "auto") -> str:
    """What a precision ("auto", "fp32", "bf16") means on a device: "auto" is bf16 on a GPU that has it, else fp32.

    A GPU before NVIDIA's Ampere, such as Colab's T4, only emulates bf16, slower than fp32: it does not count.
    """
    if precision != "auto":
        return precision
    has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has else "fp32"


def autocast(device: torch.device, precision: str):
    """The autocast context of a precision ("auto", "fp32", "bf16") on a device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_on(device, precision) == "bf16")


@contextmanager
def repeatable(device: torch.device):
    """On a CPU, torch's deterministic algorithms, so that one seed gives the same weights bit for bit with any other
    run on as many threads: the gradient of an index otherwise sums in the order in which threads arrive. A GPU keeps
    its faster ones."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW; weight decay acts on matrices and filters only, not on biases and normalisation.

    Each group's ``scale`` is the factor of ``config.lr_scale``; one of its names that fits no parameter is an error.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("the model has no parameter to train")
    for start, _ in config.lr_scale:
        if not any(name.startswith(start) for name, _ in model.named_parameters()):
            raise ValueError(f"lr_scale: no parameter of the model is called {start!r}...")
    groups = {}
    for name, p in named:
        scale = next((factor for start, factor in config.lr_scale if name.startswith(start)), 1.0)
        groups.setdefault((scale, p.ndim <= 1), []).append(p)
    groups = [
        {"params": parameters, "weight_decay": 0.0 if plain else config.weight_decay, "scale": scale}
        for (scale, plain), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=config.nesterov)
    return (torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW)(groups, lr=config.lr)


def fit(
    model: nn.Module,
    batches: Callable[[int, int], object],
    objective: Callable[[nn.Module, object], Tensor],
    config: TrainConfig,
    *,
    validate: Callable[[nn.Module], float | tuple[float, object]] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    label: str = "train",
) -> History:
    """Train ``model`` in place and return its :class:`History`.

    batches(seed, step): the batch of a step, already augmented and on the model's device.
    objective(model, batch): scalar loss.
    validate(model): score, higher is better; with it the model ends with the weights of its best validation. It may
    return (score, note): notes of plain numbers, lists and dicts are kept in the history, across a resume too.
    checkpoint: file to resume from if it exists, and to write (atomically) as training goes on; beside it, with the
    ending ``.jsonl``, a log of the validations. A checkpoint of another configuration is refused.
    """
    optimizer = make_optimizer(model, config)
    device, began = next(model.parameters()).device, time.perf_counter()
    history, best, start = History(), None, 0
    checkpoint = Path(checkpoint) if checkpoint else None
    if checkpoint and checkpoint.exists():
        start, best = _resume(checkpoint, model, optimizer, history, config)
        finished = start == config.steps or history.stopped_early
        history.earlier, began = 0.0 if finished else history.seconds, began - history.seconds
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc=label,
               disable=not (progress and is_first()))
    for step in bar:
        if history.stopped_early:
            break
        started = time.perf_counter()
        batch = batches(config.seed, step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # so that the seconds of data and model are told apart
        loaded = time.perf_counter()
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(step) * group.get("scale", 1.0)
        model.train()
        with repeatable(device):
            with autocast(device, config.precision):
                loss = objective(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {step}: lower the learning rate ({config.lr})")
        history.losses.append(value)
        history.data_seconds += loaded - started
        history.model_seconds += time.perf_counter() - loaded
        done = step + 1
        if validate and (done == config.steps or (config.evaluate_every and done % config.evaluate_every == 0)):
            score = validate(model)
            if isinstance(score, tuple):
                score, note = score
                history.notes.append(_plain(note))
            score = float(score)
            history.validation.append((done, score))
            if score > history.best_score:
                history.best_step, history.best_score = done, score
                best = {k: v.detach().clone() for k, v in model.state_dict().items()}
            since = sum(1 for at, _ in history.validation if at > history.best_step)
            history.stopped_early = config.patience is not None and since >= config.patience
            bar.set_postfix(loss=f"{value:.3f}", best=f"{history.best_score:.3f}")
        last = done == config.steps or history.stopped_early
        if checkpoint and (last or done % config.checkpoint_every == 0):
            history.seconds = time.perf_counter() - began
            _save(checkpoint, model, optimizer, history, config, done, best)
    if best is not None:
        model.load_state_dict(best)
    return history


def _plain(note):
    """NumPy's numbers as Python's, in lists and dicts: what a checkpoint can hold."""
    if isinstance(note, dict):
        return {key: _plain(value) for key, value in note.items()}
    if isinstance(note, list | tuple):
        return [_plain(value) for value in note]
    return note.tolist() if isinstance(note, np.generic | np.ndarray) else note


def _save(path, model, optimizer, history, config, step, best) -> None:
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "best": best,
        "history": asdict(history), "config": asdict(config),
    }
    save_atomically(path, lambda part: torch.save(state, part))
    lines = [json.dumps({"step": at, "score": score}) + "\n" for at, score in history.validation]
    save_atomically(path.with_suffix(".jsonl"), lambda part: part.write_text("".join(lines)))


def read_checkpoint(path: str | Path):
    """What a file of ``torch.save`` holds, on the CPU; ValueError that names the file where it is none, or broken."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        what = type(error).__name__  # torch's own text is long, and advises to load the file unsafely
        raise ValueError(f"{path} cannot be read as a checkpoint ({what}): delete it to start again") from error


def _resume(path, model, optimizer, history, config):
    state = read_checkpoint(path)  # on the CPU: Adam's counters are slow on a GPU
    if not isinstance(state, dict) or not state.keys() >= CHECKPOINT:
        raise ValueError(f"{path} is not a checkpoint that fit() wrote: use another checkpoint file or delete it")
    other = {k: v for k, v in state["config"].items() if v != getattr(config, k, None) and k != "checkpoint_every"}
    if other:
        raise ValueError(
            f"{path} belongs to another configuration ({', '.join(f'{k}={v!r}' for k, v in other.items())}): "
            "use another checkpoint file or delete it"
        )
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path} belongs to another model ({what}): use another file or delete it") from error
    for name, value in state["history"].items():
        setattr(history, name, [tuple(v) for v in value] if name == "validation" else value)
    return state["step"], state["best"]


def is_first() -> bool:
    """Of several processes of one training (:mod:`cdimlib.distributed`), whether this is the one that writes files."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def save_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary path)`` beside ``path``, then move it into place: a kill leaves the old file whole.

    Of several processes of one training only the first does so.
    """
    if not is_first():
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
