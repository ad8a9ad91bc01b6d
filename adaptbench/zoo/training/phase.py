"""One call of the training loop: its settings, what they may be, and the learning rate that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from adaptbench.errors import UsageError
from adaptbench.zoo.training.augment import augmentation

Schedule = Literal["onecycle", "cosine", "step", "constant"]
Optimiser = Literal["sgd", "adamw"]
Precision = Literal["float32", "bfloat16"]

_WARM_UP = 0.25
# He et al. 2016 and the papers after it: ÷10 at half and at three quarters.
_DROPS = (0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Phase:
    """Everything that decides the outcome of a training besides the module, the loss, the samples and the seed.

    Args:
        epochs: how often all samples are seen; the last partial batch of an epoch is dropped.
        lr: peak learning rate.
        batch_size: samples a step.
        augment: "none", "crop" (black border of 2), "flip", "crop+flip".
        weight_decay: for weights of two or more dimensions; biases and norms are spared.
        ema: decay d of the average kept after every step, e ← d·e + (1−d)·w, started at the first step's weights.
        schedule: "onecycle" rises for a quarter of the steps, then falls as a cosine; "cosine"; "step" divides by ten
            at half and at three quarters; "constant".
        optimiser: "sgd" (Nesterov where momentum > 0) or "adamw".
        precision: "bfloat16" runs the forward pass under autocast; weights and steps stay float32.
        sizes: (share of the epochs, pixels a side), ascending: from that share on, pictures are resized. Small pictures
            first make early epochs cheaper; the last entry should be the data's own size.
        momentum: of SGD.
        clip_norm: greatest L2 norm of the whole gradient.

    Raises:
        UsageError: settings that cannot train.
    """

    epochs: int
    lr: float = 0.1
    batch_size: int = 128
    augment: str = "none"
    weight_decay: float = 5e-4
    ema: float | None = None
    schedule: Schedule = "onecycle"
    optimiser: Optimiser = "sgd"
    precision: Precision = "float32"
    sizes: tuple[tuple[float, int], ...] = ()
    momentum: float = 0.9
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        augmentation(self.augment)
        for kind, given, known in (
            ("schedule", self.schedule, get_args(Schedule)),
            ("optimiser", self.optimiser, get_args(Optimiser)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if given not in known:
                raise UsageError(f"no {kind} is called '{given}'.", todo=f"There are: {', '.join(known)}.")
        starts = [start for start, _ in self.sizes]
        if starts != sorted(starts) or any(not 0 <= start < 1 or size < 1 for start, size in self.sizes):
            raise UsageError(
                f"sizes={self.sizes} is no schedule.",
                todo="Give (share of the epochs in [0, 1), pixels) pairs in ascending order, such as "
                "((0, 24), (0.6, 32)).",
            )
        if self.epochs < 1 or self.batch_size < 1 or not self.lr > 0 or not 0 <= (self.ema or 0) < 1:
            raise UsageError(
                f"epochs={self.epochs}, batch_size={self.batch_size}, lr={self.lr}, ema={self.ema} cannot train.",
                todo="Give epochs ≥ 1, batch_size ≥ 1, lr > 0 and 0 ≤ ema < 1.",
            )

    def size(self, epoch: int) -> int | None:
        """Pixels a side in an epoch (from 0); None where pictures keep their own."""
        reached = [size for start, size in self.sizes if epoch >= start * self.epochs]
        return reached[-1] if reached else None

    def rate(self, step: int, total: int) -> float:
        """The learning rate of a step, 0 ≤ step < total: a function of the step alone, with no state to restore."""
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(step >= drop * total for drop in _DROPS)
        rise = int(_WARM_UP * total) if self.schedule == "onecycle" else 0
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
