"""Bring your own: a module that returns a list of logits becomes a `MultiExit` whose later part is really not run.

The module is traced with torch.fx and its graph is cut at each exit: what later exits need is the stage, what only this
exit needs is its head. Survivors are compacted between stages like in any other decision graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from adaptbench.adaptive.constructors import MultiExit, Shape
from adaptbench.adaptive.domain import ImageDomain
from adaptbench.adaptive.model import pictures_like
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.tracing import Replayed, bound, trace, without_writes
from adaptbench.adaptive.whole import Whole, check_alike, offer, part_of
from adaptbench.errors import GraphError


class _Part(nn.Module):
    """A piece of a traced module; takes and returns a tuple of tensors (or a bare input, or bare logits)."""

    def __init__(self, owner: nn.Module, graph: fx.Graph, bare_input: bool) -> None:
        super().__init__()
        self.part = fx.GraphModule(owner, graph)
        self.bare_input = bare_input

    def forward(self, values: Any) -> Any:
        return self.part(values) if self.bare_input else self.part(*values)


def from_logits_list(
    module: nn.Module,
    *,
    input_shape: Shape,
    exits: Sequence[str] | None = None,
    output: int | str | None = None,
    policy: Policy | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> MultiExit:
    """Split a module into a multi-exit net, and compare the two on random pictures.

    Args:
        module: its forward takes pictures (N, C, H, W) and returns a list or tuple of logits, earliest exit first.
            Further inputs keep their defaults.
        input_shape: (C, H, W).
        exits: names of the sub-modules whose outputs are the logits, in order, where forward returns something else.
        output: index or key of the list of logits, where forward returns it beside other things.
        policy: decides at each exit but the last.
        bounds: of the input values.

    Raises:
        GraphError: the module cannot be traced, does not return logits (N, C) alike, an exit is not found, forward
            draws, couples samples or writes into its own state, or the net is not the same function.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.early = nn.Linear(4, 3)
    ...         self.body, self.late = nn.Linear(4, 8), nn.Linear(8, 3)
    ...
    ...     def forward(self, x):
    ...         x = x.flatten(1)
    ...         return [self.early(x), self.late(self.body(x).relu())]
    >>> from_logits_list(Net(), input_shape=(1, 2, 2)).node_macs
    (12, 56)
    """
    name, domain = type(module).__name__, ImageDomain(tuple(input_shape), *bounds)  # type: ignore[arg-type]
    x = pictures_like(next(module.parameters(), torch.zeros(())), domain, 5)
    owner = bound(module)
    inside = "module." if owner is not module else ""
    named = None if exits is None else [inside + e for e in exits]
    traced = trace(owner, named or (), name)
    steps = without_writes(traced, x, name)
    leaves = (
        _returned(traced.graph, steps, output, name) if named is None else _named(traced.graph, named, inside, name)
    )
    check_alike([steps.values[leaf] for leaf in leaves], exits, name)
    whole = Whole(owner, named, output, name)
    whole.check(x)
    costs = [sum(steps.macs.get(n, 0) for n in _ancestors(leaf)) for leaf in leaves]
    if falling := [k for k in range(1, len(costs)) if costs[k] < costs[k - 1]]:
        warnings.warn(
            f"exit {falling[0] + 1} of {name} takes {costs[falling[0]]} MACs on its own, the one before it "
            f"{costs[falling[0] - 1]}: list exits from the earliest to the deepest; the last is the static reference.",
            stacklevel=2,
        )
    stages, heads = _cut(traced, leaves)
    net = MultiExit(
        stages,
        heads,
        input_shape=input_shape,
        names=list(exits) if exits and len(set(exits)) == len(exits) else None,
        bounds=bounds,
    )
    whole.compare(net, x)
    if policy is not None:
        net.policy = policy
    return net


def _cut(traced: fx.GraphModule, leaves: Sequence[fx.Node]) -> tuple[list[nn.Module], list[nn.Module]]:
    """What later exits need is the stage, what only this exit needs is its head."""
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    (pictures,) = [n for n in traced.graph.nodes if n.op == "placeholder"]
    needed = [{n for n in _ancestors(leaf) if not _is_sampleless(n)} for leaf in leaves]
    done: set[fx.Node] = {pictures}
    carried: list[fx.Node] = [pictures]
    stages: list[nn.Module] = []
    heads: list[nn.Module] = []
    for k, leaf in enumerate(leaves):
        later: set[fx.Node] = set().union(*needed[k + 1 :]) if k + 1 < len(leaves) else set()
        fresh = sorted(needed[k] - done, key=order.__getitem__)
        trunk = [n for n in fresh if n in later] if later else [n for n in fresh if n is not leaf]
        own = [n for n in fresh if n not in trunk]
        known = done | set(trunk)
        out = [n for n in sorted(known, key=order.__getitem__) if _is_used(n, own, later - known, leaf)]
        stages.append(_Part(traced, _subgraph(carried, trunk, out), bare_input=k == 0))
        heads.append(_Part(traced, _subgraph(out, own, leaf), bare_input=False))
        done, carried = known | set(own), out
    return stages, heads


def _named(graph: fx.Graph, exits: Sequence[str], inside: str, name: str) -> list[fx.Node]:
    called = {str(n.target): n for n in graph.nodes if n.op == "call_module"}
    if missing := [e for e in exits if e not in called]:
        calls = ", ".join(target.removeprefix(inside) for target in list(called)[:12])
        raise GraphError(
            f"'{missing[0].removeprefix(inside)}' is no sub-module that {name}.forward calls.",
            todo=f"It calls: {calls} …",
        )
    return [called[e] for e in exits]


def _returned(graph: fx.Graph, steps: Replayed, output: int | str | None, name: str) -> list[fx.Node]:
    """The nodes of the list of logits that forward returns."""
    (last,) = [n for n in graph.nodes if n.op == "output"]
    returned = part_of(last.args[0], output, name)
    if not isinstance(returned, (list, tuple)) or not returned or not all(isinstance(n, fx.Node) for n in returned):
        raise GraphError(
            f"{name}.forward does not return a list of logits{'' if output is None else f' at {output!r}'}.",
            todo=offer(steps.values[last]),
        )
    return list(returned)


def _ancestors(leaf: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = [leaf]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.all_input_nodes)
    return seen


def _is_sampleless(node: fx.Node) -> bool:
    """Parameters, sizes and what follows from them alone.

    Not carried from part to part but taken anew: a batch size from before compaction would be wrong after it.
    """
    if node.op == "placeholder":
        return False
    reads_size = (node.op == "call_method" and node.target in ("size", "dim")) or (
        node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")
    )
    return reads_size or all(map(_is_sampleless, node.all_input_nodes))


def _sources(node: fx.Node) -> set[fx.Node]:
    """The carried values that a node needs, looked at through sizes and parameters."""
    sources: set[fx.Node] = set()
    for n in node.all_input_nodes:
        sources |= _sources(n) if _is_sampleless(n) else {n}
    return sources


def _is_used(node: fx.Node, own: list[fx.Node], later: set[fx.Node], leaf: fx.Node) -> bool:
    return node is leaf or any(node in _sources(user) for user in (*own, *later))


def _subgraph(inputs: Sequence[fx.Node], body: Sequence[fx.Node], out: Sequence[fx.Node] | fx.Node) -> fx.Graph:
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {node: graph.placeholder(node.name) for node in inputs}

    def take(node: fx.Node) -> fx.Node:
        if node not in copied:
            for n in node.all_input_nodes:
                take(n)
            copied[node] = graph.node_copy(node, copied.__getitem__)
        return copied[node]

    for node in body:
        take(node)
    graph.output(copied[out] if isinstance(out, fx.Node) else tuple(copied[n] for n in out))
    graph.lint()
    return graph
