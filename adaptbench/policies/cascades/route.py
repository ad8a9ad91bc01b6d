"""A fixed way through a graph with a confidence threshold at each node of it: what cascade builders hand back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError

PASS = 2.0
"""A threshold that no confidence reaches: the node is run because the way leads through it, and never answers."""


@dataclass(frozen=True, slots=True)
class Route:
    """Which nodes are run, in order, and the top softmax probability that each of them answers from.

    Args:
        way: nodes, the first to run first.
        thresholds: one a node; the last node answers whatever comes.
    """

    way: tuple[int, ...]
    thresholds: tuple[float, ...]


class RoutePolicy(Policy):
    """Follow a fixed route: stop where the top softmax probability reaches the node's threshold, else go to the next.

    Works on any graph that has the route's hand-overs. Nodes off the route stop; no sample gets there.
    """

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.route = route

    def bind(self, structure: Structure) -> None:
        """The route starts at the entry and follows hand-overs of the graph."""
        way = self.route.way
        if way[0] != 0:
            raise PolicyError(
                f"a route from node {way[0]} was given to a graph whose entry is node 0.",
                why="The entry is always run.",
                todo="Build a cascade of the chosen nets, or choose on the graph with its own path costs.",
            )
        for v, w in pairwise(way):
            if v >= len(structure.names) or w not in structure.successors[v]:
                raise PolicyError(
                    f"a route hands over from node {v} to {w}; the graph has no such way.",
                    todo="Fit the policy on this graph's own log.",
                )

    def scores(self, node: int, signals: Signals) -> Tensor:
        """Confidence for stopping, the threshold for the next node of the route, −1 (never) for other ways."""
        confidence = signals.confidence
        others = [torch.full_like(confidence, -1.0)] * len(signals.ways)
        if node in self.route.way[:-1]:
            step = self.route.way.index(node)
            after = signals.ways.index(self.route.way[step + 1])
            others[after] = torch.full_like(confidence, self.route.thresholds[step])
        return torch.stack([confidence, *others], 1)


@dataclass(frozen=True, slots=True)
class Steps:
    """What it costs to run a node next, and what is run on the way there.

    Args:
        cost: (V+1, V) float64; row u+1 after node u, row 0 before anything was run; inf where no way leads.
        before: for a graph, the node that a step's last hand-over starts from, −1 for the entry; None for a pool.
    """

    cost: Tensor
    before: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def pool(cls, node_costs: Tensor) -> Steps:
        """Whole nets in any order, each starting from the image: running v costs v. node_costs: (V,)."""
        size = len(node_costs)
        cost = node_costs.double().expand(size + 1, size).clone()
        cost[1:].fill_diagonal_(torch.inf)  # what ran once need not run again
        return cls(cost)

    @classmethod
    def graph(cls, structure: Structure, node_costs: Tensor) -> Steps:
        """Along the hand-overs from the entry, nodes passed on the way paid for, by the cheapest way there.

        Args:
            structure: of the graph.
            node_costs: (V,) increments.
        """
        size = len(structure.names)
        prices = node_costs.double().tolist()
        cost = torch.full((size + 1, size), torch.inf, dtype=torch.float64)
        through = [[-1] * size for _ in range(size + 1)]
        for start in range(size + 1):
            spent = [float("inf")] * size
            if start == 0:
                spent[0] = prices[0]
            for v in range(size):
                here = 0.0 if v == start - 1 else spent[v]
                if here == float("inf"):
                    continue
                for w in structure.successors[v]:
                    if here + prices[w] < spent[w]:
                        spent[w], through[start][w] = here + prices[w], v
            cost[start] = torch.tensor(spent, dtype=torch.float64)
        return cls(cost, tuple(tuple(row) for row in through))

    def between(self, after: int, node: int) -> list[int]:
        """The nodes run from `after` (−1: from the start) to `node`, the last included."""
        if self.before is None:
            return [node]
        way = [node]
        while (source := self.before[after + 1][way[0]]) not in (-1, after):
            way.insert(0, source)
        return way

    def route(self, answers: list[tuple[int, float]]) -> Route:
        """The full way of nodes that answer, (node, threshold) in order; those passed through never answer."""
        way: list[int] = []
        thresholds: list[float] = []
        for node, threshold in answers:
            passed = self.between(way[-1] if way else -1, node)
            way += passed
            thresholds += [PASS] * (len(passed) - 1) + [threshold]
        return Route(tuple(way), tuple(thresholds))
