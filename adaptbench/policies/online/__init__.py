"""Policies with state across samples, on the protocol of `adaptbench.adaptive.online`."""

from adaptbench.policies.online.controller import ClosedLoop, KnobTable, OpenLoop
from adaptbench.policies.online.loop_metrics import (
    LoopMetrics,
    Overload,
    accuracy_lost_to_oscillation,
    loop_metrics,
    overload,
    quiet_block,
)
from adaptbench.policies.online.uee_ucb import (
    Dominance,
    Regret,
    UeeUcb,
    dominance,
    regret,
    strong_dominance_violation,
)

__all__ = [
    "ClosedLoop",
    "Dominance",
    "KnobTable",
    "LoopMetrics",
    "OpenLoop",
    "Overload",
    "Regret",
    "UeeUcb",
    "accuracy_lost_to_oscillation",
    "dominance",
    "loop_metrics",
    "overload",
    "quiet_block",
    "regret",
    "strong_dominance_violation",
]
