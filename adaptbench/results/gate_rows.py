"""The rows of a gate report and the verdicts they may carry."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from adaptbench.results.gate_rules import EVERY, Rule
from adaptbench.results.schema import FIELDS
from adaptbench.results.statistics import Estimate, holm
from adaptbench.results.verdicts import (
    VERDICT_LEVEL,
    Verdict,
    minimum_detectable_effect,
    one_sided_p,
    standard_error,
    verdict,
)


class RowVerdict(StrEnum):
    """What the gate says of one case and metric."""

    PASS = "pass"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not comparable"
    MISSING = "missing"


FAILED = (RowVerdict.REGRESSION, RowVerdict.MISSING)
UNKNOWN = (RowVerdict.INCONCLUSIVE, RowVerdict.NOT_COMPARABLE)
COMPARED = (RowVerdict.PASS, RowVerdict.REGRESSION, RowVerdict.IMPROVEMENT, RowVerdict.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class GateRow:
    """One case under one rule.

    Args:
        case: case id; "*" where the row speaks of the whole run.
        metric: field name; "case" where the whole case is missing.
        rule: the rule in words.
        verdict: what the gate says.
        reason: one sentence.
        seen: the run's value, in the metric's unit; None where there is none.
        baseline: the baseline's value.
        change: relative change (a cost) or difference (a share), as the metric goes, not as it hurts.
        low: lower end of the change; None where it is not an estimate.
        high: upper end.
        margin: what the rule allows, in the unit of the change.
        detectable: smallest change that this comparison would have called, four times in five.
        p: one-sided p of a change beyond the margin, before Holm's correction; None where nothing is estimated.
        mode: how a timed case's batches were executed; None where nothing was timed.
    """

    case: str
    metric: str
    rule: str
    verdict: RowVerdict
    reason: str
    seen: float | None = None
    baseline: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    detectable: float | None = None
    p: float | None = None
    mode: str | None = None

    @property
    def relative(self) -> bool:
        """True where the change is a ratio, False where it is a difference of shares."""
        return self.metric in EVERY and EVERY[self.metric].ratio

    @property
    def unit(self) -> str:
        """Unit of ``seen`` and ``baseline``."""
        return FIELDS[self.metric].unit if self.metric in FIELDS else ""

    @property
    def can_fail(self) -> bool:
        """False where the rule allows more than the figure can lose: 97 % taken back, and ten points more allowed."""
        metric = EVERY.get(self.metric)
        if metric is None or metric.worst is None or self.margin is None or self.verdict is not RowVerdict.PASS:
            return True
        ceiling = self.rule.startswith("at most")
        if not ceiling and self.baseline is None:
            return True
        allowed = (
            self.margin if ceiling else (self.baseline or 0.0) + self.margin * (-1 if self.higher_is_better else 1)
        )
        return allowed > metric.worst if self.higher_is_better else allowed < metric.worst

    @property
    def higher_is_better(self) -> bool:
        """Which way the metric is better."""
        return self.metric in EVERY and EVERY[self.metric].higher_is_better

    def judged(self, new: RowVerdict, reason: str) -> GateRow:
        """The row with another verdict."""
        return replace(self, verdict=new, reason=reason)


def in_modes(rows: Iterable[GateRow], modes: Mapping[str, str | None]) -> list[GateRow]:
    """Rows that say their mode. modes: by case id."""
    return [replace(row, mode=modes.get(row.case)) for row in rows]


@dataclass(frozen=True, slots=True)
class GateReport:
    """The outcome of a comparison.

    Args:
        run: where the run lies.
        baseline: where the baseline lies; "" where none was given.
        rows: one a case and rule, plus one a missing case.
        notes: sentences about the whole.
    """

    run: str
    baseline: str
    rows: tuple[GateRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def comparisons(self) -> int:
        """Rows in which two figures, or a figure and a ceiling, really met, and could have failed."""
        return sum(row.verdict in COMPARED and row.can_fail for row in self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """Verdict → rows that could have failed."""
        tally = Counter(row.verdict.value for row in self.rows if row.can_fail)
        return {name.value: tally[name.value] for name in RowVerdict if tally[name.value]}

    @property
    def idle(self) -> tuple[GateRow, ...]:
        """Rows that pass whatever the run says."""
        return tuple(row for row in self.rows if not row.can_fail)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression or missing case, 3 inconclusive or not comparable. Nothing compared is never 0."""
        if any(row.verdict in FAILED for row in self.rows):
            return 1
        if self.comparisons == 0 or any(row.verdict in UNKNOWN for row in self.rows):
            return 3
        return 0


