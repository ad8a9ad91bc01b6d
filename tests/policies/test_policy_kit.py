"""Planted faults are found; the contract itself is held against every policy in `test_every_policy.py`."""

import ast
from pathlib import Path

import pytest
import torch

from adaptbench import policies
from adaptbench.adaptive import ChainPolicy
from adaptbench.errors import PolicyError
from adaptbench.policies import (
    NeverStop,
)
from adaptbench.registry import POLICIES
from adaptbench.testing import check_policy, planted_graph, planted_split


class Threshold(ChainPolicy):
    """The smallest policy there is; each fault is a change of it."""

    name = "threshold"

    def __init__(self, at: float = 0.8) -> None:
        super().__init__()
        self.register_buffer("height", torch.tensor(at))

    def margin(self, node, signals):
        return self.height - signals.confidence

    @classmethod
    def fit(cls, log: "CalibrationLog", *, seed=0):  # noqa: F821
        return cls(float(log.confidence.median()))

    @classmethod
    def from_state(cls, settings, tensors):
        policy = cls()
        policy.load_state_dict(tensors)
        return policy


class Rounds(Threshold):
    def margin(self, node, signals):
        return (self.height - signals.confidence).round(decimals=2).detach()


class ComparesWithTheBatch(Threshold):
    def margin(self, node, signals):
        return signals.confidence.mean() - signals.confidence


class DependsOnGlobalState(Threshold):
    @classmethod
    def fit(cls, log: "CalibrationLog", *, seed=0):  # noqa: F821
        return cls(float(torch.rand(()) * log.confidence.mean()))


class Forgets(Threshold):
    @classmethod
    def from_state(cls, settings, tensors):
        return cls(0.8)


class MovesItself(Threshold):
    knob = "height"

    @property
    def knob_value(self):
        return round(float(self.height), 3)

    def at(self, value):
        other = type(self)(value)
        other.height = self.height.fill_(value)
        return other


class KeepsTheGraph(Threshold):
    def bind(self, structure):
        self.exits = len(structure.names)


class ForgetsWhenRecosted(Threshold):
    def recosted(self, log):
        return Threshold()


class Infinite(Threshold):
    @classmethod
    def fit(cls, log: "CalibrationLog", *, seed=0):  # noqa: F821
        return cls(float("inf"))


def test_the_smallest_policy_passes():
    check_policy(Threshold.fit)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Rounds, "no gradient"),
        (ComparesWithTheBatch, "with the batch"),
        (DependsOnGlobalState, "second fit"),
        (Forgets, "scores otherwise"),
        (MovesItself, "changed the original"),
        (Infinite, "NaN or infinity"),
        (ForgetsWhenRecosted, "of the same kind"),
        (KeepsTheGraph, r"bind\(\) wrote exits"),
    ],
)
def test_a_planted_fault_is_found(policy, message):
    with pytest.raises(AssertionError, match=message):
        check_policy(policy.fit, another_setting=0.3)


class Unguarded(Threshold):
    """Its fit is put in place of the one that the class was made with."""


Unguarded.fit = classmethod(lambda cls, log, *, seed=0: cls(float(log.confidence.median())))


def test_a_fit_that_takes_samples_that_judge_is_found():
    with pytest.raises(AssertionError, match=r"fit\(\) on samples that judge"):
        check_policy(Unguarded.fit)


def test_a_fit_that_cannot_be_called_like_the_others_is_refused_where_it_is_written():
    with pytest.raises(PolicyError, match=r"Asks\.fit asks for price"):

        class Asks(Threshold):
            @classmethod
            def fit(cls, log, *, price, seed=0):
                return cls(price)

    with pytest.raises(PolicyError, match="asks for no seed"):

        class Unseeded(Threshold):
            @classmethod
            def family(cls, log):
                return [cls(0.1)]


def test_never_stop_runs_to_the_end():
    net = planted_graph()
    net.policy = NeverStop()
    assert net.infer(planted_split("test", 10).images()).path.all()


def test_planted_nets_get_better_as_they_cost_more():
    net = planted_graph()
    log = net.log(planted_split())
    accuracy = log.correct.float().mean(0).tolist()
    assert accuracy == sorted(accuracy)
    assert accuracy[2] - accuracy[0] > 0.1
    assert net.node_macs == (64, 320, 1280)


def test_the_names_for_type_checkers_are_the_registry():
    """The one list of public policies stands in the registry; what an editor is told must not drift from it."""
    tree = ast.parse(Path(policies.__file__).read_text(encoding="utf-8"))
    told = {
        f"{node.module}:{alias.name}"
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    assert told == {entry.target for entry in POLICIES.shipped}
    assert {name for name in policies.__all__ if getattr(policies, name)} == set(policies.__all__)
    for entry in POLICIES.shipped:
        assert getattr(policies, entry.attribute).name == entry.name
