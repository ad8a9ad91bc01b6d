"""Several attacks in turn, each on what the others left below the ceiling: the worst case by the hard pass."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.gated import decides_ahead
from adaptbench.attacks.base import Learned, Task, Unaudited, join_details, lacking
from adaptbench.attacks.composed import Parts, RecipeAttack, conditions_of, parts_of, settings_of
from adaptbench.attacks.dear_starts import NAME, dearest_pictures
from adaptbench.attacks.engine import Start
from adaptbench.attacks.objectives import GradientObjective
from adaptbench.attacks.recipe import On
from adaptbench.attacks.soundness import slopes

GATED = frozenset({"gated", "tokens"})
"""Shapes that decide by margins apart from answers: on these run the members for gates."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A member: its parts, where its pictures begin, and the kind of decisions that it is for."""

    parts: Parts
    start: Start
    on: On = "all"

    @property
    def title(self) -> str:
        """Objective, search, start and kind of decisions as one phrase."""
        assert self.parts.objective is not None
        named = [_phrase(self.parts.objective), _phrase(self.parts.search)]
        begun = "" if self.start == "as-set" else f" from {self.start}"
        return " by ".join(named) + begun + ("" if self.on == "all" else f", on {self.on}")


class EnsembleAttack(RecipeAttack):
    """Members that apply to a model run one after the other; a sample at the ceiling is done (as in AutoAttack).

    A picture is kept only where it scores higher than all before, so that no member that begins as set or from noise
    gives anything dearer by itself. With a member that begins at dear pictures, these are looked for first (`learns`).
    """

    def __init__(self, members: list[Stage]) -> None:
        super().__init__(members[0].parts)
        self.members = members
        self.requires = frozenset({"gradients"})
        self.needs_crafting = self.learns = any(member.start == "dear" for member in members)

    @property
    def settings(self) -> dict[str, Any]:
        """The constraint's, and the members in order."""
        constraint = self.parts.constraint
        flat: dict[str, Any] = {"access": self.access, "constraint": constraint.name} | settings_of(constraint)
        return flat | conditions_of(self.parts.recipe) | {"members": [member.title for member in self.members]}

    @property
    def learns_as(self) -> str:
        """What is dear hangs on no member."""
        return hashlib.sha256(NAME.encode()).hexdigest()

    def _learn(self, task: Task) -> Learned:
        return dearest_pictures(self.name, task)

    def _code(self) -> list[type]:
        return [part for member in self.members for part in parts_of(member.parts)]

    def stages_for(self, model: AdaptiveModel) -> dict[int, Stage]:
        """The members that mean something on a model, by their number."""
        return {i: member for i, member in enumerate(self.members, 1) if self._reason(member, model) is None}

    def _reason(self, member: Stage, model: AdaptiveModel) -> str | None:
        objective = member.parts.objective
        assert objective is not None
        if member.on not in (kinds := _kinds(model)):
            return f"its members are for {member.on}, and this is a {model.shape} model, its decisions {kinds[-1]}"
        return lacking(objective.requires, model) or objective.applies_to(model)

    def _why_not(self, model: AdaptiveModel) -> str | None:
        reasons = [self._reason(member, model) for member in self.members]
        return None if None in reasons else reasons[0]

    def _craft(self, task: Task) -> Unaudited:
        stages = self.stages_for(task.model)
        best, deadline = self._best(task, task.model), self._deadline(task)
        dear = None if task.learned is None else task.learned.tensors["dear"]
        details: list[dict[str, Any]] = []
        raised: dict[str, Any] = {}
        for done, (number, stage) in enumerate(stages.items()):
            before = best.score.clone()
            part = replace(task, progress=_nth(task, done, len(stages)))
            one = self._optimise(
                part, task.model, parts=stage.parts, best=best, deadline=deadline, start=stage.start, dear=dear
            )
            details.append(one.details)
            raised[f"raised_by_{number}"] = int((best.score > before).sum())
        joined = join_details(details, [1] * len(details))
        joined = {k: v for k, v in joined.items() if not k.startswith("macs_at_step_")}  # one member's, not the whole's
        skipped = [member.title for i, member in enumerate(self.members, 1) if i not in stages]
        joined |= raised | {
            **best.account(),
            "hard_checks": best.judge.checks,
            "members_run": [stage.title for stage in stages.values()],
            "members_skipped": skipped,  # by composition, so no note: it says nothing about this search
        }
        told = {} if task.learned is None else dict(task.learned.told)
        if notes := [*told.get("notes", []), *joined.get("notes", [])]:
            joined["notes"] = notes
        return Unaudited(best.pictures, details=told | joined)

    def _against_itself(self, task: Task) -> dict[str, Any]:
        stage = next(iter(self.stages_for(task.model).values()))
        assert isinstance(stage.parts.objective, GradientObjective)
        return slopes(task, task.model, stage.parts.objective)


def _kinds(model: AdaptiveModel) -> tuple[On, ...]:
    """What a member may be for to run on a model; the narrowest last."""
    if model.shape not in GATED:
        return ("all", "exits")
    return ("all", "gates", "planned-gates" if decides_ahead(model) else "stepwise-gates")


def _nth(task: Task, i: int, of: int) -> Any:
    """Progress of one stage as progress of all."""
    return lambda done, n: task.progress((i * n + done) // of, n)


def _phrase(part: object) -> str:
    settings = {k: v for k, v in settings_of(part).items() if v is not None}
    inside = ", ".join(f"{k}={json.dumps(v)}" for k, v in settings.items())  # to the last digit: hashes hold it
    name: str = part.name  # type: ignore[attr-defined]  # every part has one
    return f"{name}({inside})" if inside else name
