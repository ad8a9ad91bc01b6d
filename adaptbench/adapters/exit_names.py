"""Exits by the names of sub-modules."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from adaptbench.errors import GraphError
from adaptbench.registry import did_you_mean


def is_list(module: nn.Module) -> bool:
    """It holds modules and has no forward of its own."""
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


def expanded(module: nn.Module, exits: Sequence[str], name: str) -> list[str]:
    """The sub-modules that are meant; a list or dictionary of modules stands for those in it.

    Args:
        name: of the module, for messages.

    Raises:
        GraphError: none are named, one is named twice, or there is no such sub-module.
    """
    if isinstance(exits, str):
        exits = [exits]
    named = dict(module.named_modules(remove_duplicate=False))
    found: list[str] = []
    for path in exits:
        if path not in named or not path:
            raise not_called(module, path, name, [p for p, m in named.items() if p and not is_list(m)])
        inner = named[path]
        found += [f"{path}.{key}" for key, _ in inner.named_children()] if is_list(inner) else [path]
    if not found or len(set(found)) < len(found):
        raise GraphError(
            f"exits={list(exits)!r} names {'no sub-module' if not found else 'a sub-module twice'}.",
            todo="Name each sub-module that gives logits once; one that forward calls several times is as many exits.",
        )
    return found


def not_called(module: nn.Module, path: str, name: str, calls: Sequence[str]) -> GraphError:
    """An exit that is none."""
    return GraphError(
        f"'{path}' is no sub-module that {name}.forward calls.",
        todo=f"{did_you_mean(path, calls)}It calls: {', '.join(calls[:12])}{' …' if len(calls) > 12 else '.'}",
    )
