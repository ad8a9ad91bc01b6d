"""Committed training recipes: every shipped checkpoint is one of these, run by ``adaptbench train``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptbench.adaptive import Cascade, NetworkDag, Split
from adaptbench.models.small import PLANS, Plan, ladder, ladder_net, multi_exit, skipnet
from adaptbench.policies.gates.learned_cascade import LearnedCascade
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.losses import cross_entropy, gated_at_rate, joint_cascade, plain_backbone, weighted_exits
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.progress import EpochRecord

OnEpoch = Callable[[str, EpochRecord], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the nets for one data set are trained.

    Args:
        backbone: every net from scratch.
        gates: skipnet's second phase. gate_rate: opening asked of each gate; gate_weight: of that term.
        joint: the cascade's joint phase. joint_price: λ there.
        exit_weights: of the multi-exit net's heads.
        prices: λ values that selection modules are fitted for.
        drop: accuracy fraction that policies may give up on the choosing part of the calibration split.
        epsilon: of the softmax-threshold policy.
        seed: of everything.
    """

    backbone: Phase
    gates: Phase
    joint: Phase
    gate_rate: float = 0.5
    gate_weight: float = 2.0
    joint_price: float = 0.05
    exit_weights: tuple[float, ...] = (0.3, 0.4, 0.6, 1.0)
    prices: tuple[float, ...] = (0.005, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.03, 0.04, 0.08, 0.16, 0.32)
    drop: float = 0.005
    epsilon: float = 0.01
    seed: int = 0
    notes: tuple[str, ...] = field(default=())


RECIPES: dict[str, Recipe] = {
    "digits": Recipe(
        backbone=Phase(epochs=60, lr=0.1, batch_size=64, augment="crop", ema=0.98),
        gates=Phase(epochs=40, lr=0.05, batch_size=64, augment="crop", ema=0.98),
        joint=Phase(epochs=15, lr=0.01, batch_size=64, augment="crop", ema=0.98),
        epsilon=0.002,
    ),
    "fashion-mnist": Recipe(
        backbone=Phase(epochs=14, lr=0.15, batch_size=128, augment="crop+flip", ema=0.998),
        gates=Phase(epochs=6, lr=0.05, batch_size=128, augment="crop+flip", ema=0.998),
        joint=Phase(epochs=3, lr=0.01, batch_size=128, augment="crop+flip", ema=0.998),
    ),
}


class Trainer:
    """Trains the families of one data set; each phase resumes from its own checkpoint.

    Args:
        data: name with a recipe and a plan.
        train: its training split.
        folder: for the phases' checkpoints.
        on_epoch: told the phase's name and each epoch's record.
        seed: other than the recipe's.
    """

    def __init__(
        self, data: str, train: Split, folder: Path, *, on_epoch: OnEpoch | None = None, seed: int | None = None
    ) -> None:
        self.plan: Plan = PLANS[data]
        self.recipe: Recipe = RECIPES[data]
        self.seed = self.recipe.seed if seed is None else seed
        self.train, self.folder = train, folder
        self._on_epoch = on_epoch
        self.history: dict[str, list[dict[str, Any]]] = {}

    def _fit(self, phase: Phase, name: str, module: nn.Module, loss: Callable[..., torch.Tensor]) -> None:
        done = fit(
            module,
            self.train,
            loss,
            phase,
            seed=self.seed,
            checkpoint=self.folder / f"{name}.progress.safetensors",
            on_epoch=self._teller(name),
            channels_last=True,
        )
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.history[name] = [{"epoch": r.epoch, "loss": round(r.loss, 5)} for r in done.history]

    def _teller(self, name: str) -> Callable[[EpochRecord], None] | None:
        tell = self._on_epoch
        return None if tell is None else lambda record: tell(name, record)

    def _fresh(self, build: Callable[[], Any]) -> Any:
        """Initial weights that depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build()

    def ladder(self) -> Mapping[str, nn.Module]:
        """Each net of the ladder on its own."""
        nets: dict[str, nn.Module] = {}
        for name in self.plan.ladder:
            nets[name] = self._fresh(partial(ladder_net, self.plan, name))
            self._fit(self.recipe.backbone, f"ladder.{name}", nets[name], cross_entropy)
        return nets

    def dag(self) -> NetworkDag:
        """The ladder, every net free to hand over to every later one."""
        return NetworkDag(self.ladder(), input_shape=self.plan.shape)

    def multi_exit(self) -> nn.Module:
        """All heads at once."""
        net: nn.Module = self._fresh(lambda: multi_exit(self.plan))
        self._fit(self.recipe.backbone, "multi-exit", net, weighted_exits(self.recipe.exit_weights))
        return net

    def skipnet(self) -> nn.Module:
        """The backbone first, then gates and backbone together."""
        net: nn.Module = self._fresh(lambda: skipnet(self.plan))
        self._fit(self.recipe.backbone, "skipnet.backbone", net, plain_backbone)
        self._fit(
            self.recipe.gates, "skipnet.gates", net, gated_at_rate(self.recipe.gate_rate, self.recipe.gate_weight)
        )
        return net

    def cascade(self, calibration: Split) -> Cascade:
        """The ladder's nets, selection modules fitted on calibration, then all jointly by REINFORCE."""
        nets = ladder(self.plan)
        for name, trained in self.ladder().items():
            nets[name].load_state_dict(trained.state_dict())
        model = Cascade(nets, input_shape=self.plan.shape)
        start = LearnedCascade.fit(model.log(calibration), price=self.recipe.joint_price, seed=self.seed)
        model.policy = start.requires_grad_(True)
        self._fit(self.recipe.joint, "cascade.joint", model, joint_cascade(self.recipe.joint_price, "reinforce"))
        return model
