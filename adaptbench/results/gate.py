"""The gate: is a run worse than its baseline? Rules come from the suite's ``gate`` section.

Deterministic figures on the same bytes are compared exactly, ties aside; inputs crafted anew, input by input; sensor
figures by the interval of the ratio against a margin. What cannot be compared is said, and is never green.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptbench.results.baseline import Baseline
from adaptbench.results.gate_compare import Meeting, Side, compare_figure
from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict
from adaptbench.results.gate_rules import METRICS, Rule, Source, parse_gate
from adaptbench.results.schema import Record
from adaptbench.results.statistics import holm
from adaptbench.results.store import Run

FALSE_ALARMS = 0.05
"""Family-wise: the chance that a gate without any real change says regression, over all estimated comparisons."""
NEUTRAL_SECTIONS = ("measure", "gate", "title", "description")
"""Sections of a suite that leave its figures comparable."""


def compare(
    run: str | Path | Run | Baseline,
    baseline: str | Path | Run | Baseline | None,
    gate: Mapping[str, Any] | Sequence[Rule] | None = None,
) -> GateReport:
    """Compare a run with a baseline.

    Args:
        run: the run, open or by path.
        baseline: a run or a baseline file, open or by path; None leaves ``max`` rules only.
        gate: rules, parsed or as the suite has them; None takes those of the run's manifest.

    Returns:
        A report; ``exit_code`` 0, 1 or 3.

    Raises:
        RunError: no complete run there.
        BaselineError: no baseline there.
        SuiteError: a rule that does not exist.
    """
    here = Side(_side(run))
    there = None if baseline is None else Side(_side(baseline))
    given = here.source.manifest.get("gate") if gate is None else gate
    rules = parse_gate(given) if given is None or isinstance(given, Mapping) else list(given)
    notes: list[str] = []
    if not rules:
        notes.append("the suite has no gate section: nothing was compared")
    obstacle = None
    if there is not None:
        obstacle = _suite_obstacle(here.source.manifest, there.source.manifest, notes)
        _note_surroundings(here.source.manifest, there.source.manifest, notes)
    rows = [row for rule in rules for row in _under(rule, here, there, obstacle, notes)]
    if there is not None and obstacle is None:
        rows.extend(_missing_cases(here.source, there.source, notes))
    rows.extend(_failed_cases(here.source))
    where = "" if there is None else str(there.source.path)
    return GateReport(str(here.source.path), where, tuple(_corrected(rows)), tuple(dict.fromkeys(notes)))


def _side(given: str | Path | Run | Baseline) -> Baseline:
    if isinstance(given, Baseline):
        return given
    return Baseline.of(given) if isinstance(given, Run) else Baseline.load(given)


def _under(rule: Rule, here: Side, there: Side | None, obstacle: str | None, notes: list[str]) -> list[GateRow]:
    """Every case under one rule; a rule that meets no figure at all says so in a row."""
    kept = {} if there is None else {record["case"]: record for record in there.source.cases}
    rows: list[GateRow] = []
    timed = METRICS[rule.metric].source in (Source.SENSOR, Source.TIMED)
    done: set[str] = set()
    for record in here.source.cases:
        if not rule.watches(record) or record["evaluation"] in done:
            continue
        if rule.kind == "max":
            row = _ceiling(rule, record, here, kept.get(record["case"]))
        elif there is None or record["case"] not in kept:
            continue
        elif obstacle is not None and (_has(record, rule) or _has(kept[record["case"]], rule)):
            row = _plain(rule, record, RowVerdict.NOT_COMPARABLE, obstacle, kept[record["case"]])
        else:
            row = _meet(rule, record, kept[record["case"]], here, there, notes)
        if row is not None:
            rows.append(row)
            if not timed:  # batch sizes share one evaluation: it is compared once
                done.add(record["evaluation"])
    if not rows:
        reason = obstacle or f"no case that the rule watches has {rule.metric}: it compared nothing"
        rows.append(GateRow("*", rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, reason))
    return rows


def _meet(rule: Rule, record: Record, kept: Record, here: Side, there: Side, notes: list[str]) -> GateRow | None:
    metric = rule.metric
    if _has(record, rule) and _has(kept, rule):
        return compare_figure(Meeting(rule, here, there, record, kept))
    if record.get("failed") and _has(kept, rule):
        return _plain(rule, record, RowVerdict.NOT_COMPARABLE, str(record["failed"]), kept)
    if _has(kept, rule):
        sensor = METRICS[metric].source in (Source.SENSOR, Source.TIMED)
        verdict = RowVerdict.NOT_COMPARABLE if sensor else RowVerdict.MISSING
        return _plain(rule, record, verdict, f"the baseline has it, the run has not: {_why(record, metric)}", kept)
    if _has(record, rule):
        notes.append(f"{record['case']}: {metric} is new, the baseline has none ({_why(kept, metric)})")
    return None


def _ceiling(rule: Rule, record: Record, here: Side, kept: Record | None) -> GateRow | None:
    if not _has(record, rule):
        if record.get("failed"):
            return None  # said once, in a row of its own
        if kept is not None and _has(kept, rule):
            return _plain(rule, record, RowVerdict.MISSING, f"no figure: {_why(record, rule.metric)}", kept)
        return None
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


def _missing_cases(here: Baseline, there: Baseline, notes: list[str]) -> list[GateRow]:
    own, kept = [record["case"] for record in here.cases], [record["case"] for record in there.cases]
    new = [case for case in own if case not in set(kept)]
    if new:
        notes.append(f"{len(new)} new cases have no baseline yet: {', '.join(new[:3])}{' …' if len(new) > 3 else ''}")
    reason = "the baseline has this case, the run has not"
    return [GateRow(case, "case", "present", RowVerdict.MISSING, reason) for case in kept if case not in set(own)]


def _failed_cases(here: Baseline) -> list[GateRow]:
    """A case that could not be run is never green, whatever rules watch it."""
    return [
        GateRow(record["case"], "case", "ran", RowVerdict.NOT_COMPARABLE, str(record["failed"]))
        for record in here.cases
        if record.get("failed")
    ]


def _suite_obstacle(here: Mapping[str, Any], there: Mapping[str, Any], notes: list[str]) -> str | None:
    """Why two suites cannot be compared; None where they can."""
    own, kept = here.get("suite") or {}, there.get("suite") or {}
    if own.get("name") != kept.get("name"):
        return f"another suite: {own.get('name')}, baseline {kept.get('name')}"
    if own.get("limit") != kept.get("limit"):
        return f"another limit: {own.get('limit')} inputs, baseline {kept.get('limit')}"
    changed = sorted(set(own.get("overrides") or []) ^ set(kept.get("overrides") or []))
    if beyond := [text for text in changed if text.partition(".")[0].partition("=")[0] not in NEUTRAL_SECTIONS]:
        return f"other overrides: {', '.join(beyond)}"
    if own.get("sha256") != kept.get("sha256") or changed:
        if _substance(own.get("text")) != _substance(kept.get("text")):
            return f"the suite '{own.get('name')}' says something else than when the baseline was written"
        notes.append(f"the suites differ in {', '.join(NEUTRAL_SECTIONS)} only: compared")
    return None


def _substance(text: Any) -> Any:
    """A suite without the sections that leave its figures comparable; the raw text where it is not a table."""
    import yaml

    try:
        parsed = yaml.safe_load(text or "")
    except yaml.YAMLError:
        return text
    if not isinstance(parsed, dict):
        return text
    return {name: value for name, value in parsed.items() if name not in NEUTRAL_SECTIONS}


def _note_surroundings(here: Mapping[str, Any], there: Mapping[str, Any], notes: list[str]) -> None:
    """What else differs and explains a difference when there is one."""
    own, kept = here.get("versions") or {}, there.get("versions") or {}
    moved = [f"{name} {kept[name]} → {own[name]}" for name in own if name in kept and own[name] != kept[name]]
    if moved:
        notes.append(f"versions since the baseline: {', '.join(moved)}")
    if (here.get("gate") or {}) != (there.get("gate") or {}):
        notes.append("the gate section is not the one that the baseline was written with")


def _corrected(rows: list[GateRow]) -> list[GateRow]:
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
