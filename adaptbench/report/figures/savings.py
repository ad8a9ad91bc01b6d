"""The saving that MACs promise, beside what the clock and the power sensor see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import Figure, Legend, Panel, errors
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell
from adaptbench.report.view import Record, Subject, View, missing

_BARS = (("promise", svg.PROMISE, "MACs"), ("clean", svg.CLEAN, "time"), ("energy", svg.ENERGY, "measured energy"))


@dataclass(frozen=True, slots=True)
class Saving:
    """A saving as a share of the static reference; ``reason`` where it does not exist."""

    share: float | None
    bounds: Sequence[float] | None = None
    reason: str = ""


def realised(record: Record, what: str) -> Saving:
    """The saving in ``time`` (nodes and policy) or ``energy`` (whole windows), as the record has it.

    A modelled energy follows from the MACs, so that it can realise nothing: it is not shown as a saving.
    """
    if what == "energy" and words.provenance_kind(record.get("energy_provenance")) == "modelled":
        return Saving(None, reason="energy was modelled, not measured")
    return _stored(record, f"saving_{what}")


def _stored(record: Record, field: str) -> Saving:
    value = record.get(field)
    if not words.exists(value):
        return Saving(None, reason=missing(record, field))
    return Saving(value, record.get(f"{field}_ci"))


def savings_of(record: Record) -> tuple[Saving, Saving, Saving]:
    """Promised by the MACs of the timed inputs, seen by the clock, seen by the power sensor."""
    return _stored(record, "saving_macs"), realised(record, "time"), realised(record, "energy")


def figure(view: View) -> Figure | None:
    """Clean inputs by batch size, one panel a model; None where nothing was timed."""
    shown = {
        subject: [record for record in view.timed(subject) if record["kind"] == "clean"] for subject in view.subjects
    }
    shown = {
        subject: rows
        for subject, rows in shown.items()
        if any(saving.share is not None for record in rows for saving in savings_of(record))
    }
    if not shown:
        return None
    present = [
        place
        for place in range(3)
        if any(savings_of(record)[place].share is not None for rows in shown.values() for record in rows)
    ]
    span = _span([saving for rows in shown.values() for record in rows for saving in savings_of(record)])
    panels = tuple(_panel(subject, rows, present, span) for subject, rows in shown.items())
    legend = tuple(Legend(_BARS[place][0], "bar", f"saving in {_BARS[place][2]}") for place in present)
    caption = (
        "Saving against the static network on the timed clean inputs, by batch size, with 95 % confidence intervals. "
        "Time is that of nodes and policy; what the harness took beside them stands in the table. "
        "Equal bars mean that the MACs told the truth; a bar below zero, that the adaptive network was the dearer one."
    )
    return Figure("fig-savings", caption, panels, legend, _table(view))


def _span(savings: list[Saving]) -> tuple[float, float]:
    ends = [0.0]
    for saving in savings:
        ends += [] if saving.share is None else [saving.share, *(saving.bounds or ())]
    return 100 * max(min(ends), -1.5) - (6 if min(ends) < 0 else 0), 100 * min(max(ends), 1.0) + 9


def _panel(subject: Subject, records: list[Record], present: list[int], span: tuple[float, float]) -> Panel:
    alt = f"Saving on {subject.title}: " + "; ".join(
        f"batch {record['batch_size']}: "
        + ", ".join(f"{_BARS[place][2]} {words.percent(savings_of(record)[place].share, 0)}" for place in present)
        for record in records
    )
    from matplotlib.ticker import MaxNLocator

    width = 0.8 / len(present)
    with svg.canvas(f"save-{subject.key}", alt, height=240) as canvas:
        axes = canvas.axes
        axes.grid(axis="y")
        axes.axhline(0, color=svg.MUTED, linewidth=0.9)
        for column, place in enumerate(present):
            for spot, record in enumerate(records):
                saving = savings_of(record)[place]
                if saving.share is None:
                    continue
                where = spot + (column - (len(present) - 1) / 2) * width
                axes.bar([where], [100 * saving.share], width=0.9 * width, color=_BARS[place][1])
                low, high = (100 * arm for arm in errors(saving.share, saving.bounds))
                if low or high:
                    axes.errorbar(
                        [where],
                        [100 * saving.share],
                        yerr=[[low], [high]],
                        fmt="none",
                        ecolor=svg.INK,
                        elinewidth=1.1,
                        capsize=2.5,
                    )
                top = 100 * max(saving.share, saving.bounds[1] if saving.bounds else saving.share, 0.0)
                axes.text(
                    where,
                    top + 1.2,
                    words.percent(saving.share, 0),
                    ha="center",
                    va="bottom",
                    fontsize=9,
                    color=svg.INK,
                )
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xticks(range(len(records)), [f"batch {record['batch_size']}" for record in records])
        axes.set(xlim=(-0.55, len(records) - 0.45), ylim=span, ylabel="saving, %")
        axes.tick_params(axis="x", length=0)
        axes.spines["bottom"].set_visible(False)
    return Panel(subject.title, canvas.svg)


def _table(view: View) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("condition", numeric=False),
        Column("batch"),
        Column("saving in MACs", unit="share"),
        Column("saving in time", unit="share"),
        Column("saving in measured energy", unit="share"),
        Column("time ÷ MACs", unit="ratio"),
        Column("energy ÷ MACs", unit="ratio"),
        Column("harness, of the window", unit="share"),
        Column("inputs timed"),
    ]
    table = Builder("table-savings", "Promised and realised saving", columns)
    for subject in view.subjects:
        for record in view.timed(subject):
            cells = [_cell(saving) for saving in savings_of(record)]
            energy = realised(record, "energy")
            table.add(
                subject.title,
                view.condition_title(record),
                TableCell(words.count(record["batch_size"]), value=record["batch_size"]),
                *cells,
                share_cell(record, "realised_saving_time", 0),
                share_cell(record, "realised_saving_energy", 0)
                if energy.share is not None
                else TableCell(words.DASH, reason=energy.reason),
                share_cell(record, "executor_share", 0),
                TableCell(words.count(record["n_timed"]), value=record["n_timed"])
                if words.exists(record.get("n_timed"))
                else TableCell(words.DASH, reason=missing(record, "saving_time")),
                kind=record["kind"],
            )
    return table.build()


def _cell(saving: Saving) -> TableCell:
    if saving.share is None:
        return TableCell(words.DASH, reason=saving.reason)
    return TableCell(words.percent(saving.share), value=saving.share, under=words.interval(saving.bounds))
