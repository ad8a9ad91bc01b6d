"""Choosing afterwards: what a policy would have done, from logged logits of every node. `infer` must agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptbench.adaptive.log import LoggedSamples, is_correct
from adaptbench.adaptive.outcome import TIE_MARGIN, Signals
from adaptbench.adaptive.policy import Policy, edge_margins
from adaptbench.adaptive.structure import Structure


@dataclass(frozen=True, slots=True)
class Replay:
    """Decisions replayed on logits.

    Args:
        path: (N, V) bool. exit: (N,) int64. logits: (N, C) returned. tie: (N,) bool.
    """

    path: Tensor
    exit: Tensor
    logits: Tensor
    tie: Tensor

    def macs(self, node_macs: Tensor) -> Tensor:
        """(N,) Σ path · node MACs; policies' own MACs are not in it."""
        return (self.path * node_macs).sum(1)

    def cost(self, node_costs: Tensor) -> Tensor:
        """(N,) Σ path · increments, in their unit."""
        return self.path.to(node_costs.dtype) @ node_costs

    def correct(self, labels: Tensor, top: int = 1) -> Tensor:
        """(N,) bool: the label is among the `top` largest logits returned."""
        return is_correct(self.logits, labels, top)


BLOCK_BYTES = 8 * 2**20
"""Of logits that are replayed together: what a policy makes of them stays in the caches, and memory is used again."""
BLOCK_ROWS = 512
"""At least."""


def blocks(logits: Tensor) -> Iterator[slice]:
    """Rows of (N, V, C) logits that are replayed together; all of them where they are few."""
    row = max(logits[0].numel() * logits.element_size(), 1) if len(logits) else 1
    size = max(BLOCK_BYTES // row, BLOCK_ROWS)
    for start in range(0, len(logits), size):
        yield slice(start, min(start + size, len(logits)))


def replay(policy: Policy, structure: Structure, logits: Tensor, *, seeds: Tensor | None = None) -> Replay:
    """Follow each sample's way through logged logits.

    Args:
        policy: fitted.
        structure: of the graph that was logged.
        logits: (N, V, C).
        seeds: (N,) for policies that draw.
    """
    parts = [r for _, r in replay_in_blocks(policy, structure, logits, seeds=seeds)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _replay(policy, structure, logits, seeds)
    return Replay(*(torch.cat([getattr(part, name) for part in parts]) for name in ("path", "exit", "logits", "tie")))


def replay_in_blocks(
    policy: Policy, structure: Structure, logits: Tensor, *, seeds: Tensor | None = None
) -> Iterator[tuple[slice, Replay]]:
    """The same, so many rows at a time that logs of any length need no memory beside their own.

    Args: as of `replay`.
    """
    for rows in blocks(logits):
        yield rows, _replay(policy, structure, logits[rows], None if seeds is None else seeds[rows])


@torch.no_grad()
def _replay(policy: Policy, structure: Structure, logits: Tensor, seeds: Tensor | None) -> Replay:
    n, size, _ = logits.shape
    path = torch.zeros(n, size, dtype=torch.bool)
    path[:, 0] = True
    leaves = torch.zeros(n, dtype=torch.int64)
    tie = torch.zeros(n, dtype=torch.bool)
    here = torch.zeros(n, dtype=torch.int64)  # the node each sample stands at; −1 once it stopped
    out = torch.empty_like(logits[:, 0])
    for v, ways in enumerate(structure.successors):
        rows = (here == v).nonzero().squeeze(1)
        if not len(rows):
            continue
        visited = path[rows]
        signals = Signals(
            logits[rows, v],
            ways=ways,
            history=_history(structure, logits, rows, v, visited) if policy.uses_history else None,
            visited=visited,
            seeds=None if seeds is None else seeds[rows],
        )
        action = torch.zeros(len(rows), dtype=torch.int64)
        if ways:
            margins = edge_margins(policy.scores(v, signals))
            best, edge = margins.max(1)
            action = torch.where(best > 0, edge + 1, 0)
            tie[rows] |= best.abs() <= TIE_MARGIN
        onward = torch.tensor([-1, *ways])[action]
        here[rows] = onward
        stop = action == 0
        leaves[rows[stop]] = v
        if bool(stop.all()):
            out[rows] = policy.predict(v, signals)
        elif bool(stop.any()):
            out[rows[stop]] = policy.predict(v, signals.rows(stop))
        going = ~stop
        path[rows[going], onward[going]] = True
    return Replay(path, leaves, out, tie)


def _history(structure: Structure, logits: Tensor, rows: Tensor, node: int, visited: Tensor) -> Tensor:
    """(n, V, C) logits of the nodes visited so far, zero elsewhere; on a chain these are all up to this one."""
    if not structure.is_chain:
        return torch.where(visited[..., None], logits[rows], 0.0)
    history = logits.new_zeros(len(rows), *logits.shape[1:])
    history[:, : node + 1] = logits[rows, : node + 1]
    return history


@dataclass(frozen=True, slots=True)
class Point:
    """Where one setting of a policy lands on a log: a dot on the accuracy–cost plane; cost in the log's unit."""

    setting: float
    accuracy: float
    macs_mean: float
    cost_mean: float


def evaluate_on(policy: Policy, log: LoggedSamples, setting: float = float("nan")) -> Point:
    """Accuracy (of pixels: the mean share that is right) and mean cost on a log, without what the policy costs."""
    policy.bind(log.structure)
    replayed = replay(policy, log.structure, log.logits, seeds=torch.arange(len(log)))
    if log.quality is None:
        right = replayed.correct(log.labels, log.top).float()
    else:
        right = log.quality.gather(1, replayed.exit[:, None])
    return Point(
        setting,
        right.mean().item(),
        replayed.macs(log.node_macs).float().mean().item(),
        replayed.cost(log.node_costs).mean().item(),
    )


def cheapest_within(points: list[Point], accuracy: float) -> Point:
    """The cheapest point that is at least that accurate; the most accurate one where none is."""
    good = [p for p in points if p.accuracy >= accuracy]
    return min(good, key=lambda p: p.cost_mean) if good else max(points, key=lambda p: (p.accuracy, -p.cost_mean))
