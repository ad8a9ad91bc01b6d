"""A traced forward cut at its exits: what later exits need is the stage, what only this exit needs is its head."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptbench.adapters.ports import Port
from adaptbench.errors import GraphError


class Part(nn.Module):
    """A piece of a traced module; takes and returns a tuple of tensors (or a bare input, or bare logits)."""

    def __init__(self, owner: nn.Module, graph: fx.Graph, bare_input: bool) -> None:
        super().__init__()
        self.part = fx.GraphModule(owner, graph)
        self.bare_input = bare_input
        for path, module in [*self.part.named_modules()]:
            if module._compiled_call_impl is not None:  # compiled in place: what is counted runs as it was written
                plain = copy(module)
                plain._compiled_call_impl = None
                self.part.set_submodule(path, plain)

    def forward(self, values: Any) -> Any:
        """As the piece of the forward does."""
        return self.part(values) if self.bare_input else self.part(*values)


class Cut:
    """The operations of a forward, by the exit that they are for.

    Args:
        traced: the forward. leaves: the logits of each exit. macs: of each operation on one sample.
        values: of each operation, for two batches; `sizes` of them.
        lazy: work that only later exits need waits for them; else it stands where the author's code has it.
    """

    def __init__(
        self,
        traced: fx.GraphModule,
        leaves: Sequence[fx.Node],
        macs: Mapping[fx.Node, int],
        values: Mapping[fx.Node, tuple[Any, ...]],
        sizes: Sequence[int],
        *,
        lazy: bool = True,
    ) -> None:
        self.traced, self.leaves, self.macs, self.lazy = traced, list(leaves), macs, lazy
        self.values, self.sizes = values, sizes
        self.order = {node: i for i, node in enumerate(traced.graph.nodes)}
        self.sampleless = _sampleless(traced.graph.nodes)
        self.ancestors = [_ancestors(leaf) for leaf in self.leaves]

    def in_order(self, order: Sequence[int], *, lazy: bool) -> Cut:
        """The same cut with its exits in another order."""
        leaves = [self.leaves[k] for k in order]
        return Cut(self.traced, leaves, self.macs, self.values, self.sizes, lazy=lazy)

    @property
    def own_macs(self) -> list[int]:
        """What each exit alone takes."""
        return [self._sum(nodes) for nodes in self.ancestors]

    @property
    def macs_as_written(self) -> list[int]:
        """What has run, in the order of the author's code, when each exit's logits are there."""
        used = set().union(*self.ancestors)
        turns = [max(self.order[leaf] for leaf in self.leaves[: k + 1]) for k in range(len(self.leaves))]
        return [self._sum(n for n in used if self.order[n] <= turn) for turn in turns]

    @property
    def macs_unused(self) -> int:
        """What forward runs and no exit needs."""
        return self._sum(self.order) - self._sum(set().union(*self.ancestors))

    def _sum(self, nodes: Iterable[fx.Node]) -> int:
        return sum(self.macs.get(n, 0) for n in nodes)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Stages and heads, one of each an exit."""
        (pictures,) = [n for n in self.order if n.op == "placeholder"]
        needed = [nodes - self.sampleless for nodes in self.ancestors]
        if not self.lazy:
            for k, leaf in enumerate(self.leaves):
                ahead = set().union(*needed[k:])
                needed[k] |= {n for n in ahead if self.order[n] <= self.order[leaf]}
        done: set[fx.Node] = {pictures}
        carried: list[fx.Node] = [pictures]
        stages: list[nn.Module] = []
        heads: list[nn.Module] = []
        for k, leaf in enumerate(self.leaves):
            later: set[fx.Node] = set().union(*needed[k + 1 :])
            fresh = sorted(needed[k] - done, key=self.order.__getitem__)
            trunk = [n for n in fresh if n in later] if later else [n for n in fresh if n is not leaf]
            own = [n for n in fresh if n not in set(trunk)]
            known = done | set(trunk)
            wanted = self._read_by([*own, *(later - known)]) | set(self.leaves[k:])
            out = [n for n in sorted(known, key=self.order.__getitem__) if n in wanted]
            given = [] if k == 0 else self._carried(carried)
            handed = self._carried(out)
            stages.append(Part(self.traced, _subgraph(given, trunk, handed, bare=pictures if k == 0 else None), k == 0))
            heads.append(Part(self.traced, _subgraph(handed, own, leaf), False))
            done, carried = known | set(own), out
        return stages, heads

    def _carried(self, nodes: Sequence[fx.Node]) -> list[Carried]:
        return [Carried.of(node, self.values[node], self.sizes) for node in nodes]

    def _read_by(self, users: Iterable[fx.Node]) -> set[fx.Node]:
        """The values that steps need, looked at through sizes and parameters."""
        found: set[fx.Node] = set()
        seen: set[fx.Node] = set()
        stack = [n for user in users for n in user.all_input_nodes]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.sampleless:
                stack.extend(node.all_input_nodes)
            else:
                found.add(node)
        return found


def _ancestors(leaf: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = [leaf]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.all_input_nodes)
    return seen


