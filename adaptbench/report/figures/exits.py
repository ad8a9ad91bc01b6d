"""Where inputs leave, clean and attacked: one full bar a condition, parted by exit, so that a shift is seen at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adaptbench.report import words
from adaptbench.report.tables import Builder, Column, Table, TableCell
from adaptbench.report.view import Record, Subject, View

_ROOM = 0.085  # of a bar: what a share's figure takes
_FULL = "100%"


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


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar: the inputs that left at one place."""

    share: float
    shade: str
    """How much of the colour it has, as CSS per cent."""
    label: str
    """The share in per cent where the part is wide enough for it."""
    told: str
    dark: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """One condition."""

    title: str
    kind: str
    segments: tuple[Segment, ...]
    told: str
    """Where most inputs left, for whoever cannot see the bar."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One model: a bar a condition, and what the shades stand for."""

    title: str
    key: tuple[Segment, ...]
    bars: tuple[Bar, ...]


def stacks(view: View) -> list[Stack]:
    """One a model, for models that have more than one place to leave."""
    return [_stack(view, subject, places, spreads) for subject, (places, spreads) in _shown(view).items()]


def table(view: View) -> Table:
    """Inputs by exit, model by model and condition by condition."""
    return _table(view, _shown(view))


def _shown(view: View) -> dict[Subject, tuple[list[str], list[Spread]]]:
    found = {subject: spreads_of(view, subject) for subject in view.subjects}
    return {subject: (places, spreads) for subject, (places, spreads) in found.items() if len(places) > 1 and spreads}


def _stack(view: View, subject: Subject, places: list[str], spreads: list[Spread]) -> Stack:
    depth = by_depth(view.model(subject.model))
    names = [f"{place} nodes" if depth else place for place in places]
    shades = [_shade(place, len(places)) for place in range(len(places))]
    key = tuple(Segment(0.0, shade, "", name, shade == _FULL) for shade, name in zip(shades, names, strict=True))
    return Stack(subject.title, key, tuple(_bar(view, spread, places, names, shades) for spread in spreads))


def _bar(view: View, spread: Spread, places: list[str], names: list[str], shades: list[str]) -> Bar:
    parts = [
        Segment(
            spread.share(place),
            shade,
            words.number(100 * spread.share(place), 0) if spread.share(place) >= _ROOM else "",
            f"{name}: {words.percent(spread.share(place))}",
            shade == _FULL,
        )
        for place, name, shade in zip(places, names, shades, strict=True)
        if spread.share(place) > 0
    ]
    most = max(range(len(places)), key=lambda place: spread.share(places[place]))
    told = f"most often {names[most]} ({words.percent(spread.share(places[most]), 0)})"
    return Bar(view.condition_title(spread.record), spread.record["kind"], tuple(parts), told)


def _shade(place: int, places: int) -> str:
    """From faint to full, the last place full: what is dearest is darkest, and writing stays readable on each."""
    return _FULL if place == places - 1 else f"{8 + 34 * place / max(places - 2, 1):.0f}%"


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
