"""Costs that a meter reads: noisy, so that they are told in steps that stand above the noise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.metered import DEVIATION, MEDIAN
from adaptbench.attacks.access import AnsweringModel, BlackBox, QueriedModel
from adaptbench.attacks.base import Metering
from adaptbench.errors import CapabilityError

STEP = 2.0
"""Standard errors of a cost that make one step: what lies within them is the same cost, and replaces nothing."""


class MeteredModel(QueriedModel):
    """Costs in steps of `STEP` standard errors of the median of k readings.

    A median, since what else the machine does makes single readings long, never short. What would be an input's dearest
    picture is read k times more, and the lower of both medians counts: the dearest of many noisy readings is one that
    was disturbed. The noise is that of the first query, which asks for the clean pictures; it is kept, so that steps
    are the same throughout. A drift of the machine over the search is not seen.

    Args:
        model, n, budget: as of `QueriedModel`; a query is one picture, however often it is read.
        metering: reads. unit: of what it reads. readings: a query, two at least.
    """

    def __init__(self, model: AdaptiveModel, n: int, budget: int, metering: Metering, unit: str, readings: int) -> None:
        super().__init__(model, n, budget)
        self._metering, self._readings, self.unit = metering, readings, unit
        self._step: float | None = None
        self._dearest = torch.full((n,), -1, dtype=torch.int64)
        self._read = 0

    def query(self, rows: Tensor, pictures: Tensor) -> Tensor:
        """As of `QueriedModel`, in steps of the noise."""
        costs = super().query(rows, pictures)
        rows = rows.cpu()
        dearer = ((self._dearest[rows] >= 0) & (costs > self._dearest[rows])).nonzero().squeeze(1)
        if len(dearer):
            costs[dearer] = torch.minimum(costs[dearer], self._costs(pictures[dearer.to(pictures.device)]))
        self._dearest = self._dearest.scatter_reduce(0, rows, costs, "amax")
        return costs

    def amount(self, costs: Tensor) -> float:
        """The mean of costs, in the meter's unit."""
        return float(costs.double().mean()) * (self._step or 1.0)

    def _costs(self, pictures: Tensor) -> Tensor:
        read = self._metering(self._model, pictures.float() / 255.0, self._readings).double().cpu()
        self._read += read.numel()
        middle = read.median(1).values
        if self._step is None:
            spread = float((read - middle[:, None]).abs().median(1).values.median()) * DEVIATION
            # a meter without noise still has a grain
            self._step = max(STEP * spread * MEDIAN / math.sqrt(self._readings), float(middle.median()) * 1e-6, 1e-12)
        return (middle / self._step).round().long()

    def with_noise(self, details: dict[str, Any]) -> dict[str, Any]:
        """Details of an attack, with what the meter's noise does to them."""
        noise = (self._step or 0.0) / STEP
        stated = f"metered {self.unit}" if self._model.meter is not None else "executed MACs"
        note = (
            f"the cost that was searched was metered in {self.unit}, the median of {self._readings} readings a query, "
            f"standard error {noise:.2g}; a picture replaced another where it was dearer by {STEP:g} of these, twice; "
            f"what it takes back is stated in {stated}, and another run finds other pictures"
        )
        return details | {
            "deterministic": False,
            f"meter_noise_{self.unit}": noise,
            "readings_total": self._read,
            "notes": [*details.get("notes", []), note],
        }


def questions(model: AdaptiveModel, n: int, via: BlackBox, metering: Metering | None) -> QueriedModel:
    """What may be asked, as the access says; of a box that tells no MACs, what its own meter reads in their place.

    Raises:
        CapabilityError: the cost is metered, and nothing was given that reads it.
    """
    own = model.meter
    if own is not None and via.cost in ("macs", own.unit):
        readings = own.readings if via.cost == "macs" else via.readings
        return MeteredModel(model, n, via.queries, own.read, own.unit, readings)
    if via.cost == "macs":
        return (AnsweringModel if via.returns == "cost+logits" else QueriedModel)(model, n, via.queries)
    if metering is None:
        raise CapabilityError(
            f"the attacker is told what an input costs in {via.cost}, and nothing was given that reads them.",
            why="Counted MACs are another threat than a meter.",
            todo=f"Call craft(…, metering=adaptbench.bench.metered.metering('{via.cost}', device)), or run a suite.",
        )
    return MeteredModel(model, n, via.queries, metering, via.cost, via.readings)
