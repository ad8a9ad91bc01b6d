"""The relaxed pass of a graph: every hand-over a share of the samples, so that costs have gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptbench.adaptive.node_counting import NodeCosts
from adaptbench.adaptive.outcome import Relaxation, Signals
from adaptbench.adaptive.policy import Policy, edge_margins
from adaptbench.adaptive.structure import Structure


def relaxed(
    policy: Policy, structure: Structure, logits: Tensor, costs: NodeCosts, *, temperature: float, seeds: Tensor | None
) -> Relaxation:
    """What a policy makes of every node's logits when its decisions are softened.

    Args:
        logits: (N, V, C). costs: of the nodes, the policy and its answers.
        temperature: of the softmax over actions. seeds: (N,) where the policy draws.
    """
    n, size, _ = logits.shape
    real = logits.new_zeros((), dtype=torch.promote_types(logits.dtype, torch.float32))  # MACs are beyond half's range
    successors = structure.successors
    # arrival at each node: probability, hard yes/no, and the way a sample came (hard way first, then the likeliest)
    reach: list[Tensor] = [real.new_ones(n)] + [real.new_zeros(n) for _ in range(size - 1)]
    rank = real.new_full((n, size), -1.0)
    rank[:, 0] = 2.0
    remembers = policy.uses_history  # nobody else asks which way a sample came
    visited = torch.zeros(n, size, size if remembers else 0, dtype=torch.bool, device=logits.device)
    if remembers:
        visited[:, 0, 0] = True
    stopping: list[Tensor] = []
    margins: list[Tensor] = []
    for v, ways in enumerate(successors):
        if not ways:
            stopping.append(reach[v])
            continue
        came = visited[:, v].clone() if remembers else None  # as it is now; the table is filled on in place
        history = torch.where(came[..., None], logits, 0.0) if came is not None else None
        signals = Signals(logits[:, v], ways=ways, history=history, visited=came, seeds=seeds)
        scores = policy.scores(v, signals).to(real)
        share = (scores / temperature).softmax(1)
        edge = edge_margins(scores)
        margins.append(edge)
        stopping.append(reach[v] * share[:, 0])
        for a, w in enumerate(ways):
            arriving = reach[v] * share[:, a + 1]
            reach[w] = reach[w] + arriving
            if not remembers:
                continue
            certain = (rank[:, v] >= 2.0) & (edge[:, a] > 0)
            order = torch.where(certain, 2.0, arriving.detach().clamp(max=1.0))
            better = order > rank[:, w]
            rank[:, w] = torch.where(better, order, rank[:, w])
            visited[:, w] = torch.where(better[:, None], visited[:, v], visited[:, w])
            visited[:, w, w] = True
    per_node = real.new_tensor([a + b for a, b in zip(costs.node, costs.policy, strict=True)])
    arrived = torch.stack(reach, 1)
    expected = arrived @ per_node + torch.stack(stopping, 1) @ real.new_tensor(costs.predict)
    flat = torch.cat(margins, 1) if margins else real.new_zeros(n, 0)
    return Relaxation(expected, flat, logits, arrived)


def macs_along(successors: Sequence[Sequence[int]], on: Tensor, costs: NodeCosts) -> Tensor:
    """(N,) int64 MACs of the ways that decisions make.

    Args:
        on: (N, D) bool, one an edge in the order of the margins: it is taken by those who come to its node.
    """
    here = [on.new_zeros(len(on)) for _ in successors]
    here[0] = on.new_ones(len(on))
    macs = torch.zeros(len(on), dtype=torch.int64, device=on.device)
    column = 0
    for v, ways in enumerate(successors):
        stops = here[v]
        for w in ways:
            goes = here[v] & on[:, column]
            here[w], stops, column = here[w] | goes, stops & ~goes, column + 1
        macs += here[v] * (costs.node[v] + costs.policy[v]) + stops * costs.predict[v]
    return macs
