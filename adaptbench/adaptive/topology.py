"""Order, readers and paths of a decision graph; integers only, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from adaptbench.errors import GraphError

INPUT = "input"


@dataclass(frozen=True, slots=True)
class Topology:
    """Successors of each node, and which node each reads (−1: the input)."""

    successors: tuple[tuple[int, ...], ...]
    reads: tuple[int, ...]


def check_topology(nodes: Sequence[tuple[str, str, tuple[str, ...]]]) -> Topology:
    """Check (name, reads, to) rows and turn names into indices.

    Raises:
        GraphError: no nodes, a name twice, an unknown name, an edge backwards, a node nobody reaches, or a reader that
            can be reached without running what it reads.
    """
    if not nodes:
        raise GraphError("a decision graph without nodes.", todo="Give at least one stage.")
    names = [name for name, _, _ in nodes]
    for name in names:
        if names.count(name) > 1 or name == INPUT:
            raise GraphError(
                f"the node name '{name}' is used twice or reserved.", todo="Give each node a name of its own."
            )
    index = {name: i for i, name in enumerate(names)}

    def find(name: str, where: str) -> int:
        if name not in index:
            raise GraphError(f"{where} names '{name}', which is no node.", todo=f"Nodes: {', '.join(names)}.")
        return index[name]

    successors: list[tuple[int, ...]] = []
    reads: list[int] = []
    for i, (name, source, to) in enumerate(nodes):
        ways = tuple(find(w, f"node '{name}'") for w in to)
        if len(set(ways)) < len(ways) or any(w <= i for w in ways):
            raise GraphError(
                f"node '{name}' hands over to {', '.join(to)}: twice to one node, or backwards.",
                todo="List nodes so that every hand-over goes to a later one.",
            )
        successors.append(ways)
        reads.append(-1 if source == INPUT else find(source, f"node '{name}' (reads)"))
    _check_reached(names, successors, reads)
    return Topology(tuple(successors), tuple(reads))


def _check_reached(names: Sequence[str], successors: Sequence[tuple[int, ...]], reads: Sequence[int]) -> None:
    reached = {0}.union(*successors)
    for v, before in enumerate(dominators(successors)):
        if v not in reached:
            raise GraphError(f"no node hands over to '{names[v]}'.", todo="Add an edge to it, or leave it out.")
        if reads[v] >= 0 and reads[v] not in before:
            raise GraphError(
                f"node '{names[v]}' reads '{names[reads[v]]}', but can be reached without running it.",
                why="Its features would not exist for such a sample.",
                todo="Let every way to it pass through the node that it reads.",
            )


def dominators(successors: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """For each node, the earlier nodes that every way to it passes through, in order."""
    certain: list[set[int] | None] = [set()] + [None] * (len(successors) - 1)
    for v, ways in enumerate(successors):
        here = (certain[v] or set()) | {v}
        for w in ways:
            seen = certain[w]
            certain[w] = set(here) if seen is None else seen & here
    return [tuple(sorted(before or ())) for before in certain]


def reference_nodes(names: Sequence[str], reads: Sequence[int], wanted: Sequence[str] | None) -> tuple[int, ...]:
    """The nodes that make the static reference, in order; without a wish, the last and what it reads.

    Raises:
        GraphError: an unknown name, or nodes that do not run from the input on their own.
    """
    if wanted is None:
        chain = [len(names) - 1]
        while (source := reads[chain[0]]) >= 0:
            chain.insert(0, source)
        return tuple(chain)
    unknown = [n for n in wanted if n not in names]
    if unknown:
        raise GraphError(
            f"the static reference names '{unknown[0]}', which is no node.",
            todo=f"Nodes: {', '.join(names)}.",
        )
    chain = [names.index(n) for n in wanted]
    if [reads[v] for v in chain] != [-1, *chain[:-1]]:
        raise GraphError(
            f"the static reference {' → '.join(wanted)} does not run from the input on its own.",
            todo="Name a node and, before it, those whose features it continues.",
        )
    return tuple(chain)


def extreme_costs(successors: Sequence[tuple[int, ...]], visit: Sequence[int], leave: Sequence[int]) -> tuple[int, int]:
    """(cheapest, dearest) total over all ways from node 0 to any stop.

    Args:
        successors: hand-overs.
        visit: cost of running each node and deciding there.
        leave: cost of answering at each node.
    """
    low, high = [0] * len(visit), [0] * len(visit)
    for v in reversed(range(len(visit))):
        low[v] = visit[v] + min([leave[v], *(low[w] for w in successors[v])])
        high[v] = visit[v] + max([leave[v], *(high[w] for w in successors[v])])
    return low[0], high[0]


def cheapest_ways(successors: Sequence[tuple[int, ...]], visit: Sequence[int]) -> list[tuple[int, ...]]:
    """For each node, the cheapest way from node 0 that ends there."""
    ways: list[tuple[int, ...]] = [(0,), *(() for _ in visit[1:])]
    costs = [float(visit[0]), *(float("inf") for _ in visit[1:])]
    for v, onward in enumerate(successors):
        for w in onward:
            if costs[v] + visit[w] < costs[w]:
                ways[w], costs[w] = (*ways[v], w), costs[v] + visit[w]
    return ways


def simple_paths(
    successors: Sequence[tuple[int, ...]], visit: Sequence[int], leave: Sequence[int], *, limit: int
) -> list[tuple[int, ...]]:
    """Ways from node 0 to a stop: the cheapest, the dearest, enough to cover every node, then others up to `limit`."""
    lowest: list[tuple[int, tuple[int, ...]]] = [(0, ())] * len(visit)
    highest = list(lowest)
    for v in reversed(range(len(visit))):
        low = min([(leave[v], ()), *(lowest[w] for w in successors[v])], key=lambda way: way[0])
        high = max([(leave[v], ()), *(highest[w] for w in successors[v])], key=lambda way: way[0])
        lowest[v], highest[v] = (visit[v] + low[0], (v, *low[1])), (visit[v] + high[0], (v, *high[1]))
    chosen = list(dict.fromkeys([lowest[0][1], highest[0][1]]))
    uncovered = set(range(len(visit))).difference(*chosen)
    for way in reversed(cheapest_ways(successors, visit)):
        if uncovered & set(way):
            chosen.append(way)
            uncovered -= set(way)
    stack: list[tuple[int, ...]] = [(0,)]
    while stack and len(chosen) < limit:
        way = stack.pop()
        if way not in chosen:
            chosen.append(way)
        stack.extend((*way, w) for w in reversed(successors[way[-1]]))
    return chosen


def edges_of(way: Sequence[bool], edges: Sequence[tuple[int, int]]) -> list[bool]:
    """Which edges a way takes. way: of each node, whether it is on it."""
    steps = set(pairwise(v for v, on in enumerate(way) if on))
    return [edge in steps for edge in edges]
