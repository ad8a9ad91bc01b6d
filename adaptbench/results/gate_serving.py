"""The gate over runs of kind serving: is a tail longer, or a goodput lower, than in the baseline?

Every figure is simulated from times that were measured on a machine, so that runs are compared on one device only, by
their intervals. Repeats are not paired, though both sides have the same arrivals: all repeats of a run share what was
measured in it, and pairs would take the drift of the machine for a change. What cannot be compared is never green.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptbench.errors import BaselineError
from adaptbench.results import devices
from adaptbench.results.gate_records import ALARMS, RecordSide, ceiling, control
from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict, corrected, judge, of_intervals
from adaptbench.results.gate_rules import EVERY, OF_SERVING, Rule
from adaptbench.results.gate_terms import idle_patterns, note_surroundings, suite_obstacle
from adaptbench.results.serving import (
    DEFENDED,
    KINDS,
    PLAIN,
    PROVISION,
    STREAM_FIGURES,
    ServingRun,
    incomplete,
    read_serving,
)

EVERY_SERVING = {
    "simulated_p99_s": {"increase": "50 %", "cases": [PLAIN]},
    "simulated_goodput": {"drop": "5 points", "cases": [PLAIN]},
}
"""What a run is held to whose file has no ``gate`` section."""
NEARLY_FULL = 0.9
"""Busy share of the replicas above which a tail tells the load, and the load the last percent of a measured time."""
_WHATEVER_THE_LOAD = ("simulated_macs", "simulated_benign_accuracy")


class ServingSide(RecordSide):
    """One side of a comparison."""

    __slots__ = ()
    kind, word, metrics, held_to = "serving", "run", OF_SERVING, EVERY_SERVING

    @classmethod
    def read(cls, place: Path) -> Mapping[str, Any]:
        """The record."""
        return read_serving(place)

    @classmethod
    def another(cls, place: Path) -> BaselineError:
        """The refusal of a suite's or a study's."""
        return BaselineError(
            f"{place}: it holds no run of kind serving, and the other side does.",
            todo="Compare it with a run of the same suite.",
        )

    @property
    def told(self) -> list[dict[str, Any]]:
        """Rows of streams and provisions."""
        return [dict(case) for case in self.cases.values()]

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Rows by case id, with the names that rules call them by."""
        streams = [
            {**row, "kind": PLAIN if row["defence"] == "none" else DEFENDED, "condition": row["arrivals"]}
            for row in self.record["streams"]
        ]
        provisions = [{**row, "kind": PROVISION, "condition": PROVISION} for row in self.record["provisions"]]
        return {row["case"]: row for row in [*streams, *provisions]}


