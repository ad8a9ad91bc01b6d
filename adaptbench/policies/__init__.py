"""Policies: each one file, each a torch module whose margins have gradients and whose MACs count."""

from adaptbench.adaptive.policy import ChainPolicy, NeverStop, Policy
from adaptbench.policies.dag_selection import DagSelection, Myopic
from adaptbench.policies.learned_cascade import LearnedCascade
from adaptbench.policies.oracle import Oracle
from adaptbench.policies.random_mix import RandomMix
from adaptbench.policies.softmax_threshold import SoftmaxThreshold
from adaptbench.policies.uniform import UniformThreshold

__all__ = [
    "ChainPolicy",
    "DagSelection",
    "LearnedCascade",
    "Myopic",
    "NeverStop",
    "Oracle",
    "Policy",
    "RandomMix",
    "SoftmaxThreshold",
    "UniformThreshold",
]
