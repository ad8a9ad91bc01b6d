"""Ours: leave where going on is no longer worth its price, the price set so that a mean budget is met."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn import functional

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies.budgets.budgeted import budgets_of
from adaptbench.policies.budgets.priced_rules import cost_table, learn_rules
from adaptbench.policies.budgets.quotas import check_budget
from adaptbench.policies.budgets.value_of_going_on import (
    Crossfit,
    history_features,
    history_width,
    outcomes_foreseen,
    value_basis,
)

FAMILY_SIZE = 24
_JUMP = 0.01


class ExactBudget(ChainPolicy):
    """Go on where the expected gain in right answers, decided well from there on, exceeds the price of its cost.

    For a price μ of cost the best rule is dynamic programming from the last exit back: at k leave when
    P(right at k) ≥ E[value of going on] − μ·(c_{k+1} − c_k). Fitted in three steps, the first two cross-fitted:

    1. at each exit, logistic regressions on its own and its history's features foretell whether this, the next and
       the last answer is right (targets: see `soft_correct`);
    2. for each of a row of prices, ridge regressions from the last exit back on functions of those three, of what
       following the rule learned so far gained over leaving;
    3. the mean cost of each price's rule, and of mixtures of neighbours, as a table from budget to rule.

    A budget between two entries is met by a mixture of their rules' margins where that changes the mean cost little by
    little. Where many samples tie and the cost would jump by more than a hundredth, each sample draws which of the two
    it follows (`draws` is true of such a policy). Prices below zero serve budgets beyond the most accurate rule.

    No paper: built on the Lagrangian form of the budget, as in Bolukbasi et al. 2017 (see dag-selection), with the
    mean cost as the thing given instead of the price.

    Args:
        structure: of the chain. rules: P of them were fitted.
        positions: (Q,) entries of the table, whole numbers are rules; costs: (Q,) mean cost at each, falling;
            spreads: (Q,) standard deviations of a sample's.
        budget: mean cost asked for.
        margin: fraction of the budget held back; None: as much as `beta` needs.
        beta: the chance that is accepted that `deployed` new samples cost more than the budget on average.
        fitted_on, deployed: samples behind the table, and in use.
        cost_unit: of all costs.
    """

    name = "exact-budget"
    per_pixel = True
    uses_history = True
    knob = "budget"
    positions: Tensor
    costs: Tensor
    spreads: Tensor

    def __init__(
        self,
        structure: Structure,
        rules: int,
        positions: Tensor,
        costs: Tensor,
        spreads: Tensor,
        budget: float,
        *,
        margin: float | None = None,
        beta: float = 0.05,
        fitted_on: int = 1,
        deployed: int = 10_000,
        cost_unit: str = "macs",
    ) -> None:
        super().__init__()
        self.structure, self.cost_unit = structure, cost_unit
        self.margin_kept, self.beta, self.fitted_on, self.deployed = margin, float(beta), fitted_on, deployed
        self.rules = rules
        self.register_buffer("positions", positions)
        self.register_buffer("costs", costs)
        self.register_buffer("spreads", spreads)
        nodes = len(structure.names)
        self.foretellers = nn.ModuleList()
        self.values = nn.ModuleList()
        for k in range(nodes - 1):
            foreseen = len(outcomes_foreseen(k, nodes))
            self.foretellers.append(nn.Linear(history_width(structure.n_classes, k), foreseen))
            self.values.append(nn.Linear(5 * foreseen - 1, rules))
        self._set_budget(budget)

    # ------------------------------------------------------------------ in use

    def bind(self, structure: Structure) -> None:
        """A chain of as many exits and classes as were fitted."""
        super().bind(structure)
        mine = self.structure
        if (len(structure.names), structure.n_classes) != (len(mine.names), mine.n_classes):
            raise PolicyError(
                f"a policy fitted on {len(mine.names)} exits and {mine.n_classes} classes was given to a chain of "
                f"{len(structure.names)} exits and {structure.n_classes} classes.",
                todo="Fit the policy on this model's own log.",
            )

    def check_costs(self, node_macs: tuple[int, ...]) -> None:
        """The table runs from what the first exit costs to what the last one costs."""
        if self.cost_unit != "macs":
            return
        now = node_macs[0], sum(node_macs)
        fitted = float(self.costs[-1]), float(self.costs[0])
        if not all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(now, fitted, strict=True)):
            raise PolicyError(
                f"'{self.name}' was fitted on exits that cost {fitted[0]:.6g} to {fitted[1]:.6g} MACs; "
                f"these cost {now[0]} to {now[1]}.",
                why="A budget looked up in another net's table is not met.",
                todo="Fit it on this net's log, or take policy.recosted(net.log(split)).",
            )

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Worth of going on, price paid, in units of its spread over the calibration samples; > 0 goes on."""
        assert signals.history is not None
        features = history_features(signals.history, node)
        basis = value_basis(self.foretellers[node](features))
        dear = functional.linear(basis, *self._rule(node, self._dear)).squeeze(1)
        if not self.draws:
            return dear
        cheap = functional.linear(basis, *self._rule(node, self._cheap)).squeeze(1)
        return torch.where(signals.uniform(0).to(dear.dtype) < self._share, dear, cheap)

    def _rule(self, node: int, position: float) -> tuple[Tensor, Tensor]:
        """Weights (1, F) and bias (1,) at a position."""
        value: nn.Linear = self.values[node]  # type: ignore[assignment]
        left = min(int(position), self.rules - 2)
        share = position - left
        weight, bias = value.weight[left : left + 2], value.bias[left : left + 2]
        return torch.lerp(weight[:1], weight[1:], share), torch.lerp(bias[:1], bias[1:], share)

    # ------------------------------------------------------------------ the budget

    def _set_budget(self, budget: float) -> None:
        check_budget(budget, self.costs.flip(0)[[0, -1]], self.cost_unit, slack=1e-6)
        self.budget = float(budget)
        self.target = self._held_back(self.budget)
        costs, positions = self.costs.tolist(), self.positions.tolist()
        # the last neighbours of whom the dearer costs at least the target
        at = max([i for i in range(len(costs) - 1) if costs[i] >= self.target], default=0)
        self._share = min(1.0, max(0.0, (self.target - costs[at + 1]) / (costs[at] - costs[at + 1])))
        self._dear, self._cheap = positions[at], positions[at + 1]
        self.draws = costs[at] - costs[at + 1] > _JUMP * self.target and 0.0 < self._share < 1.0  # type: ignore[misc]
        if not self.draws:
            self._dear = self._cheap + self._share * (self._dear - self._cheap)

    def _held_back(self, budget: float) -> float:
        """The calibration cost to aim at: T with T + z·s(T)·√(1/n + 1/m) = B, s the spread of a sample's cost at T."""
        low, high = float(self.costs[-1]), float(self.costs[0])
        if self.margin_kept is not None:
            return min(high, max(low, budget * (1 - self.margin_kept)))
        costs, spreads = self.costs.flip(0).double().numpy(), self.spreads.flip(0).double().numpy()
        squares = spreads**2 + costs**2  # of a mixture by draws the mean square is linear in the share
        scale = float(norm.ppf(1 - self.beta)) * math.sqrt(1 / self.fitted_on + 1 / self.deployed)

        def short(target: float) -> float:
            variance = float(np.interp(target, costs, squares)) - target**2
            return target + scale * math.sqrt(max(0.0, variance)) - budget

        if short(low) >= 0:
            return low
        return high if short(high) <= 0 else float(brentq(short, low, high))

    def at(self, value: float) -> Self:
        """Another budget, looked up in the table; nothing is refitted.

        Raises:
            UsageError: outside [c_1, c_K].
        """
        return self._with(budget=value)

    def _with(self, tables: tuple[Tensor, ...] | None = None, **changed: Any) -> Self:
        settings = {
            "budget": self.budget,
            "margin": self.margin_kept,
            "beta": self.beta,
            "fitted_on": self.fitted_on,
            "deployed": self.deployed,
            "cost_unit": self.cost_unit,
        }
        positions, costs, spreads = tables or (self.positions.clone(), self.costs.clone(), self.spreads.clone())
        other = type(self)(self.structure, self.rules, positions, costs, spreads, **(settings | changed))
        other.foretellers.load_state_dict(self.foretellers.state_dict())
        other.values.load_state_dict(self.values.state_dict())
        return other.requires_grad_(False)

    @torch.no_grad()
    def recosted(self, log: CalibrationLog) -> Self:
        """The same rules and budget, with the table of costs estimated on this log; its labels are not read.

        More inputs, or newer ones, bring the realised cost closer to the budget: its standard error is s/√n.
        """
        margins = []
        for k in range(len(self.structure.names) - 1):
            basis = value_basis(self.foretellers[k](history_features(log.logits[:, : k + 1], k)))
            margins.append(self.values[k](basis).double().numpy())
        positions, costs, spreads = cost_table(margins, log.exit_costs.numpy())
        budget = min(max(self.budget, float(costs[-1])), float(costs[0]))
        tables = tuple(torch.from_numpy(column).float() for column in (positions, costs, spreads))
        return self._with(tables, budget=budget, fitted_on=len(log))

    # ------------------------------------------------------------------ fitting

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        budget: float | None = None,
        margin: float | None = None,
        beta: float = 0.05,
        deployed: int = 10_000,
        folds: int = 5,
        strength: float = 0.1,
        penalty: float = 100.0,
        seed: int = 0,
    ) -> Self:
        """Regressions and table; one fit serves every budget through `at`.

        Args:
            budget: B, mean cost in the log's unit, within [c_1, c_K] (default: their middle).
            margin: fraction of B to hold back; 0 meets B on the calibration samples; None: what `beta` needs.
            beta: P(mean cost of `deployed` new samples > B) that is accepted, by the normal approximation.
            deployed: m, new samples that the promise is about.
            folds: of the cross-fitting. strength: C of the logistic regressions. penalty: of the ridge regressions.

        Raises:
            UsageError: a budget outside the range, or beta not in (0, 1).
            CalibrationError: fewer than 100 samples.
            PolicyError: the graph is no chain.
        """
        if not log.structure.is_chain or len(log.structure.names) < 2:
            raise PolicyError(
                "exact-budget decides on chains of two exits or more.", todo="Use dag-selection on a DAG."
            )
        log.require(100, "learn what going on is worth")
        if not 0.0 < beta < 1.0:
            raise UsageError(f"β = {beta:g} is no probability to be wrong with.", todo="Give 0.05.")
        budget = log.budget(budget)
        check_budget(budget, log.exit_costs, log.cost_unit)
        learnt = learn_rules(log, Crossfit.drawn(len(log), folds, seed), strength, penalty)
        policy = cls(
            log.structure,
            learnt.values[0].shape[1],
            torch.from_numpy(learnt.positions).float(),
            torch.from_numpy(learnt.costs).float(),
            torch.from_numpy(learnt.spreads).float(),
            budget,
            margin=margin,
            beta=beta,
            fitted_on=len(log),
            deployed=deployed,
            cost_unit=log.cost_unit,
        )
        for k, (foreteller, weights) in enumerate(zip(learnt.foretellers, learnt.values, strict=True)):
            policy.foretellers[k].load_state_dict(foreteller.state_dict())
            with torch.no_grad():
                policy.values[k].weight.copy_(torch.from_numpy(weights[1:].T))  # type: ignore[operator]
                policy.values[k].bias.copy_(torch.from_numpy(weights[0]))  # type: ignore[operator]
        return policy.requires_grad_(False)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One fit at `FAMILY_SIZE` budgets from c_1 to c_K, met on the calibration samples (margin 0)."""
        budgets = budgets_of(log, FAMILY_SIZE)
        first = cls.fit(log, budget=budgets[0], margin=0.0, seed=seed)
        return [first.at(b) for b in budgets]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        policy = cls(
            Structure.of(settings),
            settings["rules"],
            tensors["positions"],
            tensors["costs"],
            tensors["spreads"],
            settings["budget"],
            margin=settings["margin"],
            beta=settings["beta"],
            fitted_on=settings["fitted_on"],
            deployed=settings["deployed"],
            cost_unit=settings["cost_unit"],
        )
        policy.load_state_dict(tensors)
        return policy.requires_grad_(False)

    def describe(self) -> dict[str, Any]:
        """Budget, what is aimed at and why, and the chain's shape."""
        return {
            "budget": self.budget,
            "target": round(self.target, 6),
            "drawn": self.draws,
            "rules": self.rules,
            "margin": self.margin_kept,
            "beta": self.beta,
            "fitted_on": self.fitted_on,
            "deployed": self.deployed,
            "cost_unit": self.cost_unit,
            "names": list(self.structure.names),
            "n_classes": self.structure.n_classes,
        }
