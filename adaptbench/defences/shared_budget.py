"""A budget that honest inputs and an attacker's share: what he spends of it, and what they lose.

The bucket is that of `policies.online.ComputeBudget` with windows of one input. On logits of every node a stream comes
down to cutting each input's way short, so that many orders and shares are cheap; `run_online` takes the same ways.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptbench.adaptive import Policy, Structure
from adaptbench.adaptive.log import is_correct
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.replay import replay
from adaptbench.errors import UsageError

_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Ways:
    """Where a policy would lead each of n inputs, and what it would get where it left earlier on that way.

    Args:
        costs: a list an input: what is paid up to each node of its way, rising.
        right: a list an input: whether the answer at that node is right.
    """

    costs: list[list[float]]
    right: list[list[bool]]

    def __len__(self) -> int:
        return len(self.costs)

    @property
    def free_costs(self) -> NDArray[np.float64]:
        """(n,) with nothing in the way."""
        return np.array([costs[-1] for costs in self.costs])

    @property
    def free_right(self) -> NDArray[np.bool_]:
        """(n,) with nothing in the way."""
        return np.array([right[-1] for right in self.right])


@torch.no_grad()
def ways_of(
    policy: Policy,
    structure: Structure,
    logits: Tensor,
    labels: Tensor,
    node_costs: Tensor,
    seeds: Tensor,
    path: Tensor | None = None,
) -> Ways:
    """The ways of some inputs.

    Args:
        logits: (n, V, C) of every node. labels: (n,). node_costs: (V,) increments. seeds: (n,) for policies that draw.
        path: (n, V) as executed; None replays the policy.
    """
    path = replay(policy, structure, logits, seeds=seeds).path if path is None else path
    paid = (path.double() * node_costs.double()).cumsum(1)
    right = torch.zeros_like(path)
    for v, onward in enumerate(structure.successors):
        rows = path[:, v].nonzero().squeeze(1)
        if len(rows):
            visited = path[rows] & (torch.arange(path.shape[1]) <= v)
            history = torch.where(visited[..., None], logits[rows], 0.0) if policy.uses_history else None
            signals = Signals(logits[rows, v], ways=onward, history=history, visited=visited, seeds=seeds[rows])
            right[rows, v] = is_correct(policy.predict(v, signals), labels[rows])
    on = path.tolist()
    return Ways(
        [[c for c, yes in zip(row, mask, strict=True) if yes] for row, mask in zip(paid.tolist(), on, strict=True)],
        [[r for r, yes in zip(row, mask, strict=True) if yes] for row, mask in zip(right.tolist(), on, strict=True)],
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """What a bucket made of T inputs in a row.

    Args:
        cost: (T,) spent. right: (T,) answered rightly. forced: (T,) left earlier than the policy wanted.
        level: (T,) in the bucket before each input.
    """

    cost: NDArray[np.float64]
    right: NDArray[np.bool_]
    forced: NDArray[np.bool_]
    level: NDArray[np.float64]


def through_bucket(
    costs: Sequence[Sequence[float]], right: Sequence[Sequence[bool]], *, rate: float, capacity: float
) -> Stream:
    """Inputs through a bucket, one after another.

    Args:
        costs, right: of `Ways`, in the order of the stream. rate: added with each input. capacity: what it holds.

    Raises:
        UsageError: the bucket cannot pay for some input's entry node.
    """
    entry = max(one[0] for one in costs)
    if rate < entry or capacity < entry:
        raise UsageError(
            f"the entry node costs {entry:g}; the bucket adds {rate:g} an input and holds {capacity:g}.",
            why="Every input has to be answered, and the entry node is the least that answers.",
            todo="Give a rate and a capacity of at least the entry node's cost.",
        )
    level, out = capacity, []
    for steps, answers in zip(costs, right, strict=True):
        last = bisect_right(steps, level * (1 + _SLACK)) - 1
        out.append((steps[last], answers[last], last < len(steps) - 1, level))
        level = min(capacity, max(0.0, level - steps[last]) + rate)
    cost, answered, forced, levels = zip(*out, strict=True)
    return Stream(np.array(cost), np.array(answered), np.array(forced), np.array(levels))


@dataclass(frozen=True, slots=True)
class Shared:
    """One stream that an attacker has a share of, with the bucket and without.

    Args:
        share: of the inputs that are the attacker's.
        benign_accuracy, benign_accuracy_free: of the honest inputs, with the bucket and without.
        benign_forced: share of the honest inputs that had to leave early.
        benign_macs, attacker_macs: mean, with the bucket; the attacker's None where he sends nothing.
        stream_macs, stream_macs_free: mean over all inputs, with the bucket and without.
    """

    share: float
    benign_accuracy: float
    benign_accuracy_free: float
    benign_forced: float
    benign_macs: float
    attacker_macs: float | None
    stream_macs: float
    stream_macs_free: float


def shared_stream(
    clean: Ways, attacked: Ways, *, share: float, rate: float, capacity: float, order: int, passes: int = 1
) -> Shared:
    """One stream: the samples in some passes, in each a share of them replaced by attacked ones, all shuffled.

    Args:
        clean, attacked: of the same n samples, in the same order. share: in [0, 1). order: seed of the shuffles.
        passes: over the samples; the bucket begins full, so a stream has to be long beside what it holds.

    Raises:
        UsageError: another share, different numbers of samples, or a bucket that cannot pay for the entry node.
    """
    n = len(clean)
    if not 0 <= share < 1 or len(attacked) != n or not n:
        raise UsageError(
            f"a share of {share:g} was asked for, of {n} clean and {len(attacked)} attacked inputs.",
            todo="Give a share in [0, 1), and the same samples clean and attacked.",
        )
    rng = np.random.default_rng(order)
    stream = np.concatenate([rng.permutation(n) for _ in range(passes)])
    hostile = np.zeros(passes * n, bool)
    hostile[rng.permutation(passes * n)[: round(share * passes * n)]] = True
    sources = [(attacked if bad else clean, i) for i, bad in zip(stream.tolist(), hostile.tolist(), strict=True)]
    steps, answers = [w.costs[i] for w, i in sources], [w.right[i] for w, i in sources]
    run = through_bucket(steps, answers, rate=rate, capacity=capacity)
    free_cost, free_right = np.array([s[-1] for s in steps]), np.array([a[-1] for a in answers])
    honest = ~hostile
    return Shared(
        share,
        float(run.right[honest].mean()),
        float(free_right[honest].mean()),
        float(run.forced[honest].mean()),
        float(run.cost[honest].mean()),
        float(run.cost[hostile].mean()) if hostile.any() else None,
        float(run.cost.mean()),
        float(free_cost.mean()),
    )
