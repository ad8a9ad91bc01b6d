"""A run of kind serving as one HTML page: the verdict, the harm, every stream, provisions, the real run, its times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptbench.report import html, serving_tables, words
from adaptbench.report.figures import serving as figures
from adaptbench.report.policy_names import policy_name
from adaptbench.results.serving import ServingRun

SECTIONS = {
    "harm": "What hostile requests cost the others",
    "streams": "Every stream",
    "provisions": "The cheapest provision",
    "checks": "Is the simulation right?",
    "times": "What it is fed with",
    "reproduce": "Method, and how to do it again",
}
Record = Mapping[str, Any]
Row = Mapping[str, Any]


def write_serving_report(run: Path, out: Path) -> Path:
    """Write the page of a run's directory or kept file.

    Raises:
        RunError: it holds none. OutputError: ``out`` cannot be written.
    """
    return html.write(serving_page(ServingRun.read(run)), out)


def serving_page(record: Record) -> str:
    """The page as text; the same run gives the same bytes."""
    device = record.get("device") or {}
    hostile = any(row["share"] for row in record["streams"])
    filled_in = {
        "harm": hostile,
        "streams": record["streams"],
        "provisions": record["provisions"],
        "checks": record["checks"],
        "times": record["models"],
        "reproduce": True,
    }
    names = {key: name for key, name in SECTIONS.items() if filled_in[key]}
    harm = serving_tables.harm_table(record) if hostile else None
    return html.render(
        "serving.html.j2",
        title=record["title"] or record["name"],
        kicker=[f"suite {record['name']}", str(device.get("name") or ""), str(record.get("started", ""))[:10]],
        contents=list(names.items()),
        names=names,
        sources=f"the run “{record['name']}”",
        limit=_limit(record),
        verdict=sentences(record),
        chips=_chips(record),
        limits=limits(record),
        figure=None if harm is None else figures.harm(record, harm),
        streams=serving_tables.stream_table(record) if record["streams"] else None,
        provisions=serving_tables.provision_table(record) if record["provisions"] else None,
        checks=serving_tables.check_table(record) if record["checks"] else None,
        times=serving_tables.time_table(record) if record["models"] else None,
        ratios=_ratios(record),
        command=str(record.get("command") or ""),
        facts=_facts(record),
        text=str(record.get("text") or ""),
        versions=html.facts(record.get("versions") or {}),
    )


def sentences(record: Record) -> list[tuple[str, str]]:
    """Three at most, each as (the point, the rest): the harm, the modes, the check."""
    found = (_harmed(record), _modes(record), _checked(record))
    return [(lead, rest) for lead, rest in found if lead or rest]


def _harmed(record: Record) -> tuple[str, str]:
    """The largest share on the first net under attack, first arrivals, first mode."""
    rows = [row for row in record["streams"] if row["share"]]
    if not rows:
        return "No request of this run is hostile.", ""
    first = rows[0]
    same = [row for row in rows if all(row[name] == first[name] for name in ("model", "arrivals", "mode"))]
    most = max(row["share"] for row in same)
    worst = {row["defence"]: row for row in same if row["share"] == most}
    open_row = worst["none"]
    where = f"{policy_name(first['model'])}, {first['arrivals']} arrivals, {first['mode']}"
    lead = (
        f"{words.percent(most, 0)} hostile requests make the honest wait {_times(open_row)} as long at the 99th "
        f"percentile and take {_points(open_row, 'simulated_benign_goodput_lost')} of their goodput ({where})."
    )
    if "budget" not in worst:
        return lead, ""
    kept = worst["budget"]
    rest = (
        f"Under a hard budget it is {_times(kept)}, and {_points(kept, 'simulated_benign_goodput_lost')} of goodput; "
        f"the honest pay {_points(kept, 'simulated_benign_accuracy_lost')} of accuracy for it."
    )
    return lead, rest


def _times(row: Row) -> str:
    ratio = row["simulated_benign_p99_ratio"]
    return words.DASH if ratio is None else f"{words.number(ratio, 1)} times"


def _points(row: Row, name: str) -> str:
    value = row[name]
    return words.DASH if value is None else f"{words.number(100 * value, 1)} points"


def _modes(record: Record) -> tuple[str, str]:
    """Whole batches against queues, clean, on the first net and arrivals."""
    clean = [row for row in record["streams"] if not row["share"] and row["defence"] == "none"]
    if not clean:
        return "", ""
    first = clean[0]
    by_mode = {r["mode"]: r for r in clean if (r["model"], r["arrivals"]) == (first["model"], first["arrivals"])}
    if len(by_mode) < 2:
        return "", ""
    told = [f"{words.seconds(row['simulated_p99_s'])} in {mode}" for mode, row in by_mode.items()]
    return "", f"With nobody hostile, {policy_name(first['model'])} answers 99 of 100 within {words.listing(told)}."


def _checked(record: Record) -> tuple[str, str]:
    rows = record["checks"]
    if not rows:
        return "", "Nothing was served for real: nobody knows how far the simulation is off."
    parts = []
    for clock, read in (("cpu", "by CPU time"), ("wall", "by the wall’s clock")):
        of = [row for row in rows if row["clock"] == clock]
        if of:
            parts.append(f"{sum(row['within'] for row in of)} of {words.plural(len(of), 'real run')} {read}")
    return "", f"Mean and p99 of the simulation are within 10 % of {words.listing(parts)}."


def _chips(record: Record) -> list[tuple[str, str]]:
    """(kind, text): how the figures of the page came about."""
    measured = "node times measured" + (" in CPU seconds" if record["clock"] == "cpu" else "")
    joules = any(row["simulated_energy_j"] is not None for row in record["streams"])
    return [
        ("counted", "MACs and answers executed"),
        ("measured", measured),
        ("modelled", "latency and goodput simulated"),
        ("measured", "joules of steps measured") if joules else ("absent", "no joules measured"),
    ]


def _limit(record: Record) -> str:
    """What a run with ``--limit`` has to say of itself before anything else; "" of a whole one."""
    if record.get("limit") is None:
        return ""
    n = words.count(record["limit"])
    return f"A trial run: --limit {record['limit']} let at most {n} test samples in; its figures are not the suite’s."


def limits(record: Record) -> list[str]:
    """What a careful reader should know, the gravest first."""
    notes = ServingRun.incomplete(record)
    far = [row for row in record["checks"] if not row["within"]]
    if far:
        notes.append(
            f"{words.cardinal(len(far))} of {words.plural(len(record['checks']), 'real run')} differ from their "
            "simulation by more than 10 %; the table says why."
        )
    over = sorted({row["case"] for row in record["streams"] if row["overloaded"]})
    if over:
        notes.append(
            f"In {words.plural(len(over), 'stream')} the replicas are busy all the time: there latency grows as long "
            "as the stream lasts, and figures hold for this length only."
        )
    if record["clock"] == "cpu":
        notes.append("Nodes are timed in CPU seconds: as if each replica had a core of its own.")
    if record["streams"] and record["streams"][0]["simulated_energy_j"] is None:
        notes.append(f"No joules: {record['streams'][0]['simulated_energy_j_missing']}.")
    return notes


def _ratios(record: Record) -> list[str]:
    """How single calls scatter about their windows."""
    told = []
    for label, model in record["models"].items():
        for mode, ratios in model["call_ratios"].items():
            ordered = sorted(ratios)
            middle, last = ordered[len(ordered) // 2], ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)]
            told.append(
                f"{policy_name(label)}, {mode}: {words.count(len(ordered))} calls of a stream took "
                f"{words.number(middle)} (median) and {words.number(last)} times (p99) what their windows say."
            )
    return told


def _facts(record: Record) -> list[tuple[str, str]]:
    device, git, crafted = record.get("device") or {}, record.get("git") or {}, record.get("crafted_by") or {}
    models = {
        policy_name(label): f"{words.percent(model['accuracy'])} right at {words.macs(model['macs_mean'])} MACs; full "
        f"batches answer {words.count(model['capacity_rps'])} clean requests a second"
        for label, model in record["models"].items()
    }
    return html.facts(
        {
            "suite": record["name"],
            "suite sha256": record["sha256"],
            "device": f"{device.get('name', 'unknown')}, {device.get('threads', '?')} threads" if device else "",
            "git revision": git.get("revision"),
            **models,
            "hostile inputs": f"{crafted['condition']} of {crafted['run']}" if crafted else "",
            "started": record.get("started"),
            "ended": record.get("ended"),
        }
    )
