"""The shape of a decision graph: what logs and policies know of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from adaptbench.errors import CapabilityError


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


def checked_force(force: Tensor, n: int, structure: Structure) -> Tensor:
    """(N, V) bool of the paths forced on n samples, given as (V,) or (N, V).

    Raises:
        CapabilityError: another shape, or a hand-over that does not exist.
    """
    if force.ndim == 1:
        force = force.expand(n, -1)
    if tuple(force.shape) != (n, len(structure.names)) or not force[:, 0].all():
        raise CapabilityError(
            f"a forced path of shape {tuple(force.shape)} was given to a graph of {len(structure.names)} nodes.",
            todo="Give (V,) or (N, V) bool with the entry node set; model.paths() lists some.",
        )
    for way in set(map(tuple, force.tolist())):
        nodes = [v for v, on in enumerate(way) if on]
        for v, w in pairwise(nodes):
            if w not in structure.successors[v]:
                raise CapabilityError(
                    f"a forced path goes from '{structure.names[v]}' to '{structure.names[w]}': no hand-over.",
                    todo="model.paths() lists those that exist.",
                )
    return force
