"""The ways of real samples, as `infer` executes them: which nodes, at what cost, right at which of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptbench.adaptive import DecisionGraph
from adaptbench.adaptive.model import frozen
from adaptbench.bench.evaluate import as_input
from adaptbench.defences.shared_budget import ways_of
from adaptbench.errors import CapabilityError
from adaptbench.serving.traffic import Way

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
def executed(model: DecisionGraph, x: Tensor, labels: Tensor, seeds: Tensor, device: str) -> Executed:
    """Run some samples and keep their ways.

    Args:
        model: under its policy. x: (n, …) as stored. labels, seeds: (n,).

    Raises:
        CapabilityError: what nodes and decisions cost does not add up to what the pass says it executed.
    """
    node_macs = torch.tensor([a + b for a, b in zip(model.node_macs, model.policy_macs, strict=True)])
    ways: list[Way] = []
    paths, macs = [], []
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        given, own = as_input(x[part], device), seeds[part].to(device)
        inference = model.infer(given, seeds=own)
        path = inference.path.cpu()
        with frozen(model):
            logits = model.dense_logits(given).float().cpu()
        found = ways_of(model.policy, model.structure, logits, labels[part], node_macs, seeds[part], path)
        for mask, costs, right in zip(path.tolist(), found.costs, found.right, strict=True):
            nodes = tuple(v for v, yes in enumerate(mask) if yes)
            spent = tuple(cost + model.predict_macs[v] for v, cost in zip(nodes, costs, strict=True))
            ways.append(Way(nodes, spent, tuple(right)))
        paths.append(path)
        macs.append(inference.macs.cpu())
    counted = torch.cat(macs)
    if any(way.macs[-1] != own for way, own in zip(ways, counted.tolist(), strict=True)):
        raise CapabilityError(
            f"the nodes and decisions of this {model.shape} net do not add up to the MACs that its pass executes.",
            why="A budget would be spent on figures that are not the net's.",
            todo="Serve a net whose policy costs the same for every input.",
        )
    return Executed(ways, torch.cat(paths), counted)
