"""Where inputs leave, clean and attacked: one histogram a condition, stacked so that a shift is seen at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptbench.report import words
from adaptbench.report.figures import svg
from adaptbench.report.figures.parts import KIND_COLOURS, Figure, Panel, kind_legend, row_titles
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.report.view import Record, Subject, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 66
_ROOM = 0.47  # of a row: what the tallest bar of a panel takes
_NAMED = 8  # more places than that are numbered, not named, and carry no labels


@dataclass(frozen=True, slots=True)
class Spread:
    """How one condition's inputs are spread over exits or depths."""

    record: Record
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All inputs."""
        return sum(self.counts.values())

    def share(self, place: str) -> float:
        """The share of inputs that left at ``place``."""
        return self.counts.get(place, 0) / self.total if self.total else 0.0


def by_depth(model: Mapping[str, object]) -> bool:
    """Whether a model is told by how many nodes ran, having one exit only (gated nets)."""
    names = model.get("exit_names")
    return model.get("shape") == "gated" or (isinstance(names, Sequence) and len(names) <= 1)


def spreads_of(view: View, subject: Subject) -> tuple[list[str], list[Spread]]:
    """The places (exit names, or depths as text) in order, and each condition's spread over them."""
    model, records = view.model(subject.model), view.rows(subject)
    if by_depth(model):
        return _depths(view, records)
    spreads = [Spread(record, record["exit_histogram"]) for record in records if record.get("exit_histogram")]
    seen = dict.fromkeys(name for spread in spreads for name in spread.counts)
    named = [str(name) for name in model.get("exit_names") or ()]
    return named + [name for name in seen if name not in named], spreads


def _depths(view: View, records: list[Record]) -> tuple[list[str], list[Spread]]:
    samples = view.run.samples([record["evaluation"] for record in records])
    spreads: list[Spread] = []
    for record in records:
        depths = samples.loc[samples["case"] == record["evaluation"], "depth"].dropna().astype(int)
        if len(depths):
            counts = depths.value_counts().sort_index()
            spreads.append(Spread(record, {str(depth): int(amount) for depth, amount in counts.items()}))
    if not spreads:
        return [], []
    ends = [int(depth) for spread in spreads for depth in spread.counts]
    return [str(depth) for depth in range(min(ends), max(ends) + 1)], spreads


def figure(view: View) -> Figure | None:
    """One panel a model; None where no record tells where its inputs left."""
    shown = {subject: spreads_of(view, subject) for subject in view.subjects}
    shown = {subject: (places, spreads) for subject, (places, spreads) in shown.items() if len(places) > 1 and spreads}
    if not shown:
        return None
    panels = tuple(_panel(view, subject, places, spreads) for subject, (places, spreads) in shown.items())
    records = [spread.record for _, spreads in shown.values() for spread in spreads]
    caption = (
        "Each row is a condition, each bar the share of inputs that stopped there; the triangle marks the "
        "mean, where exits follow one another; bars of one panel share a scale. "
        "Networks with one exit are told by how many nodes ran."
    )
    return Figure("fig-exits", caption, panels, kind_legend(records, "bar"), _table(view, shown))


def _panel(view: View, subject: Subject, places: list[str], spreads: list[Spread]) -> Panel:
    labelled = len(places) <= _NAMED
    depth = by_depth(view.model(subject.model))
    ordered = view.model(subject.model).get("shape") not in ("dag", "mixed")  # the nodes of a graph have no mean
    with svg.canvas(
        f"exit-{subject.key}", _alt(view, subject, places, spreads), height=_ROW * len(spreads) + 46
    ) as canvas:
        axes = canvas.axes
        top = max(spread.share(place) for spread in spreads for place in places)
        for row, spread in enumerate(spreads):
            base = float(len(spreads) - row - 1)
            _bars(axes, spread, places, base, labelled=labelled, ordered=ordered, scale=_ROOM / top)
        titles = [view.condition_title(spread.record) for spread in spreads]
        row_titles(axes, titles, [len(spreads) - row - 0.235 for row in range(len(spreads))])
        ticks = range(len(places)) if labelled else range(0, len(places), max(1, len(places) // 6))
        labels = [words.clip(words.printable(places[tick]), 44 // min(len(places), _NAMED)) for tick in ticks]
        axes.set(xlim=(-0.6, len(places) - 0.4), ylim=(0, len(spreads) + 0.02), yticks=[])
        axes.set_xticks(list(ticks), labels)
        axes.set_xlabel("nodes run" if depth else "exit")
        axes.spines["left"].set_visible(False)
    return Panel(subject.title, canvas.svg)


def _bars(
    axes: Axes, spread: Spread, places: list[str], base: float, *, labelled: bool, ordered: bool, scale: float
) -> None:
    colour = KIND_COLOURS[spread.record["kind"]]
    shares = [spread.share(place) for place in places]
    axes.axhline(base, color=svg.RULE, linewidth=0.8)
    axes.bar(range(len(places)), [scale * share for share in shares], bottom=base, width=0.78, color=colour)
    if ordered:
        mean = sum(place * share for place, share in enumerate(shares))
        axes.plot([mean], [base], "^", color=svg.INK, markersize=5, markeredgewidth=0, clip_on=False, zorder=5)
    if labelled:
        for place, share in enumerate(shares):
            if share >= 0.005:
                axes.text(
                    place, base + scale * share + 0.025, words.percent(share, 0), ha="center", va="bottom",
                    fontsize=8.5, color=svg.MUTED,
                )  # fmt: skip


def _alt(view: View, subject: Subject, places: list[str], spreads: list[Spread]) -> str:
    parts = []
    for spread in spreads:
        top = max(places, key=spread.share)
        parts.append(f"{view.condition_title(spread.record)}: most often {top} ({words.percent(spread.share(top), 0)})")
    return f"Where inputs leave {subject.title}. " + "; ".join(parts) + "."


def _table(view: View, shown: Mapping[Subject, tuple[list[str], list[Spread]]]) -> Table:
    columns = [
        Column("model", numeric=False),
        Column("condition", numeric=False),
        Column("exit or nodes run", numeric=False),
        Column("inputs"),
        Column("share", unit="share"),
    ]
    table = Builder("table-exits", "Inputs by exit", columns)
    for subject, (places, spreads) in shown.items():
        for spread in spreads:
            for place in places:
                amount, share = spread.counts.get(place, 0), spread.share(place)
                table.add(
                    subject.title,
                    view.condition_title(spread.record),
                    place,
                    TableCell(words.count(amount), value=amount),
                    TableCell(words.percent(share), value=share),
                    kind=spread.record["kind"],
                )
    return table.build()
