"""Measured speed-up beside the MAC speed-up: chosen points and the static reference in interleaved windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from adaptbench.adaptive import DecisionGraph, Split
from adaptbench.bench.timed import make_arm, make_static_arm
from adaptbench.meters.clock import ClockMeter, synchroniser
from adaptbench.meters.windows import measure
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
        One record a point and batch size: measured speed-up with its interval over blocks, MAC speed-up on the same
        inputs, microseconds a sample.
    """
    n = min(spec.samples, len(split))
    x, seeds = split.images(0, n).to(device), split.ids[:n]
    records: list[dict[str, Any]] = []
    for size in spec.batch_sizes:
        arms, macs = [make_static_arm(STATIC, model, x, size)], {}
        for name, member in points.items():
            twin = _under(model, member)
            arm, mean_macs = make_arm(name, twin, x, seeds, size)
            arms.append(arm)
            macs[name] = mean_macs
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
        seconds: dict[str, list[float]] = {}
        for row in rows:
            if row.duration_s is not None:
                seconds.setdefault(row.case, []).append(row.duration_s / row.n_samples)
        for name in points:
            ratio = paired_ratio(seconds[name], seconds[STATIC], seed=seed)
            records.append(
                {
                    "point": name,
                    "batch_size": size,
                    "speedup": ratio.value,
                    "speedup_ci": ratio.ci,
                    "macs_speedup": model.macs_full / macs[name],
                    "us_per_sample": 1e6 * float(np.median(seconds[name])),
                    "us_per_sample_static": 1e6 * float(np.median(seconds[STATIC])),
                    "blocks": ratio.n,
                }
            )
    return records


def _under(model: DecisionGraph, member: Member) -> DecisionGraph:
    """The same weights under a member's policy."""
    from adaptbench.bench.plan import with_policy

    twin = with_policy(model, member.policy)
    with torch.no_grad():
        twin.policy.bind(twin.structure)
    return twin
