"""Samples that differ at a tie between two runs on the same inputs, and how many of them chance explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptbench.results import statistics
from adaptbench.results.gate_rows import RowVerdict
from adaptbench.results.statistics import Floats

NAMED = 5
"""Sample ids named in a reason."""
TIE_SHARE = 0.01
"""Share of an evaluation's samples that may differ at a tie; one sample always may."""
TIE_SHIFT = 0.01
"""How far ties together may move a mean: relative for costs, a difference for shares; one sample always may."""
TIE_CHANCE = 0.05
"""Level at which ties that fell one way are no coin flips."""


@dataclass(frozen=True, slots=True)
class Ties:
    """Samples that differ on the same inputs, at a tie.

    Args:
        ids: (k,) sample ids. moved: (k,) by how much, in the unit of the per-sample value. of: samples compared.
        mean: of the baseline's per-sample values.
    """

    ids: NDArray[np.int64]
    moved: Floats
    of: int
    mean: float

    @property
    def text(self) -> str:
        """How many, which share, which."""
        share = f"{100 * len(self.ids) / self.of:.3g} %"
        return f"{len(self.ids)} of {self.of} samples ({share}) differ at a tie ({named_ids(self.ids)})"

    def beyond(self, ratio: bool) -> tuple[RowVerdict, str] | None:
        """Why ties do not explain what they are said to explain; None where they do.

        A tie may fall either way: that is a coin for one sample. Many of them, or all in one direction, are a change.
        """
        up, down = int(np.count_nonzero(self.moved > 0)), int(np.count_nonzero(self.moved < 0))
        chance = statistics.sign_test(up, down)
        if len(self.ids) > 1 and chance < TIE_CHANCE:
            sense = "up" if up > down else "down"
            return RowVerdict.REGRESSION, f"{max(up, down)} of them went {sense}, which is no chance (p = {chance:.2g})"
        if len(self.ids) > max(1.0, TIE_SHARE * self.of):
            return RowVerdict.INCONCLUSIVE, f"more than {100 * TIE_SHARE:g} % of the samples hang on ties"
        shift = abs(float(self.moved.sum())) / self.of
        if len(self.ids) > 1 and shift > TIE_SHIFT * (self.mean if ratio else 1.0):
            return RowVerdict.INCONCLUSIVE, "together they move the mean too far to be waived"
        return None


def named_ids(ids: NDArray[np.int64]) -> str:
    """The first few sample ids, for a reason."""
    shown = ", ".join(str(number) for number in ids[:NAMED])
    return f"id {shown}{' …' if len(ids) > NAMED else ''}"
