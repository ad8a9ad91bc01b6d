"""One change for all pictures, or for all of a class: crafted on pictures of its own, judged on others.

The change is kept as a picture around mid-grey, so that constraints and searches serve as they are: what a constraint
allows around the grey picture is what may be added to any other (`Constraint.lay`). Every step follows the mean loss of
a batch; of the iterates the one that costs most on crafting pictures that no step saw is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.attacks.base import Task, Unaudited, to_bytes
from adaptbench.attacks.composed import Parts, RecipeAttack
from adaptbench.attacks.constraints import GREY, Constraint
from adaptbench.attacks.engine import CHECK_EVERY, gradient_of
from adaptbench.attacks.judging import hard_macs
from adaptbench.attacks.objectives import Context, Goal, GradientObjective
from adaptbench.attacks.purity import weights
from adaptbench.attacks.randomness import sample_keys, uniform_pixels
from adaptbench.attacks.ranges import count
from adaptbench.attacks.searches import GradientSearch
from adaptbench.errors import CapabilityError, DomainError, LeakageError

HELD_OUT = 5
"""Every fifth crafting picture chooses the iterate, and moves none."""
FEWEST = 10
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

    A change hangs on model, crafting pictures and seed only. It is crafted on the first call and kept for the next ones
    with the same, so that the chunks of a run share it.
    """

    needs_crafting = True

    def __init__(self, parts: Parts, shared: Shared) -> None:
        super().__init__(parts)
        self.shared = shared
        self._kept: tuple[str, dict[int, _Change]] = ("", {})

    @property
    def settings(self) -> dict[str, Any]:
        """With who shares the change, and the size of crafting set and batch."""
        shared = {f.name: getattr(self.shared, f.name) for f in fields(self.shared)}
        return {**super().settings, "shared": self.shared.name, **shared}

    def _craft(self, task: Task) -> Unaudited:
        x, y, source = self._crafting(task)
        by_class = isinstance(self.shared, SharedByClass)
        group = task.y if by_class else torch.zeros_like(task.y)
        known = _known_by(task, x, y)
        if known != self._kept[0]:
            self._kept = (known, {})
        changes = self._kept[1]
        constraint = self._constraint(task)
        out, steps = to_bytes(task.x), 0
        notes: list[str] = []
        wanted = sorted(set(group.tolist()))
        for done, label in enumerate(wanted):
            if label not in changes:
                mine = (y == label).nonzero().squeeze(1) if by_class else torch.arange(len(y), device=y.device)
                changes[label] = self._make(task, constraint, x, y, mine[: self.shared.pictures], label)
                steps += changes[label].steps
            rows = group == label
            out[rows] = to_bytes(constraint.lay(changes[label].picture.float() / 255.0, task.x[rows]))
            notes += changes[label].notes
            task.progress(len(task.x) * (done + 1) // len(wanted), len(task.x))
        details: dict[str, Any] = {
            "steps_run": steps,
            "changes": [changes[label].told(f"class {label}" if by_class else "all") for label in wanted],
            "crafted_on": [source],
            "held_out_recovery": sum(changes[label].recovery for label in wanted) / max(len(wanted), 1),
        }
        return Unaudited(out, details=details | ({"notes": list(dict.fromkeys(notes))} if notes else {}))

    def _crafting(self, task: Task) -> tuple[Tensor, Tensor, str]:
        """Pictures, labels, and what they are called.

        Raises:
            CapabilityError: none were given, or too few.
            LeakageError: some of them are among those that are attacked, or may only be judged on.
        """
        given = task.crafting
        if given is None:
            raise CapabilityError(
                f"'{self.name}' is crafted on pictures of its own, and none were given.",
                why="A change that was made for the pictures that judge it says nothing about others.",
                todo="Call craft(…, crafting=(x, y)), or crafting=data.split('calibration').",
            )
        if not isinstance(given, Split | tuple):
            given = given()
        if isinstance(given, Split):
            given.require("train", "calibration", purpose=f"crafting '{self.name}'")
            x, y, source = given.images(), given.y, f"{given.name}/{given.role}"
        else:
            (x, y), source = given, "pictures given"
            task.model.domain.check(x)
        if len(x) != len(y) or tuple(x.shape[1:]) != tuple(task.x.shape[1:]):
            raise DomainError(
                f"{len(x)} crafting pictures of shape {tuple(x.shape[1:])} were given with {len(y)} labels; "
                f"those attacked are of shape {tuple(task.x.shape[1:])}.",
                todo="Give pictures as the attacked ones are, and a label each.",
            )
        chosen = to_bytes(x)
        if both := len(_each(chosen) & _each(to_bytes(task.x))):
            raise LeakageError(
                f"{both} of the crafting pictures are among those that '{self.name}' is judged on.",
                why="A change that was made for the pictures that judge it says nothing about others.",
                todo="Give crafting pictures of another split.",
            )
        digest = hashlib.sha256(chosen.cpu().numpy().tobytes()).hexdigest()[:16]
        return chosen.to(task.x.device).float() / 255.0, y.to(task.x.device), f"{source} {digest}"

    def _make(self, task: Task, constraint: Constraint, x: Tensor, y: Tensor, chosen: Tensor, label: int) -> _Change:
        if len(chosen) < FEWEST:
            of = f" of class {label}" if isinstance(self.shared, SharedByClass) else ""
            raise CapabilityError(
                f"there are {len(chosen)} crafting pictures{of}; '{self.name}' needs {FEWEST} at least.",
                todo="Give more of them with crafting=, or leave the attack out.",
            )
        objective, search = self.parts.objective, self.parts.search
        assert isinstance(objective, GradientObjective)
        assert isinstance(search, GradientSearch)
        x, y = x[chosen], y[chosen]
        return _Crafting(task, objective, constraint, search, self.shared.batch, x, y, label).run()


@dataclass(frozen=True, slots=True)
class _Change:
    """What was found. picture: (1, C, H, W) uint8 around grey; recovery: of held-out head-room."""

    picture: Tensor
    steps: int
    recovery: float
    notes: tuple[str, ...]

    def told(self, whose: str) -> str:
        return f"{whose}: {hashlib.sha256(self.picture.cpu().numpy().tobytes()).hexdigest()[:16]}"


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
    ) -> None:
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
            goal = _mean(self.objective.measure(self.model, laid, clean_rows, context, self.y[rows]))
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


def _each(pictures: Tensor) -> set[bytes]:
    return {row.tobytes() for row in pictures.cpu().numpy()}


def _known_by(task: Task, x: Tensor, y: Tensor) -> str:
    """Hash of what a change hangs on; a model is known by its tensors and by what it answers."""
    digest = hashlib.sha256(f"{task.seed} {weights(task.model)} {task.model.max_macs}".encode())
    answers = _answers(task.model, x[:_CHUNK])
    for tensor in (to_bytes(x), y, *answers):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _answers(model: AdaptiveModel, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model.infer(x).macs, model.relax(x).margins  # which tell thresholds that no answer shows
