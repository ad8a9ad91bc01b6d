"""What a traced forward loses and what each of its steps costs: writes in place, MACs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.model import frozen
from adaptbench.errors import GraphError

_TORCH, _HERE = Path(torch.__file__).parent, Path(__file__).parent.parent


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
                    f"{name}.forward works in place at '{_told(step)}'{_line(step)} on what '{_told(node)}' holds, "
                    "and reads it again later.",
                    why="Written through a view or without a result, it cannot be followed over the exits.",
                    todo=f"Write it out of place: the result of '{_told(step)}' under a name of its own.",
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


def values_of(traced: fx.GraphModule, xs: Sequence[Tensor]) -> dict[fx.Node, tuple[Any, ...]]:
    """What each step holds, for several batches."""
    runs = [Replayed(traced) for _ in xs]
    for run, x in zip(runs, xs, strict=True):
        with frozen(traced), torch.inference_mode(False), torch.no_grad():
            run.run(x.clone())
    return {node: tuple(run.values[node] for run in runs) for node in runs[0].values}


def _told(node: fx.Node) -> str:
    return node.name.removeprefix("module_")


def _line(node: fx.Node) -> str:
    """Where forward called a step, when fx kept it."""
    frames = re.findall(r'File "(.+)", line (\d+), in (\w+)', node.stack_trace or "")
    own = [frame for frame in frames if not any(Path(frame[0]).is_relative_to(place) for place in (_TORCH, _HERE))]
    return f" ({own[-1][0]}, line {own[-1][1]}, in {own[-1][2]})" if own else ""
