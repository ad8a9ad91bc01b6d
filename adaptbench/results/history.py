"""Runs over time: each figure of each case from run to run, and where it stepped beyond noise.

A step is what the gate would call a change where nothing at all is allowed: the interval of the change lies on one side
of zero, and it survives Holm's correction over all figures of that pair of runs. Each run is held against the one
before it; seconds and joules against the last one before it on the same device, and only over the same input bytes.
Modelled joules follow from the MACs: they step where these do. What a run of kind serving simulates is fed by measured
times, and is held against the last run before it on the same device. Characters and MACs of a run of kind decoding are
held against the one before, its seconds and joules as a suite's. A drift is a figure that never stepped and yet
differs, by the same rule, between the first run and the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptbench.results.baseline import Baseline
from adaptbench.results.decoding import FIGURES_OF
from adaptbench.results.entries import Entry, Side, entries
from adaptbench.results.gate import compare
from adaptbench.results.gate_decoding import DecodingSide
from adaptbench.results.gate_rows import GateRow, RowVerdict
from adaptbench.results.gate_rules import EVERY, Rule, Source
from adaptbench.results.gate_serving import ServingSide
from adaptbench.results.gate_studies import StudySide
from adaptbench.results.identity import case_key
from adaptbench.results.serving import PLAIN, PROVISION
from adaptbench.results.study_cases import value_of

COUNTED = ("macs_mean", "accuracy", "recovery")
SENSED = ("latency_s_per_sample", "energy_j_per_sample")
OF_STUDIES = ("macs_mean", "accuracy", "net_speedup")
OF_SERVING = ("simulated_p99_s", "simulated_goodput", "simulated_macs")
OF_HARMED = ("simulated_benign_p99_s", "simulated_benign_goodput", "simulated_benign_accuracy")
"""Beside them, of streams with hostile requests or a budget: what the honest bear."""
_SERVED = (*OF_SERVING, *OF_HARMED, "replicas")
DECODED = ("macs_per_token", "bits_per_character", "identical", "increase", "saving_taken_back")
DECODING_SENSED = ("latency_s_per_token", "energy_j_per_token")
_STEPPED = (RowVerdict.REGRESSION, RowVerdict.IMPROVEMENT)


@dataclass(frozen=True, slots=True)
class Value:
    """A figure in one run, with its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


Figure = tuple[str, Mapping[str, Any], Value]
"""Kind, record, value."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change beyond noise.

    Args:
        run: place of the run that has the new figure. since: place of the run it was held against.
        change: ratio − 1 of a cost, difference of a share. low, high: of the change, at 90 %; None where it is exact.
        worse: whether it is one for the worse. reason: the gate's sentence.
    """

    run: int
    since: int
    change: float
    low: float | None
    high: float | None
    worse: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Two runs between which nothing can be told of a figure, and why."""

    run: int
    since: int
    reason: str


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one case over the runs of a trend.

    Args:
        case: id. metric: field name. kind: ``counted``, ``measured``, ``modelled`` or ``simulated``.
        values: one a run, None where the run lacks it. steps, gaps: in order. drift: see the module.
        record: the case's, of the last run that has it.
    """

    case: str
    metric: str
    kind: str
    values: tuple[Value | None, ...]
    steps: tuple[Step, ...]
    gaps: tuple[Gap, ...]
    drift: Step | None
    record: Mapping[str, Any]

    @property
    def relative(self) -> bool:
        """True where a change is a ratio, False where it is a difference of shares."""
        return EVERY[self.metric].ratio


@dataclass(frozen=True, slots=True)
class Trend:
    """The runs of one suite or study, of whatever kind, in order of time, and what its figures did."""

    kind: str
    name: str
    limit: int | None
    runs: tuple[Entry, ...]
    series: tuple[Series, ...]

    @property
    def stepped(self) -> list[tuple[Series, Step]]:
        """Every step, for the worse first, then the latest, then the largest."""
        found = [(series, step) for series in self.series for step in series.steps]
        return sorted(found, key=lambda pair: (not pair[1].worse, -pair[1].run, -abs(pair[1].change)))

    @property
    def moved(self) -> list[Series]:
        """The series that stepped, each once, in the order of `stepped`."""
        return list({id(series): series for series, _ in self.stepped}.values())


