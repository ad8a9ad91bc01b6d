"""The gate over runs of kind decoding: does a character cost more, or is an answer another one, than in the baseline?

Answers, MACs and exits hang on the prompts and the weights alone, nothing is drawn: where prompts are the same, a
change is what it is, without an interval. Seconds and joules are compared by their intervals, on one device only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptbench.errors import BaselineError
from adaptbench.results import devices
from adaptbench.results.decoding import DECODER, FIGURES_OF, KINDS, DecodingRun, incomplete, read_decoding
from adaptbench.results.gate_records import ALARMS, RecordSide, ceiling, control
from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict, corrected, judge, of_intervals
from adaptbench.results.gate_rules import EVERY, OF_DECODING, Rule, Source
from adaptbench.results.gate_terms import idle_patterns, note_surroundings, suite_obstacle

EVERY_DECODING = {
    "macs_per_token": {"increase": "1 %", "cases": [DECODER]},
    "bits_per_character": {"increase": "1 %", "cases": [DECODER]},
}
"""What a run is held to whose file has no ``gate`` section."""


class DecodingSide(RecordSide):
    """One side of a comparison."""

    __slots__ = ()
    kind, word, metrics, held_to = "decoding", "run", OF_DECODING, EVERY_DECODING

    @classmethod
    def read(cls, place: Path) -> Mapping[str, Any]:
        """The record."""
        return read_decoding(place)

    @classmethod
    def another(cls, place: Path) -> BaselineError:
        """The refusal of another kind's."""
        return BaselineError(
            f"{place}: it holds no run of kind decoding, and the other side does.",
            todo="Compare it with a run of the same suite.",
        )

    @property
    def told(self) -> list[dict[str, Any]]:
        """Rows of decoders and attacks."""
        return [dict(case) for case in self.cases.values()]

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Rows by case id, with the names that rules call them by."""
        decoders = [
            {**row, "kind": DECODER, "model": row["case"], "condition": row["decoder"]}
            for row in self.record["decoders"]
        ]
        attacks = [
            {**row, "kind": f"{row['objective']} attack", "model": row["decoder"], "condition": row["objective"]}
            for row in self.record["attacks"]
        ]
        return {row["case"]: row for row in [*decoders, *attacks]}


def compare_decoding(
    run: str | Path | DecodingSide | DecodingRun,
    baseline: str | Path | DecodingSide | DecodingRun | None,
    gate: Mapping[str, Any] | Sequence[Rule] | None = None,
) -> GateReport:
    """Compare a run of kind decoding with a baseline.

    Args:
        run, baseline: a directory, a kept file, or either, read; without a baseline ``max`` rules are left.
        gate: rules, parsed or as a file has them. None takes the baseline's, and the run's where they ask for more.

    Returns:
        A report; ``exit_code`` 0, 1 or 3.

    Raises:
        BaselineError: one of them is of another kind. RunError: it is damaged or incomplete.
        SuiteError: a rule that does not exist.
    """
    here = _side(run)
    there = None if baseline is None else _side(baseline)
    notes: list[str] = []
    rules, rows = here.in_force(there, gate)
    obstacle = None if there is None else _obstacle(here, there, notes, same=run is baseline)
    if there is not None and obstacle is not None:
        rows.append(_unknown("*", obstacle))
    else:
        told = [case for side in (here, there) if side is not None for case in side.told]
        rows += idle_patterns(rules, told, [], notes, KINDS)
        rows += _absent(here, there)
        rows += [row for rule in rules for row in _under(rule, here, there)]
    rows += [_unknown("*", said) for said in incomplete(here.record)]
    where = "" if there is None else str(there.path)
    return GateReport(str(here.path), where, tuple(corrected(rows)), tuple(dict.fromkeys(notes)))


def _side(given: str | Path | DecodingSide | DecodingRun) -> DecodingSide:
    if isinstance(given, DecodingRun):
        return DecodingSide(given.path, given.record)
    return given if isinstance(given, DecodingSide) else DecodingSide.load(given)


def _obstacle(here: DecodingSide, there: DecodingSide, notes: list[str], *, same: bool) -> str | None:
    """Why nothing of two runs can be compared; None where it can."""
    obstacle = suite_obstacle(here.manifest, there.manifest, notes)
    note_surroundings(here.manifest, there.manifest, notes)
    return here.kept_of(there, same=same) or obstacle


def _absent(here: DecodingSide, there: DecodingSide | None) -> Iterator[GateRow]:
    """What the baseline has and the run has not, whatever the rules watch."""
    for case, row in ({} if there is None else there.cases).items():
        if case not in here.cases:
            reason = f"the baseline has this {row['kind']}, the run has not"
            yield GateRow(case, "case", "present", RowVerdict.MISSING, reason)


def _unknown(case: str, why: str) -> GateRow:
    return GateRow(case, "decoding", "comparable", RowVerdict.NOT_COMPARABLE, why)


def _under(rule: Rule, here: DecodingSide, there: DecodingSide | None) -> list[GateRow]:
    """Every case under one rule; a rule that meets no figure says so in a row."""
    rows: list[GateRow] = []
    if rule.kind == "max":
        rows = [
            ceiling(rule, case, row.get(rule.metric), str(row.get(f"{rule.metric}_missing")))
            for case, row in here.cases.items()
            if _watched(rule, row)
        ]
    elif there is not None:
        for case, kept in there.cases.items():
            seen = here.cases.get(case)
            if seen is not None and _watched(rule, kept):
                rows.append(_meet(rule, case, seen, kept, here, there))
    return rows or [here.unwatched(rule)]


def _watched(rule: Rule, row: Mapping[str, Any]) -> bool:
    return rule.metric in FIGURES_OF[row["kind"]] and rule.watches(dict(row))


def _meet(
    rule: Rule,
    case: str,
    seen: Mapping[str, Any],
    kept: Mapping[str, Any],
    here: DecodingSide,
    there: DecodingSide,
) -> GateRow:
    values = [row.get(rule.metric) for row in (seen, kept)]
    if None in values:
        gone = values[0] is None and values[1] is not None
        why = str((seen if values[0] is None else kept).get(f"{rule.metric}_missing"))
        verdict = RowVerdict.MISSING if gone else RowVerdict.NOT_COMPARABLE
        return GateRow(case, rule.metric, rule.text, verdict, why, *values)
    own, base = (float(value) for value in values if value is not None)
    if EVERY[rule.metric].source is Source.SENSOR:
        return _sensed(rule, case, seen, kept, here, there)
    return _counted(rule, case, own, base)


def _sensed(
    rule: Rule,
    case: str,
    seen: Mapping[str, Any],
    kept: Mapping[str, Any],
    here: DecodingSide,
    there: DecodingSide,
) -> GateRow:
    own, base = seen[rule.metric], kept[rule.metric]
    machines = [side.record.get("device") or {} for side in (here, there)]
    why = devices.obstacle(machines[0], machines[1], ("here", "baseline")) or ""
    ends = [row.get(f"{rule.metric}_ci") for row in (seen, kept)]
    if not why and None in ends:
        why = "there is no interval to compare by: more blocks would tell"
    if why:
        return GateRow(case, rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, why, own, base)
    change = of_intervals(own, base, ends[0] or [], ends[1] or [], int(kept["n"]), ratio=True)
    return judge(case, rule, own, base, change, rule.margin)


def _counted(rule: Rule, case: str, own: float, base: float) -> GateRow:
    """Two figures of the same prompts."""
    metric = EVERY[rule.metric]
    change = own / base - 1 if metric.ratio and base > 0 else own - base
    hurt = -change if metric.higher_is_better else change
    if hurt > rule.margin:
        verdict, said = RowVerdict.REGRESSION, "worse than the rule allows, on the same prompts"
    elif change == 0:
        verdict, said = RowVerdict.PASS, "equal"
    elif hurt < -rule.margin:
        verdict, said = RowVerdict.IMPROVEMENT, "better, on the same prompts"
    else:
        verdict, said = RowVerdict.PASS, "within the rule, on the same prompts"
    return GateRow(case, rule.metric, rule.text, verdict, said, own, base, change, margin=rule.margin)


# ---------------------------------------------------------------------- the self-test


def planted_faults(side: DecodingSide) -> Iterator[tuple[str, bool | None, str]]:
    """Proof that the gate can fire: what was planted in a copy, whether the gate said so, and its reason.

    The control comes first: the run against itself gives no alarm, ceilings apart. None where nothing is watched that
    could be planted in.
    """
    yield control(compare_decoding(side, side).rows, side.word)
    for fault, metric in _FAULTS.items():
        record = copy.deepcopy(dict(side.record)) | {"id": None}
        where = _plant(DecodingSide(side.path, record), side.rules, metric)
        if not where:
            yield fault, None, "no rule watches such a figure, or there is none: nothing to plant in"
            continue
        report = compare_decoding(DecodingSide(side.path, record), side)
        flagged = [row for row in report.rows if row.case == where and row.metric == metric]
        caught = any(row.verdict in ALARMS for row in flagged)
        yield fault, caught, flagged[0].reason if flagged else "it is green"


_FAULTS = {
    "twice the MACs a character": "macs_per_token",
    "no answer like the greedy one": "identical",
    "twice the bits a character": "bits_per_character",
    "a decoder left out": "case",
}
"""What is planted → the metric that shows it."""


def _plant(side: DecodingSide, rules: Sequence[Rule], metric: str) -> str:
    """Make one figure worse than a rule allows, in place; the case that has it, or ""."""
    if metric == "case":
        return str(side.record["decoders"].pop()["case"])
    for rule in rules:
        for row in side.record["decoders"]:
            told = side.cases[row["case"]]
            if rule.metric != metric or rule.kind == "max" or not _watched(rule, told) or not row[metric]:
                continue
            row[metric] = 0.0 if EVERY[metric].higher_is_better else 2 * row[metric]
            return str(row["case"])
    return ""
