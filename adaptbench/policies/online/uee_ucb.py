"""One exit for a whole domain, found on the stream without labels: a bandit fed with disagreement between exits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog, LoggedSamples
from adaptbench.adaptive.online import Observation, OnlinePolicy, OnlineRecord
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import UsageError
from adaptbench.policies.references.fixed_exit import FixedExit

Against = Literal["first", "last"]
_DEFAULT_MU = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5)


class UeeUcb(OnlinePolicy):
    """Upper confidence bounds over exits; the reward is guessed from disagreement, never from labels.

    Hanawal, Narayan, Bhardwaj, "Unsupervised Early Exit in DNNs with Multiple Exits", 2022. Arm k costs
    γ_k + μ·c_k/c_K with γ_k the unknown error of exit k. Strong dominance (if an exit is right, all later ones are)
    makes errors of two exits differ by how often the two disagree, which can be seen: for i < j,
    γ_i − γ_j = P(ŷ_i ≠ ŷ_j), exactly for two classes; with more, two different wrong answers disagree too and the guess
    is too high (`dominance`). What is compared with decides what must be seen:

    - against="first", the authors' released code: the largest P̂(ŷ_1 ≠ ŷ_k) − μ·c_k/c_K + √(α ln t / n_k). Playing arm
      k shows exits 1 … k, so the arms themselves explore and nothing runs beyond the exit.
    - against="last": the smallest P̂(ŷ_k ≠ ŷ_K) + μ·c_k/c_K + √(α ln t / n), the last exit's own μ known without a
      bound. Only samples that ran to the end show anything, so what is unsure is counted against the earlier exits: the
      last is played while in doubt, and that is what explores. Afterwards at least `rate`·t^`exponent` of t samples are
      run to the end: those that look, which is paid. exponent 2/3 keeps the regret sub-linear; 1 looks periodically,
      follows a drifting domain, and costs in proportion to the stream.

    Both have the same best arm under dominance with two classes. The answer is always the arm's own.

    Deviates: costs are weighed by μ as fractions of the whole chain; the arm is kept for a window; "last" is not in the
    authors' code.

    Args:
        mu: price of a run through the whole chain, in units of one error; ≥ 0.
        against: the exit that disagreement is counted against.
        alpha: width of the confidence bounds (1 in the authors' code).
        rate, exponent: of the looks; rate 0 for none (default: 0 against the first, 1 against the last).

    Raises:
        UsageError: a setting out of its range.
    """

    name = "uee-ucb"
    knob = "exit"

    def __init__(
        self,
        mu: float = 0.2,
        *,
        against: Against = "first",
        alpha: float = 1.0,
        rate: float | None = None,
        exponent: float = 2 / 3,
    ) -> None:
        rate = (0.0 if against == "first" else 1.0) if rate is None else rate
        if against not in ("first", "last") or mu < 0 or alpha < 0 or rate < 0 or not 0 < exponent <= 1:
            raise UsageError(
                f"mu = {mu:g}, against = '{against}', alpha = {alpha:g}, rate = {rate:g}, exponent = {exponent:g}.",
                todo="Give mu, alpha, rate ≥ 0, an exponent in (0, 1], and against 'first' or 'last'.",
            )
        self.mu, self.against, self.alpha, self.rate, self.exponent = float(mu), against, alpha, rate, exponent

    def bind(self, structure: Structure, node_costs: Tensor) -> None:
        """Chains only."""
        FixedExit(0).bind(structure)
        super().bind(structure, node_costs)
        paid = self.node_costs.cumsum(0)
        self.shares: list[float] = (paid / paid[-1]).tolist()  # (K,) c_k / c_K, cumulative

    def initial(self) -> dict[str, Any]:
        """Nothing seen."""
        size = len(self.structure.names)
        return {"samples": 0, "observed": [0] * size, "disagreed": [0] * size}

    def index(self) -> list[float]:
        """(K,) what each arm costs with its bound, up to a constant; the smallest is played."""
        seen, disagreed = self.memory["observed"], self.memory["disagreed"]
        moment = math.log(self.memory["samples"] + 1)
        index = []
        for k, share in enumerate(self.shares):
            if self.against == "last" and k == len(seen) - 1:
                index.append(self.mu * share)  # never disagrees with itself
                continue
            width = math.sqrt(self.alpha * moment / seen[k]) if seen[k] else math.inf
            rate = disagreed[k] / seen[k] if seen[k] else 0.0
            index.append(self.mu * share + (rate + width if self.against == "last" else -rate - width))
        return index

    @property
    def exit(self) -> int:
        """The arm in force: the last until something was seen, then the smallest index; the cheaper one of equals."""
        if not self.memory["observed"][-1]:
            return len(self.structure.names) - 1
        index = self.index()
        return index.index(min(index))

    def policy(self) -> Policy:
        """The arm."""
        return FixedExit(self.exit)

    @property
    def knob_value(self) -> float:
        """The arm's exit."""
        return self.exit

    def looking(self, n: int) -> Tensor | None:
        """To the end, as often as the schedule is behind."""
        last = len(self.structure.names) - 1
        if self.rate == 0 or self.exit == last:
            return None
        targets = torch.full((n,), -1)
        ended, before = self.memory["observed"][last], self.memory["samples"]
        for i in range(n):
            if ended < self.rate * (before + i + 1) ** self.exponent:
                targets[i], ended = last, ended + 1
        return targets

    def observe(self, seen: Observation) -> None:
        """Count disagreements of every exit that ran with the first, or with the last where that ran."""
        said = seen.predictions
        pivot = said[:, :1] if self.against == "first" else said[:, -1:]
        counts = seen.path & (pivot >= 0)
        differ = counts & (said != pivot)
        memory = self.memory
        memory["samples"] += len(seen)
        memory["observed"] = [a + b for a, b in zip(memory["observed"], counts.sum(0).tolist(), strict=True)]
        memory["disagreed"] = [a + b for a, b in zip(memory["disagreed"], differ.sum(0).tolist(), strict=True)]

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One a price, dear to cheap in accuracy; nothing is fitted, the log is not read."""
        return [cls(mu) for mu in reversed(_DEFAULT_MU)]

    def describe(self) -> dict[str, Any]:
        """Price, what is compared with, bounds and schedule."""
        return {
            "mu": self.mu,
            "against": self.against,
            "alpha": self.alpha,
            "rate": self.rate,
            "exponent": self.exponent,
        }


@dataclass(frozen=True, slots=True)
class Regret:
    """Against the best fixed exit of the same stream, in units of one error.

    Args:
        best: that exit, chosen afterwards.
        curve: (T,) float64 cumulative regret of the exits played and of looking.
        looking: (T,) float64, the part of it that looking cost.
    """

    best: int
    curve: Tensor
    looking: Tensor


def regret(record: OnlineRecord, logits: Tensor, node_costs: Tensor, mu: float, against: Against = "first") -> Regret:
    """What the stream cost above the best fixed exit, by the losses the bandit minimises (no labels).

    The loss of exit k on a sample is μ·c_k/c_K plus [ŷ_k ≠ ŷ_K], or minus [ŷ_1 ≠ ŷ_k] against the first. The best
    exit is that of the whole stream, so the curve may dip below 0 on the way.

    Args:
        logits: (N, K, C) of the samples, in their own order. node_costs: (K,) increments.
    """
    said = logits[record.order].argmax(-1)
    paid = node_costs.double().cumsum(0)
    wrong = (said != said[:, -1:]).double() if against == "last" else -(said != said[:, :1]).double()
    losses = wrong + mu * paid / paid[-1]
    best = int(losses.sum(0).argmin())
    played = losses.gather(1, record.exit[:, None]).squeeze(1)
    looking = mu * record.looking / float(paid[-1])
    return Regret(best, (played + looking - losses[:, best]).cumsum(0), looking.cumsum(0))


@dataclass(frozen=True, slots=True)
class Dominance:
    """How far a log is from strong dominance; measure it before trusting `UeeUcb`.

    Args:
        violation: share of samples where some exit is right and a later one wrong.
        bias_first: (K,) P(ŷ_1 ≠ ŷ_k) − (γ_1 − γ_k), 0 under dominance with two classes: the gain that is only seeming.
        bias_last: (K,) P(ŷ_k ≠ ŷ_K) − (γ_k − γ_K): the loss that is only seeming.
    """

    violation: float
    bias_first: Tensor
    bias_last: Tensor


def dominance(log: LoggedSamples) -> Dominance:
    """Violations of strong dominance and what they do to the guessed errors. Chains only; needs labels."""
    right, said = log.correct, log.logits.argmax(-1)
    error = 1 - right.double().mean(0)
    first = (said != said[:, :1]).double().mean(0) - (error[0] - error)
    last = (said != said[:, -1:]).double().mean(0) - (error - error[-1])
    return Dominance(strong_dominance_violation(log), first, last)


def strong_dominance_violation(log: LoggedSamples) -> float:
    """Share of samples where some exit is right and a later one wrong (overthinking); 0: dominance holds."""
    right = log.correct
    before = right.cumsum(1) > 0  # right here or earlier
    return float((before & ~right).any(1).double().mean())
