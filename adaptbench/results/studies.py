"""Reading ``study.json``: what a study found, for pages and documents. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptbench.errors import RunError
from adaptbench.results.files import read_json, write_text

SCHEMA = 1


def read_study(path: Path) -> dict[str, Any]:
    """A study's record, from its file or its run directory.

    Raises:
        RunError: missing, damaged, or of another version.
    """
    place = path / "study.json" if path.is_dir() else path
    if not place.is_file():
        raise RunError(f"there is no study at {place}.", todo="Run one: adaptbench run replicate-NAME.")
    record = read_json(place)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or "graphs" not in record:
        raise RunError(
            f"{place} is not a study of schema {SCHEMA}.", todo="Run the study again with this version of adaptbench."
        )
    return record


def has_study(path: Path) -> bool:
    """Whether a directory or file is a study rather than a run."""
    return (path / "study.json").is_file() if path.is_dir() else path.suffix == ".json"


def keep_study(run: Path, out: Path | None = None) -> Path:
    """Copy a study's record to where published summaries stand (default ``reports/published/NAME.json``).

    Raises:
        RunError: it holds no study. OutputError: the place cannot be written.
    """
    record = read_study(run)
    place = out or Path("reports") / "published" / f"{record['name']}.json"
    return write_text(place, json.dumps(_rounded(record), indent=1, ensure_ascii=False) + "\n")


def _rounded(value: Any) -> Any:
    """Seven significant digits: enough to recompute every stated figure, and small to commit."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def reading(record: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[float | None, list[float] | None]:
    """Our counterpart of a published figure, with its interval where there is one.

    Args:
        record: of the study. ours: graph, policy, figure, and a drop or a setting.

    Returns:
        The value (percent for accuracy and points, a ratio for speed-up and shares), and [low, high].
    """
    graph = record["graphs"].get(ours["graph"], {})
    found = graph.get("policies", {}).get(ours["policy"])
    if found is None:
        return None, None
    if ours["figure"] in _OF_ALL_POINTS:
        return _OF_ALL_POINTS[ours["figure"]](record, graph, ours), None
    if ours.get("setting") is not None:
        points = [p for p in found["settings"] if abs(p["setting"] - ours["setting"]) < 1e-9]
    else:
        points = [p for p in found["chosen"] if abs(p["drop"] - ours["drop"]) < 1e-9]
    if not points:
        return None, None
    point, figure = points[0], ours["figure"]
    if figure == "gain_points":
        low, high = point["drop_points_ci"]
        return -point["drop_points"], [-high, -low]
    if figure == "accuracy":
        return 100 * point["accuracy"], None
    if figure == "drop_points":
        return point["drop_points"], point["drop_points_ci"]
    return point[figure], None


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

    A saving that was read at a point chosen for a drop counts only where the drop was kept on test; elsewhere the
    verdict names the drop that was paid, with its paired interval.
    """
    ours = published["ours"]
    value, interval = reading(record, ours) if ours else (None, None)
    if value is not None and ours["figure"] in _SAVINGS and ours.get("drop") is not None:
        paid, about = reading(record, {**ours, "figure": "drop_points"})
        if paid is not None and about is not None and paid > 100 * ours["drop"] + 1e-9:
            low, high = (f"{end:.2f}".replace("-", "−") for end in about)
            return value, interval, f"drop not kept: {paid:.2f} [{low}, {high}] points"
    said = verdict(published, value, interval)
    if published.get("target"):  # ours to meet, nobody's to replicate
        said = {"better": "met", "same": "met", "worse": "not met"}.get(said, said)
    return value, interval, said


_SAVINGS = ("speedup", "cost_share", "oracle_share")


def _broken(record: Mapping[str, Any], graph: Mapping[str, Any], ours: Mapping[str, Any]) -> float | None:
    """Re-splits of a hundred in which the promise at ε = setting was broken."""
    rows = [
        row
        for row in graph["resplits"]
        if row["policy"] == ours["policy"] and row["count"] and abs(row["epsilon"] - ours["setting"]) < 1e-9
    ]
    return 100 * rows[0]["rate"] if rows else None


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
    "broken": _broken,
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
