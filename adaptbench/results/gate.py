"""The gate: is a run worse than its baseline? Rules come from the suite's ``gate`` section.

Deterministic figures on the same bytes are compared exactly, ties aside; inputs crafted anew, input by input; sensor
figures by the interval of the ratio against a margin. What cannot be compared is said, and is never green: another
attack under the same name, rules that the run loosened, rows that do not bear a record out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptbench.errors import BaselineError
from adaptbench.results.baseline import Baseline
from adaptbench.results.gate_compare import AGAINST_CLEAN, Meeting, compare_figure
from adaptbench.results.gate_decoding import DecodingSide
from adaptbench.results.gate_records import RecordSide
from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict, corrected, in_modes
from adaptbench.results.gate_rules import METRICS, Rule, Source, parse_gate
from adaptbench.results.gate_serving import ServingSide
from adaptbench.results.gate_side import Side
from adaptbench.results.gate_studies import StudySide
from adaptbench.results.gate_terms import (
    attack_obstacle,
    figure_obstacle,
    idle_patterns,
    in_force,
    note_surroundings,
    rules_of,
    suite_obstacle,
)
from adaptbench.results.identity import case_key, evaluation_key, mode_of
from adaptbench.results.record_runs import RecordRun
from adaptbench.results.schema import Record
from adaptbench.results.store import Run, called
from adaptbench.results.studies import kind_of

SIDES: dict[str, type[RecordSide]] = {side.run.kind: side for side in (StudySide, ServingSide, DecodingSide)}
"""Kinds whose figures are one record → how two of them are compared."""


def compare(
    run: str | Path | Run | Baseline | RecordSide | RecordRun,
    baseline: str | Path | Run | Baseline | RecordSide | RecordRun | None,
    gate: Mapping[str, Any] | Sequence[Rule] | None = None,
) -> GateReport:
    """Compare a run with a baseline.

    Args:
        run: the run, open or by path; or a study's, or one of kind serving or decoding, which are compared with
            their like.
        baseline: a run or a baseline file, open or by path; None leaves ``max`` rules only.
        gate: rules, parsed or as the suite or study has them. None takes the baseline's, and the run's where they ask
            for more: what a run's file loosens or drops is no pass.

    Returns:
        A report; ``exit_code`` 0, 1 or 3.

    Raises:
        RunError: no complete run there, or a damaged one.
        BaselineError: no baseline there, or the run itself.
        SuiteError: a rule that does not exist.
    """
    _refuse_itself(run, baseline)
    if (kind := _kind_of(run)) in SIDES:
        if isinstance(baseline, Run | Baseline):
            raise SIDES[kind].refusal(baseline.path)
        assert not isinstance(run, Run | Baseline)
        return SIDES[kind].compare(run, baseline, gate)
    if isinstance(baseline, RecordSide | RecordRun):
        raise BaselineError(
            f"{baseline.path}: it holds a {called(_kind_of(baseline))}, and the other side none.",
            todo="Name a suite's run.",
        )
    assert not isinstance(run, RecordSide | RecordRun)
    here = Side(_side(run))
    there = None if baseline is None else Side(_side(baseline))
    notes: list[str] = []
    rules, rows = _rules(here, there, gate)
    if not rules:
        notes.append("there is no gate section: nothing was compared")
    obstacle = None
    if there is not None:
        obstacle = suite_obstacle(here.source.manifest, there.source.manifest, notes)
        if run is not baseline and here.source.manifest.get("id") and _same(here, there, "id"):
            obstacle = "the baseline was kept of this very run: nothing can differ"
        note_surroundings(here.source.manifest, there.source.manifest, notes)
    sides = [side.source for side in (here, there) if side is not None]
    records, manifests = [r for side in sides for r in side.cases], [side.manifest for side in sides]
    rows += idle_patterns(rules, records, manifests, notes)
    rows += [row for rule in rules for row in _under(rule, here, there, obstacle, notes)]
    if there is not None and obstacle is None:
        rows += _missing_cases(here, there, notes)
    rows += _failed_cases(here.source)
    where = "" if there is None else str(there.source.path)
    rows = in_modes(corrected(rows), {str(record["case"]): mode_of(record) for record in records})
    return GateReport(str(here.source.path), where, tuple(rows), tuple(dict.fromkeys(notes)))


def _kind_of(given: str | Path | Run | Baseline | RecordSide | RecordRun) -> str:
    if isinstance(given, str | Path):
        return kind_of(Path(given))
    if isinstance(given, RecordSide):
        return given.run.kind
    return given.kind if isinstance(given, RecordRun) else "suite"


def _side(given: str | Path | Run | Baseline) -> Baseline:
    if isinstance(given, Baseline):
        return given
    return Baseline.of(given) if isinstance(given, Run) else Baseline.load(given)


def _refuse_itself(run: object, baseline: object) -> None:
    places = [Path(given).resolve() for given in (run, baseline) if isinstance(given, str | Path)]
    if len(places) == 2 and places[0] == places[1]:
        raise BaselineError(
            f"{baseline}: the baseline is the run itself.",
            why="A run never differs from itself: the gate would be green for ever.",
            todo="Name another run, or a file that `adaptbench baseline` kept of one.",
        )


def _same(here: Side, there: Side, name: str) -> bool:
    return bool(here.source.manifest.get(name) == there.source.manifest.get(name))


def _rules(
    here: Side, there: Side | None, gate: Mapping[str, Any] | Sequence[Rule] | None
) -> tuple[list[Rule], list[GateRow]]:
    """The rules in force, and a row for each that the run's suite loosened or dropped."""
    if gate is not None:
        return (parse_gate(gate) if isinstance(gate, Mapping) else list(gate)), []
    own = rules_of(here.source.manifest, here.source.path)
    kept = [] if there is None else rules_of(there.source.manifest, there.source.path)
    if there is None or not kept:
        return own, []
    rules, loosened = in_force(kept, own, [*there.source.cases, *here.source.cases])
    said = "the run's suite loosened or dropped this rule of the baseline, for {}: write a new baseline if it is meant"
    return rules, [
        GateRow("*", rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, said.format(case)) for rule, case in loosened
    ]


