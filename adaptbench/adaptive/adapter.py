"""Bring your own: a module that returns a list of logits becomes a `MultiExit` whose later part is really not run.

The module is traced with torch.fx and its graph is cut at each exit: what later exits need is the stage, what only this
exit needs is its head. Survivors are compacted between stages like in any other decision graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from adaptbench.adaptive.constructors import MultiExit, Shape
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.policy import Policy
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
    policy: Policy | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> MultiExit:
    """Split a module into a multi-exit net.

    Args:
        module: its forward takes pictures (N, C, H, W) and returns a list or tuple of logits, earliest exit first.
        input_shape: (C, H, W).
        exits: names of the sub-modules whose outputs are the logits, in order, where forward returns something else.
        policy: decides at each exit but the last.
        bounds: of the input values.

    Raises:
        GraphError: the module cannot be traced, does not return a list, or an exit is not found.
    """
    try:
        with frozen(module):  # functional dropout bakes the mode of the trace in
            traced = fx.symbolic_trace(module)
    except Exception as error:  # fx raises whatever the module's code does with a proxy
        raise GraphError(
            f"{type(module).__name__} could not be traced: {error}",
            why="To skip what follows an exit, forward is cut at each exit; control flow on values hides the cuts.",
            todo="Give the pieces yourself: MultiExit(stages=[…], heads=[…], input_shape=…).",
        ) from error
    leaves = _exits(traced.graph, exits, type(module).__name__)
    inputs = [n for n in traced.graph.nodes if n.op == "placeholder"]
    if len(inputs) != 1:
        raise GraphError(
            f"{type(module).__name__}.forward takes {len(inputs)} inputs.",
            todo="Wrap it in a module that takes the pictures only.",
        )
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    needed = [{n for n in _ancestors(leaf) if not _is_sampleless(n)} for leaf in leaves]
    done: set[fx.Node] = {inputs[0]}
    carried: list[fx.Node] = [inputs[0]]
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
    return MultiExit(
        stages,
        heads,
        input_shape=input_shape,
        names=list(exits) if exits and len(set(exits)) == len(exits) else None,
        policy=policy,
        bounds=bounds,
    )


def _exits(graph: fx.Graph, exits: Sequence[str] | None, name: str) -> list[fx.Node]:
    if exits is not None:
        found = {str(n.target): n for n in graph.nodes if n.op == "call_module"}
        if missing := [e for e in exits if e not in found]:
            raise GraphError(
                f"'{missing[0]}' is no sub-module that {name}.forward calls.",
                todo=f"It calls: {', '.join(list(found)[:12])} …",
            )
        return [found[e] for e in exits]
    (output,) = [n for n in graph.nodes if n.op == "output"]
    logits = output.args[0]
    if not isinstance(logits, (list, tuple)) or not all(isinstance(n, fx.Node) for n in logits) or not logits:
        raise GraphError(
            f"{name}.forward does not return a list of logits.",
            todo="Name the sub-modules whose outputs are the exits: exits=['head1', …].",
        )
    return list(logits)


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
    found: set[fx.Node] = set()
    for n in node.all_input_nodes:
        found |= _sources(n) if _is_sampleless(n) else {n}
    return found


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
