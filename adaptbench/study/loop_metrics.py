"""How well a loop holds its budget, and what a flood of dear inputs does to everybody else under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adaptbench.adaptive.log import LoggedSamples, is_correct
from adaptbench.adaptive.online import OnlineRecord, run_online
from adaptbench.adaptive.replay import replay
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import UsageError
from adaptbench.policies.online.controller import ClosedLoop


@dataclass(frozen=True, slots=True)
class LoopMetrics:
    """A record's cost against a budget B, on means over blocks of samples.

    Args:
        settling: samples until every later block is within ±band·B; None if that never comes.
        overshoot: largest swing past B to the other side of where the record began, a fraction of B.
        peak: largest overspending of a block, a fraction of B; 0 where none overspends.
        steady_error: (mean cost − B) / B once settled, over the second half where it never settles.
    """

    settling: int | None
    overshoot: float
    peak: float
    steady_error: float


def quiet_block(record: OnlineRecord, budget: float, *, band: float = 0.05) -> int:
    """Samples a block must have so that chance alone keeps its mean cost within ±band·B at three standard errors.

    At most a quarter of the record; on a shorter one the noise stays above the band.
    """
    needed = (3 * float(record.cost.std()) / (band * budget)) ** 2
    return int(min(max(1, np.ceil(needed)), max(1, len(record.cost) // 4)))


def loop_metrics(
    record: OnlineRecord, budget: float, *, band: float = 0.05, block: int = 64, start: int = 0
) -> LoopMetrics:
    """Settling, overshoot and error of a record, from sample `start` on (where a disturbance began).

    Noise of a block's mean is the cost's spread over √block: a band below it never settles (`quiet_block`).

    Raises:
        UsageError: fewer than two blocks.
    """
    cost = record.cost[start:]
    if block < 1 or len(cost) < 2 * block:
        raise UsageError(
            f"{len(cost)} samples make {len(cost) // max(block, 1)} blocks of {block}.",
            todo="Give a longer stream or smaller blocks; two at the least.",
        )
    blocks = cost[: len(cost) // block * block].view(-1, block).mean(1).numpy()
    error = blocks / budget - 1
    outside = np.flatnonzero(np.abs(error) > band)
    first = 0 if not len(outside) else int(outside[-1]) + 1
    settled = first < len(blocks)
    side = -np.sign(error[0])
    return LoopMetrics(
        first * block if settled else None,
        max(0.0, float((side * error).max())),
        max(0.0, float(error.max())),
        float(cost[first * block if settled else len(cost) // 2 :].mean() / budget - 1),
    )


def accuracy_lost_to_oscillation(
    loop: ClosedLoop,
    record: OnlineRecord,
    source: LoggedSamples | Tensor,
    labels: Tensor,
    structure: Structure | None = None,
    node_costs: Tensor | None = None,
    *,
    start: int = 0,
    top: int = 1,
) -> float:
    """Accuracy of constant settings at the record's own mean cost, on the same samples, less the record's.

    Between two settings of the table the straight line counts, which mixing them by chance attains. Positive: moving
    the knob lost accuracy; negative: the stream drifts and following it paid.

    Args:
        source, structure, node_costs: as for `run_online`. labels: (N,) of the samples, in their own order.
        start: sample to begin at, so that settling is left out.
    """
    logits, structure, node_costs = _graph(source, structure, node_costs)
    rows = record.order[start:]
    points = []
    for setting in loop.table.settings:
        policy = loop.base.at(float(setting))
        policy.bind(structure)
        replayed = replay(policy, structure, logits[rows], seeds=rows)
        points.append(
            (float(replayed.cost(node_costs).mean()), float(replayed.correct(labels[rows], top).double().mean()))
        )
    cost, accuracy = np.array(sorted(points)).T
    level = float(np.interp(float(record.cost[start:].mean()), cost, accuracy))
    return level - float(record.correct(labels, top)[start:].double().mean())


@dataclass(frozen=True, slots=True)
class Overload:
    """Three runs of one stream: the loop undisturbed, the loop flooded, the knob left alone and flooded.

    Args:
        attacked: (T,) bool, samples that the attacker sent in the flooded runs.
        quiet, closed, opened: the runs.
        honest_accuracy: of the three, in that order, on the same honest samples after the flood began (and `settle`).
        cost: mean cost of the three over everybody, from the same sample on.
    """

    attacked: Tensor
    quiet: OnlineRecord
    closed: OnlineRecord
    opened: OnlineRecord
    honest_accuracy: tuple[float, float, float]
    cost: tuple[float, float, float]

    @property
    def accuracy_lost(self) -> float:
        """What the flood took from honest users under the loop; with the knob left alone they lose nothing."""
        return self.honest_accuracy[0] - self.honest_accuracy[1]


def overload(
    loop: ClosedLoop,
    source: LoggedSamples | Tensor,
    labels: Tensor,
    structure: Structure | None = None,
    node_costs: Tensor | None = None,
    *,
    share: float,
    start: int = 0,
    settle: int = 0,
    kind: Literal["flatten", "hard"] = "flatten",
    order: Tensor | None = None,
    window: int = 1,
    seed: int = 0,
    top: int = 1,
) -> Overload:
    """From sample `start` on an attacker sends a share of the stream, made to look hard.

    A loop that holds its budget takes what the attacker gets from everybody else's accuracy. The attack is stood in for
    on logs: nothing here says how such inputs are made.

    Args:
        source, structure, node_costs, order, window: as for `run_online`. labels: (N,), for honest samples' accuracy.
        share: of the samples from `start` on, in (0, 1).
        settle: samples after `start` that are left out of the figures.
        kind: "flatten": the attacker's logits shrink to a fiftieth at every node, no confidence is left; "hard": they
            are drawn from the tenth of the samples that costs most with the knob left alone.

    Raises:
        UsageError: a share outside (0, 1), nothing honest after `start + settle`, or an unknown kind.
    """
    logits, structure, node_costs = _graph(source, structure, node_costs)
    order = torch.arange(len(logits)) if order is None else order
    generator = torch.Generator().manual_seed(seed)
    attacked = torch.rand(len(order), generator=generator) < share
    attacked[:start] = False
    counted = torch.arange(len(order)) >= start + settle
    honest = counted & ~attacked
    if not 0 < share < 1 or not honest.any() or kind not in ("flatten", "hard"):
        raise UsageError(
            f"share = {share:g}, start = {start}, settle = {settle}, kind = '{kind}' on a stream of {len(order)}.",
            todo="Give a share in (0, 1), 'flatten' or 'hard', and a stream longer than start + settle.",
        )
    stream = logits[order]
    flooded = stream.clone()
    if kind == "flatten":
        flooded[attacked] *= 0.02
    else:
        alone = run_online(loop.open_loop(), logits, structure, node_costs, window=len(logits))
        dearest = alone.cost.argsort(descending=True, stable=True)[: max(1, len(logits) // 10)]
        drawn = torch.randint(len(dearest), (int(attacked.sum()),), generator=generator)
        flooded[attacked] = logits[dearest[drawn]]
    quiet = run_online(loop.copy(), stream, structure, node_costs, window=window)
    closed = run_online(loop.copy(), flooded, structure, node_costs, window=window)
    opened = run_online(loop.open_loop(), flooded, structure, node_costs, window=window)
    said = labels[order]
    runs = (quiet, closed, opened)
    accuracy = [float(is_correct(r.logits, said, top)[honest].double().mean()) for r in runs]
    cost = [float(r.cost[counted].mean()) for r in runs]
    return Overload(attacked, *runs, (accuracy[0], accuracy[1], accuracy[2]), (cost[0], cost[1], cost[2]))


def _graph(
    source: LoggedSamples | Tensor, structure: Structure | None, node_costs: Tensor | None
) -> tuple[Tensor, Structure, Tensor]:
    if isinstance(source, LoggedSamples):
        return (
            source.logits,
            structure or source.structure,
            source.node_costs if node_costs is None else node_costs.double(),
        )
    if structure is None or node_costs is None:
        raise UsageError("bare logits came without the graph's structure or its costs.", todo="Give both, or a log.")
    return source, structure, node_costs.double()
