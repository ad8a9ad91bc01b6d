"""In-place operations: who writes into what it was given, seen while a model is counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


def apart(value: Any) -> Any:
    """A copy of tensors, in tuples and the like, that may be written into."""
    return tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, value)


class Lent:
    """A copy lent to a module, and whether it came back written into.

    Torch counts in-place operations of a tensor and its views; what goes past that count (`.data`) shows in the values.
    """

    def __init__(self, value: Any) -> None:
        self.value = apart(value)
        self._kept = [t.clone() for t in _tensors(value)]
        self._versions = [t._version for t in _tensors(self.value)]

    @property
    def is_written(self) -> bool:
        """Something was changed, or written over with what stood there."""
        lent = _tensors(self.value)
        return [t._version for t in lent] != self._versions or not all(map(_alike, lent, self._kept))


def _tensors(value: Any) -> list[Tensor]:
    return [v for v in tree_leaves(value) if isinstance(v, Tensor)]


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
