"""The cheapest right answer of one node, found by looking at the label."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.structure import Structure
from adaptbench.adaptive.topology import cheapest_ways
from adaptbench.errors import CapabilityError


class Oracle(Policy):
    """The cheapest way that ends at a right node; where none is right, the cheapest way (the loss does not change).

    Bolukbasi et al. 2017 name it as the upper bound of any policy. It bounds those that answer with one node's logits;
    policies that aggregate heads (committees, ztw) can be right where no node is. It costs nothing itself, and cannot
    be deployed.
    """

    name = "oracle"
    needs_labels = True

    @classmethod
    def fit(cls, log: CalibrationLog, *, seed: int = 0) -> Self:
        """Nothing is fitted; the log is not read."""
        return cls()

    def scores(self, node: int, signals: Signals) -> Tensor:
        """None: its way is chosen as a whole.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "an oracle has no scores.",
            why="It looks at the label, not at signals.",
            todo="Attack and fit policies that can be deployed.",
        )

    def choose(self, logits: Tensor, labels: Tensor, structure: Structure, node_macs: tuple[int, ...]) -> Tensor:
        """(N, V) bool way of each sample.

        Args:
            logits: (N, V, C) of every node. labels: (N,). structure: of the graph. node_macs: V increments.
        """
        ways = cheapest_ways(structure.successors, node_macs)  # one a node: no other can be the oracle's
        masks = torch.tensor([[v in way for v in range(len(node_macs))] for way in ways], device=logits.device)
        costs = (masks * torch.tensor(node_macs, device=logits.device)).sum(1)
        ends = torch.tensor([way[-1] for way in ways], device=logits.device)
        right = logits.argmax(-1) == labels[:, None]
        hopeless = ~right.any(1, keepdim=True)
        allowed = right[:, ends] | hopeless
        price = torch.where(allowed, costs.double(), torch.inf)
        return masks[price.argmin(1)]
