"""Rows of a batch on their way through a graph: gathered, handed over, written down."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from adaptbench.adaptive.node_counting import NodeCosts
from adaptbench.adaptive.outcome import Inference
from adaptbench.adaptive.parts import EVERYONE, Decided


class Arrival(NamedTuple):
    """Rows that a node runs on.

    Args:
        rows: of the batch, rising; None for all of it.
        source: the node that handed them over; −1 for none, or for several.
        places: theirs among that node's rows; None for all of those.
    """

    rows: Tensor | None
    source: int
    places: Tensor | None


def joined(arrivals: Sequence[Arrival], n: int) -> Arrival:
    """What several nodes handed over, in order. n: rows of the batch."""
    together = [arrival.rows for arrival in arrivals if arrival.rows is not None]
    everyone = sum(rows.shape[0] for rows in together) == n
    return Arrival(None if everyone else torch.cat(together).sort().values, -1, None)


def some(of: Tensor | None, places: Tensor | None) -> Tensor | None:
    """Some rows of a tensor, where there is one. places: None for all."""
    return of if of is None or places is None else of.index_select(0, places)


def laid_alike(t: Tensor, rows: Tensor) -> Tensor:
    """Some rows of a tensor, channels last where they are: convolutions choose their kernel by it, and round by it."""
    if t.dim() != 4 or t.stride(1) != 1 or not t.is_contiguous(memory_format=torch.channels_last):
        return t.index_select(0, rows)
    if t.shape[1] > 1 and t.is_contiguous():  # of one pixel, where both are the same
        return t.index_select(0, rows)
    return t.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def picked(features: Any, rows: Tensor) -> Any:
    """The same of features, a tensor or a tree of them."""
    if isinstance(features, Tensor):
        return laid_alike(features, rows)
    return tree_map_only(Tensor, lambda t: laid_alike(t, rows), features)


def of_batch(rows: Tensor | None, places: Tensor | None) -> Tensor | None:
    """Rows of the batch, of rows at some places among them; None for all."""
    return places if rows is None else rows if places is None else rows.index_select(0, places)


def gathered(x: Tensor, kept: dict[int, tuple[Tensor | None, Any]], source: int, arrival: Arrival) -> Any:
    """The rows of what a node reads.

    Args:
        x: the whole batch. kept: node → (its rows, its features). source: which of them, −1 for the batch itself.
        arrival: all of its rows are among the source's.
    """
    rows = arrival.rows
    if source < 0:
        return x if rows is None else laid_alike(x, rows)
    had, features = kept[source]
    if arrival.source == source:
        places = arrival.places
    elif had is None:
        places = rows
    elif rows is None or had.shape[0] == rows.shape[0]:
        places = None
    else:
        places = torch.searchsorted(had, rows)
    if places is None:
        return features
    if isinstance(features, Tensor):
        return features.index_select(0, places)
    return tree_map(lambda t: t.index_select(0, places), features)


def parted(action: Tensor | bool, ways: int, n: int, *, stopping: bool = True) -> list[tuple[int, Tensor | None]]:
    """Who does what: (action, places, rising); None for all of them. What nobody does is left out.

    Args:
        action: (n,) 0 stops, else the place of the way on, plus one; of one row, the number itself. ways: how many.
        stopping: whether those who stop are asked for, where some go on.
    """
    if n == 1:
        return [(int(action), None)]
    assert isinstance(action, Tensor)
    if ways == 1:  # by far the most common, and each operation counts on small nets
        going = action.nonzero().squeeze(1)
        if not 0 < going.shape[0] < n:
            return [(1 if going.shape[0] else 0, None)]
        return [(1, going), (0, action.logical_not().nonzero().squeeze(1))] if stopping else [(1, going)]
    counts = action.new_zeros(1 + ways).scatter_add_(0, action, torch.ones_like(action)).tolist()
    if max(counts) == n:
        return [(counts.index(n), None)]
    groups = torch.split(action.argsort(stable=True), counts)
    return [(a, group) for a, group in enumerate(groups) if group.shape[0] and (a or stopping)]


def written(history: Tensor, rows: Tensor | None, v: int, logits: Tensor) -> Tensor:
    """The history with a node's logits in it; a new one only where gradients need the old."""
    if rows is None:
        rows = torch.arange(len(history), device=history.device)
    where = (rows, torch.tensor(v, device=rows.device))
    return history.index_put(where, logits) if torch.is_grad_enabled() else history.index_put_(where, logits)


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
    for v, rows in decided.ran:  # of each row in order, so that the last is where it was answered
        whose = rows if isinstance(rows, Tensor) and rows.shape[0] < n else EVERYONE
        path[whose, v] = True
        leaves[whose] = v
    for rows, best in decided.best:
        tie[rows] |= best.abs() <= near
    per_node, predict = _prices(costs.node, costs.policy, costs.predict, device)
    macs = (path * per_node).sum(1) + predict[leaves]
    return Inference(out, macs, leaves, path, tie)
