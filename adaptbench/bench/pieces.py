"""An evaluation's chunks as pieces of work that any engine carries out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.attacks import Attack
from adaptbench.attacks.base import Learned
from adaptbench.bench.crafting import crafting_split
from adaptbench.bench.evaluate import Chunk, evaluate_chunk
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.bench.surrogates import home
from adaptbench.experiment.by_name import Places, data_of, net_part, split_part
from adaptbench.experiment.engines import Part, Piece
from adaptbench.experiment.keys import digest_of, split_hash
from adaptbench.experiment.options import Options


@dataclass(frozen=True, slots=True)
class _There:
    """An evaluation as `evaluate_chunk` takes it, wherever its parts come from."""

    id: str
    seed: int
    split: Split
    attack: Attack | None
    model: AdaptiveModel


class Pieces:
    """Makes them; what evaluations share is handed over once.

    Args:
        plan: of the run. options: of the run.
    """

    def __init__(self, plan: Plan, options: Options) -> None:
        self.plan, self.options = plan, options
        self._parts: dict[tuple[str, int], Part] = {}

    def of(
        self,
        evaluation: Evaluation,
        keys: Sequence[str],
        given: Tensor | None = None,
        learned: Learned | None = None,
    ) -> list[Piece]:
        """An evaluation's chunks with these keys.

        Args:
            keys: of cells that are wanted, of the plan's `chunk_keys`.
            given: (N, …) inputs that were crafted elsewhere. learned: by its attack, beforehand.
        """
        size, n, wanted = self.plan.suite.suite.chunk, len(evaluation.split), set(keys)
        pieces = []
        for start, key in zip(range(0, n, size), self.plan.chunk_keys(evaluation), strict=True):
            stop = min(start + size, n)
            if key in wanted:
                given_here = None if given is None else given[start:stop].clone()
                words = {"case": evaluation.id, "seed": evaluation.seed, "device": self.options.device}
                words |= {"start": start, "stop": stop, "inputs": given_here}
                words |= {} if learned is None else {"learned": learned}
                pieces.append(Piece(key, stop - start, evaluated, self._parts_of(evaluation), words))
        return pieces

    def _parts_of(self, evaluation: Evaluation) -> dict[str, Part]:
        attack, data = evaluation.attack, self.plan.suite.suite.data
        handed = evaluation.split.name in self.plan.handed
        parts = {
            "net": self._once("net", evaluation.model, partial(self._net, evaluation)),
            "split": self._once(
                "split", evaluation.split, lambda: split_part(evaluation.split, data, self.options, handed)
            ),
        }
        if attack is None:
            return parts
        parts["attack"] = self._once("attack", attack, lambda: Part(attack, attack_id, what=f"the attack {attack}"))
        if attack.surrogate:
            other = self.plan.surrogates[attack.surrogate]
            parts["other"] = self._once("other", other, partial(self._surrogate, attack.surrogate))
        if attack.needs_crafting and self.plan.crafting is not None:
            again = None if handed else partial(_crafting, data, Places.of(self.options))
            crafting = Part(self.plan.crafting, split_hash, again, handed, f"the calibration split of {data}")
            parts["crafting"] = self._once("crafting", self.plan.crafting, lambda: crafting)
        return parts

    def _once(self, kind: str, value: object, make: Callable[[], Part]) -> Part:
        if (kind, id(value)) not in self._parts:
            self._parts[kind, id(value)] = make()
        return self._parts[kind, id(value)]

    def _net(self, evaluation: Evaluation) -> Part:
        """By its name where nothing was fitted, defended, turned or handed over here."""
        entry = evaluation.entry
        here = entry.policy or entry.defence or evaluation.knob or entry.net in self.plan.handed
        name, folder = None if here else entry.net, self.plan.suite.located.folder
        return net_part(
            evaluation.model, name, evaluation.split.name, self.options, folder, what=evaluation.loaded.name
        )

    def _surrogate(self, name: str) -> Part:
        data, net = home(name, self.plan.split.name)
        known, folder = None if name in self.plan.models else net, self.plan.suite.located.folder
        return net_part(self.plan.surrogates[name], known, data, self.options, folder, what=name)


def attack_id(attack: Attack) -> str:
    """What an attack does."""
    return digest_of([attack.name, attack.sha256, attack.versions])


def evaluated(
    *,
    net: AdaptiveModel,
    split: Split,
    attack: Attack | None = None,
    other: AdaptiveModel | None = None,
    crafting: Split | None = None,
    case: str,
    seed: int,
    device: str,
    start: int,
    stop: int,
    inputs: Tensor | None,
    learned: Learned | None = None,
    told: Callable[[int, int], None],
) -> Chunk:
    """`evaluate_chunk`, from a piece's parts.

    Args:
        net, split, attack, crafting: as in `evaluate_chunk`. other: the surrogate of a transfer attack.
        case: id of the evaluation. seed, device, start, stop: as there. inputs: crafted elsewhere.
        learned: by the attack, beforehand.
        told: (done, of) while crafting.
    """
    there = _There(case, seed, split, attack, net)
    return evaluate_chunk(
        there,
        start,
        stop,
        device=device,
        surrogate=partial(_other, other),
        crafting=crafting,
        given=inputs,
        learned=learned,
        on_progress=told,
    )


def _other(model: AdaptiveModel | None, name: str) -> AdaptiveModel:
    if model is None:
        raise KeyError(name)
    return model


def _crafting(data: str, places: Places) -> Split:
    return crafting_split(data_of(data, places))


def maker_of(record: dict[str, Any]) -> dict[str, str]:
    """Who made a cell; nothing where it does not say."""
    by = record.get("by")
    return by if isinstance(by, dict) else {}
