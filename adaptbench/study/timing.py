"""Measured speed-up beside the MAC speed-up: chosen points and the static reference in interleaved windows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from adaptbench.adaptive import DecisionGraph, Split
from adaptbench.errors import MeterError
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.measuring import Sessions, windows_of
from adaptbench.experiment.options import Options
from adaptbench.experiment.timed import make_arm, make_static_arm
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.windows import Arm
from adaptbench.results import timing
from adaptbench.results.identity import static_id, timed_id
from adaptbench.results.statistics import paired_ratio
from adaptbench.results.writer import RunWriter
from adaptbench.study.members import Member
from adaptbench.study.schema import Study


def wall_clock(
    spec: Study,
    graph: str,
    model: DecisionGraph,
    points: Mapping[str, Member],
    split: Split,
    *,
    key: str,
    writer: RunWriter,
    options: Options,
    failures: Failures,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Speed-up of each point over the static reference at each batch size.

    Args:
        spec: its `measure` and seed. graph: key of the graph, which is in the windows' cases.
        model: the net. points: name → member. split: its first `samples` inputs are run.
        key: of all that the graph's figures hang on. writer: where windows are kept.
        failures: a point that cannot be timed joins them.

    Returns:
        One record a point, batch size and mode: speed-up of the net (nodes and policy) with its interval over blocks,
        MAC speed-up on the same inputs, microseconds a sample by part; and of whole windows, harness included. And the
        cells that hold the windows.
    """
    if spec.measure is None:
        return [], []
    n = min(spec.measure.samples, len(split))
    x, seeds = split.inputs(0, n).to(options.device), split.ids[:n]
    rows: list[dict[str, Any]] = []
    cells: list[str] = []
    with ClockMeter().on(options.device) as clock:
        sessions = Sessions(writer, spec.measure, options.device, [clock], options.progress, failures)
        for size in spec.measure.batch_sizes:
            static, macs = static_id(graph, size), {}
            arms: dict[str, Arm] = {}
            with failures.instead(static):
                arms[static] = make_static_arm(static, model, x, size)
            for mode, (name, member) in product(spec.measure.modes, points.items()):
                case = timed_id(f"{graph}/{name}", size, mode)
                with failures.instead(case):
                    arms[case], inputs = make_arm(case, model.under(member.policy), x, seeds, size, mode)
                    macs[name, mode] = inputs.macs_mean
            session = sessions.run(size, arms, dict.fromkeys(arms, key))
            if session is None:
                continue
            cells.append(session)
            windows = windows_of(writer, [session])
            for (name, mode), mean in macs.items():
                case = timed_id(f"{graph}/{name}", size, mode)
                if case not in failures:
                    with failures.instead(case):
                        told = {"point": name, "batch_size": size, "mode": mode}
                        figures = _figures(windows, case, static, spec.seed)
                        rows.append(told | {"macs_speedup": model.macs_full / mean} | figures)
    return rows, cells


def _figures(windows: pd.DataFrame, case: str, static: str, seed: int) -> dict[str, Any]:
    own, reference = timing.part_blocks(windows, case, *timing.NET), timing.part_blocks(windows, static, "nodes")
    whole, static_whole = (timing.blocks(windows, name, timing.CLOCK) for name in (case, static))
    executor = timing.part_blocks(windows, case, "executor")
    if own is None or reference is None or whole is None or static_whole is None or executor is None:
        raise MeterError(f"{case}: the clock told no parts apart.", why="Nothing could be said of the net alone.")
    net, all_of_it = (paired_ratio(*pair, seed=seed) for pair in (own.paired(reference), whole.paired(static_whole)))
    return {
        "speedup": all_of_it.value,
        "speedup_ci": all_of_it.ci,
        "net_speedup": net.value,
        "net_speedup_ci": net.ci,
        "us_per_sample": 1e6 * float(np.median(whole.per_sample)),
        "us_per_sample_net": 1e6 * float(np.median(own.per_sample)),
        "us_per_sample_executor": 1e6 * float(np.median(executor.per_sample)),
        "us_per_sample_static": 1e6 * float(np.median(reference.per_sample)),
        "blocks": net.n,
    }
