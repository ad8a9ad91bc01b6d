"""Seconds and joules of one case in two runs: their ratio, its interval over the blocks, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adaptbench.report import compared, words
from adaptbench.report.compared import LEVEL, Metric
from adaptbench.report.modes import clause
from adaptbench.report.pairing import Pair
from adaptbench.report.tables import Row, TableCell
from adaptbench.report.view import Record, missing
from adaptbench.results import statistics, timing
from adaptbench.results.identity import mode_of
from adaptbench.results.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd

TIME = Metric("latency_s_per_sample", "time a sample", words.seconds, words.seconds, ratio=True)
ENERGY = Metric("energy_j_per_sample", "energy a sample", words.joules, words.joules, ratio=True)


@dataclass(frozen=True, slots=True)
class Sensed:
    """Seconds or joules of one timed case.

    Args:
        pair: the case. metric: which figure. kind: ``measured``, ``modelled`` or "" where neither run has a figure.
        change: B ÷ A − 1; None where there is none.
        estimate: of the change, by Mann and Whitney over the blocks of either run; None where they are too few.
        beyond: True where the change stands after correction for the number of changes looked at.
        obstacle: why the two cannot be compared; then there is no change.
    """

    pair: Pair
    metric: Metric
    kind: str
    change: float | None
    estimate: Estimate | None = None
    beyond: bool = False
    obstacle: str = ""

    @property
    def name(self) -> str:
        """The case in words, with its batch size."""
        return f"{self.pair.name}, batch {self.pair.old['batch_size']}{clause(mode_of(self.pair.old))}"

    @property
    def text(self) -> str:
        """``time a sample of SkipNet, clean, batch 8: +20.1 % [18.0, 22.3]``."""
        bounds = words.interval(None if self.estimate is None else self.estimate.ci, 2)
        return f"{self.metric.title} of {self.name}: {words.percent(self.change, 2, signed=True)} {bounds}".rstrip()


def find(pair: Pair, windows: Sequence[pd.DataFrame], obstacle: str) -> list[Sensed]:
    """The seconds and joules of a timed case.

    Args:
        pair: the case. windows: of A and of B.
        obstacle: why sensors of the two runs cannot be compared; empty if they can.
    """
    if not (pair.old.get("batch_size") and pair.new.get("batch_size")):
        return []
    return [_find(pair, metric, windows, obstacle) for metric in (TIME, ENERGY)]


def _find(pair: Pair, metric: Metric, windows: Sequence[pd.DataFrame], obstacle: str) -> Sensed:
    kinds = [words.provenance_kind(record.get("energy_provenance")) for record in (pair.new, pair.old)]
    kind = "measured" if metric is TIME else next(filter(None, kinds), "")
    if why := obstacle or sensor_obstacle(pair.old, pair.new, metric):
        return Sensed(pair, metric, kind, None, obstacle=why)
    before, after = pair.old.get(metric.field), pair.new.get(metric.field)
    if not (words.exists(before) and words.exists(after)) or not before:
        return Sensed(pair, metric, kind, None)
    return Sensed(pair, metric, kind, after / before - 1, window_estimate(windows, pair, metric))


def beyond_noise(found: Sequence[Sensed]) -> list[Sensed]:
    """The same, those marked whose change is no chance among so many (Holm), the largest first."""
    changed = [place for place, sensed in enumerate(found) if sensed.change and sensed.estimate is not None]
    adjusted = statistics.holm([compared.two_sided(found[place].estimate, ratio=True) for place in changed])
    beyond = {place for place, p in zip(changed, adjusted, strict=True) if p < 1 - LEVEL}
    marked = [replace(sensed, beyond=place in beyond) for place, sensed in enumerate(found)]
    return sorted(marked, key=lambda sensed: (not sensed.beyond, -abs(sensed.change or 0.0)))


def sensor_obstacle(old: Record, new: Record, metric: Metric) -> str:
    """Why two seconds or joules cannot be compared, their origins or inputs differing; empty if they can."""
    timed = [record.get("n_timed") for record in (old, new)]
    if timed[0] != timed[1]:
        return f"{timed[0]} and {timed[1]} inputs were timed"
    if old.get("n") != new.get("n") and timed[0] is None:
        return f"the timed inputs may be others: {old.get('n')} and {new.get('n')} were evaluated"
    if metric.field != ENERGY.field:
        return ""
    origins = [record.get("energy_provenance") for record in (old, new)]
    meters = [record.get("energy_meter") for record in (old, new)]
    for sides in (origins, meters):
        if None not in sides and sides[0] != sides[1]:
            return f"{sides[0]} against {sides[1]}"
    return ""


def row(sensed: Sensed) -> Row:
    """The row of seconds or joules."""
    pair, metric, change = sensed.pair, sensed.metric, sensed.change
    sides = [_side(record, metric) for record in (pair.old, pair.new)]
    kind, span, remark = "", TableCell(words.DASH), ""
    if sensed.obstacle:
        shown = TableCell(words.DASH, reason=f"not comparable: {sensed.obstacle}")
        kind, remark = "silent", "not comparable"
    elif change is None:
        shown = TableCell(words.DASH, reason="one side has no figure")
    elif not change:
        shown = TableCell("none", value=0.0)
    else:
        tone = compared.tone(beyond=sensed.beyond, worse=change > 0)
        kind, shown = "changed", TableCell(words.percent(change, 2, signed=True), value=change, kind=tone)
        span = TableCell(words.interval(None if sensed.estimate is None else sensed.estimate.ci, 2) or words.DASH)
        remark = "too few blocks to tell" if sensed.estimate is None else f"{_where(sensed)} noise"
    head = (TableCell(sensed.name, value=pair.title), TableCell(metric.title))
    return Row((*head, *sides, shown, span, TableCell(remark)), kind)


def _where(sensed: Sensed) -> str:
    return "beyond" if sensed.beyond else "within"


def _side(record: Record, metric: Metric) -> TableCell:
    value = record.get(metric.field)
    if not words.exists(value):
        return TableCell(words.DASH, reason=missing(record, metric.field))
    return TableCell(metric.write(value), value=value, under=compared.under(record, metric))


def window_estimate(windows: Sequence[pd.DataFrame], pair: Pair, metric: Metric) -> Estimate | None:
    """B ÷ A − 1 with the exact Mann-Whitney interval over the blocks of either run; None where they are too few."""
    sides = []
    for frame, record in zip(windows, (pair.old, pair.new), strict=True):
        meter = record.get("energy_meter") if metric.field == ENERGY.field else timing.CLOCK
        sides.append(timing.blocks(frame, str(record["case"]), str(meter)))
    if sides[0] is None or sides[1] is None:
        return None
    ratio = statistics.unpaired_ratio(sides[0].per_sample, sides[1].per_sample)
    return None if ratio.ci is None else ratio.map(lambda value: value - 1)
