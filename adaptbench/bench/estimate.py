"""How long a plan will take, from a few timed batches; for ``--dry-run``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from adaptbench.adaptive import AdaptiveModel
from adaptbench.bench.evaluate import as_input
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.meters.clock import synchroniser

_PROBE = 64
_BACKWARD = 3.0  # forward and backward, in forwards


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds.

    Args:
        evaluations: by id; attacks as if no sample reached its ceiling early, so rather too long.
        measuring_s: all windows.
    """

    evaluations: dict[str, float]
    measuring_s: float

    @property
    def total_s(self) -> float:
        """Crafting, evaluating and measuring."""
        return sum(self.evaluations.values()) + self.measuring_s


def estimate(plan: Plan, device: str) -> Estimate:
    """Time one small batch of each model and multiply."""
    hard: dict[str, float] = {}
    dense: dict[str, float] = {}
    for name, loaded in plan.models.items():
        split = plan.split.first(_PROBE)
        x = as_input(split.x, device)
        labels = split.y.to(device) if loaded.model.needs_labels else None
        hard[name] = _seconds(partial(loaded.model.infer, x, labels=labels), device) / len(x)
        dense[name] = _seconds(partial(_dense, loaded.model, x), device) / len(x)
    found = {e.id: _evaluation(e, hard[e.loaded.name], dense[e.loaded.name]) for e in plan.evaluations}
    measure = plan.suite.suite.measure
    measuring = 0.0
    if measure and plan.timed:
        for size in measure.batch_sizes:
            for e in plan.timed:
                one_pass = hard[e.loaded.name] * min(measure.samples, len(e.split)) * (4 if size == 1 else 1)
                measuring += measure.blocks * max(measure.window_s, one_pass) + measure.warmup_s
    return Estimate(found, measuring)


def _evaluation(evaluation: Evaluation, hard: float, dense: float) -> float:
    n, attack = len(evaluation.split), evaluation.attack
    if attack is None:
        return n * hard
    settings = attack.settings
    queries, steps = settings.get("queries"), settings.get("steps")
    if isinstance(queries, int):
        return n * queries * hard * 2
    return n * (hard + (steps if isinstance(steps, int) else 1) * _BACKWARD * dense)


@torch.no_grad()
def _dense(model: AdaptiveModel, x: torch.Tensor) -> None:
    model.dense_logits(x)


def _seconds(call: Callable[[], object], device: str) -> float:
    wait = synchroniser(device)
    call()
    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began