def _under(rule: Rule, here: Side, there: Side | None, obstacle: str | None, notes: list[str]) -> list[GateRow]:
    """Every case under one rule; a rule that meets no figure at all says so in a row."""
    others = {} if there is None else there.by_key
    rows: list[GateRow] = []
    timed = METRICS[rule.metric].source in (Source.SENSOR, Source.TIMED)
    done: set[str] = set()
    for record in here.source.cases:
        if not rule.watches(record) or record["evaluation"] in done:
            continue
        kept = others.get(case_key(record))
        if there is None or (kept is None and rule.kind == "max"):
            row = _ceiling(rule, record, here, None) if rule.kind == "max" else None
        elif kept is None:
            continue
        else:
            row = _meet(rule, record, kept, here, there, obstacle, notes)
        if row is not None:
            rows.append(row)
            if not timed:  # batch sizes share one evaluation: it is compared once
                done.add(record["evaluation"])
    if not rows:
        reason = obstacle or f"no case that the rule watches has {rule.metric}: it compared nothing"
        rows.append(GateRow("*", rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, reason))
    return rows


def _meet(
    rule: Rule, record: Record, kept: Record, here: Side, there: Side, obstacle: str | None, notes: list[str]
) -> GateRow | None:
    metric = rule.metric
    if not (_has(record, rule) or _has(kept, rule)):
        return None
    reason = obstacle or attack_obstacle(record, kept, here.source.manifest, there.source.manifest)
    for side, about in (("", record), ("the baseline's case could not be run: ", kept)):
        reason = reason or (f"{side}{about['failed']}" if about.get("failed") else None)
    if reason is None and _has(record, rule) and _has(kept, rule):
        reason = figure_obstacle(rule, record, kept)
        if reason is None:
            if rule.kind == "max":
                return _ceiling(rule, record, here, kept)
            return compare_figure(Meeting(rule, here, there, record, kept))
    if reason is not None:
        return _plain(rule, record, RowVerdict.NOT_COMPARABLE, reason, kept)
    if _has(kept, rule):
        sensor = METRICS[metric].source in (Source.SENSOR, Source.TIMED, Source.METERED)
        verdict = RowVerdict.NOT_COMPARABLE if sensor else RowVerdict.MISSING
        return _plain(rule, record, verdict, f"the baseline has it, the run has not: {_why(record, metric)}", kept)
    if rule.kind == "max":
        return _ceiling(rule, record, here, kept)
    notes.append(f"{record['case']}: {metric} is new, the baseline has none ({_why(kept, metric)})")
    return None


