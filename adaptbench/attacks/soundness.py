"""What an attack says against itself: slopes that are not those of its loss, promises that the hard pass breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.base import Task
from adaptbench.attacks.objectives import GradientObjective
from adaptbench.attacks.randomness import uniform_pixels

PROBED = 4
"""Samples of a craft on which slopes are checked."""
_STEPS = (1 / 1020, 1 / 10_200)  # a quarter of a grey level, and a tenth of that where the loss bends
_WITHIN = 0.5  # of the larger of the two slopes
_ROUNDING = 1e-5  # of a loss in float32
_REACH = 8 / 255
_DRAWS = 4
_SHARE = 0.1
"""Above this share of samples a doubt is said."""
_LEARNED = 0.1
"""Rank correlation with costs that it has not seen, below which an estimator is said to have learned nothing."""


def doubts(details: Mapping[str, Any]) -> list[str]:
    """Sentences about what an attack counted against itself.

    Args:
        details: of a craft, or of all chunks joined.
    """
    n, said = max(int(details.get("n") or 0), 1), []
    if outside := details.get("outside_constraint"):
        said.append(f"{outside} of {n} pictures lie outside the constraint: its figures are not of this threat model")
    checked, masked, differ = (details.get(f"slopes_{which}") or 0 for which in ("checked", "masked", "differ"))
    if masked > checked / 2:
        said.append(
            f"autograd calls the loss flat on {masked} of {checked} samples where finite differences find a slope: the "
            "gradient is masked, and a failed attack is no evidence"
        )
    if differ > checked / 2:
        said.append(
            f"on {differ} of {checked} samples the loss does not go where its gradient points (finite differences): "
            "decisions without a slope, or a gradient that is not the loss's own"
        )
    if (closed := details.get("closed_by_hard_pass") or 0) > _SHARE * n:
        said.append(
            f"for {closed} of {n} samples the relaxation calls the dearest path open and the hard pass on 8-bit "
            "pictures never does: relaxation and rounding are part of what is measured"
        )
    rho = details.get("estimator_spearman_within")
    if rho is not None and rho < _LEARNED:
        said.append(
            f"the estimator learned nothing of what moves the cost of a picture: rank correlation {rho:.2f} with costs "
            "that it has not seen"
        )
    return said


def with_doubts(details: dict[str, Any]) -> dict[str, Any]:
    """Details with their doubts among the notes."""
    notes = [*(details.get("notes") or []), *doubts(details)]
    return details | {"notes": list(dict.fromkeys(notes))} if notes else details


def slopes(task: Task, model: AdaptiveModel, objective: GradientObjective) -> dict[str, int]:
    """Autograd's slope of the loss against finite differences, on the first few samples, away from the box's faces.

    Returns:
        ``slopes_checked``; ``slopes_masked``: autograd says that the loss is flat, and it is not; ``slopes_differ``:
        the loss goes another way along the gradient than the gradient says.
    """
    clean, y = 0.05 + 0.9 * task.x[:PROBED], task.y[:PROBED]
    context = objective.prepare(model, clean)
    context["progress"] = torch.zeros(len(clean), device=clean.device)

    def loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            return objective.measure(model, x, clean, context, y).loss.detach().double()

    variable = clean.detach().requires_grad_()
    goal = objective.measure(model, variable, clean, context, y)
    gradient = torch.zeros_like(clean)
    if goal.loss.requires_grad:
        (found,) = torch.autograd.grad(goal.loss.sum(), variable, allow_unused=True)
        gradient = gradient if found is None else found.nan_to_num(0.0, 0.0, 0.0)
    here = goal.loss.detach().double()
    noise = _ROUNDING * here.abs().clamp_min(1.0)
    open_ = goal.reached if goal.reached is not None else torch.zeros_like(here, dtype=torch.bool)
    way = gradient.sign()
    promised = (gradient * way).flatten(1).sum(1).double()
    agree, told = torch.zeros_like(open_), torch.zeros_like(open_)
    for step in _STEPS:
        slope = (loss(clean + step * way) - loss(clean - step * way)) / (2 * step)
        larger = torch.maximum(slope.abs(), promised)
        heard = larger * 2 * step > 4 * noise
        told |= heard
        agree |= heard & ((slope - promised).abs() <= _WITHIN * larger)
    moved = torch.zeros_like(here)
    for draw in range(_DRAWS):
        signs = uniform_pixels(task.ids[:PROBED], tuple(clean.shape[1:]), task.seed, draw).sign()
        moved = torch.maximum(moved, (loss(clean + _REACH * signs) - here).abs())
    flat = (gradient.flatten(1) == 0).all(1)
    return {
        "slopes_checked": len(clean),
        "slopes_masked": int((flat & ~open_ & (moved > 100 * noise)).sum()),
        "slopes_differ": int((told & ~agree & ~flat).sum()),
    }
