"""Parts of a net that can be compiled one by one, and what a run calls of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.gated import GatedNetwork
from adaptbench.adaptive.graph import DecisionGraph
from adaptbench.adaptive.model import AdaptiveModel

SAMPLES = 3
"""Sizes that a part is timed at: the least, a middle and the most rows that arrived."""


class Seen:
    """Calls of one part: how many by rows, and what a few of them were given."""

    def __init__(self) -> None:
        self.calls: dict[int, int] = {}
        self.given: dict[int, Any] = {}

    def add(self, given: Any) -> None:
        """One more. What was given is kept of `SAMPLES` sizes."""
        n = rows_of(given)
        self.calls[n] = self.calls.get(n, 0) + 1
        self.given.setdefault(n, given)
        if len(self.given) > SAMPLES:
            sizes = sorted(self.given)
            gaps = [sizes[i + 1] - sizes[i - 1] for i in range(1, len(sizes) - 1)]
            del self.given[sizes[1 + gaps.index(min(gaps))]]

    def weight(self, n: int) -> int:
        """Calls that a kept size stands for: those that no other is nearer to."""
        return sum(count for rows, count in self.calls.items() if min(self.given, key=lambda m: abs(m - rows)) == n)


def parts_of(model: AdaptiveModel) -> dict[str, nn.Module]:
    """Name → part, those that do nothing left out; a module that stands in two places is one of each."""
    lists, single = groups_of(model)
    found = {name: getattr(model, name) for name in single}
    found |= {f"{name}.{i}": part for name in lists for i, part in enumerate(getattr(model, name))}
    return {name: part for name, part in found.items() if not isinstance(part, nn.Identity)}


def has_parts(model: AdaptiveModel) -> bool:
    """Whether its parts can be compiled one by one: no pass of its own, which would not call them."""
    own: tuple[type[AdaptiveModel], ...] = (DecisionGraph, GatedNetwork)
    return isinstance(model, own) and type(model)._run in {kind._run for kind in own}


def groups_of(model: AdaptiveModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Attributes of a net that hold lists of parts, and those that are one."""
    return (("stages", "heads"), ()) if isinstance(model, DecisionGraph) else (
        ("bodies", "shortcuts", "afters"),
        ("stem", "head"),
    )  # fmt: skip


def calls_of(model: AdaptiveModel, run: Callable[[], object]) -> dict[str, Seen]:
    """What a run calls of each part."""
    named = parts_of(model)
    seen = {name: Seen() for name in named}
    run()  # whoever is not counted yet is counted now, by a pass of one picture that is no call of these
    hooks = [
        part.register_forward_pre_hook(lambda _, given, name=name: seen[name].add(given[0]))
        for name, part in named.items()
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def rows_of(given: Any) -> int:
    """Of the first tensor that a part is given."""
    return len(next(leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)))
