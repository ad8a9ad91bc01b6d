"""Energy per sample by condition: measured and modelled in figures and columns of their own, idle power beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptbench.report import clock, modes, words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import KIND_COLOURS, Figure, Panel, errors, kind_legend, row_titles
from adaptbench.report.tables import Builder, Column, Table, TableCell, unit_cell
from adaptbench.report.view import Record, Subject, View
from adaptbench.results import timing

if TYPE_CHECKING:
    import pandas as pd

_ROW = 36


def figure(view: View) -> Figure | None:
    """What a sensor read, one panel a model; None where none answered. A formula's result is a table, not a figure."""
    shown = {subject: _records(view, subject, "measured") for subject in view.subjects}
    shown = {subject: rows for subject, rows in shown.items() if rows}
    return _figure(view, "measured", "a sensor's reading", shown) if shown else None


def modelled_table(view: View) -> Table | None:
    """What a formula gives, case by case; None where it was not asked."""
    made = _table(view, "modelled")
    return made if made.rows else None


def _records(view: View, subject: Subject, kind: str) -> list[Record]:
    return [
        record
        for record in view.timed(subject)
        if view.of_verdict(record)
        and words.exists(record.get("energy_j_per_sample"))
        and words.provenance_kind(record.get("energy_provenance")) == kind
    ]


def _figure(view: View, kind: str, gloss: str, shown: dict[Subject, list[Record]]) -> Figure:
    records = [record for rows in shown.values() for record in rows]
    scale, unit = _scale(max(record["energy_j_per_sample"] for record in records))
    top = max(
        max(record["energy_j_per_sample"], *(record.get("energy_j_per_sample_ci") or [0.0])) for record in records
    )
    panels = tuple(
        _panel(view, subject, rows, kind, scale, unit, 1.06 * top * scale) for subject, rows in shown.items()
    )
    origins = words.listing(dict.fromkeys(str(record["energy_provenance"]) for record in records))
    mode = modes.clause(next(iter(view.modes), None))
    caption = (
        f"Energy per sample at batch {view.batch_size}{mode}, {kind}: {gloss} ({origins.replace(f'{kind}: ', '')}). "
        "Bars are 95 % confidence intervals."
    )
    return Figure(f"fig-energy-{kind}", caption, panels, kind_legend(records, "dot"), _table(view, kind))


def _scale(top: float) -> tuple[float, str]:
    for factor, unit in ((1.0, "J"), (1e3, "mJ"), (1e6, "µJ")):
        if top * factor >= 0.1:
            return factor, unit
    return 1e9, "nJ"


def _panel(
    view: View, subject: Subject, records: list[Record], kind: str, scale: float, unit: str, top: float
) -> Panel:
    alt = f"Energy per sample of {subject.title}, {kind}: " + "; ".join(
        f"{view.condition_title(record)} {words.joules(record['energy_j_per_sample'])}" for record in records
    )
    places = list(range(len(records), 0, -1))
    with svg.canvas(f"{kind}-{subject.key}", alt, height=_ROW * len(records) + 48) as canvas:
        axes = canvas.axes
        axes.grid(axis="x")
        for place, record in zip(places, records, strict=True):
            value, colour = scale * record["energy_j_per_sample"], KIND_COLOURS[record["kind"]]
            low, high = (
                scale * arm for arm in errors(record["energy_j_per_sample"], record.get("energy_j_per_sample_ci"))
            )
            axes.plot([0, value], [place, place], color=colour, linewidth=1.2, alpha=0.45)
            face = colour if kind == "measured" else svg.PAPER
            axes.errorbar(
                [value], [place], xerr=[[low], [high]], fmt="o", markersize=6, color=colour,
                markerfacecolor=face, elinewidth=1.8, capsize=3,
            )  # fmt: skip
        row_titles(axes, [view.condition_title(record) for record in records], [place + 0.42 for place in places])
        axes.set(xlim=(0, top), ylim=(0.5, len(records) + 0.75), yticks=[], xlabel=f"{unit} per sample, {kind}")
        axes.spines["left"].set_visible(False)
    return Panel(subject.title, canvas.svg)


