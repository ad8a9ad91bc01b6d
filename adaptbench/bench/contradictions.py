"""Cases of one run that cannot all be true of a search that works: AutoAttack's checks, for energy.

A search that is stronger by its means (gradients against queries, a larger ball, anything against chance) and finds
less has failed; what it found is then no bound on anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptbench.report import words
from adaptbench.results.controls import queries_of
from adaptbench.results.transfers import matrices

Record = Mapping[str, Any]
Conditions = Mapping[str, Mapping[str, Any]]
SATURATED = 0.99
"""Nothing more can be found above it."""


def contradictions(cases: Sequence[Record], conditions: Conditions) -> list[str]:
    """Sentences for the notes.

    Args:
        cases: one record an evaluation. conditions: of the manifest.
    """
    rows = [c for c in cases if c["kind"] in ("attack", "control") and _wants_cost(c, conditions)]
    found = [*_beats_white_box(rows, conditions), *_beats_worst_case(rows, conditions)]
    found += [*_flat_in_eps(rows, conditions), *_beaten_by_chance(rows, conditions)]
    return [*found, *_beaten_from_elsewhere(cases, conditions), *_at_ceiling(cases)]


def _beats_white_box(rows: Sequence[Record], conditions: Conditions) -> list[str]:
    said = []
    for row in rows:
        if row["kind"] != "attack" or _access(row, conditions) not in ("black-box", "transfer"):
            continue
        white = [
            r
            for r in _beside(row, rows, conditions)
            if r["kind"] == "attack" and _access(r, conditions) == "white-box" and _as_free(r, row, conditions)
        ]
        best = max(white, key=lambda r: float(r["recovery"]), default=None)
        if best is not None and _beyond(row, best):
            said.append(
                f"{row['condition']} takes back more on {row['model']} without gradients ({_told(row)}) than "
                f"{best['condition']} with them ({_told(best)}): gradients are masked, or that search is weak"
            )
    return said


def _beats_worst_case(rows: Sequence[Record], conditions: Conditions) -> list[str]:
    """One search with gradients that finds more than several in turn, which are run as the worst case (`standard`)."""
    said = []
    for several in rows:
        if "members" not in _settings(several, conditions):
            continue
        ahead = [
            r
            for r in _beside(several, rows, conditions)
            if r["kind"] == "attack"
            and _access(r, conditions) == "white-box"
            and _as_free(r, several, conditions)
            and _beyond(r, several)
        ]
        if ahead:
            best = max(ahead, key=lambda r: float(r["recovery"]))
            said.append(
                f"{best['condition']} takes back more on {several['model']} ({_told(best)}) than "
                f"{several['condition']} ({_told(several)}), which is no worst case there: read both"
            )
    return said


def _flat_in_eps(rows: Sequence[Record], conditions: Conditions) -> list[str]:
    said = []
    for small in rows:
        for large in rows:
            if small["kind"] != "attack" or not _same_but_eps(small, large, conditions):
                continue
            a, b = _eps(small, conditions), _eps(large, conditions)
            doubled = a is not None and b is not None and b >= 2 * a > 0
            if doubled and small["recovery"] < SATURATED and large["recovery"] <= _high(small):
                said.append(
                    f"{large['condition']} takes back no more on {large['model']} ({_told(large)}) than "
                    f"{small['condition']} with half of its eps or less ({_told(small)}): the search is the limit, "
                    "not the net"
                )
    return said


def _beaten_by_chance(rows: Sequence[Record], conditions: Conditions) -> list[str]:
    said = []
    for row in rows:
        if row["kind"] != "attack" or _settings(row, conditions).get("label") == "keep":
            continue  # chance may change answers
        drawn = [
            r
            for r in _beside(row, rows, conditions)
            if r["kind"] == "control" and queries_of(conditions.get(r["condition"]) or {}) is None and _beyond(r, row)
        ]
        if drawn:
            best = max(drawn, key=lambda r: float(r["recovery"]))
            said.append(
                f"{best['condition']} takes back more on {row['model']} by chance ({_told(best)}) than "
                f"{row['condition']} ({_told(row)})"
            )
    return said


def _beaten_from_elsewhere(cases: Sequence[Record], conditions: Conditions) -> list[str]:
    """Pictures of another model that are dearer here than those that were crafted here, by the same attack."""
    said = []
    for matrix in matrices([dict(c) for c in cases]):
        for (source, judged), away in matrix.cells.items():
            home = matrix.cells.get((judged, judged))
            if source == judged or home is None or not all(_wants_cost(c, conditions) for c in (home, away)):
                continue
            if _beyond(away, home):
                said.append(
                    f"{matrix.condition} takes back more on {judged} when it is crafted on {source} ({_told(away)}) "
                    f"than on {judged} itself ({_told(home)}): gradients are masked there, or that search is weak"
                )
    return said


def _at_ceiling(cases: Sequence[Record]) -> list[str]:
    """Inputs that nothing could be taken back of, whatever the attack."""
    shares = {c["model"]: c["at_ceiling"] for c in cases if c["kind"] == "attack" and c.get("at_ceiling")}
    if not shares:
        return []
    told = ", ".join(f"{model} {words.percent(share)}" for model, share in shares.items())
    return [
        f"inputs that cost the maximum before any attack: {told}; recovery is over all inputs, its mean per input "
        "leaves them out"
    ]


def _wants_cost(row: Record, conditions: Conditions) -> bool:
    """Has a recovery, and was after it: attacks on accuracy, and on early exits, are not."""
    aim = _settings(row, conditions).get("aim", "dearest")
    return row.get("recovery") is not None and aim == "dearest" and not row["condition"].startswith("torchattacks/")


def _as_free(one: Record, other: Record, conditions: Conditions) -> bool:
    """Both make a change for each input, or neither; answers may change in both, or in neither."""
    a, b = _settings(one, conditions), _settings(other, conditions)
    return a.get("label", "free") == b.get("label", "free") and a.get("shared") == b.get("shared")


def _beside(row: Record, rows: Sequence[Record], conditions: Conditions) -> list[Record]:
    """Records of the same model, data, seed and ball."""
    ball = _ball(row, conditions)
    same = [r for r in rows if r is not row and all(r.get(k) == row.get(k) for k in ("model", "data", "seed"))]
    return [r for r in same if ball[1] is not None and _ball(r, conditions) == ball]


def _same_but_eps(one: Record, other: Record, conditions: Conditions) -> bool:
    if one is other or any(one.get(k) != other.get(k) for k in ("model", "data", "seed", "kind")):
        return False

    def rest(row: Record) -> dict[str, Any]:
        told = conditions.get(row["condition"]) or {}
        settings = {k: v for k, v in _settings(row, conditions).items() if k != "eps"}
        return settings | {"access": told.get("access"), "by": told.get("summary")}

    return rest(one) == rest(other)


def _settings(row: Record, conditions: Conditions) -> dict[str, Any]:
    return dict((conditions.get(row["condition"]) or {}).get("settings") or {})


def _ball(row: Record, conditions: Conditions) -> tuple[str, float | None]:
    settings = _settings(row, conditions)
    return str(settings.get("constraint", settings.get("norm", "linf"))).lower(), _eps(row, conditions)


def _eps(row: Record, conditions: Conditions) -> float | None:
    eps = _settings(row, conditions).get("eps")
    return round(float(eps), 9) if isinstance(eps, int | float) and not isinstance(eps, bool) else None


def _access(row: Record, conditions: Conditions) -> str:
    return str((conditions.get(row["condition"]) or {}).get("access"))


def _beyond(more: Record, less: Record) -> bool:
    """Beyond the interval: of the first alone on the same inputs, of both where their number differs."""
    low = (more.get("recovery_ci") or [more["recovery"]])[0]
    return bool(low > (less["recovery"] if more["n"] == less["n"] else _high(less)))


def _high(row: Record) -> float:
    return float((row.get("recovery_ci") or [row["recovery"]] * 2)[1])


def _told(row: Record) -> str:
    return f"{words.percent(row['recovery'])} {words.interval(row.get('recovery_ci'))}".rstrip()
