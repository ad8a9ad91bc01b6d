"""Families of fitted policies, and where each member lands: on the choosing part, and on the test log."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive import CalibrationLog, Policy
from adaptbench.adaptive.log import is_correct
from adaptbench.adaptive.replay import Point, replay, replay_in_blocks
from adaptbench.errors import AdaptBenchError, CalibrationError, LeakageError
from adaptbench.experiment.failures import reason_of
from adaptbench.policies.references.mixture import hull
from adaptbench.registry import POLICIES
from adaptbench.results.writer import RunWriter
from adaptbench.study.compare import loss_bound
from adaptbench.study.fits import fit_key, keep_fit, kept_fit
from adaptbench.study.logs import TestLog
from adaptbench.study.policy_costs import policy_costs
from adaptbench.study.schema import registry_name


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy on the test log, sample by sample.

    Args:
        correct: (N,) bool. macs: (N,) int64, policies' own MACs included.
        path: (N, V) bool nodes run. exit: (N,) int16 and answer: (N,) int32, what was returned where.
        tie: (N,) bool, a decision on the way may fall either way.
    """

    correct: np.ndarray
    macs: np.ndarray
    path: Tensor
    exit: Tensor
    answer: Tensor
    tie: Tensor

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
        loss_bound: upper 95 % bound of the accuracy lost against the reference on the choosing part, paired.
    """

    policy: Policy
    setting: float | None
    chosen_on: Point
    own_macs: tuple[Tensor, Tensor]
    loss_bound: float

    @property
    def digest(self) -> str:
        """Hash of settings and tensors."""
        digest = hashlib.sha256(json.dumps([self.policy.name, self.policy.describe()], sort_keys=True).encode())
        for name, tensor in sorted(self.policy.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()


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

    def non_inferior(self, margin: float) -> int | None:
        """Index of the cheapest member whose loss on the choosing part is below the margin with 95 % confidence.

        None where there is none: a small choosing part shows nothing.
        """
        good = [i for i, m in enumerate(self.members) if m.loss_bound <= margin]
        return min(good, key=lambda i: self.members[i].chosen_on.cost_mean) if good else None


@dataclass(frozen=True, slots=True)
class Choice:
    """Members of a family that were chosen on calibration.

    Args:
        drops: accuracy that may be lost → index. non_inferior: index; None where no member is.
    """

    drops: dict[float, int]
    non_inferior: int | None

    @property
    def indices(self) -> list[int]:
        """In the record's order: the drops, then the non-inferior one."""
        return [*self.drops.values(), *([] if self.non_inferior is None else [self.non_inferior])]


def fit_family(
    name: str,
    fitting: CalibrationLog,
    choosing: CalibrationLog,
    *,
    reference: int,
    settings: Sequence[float] = (),
    seed: int = 0,
    writer: RunWriter | None = None,
) -> Family:
    """Fit a registered policy's whole family on one part of the calibration log; look at it on the other.

    Args:
        name: of the study; its policy is looked up in the registry.
        fitting, choosing: disjoint parts of one calibration log.
        reference: node that losses are told against.
        settings: knob values wanted one by one besides.
        seed: of fits that draw.
        writer: where an earlier run may have left the fit.

    Returns:
        The family; a policy that cannot be fitted, whoever's fault it is, says why in `failed`.

    Raises:
        LeakageError: it read what it must not.
    """
    kind: type[Policy] = POLICIES.load(registry_name(name))
    started = time.perf_counter()
    key = fit_key(name, kind, fitting, choosing, settings, seed)
    kept = kept_fit(writer, key, kind)
    try:
        if kept is None:
            policies, wanted = _fit(kind, fitting, choosing, settings, seed)
            fit_s = time.perf_counter() - started
            keep_fit(writer, key, policies, wanted, fit_s)
        else:
            policies, wanted, fit_s = kept
        right = choosing.correct[:, reference].numpy()
        members = sorted((_member(p, choosing, right) for p in policies), key=lambda m: m.chosen_on.cost_mean)
        shown = {value: _member(policy, choosing, right) for value, policy in wanted.items()}
        corners = hull([m.chosen_on for m in members])
    except LeakageError:
        raise
    except Exception as error:  # a plug-in's fault is not the study's
        return Family(name, (), time.perf_counter() - started, failed=blame(error))
    return Family(name, tuple(members), fit_s, tuple(corners), settings=shown)


