"""How one figure of one case is compared: exactly, by a paired bootstrap over inputs, or by intervals of windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptbench.results import devices, statistics, timing
from adaptbench.results.energy import DECLARED
from adaptbench.results.gate_rows import GateRow, RowVerdict, amount, judge, of_intervals
from adaptbench.results.gate_rules import METRICS, OF_ANSWERS, Rule, Source
from adaptbench.results.gate_side import EQUAL, Side
from adaptbench.results.gate_ties import TIE_SHIFT, Ties, named_ids
from adaptbench.results.identity import static_of
from adaptbench.results.schema import Record
from adaptbench.results.statistics import Estimate, Floats
from adaptbench.results.verdicts import VERDICT_LEVEL

_OF_THE_MODEL = ("macs_min", "macs_max", "macs_full")

# means (B, 4) of correct, macs, clean correct, clean macs; max MACs → (B,)
_VALUES: dict[str, Callable[[Floats, float], Floats]] = {
    "accuracy": lambda m, top: m[:, 0],
    "accuracy_drop": lambda m, top: m[:, 2] - m[:, 0],
    "macs_mean": lambda m, top: m[:, 1],
    "increase": lambda m, top: m[:, 1] / m[:, 3] - 1,
    "recovery": lambda m, top: (m[:, 1] - m[:, 3]) / (top - m[:, 3]),
    "efficacy_step": lambda m, top: 1 - m[:, 1] / top,
}
AGAINST_CLEAN = ("accuracy_drop", "miou_drop", "increase", "recovery", "recovery_per_input_mean")
"""Figures that the rows of the clean case go into."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """One case of the run and of the baseline, under one rule."""

    rule: Rule
    run: Side
    base: Side
    seen: Record
    kept: Record

    @property
    def values(self) -> tuple[float, float]:
        """(run's, baseline's) value."""
        return float(self.seen[self.rule.metric]), float(self.kept[self.rule.metric])

    def row(self, verdict: RowVerdict, reason: str) -> GateRow:
        """A row without an interval."""
        seen, kept = self.values
        ratio = METRICS[self.rule.metric].ratio
        change = (seen / kept - 1 if kept else None) if ratio else seen - kept
        margin = self.rule.margin or None
        return GateRow(
            self.seen["case"], self.rule.metric, self.rule.text, verdict, reason, seen, kept, change, margin=margin
        )

    @property
    def same_inputs(self) -> bool:
        """True where both sides evaluated the same bytes."""
        return bool(self.seen.get("inputs_sha256")) and self.seen.get("inputs_sha256") == self.kept.get("inputs_sha256")


def compare_figure(meeting: Meeting) -> GateRow:
    """Compare one figure of one case that both sides have."""
    source = METRICS[meeting.rule.metric].source
    if source is Source.SENSOR:
        return _sensor(meeting)
    if source is Source.TIMED:
        return _timed(meeting)
    if source is Source.METERED:
        return _metered(meeting)
    if fault := _row_fault(meeting):
        return meeting.row(RowVerdict.NOT_COMPARABLE, fault)
    if meeting.same_inputs or meeting.rule.metric in _OF_THE_MODEL:
        return _exact(meeting) if meeting.rule.kind == "exact" else _within(meeting)
    if meeting.seen["kind"] not in ("control", "attack"):
        return meeting.row(
            RowVerdict.NOT_COMPARABLE, "the two sides did not evaluate the same input bytes (inputs_sha256 differs)"
        )
    return _anew(meeting)


def _row_fault(meeting: Meeting) -> str:
    """Why the per-sample rows of the two sides cannot be paired; empty where they can."""
    if meeting.rule.metric in _OF_THE_MODEL:
        return ""
    with_clean = meeting.rule.metric in AGAINST_CLEAN
    for name, side, record in (("", meeting.run, meeting.seen), ("the baseline: ", meeting.base, meeting.kept)):
        if fault := side.sample_fault(record, with_clean=with_clean):
            return f"{name}{fault}"
    pairs = [(meeting.run.outcomes(meeting.seen["evaluation"]), meeting.base.outcomes(meeting.kept["evaluation"]))]
    if with_clean:
        pairs.append((meeting.run.clean(meeting.seen), meeting.base.clean(meeting.kept)))
    for own, other in pairs:
        if own is None or other is None or not np.array_equal(own.sample_id, other.sample_id):
            return "the two sides hold other samples: their ids differ"
    return ""


def _exact(meeting: Meeting) -> GateRow:
    metric = meeting.rule.metric
    differing, tied = _differing(meeting)
    seen, kept = meeting.values
    if len(differing):
        worse = (seen < kept) if METRICS[metric].higher_is_better else (seen > kept)
        sense = "equal on average" if seen == kept else "for the worse" if worse else "for the better"
        todo = "" if worse else "; if it is meant, write a new baseline"
        return meeting.row(
            RowVerdict.REGRESSION,
            f"{len(differing)} samples changed on the same inputs ({named_ids(differing)}), {sense}{todo}",
        )
    named = "; ".join(ties.text for ties in tied)
    costs = metric not in OF_ANSWERS
    for ties in tied:
        if beyond := ties.beyond(ratio=costs):
            return meeting.row(beyond[0], f"{ties.text}: {beyond[1]}")
    if abs(seen - kept) <= EQUAL * max(abs(seen), abs(kept)):
        return meeting.row(RowVerdict.PASS, f"equal on the same inputs{'; ' if named else ''}{named}")
    if not tied:
        return meeting.row(RowVerdict.REGRESSION, "the figure changed although it must not")
    if METRICS[metric].source is Source.RECORD and abs(seen - kept) > TIE_SHIFT * max(abs(kept), EQUAL):
        return meeting.row(RowVerdict.INCONCLUSIVE, f"only {named}: too few to tell whether they moved the figure")
    return meeting.row(RowVerdict.PASS, f"only {named}")


def _differing(meeting: Meeting) -> tuple[NDArray[np.int64], list[Ties]]:
    """Sample ids that differ with no tie to explain it, and those at a tie, of the case and of its clean case."""
    metric = meeting.rule.metric
    pairs = [(meeting.run.outcomes(meeting.seen["evaluation"]), meeting.base.outcomes(meeting.kept["evaluation"]))]
    if metric in AGAINST_CLEAN:
        pairs.append((meeting.run.clean(meeting.seen), meeting.base.clean(meeting.kept)))
    differ: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    tied: list[Ties] = []
    for own, other in pairs:
        if metric in _OF_THE_MODEL or own is None or other is None:
            continue
        name = "correct" if metric.startswith("accuracy") else "macs"
        after, before = (np.asarray(getattr(side, name), dtype=np.float64) for side in (own, other))
        moved, at_tie = after - before, own.tie | other.tie
        differ.append(own.sample_id[(moved != 0) & ~at_tie])
        waived = (moved != 0) & at_tie
        if waived.any():
            tied.append(Ties(own.sample_id[waived], moved[waived], len(own), float(before.mean())))
    return np.unique(np.concatenate(differ)), tied


def _within(meeting: Meeting, margin: float | None = None, reason: str = "") -> GateRow:
    """By the paired bootstrap over inputs where the figure is a function of means, else as it stands."""
    allowed = meeting.rule.margin if margin is None else margin
    change = _paired_change(meeting)
    if change is None:
        return _by_value(meeting, allowed) if meeting.same_inputs else _by_record_intervals(meeting, allowed)
    estimate, discordant = change
    seen, kept = meeting.values
    clauses = ", ".join(part for part in (reason, discordant) if part)
    return judge(meeting.seen["case"], meeting.rule, seen, kept, estimate, allowed, reason=clauses)


def _anew(meeting: Meeting) -> GateRow:
    margin = meeting.rule.anew if meeting.rule.kind == "exact" else None
    why = "inputs crafted anew"
    if margin is not None:
        ratio = METRICS[meeting.rule.metric].ratio
        why += f", for which exact means within {amount(margin, ratio).removeprefix('+')}"
    return _within(meeting, margin, why)


def _paired_change(meeting: Meeting) -> tuple[Estimate, str] | None:
    """Ratio (costs) or difference (shares) of the two sides, inputs paired; and who lost and won."""
    metric = meeting.rule.metric
    own = meeting.run.outcomes(meeting.seen["evaluation"])
    other = meeting.base.outcomes(meeting.kept["evaluation"])
    if metric not in _VALUES or own is None or other is None:
        return None
    sides = [own, other]
    if metric in AGAINST_CLEAN:
        cleans = [meeting.run.clean(meeting.seen), meeting.base.clean(meeting.kept)]
    else:
        cleans = list(sides)
    present = [outcomes for outcomes in (*sides, *cleans) if outcomes is not None]
    shared = own.sample_id
    if len(present) < 4 or not all(np.isin(shared, outcomes.sample_id).all() for outcomes in present):
        return None
    picked = [outcomes.take(np.searchsorted(outcomes.sample_id, shared)) for outcomes in present]
    columns = np.column_stack(
        [
            column
            for outcomes in (picked[0], picked[2], picked[1], picked[3])
            for column in (outcomes.correct, outcomes.macs)
        ]
    ).astype(np.float64)
    value, tops = _VALUES[metric], [float(record.get("macs_max") or "nan") for record in (meeting.seen, meeting.kept)]

    def change(m: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            after, before = value(m[:, :4], tops[0]), value(m[:, 4:], tops[1])
            return after / before if METRICS[metric].ratio else after - before

    estimate = statistics.of_means(columns, change, VERDICT_LEVEL)
    if not math.isfinite(estimate.value):
        return None
    discordant = ""
    if metric == "accuracy":
        lost, won, p = statistics.mcnemar_exact(picked[1].correct, picked[0].correct)
        discordant = f"{lost} lost and {won} won, McNemar p = {p:.2g}"
    return estimate, discordant


def _by_value(meeting: Meeting, margin: float, reason: str = "deterministic: compared as they stand") -> GateRow:
    seen, kept = meeting.values
    metric = METRICS[meeting.rule.metric]
    if metric.ratio and kept <= 0:
        return meeting.row(RowVerdict.NOT_COMPARABLE, f"the baseline's {meeting.rule.metric} is {kept:g}")
    worse = (float(np.log(seen / kept)) if seen > 0 else -np.inf) if metric.ratio else seen - kept
    worse = -worse if metric.higher_is_better else worse
    bound = float(np.log1p(margin)) if metric.ratio else margin
    slack = EQUAL * max(1.0, bound)
    if worse > bound + slack:
        return meeting.row(RowVerdict.REGRESSION, f"beyond the margin ({reason})")
    if worse < -bound - slack:
        return meeting.row(RowVerdict.IMPROVEMENT, f"better by more than the margin ({reason})")
    return meeting.row(RowVerdict.PASS, f"within the margin ({reason})")


def _by_record_intervals(meeting: Meeting, margin: float | None = None) -> GateRow:
    """From the two 95 % intervals in the records, taken as independent and normal."""
    metric, (seen, kept) = meeting.rule.metric, meeting.values
    intervals = [record[f"{metric}_ci"] for record in (meeting.seen, meeting.kept) if record.get(f"{metric}_ci")]
    if len(intervals) < 2:
        return meeting.row(RowVerdict.INCONCLUSIVE, "there is no interval to compare by")
    ratio = METRICS[metric].ratio
    if ratio and min(seen, kept, intervals[0][0], intervals[1][0]) <= 0:
        return meeting.row(RowVerdict.NOT_COMPARABLE, "a ratio needs figures above zero")
    change = of_intervals(seen, kept, intervals[0], intervals[1], int(meeting.seen["n"]), ratio=ratio)
    allowed = meeting.rule.margin if margin is None else margin
    return judge(meeting.seen["case"], meeting.rule, seen, kept, change, allowed)


def _timed(meeting: Meeting) -> GateRow:
    """Realised savings: ratios of blocks within one session, compared by the intervals in the records."""
    meter = timing.CLOCK
    if meeting.rule.metric == "realised_saving_energy":
        if other := _other_source(meeting):
            return other
        meter = str(meeting.seen.get("energy_meter"))
        if str(meeting.seen.get("energy_provenance")).startswith("modelled"):
            return _modelled(meeting)
    if foreign := _foreign(meeting, meter, with_static=True):
        return foreign
    return _unless_flagged(meeting, meter, _by_record_intervals(meeting))


def _metered(meeting: Meeting) -> GateRow:
    """What a black box's meter read: on one machine, by the intervals over inputs in the records."""
    here, there = (side.source.manifest.get("device") or {} for side in (meeting.run, meeting.base))
    if why := devices.obstacle(here, there, ("here", "baseline")):
        return meeting.row(RowVerdict.NOT_COMPARABLE, why)
    return _by_record_intervals(meeting)


