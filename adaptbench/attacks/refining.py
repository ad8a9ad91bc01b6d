"""A few steps of a gradient from pictures that something quick has made, and no hard pass in between."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.judging import hard_macs
from adaptbench.attacks.objectives import Context, Goal, GradientObjective
from adaptbench.attacks.precision import measured
from adaptbench.attacks.recipe import Precision


class Refined:
    """Steps in the constraint's steepest direction, from one picture of whole grey levels to the next.

    So what a pass says of its decisions it says of the very picture that may be kept. Of the start and the pictures
    after each step the dearest is kept. What one costs is read off the signs of the relaxed pass that its gradient is
    taken of (law 4), for the last off one without a gradient; only where a kind of model cannot tell costs by
    decisions, the hard pass is asked. Who is on the dearest path moves no further.

    Args:
        model: steady. objective: whose gradient. step: in the constraint's norm. precision: of the relaxed passes.

    Attributes:
        passes: pictures that a gradient was taken of. looks: pictures that were looked at without one.
    """

    def __init__(
        self,
        model: AdaptiveModel,
        objective: GradientObjective,
        constraint: Constraint,
        steps: int,
        step: float,
        precision: Precision,
    ) -> None:
        self.model, self.objective, self.constraint = model, objective, constraint
        self.steps, self.step, self.precision = steps, step, precision
        self.passes = self.looks = 0

    def run(self, start: Tensor, clean: Tensor, y: Tensor) -> Tensor:
        """(n, C, H, W) uint8.

        Args:
            start: (n, C, H, W) uint8, allowed. clean: (n, C, H, W) float32, on the 8-bit grid. y: (n,) labels.
        """
        kept, cost = start.clone(), torch.full((len(start),), -1, dtype=torch.int64, device=start.device)
        rows, now = torch.arange(len(start), device=start.device), start
        context = self.objective.prepare(self.model, clean)
        for step in range(self.steps + 1):
            if not len(rows):
                break
            of = {key: value[rows] for key, value in context.items()}
            of["progress"] = torch.full((len(rows),), step / self.steps, device=start.device)
            last = step == self.steps
            goal, x = self._look(now, clean[rows], of, y[rows], slope=not last)
            found = self._costs(goal, now)
            better = found > cost[rows]
            kept[rows[better]], cost[rows[better]] = now[better], found[better]
            if last:
                break
            going = found < self.model.max_macs
            (gradient,) = torch.autograd.grad(goal.loss.sum(), x)
            rows, base = rows[going], clean[rows[going]]
            down = self.constraint.steepest(gradient[going].nan_to_num(0.0, 0.0, 0.0))
            now = self.constraint.quantise(x.detach()[going] - self.step * down, base)
        return kept

    def _look(self, now: Tensor, clean: Tensor, of: Context, y: Tensor, *, slope: bool) -> tuple[Goal, Tensor]:
        x = (now.float() / 255.0).requires_grad_(slope)
        self.passes += slope * len(now)
        self.looks += (not slope) * len(now)
        with torch.set_grad_enabled(slope):
            return measured(self.objective, self.model, x, clean, of, y, self.precision), x

    def _costs(self, goal: Goal, now: Tensor) -> Tensor:
        """(n,) int64 executed MACs."""
        told = None if goal.on is None else self.model.macs_of(goal.on)
        return hard_macs(self.model, now) if told is None else told
