"""Patience: stop once enough exits in a row have given the same answer."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.replay import cheapest_within, evaluate_on
from adaptbench.errors import UsageError


class Patience(ChainPolicy):
    """Stop at the first exit whose answer is that of each of the `patience` exits before it.

    Zhou et al., "BERT Loses Patience: Fast and Robust Inference with Early Exit" (PABEE), NeurIPS 2020: the counter
    rises by one where an exit agrees with the one before it, falls to zero where it does not, and stops at
    `patience`; so patience + 1 exits agree.

    The margin is minus the smallest lead that the present answer has in any of those exits, in logits: negative where
    all agree, by how much the weakest would have to give; positive where one prefers another class. Before so many
    exits were run it is 2 minus the lead of the exit's own probabilities, never below 1.

    Deviates: patience 0 leaves at the first exit, K−1 and more never leave early: the ends of the family, which the
    paper has no use for.

    Args:
        patience: agreements in a row, a whole number ≥ 0.

    Raises:
        UsageError: patience is negative or no whole number.
    """

    name = "pabee"
    knob = "patience"
    uses_history = True

    def __init__(self, patience: float = 1) -> None:
        super().__init__()
        if patience < 0 or patience != int(patience):
            raise UsageError(f"patience {patience} is no count of agreements.", todo="Give 0, 1, 2, …")
        self.patience = int(patience)

    def margin(self, node: int, signals: Signals) -> Tensor:
        """> 0 goes on: too few exits yet, or one of them disagrees."""
        if node < self.patience:
            lead = signals.probabilities.topk(2, dim=-1).values
            return 2.0 - (lead[:, 0] - lead[:, 1])
        if signals.history is None:
            raise ValueError("patience needs the history of the exits visited")
        window = signals.history[:, node - self.patience : node + 1]
        answer = window[:, -1].argmax(-1)
        return -answer_leads(window, answer).amin(1)

    @classmethod
    def fit(cls, log: CalibrationLog, *, drop: float = 0.005, seed: int = 0) -> Self:
        """The cheapest patience within `drop` of the most accurate exit on the log.

        Args:
            drop: accuracy fraction that may be lost.
        """
        points = [evaluate_on(member, log, member.patience) for member in cls.family(log, seed=seed)]
        return cls(cheapest_within(points, log.best_accuracy - drop).setting)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """Patience 0 … K−1: as many points as there are exits, no more."""
        return [cls(patience) for patience in range(len(log.structure.names))]

    def describe(self) -> dict[str, Any]:
        """The patience."""
        return {"patience": self.patience}


def answer_leads(logits: Tensor, answer: Tensor) -> Tensor:
    """How far a class leads the best other one: (n, M) from logits (n, M, C) and classes (n,)."""
    index = answer[:, None, None].expand(-1, logits.shape[1], 1)
    own = logits.gather(-1, index).squeeze(-1)
    others = logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index, True), -torch.inf)
    return own - others.amax(-1)
