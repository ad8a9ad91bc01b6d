"""Matrix products spelled out as a broadcast multiplication and a sum: no formula sees them, so they are named.

A product has an axis that both factors share and that is summed, one that only the left factor has and one that only
the right factor has: (N, 1, K) · (O, K) summed over K. Without the last two the sum weighs each element once (attention
pooling, gates, normalisation), which is free like any other multiplication of elements. Distances, a difference with a
power or norm over it, are products in the same sense: torch's own ``cdist`` is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef

from adaptbench.adaptive.operators import is_elementwise

_MULTIPLIES = {"aten::mul": (0, 1), "aten::div": (0, 1), "aten::addcmul": (1, 2)}
_SUBTRACTS = {"aten::sub": (0, 1), "aten::rsub": (0, 1)}
_SUMS = {"aten::sum": 1, "aten::mean": 1, "aten::nansum": 1, "aten::norm": 2, "aten::linalg_vector_norm": 2}
"""Reductions that add → where their axes stand among the arguments."""
_COPIES = frozenset({"aten::clone", "aten::_to_copy", "aten::contiguous", "aten::neg"})

LEFT, RIGHT, BOTH = "left", "right", "both"


@dataclass(slots=True)
class _Outer:
    """A tensor in which two factors meet over axes of their own.

    Args:
        storage: keeps the address, not the memory.
        origin: the operator that made it.
        counts: a sum over it is a product; of a difference not before something follows that is not linear.
        axes: (stride, whose) of its axes longer than 1.
        lasting: whose axes of length 1 it has besides, as a batch of one sample gives.
    """

    storage: Any
    origin: str
    counts: bool
    axes: list[tuple[int, frozenset[str]]]
    lasting: frozenset[str]

    def whose(self, tensor: Tensor, axis: int) -> frozenset[str]:
        """Of an axis of any view: the axes of the original that it runs over, told by its stride."""
        step, size = tensor.stride(axis), tensor.shape[axis]
        return frozenset().union(*(whose for stride, whose in self.axes if size > 1 and step <= stride < step * size))


class Contractions:
    """Follows outer products from the multiplication to the sum. One for each pass that is counted."""

    def __init__(self) -> None:
        self._known: dict[int, _Outer] = {}
        self._spread: dict[int, tuple[Any, frozenset[int]]] = {}  # axes, from the last, along which all is repeated

    def see(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> str | None:
        """Look at one call; the name of the product that it ends, if it ends one."""
        role = _role(func)
        if role == "":
            return None
        if role == "sums":
            return self._sum(func._schema.name, args, kwargs) if self._known else None
        if isinstance(out, Tensor):
            if role == "meets":
                self._meet(func._schema.name, args, out)
            if self._known:
                self._follow(role, args, out)
            self._repeat(args, out)
        return None

    def _meet(self, name: str, args: Sequence[Any], out: Tensor) -> None:
        first, second = _MULTIPLIES.get(name) or _SUBTRACTS[name]
        left, right = args[first], args[second] if len(args) > second else None
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return
        absent = self._absent(left), self._absent(right)
        if (left.shape == right.shape and not (absent[0] or absent[1])) or not (
            out.is_floating_point() or out.is_complex()
        ):
            return
        axes: list[tuple[int, frozenset[str]]] = []
        lasting: set[str] = set()
        for axis, size in enumerate(out.shape):
            mine, yours = (
                _has(one, axis - out.ndim, size) and axis - out.ndim not in missing
                for one, missing in zip((left, right), absent, strict=True)
            )
            whose = BOTH if mine and yours else LEFT if mine else RIGHT
            if size > 1:
                axes.append((out.stride(axis), frozenset({whose})))
            elif mine != yours:
                lasting.add(whose)
        kinds = lasting.union(*(whose for _, whose in axes))
        storage = _storage(out)
        if storage is not None and kinds >= {LEFT, RIGHT, BOTH}:
            self._keep(storage, name, name in _MULTIPLIES, axes, frozenset(lasting))

    def _keep(
        self, storage: Any, origin: str, counts: bool, axes: list[tuple[int, frozenset[str]]], lasting: frozenset[str]
    ) -> None:
        self._known[storage._cdata] = _Outer(_weak(storage), origin, counts, axes, lasting)

    def _follow(self, role: str, args: Sequence[Any], out: Tensor) -> None:
        """Pass on through elementwise operators and copies."""
        for given in args:
            outer = self._of(given)
            if outer is None or given.shape != out.shape:
                continue
            storage = _storage(out)
            if storage is None:
                return
            counts = outer.counts or role == "elementwise"
            if storage._cdata in self._known and self._of(out) is outer:  # in place
                outer.counts = counts
                return
            if storage._cdata not in self._known:
                axes = [(out.stride(i), outer.whose(given, i)) for i in range(out.ndim) if out.shape[i] > 1]
                self._keep(storage, outer.origin, counts, axes, outer.lasting)
            return

    def _sum(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
        outer = self._of(args[0]) if args else None
        if outer is None or not (outer.counts or "norm" in name):
            return None
        given, place = args[0], _SUMS[name]
        dims = kwargs.get("dim", args[place] if len(args) > place else None)
        dims = [dims] if isinstance(dims, int) else dims
        if not isinstance(dims, Sequence) or not dims:
            return None  # of everything: nothing is kept
        summed = {dim % given.ndim for dim in dims}
        gone = frozenset().union(*(outer.whose(given, i) for i in summed))
        kept = outer.lasting.union(*(outer.whose(given, i) for i in range(given.ndim) if i not in summed))
        return f"{outer.origin} + {name}" if BOTH in gone and kept >= {LEFT, RIGHT} else None

    def _absent(self, tensor: Tensor) -> frozenset[int]:
        """Axes, from the last, along which a factor only repeats itself: expanded ones."""
        storage = _storage(tensor) if self._spread else None
        known = None if storage is None else self._spread.get(storage._cdata)
        copied = known[1] if known is not None and not known[0].expired() else frozenset()
        return copied | _expanded(tensor)

    def _repeat(self, args: Sequence[Any], out: Tensor) -> None:
        """An expanded factor stays one through elementwise operators with something smaller, such as its norm."""
        for given in args:
            if not isinstance(given, Tensor) or given.shape != out.shape or given is out:
                continue
            absent = self._absent(given)
            others = [one for one in args if isinstance(one, Tensor) and one is not given]
            storage = _storage(out) if absent else None
            if storage is not None and all(one.numel() < out.numel() for one in others):
                self._spread[storage._cdata] = (_weak(storage), absent)

    def _of(self, tensor: Any) -> _Outer | None:
        storage = _storage(tensor)
        outer = None if storage is None else self._known.get(storage._cdata)
        if outer is not None and outer.storage.expired():
            del self._known[storage._cdata]
            return None
        return outer


@cache
def _role(func: OpOverload) -> str:
    name = func._schema.name
    if name in _MULTIPLIES or name in _SUBTRACTS:
        return "meets"
    if name in _SUMS:
        return "sums"
    if name in _COPIES:
        return "copies"
    return "elementwise" if is_elementwise(func) else ""


def _has(tensor: Tensor, axis: int, size: int) -> bool:
    """Whether a factor has an axis, counted from the last; of length 1 is an axis, if the result's is."""
    return -axis <= tensor.ndim and tensor.shape[axis] == size


def _expanded(tensor: Tensor) -> frozenset[int]:
    if tensor.layout is not torch.strided:
        return frozenset()
    steps = tensor.stride()
    if 0 not in steps:
        return frozenset()
    return frozenset(i - tensor.ndim for i, step in enumerate(steps) if step == 0 and tensor.shape[i] > 1)


def _weak(storage: Any) -> Any:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _storage(tensor: Any) -> Any:
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
        return None
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # a subclass without memory of its own
        return None
