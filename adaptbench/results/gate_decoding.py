"""The gate over runs of kind decoding: does a character cost more, or is an answer another one, than in the baseline?

Answers, MACs and exits hang on the prompts and the weights alone, nothing is drawn: where prompts are the same, a
change is what it is, without an interval. Seconds and joules are compared by their intervals, on one device only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from adaptbench.results.decoding import DECODER, FIGURES_OF, KINDS, DecodingRun
from adaptbench.results.gate_records import RowsSide
from adaptbench.results.gate_rows import GateRow, RowVerdict, judge, of_intervals
from adaptbench.results.gate_rules import EVERY, OF_DECODING, Rule, Source
from adaptbench.results.record_runs import rounded

EVERY_DECODING = {
    "macs_per_token": {"increase": "1 %", "cases": [DECODER]},
    "bits_per_character": {"increase": "1 %", "cases": [DECODER]},
}
"""What a run is held to whose file has no ``gate`` section."""


class DecodingSide(RowsSide):
    """One side of a comparison."""

    __slots__ = ()
    run, metrics, kinds, held_to = DecodingRun, OF_DECODING, KINDS, EVERY_DECODING
    faults: ClassVar[Mapping[str, str]] = {
        "twice the MACs a character": "macs_per_token",
        "no answer like the greedy one": "identical",
        "twice the bits a character": "bits_per_character",
        "a decoder left out": "case",
    }

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

    def watched(self, rule: Rule, row: Mapping[str, Any]) -> bool:
        """Whether a rule is about a row that has its figure."""
        return rule.metric in FIGURES_OF[row["kind"]] and rule.watches(dict(row))

    def meet(self, rule: Rule, seen: Mapping[str, Any], kept: Mapping[str, Any], baseline: DecodingSide) -> GateRow:
        """A case of both sides under a rule. seen, kept: its row here and in the baseline."""
        case = str(kept["case"])
        values = [row.get(rule.metric) for row in (seen, kept)]
        if None in values:
            gone = values[0] is None and values[1] is not None
            why = str((seen if values[0] is None else kept).get(f"{rule.metric}_missing"))
            verdict = RowVerdict.MISSING if gone else RowVerdict.NOT_COMPARABLE
            return GateRow(case, rule.metric, rule.text, verdict, why, *values)
        own, base = (float(value) for value in values if value is not None)
        if EVERY[rule.metric].source is Source.SENSOR:
            return _sensed(rule, case, seen, kept, self.elsewhere(baseline))
        return _counted(rule, case, own, base)

    def plant(self, metric: str) -> str:
        """Make one figure worse than a rule allows, in place; the case that has it, or ""."""
        if metric == "case":
            return str(self.record["decoders"].pop()["case"])
        for rule in self.rules:
            for row in self.record["decoders"]:
                told = self.cases[row["case"]]
                if rule.metric != metric or rule.kind == "max" or not self.watched(rule, told) or not row[metric]:
                    continue
                row[metric] = 0.0 if EVERY[metric].higher_is_better else 2 * row[metric]
                return str(row["case"])
        return ""


def _sensed(rule: Rule, case: str, seen: Mapping[str, Any], kept: Mapping[str, Any], elsewhere: str) -> GateRow:
    own, base = seen[rule.metric], kept[rule.metric]
    ends = [row.get(f"{rule.metric}_ci") for row in (seen, kept)]
    why = elsewhere
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
    if rounded(own, DecodingRun.digits) == rounded(base, DecodingRun.digits):  # one side may be a kept file
        change = 0.0
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
