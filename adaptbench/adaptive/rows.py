"""Rows of a batch on their way through a graph: gathered, handed over, written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from adaptbench.adaptive.node_counting import NodeCosts
from adaptbench.adaptive.outcome import Inference
from adaptbench.adaptive.parts import Decided


def gathered(x: Tensor, kept: dict[int, tuple[Tensor, Any]], source: int, rows: Tensor) -> Any:
    """The rows of what a node reads.

    Args:
        x: the whole batch. kept: node → (its rows, its features). source: which of them, −1 for the batch itself.
        rows: rising; all of them are among the source's.
    """
    if source < 0:
        return x if len(rows) == len(x) else x[rows]
    had, features = kept[source]
    if len(had) == len(rows):
        return features
    position = rows if len(had) == len(x) else torch.searchsorted(had, rows)
    if isinstance(features, Tensor):
        return features.index_select(0, position)
    return tree_map(lambda t: t.index_select(0, position), features)


def hand_over(waiting: dict[int, list[Tensor]], ways: Sequence[int], rows: Tensor, action: Tensor) -> Tensor | None:
    """Queue each row at its next node; places of those that stop, None where nobody does."""
    n = len(rows)
    if n == 1:
        counts = [0] * (1 + len(ways))
        counts[int(action)] = 1
    elif len(ways) == 1:
        going = int(action.sum())
        counts = [n - going, going]
    else:
        counts = action.bincount(minlength=1 + len(ways)).tolist()
    for a, w in enumerate(ways, start=1):
        if counts[a]:
            waiting.setdefault(w, []).append(rows if counts[a] == n else rows[action == a])
    if not counts[0]:
        return None
    return rows if counts[0] == n else (action == 0).nonzero().squeeze(1)


def written(history: Tensor, rows: Tensor, v: int, logits: Tensor) -> Tensor:
    """The history with a node's logits in it; a new one only where gradients need the old."""
    where = (rows, torch.tensor(v, device=rows.device))
    return history.index_put(where, logits) if torch.is_grad_enabled() else history.index_put_(where, logits)


def recorded(decided: Decided, out: Tensor, costs: NodeCosts, near: float) -> Inference:
    """What a pass decided, as records.

    Args:
        out: (n, C) answers. near: a decision this close to its threshold is a tie.
    """
    n, device = len(out), out.device
    path = torch.zeros(n, len(costs.stage), dtype=torch.bool, device=device)
    leaves = torch.zeros(n, dtype=torch.int64, device=device)
    tie = torch.zeros(n, dtype=torch.bool, device=device)
    for v, rows in decided.ran:
        path[rows, v] = True
    for v, rows in decided.left:
        leaves[rows] = v
    for rows, best in decided.best:
        tie[rows] |= best.abs() <= near
    per_node = torch.tensor([a + b for a, b in zip(costs.node, costs.policy, strict=True)], device=device)
    macs = (path * per_node).sum(1) + torch.tensor(costs.predict, device=device)[leaves]
    return Inference(out, macs, leaves, path, tie)
