"""Thresholds for a budget: a confidence score, geometric exit quotas, and the thresholds that bring them about."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals, signals_at
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError
from adaptbench.policies.budgets.quotas import Acceptance, check_budget, search_quotas

FAMILY_SIZE = 24


class QuotaBudget(ChainPolicy):
    """Leave at the first exit whose score reaches its threshold; subclasses give `score`.

    The budgeted batch protocol of MSDNet (Huang et al., ICLR 2018), in the form of EENet's baselines (Ilhan et al.,
    WACV 2024): quotas p_k ∝ ρ^k, thresholds by greedy quantiles of the calibration scores.

    Deviates: of all ρ the dearest within the budget is taken; `acceptance="released"` takes the first of the released
    grid that exceeds it.

    Args:
        thresholds: (K−1,) t_k; the last exit takes everybody.
        budget: mean cost that was asked for.
        ratio: ρ that the search settled on.
        acceptance: how it was searched.
        cost_unit: of the budget.
    """

    thresholds: Tensor
    highest: ClassVar[float] = 2.0
    """Above every score: the threshold of an exit that nobody is to take."""

    def __init__(
        self,
        thresholds: Tensor,
        *,
        budget: float,
        ratio: float,
        acceptance: Acceptance = "within",
        cost_unit: str = "macs",
    ) -> None:
        super().__init__()
        self.register_buffer("thresholds", thresholds)
        self.budget, self.ratio, self.acceptance, self.cost_unit = float(budget), float(ratio), acceptance, cost_unit

    def score(self, node: int, signals: Signals) -> Tensor:
        """(n,) confidence in [0, 1] at an exit; high leaves."""
        raise NotImplementedError

    def bind(self, structure: Structure) -> None:
        """A chain with one threshold an exit but the last."""
        super().bind(structure)
        if len(self.thresholds) != len(structure.names) - 1:
            raise PolicyError(
                f"{len(self.thresholds)} thresholds were given to {len(structure.names)} exits.",
                why="Every exit but the last has a threshold; the last accepts everything.",
                todo="Fit the policy on this model's own log.",
            )

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Threshold minus score: > 0 goes on, equal leaves."""
        return self.thresholds[node] - self.score(node, signals)

    @torch.no_grad()
    def log_scores(self, log: CalibrationLog) -> Tensor:
        """(N, K) scores of every exit but the last, as if each sample came to all of them; zeros for the last."""
        columns = [self.score(k, signals_at(log.logits, k)) for k in range(log.logits.shape[1] - 1)]
        return torch.stack([*columns, torch.zeros(len(log))], 1)

    @classmethod
    def fit(
        cls, log: CalibrationLog, *, budget: float | None = None, acceptance: Acceptance = "within", seed: int = 0
    ) -> Self:
        """Thresholds for a mean cost.

        Args:
            budget: B in the log's unit, within [c_1, c_K] (default: their middle).
            acceptance: "within": the largest calibration cost ≤ B; "released": the first ρ whose quotas cost more.

        Raises:
            UsageError: a budget outside the range, or an unknown acceptance.
            PolicyError: the graph is no chain.
        """
        costs, budget = log.exit_costs, log.budget(budget)
        blank = cls(torch.zeros(len(costs) - 1), budget=budget, ratio=1.0, acceptance=acceptance)
        blank.bind(log.structure)
        check_budget(budget, costs, log.cost_unit)
        searched = search_quotas(blank.log_scores(log), costs, budget, acceptance=acceptance, never=cls.highest)
        return cls(
            searched.thresholds[:-1].clone(),
            budget=budget,
            ratio=searched.ratio,
            acceptance=acceptance,
            cost_unit=log.cost_unit,
        )

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """One fit for each of `FAMILY_SIZE` budgets from c_1 to c_K."""
        return [cls.fit(log, budget=b, seed=seed) for b in budgets_of(log, FAMILY_SIZE)]

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(
            tensors["thresholds"],
            budget=settings["budget"],
            ratio=settings["ratio"],
            acceptance=settings["acceptance"],
            cost_unit=settings["cost_unit"],
        )

    def describe(self) -> dict[str, Any]:
        """Budget, ρ and the thresholds."""
        return {
            "budget": self.budget,
            "cost_unit": self.cost_unit,
            "acceptance": self.acceptance,
            "ratio": self.ratio,
            "thresholds": [round(t, 6) for t in self.thresholds.tolist()],
        }


class MsdnetBudget(QuotaBudget):
    """Score: the top softmax probability (MSDNet, Huang et al., ICLR 2018)."""

    name = "msdnet-budget"

    def score(self, node: int, signals: Signals) -> Tensor:
        """max_c p_c."""
        return signals.confidence


class BranchyNetBudget(QuotaBudget):
    """Score: 1 + Σ p log p / log C (BranchyNet's entropy, Teerapittayanon et al., ICPR 2016, as EENet's baseline)."""

    name = "branchynet-budget"

    def score(self, node: int, signals: Signals) -> Tensor:
        """1 for certain, 0 for uniform."""
        return 1 - signals.entropy


class PabeeBudget(QuotaBudget):
    """Score: the share of exits so far that vote for the most-voted class.

    PABEE (Zhou et al., NeurIPS 2020) in EENet's budgeted form.

    Deviates: votes tie at once (after one exit all have 1 of 1). The released code breaks ties by noise of 1e-6; here
    the more confident of equal votes goes first, half a vote at most, so that a fit is reproducible and the score has
    a gradient. This makes it the stronger baseline.
    """

    name = "pabee-budget"
    uses_history = True

    def score(self, node: int, signals: Signals) -> Tensor:
        """(votes + confidence / 2) / (k + ½), in [0, 1]; the confidence never outweighs a vote."""
        assert signals.history is not None
        assert signals.visited is not None
        history, visited = signals.history[:, : node + 1], signals.visited[:, : node + 1]
        votes = torch.nn.functional.one_hot(history.argmax(-1), history.shape[-1]) * visited[..., None]
        most = votes.sum(1).amax(1).to(history.dtype)
        return (most + signals.confidence / 2) / (visited.sum(1) + 0.5)


def budgets_of(log: CalibrationLog, number: int) -> list[float]:
    """`number` mean costs of a chain from c_1 to c_K, both included, denser at the cheap end where curves bend."""
    costs = log.exit_costs
    steps = torch.linspace(0, 1, number, dtype=torch.float64) ** 1.5
    spread = costs[0] + (costs[-1] - costs[0]) * steps
    return [float(b) for b in spread.clamp(costs[0], costs[-1])]
