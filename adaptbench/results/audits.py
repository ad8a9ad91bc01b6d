"""The figures of an audit, from per-sample rows alone: whoever has the rows can work them out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.results import metrics, statistics
from adaptbench.results.metrics import CostBounds
from adaptbench.results.schema import Record
from adaptbench.results.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd

NO_ROOM = "every clean input already costs the maximum"
TAIL = 0.05
"""Share of inputs that the tail's mean is of."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One condition of an audit.

    Args:
        condition: its id. kind: "clean", "control" or "attack". evaluation: what its rows are called.
    """

    condition: str
    kind: str
    evaluation: str


def tried(cases: Sequence[Record]) -> list[Tried]:
    """The conditions that a run has figures of, in order."""
    return [Tried(c["condition"], c["kind"], c["evaluation"]) for c in cases if c["n"]]


def audit_figures(samples: pd.DataFrame, conditions: Sequence[Tried], bounds: CostBounds, *, seed: int) -> Record:
    """Everything that an audit claims.

    Recovery is (mean attacked − mean clean) / (dearest − mean clean), a ratio of means with a paired bootstrap interval
    over inputs. Dearest is the structural maximum (`recovery`), or the dearest cost that any input of any condition had
    (`recovery_seen`): some paths exist on paper only.

    Args:
        samples: rows of all conditions, columns of ``samples.parquet``. conditions: one of them clean.
        bounds: what the model can cost. seed: of the bootstrap.

    Returns:
        JSON: an estimate is ``{"value", "low", "high"}``, a figure that does not exist None.
    """
    rows = {t.condition: samples[samples["case"] == t.evaluation] for t in conditions}
    dearest = {name: int(frame["macs"].max()) for name, frame in rows.items()}
    seen = max(dearest.values())
    clean = rows["clean"]
    by_condition = {t.condition: _condition(t, rows[t.condition], clean, bounds, seen, seed) for t in conditions}
    attacks = {
        name: figures["recovery"]["value"]
        for name, figures in by_condition.items()
        if figures["kind"] == "attack" and figures["recovery"] is not None
    }
    worst = max(attacks, key=lambda name: attacks[name]) if attacks else None
    return {
        "n": len(clean),
        "macs_min": bounds.min_macs,
        "macs_max": bounds.max_macs,
        "macs_full": bounds.macs_full,
        "macs_seen": seen,
        "seen_in": next(name for name, macs in dearest.items() if macs == seen),
        "accuracy": by_condition["clean"]["accuracy"],
        "saving": _told(
            statistics.mean(clean["macs"].to_numpy(), seed=seed).map(lambda mean: 1 - mean / bounds.macs_full)
        ),
        "worst": worst,
        "recovery": by_condition[worst]["recovery"] if worst else None,
        "recovery_seen": by_condition[worst]["recovery_seen"] if worst else None,
        "conditions": by_condition,
    }


def _condition(of: Tried, frame: pd.DataFrame, clean: pd.DataFrame, bounds: CostBounds, seen: int, seed: int) -> Record:
    macs = frame["macs"].to_numpy()
    figures: Record = {
        "kind": of.kind,
        "n": len(frame),
        "accuracy": _told(statistics.proportion(int(frame["correct"].sum()), len(frame))),
        "macs_mean": _told(statistics.mean(macs, seed=seed)),
        "macs_p99": _told(statistics.quantile(macs, 0.99)),
        "macs_cvar": metrics.cvar(macs, TAIL),
        "at_max": float(np.mean(macs >= bounds.max_macs)),
        "at_seen": float(np.mean(macs >= seen)),
        "linf_max": float(frame["linf"].max()),
        "ties": int(frame["tie"].sum()),
        "answers_kept": None,
        "recovery": None,
        "recovery_seen": None,
    }
    if of.kind == "clean":
        return figures
    here, there = _paired(frame, clean)
    before, after = clean["macs"].to_numpy()[there], macs[here]
    kept = frame["prediction"].to_numpy()[here] == clean["prediction"].to_numpy()[there]
    figures["answers_kept"] = _told(statistics.proportion(int(kept.sum()), len(kept)))
    figures["recovery"] = _told(metrics.recovery(before, after, bounds.max_macs, seed=seed))
    figures["recovery_seen"] = _told(metrics.recovery(before, after, seen, seed=seed))
    return figures


def _paired(frame: pd.DataFrame, clean: pd.DataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of the inputs that both have."""
    _, here, there = np.intersect1d(frame["sample_id"], clean["sample_id"], return_indices=True)
    return here, there


def _told(estimate: Estimate | None) -> dict[str, float | None] | None:
    """JSON has no infinity: an end that is open is None."""
    if estimate is None or not np.isfinite(estimate.value):
        return None
    ends = {name: float(end) if np.isfinite(end) else None for name, end in _ends(estimate)}
    return {"value": float(estimate.value), **ends}


def _ends(estimate: Estimate) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("low", estimate.low), ("high", estimate.high)


def differing(one: Mapping[str, Any], other: Mapping[str, Any], *, slack: float = 1e-9) -> list[str]:
    """Names of figures, dotted, that two documents of figures do not agree in.

    Args:
        slack: relative; sums are rounded in another order elsewhere.
    """
    names = list(dict.fromkeys([*one, *other]))
    found: list[str] = []
    for name in names:
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [f"{name}.{inner}" for inner in differing(a, b, slack=slack)]
        elif not _same(a, b, slack):
            found.append(name)
    return found


def _same(a: Any, b: Any, slack: float) -> bool:
    if isinstance(a, float | int) and isinstance(b, float | int) and not isinstance(a, bool):
        return bool(np.isclose(a, b, rtol=slack, atol=slack))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y, slack) for x, y in zip(a, b, strict=True))
    return bool(a == b)
