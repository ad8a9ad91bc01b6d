"""Taken back over the size of the change, for attacks that a run holds at several sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Figure, Legend, Panel, errors
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell
from adaptbench.report.view import Record, Subject, View

_OF_THE_SIZE = ("eps", "step", "alpha")
"""Settings that go with the size; two conditions alike but for them are one attack."""


def figure(view: View) -> Figure | None:
    """One panel a model; None where no attack or control stands at two sizes."""
    families = _families(view.manifest.get("conditions") or {})
    shown = {subject: _curves(view, subject, families) for subject in view.subjects}
    shown = {subject: curves for subject, curves in shown.items() if curves}
    if not shown:
        return None
    panels = tuple(_panel(view, subject, curves) for subject, curves in shown.items())
    kinds = {record["kind"] for curves in shown.values() for curve in curves for _, record in curve}
    legend = [Legend("attack", "line", "attacks"), Legend("control", "dashes", "controls")]
    caption = (
        "Head-room taken back over the largest change of one value, for attacks that this run holds at two sizes or "
        "more; bars are 95 % confidence intervals. Inputs may differ in number from size to size: the table tells it."
    )
    kept = tuple(sign for sign in legend if sign.role in kinds)
    return Figure("fig-sizes", caption, panels, kept, _table(view, shown))


def _families(conditions: Mapping[str, Any]) -> dict[str, list[tuple[float, str]]]:
    """Attack but for its size → (size, condition), at two sizes or more."""
    found: dict[str, list[tuple[float, str]]] = {}
    for name, about in conditions.items():
        held = about.get("settings") or {}
        size = held.get("eps") if isinstance(held, Mapping) else None
        if words.exists(size) and held.get("constraint", "linf") == "linf":
            rest = {key: value for key, value in held.items() if key not in _OF_THE_SIZE}
            key = json.dumps([about.get("kind"), about.get("summary"), rest], sort_keys=True, default=str)
            found.setdefault(key, []).append((float(size), name))
    return {key: sorted(sizes) for key, sizes in found.items() if len({size for size, _ in sizes}) > 1}


def _curves(
    view: View, subject: Subject, families: Mapping[str, list[tuple[float, str]]]
) -> list[list[tuple[float, Record]]]:
    rows = {record["condition"]: record for record in view.rows(subject) if not record.get("seed")}
    curves = [
        [(size, rows[name]) for size, name in sizes if name in rows and words.exists(rows[name].get("recovery"))]
        for sizes in families.values()
    ]
    return [curve for curve in curves if len(curve) > 1]


def _panel(view: View, subject: Subject, curves: list[list[tuple[float, Record]]]) -> Panel:
    alt = f"Taken back over the size of the change on {subject.title}: " + "; ".join(
        ", ".join(f"{words.percent(record['recovery'])} at {words.eps(size)}" for size, record in curve)
        for curve in curves
    )
    with svg.canvas(f"sizes-{subject.key}", alt, height=250) as canvas:
        axes = canvas.axes
        axes.grid()
        for curve in curves:
            kind = curve[0][1]["kind"]
            arms = [[100 * arm for arm in errors(r["recovery"], r.get("recovery_ci"))] for _, r in curve]
            axes.errorbar(
                [255 * size for size, _ in curve], [100 * r["recovery"] for _, r in curve],
                yerr=list(zip(*arms, strict=True)), color=svg.CONTROL if kind == "control" else svg.ATTACK, marker="o",
                markersize=4.5, linewidth=1.6, elinewidth=1, linestyle=(0, (3, 2.5)) if kind == "control" else "-",
            )  # fmt: skip
        sizes = sorted({round(255 * size, 2) for curve in curves for size, _ in curve})
        axes.set_xticks(sizes, [f"{size:g}/255" for size in sizes])
        axes.set(xlabel="largest change of one value", ylabel="taken back, %")
    return Panel(subject.title, canvas.svg)


def _table(view: View, shown: Mapping[Subject, list[list[tuple[float, Record]]]]) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("condition", numeric=False),
        Column("largest change", unit="pixel range"),
        Column("taken back", unit="share of head-room"),
        Column("inputs"),
    ]
    table = Builder("table-sizes", "Taken back by the size of the change", columns)
    for subject, curves in shown.items():
        for size, record in (point for curve in curves for point in curve):
            table.add(
                subject.title,
                view.condition_title(record),
                TableCell(words.eps(size), value=size),
                share_cell(record, "recovery"),
                TableCell(words.count(record["n"]), value=record["n"]),
                kind=record["kind"],
            )
    return table.build()
