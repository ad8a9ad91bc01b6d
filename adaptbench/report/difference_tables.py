"""The tables of the difference page: what changed beyond noise, everything else behind it, and what the runs are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptbench.report import compared, sensed, words
from adaptbench.report.compared import Finding
from adaptbench.report.pairing import Common, Pair, exit_shares
from adaptbench.report.sensed import TIME, Sensed
from adaptbench.report.tables import Builder, Column, Row, Table, TableCell
from adaptbench.report.view import View
from adaptbench.results.devices import differing

Titled = tuple[str, Table]
"""What a folded table is called, and the table."""

_KINDS = {"clean": "Clean, controls and attacks", "sweep": "Sweeps and plain nets"}


def changed(findings: Sequence[Finding], timed: Sequence[Sensed]) -> list[Titled]:
    """What changed beyond noise, the largest first: counted, and each source of seconds and joules by itself."""
    made = []
    rows = [compared.counted_row(finding) for finding in findings if finding.beyond]
    if rows:
        made.append(
            (
                "Counted",
                _table("table-changed", "Counted figures that changed beyond noise", rows, inputs=True, cards=True),
            )
        )
    for key, title, found in _sources(timed):
        rows = [sensed.row(one) for one in found if one.beyond]
        if rows:
            made.append((title, _table(f"table-changed-{key}", f"{title}: changed beyond noise", rows, cards=True)))
    return made


def counted(findings: Sequence[Finding]) -> list[Titled]:
    """Every counted figure: of the conditions first, then of sweeps and references."""
    made = []
    for key, (kind, title) in zip(("counted", "swept"), _KINDS.items(), strict=True):
        rows = [
            compared.counted_row(finding)
            for finding in findings
            if (finding.pair.old["kind"] in ("sweep", "reference")) == (kind == "sweep")
        ]
        if rows:
            made.append((title, _table(f"table-{key}", f"{title}, counted in both runs", rows, inputs=True)))
    return made


def timed(found: Sequence[Sensed]) -> list[Titled]:
    """Every second and joule, each source by itself."""
    return [
        (title, _table(f"table-{key}", f"{title}, of both runs", [sensed.row(one) for one in part]))
        for key, title, part in _sources(found)
    ]


def _sources(found: Sequence[Sensed]) -> list[tuple[str, str, list[Sensed]]]:
    """(key, title, figures) of time, of measured and of modelled energy; measured and modelled share no table."""
    joules = [one for one in found if one.metric is not TIME]
    parts = [("time", "Time, measured", [one for one in found if one.metric is TIME])]
    parts += [
        (
            f"energy-{kind or 'none'}",
            f"Energy, {kind or 'without a figure'}",
            [one for one in joules if one.kind == kind],
        )
        for kind in ("measured", "modelled", "")
    ]
    return [part for part in parts if part[2]]


def _table(key: str, caption: str, rows: Sequence[Row], *, inputs: bool = False, cards: bool = False) -> Table:
    table = Builder(key, caption, compared.columns(inputs=inputs))
    table.rows.extend(rows)
    return table.build(cards=cards)


def exits(common: Sequence[tuple[Pair, Common]]) -> Table | None:
    """Shares of the exits, of the cases whose inputs leave elsewhere than before."""
    columns = [
        Column("case", numeric=False),
        Column("exit", numeric=False),
        Column("A"),
        Column("B"),
        Column("shift", unit="share"),
    ]
    table = Builder("table-exit-shift", "Exits of both runs", columns)
    for pair, shared in common:
        shares = None if shared.obstacle else exit_shares(shared, pair)
        if shares is None or shares[1][0] == shares[1][1]:
            continue
        for name, before, after in zip(shares[0], *shares[1], strict=True):
            change = after - before
            table.add(
                TableCell(pair.name, value=pair.evaluation),
                name,
                *(TableCell(words.percent(share), value=share) for share in (before, after)),
                TableCell(words.points(change) if change else "none", value=change),
                kind="changed" if change else "",
            )
    return table.build() if table.rows else None


def facts(a: View, b: View) -> list[Titled]:
    """What the two runs are: what differs, then what is the same."""
    columns = [
        Column("of the run", numeric=False),
        Column("A", numeric=False),
        Column("B", numeric=False),
        Column("what follows", numeric=False),
    ]
    apart = Builder("table-comparable", "In what the two runs differ", columns)
    alike = Builder("table-alike", "What is the same in both runs", columns[:2])

    def add(name: str, sides: Sequence[TableCell], said: str, *, same: bool) -> None:
        if same:
            alike.add(name, sides[0])
        else:
            apart.add(name, *sides, said, kind="changed")

    def part(view: View, *path: str) -> str:
        value: Any = view.manifest
        for key in path:
            value = (value or {}).get(key)
        return "" if value is None else str(value)

    lines = [
        ("suite", ("suite", "name"), "cases are matched by model, policy and condition"),
        ("suite sha256", ("suite", "sha256"), "another suite: only cases that both have are compared"),
        ("limit", ("suite", "limit"), "figures are over the inputs that both have"),
        ("device", ("device", "name"), "sensor figures are not comparable"),
        ("fingerprint", ("device", "fingerprint"), "sensor figures are not comparable"),
        *((name, ("device", name), "sensor figures are not comparable") for name in _moved(a, b)),
        ("git revision", ("git", "revision"), "another commit"),
        ("torch", ("versions", "torch"), "crafted inputs may differ"),
        ("started", ("started",), "another time"),
        ("command", ("command",), "another command"),
    ]
    for name, path, follows in lines:
        old, new = part(a, *path), part(b, *path)
        short = "sha256" in path or "fingerprint" in path
        sides = [TableCell(words.clip(text, 13) if short else text or words.DASH, value=text) for text in (old, new)]
        add(name, sides, follows, same=old == new)
    for meter in sorted({*(a.manifest.get("meters") or {}), *(b.manifest.get("meters") or {})}):
        answers = [((view.manifest.get("meters") or {}).get(meter) or {}).get("found") for view in (a, b)]
        states = ["answered" if one else "silent" if one is False else "not asked" for one in answers]
        follows = "its figures are not comparable"
        add(f"meter {meter}", [TableCell(state) for state in states], follows, same=states[0] == states[1])
    made = [("", apart.build())] if apart.rows else []
    return made + ([("What is the same in both", alike.build())] if alike.rows else [])


def _moved(a: View, b: View) -> list[str]:
    """The details of the device that differ; the number of threads in any case."""
    details = [name for name, _, _ in differing(a.manifest.get("device") or {}, b.manifest.get("device") or {})]
    return list(dict.fromkeys([*(name for name in details if name != "name"), "threads"]))
