"""Runs and kept summaries side by side: every net under every condition, with where each row comes from.

Nothing is worked out anew: a row shows what its record holds. Standings rank the nets of a data set that faced the
attack `STANDARD` at one size of change: it takes no settings, so that its figure can be compared across runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from adaptbench.report import words
from adaptbench.report.policy_names import data_name, policy_name
from adaptbench.report.study_tables import graph_title
from adaptbench.report.view import Record, RunLike, View, missing, saving
from adaptbench.results.entries import Entry, entries
from adaptbench.results.gate_studies import StudySide

STANDARD = "standard"
"""The attack that standings are made by."""


@dataclass(frozen=True, slots=True)
class Line:
    """One evaluation of one net.

    Args:
        run: place of its entry, from 0. model, data, attack: in words. knows: what the attacker has. eps: the change
            allowed. kind: clean, control or attack. record: the case's.
    """

    run: int
    model: str
    data: str
    attack: str
    knows: str
    eps: str
    kind: str
    record: Record


@dataclass(frozen=True, slots=True)
class Timed:
    """One net at one batch size, on clean inputs."""

    run: int
    model: str
    data: str
    record: Record


@dataclass(frozen=True, slots=True)
class Point:
    """One policy of a study at its cheapest point that is shown to lose less than the margin; None where none is."""

    run: int
    policy: str
    net: str
    data: str
    margin: float
    point: Mapping[str, Any] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """One net that faced `STANDARD`: what it saves, and what is left of that under the attack."""

    clean: Line
    worst: Line

    @property
    def attacked_share(self) -> float:
        """MACs under the attack, of the plain net's."""
        return float(self.worst.record["macs_mean"] / self.worst.record["macs_full"])


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Everything that could be read.

    Args:
        runs: in order of time. lines, timed, points: by run. unreadable: what could not be read, and why.
    """

    runs: tuple[Entry, ...]
    lines: tuple[Line, ...]
    timed: tuple[Timed, ...]
    points: tuple[Point, ...]
    unreadable: tuple[tuple[Path, str], ...]

    @property
    def standings(self) -> list[tuple[str, list[Standing]]]:
        """(data, eps) in words → nets, the one that keeps most of its saving first; each net once, by its last run."""
        found: dict[str, dict[str, Standing]] = {}
        for line in self.lines:
            if line.record["condition"] != STANDARD or line.kind != "attack" or line.record.get("seed"):
                continue
            clean = self._clean(line)
            if clean is None or not all(words.exists(line.record.get(name)) for name in ("recovery", "macs_full")):
                continue
            size = f"{line.data}, change at most {line.eps}"
            found.setdefault(size, {})[line.model] = Standing(clean, line)
        return [
            (size, sorted(nets.values(), key=lambda one: one.worst.record["recovery"])) for size, nets in found.items()
        ]

    def _clean(self, line: Line) -> Line | None:
        same = (one for one in self.lines if one.run == line.run and one.kind == "clean")
        return next((one for one in same if (one.model, one.data) == (line.model, line.data)), None)


ELSEWHERE = {
    "serving": "a run of kind serving holds simulated streams of requests, no net under an attack on its own: "
    "`adaptbench report` and `history` show it",
    "decoding": "a run of kind decoding holds answers of one model, no net under an attack on its own: "
    "`adaptbench report` and `history` show it",
}
"""Kinds without rows that could be laid beside a suite's, and why."""


def leaderboard(places: Iterable[Path]) -> Leaderboard:
    """Read runs, kept summaries, or folders of them, and lay their rows side by side."""
    found, unreadable = entries(places)
    runs = [run for run in found if run.kind not in ELSEWHERE]
    unreadable += [(run.path, ELSEWHERE[run.kind]) for run in found if run.kind in ELSEWHERE]
    lines: list[Line] = []
    timed: list[Timed] = []
    points: list[Point] = []
    for place, run in enumerate(runs):
        if isinstance(run.side, StudySide):
            points += _points(place, run.side.record)
            continue
        # only manifest and records are read of it: a kept summary will do
        view = View(cast("RunLike", run.side))
        for subject in view.subjects:
            name, data = _titled(view.model_title(subject.model), subject.model), data_name(subject.data)
            lines += [_line(place, view, name, data, record) for record in view.rows(subject)]
            timed += [
                Timed(place, name, data, record)
                for record in view.timed(subject)
                if record["kind"] == "clean" and not record.get("seed")
            ]
    return Leaderboard(tuple(runs), tuple(lines), tuple(timed), tuple(points), tuple(unreadable))


