"""One figure in two runs: the row, its difference and interval, and why they cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptbench.report import words
from adaptbench.report.tables import Cell, Column, Row, scaled_interval
from adaptbench.report.view import Record, View, missing
from adaptbench.results import statistics, timing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Metric:
    """A field to compare, and how it is written."""

    field: str
    title: str
    write: Callable[[float | None], str]
    change: Callable[[float | None], str]
    ratio: bool = False
    """Whether the difference is told as a ratio rather than in the metric's own unit."""


COUNTED = (
    Metric("macs_mean", "MACs/sample", words.macs, words.macs, ratio=True),
    Metric("accuracy", "accuracy", words.percent, words.points),
    Metric("recovery", "recovery", words.percent, words.points),
)
SENSED = (
    Metric("energy_j_per_sample", "energy/sample", words.joules, words.joules, ratio=True),
    Metric("latency_s_per_sample", "latency/sample", words.seconds, words.seconds, ratio=True),
)


def columns() -> list[Column]:
    """The columns of a table of compared figures."""
    return [
        Column("case", numeric=False),
        Column("metric", numeric=False),
        Column("A"),
        Column("B"),
        Column("difference"),
        Column("95 % interval"),
        Column("remark", numeric=False),
    ]


def sensor_obstacle(old: Record, new: Record, metric: Metric) -> str:
    """Why two energies cannot be compared, their origins differing; empty if they can."""
    if metric.field != "energy_j_per_sample":
        return ""
    origins = [record.get("energy_provenance") for record in (old, new)]
    meters = [record.get("energy_meter") for record in (old, new)]
    for sides in (origins, meters):
        if None not in sides and sides[0] != sides[1]:
            return f"{sides[0]} against {sides[1]}"
    return ""


def row(
    case: str, old: Record, new: Record, metric: Metric, bounds: Sequence[float] | None, remark: str, obstacle: str = ""
) -> Row:
    """One figure of one case.

    Args:
        case: case or evaluation id.
        old: A's record.
        new: B's record.
        metric: which figure.
        bounds: the interval of the difference, if there is one.
        remark: what the reader should bear in mind.
        obstacle: why the two cannot be compared; then no difference is shown.
    """
    sides = [_side(record, metric) for record in (old, new)]
    before, after = old.get(metric.field), new.get(metric.field)
    kind, span = "", Cell(words.DASH)
    if obstacle:
        kind, change = "silent", Cell(words.DASH, reason=f"not comparable: {obstacle}")
    elif not (words.exists(before) and words.exists(after)):
        change = Cell(words.DASH, reason="one side has no figure")
    else:
        kind = "changed" if before != after else ""
        change = _change(before, after, metric)
        span = Cell(words.interval(bounds, 2) or words.DASH)
    return Row((Cell(case), Cell(metric.title), *sides, change, span, Cell(remark)), kind)


def _change(before: float, after: float, metric: Metric) -> Cell:
    if before == after:
        return Cell("none", value=0.0)
    if metric.ratio and before:
        return Cell(words.percent(after / before - 1, 2, signed=True), value=after / before - 1)
    return Cell(metric.change(after - before), value=after - before)


def _side(record: Record, metric: Metric) -> Cell:
    value = record.get(metric.field)
    if not words.exists(value):
        return Cell(words.DASH, reason=missing(record, metric.field))
    bounds = record.get(f"{metric.field}_ci")
    under = scaled_interval(bounds, metric.write) if metric.ratio else words.interval(bounds)
    return Cell(metric.write(value), value=value, under=under)


class Samples:
    """Per-sample figures of both runs, paired by sample id."""

    def __init__(self, a: View, b: View) -> None:
        self._frames = [view.run.samples() for view in (a, b)]

    def interval(self, evaluation: str, metric: Metric) -> Sequence[float] | None:
        """The paired bootstrap interval over the same inputs: of B ÷ A − 1, or of B − A where no ratio is shown."""
        column = {"macs_mean": "macs", "accuracy": "correct"}.get(metric.field)
        if column is None:
            return None
        sides = [
            frame[frame["case"] == evaluation].set_index("sample_id")[column].astype(float) for frame in self._frames
        ]
        pairs = sides[0].to_frame("a").join(sides[1].rename("b"), how="inner")
        if len(pairs) < 2 or pairs["a"].equals(pairs["b"]):
            return None
        if metric.ratio:
            return statistics.ratio_of_means(pairs["a"], pairs["b"]).map(lambda ratio: ratio - 1).ci
        return statistics.difference_of_means(pairs["a"], pairs["b"]).ci


def window_interval(
    windows: Sequence[pd.DataFrame], case: str, record: Record, metric: Metric
) -> Sequence[float] | None:
    """The exact Mann-Whitney interval of B ÷ A − 1 over the blocks of either run; None where they are too few."""
    meter = record.get("energy_meter") if metric.field == "energy_j_per_sample" else timing.CLOCK
    sides = [timing.blocks(frame, case, str(meter)) for frame in windows]
    if sides[0] is None or sides[1] is None:
        return None
    ratio = statistics.unpaired_ratio(sides[0].per_sample, sides[1].per_sample)
    return ratio.map(lambda value: value - 1).ci
