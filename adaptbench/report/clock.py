"""What clock and power sensor say of a timed case beside its plain net, and whether the difference is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptbench.report import words
from adaptbench.report.view import Record, Subject, View, missing
from adaptbench.results import energy, timing
from adaptbench.results.identity import static_of

if TYPE_CHECKING:
    import pandas as pd

FASTER, SLOWER, CANNOT_TELL = "faster", "slower", "cannot tell"
LESS, MORE = "less energy", "more energy"
SPANS_ZERO = "the interval spans zero"
_OF_A_READING = frozenset({"unsteady", "few-ticks", "sources-disagree", "impossible-power", "unbounded"})
"""Flags of what one meter read; all others are of the device or of what else ran on it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """One model at one batch size, in one mode, on clean inputs."""

    subject: Subject
    record: Record
    word: str
    """``faster``, ``slower``, ``cannot tell``; empty where nothing was timed. Windows with flags cannot tell."""
    saving: float | None
    """Share of the plain net's time that is saved, nodes and policy; below 0 the adaptive net is the slower one."""
    bounds: tuple[float, float] | None
    adaptive_s: float | None
    """Seconds a sample in nodes and policy."""
    plain_s: float | None
    """Seconds a sample of the plain net, timed in the same blocks."""
    flags: str
    """What the windows of the two were marked with, as far as it is about time."""
    reason: str
    """Why there is no saving; empty where there is one."""
    unclear: str
    """Why the clock cannot tell; empty where it can."""
    joules: Joules


@dataclass(frozen=True, slots=True)
class Joules:
    """What a power sensor read of the same windows; modelled joules follow from the MACs and are none of these."""

    word: str
    """``less energy``, ``more energy``, ``cannot tell``; empty where nothing was measured."""
    saving: float | None
    """Share of the plain net's joules that is saved, whole windows."""
    flags: str
    reason: str
    """Why there is no saving; empty where there is one."""


def word_of(record: Record, flags: str = "") -> str:
    """Whether a case is faster than its plain net; windows with flags, or an interval with zero in it, cannot tell."""
    return _word(record, "saving_time", flags, FASTER, SLOWER)


def joules_of(record: Record, flags: str = "") -> Joules:
    """Of a timed case, where its joules were measured. flags: of the windows of the case and of its plain net."""
    if energy.kind_of(record.get("energy_provenance")) != "measured":
        told = words.exists(record.get("energy_j_per_sample"))
        reason = "energy was modelled, not measured" if told else missing(record, "energy_j_per_sample")
        return Joules("", None, "", reason)
    word = _word(record, "saving_energy", flags, LESS, MORE)
    if not word:
        return Joules("", None, flags, missing(record, "saving_energy"))
    return Joules(word, record["saving_energy"], flags, "")


def why_unclear(record: Record, flags: str = "") -> str:
    """Why the clock cannot tell of a timed case; empty where it can, or where nothing was timed."""
    if word_of(record, flags) != CANNOT_TELL:
        return ""
    if flags:
        return f"its windows are flagged: {flags}"
    return "there is no interval" if _bounds(record, "saving_time") is None else SPANS_ZERO


def _word(record: Record, name: str, flags: str, gained: str, lost: str) -> str:
    saving = record.get(name)
    if not words.exists(saving):
        return ""
    bounds = _bounds(record, name)
    if flags or bounds is None or bounds[0] <= 0 <= bounds[1]:
        return CANNOT_TELL
    return gained if saving > 0 else lost


def paces(view: View, subject: Subject) -> list[Pace]:
    """The clean, timed cases of a model, by batch size and mode."""
    key = ("paces", subject.key)
    if key not in view.told:
        view.told[key] = _paces(view, subject)
    return list(view.told[key])


def _paces(view: View, subject: Subject) -> list[Pace]:
    clean = [record for record in view.timed(subject) if record["kind"] == "clean" and not record.get("seed")]
    if not clean:
        return []
    meters = {timing.CLOCK, *(str(record.get("energy_meter")) for record in clean)}
    marked = {meter: flags(view, meter) for meter in meters}
    return [_pace(view, subject, record, marked) for record in clean]


def _pace(view: View, subject: Subject, record: Record, marked: dict[str, dict[str, tuple[str, ...]]]) -> Pace:
    flagged = _of_both(marked[timing.CLOCK], record)
    saving = record["saving_time"] if words.exists(record.get("saving_time")) else None
    return Pace(
        subject,
        record,
        word_of(record, flagged),
        saving,
        _bounds(record, "saving_time"),
        _seconds(view.windows, record["case"], *timing.NET),
        _seconds(view.windows, static_of(record), "nodes"),
        flagged,
        missing(record, "saving_time") if saving is None else "",
        why_unclear(record, flagged),
        joules_of(record, _of_both(marked[str(record.get("energy_meter"))], record)),
    )


def _of_both(marked: dict[str, tuple[str, ...]], record: Record) -> str:
    """Flags of a case and of its plain net, each once."""
    cases = (record["case"], static_of(record))
    return words.listing(dict.fromkeys(flag for case in cases for flag in marked.get(str(case), ())))


def at_suites_batch(view: View, subject: Subject) -> Pace | None:
    """The pace at the largest batch that was timed, in the first mode; None where the model was not timed there."""
    return next((pace for pace in paces(view, subject) if view.of_verdict(pace.record)), None)


def flags(view: View, meter: str = "") -> dict[str, tuple[str, ...]]:
    """Case → the flags that its windows carry.

    Args:
        meter: only those that say something about what this one read: its own, and of the others what is of the device
            (throttled, shared, hot), not of their readings.
    """
    by_case: dict[str, dict[str, None]] = {}
    columns = (view.windows[name] for name in ("case", "meter", "flags"))
    for case, read_by, text in zip(*columns, strict=True):
        for flag in str(text or "").split(","):
            name = flag.strip()
            if not name or name in ("nan", "None", "<NA>"):
                continue
            if meter and read_by != meter and name in _OF_A_READING:
                continue
            by_case.setdefault(str(case), {})[name] = None
    return {case: tuple(found) for case, found in by_case.items()}


def _seconds(windows: pd.DataFrame, case: str, *parts: str) -> float | None:
    found = timing.part_blocks(windows, words.printable(case), *parts)  # no file holds a lone surrogate
    return None if found is None else timing.per_sample(found).value


def _bounds(record: Record, name: str) -> tuple[float, float] | None:
    bounds: Any = record.get(f"{name}_ci")
    if not bounds or len(bounds) != 2 or not all(words.exists(bound) for bound in bounds):
        return None
    return float(bounds[0]), float(bounds[1])