def _sampleless(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Parameters, sizes and what follows from them alone.

    Not carried from part to part but taken anew: a batch size from before compaction would be wrong after it.
    """
    found: set[fx.Node] = set()
    for node in nodes:
        if node.op in ("placeholder", "output"):
            continue
        reads_size = (node.op == "call_method" and node.target in ("size", "dim", "numel")) or (
            node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")
        )
        if reads_size or all(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


@dataclass(frozen=True, slots=True)
class _Port:
    """A tensor on its way from part to part, samples first.

    Args:
        keys: the way to it in a tuple. at: where its samples are.
    """

    keys: tuple[int, ...]
    at: Port

    def out(self, graph: fx.Graph, node: Any) -> Any:
        """(n, …), to be handed over."""
        for key in self.keys:
            node = graph.call_function(operator.getitem, (node, key))
        if self.at.times > 1:
            node = graph.call_method("unflatten", (node, self.at.dim, (-1, self.at.times)))
        return graph.call_method("movedim", (node, self.at.dim, 0)) if self.at.dim else node

    def back(self, graph: fx.Graph, node: Any) -> Any:
        """As it was."""
        node = graph.call_method("movedim", (node, 0, self.at.dim)) if self.at.dim else node
        return graph.call_method("flatten", (node, self.at.dim, self.at.dim + 1)) if self.at.times > 1 else node


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that a later part needs: a tensor, or tuples of tensors."""

    node: fx.Node
    ports: tuple[_Port, ...]
    form: Any

    @classmethod
    def of(cls, node: fx.Node, values: tuple[Any, ...], sizes: Sequence[int]) -> Carried:
        """From what it is for two batches.

        Raises:
            GraphError: its samples cannot be told apart.
        """
        ports: list[_Port] = []

        def form(parts: tuple[Any, ...], keys: tuple[int, ...]) -> Any:
            if all(type(p) in (tuple, list) and len(p) == len(parts[0]) for p in parts):
                return tuple(form(inner, (*keys, i)) for i, inner in enumerate(zip(*parts, strict=True)))
            ports.append(_port(node, parts, sizes, keys))
            return len(ports) - 1

        made = form(values, ())
        return cls(node, tuple(ports), made)

    def back(self, graph: fx.Graph, given: Sequence[fx.Node]) -> Any:
        """The value, from what was handed over for each port."""

        def filled(form: Any) -> Any:
            return tuple(map(filled, form)) if isinstance(form, tuple) else self.ports[form].back(graph, given[form])

        return filled(self.form)


def _port(node: fx.Node, parts: tuple[Any, ...], sizes: Sequence[int], keys: tuple[int, ...]) -> _Port:
    if (at := Port.of(parts, sizes)) is not None:
        return _Port(keys, at)
    shapes = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
    raise GraphError(
        f"what '{node.name.removeprefix('module_')}' holds cannot be taken apart by samples: {shapes[0]} for a batch "
        f"of {sizes[0]}, {shapes[1]} for {sizes[1]}.",
        why="Those who leave at an exit take their rows out of everything that is needed after it.",
        todo="Keep one row a sample in what goes on past an exit.",
    )


def _subgraph(
    given: Sequence[Carried],
    body: Sequence[fx.Node],
    out: Sequence[Carried] | fx.Node,
    *,
    bare: fx.Node | None = None,
) -> fx.Graph:
    """A piece of a graph.

    Args:
        given: what it takes. body: its steps. out: what it hands over, or the logits it gives.
        bare: the one input, as it is.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, Any] = {} if bare is None else {bare: graph.placeholder(bare.name)}
    inputs = [[graph.placeholder(f"{c.node.name}_{i}") for i in range(len(c.ports))] for c in given]
    for carried, nodes in zip(given, inputs, strict=True):
        copied[carried.node] = carried.back(graph, nodes)

    def take(node: fx.Node) -> Any:
        if node not in copied:
            for n in node.all_input_nodes:
                take(n)
            copied[node] = graph.node_copy(node, copied.__getitem__)
        return copied[node]

    for node in body:
        take(node)
    if isinstance(out, fx.Node):
        graph.output(copied[out])
    else:
        graph.output(tuple(port.out(graph, copied[c.node]) for c in out for port in c.ports))
    graph.lint()
    return graph


def unstacked(leaf: fx.Node, values: Mapping[fx.Node, Any]) -> fx.Node:
    """Logits that were stacked with those of other exits and taken out again: where they came from.

    Args:
        values: of the steps, as the forward under trace saw them.
    """
    stack, dim, index = _row_of(leaf)
    if stack is None or dim is None or not isinstance(index, int):
        return leaf
    value = values[stack]
    dim = dim % value.ndim if isinstance(value, Tensor) else dim
    items = stack.args[0] if stack.args else stack.kwargs.get("tensors")
    if not isinstance(items, (list, tuple)):
        return leaf
    along = stack.kwargs.get("dim", stack.args[1] if len(stack.args) > 1 else 0)
    if not isinstance(along, int) or along % value.ndim != dim or not -len(items) <= index < len(items):
        return leaf
    item = items[index]
    if not isinstance(item, fx.Node):
        return leaf
    if stack.target is torch.stack:
        return item
    if stack.target in (torch.cat, torch.concat) and all(
        isinstance(n, fx.Node) and values[n].shape[dim] == 1 for n in items
    ):
        with stack.graph.inserting_before(stack):
            return stack.graph.call_function(torch.select, (item, dim, 0))
    return leaf


def _row_of(leaf: fx.Node) -> tuple[fx.Node | None, int | None, Any]:
    """(tensor, dimension, index) where a step takes one row of a tensor."""
    args: tuple[Any, ...] = leaf.args
    if leaf.target in (torch.select, "select") and len(args) == 3:
        return args[0], args[1], args[2]
    if leaf.target is operator.getitem:
        if isinstance(args[1], tuple) and all(isinstance(p, (slice, int)) for p in args[1]):
            at = [d for d, p in enumerate(args[1]) if isinstance(p, int)]
            whole = all(p == slice(None) for p in args[1] if isinstance(p, slice))
            if len(at) == 1 and whole:
                return args[0], at[0], args[1][at[0]]
        if isinstance(args[1], int):
            source = args[0]
            if source.target in (torch.unbind, "unbind"):
                given = source.kwargs.get("dim", source.args[1] if len(source.args) > 1 else 0)
                return source.args[0], given, args[1]
            return source, 0, args[1]
    return None, None, None
