"""One training loop for every backbone: plain, seeded per epoch, and resumable bit for bit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.splits import Split
from adaptbench.errors import NonFiniteError, UsageError
from adaptbench.zoo.training.augment import augmentation
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.progress import EpochRecord, LoopState, load_progress, save_progress

_log = logging.getLogger(__name__)

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
OnEpoch = Callable[[EpochRecord], None]

# A check of the loss waits for the device; on an accelerator once in a while is enough.
_CHECK_EVERY = 50


@dataclass(frozen=True, slots=True)
class Training:
    """What a training did.

    Args:
        phase: how.
        history: one record an epoch, those before a resumption included.
        resumed_from: epochs that a checkpoint had done already.
    """

    phase: Phase
    history: tuple[EpochRecord, ...]
    resumed_from: int


def fit(
    module: nn.Module,
    split: Split,
    phase: Phase,
    loss: Loss,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    channels_last: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Training:
    """Train a module in place; it ends in eval mode, with the averaged weights when `phase.ema` is set.

    The order of samples, the augmentation and torch's own generator (dropout) are seeded from (seed, epoch). So a
    training that was killed goes on from its checkpoint as if nothing had happened: on a CPU with the same number of
    threads bit for bit. The caller's random state is left as it was. `evaluate` sees the module in eval mode with the
    weights that would be kept.

    Args:
        module: the network, on the device to train on; parameters that need no gradient stay as they are.
        split: uint8 pictures or token ids; never the test split.
        phase: epochs, batches, learning rate and the rest.
        loss: (module, x, y (N,)) → scalar; x (N, C, H, W) float32 in [0, 1], or (N, L) int64 token ids.
        seed: of everything random.
        checkpoint: file written after every epoch; an existing one is continued.
        on_epoch: called with the record of each epoch, after its checkpoint is written.
        evaluate: figures to record after each epoch; called without gradients.
        channels_last: keep pictures and weights in NHWC, faster for convolutions.
        about: what else makes it this training (its loss, …), as JSON can hold it: a checkpoint of another is refused.

    Raises:
        LeakageError: the test split was given.
        UsageError: a batch larger than the split, or a module without a free parameter.
        NonFiniteError: the loss became NaN or infinite; the checkpoint holds the last whole epoch.
        CheckpointError: the checkpoint is damaged or belongs to another training.
    """
    split.require("train", "calibration", purpose="training")
    if phase.batch_size > len(split):
        raise UsageError(
            f"a batch of {phase.batch_size} was asked of {len(split)} samples.",
            why="Partial batches are dropped, so no step would be taken.",
            todo="Give a smaller batch size, or more samples.",
        )
    if channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = _Loop(module, split, loss, phase, seed, torch.channels_last if channels_last else torch.contiguous_format)
    settings = {**asdict(phase), "seed": seed, "channels_last": channels_last, **(about or {})}
    identity = {"recipe": settings, "data": split.sha256}
    history: list[EpochRecord] = []
    if checkpoint is not None and checkpoint.exists():
        history = load_progress(checkpoint, loop.state(), identity)
        _log.info("%s: %d of %d epochs are done", checkpoint, len(history), phase.epochs)
    done = len(history)
    for epoch in range(done, phase.epochs):
        mean = loop.epoch(epoch)
        metrics: dict[str, float] = {}
        if evaluate is not None:
            with torch.no_grad(), loop.kept_weights():
                metrics = {name: float(value) for name, value in evaluate(module).items()}
        last = phase.rate((epoch + 1) * loop.steps - 1, loop.total)
        record = EpochRecord(epoch + 1, phase.epochs, mean, last, metrics)
        history.append(record)
        if checkpoint is not None:
            save_progress(checkpoint, loop.state(), identity, history)
        if on_epoch is not None:
            on_epoch(record)
    loop.finish()
    return Training(phase, tuple(history), done)


def _seed(seed: int, epoch: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class _Loop:
    """The state of one training."""

    def __init__(
        self, module: nn.Module, split: Split, loss: Loss, phase: Phase, seed: int, layout: torch.memory_format
    ) -> None:
        self.module, self.loss, self.phase, self.seed, self.layout = module, loss, phase, seed, layout
        self.device = next(module.parameters()).device
        self.x = split.x.to(self.device).contiguous(memory_format=layout)
        self.y = split.y.to(self.device)
        self.augment = augmentation(phase.augment)
        self.steps = len(split) // phase.batch_size
        self.total = self.steps * phase.epochs
        self.optimiser = _optimiser(module, phase)
        self.average = _clone(module) if phase.ema is not None else {}

    def state(self) -> LoopState:
        return LoopState(self.module, self.optimiser, self.average)

    def epoch(self, epoch: int) -> float:
        """Run one epoch; the mean loss."""
        order = torch.Generator().manual_seed(_seed(self.seed, epoch, 0))
        noise = torch.Generator().manual_seed(_seed(self.seed, epoch, 1))
        rows = torch.randperm(len(self.y), generator=order)
        if self.x.ndim == 2:
            rows = _of_like_length(rows, self.x, self.phase.batch_size, order)
        rows = rows.to(self.device)
        running = torch.zeros((), device=self.device)
        check_every = 1 if self.device.type == "cpu" else _CHECK_EVERY
        self.module.train()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(_seed(self.seed, epoch, 2))
            for i in range(self.steps):
                step = epoch * self.steps + i
                batch = rows[i * self.phase.batch_size : (i + 1) * self.phase.batch_size]
                running += self._step(batch, step, noise, self.phase.size(epoch))
                if (i + 1) % check_every == 0 or i + 1 == self.steps:
                    self._refuse_non_finite(running, epoch, i)
        return float(running) / self.steps

    def _step(self, rows: Tensor, step: int, noise: torch.Generator, size: int | None) -> Tensor:
        x = self.x[rows]
        if self.augment is not None:
            x = self.augment(x, noise)
        if x.dtype == torch.uint8:
            x = x.float().div_(255.0)
        if size is not None and size != x.shape[-1]:
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        x = x.contiguous(memory_format=self.layout)
        for group in self.optimiser.param_groups:
            group["lr"] = self.phase.rate(step, self.total)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.phase.precision == "bfloat16"):
            value = self.loss(self.module, x, self.y[rows])
        value.backward()  # type: ignore[no-untyped-call]
        if self.phase.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.phase.clip_norm)
        self.optimiser.step()
        if self.phase.ema is not None:
            _average(self.average, self.module, 0.0 if step == 0 else self.phase.ema)
        return value.detach()

    def _refuse_non_finite(self, running: Tensor, epoch: int, i: int) -> None:
        if not math.isfinite(float(running)):
            raise NonFiniteError(
                f"the loss became {float(running)} at or before step {i + 1} of {self.steps} in epoch {epoch + 1}.",
                why="Nothing that follows can be learned; the checkpoint, if any, holds the last whole epoch.",
                todo=f"Lower the learning rate (now {self.phase.lr}), or set clip_norm=1.0; look for log(0) too.",
            )

    def kept_weights(self) -> nullcontext[None] | _Borrowed:
        """The module in eval mode, with the averaged weights where there are any."""
        self.module.eval()
        return _Borrowed(self.module, self.average) if self.average else nullcontext()

    def finish(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.module.eval()
        if self.average:
            _copy(self.average, self.module)


def _of_like_length(rows: Tensor, x: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """Rows of token ids (N, L) in batches of like length, the batches in random order: less padding is run."""
    lengths = (x != x[:, -1].mode().values).sum(1).cpu()  # what most rows end with is the padding
    whole = len(rows) // size * size
    batches = rows[:whole][lengths[rows[:whole]].argsort(stable=True)].view(-1, size)
    return batches[torch.randperm(len(batches), generator=draw)].flatten()


class _Borrowed:
    """Put the averaged weights into the module for a while."""

    def __init__(self, module: nn.Module, average: dict[str, Tensor]) -> None:
        self.module, self.average = module, average

    def __enter__(self) -> None:
        self.own = _clone(self.module)
        _copy(self.average, self.module)

    def __exit__(self, *_: object) -> None:
        _copy(self.own, self.module)


def _clone(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        tensor.copy_(source[name])


@torch.no_grad()
def _average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """Move the average: e ← d·e + (1−d)·w, for weights and batch-norm statistics alike; counters are copied."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1.0 - decay)
        else:
            average[name].copy_(tensor)


def _optimiser(module: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise UsageError("the module has no parameter that needs a gradient.", todo="Unfreeze what is to be trained.")
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": phase.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if phase.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=phase.lr)
    return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum, nesterov=phase.momentum > 0)