def _sensor(meeting: Meeting) -> GateRow:
    meter = timing.CLOCK
    if meeting.rule.metric != "latency_s_per_sample":
        if other := _other_source(meeting):
            return other
        meter = str(meeting.seen.get("energy_meter"))
        if str(meeting.seen.get("energy_provenance")).startswith("modelled"):
            return _modelled(meeting)
    if foreign := _foreign(meeting, meter):
        return foreign
    if meeting.rule.kind == "exact":
        return meeting.row(RowVerdict.NOT_COMPARABLE, "a sensor never shows the same twice: write {increase: 3 %}")
    blocks = meeting.run.blocks(meeting.seen["case"], meter), meeting.base.blocks(meeting.kept["case"], meter)
    if blocks[0] is None or blocks[1] is None:
        return meeting.row(RowVerdict.NOT_COMPARABLE, f"{meter} has no reading in the windows of one side")
    row = _against_anchor(meeting, meter, _by_blocks(meeting, blocks[0], blocks[1]), blocks[0], blocks[1])
    return _unless_flagged(meeting, meter, row)


def _other_source(meeting: Meeting) -> GateRow | None:
    """A row that says that the joules have another origin; None where they have the same."""
    origins = [
        f"{record.get('energy_meter')} ({record.get('energy_provenance') or 'of no known origin'})"
        for record in (meeting.seen, meeting.kept)
    ]
    if origins[0] == origins[1]:
        return None
    return meeting.row(RowVerdict.NOT_COMPARABLE, f"another source of energy: {origins[0]}, baseline {origins[1]}")


