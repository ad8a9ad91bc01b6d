"""What attacked rows do to the time of their batch, from windows of the same batches with and without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from adaptbench.results import statistics
from adaptbench.results.identity import mixed_id
from adaptbench.results.schema import Record
from adaptbench.results.timing import CLOCK, Blocks, blocks, missing_reason, per_sample

if TYPE_CHECKING:
    import pandas as pd

    from adaptbench.results.statistics import Estimate


def neighbour_figures(
    windows: pd.DataFrame, case: str, size: int, macs: Mapping[int, float], reasons: Mapping[int, str]
) -> list[Record]:
    """One entry for each number of attacked rows, none of them first.

    All arms run in the same blocks, so that figures against none are paired over blocks.

    Args:
        windows: rows of ``windows.parquet``. case: the attacked case at a batch size. size: of the batch.
        macs: attacked rows → MACs of a batch. reasons: attacked rows → why there are none.

    Returns:
        ``attacked``, ``batch_s``, ``batch_increase`` (of its seconds), ``neighbour_s`` (the seconds that it takes
        longer, spread over its clean rows), ``batch_macs_increase``; those of the clock with ``_ci`` or ``_missing``.
    """
    none = blocks(windows, mixed_id(case, 0), CLOCK)
    return [_entry(windows, case, size, k, none, macs, reasons) for k in sorted({*macs, *reasons})]


def _entry(
    windows: pd.DataFrame,
    case: str,
    size: int,
    k: int,
    none: Blocks | None,
    macs: Mapping[int, float],
    reasons: Mapping[int, str],
) -> Record:
    entry: Record = {"attacked": k}
    own = None if k in reasons else blocks(windows, mixed_id(case, k), CLOCK)
    why = reasons.get(k) or missing_reason(windows, mixed_id(case, k), CLOCK)
    _put(entry, "batch_s", None if own is None else per_sample(own).map(lambda s: s * size), why)
    if k == 0:
        return entry
    increase, each, apart = None, None, why if own is None else reasons.get(0) or "the batch without attacked rows"
    if own is not None and none is not None:
        after, before = own.paired(none)
        apart = "no block in common"
        if len(after):
            increase = statistics.paired_ratio(before, after).map(lambda ratio: ratio - 1)
            each = statistics.shift(np.asarray(after - before) * size / (size - k))
    _put(entry, "batch_increase", increase, apart)
    _put(entry, "neighbour_s", each, apart)
    known = k in macs and 0 in macs
    entry["batch_macs_increase"] = macs[k] / macs[0] - 1 if known else None
    if not known:
        entry["batch_macs_increase_missing"] = reasons.get(k) or reasons.get(0) or "not computed"
    return entry


def _put(entry: Record, name: str, estimate: Estimate | None, why: str) -> None:
    entry[name] = None if estimate is None else estimate.value
    if estimate is None:
        entry[f"{name}_missing"] = why
    else:
        entry[f"{name}_ci"] = None if estimate.ci is None else list(estimate.ci)