@dataclass(frozen=True, slots=True)
class History:
    """Trends, and what was named but could not be read, with the reason."""

    trends: tuple[Trend, ...]
    unreadable: tuple[tuple[Path, str], ...]


def history(places: Iterable[Path]) -> History:
    """Read runs, kept summaries, or folders of them, and follow each figure.

    Args:
        places: a run directory, a file that `baseline` kept, or a folder with any of these in it (not deeper).
    """
    runs, unreadable = entries(places)
    groups: dict[tuple[str, str, int | None], list[Entry]] = {}
    for entry in runs:
        groups.setdefault((entry.kind, entry.name, entry.limit), []).append(entry)
    return History(tuple(_trend(runs) for runs in groups.values()), tuple(unreadable))


def _trend(runs: list[Entry]) -> Trend:
    held = [_figures(entry) for entry in runs]
    steps: dict[tuple[str, str], list[Step]] = {}
    gaps: dict[tuple[str, str], list[Gap]] = {}
    for place in range(1, len(runs)):
        for metrics, since in _pairs(runs, place):
            for key, row in _rows(runs, since, place, metrics).items():
                modelled = (held[place].get(key) or ("",))[0] == "modelled"
                if row.verdict in _STEPPED and (not modelled or _macs_stepped(key[0], held[place], steps, place)):
                    steps.setdefault(key, []).append(_step(row, since, place))
                elif row.verdict is RowVerdict.NOT_COMPARABLE or _doubted(row):
                    gaps.setdefault(key, []).append(Gap(place, since, row.reason))
    last = len(runs) - 1
    counted = {"study": OF_STUDIES, "serving": _SERVED, "decoding": DECODED}.get(runs[0].kind, COUNTED)
    ends = _rows(runs, 0, last, counted) if last > 1 else {}
    drifts = {key: _step(row, 0, last) for key, row in ends.items() if row.verdict in _STEPPED and key not in steps}
    series = []
    for key in dict.fromkeys(key for figures in held for key in figures):
        found = [figures.get(key) for figures in held]
        kinds = [kind for kind, _, _ in filter(None, found)]
        record = next(record for _, record, _ in filter(None, reversed(found)))
        values = tuple(None if one is None else one[2] for one in found)
        series.append(
            Series(
                *key,
                kind=kinds[-1],
                values=values,
                steps=tuple(steps.get(key, ())),
                gaps=tuple(gaps.get(key, ())),
                drift=drifts.get(key),
                record=record,
            )
        )
    return Trend(runs[0].kind, runs[0].name, runs[0].limit, tuple(runs), tuple(series))


def _macs_stepped(
    case: str, figures: Mapping[tuple[str, str], Figure], steps: Mapping[tuple[str, str], list[Step]], place: int
) -> bool:
    """Whether the MACs of a timed case stepped at this run; `_pairs` has counted figures first."""
    record = figures[case, "energy_j_per_sample"][1]
    return any(step.run == place for step in steps.get((str(record["evaluation"]), "macs_mean"), ()))


def _pairs(runs: Sequence[Entry], place: int) -> list[tuple[tuple[str, ...], int]]:
    """Which figures of a run are held against which earlier run."""
    if runs[0].kind == "study":
        return [(OF_STUDIES, place - 1)]
    here = runs[place].device[0]
    same = [since for since in range(place) if runs[since].device[0] == here]
    since = same[-1] if same else place - 1
    if runs[0].kind == "serving":
        return [(_SERVED, since)]
    counted, sensed = (DECODED, DECODING_SENSED) if runs[0].kind == "decoding" else (COUNTED, SENSED)
    return [(counted, place - 1), (sensed, since)]


def _rows(runs: Sequence[Entry], since: int, place: int, metrics: Sequence[str]) -> dict[tuple[str, str], GateRow]:
    """(series' case, metric) → the gate's row, nothing being allowed."""
    rules = [Rule(name, "drop" if EVERY[name].higher_is_better else "increase") for name in metrics]
    here, there = runs[place].side, runs[since].side
    report = compare(here, there, rules)
    ids, others = _ids(here), _other_inputs(here, there)
    found = {}
    for row in report.rows:
        if row.metric in metrics and row.case != "*":
            sensed = _is_sensed(row.metric)
            if sensed and row.case in others:
                row = row.judged(RowVerdict.NOT_COMPARABLE, "other inputs were timed (inputs_sha256 differs)")
            found[ids.get((row.case, sensed), row.case), row.metric] = row
    return found


