"""The shape of a decision graph: what logs and policies know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Structure:
    """The shape of a decision graph, without its weights.

    Args:
        names: one a node, in topological order; node 0 is the entry.
        successors: for each node the nodes it may hand over to.
        n_classes: C.
    """

    names: tuple[str, ...]
    successors: tuple[tuple[int, ...], ...]
    n_classes: int

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Structure:
        """From what `as_settings` gave; a chain where no successors are told."""
        names = tuple(settings["names"])
        following = [[v + 1] for v in range(len(names) - 1)] + [[]]
        successors = tuple(tuple(ways) for ways in settings.get("successors", following))
        return cls(names, successors, settings["n_classes"])

    def as_settings(self) -> dict[str, Any]:
        """For a policy's card, JSON types only."""
        ways = [list(ways) for ways in self.successors]
        return {"names": list(self.names), "successors": ways, "n_classes": self.n_classes}

    @property
    def deciders(self) -> tuple[int, ...]:
        """Nodes with a way on."""
        return tuple(v for v, ways in enumerate(self.successors) if ways)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(node, successor), in the order of `Relaxation.margins`."""
        return tuple((v, w) for v, ways in enumerate(self.successors) for w in ways)

    @property
    def is_chain(self) -> bool:
        """Every node hands over to the next one only."""
        last = len(self.names) - 1
        return all(ways == ((v + 1,) if v < last else ()) for v, ways in enumerate(self.successors))
