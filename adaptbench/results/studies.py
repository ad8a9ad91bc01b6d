"""What a study found, read for pages, documents and the gate. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptbench.errors import RunError
from adaptbench.results import study_schema
from adaptbench.results.files import read_json
from adaptbench.results.identity import COMPACTED
from adaptbench.results.record_runs import Part, RecordRun
from adaptbench.results.store import MANIFEST, STUDY, place_of
from adaptbench.results.study_reasons import with_reasons

SCHEMA = 5
"""1 had no non-inferior points; in 2, what now stands in the manifest stood in ``study.json``; up to 3, a figure could
be null without its reason; up to 4, rows of wall_clock did not say their mode."""
_OF_THE_RUN = ("id", "command", "device", "versions", "git", "data", "gate", "notes", "engines", "started", "ended")


class StudyRun(RecordRun):
    """A complete study directory. record: ``study.json`` and what the manifest says of the run, flat."""

    __slots__ = ()
    kind, file, of_the_run, schema, digits = "study", STUDY, _OF_THE_RUN, SCHEMA, 7

    @classmethod
    def parts(cls, record: Mapping[str, Any]) -> Iterator[Part]:
        """Every part of a record; one is whole when those in it are asked for."""
        yield from study_schema.parts(record)

    @classmethod
    def checked(cls, document: Any, place: Path, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A record of today's schema, with every field that readers lean on; an older one is lifted.

        Args:
            document: parsed JSON. place: where it stood. told: what the manifest beside it says.

        Raises:
            RunError: it is no study, of another version, or damaged.
        """
        version = document.get("schema") if isinstance(document, dict) else None
        if version not in range(1, SCHEMA + 1) or isinstance(version, bool) or "graphs" not in document:
            raise RunError(
                f"{place} is not a study of schema {SCHEMA}.",
                todo="Run the study again with this version of adaptbench.",
            )
        record = {**(told or {}), **document}
        if wrong := study_schema.fault(record):
            raise RunError(f"{place} is damaged: {wrong}.", todo="Run the same command again.")
        return upgraded(record)

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """A study's record, from its directory or from the file that was kept of it.

        Raises:
            RunError: missing, damaged, or of another version.
        """
        if path.is_dir() and place_of(path, MANIFEST).is_file():
            return cls.open(path).record
        place = path / STUDY if path.is_dir() else path
        if not place.is_file():
            raise RunError(f"there is no study at {place}.", todo="Run one: adaptbench run replicate-NAME.")
        return cls.checked(read_json(place), place)

    @classmethod
    def incomplete(cls, record: Mapping[str, Any]) -> list[str]:
        """What a study was asked for and could not do, one sentence each; empty where it is whole.

        What does not apply to a graph (re-splits of a DAG) is not among it.
        """
        gaps = [f"{key}: the graph is missing: {why}" for key, why in (record.get("failed_graphs") or {}).items()]
        for key, graph in record["graphs"].items():
            gaps += [f"{key}: {name} is left out: {why}" for name, why in graph["failed"].items()]
            gaps += [f"{key}: {what} is missing: {why}" for what, why in (graph.get("missing") or {}).items()]
            gaps += [
                f"{key}: {row['policy']} was fitted on {row['count']} of {row['asked']} re-splits: {row['missing']}"
                for row in graph["resplits"]
                if row.get("missing")
            ]
        return gaps


def kind_of(path: Path) -> str:
    """What a directory or a file says of itself: "suite", "study", "serving" or "decoding".

    Raises:
        RunError: it cannot be read.
    """
    place = place_of(path, MANIFEST) if path.is_dir() else path
    if path.is_dir() and not place.is_file():
        place = path / STUDY  # of before studies had a manifest
    if not place.is_file():
        return "suite"  # whoever opens it says what is missing
    document = read_json(place)
    said = document.get("kind", "study" if "graphs" in document else "") if isinstance(document, dict) else ""
    return said if said in ("study", "serving", "decoding") else "suite"


def upgraded(record: dict[str, Any]) -> dict[str, Any]:
    """A record of an older schema as one of today; what it cannot hold is null with its reason."""
    if record["schema"] == SCHEMA:
        return record
    record = {"overrides": [], "data": {}} | record | {"kind": "study"}
    if record["schema"] == 1:
        record = _without_non_inferior(record)
    return _with_modes(with_reasons(record)) | {"schema": SCHEMA}


def _with_modes(record: dict[str, Any]) -> dict[str, Any]:
    """Until schema 4 all that was timed was compacted."""
    return record | {
        "graphs": {
            key: graph | {"wall_clock": [{"mode": COMPACTED} | row for row in graph["wall_clock"]]}
            for key, graph in record["graphs"].items()
        }
    }


