"""Does the clock see it: seconds of each net beside its plain net's, batch by batch, and where it is the faster one."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from adaptbench.report import clock, modes, words
from adaptbench.report.cases import time_scale
from adaptbench.report.clock import CANNOT_TELL, FASTER, LESS, MORE, SLOWER, Pace
from adaptbench.report.figures import tracks
from adaptbench.report.tables import Builder, Column, Table, TableCell, share_cell
from adaptbench.report.view import View
from adaptbench.results.identity import mode_of

_KINDS = {FASTER: "good", LESS: "good", SLOWER: "bad", MORE: "bad", CANNOT_TELL: "unclear"}


def chart(view: View) -> Table | None:
    """A row a model and batch size, clean inputs; None where nothing was timed."""
    unit, write = time_scale(view)
    columns = [
        Column("batch", numeric=False),
        *modes.columns(view),
        Column(f"{unit} a sample, adaptive", unit="s"),
        Column(f"{unit} a sample, plain net", unit="s"),
        Column("time saved", unit="share of the plain net's"),
        Column("MACs saved", unit="share of the plain net's"),
        Column("harness, of the window", unit="share"),
        Column("inputs timed"),
        Column("in words", numeric=False),
    ]
    table = Builder("table-clock", "Time of every net beside its plain net, by batch", columns)
    for subject in view.subjects:
        timed = clock.paces(view, subject)
        if timed:
            table.heading(subject.title)
        for pace in timed:
            record = pace.record
            drawn = tracks.bars([(pace.adaptive_s, "clean"), (pace.plain_s, "control")])
            table.add(
                TableCell(f"batch {words.count(record['batch_size'])}", value=f"batch {record['batch_size']}"),
                *modes.cells(view, record),
                _seconds(pace.adaptive_s, write, pace.reason or "its parts were not timed apart", drawn=drawn),
                _seconds(pace.plain_s, write, pace.reason or "the plain net was not timed"),
                share_cell(record, "saving_time", 0),
                share_cell(record, "saving_macs", 0),
                share_cell(record, "executor_share", 0),
                TableCell(words.count(record["n_timed"]), value=record["n_timed"])
                if words.exists(record.get("n_timed"))
                else TableCell(words.DASH, reason="not timed"),
                TableCell(pace.word or words.DASH, kind=_KINDS.get(pace.word, ""), under=_flagged(pace)),
            )
    return table.build() if table.rows else None


def _flagged(pace: Pace) -> str:
    return f"flagged: {pace.flags}" if pace.flags else ""


def _seconds(value: float | None, write: words.Writer, reason: str, drawn: Markup | None = None) -> TableCell:
    if value is None:
        return TableCell(words.DASH, reason=reason)
    return TableCell(write(value), value=value, markup=drawn)


def regime_map(view: View) -> Table | None:
    """Model × batch size in words, a row a mode; None where one batch was timed, in one mode."""
    return _map(view, "table-regimes", "Where each net is the faster one", _word)


def energy_map(view: View) -> Table | None:
    """The same by measured joules; None where no power sensor answered, or there is no map of seconds."""
    if not any(pace.joules.word for subject in view.subjects for pace in clock.paces(view, subject)):
        return None
    return _map(view, "table-regimes-energy", "Where each net takes less energy, by the power sensor", _joules)


def _map(view: View, key: str, title: str, cell: Callable[[Pace | None], TableCell]) -> Table | None:
    paces = {subject: clock.paces(view, subject) for subject in view.subjects}
    sizes = sorted({pace.record["batch_size"] for timed in paces.values() for pace in timed})
    if len(sizes) < 2 and len(view.modes) < 2:
        return None
    batches = [Column(f"batch {words.count(size)}", numeric=False) for size in sizes]
    table = Builder(key, title, [Column("model", numeric=False), *modes.columns(view), *batches])
    for subject, timed in paces.items():
        if timed:
            for mode in view.modes:
                by_size = {pace.record["batch_size"]: pace for pace in timed if mode_of(pace.record) == mode}
                if by_size:
                    some = next(iter(by_size.values())).record
                    table.add(subject.title, *modes.cells(view, some), *(cell(by_size.get(size)) for size in sizes))
    return table.build()


def _word(pace: Pace | None) -> TableCell:
    if pace is None or not pace.word or pace.saving is None:
        return TableCell(words.DASH, reason="not timed" if pace is None else pace.reason)
    return _told(pace.word, pace.saving, "time", pace.flags)


def _joules(pace: Pace | None) -> TableCell:
    if pace is None or not pace.joules.word or pace.joules.saving is None:
        return TableCell(words.DASH, reason="not timed" if pace is None else pace.joules.reason)
    return _told(pace.joules.word, pace.joules.saving, "energy", pace.joules.flags)


def _told(word: str, saving: float, what: str, flags: str) -> TableCell:
    under = f"{words.percent(abs(saving), 0)} {'less' if saving >= 0 else 'more'} {what}"
    return TableCell(word, value=word, under=f"flagged: {flags}" if flags else under, kind=_KINDS[word])


def worth(view: View) -> list[str]:
    """When adaptive inference was worth it in this run, in sentences: by the clock, then by the power sensor."""
    paces = [pace for subject in view.subjects for pace in clock.paces(view, subject) if pace.word]
    if not paces:
        return []
    said = _where(view, paces, [pace.word for pace in paces], ("faster than its plain net", "slower", "the clock"))
    metered = [pace for pace in paces if pace.joules.word]
    if not metered:
        return [*said, "No power sensor answered, so that nothing is said of joules."]
    told = [pace.joules.word for pace in metered]
    return [*said, *_where(view, metered, told, ("with less energy by the power sensor", "with more", "the sensor"))]


def _where(view: View, paces: list[Pace], told: list[str], names: tuple[str, str, str]) -> list[str]:
    """A sentence a word, naming models and batches."""
    gained, lost, meter = names
    by_word: dict[str, dict[str, list[str]]] = {}
    for pace, word in zip(paces, told, strict=True):
        mode = mode_of(pace.record)
        where = pace.subject.title + (modes.clause(mode) if len(view.modes) > 1 else "")
        kind = _KINDS[word]
        by_word.setdefault(kind, {}).setdefault(where, []).append(words.count(pace.record["batch_size"]))
    leads = {
        "good": f"{gained.capitalize()}: ",
        "bad": f"{lost.capitalize()}: ",
        "unclear": f"Where {meter} cannot tell: ",
    }
    said = [
        lead + words.listing(f"{where} at batch {words.listing(sizes)}" for where, sizes in by_word[kind].items()) + "."
        for kind, lead in leads.items()
        if kind in by_word
    ]
    return said if "good" in by_word else [f"{gained.capitalize()}: nowhere.", *said]
