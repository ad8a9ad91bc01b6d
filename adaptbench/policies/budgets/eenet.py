"""A learned exit schedule under a mean budget."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies.budgets.budgeted import budgets_of
from adaptbench.policies.budgets.eenet_scheduler import PUBLISHED, Scheduler, SchedulerSettings, scheduler_inputs, train
from adaptbench.policies.budgets.quotas import Acceptance, check_budget, exits_taken, quota_thresholds, search_quotas

FAMILY_SIZE = 10


class EENet(ChainPolicy):
    """Leave at the first exit whose learned score q_k reaches its threshold.

    Ilhan et al., "Adaptive Deep Neural Network Inference Optimization with EENet", WACV 2024, arXiv 2301.07099:
    q_k = w₁·P_k + w₂·[max P_k, 1 + Σ P log P / log C, q_1 … q_{k−1}]; thresholds by greedy quantiles from the learned
    mean assignment. A soft budget: the schedule may miss it by a tenth, and samples another way again.

    Deviates: the last exit takes everybody (released: a sample whose last score is negative is lost and free). By
    default, too: full batches, larger steps, fewer epochs and restarts, weaker weight decay; q starts at the top
    probability; the assignment has no outer logistic function, without which the released mean assignments (0.88 at
    the first of three exits) could not come about; the restart is chosen on a hold-out, not on what it was fitted to;
    earlier scores are clamped in use as they are in training. `PublishedEENet` undoes all but the forced last exit
    and the hold-out.

    Args:
        by_class: (K−1, C) w₁. by_summary: (K−1, K) w₂, unused tails zero. thresholds: (K−1,).
        budget: asked for. assignment: K mean shares that were learned. in_band: whether they cost B ± 10 %.
        clamp_past: whether earlier scores are clamped to [0, 1] before they are features.
    """

    name = "eenet"
    uses_history = True
    by_class: Tensor
    by_summary: Tensor
    thresholds: Tensor
    family_settings: ClassVar[SchedulerSettings] = SchedulerSettings()
    clamps: ClassVar[bool] = True

    def __init__(
        self,
        by_class: Tensor,
        by_summary: Tensor,
        thresholds: Tensor,
        *,
        budget: float,
        assignment: list[float],
        in_band: bool = True,
        clamp_past: bool = True,
        acceptance: Acceptance = "released",
        cost_unit: str = "macs",
    ) -> None:
        super().__init__()
        self.register_buffer("by_class", by_class)
        self.register_buffer("by_summary", by_summary)
        self.register_buffer("thresholds", thresholds)
        self.budget, self.assignment, self.in_band = float(budget), list(assignment), in_band
        self.clamp_past, self.acceptance, self.cost_unit = clamp_past, acceptance, cost_unit

    def bind(self, structure: Structure) -> None:
        """A chain of as many exits and classes as were fitted."""
        super().bind(structure)
        if self.by_class.shape != (len(structure.names) - 1, structure.n_classes):
            raise PolicyError(
                f"scores of {len(self.by_class)} exits over {self.by_class.shape[1]} classes were given to a chain of "
                f"{len(structure.names)} exits and {structure.n_classes} classes.",
                todo="Fit the policy on this model's own log.",
            )

    def scores_until(self, history: Tensor, node: int) -> Tensor:
        """(n, node + 1) unclamped q of the exits up to a node. history: (n, V, C) logits."""
        out: list[Tensor] = []
        for k in range(node + 1):
            seen = Signals(history[:, k])
            past = [q.clamp(0, 1) if self.clamp_past else q for q in out]
            summary = torch.cat([seen.confidence[:, None], 1 - seen.entropy[:, None], *past], 1)
            linear = F.linear(seen.probabilities, self.by_class[k : k + 1])
            out.append(linear + F.linear(summary, self.by_summary[k : k + 1, : k + 2]))
        return torch.cat(out, 1)

    def margin(self, node: int, signals: Signals) -> Tensor:
        """Threshold minus q, not clamped: gradients reach every earlier exit too."""
        assert signals.history is not None
        return self.thresholds[node] - self.scores_until(signals.history, node)[:, node]

    @classmethod
    def fit(
        cls,
        log: CalibrationLog,
        *,
        budget: float | None = None,
        acceptance: Acceptance = "released",
        settings: SchedulerSettings | None = None,
        holdout: float = 0.2,
        seed: int = 0,
    ) -> Self:
        """A scheduler for one budget.

        Args:
            budget: B, mean cost in the log's unit, within [c_1, c_K] (default: their middle).
            acceptance: "released": the learned assignment as it is, of the restarts within ± 10 % of B the one most
                accurate on the hold-out; "within": that assignment tilted by ρ^k to the dearest that costs at most B
                on the log.
            settings: of the training (default: `family_settings`).
            holdout: share of the log that chooses between restarts.

        Raises:
            UsageError: a budget outside the range.
            CalibrationError: fewer than 50 samples.
            PolicyError: the graph is no chain.
        """
        budget = log.budget(budget)
        scheduler, in_band = _best_scheduler(log, budget, settings or cls.family_settings, holdout, seed, start=None)
        return cls._from_scheduler(scheduler, log, budget, in_band=in_band, acceptance=acceptance)

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """`FAMILY_SIZE` budgets; the middle one is trained in full, each other goes on from its neighbour."""
        budgets = budgets_of(log, FAMILY_SIZE + 2)[1:-1]
        middle = FAMILY_SIZE // 2
        whole, shorter = cls.family_settings, cls.family_settings.continued()
        trained = {middle: _best_scheduler(log, budgets[middle], whole, 0.2, seed, start=None)}
        for i in [*reversed(range(middle)), *range(middle + 1, FAMILY_SIZE)]:
            neighbour = i + 1 if i < middle else i - 1
            trained[i] = _best_scheduler(log, budgets[i], shorter, 0.2, seed, start=trained[neighbour][0])
        return [
            cls._from_scheduler(scheduler, log, budgets[i], in_band=in_band)
            for i, (scheduler, in_band) in sorted(trained.items())
        ]

    @classmethod
    def _from_scheduler(
        cls,
        scheduler: Scheduler,
        log: CalibrationLog,
        budget: float,
        *,
        in_band: bool,
        acceptance: Acceptance = "released",
    ) -> Self:
        deciders = scheduler.exits - 1
        by_summary = torch.zeros(deciders, deciders + 1)
        for k in range(deciders):
            by_summary[k, : k + 2] = scheduler.by_summary[k].weight[0].detach()  # type: ignore[index]
        by_class = torch.stack([layer.weight[0].detach() for layer in scheduler.by_class[:-1]])  # type: ignore[index]
        assignment = _assignment(scheduler, log)
        policy = cls(
            by_class,
            by_summary,
            torch.zeros(deciders),
            budget=budget,
            assignment=assignment.tolist(),
            in_band=in_band,
            clamp_past=cls.clamps,
            acceptance=acceptance,
            cost_unit=log.cost_unit,
        )
        with torch.no_grad():
            # the last column never decides
            scores = F.pad(policy.scores_until(log.logits, deciders - 1), (0, 1))
        never = max(2.0, float(scores.max()) + 1.0)
        if acceptance == "released":
            thresholds = quota_thresholds(scores, assignment, never=never, ties="released")
        else:
            thresholds = search_quotas(
                scores, log.exit_costs, budget, acceptance=acceptance, base=assignment, never=never
            ).thresholds
        policy.thresholds.copy_(thresholds[:-1])
        return policy

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild from a checkpoint."""
        return cls(
            tensors["by_class"],
            tensors["by_summary"],
            tensors["thresholds"],
            budget=settings["budget"],
            assignment=settings["assignment"],
            in_band=settings["in_band"],
            clamp_past=settings["clamp_past"],
            acceptance=settings["acceptance"],
            cost_unit=settings["cost_unit"],
        )

    def describe(self) -> dict[str, Any]:
        """Budget, the assignment learned for it and the thresholds."""
        return {
            "budget": self.budget,
            "cost_unit": self.cost_unit,
            "assignment": [round(p, 6) for p in self.assignment],
            "in_band": self.in_band,
            "acceptance": self.acceptance,
            "clamp_past": self.clamp_past,
            "thresholds": [round(t, 6) for t in self.thresholds.tolist()],
        }


