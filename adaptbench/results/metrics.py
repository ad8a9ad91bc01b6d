"""From per-sample records to the deterministic part of a case record. The inner maths is numpy only.

Ratios of means and means of ratios are both kept and both named: division by small head-rooms makes them differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adaptbench.errors import RunError
from adaptbench.results import quality, statistics
from adaptbench.results.schema import COUNTED_HERE, METERED, METERED_COLUMNS, NO_LABEL, Record
from adaptbench.results.statistics import Estimate, Floats

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class MeteredBounds:
    """What is known of costs that a meter reads.

    Args:
        unit: "seconds" or "joules".
        full: of an input when nothing is left out, declared or metered; None where nobody knows.
        seen: dearest input of this model that the run has; None where only the rows at hand are known.
        noise: standard error of one input's cost, mean over inputs; None where it was not kept.
    """

    unit: str
    full: float | None = None
    seen: float | None = None
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class CostBounds:
    """What a model can cost, in MACs; of a box whose cost is metered these are None.

    Args:
        min_macs: cheapest path.
        max_macs: dearest path.
        macs_full: the static reference.
        exit_names: (K,) names, in the order of the exit index.
        exit_macs: (K,) cumulative MACs of a sample that leaves at each exit; None where an exit has no one cost
            (several ways lead there, or blocks are skipped).
        seen: dearest input of this model that the run has; None where only the rows at hand are known.
        budget: mean cost that the policy was asked to keep; None where it was not. no_budget: the reason.
        metered: what is known of metered costs; None where MACs are.
    """

    min_macs: int | None
    max_macs: int | None
    macs_full: int | None
    exit_names: tuple[str, ...]
    exit_macs: tuple[int, ...] | None = None
    seen: int | None = None
    budget: float | None = None
    no_budget: str = "the policy has no budget"
    metered: MeteredBounds | None = None


FOREIGN = "the pictures are of another data set, whose labels mean something else"
NO_DISTANCE = "token ids have no distance; the attack's details say how many words it edited"
NO_PADDING = "the inputs are no texts: nothing pads them"
NOT_UNPADDED = "the net takes rows of one length, looks at labels, or is no net of exits: not run without padding"
UNPAIRED = "no input in common with the clean case"
APART = "the pictures are of another data set: no change of the clean ones"

TAIL = 0.05
"""Share of the inputs, the dearest ones, that the conditional value at risk is the mean of."""


def increase(clean: ArrayLike, attacked: ArrayLike, *, seed: int = 0) -> Estimate:
    """mean(attacked) / mean(clean) − 1, paired by position, with its bootstrap interval (EREBA's IncCost)."""
    return statistics.ratio_of_means(clean, attacked, seed=seed).map(lambda ratio: ratio - 1)


def recovery(clean: ArrayLike, attacked: ArrayLike, max_macs: float, *, seed: int = 0) -> Estimate | None:
    """(mean attacked − mean clean) / (max − mean clean), paired by position (ILFO, GradAuto, DeSparsify).

    Returns:
        None where the clean inputs already cost the maximum: there is nothing to take back.
    """
    columns = np.column_stack([clean, attacked]).astype(np.float64)
    if columns[:, 0].mean() >= max_macs:
        return None

    def of(m: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (m[:, 1] - m[:, 0]) / (max_macs - m[:, 0])

    return statistics.of_means(columns, of, seed=seed)


def recovery_per_input(clean: ArrayLike, attacked: ArrayLike, max_macs: int, *, seed: int = 0) -> Estimate | None:
    """Mean over inputs of (attacked − clean) / (max − clean), inputs at the ceiling left out.

    Returns:
        None where every input is at the ceiling.
    """
    before, after = np.asarray(clean, dtype=np.float64), np.asarray(attacked, dtype=np.float64)
    room = before < max_macs
    if not room.any():
        return None
    return statistics.mean((after[room] - before[room]) / (max_macs - before[room]), seed=seed)


def efficacy_step(macs: ArrayLike, max_macs: int, *, seed: int = 0) -> Estimate:
    """1 − mean cost / max cost: the exact area under the exit CDF, the share of compute saved."""
    return statistics.mean(macs, seed=seed).map(lambda mean: 1 - mean / max_macs)


def efficacy_trapezoid(exits: ArrayLike, exit_macs: Sequence[int], *, seed: int = 0) -> Estimate:
    """Trapezoid area under the exit CDF over 0, C₁/C_K … 1, as DeepSloth's released code has it (ICLR 2021).

    A sample that leaves at exit k adds 1 − (x_{k−1} + x_k)/2, so the area is a mean over samples: it has a floor of
    (1 − x_{K−1})/2 and a ceiling below 1.

    Args:
        exits: (n,) exit index of each sample.
        exit_macs: (K,) cumulative MACs, rising.
        seed: of the bootstrap.
    """
    x = np.concatenate([[0.0], np.asarray(exit_macs, dtype=np.float64) / exit_macs[-1]])
    area = 1 - (x[:-1] + x[1:]) / 2
    return statistics.mean(area[np.asarray(exits, dtype=np.int64)], seed=seed)


def summarise(samples: pd.DataFrame, clean: pd.DataFrame | None, bounds: CostBounds, *, seed: int = 0) -> Record:
    """The deterministic part of a case record: every figure with ``X_ci``, or null with ``X_missing``.

    Identity (case, model, …), timing (`timing.summarise_windows`), ``craft_s``, ``inputs_sha256``, ``crafted`` and
    ``uncounted`` are the caller's.

    Args:
        samples: rows of one evaluation, columns of ``samples.parquet``.
        clean: rows of the clean evaluation of the same model and knob; None for the clean evaluation itself.
        bounds: what the model can cost.
        seed: of the bootstrap.

    Raises:
        RunError: no rows, or a sample id that stands twice.
    """
    columns = {name: samples[name].to_numpy() for name in ("correct", "exit", "depth", "linf", "l2", "tie")}
    ids = _sample_ids(samples)
    n = len(ids)
    right = int(np.count_nonzero(columns["correct"]))
    record: Record = {
        "n": n,
        "macs_min": bounds.min_macs,
        "macs_max": bounds.max_macs,
        "macs_full": bounds.macs_full,
        "exit_histogram": _histogram(columns["exit"], bounds.exit_names),
        "ties": int(np.count_nonzero(columns["tie"])),
    }
    foreign = _foreign(samples)
    per_pixel = quality.is_per_pixel(samples)
    record["metric"] = quality.MIOU if per_pixel else quality.ACCURACY
    if per_pixel:
        _lack(record, "accuracy", quality.OF_PIXELS)
        _put(record, "miou", quality.miou_estimate(samples, seed=seed))
        _put(record, "pixel_accuracy", quality.pixel_accuracy_estimate(samples, seed=seed))
    else:
        _lack(record, "miou", quality.OF_INPUTS)
        _lack(record, "pixel_accuracy", quality.OF_INPUTS)
        if foreign:
            _lack(record, "accuracy", FOREIGN)
        else:
            _put(record, "accuracy", statistics.proportion(right, n))
    _put(record, "depth_mean", statistics.mean(columns["depth"], seed=seed))
    if np.isnan(columns["linf"]).all():
        for name in ("linf_max", "l2_mean"):
            _lack(record, name, APART if foreign else NO_DISTANCE)
    else:
        record["linf_max"] = float(columns["linf"].max())
        _put(record, "l2_mean", statistics.mean(columns["l2"], seed=seed))
    queries = samples["queries"].dropna().to_numpy(dtype=np.float64)
    if len(queries):
        _put(record, "queries_mean", statistics.mean(queries, seed=seed))
    else:
        _lack(record, "queries_mean", "no query was made: not a query attack")
    pair = _paired(samples, clean)
    _without_padding(record, samples, seed)
    if bounds.metered is None:
        _counted(record, samples, bounds, seed)
        _costs_against_clean(record, samples, clean, pair, bounds, seed)
    else:
        _metered(record, samples, clean, pair, bounds.metered, seed)
    _answers_against_clean(record, samples, clean, pair, seed)
    return record


COSTS_AGAINST_CLEAN = ("increase", "recovery", "recovery_seen", "recovery_per_input_mean")
METERED_AGAINST_CLEAN = ("cost_increase", "cost_recovery", "cost_recovery_seen")
AGAINST_CLEAN = (*COSTS_AGAINST_CLEAN, *METERED_AGAINST_CLEAN, "accuracy_drop", "miou_drop", "label_kept")
"""Estimates that an attacked case has and the clean one has not."""
OF_MACS = (
    "macs_mean", "macs_p99", "macs_cvar", "budget_violation", "efficacy_step", "efficacy_trapezoid", "at_ceiling",
    *COSTS_AGAINST_CLEAN,
)  # fmt: skip
"""Figures of counted MACs: null where a meter reads the cost."""

Pair = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows of a case and of its clean case that hold the same inputs, in one order."""


def _foreign(samples: pd.DataFrame) -> bool:
    """Pictures whose classes are none of the net's."""
    return not quality.is_per_pixel(samples) and bool((samples["label"] == NO_LABEL).all())


def _paired(samples: pd.DataFrame, clean: pd.DataFrame | None) -> Pair:
    reference = samples if clean is None else clean
    _, here, there = np.intersect1d(_sample_ids(samples), _sample_ids(reference), return_indices=True)
    return here, there


def _without_padding(record: Record, samples: pd.DataFrame, seed: int) -> None:
    """What texts cost with no padding at all, beside what rows of one length cost."""
    told = samples.get("macs_unpadded")
    if told is not None and not told.isna().any():
        _put(record, "macs_unpadded_mean", statistics.mean(told.to_numpy(dtype=np.float64), seed=seed))
        return
    texts = np.isnan(samples["linf"].to_numpy()).all() and not _foreign(samples)
    _lack(record, "macs_unpadded_mean", NOT_UNPADDED if texts else NO_PADDING)


def _counted(record: Record, samples: pd.DataFrame, bounds: CostBounds, seed: int) -> None:
    """The figures of MACs that need no clean case."""
    macs = samples["macs"].to_numpy()
    assert bounds.max_macs is not None
    _put(record, "macs_mean", statistics.mean(macs, seed=seed))
    _put(record, "macs_p99", statistics.quantile(macs, 0.99))
    _put(record, "macs_cvar", statistics.tail_mean(macs, TAIL, seed=seed))
    record["macs_budget"] = bounds.budget
    if bounds.budget is None:
        _lack(record, "budget_violation", bounds.no_budget)
    else:
        over = int(np.count_nonzero(macs > bounds.budget))
        _put(record, "budget_violation", statistics.proportion(over, len(macs)))
    _put(record, "efficacy_step", efficacy_step(macs, bounds.max_macs, seed=seed))
    if bounds.exit_macs is None:
        _lack(record, "efficacy_trapezoid", "an exit of this model has no one cost")
    else:
        exits = samples["exit"].to_numpy()
        _put(record, "efficacy_trapezoid", efficacy_trapezoid(exits, bounds.exit_macs, seed=seed))
    for name in METERED:
        _lack(record, name, COUNTED_HERE)


def _metered(
    record: Record, samples: pd.DataFrame, clean: pd.DataFrame | None, pair: Pair, bounds: MeteredBounds, seed: int
) -> None:
    """The figures of costs that a meter reads; those of MACs, and of the other unit, are null."""
    own = METERED_COLUMNS[bounds.unit]
    for name in OF_MACS:
        _lack(record, name, f"the black box tells no MACs: its cost is metered in {bounds.unit}")
    for unit, column in METERED_COLUMNS.items():
        if unit != bounds.unit:
            _lack(record, column, f"its cost is metered in {bounds.unit}")
    _put(record, own, statistics.mean(samples[own].to_numpy(), seed=seed))
    record |= {f"{own}_max": bounds.full, f"{own}_noise": bounds.noise}
    here, there = pair
    if clean is None or not len(here):
        for name in METERED_AGAINST_CLEAN:
            _lack(record, name, "this is the clean case" if clean is None else UNPAIRED)
        return
    before, after = clean[own].to_numpy()[there], samples[own].to_numpy()[here]
    record[f"{own}_clean"] = float(before.mean())
    _put(record, "cost_increase", increase(before, after, seed=seed))
    if bounds.full is None:
        _lack(record, "cost_recovery", "nobody says what the box costs when nothing is left out (max_cost, reference)")
    else:
        no_room = "clean inputs already cost what the net costs when nothing is left out"
        _put(record, "cost_recovery", recovery(before, after, bounds.full, seed=seed), no_room)
    seen = max(float(before.max()), float(after.max())) if bounds.seen is None else bounds.seen
    record[f"{own}_seen"] = seen
    no_more = "no input that was seen costs more than the clean ones on average"
    _put(record, "cost_recovery_seen", recovery(before, after, seen, seed=seed), no_more)


def _costs_against_clean(
    record: Record, samples: pd.DataFrame, clean: pd.DataFrame | None, pair: Pair, bounds: CostBounds, seed: int
) -> None:
    here, there = pair
    if not len(here):
        for name in (*COSTS_AGAINST_CLEAN, "at_ceiling"):
            _lack(record, name, UNPAIRED)
        return
    assert bounds.max_macs is not None
    before = (samples if clean is None else clean)["macs"].to_numpy()[there]
    at_ceiling = int(np.count_nonzero(before >= bounds.max_macs))
    _put(record, "at_ceiling", statistics.proportion(at_ceiling, len(before)))
    if clean is None:
        for name in COSTS_AGAINST_CLEAN:
            _lack(record, name, "this is the clean case")
        return
    after = samples["macs"].to_numpy()[here]
    record["macs_clean_mean"] = float(before.mean())
    _put(record, "increase", increase(before, after, seed=seed))
    no_room = "every clean input already costs the maximum"
    _put(record, "recovery", recovery(before, after, bounds.max_macs, seed=seed), no_room)
    seen = max(int(before.max()), int(after.max())) if bounds.seen is None else bounds.seen
    record["macs_seen"] = seen
    no_more = "no input that was seen costs more than the clean ones on average"
    _put(record, "recovery_seen", recovery(before, after, seen, seed=seed), no_more)
    if _foreign(samples):
        _lack(record, "recovery_per_input_mean", APART)
    else:
        _put(record, "recovery_per_input_mean", recovery_per_input(before, after, bounds.max_macs, seed=seed), no_room)


def _answers_against_clean(
    record: Record, samples: pd.DataFrame, clean: pd.DataFrame | None, pair: Pair, seed: int
) -> None:
    here, there = pair
    if clean is None or not len(here):
        for name in ("accuracy_drop", "miou_drop", "label_kept"):
            _lack(record, name, "this is the clean case" if clean is None and len(here) else UNPAIRED)
        return
    if quality.is_per_pixel(samples):
        _put(record, "miou_drop", quality.miou_drop(clean.iloc[there], samples.iloc[here], seed=seed))
        _lack(record, "accuracy_drop", quality.OF_PIXELS)
        _lack(record, "label_kept", quality.NO_ONE_LABEL)
        return
    _lack(record, "miou_drop", quality.OF_INPUTS)
    if _foreign(samples):
        for name, reason in (("label_kept", APART), ("accuracy_drop", FOREIGN)):
            _lack(record, name, reason)
        return
    right_before = clean["correct"].to_numpy(dtype=bool)[there]
    right_after = samples["correct"].to_numpy(dtype=bool)[here]
    kept = samples["prediction"].to_numpy()[here] == clean["prediction"].to_numpy()[there]
    _put(record, "label_kept", statistics.proportion(int(np.count_nonzero(kept)), len(kept)))
    _put(record, "accuracy_drop", statistics.difference_of_means(right_after, right_before, seed=seed))


def _sample_ids(samples: pd.DataFrame) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = samples["sample_id"].to_numpy(dtype=np.int64)
    if not len(ids) or len(np.unique(ids)) != len(ids):
        what = "stands twice" if len(ids) else "is there"
        raise RunError(
            f"samples: {'a' if len(ids) else 'no'} sample id {what}.",
            why="Figures are paired by sample id.",
            todo="Pass the rows of one evaluation.",
        )
    return ids


def _histogram(exits: NDArray[Any], names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(exits.astype(np.int64), minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _put(record: Record, name: str, estimate: Estimate | None, reason: str = "") -> None:
    if estimate is None or not np.isfinite(estimate.value):
        _lack(record, name, reason)
        return
    record[name] = estimate.value
    if estimate.ci is not None:
        record[f"{name}_ci"] = estimate.ci


def _lack(record: Record, name: str, reason: str) -> None:
    record[name], record[f"{name}_missing"] = None, reason