def amount(value: float, relative: bool) -> str:
    """A change in words: "+3.1 %" or "+0.5 points"."""
    return f"{100 * value:+.3g} {'%' if relative else 'points'}"


def judge(
    case: str,
    rule: Rule,
    seen: float,
    base: float,
    change: Estimate,
    margin: float,
    *,
    reason: str = "",
) -> GateRow:
    """A row from the interval of a change.

    Args:
        case: case id.
        rule: the rule it falls under.
        seen: the run's value.
        base: the baseline's value.
        change: ratio after/before where the metric is a cost, difference where it is a share.
        margin: relative or absolute margin, > 0.
        reason: a clause to add.
    """
    import numpy as np

    metric = EVERY[rule.metric]
    with np.errstate(divide="ignore"):
        value, low, high = (np.log(np.maximum([change.value, change.low, change.high], 0))
                            if metric.ratio else np.array([change.value, change.low, change.high]))  # fmt: skip
    bound = float(np.log1p(margin)) if metric.ratio else margin
    worse = (-float(high), -float(low)) if metric.higher_is_better else (float(low), float(high))
    outcome = verdict(*worse, bound)
    finite = bool(np.isfinite([low, high]).all())
    error = standard_error(float(low), float(high), change.level) if finite else None
    detectable = None if error is None else minimum_detectable_effect(error, bound)
    shown = change.map(lambda ratio: ratio - 1) if metric.ratio else change
    sentences = {
        Verdict.REGRESSION: "the whole interval lies beyond the margin",
        Verdict.IMPROVEMENT: "better by more than the margin",
        Verdict.NO_CHANGE: "the whole interval lies within the margin",
        Verdict.INCONCLUSIVE: "the interval reaches beyond the margin and into it: more inputs or blocks would tell"
        if finite
        else f"{change.n} blocks are too few for an interval",
    }
    names = {Verdict.NO_CHANGE: RowVerdict.PASS}
    return GateRow(
        case=case,
        metric=rule.metric,
        rule=rule.text,
        verdict=names.get(outcome) or RowVerdict(outcome.value),
        reason=f"{sentences[outcome]} ({change.method}, n = {change.n}{', ' + reason if reason else ''})",
        seen=seen,
        baseline=base,
        change=shown.value,
        low=shown.low if finite else None,
        high=shown.high if finite else None,
        margin=margin,
        detectable=None if detectable is None else (float(np.expm1(detectable)) if metric.ratio else detectable),
        p=None if error is None else one_sided_p(abs(float(value)), error, bound),
    )


def of_intervals(
    seen: float, kept: float, seen_ci: Sequence[float], kept_ci: Sequence[float], n: int, *, ratio: bool
) -> Estimate:
    """A change from two 95 % intervals, taken as independent and normal.

    Args:
        seen, kept: values. seen_ci, kept_ci: [low, high]. n: inputs or blocks.
        ratio: on the log scale; all of them are above zero then.
    """
    scale: Callable[[float], float] = math.log if ratio else float
    widths = [float(scale(high) - scale(low)) / 2 for low, high in (seen_ci, kept_ci)]
    half = math.hypot(*widths) * 1.6448536269514722 / 1.959963984540054  # 95 % → 90 %
    centre = float(scale(seen) - scale(kept))
    change = Estimate(centre, centre - half, centre + half, VERDICT_LEVEL, n, "from the two intervals")
    return change.map(math.exp) if ratio else change


FALSE_ALARMS = 0.05
"""Family-wise: the chance that a gate without any real change says regression, over all estimated comparisons."""


def corrected(rows: list[GateRow]) -> list[GateRow]:
    """Holm's correction over the estimated comparisons: an alarm must survive it, else nobody knows."""
    family = [index for index, row in enumerate(rows) if row.p is not None]
    adjusted = holm([rows[index].p or 0.0 for index in family])
    corrected = list(rows)
    for index, p in zip(family, adjusted, strict=True):
        row = rows[index]
        if row.verdict in (RowVerdict.REGRESSION, RowVerdict.IMPROVEMENT) and p > FALSE_ALARMS:
            corrected[index] = row.judged(
                RowVerdict.INCONCLUSIVE,
                f"{row.verdict} alone, but one such in {len(family)} comparisons is chance (Holm p = {p:.2g})",
            )
    return corrected
