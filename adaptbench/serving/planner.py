"""The cheapest provision that holds the objective: batch size and replicas, looked for in the simulation.

After InferLine (Crankshaw et al., SoCC 2020), whose planner starts from a provision that holds the objective and makes
it cheaper step by step, each step judged by a simulated stream. Here a provision is one net's batch size and number of
replicas; its cost is the number of replicas, and the grid is small enough to be looked at whole, cheapest first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adaptbench.serving.arrivals import poisson
from adaptbench.serving.figures import over_repeats
from adaptbench.serving.lines import Batching, Mode
from adaptbench.serving.scenes import Timed, one_stream
from adaptbench.serving.schema import Serving
from adaptbench.serving.traffic import Draw


def plan_id(label: str, mode: str, load: float) -> str:
    """Of a planned provision."""
    return f"{label}/{mode}/load {load:g}"


def provisions(spec: Serving, timed: Timed, reference: Timed, mode: Mode) -> list[dict[str, Any]]:
    """A row a load: the cheapest batch size and number of replicas, and all that was looked at before it was found.

    Args:
        spec: of the file. timed: the net. reference: whose capacity loads are shares of: the first net's, so that all
            nets are planned for the same traffic. mode: of batching.
    """
    rows: list[dict[str, Any]] = []
    if spec.planner is None:
        return rows
    for load in spec.planner.loads:
        rate = load * reference.capacity_rps(spec.batching.max_batch)
        looked: list[dict[str, Any]] = []
        chosen = None
        for replicas in range(1, spec.planner.replicas + 1):
            tried = [_tried(spec, timed, rate, mode, size, replicas) for size in spec.planner.max_batch]
            looked += tried
            if held := [one for one in tried if one["holds"]]:
                chosen = min(held, key=lambda one: one["simulated_p99_s"])
                break
        rows.append(
            {
                "case": plan_id(timed.net.label, mode, load),
                "model": timed.net.label,
                "mode": mode,
                "load": load,
                "rate_rps": rate,
                "replicas": None if chosen is None else chosen["replicas"],
                "replicas_missing": None if chosen else f"none of up to {spec.planner.replicas} replicas holds it",
                "max_batch": None if chosen is None else chosen["max_batch"],
                "max_batch_missing": None if chosen else "no provision holds the objective",
                "simulated_p99_s": None if chosen is None else chosen["simulated_p99_s"],
                "simulated_p99_s_ci": None if chosen is None else chosen["simulated_p99_s_ci"],
                "simulated_p99_s_missing": None if chosen else "no provision holds the objective",
                "looked_at": looked,
            }
        )
    return rows


def _tried(spec: Serving, timed: Timed, rate: float, mode: Mode, size: int, replicas: int) -> dict[str, Any]:
    """One provision; it holds where the upper end of the interval of its p99 does."""
    found = []
    for repeat in range(spec.repeats):
        rng = np.random.default_rng([spec.seed, repeat])
        times = poisson(rate, spec.requests, rng)
        draw = Draw.of(spec.requests, len(timed.net.ways.ways), rng)
        traffic = draw.traffic(times, timed.net.ways.ways, [], 0.0)
        batching = Batching(size, spec.batching.wait_s, mode)
        stream = one_stream(timed, traffic, batching, replicas, repeat, spec.seed)
        found.append(stream.p(0.99, np.ones(len(traffic), bool)))
    value, ends = over_repeats(found)
    worst = ends[1] if ends else value
    return {
        "max_batch": size,
        "replicas": replicas,
        "simulated_p99_s": value,
        "simulated_p99_s_ci": ends,
        "holds": worst is not None and worst <= spec.objective_p99_s,
    }
