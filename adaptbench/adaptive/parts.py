"""What the hard pass spends its time on: the net's nodes, its policy, and the executor, which is ours and no net's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from torch import Tensor

NODES = "nodes"
"""Stages and heads, or stem, bodies, shortcuts and head: what a static net has too."""
POLICY = "policy"
"""Decisions, with what a node shows for them; gates; answers that aggregate heads."""
EXECUTOR = "executor"
"""Grouping rows, handing them over, putting answers into order."""

PARTS = (NODES, POLICY, EXECUTOR)

Mode = Literal["compacted", "per-sample", "queues"]
"""How a batch is executed; results are the same but for rounding."""
TimedMode = Literal["compacted", "per-sample", "queues", "compiled"]
"""How what is timed executes a batch: a mode, or compacted with parts that `compile_parts` made of the net."""
FULL = 64
"""Samples that a node runs on at once in stage queues, unless said otherwise."""

Lap = Callable[[str], None]
"""Told at the end of each stretch which part it was."""


def no_lap(part: str) -> None:
    """Nobody times this pass."""


EVERYONE = slice(None)
"""All rows of a batch, as an index."""

Whose = Tensor | slice
"""Rows of a batch, or `EVERYONE`."""


class Decided(NamedTuple):
    """What a pass leaves behind for the records; made into path, exit and ties after it.

    Args:
        ran: (node, rows of the batch that it ran on), of each row in the order of its nodes: the last answered it.
        left: (node, rows that were answered there), where the order is restored by it.
        best: (rows, (n,) signed distance of their decision from a tie).
    """

    ran: list[tuple[int, Whose]]
    left: list[tuple[int, Tensor]]
    best: list[tuple[Whose, Tensor]]


def alone(
    x: Tensor, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]]:
    """What `infer` was given, one sample at a time. force: (V,) for all, or (N, V)."""
    for i in range(len(x)):
        one = slice(i, i + 1)
        yield (
            x[one],
            None if seeds is None else seeds[one],
            None if labels is None else labels[one],
            force[one] if force is not None and force.ndim == 2 else force,
        )
