"""The leaderboard as one HTML page: standings, then counted, timed, measured and modelled figures, each by itself."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptbench.report import html, words
from adaptbench.report.leaderboard import (
    STANDARD,
    Leaderboard,
    Line,
    Point,
    Standing,
    holds,
    saved,
    verdict,
    why,
)
from adaptbench.report.tables import Builder, Column, Table, TableCell, quality_cell, share_cell, unit_cell
from adaptbench.report.trends import left_out
from adaptbench.results.entries import Entry

SECTIONS = {
    "standings": "Who keeps the saving",
    "counted": "Counted: every net under every attack",
    "timed": "Measured: time",
    "energy-measured": "Measured: energy",
    "energy-modelled": "Modelled: energy",
    "studies": "Policies without an attacker",
    "runs": "Where each row comes from",
    "unreadable": "What could not be read",
}
"""Those without content are left out of a page."""
FILTERS = ("data", "net", "attack", "change")
"""Columns that the page filters by."""


@dataclass(frozen=True, slots=True)
class Source:
    """How a run can be done again.

    Args:
        key: of its place on the page. title, facts: what it is. commands: lines for a shell. caveat: "" where none.
    """

    key: str
    title: str
    facts: list[tuple[str, str]]
    commands: str
    caveat: str


def write_leaderboard(board: Leaderboard, out: Path) -> Path:
    """Write the page.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    return html.write(leaderboard_page(board), out)


def leaderboard_page(board: Leaderboard) -> str:
    """The page as text; the same runs give the same bytes."""
    parts: dict[str, Any] = {
        "standings": [(holds(size, nets), _standing(f"standing-{n}", size, nets)) for n, (size, nets) in _sized(board)],
        "counted": _counted(board.lines),
        "timed": _timed(board),
        "energy-measured": _energy(board, "measured"),
        "energy-modelled": _energy(board, "modelled"),
        "studies": _studies(board.points),
        "runs": [_source(place, run) for place, run in enumerate(board.runs)],
        "unreadable": [left_out(one) for one in board.unreadable],
    }
    names = {key: name for key, name in SECTIONS.items() if parts[key]}
    return html.render(
        "leaderboard.html.j2",
        title="Leaderboard",
        kicker=[words.plural(len(board.runs), "run"), *_days(board)],
        contents=list(names.items()),
        names=names,
        sources=words.plural(len(board.runs), "run"),
        verdict=verdict(board),
        standard=STANDARD,
        filters=_choices(board),
        parts=parts,
    )


def _sized(board: Leaderboard) -> list[tuple[int, tuple[str, list[Standing]]]]:
    return list(enumerate(board.standings))


def _days(board: Leaderboard) -> list[str]:
    days = sorted(run.started.date().isoformat() for run in board.runs)
    return [" to ".join(dict.fromkeys((days[0], days[-1])))] if days else []


def _choices(board: Leaderboard) -> list[tuple[str, list[str]]]:
    """(column, what it holds) of each filter with a choice."""
    told = {
        "data": [line.data for line in board.lines] + [point.data for point in board.points],
        "net": [line.model for line in board.lines],
        "attack": [line.attack for line in board.lines],
        "change": [line.eps for line in board.lines if line.eps],
    }
    found = [(name, sorted(set(told[name]), key=str.casefold)) for name in FILTERS]
    return [(name, values) for name, values in found if len(values) > 1]


def run_key(place: int) -> str:
    """The id of a run on the page."""
    return f"run-{place + 1}"


def _run_cell(place: int) -> TableCell:
    return TableCell(f"run {place + 1}", value=run_key(place), href=f"#{run_key(place)}")


def _standing(key: str, size: str, nets: list[Standing]) -> Table:
    table = Builder(
        key,
        f"{size}: nets by what {STANDARD} takes back, the least first",
        (
            Column("net", numeric=False),
            Column("attack", numeric=False),
            Column("accuracy, clean", unit="%"),
            Column("MACs saved, clean", unit="share of plain net"),
            Column("taken back", unit="share of head-room"),
            Column("MACs under attack", unit="share of plain net"),
            Column("accuracy, attacked"),
            Column("inputs attacked"),
            Column("from", numeric=False),
        ),
    )
    for one in nets:
        share = saved(one.clean.record)
        table.add(
            one.worst.model,
            one.worst.attack,
            quality_cell(one.clean.record),
            _share(share, "the plain net's MACs are not recorded"),
            share_cell(one.worst.record, "recovery"),
            TableCell(words.percent(one.attacked_share), value=one.attacked_share),
            quality_cell(one.worst.record),
            TableCell(words.count(one.worst.record["n"]), value=one.worst.record["n"]),
            _run_cell(one.worst.run),
        )
    return table.build(cards=True)


def _share(value: float | None, reason: str) -> TableCell:
    if value is None:
        return TableCell(words.DASH, reason=reason)
    return TableCell(words.percent(value), value=value)