def _table(view: View, kind: str) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("condition", numeric=False),
        Column("batch"),
        *modes.columns(view),
        Column(f"energy/sample, {kind}", unit="J"),
        Column("meter", numeric=False),
        Column("provenance", numeric=False),
        Column("scope", numeric=False),
        Column("latency/sample", unit="s"),
        Column("flags", numeric=False),
    ]
    table = Builder(f"table-energy-{kind}", f"Energy per sample, {kind}", columns)
    flags = clock.flags(view)
    for subject in view.subjects:
        for record in view.timed(subject):
            if words.provenance_kind(record.get("energy_provenance")) != kind:
                continue
            table.add(
                subject.title,
                view.condition_title(record),
                TableCell(words.count(record["batch_size"]), value=record["batch_size"]),
                *modes.cells(view, record),
                unit_cell(record, "energy_j_per_sample", words.joules),
                str(record.get("energy_meter") or words.DASH),
                str(record.get("energy_provenance") or words.DASH),
                str(record.get("energy_scope") or words.DASH),
                unit_cell(record, "latency_s_per_sample", words.seconds),
                ", ".join(flags.get(record["case"], ())),
                kind=record["kind"],
            )
    return table.build()


def idle_table(view: View) -> Table | None:
    """Power of the idle device, by meter and component; None where no idle window exists."""
    windows = view.run.windows()
    rows = windows[windows["case"] == "idle"]
    if rows.empty:
        return None
    columns = [
        Column("meter", numeric=False),
        Column("component", numeric=False),
        Column("scope", numeric=False),
        Column("idle power, median of the windows", unit="W"),
        Column("windows"),
        Column("provenance", numeric=False),
    ]
    table = Builder("table-idle", "Idle device", columns)
    declared = view.manifest.get("meters") or {}
    clocks = {timing.CLOCK, *(name for name, meter in declared.items() if meter.get("quantity") == "time")}
    for (meter, component), group in rows.groupby(["meter", "component"], sort=True, dropna=False):
        if group["energy_j"].notna().any() or str(meter) not in clocks:
            table.add(
                str(meter),
                str(component),
                _first(group, "scope"),
                _power(group),
                TableCell(str(len(group)), value=len(group)),
                _first(group, "provenance"),
            )
    return table.build() if table.rows else None


def _power(group: pd.DataFrame) -> TableCell:
    known = group[group["energy_j"].notna() & (group["duration_s"] > 0)]
    if known.empty:
        return TableCell(words.DASH, reason=_first(group, "missing") or "no reading")
    power = known["energy_j"] / known["duration_s"]
    under = f"{words.watts(float(power.min()))} to {words.watts(float(power.max()))}" if len(power) > 1 else ""
    return TableCell(words.watts(float(power.median())), value=float(power.median()), under=under)


def suite_table(view: View) -> Table | None:
    """What CodeCarbon saw over the whole run, component by component; None where it was not asked."""
    windows = view.run.windows()
    rows = windows[windows["case"] == "suite"]
    if rows.empty:
        return None
    columns = [
        Column("meter", numeric=False),
        Column("component", numeric=False),
        Column("energy", unit="J"),
        Column("duration", unit="s"),
        Column("mean power", unit="W"),
        Column("provenance", numeric=False),
        Column("scope", numeric=False),
    ]
    table = Builder("table-suite", "Energy of the whole run", columns)
    known = rows[rows["energy_j"].notna()]
    sums = known.groupby(["meter", "component", "provenance", "scope"], sort=False, dropna=False)
    added = sums[["energy_j", "duration_s"]].sum().reset_index().to_dict("records")
    silent = rows[rows["energy_j"].isna()].drop_duplicates(["meter", "component", "missing"]).to_dict("records")
    for row in [*added, *silent]:  # a resumed run has a stretch a command
        energy, duration = _number(row["energy_j"]), _number(row["duration_s"])
        reason = str(row.get("missing") or "no reading")
        power = energy / duration if energy is not None and duration else None
        table.add(
            str(row["meter"]),
            str(row["component"]),
            TableCell(words.joules(energy), value=energy, reason="" if energy is not None else reason),
            TableCell(words.seconds(duration), value=duration),
            TableCell(words.watts(power), value=power, reason="" if power is not None else reason),
            str(row["provenance"] or words.DASH),
            str(row["scope"] or words.DASH),
        )
    return table.build()


def _number(value: Any) -> float | None:
    return float(value) if words.exists(value) else None


def _first(group: pd.DataFrame, column: str) -> str:
    known = group[column].dropna()
    return str(known.iloc[0]) if len(known) else ""
