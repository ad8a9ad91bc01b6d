"""What each node adds in seconds or joules, measured: for policies fitted on what a device really pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adaptbench.adaptive import DecisionGraph
from adaptbench.adaptive.model import frozen
from adaptbench.errors import MeterError
from adaptbench.meters.base import Meter
from adaptbench.meters.clock import synchroniser
from adaptbench.meters.reading import Work
from adaptbench.meters.windows import Arm, measure
from adaptbench.results import timing


def node_costs(
    model: DecisionGraph,
    x: Tensor,
    meter: Meter,
    *,
    blocks: int = 6,
    window_s: float = 0.1,
    warmup_s: float = 0.1,
    seed: int = 0,
) -> tuple[Tensor, str]:
    """Median cost a sample of each node's stage and head, a defence with the first, in interleaved windows.

    Bolukbasi et al. 2017 weigh wall-clock time; with MACs the best policies differ. Feed the result to
    ``log.priced(costs, unit)``. Policies' own cost and the hand-over are not in it.

    Args:
        model: any decision graph. x: (n, C, H, W) one batch on the device; its size is the one that is deployed.
        meter: "clock" for seconds, an energy meter for joules; open.
        blocks, window_s, warmup_s: of the protocol; the meter may ask for longer windows.

    Returns:
        (V,) float64 and the unit, "s" or "J".

    Raises:
        MeterError: the meter gave no reading for a node.
    """
    x, device = model.taken(x), x.device
    with frozen(model), torch.no_grad():
        features, _ = model._dense(x)
        seen = model.entered(x)
    arms = [
        Arm(
            name,
            _run(model, v, (seen if v else x) if source < 0 else features[source]),
            Work(model.node_macs[v] * len(x), 0, len(x)),
        )
        for v, (name, source) in enumerate(zip(model.node_names, model.reads, strict=True))
    ]
    rows = measure(
        arms,
        [meter],
        blocks=blocks,
        window_s=max(window_s, meter.min_window_s),
        warmup_s=warmup_s,
        rng=np.random.default_rng(seed),
        idle=False,
        synchronise=synchroniser(str(device)),
    )
    timed = meter.quantity == "time"
    windows = pd.DataFrame([asdict(row) for row in rows])
    medians = []
    for arm in arms:
        values = timing.blocks(windows, arm.case, meter.name, seconds=timed)
        if values is None:
            raise MeterError(
                f"the meter '{meter.name}' has no figure for node '{arm.case}': "
                f"{timing.missing_reason(windows, arm.case, meter.name)}.",
                todo="Use a meter that `adaptbench doctor` finds working, or fit on MACs.",
            )
        medians.append(float(np.median(values.per_sample)))
    return torch.tensor(medians, dtype=torch.float64), "s" if timed else "J"


def _run(model: DecisionGraph, node: int, given: Any) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            model.heads[node](model.stages[node](given if node else model.entered(given)))

    return run