def compare_serving(
    run: str | Path | ServingSide | ServingRun,
    baseline: str | Path | ServingSide | ServingRun | None,
    gate: Mapping[str, Any] | Sequence[Rule] | None = None,
) -> GateReport:
    """Compare a run of kind serving with a baseline.

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


def _side(given: str | Path | ServingSide | ServingRun) -> ServingSide:
    if isinstance(given, ServingRun):
        return ServingSide(given.path, given.record)
    return given if isinstance(given, ServingSide) else ServingSide.load(given)


def _obstacle(here: ServingSide, there: ServingSide, notes: list[str], *, same: bool) -> str | None:
    """Why nothing of two runs can be compared; None where it can."""
    obstacle = suite_obstacle(here.manifest, there.manifest, notes)
    obstacle = here.kept_of(there, same=same) or obstacle
    note_surroundings(here.manifest, there.manifest, notes)
    machines = [side.record.get("device") or {} for side in (here, there)]
    clocks = [side.record["clock"] for side in (here, there)]
    if clocks[0] != clocks[1]:
        obstacle = obstacle or f"timed by the {clocks[0]} clock, the baseline by the {clocks[1]}'s"
    return obstacle or devices.obstacle(machines[0], machines[1], ("here", "baseline")) or None


def _absent(here: ServingSide, there: ServingSide | None) -> Iterator[GateRow]:
    """What the baseline has and the run has not, whatever the rules watch."""
    for case, row in ({} if there is None else there.cases).items():
        if case not in here.cases:
            reason = f"the baseline has this {row['kind']}, the run has not"
            yield GateRow(case, "case", "present", RowVerdict.MISSING, reason)


def _unknown(case: str, why: str) -> GateRow:
    return GateRow(case, "serving", "comparable", RowVerdict.NOT_COMPARABLE, why)


def _under(rule: Rule, here: ServingSide, there: ServingSide | None) -> list[GateRow]:
    """Every case under one rule; a rule that meets no figure says so in a row."""
    rows: list[GateRow] = []
    if rule.kind == "max":
        watched = {case: row for case, row in here.cases.items() if _watched(rule, row)}
        rows = [
            ceiling(rule, case, row.get(rule.metric), str(row.get(f"{rule.metric}_missing")))
            for case, row in watched.items()
        ]
    elif there is not None:
        for case, kept in there.cases.items():
            seen = here.cases.get(case)
            if seen is not None and _watched(rule, kept):
                meet = _replicas if kept["kind"] == PROVISION else _meet
                rows.append(meet(rule, case, seen, kept))
    return rows or [here.unwatched(rule)]


def _watched(rule: Rule, row: Mapping[str, Any]) -> bool:
    has = ("replicas",) if row["kind"] == PROVISION else STREAM_FIGURES
    return rule.metric in has and rule.watches(dict(row))


def _replicas(rule: Rule, case: str, seen: Mapping[str, Any], kept: Mapping[str, Any]) -> GateRow:
    """The provision that holds the objective: more replicas are worse, none at all is worst."""
    own, base = seen["replicas"], kept["replicas"]
    if base is None:
        verdict = RowVerdict.PASS if own is None else RowVerdict.IMPROVEMENT
        return GateRow(case, rule.metric, rule.text, verdict, "none held the objective before", own, base)
    worse = own is None or own > base
    same = own == base
    verdict = RowVerdict.PASS if same else RowVerdict.REGRESSION if worse else RowVerdict.IMPROVEMENT
    said = "equal" if same else "more replicas are needed" if worse else "fewer replicas do"
    return GateRow(case, rule.metric, rule.text, verdict, said, own, base)


def _meet(rule: Rule, case: str, seen: Mapping[str, Any], kept: Mapping[str, Any]) -> GateRow:
    values = [row.get(rule.metric) for row in (seen, kept)]
    ends = [row.get(f"{rule.metric}_ci") for row in (seen, kept)]
    ratio = EVERY[rule.metric].ratio
    why = ""
    if None in values or None in ends:
        why = "there is no figure, or no interval, to compare by"
    elif ratio and min(end[0] for end in ends) <= 0:  # type: ignore[index]  # neither is None
        why = "an interval reaches down to 0: more repeats would tell"
    if why:
        return GateRow(case, rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, why, *values)
    own, base = (float(value) for value in values if value is not None)
    change = of_intervals(own, base, ends[0] or [], ends[1] or [], int(kept["repeats"]), ratio=ratio)
    row = judge(case, rule, own, base, change, rule.margin)
    busiest = max(float(one["simulated_busy"]) for one in (seen, kept))
    if busiest > NEARLY_FULL and rule.metric not in _WHATEVER_THE_LOAD:
        why = f"replicas are busy {100 * busiest:.0f} % of the time: there a small error of measured times is the tail"
        return replace(row, verdict=RowVerdict.INCONCLUSIVE, reason=why, p=None)
    return row


# ---------------------------------------------------------------------- the self-test


def planted_faults(side: ServingSide) -> Iterator[tuple[str, bool | None, str]]:
    """Proof that the gate can fire: what was planted in a copy, whether the gate said so, and its reason.

    The control comes first: the run against itself gives no alarm, ceilings apart. None where nothing is watched that
    could be planted in.
    """
    yield control(compare_serving(side, side).rows, side.word)
    for fault, metric in _FAULTS.items():
        record = copy.deepcopy(dict(side.record)) | {"id": None}
        where = _plant(ServingSide(side.path, record), side.rules, metric)
        if not where:
            yield fault, None, "no rule watches such a figure, or there is none: nothing to plant in"
            continue
        report = compare_serving(ServingSide(side.path, record), side)
        flagged = [row for row in report.rows if row.case == where and row.metric == metric]
        caught = any(row.verdict in ALARMS for row in flagged)
        yield fault, caught, flagged[0].reason if flagged else "it is green"


_FAULTS = {
    "a thousand times the p99": "simulated_p99_s",
    "no request answered in time": "simulated_goodput",
    "a stream left out": "case",
}
"""What is planted → the metric that shows it."""


def _plant(side: ServingSide, rules: Sequence[Rule], metric: str) -> str:
    """Make one figure worse than a rule allows, in place; the case that has it, or ""."""
    if metric == "case":
        return str(side.record["streams"].pop(0)["case"]) if side.record["streams"] else ""
    for rule in rules:
        for row in side.record["streams"]:
            told = side.cases[row["case"]]
            if rule.metric != metric or rule.kind == "max" or not _watched(rule, told) or row[f"{metric}_ci"] is None:
                continue
            if row["simulated_busy"] > NEARLY_FULL:
                continue
            if metric == "simulated_p99_s" and row[f"{metric}_ci"][0] > 0:
                row[metric], row[f"{metric}_ci"] = 1000 * row[metric], [1000 * end for end in row[f"{metric}_ci"]]
                return str(row["case"])
            if metric == "simulated_goodput" and row[metric] > 0.5:
                row[metric], row[f"{metric}_ci"] = 0.0, [0.0, 0.0]
                return str(row["case"])
    return ""
