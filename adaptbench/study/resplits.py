"""How often a promised ε is broken: calibration and test are drawn anew, many times, from their union.

An evaluation of rules, not a choice: nothing that is fitted here is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from adaptbench.adaptive import CalibrationLog, EvaluationLog
from adaptbench.adaptive.replay import replay
from adaptbench.errors import CalibrationError, PolicyError
from adaptbench.experiment.failures import reason_of
from adaptbench.experiment.progress import Progress
from adaptbench.registry import POLICIES
from adaptbench.results.statistics import proportion
from adaptbench.study.logs import TestLog
from adaptbench.study.schema import ON_TRAINING, registry_name


def resplit(
    calibration: CalibrationLog,
    test: TestLog,
    training: CalibrationLog | None = None,
    *,
    policies: Sequence[str],
    epsilons: Sequence[float],
    count: int,
    seed: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Violation rate and ε-fidelity of rules with an ε.

    Args:
        calibration, test: logs; their union is cut anew into parts of the same sizes.
        training: what rules named …@train are fitted on; it is never part of the union.
        policies: names of rules whose knob is ε. epsilons: promised, fractions. count: of re-splits.

    Returns:
        One record for each policy and ε: violations, their rate with its interval, the realised drop (mean, 5 % and
        95 % quantile over re-splits, points), fidelity = mean drop / ε, mean speed-up.

    Raises:
        LeakageError: test labels are still sealed.
    """
    pool = pooled(calibration, test)
    last = pool.correct[:, -1]
    full = float(calibration.node_costs.sum())
    n = len(calibration)
    drops: dict[tuple[str, float], list[float]] = {(p, e): [] for p in policies for e in epsilons}
    costs: dict[tuple[str, float], list[float]] = {key: [] for key in drops}
    failed: dict[str, str] = {}
    generator = torch.Generator().manual_seed(seed)
    progress.begin("re-splitting", count)
    for i in range(count):
        order = torch.randperm(len(pool), generator=generator)
        drawn, fresh = _redrawn(pool, order[:n]), pool.part(order[n:])
        goal = last[order[n:]]
        for name in policies:
            try:
                seen = training if training is not None and name.endswith(ON_TRAINING) else drawn
                fitted = POLICIES.load(registry_name(name)).fit(seen, seed=seed)
            except (PolicyError, CalibrationError) as error:
                failed[name] = reason_of(error)
                continue
            for epsilon in epsilons:
                policy = fitted.at(epsilon)
                policy.bind(pool.structure)
                replayed = replay(policy, pool.structure, fresh.logits)
                right = replayed.correct(fresh.labels, fresh.top)
                drops[name, epsilon].append(float(goal.float().mean() - right.float().mean()))
                costs[name, epsilon].append(float(replayed.cost(pool.node_costs).mean()))
        progress.advance(i + 1)
    progress.end()
    return [
        _summary(name, epsilon, drops[name, epsilon], costs[name, epsilon], full) | _unfitted(failed.get(name), count)
        for name, epsilon in drops
    ]


def _unfitted(reason: str | None, count: int) -> dict[str, Any]:
    """Cuts on which a rule could not be fitted are left out, and named."""
    return {} if reason is None else {"asked": count, "missing": reason}


def pooled(calibration: CalibrationLog, test: TestLog) -> EvaluationLog:
    """The union of both, under a name and a hash of its own.

    Raises:
        LeakageError: test labels are still sealed.
    """
    judged = test.opened()
    return EvaluationLog(
        torch.cat([calibration.logits, judged.logits]),
        torch.cat([calibration.labels, judged.labels]),
        calibration.structure,
        calibration.node_macs,
        calibration.data,
        "calibration and test",
        _hash(calibration.sha256, judged.sha256),
        top=calibration.top,
        costs=calibration.costs,
        cost_unit=calibration.cost_unit,
    )


def _redrawn(pool: EvaluationLog, rows: torch.Tensor) -> CalibrationLog:
    """Samples of the union that a rule is fitted on for one cut, and judged on the others; nothing of it is kept."""
    return CalibrationLog(
        pool.logits[rows],
        pool.labels[rows],
        pool.structure,
        pool.node_macs,
        pool.data,
        "redrawn",
        _hash(pool.sha256, str(rows.tolist())),
        top=pool.top,
        costs=pool.costs,
        cost_unit=pool.cost_unit,
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _summary(name: str, epsilon: float, drops: list[float], costs: list[float], full: float) -> dict[str, Any]:
    if not drops:
        return {"policy": name, "epsilon": epsilon, "count": 0}
    lost = np.array(drops)
    broken = int((lost > epsilon).sum())
    rate = proportion(broken, len(lost))
    return {
        "policy": name,
        "epsilon": epsilon,
        "count": len(lost),
        "broken": broken,
        "rate": rate.value,
        "rate_ci": rate.ci,
        "drop_points": float(100 * lost.mean()),
        "drop_points_5": float(100 * np.quantile(lost, 0.05)),
        "drop_points_95": float(100 * np.quantile(lost, 0.95)),
        "fidelity": float(lost.mean() / epsilon) if epsilon else None,
        "speedup": float(full / np.mean(costs)),
    }
