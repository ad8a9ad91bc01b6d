"""What a step of each node takes at the sizes that arrive, measured on this machine; the simulation is fed with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adaptbench.adaptive import DecisionGraph
from adaptbench.errors import MeterError
from adaptbench.meters.reading import Work
from adaptbench.meters.windows import Arm
from adaptbench.results import timing
from adaptbench.results.identity import timed_id
from adaptbench.serving.blocks import body_arm
from adaptbench.serving.executor import BatchServer, QueueServer
from adaptbench.serving.lines import Line
from adaptbench.serving.ways import Executed, Servable

CALL = "call"
"""The arm of whole batches."""
_MOST_SAVED = 0.9
"""Of the entry node's step, by a whole batch: noise must not make a batch take less than nothing."""


@dataclass(frozen=True, slots=True)
class Table:
    """Seconds (or joules) of steps and calls, for every size; a `simulate.Times`.

    Args:
        steps: node → size → amount, size 0 first. calls: size → amount around a whole batch, beside its steps.
    """

    steps: list[list[float]]
    calls: list[float]

    def call_s(self, n: int) -> float:
        """Around a batch of n: the checks and records of `infer`.

        It may be below 0: a whole batch hands rows over more cheaply than queues do, in which steps are timed.
        """
        return self.calls[n]

    def step_s(self, node: int, n: int) -> float:
        """A node with its decision and hand-over on n requests."""
        return self.steps[node][n]

    def batch_s(self, reach: Sequence[float], n: int) -> float:
        """A whole batch of n, of which each node runs a share."""
        sizes = range(len(self.calls))
        return self.calls[n] + sum(
            float(np.interp(share * n, sizes, steps)) for share, steps in zip(reach, self.steps, strict=True)
        )


def case_of(label: str, node: str, size: int) -> str:
    """The windows of a node, or of whole calls, at a size."""
    return timed_id(f"{label}/{node}", size)


def arms_of(
    label: str, model: Servable, x: Tensor, seeds: Tensor, ways: Executed, size: int, samples: int
) -> tuple[dict[str, Callable[[], Arm]], list[list[int]]]:
    """What is timed of a net at a size: each node on inputs that reach it, and whole batches as a service calls them.

    Args:
        label: of the net. x: (n, …) inputs on the device. seeds: (n,). ways: of these inputs first, maybe of more.
        samples: inputs that whole calls go through, at least.

    Returns:
        Case → makes its arm; and of each batch of the whole calls, how many requests reach each node.
    """
    makers: dict[str, Callable[[], Arm]] = {}
    for v, name in enumerate(model.node_names):
        makers[case_of(label, name, size)] = _later(
            _step_arm, case_of(label, name, size), model, x, seeds, ways, size, v
        )
    batches = [torch.arange(start, start + size) % len(x) for start in range(0, max(min(samples, len(x)), size), size)]
    makers[case_of(label, CALL, size)] = _later(_call_arm, case_of(label, CALL, size), model, x, seeds, ways, batches)
    return makers, [ways.path[rows].sum(0).tolist() for rows in batches]


def _later(make: Callable[..., Arm], *given: Any) -> Callable[[], Arm]:
    return lambda: make(*given)


def _step_arm(case: str, model: Servable, x: Tensor, seeds: Tensor, ways: Executed, size: int, v: int) -> Arm:
    """A step of a server at one node, on inputs that reach it, as often as it is asked for."""
    if not isinstance(model, DecisionGraph):
        return body_arm(case, model, x, ways.path[: len(x)], size, v)
    there = ways.path[: len(x), v].nonzero().squeeze(1)
    force = None
    if len(there):
        rows = there[torch.arange(size) % len(there)]
    else:  # nobody goes there: a way that does, forced
        rows = torch.arange(size) % len(x)
        force = next(way for way in model.paths() if bool(way[v])).expand(size, -1).to(x.device)
    with model.serving():
        server = QueueServer(model, x[rows.to(x.device)], seeds[rows].to(x.device), size, force)
        stages = server.stages
        stages.arrive(torch.arange(size, device=x.device))
        for u in range(v):
            while stages.length(u):
                stages.work(u)
        parcel = stages.at(v)
        stages.forget()
    stages.force, here = None, list(range(size))

    def run() -> None:
        if v:
            stages.queues[v].put(parcel)
        server.work(v, here, time.perf_counter)
        stages.forget()
        server.lines = [Line() for _ in server.lines]

    macs = (model.node_macs[v] + model.policy_macs[v]) * size
    return Arm(case, run, Work(macs, None, size), [run], model.serving)


