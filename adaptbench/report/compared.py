"""One figure in two runs: its values over the same inputs, their difference and interval, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adaptbench.report import words
from adaptbench.report.pairing import Common, Pair
from adaptbench.report.tables import Column, Row, TableCell, scaled_interval
from adaptbench.report.view import Record, missing
from adaptbench.results import statistics
from adaptbench.results.statistics import Estimate, Floats
from adaptbench.results.verdicts import one_sided_p, standard_error

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Metric:
    """A field to compare, and how it is written."""

    field: str
    title: str
    write: Callable[[float | None], str]
    change: Callable[[float | None], str]
    ratio: bool = False
    """Whether the difference is told as a ratio rather than in the metric's own unit."""
    worse: int = 1
    """The sign of a change for the worse."""


COUNTED = (
    Metric("macs_mean", "MACs a sample", words.macs, words.macs, ratio=True),
    Metric("accuracy", "accuracy", words.percent, words.points, worse=-1),
    Metric("recovery", "taken back", words.percent, words.points),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One counted figure of one case, over the inputs that both runs have.

    Args:
        pair: the case. metric: which figure. common: the inputs.
        values: (A's, B's) over the common inputs; None where there is none.
        change: B ÷ A − 1 of a cost, B − A of a share; None where there is none.
        estimate: the change with its paired 95 % interval; None where nothing differs or too few inputs are there.
        beyond: True where the change stands after correction for the number of changes looked at.
        obstacle: why there is no figure to compare.
    """

    pair: Pair
    metric: Metric
    common: Common
    values: tuple[float, float] | None
    change: float | None
    estimate: Estimate | None = None
    beyond: bool = False
    obstacle: str = ""

    @property
    def size(self) -> float:
        """The change's size, for sorting."""
        return abs(self.change or 0.0)

    @property
    def worse(self) -> bool:
        """Whether the change is one for the worse: dearer, less accurate, more taken back."""
        return (self.change or 0.0) * self.metric.worse > 0

    @property
    def text(self) -> str:
        """``MACs a sample of SkipNet, ILFO 8/255: +48.2 % [47.0, 49.9]``."""
        bounds = words.interval(None if self.estimate is None else self.estimate.ci, 2)
        return f"{self.metric.title} of {self.pair.name}: {_change(self).text} {bounds}".rstrip()


def find(pair: Pair, common: Common) -> list[Finding]:
    """The counted figures of a case, each over the common inputs."""
    findings = []
    for metric in COUNTED:
        if metric.field == "recovery" and pair.old["kind"] not in ("control", "attack"):
            continue
        findings.append(_find(pair, metric, common))
    return findings


def _find(pair: Pair, metric: Metric, common: Common) -> Finding:
    if common.obstacle:
        return Finding(pair, metric, common, None, None, obstacle=common.obstacle)
    silent = next((side for side in (pair.old, pair.new) if side.get("macs_mean") is None), None)
    if silent is not None and metric.field != "accuracy":
        return Finding(pair, metric, common, None, None, obstacle=missing(silent, metric.field))
    columns = _columns(metric, common)
    if columns is None:
        return Finding(pair, metric, common, None, None, obstacle="the clean cases do not have these inputs")
    of = _statistics(metric, pair)
    means = columns.mean(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (float(of[0](means)[0]), float(of[1](means)[0]))
        change = values[1] / values[0] - 1 if metric.ratio else values[1] - values[0]
    if not np.isfinite([*values, change]).all():
        return Finding(pair, metric, common, None, None, obstacle="there is nothing to take back, or no cost")
    estimate = None
    if len(columns) > 1 and not _equal(columns):
        estimate = _estimate(metric, columns, of)
    return Finding(pair, metric, common, values, change, estimate)


def beyond_noise(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, those marked whose change is no chance among so many; the largest first.

    Holm's correction over the figures that changed at all, p from the standard error that the 95 % interval shows: of
    twenty pairs of runs of one truth, one names a change that is none.
    """
    changed = [place for place, finding in enumerate(findings) if finding.estimate is not None]
    adjusted = statistics.holm([two_sided(findings[p].estimate, ratio=findings[p].metric.ratio) for p in changed])
    beyond = {place for place, p in zip(changed, adjusted, strict=True) if p < 1 - LEVEL}
    marked = [replace(finding, beyond=place in beyond) for place, finding in enumerate(findings)]
    return sorted(marked, key=lambda finding: (not finding.beyond, -finding.size))


def two_sided(change: Estimate | None, *, ratio: bool) -> float:
    """Level at which data refute that nothing changed, normal approximation (of ratios, on the log scale).

    1 where there is no interval.
    """
    if change is None or change.ci is None:
        return 1.0
    if ratio:
        change = change.map(lambda ratio: float(np.log1p(max(ratio, -1 + 1e-12))))
    error = standard_error(change.low, change.high, change.level)
    return min(1.0, 2 * one_sided_p(abs(change.value), error, 0.0))


def _columns(metric: Metric, common: Common) -> Floats | None:
    """(n, 2) or (n, 4): A's and B's values an input, with those of the clean cases where the figure needs them."""
    name = "correct" if metric.field == "accuracy" else "macs"
    parts = [common.frame[f"{name}_{side}"] for side in "ab"]
    if metric.field == "recovery":
        if common.clean is None:
            return None
        parts += [common.clean[f"{name}_{side}"] for side in "ab"]
    return np.column_stack([part.to_numpy(dtype=np.float64) for part in parts])


def _equal(columns: Floats) -> bool:
    pairs = columns.reshape(len(columns), -1, 2)
    return bool((pairs[:, :, 0] == pairs[:, :, 1]).all())


def _statistics(metric: Metric, pair: Pair) -> list[Callable[[Floats], Floats]]:
    """What A's and B's figure are of the column means."""
    if metric.field != "recovery":
        return [lambda m: m[:, 0], lambda m: m[:, 1]]

    def recovery(side: int, record: Record) -> Callable[[Floats], Floats]:
        top = float(record.get("macs_max") or "nan")
        return lambda m: np.asarray((m[:, side] - m[:, side + 2]) / (top - m[:, side + 2]))

    return [recovery(0, pair.old), recovery(1, pair.new)]


def _estimate(metric: Metric, columns: Floats, of: Sequence[Callable[[Floats], Floats]]) -> Estimate:
    def change(m: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            before, after = of[0](m), of[1](m)
            return after / before - 1 if metric.ratio else after - before

    return statistics.of_means(columns, change, LEVEL)


def columns(*, inputs: bool = False) -> list[Column]:
    """The columns of a table of compared figures."""
    return [
        Column("case", numeric=False),
        Column("metric", numeric=False),
        *([Column("inputs")] if inputs else []),
        Column("A"),
        Column("B"),
        Column("difference"),
        Column("95 % interval"),
        Column("remark", numeric=False),
    ]


def counted_row(finding: Finding) -> Row:
    """The row of a counted figure."""
    pair, metric = finding.pair, finding.metric
    inputs = TableCell(finding.common.text, value=len(finding.common))
    if finding.values is None or finding.change is None:
        none = TableCell(words.DASH, reason=finding.obstacle)
        change = TableCell(words.DASH, reason=f"not comparable: {finding.obstacle}")
        head = (TableCell(pair.name, value=pair.evaluation), TableCell(metric.title), inputs)
        return Row((*head, none, none, change, TableCell(words.DASH), TableCell("")), "silent")
    sides = [
        TableCell(metric.write(value), value=value, under=under(record, metric) if finding.common.whole else "")
        for value, record in zip(finding.values, (pair.old, pair.new), strict=True)
    ]
    same = pair.old.get("inputs_sha256") and pair.old.get("inputs_sha256") == pair.new.get("inputs_sha256")
    remark = "same input bytes" if same else "other input bytes: compare by interval"
    if finding.common.obstacle == "" and not finding.common.whole:
        remark = "over the inputs that both have"
    if finding.estimate is not None:
        remark += "; beyond noise" if finding.beyond else "; within noise"
    span = TableCell(words.interval(None if finding.estimate is None else finding.estimate.ci, 2) or words.DASH)
    cells = (
        TableCell(pair.name, value=pair.evaluation),
        TableCell(metric.title),
        inputs,
        *sides,
        _change(finding),
        span,
        TableCell(remark),
    )
    return Row(cells, "changed" if finding.change else "")


def _change(finding: Finding) -> TableCell:
    change, metric = finding.change, finding.metric
    if not change:
        return TableCell("none", value=0.0)
    text = words.percent(change, 2, signed=True) if metric.ratio else metric.change(change)
    return TableCell(text, value=change, kind=tone(beyond=finding.beyond, worse=finding.worse))


def tone(*, beyond: bool, worse: bool) -> str:
    """``bad`` or ``good`` for a change beyond noise; nothing for any other."""
    return ("bad" if worse else "good") if beyond else ""


def under(record: Record, metric: Metric) -> str:
    """The interval of a figure, for the quieter line."""
    bounds = record.get(f"{metric.field}_ci")
    return scaled_interval(bounds, metric.write) if metric.ratio else words.interval(bounds)
