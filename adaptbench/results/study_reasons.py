"""Why a figure of a study does not exist: each that is null has its reason beside it, as figures of suites have."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from adaptbench.results.record_runs import lacks
from adaptbench.results.study_schema import parts

_APART = "recorded before net and harness were timed apart"
_STOPS = "one of the two curves does not reach down to this budget, or is of a policy that could not be fitted"
_UNFITTED = "it could be fitted on none of the re-splits"
_REASONS: dict[str, str] = {
    "n_training": "no policy is fitted on training samples",
    "area": "the curve does not reach down to the cost where all begin",
    "cost_at_drop": "the policy never reaches this accuracy",
    "non_inferior": "on calibration, no member's loss is below the margin with 95 % confidence",
    "oracle_share": "the oracle saves nothing",
    "accuracy": "cheaper than this policy's cheapest corner",
    "ours_ahead_points": _STOPS,
    "over_paper_points": _STOPS,
    "mixture": "outside of what the policy's corners cost",
    "own": "no budget is asked of this policy",
    "settling_samples": "the mean does not stay near the budget",
    "net_speedup": _APART,
    "us_per_sample_net": _APART,
    "us_per_sample_executor": _APART,
}


def _of_a_stream(graph: Mapping[str, Any]) -> str:
    told = {**(graph.get("not_run") or {}), **(graph.get("missing") or {})}
    return str(told.get("online") or "the study asks for no stream")


def _of_re_splits(row: Mapping[str, Any]) -> str:
    return str(row.get("missing") or _UNFITTED)


def _of_fidelity(row: Mapping[str, Any]) -> str:
    return _of_re_splits(row) if not row["count"] else "ε is 0"


_READ_OFF: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "online": _of_a_stream,
    "fidelity": _of_fidelity,
    **dict.fromkeys(("broken", "rate", "drop_points", "drop_points_5", "drop_points_95", "speedup"), _of_re_splits),
}
"""Reasons that the part itself tells."""


def with_reasons(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which each figure that is null, or holds a null, has its reason; those that have one keep it.

    Args:
        record: of a study, whole in its form.
    """
    whole = copy.deepcopy(dict(record))
    for part, fields, _ in parts(whole):
        for name, field in fields.items():
            if field.figure and lacks(part.get(name)) and not part.get(f"{name}_missing"):
                part.setdefault(name, None)
                read_off = _READ_OFF.get(name)
                part[f"{name}_missing"] = _REASONS[name] if read_off is None else read_off(part)
    return whole
