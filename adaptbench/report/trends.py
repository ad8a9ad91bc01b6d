"""A history in words: sentences, names of cases, changes; shared by the terminal and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from adaptbench.report import words
from adaptbench.report.modes import clause
from adaptbench.report.pairing import case_name
from adaptbench.report.policy_names import policy_name
from adaptbench.report.serving_tables import stream_name
from adaptbench.report.study_tables import graph_title
from adaptbench.report.view import RunLike, View
from adaptbench.results.decoding import DECODER
from adaptbench.results.entries import Entry
from adaptbench.results.gate_decoding import DecodingSide
from adaptbench.results.gate_serving import ServingSide
from adaptbench.results.gate_studies import StudySide
from adaptbench.results.history import Gap, History, Series, Step, Trend, Value
from adaptbench.results.identity import mode_of
from adaptbench.results.serving import PROVISION

METRICS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "macs_mean": ("MACs a sample", words.macs),
    "accuracy": ("accuracy", words.percent),
    "recovery": ("taken back", words.percent),
    "latency_s_per_sample": ("time a sample", words.seconds),
    "energy_j_per_sample": ("energy a sample", words.joules),
    "net_speedup": ("speed-up", lambda value: f"{words.number(value)} ×"),
    "simulated_p99_s": ("p99", words.seconds),
    "simulated_goodput": ("answered in time", words.percent),
    "simulated_macs": ("MACs a request", words.macs),
    "simulated_benign_p99_s": ("p99 of the honest", words.seconds),
    "simulated_benign_goodput": ("of the honest in time", words.percent),
    "simulated_benign_accuracy": ("accuracy, the honest", words.percent),
    "replicas": ("replicas needed", words.count),
    "macs_per_token": ("MACs a character", words.macs),
    "bits_per_character": ("bits a character", words.number),
    "identical": ("answers like the greedy ones", words.percent),
    "increase": ("dearer under attack", words.percent),
    "saving_taken_back": ("saving taken back", words.percent),
    "latency_s_per_token": ("time a character", words.seconds),
    "energy_j_per_token": ("energy a character", words.joules),
}
"""Field → what it is called, and how it is written."""


def titled(trend: Trend) -> str:
    """``bench``; with its limit where it has one."""
    return trend.name if trend.limit is None else f"{trend.name}, at most {words.count(trend.limit)} inputs"


def verdict(history: History) -> str:
    """One sentence over all trends: how many steps, and how many of them for the worse."""
    steps = [step for trend in history.trends for _, step in trend.stepped]
    compared = [trend for trend in history.trends if len(trend.runs) > 1]
    if not compared:
        return "No suite has two runs here, so that nothing can have changed."
    figures = words.plural(sum(len(trend.series) for trend in compared), "figure")
    runs = words.plural(sum(len(trend.runs) for trend in compared), "run")
    if not steps:
        return f"No step beyond noise in {figures} over {runs}."
    worse = sum(step.worse for step in steps)
    ways = [
        f"{words.count(n)} {way}" for n, way in ((worse, "for the worse"), (len(steps) - worse, "for the better")) if n
    ]
    if len(ways) == 1 and len(steps) > 1:
        ways = [f"all {ways[0].split(' ', 1)[1]}"]
    return f"{words.plural(len(steps), 'step')} beyond noise in {figures} over {runs}: {words.listing(ways)}."


def asides(trend: Trend) -> list[str]:
    """What could not be told and what drifted, in sentences."""
    said = []
    pairs: dict[tuple[int, int, str], int] = {}
    for series in trend.series:
        for gap in series.gaps:
            why = gap.reason.partition("; write the baseline")[0].replace("static reference", "plain net")
            pairs[gap.since, gap.run, why] = pairs.get((gap.since, gap.run, why), 0) + 1
    for (since, run, reason), n in pairs.items():
        said.append(f"runs {since + 1} and {run + 1}: {words.plural(n, 'figure')} cannot be told: {reason}")
    for series in trend.series:
        if series.drift is not None:
            name = f"{metric_of(series)} of {name_of(trend, series)}"
            said.append(
                f"{name} drifted: {change(series, series.drift)} from the first run to the last, no single step"
            )
    return said


def name_of(trend: Trend, series: Series) -> str:
    """The case of a series in words."""
    entry = next(run for run, one in zip(reversed(trend.runs), reversed(series.values), strict=True) if one is not None)
    if isinstance(entry.side, ServingSide):
        return _of_serving(series.record)
    if isinstance(entry.side, DecodingSide):
        kind = series.record["kind"]
        return str(series.record["case"]) if kind == DECODER else f"{series.record['decoder']}, {kind}"
    if isinstance(entry.side, StudySide):
        return _of_study(entry.side.record, series.record, series.case)
    # only manifest and records are read of it: a kept summary will do
    name = case_name(View(cast("RunLike", entry.side)), series.record)
    seed = f", seed {series.record['seed']}" if series.record.get("seed") else ""
    timed = f", batch {series.record['batch_size']}{clause(mode_of(series.record))}"
    batch = timed if series.kind != "counted" else ""
    return f"{name}{seed}{batch}"


def _of_study(record: Mapping[str, Any], told: Mapping[str, str], case: str) -> str:
    graph = graph_title(told["graph"], record["graphs"][told["graph"]])
    rest = case.removeprefix(f"{told['graph']}/")
    if told["policy"]:
        rest = rest.replace(told["policy"], policy_name(told["policy"]), 1).replace("/b", ", batch ").replace("/", ", ")
    return f"{graph}: {'plain net' if rest == 'reference' else rest}"


def _of_serving(row: Mapping[str, Any]) -> str:
    """A stream, or a provision, in words."""
    if row["kind"] == PROVISION:
        return f"{policy_name(row['model'])}: the cheapest provision at a load of {row['load']:g}, {row['mode']}"
    return f"{policy_name(row['model'])}, {row['arrivals']}, {row['mode']}: {stream_name(row)}"


def metric_of(series: Series) -> str:
    """``energy a sample, modelled``; what is counted or a time says it by its name."""
    name = METRICS[series.metric][0]
    return f"{name}, {series.kind}" if series.metric == "energy_j_per_sample" else name


def written(series: Series, value: Value | None) -> str:
    """A value of a series with its unit; the dash where there is none."""
    return words.DASH if value is None else METRICS[series.metric][1](value.value)


def change(series: Series, step: Step) -> str:
    """``+11.8 % [9.1, 14.2]``, ``−0.6 points``."""
    text = words.percent(step.change, signed=True) if series.relative else words.points(step.change)
    bounds = None if step.low is None or step.high is None else (step.low, step.high)
    return f"{text} {words.interval(bounds)}".rstrip()


def day(entry: Entry) -> str:
    """The day a run was started on."""
    return entry.started.date().isoformat()


def document(history: History) -> dict[str, Any]:
    """The history for programs; names and units of the records' fields."""
    return {
        "verdict": verdict(history),
        "trends": [
            {
                "kind": trend.kind,
                "name": trend.name,
                "limit": trend.limit,
                "runs": [_run(run) for run in trend.runs],
                "series": [_series(series) for series in trend.series],
            }
            for trend in history.trends
        ],
        "unreadable": [{"path": str(path), "reason": reason} for path, reason in history.unreadable],
    }


def _run(entry: Entry) -> dict[str, Any]:
    fingerprint, device = entry.device
    return {
        "path": str(entry.path),
        "id": entry.id,
        "started": entry.started.isoformat(),
        "git_revision": entry.revision,
        "device": device,
        "fingerprint": fingerprint,
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "case": series.case,
        "metric": series.metric,
        "kind": series.kind,
        "values": [None if v is None else {"value": v.value, "low": v.low, "high": v.high} for v in series.values],
        "steps": [_told(step) for step in series.steps],
        "gaps": [{"run": gap.run, "since": gap.since, "reason": gap.reason} for gap in series.gaps],
        "drift": None if series.drift is None else _told(series.drift),
    }


def _told(step: Step) -> dict[str, Any]:
    return {
        "run": step.run, "since": step.since, "change": step.change, "low": step.low, "high": step.high,
        "worse": step.worse, "reason": step.reason,
    }  # fmt: skip


def left_out(unreadable: tuple[Path, str]) -> str:
    """What could not be read, and why, on one line."""
    path, reason = unreadable
    return f"{path}: {reason.rstrip('.')}"


def gap_at(series: Series, run: int) -> Gap | None:
    """What cannot be told at a run."""
    return next((gap for gap in series.gaps if gap.run == run), None)
