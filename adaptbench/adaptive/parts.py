"""What the hard pass spends its time on: the net's nodes, its policy, and the executor, which is ours and no net's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

NODES = "nodes"
"""Stages and heads, or stem, bodies, shortcuts and head: what a static net has too."""
POLICY = "policy"
"""Decisions, with what a node shows for them; gates; answers that aggregate heads."""
EXECUTOR = "executor"
"""Grouping rows, handing them over, putting answers into order."""

PARTS = (NODES, POLICY, EXECUTOR)

Lap = Callable[[str], None]
"""Told at the end of each stretch which part it was."""


def no_lap(part: str) -> None:
    """Nobody times this pass."""


class Decided(NamedTuple):
    """What a pass leaves behind for the records; made into path, exit and ties after it.

    Args:
        ran: (node, rows of the batch that it ran on).
        left: (node, rows that were answered there).
        best: (rows, (n,) signed distance of their decision from a tie).
    """

    ran: list[tuple[int, Tensor]]
    left: list[tuple[int, Tensor]]
    best: list[tuple[Tensor, Tensor]]
