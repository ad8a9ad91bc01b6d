"""The loop under every gradient attack: a pool of samples that move, are checked by the hard pass, and retire.

The pool is refilled as samples retire, so that the few hard ones do not run in crumbs; each sample has a step count
of its own. What is kept is the best picture by *executed* MACs of its 8-bit rounding. The hard pass runs only where
it can tell something new: the whole dearest path looks open, every tenth step, at the end; where a decision has
flipped, if the decisions of the relaxed pass, whose signs are the hard pass's, cost more than what is kept, or if a
closed one is nearer to its threshold than the last step moved it, so that rounding may open it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.gated import decides_ahead
from adaptbench.adaptive.outcome import tie_margin
from adaptbench.attacks.base import MASKED_SHARE, Task, Unaudited
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.dear_starts import towards
from adaptbench.attacks.judging import NEVER, POOL, Best, Judge, Keep
from adaptbench.attacks.objectives import Context, Goal, GradientObjective
from adaptbench.attacks.precision import measured
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.attacks.recipe import Precision
from adaptbench.attacks.searches import GradientSearch, State

CHECK_EVERY = 10
MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Steps after which the mean cost so far is told."""
Start = Literal["as-set", "noise", "best", "dear"]
"""Where pictures begin: as the search is set (mostly the clean one), on the edge of the ball, at the best so far, or on
the way towards other pictures that are dear as they are."""


@dataclass(slots=True)
class _Pool:
    """Samples on the move; every tensor has them first."""

    rows: Tensor
    age: Tensor
    seen: Tensor
    margins: Tensor
    state: State
    context: Context

    def select(self, chosen: Tensor) -> _Pool:
        return _Pool(
            self.rows[chosen],
            self.age[chosen],
            self.seen[chosen],
            self.margins[chosen],
            {k: v[chosen] for k, v in self.state.items()},
            {k: v[chosen] for k, v in self.context.items()},
        )

    def add(self, more: _Pool) -> _Pool:
        return _Pool(
            torch.cat([self.rows, more.rows]),
            torch.cat([self.age, more.age]),
            torch.cat([self.seen, more.seen]),
            torch.cat([self.margins, more.margins]),
            {k: torch.cat([v, more.state[k]]) for k, v in self.state.items()},
            {k: torch.cat([v, more.context[k]]) for k, v in self.context.items()},
        )


class Deadline:
    """A number of seconds from now, or none."""

    def __init__(self, seconds: float | None) -> None:
        self.end = None if seconds is None else time.monotonic() + seconds

    def over(self) -> bool:
        """True after it."""
        return self.end is not None and time.monotonic() > self.end