def _other_inputs(here: Side, there: Side) -> set[str]:
    """Cases of suites whose input bytes are not those of the earlier run."""
    if not isinstance(here, Baseline) or not isinstance(there, Baseline):
        return set()
    before = {case_key(record): record.get("inputs_sha256") for record in there.cases}
    return {
        str(record["case"])
        for record in here.cases
        if before.get(case_key(record), record.get("inputs_sha256")) != record.get("inputs_sha256")
    }


def _ids(side: Side) -> dict[tuple[str, bool], str]:
    """(case of a row, sensed) → what its series is called: batch sizes share their counted figures."""
    if not isinstance(side, Baseline):
        return {}
    return {
        (str(record["case"]), sensed): str(record["case" if sensed else "evaluation"])
        for record in side.cases
        for sensed in (False, True)
    }


def _is_sensed(metric: str) -> bool:
    return EVERY[metric].source in (Source.SENSOR, Source.TIMED, Source.METERED)


def _doubted(row: GateRow) -> bool:
    """Whether a change lies beyond noise and yet tells nothing: flagged windows, or the plain net moved as well."""
    off_zero = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
    return row.verdict is RowVerdict.INCONCLUSIVE and off_zero and "Holm" not in row.reason


def _step(row: GateRow, since: int, place: int) -> Step:
    change = 0.0 if row.change is None else row.change
    return Step(place, since, change, row.low, row.high, row.verdict is RowVerdict.REGRESSION, row.reason)


def _figures(entry: Entry) -> dict[tuple[str, str], Figure]:
    """(case, metric) → a figure of one run."""
    found: dict[tuple[str, str], Figure] = {}
    if isinstance(entry.side, ServingSide):
        return _simulated(entry.side)
    if isinstance(entry.side, DecodingSide):
        return _decoded(entry.side)
    if isinstance(entry.side, StudySide):
        for case in entry.side.cases():
            for metric in set(OF_STUDIES) & set(case.figures):
                value = value_of(case, metric)
                if value is not None and case.name.kind != "executed":
                    kind = "measured" if _is_sensed(metric) else "counted"
                    found[case.id, metric] = kind, case.name.told, _value(value, case.row.get(f"{metric}_ci"))
        return found
    assert isinstance(entry.side, Baseline)
    for record in entry.side.cases:
        for metric in (*COUNTED, *SENSED):
            value = record.get(metric)
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                continue
            sensed = _is_sensed(metric)
            kind = "counted"
            if sensed:
                modelled = str(record.get("energy_provenance") or "").startswith("modelled")
                kind = "modelled" if modelled and metric == "energy_j_per_sample" else "measured"
            name = str(record["case" if sensed else "evaluation"])
            found.setdefault((name, metric), (kind, record, _value(float(value), record.get(f"{metric}_ci"))))
    return found


def _simulated(side: ServingSide) -> dict[tuple[str, str], Figure]:
    """Of streams and provisions; a plain stream's honest are everybody, and have no figures of their own."""
    found: dict[tuple[str, str], Figure] = {}
    for case, row in side.cases.items():
        harmed = row["kind"] != PLAIN or bool(row.get("share"))
        metrics = ("replicas",) if row["kind"] == PROVISION else (*OF_SERVING, *(OF_HARMED if harmed else ()))
        for metric in metrics:
            if row.get(metric) is not None:
                found[case, metric] = "simulated", row, _value(float(row[metric]), row.get(f"{metric}_ci"))
    return found


def _decoded(side: DecodingSide) -> dict[tuple[str, str], Figure]:
    """Of decoders and attacks."""
    found: dict[tuple[str, str], Figure] = {}
    for case, row in side.cases.items():
        for metric in set(FIGURES_OF[row["kind"]]) & {*DECODED, *DECODING_SENSED}:
            if row.get(metric) is not None:
                kind = "measured" if _is_sensed(metric) else "counted"
                found[case, metric] = kind, row, _value(float(row[metric]), row.get(f"{metric}_ci"))
    return found


def _value(value: float, bounds: Sequence[float | None] | None) -> Value:
    low, high = bounds if bounds and len(bounds) == 2 else (None, None)
    return Value(value, low, high)
