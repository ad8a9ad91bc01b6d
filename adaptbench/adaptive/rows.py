"""Rows of a batch on their way through a graph: gathered, handed over, written down."""

from __future__ import annotations

import functools
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
        return x if rows.shape[0] == x.shape[0] else x[rows]
    had, features = kept[source]
    if had.shape[0] == rows.shape[0]:
        return features
    position = rows if had.shape[0] == x.shape[0] else torch.searchsorted(had, rows)
    if isinstance(features, Tensor):
        return features.index_select(0, position)
    return tree_map(lambda t: t.index_select(0, position), features)


def hand_over(waiting: dict[int, list[Tensor]], ways: Sequence[int], rows: Tensor, action: Tensor) -> Tensor | None:
    """Queue each row at its next node; places of those that stop, None where nobody does."""
    n = rows.shape[0]
    if n == 1:
        counts = [0] * (1 + len(ways))
        counts[int(action)] = 1
    elif len(ways) == 1:  # by far the most common, and each operation counts on small nets
        going = action.nonzero().squeeze(1)
        if going.shape[0]:
            everyone = going.shape[0] == n
            waiting.setdefault(ways[0], []).append(rows if everyone else rows.index_select(0, going))
            return None if everyone else action.logical_not().nonzero().squeeze(1)
        return rows
    else:
        counts = action.new_zeros(1 + len(ways)).scatter_add_(0, action, torch.ones_like(action)).tolist()
    if max(counts) == n:  # all of them go one way
        way = counts.index(n)
        if way:
            waiting.setdefault(ways[way - 1], []).append(rows)
        return None if way else rows
    groups = torch.split(action.argsort(stable=True), counts)
    for w, group in zip(ways, groups[1:], strict=True):
        if len(group):
            waiting.setdefault(w, []).append(rows.index_select(0, group))
    return groups[0] if counts[0] else None


def written(history: Tensor, rows: Tensor, v: int, logits: Tensor) -> Tensor:
    """The history with a node's logits in it; a new one only where gradients need the old."""
    where = (rows, torch.tensor(v, device=rows.device))
    return history.index_put(where, logits) if torch.is_grad_enabled() else history.index_put_(where, logits)


_ALL = slice(None)


@functools.lru_cache(maxsize=64)
def _prices(
    node: tuple[int, ...], policy: tuple[int, ...], predict: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(V,) int64 of running a node and deciding there, and of answering there; nobody writes into them."""
    with torch.inference_mode(False):
        visit = torch.tensor([a + b for a, b in zip(node, policy, strict=True)], device=device)
        return visit, torch.tensor(predict, device=device)


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
        path[rows if rows.shape[0] < n else _ALL, v] = True
    for v, rows in decided.left:
        leaves[rows if rows.shape[0] < n else _ALL] = v
    for rows, best in decided.best:
        tie[rows] |= best.abs() <= near
    per_node, predict = _prices(costs.node, costs.policy, costs.predict, device)
    macs = (path * per_node).sum(1) + predict[leaves]
    return Inference(out, macs, leaves, path, tie)