def _ceiling(rule: Rule, record: Record, here: Side, kept: Record | None) -> GateRow | None:
    if not _has(record, rule):
        return None  # a case that failed has a row of its own
    deterministic = METRICS[rule.metric].source in (Source.SAMPLES, Source.RECORD)
    fault = here.sample_fault(record, with_clean=rule.metric in AGAINST_CLEAN) if deterministic else ""
    if fault:
        return _plain(rule, record, RowVerdict.NOT_COMPARABLE, fault, kept)
    value = float(record[rule.metric])
    ends = record.get(f"{rule.metric}_ci")
    low, high = (value, value) if ends is None else (float(ends[0]), float(ends[1]))
    if low > rule.margin:
        verdict, reason = RowVerdict.REGRESSION, "above the ceiling with its whole 95 % interval"
    elif high <= rule.margin:
        verdict, reason = RowVerdict.PASS, "below the ceiling with its whole 95 % interval"
    else:
        verdict, reason = RowVerdict.INCONCLUSIVE, "the 95 % interval holds the ceiling: more inputs would tell"
    reason = reason if ends is not None else reason.replace(" with its whole 95 % interval", "")
    if METRICS[rule.metric].source is Source.SENSOR:
        meter = "clock" if rule.metric.startswith("latency") else str(record.get("energy_meter"))
        blocks = here.blocks(record["case"], meter)
        modelled = str(record.get("energy_provenance") or "").startswith("modelled") and meter != "clock"
        if blocks is not None and blocks.flags and not modelled:
            verdict, reason = RowVerdict.INCONCLUSIVE, f"windows are flagged ({', '.join(blocks.flags)})"
    row = _plain(rule, record, verdict, reason, kept)
    return (
        replace(row, low=low, high=high, margin=rule.margin) if ends is not None else replace(row, margin=rule.margin)
    )


def _plain(rule: Rule, record: Record, verdict: RowVerdict, reason: str, kept: Record | None) -> GateRow:
    seen = record.get(rule.metric)
    base = None if kept is None else kept.get(rule.metric)
    return GateRow(record["case"], rule.metric, rule.text, verdict, reason, seen, base)


def _has(record: Record, rule: Rule) -> bool:
    value = record.get(rule.metric)
    return isinstance(value, (int, float)) and math.isfinite(value)


def _why(record: Record, metric: str) -> str:
    return str(record.get(f"{metric}_missing") or "no reason given")


def _missing_cases(here: Side, there: Side, notes: list[str]) -> list[GateRow]:
    """Cases that only one side has; both ran the same suite, so that neither may lack an evaluation."""
    own, kept = here.by_key, there.by_key
    rows = [
        GateRow(record["case"], "case", "present", RowVerdict.MISSING, "the baseline has this case, the run has not")
        for key, record in kept.items()
        if key not in own
    ]
    known = {evaluation_key(record) for record in there.source.cases}
    new = [record for key, record in own.items() if key not in kept]
    for record in new:
        if evaluation_key(record) not in known:
            reason = "the baseline lacks this case of the same suite: write it again"
            rows.append(GateRow(record["case"], "case", "present", RowVerdict.NOT_COMPARABLE, reason))
    if new:
        names = ", ".join(str(record["case"]) for record in new[:3])
        notes.append(f"{len(new)} new cases have no baseline yet: {names}{' …' if len(new) > 3 else ''}")
    return rows


def _failed_cases(here: Baseline) -> list[GateRow]:
    """A case that could not be run is never green, whatever rules watch it."""
    return [
        GateRow(record["case"], "case", "ran", RowVerdict.NOT_COMPARABLE, str(record["failed"]))
        for record in here.cases
        if record.get("failed")
    ]