class Optimiser:
    """Objective × constraint × search on one task.

    Args:
        model: whose relaxation and hard pass are used: the target, or a surrogate.
        best: where what comes out is kept; an attack of several members hands one on. start: where pictures begin.
        deadline: after it the rest retires as it is. precision: of the passes that gradients are taken of.
        dear: (K, C, H, W) uint8, the pictures that the start "dear" leads towards.
    """

    def __init__(
        self,
        task: Task,
        model: AdaptiveModel,
        objective: GradientObjective,
        constraint: Constraint,
        search: GradientSearch,
        keep: Keep,
        *,
        best: Best | None = None,
        start: Start = "as-set",
        deadline: Deadline | None = None,
        precision: Precision = "fp32",
        dear: Tensor | None = None,
    ) -> None:
        self.task, self.model, self.objective = task, model, objective
        self.constraint, self.search, self.keep, self.start, self.dear = constraint, search, keep, start, dear
        self.best = best or Best(Judge(model, task.x, task.y), keep)
        self.deadline, self.precision = deadline or Deadline(None), precision
        self.flat = self.moved = self.steps = self.cut = 0
        self.after = {mark: torch.full_like(self.best.score, NEVER) for mark in MARKS if mark < search.steps}

    def run(self) -> Unaudited:
        """Until every sample has retired."""
        with self.model.steady():
            return self._run()

    def _run(self) -> Unaudited:
        everyone = torch.arange(len(self.task.x), device=self.task.x.device)
        entering = everyone[~self.best.done(everyone)]
        waiting = list(torch.split(entering, POOL // 2)) if len(entering) else []
        self.task.progress(len(everyone) - len(entering), len(everyone))
        pool: _Pool | None = None
        while pool is not None or waiting:
            while waiting and (pool is None or len(pool.rows) <= POOL // 2):
                fresh = self._enter(waiting.pop(0))
                pool = fresh if pool is None else pool.add(fresh)
            assert pool is not None
            if self.deadline.over():
                self.cut = len(pool.rows) + sum(len(w) for w in waiting)
                self._finish(pool)
                self.task.progress(len(everyone), len(everyone))
                break
            staying = self._step(pool)
            pool = None if not staying.any() else pool if staying.all() else pool.select(staying)
            running = 0 if pool is None else len(pool.rows)
            self.task.progress(len(everyone) - running - sum(len(w) for w in waiting), len(everyone))
        return Unaudited(self.best.pictures, details=self._details())

    def _enter(self, rows: Tensor) -> _Pool:
        task = self.task
        clean = task.x[rows]
        noise = uniform_pixels(task.ids[rows], tuple(clean.shape[1:]), task.seed)
        state = self.search.begin(clean, self.constraint, noise)
        if (place := self._place(rows, clean, noise)) is not None:
            state["variable"] = self.search.variable(place, clean, self.constraint)
        state["loss"] = torch.full((len(rows),), torch.inf, device=clean.device)
        age = torch.zeros_like(rows)
        context = self.objective.prepare(self.model, clean)
        context["progress"] = torch.zeros(len(rows), device=clean.device)
        margins = clean.new_full((len(rows), len(self.model.dearest_decisions)), torch.nan)
        return _Pool(rows, age, age - 1, margins, state, context)

    def _place(self, rows: Tensor, clean: Tensor, noise: Tensor) -> Tensor | None:
        """The picture to begin with, where it is not the search's own choice."""
        if self.start == "noise":
            return self.constraint.project(clean + self.constraint.draw(noise, None), clean)
        if self.start == "dear":
            assert self.dear is not None
            with torch.no_grad():
                return towards(self.best, self.constraint, self.dear, rows, clean)
        return self.best.pictures[rows].float() / 255.0 if self.start == "best" else None

    def _step(self, pool: _Pool) -> Tensor:
        """Look, check, move. Returns (n,) bool: who goes on."""
        variable = pool.state["variable"] = pool.state["variable"].detach().requires_grad_()
        x = self.search.point(pool.state, self.constraint)
        pool.context["progress"] = pool.age / self.search.steps
        goal = self._measure(pool, x)
        gradient = gradient_of(goal, variable)
        pool.state["variable"], pool.state["loss"] = variable.detach(), goal.loss.detach().float()
        x = x.detach()
        self._count_flat(pool, goal, gradient)
        if self.keep != "last":
            self._check(pool, x, goal)
        going = ~self.best.done(pool.rows)
        self.search.advance(pool.state, gradient, pool.age, self.constraint)
        pool.age = pool.age + 1
        self._mark(pool)
        self.steps += int(going.sum())
        ending = going & (pool.age >= self.search.steps)
        if ending.any():
            self._finish(pool.select(ending))
        return going & ~ending & ~self.best.done(pool.rows)

    def _measure(self, pool: _Pool, x: Tensor) -> Goal:
        clean, y = pool.state["clean"], self.task.y[pool.rows]
        return measured(self.objective, self.model, x, clean, pool.context, y, self.precision)

    def _mark(self, pool: _Pool) -> None:
        """The best score of those that have taken so many steps."""
        for mark, score in self.after.items():
            rows = pool.rows[pool.age == mark]
            score[rows] = self.best.score[rows]

    def _curve(self) -> dict[str, float]:
        """Mean MACs of the best pictures after so many steps a sample; who retired before keeps what it had."""
        judge, final = self.best.judge, self.best.score
        costs = judge.aim == "dearest" and judge.label == "free" and self.model is self.task.model
        if not costs or self.keep == "last" or not len(final):
            return {}
        told = {mark: torch.where(score == NEVER, final, score) for mark, score in self.after.items()}
        told[self.search.steps] = final
        return {f"macs_at_step_{mark}": float(score.double().mean()) for mark, score in told.items()}

    def _check(self, pool: _Pool, x: Tensor, goal: Goal) -> None:
        look = pool.age % CHECK_EVERY == CHECK_EVERY - 1
        if goal.on is None:
            look = torch.ones_like(look)
        else:
            pattern = _pattern(goal.on)
            look = look | self._promising(pool, goal.on, goal.margins, pattern != pool.seen)
            pool.seen = pattern
            if goal.margins is not None:
                pool.margins = goal.margins
        if goal.reached is not None:
            look = look | goal.reached
            self.best.promised[pool.rows] |= goal.reached.detach()
        at = look.nonzero().flatten()
        if len(at):
            pictures = self.constraint.quantise(x[at], pool.state["clean"][at])
            dearer = self._dearer(pool.rows[at], pictures)
            at, pictures = at[dearer], pictures[dearer]
            rows = pool.rows[at]
            self.best.offer(rows, pictures, self._rank(pictures, rows, goal.loss.detach()[at]), x[at])

    def _dearer(self, rows: Tensor, pictures: Tensor) -> Tensor:
        """(n,) bool: whose rounded pictures cost more than what is kept, where decisions alone tell; else everybody."""
        judge = self.best.judge
        if not decides_ahead(self.model) or judge.model is not self.model or judge.aim != "dearest":
            return torch.ones_like(rows, dtype=torch.bool)
        with torch.no_grad():
            margins = self.model.relax(pictures.float() / 255.0, last=False).margins
        macs, tie = self.model.macs_of(margins > 0), margins.abs() <= tie_margin(margins.dtype)
        assert macs is not None
        best = self.best.score[rows]
        return (macs > best if self.keep == "first" else macs >= best) | tie.any(1)

    def _promising(self, pool: _Pool, on: Tensor, margins: Tensor | None, flipped: Tensor) -> Tensor:
        """(n,) bool: of those whose decisions have flipped, whom they cost more, or would if rounding opened one."""
        at = flipped.nonzero().flatten()
        if not len(at) or margins is None or self.best.judge.aim != "dearest":
            return flipped
        macs = self.model.macs_of(on[at])
        if macs is None:
            return flipped
        best, now = self.best.score[pool.rows[at]], margins[at]
        pays = macs > best if self.keep == "first" else macs >= best
        near = ~on[at] & (now.abs() <= (now - pool.margins[at]).abs())
        return flipped.index_put((at,), pays | near.any(1))

    def _finish(self, pool: _Pool) -> None:
        """The picture after the last step, which no gradient was taken of."""
        with torch.no_grad():
            x = self.search.point(pool.state, self.constraint)
            pictures = self.constraint.quantise(x, pool.state["clean"])
            if self.keep == "last":
                zero = torch.zeros(len(x), device=x.device)
                self.best.take(pool.rows, pictures, self.best.judge.score(pool.rows, pictures), zero)
                return
            loss = zero = torch.zeros(len(x), device=x.device)
            if self.keep == "deepest":
                loss = self._measure(pool, x).loss
            self.best.offer(pool.rows, pictures, self._rank(pictures, pool.rows, loss), x)

    def _rank(self, pictures: Tensor, rows: Tensor, loss: Tensor) -> Tensor:
        if self.keep == "nearest":
            change: Tensor = (pictures.float() / 255.0 - self.task.x[rows]).flatten(1)
            return change.square().sum(1).sqrt()
        return loss if self.keep == "deepest" else torch.zeros_like(loss)

    def _count_flat(self, pool: _Pool, goal: Goal, gradient: Tensor) -> None:
        starting = pool.age == 0
        if goal.reached is not None:
            starting &= ~goal.reached
        if starting.any():
            self.moved += int(starting.sum())
            self.flat += int((gradient[starting].flatten(1) == 0).all(1).sum())

    def _details(self) -> dict[str, Any]:
        details: dict[str, Any] = {
            "steps_run": self.steps,
            "hard_checks": self.best.judge.checks,
            **self.best.account(),
            **self._curve(),
            "started": self.moved,
            "zero_gradient": self.flat,
        }
        if self.cut:
            details["notes"] = [f"the time was over while {self.cut} samples were still on the move"]
        if self.flat > MASKED_SHARE * max(self.moved, 1):
            details["notes"] = [
                *details.get("notes", []),
                f"the gradient is exactly zero for {self.flat} of {self.moved} samples: "
                "it may be masked, and a failed attack is no evidence",
            ]
        return details


def gradient_of(goal: Goal, variable: Tensor) -> Tensor:
    """Of the loss; where the goal guards something, without the part that would undo it (GradAuto, ECCV 2022)."""
    (gradient,) = torch.autograd.grad(goal.loss.sum(), variable, retain_graph=goal.guard is not None)
    gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
    if goal.guard is None:
        return gradient
    (guarded,) = torch.autograd.grad(goal.guard.sum(), variable)
    guarded = guarded.nan_to_num(0.0, 0.0, 0.0).flatten(1)
    unit = guarded / guarded.norm(dim=1, keepdim=True).clamp_min(1e-12)
    against = (gradient.flatten(1) * unit).sum(1, keepdim=True).clamp_max(0.0)
    rest: Tensor = gradient - (against * unit).view_as(gradient)
    return rest


def _pattern(on: Tensor) -> Tensor:
    """(n,) int64, one number for each set of decisions (the first 62)."""
    bits = on[:, :62].to(torch.int64)
    return (bits << torch.arange(bits.shape[1], device=on.device)).sum(1)


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size`."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
