"""What a procedure is given to train one part with: samples, seed, device, and a checkpoint for every phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import Split
from adaptbench.zoo.training.loop import Training
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.progress import EpochRecord

OnEpoch = Callable[[str, EpochRecord], None]
"""Told the phase's name and each epoch's record."""
Built = TypeVar("Built")

_LOOKED_AT = 500


@dataclass(frozen=True, slots=True)
class Session:
    """One part in training; every phase resumes from its own checkpoint.

    Args:
        part: its name. train, calibration: splits; calibration figures go into the card, epoch by epoch.
        folder: for the checkpoints. device: where it trains. seed: of everything random.
        about: what else makes it this training; a checkpoint of another is refused.
        on_epoch: told of each epoch. history: of all phases, for the card.
    """

    part: str
    train: Split
    calibration: Split
    folder: Path
    device: str
    seed: int
    about: dict[str, Any]
    on_epoch: OnEpoch | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def run(
        self, phase_name: str, loop: Callable[..., Training], module: nn.Module, phase: Phase, *rest: Any, **more: Any
    ) -> None:
        """``loop(module, split, phase, *rest, **more)`` on pictures and weights in NHWC; the weights end in NCHW.

        Args:
            phase_name: "" where the part has one only.
            loop: `fit`, `fit_objective`, `train_heads`.
        """
        done = loop(module, self.train, phase, *rest, **{"channels_last": True, **self.settings(phase_name), **more})
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.keep(phase_name, done)

    def settings(self, phase_name: str) -> dict[str, Any]:
        """What every loop is told besides its phase."""
        name, tell = self._label(phase_name), self.on_epoch
        return {
            "seed": self.seed,
            "checkpoint": self.folder / f"{name}.progress.safetensors",
            "on_epoch": None if tell is None else lambda record: tell(name, record),
            "about": {"part": self.part, **self.about},
        }

    def keep(self, phase_name: str, done: Training) -> None:
        """Remember a phase's epochs for the card."""
        self.history.extend(
            {
                "phase": self._label(phase_name),
                "epoch": record.epoch,
                "loss": round(record.loss, 5),
                **{name: round(value, 5) for name, value in record.metrics.items()},
            }
            for record in done.history
        )

    def fresh(self, build: Callable[[], Built]) -> Built:
        """Initial weights that depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build()

    def some(self) -> Tensor:
        """A few hundred training pictures, on the device."""
        return self.train.images(0, _LOOKED_AT).to(self.device)

    @torch.no_grad()
    def judge(self, net: nn.Module) -> dict[str, float]:
        """A plain net's accuracy and cross-entropy on calibration: for the card, never for a choice of weights."""
        right, loss = 0, 0.0
        for x, y, _ in self.calibration.chunks(_LOOKED_AT):
            z = net(x.to(self.device).contiguous(memory_format=torch.channels_last)).float().cpu()
            right += int((z.argmax(1) == y).sum())
            loss += float(F.cross_entropy(z, y, reduction="sum"))
        n = len(self.calibration)
        return {"accuracy_calibration": right / n, "nll": loss / n}

    def _label(self, phase_name: str) -> str:
        return f"{self.part}.{phase_name}" if phase_name else self.part
