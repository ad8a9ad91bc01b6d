"""Parts of a net as CUDA graphs: the kernels of a part are recorded once a size, and launched as one from then on.

A graph runs fixed addresses and a fixed number of rows. So rows are copied into its own input, a number that was not
recorded runs in the next larger one that was, and what it made is copied out before it runs again. Rows do not see each
other (a law of every net here), so that the rows beyond those that arrived change nothing but the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from adaptbench.adaptive.compilable import rows_of

Call = Callable[..., Any]
Recorder = Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]
"""What runs on fixed inputs → what runs it again, and its outputs, which each run writes anew."""
WARM = 3
"""Runs before one is recorded: libraries choose their kernels and take their memory in them."""


def recorded_on_card(run: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
    """A CUDA graph of a run.

    Raises:
        RuntimeError: of torch, where the run waits for the card or takes memory of another kind.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    return graph.replay, out


class Graphed:
    """A part whose calls are replayed. Sizes are recorded until `settle`; after it a new kind runs the part as it is.

    Args:
        part: a tensor of rows, or several of as many rows → the like. record: what makes a graph of a run.
    """

    def __init__(self, part: Call, record: Recorder = recorded_on_card) -> None:
        self.part, self._record = part, record
        self._kinds: dict[tuple[Any, ...], dict[int, _Graph]] = {}
        self._settled = False

    def __call__(self, given: Any) -> Any:
        """As the part."""
        n, kind = rows_of(given), _kind(given)
        if n and not self._settled and n not in self._kinds.setdefault(kind, {}):
            self._kinds[kind][n] = _Graph(self.part, given, self._record)
        sizes = self._kinds.get(kind, {})
        fitting = min((size for size in sizes if size >= n), default=0)
        return sizes[fitting](given, n) if n and fitting else self.part(given)

    def settle(self, arriving: Collection[int]) -> None:
        """Record what such numbers of rows run in, and nothing more from now on.

        What they run in are powers of two, and the largest number that was recorded.
        """
        for sizes in self._kinds.values():
            most = max(sizes)
            wanted = {most, *(rows_run(n, most) for n in arriving if 0 < n <= most)}
            for size in sorted(wanted - set(sizes), reverse=True):
                sizes[size] = _Graph(self.part, sizes[most].first(size), self._record)
            for size in set(sizes) - wanted:
                del sizes[size]
        self._settled = True

    def padding(self, calls: Mapping[int, int]) -> float:
        """Rows that graphs run beyond those that arrive, as a share of those. calls: how many by rows."""
        most = max((size for sizes in self._kinds.values() for size in sizes), default=0)
        arriving = sum(n * count for n, count in calls.items())
        return sum(rows_run(n, most) * count for n, count in calls.items() if n) / arriving - 1 if arriving else 0.0


class _Graph:
    """One size."""

    def __init__(self, part: Call, given: Any, record: Recorder) -> None:
        self._own = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, given)
        self._replay, self._made = record(lambda: part(self._own))

    def __call__(self, given: Any, n: int) -> Any:
        for own, leaf in zip(tree_leaves(self._own), tree_leaves(given), strict=True):
            if isinstance(own, Tensor):
                own[:n].copy_(leaf)
        self._replay()
        return tree_map(lambda leaf: leaf[:n].clone() if isinstance(leaf, Tensor) else leaf, self._made)

    def first(self, n: int) -> Any:
        """The first rows of its input."""
        return tree_map(lambda leaf: leaf[:n] if isinstance(leaf, Tensor) else leaf, self._own)


def rows_run(n: int, most: int) -> int:
    """Of a call of n rows: the power of two from n on, no more than `most`.

    >>> [rows_run(n, 48) for n in (1, 5, 32, 33, 48)]
    [1, 8, 32, 48, 48]
    """
    return min(1 << (n - 1).bit_length(), most)


def _kind(given: Any) -> tuple[Any, ...]:
    """What a graph is of, its rows aside; of what is no tensor, the value."""
    return tuple(
        (leaf.shape[1:], leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(given)
    )
