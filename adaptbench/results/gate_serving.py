"""The gate over runs of kind serving: is a tail longer, or a goodput lower, than in the baseline?

Every figure is simulated from times that were measured on a machine, so that runs are compared on one device only, by
their intervals. Repeats are not paired, though both sides have the same arrivals: all repeats of a run share what was
measured in it, and pairs would take the drift of the machine for a change. What cannot be compared is never green.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from adaptbench.results.gate_records import RowsSide
from adaptbench.results.gate_rows import GateRow, RowVerdict, judge, of_intervals
from adaptbench.results.gate_rules import EVERY, OF_SERVING, Rule
from adaptbench.results.serving import DEFENDED, KINDS, PLAIN, PROVISION, STREAM_FIGURES, ServingRun

EVERY_SERVING = {
    "simulated_p99_s": {"increase": "50 %", "cases": [PLAIN]},
    "simulated_goodput": {"drop": "5 points", "cases": [PLAIN]},
}
"""What a run is held to whose file has no ``gate`` section."""
NEARLY_FULL = 0.9
"""Busy share of the replicas above which a tail tells the load, and the load the last percent of a measured time."""
_WHATEVER_THE_LOAD = ("simulated_macs", "simulated_benign_accuracy")


class ServingSide(RowsSide):
    """One side of a comparison."""

    __slots__ = ()
    run, metrics, kinds, held_to = ServingRun, OF_SERVING, KINDS, EVERY_SERVING
    faults: ClassVar[Mapping[str, str]] = {
        "a thousand times the p99": "simulated_p99_s",
        "no request answered in time": "simulated_goodput",
        "a stream left out": "case",
    }

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Rows by case id, with the names that rules call them by."""
        streams = [
            {**row, "kind": PLAIN if row["defence"] == "none" else DEFENDED, "condition": row["arrivals"]}
            for row in self.record["streams"]
        ]
        provisions = [{**row, "kind": PROVISION, "condition": PROVISION} for row in self.record["provisions"]]
        return {row["case"]: row for row in [*streams, *provisions]}

    def obstacle(self, baseline: ServingSide, notes: list[str]) -> str:
        """Why nothing of both can be compared; "" where it can. notes: are added to."""
        obstacle = super().obstacle(baseline, notes)
        clocks = [side.record["clock"] for side in (self, baseline)]
        if clocks[0] != clocks[1]:
            obstacle = obstacle or f"timed by the {clocks[0]} clock, the baseline by the {clocks[1]}'s"
        return obstacle or self.elsewhere(baseline)

    def watched(self, rule: Rule, row: Mapping[str, Any]) -> bool:
        """Whether a rule is about a row that has its figure."""
        has = ("replicas",) if row["kind"] == PROVISION else STREAM_FIGURES
        return rule.metric in has and rule.watches(dict(row))

    def meet(self, rule: Rule, seen: Mapping[str, Any], kept: Mapping[str, Any], baseline: ServingSide) -> GateRow:
        """A case of both sides under a rule. seen, kept: its row here and in the baseline."""
        return (_replicas if kept["kind"] == PROVISION else _meet)(rule, str(kept["case"]), seen, kept)

    def plant(self, metric: str) -> str:
        """Make one figure worse than a rule allows, in place; the case that has it, or ""."""
        if metric == "case":
            return str(self.record["streams"].pop(0)["case"]) if self.record["streams"] else ""
        interval = f"{metric}_ci"
        for rule in self.rules:
            for row in self.record["streams"]:
                told = self.cases[row["case"]]
                if rule.metric != metric or rule.kind == "max" or not self.watched(rule, told) or row[interval] is None:
                    continue
                if row["simulated_busy"] > NEARLY_FULL:
                    continue
                if metric == "simulated_p99_s" and row[interval][0] > 0:
                    row[metric], row[interval] = 1000 * row[metric], [1000 * end for end in row[interval]]
                    return str(row["case"])
                if metric == "simulated_goodput" and row[metric] > 0.5:
                    row[metric], row[interval] = 0.0, [0.0, 0.0]
                    return str(row["case"])
        return ""


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
