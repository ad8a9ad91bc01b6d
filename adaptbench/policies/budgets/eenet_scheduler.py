"""EENet's scheduler: how sure an exit is (q) and what share of the samples it should take (r), learned in turns."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.outcome import Signals
from adaptbench.policies.gates.learned_cascade import seed_weights


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """How a scheduler is trained; the defaults are ours, made for seconds on one thread.

    Args:
        lr, weight_decay: of Adam. batch: rows a step; None takes all. epochs: at most. patience: epochs without a
            better loss before stopping. period: epochs of a phase. restarts: from other weights.
        kl_weight: α_KL. cost_weight: α_cost. sharpness: β of the target. hidden_rate: hidden width over input width.
        bounded: r through an outer logistic function, as printed. Every share then lies between 1 / (1 + (K − 1)·e)
            and e / (e + K − 1), and budgets near either end are out of reach.
        start_at_confidence: q begins as the top probability, not at random.
        band: how far the scheduled cost may be from the budget, a fraction of it.
    """

    lr: float = 1e-2
    weight_decay: float = 1e-4
    batch: int | None = None
    epochs: int = 100
    patience: int = 40
    period: int = 10
    restarts: int = 3
    kl_weight: float = 1e-3
    cost_weight: float = 1e-2
    sharpness: float = 1.0
    hidden_rate: float = 0.5
    bounded: bool = False
    start_at_confidence: bool = True
    band: float = 0.1

    def continued(self) -> SchedulerSettings:
        """For a neighbouring budget, going on from a trained scheduler."""
        return replace(self, epochs=max(2 * self.period, self.epochs // 3), restarts=1)


PUBLISHED = SchedulerSettings(
    lr=3e-5,
    weight_decay=1e-2,
    batch=512,
    epochs=1000,
    patience=100,
    restarts=10,
    bounded=True,
    start_at_confidence=False,
)
"""The released values."""


class Scheduler(nn.Module):
    """One "score normaliser" an exit, on X_k = [P_k; max P_k; 1 + Σ P log P / log C; clamp(q_1) … clamp(q_{k−1})].

    Ilhan et al., "Adaptive Deep Neural Network Inference Optimization with EENet", WACV 2024, as released.

    Args:
        exits: K. n_classes: C. hidden_rate: of r's hidden layer. bounded: r through an outer logistic function.
    """

    def __init__(self, exits: int, n_classes: int, *, hidden_rate: float = 0.5, bounded: bool = False) -> None:
        super().__init__()
        self.exits, self.n_classes, self.bounded = exits, n_classes, bounded
        widths = [n_classes + 2 + k for k in range(exits)]
        hidden = [max(1, int(hidden_rate * w)) for w in widths]
        self.by_class = nn.ModuleList(nn.Linear(n_classes, 1, bias=False) for _ in widths)
        self.by_summary = nn.ModuleList(nn.Linear(w - n_classes, 1, bias=False) for w in widths)
        self.share = nn.ModuleList(
            nn.Sequential(nn.Linear(w, h), nn.Sigmoid(), nn.Linear(h, 1)) for w, h in zip(widths, hidden, strict=True)
        )

    def start(self, generator: torch.Generator, *, at_confidence: bool) -> None:
        """Weights drawn from the generator; `at_confidence`: q starts as the top probability, give or take."""
        seed_weights(self.share, generator)
        for classes, summary in zip(self.by_class, self.by_summary, strict=True):
            for layer in (classes, summary):
                bound = (0.1 if at_confidence else 1.0) / math.sqrt(layer.in_features)  # type: ignore[arg-type]
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)  # type: ignore[arg-type]
            if at_confidence:
                with torch.no_grad():
                    summary.weight[0, 0] += 1.0  # type: ignore[index,operator]

    def scores(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(N, K) unclamped q, gradients within each exit only, and the K inputs X_k. inputs: K of (N, C + 2)."""
        out: list[Tensor] = []
        full: list[Tensor] = []
        for k, x in enumerate(inputs):
            past = [q.detach().clamp(0, 1) for q in out]
            whole = torch.cat([x, *past], 1) if past else x
            full.append(whole)
            out.append(self.by_class[k](x[:, : self.n_classes]) + self.by_summary[k](whole[:, self.n_classes :]))
        return torch.cat(out, 1), full

    def shares(self, full: list[Tensor]) -> Tensor:
        """(N, K) assignment p: softmax over exits of r. full: K of X_k."""
        r = torch.cat([net(x) for net, x in zip(self.share, full, strict=True)], 1)
        return (r.sigmoid() if self.bounded else r).softmax(1)