def _line(place: int, view: View, name: str, data: str, record: Record) -> Line:
    about = view.condition(record["condition"])
    title = _titled(view.condition_title(record), record["condition"]) + version(record["condition"], about)
    knows = {"none": ""}.get(str(about.get("access") or "none"), str(about.get("access") or ""))
    settings = about.get("settings") or {}
    steps = ", by steps in bf16" if settings.get("precision") == "bf16" else ""
    return Line(place, name, data, title, knows, _allowed(settings) + steps, record["kind"], record)


def version(condition: str, about: Mapping[str, Any]) -> str:
    """Of `standard` and its kin, which of them a record is of, as `` (standard-2)``; "" of all others."""
    first = str(about.get("summary") or "").replace(",", " ").split(" ")[0]
    own = condition.startswith(STANDARD) and first.startswith(f"{STANDARD}-") and first not in condition
    return f" ({first})" if own else ""


def _titled(title: str, code: str) -> str:
    """A title, spelled out where it is but the code name."""
    if not title.startswith(code):
        return title
    parts = code.rsplit("/", 1)[-1].split("+")
    return " + ".join(map(policy_name, parts)) + title.removeprefix(code)


def _allowed(settings: Mapping[str, Any]) -> str:
    """The size of the change that a condition may make: ``8/255``, ``L2 0.35``, ``a patch``; "" where it makes none."""
    constraint, eps = settings.get("constraint"), settings.get("eps")
    if isinstance(constraint, Mapping):  # as a suite writes it: {linf: {eps: 8/255}}
        name, inner = next(iter(constraint.items()), ("", {}))
        constraint, eps = name, inner.get("eps") if isinstance(inner, Mapping) else None
    if constraint == "patch":
        return "a patch"
    if isinstance(eps, str):
        return eps
    if not words.exists(eps):
        return ""
    return words.eps(eps) if constraint in (None, "linf") else f"{str(constraint).upper()} {eps:g}"


def _points(place: int, record: Mapping[str, Any]) -> list[Point]:
    return [
        Point(
            place,
            policy_name(name),
            graph_title(key, graph),
            data_name(graph["data"]),
            graph["margin"],
            policy["non_inferior"],
            str(policy.get("non_inferior_missing") or ""),
        )
        for key, graph in record["graphs"].items()
        for name, policy in graph["policies"].items()
    ]


def verdict(board: Leaderboard) -> str:
    """One sentence: how much was read, and what the best net keeps under `STANDARD`."""
    nets = len({(line.model, line.data) for line in board.lines})
    attacks = len({line.record["condition"] for line in board.lines if line.kind == "attack"})
    sets = words.listing(dict.fromkeys([line.data for line in board.lines] + [point.data for point in board.points]))
    said = f"{words.plural(nets, 'net')} under {words.plural(attacks, 'attack')}" if board.lines else "No net attacked"
    if board.points:
        said += f", and {words.plural(len(board.points), 'policy', 'policies')} of studies without an attacker"
    return f"{said}, on {sets or 'no data'}."


def holds(size: str, standings: Sequence[Standing]) -> str:
    """One sentence of a standing: the net that keeps most, and the one that keeps least."""
    best, worst = standings[0], standings[-1]
    said = f"{size}: least is taken back from {best.worst.model}, {_taken(best)} of the head-room"
    return f"{said}; most from {worst.worst.model}, {_taken(worst)}." if worst is not best else f"{said}."


def _taken(standing: Standing) -> str:
    record = standing.worst.record
    return f"{words.percent(record['recovery'], 0)} {words.interval(record.get('recovery_ci'), 0)}".strip()


def saved(record: Record) -> float | None:
    """Share of the plain net's MACs that was not run."""
    return saving(record)


def why(record: Record, field: str) -> str:
    """Why a figure of a record is missing."""
    return missing(record, field)
