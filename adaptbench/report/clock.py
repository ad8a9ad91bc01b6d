"""What the clock says of a timed case: seconds of the net and of its plain net, and whether the difference is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptbench.report import words
from adaptbench.report.view import Record, Subject, View, missing
from adaptbench.results import timing
from adaptbench.results.identity import static_of

if TYPE_CHECKING:
    import pandas as pd

FASTER, SLOWER, CANNOT_TELL = "faster", "slower", "cannot tell"


@dataclass(frozen=True, slots=True)
class Pace:
    """One model at one batch size, in one mode, on clean inputs."""

    subject: Subject
    record: Record
    word: str
    """``faster``, ``slower``, ``cannot tell``; empty where nothing was timed."""
    saving: float | None
    """Share of the plain net's time that is saved, nodes and policy; below 0 the adaptive net is the slower one."""
    bounds: tuple[float, float] | None
    adaptive_s: float | None
    """Seconds a sample in nodes and policy."""
    plain_s: float | None
    """Seconds a sample of the plain net, timed in the same blocks."""
    flags: str
    """What the windows of the two were marked with."""
    reason: str
    """Why there is no saving; empty where there is one."""


def word_of(record: Record) -> str:
    """Whether a case is faster than its plain net; an interval that spans zero, or none at all, cannot tell."""
    saving = record.get("saving_time")
    if not words.exists(saving):
        return ""
    bounds = _bounds(record, "saving_time")
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return CANNOT_TELL
    return FASTER if saving > 0 else SLOWER


def paces(view: View, subject: Subject) -> list[Pace]:
    """The clean, timed cases of a model, by batch size and mode."""
    clean = [record for record in view.timed(subject) if record["kind"] == "clean" and not record.get("seed")]
    if not clean:
        return []
    windows, marked = view.windows, flags(view)
    return [
        Pace(
            subject,
            record,
            word_of(record),
            record["saving_time"] if words.exists(record.get("saving_time")) else None,
            _bounds(record, "saving_time"),
            _seconds(windows, record["case"], *timing.NET),
            _seconds(windows, static_of(record), "nodes"),
            words.listing(
                dict.fromkeys(filter(None, (marked.get(record["case"], ""), marked.get(static_of(record), ""))))
            ),
            "" if words.exists(record.get("saving_time")) else missing(record, "saving_time"),
        )
        for record in clean
    ]


def at_suites_batch(view: View, subject: Subject) -> Pace | None:
    """The pace at the largest batch that was timed, in the first mode; None where the model was not timed there."""
    return next((pace for pace in paces(view, subject) if view.of_verdict(pace.record)), None)


def flags(view: View) -> dict[str, str]:
    """Case → the flags that its windows carry."""
    by_case: dict[str, dict[str, None]] = {}
    for case, text in zip(view.windows["case"], view.windows["flags"], strict=True):
        for flag in str(text or "").split(","):
            if flag.strip() and flag not in ("nan", "None", "<NA>"):
                by_case.setdefault(str(case), {})[flag.strip()] = None
    return {case: ", ".join(found) for case, found in by_case.items()}


def _seconds(windows: pd.DataFrame, case: str, *parts: str) -> float | None:
    found = timing.part_blocks(windows, words.printable(case), *parts)  # no file holds a lone surrogate
    return None if found is None else timing.per_sample(found).value


def _bounds(record: Record, name: str) -> tuple[float, float] | None:
    bounds: Any = record.get(f"{name}_ci")
    if not bounds or len(bounds) != 2 or not all(words.exists(bound) for bound in bounds):
        return None
    return float(bounds[0]), float(bounds[1])
