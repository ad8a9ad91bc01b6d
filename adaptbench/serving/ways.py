"""The ways of real samples, as `infer` executes them: which nodes, at what cost, right at which of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptbench.adaptive import DecisionGraph, GatedNetwork
from adaptbench.adaptive.model import frozen
from adaptbench.bench.evaluate import as_input
from adaptbench.defences.shared_budget import ways_of
from adaptbench.errors import CapabilityError
from adaptbench.serving.blocks import block_ways
from adaptbench.serving.traffic import Way

Servable = DecisionGraph | GatedNetwork
"""What can stand behind a line."""

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Executed:
    """n samples through a net.

    Args:
        ways: a sample each. path: (n, V) bool. macs: (n,) int64 executed.
    """

    ways: list[Way]
    path: Tensor
    macs: Tensor

    @property
    def macs_mean(self) -> float:
        """A sample."""
        return float(self.macs.double().mean())

    @property
    def accuracy(self) -> float:
        """Of the answers."""
        return sum(way.right[-1] for way in self.ways) / len(self.ways)

    @property
    def reach(self) -> list[float]:
        """Share of the samples that run each node."""
        return [float(share) for share in self.path.double().mean(0)]


@torch.no_grad()
def executed(model: Servable, x: Tensor, labels: Tensor, seeds: Tensor, device: str) -> Executed:
    """Run some samples and keep their ways.

    Args:
        model: under its policy. x: (n, …) as stored. labels, seeds: (n,).

    Raises:
        CapabilityError: what nodes and decisions cost does not add up to what the pass says it executed.
    """
    ways: list[Way] = []
    paths, macs = [], []
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        if isinstance(model, GatedNetwork):
            own, path, spent = block_ways(model, x[part], labels[part], device)
        else:
            own, path, spent = _node_ways(model, x[part], labels[part], seeds[part], device)
        ways += own
        paths.append(path)
        macs.append(spent)
    counted = torch.cat(macs)
    if any(way.macs[-1] != own for way, own in zip(ways, counted.tolist(), strict=True)):
        raise CapabilityError(
            f"the nodes and decisions of this {model.shape} net do not add up to the MACs that its pass executes.",
            why="A budget would be spent on figures that are not the net's.",
            todo="Serve a net whose policy costs the same for every input.",
        )
    return Executed(ways, torch.cat(paths), counted)


def _node_ways(
    model: DecisionGraph, x: Tensor, labels: Tensor, seeds: Tensor, device: str
) -> tuple[list[Way], Tensor, Tensor]:
    """Ways, (n, V) bool paths and (n,) int64 MACs of a chunk."""
    node_macs = torch.tensor([a + b for a, b in zip(model.node_macs, model.policy_macs, strict=True)])
    given = as_input(x, device)
    inference = model.infer(given, seeds=seeds.to(device))
    path = inference.path.cpu()
    with frozen(model):
        logits = model.dense_logits(given).float().cpu()
    found = ways_of(model.policy, model.structure, logits, labels, node_macs, seeds, path)
    ways = []
    for mask, costs, right in zip(path.tolist(), found.costs, found.right, strict=True):
        nodes = tuple(v for v, yes in enumerate(mask) if yes)
        spent = tuple(cost + model.predict_macs[v] for v, cost in zip(nodes, costs, strict=True))
        ways.append(Way(nodes, spent, tuple(right)))
    return ways, path, inference.macs.cpu()
