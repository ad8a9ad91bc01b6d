"""Two runs side by side: what changed, by how much, and what cannot be compared at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.report import compared, html, words
from adaptbench.report.figures import shift
from adaptbench.report.tables import Builder, Cell, Column, Table
from adaptbench.report.view import Record, RunLike, View

SECTIONS = {
    "comparable": "What can be compared",
    "counted": "Counted: MACs, accuracy, recovery",
    "sensed": "Sensed: time and energy",
    "exits": "Where inputs leave",
    "cases": "Cases that only one run has",
}


def difference_page(a: RunLike, b: RunLike) -> str:
    """The page as text; the same two runs give the same bytes."""
    first, second = View(a), View(b)
    names = [str((view.manifest.get("suite") or {}).get("name") or view.run.path.name) for view in (first, second)]
    pairs = {
        case: (record, _by_case(second)[case]) for case, record in _by_case(first).items() if case in _by_case(second)
    }
    obstacle = _timing_obstacle(first, second)
    samples = compared.Samples(first, second)
    counted = _counted(samples, pairs, ("clean", "control", "attack"), "table-counted", "Counted figures of both runs")
    swept = _counted(samples, pairs, ("sweep", "reference"), "table-swept", "Sweeps and references of both runs")
    sensed = _sensed(first, second, pairs, obstacle)
    return html.render(
        "difference.html.j2",
        title=f"{names[0]} and {names[1]}: what differs"
        if names[0] != names[1]
        else f"{names[0]}: what differs between two runs",
        kicker=[f"A {a.path.name}", f"B {b.path.name}"],
        contents=list(SECTIONS.items()),
        names=SECTIONS,
        sources=f"the runs A “{a.path.name}” and B “{b.path.name}”",
        lead=_lead(pairs, obstacle),
        facts=_facts(first, second),
        shift=shift.panels(first, {record["evaluation"]: record for _, record in pairs.values()}),
        legend=shift.LEGEND,
        counted=counted,
        swept=swept,
        sensed=sensed,
        exits=_exits(first, pairs),
        only=_only(first, second),
        obstacle=obstacle,
    )


def _by_case(view: View) -> dict[str, Record]:
    return {record["case"]: record for record in view.records}


def _timing_obstacle(a: View, b: View) -> str:
    """Why seconds and joules cannot be compared; empty if they can."""
    devices = [view.manifest.get("device") or {} for view in (a, b)]
    if devices[0].get("fingerprint") != devices[1].get("fingerprint"):
        return f"another device: A ran on {devices[0].get('name', 'unknown')}, B on {devices[1].get('name', 'unknown')}"
    if devices[0].get("threads") != devices[1].get("threads"):
        return f"another number of threads: {devices[0].get('threads')} and {devices[1].get('threads')}"
    return ""


def _lead(pairs: Mapping[str, tuple[Record, Record]], obstacle: str) -> list[str]:
    changed = [case for case, (old, new) in pairs.items() if old.get("macs_mean") != new.get("macs_mean")]
    said = [f"{words.plural(len(pairs), 'case')} occur in both runs; every difference is B against A."]
    if pairs:
        said.append(
            f"The counted cost differs in {words.count(len(changed))} of them."
            if changed
            else "The counted cost is the same in every one of them."
        )
    else:
        said = ["No case occurs in both runs, so that nothing can be compared."]
    said.append(
        f"Seconds and joules cannot be compared: {obstacle}."
        if obstacle
        else "Seconds and joules come from the same device."
    )
    return said


def _facts(a: View, b: View) -> Table:
    columns = [
        Column("", numeric=False),
        Column("A", numeric=False),
        Column("B", numeric=False),
        Column("verdict", numeric=False),
    ]
    table = Builder("table-comparable", "What the two runs are", columns)

    def part(view: View, *path: str) -> str:
        found: Any = view.manifest
        for key in path:
            found = (found or {}).get(key)
        return "" if found is None else str(found)

    lines = [
        ("suite", ("suite", "name"), "cases are matched by id"),
        ("suite sha256", ("suite", "sha256"), "another suite: only cases of the same id are compared"),
        ("device", ("device", "name"), "sensor figures are not comparable"),
        ("fingerprint", ("device", "fingerprint"), "sensor figures are not comparable"),
        ("threads", ("device", "threads"), "sensor figures are not comparable"),
        ("git revision", ("git", "revision"), "another commit"),
        ("torch", ("versions", "torch"), "crafted inputs may differ"),
        ("started", ("started",), "another time"),
        ("command", ("command",), "another command"),
    ]
    for name, path, verdict in lines:
        old, new = part(a, *path), part(b, *path)
        said = "same" if old == new else verdict
        sides = [
            Cell(words.clip(text, 13) if "sha256" in path or "fingerprint" in path else text or words.DASH, value=text)
            for text in (old, new)
        ]
        table.add(name, *sides, said, kind="" if old == new else "changed")
    meters = sorted({*(a.manifest.get("meters") or {}), *(b.manifest.get("meters") or {})})
    for meter in meters:
        found = [((view.manifest.get("meters") or {}).get(meter) or {}).get("found") for view in (a, b)]
        states = ["answered" if one else "silent" if one is False else "not asked" for one in found]
        same = states[0] == states[1]
        table.add(
            f"meter {meter}",
            *states,
            "same" if same else "its figures are not comparable",
            kind="" if same else "changed",
        )
    return table.build()


def _counted(
    samples: compared.Samples, pairs: Mapping[str, tuple[Record, Record]], kinds: Sequence[str], key: str, caption: str
) -> Table | None:
    table = Builder(key, caption, compared.columns())
    done: set[str] = set()
    for old, new in pairs.values():
        if old["evaluation"] in done or old["kind"] not in kinds:
            continue
        done.add(old["evaluation"])
        same = old.get("inputs_sha256") and old.get("inputs_sha256") == new.get("inputs_sha256")
        remark = "same input bytes" if same else "other input bytes: compare by interval"
        for metric in compared.COUNTED:
            if metric.field == "recovery" and old["kind"] not in ("control", "attack"):
                continue
            bounds = samples.interval(old["evaluation"], metric)
            table.rows.append(compared.row(old["evaluation"], old, new, metric, bounds, remark))
    return table.build() if table.rows else None


def _sensed(a: View, b: View, pairs: Mapping[str, tuple[Record, Record]], device: str) -> Table | None:
    table = Builder("table-sensed", "Times and energies of both runs", compared.columns())
    windows = [view.run.windows() for view in (a, b)]
    for case, (old, new) in pairs.items():
        if not (old.get("batch_size") and new.get("batch_size")):
            continue
        for metric in compared.SENSED:
            obstacle = device or compared.sensor_obstacle(old, new, metric)
            bounds = None if obstacle else compared.window_interval(windows, case, old, metric)
            table.rows.append(
                compared.row(case, old, new, metric, bounds, "not comparable" if obstacle else "", obstacle)
            )
    return table.build() if table.rows else None


def _exits(a: View, pairs: Mapping[str, tuple[Record, Record]]) -> Table | None:
    columns = [
        Column("case", numeric=False),
        Column("exit", numeric=False),
        Column("A"),
        Column("B"),
        Column("shift", unit="share"),
    ]
    table = Builder("table-exit-shift", "Exits of both runs", columns)
    done: set[str] = set()
    for old, new in pairs.values():
        before, after = old.get("exit_histogram") or {}, new.get("exit_histogram") or {}
        if old["evaluation"] in done or before == after or not (before and after):
            continue
        done.add(old["evaluation"])
        totals = [sum(counts.values()) or 1 for counts in (before, after)]
        for name in dict.fromkeys([*before, *after]):
            shares = [counts.get(name, 0) / total for counts, total in zip((before, after), totals, strict=True)]
            shift = shares[1] - shares[0]
            table.add(
                old["evaluation"],
                name,
                *(Cell(words.percent(share), value=share) for share in shares),
                Cell(words.points(shift) if shift else "none", value=shift),
                kind="changed" if shift else "",
            )
    return table.build() if table.rows else None


def _only(a: View, b: View) -> list[tuple[str, list[str]]]:
    left, right = _by_case(a), _by_case(b)
    found = [("A", [case for case in left if case not in right]), ("B", [case for case in right if case not in left])]
    return [(side, cases) for side, cases in found if cases]