def scheduler_inputs(logits: Tensor) -> list[Tensor]:
    """K of (N, C + 2): probabilities, their maximum, one minus the normalised entropy. logits: (N, K, C)."""
    out = []
    for k in range(logits.shape[1]):
        signals = Signals(logits[:, k])
        out.append(torch.cat([signals.probabilities, signals.confidence[:, None], 1 - signals.entropy[:, None]], 1))
    return out


def score_loss(q: Tensor, correct: Tensor, shares: Tensor) -> Tensor:
    """L_score = (1/K) Σ_k Σ_n w_nk BCE(clamp(q_nk), correct_nk), w = p / Σ_n p. All (N, K)."""
    weights = shares / shares.sum(0)
    return (weights * F.binary_cross_entropy(q.clamp(0, 1), correct, reduction="none")).sum(0).mean()


def divergence(shares: Tensor, q: Tensor, sharpness: float = 1.0) -> Tensor:
    """L_KL: mean over samples and exits of target · (log target − log p), target ∝ clamp(q)^β."""
    target = q.detach().clamp(0, 1) ** sharpness
    target = target / target.sum(1, keepdim=True).clamp_min(1e-12)
    return F.kl_div(shares.clamp_min(1e-12).log(), target, reduction="none").mean()


def cost_loss(shares: Tensor, costs: Tensor, budget: float) -> Tensor:
    """L_cost = |(1/N) Σ_n Σ_k p_nk c_k − B| / B."""
    return (shares.mean(0) @ costs - budget).abs() / budget


def _batches(rows: int, settings: SchedulerSettings, generator: torch.Generator) -> Iterator[Tensor | slice]:
    """The rows of every step of one phase."""
    for _ in range(settings.period):
        if settings.batch is None or settings.batch >= rows:
            yield slice(None)
            continue
        order = torch.randperm(rows, generator=generator)
        yield from (order[i : i + settings.batch] for i in range(0, rows, settings.batch))


def train(
    scheduler: Scheduler,
    inputs: list[Tensor],
    correct: Tensor,
    costs: Tensor,
    budget: float,
    settings: SchedulerSettings,
    generator: torch.Generator,
) -> None:
    """Phases of learning q and of learning r, in turns; ends with the best weights seen.

    The weights p of a score phase and the targets of an assignment phase are taken at the phase's start (q does not
    move while r learns, so the latter is no difference). The best state is kept by its total loss, among those whose
    L_cost is below the band, after each pair of phases.

    Args:
        inputs: K of (N, C + 2). correct: (N, K) float. costs: (K,) c_k over c_K. budget: in the same unit.
    """
    rows = len(correct)
    scoring = [*scheduler.by_class.parameters(), *scheduler.by_summary.parameters()]
    learners = [
        torch.optim.Adam(scoring, lr=settings.lr, weight_decay=settings.weight_decay),
        torch.optim.Adam(scheduler.share.parameters(), lr=settings.lr, weight_decay=settings.weight_decay),
    ]
    best, kept, since = math.inf, copy.deepcopy(scheduler.state_dict()), 0
    for phase in range(math.ceil(settings.epochs / settings.period)):
        which = phase % 2
        with torch.no_grad():
            q_now, full = scheduler.scores(inputs)
            shares_now = scheduler.shares(full)
        for part in _batches(rows, settings, generator):
            with torch.enable_grad():
                if which == 0:
                    q = scheduler.scores([x[part] for x in inputs])[0]
                    loss = score_loss(q, correct[part], shares_now[part])
                else:
                    p = scheduler.shares([x[part] for x in full])
                    loss = settings.kl_weight * divergence(p, q_now[part], settings.sharpness)
                    loss = loss + settings.cost_weight * cost_loss(p, costs, budget)
                learners[which].zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            learners[which].step()
        if which == 0:
            continue
        with torch.no_grad():
            p = scheduler.shares(full)
            off = float(cost_loss(p, costs, budget))
            total = settings.kl_weight * float(divergence(p, q_now, settings.sharpness)) + settings.cost_weight * off
            total += float(score_loss(q_now, correct, p))
        if off < settings.band and total < best:
            best, kept, since = total, copy.deepcopy(scheduler.state_dict()), 0
        elif math.isfinite(best):
            since += 2 * settings.period
        if since >= settings.patience:
            break
    if math.isfinite(best):  # else the last weights: no state came near the budget
        scheduler.load_state_dict(kept)
