"""The hard pass of a graph as a batch runs it: survivors of the batch stay together, node by node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaptbench.adaptive.node_counting import NodeCosts
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.parts import EXECUTOR, NODES, POLICY, Decided, Lap
from adaptbench.adaptive.rows import gathered, hand_over, written

if TYPE_CHECKING:
    from adaptbench.adaptive.graph import DecisionGraph


def compacted_pass(
    graph: DecisionGraph, x: Tensor, costs: NodeCosts, seeds: Tensor | None, force: Tensor | None, lap: Lap
) -> tuple[Tensor, Decided]:
    """(n, C) answers, or (n, C, H, W), and the way of each row. It waits for the device once a decision.

    Args:
        x: (n, C, H, W) of the type of the weights. seeds: (n,) or None. force: (n, V) or None.
    """
    n, policy, last_reader, decides_in = x.shape[0], graph.policy, graph.last_reader, costs.decides_in
    x = graph.entered(x, lap)
    decided = Decided([], [], [])
    history = visited = None
    if policy.uses_history:
        history = x.new_zeros(n, len(graph.node_names), graph.n_classes, dtype=decides_in)
        visited = torch.zeros(n, len(graph.node_names), dtype=torch.bool, device=x.device)
    waiting: dict[int, list[Tensor]] = {0: [torch.arange(n, device=x.device)]}
    kept: dict[int, tuple[Tensor, Any]] = {}
    answers: list[Tensor] = []
    for v, ways in enumerate(graph.structure.successors):
        arrivals = waiting.pop(v, None)
        if arrivals is None:
            continue
        rows = arrivals[0] if len(arrivals) == 1 else torch.cat(arrivals).sort().values
        here = rows.shape[0]
        given = gathered(x, kept, graph.reads[v], rows)
        lap(EXECUTOR)
        features, answer = graph._node(v, given, costs)
        answer = answer.to(decides_in)
        lap(NODES)
        decided.ran.append((v, rows))
        for u in [u for u in kept if last_reader[u] == v]:
            del kept[u]
        if last_reader[v] >= 0:
            kept[v] = (rows, features)
        logits = graph.shown(answer)
        lap(EXECUTOR)
        if history is not None and visited is not None:
            history = written(history, rows, v, logits)
            visited[rows, v] = True
        shown = [t if t is None or here == n else t[rows] for t in (history, visited, seeds)]
        signals = Signals(logits, ways=ways, history=shown[0], visited=shown[1], seeds=shown[2], answer=answer)
        if ways:
            action, best = graph._decide(v, signals, None if force is None else force[rows])
            lap(POLICY)
            if best is not None:
                decided.best.append((rows, best))
            stop = hand_over(waiting, ways, rows, action)
            if stop is None:
                lap(EXECUTOR)
                continue
            if stop.shape[0] < here:  # an aggregating predict() costs: for those who leave only
                signals, rows = signals.rows(stop), rows[stop]
            lap(EXECUTOR)
        answers.append(policy.predict(v, signals))
        decided.left.append((v, rows))
        lap(POLICY)
    out = answers[0]
    if len(answers) > 1:
        out = torch.cat(answers)
        out = torch.empty_like(out).index_copy(0, torch.cat([rows for _, rows in decided.left]), out)
    lap(EXECUTOR)
    return out, decided
