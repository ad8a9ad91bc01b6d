"""Conformance kits for plug-in authors: subclass one in a test file, give the object, and pytest runs the laws."""

from adaptbench.testing.attacks import AttackConformance
from adaptbench.testing.data import DataConformance
from adaptbench.testing.defences import DefenceConformance
from adaptbench.testing.meters import MeterConformance
from adaptbench.testing.models import ModelConformance, check_model
from adaptbench.testing.online import OnlineConformance, check_online
from adaptbench.testing.planted import planted_graph, planted_split
from adaptbench.testing.policies import PolicyConformance, check_policy

__all__ = [
    "AttackConformance",
    "DataConformance",
    "DefenceConformance",
    "MeterConformance",
    "ModelConformance",
    "OnlineConformance",
    "PolicyConformance",
    "check_model",
    "check_online",
    "check_policy",
    "planted_graph",
    "planted_split",
]