def _call_arm(case: str, model: Servable, x: Tensor, seeds: Tensor, ways: Executed, batches: list[Tensor]) -> Arm:
    """Whole batches through a server."""
    server, given = BatchServer(model, x, seeds.to(x.device)), [rows.tolist() for rows in batches]

    def run() -> None:
        for here in given:
            server.work(0, here, time.perf_counter)

    macs = sum(int(ways.macs[rows].sum()) for rows in batches)
    return Arm(case, run, Work(macs, None, sum(map(len, batches))), [run], model.serving)


@dataclass(frozen=True, slots=True)
class Measured:
    """A net's tables.

    Args:
        sizes: that were timed. blocks: a table a block of windows. middle: of the medians.
        rows: what was measured, a row a node and size, with intervals over blocks.
        joules: of the medians; None where no sensor answered, and why.
    """

    sizes: list[int]
    blocks: list[Table]
    middle: Table
    rows: list[dict[str, Any]]
    joules: Table | None
    no_joules: str


def tables_of(
    windows: pd.DataFrame,
    label: str,
    names: Sequence[str],
    batches: Mapping[int, list[list[int]]],
    energy_meters: Sequence[str],
) -> Measured:
    """From windows to tables.

    Args:
        windows: of all sizes. label: of the net. names: of its nodes. batches: size → of whole calls, see `arms_of`.
        energy_meters: names, in the suite's order.

    Raises:
        MeterError: the clock has no figure for some node.
    """
    sizes = sorted(batches)
    seconds = _amounts(windows, label, names, sizes, timing.CLOCK)
    blocks = [
        _table([[column[b] for column in row] for row in seconds], sizes, batches)
        for b in range(min(len(column) for row in seconds for column in row))
    ]
    middle = _table([[float(np.median(column)) for column in row] for row in seconds], sizes, batches)
    joules, why = None, "no energy meter was asked for"
    for meter in energy_meters:
        case = case_of(label, names[0], sizes[0])
        found = timing.blocks(windows, case, meter)
        if found is None or not found.measured:
            said = (
                timing.missing_reason(windows, case, meter) if found is None else f"{meter} models, it measures nothing"
            )
            why = said
            continue
        amounts = _amounts(windows, label, names, sizes, meter)
        joules = _table([[float(np.median(column)) for column in row] for row in amounts], sizes, batches)
        why = ""
        break
    rows = [
        {"node": name, "size": size} | _estimate(windows, case_of(label, name, size), size)
        for name in (*names, CALL)
        for size in sizes
    ]
    return Measured(sizes, blocks, middle, rows, joules, why)


def _amounts(
    windows: pd.DataFrame, label: str, names: Sequence[str], sizes: Sequence[int], meter: str
) -> list[list[np.ndarray]]:
    """Node (the calls last) → size → amounts of a step or a batch, a block each."""
    found = []
    for name in (*names, CALL):
        row = []
        for size in sizes:
            case = case_of(label, name, size)
            values = timing.blocks(windows, case, meter)
            if values is None:
                raise MeterError(
                    f"the meter '{meter}' has no figure for {case}: {timing.missing_reason(windows, case, meter)}.",
                    todo="Use a meter that `adaptbench doctor` finds working.",
                )
            row.append(values.per_sample * size)
        found.append(row)
    return found


def _estimate(windows: pd.DataFrame, case: str, size: int) -> dict[str, Any]:
    values = timing.blocks(windows, case, timing.CLOCK)
    assert values is not None  # `_amounts` looked
    found = timing.per_sample(values)
    return {
        "measured_s": found.value * size,
        "measured_s_ci": None if found.ci is None else [end * size for end in found.ci],
    }


def _table(amounts: list[list[float]], sizes: Sequence[int], batches: Mapping[int, list[list[int]]]) -> Table:
    """Lines between the sizes that were timed. amounts: node (the calls last) → size → of a step or a batch."""
    every = np.arange(sizes[-1] + 1)
    steps = [[0.0, *np.interp(every[1:], sizes, row).tolist()] for row in amounts[:-1]]
    around = []
    for size, whole in zip(sizes, amounts[-1], strict=True):
        inside = [sum(steps[v][n] for v, n in enumerate(reached)) for reached in batches[size]]
        around.append(whole - float(np.mean(inside)))
    calls = np.maximum(np.interp(every[1:], sizes, around), -_MOST_SAVED * np.array(steps[0][1:]))
    return Table(steps, [0.0, *calls.tolist()])
