"""MACs of each node of a decision graph, and which nodes write into what they read: one picture through all of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.fronts import count_front
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.writes import Lent
from adaptbench.errors import GraphError, PolicyError

if TYPE_CHECKING:
    from adaptbench.adaptive.graph import DecisionGraph


@dataclass(frozen=True, slots=True)
class NodeCosts:
    """Of one sample, V entries each.

    Args:
        front: MACs of what stands in front of the net; every sample pays them with the first node.
        stage, head, policy, predict: MACs of a node's parts, of deciding there and of answering there.
        stage_writes, head_writes: the part works in place on what it is given, so that it must be given a copy.
        decides_in: type of the logits that the policy is shown, its own or a finer one.
        uncounted: operators without a formula.
    """

    front: int
    stage: tuple[int, ...]
    head: tuple[int, ...]
    policy: tuple[int, ...]
    predict: tuple[int, ...]
    stage_writes: tuple[bool, ...]
    head_writes: tuple[bool, ...]
    decides_in: torch.dtype
    uncounted: tuple[str, ...]

    @property
    def node(self) -> tuple[int, ...]:
        """Stage and head; the first with what stands in front."""
        own = [s + h for s, h in zip(self.stage, self.head, strict=True)]
        return (self.front + own[0], *own[1:])


@torch.no_grad()
def count_nodes(graph: DecisionGraph, x: Tensor) -> NodeCosts:
    """Run every node and the policy on one picture.

    Args:
        x: (1, C, H, W); it is not written into.

    Raises:
        GraphError: a node cannot be run, returns no logits, or its head works in place on features that others read.
        PolicyError: the policy works in place on the logits it is shown.
    """
    counter = MacCounter()

    def cost(call: Any, *args: Any) -> tuple[Any, int]:
        before = counter.macs
        with counter:
            out = call(*args)
        return out, counter.macs - before

    names, policy, size = graph.node_names, graph.policy, len(graph.node_names)
    features: list[Any] = []
    stage, head, decide, predict = [], [], [], []
    stage_writes, head_writes = [], []
    seeds = torch.zeros(1, dtype=torch.int64, device=x.device)
    visited = torch.zeros(1, size, dtype=torch.bool, device=x.device)
    history, decides_in = None, x.dtype
    with frozen(graph):
        x, front = count_front(graph, x, counter)
        for v, source in enumerate(graph.reads):
            with runs(f"node '{names[v]}'"):
                given = Lent(x if source < 0 else features[source])
                out, macs = cost(graph.stages[v], given.value)
                stage.append(macs)
                stage_writes.append(given.is_written)
                features.append(Lent(out).value)  # apart from what the stage was given, of which it may be a view
                given = Lent(out)
                logits, macs = cost(graph.heads[v], given.value)
                head.append(macs)
                head_writes.append(given.is_written)
            _check_logits(graph, v, logits)
            _check_head(graph, v, head_writes[v])
            if history is None:
                decides_in = torch.promote_types(logits.dtype, _type_of(policy) or logits.dtype)
            answer = logits.to(decides_in)
            logits, showing = cost(graph.shown, answer)
            if history is None:
                history = logits.new_zeros(1, size, graph.n_classes)
            history[:, v] = logits
            visited[:, v] = True
            shown = Lent((logits, history, visited, seeds, answer))
            ways = graph.structure.successors[v]
            decides = bool(ways) and not policy.needs_labels
            with runs(f"the policy '{policy.name}' at node '{names[v]}'"):
                scores, macs = cost(policy.scores, v, _signals(shown, ways)) if decides else (None, 0)
                decide.append(macs + showing)
                given_back, macs = cost(policy.predict, v, _signals(shown, ways))
                predict.append(macs)
            if decides:
                _check_given(policy, "scores", scores, 1 + len(ways), "stopping, then each way on")
            if not graph.per_pixel:
                _check_given(policy, "an answer", given_back, graph.n_classes, "the classes")
            if shown.is_written:
                raise PolicyError(
                    f"the policy '{policy.name}' works in place on the signals it is shown at node '{names[v]}'.",
                    why="The answer, later nodes and other policies read them too.",
                    todo="Write logits / T instead of logits.div_(T), and the like.",
                )
    return NodeCosts(
        front,
        tuple(stage),
        tuple(head),
        tuple(decide),
        tuple(predict),
        tuple(stage_writes),
        tuple(head_writes),
        decides_in,
        tuple(sorted(counter.uncounted)),
    )


def _type_of(policy: nn.Module) -> torch.dtype | None:
    tensors = chain(policy.parameters(), policy.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), None)


def _signals(shown: Lent, ways: tuple[int, ...]) -> Signals:
    logits, history, visited, seeds, answer = shown.value
    return Signals(logits, ways=ways, history=history, visited=visited, seeds=seeds, answer=answer)


def _check_logits(graph: DecisionGraph, v: int, logits: Any) -> None:
    due = (1, graph.n_classes, *(graph.domain.shape[1:] if graph.per_pixel else ()))
    if not isinstance(logits, Tensor) or tuple(logits.shape) != due:
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GraphError(
            f"node '{graph.node_names[v]}' returned {seen} for one picture, not logits {due}.",
            why="All exits of a graph answer over the same classes.",
            todo="End each head with the classes at every pixel of the input."
            if graph.per_pixel
            else "End each head with a linear layer over the classes.",
        )


def _check_given(policy: Policy, what: str, given: Any, columns: int, of: str) -> None:
    if not isinstance(given, Tensor) or tuple(given.shape) != (1, columns) or not given.is_floating_point():
        seen = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise PolicyError(
            f"the policy '{policy.name}' gave {what} of {seen} for one picture.",
            why=f"It takes a floating-point tensor (n, {columns}): {of}.",
            todo="Keep one row a sample, and stack the columns with torch.stack([…], 1).",
        )


def _check_head(graph: DecisionGraph, v: int, writes: bool) -> None:
    readers = [graph.node_names[w] for w, source in enumerate(graph.reads) if source == v]
    if writes and readers:
        raise GraphError(
            f"the head of node '{graph.node_names[v]}' works in place on features that '{readers[0]}' reads too.",
            why="Whether what the head wrote belongs to those features cannot be told, and the static reference runs "
            "without the head.",
            todo="Give the head's first layer inplace=False, or move that layer to the end of the stage.",
        )
