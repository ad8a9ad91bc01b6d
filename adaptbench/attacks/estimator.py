"""A stand-in for the power meter: a small net that learns, from queried costs, what makes a picture expensive."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from adaptbench.adaptive.pooling import MeanPool
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.objectives import Objective
from adaptbench.attacks.ranges import UNSAID, count, real
from adaptbench.attacks.searches import GradientSearch

BATCH = 128
FIT_PICTURES = 200


@dataclass(frozen=True, slots=True)
class EstimatorEnergy(Objective):
    """1 − Ê(x'): raise the cost that an estimator predicts (EREBA, Haque et al., ICSE 2022).

    Args:
        rounds: of crafting, querying and refitting.
        climbs: on the estimator, an input and round, and more where the budget would be left over; each queries the
            last pictures on its way.
        probes: random pictures an input that the first fit sees, besides the clean one.
        width: channels of the estimator's first layer.
        fit_steps: minibatch steps a refit.
        holdout: share of the queried pictures that no fit sees.
        fit_on: "own": the estimator is fitted on queries around the attacked inputs themselves, and refitted on what it
            led to; "disjoint": once, on queries around pictures that nothing is judged on.
        fit_pictures: of those, at most; each is asked for as it is and for each probe.
    """

    name: ClassVar[str] = "estimator"
    requires: ClassVar[frozenset[str]] = frozenset({"queries"})
    rounds: Annotated[int, count(1, 10_000)] = 10
    climbs: Annotated[int, count(1, 10_000)] = 4
    probes: Annotated[int, count(1, 100_000)] = 8
    width: Annotated[int, count(1, 1024)] = 16
    fit_steps: Annotated[int, count(1, 100_000)] = 100
    holdout: Annotated[float, real(0.001, 0.5)] = 0.1
    fit_on: Literal["own", "disjoint"] = field(default="own", metadata=UNSAID)
    fit_pictures: Annotated[int, count(10, 1_000_000)] = field(default=FIT_PICTURES, metadata=UNSAID)


class Estimator(nn.Module):
    """Ê(x) in (0, 1): three convolutions, a linear layer, a sigmoid; MSE on the cost scaled by the observed range.

    Args:
        shape: (C, H, W). width: of the first convolution. generator: draws weights and minibatches.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, generator: torch.Generator) -> None:
        super().__init__()
        channels, height, breadth = shape
        side = min(height, breadth)
        pool = min(4, side)
        # halve until the map is about 8 wide: the estimator is fitted many times
        first, second, third = (2 if side >= limit else 1 for limit in (16, 8, 32))
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=first, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=second, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=third, padding=1),
            nn.SiLU(),
            MeanPool(pool),
            nn.Flatten(),
            nn.Linear(2 * width * pool * pool, 64),
            nn.SiLU(),
            nn.Linear(64, 1),
        )
        self.generator = generator
        for layer in self.layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                bound = math.sqrt(3.0 / layer.weight[0].numel())
                with torch.no_grad():
                    layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound)
                    nn.init.zeros_(layer.bias if layer.bias is not None else layer.weight.new_zeros(1))

    def logit(self, x: Tensor) -> Tensor:
        """(N,), Ê before the sigmoid: its slope does not vanish where the estimator is sure."""
        return self.layers((x - 0.5) * 4.0).squeeze(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """(N,) in (0, 1)."""
        return self.logit(x).sigmoid()

    def fit(self, pictures: Tensor, costs: Tensor, steps: int) -> None:
        """Go on training.

        Args:
            pictures: (M, C, H, W) uint8. costs: (M,) in [0, 1].
        """
        self.requires_grad_(True)
        optimiser = torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps + 1)
        for _ in range(steps):
            rows = torch.randint(len(pictures), (min(BATCH, len(pictures)),), generator=self.generator)
            rows = rows.to(pictures.device)
            loss = (self(pictures[rows].float() / 255.0) - costs[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        self.requires_grad_(False)

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> Tensor:
        """(M,) of uint8 pictures."""
        return torch.cat([self(part.float() / 255.0) for part in torch.split(pictures, 4 * BATCH)])


def rank_correlation(predicted: Tensor, true: Tensor) -> float | None:
    """Spearman's ρ; None where either side does not vary."""
    from scipy.stats import spearmanr

    a, b = predicted.cpu().double().numpy(), true.cpu().double().numpy()
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def within_inputs(predicted: Tensor, costs: Tensor, owners: Tensor) -> float | None:
    """Mean over inputs of the rank correlation of predictions with costs, each within one input's queries.

    A prediction that is the same for all of an input's queries tells nothing of what moves its cost, and counts as 0;
    so does an estimator that says one and the same of everything.

    Args:
        predicted, costs, owners: (M,), of queries that no fit saw.

    Returns:
        None where no input has three such queries of different cost, and the estimator says different things.
    """
    if len(predicted) and predicted.min() == predicted.max() and costs.min() < costs.max():
        return 0.0
    found = []
    for row in set(owners.tolist()):
        mine = owners == row
        if int(mine.sum()) >= 3 and costs[mine].min() < costs[mine].max():
            found.append(rank_correlation(predicted[mine], costs[mine]) or 0.0)
    return sum(found) / len(found) if found else None


def ascend(
    estimator: Estimator, search: GradientSearch, constraint: Constraint, clean: Tensor, near: Tensor, noise: Tensor
) -> Iterator[Tensor]:
    """Pictures on the way up an estimate, after each step; floats inside the constraint.

    Args:
        clean: (n, C, H, W), what the constraint is around. near: like clean, where to begin, put into the constraint.
        noise: like clean, in [−1, 1).
    """
    state = search.begin(clean, constraint, noise)
    state["variable"] = search.variable(constraint.project(near, clean), clean, constraint)
    age = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
    for _ in range(search.steps):
        variable = state["variable"] = state["variable"].detach().requires_grad_()
        loss = -estimator.logit(search.point(state, constraint))
        (gradient,) = torch.autograd.grad(loss.sum(), variable)
        state["variable"], state["loss"] = variable.detach(), loss.detach()
        search.advance(state, gradient, age, constraint)
        age = age + 1
        with torch.no_grad():
            yield search.point(state, constraint)
