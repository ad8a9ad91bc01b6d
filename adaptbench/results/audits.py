"""The figures of an audit, from per-sample rows alone: whoever has the rows can work them out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptbench.results.metrics import CostBounds, summarise
from adaptbench.results.schema import Record

if TYPE_CHECKING:
    import pandas as pd


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
    assert bounds.macs_full is not None  # audits refuse boxes that tell no MACs
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
        "n": by_condition["clean"]["n"],
        "macs_min": bounds.min_macs,
        "macs_max": bounds.max_macs,
        "macs_full": bounds.macs_full,
        "macs_seen": seen,
        "seen_in": next(name for name, macs in dearest.items() if macs == seen),
        "accuracy": by_condition["clean"]["accuracy"],
        "saving": _saving(by_condition["clean"]["macs_mean"], bounds.macs_full),
        "worst": worst,
        "recovery": by_condition[worst]["recovery"] if worst else None,
        "recovery_seen": by_condition[worst]["recovery_seen"] if worst else None,
        "conditions": by_condition,
    }


def _condition(of: Tried, frame: pd.DataFrame, clean: pd.DataFrame, bounds: CostBounds, seen: int, seed: int) -> Record:
    """The figures of a case's record that an audit speaks of, and how many inputs cost all that can be."""
    record = summarise(frame, None if of.kind == "clean" else clean, replace(bounds, seen=seen), seed=seed)
    macs = frame["macs"].to_numpy()
    estimates = ("accuracy", "macs_mean", "macs_p99", "recovery", "recovery_seen")
    return {
        "kind": of.kind,
        **{name: record[name] for name in ("n", "linf_max", "ties", "macs_cvar")},
        **{name: _told(record, name) for name in estimates},
        "answers_kept": _told(record, "label_kept"),
        "at_max": float(np.mean(macs >= bounds.max_macs)),
        "at_seen": float(np.mean(macs >= seen)),
    }


def _told(record: Record, name: str) -> dict[str, float | None] | None:
    """A record's estimate in one piece; an interval that is open at an end has none."""
    if record[name] is None:
        return None
    low, high = record.get(f"{name}_ci") or (None, None)
    return {"value": record[name], "low": low, "high": high}


def _saving(mean: Mapping[str, float | None], full: int) -> dict[str, float | None]:
    """Of the static net's MACs; the dearest end of the mean is the low end of the saving."""
    ends = {"value": "value", "low": "high", "high": "low"}
    told = {name: mean[end] for name, end in ends.items()}
    return {name: None if value is None else 1 - value / full for name, value in told.items()}


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
