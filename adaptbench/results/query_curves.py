"""Recovery over queries: conditions that are one attack at several budgets, over seeds, from rows of single inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.results.controls import queries_of

Costs = Callable[[str], Mapping[int, int] | None]
"""Evaluation id → sample id → executed MACs; None where no rows were kept."""

RESAMPLES = 2_000
_SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class Point:
    """One budget.

    Args:
        queries: an input, at most. recovery: mean over seeds of the recovery of means.
        low, high: 95 %, both inputs and seeds drawn again. by_seed: in order of the seeds. n: inputs.
        condition: its id.
    """

    queries: int | None
    recovery: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    n: int
    condition: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One attack on one model.

    Args:
        name: what the ids of its conditions have in common. points: by rising queries; one without where none is asked.
    """

    model: str
    name: str
    kind: str
    access: str
    points: tuple[Point, ...]


def query_curves(
    manifest: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], costs: Costs, *, budgets: int = 2
) -> list[Curve]:
    """Curves of attacks and controls that ask, and beside them, as single points, the attacks that look inside.

    None of a model for which nothing asks at two budgets: one point is no curve.

    Args:
        manifest: of a run or of a kept one. cases: its records. costs: of rows. budgets: in the place of two.
    """
    conditions = manifest.get("conditions") or {}
    seeds = list(manifest.get("seeds") or [0])
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for model, name, condition in _grouped(cases, conditions):
        groups.setdefault((model, name), {}).setdefault(condition, [])
    by = {(c["model"], c["condition"], c["seed"]): str(c["evaluation"]) for c in cases}
    tables: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
    for (model, name), members in groups.items():
        made = {condition: _table(condition, model, seeds, by, costs) for condition in members}
        tables[model, name] = {condition: table for condition, table in made.items() if table is not None}
    asked = {model for (model, _), found in tables.items() if len(found) >= budgets}
    curves = []
    for (model, name), found in tables.items():
        if model not in asked:  # no intervals of what is not shown
            continue
        dearest = float(manifest["models"][model]["max_macs"])
        points = [
            point
            for condition, table in found.items()
            if (point := _point(condition, queries_of(conditions[condition]), table, dearest))
        ]
        about = conditions[next(iter(groups[model, name]))]
        points.sort(key=lambda p: p.queries or 0)
        curves.append(Curve(model, name, about["kind"], about["access"], tuple(points)))
    asked = {c.model for c in curves if len(c.points) >= budgets}
    return [c for c in curves if c.points and c.model in asked]


def _grouped(
    cases: Iterable[Mapping[str, Any]], conditions: Mapping[str, Mapping[str, Any]]
) -> Iterable[tuple[str, str, str]]:
    """(model, name of the curve, condition); a budget is all that conditions of one curve differ in."""
    names: dict[str, str] = {}
    for case in cases:
        about = conditions.get(case["condition"]) or {}
        if case["kind"] not in ("attack", "control") or case.get("recovery") is None:
            continue
        if queries_of(about) is None and about.get("access") != "white-box":
            continue
        rest = {k: v for k, v in (about.get("settings") or {}).items() if k != "queries"}
        key = f"{case['model']} {about.get('summary')} {sorted(rest.items(), key=str)}"
        own = str(case["condition"]).removesuffix(f"-{queries_of(about)}")
        yield case["model"], names.setdefault(key, own), case["condition"]


def _table(
    condition: str, model: str, seeds: Sequence[int], by: Mapping[tuple[str, str, int], str], costs: Costs
) -> NDArray[np.float64] | None:
    """(seeds, 2, inputs) executed MACs, attacked and clean; None without rows, or where seeds have other inputs."""
    rows = []
    for seed in seeds:
        evaluation, clean = by.get((model, condition, seed)), by.get((model, "clean", seed))
        attacked = costs(evaluation) if evaluation else None
        before = costs(clean) if clean else None
        if attacked is None or before is None:
            continue
        ids = sorted(attacked)
        rows.append(np.array([[attacked[i] for i in ids], [before[i] for i in ids]], dtype=np.float64))
    return np.stack(rows) if rows and len({r.shape for r in rows}) == 1 else None


def _point(condition: str, queries: int | None, table: NDArray[np.float64], dearest: float) -> Point | None:
    each = [_recovery(table[k : k + 1], dearest) for k in range(len(table))]
    if not np.isfinite(each).all():
        return None
    draws, n = np.random.default_rng(_SEED), table.shape[2]
    drawn = [
        _recovery(table[draws.integers(len(table), size=len(table))][:, :, draws.integers(n, size=n)], dearest)
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Point(queries, float(np.mean(each)), float(low), float(high), tuple(each), n, condition)


def _recovery(table: NDArray[np.float64], dearest: float) -> float:
    """Mean over seeds of (attacked − clean) / (dearest − clean), each of means over inputs; NaN without head-room."""
    attacked, clean = table.mean(2).T
    room = dearest - clean
    return float(np.mean((attacked - clean) / room)) if (room > 0).all() else float("nan")
