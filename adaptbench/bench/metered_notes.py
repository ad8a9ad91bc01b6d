"""What a run says of black boxes that tell no MACs: what a meter read in their place, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.report import words
from adaptbench.results.schema import METERED_COLUMNS, Record

_WRITERS = {"seconds": words.seconds, "joules": words.joules}


def metered_notes(cases: Sequence[Record], models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence a model on its clean cost, and one an attack or control on what it takes back."""
    notes = []
    for name, model in models.items():
        unit = str(model.get("cost_unit"))
        if unit not in METERED_COLUMNS:
            continue
        own, write = METERED_COLUMNS[unit], _WRITERS[unit]
        for case in cases:
            if case["model"] != name or case.get(own) is None:
                continue
            noise = "" if case.get(f"{own}_noise") is None else f", standard error {write(case[f'{own}_noise'])}"
            seed = f", seed {case['seed']}" if case.get("seed") else ""
            told = f"{name}, {case['condition']}{seed}: {write(case[own])} an input{noise}"
            notes.append(f"{told}; metered, the box tells no MACs" if case["kind"] == "clean" else told + _back(case))
    return notes


def _back(case: Record) -> str:
    """What is taken back of the head-room that is known, else of that up to the dearest input that was seen."""
    of_seen = "the head-room up to the dearest seen"
    for name, of in (("cost_recovery", "the head-room"), ("cost_recovery_seen", of_seen)):
        if case.get(name) is not None:
            return f"; takes back {words.percent(case[name])} {words.interval(case.get(f'{name}_ci'))} of {of}"
    return ""
