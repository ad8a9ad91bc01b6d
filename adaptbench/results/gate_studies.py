"""The gate over studies: is what one found worse than another study, or than the file that was kept of one?

Rules come from the study's ``gate`` section, the baseline's first; a study without one is held to `EVERY_STUDY`.
Accuracy and MACs of a point, broken re-splits and executed samples that differ hang on no clock: they are compared as
they stand. Speed-ups are told by their intervals alone. What cannot be compared is said, and is never green.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from adaptbench.results.gate_records import RecordSide, ceiling
from adaptbench.results.gate_rows import GateRow, RowVerdict, judge, of_intervals
from adaptbench.results.gate_rules import EVERY, OF_STUDIES, Rule
from adaptbench.results.studies import StudyRun
from adaptbench.results.study_cases import CASE_KINDS, StudyCase, cases_of, value_of

DIGITS = 1e-6
"""Relative difference that a kept file's seven digits explain."""
EVERY_STUDY = {
    **dict.fromkeys(("accuracy", "macs_mean", "macs_full", "differing", "broken"), "exact"),
    "net_speedup": {"drop": "10 %"},
}
"""What a study is held to whose file has no ``gate`` section."""


class StudySide(RecordSide):
    """One side of a comparison."""

    __slots__ = ()
    run, word, metrics, kinds, held_to = StudyRun, "study", OF_STUDIES, CASE_KINDS, EVERY_STUDY
    another = "Compare studies with studies, such as those in reports/published/."
    faults: ClassVar[Mapping[str, str]] = {
        "five points of accuracy lost": "accuracy",
        "one and a half times the MACs": "macs_mean",
        "one more re-split broken": "broken",
        "a policy left out": "policy",
    }

    @property
    def told(self) -> list[dict[str, Any]]:
        """Names of every graph's cases."""
        return [dict(case.name.told) for case in self.cases()]

    @property
    def modes(self) -> dict[str, str | None]:
        """How the cases were executed."""
        return {case.id: case.row.get("mode") for case in self.cases()}

    def cases(self) -> list[StudyCase]:
        """Of every graph."""
        return [case for key, graph in self.record["graphs"].items() for case in cases_of(key, graph)]

    def obstacle(self, baseline: StudySide, notes: list[str]) -> str:
        """Why nothing of two studies can be compared; "" where it can. notes: are added to."""
        if self.record.get("data") and baseline.record.get("data"):
            return super().obstacle(baseline, notes)
        notes.append("one side does not say which samples it was made on: they are taken to be the same")
        bare = [StudySide(side.path, {**side.record, "data": {}}) for side in (self, baseline)]
        return RecordSide.obstacle(bare[0], bare[1], notes)

    def gaps(self, baseline: StudySide | None) -> list[str]:
        """What it was asked for and could not do, where the baseline could."""
        known = [] if baseline is None else StudyRun.incomplete(baseline.record)
        return [said for said in StudyRun.incomplete(self.record) if said not in known]

    def absent(self, baseline: StudySide) -> Iterator[GateRow]:
        """What the baseline has and the run has not, whatever the rules watch: graphs, policies, points, re-splits."""
        own = {case.id for case in self.cases()}
        for key, kept in baseline.record["graphs"].items():
            seen = self.record["graphs"].get(key)
            if seen is None:
                why = (self.record.get("failed_graphs") or {}).get(key)
                yield self.unknown(key, why) if why else _gone(key, "graph")
                continue
            lost = [name for name in kept["policies"] if name not in seen["policies"]]
            for name in lost:
                why = seen["failed"].get(name)
                yield self.unknown(f"{key}/{name}", why) if why else _gone(f"{key}/{name}", "policy")
            for case in cases_of(key, kept):
                if case.id in own or case.name.policy in lost:
                    continue
                if case.name.kind == "point":
                    policy = seen["policies"][case.name.policy]
                    why = str(policy.get("non_inferior_missing") or "") if "margin" in case.row else ""
                    yield _gone(case.id, "point", why)
                elif case.name.kind == "executed" and case.id.removesuffix(", executed") in own:
                    yield self.unknown(case.id, "the baseline executed this point, the run did not")
                elif case.name.kind == "re-splits" and case.figures:
                    yield _gone(case.id, "re-splits")

    def under(self, rule: Rule, baseline: StudySide | None) -> list[GateRow]:
        """Every case under one rule."""
        own = {case.id: case for case in self.cases()}
        if rule.kind == "max":
            return [
                ceiling(rule, case.id, value_of(case, rule.metric), "there is no such figure")
                for case in own.values()
                if _watched(rule, case)
            ]
        rows: list[GateRow] = []
        elsewhere = "" if baseline is None else self.elsewhere(baseline)
        for case in [] if baseline is None else baseline.cases():
            seen = own.get(case.id)
            if not _watched(rule, case) or (seen is None and case.name.kind != "timed"):
                continue  # what is absent has a row of its own
            if case.name.kind == "timed":
                rows.append(_timed(rule, seen, case, elsewhere))
            elif seen is not None:
                rows.append(_meet(rule, seen, case))
        return rows

    def plant(self, metric: str) -> str:
        """Make one figure worse than a rule allows, in place; the case that has it, or ""."""
        if metric == "policy":
            key, graph = next(iter(self.record["graphs"].items()))
            name = next(iter(graph["policies"]))
            del graph["policies"][name]
            return f"{key}/{name}"
        for rule in self.rules:
            for case in self.cases():
                value = value_of(case, metric)
                if rule.metric != metric or rule.kind == "max" or not _watched(rule, case) or value is None:
                    continue
                if case.name.kind not in ("point", "re-splits"):
                    continue
                allowed = rule.margin
                worse = {
                    "accuracy": value - 0.05 - allowed,
                    "macs_mean": max(value, case.full) * 1.5 * (1 + allowed),
                    "broken": value + 1 + math.ceil(allowed * case.among),
                }[metric]
                assert isinstance(case.row, dict)
                case.row[metric] = worse
                return case.id
        return ""


