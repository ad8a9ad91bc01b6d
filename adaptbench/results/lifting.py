"""Documents of older schemas as those of the next: what they cannot hold is null, with its reason."""

from __future__ import annotations

from typing import Any

from adaptbench.results.identity import COMPACTED, window_modes

Record = dict[str, Any]

_TOLD_APART = (
    "nodes_s_per_sample", "policy_s_per_sample", "executor_s_per_sample", "executor_share", "saving_macs",
    "saving_time", "saving_energy", "realised_saving_time", "realised_saving_energy",
)  # fmt: skip


def with_the_harness(document: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 timed nets and harness as one, and divided by the MAC saving of other inputs in places."""
    cases = document.get("cases")
    if isinstance(cases, list):
        document["cases"] = [_without_savings(c) if isinstance(c, dict) else c for c in cases]
    return document


def _without_savings(record: Record) -> Record:
    reason = "recorded before nodes, policy and executor were timed apart: run the suite again"
    kept = {k: v for k, v in record.items() if k.removesuffix("_ci").removesuffix("_missing") not in _TOLD_APART}
    return {**kept, "n_timed": None, **dict.fromkeys(_TOLD_APART), **{f"{f}_missing": reason for f in _TOLD_APART}}


def with_modes(document: dict[str, Any]) -> dict[str, Any]:
    """Until schema 2 all that was timed was compacted; a baseline's windows say so too."""
    cases, windows = document.get("cases"), document.get("windows")
    if isinstance(cases, list):
        document["cases"] = [
            case | {"mode": None if case.get("batch_size") is None else COMPACTED} if isinstance(case, dict) else case
            for case in cases
        ]
        if isinstance(windows, list):
            modes = window_modes(case for case in document["cases"] if isinstance(case, dict) and case.get("mode"))
            document["windows"] = [
                row | {"mode": modes[row["case"]]} if isinstance(row, dict) and row.get("case") in modes else row
                for row in windows
            ]
    return document
