"""Policies with state across samples, on the protocol of `adaptbench.adaptive.online`."""

from adaptbench.policies.online.compute_budget import Capped, ComputeBudget
from adaptbench.policies.online.controller import ClosedLoop, KnobTable, OpenLoop
from adaptbench.policies.online.uee_ucb import (
    Dominance,
    Regret,
    UeeUcb,
    dominance,
    regret,
    strong_dominance_violation,
)

__all__ = [
    "Capped",
    "ClosedLoop",
    "ComputeBudget",
    "Dominance",
    "KnobTable",
    "OpenLoop",
    "Regret",
    "UeeUcb",
    "dominance",
    "regret",
    "strong_dominance_violation",
]
