"""Attacks on series: change bounded in the series' own unit, values as floats, nothing rounded to levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.series import SeriesDomain
from adaptbench.attacks.base import Task, Unaudited
from adaptbench.attacks.composed import Parts, RecipeAttack
from adaptbench.attacks.objectives import Context, GradientObjective
from adaptbench.attacks.randomness import sample_keys
from adaptbench.attacks.ranges import Steps, real
from adaptbench.errors import RecipeError

_POOL = 256
_CHECK_EVERY = 5
_ROUNDING = 1e-5
"""Of eps, that float32 may add to it."""


@dataclass(frozen=True, slots=True)
class SeriesBall:
    """No value changes by more than `eps`, in the unit of the model's domain, nor leaves the domain's bounds.

    Args:
        eps: in that unit. share: of the domain's range, where eps is not given.
    """

    name: ClassVar[str] = "series-linf"
    eps: Annotated[float, real(0, 1e9, open_low=True)] | None = None
    share: Annotated[float, real(0, 1, open_low=True)] = 0.02

    def applies_to(self, shape: tuple[int, ...]) -> str | None:
        """To series of any shape."""
        return None

    def radius(self, domain: SeriesDomain) -> float:
        """In the domain's unit."""
        return self.share * (domain.high - domain.low) if self.eps is None else self.eps


@dataclass(frozen=True, slots=True)
class SeriesDescent:
    """Steps of the gradient's sign, projected; of the points looked at the one with the most executed MACs is kept.

    Args:
        step: in radii of the ball. steps: how many. init: radius of the random start, in radii.
    """

    name: ClassVar[str] = "series-descent"
    step: Annotated[float, real(0, 2, open_low=True)] = 0.1
    steps: Steps = 60
    init: Annotated[float, real(0, 1)] = 0.0


@dataclass(frozen=True, slots=True)
class SeriesDraw:
    """One draw: each value up or down by the radius."""

    name: ClassVar[str] = "series-draw"


class SeriesAttack(RecipeAttack):
    """Floats in, floats out. What an objective reads off the relaxed pass is the same as of pictures.

    Args:
        parts: constraint `SeriesBall`, search `SeriesDescent` or `SeriesDraw`.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        assert isinstance(parts.constraint, SeriesBall)
        self.ball, self.search = parts.constraint, parts.search
        self._domain: SeriesDomain | None = None

    def _wrong_inputs(self, model: AdaptiveModel) -> str | None:
        if not isinstance(model.domain, SeriesDomain):
            return "it changes series in their own unit, and the model takes none"
        return None

    def _craft(self, task: Task) -> Unaudited:
        domain = task.model.domain
        assert isinstance(domain, SeriesDomain)
        self._domain = domain
        radius = self.ball.radius(domain)
        made, steps = [], 0
        for start in range(0, len(task.x), _POOL):
            part = slice(start, start + _POOL)
            signs = torch.stack([_signs(task, int(i)) for i in task.ids[part].cpu()]).to(task.x)
            if isinstance(self.search, SeriesDraw):
                found = _within(task.x[part] + radius * signs, task.x[part], radius, domain)
            else:
                found, ran = self._descend(task, part, radius, signs)
                steps += ran
            made.append(found)
            task.progress(min(start + _POOL, len(task.x)), len(task.x))
        details: dict[str, Any] = {"eps_in_unit": radius, "unit": domain.unit or "the domain's own"}
        return Unaudited(torch.cat(made), details=details | ({"steps_run": steps} if steps else {}))

    def _descend(self, task: Task, part: slice, radius: float, signs: Tensor) -> tuple[Tensor, int]:
        """The dearest points of a batch, and how many steps its series took together."""
        objective, search, domain = self.parts.objective, self.search, task.model.domain
        assert isinstance(objective, GradientObjective)
        assert isinstance(search, SeriesDescent)
        assert isinstance(domain, SeriesDomain)
        clean, y = task.x[part], task.y[part]
        context: Context = objective.prepare(task.model, clean)
        x = _within(clean + search.init * radius * signs, clean, radius, domain)
        best, cost = clean.clone(), task.model.infer(clean).macs
        done = 0
        for step in range(search.steps + 1):
            if step % _CHECK_EVERY == 0 or step == search.steps:
                macs = task.model.infer(x).macs
                dearer = macs > cost
                best[dearer], cost = x[dearer], torch.maximum(macs, cost)
                if step == search.steps or bool((cost >= task.model.max_macs).all()):
                    break
            x = x.detach().requires_grad_()
            context["progress"] = torch.full((len(x),), step / search.steps, device=x.device)
            loss = objective.measure(task.model, x, clean, context, y).loss
            (slope,) = torch.autograd.grad(loss.sum(), x)
            x = _within(x.detach() - search.step * radius * slope.nan_to_num().sign(), clean, radius, domain)
            done += len(x)
        return best, done

    def _measured(
        self, clean: Tensor, x_adv: Tensor, model: AdaptiveModel
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
        """Distances in the series' unit."""
        domain = model.domain
        assert isinstance(domain, SeriesDomain)
        change = (x_adv.cpu().double() - clean.cpu().double()).flatten(1)
        linf = change.abs().amax(1)
        values = x_adv.cpu().double().flatten(1)
        slack = _ROUNDING * (domain.high - domain.low)
        out = (values.amin(1) < domain.low - slack) | (values.amax(1) > domain.high + slack)
        return linf, change.norm(dim=1), out | (linf > self.ball.radius(domain) + slack), {}


def _within(x: Tensor, clean: Tensor, radius: float, domain: SeriesDomain) -> Tensor:
    return domain.clamp(clean + (x - clean).clamp(-radius, radius))


def _signs(task: Task, sample: int) -> Tensor:
    """(C, T) of −1 and 1, a sample's own."""
    size = task.x[0].numel()
    keys = sample_keys(torch.arange(size) + sample * size, task.seed, 0)
    return torch.where(keys % 2 == 0, -1.0, 1.0).view(task.x.shape[1:])


def series_attack(parts: Parts, where: str) -> SeriesAttack:
    """Put a recipe of series together.

    Raises:
        RecipeError: a part that belongs to pictures, or access that does not fit the search.
    """
    search, name = parts.search, parts.recipe.access.name
    if not isinstance(parts.constraint, SeriesBall) or not isinstance(search, SeriesDescent | SeriesDraw):
        raise RecipeError(
            f"{where}: the constraint '{parts.constraint.name}' and the search '{search.name}' are not both of series.",
            why="Pictures have 8-bit levels in [0, 1]; series have a unit and a range of their own.",
            todo="Write constraint: series-linf and search: series-descent (or series-draw).",
        )
    aims, draws = isinstance(parts.objective, GradientObjective), isinstance(search, SeriesDraw)
    if aims == draws or (name == "none") != draws or name not in ("none", "white-box"):
        raise RecipeError(
            f"{where}: the search '{search.name}' with access {name} and "
            f"{'no objective' if parts.objective is None else f'the objective {parts.objective.name}'} is no attack.",
            todo="series-descent takes access: white-box and an objective; series-draw takes access: none and neither.",
        )
    recipe = parts.recipe
    if recipe.keep != "first" or recipe.label != "free" or recipe.aim != "dearest" or recipe.shared or recipe.seconds:
        raise RecipeError(
            f"{where}: keep, label, aim, shared and seconds cannot be asked of series.", todo="Leave them out."
        )
    if recipe.precision != "fp32":
        raise RecipeError(
            f"{where}: precision cannot be asked of series.",
            why="Their values have no levels, so that nothing says which digits of a change matter.",
            todo="Leave it out.",
        )
    return SeriesAttack(parts)
