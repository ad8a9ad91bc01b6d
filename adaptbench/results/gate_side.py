"""One side of a comparison: what was read of it, and whether its rows bear its records out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from adaptbench.results import timing
from adaptbench.results.baseline import Baseline, Outcomes
from adaptbench.results.identity import Key, case_key, clean_of, static_of
from adaptbench.results.schema import Record

if TYPE_CHECKING:
    import pandas as pd

EQUAL = 1e-9
"""Relative difference that adding up in another order explains."""


@dataclass(slots=True)
class Side:
    """A run or baseline, with what was read of it."""

    source: Baseline
    _outcomes: dict[str, Outcomes | None] = field(default_factory=dict)
    _windows: pd.DataFrame | None = None
    _blocks: dict[tuple[str, str], timing.Blocks | None] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)

    @property
    def by_key(self) -> dict[Key, Record]:
        """Records by the fields that tell cases apart."""
        return {case_key(record): record for record in self.source.cases}

    def outcomes(self, evaluation: str) -> Outcomes | None:
        """Outcomes of an evaluation, read once."""
        if evaluation not in self._outcomes:
            self._outcomes[evaluation] = self.source.samples(evaluation)
        return self._outcomes[evaluation]

    def clean(self, record: Record) -> Outcomes | None:
        """Outcomes of the clean case that a record is held against."""
        clean = clean_of(record, self.source.cases)
        return None if clean is None else self.outcomes(clean["evaluation"])

    def blocks(self, case: str, meter: str) -> timing.Blocks | None:
        """Block values of a meter, worked out once."""
        if (case, meter) not in self._blocks:
            self._blocks[case, meter] = timing.blocks(self.windows(), case, meter)
        return self._blocks[case, meter]

    def windows(self) -> pd.DataFrame:
        """All windows, read once."""
        if self._windows is None:
            self._windows = self.source.windows()
        return self._windows

    def sample_fault(self, record: Record, *, with_clean: bool = False) -> str:
        """Why the per-sample rows of a case do not bear its record out; empty where they do.

        Args:
            record: of the case. with_clean: look at its clean case, too.
        """
        name = record["evaluation"]
        if name not in self._faults:
            self._faults[name] = _sample_fault(record, self.outcomes(name))
        clean = clean_of(record, self.source.cases) if with_clean and not self._faults[name] else None
        if clean is not None and clean["evaluation"] != name:
            fault = self.sample_fault(clean)
            return f"its clean case: {fault}" if fault else ""
        return self._faults[name]

    def window_fault(self, record: Record, meter: str, *, with_static: bool = False) -> str:
        """Why the windows of a timed case cannot be what its figures were made of; empty where they can.

        Args:
            record: of the case. meter: whose windows. with_static: look at those of its static reference, too.
        """
        windows = self.windows()
        timed = windows[windows["case"] != "suite"]
        everywhere = set(timed["block"])
        cases = [record["case"]]
        cases += [static_of(record)] if with_static else []
        for case in cases:
            own = set(timed["block"][(timed["case"] == case) & (timed["meter"] == meter)])
            if own != everywhere or not own:
                return f"windows of {len(own)} of {len(everywhere)} blocks are there for {case}"
        return ""


def _sample_fault(record: Record, outcomes: Outcomes | None) -> str:
    if outcomes is None:
        return "there are no per-sample rows"
    if len(outcomes) != record["n"]:
        return f"{len(outcomes)} per-sample rows stand for n = {record['n']}"
    if len(np.unique(outcomes.sample_id)) != len(outcomes):
        return "a sample id stands twice"
    recomputed = {
        "macs_mean": float(outcomes.macs.mean()),
        "accuracy": float(outcomes.correct.mean()),
        "ties": float(np.count_nonzero(outcomes.tie)),
    }
    for name, value in recomputed.items():
        said = record.get(name)
        if said is not None and not math.isclose(said, value, rel_tol=EQUAL, abs_tol=1e-12):
            return f"the per-sample rows give {name} {value:g}, the record says {said:g}"
    return ""
