"""Policies by family; each a torch module whose margins have gradients and whose MACs count.

Public names are the classes of `registry.POLICIES`, loaded on first use; what is imported here is for type checkers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adaptbench.adaptive.policy import ChainPolicy, NeverStop, Policy
from adaptbench.registry import POLICIES

if TYPE_CHECKING:
    from adaptbench.policies.budgets.budgeted import BranchyNetBudget as BranchyNetBudget
    from adaptbench.policies.budgets.budgeted import MsdnetBudget as MsdnetBudget
    from adaptbench.policies.budgets.budgeted import PabeeBudget as PabeeBudget
    from adaptbench.policies.budgets.eenet import EENet as EENet
    from adaptbench.policies.budgets.eenet import PublishedEENet as PublishedEENet
    from adaptbench.policies.budgets.exact_budget import ExactBudget as ExactBudget
    from adaptbench.policies.cascades.committees import Committees as Committees
    from adaptbench.policies.cascades.pairs import LebovitzPair as LebovitzPair
    from adaptbench.policies.cascades.streeter import Streeter as Streeter
    from adaptbench.policies.gates.dag_selection import DagSelection as DagSelection
    from adaptbench.policies.gates.dag_selection import Myopic as Myopic
    from adaptbench.policies.gates.distilled_oracle import DistilledOracle as DistilledOracle
    from adaptbench.policies.gates.fitted_q import FittedQ as FittedQ
    from adaptbench.policies.gates.jei_dnn import JeiGates as JeiGates
    from adaptbench.policies.gates.label_free import LabelFree as LabelFree
    from adaptbench.policies.gates.learned_cascade import LearnedCascade as LearnedCascade
    from adaptbench.policies.references.fixed_exit import FixedExit as FixedExit
    from adaptbench.policies.references.mixture import Mixture as Mixture
    from adaptbench.policies.references.oracle import Oracle as Oracle
    from adaptbench.policies.references.random_mix import RandomMix as RandomMix
    from adaptbench.policies.thresholds.ebjr import EnergyRouting as EnergyRouting
    from adaptbench.policies.thresholds.entropy import EntropyThreshold as EntropyThreshold
    from adaptbench.policies.thresholds.joint_threshold import JointThreshold as JointThreshold
    from adaptbench.policies.thresholds.pabee import Patience as Patience
    from adaptbench.policies.thresholds.risk_controlled import RiskControlled as RiskControlled
    from adaptbench.policies.thresholds.softmax_threshold import PublishedThreshold as PublishedThreshold
    from adaptbench.policies.thresholds.softmax_threshold import SoftmaxThreshold as SoftmaxThreshold
    from adaptbench.policies.thresholds.uniform import UniformThreshold as UniformThreshold
    from adaptbench.policies.thresholds.ztw import GeometricEnsemble as GeometricEnsemble

_HOMES = {entry.attribute: entry.module for entry in POLICIES.shipped}

__all__ = ["ChainPolicy", "NeverStop", "Policy", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
