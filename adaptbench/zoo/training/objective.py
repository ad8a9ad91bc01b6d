"""A loss with a state of its own, kept beside the model so that a training can be resumed and the model stays clean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.adaptive.splits import Split
from adaptbench.errors import UsageError
from adaptbench.zoo.training.loop import Training, fit
from adaptbench.zoo.training.phase import Phase


class Objective(nn.Module):
    """Wraps the model to be trained. Steps, running means and learned weights are its buffers and parameters.

    `fit` saves and restores a module's state and nothing else; so the state lives in this module, and the model inside
    carries no trace of how it was trained. Nothing here waits for the device: the step is a tensor.

    Args:
        model: trained through `loss`.
    """

    step: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device=next(model.parameters()).device))
        self.epochs = self.steps = 0

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The scalar to minimise. x: (N, C, H, W) in [0, 1]; y: (N,)."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss; in train mode the step moves on."""
        value = self.loss(x, y)
        if self.training:
            self.step += 1
        return value

    def epoch(self) -> Tensor:
        """Which epoch it is, from 0: a scalar tensor."""
        if not self.steps:
            raise UsageError(
                f"{type(self).__name__} changes over the epochs and does not know how many there are.",
                todo="Train with fit_objective(…).",
            )
        return torch.div(self.step, self.steps, rounding_mode="floor")


def fit_objective(
    objective: Objective,
    split: Split,
    phase: Phase,
    *,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    **settings: Any,
) -> Training:
    """`zoo.training.loop.fit` of an objective's model; same arguments, errors and guarantees.

    Args:
        objective: its model is trained in place.
        split, phase, settings: as `fit` takes them.
        evaluate: sees the model, not the objective.
    """
    objective.epochs, objective.steps = phase.epochs, max(1, len(split) // phase.batch_size)
    judge = None if evaluate is None else lambda _module: evaluate(objective.model)
    return fit(objective, split, phase, call, evaluate=judge, **settings)


def call(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The loss of a module that works it out itself."""
    value: Tensor = module(x, y)
    return value