def _without_non_inferior(record: dict[str, Any]) -> dict[str, Any]:
    reason = "the study was run before non-inferior points were chosen; run it again"
    graphs = {}
    for key, graph in record["graphs"].items():
        policies = {
            name: {"non_inferior": None, "non_inferior_missing": reason} | policy
            for name, policy in graph["policies"].items()
        }
        graphs[key] = {"margin": 0.01, "missing": {}, "not_run": {}} | graph | {"policies": policies}
    return record | {"upgraded": {"from": 1, "missing": reason}, "graphs": graphs}


def chosen_points(policy: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """A policy's points that were chosen on calibration, each with what it was chosen for."""
    points = [(for_drop(point["drop"]), point) for point in policy["chosen"]]
    if point := policy.get("non_inferior"):
        points.append((for_margin(point["margin"]), point))
    return points + [(at_setting(point["setting"]), point) for point in policy["settings"]]


def for_drop(drop: float) -> str:
    """What a point was chosen for: accuracy that may be lost."""
    return f"−{100 * drop:g} points"


def for_margin(margin: float) -> str:
    """What a point was chosen for: being shown to be non-inferior."""
    return f"non-inferior within {100 * margin:g}"


def at_setting(value: float) -> str:
    """What a point was asked for by."""
    return f"setting {value:g}"


def executed_points(graph: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What executing the chosen points showed, each point once."""
    executed = []
    for policy in graph["policies"].values():
        ran = {p["macs_mean"]: p["executed"] for _, p in chosen_points(policy) if p.get("executed")}
        executed += list(ran.values())
    return executed


def point_of(policy: Mapping[str, Any], ours: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The chosen point that a counterpart names: of a drop, a setting, or the non-inferior one."""
    if ours.get("non_inferior"):
        point: Mapping[str, Any] | None = policy.get("non_inferior")
        return point
    if ours.get("setting") is not None:
        points = [p for p in policy["settings"] if abs(p["setting"] - ours["setting"]) < 1e-9]
    else:
        points = [p for p in policy["chosen"] if abs(p["drop"] - ours["drop"]) < 1e-9]
    return points[0] if points else None


def reading(record: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[float | None, list[float] | None]:
    """Our counterpart of a published figure, with its interval where there is one.

    Args:
        record: of the study. ours: graph, policy, figure, and a drop, a setting or non_inferior.

    Returns:
        The value (percent for accuracy and points, a ratio for speed-up and shares), and [low, high].
    """
    graph = record["graphs"].get(ours["graph"], {})
    policy = graph.get("policies", {}).get(ours["policy"])
    if policy is None:
        return None, None
    if ours["figure"] in _OF_ALL_POINTS:
        return _OF_ALL_POINTS[ours["figure"]](record, graph, ours), None
    if ours["figure"] == "broken":
        return _broken(graph, ours), None
    point, figure = point_of(policy, ours), ours["figure"]
    if point is None:
        return None, None
    if figure == "gain_points":
        low, high = point["drop_points_ci"]
        return -point["drop_points"], [-high, -low]
    if figure == "accuracy":
        return 100 * point["accuracy"], None
    if figure == "drop_points":
        return point["drop_points"], point["drop_points_ci"]
    return point[figure], None


def loss_of(record: Mapping[str, Any], published: Mapping[str, Any]) -> tuple[float | None, list[float] | None]:
    """Points of accuracy lost at the very point whose saving is quoted: they belong together."""
    ours = published["ours"]
    if ours is None or ours["figure"] not in _SAVINGS:
        return None, None
    return reading(record, {**ours, "figure": "drop_points"})


NOT_RECOVERED = "not recovered"
"""Provenance of a claim whose figure could not be read; its value is a placeholder."""


_COUNTS = ("broken", "budgets_ahead", "budgets_held")


def decimals(published: Mapping[str, Any]) -> int:
    """0 for figures that are whole numbers, else 2."""
    return 0 if published["ours"] and published["ours"]["figure"] in _COUNTS else 2


def stated(published: Mapping[str, Any]) -> float | None:
    """The published value; None where it was not recovered."""
    return None if published["provenance"] == NOT_RECOVERED else float(published["value"])


def judged(record: Mapping[str, Any], published: Mapping[str, Any]) -> tuple[float | None, list[float] | None, str]:
    """Our counterpart, its interval and the verdict.

    A saving and the accuracy lost for it are one point and get one verdict. A saving at a point chosen for a drop, or
    for being non-inferior, counts only where test shows that; elsewhere the verdict names what was paid.
    """
    ours = published["ours"]
    value, interval = reading(record, ours) if ours else (None, None)
    if published.get("unlike"):
        return value, interval, "not comparable"
    if value is None:
        return None, None, _why_none(record, ours)
    paid, about = loss_of(record, published)
    if paid is not None and about is not None and (broken := _not_kept(record, ours, paid, about)):
        return value, interval, broken
    said = verdict(published, value, interval)
    if published.get("points_lost") is not None and paid is not None:
        slack = {"better": "lower", "tolerance": _SAME_POINTS, "value": published["points_lost"]}
        said = _both(said, verdict(slack, paid, about))
    if published.get("target"):  # ours to meet, nobody's to replicate
        said = {"better": "met", "same": "met", "worse": "not met"}.get(said, said)
    return value, interval, said


def _why_none(record: Mapping[str, Any], ours: Mapping[str, Any] | None) -> str:
    """Not comparable; unless calibration was asked for a non-inferior point and had none to show."""
    policy = record["graphs"].get(ours["graph"], {}).get("policies", {}).get(ours["policy"]) if ours else None
    if ours and policy and ours.get("non_inferior") and "non_inferior_missing" in policy:
        return "no point shown to be non-inferior"
    return "not comparable"


_SAME_POINTS = 0.05
"""Accuracies are printed to a tenth of a point."""


def _not_kept(record: Mapping[str, Any], ours: Mapping[str, Any], paid: float, about: list[float]) -> str:
    """What was paid, where that is more than the point was chosen for; "" where it is not."""
    low, high = (f"{end:.2f}".replace("-", "−") for end in about)
    told = f"{paid:.2f} [{low}, {high}] points".replace("-", "−")
    if ours.get("drop") is not None and paid > 100 * ours["drop"] + 1e-9:
        return f"drop not kept: {told}"
    if ours.get("non_inferior"):
        margin = record["graphs"][ours["graph"]]["margin"]
        if about[1] > 100 * margin:
            return f"not shown to lose less than {100 * margin:g}: {told}"
    return ""


def _both(saving: str, loss: str) -> str:
    """One verdict over a saving and the accuracy lost for it."""
    if {saving, loss} == {"better", "worse"}:
        return "saves more, loses more" if saving == "better" else "saves less, loses less"
    return next((said for said in ("worse", "better") if said in (saving, loss)), "same")


_SAVINGS = ("speedup", "cost_share", "oracle_share")


def _broken(graph: Mapping[str, Any], ours: Mapping[str, Any]) -> float | None:
    """Re-splits of a hundred in which the promise at ε = setting was broken."""
    rows = [
        row
        for row in graph["resplits"]
        if row["policy"] == ours["policy"] and row["count"] and abs(row["epsilon"] - ours["setting"]) < 1e-9
    ]
    return 100 * rows[0]["rate"] if rows and rows[0]["rate"] is not None else None


def _budgets_held(record: Mapping[str, Any], graph: Mapping[str, Any], ours: Mapping[str, Any]) -> float | None:
    """Budgets reached at which none of `against` is ahead beyond the paired interval; of the study's main policies."""
    if ours["policy"] not in (record["ours"], record["paper"]):
        return None
    reached = {r["budget"] for r in graph["at_budget"] if r["policy"] == ours["policy"] and r["accuracy"] is not None}
    behind: dict[float, bool] = {}
    for row in graph["at_budget"]:
        if row["policy"] not in ours["against"] or row["budget"] not in reached:
            continue
        if ours["policy"] == record["ours"]:
            interval = row["ours_ahead_points_ci"]
            lost = interval is not None and interval[1] < 0
        else:
            interval = row["over_paper_points_ci"]
            lost = interval is not None and interval[0] > 0
        behind[row["budget"]] = behind.get(row["budget"], False) or lost
    return float(sum(not lost for lost in behind.values())) if behind else None


def _budgets_ahead(record: Mapping[str, Any], graph: Mapping[str, Any], ours: Mapping[str, Any]) -> float | None:
    """Budgets at which no policy of `against` is more accurate, intervals aside."""
    here = {row["budget"]: row["accuracy"] for row in graph["at_budget"] if row["policy"] == ours["policy"]}
    best: dict[float, float] = {}
    for row in graph["at_budget"]:
        if row["policy"] in ours["against"] and row["accuracy"] is not None:
            best[row["budget"]] = max(best.get(row["budget"], 0.0), row["accuracy"])
    return float(sum(a is not None and a >= best.get(b, 0.0) - 1e-12 for b, a in here.items())) if here else None


def _budget_error(record: Mapping[str, Any], graph: Mapping[str, Any], ours: Mapping[str, Any]) -> float | None:
    """The largest distance of realised cost from the budget asked, percent of it, where the budget can be spent."""
    own = graph["budget_error"].get(ours["policy"], {}).get("own")
    return max(100 * abs(error) for _, error in own) if own else None


_OF_ALL_POINTS = {
    "budgets_held": _budgets_held,
    "budgets_ahead": _budgets_ahead,
    "budget_error": _budget_error,
}


def verdict(published: Mapping[str, Any], value: float | None, interval: list[float] | None) -> str:
    """One of better, same, worse, not comparable: against the figure, its tolerance and our interval."""
    if value is None:
        return "not comparable"
    sign = 1 if published["better"] == "higher" else -1
    theirs, slack = published["value"], published["tolerance"]
    if sign * (value - theirs) > slack:
        return "better"
    inside = interval is not None and interval[0] <= theirs <= interval[1]
    if abs(value - theirs) <= slack or inside:
        return "same"
    return "worse"