def _gone(case: str, what: str, why: str = "") -> GateRow:
    reason = f"the baseline has this {what}, the run has not{f': {why}' if why else ''}"
    return GateRow(case, what, "present", RowVerdict.MISSING, reason)


def _watched(rule: Rule, case: StudyCase) -> bool:
    return rule.metric in case.figures and rule.watches(case.name.told)


def _meet(rule: Rule, seen: StudyCase, kept: StudyCase) -> GateRow:
    """One figure that no clock made: exactly, or against the margin as it stands."""
    own, base = value_of(seen, rule.metric), value_of(kept, rule.metric)
    if own is None or base is None or seen.among != kept.among:
        counted = "re-splits" if kept.name.kind == "re-splits" else "samples"
        why = f"{seen.among} {counted}, in the baseline {kept.among}"
        return GateRow(kept.id, rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, why, own, base)
    return _judged(rule, kept, own, base, _slack(rule.metric, seen, kept), _other_point(seen, kept))


def _slack(metric: str, seen: StudyCase, kept: StudyCase) -> float:
    """How far decisions at a tie could have moved a figure."""
    ties = max(seen.ties, kept.ties)
    return ties * {"accuracy": 1.0, "macs_mean": kept.full}.get(metric, 0.0)


def _other_point(seen: StudyCase, kept: StudyCase) -> str:
    """That another point of the family was chosen, to explain a difference; "" where it is the same."""
    own, other = seen.row.get("setting"), kept.row.get("setting")
    if own == other:
        return ""
    if own is None or other is None:
        return "another point was chosen: "
    said = f"another point was chosen (setting {own:.6g}, baseline {other:.6g}): "
    return "" if math.isclose(own, other, rel_tol=DIGITS, abs_tol=1e-12) else said


def _judged(rule: Rule, case: StudyCase, seen: float, kept: float, slack: float, why: str) -> GateRow:
    """Equal to seven digits, or within the margin; where ties could have moved it, nobody can tell."""
    metric = EVERY[rule.metric]
    counted = rule.metric in ("broken", "differing")
    change = (seen / kept - 1 if kept else None) if metric.ratio else (seen - kept) / (case.among if counted else 1)

    def row(verdict: RowVerdict, reason: str) -> GateRow:
        shown = change if metric.ratio or rule.kind != "exact" else None
        return GateRow(case.id, rule.metric, rule.text, verdict, reason, seen, kept, shown, margin=rule.margin or None)

    moved = abs(seen - kept)
    exact = rule.kind == "exact"
    if moved <= DIGITS * max(abs(kept), DIGITS):
        return row(RowVerdict.PASS, "equal" if exact else "within the margin (deterministic: compared as they stand)")
    worse = (seen < kept) if metric.higher_is_better else (seen > kept)
    if not exact:
        if change is None:
            return row(RowVerdict.NOT_COMPARABLE, f"the baseline's {rule.metric} is 0")
        beyond = (abs(math.log1p(change)) - math.log1p(rule.margin)) if metric.ratio else abs(change) - rule.margin
        if beyond <= DIGITS:
            return row(RowVerdict.PASS, "within the margin (deterministic: compared as they stand)")
        if not worse:
            return row(RowVerdict.IMPROVEMENT, f"{why}better by more than the margin")
    if moved <= slack * (1 + DIGITS):
        return row(RowVerdict.INCONCLUSIVE, f"{why}decisions within 1e-5 of a threshold could explain it")
    sense = "for the worse" if worse else "for the better; if it is meant, write a new baseline"
    return row(RowVerdict.REGRESSION, f"{why}it changed {sense}" if exact else f"{why}beyond the margin")


def _timed(rule: Rule, seen: StudyCase | None, kept: StudyCase, elsewhere: str) -> GateRow:
    rows = [None if case is None else case.row for case in (seen, kept)]
    ends = [(row or {}).get("net_speedup_ci") for row in rows]
    values = [None if case is None else value_of(case, rule.metric) for case in (seen, kept)]
    if seen is None:
        why = "the baseline timed this point, the run did not"
    elif elsewhere:
        why = elsewhere
    elif values[1] is None:
        why = "the baseline timed net and harness as one: run it again"
    elif values[0] is None or ends[0] is None or ends[1] is None:
        why = "there is no interval to compare by"
    else:
        change = of_intervals(values[0], values[1], ends[0], ends[1], int(kept.row["blocks"]), ratio=True)
        return judge(kept.id, rule, values[0], values[1], change, rule.margin)
    return GateRow(kept.id, rule.metric, rule.text, RowVerdict.NOT_COMPARABLE, why, values[0], values[1])