def _fit(
    kind: type[Policy], fitting: CalibrationLog, choosing: CalibrationLog, settings: Sequence[float], seed: int
) -> tuple[list[Policy], dict[float, Policy]]:
    """The family, and the settings wanted one by one."""
    policies: list[Policy] = list(kind.family(fitting, seed=seed))
    if not policies:
        raise CalibrationError("its family is empty.", todo="Give family() three members or more.")
    inputs = fitting.joined(choosing) if fitting.sha256 == choosing.sha256 else choosing
    first = policies[0].recosted(inputs)  # costs need no labels, so every input may tell them
    if first is not policies[0]:  # a family shares one table
        policies = [first.at(float(p.knob_value)) for p in policies if p.knob_value is not None]
    if not settings:
        return policies, {}
    base = kind.fit(fitting, seed=seed)
    return policies, {float(value): base.at(float(value)) for value in settings}


def blame(error: Exception) -> str:
    """An error in one line; of one that is not ours, where it was raised."""
    if isinstance(error, AdaptBenchError):
        return reason_of(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{reason_of(error)} (raised in {Path(last.filename).name}, line {last.lineno})"


@torch.no_grad()
def _member(policy: Policy, choosing: CalibrationLog, reference: np.ndarray) -> Member:
    """Its point on the choosing part, with what the policy itself costs."""
    decide, predict = policy_costs(policy, choosing.structure)
    replayed = replay(policy, choosing.structure, choosing.logits, seeds=torch.arange(len(choosing)))
    macs = ((replayed.path * (choosing.node_macs + decide)).sum(1) + predict[replayed.exit]).double().mean().item()
    right = replayed.correct(choosing.labels, choosing.top)
    point = Point(float("nan"), right.double().mean().item(), macs, macs)
    return Member(policy, policy.knob_value, point, (decide, predict), loss_bound(reference, right.numpy()))


@torch.no_grad()
def outcome(member: Member, log: TestLog) -> Outcome:
    """Replay a member on the test log.

    Raises:
        LeakageError: labels are still sealed.
    """
    member.policy.bind(log.structure)
    decide, predict = member.own_macs
    labels = log.labels.values
    n, size, _ = log.logits.shape
    found = Outcome(
        np.empty(n, dtype=bool),
        np.empty(n, dtype=np.int64),
        torch.empty(n, size, dtype=torch.bool),
        torch.empty(n, dtype=torch.int16),
        torch.empty(n, dtype=torch.int32),
        torch.empty(n, dtype=torch.bool),
    )
    for rows, replayed in replay_in_blocks(member.policy, log.structure, log.logits, seeds=log.ids):
        macs = (replayed.path * (log.node_macs + decide)).sum(1) + predict[replayed.exit]
        found.macs[rows] = macs.numpy()
        found.correct[rows] = is_correct(replayed.logits, labels[rows], log.top).numpy()
        found.path[rows], found.exit[rows], found.tie[rows] = replayed.path, replayed.exit, replayed.tie
        found.answer[rows] = replayed.logits.argmax(1)
    return found


def digest_of_choices(families: dict[str, Family], chosen: dict[str, Choice]) -> str:
    """Hash of every fitted policy and every choice."""
    digest = hashlib.sha256()
    for name, family in sorted(families.items()):
        digest.update(name.encode())
        for member in [*family.members, *family.settings.values()]:
            digest.update(member.digest.encode())
        choice = chosen[name]
        digest.update(json.dumps([sorted(choice.drops.items()), choice.non_inferior, family.corners]).encode())
    return digest.hexdigest()
