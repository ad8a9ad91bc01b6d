"""Fair comparison of trade-offs: at equal realised cost, on the lower convex hull, never at equal nominal budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from adaptbench.results.statistics import Floats


def lower_hull(cost: ArrayLike, error: ArrayLike) -> tuple[Floats, Floats]:
    """Lower convex hull of (cost, error) points, falling part only, as (cost, error) rising in cost.

    A point on an edge is reached by mixing its two ends at random, so the hull is what a set of settings can do.

    Raises:
        ValueError: no points, or one that is not finite.
    """
    points = np.column_stack([np.asarray(cost, dtype=np.float64), np.asarray(error, dtype=np.float64)])
    if not len(points) or not np.isfinite(points).all():
        raise ValueError("a hull needs finite points, at least one")
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    hull: list[Floats] = []
    for point in points:
        if hull and point[1] >= hull[-1][1]:
            continue  # dearer and no better
        while len(hull) >= 2 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    kept = np.array(hull)
    return kept[:, 0], kept[:, 1]


def _turns_up(a: Floats, b: Floats, c: Floats) -> bool:
    """B lies on or above the line from a to c."""
    return bool((b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0]))


def error_at_cost(cost: ArrayLike, error: ArrayLike, at: float) -> float | None:
    """Smallest error that the hull reaches at a cost of at most ``at``; None below the cheapest point."""
    x, y = lower_hull(cost, error)
    return float(np.interp(at, x, y)) if at >= x[0] else None


def accuracy_at_cost(cost: ArrayLike, accuracy: ArrayLike, at: float) -> float | None:
    """Largest accuracy that mixing settings reaches at a cost of at most ``at``; None below the cheapest point."""
    error = error_at_cost(cost, 1 - np.asarray(accuracy, dtype=np.float64), at)
    return None if error is None else 1 - error


def cost_at_drop(cost: ArrayLike, accuracy: ArrayLike, full_accuracy: float, drop: float) -> float | None:
    """Smallest cost whose accuracy is at least ``full_accuracy − drop``; None where no setting gets there."""
    x, y = lower_hull(cost, 1 - np.asarray(accuracy, dtype=np.float64))
    wanted = 1 - full_accuracy + drop
    if wanted < y[-1] and not np.isclose(wanted, y[-1], rtol=0, atol=1e-12):
        return None
    return float(np.interp(-wanted, -y, x))


def share_of_oracle_saving(cost: float, full_cost: float, oracle_cost: float) -> float | None:
    """(full − cost) / (full − oracle): what part of the possible saving a policy gets; None where there is none."""
    return None if oracle_cost >= full_cost else (full_cost - cost) / (full_cost - oracle_cost)
