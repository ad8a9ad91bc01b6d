"""Values on their way over an exit: samples first, so that those who leave can take their rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor.

    Args:
        dim: where its samples are. times: rows that each sample has there, one after another.
    """

    dim: int
    times: int

    @classmethod
    def of(cls, parts: Sequence[Any], sizes: Sequence[int]) -> Port | None:
        """From what it is for two batches; None where its samples cannot be told apart.

        Args:
            sizes: of the batches.
        """
        if not all(isinstance(p, Tensor) for p in parts) or len({p.ndim for p in parts}) > 1:
            return None
        dims = [d for d in range(parts[0].ndim) if len({p.shape[d] for p in parts}) > 1]
        if len(dims) != 1:
            return None
        times = {p.shape[dims[0]] / n for p, n in zip(parts, sizes, strict=True)}
        only = times.pop()
        return None if times or not only.is_integer() else cls(dims[0], int(only))

    def out(self, value: Tensor) -> Tensor:
        """(n, …), to be handed over."""
        if self.times > 1:
            value = torch.unflatten(value, self.dim, (-1, self.times))
        return value.movedim(self.dim, 0) if self.dim else value

    def back(self, value: Tensor) -> Tensor:
        """As it was."""
        value = value.movedim(0, self.dim) if self.dim else value
        return value.flatten(self.dim, self.dim + 1) if self.times > 1 else value


class Packed:
    """A value of tensors in lists, tuples, dictionaries; what is no tensor must be the same for every batch.

    Args:
        spec: how it is put together. ports: of the tensors. fixed: everything in it, tensors left out.
        like: one sample of each tensor.
    """

    def __init__(self, spec: Any, ports: list[Port], fixed: list[Any], like: list[Tensor]) -> None:
        self.spec, self.ports, self.fixed, self.like = spec, ports, fixed, like

    @classmethod
    def of(cls, values: Sequence[Any], sizes: Sequence[int]) -> Packed | None:
        """From what it is for two batches; None where it cannot be handed over."""
        flat = [tree_flatten(value) for value in values]
        if any(spec != flat[0][1] for _, spec in flat):
            return None
        ports: list[Port] = []
        fixed: list[Any] = []
        like: list[Tensor] = []
        for parts in zip(*(leaves for leaves, _ in flat), strict=True):
            if isinstance(parts[0], Tensor):
                port = Port.of(parts, sizes)
                if port is None:
                    return None
                ports.append(port)
                fixed.append(None)
                like.append(port.out(parts[0])[:1].detach())
            elif any(type(p) is not type(parts[0]) or p != parts[0] for p in parts):
                return None
            else:
                fixed.append((parts[0],))
        return cls(flat[0][1], ports, fixed, like)

    def out(self, value: Any) -> list[Tensor]:
        """Its tensors, (n, …) each."""
        tensors = [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]
        return [port.out(t) for port, t in zip(self.ports, tensors, strict=True)]

    def back(self, given: Sequence[Tensor]) -> Any:
        """The value, from its tensors."""
        tensors = iter([port.back(t) for port, t in zip(self.ports, given, strict=True)])
        return tree_unflatten([next(tensors) if slot is None else slot[0] for slot in self.fixed], self.spec)

    def blank(self, like: Tensor) -> Any:
        """A value of this form for a batch, all zeros. like: (n, …), of the batch."""
        return self.back([torch.zeros(len(like), *t.shape[1:], dtype=t.dtype, device=like.device) for t in self.like])
