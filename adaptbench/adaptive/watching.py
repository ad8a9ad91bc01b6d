"""A policy around a policy: writes down what each node showed, runs on past the exit for those who look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from adaptbench.adaptive.outcome import TIE_MARGIN, Signals
from adaptbench.adaptive.policy import Policy, edge_margins
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError


class Watching(Policy):
    """Decides as the wrapped policy does; a sample with a target goes on to it after its exit, in the same pass.

    The rows of a batch are told apart by their seeds: run it with `seeds=arange(n)`, in `replay` or in `infer`.

    Args:
        inner: the policy in force.
        structure: of the graph. onward: (V, V), its `cheapest_actions`.
        n: samples in the window.
        targets: (n,) int64 node to run on to, −1 for none; None: nobody looks.
        seeds: (n,) int64, the samples' own, for an inner policy that draws.

    Attributes:
        exit: (n,) int64, where the inner policy stopped. answers: (n, C) what it returned there.
        path: (n, V) bool, looking included. logits: (n, V, C), zero where a node did not run. tie: (n,) bool.

    Raises:
        PolicyError: a target that is no node.
    """

    name = "watching"
    inner: Policy

    def __init__(
        self,
        inner: Policy,
        structure: Structure,
        onward: Tensor,
        n: int,
        targets: Tensor | None,
        seeds: Tensor,
    ) -> None:
        super().__init__()
        size, n_classes = len(structure.names), structure.n_classes
        if targets is not None:
            targets = targets.to(torch.int64).cpu()
            if targets.shape != (n,) or not bool(((targets >= -1) & (targets < size)).all()):
                raise PolicyError(
                    f"targets {targets.tolist()[:8]} for looking came with {n} samples and {size} nodes.",
                    todo=f"Give one node below {size} for each sample, −1 for none.",
                )
        self.inner, self.structure = inner, structure
        self.uses_history = inner.uses_history
        self.near = TIE_MARGIN
        self.targets, self.seeds, self.onward = targets, seeds, onward
        self.exit = torch.full((n,), -1)
        self.answers = torch.zeros(n, n_classes)
        self.path = torch.zeros(n, size, dtype=torch.bool)
        self.logits = torch.zeros(n, size, n_classes)
        self.tie = torch.zeros(n, dtype=torch.bool)
        self._pen = _Pen()

    def bind(self, structure: Structure) -> None:
        """The inner policy's own check."""
        self.inner.bind(structure)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write down what is run inside; outside, a model may call the policy to count its MACs."""
        self._pen.is_down = True
        try:
            yield
        finally:
            self._pen.is_down = False

    def scores(self, node: int, signals: Signals) -> Tensor:
        """The inner policy's; past an exit, whatever leads to the target."""
        if not self._pen.is_down:
            return self.inner.scores(node, signals)
        rows, given = self._arrive(node, signals)
        scores = self.inner.scores(node, given)
        best = edge_margins(scores).amax(1).cpu()
        fresh = self.exit[rows] < 0
        self.tie[rows] |= fresh & (best.abs() <= self.near)
        leaving = fresh & ~(best > 0)
        self.exit[rows[leaving]] = node
        if self.targets is None:
            return scores
        action = torch.where(self.targets[rows] >= 0, self.onward[node, self.targets[rows]], 0)
        looking = leaving & (action > 0)
        if looking.any():  # the answer is made here, though the pass goes on
            which = looking.to(scores.device)
            self.answers[rows[looking]] = self.inner.predict(node, given.rows(which)).detach().cpu().to(self.answers)
        led = looking | ~fresh
        if not led.any():
            return scores
        wanted = torch.nn.functional.one_hot(action, scores.shape[1]).to(scores)
        return torch.where(led.to(scores.device)[:, None], wanted, scores)

    def predict(self, node: int, signals: Signals) -> Tensor:
        """The inner policy's answer at the exit, also for those who went on to look."""
        if not self._pen.is_down:
            return self.inner.predict(node, signals)
        rows, given = self._arrive(node, signals)
        if not self.structure.successors[node]:
            ending = rows[self.exit[rows] < 0]
            self.exit[ending] = node
        here = self.exit[rows] == node
        if here.any():
            answer = self.inner.predict(node, given.rows(here.to(signals.logits.device)))
            self.answers[rows[here]] = answer.detach().cpu().to(self.answers)
        return self.answers[rows].to(signals.logits)

    def _arrive(self, node: int, signals: Signals) -> tuple[Tensor, Signals]:
        if signals.seeds is None:
            raise PolicyError("a watched policy ran without row numbers.", todo="Run it with seeds=arange(n).")
        rows = signals.seeds.cpu()
        self.path[rows, node] = True
        self.logits[rows, node] = signals.logits.detach().cpu().to(self.logits)
        own = self.seeds.to(signals.seeds.device)[signals.seeds]
        return rows, Signals(
            signals.logits, ways=signals.ways, history=signals.history, visited=signals.visited, seeds=own
        )


class _Pen:
    """Down while something is written; apart from the policy, so that taking it up is no change of what was counted."""

    is_down = False


def cheapest_actions(structure: Structure, node_costs: Tensor) -> Tensor:
    """(V, V) int64: at node v, on the cheapest way to node t, the action to take; 0 where none leads there.

    Args:
        node_costs: (V,) increments.
    """
    size = len(structure.names)
    away = torch.full((size, size), float("inf"), dtype=torch.float64)  # from v to t, v itself not counted
    actions = torch.zeros(size, size, dtype=torch.int64)
    away.fill_diagonal_(0.0)
    for v in reversed(range(size)):
        for a, w in enumerate(structure.successors[v], start=1):
            through = node_costs[w].double() + away[w]
            better = through < away[v]
            better[v] = False
            away[v] = torch.where(better, through, away[v])
            actions[v] = torch.where(better, a, actions[v])
    return actions