def _unless_flagged(meeting: Meeting, meter: str, row: GateRow) -> GateRow:
    """Flagged windows allow no verdict."""
    sides = meeting.run.blocks(meeting.seen["case"], meter), meeting.base.blocks(meeting.kept["case"], meter)
    flags = sorted({flag for side in sides if side is not None for flag in side.flags})
    if not flags:
        return row
    return row.judged(RowVerdict.INCONCLUSIVE, f"windows are flagged ({', '.join(flags)}): no verdict on them")


def _modelled(meeting: Meeting) -> GateRow:
    exact = meeting.rule.kind == "exact"
    margin = meeting.rule.margin
    meter = str(meeting.seen.get("energy_meter"))
    models = [(side.source.manifest.get("meters") or {}).get(meter) or {} for side in (meeting.run, meeting.base)]
    names = sorted({*models[0], *models[1]} - DECLARED)  # baselines of before these were declared are still good
    moved = [name for name in names if models[0].get(name) != models[1].get(name)]
    if moved:
        return meeting.row(RowVerdict.NOT_COMPARABLE, f"another model of energy: {', '.join(moved[:3])} changed")
    if fault := _row_fault(meeting):
        return meeting.row(RowVerdict.NOT_COMPARABLE, fault)
    if not meeting.same_inputs:
        if meeting.seen["kind"] not in ("control", "attack"):
            return meeting.row(RowVerdict.NOT_COMPARABLE, "the two sides did not evaluate the same input bytes")
        margin = meeting.rule.anew if exact else margin
    elif exact:
        margin = EQUAL
    return _by_value(meeting, margin, "modelled, not measured: follows from the MACs")


