"""Policies with state across samples on a study's test stream, over several shuffles with their orders stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adaptbench.adaptive import CalibrationLog
from adaptbench.adaptive.online import OnlineRecord, over_orders, shuffled
from adaptbench.policies.online import ClosedLoop, UeeUcb, dominance, regret
from adaptbench.registry import POLICIES
from adaptbench.study.logs import TestLog
from adaptbench.study.loop_metrics import loop_metrics, overload, quiet_block
from adaptbench.study.schema import Online

# Share of the budget within which a loop counts as settled: the usual one of control texts.
_BAND = 0.05


def stateful(
    calibration: CalibrationLog, test: TestLog, spec: Online, *, top: int, full: float, seed: int
) -> dict[str, Any]:
    """UEE-UCB and a closed loop on the test stream.

    Args:
        calibration: what the loop's knob is measured on. test: the stream; labels are used for scoring only.
        spec: settings. top: largest logits that count. full: MACs of the reference. seed: of the fit.

    Returns:
        For each policy: accuracy and cost over the shuffles, looking apart; regret or loop figures; the flood.
    """
    labels, costs = test.labels.values, test.node_macs.double()
    common: dict[str, Any] = {"orders": spec.orders, "window": spec.window, "seeds": test.ids}
    bandit = over_orders(lambda: UeeUcb(mu=spec.mu), test.logits, test.structure, costs, **common)
    regrets = [float(regret(r, test.logits, costs, mu=spec.mu).curve[-1]) for r in bandit]
    base = POLICIES.load(spec.base).fit(calibration, seed=seed)
    budget = spec.budget * full
    settings = sorted({m.knob_value for m in type(base).family(calibration) if m.knob_value is not None})
    loop = ClosedLoop.fit(base, calibration, budget=budget, settings=settings)
    closed = over_orders(loop.copy, test.logits, test.structure, costs, **common)
    block = max(quiet_block(r, budget, band=_BAND) for r in closed)
    metrics = [loop_metrics(r, budget, band=_BAND, block=block) for r in closed]
    order = shuffled(len(labels), spec.orders[0])
    flood = overload(
        loop.copy(),
        test.logits,
        labels,
        test.structure,
        costs,
        share=spec.flood,
        start=len(labels) // 4,
        order=order,
        window=spec.window,
        top=top,
    )
    held, opened = flood.cost[1] / budget, flood.cost[2] / budget
    return {
        "orders": spec.orders,
        "window": spec.window,
        "uee-ucb": {
            **_summary(bandit, labels, top, full),
            "mu": spec.mu,
            "regret": _spread(regrets),
            "dominance_violation": float(dominance(test.opened()).violation),
        },
        "closed-loop": {
            **_summary(closed, labels, top, full),
            "base": spec.base,
            "budget_share": spec.budget,
            "block": block,
            "steady_error": _spread([m.steady_error for m in metrics]),
            "overshoot": _spread([m.overshoot for m in metrics]),
            "settling_samples": [m.settling for m in metrics],
            "flood_share": spec.flood,
            "flood_accuracy_lost_points": 100 * flood.accuracy_lost,
            "flood_cost_of_budget": held,
            "flood_cost_of_budget_open": opened,
        },
    }


def _summary(records: list[OnlineRecord], labels: torch.Tensor, top: int, full: float) -> dict[str, Any]:
    right = [float(r.correct(labels, top).double().mean()) for r in records]
    paid = [float(r.cost.mean()) / full for r in records]
    looking = [float(r.looking.mean()) / full for r in records]
    return {"accuracy": _spread(right), "cost_share": _spread(paid), "looking_share": _spread(looking)}


def _spread(values: list[float]) -> dict[str, float]:
    """Mean, least and greatest over the shuffles."""
    figures = np.array(values, dtype=np.float64)
    return {"mean": float(figures.mean()), "low": float(figures.min()), "high": float(figures.max())}