class PublishedEENet(EENet):
    """EENet as released: 1000 epochs of small batches, 10 restarts, bounded r, unclamped earlier scores, from scratch.

    A budget takes some ten minutes on one thread, the family ten times that. Its bounded shares keep budgets near
    either end out of reach; `in_band` says which.
    """

    name = "eenet-published"
    family_settings = PUBLISHED
    clamps = False

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """`FAMILY_SIZE` budgets, each trained in full from its own restarts."""
        return [cls.fit(log, budget=budget, seed=seed) for budget in budgets_of(log, FAMILY_SIZE + 2)[1:-1]]


@torch.no_grad()
def _assignment(scheduler: Scheduler, log: CalibrationLog) -> Tensor:
    """(K,) mean share of each exit."""
    return scheduler.shares(scheduler.scores(scheduler_inputs(log.logits))[1]).double().mean(0)


def _best_scheduler(
    log: CalibrationLog,
    budget: float,
    settings: SchedulerSettings,
    holdout: float,
    seed: int,
    *,
    start: Scheduler | None,
) -> tuple[Scheduler, bool]:
    """The restart that is most accurate on the hold-out among those in the band; nearest to the budget if none is."""
    if not log.structure.is_chain or len(log.structure.names) < 2:
        raise PolicyError("EENet schedules the exits of a chain of two or more.", todo="Use dag-selection on a DAG.")
    log.require(50, "fit a scheduler")
    if not 0.0 < holdout < 1.0:
        raise UsageError(f"a hold-out of {holdout:g} leaves nothing to fit or to choose on.", todo="Give 0.2.")
    check_budget(budget, log.exit_costs, log.cost_unit)
    fitting, choosing = log.halves(1 - holdout)
    inputs, correct = scheduler_inputs(fitting.logits), fitting.correct.float()
    judged, right = scheduler_inputs(choosing.logits), choosing.correct
    unit = float(log.exit_costs[-1])
    costs, wanted = (log.exit_costs / unit).float(), budget / unit
    generator = torch.Generator().manual_seed(seed)
    restarts: list[tuple[bool, float, Scheduler]] = []
    for _ in range(settings.restarts):
        scheduler = Scheduler(
            correct.shape[1], log.structure.n_classes, hidden_rate=settings.hidden_rate, bounded=settings.bounded
        )
        if start is None:
            scheduler.start(generator, at_confidence=settings.start_at_confidence)
        else:
            scheduler.load_state_dict(start.state_dict())
        train(scheduler, inputs, correct, costs, wanted, settings, generator)
        with torch.no_grad():
            assignment = _assignment(scheduler, fitting)
            off = abs(float(assignment @ costs.double()) - wanted) / wanted
            thresholds = quota_thresholds(scheduler.scores(inputs)[0], assignment, ties="released")
            leaves = exits_taken(scheduler.scores(judged)[0], thresholds)
        accuracy = float(right.gather(1, leaves[:, None]).float().mean())
        restarts.append((off < settings.band, accuracy if off < settings.band else -off, scheduler))
    in_band, _, best = max(restarts, key=lambda f: (f[0], f[1]))
    return best.requires_grad_(False), in_band