def _by_blocks(meeting: Meeting, own: timing.Blocks, other: timing.Blocks) -> GateRow:
    ratio = statistics.unpaired_ratio(other.per_sample, own.per_sample, VERDICT_LEVEL)
    seen, kept = meeting.values
    return judge(meeting.seen["case"], meeting.rule, seen, kept, ratio, meeting.rule.margin)


def _against_anchor(meeting: Meeting, meter: str, row: GateRow, own: timing.Blocks, other: timing.Blocks) -> GateRow:
    """The static reference ran in the same blocks: where it moved too, the machine may be what moved."""
    name = static_of(meeting.seen)
    anchors = meeting.run.blocks(name, meter), meeting.base.blocks(name, meter)
    if anchors[0] is None or anchors[1] is None:
        return row
    moved = _by_blocks(meeting, anchors[0], anchors[1])
    if moved.verdict not in (RowVerdict.REGRESSION, RowVerdict.IMPROVEMENT):
        return row
    scaled = []
    for values, anchor in ((own, anchors[0]), (other, anchors[1])):
        case, reference = values.paired(anchor)
        if not len(case):
            return row
        scaled.append(timing.Blocks(values.block, case / reference, "", ()))
    relative = _by_blocks(meeting, scaled[0], scaled[1])
    if relative.verdict is row.verdict:
        return row
    return row.judged(
        RowVerdict.INCONCLUSIVE,
        f"the static reference moved by {amount(moved.change or 0.0, True)} as well: the machine may have changed; "
        "write the baseline again here",
    )


def _foreign(meeting: Meeting, meter: str, *, with_static: bool = False) -> GateRow | None:
    """A row that says why sensors of the two sides cannot be compared; None where they can."""
    here, there = meeting.run.source.manifest, meeting.base.source.manifest
    if why := devices.obstacle(here.get("device") or {}, there.get("device") or {}, ("here", "baseline")):
        return meeting.row(RowVerdict.NOT_COMPARABLE, why)
    sensors = [((side.get("meters") or {}).get(meter) or {}).get("sensor") for side in (here, there)]
    if sensors[0] != sensors[1]:
        return meeting.row(RowVerdict.NOT_COMPARABLE, f"another sensor: {sensors[0]}, baseline {sensors[1]}")
    for name, side, record in (("", meeting.run, meeting.seen), ("the baseline: ", meeting.base, meeting.kept)):
        if fault := side.window_fault(record, meter, with_static=with_static):
            return meeting.row(RowVerdict.NOT_COMPARABLE, f"{name}{fault}")
    return None
