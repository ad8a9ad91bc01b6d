"""Measured speed-up beside the MAC speed-up: chosen points and the static reference in interleaved windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from adaptbench.adaptive import DecisionGraph, Split
from adaptbench.errors import MeterError
from adaptbench.experiment.timed import make_arm, make_static_arm
from adaptbench.meters.clock import ClockMeter, synchroniser
from adaptbench.meters.windows import measure
from adaptbench.results import timing
from adaptbench.results.statistics import paired_ratio
from adaptbench.study.members import Member
from adaptbench.study.schema import Clock

STATIC = "static"


def wall_clock(
    model: DecisionGraph, points: Mapping[str, Member], split: Split, spec: Clock, *, device: str, seed: int
) -> list[dict[str, Any]]:
    """Speed-up of each point over the static reference at each batch size.

    Args:
        model: the graph. points: name → member. split: its first `spec.samples` inputs are run.
        spec: batch sizes, blocks, window length.

    Returns:
        One record a point and batch size: speed-up of the net (nodes and policy) with its interval over blocks, MAC
        speed-up on the same inputs, microseconds a sample by part; and of whole windows, harness included.
    """
    n = min(spec.samples, len(split))
    x, seeds = split.images(0, n).to(device), split.ids[:n]
    records: list[dict[str, Any]] = []
    for size in spec.batch_sizes:
        arms, macs = [make_static_arm(STATIC, model, x, size)], {}
        for name, member in points.items():
            arm, inputs = make_arm(name, model.under(member.policy), x, seeds, size)
            arms.append(arm)
            macs[name] = inputs.macs_mean
        with ClockMeter().on(device) as clock:
            rows = measure(
                arms,
                [clock],
                blocks=spec.blocks,
                window_s=max(spec.window_s, clock.min_window_s),
                warmup_s=spec.warmup_s,
                rng=np.random.default_rng([seed, size]),
                idle=False,
                synchronise=synchroniser(device),
            )
        windows = pd.DataFrame([asdict(row) for row in rows])
        records += [_record(windows, name, size, model.macs_full / macs[name], seed) for name in points]
    return records


def _record(windows: pd.DataFrame, name: str, size: int, macs_speedup: float, seed: int) -> dict[str, Any]:
    own, static = timing.part_blocks(windows, name, *timing.NET), timing.part_blocks(windows, STATIC, "nodes")
    whole, static_whole = (timing.blocks(windows, case, timing.CLOCK) for case in (name, STATIC))
    executor = timing.part_blocks(windows, name, "executor")
    if own is None or static is None or whole is None or static_whole is None or executor is None:
        raise MeterError(f"{name}: the clock told no parts apart.", why="Nothing could be said of the net alone.")
    net, all_of_it = (paired_ratio(*pair, seed=seed) for pair in (own.paired(static), whole.paired(static_whole)))
    return {
        "point": name,
        "batch_size": size,
        "speedup": all_of_it.value,
        "speedup_ci": all_of_it.ci,
        "net_speedup": net.value,
        "net_speedup_ci": net.ci,
        "macs_speedup": macs_speedup,
        "us_per_sample": 1e6 * float(np.median(whole.per_sample)),
        "us_per_sample_net": 1e6 * float(np.median(own.per_sample)),
        "us_per_sample_executor": 1e6 * float(np.median(executor.per_sample)),
        "us_per_sample_static": 1e6 * float(np.median(static.per_sample)),
        "blocks": net.n,
    }
