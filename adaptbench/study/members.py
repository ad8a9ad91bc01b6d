"""Families of fitted policies, and where each member lands: on the choosing part, and on the test log."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive import CalibrationLog, Policy
from adaptbench.adaptive.log import is_correct
from adaptbench.adaptive.replay import Point, Replay, replay
from adaptbench.errors import CalibrationError, CapabilityError, PolicyError, UsageError
from adaptbench.policies.costs import policy_costs
from adaptbench.policies.mixture import hull
from adaptbench.registry import POLICIES
from adaptbench.study.logs import TestLog
from adaptbench.study.spec import registry_name


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy on the test log, sample by sample.

    Args:
        correct: (N,) bool. macs: (N,) int64, policies' own MACs included. replay: the ways taken.
    """

    correct: np.ndarray
    macs: np.ndarray
    replay: Replay

    @property
    def accuracy(self) -> float:
        """Fraction right."""
        return float(self.correct.mean())

    @property
    def macs_mean(self) -> float:
        """Mean MACs a sample."""
        return float(self.macs.mean())


@dataclass(frozen=True, slots=True)
class Member:
    """One fitted policy of a family.

    Args:
        policy: fitted. setting: its knob, where there is one. chosen_on: its point on the choosing part.
        own_macs: (V,) of deciding at each node, and (V,) of answering there.
    """

    policy: Policy
    setting: float | None
    chosen_on: Point
    own_macs: tuple[Tensor, Tensor]

    @property
    def digest(self) -> str:
        """Hash of settings and tensors."""
        found = hashlib.sha256(json.dumps([self.policy.name, self.policy.describe()], sort_keys=True).encode())
        for name, tensor in sorted(self.policy.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().contiguous().numpy().tobytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True)
class Family:
    """A policy's members, what fitting took, and which of them are corners of the hull on the choosing part.

    Args:
        name: registry name. members: by cost on the choosing part. fit_s: of all members together.
        corners: indices, cheapest first. failed: why there are no members.
    """

    name: str
    members: tuple[Member, ...]
    fit_s: float
    corners: tuple[int, ...] = ()
    failed: str = ""
    settings: dict[float, Member] = field(default_factory=dict)

    def at_drop(self, drop: float, goal: float) -> int:
        """Index of the cheapest member within `drop` of the goal on the choosing part, else of the most accurate."""
        points = [m.chosen_on for m in self.members]
        good = [i for i, p in enumerate(points) if p.accuracy >= goal - drop - 1e-9]
        if good:
            return min(good, key=lambda i: points[i].cost_mean)
        return max(range(len(points)), key=lambda i: (points[i].accuracy, -points[i].cost_mean))


def fit_family(
    name: str, fitting: CalibrationLog, choosing: CalibrationLog, *, settings: Sequence[float] = (), seed: int = 0
) -> Family:
    """Fit a registered policy's whole family on one part of the calibration log; look at it on the other.

    Args:
        name: of the study; its policy is looked up in the registry.
        fitting, choosing: disjoint parts of one calibration log.
        settings: knob values wanted one by one besides.
        seed: of fits that draw.

    Returns:
        The family; a policy that cannot serve this graph says why in `failed`.
    """
    kind: type[Policy] = POLICIES.load(registry_name(name))
    started = time.perf_counter()
    try:
        policies = kind.family(fitting, seed=seed)
        fit_s = time.perf_counter() - started
        inputs = fitting.joined(choosing) if fitting.sha256 == choosing.sha256 else choosing
        first = policies[0].recosted(inputs)  # costs need no labels, so every input may tell them
        if first is not policies[0]:  # a family shares one table
            policies = [first.at(float(p.knob_value)) for p in policies if p.knob_value is not None]
        members = sorted((_member(p, choosing) for p in policies), key=lambda m: m.chosen_on.cost_mean)
        corners = hull([m.chosen_on for m in members])
        wanted = {}
        if settings:
            base = kind.fit(fitting)  # type: ignore[attr-defined]
            wanted = {float(value): _member(base.at(float(value)), choosing) for value in settings}
    except (PolicyError, CapabilityError, CalibrationError, UsageError) as error:  # never a LeakageError
        return Family(name, (), time.perf_counter() - started, failed=error.seen)
    return Family(name, tuple(members), fit_s, tuple(corners), settings=wanted)


@torch.no_grad()
def _member(policy: Policy, choosing: CalibrationLog) -> Member:
    """Its point on the choosing part, with what the policy itself costs."""
    decide, predict = policy_costs(policy, choosing.structure)
    found = replay(policy, choosing.structure, choosing.logits, seeds=torch.arange(len(choosing)))
    macs = ((found.path * (choosing.node_macs + decide)).sum(1) + predict[found.exit]).double().mean().item()
    accuracy = found.correct(choosing.labels, choosing.top).double().mean().item()
    return Member(policy, policy.knob_value, Point(float("nan"), accuracy, macs, macs), (decide, predict))


@torch.no_grad()
def outcome(member: Member, log: TestLog, top: int) -> Outcome:
    """Replay a member on the test log.

    Raises:
        LeakageError: labels are still sealed.
    """
    member.policy.bind(log.structure)
    found = replay(member.policy, log.structure, log.logits, seeds=log.ids)
    decide, predict = member.own_macs
    macs = (found.path * (log.node_macs + decide)).sum(1) + predict[found.exit]
    right = is_correct(found.logits, log.labels.values, top)
    return Outcome(right.numpy(), macs.numpy(), found)
