"""Cascades of committees: the average of everything that was run so far answers, and its confidence decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.errors import UsageError
from adaptbench.policies.thresholds.score_thresholds import ScoreThresholds

Average = Literal["probabilities", "logits"]


class Committees(ScoreThresholds):
    """Stop after k when the top probability of the average prediction of nets 1…k reaches t_k; the average answers.

    Wang, Kondratyuk, Christiansen, Kitani, Alon, Eban, "Wisdom of Committees: An Overlooked Approach to Faster and
    More Accurate Models", ICLR 2022.

    Deviates: thresholds come from a coordinate search on the calibration log for a path of prices (see
    `ScoreThresholds`) where the paper searches a grid; the same is done for the exits of one net, which the paper
    does not study.

    Args:
        thresholds, prices, price, cost_unit: as of `ScoreThresholds`.
        average: "probabilities", or "logits" before the softmax.

    Raises:
        UsageError: another word for the average.
    """

    name = "committees"
    uses_history = True

    def __init__(
        self,
        thresholds: Tensor,
        prices: Sequence[float],
        price: float | None = None,
        *,
        cost_unit: str = "macs",
        average: Average = "probabilities",
    ) -> None:
        super().__init__(thresholds, prices, price, cost_unit=cost_unit)
        if average not in ("probabilities", "logits"):
            raise UsageError(f"no average is called '{average}'.", todo="Use 'probabilities' or 'logits'.")
        self.average = average

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        drop: float = 0.005,
        budget: float | None = None,
        quantiles: int = 200,
        average: Average = "probabilities",
        seed: int = 0,
    ) -> Self:
        """As of `ScoreThresholds`. average: what is averaged, see the class."""
        return cls._search(log, drop, budget, quantiles, average=average)

    def score(self, node: int, signals: Signals) -> Tensor:
        """Top probability of the average."""
        return self.predict(node, signals).softmax(-1).amax(-1)

    def predict(self, node: int, signals: Signals) -> Tensor:
        """(n, C) log of the mean probabilities, or the mean logits, of the nets visited."""
        return committee(signals, self.average, node + 1)

    def describe(self) -> dict[str, Any]:
        """The path and what is averaged."""
        return {**super().describe(), "average": self.average}


def committee(signals: Signals, average: Average, nodes: int | None = None) -> Tensor:
    """(n, C) average prediction of the nodes visited; log-probabilities where probabilities are averaged.

    Args:
        nodes: the first so many may have been visited, and no other (default: all).
    """
    if signals.history is None or signals.visited is None:
        raise ValueError("a committee needs the history of the nodes visited")
    visited, history = signals.visited[:, :nodes, None], signals.history[:, :nodes]
    if average == "logits":
        return torch.where(visited, history, 0.0).sum(1) / visited.sum(1)
    each = history.log_softmax(-1).masked_fill(~visited, -torch.inf)
    return each.logsumexp(1) - visited.sum(1).log()
