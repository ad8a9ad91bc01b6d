"""Exit heads trained against slow-down: on pictures that are crafted, step by step, to keep the deployed rule going."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import MultiExit, Policy, Signals, Split
from adaptbench.adaptive.domain import pictures_of
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.policy import edge_margins
from adaptbench.errors import UsageError
from adaptbench.zoo.training.loop import Training, fit
from adaptbench.zoo.training.objective import call
from adaptbench.zoo.training.phase import Phase


def slowed(model: MultiExit, x: Tensor, *, eps: float, steps: int) -> Tensor:
    """Pictures in an L∞ ball on which the policy in force goes on longer: projected sign steps from a uniform start.

    What is pushed is the policy's own margin at every exit, up to where the exit no longer stops.

    Args:
        x: (n, C, H, W) in the domain. eps: of the ball. steps: each of 2.5 · eps / steps.
    """
    domain = pictures_of(model.domain, "slow-down by pixels")
    moved = domain.clamp(x + eps * (2 * torch.rand_like(x) - 1))
    for _ in range(steps):
        leaf = moved.detach().requires_grad_()
        closed = margins_of(model, leaf).clamp(max=0.0).sum()
        (slope,) = torch.autograd.grad(closed, leaf)
        moved = moved + 2.5 * eps / steps * slope.sign()
        moved = domain.clamp(torch.minimum(torch.maximum(moved, x - eps), x + eps))
    return moved.detach()


def margins_of(model: MultiExit, x: Tensor) -> Tensor:
    """(n, V − 1) as `relax` gives them, in eval mode; the last node, which decides nothing, is not run."""
    margins: list[Tensor] = []
    with frozen(model):
        features = x
        for v, (stage, head) in enumerate(zip(list(model.stages)[:-1], list(model.heads)[:-1], strict=True)):
            features = stage(features)
            scores = model.policy.scores(v, Signals(head(features), ways=model.structure.successors[v]))
            margins.append(edge_margins(scores))
    return torch.cat(margins, 1)


class _Heads(nn.Module):
    """The heads before the last one as a module of their own; the trunk that feeds them is only looked at."""

    def __init__(self, model: MultiExit, eps: float, steps: int, weight: float) -> None:
        super().__init__()
        self._model = (model,)  # a tuple, so that its other weights are not ours
        self.heads = nn.ModuleList(list(model.heads)[:-1])
        self.eps, self.steps, self.weight = eps, steps, weight

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ over heads of (1 − w) · CE on the pictures + w · CE on the slowed ones, each of its own pictures."""
        (model,) = self._model
        both = torch.cat([x, slowed(model, x, eps=self.eps, steps=self.steps)])
        shares = torch.cat([torch.full_like(y, 1 - self.weight, dtype=x.dtype), x.new_full((len(y),), self.weight)])
        labels, features = torch.cat([y, y]), both
        value = torch.zeros((), device=x.device)
        for stage, head in zip(list(model.stages)[:-1], self.heads, strict=True):
            with torch.no_grad():
                features = stage(features)
            value = value + (shares * F.cross_entropy(head(features), labels, reduction="none")).sum() / len(y)
        return value


def train_against_slowdown(
    model: MultiExit,
    split: Split,
    phase: Phase,
    *,
    policy: Policy,
    eps: float,
    steps: int,
    weight: float,
    **settings: Any,
) -> Training:
    """Adversarial training (Madry et al., ICLR 2018) of the exit heads; stages and last head stay bit for bit.

    Deviates: the pictures are crafted against cost, not against the answer, by the margins of a policy; only the heads
    learn, so that the static net and the largest accuracy stay as they were.

    Args:
        model: a trained multi-exit net. split, phase: training samples, and how.
        policy: whose margins are pushed, one exit at a time; fitted on the net as it comes, kept while heads move.
        eps, steps: of `slowed`. weight: of the crafted pictures in the loss, in [0, 1].
        settings: as `fit` takes them.

    Raises:
        UsageError: eps, steps or weight out of range, or a policy that looks back.
    """
    if policy.uses_history:
        raise UsageError(
            f"'{policy.name}' looks at earlier exits, and margins are taken here one exit at a time.",
            todo="Give a policy that decides on the exit it stands at, such as softmax-threshold.",
        )
    if not 0 < eps <= 1 or steps < 1 or not 0 <= weight <= 1:
        raise UsageError(
            f"eps={eps}, steps={steps}, weight={weight} cannot train heads against slow-down.",
            todo="Give 0 < eps ≤ 1, steps ≥ 1 and a weight in [0, 1].",
        )
    own = model.policy
    model.policy = policy
    needed = [p.requires_grad for p in model.parameters()]
    heads = _Heads(model, eps, steps, weight)
    model.requires_grad_(False)
    heads.requires_grad_(True)
    try:
        with frozen(model):
            return fit(heads, split, phase, call, **settings)
    finally:
        for tensor, before in zip(model.parameters(), needed, strict=False):
            tensor.requires_grad_(before)
        model.policy = own
