"""One training loop for every backbone: plain, seeded per epoch, and resumable bit for bit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.splits import Split
from adaptbench.errors import NonFiniteError, UsageError
from adaptbench.zoo.training.augment import augmentation
from adaptbench.zoo.training.progress import EpochRecord, Progress, load_progress, save_progress

_log = logging.getLogger(__name__)

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Schedule = Literal["onecycle", "cosine", "step", "constant"]
Precision = Literal["float32", "bfloat16"]

_WARM_UP = 0.25
# He et al. 2016 and the papers after it: ÷10 at half and at three quarters.
_DROPS = (0.5, 0.75)
# A check of the loss waits for the device; on an accelerator once in a while is enough.
_CHECK_EVERY = 50


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the outcome of a training besides the module, the loss and the samples."""

    epochs: int
    batch_size: int
    lr: float
    schedule: Schedule
    optimiser: Literal["sgd", "adamw"]
    weight_decay: float
    momentum: float
    augment: str
    ema: float | None
    clip_norm: float | None
    seed: int
    channels_last: bool
    precision: Precision
    sizes: tuple[tuple[float, int], ...]

    def size(self, epoch: int) -> int | None:
        """Pixels a side in an epoch (from 0); None where pictures keep their own."""
        reached = [size for start, size in self.sizes if epoch >= start * self.epochs]
        return reached[-1] if reached else None


@dataclass(frozen=True, slots=True)
class Training:
    """What a training did.

    Args:
        recipe: how.
        history: one record an epoch, those before a resumption included.
        resumed_from: epochs that a checkpoint had done already.
    """

    recipe: Recipe
    history: tuple[EpochRecord, ...]
    resumed_from: int


def fit(
    module: nn.Module,
    split: Split,
    loss: Loss,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 0.1,
    schedule: Schedule = "onecycle",
    optimiser: Literal["sgd", "adamw"] = "sgd",
    weight_decay: float = 5e-4,
    momentum: float = 0.9,
    augment: str = "none",
    ema: float | None = None,
    clip_norm: float | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    channels_last: bool = False,
    precision: Precision = "float32",
    sizes: tuple[tuple[float, int], ...] = (),
) -> Training:
    """Train a module in place; it ends in eval mode, with the averaged weights when `ema` is set.

    The order of samples, the augmentation and torch's own generator (dropout) are seeded from (seed, epoch). So a
    training that was killed goes on from its checkpoint as if nothing had happened: on a CPU with the same number of
    threads bit for bit. The caller's random state is left as it was. `evaluate` sees the module in eval mode with the
    weights that would be kept.

    Args:
        module: the network, on the device to train on; parameters that need no gradient stay as they are.
        split: uint8 pictures; never the test split.
        loss: (module, x (N, C, H, W) float32 in [0, 1], y (N,)) → scalar.
        epochs: how often all samples are seen; the last partial batch of an epoch is dropped.
        batch_size: samples a step.
        lr: peak learning rate.
        schedule: "onecycle" rises for a quarter of the steps, then falls as a cosine; "cosine"; "step" divides by ten
            at half and at three quarters; "constant".
        optimiser: "sgd" (Nesterov where momentum > 0) or "adamw".
        weight_decay: for weights of two or more dimensions; biases and norms are spared.
        momentum: of SGD.
        augment: "none", "crop" (black border of 2), "flip", "crop+flip".
        ema: decay d of the average kept after every step, e ← d·e + (1−d)·w, started at the first step's weights.
        clip_norm: greatest L2 norm of the whole gradient.
        seed: of everything random.
        checkpoint: file written after every epoch; an existing one is continued.
        on_epoch: called with the record of each epoch, after its checkpoint is written.
        on_batch: called with (step, steps) of the whole training.
        evaluate: figures to record after each epoch; called without gradients.
        channels_last: keep pictures and weights in NHWC, faster for convolutions.
        precision: "bfloat16" runs the forward pass under autocast; weights and steps stay float32.
        sizes: (share of the epochs, pixels a side), ascending: from that share on, pictures are resized. Small pictures
            first make early epochs cheaper; the last entry should be the data's own size.

    Raises:
        LeakageError: the test split was given.
        UsageError: settings that cannot train.
        NonFiniteError: the loss became NaN or infinite; the checkpoint holds the last whole epoch.
        CheckpointError: the checkpoint is damaged or belongs to another training.
    """
    recipe = Recipe(
        epochs,
        batch_size,
        lr,
        schedule,
        optimiser,
        weight_decay,
        momentum,
        augment,
        ema,
        clip_norm,
        seed,
        channels_last,
        precision,
        tuple((float(start), int(size)) for start, size in sizes),
    )
    _check(recipe, split)
    device = next(module.parameters()).device
    if channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = _Loop(module, split, loss, recipe, device)
    identity = {"recipe": asdict(recipe), "data": split.sha256}
    history: list[EpochRecord] = []
    if checkpoint is not None and checkpoint.exists():
        history = load_progress(checkpoint, loop.progress(), identity)
        _log.info("%s: %d of %d epochs are done", checkpoint, len(history), epochs)
    done = len(history)
    for epoch in range(done, epochs):
        mean = loop.epoch(epoch, on_batch)
        metrics: dict[str, float] = {}
        if evaluate is not None:
            with torch.no_grad(), loop.kept_weights():
                metrics = {name: float(value) for name, value in evaluate(module).items()}
        record = EpochRecord(
            epoch + 1, epochs, mean, learning_rate(recipe, (epoch + 1) * loop.steps - 1, loop.total), metrics
        )
        history.append(record)
        if checkpoint is not None:
            save_progress(checkpoint, loop.progress(), identity, history)
        if on_epoch is not None:
            on_epoch(record)
    loop.finish()
    return Training(recipe, tuple(history), done)


