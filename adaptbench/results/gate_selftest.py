"""Proof that the gate can fire: known faults are planted in a copy of a run, and the gate has to go red.

And that it cannot be made green: a dearer run whose ties, rows, recipes or rules were bent is not green either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptbench.results.baseline import Baseline, Outcomes
from adaptbench.results.gate import compare
from adaptbench.results.gate_rows import GateReport, RowVerdict
from adaptbench.results.gate_rules import Rule, parse_gate
from adaptbench.results.schema import Record
from adaptbench.results.store import Run

if TYPE_CHECKING:
    import pandas as pd

JOULES = 1.10
"""Planted energy: ten percent more."""
MACS = 3
"""Planted cost where the gate is to be fooled: three times as much."""


@dataclass(frozen=True, slots=True)
class Planted:
    """One planted fault and what the gate made of it.

    Args:
        fault: what was planted, in words.
        case: where.
        rule: the rule that has to see it; "" where the gate has none for it.
        caught: True where that rule says regression (of a bent run: where the gate is not green); None where nothing
            could be planted.
        reason: the gate's sentence, or why nothing was planted.
        report: the whole comparison.
        bent: True where the gate was to be fooled, False where a figure got worse in the open.
    """

    fault: str
    case: str
    rule: str
    caught: bool | None
    reason: str
    report: GateReport | None = None
    bent: bool = False


def selftest(run: str | Path | Run | Baseline, gate: Mapping[str, Any] | Sequence[Rule] | None = None) -> list[Planted]:
    """Compare a run with itself and with itself made worse: +1 MAC on one sample, ten percent more joules, bent runs.

    Args:
        run: a complete run.
        gate: rules; None takes the run's own.

    Returns:
        The control (must be caught = True: nothing cries wolf) and one entry a fault. A self-test holds when no
        entry has ``caught`` False.
    """
    side = run if isinstance(run, Baseline) else Baseline.of(run) if isinstance(run, Run) else Baseline.load(run)
    side = side.changed(manifest={**side.manifest, "id": None})  # it is compared with itself, and may be
    given = side.manifest.get("gate") if gate is None else gate
    rules = parse_gate(given) if given is None or isinstance(given, Mapping) else list(given)
    control = compare(side, side, rules)
    alarms = [row for row in control.rows if row.verdict in (RowVerdict.REGRESSION, RowVerdict.MISSING)]
    ceilings = [row for row in alarms if row.rule.startswith("at most")]
    quiet = len(alarms) == len(ceilings)
    reason = (
        "the run against itself: no alarm" if quiet else f"{alarms[0].case}, {alarms[0].metric}: {alarms[0].reason}"
    )
    return [
        Planted("none (control)", "*", "", quiet, reason, control),
        _plant_mac(side, rules),
        _plant_joules(side, rules),
        *(_bent(fault, report) for fault, report in _bend(side, rules)),
    ]


def _bent(fault: str, report: GateReport) -> Planted:
    reasons = [row.reason for row in report.rows if row.verdict is not RowVerdict.PASS]
    reason = reasons[0] if reasons else "the gate is green"
    return Planted(fault, "*", "", report.exit_code != 0, reason, report, bent=True)


def _bend(side: Baseline, rules: Sequence[Rule]) -> list[tuple[str, GateReport]]:
    """Ways to get a dearer run past the gate, and what it says."""
    dearer, bends = _dearer_run(side), []
    if any(rule.metric == "macs_mean" and rule.kind != "max" and rule.watches(r) for rule in rules for r in side.cases):
        bends.append(("dearer, every sample called a tie", compare(_tied(dearer), side, rules)))
        bends.append(("dearer, half of the per-sample rows gone", compare(_halved(dearer), side, rules)))
        attacked = [record for record in side.cases if record["kind"] in ("control", "attack")]
        if any(rule.watches(record) for rule in rules for record in attacked):
            known = side.manifest.get("conditions") or {}
            other = {name: {**about, "settings": {"planted": True}} for name, about in known.items()}
            weaker = side.changed(manifest={**side.manifest, "conditions": other})
            bends.append(("another attack under the same name", compare(weaker, side, rules)))
    if side.manifest.get("gate"):
        dropped = dearer.changed(manifest={**side.manifest, "gate": {}})
        bends.append(("dearer, the run's own rules dropped", compare(dropped, side)))
    return bends


def _evaluations(side: Baseline) -> dict[str, Outcomes]:
    names = dict.fromkeys(str(record["evaluation"]) for record in side.cases)
    return {name: outcomes for name in names if (outcomes := side.samples(name)) is not None}


def _dearer_run(side: Baseline) -> Baseline:
    for name, outcomes in _evaluations(side).items():
        macs = outcomes.macs * MACS
        side = _with_samples(side, name, replace(outcomes, macs=macs))
        side = _with_record(side, name, "macs_mean", float(macs.mean()))
    return side


def _tied(side: Baseline) -> Baseline:
    for name, outcomes in _evaluations(side).items():
        every = replace(outcomes, tie=np.ones(len(outcomes), dtype=np.bool_))
        side = _with_record(_with_samples(side, name, every), name, "ties", len(outcomes))
    return side


def _halved(side: Baseline) -> Baseline:
    def half(name: str) -> Outcomes | None:
        outcomes = side.samples(name)
        return None if outcomes is None else outcomes.take(np.arange(len(outcomes) // 2))

    return side.changed(load_samples=half)


def _plant_mac(side: Baseline, rules: Sequence[Rule]) -> Planted:
    fault = "+1 MAC on one sample"
    for rule in rules:
        if rule.metric != "macs_mean" or rule.kind != "exact":
            continue
        for record in side.cases:
            outcomes = side.samples(record["evaluation"]) if rule.watches(record) else None
            if outcomes is None or outcomes.tie.all() or record.get("macs_mean") is None:
                continue
            at = int(np.flatnonzero(~outcomes.tie)[0])
            macs = outcomes.macs.copy()
            macs[at] += 1
            worse = replace(outcomes, macs=macs)
            planted = _with_samples(side, record["evaluation"], worse)
            planted = _with_record(planted, record["evaluation"], "macs_mean", float(macs.mean()))
            return _judged(fault, record["case"], rule, compare(planted, side, [rule]))
    return Planted(fault, "*", "", None, "no rule 'macs_mean: exact', or no samples: nothing to plant in")


def _plant_joules(side: Baseline, rules: Sequence[Rule]) -> Planted:
    fault = f"+{100 * (JOULES - 1):.0f} % joules"
    for rule in rules:
        if rule.metric != "energy_j_per_sample" or rule.kind == "max":
            continue
        for record in side.cases:
            if not rule.watches(record) or record.get("energy_j_per_sample") is None:
                continue
            case, meter = record["case"], record.get("energy_meter")
            value = record["energy_j_per_sample"] * JOULES
            planted = _with_record(side, record["evaluation"], "energy_j_per_sample", value, case)
            planted = planted.changed(load_windows=lambda case=case, meter=meter: _dearer(side, case, str(meter)))
            return _judged(fault, case, rule, compare(planted, side, [rule]))
    return Planted(fault, "*", "", None, "no rule on energy_j_per_sample, or no case has joules: nothing to plant in")


def _judged(fault: str, case: str, rule: Rule, report: GateReport) -> Planted:
    for row in report.rows:
        if row.case == case:
            return Planted(fault, case, rule.text, row.verdict is RowVerdict.REGRESSION, row.reason, report)
    return Planted(fault, case, rule.text, False, "the gate has no row for the case", report)


def _with_samples(side: Baseline, evaluation: str, outcomes: Outcomes) -> Baseline:
    return side.changed(load_samples=lambda name: outcomes if name == evaluation else side.samples(name))


def _with_record(side: Baseline, evaluation: str, metric: str, value: float, case: str | None = None) -> Baseline:
    def changed(record: Record) -> Record:
        hit = record["evaluation"] == evaluation and case in (None, record["case"])
        return {**record, metric: value} if hit else record

    return side.changed(cases=[changed(record) for record in side.cases])


def _dearer(side: Baseline, case: str, meter: str) -> pd.DataFrame:
    windows = side.windows().copy()
    hit = (windows["case"] == case) & (windows["meter"] == meter)
    windows.loc[hit, "energy_j"] *= JOULES
    return windows