def _counted(lines: tuple[Line, ...]) -> Table | None:
    table = Builder(
        "table-counted",
        "Every net under every condition: counted figures",
        (
            Column("net", numeric=False),
            Column("data", numeric=False),
            Column("attack", numeric=False),
            Column("knows", numeric=False),
            Column("change", numeric=False),
            Column("inputs"),
            Column("accuracy", unit="share"),
            Column("MACs, of plain net", unit="share"),
            Column("taken back", unit="share of head-room"),
            Column("from", numeric=False),
        ),
    )
    for line in lines:
        record = line.record
        share = saved(record)
        taken = TableCell("") if line.kind == "clean" else share_cell(record, "recovery")
        table.add(
            line.model,
            line.data,
            line.attack,
            line.knows,
            line.eps,
            TableCell(words.count(record["n"]), value=record["n"]),
            quality_cell(record),
            _share(None if share is None else 1 - share, why(record, "macs_mean")),
            taken,
            _run_cell(line.run),
            kind=line.kind,
        )
    return table.build() if table.rows else None


def _timed(board: Leaderboard) -> Table | None:
    table = Builder(
        "table-timed",
        "Clean inputs on the clock, against the plain net",
        (
            Column("net", numeric=False),
            Column("data", numeric=False),
            Column("batch"),
            Column("mode", numeric=False),
            Column("MACs saved", unit="share"),
            Column("time saved", unit="share"),
            Column("verdict", numeric=False),
            Column("device", numeric=False),
            Column("from", numeric=False),
        ),
    )
    for one in board.timed:
        record = one.record
        word = _word(record)
        table.add(
            one.model,
            one.data,
            TableCell(words.count(record["batch_size"]), value=record["batch_size"]),
            str(record["mode"]),
            share_cell(record, "saving_macs"),
            share_cell(record, "saving_time"),
            TableCell(word or words.DASH, kind={"faster": "good", "slower": "bad"}.get(word, "unclear")),
            board.runs[one.run].device[1] or words.DASH,
            _run_cell(one.run),
        )
    return table.build() if table.rows else None


def _word(record: Any) -> str:
    bounds = record.get("saving_time_ci")
    if not bounds:
        return "cannot tell" if words.exists(record.get("saving_time")) else ""
    return "faster" if bounds[0] > 0 else "slower" if bounds[1] < 0 else "cannot tell"


def _energy(board: Leaderboard, kind: str) -> Table | None:
    table = Builder(
        f"table-energy-{kind}",
        f"Energy, {kind}: clean inputs",
        (
            Column("net", numeric=False),
            Column("data", numeric=False),
            Column("batch"),
            Column("mode", numeric=False),
            Column("energy a sample", unit="J"),
            Column("energy saved", unit="share"),
            Column("how", numeric=False),
            Column("from", numeric=False),
        ),
    )
    found = [one for one in board.timed if words.provenance_kind(one.record.get("energy_provenance")) == kind]
    joules = words.one_scale([one.record.get("energy_j_per_sample") for one in found], "J")
    for one in found:
        table.add(
            one.model,
            one.data,
            TableCell(words.count(one.record["batch_size"]), value=one.record["batch_size"]),
            str(one.record["mode"]),
            unit_cell(one.record, "energy_j_per_sample", joules),
            share_cell(one.record, "saving_energy"),
            str(one.record["energy_provenance"]).partition(": ")[2] or kind,
            _run_cell(one.run),
        )
    return table.build() if table.rows else None


def _studies(points: tuple[Point, ...]) -> Table | None:
    table = Builder(
        "table-studies",
        "Policies of studies: the cheapest point that calibration shows to lose less than the margin",
        (
            Column("policy", numeric=False),
            Column("data", numeric=False),
            Column("nets", numeric=False),
            Column("MACs saved", unit="share"),
            Column("points lost"),
            Column("holds on test", numeric=False),
            Column("from", numeric=False),
        ),
    )
    ranked = sorted(points, key=lambda one: -1.0 if one.point is None else 1 - one.point["cost_share"], reverse=True)
    for one in ranked:
        if one.point is None:
            cells = [TableCell(words.DASH, reason=one.reason), TableCell(words.DASH, reason=one.reason), TableCell("")]
        else:
            lost, bounds = one.point["drop_points"], one.point["drop_points_ci"]
            share = 1 - one.point["cost_share"]
            cells = [
                TableCell(words.percent(share), value=share),
                TableCell(words.number(lost), value=lost, under=words.interval(bounds, 2, scale=1)),
                TableCell("yes", kind="good") if one.point["held"] else TableCell("no", kind="bad"),
            ]
        table.add(one.policy, one.data, one.net, *cells, _run_cell(one.run))
    return table.build() if table.rows else None


def _source(place: int, run: Entry) -> Source:
    git = run.manifest.get("git") or {}
    versions = run.manifest.get("versions") or {}
    command = str(run.manifest.get("command") or "")
    lines = [f"git checkout {shlex.quote(run.revision)}"] if run.revision else []
    lines += [command] if command else []
    caveat = ""
    if git.get("dirty"):
        caveat = "The checkout had changes that were not committed: the revision alone does not give this run."
    elif not run.revision or not command:
        caveat = "Command or revision are not recorded: this run cannot be done again from what it says."
    facts = html.facts(
        {
            "started": f"{run.started:%Y-%m-%d %H:%M} UTC",
            "device": run.device[1],
            "torch": versions.get("torch"),
            "at most": "" if run.limit is None else f"{words.count(run.limit)} inputs",
            "kept in": run.path.name,
        }
    )
    return Source(run_key(place), f"Run {place + 1}: {run.name}", facts, "\n".join(lines), caveat)
