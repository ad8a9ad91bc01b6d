"""Policies: each one file, each a torch module whose margins have gradients and whose MACs count.

Those of the shipped systems are imported with the package; the others on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adaptbench.adaptive.policy import ChainPolicy, NeverStop, Policy
from adaptbench.policies.dag_selection import DagSelection, Myopic
from adaptbench.policies.learned_cascade import LearnedCascade
from adaptbench.policies.oracle import Oracle
from adaptbench.policies.random_mix import RandomMix
from adaptbench.policies.softmax_threshold import PublishedThreshold, SoftmaxThreshold
from adaptbench.policies.uniform import UniformThreshold

if TYPE_CHECKING:
    from adaptbench.policies.budgeted import BranchyNetBudget, MsdnetBudget, PabeeBudget
    from adaptbench.policies.committees import Committees
    from adaptbench.policies.distilled_oracle import DistilledOracle
    from adaptbench.policies.ebjr import EnergyRouting
    from adaptbench.policies.eenet import EENet
    from adaptbench.policies.entropy import EntropyThreshold
    from adaptbench.policies.exact_budget import ExactBudget
    from adaptbench.policies.fitted_q import FittedQ
    from adaptbench.policies.fixed_exit import FixedExit
    from adaptbench.policies.jei_dnn import JeiGates
    from adaptbench.policies.joint_threshold import JointThreshold
    from adaptbench.policies.label_free import LabelFree
    from adaptbench.policies.mixture import Mixture
    from adaptbench.policies.pabee import Patience
    from adaptbench.policies.pairs import LebovitzPair
    from adaptbench.policies.risk_controlled import RiskControlled
    from adaptbench.policies.streeter import Streeter
    from adaptbench.policies.ztw import GeometricEnsemble

_LATER = {
    "ExactBudget": "exact_budget",
    "EENet": "eenet",
    "EntropyThreshold": "entropy",
    "PabeeBudget": "budgeted",
    "BranchyNetBudget": "budgeted",
    "MsdnetBudget": "budgeted",
    "Committees": "committees",
    "DistilledOracle": "distilled_oracle",
    "EnergyRouting": "ebjr",
    "FittedQ": "fitted_q",
    "FixedExit": "fixed_exit",
    "GeometricEnsemble": "ztw",
    "JeiGates": "jei_dnn",
    "JointThreshold": "joint_threshold",
    "LabelFree": "label_free",
    "LebovitzPair": "pairs",
    "Mixture": "mixture",
    "Patience": "pabee",
    "RiskControlled": "risk_controlled",
    "Streeter": "streeter",
}

__all__ = [
    "BranchyNetBudget",
    "ChainPolicy",
    "Committees",
    "DagSelection",
    "DistilledOracle",
    "EENet",
    "EnergyRouting",
    "EntropyThreshold",
    "ExactBudget",
    "FittedQ",
    "FixedExit",
    "GeometricEnsemble",
    "JeiGates",
    "JointThreshold",
    "LabelFree",
    "LearnedCascade",
    "LebovitzPair",
    "Mixture",
    "MsdnetBudget",
    "Myopic",
    "NeverStop",
    "Oracle",
    "PabeeBudget",
    "Patience",
    "Policy",
    "PublishedThreshold",
    "RandomMix",
    "RiskControlled",
    "SoftmaxThreshold",
    "Streeter",
    "UniformThreshold",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
