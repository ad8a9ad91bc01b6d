"""A hard budget of work: a token bucket that all inputs share, and exits that it forces when it runs low."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive.online import Observation, OnlinePolicy
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy, edge_margins
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import PolicyError, UsageError

_SLACK = 1e-9
"""Of an increment: sums of refills round."""


class Capped(Policy):
    """Another policy that goes no further than its allowance: where the chosen way costs too much, the input leaves.

    Args:
        policy: whose decisions they are. node_costs: (V,) increments. allowance: for one input, in their unit.
    """

    name = "capped"
    uses_history = True
    node_costs: Tensor

    def __init__(self, policy: Policy, node_costs: Tensor, allowance: float) -> None:
        super().__init__()
        self.policy, self.allowance = policy, float(allowance)
        self.draws = policy.draws  # type: ignore[misc]
        self.needs_labels = policy.needs_labels  # type: ignore[misc]
        self.register_buffer("node_costs", node_costs.double().clone())

    def bind(self, structure: Structure) -> None:
        """Graphs that its policy takes."""
        self.policy.bind(structure)

    def scores(self, node: int, signals: Signals) -> Tensor:
        """The policy's; stopping wins where the best way on is beyond the allowance."""
        scores = self.policy.scores(node, signals)
        assert signals.visited is not None  # it uses the history
        best, edge = edge_margins(scores).max(1)
        ways = torch.tensor(signals.ways, device=scores.device)
        paid = signals.visited.double() @ self.node_costs + self.node_costs[ways[edge]]
        forced = (best > 0) & (paid > self.allowance * (1 + _SLACK))
        stop = torch.where(forced, scores.amax(1) + 1, scores[:, 0])
        return torch.cat([stop[:, None], scores[:, 1:]], 1)

    def predict(self, node: int, signals: Signals) -> Tensor:
        """The policy's own answer."""
        return self.policy.predict(node, signals)

    def describe(self) -> dict[str, Any]:
        """The allowance and the policy."""
        return {"allowance": self.allowance, "policy": self.policy.name, "settings": self.policy.describe()}


class ComputeBudget(OnlinePolicy):
    """A token bucket in the unit of the node costs: each input adds `rate`, and what ran is taken out.

    The bucket begins full and holds at most `capacity`. An input may spend what it holds; where the policy would go on
    to a node that the rest does not cover, the input leaves at once, with the answer of the exit it stands at. In
    windows of W inputs, which run side by side, each may spend a W-th. So the work of T inputs never exceeds
    capacity + rate · T, whoever sent them: what an attacker spends is taken from the inputs after his. Token buckets:
    Turner, "New Directions in Communications", IEEE Communications Magazine 24(10), 1986.

    Args:
        policy: that decides while there is enough. rate: added with each input; at least the entry node's cost, so
            that every input is answered.
        capacity: at least what a window of entry nodes costs. window: inputs that run side by side at most.

    Raises:
        UsageError: numbers that are not above 0.
    """

    name: ClassVar[str] = "compute-budget"

    def __init__(self, policy: Policy, *, rate: float, capacity: float, window: int = 1) -> None:
        for what, value in (("rate", rate), ("capacity", capacity), ("window", window)):
            if isinstance(value, bool) or not 0 < value < math.inf:
                raise UsageError(f"{what} = {value!r} makes no budget.", todo="Give a number above 0.")
        self.base, self.rate, self.capacity, self.window = policy, float(rate), float(capacity), int(window)

    def bind(self, structure: Structure, node_costs: Tensor) -> None:
        """Take a graph, and begin with a full bucket.

        Raises:
            PolicyError: the bucket cannot pay for the entry node of every input.
        """
        entry = float(node_costs[0])
        if self.rate < entry or self.capacity < self.window * entry:
            raise PolicyError(
                f"the entry node costs {entry:g}; the bucket adds {self.rate:g} an input and holds {self.capacity:g}, "
                f"for windows of {self.window}.",
                why="Every input has to be answered, and the entry node is the least that answers.",
                todo="Give a rate of at least the entry node's cost, and a capacity of a window of them.",
            )
        self.base.bind(structure)
        super().bind(structure, node_costs)

    def initial(self) -> dict[str, Any]:
        """A full bucket."""
        return {"level": self.capacity}

    def policy(self) -> Policy:
        """The policy, capped at an input's part of what the bucket holds."""
        return Capped(self.base, self.node_costs, self.memory["level"] / self.window)

    def observe(self, seen: Observation) -> None:
        """Take out what ran, and add what the next inputs bring.

        Raises:
            UsageError: more inputs ran side by side than the budget was made for.
        """
        if len(seen) > self.window:
            raise UsageError(
                f"{len(seen)} inputs ran side by side under a budget for windows of {self.window}.",
                why="Each would have spent a part that is too large, and the budget would not be one.",
                todo=f"Give the budget window={len(seen)}, or run smaller windows.",
            )
        left = max(0.0, self.memory["level"] - float(seen.costs.sum()))  # a rounding below 0 at most
        self.memory["level"] = min(self.capacity, left + self.rate * len(seen))

    def describe(self) -> dict[str, Any]:
        """Rate, capacity, window and the policy."""
        return {
            "rate": self.rate,
            "capacity": self.capacity,
            "window": self.window,
            "policy": self.base.name,
            "settings": self.base.describe(),
        }
