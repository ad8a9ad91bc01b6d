"""A module's forward as a graph of operations, with what tracing alone loses: writes in place, MACs of each step."""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.model import frozen
from adaptbench.errors import GraphError

_TORCH, _HERE = Path(torch.__file__).parent, Path(__file__).parent


class PicturesOnly(nn.Module):
    """A module whose further inputs keep their defaults."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        """What the module returns for pictures alone."""
        return self.module(x)


class _Tracer(fx.Tracer):
    """Takes the named modules whole, containers too."""

    def __init__(self, whole: Sequence[str]) -> None:
        super().__init__()
        self.whole = set(whole)
        self.record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.whole or super().is_leaf_module(m, module_qualified_name)


def bound(module: nn.Module) -> nn.Module:
    """The module, or one around it that leaves all inputs but the first at their defaults.

    Raises:
        GraphError: forward needs more than one input.
    """
    try:
        given = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # forwards without a signature: tracing will say
        return module
    given = [p for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in given if p.default is p.empty]
    if len(needed) > 1 or (needed and given[0].name != needed[0]):
        raise GraphError(
            f"{type(module).__name__}.forward takes {len(needed)} inputs: {', '.join(needed)}.",
            todo="Wrap it in a module that takes the pictures only.",
        )
    return PicturesOnly(module) if len(given) > 1 else module


def trace(module: nn.Module, whole: Sequence[str], name: str) -> fx.GraphModule:
    """The operations of a forward, in eval mode.

    Args:
        whole: sub-modules to be taken as one operation each. name: for messages.

    Raises:
        GraphError: forward does what no graph can hold; the line is named.
    """
    tracer = _Tracer(whole)
    try:
        with frozen(module):  # functional dropout bakes the mode of the trace in
            graph = tracer.trace(module)
            return fx.GraphModule(module, graph)
    except Exception as error:  # fx raises whatever the module's code does with a proxy
        raise GraphError(
            f"{name} could not be traced{_where(error)}: {error}",
            why="To skip what follows an exit, forward is cut at each exit; control flow on values, assignments to "
            "slices and factories sized by the batch hide the cuts.",
            todo="Rewrite that line, or give the pieces yourself: MultiExit(stages=[…], heads=[…], input_shape=…).",
        ) from error


def _where(error: Exception) -> str:
    """The last line of the user's own code on the way to an error."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        inside = any(file.is_relative_to(folder) for folder in (_TORCH, _HERE))
        if not inside and not frame.filename.startswith("<eval_with_key>"):
            line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
            return f" at {frame.filename}, line {frame.lineno}, in {frame.name}: `{line}`"
    return ""


class Replayed(fx.Interpreter):
    """One run of a traced forward that notes what each step did.

    Attributes:
        macs: of each node.
        written: node → the earlier nodes whose values it changed in place.
        values: of each node.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.macs: dict[fx.Node, int] = {}
        self.written: dict[fx.Node, list[fx.Node]] = {}
        self.values: dict[fx.Node, Any] = {}
        self._versions: dict[fx.Node, list[int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """As fx does, counted and looked after."""
        with MacCounter() as counter:
            value = super().run_node(n)
        self.macs[n] = counter.macs
        changed = [m for m, before in self._versions.items() if _versions(self.values[m]) != before]
        if changed:
            self.written[n] = changed
            self._versions |= {m: _versions(self.values[m]) for m in changed}
        self.values[n] = value
        self._versions[n] = _versions(value)
        return value


def _versions(value: Any) -> list[int]:
    return [t._version for t in tree_leaves(value) if isinstance(t, Tensor)]


def without_writes(traced: fx.GraphModule, x: Tensor, name: str) -> Replayed:
    """Give every step that works in place a copy, and what comes after it the result; the graph is changed.

    Args:
        x: (n, C, H, W) to run it on.

    Returns:
        A run of the graph as it was.

    Raises:
        GraphError: a write that reaches others through a view, or whose result is not returned.
    """
    seen = Replayed(traced)
    with frozen(traced), torch.inference_mode(False), torch.no_grad():
        seen.run(x.clone())
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    for step, touched in seen.written.items():
        if any(n.op == "get_attr" for n in touched):
            raise GraphError(
                f"{name}.forward writes into its own parameters or buffers{_line(step)}.",
                why="What a pass changes, the next pass meets: no figure could be repeated.",
                todo="Leave it to train mode: `if self.training: …`.",
            )
        if all(n.op != "placeholder" and set(n.users) <= {step} for n in touched):
            continue  # nobody else holds it
        later = {n for n in touched if any(order[user] > order[step] for user in n.users)}
        given = [n for n in step.all_input_nodes if n in touched]
        result = seen.values[step]
        for node in later:
            if node not in given or seen.values[node] is not result:
                raise GraphError(
                    f"{name}.forward works in place at '{step.name}'{_line(step)} on what '{node.name}' holds, "
                    "and reads it again later.",
                    why="Written through a view or without a result, it cannot be followed over the exits.",
                    todo=f"Write it out of place: the result of '{step.name}' under a name of its own.",
                )
        for node in given:
            users = [user for user in node.users if order[user] > order[step]]
            with traced.graph.inserting_before(step):
                copied = traced.graph.call_function(torch.clone, (node,))
            step.replace_input_with(node, copied)
            for user in users:
                user.replace_input_with(node, step)
            order = {n: i for i, n in enumerate(traced.graph.nodes)}
    traced.graph.lint()
    traced.recompile()
    return seen


def _line(node: fx.Node) -> str:
    """Where forward called a step, when fx kept it."""
    stack = (node.stack_trace or "").strip().splitlines()
    return f" ({stack[-2].strip()})" if len(stack) > 1 else ""
