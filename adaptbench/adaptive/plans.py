"""What a pass asks of a net at every node, looked up once: parts, readers, who writes into what, whose answer it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from torch import Tensor, nn

from adaptbench.adaptive.node_counting import NodeCosts
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import ChainPolicy, Policy

if TYPE_CHECKING:
    from adaptbench.adaptive.graph import DecisionGraph


class Step(NamedTuple):
    """A node as a pass runs it.

    Args:
        v: its place. stage, head: its parts. ways: nodes that it may hand over to.
        reads: the node whose features it takes, −1 for the input.
        stage_writes, head_writes: the part works in place and is given a copy.
        is_read: later nodes take its features. frees: nodes whose features nobody reads behind this one.
    """

    v: int
    stage: Callable[[Any], Any]
    head: Callable[[Any], Tensor]
    ways: tuple[int, ...]
    reads: int
    stage_writes: bool
    head_writes: bool
    is_read: bool
    frees: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """A decision graph under its policy, for inputs of one kind. It holds as long as nobody changes either.

    Args:
        graph: whose it is. policy: in force. costs: of such inputs. steps: one a node.
        shows_itself: policies see a node's answer as it is. answers_itself: and so does the caller; nothing aggregates.
    """

    graph: DecisionGraph
    policy: Policy
    costs: NodeCosts
    steps: tuple[Step, ...]
    shows_itself: bool
    answers_itself: bool


def plan_of(graph: DecisionGraph, costs: NodeCosts, shown: Callable[..., Tensor]) -> GraphPlan:
    """The plan of a graph. shown: what a graph has for `shown` where an answer is shown as it is."""
    last = graph.last_reader
    steps = tuple(
        Step(
            v,
            stage,
            head,
            graph.structure.successors[v],
            graph.reads[v],
            costs.stage_writes[v],
            costs.head_writes[v],
            last[v] >= 0,
            tuple(u for u in range(v) if last[u] == v),
        )
        for v, (stage, head) in enumerate(zip(graph.stages, graph.heads, strict=True))
    )
    policy = graph.policy
    return GraphPlan(
        graph, policy, costs, steps, type(graph).shown is shown, _is_own(policy, "predict", Policy.predict)
    )


def has_margin(policy: Policy) -> TypeGuard[ChainPolicy]:
    """Its scores are nothing and a margin, so that the margin says it all."""
    return isinstance(policy, ChainPolicy) and _is_own(policy, "scores", ChainPolicy.scores)


def one_way(policy: Policy, v: int, signals: Signals) -> Tensor:
    """(n,) margin of going on, at a node with one way on: its score less that of stopping."""
    if has_margin(policy):
        return policy.margin(v, signals)
    stopping, going = policy.scores(v, signals).unbind(1)
    return going - stopping


def _is_own(of: nn.Module, name: str, method: Callable[..., Any]) -> bool:
    """Whether a method is the one of a class above, and nobody has put another in its place."""
    return getattr(type(of), name) is method and name not in of.__dict__
