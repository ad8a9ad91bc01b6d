"""The hard pass of a graph as a batch runs it: survivors of the batch stay together, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.parts import EVERYONE, EXECUTOR, NODES, POLICY, Decided, Lap
from adaptbench.adaptive.plans import GraphPlan
from adaptbench.adaptive.rows import Arrival, gathered, joined, of_batch, parted, some, written
from adaptbench.adaptive.writes import apart


def compacted_pass(
    plan: GraphPlan, x: Tensor, seeds: Tensor | None, force: Tensor | None, lap: Lap
) -> tuple[Tensor, Decided]:
    """(n, C) answers, or (n, C, H, W), and the way of each row. It waits for the device once a decision.

    Args:
        x: (n, C, H, W) of the type of the weights. seeds: (n,) or None. force: (n, V) or None.
    """
    graph, decides_in, n = plan.graph, plan.costs.decides_in, x.shape[0]
    x = graph.entered(x, lap)
    decided = Decided([], [], [])
    seen = _Seen(plan, x, seeds) if plan.policy.uses_history else None
    answers: _WrittenOver | _Collected
    answers = _WrittenOver() if plan.answers_itself and not torch.is_grad_enabled() else _Collected(plan, lap)
    waiting: dict[int, list[Arrival]] = {0: [Arrival(None, -1, None)]}
    kept: dict[int, tuple[Tensor | None, Any]] = {}
    for v, stage, head, ways, reads, stage_writes, head_writes, is_read, frees in plan.steps:
        arrivals = waiting.pop(v, None)
        if arrivals is None:
            continue
        arrival = arrivals[0] if len(arrivals) == 1 else joined(arrivals, n)
        rows = arrival.rows
        given = gathered(x, kept, reads, arrival)
        lap(EXECUTOR)
        features = stage(apart(given) if stage_writes else given)
        answer = head(apart(features) if head_writes else features)
        if answer.dtype is not decides_in:
            answer = answer.to(decides_in)
        lap(NODES)
        for u in frees:
            kept.pop(u, None)
        if is_read:
            kept[v] = (rows, features)
        logits = answer if plan.shows_itself else graph.shown(answer)
        lap(EXECUTOR)
        if seen is None:
            signals = Signals(logits, ways=ways, seeds=some(seeds, rows), answer=answer)
        else:
            signals = seen.after(v, rows, logits, answer, ways)
        whose = EVERYONE if rows is None else rows
        decided.ran.append((v, whose))
        groups: Sequence[tuple[int, Tensor | None]] = ((0, None),)
        if ways:
            action, best = graph._decide(v, signals, some(force, rows))
            lap(POLICY)
            if best is not None:
                decided.best.append((whose, best))
            groups = parted(action, len(ways), answer.shape[0], stopping=answers.asks_who)
        for taken, places in groups:
            if taken:
                waiting.setdefault(ways[taken - 1], []).append(Arrival(of_batch(rows, places), v, places))
        answers.take(v, rows, signals, groups)
    out = answers.restored()
    lap(EXECUTOR)
    return out, decided


class _WrittenOver:
    """Each node writes over what earlier ones said of its rows; they run in order, so that the last of them answers."""

    asks_who = False

    def __init__(self) -> None:
        self.out: Tensor | None = None
        self._is_ours = False

    def take(self, v: int, rows: Tensor | None, signals: Signals, groups: object) -> None:
        if rows is None or self.out is None:
            self.out, self._is_ours = signals.answer, False
            return
        self.out = (self.out if self._is_ours else self.out.clone()).index_copy_(0, rows, signals.answer)
        self._is_ours = True

    def restored(self) -> Tensor:
        assert self.out is not None
        return self.out


class _Collected:
    """The policy makes the answers, of those who leave only: aggregating costs, and gradients go to no other."""

    asks_who = True

    def __init__(self, plan: GraphPlan, lap: Lap) -> None:
        self.policy, self.lap = plan.policy, lap
        self.answers: list[Tensor] = []
        self.order: list[Tensor] = []

    def take(self, v: int, rows: Tensor | None, signals: Signals, groups: Sequence[tuple[int, Tensor | None]]) -> None:
        for taken, places in groups:
            if taken == 0:
                leaving = signals if places is None else signals.rows(places)
                whose = of_batch(rows, places)
                if whose is not None:
                    self.order.append(whose)
                self.lap(EXECUTOR)
                self.answers.append(self.policy.predict(v, leaving))
                self.lap(POLICY)

    def restored(self) -> Tensor:
        if len(self.answers) == 1:
            return self.answers[0]
        out = torch.cat(self.answers)
        return torch.empty_like(out).index_copy(0, torch.cat(self.order), out)


class _Seen:
    """What policies that look back are shown."""

    def __init__(self, plan: GraphPlan, x: Tensor, seeds: Tensor | None) -> None:
        size = (x.shape[0], len(plan.steps))
        self.seeds = seeds
        self.history = x.new_zeros(*size, plan.graph.n_classes, dtype=plan.costs.decides_in)
        self.visited = torch.zeros(size, dtype=torch.bool, device=x.device)

    def after(self, v: int, rows: Tensor | None, logits: Tensor, answer: Tensor, ways: tuple[int, ...]) -> Signals:
        """With what a node says of its rows."""
        self.history = written(self.history, rows, v, logits)
        self.visited[EVERYONE if rows is None else rows, v] = True
        history, visited, seeds = (some(t, rows) for t in (self.history, self.visited, self.seeds))
        return Signals(logits, ways=ways, history=history, visited=visited, seeds=seeds, answer=answer)