def _check(recipe: Recipe, split: Split) -> None:
    split.require("train", "calibration", purpose="training")
    augmentation(recipe.augment)
    if recipe.schedule not in get_args(Schedule):
        raise UsageError(
            f"no schedule is called '{recipe.schedule}'.", todo=f"There are: {', '.join(get_args(Schedule))}."
        )
    if recipe.precision not in get_args(Precision):
        raise UsageError(
            f"no precision is called '{recipe.precision}'.", todo=f"There are: {', '.join(get_args(Precision))}."
        )
    starts = [start for start, _ in recipe.sizes]
    if starts != sorted(starts) or any(not 0 <= start < 1 or size < 1 for start, size in recipe.sizes):
        raise UsageError(
            f"sizes={recipe.sizes} is no schedule.",
            todo="Give (share of the epochs in [0, 1), pixels) pairs in ascending order, such as ((0, 24), (0.6, 32)).",
        )
    if recipe.optimiser not in ("sgd", "adamw"):
        raise UsageError(f"no optimiser is called '{recipe.optimiser}'.", todo="There are: sgd, adamw.")
    if not 1 <= recipe.batch_size <= len(split):
        raise UsageError(
            f"a batch of {recipe.batch_size} was asked of {len(split)} samples.",
            why="Partial batches are dropped, so no step would be taken.",
            todo="Give a smaller batch size, or more samples.",
        )
    if recipe.epochs < 1 or not recipe.lr > 0 or not 0 <= (recipe.ema or 0) < 1:
        raise UsageError(
            f"epochs={recipe.epochs}, lr={recipe.lr}, ema={recipe.ema} cannot train.",
            todo="Give epochs ≥ 1, lr > 0 and 0 ≤ ema < 1.",
        )


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The learning rate of a step, 0 ≤ step < total; a function of the step alone, so there is no state to restore."""
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** sum(step >= drop * total for drop in _DROPS)
    rise = int(_WARM_UP * total) if recipe.schedule == "onecycle" else 0
    if step < rise:
        return recipe.lr * (step + 1) / rise
    return recipe.lr * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def _seed(seed: int, epoch: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class _Loop:
    """The state of one training."""

    def __init__(self, module: nn.Module, split: Split, loss: Loss, recipe: Recipe, device: torch.device) -> None:
        self.module, self.loss, self.recipe, self.device = module, loss, recipe, device
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.x = split.x.to(device).contiguous(memory_format=layout)
        self.y = split.y.to(device)
        self.augment = augmentation(recipe.augment)
        self.steps = len(split) // recipe.batch_size
        self.total = self.steps * recipe.epochs
        self.optimiser = _optimiser(module, recipe)
        self.average = _clone(module) if recipe.ema is not None else {}

    def progress(self) -> Progress:
        return Progress(self.module, self.optimiser, self.average)

    def epoch(self, epoch: int, on_batch: Callable[[int, int], None] | None) -> float:
        """Run one epoch; the mean loss."""
        order = torch.Generator().manual_seed(_seed(self.recipe.seed, epoch, 0))
        noise = torch.Generator().manual_seed(_seed(self.recipe.seed, epoch, 1))
        rows = torch.randperm(len(self.y), generator=order).to(self.device)
        running = torch.zeros((), device=self.device)
        check_every = 1 if self.device.type == "cpu" else _CHECK_EVERY
        self.module.train()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(_seed(self.recipe.seed, epoch, 2))
            for i in range(self.steps):
                step = epoch * self.steps + i
                batch = rows[i * self.recipe.batch_size : (i + 1) * self.recipe.batch_size]
                running += self._step(batch, step, noise, self.recipe.size(epoch))
                if (i + 1) % check_every == 0 or i + 1 == self.steps:
                    self._refuse_non_finite(running, epoch, i)
                if on_batch is not None:
                    on_batch(step + 1, self.total)
        return float(running) / self.steps

    def _step(self, rows: Tensor, step: int, noise: torch.Generator, size: int | None) -> Tensor:
        x = self.x[rows]
        if self.augment is not None:
            x = self.augment(x, noise)
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        x = x.float().div_(255.0)
        if size is not None and size != x.shape[-1]:
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        x = x.contiguous(memory_format=layout)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, step, self.total)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            value = self.loss(self.module, x, self.y[rows])
        value.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        if self.recipe.ema is not None:
            _average(self.average, self.module, 0.0 if step == 0 else self.recipe.ema)
        return value.detach()

    def _refuse_non_finite(self, running: Tensor, epoch: int, i: int) -> None:
        if not math.isfinite(float(running)):
            raise NonFiniteError(
                f"the loss became {float(running)} at or before step {i + 1} of {self.steps} in epoch {epoch + 1}.",
                why="Nothing that follows can be learned; the checkpoint, if any, holds the last whole epoch.",
                todo=f"Lower the learning rate (now {self.recipe.lr}), or set clip_norm=1.0; look for log(0) too.",
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


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise UsageError("the module has no parameter that needs a gradient.", todo="Unfreeze what is to be trained.")
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
