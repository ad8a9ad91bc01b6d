"""Policies: objects apart from the weights that decide, from what a node shows, to stop or which node to run next."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from adaptbench.adaptive.outcome import Signals
from adaptbench.errors import CapabilityError, PolicyError

if TYPE_CHECKING:
    from adaptbench.adaptive.log import CalibrationLog


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


def guard_fits(kind: type) -> None:
    """Make the fits that a class defines refuse an `EvaluationLog`, wherever it stands among their arguments."""
    for name in ("fit", "family", "path", "recosted"):
        found = vars(kind).get(name)
        if isinstance(found, classmethod | staticmethod):
            setattr(kind, name, type(found)(_refusing(found.__func__, kind)))
        elif name == "recosted" and callable(found):
            setattr(kind, name, _refusing(found, kind))


def _refusing(fit: Callable[..., Any], kind: type) -> Callable[..., Any]:
    @functools.wraps(fit)
    def refusing(*args: Any, **settings: Any) -> Any:
        from adaptbench.adaptive.log import require_calibration  # logs hold structures, which stand here

        for given in (*args, *settings.values()):
            require_calibration(given, kind.__name__)
        return fit(*args, **settings)

    return refusing


class Policy(nn.Module):
    """Scores the actions at each node: stopping first, then each successor.

    Subclasses give `scores`; the action that is strictly best is taken, and a tie stops. Gradients flow from the
    scores to the logits, and the MACs of `scores` and `predict` are counted like any other layer's.
    """

    name: ClassVar[str] = "policy"
    uses_history: bool = False
    draws: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    knob: ClassVar[str | None] = None
    """The run-time setting that trades accuracy for cost, when there is one."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Whatever fits refuses samples that are there to judge."""
        super().__init_subclass__(**more)
        guard_fits(cls)

    def bind(self, structure: Structure) -> None:
        """Refuse a graph that this policy was not made for.

        Raises:
            PolicyError: number of nodes or ways on differ.
        """

    def scores(self, node: int, signals: Signals) -> Tensor:
        """(n, 1 + out-degree): the worth of stopping, then of each successor."""
        raise CapabilityError(
            f"{type(self).__name__} does not score actions.", todo="Subclasses of Policy define scores()."
        )

    def predict(self, node: int, signals: Signals) -> Tensor:
        """(n, C) logits returned when stopping here; may aggregate the heads visited."""
        return signals.logits

    @property
    def knob_value(self) -> float | None:
        """The setting in force."""
        return None

    def at(self, value: float) -> Self:
        """The same policy at another knob setting; nothing is refitted.

        Raises:
            CapabilityError: the policy has no knob.
        """
        raise CapabilityError(
            f"the policy '{self.name}' has no run-time knob.", todo="Fit it anew for another operating point."
        )

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """Fitted policies along the whole accuracy–cost range, from cheap to dear where the policy can tell.

        The points of its curve: comparisons at equal cost interpolate between them.

        Raises:
            CapabilityError: the policy has one operating point only.
        """
        raise CapabilityError(
            f"{cls.__name__} has no family of operating points.", todo="Define family() to compare it at equal cost."
        )

    def recosted(self, log: CalibrationLog) -> Self:
        """With its own table of costs estimated anew, on any inputs like those in use; labels are not read.

        Itself where the policy keeps no such table. All members of a family share one; `at` picks theirs from it.
        """
        return self

    def check_costs(self, node_macs: tuple[int, ...]) -> None:
        """Refuse a graph that does not cost what the policy's own table of costs says, where it keeps one.

        Args:
            node_macs: V increments, as just counted.

        Raises:
            PolicyError: the table was made for other costs.
        """

    def describe(self) -> dict[str, Any]:
        """Settings for the record, JSON types only; with the tensors they are all that `from_state` needs."""
        return {}

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild a fitted policy from `describe` and `state_dict`.

        Raises:
            CapabilityError: the policy is not kept in checkpoints.
        """
        raise CapabilityError(
            f"{cls.__name__} cannot be rebuilt.", todo="Define from_state() to keep it in a checkpoint."
        )


class ChainPolicy(Policy):
    """A policy for graphs where each node has one way on at most; subclasses give `margin`."""

    def margin(self, node: int, signals: Signals) -> Tensor:
        """(n,), > 0 where the sample goes on."""
        raise CapabilityError(
            f"{type(self).__name__} gives no margin.", todo="Subclasses of ChainPolicy define margin()."
        )

    def scores(self, node: int, signals: Signals) -> Tensor:
        """Stopping is worth 0, going on its margin."""
        margin = self.margin(node, signals)
        return torch.stack([torch.zeros_like(margin), margin], 1)

    def bind(self, structure: Structure) -> None:
        """Chains only."""
        if not structure.is_chain:
            raise PolicyError(
                f"the policy '{self.name}' works on chains; this graph's nodes have "
                f"{[len(w) for w in structure.successors]} ways on.",
                todo="Use dag-selection, or arrange the nodes as a chain.",
            )


class NeverStop(Policy):
    """Always hands over, by the first way, until there is none."""

    name = "never-stop"

    def bind(self, structure: Structure) -> None:
        """Any graph."""
        self._ways = tuple(len(w) for w in structure.successors)

    def scores(self, node: int, signals: Signals) -> Tensor:
        """1 for the first way, 0 for the rest."""
        scores = signals.logits.new_zeros(len(signals.logits), 1 + self._ways[node])
        return scores.index_fill(1, torch.tensor([1], device=scores.device), 1.0)


def edge_margins(scores: Tensor) -> Tensor:
    """An edge's score minus the best other action, stopping included.

    Args:
        scores: (n, 1 + E), stopping first.

    Returns:
        (n, E); at most one is > 0 in a row.
    """
    if scores.shape[1] == 2:
        return scores[:, 1:] - scores[:, :1]
    top, where = scores.topk(2, dim=1)
    best_other = torch.where(
        where[:, :1] == torch.arange(scores.shape[1], device=scores.device), top[:, 1:], top[:, :1]
    )
    return (scores - best_other)[:, 1:]
