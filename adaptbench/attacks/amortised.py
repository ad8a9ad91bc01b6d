"""A generator trained once for a net on pictures of its own; each attacked picture then costs one pass of it.

DeepPerform (Chen, Haque, Liu, Yang, ASE 2022), written anew. What is trained hangs on model, crafting pictures and seed
only, and is handed from craft to craft; its time is told apart from crafting's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.base import Learned, Task, Unaudited, to_bytes
from adaptbench.attacks.composed import Parts, RecipeAttack
from adaptbench.attacks.constraints import L2, Constraint, Linf
from adaptbench.attacks.disjoint import known_by, pictures_apart, require_enough
from adaptbench.attacks.generator import Generator, PictureGenerator
from adaptbench.attacks.judging import POOL, hard_macs
from adaptbench.attacks.objectives import Context, GradientObjective
from adaptbench.attacks.precision import measured
from adaptbench.attacks.randomness import sample_keys
from adaptbench.attacks.refining import Refined
from adaptbench.attacks.universal import HELD_OUT
from adaptbench.errors import CapabilityError

LOOKS = 8
"""How often the generator is judged on held-out pictures while it is trained; the best look is kept."""
MOST_HELD = 256
_OF_TRAINING = ("steps", "lr", "batch", "pictures", "width")
_ORDER = -5
"""The draw that batches are shuffled by, minus the epoch."""


class AmortisedAttack(RecipeAttack):
    """White-box on the crafting pictures; of the attacked ones nothing is asked, and no pass of the net is made.

    With `refine` it is: that many steps follow from the generator's picture, and the dearest is kept.
    """

    needs_crafting = True
    learns = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._kept: tuple[str, Learned | None] = ("", None)

    @property
    def learns_as(self) -> str:
        """Without the steps that come after the generator."""
        assert isinstance(self.parts.search, Generator)
        plain = Generator(**{name: getattr(self.parts.search, name) for name in _OF_TRAINING})
        return type(self)(replace(self.parts, search=plain)).sha256

    def _learn(self, task: Task) -> Learned:
        x, y, source = pictures_apart(self.name, task)
        if task.learned is not None:
            return task.learned
        search, objective = self.parts.search, self.parts.objective
        assert isinstance(search, Generator)
        assert isinstance(objective, GradientObjective)
        x, y = x[: search.pictures], y[: search.pictures]
        require_enough(self.name, len(x))
        with torch.no_grad():
            known = known_by(task.model, task.seed, x, y, task.model.relax(x[:POOL], last=False).margins)
        if self._kept[0] != known or self._kept[1] is None:
            training = _Training(task, objective, self._constraint(task), search, self.parts.recipe.precision, x, y)
            with task.model.steady():
                self._kept = (known, training.run(source))
        assert self._kept[1] is not None
        return self._kept[1]

    def _craft(self, task: Task) -> Unaudited:
        search, learned, constraint = self.parts.search, task.learned, self._constraint(task)
        assert isinstance(search, Generator)
        assert learned is not None
        net = _net(task.x, search.width)
        try:
            net.load_state_dict({name: tensor.to(task.x.device) for name, tensor in learned.tensors.items()})
        except RuntimeError as error:
            raise CapabilityError(
                f"the generator that was handed to '{self.name}' is of another size: {error}.",
                todo="Hand over what `learn` of this attack gave for this model, or nothing.",
            ) from None
        out = torch.empty_like(to_bytes(task.x))
        refined = self._refined(task.model, constraint)
        with task.model.steady():
            for start in range(0, len(out), POOL):
                part = slice(start, start + POOL)
                with torch.no_grad():
                    made = constraint.quantise(_laid(net, constraint, task.x[part]), task.x[part])
                out[part] = made if refined is None else refined.run(made, task.x[part], task.y[part])
                task.progress(min(start + POOL, len(out)), len(out))
        spent = {} if refined is None else {"refining_passes": refined.passes, "refining_looks": refined.looks}
        return Unaudited(out, details=dict(learned.told) | spent)

    def _refined(self, model: AdaptiveModel, constraint: Constraint) -> Refined | None:
        search, objective = self.parts.search, self.parts.objective
        assert isinstance(search, Generator)
        assert isinstance(objective, GradientObjective)
        assert isinstance(constraint, Linf | L2)
        if not search.refine:
            return None
        step = search.refine_step * constraint.eps
        return Refined(model, objective, constraint, search.refine, step, self.parts.recipe.precision)


def _net(x: Tensor, width: int) -> PictureGenerator:
    channels, height, side = x.shape[1:]
    return PictureGenerator((channels, height, side), width).to(x.device)


def _laid(net: PictureGenerator, constraint: Constraint, clean: Tensor) -> Tensor:
    return constraint.squash(constraint.unsquash(clean, clean) + net(clean), clean)


class _Training:
    """Of one generator."""

    def __init__(
        self,
        task: Task,
        objective: GradientObjective,
        constraint: Constraint,
        search: Generator,
        precision: Any,
        x: Tensor,
        y: Tensor,
    ) -> None:
        self.task, self.model, self.objective, self.constraint = task, task.model, objective, constraint
        self.search, self.precision, self.pictures = search, precision, len(x)
        held = torch.arange(len(x), device=x.device) % HELD_OUT == HELD_OUT - 1
        self.x, self.y, self.held = x[~held], y[~held], x[held][:MOST_HELD]
        parts = [objective.prepare(self.model, part) for part in torch.split(self.x, POOL)]
        self.context: Context = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        self.passes = self.queries = 0

    def run(self, source: str) -> Learned:
        """All steps; what is kept is the look that costs the held-out pictures most."""
        began, steps = time.monotonic(), self.search.steps
        torch.manual_seed(int(sample_keys(torch.zeros(1, dtype=torch.int64), self.task.seed, _ORDER)[0]) % 2**31)
        net = _net(self.x, self.search.width)
        weights = list(net.parameters())
        adam = torch.optim.Adam(weights, lr=self.search.lr)
        clean = self._cost(lambda held: held)
        best, kept = -1.0, {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        look = max(steps // LOOKS, 1)
        for step in range(1, steps + 1):
            for group in adam.param_groups:
                group["lr"] = self.search.lr * (1 - (step - 1) / steps)
            gradients = torch.autograd.grad(self._loss(net, step - 1), weights)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
            adam.step()
            if step % look == 0 or step == steps:
                if (cost := self._cost(lambda held: _laid(net, self.constraint, held))) > best:
                    best, kept = cost, {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
                self.task.progress(*((step, steps) if not len(self.task.x) else (0, len(self.task.x))))
        room = self.model.max_macs - clean
        told: dict[str, Any] = {
            "crafted_on": [source],
            "generators": [f"{_digest(kept)}: {steps} steps on {self.pictures} pictures"],
            "held_out_recovery": (best - clean) / room if room > 0 else 0.0,
            "training_s": time.monotonic() - began,
            "training_passes": float(self.passes),
            "training_queries": float(self.queries),
        }
        if best <= clean < self.model.max_macs:
            told["notes"] = ["the generator raised the mean cost of no held-out crafting pictures: it is no attack"]
        return Learned({name: tensor.cpu() for name, tensor in kept.items()}, told)

    def _loss(self, net: PictureGenerator, step: int) -> Tensor:
        rows = self._batch(step)
        clean = self.x[rows]
        context = {key: value[rows] for key, value in self.context.items()}
        context["progress"] = torch.full((len(rows),), step / self.search.steps, device=clean.device)
        laid = _laid(net, self.constraint, clean)
        self.passes += len(rows)
        return measured(self.objective, self.model, laid, clean, context, self.y[rows], self.precision).loss.mean()

    def _cost(self, make: Callable[[Tensor], Tensor]) -> float:
        """Mean executed MACs of the held-out pictures after a change."""
        self.queries += len(self.held)
        with torch.no_grad():
            made = self.constraint.quantise(make(self.held), self.held)
        return float(hard_macs(self.model, made).double().mean())

    def _batch(self, step: int) -> Tensor:
        """Rows of a step: epochs are shuffled by the seed, and a last part that is no whole batch is left out."""
        size = min(self.search.batch, len(self.x))
        epoch, place = divmod(step, len(self.x) // size)
        everyone = torch.arange(len(self.x), device=self.x.device)
        return sample_keys(everyone, self.task.seed, _ORDER - 1 - epoch).argsort()[place * size : (place + 1) * size]


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
