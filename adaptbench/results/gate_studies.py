"""The gate over studies: is what one found worse than another study, or than the file that was kept of one?

No clock makes accuracy and MACs of a point, broken re-splits and executed samples that differ: they are compared as
they stand. Speed-ups are told by their intervals alone. What cannot be compared is said, and is never green.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from adaptbench.errors import BaselineError
from adaptbench.results import devices
from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict, corrected, judge, of_intervals
from adaptbench.results.gate_rules import EVERY, Rule
from adaptbench.results.gate_terms import note_surroundings, suite_obstacle
from adaptbench.results.studies import chosen_points, incomplete, kind_of, read_study

DIGITS = 1e-6
"""Relative difference that a kept file's seven digits explain."""
SLOWER = Rule("net_speedup", "drop", 0.1, relative=True)
"""What a speed-up may lose."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StudySide:
    """One side of a comparison: where it was read, and the record."""

    path: Path
    record: Record

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a study's directory, or the file that was kept of one.

        Raises:
            BaselineError: nothing is there, or it is no study.
            RunError: it is damaged, incomplete or of another schema.
        """
        place = Path(path)
        if not place.exists():
            raise BaselineError(f"{place}: there is no such study.", todo="Name a study's directory or kept file.")
        if kind_of(place) != "study":
            raise BaselineError(
                f"{place}: it holds a suite's figures, and the other side a study's.",
                todo="Compare studies with studies, such as those in reports/published/.",
            )
        return cls(place, read_study(place))

    @property
    def manifest(self) -> dict[str, Any]:
        """What the terms of a comparison are read from."""
        suite = {name: self.record.get(name) for name in ("name", "limit", "overrides", "sha256", "text")}
        return {"suite": suite, "versions": self.record.get("versions"), "data": self.record.get("data") or {}}


def compare_studies(run: str | Path | StudySide, baseline: str | Path | StudySide) -> GateReport:
    """Compare a study with a baseline.

    Args:
        run, baseline: a study's directory, a kept file, or either, read.

    Returns:
        A report; ``exit_code`` 0, 1 or 3.

    Raises:
        BaselineError: one of them is no study.
        RunError: it is damaged or incomplete.
    """
    here, there = (side if isinstance(side, StudySide) else StudySide.load(side) for side in (run, baseline))
    notes: list[str] = []
    own, kept = here.manifest, there.manifest
    if not (own["data"] and kept["data"]):
        notes.append("one side does not say which samples it was made on: they are taken to be the same")
        own, kept = own | {"data": {}}, kept | {"data": {}}
    obstacle = suite_obstacle(own, kept, notes)
    identity = here.record.get("id")
    if run is not baseline and identity and identity == there.record.get("id"):
        obstacle = "the baseline was kept of this very study: nothing can differ"
    note_surroundings(own, kept, notes)
    if obstacle is not None:
        rows = [GateRow("*", "study", "the same study", RowVerdict.NOT_COMPARABLE, obstacle)]
    else:
        rows = [row for key in there.record["graphs"] for row in _graph(key, here.record, there.record)]
    known = incomplete(there.record)
    rows += [_unknown("*", said) for said in incomplete(here.record) if said not in known]
    return GateReport(str(here.path), str(there.path), tuple(corrected(rows)), tuple(dict.fromkeys(notes)))


def _graph(key: str, here: Record, there: Record) -> Iterator[GateRow]:
    kept, seen = there["graphs"][key], here["graphs"].get(key)
    if seen is None:
        why = (here.get("failed_graphs") or {}).get(key)
        yield _unknown(key, why) if why else _gone(key, "graph")
        return
    ceiling = kept["macs_full"]
    for metric, name in (("accuracy", "reference_accuracy"), ("macs_full", "macs_full")):
        yield _exact(f"{key}/reference", metric, seen[name], kept[name])
    for name, policy in kept["policies"].items():
        found = seen["policies"].get(name)
        if found is None:
            why = seen["failed"].get(name)
            yield _unknown(f"{key}/{name}", why) if why else _gone(f"{key}/{name}", "policy")
            continue
        points = dict(chosen_points(found))
        for label, point in chosen_points(policy):
            case = f"{key}/{name}/{label}"
            if label not in points:
                yield _gone(case, "point", str(found.get("non_inferior_missing") or ""))
            else:
                yield from _point(case, points[label], point, ceiling)
    yield from _resplits(key, seen["resplits"], kept["resplits"])
    yield from _clock(key, seen, kept, here, there)


def _point(case: str, seen: Record, kept: Record, ceiling: float) -> Iterator[GateRow]:
    ran, before = seen.get("executed"), kept.get("executed")
    ties = max(((side or {}).get("ties") or 0) / ((side or {}).get("n") or 1) for side in (ran, before))
    other = "" if seen.get("setting") == kept.get("setting") else "another point was chosen: "
    if other and seen.get("setting") is not None and kept.get("setting") is not None:
        other = f"another point was chosen (setting {seen['setting']:.6g}, baseline {kept['setting']:.6g}): "
        other = "" if math.isclose(seen["setting"], kept["setting"], rel_tol=DIGITS, abs_tol=1e-12) else other
    yield _exact(case, "accuracy", seen["accuracy"], kept["accuracy"], ties, other)
    yield _exact(case, "macs_mean", seen["macs_mean"], kept["macs_mean"], ties * ceiling, other)
    if before is None:
        return
    if ran is None:
        yield _unknown(case, "the baseline executed this point, the run did not")
        return
    yield _exact(case, "differing", ran["differing"], before["differing"])
    yield _exact(f"{case}, executed", "accuracy", ran["accuracy"], before["accuracy"], ties, other)
    yield _exact(f"{case}, executed", "macs_mean", ran["macs_mean"], before["macs_mean"], ties * ceiling, other)


