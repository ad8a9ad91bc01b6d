"""Closed-loop control of a policy's knob: what was paid decides the next setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog, require_calibration
from adaptbench.adaptive.online import Observation, OnlinePolicy
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.replay import evaluate_on
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import CalibrationError, CapabilityError, UsageError


@dataclass(frozen=True, slots=True)
class KnobTable:
    """What each knob setting costs on the calibration log, made monotone.

    Args:
        settings: (M,) float64 rising, those of the knob. costs: (M,) float64 mean cost a sample, in `unit`, strictly
            monotone over the settings. unit: of the costs.
        discrete: only the settings listed exist.
    """

    settings: np.ndarray
    costs: np.ndarray
    unit: str
    discrete: bool = False

    @property
    def cheapest(self) -> float:
        """The lowest mean cost the knob reaches."""
        return float(self.costs.min())

    @property
    def dearest(self) -> float:
        """The highest."""
        return float(self.costs.max())

    def setting(self, cost: float) -> float:
        """The knob that costs this much by calibration: between two settings, or the nearest where it is discrete."""
        if self.discrete:
            return float(self.settings[np.abs(self.costs - cost).argmin()])
        rising = slice(None) if self.costs[-1] > self.costs[0] else slice(None, None, -1)
        return float(np.interp(cost, self.costs[rising], self.settings[rising]))

    @classmethod
    def measure(
        cls,
        policy: Policy,
        log: CalibrationLog,
        settings: Sequence[float] | None = None,
        *,
        points: int = 48,
        discrete: bool = False,
    ) -> Self:
        """Replay `policy.at(s)` on the log; between continuous settings, refine where the cost jumps most.

        Args:
            settings: to begin with (default: the knob values of `type(policy).family(log)`); the range of the knob.
            points: settings in the table at most.

        Raises:
            LeakageError: the log is there to judge.
            CapabilityError: no knob, or no settings where the policy's family has none.
            CalibrationError: the knob does not move the cost.
        """
        require_calibration(log, cls.__name__)
        cost_at = {s: evaluate_on(policy.at(s), log).cost_mean for s in _begin(policy, log, settings)}
        span = max(cost_at.values()) - min(cost_at.values())
        if len(cost_at) < 2 or not span > 0:
            raise CalibrationError(
                f"the knob '{policy.knob}' costs {sorted(cost_at.values())} over {len(cost_at)} settings.",
                why="A loop closed over a knob that moves nothing winds up and holds no budget.",
                todo="Give settings over the knob's whole range, or choose another policy.",
            )
        while not discrete and len(cost_at) < points:
            order = sorted(cost_at)
            gaps = [abs(cost_at[b] - cost_at[a]) for a, b in pairwise(order)]
            widest = int(np.argmax(gaps))
            middle = (order[widest] + order[widest + 1]) / 2
            if gaps[widest] <= span / points or middle in cost_at:
                break
            cost_at[middle] = evaluate_on(policy.at(middle), log).cost_mean
        ordered = np.array(sorted(cost_at))
        costs = np.array([cost_at[s] for s in ordered])
        rising = bool(np.corrcoef(ordered, costs)[0, 1] >= 0)
        costs = IsotonicRegression(increasing=rising).fit_transform(ordered, costs)
        # a hair of slope on plateaus: the inverse is to be a function
        costs = costs + np.arange(len(costs)) * (1 if rising else -1) * 1e-9 * span
        return cls(ordered, costs, log.cost_unit, discrete)


def _begin(policy: Policy, log: CalibrationLog, settings: Sequence[float] | None) -> list[float]:
    if policy.knob is None:
        raise CapabilityError(
            f"the policy '{policy.name}' has no run-time knob to turn.", todo="Wrap one that has: uniform, random …"
        )
    if settings is not None:
        return sorted({float(s) for s in settings})
    try:
        values = [member.knob_value for member in type(policy).family(log)]
    except CapabilityError:
        values = []
    if len(values) < 2 or any(v is None for v in values):
        raise CapabilityError(
            f"the range of the knob '{policy.knob}' is not known.",
            todo="Give settings=[lowest, …, highest].",
        )
    return sorted({float(v) for v in values if v is not None})


class ClosedLoop(OnlinePolicy):
    """Proportional–integral control of a policy's knob towards a budget, with anti-windup.

    The loop commands a *cost*, the calibration table turns it into a knob setting, and the mean cost of the last
    `period` samples comes back. Errors are taken in units of the knob's cost range, so the gains have no unit and a
    table that is right makes a plant of gain 1: u ← b + k_p·e + k_i·Σe, e = (B − cost) / (dearest − cheapest), b the
    budget by calibration. Where the stream costs g times what the table says, the loop is stable for k_i > 0,
    g·k_p < 1 and g·(2·k_p + k_i) < 2.

    The rule t ← t + K_i·(cost − B)/B of the field is this one for k_p = 0 and a linear knob. Deviates: control in cost
    space rather than on the threshold itself; the error is divided by the range and not by B; a proportional part and
    feed-forward from calibration. No single paper is followed.

    Args:
        base: any policy with a scalar knob. table: its `KnobTable`.
        budget: B, mean cost a sample, in the table's unit.
        kp, ki: gains; period: samples between two corrections, counted over windows.
        anti_windup: while the command is at a bound, the integral stays where the bound is; False shows why.

    Raises:
        UsageError: a budget the knob cannot reach, gains that are unstable already where the table is right, a period
            below 1.
    """

    name = "closed-loop"

    def __init__(
        self,
        base: Policy,
        table: KnobTable,
        budget: float,
        *,
        kp: float = 0.1,
        ki: float = 0.3,
        period: int = 64,
        anti_windup: bool = True,
    ) -> None:
        if not table.cheapest <= budget <= table.dearest:
            raise UsageError(
                f"a budget of {budget:.6g} {table.unit} is outside {table.cheapest:.6g} … {table.dearest:.6g}.",
                why="The knob cannot reach it even where the stream is like the calibration data.",
                todo="Choose one inside, or another policy.",
            )
        if not (ki > 0 and 0 <= kp < 1 and 2 * kp + ki < 2) or period < 1:
            raise UsageError(
                f"kp = {kp:g}, ki = {ki:g}, period = {period}.",
                why="The loop would swing ever wider: it needs ki > 0, kp < 1, 2·kp + ki < 2.",
                todo="Begin with kp = 0.1, ki = 0.3 and a period of 64.",
            )
        self.base, self.table, self.budget = base, table, float(budget)
        self.kp, self.ki, self.period, self.anti_windup = float(kp), float(ki), int(period), anti_windup
        self.knob = base.knob  # type: ignore[misc]
        self._in_force: tuple[float, Policy] | None = None

    @classmethod
    def fit(
        cls,
        base: Policy,
        log: CalibrationLog,
        *,
        budget: float,
        settings: Sequence[float] | None = None,
        discrete: bool = False,
        **gains: Any,
    ) -> Self:
        """Measure the knob on a log (labels are not read) and close the loop; gains: as for the class."""
        return cls(base, KnobTable.measure(base, log, settings, discrete=discrete), budget, **gains)

    def bind(self, structure: Structure, node_costs: Tensor) -> None:
        """Whatever the base policy accepts."""
        self.base.bind(structure)
        super().bind(structure, node_costs)

    def initial(self) -> dict[str, Any]:
        """The budget by calibration, nothing integrated."""
        return {"command": self._normal(self.budget), "integral": 0.0, "paid": 0.0, "samples": 0, "steps": 0}

    def _normal(self, cost: float) -> float:
        """0 the cheapest, 1 the dearest."""
        return (cost - self.table.cheapest) / (self.table.dearest - self.table.cheapest)

    @property
    def knob_value(self) -> float:
        """The setting for the next window."""
        span = self.table.dearest - self.table.cheapest
        return self.table.setting(self.table.cheapest + self.memory["command"] * span)

    def policy(self) -> Policy:
        """The base policy at that setting."""
        value = self.knob_value
        if self._in_force is None or self._in_force[0] != value:
            self._in_force = (value, self.base.at(value))
        return self._in_force[1]

    def observe(self, seen: Observation) -> None:
        """Add up what was paid; after `period` samples, correct."""
        memory = self.memory
        memory["paid"] += float(seen.costs.sum())
        memory["samples"] += len(seen)
        if memory["samples"] < self.period:
            return
        error = self._normal(self.budget) - self._normal(memory["paid"] / memory["samples"])
        feed = self._normal(self.budget)
        integral = memory["integral"] + self.ki * error
        wanted = feed + self.kp * error + integral
        command = min(1.0, max(0.0, wanted))
        if self.anti_windup:
            integral += command - wanted
        self.memory = {
            "command": command,
            "integral": integral,
            "paid": 0.0,
            "samples": 0,
            "steps": memory["steps"] + 1,
        }

    def open_loop(self) -> OpenLoop:
        """The same policy, left at what calibration says of the budget: what the loop is compared with."""
        return OpenLoop(self.base.at(self.table.setting(self.budget)))

    def describe(self) -> dict[str, Any]:
        """Budget, gains, table and the base policy."""
        return {
            "base": self.base.name,
            "base_settings": self.base.describe(),
            "budget": self.budget,
            "cost_unit": self.table.unit,
            "kp": self.kp,
            "ki": self.ki,
            "period": self.period,
            "anti_windup": self.anti_windup,
            "settings": self.table.settings.tolist(),
            "costs": self.table.costs.tolist(),
            "discrete": self.table.discrete,
        }


class OpenLoop(OnlinePolicy):
    """A plain policy as an online one: nothing is learned, the setting stays."""

    name = "open-loop"

    def __init__(self, base: Policy) -> None:
        self.base = base
        self.knob = base.knob  # type: ignore[misc]

    def bind(self, structure: Structure, node_costs: Tensor) -> None:
        """Whatever the policy accepts."""
        self.base.bind(structure)
        super().bind(structure, node_costs)

    def initial(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def policy(self) -> Policy:
        """The policy itself."""
        return self.base

    def observe(self, seen: Observation) -> None:
        """Nothing is learned."""

    @property
    def knob_value(self) -> float | None:
        """The policy's own."""
        return self.base.knob_value

    def describe(self) -> dict[str, Any]:
        """The policy."""
        return {"base": self.base.name, "base_settings": self.base.describe()}
