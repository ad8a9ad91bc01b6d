"""Recovery over the steps of a search, as the search itself told its best mean cost on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_AT = re.compile(r"macs_at_step_(\d+)$")


@dataclass(frozen=True, slots=True)
class StepPoint:
    """After so many steps an input.

    Args:
        steps: of the search, at most; who is at the ceiling takes no more of them.
        recovery: (best so far − clean) / (dearest path − clean), a ratio of means over the inputs.
        low, high: 95 %, over inputs; only of the last point, whose single rows were kept, else None.
    """

    steps: int
    recovery: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class StepCurve:
    """One attack on one model under one seed.

    Args:
        points: by rising steps; the last is what the attack returned. n: inputs.
    """

    model: str
    condition: str
    seed: int
    points: tuple[StepPoint, ...]
    n: int


def step_curves(manifest: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> list[StepCurve]:
    """A curve of each attack that told its cost at two steps or more, in the order of the records.

    Searches that return their last iterate whatever it costs, that keep answers, or that have members tell none.

    Args:
        manifest: of a run or of a kept one. cases: its records, as `metrics.summarise` made them of the rows.
    """
    curves, seen = [], set()
    for case in cases:
        told = _told(case.get("craft_details") or {})
        key = (case["model"], case["condition"], case.get("seed") or 0)
        if case["kind"] != "attack" or len(told) < 2 or key in seen or case.get("recovery") is None:
            continue
        seen.add(key)  # one a batch size
        clean, dearest = case.get("macs_clean_mean"), _dearest(manifest, case["model"])
        if clean is None or dearest is None or dearest <= clean:
            continue
        points = [StepPoint(steps, (macs - clean) / (dearest - clean)) for steps, macs in told[:-1]]
        low, high = case.get("recovery_ci") or (None, None)
        points.append(StepPoint(told[-1][0], float(case["recovery"]), low, high))
        curves.append(StepCurve(*key, tuple(points), int(case["n"])))
    return curves


def _told(details: Mapping[str, Any]) -> list[tuple[int, float]]:
    found = {int(match[1]): value for key, value in details.items() if (match := _AT.match(key))}
    return sorted((steps, float(macs)) for steps, macs in found.items() if macs is not None)


def _dearest(manifest: Mapping[str, Any], model: str) -> float | None:
    about = (manifest.get("models") or {}).get(model) or {}
    return None if about.get("max_macs") is None else float(about["max_macs"])