def _exact(case: str, metric: str, seen: float, kept: float, slack: float = 0.0, why: str = "") -> GateRow:
    """Equal to seven digits; where ties could have moved it, nobody can tell."""
    change = (seen / kept - 1 if kept else None) if EVERY[metric].ratio else None

    def row(verdict: RowVerdict, reason: str) -> GateRow:
        return GateRow(case, metric, "exact", verdict, reason, seen, kept, change)

    moved = abs(seen - kept)
    if moved <= DIGITS * max(abs(kept), DIGITS):
        return row(RowVerdict.PASS, "equal")
    worse = (seen < kept) if EVERY[metric].higher_is_better else (seen > kept)
    if moved <= slack * (1 + DIGITS):
        return row(RowVerdict.INCONCLUSIVE, f"{why}decisions within 1e-5 of a threshold could explain it")
    sense = "for the worse" if worse else "for the better; if it is meant, write a new baseline"
    return row(RowVerdict.REGRESSION, f"{why}it changed {sense}")


def _resplits(key: str, seen: list[Record], kept: list[Record]) -> Iterator[GateRow]:
    found = {(row["policy"], row["epsilon"]): row for row in seen}
    for row in kept:
        case, own = f"{key}/{row['policy']}/ε = {row['epsilon']:g}", found.get((row["policy"], row["epsilon"]))
        if not row["count"]:
            continue
        if own is None:
            yield _gone(case, "re-splits")
        elif own["count"] != row["count"]:
            yield _unknown(case, f"{own['count']} re-splits, in the baseline {row['count']}")
        else:
            yield _exact(case, "broken", own["broken"], row["broken"])


def _clock(key: str, seen: Record, kept: Record, here: Record, there: Record) -> Iterator[GateRow]:
    found = {(row["point"], row["batch_size"]): row for row in seen["wall_clock"]}
    elsewhere = devices.obstacle(here.get("device") or {}, there.get("device") or {}, ("here", "baseline"))
    for row in kept["wall_clock"]:
        case, own = f"{key}/{row['point']}/b{row['batch_size']}", found.get((row["point"], row["batch_size"]))
        ends = [side.get("net_speedup_ci") for side in (own or {}, row)]
        if own is None:
            yield _unknown(case, "the baseline timed this point, the run did not")
        elif elsewhere:
            yield _unknown(case, elsewhere)
        elif row.get("net_speedup") is None:
            yield _unknown(case, "the baseline timed net and harness as one: run it again")
        elif ends[0] is None or ends[1] is None:
            yield _unknown(case, "there is no interval to compare by")
        else:
            values = own["net_speedup"], row["net_speedup"]
            change = of_intervals(*values, ends[0], ends[1], int(row["blocks"]), ratio=True)
            yield judge(case, SLOWER, *values, change, SLOWER.margin)


def _gone(case: str, what: str, why: str = "") -> GateRow:
    reason = f"the baseline has this {what}, the run has not{f': {why}' if why else ''}"
    return GateRow(case, what, "present", RowVerdict.MISSING, reason)


def _unknown(case: str, why: str) -> GateRow:
    return GateRow(case, "study", "comparable", RowVerdict.NOT_COMPARABLE, why)


def planted_faults(side: StudySide) -> Iterator[tuple[str, bool | None, str]]:
    """Proof that the gate can fire: what was planted in a copy of a study, whether the gate said so, and its reason.

    The control comes first: the study against itself gives no alarm. None where there is nothing to plant in.
    """
    control = compare_studies(side, side)
    alarms = [row for row in control.rows if row.verdict in (RowVerdict.REGRESSION, RowVerdict.MISSING)]
    quiet = "the study against itself: no alarm"
    yield "none (control)", not alarms, alarms[0].reason if alarms else quiet
    for fault, plant in _FAULTS.items():
        record = copy.deepcopy(dict(side.record))
        graph = next(iter(record["graphs"].values()))
        if plant(graph):
            report = compare_studies(StudySide(side.path, record | {"id": None}), side)
            reason = next((row.reason for row in report.rows if row.verdict is not RowVerdict.PASS), "it is green")
            yield fault, report.exit_code == 1, reason
        else:
            yield fault, None, "there is nothing to plant in"


def _first_point(graph: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(graph["policies"].values()))["chosen"][0]
    return found


def _less_accurate(graph: dict[str, Any]) -> bool:
    _first_point(graph)["accuracy"] -= 0.05
    return True


def _dearer(graph: dict[str, Any]) -> bool:
    _first_point(graph)["macs_mean"] = graph["macs_full"] * 1.5
    return True


def _broken(graph: dict[str, Any]) -> bool:
    rows = [row for row in graph["resplits"] if row["count"]]
    for row in rows[:1]:
        row["broken"] += 1
    return bool(rows)


def _dropped(graph: dict[str, Any]) -> bool:
    return graph["policies"].pop(next(iter(graph["policies"]))) is not None


_FAULTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "five points of accuracy lost": _less_accurate,
    "one and a half times the MACs": _dearer,
    "one more re-split broken": _broken,
    "a policy left out": _dropped,
}
