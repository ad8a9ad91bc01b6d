"""What a forward is given: a batch of the domain, and whatever else it takes, made of that batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.errors import DomainError

Inputs = Callable[[Tensor], Any]
"""A batch → what forward takes: a tensor, a tuple of positional inputs, or a dictionary of named ones."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How a forward is called.

    Args:
        kwargs: the same for every sample. inputs: from the batch; None: the batch itself, in first place.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs | None = None

    def call(self, module: Callable[..., Any], x: Any) -> Any:
        """What the module returns for a batch."""
        positional, named = self.given(x)
        return module(*positional, **named, **self.kwargs)

    def given(self, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named inputs for a batch."""
        made = x if self.inputs is None else self.inputs(x)
        if isinstance(made, Mapping):
            return (), dict(made)
        return (tuple(made) if isinstance(made, (tuple, list)) else (made,)), {}


def unpacked(example: Any, pad: int) -> tuple[Any, Inputs | None]:
    """The ids out of an example in several tensors, as tokenizers give them, and how the others follow from the ids.

    An attacker changes ids; a mask that did not follow them would be another text.

    Args:
        example: a tensor, or a dictionary whose first entry is the ids. pad: id of the padding.

    Returns:
        the tensor, and the inputs; None where the example is one tensor.

    Raises:
        DomainError: a tensor that does not follow from the ids.

    >>> ids = torch.tensor([[5, 7, 0]])
    >>> _, inputs = unpacked({"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0]])}, pad=0)
    >>> inputs(torch.tensor([[4, 0, 0]]))["attention_mask"]
    tensor([[1, 0, 0]])
    """
    if not isinstance(example, Mapping):
        return example, None
    (first, ids), *others = example.items()
    rules: dict[str, Callable[[Tensor], Tensor]] = {first: lambda x: x}
    for name, value in others:
        fitting = [make for make in _rules(value, pad) if _same(make(ids), value)]
        if not fitting:
            raise DomainError(
                f"what '{name}' is cannot be told from the ids in '{first}': it is neither the mask of padding {pad}, "
                "nor positions from 0 on, nor one value everywhere.",
                why="A sample is its ids, and all else that forward takes must follow from them.",
                todo=f"Say how: inputs=lambda ids: {{'{first}': ids, '{name}': …}}.",
            )
        rules[name] = fitting[0]
    return ids, lambda x: {name: make(x) for name, make in rules.items()}


def _rules(value: Any, pad: int) -> list[Callable[[Tensor], Tensor]]:
    if not isinstance(value, Tensor) or not value.numel():
        return []
    kind, one = value.dtype, value.flatten()[0].item()
    return [
        lambda x: (x != pad).to(kind),
        lambda x: (torch.ones_like(x).cumsum(1) - 1).to(kind),
        *([lambda x: (x == pad).to(kind)] if kind is torch.bool else []),
        lambda x: torch.full_like(x, one, dtype=kind),
    ]


def _same(a: Any, b: Any) -> bool:
    return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)


def embeddings_of(module: nn.Module, feed: Feed, ids: Tensor) -> list[tuple[str, nn.Embedding]]:
    """The tables that a forward looks the ids up in.

    Args:
        ids: (n, L), their shape and type.
    """
    tables = [(path, m) for path, m in module.named_modules() if isinstance(m, nn.Embedding)]
    if not tables:
        return []
    rows = max(2, min(m.num_embeddings for _, m in tables))
    x = torch.randint(rows, ids.shape, generator=torch.Generator().manual_seed(0)).to(ids)
    found: list[tuple[str, nn.Embedding]] = []

    def looked(path: str, table: nn.Embedding, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor) and given[0].shape == x.shape and torch.equal(given[0].to(x), x):
            found.append((path, table))

    handles = [m.register_forward_pre_hook(lambda m, given, path=path: looked(path, m, given)) for path, m in tables]
    try:
        feed.call(module, x)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict(found).items())
