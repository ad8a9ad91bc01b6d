"""One change for all pictures, or for all of a class: crafted on pictures of its own, judged on others.

The change is kept as a picture around mid-grey, so that constraints and searches serve as they are: what a constraint
allows around the grey picture is what may be added to any other (`Constraint.lay`). Every step follows the mean loss of
a batch; of the iterates the one that costs most on crafting pictures that no step saw is kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from adaptbench.attacks.base import Learned, Task, Unaudited, to_bytes
from adaptbench.attacks.composed import Parts, RecipeAttack
from adaptbench.attacks.constraints import GREY, Constraint
from adaptbench.attacks.disjoint import FEWEST, known_by, pictures_apart, require_enough
from adaptbench.attacks.engine import CHECK_EVERY, gradient_of
from adaptbench.attacks.judging import hard_macs
from adaptbench.attacks.objectives import Context, Goal, GradientObjective
from adaptbench.attacks.precision import measured
from adaptbench.attacks.randomness import sample_keys, uniform_pixels
from adaptbench.attacks.ranges import count
from adaptbench.attacks.recipe import Precision
from adaptbench.attacks.searches import GradientSearch
from adaptbench.errors import CapabilityError

HELD_OUT = 5
"""Every fifth crafting picture chooses the iterate, and moves none."""
_CHUNK = 256
_ORDER = -3
"""The draw that batches are shuffled by, minus the epoch."""


@dataclass(frozen=True, slots=True)
class Shared:
    """One change for all pictures.

    Args:
        pictures: of the crafting set that are used, at most. batch: pictures a step.
    """

    name: ClassVar[str] = "all"
    pictures: Annotated[int, count(FEWEST, 1_000_000)] = 500
    batch: Annotated[int, count(1, 4096)] = 50


@dataclass(frozen=True, slots=True)
class SharedByClass(Shared):
    """One change a class, crafted on as many pictures of each; the attacker knows the class of what is attacked."""

    name: ClassVar[str] = "class"


class UniversalAttack(RecipeAttack):
    """White-box on the crafting pictures; of the attacked ones nothing is used, but the class where there is one each.

    A change hangs on model, crafting pictures and seed only: it is learned once, and what that took is told apart from
    crafting (`training_s`, `training_steps`). Whoever crafts without a lesson has the classes at hand learned first.
    """

    needs_crafting = True
    learns = True

    def __init__(self, parts: Parts, shared: Shared) -> None:
        super().__init__(parts)
        self.shared = shared
        self._kept: tuple[str, dict[int, _Change]] = ("", {})

    @property
    def settings(self) -> dict[str, Any]:
        """With who shares the change, and the size of crafting set and batch."""
        shared = {f.name: getattr(self.shared, f.name) for f in fields(self.shared)}
        return {**super().settings, "shared": self.shared.name, **shared}

    def _groups(self, y: Tensor) -> Tensor:
        """(N,) whose change each picture is given."""
        return y if isinstance(self.shared, SharedByClass) else torch.zeros_like(y)

    def _learn(self, task: Task) -> Learned:
        x, y, source = pictures_apart(self.name, task)
        if task.learned is not None:
            return task.learned
        known = _known_by(task, x, y)
        if known != self._kept[0]:
            self._kept = (known, {})
        changes, groups = self._kept[1], self._groups(y)
        wanted = sorted(set(self._groups(task.y).tolist())) if len(task.x) else self._plenty(groups)
        began, made = time.monotonic(), 0.0
        for done, label in enumerate(wanted):
            if label not in changes:
                mine = (groups == label).nonzero().squeeze(1)[: self.shared.pictures]
                changes[label] = self._make(task, self._constraint(task), x, y, mine, label)
                made += changes[label].steps
            if not len(task.x):
                task.progress(done + 1, len(wanted))
        told = {
            "crafted_on": [source],
            "training_s": time.monotonic() - began,
            "training_steps": made,
            "held_out_recovery": {str(label): changes[label].recovery for label in wanted},
            "notes": {str(label): list(changes[label].notes) for label in wanted},
        }
        return Learned({str(label): changes[label].picture.cpu() for label in wanted}, told)

    def _plenty(self, groups: Tensor) -> list[int]:
        """Every group that there are pictures enough of; where there is one for all, that one whatever there is."""
        if not isinstance(self.shared, SharedByClass):
            return [0]
        return sorted(label for label, found in Counter(groups.tolist()).items() if found >= FEWEST)

    def _craft(self, task: Task) -> Unaudited:
        learned, constraint = task.learned, self._constraint(task)
        assert learned is not None
        group = self._groups(task.y)
        out, wanted = to_bytes(task.x), sorted(set(group.tolist()))
        for done, label in enumerate(wanted):
            if str(label) not in learned.tensors:
                raise CapabilityError(
                    f"'{self.name}' has learned no change of class {label}: it needs {FEWEST} crafting pictures of it.",
                    todo="Give more of them with crafting=, or leave the attack out.",
                )
            picture, rows = learned.tensors[str(label)].to(task.x.device), group == label
            out[rows] = to_bytes(constraint.lay(picture.float() / 255.0, task.x[rows]))
            task.progress(len(task.x) * (done + 1) // len(wanted), len(task.x))
        told = learned.told
        notes = list(dict.fromkeys(note for label in wanted for note in told["notes"][str(label)]))
        recovered = [told["held_out_recovery"][str(label)] for label in wanted]
        details: dict[str, Any] = {
            "changes": [self._named(label, learned.tensors[str(label)]) for label in wanted],
            "crafted_on": told["crafted_on"],
            "held_out_recovery": sum(recovered) / max(len(wanted), 1),
            "training_s": told["training_s"],
            "training_steps": told["training_steps"],
        }
        return Unaudited(out, details=details | ({"notes": notes} if notes else {}))

    def _named(self, label: int, picture: Tensor) -> str:
        whose = f"class {label}" if isinstance(self.shared, SharedByClass) else "all"
        return f"{whose}: {hashlib.sha256(picture.numpy().tobytes()).hexdigest()[:16]}"

    def _make(self, task: Task, constraint: Constraint, x: Tensor, y: Tensor, chosen: Tensor, label: int) -> _Change:
        require_enough(self.name, len(chosen), f" of class {label}" if isinstance(self.shared, SharedByClass) else "")
        objective, search = self.parts.objective, self.parts.search
        assert isinstance(objective, GradientObjective)
        assert isinstance(search, GradientSearch)
        x, y = x[chosen], y[chosen]
        precision, batch = self.parts.recipe.precision, self.shared.batch
        return _Crafting(task, objective, constraint, search, batch, x, y, label, precision).run()


@dataclass(frozen=True, slots=True)
class _Change:
    """What was found. picture: (1, C, H, W) uint8 around grey; recovery: of held-out head-room."""

    picture: Tensor
    steps: int
    recovery: float
    notes: tuple[str, ...]


class _Crafting:
    """The search for one change."""

    def __init__(
        self,
        task: Task,
        objective: GradientObjective,
        constraint: Constraint,
        search: GradientSearch,
        batch: int,
        x: Tensor,
        y: Tensor,
        label: int,
        precision: Precision,
    ) -> None:
        self.precision: Precision = precision
        self.model, self.seed, self.label = task.model, task.seed, label
        self.objective, self.constraint, self.search, self.batch = objective, constraint, search, batch
        held = torch.arange(len(x), device=x.device) % HELD_OUT == HELD_OUT - 1
        self.x, self.y, self.held = x[~held], y[~held], x[held]
        parts = [objective.prepare(self.model, part) for part in torch.split(self.x, _CHUNK)]
        self.context: Context = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def run(self) -> _Change:
        """All steps; the iterate is looked at every tenth."""
        grey = torch.full_like(self.x[:1], GREY)
        own = torch.tensor([self.label], device=grey.device)
        state = self.search.begin(grey, self.constraint, uniform_pixels(own, tuple(grey.shape[1:]), self.seed))
        state["loss"] = torch.full((1,), torch.inf, device=grey.device)
        clean = self._cost(None)
        best, picture = -1.0, to_bytes(grey)
        for step in range(self.search.steps + 1):
            if step % CHECK_EVERY == 0 or step == self.search.steps:
                with torch.no_grad():
                    found = self.constraint.quantise(self.search.point(state, self.constraint), grey)
                if (cost := self._cost(found)) > best:
                    best, picture = cost, found
            if step == self.search.steps or best >= self.model.max_macs:
                break
            rows = self._batch(step)
            variable = state["variable"] = state["variable"].detach().requires_grad_()
            clean_rows = self.x[rows]
            laid = self.constraint.lay(self.search.point(state, self.constraint), clean_rows)
            context = {key: value[rows] for key, value in self.context.items()}
            context["progress"] = torch.full((len(rows),), step / self.search.steps, device=grey.device)
            goal = _mean(measured(self.objective, self.model, laid, clean_rows, context, self.y[rows], self.precision))
            gradient = gradient_of(goal, variable)
            state["variable"], state["loss"] = variable.detach(), goal.loss.detach().float()
            self.search.advance(state, gradient, torch.full((1,), step, device=grey.device), self.constraint)
        room = self.model.max_macs - clean
        weak = best <= clean < self.model.max_macs
        note = "no iterate raised the mean cost of the held-out crafting pictures: the change that is kept is no attack"
        return _Change(picture, step, (best - clean) / room if room > 0 else 0.0, (note,) if weak else ())

    def _cost(self, shared: Tensor | None) -> float:
        """Mean executed MACs of the held-out pictures under a change."""
        laid = self.held if shared is None else self.constraint.lay(shared.float() / 255.0, self.held)
        return float(hard_macs(self.model, to_bytes(laid)).double().mean())

    def _batch(self, step: int) -> Tensor:
        """Rows of a step: epochs are shuffled by the seed, and a last part that is no whole batch is left out."""
        size = min(self.batch, len(self.x))
        epoch, place = divmod(step, len(self.x) // size)
        everyone = torch.arange(len(self.x), device=self.x.device)
        return sample_keys(everyone, self.seed, _ORDER - epoch).argsort()[place * size : (place + 1) * size]


def _mean(goal: Goal) -> Goal:
    """Of a batch as of one sample."""
    return Goal(goal.loss.mean()[None], guard=None if goal.guard is None else goal.guard.mean()[None])


def _known_by(task: Task, x: Tensor, y: Tensor) -> str:
    """Hash of what a change hangs on; margins tell thresholds that no answer shows."""
    with torch.no_grad():
        margins = task.model.relax(x[:_CHUNK], last=False).margins
    return known_by(task.model, task.seed, x, y, margins)
