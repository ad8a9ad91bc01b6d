"""From windows to joules and seconds a sample, and to the share of the MAC saving that a device realises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.results import energy, statistics
from adaptbench.results.schema import Record
from adaptbench.results.statistics import Estimate, Floats

if TYPE_CHECKING:
    import pandas as pd

CLOCK = "clock"
PARTS = ("nodes", "policy", "executor")
"""Components of the clock beside its own: who spent the window."""
NET = ("nodes", "policy")
"""What is a net's own; the executor is the harness'."""
LEAST_SAVING = 0.05
"""Below it no share of a MAC saving is told."""
TIMED = (
    "latency_s_per_sample", "nodes_s_per_sample", "policy_s_per_sample", "executor_s_per_sample", "executor_share",
    "energy_j_per_sample", "saving_macs", "saving_time", "saving_energy", "realised_saving_time",
    "realised_saving_energy",
)  # fmt: skip
"""Figures of a case that exist only where it was timed."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """One quantity of one case, a value a block.

    Args:
        block: (n,) block numbers, rising.
        per_sample: (n,) joules or seconds a sample.
        provenance: of all its windows, comma separated where they differ.
        flags: every flag that a window carries.
        scope: what joules are of: "device", "process", "machine".
    """

    block: tuple[int, ...]
    per_sample: Floats
    provenance: str
    flags: tuple[str, ...]
    scope: str = ""

    @property
    def measured(self) -> bool:
        """True where no window is modelled."""
        return energy.kind_of(self.provenance) == "measured"

    def paired(self, other: Blocks) -> tuple[Floats, Floats]:
        """(own, other's) values of the blocks that both have."""
        shared = sorted(set(self.block) & set(other.block))
        own, their = (
            dict(zip(self.block, self.per_sample, strict=True)),
            dict(zip(other.block, other.per_sample, strict=True)),
        )
        return np.array([own[b] for b in shared]), np.array([their[b] for b in shared])


def blocks(windows: pd.DataFrame, case: str, meter: str, *, seconds: bool | None = None) -> Blocks | None:
    """One value a block: the meter's joules (the clock's seconds) a sample.

    A meter's component "total" is taken where it has one, else its components are added up, if they are of one kind
    and of one thing; a block where one of them is missing has no value.

    Args:
        windows: rows of ``windows.parquet``.
        case, meter: whose.
        seconds: the meter's seconds are wanted, not its joules; of the clock they always are.

    Returns:
        None where no block has a value.
    """
    seconds = meter == CLOCK if seconds is None else seconds
    chosen = _rows(windows, case, meter)
    wanted = ("block", "order", "n_samples", "provenance", "flags", "component", "scope")
    columns = {name: windows[name].to_numpy()[chosen] for name in wanted}
    amount = windows["duration_s" if seconds else "energy_j"].to_numpy(dtype=np.float64)[chosen]
    if not seconds and _apart(columns):
        return None
    numbers, values = [], []
    for number in np.unique(columns["block"].astype(np.int64)):
        here = np.flatnonzero(columns["block"] == number)
        # components share one window: its samples are counted once, told apart by `order`
        samples = sum(dict(zip(columns["order"][here], columns["n_samples"][here], strict=True)).values())
        spent = float(amount[here].sum())
        if samples > 0 and np.isfinite(spent) and spent > 0:
            numbers.append(int(number))
            values.append(spent / float(samples))
    if not numbers:
        return None
    provenance = ", ".join(sorted({text for text in columns["provenance"] if isinstance(text, str) and text}))
    texts = [text for text in columns["flags"] if isinstance(text, str)]
    flags = {flag.strip() for text in texts for flag in text.split(",") if flag.strip()}
    if not seconds and energy.kind_of(provenance) == "modelled":
        values = [energy.rounded(value) for value in values]
    scope = "" if seconds else next((text for text in columns["scope"] if isinstance(text, str) and text), "")
    return Blocks(tuple(numbers), np.array(values), provenance, tuple(sorted(flags)), scope)


def _rows(windows: pd.DataFrame, case: str, meter: str) -> NDArray[np.intp]:
    """Places of a meter's rows of a case: those of its component "total" where it has one; no parts of the clock's."""
    chosen = np.flatnonzero((windows["case"] == case).to_numpy() & (windows["meter"] == meter).to_numpy())
    if meter == CLOCK:
        return chosen[~windows["component"].isin(PARTS).to_numpy()[chosen]]
    total = (windows["component"] == "total").to_numpy()[chosen]
    return chosen[total] if total.any() else chosen


def _apart(columns: Mapping[str, NDArray[Any]]) -> str:
    names = ("component", "provenance", "scope")
    return energy.apart(zip(*(columns[name] for name in names), strict=True))


def preferred(windows: pd.DataFrame, case: str, meters: Sequence[str]) -> tuple[str, Blocks] | None:
    """The meter whose joules stand for a case: one that measured before one that models, then in the order given."""
    usable = [(name, values) for name in meters if (values := blocks(windows, case, name)) is not None]
    return next((one for one in usable if one[1].measured), usable[0] if usable else None)


def part_blocks(windows: pd.DataFrame, case: str, *parts: str) -> Blocks | None:
    """Seconds a sample that some parts of the clock's windows took together, a value a block.

    Returns:
        None where a part has no value at all; blocks without one of them are left out.
    """
    chosen = windows[(windows["case"] == case) & (windows["meter"] == CLOCK) & windows["component"].isin(parts)]
    names = ("block", "order", "component", "duration_s", "n_samples")
    block, order, component, seconds, samples = (chosen[name].to_numpy() for name in names)
    numbers, values = [], []
    for number in np.unique(block):
        here = np.flatnonzero(block == number)
        answered = sum(dict(zip(order[here], samples[here], strict=True)).values())
        spent = float(seconds[here].sum())
        if set(component[here]) == set(parts) and answered > 0 and np.isfinite(spent) and spent > 0:
            numbers.append(int(number))
            values.append(spent / float(answered))
    return Blocks(tuple(numbers), np.array(values), "", ()) if numbers else None


def missing_reason(windows: pd.DataFrame, case: str, meter: str) -> str:
    """Why a meter has no value for a case."""
    rows = windows.iloc[_rows(windows, case, meter)]
    reasons = sorted({str(text) for text in rows["missing"].dropna() if text})
    if reasons:
        return "; ".join(reasons)
    if why := _apart({name: rows[name].to_numpy() for name in ("component", "provenance", "scope")}):
        return f"{meter}: {why}; they are not added up"
    return f"{meter}: no window of this case holds a reading" if len(rows) else f"{meter} did not run"


def per_sample(values: Blocks, *, seed: int = 0) -> Estimate:
    """Hodges-Lehmann centre of the block values on the log scale, with its 95 % interval."""
    return statistics.shift(np.log(values.per_sample), seed=seed).map(lambda x: float(np.exp(x)))


def saving(case: Blocks, static: Blocks, *, seed: int = 0) -> Estimate | None:
    """1 − case/static in seconds or joules, over the blocks that both have; below 0 it costs more.

    Returns:
        None where no block is in common.
    """
    own, reference = case.paired(static)
    if not len(own):
        return None
    return statistics.paired_ratio(reference, own, seed=seed).map(lambda ratio: 1 - ratio)


def saving_in_macs(macs: Floats, macs_mean: float, macs_full: float, *, seed: int = 0) -> Estimate:
    """1 − macs_mean/macs_full with an interval over inputs.

    Args:
        macs: (n,) of the timed inputs. macs_mean: as they ran. macs_full: of the static reference.
    """
    promised = statistics.mean(1 - np.asarray(macs, dtype=np.float64) / macs_full, seed=seed)
    return replace(promised, value=1 - macs_mean / macs_full)


def no_share(promised: Estimate) -> str:
    """Why no share of a MAC saving can be told; empty where it can."""
    if promised.value <= 0:
        return "there is no MAC saving to realise"
    if promised.value < LEAST_SAVING:
        return f"the MAC saving is {100 * promised.value:.1f} %: a share of less than 5 % says nothing"
    if not promised.low > 0:
        return "the interval of the MAC saving reaches 0: a share of it says nothing"
    return ""


def not_timed(reason: str) -> Record:
    """The timed part of the record of a case that was evaluated and not timed."""
    record: Record = {"energy_meter": None, "energy_provenance": None, "energy_scope": None, "n_timed": None}
    for name in TIMED:
        record[name], record[f"{name}_missing"] = None, reason
    return record


def summarise_windows(
    windows: pd.DataFrame,
    case: str,
    static: str,
    *,
    macs: Floats | None,
    macs_mean: float | None = None,
    macs_full: float | None,
    energy_meters: Sequence[str],
    no_energy: str = "no energy meter was asked for",
    seed: int = 0,
) -> Record:
    """The timed part of a case record: latency, energy and realised savings, with ``X_ci`` or ``X_missing``.

    Args:
        windows: rows of ``windows.parquet``, at least those of the two cases.
        case: the case.
        static: the case of its static reference, measured in the same blocks.
        macs: (n,) executed for each input that was timed.
        macs_mean: a sample of the windows (default: their mean).
        macs_full: MACs of the static reference.
        energy_meters: names in the suite's order: the first that measured is taken, else the first that models.
        no_energy: why there are no joules where there is no such meter.
        seed: of the bootstrap.
    """
    record: Record = {"energy_meter": None, "energy_provenance": None, "energy_scope": None, "n_timed": None}
    promised, reason = None, "no MAC figures"
    if macs is not None and macs_full:
        record["n_timed"] = len(macs)
        promised = saving_in_macs(macs, float(np.mean(macs)) if macs_mean is None else macs_mean, macs_full, seed=seed)
        reason = no_share(promised)
    _put_estimate(record, "saving_macs", promised, reason)
    unheard = missing_reason(windows, case, CLOCK)
    _put(record, "latency_s_per_sample", blocks(windows, case, CLOCK), unheard, seed)
    apart = unheard if blocks(windows, case, CLOCK) is None else "its parts were not timed apart"
    for part in PARTS:
        _put(record, f"{part}_s_per_sample", part_blocks(windows, case, part), apart, seed)
    whole, executor = part_blocks(windows, case, *PARTS), part_blocks(windows, case, "executor")
    shared = None if whole is None or executor is None else saving(executor, whole, seed=seed)
    _put_estimate(record, "executor_share", shared.map(lambda rest: 1 - rest) if shared else None, apart)
    own, static_own = part_blocks(windows, case, *NET), part_blocks(windows, static, "nodes")
    _put_saving(record, "time", own, static_own, promised, reason, apart if own is None else "", seed)
    reasons = [missing_reason(windows, case, meter) for meter in energy_meters]
    joules, reference = None, None
    if best := preferred(windows, case, energy_meters):
        chosen, joules = best
        record |= {"energy_meter": chosen, "energy_provenance": joules.provenance, "energy_scope": joules.scope}
        reference = blocks(windows, static, chosen)
    _put(record, "energy_j_per_sample", joules, "; ".join(reasons) or no_energy, seed)
    _put_saving(record, "energy", joules, reference, promised, reason, "", seed)
    return record


def _put(record: Record, name: str, values: Blocks | None, reason: str, seed: int) -> None:
    _put_estimate(record, name, None if values is None else per_sample(values, seed=seed), reason)


def _put_estimate(record: Record, name: str, estimate: Estimate | None, reason: str) -> None:
    record[name] = None if estimate is None else estimate.value
    if estimate is None:
        record[f"{name}_missing"] = reason
    elif estimate.ci is not None:
        record[f"{name}_ci"] = estimate.ci


def _put_saving(
    record: Record,
    what: str,
    values: Blocks | None,
    static: Blocks | None,
    promised: Estimate | None,
    no_share: str,
    why_none: str,
    seed: int,
) -> None:
    """The saving, and the share of the MAC saving that it is."""
    if values is None or static is None:
        estimate, reason = (
            None,
            why_none or ("no windows of the case" if values is None else "no windows of the static reference"),
        )
    else:
        estimate, reason = saving(values, static, seed=seed), "no block in common"
    _put_estimate(record, f"saving_{what}", estimate, reason)
    share = None
    if estimate is not None and promised is not None and not no_share:
        size = promised.value
        share = estimate.map(lambda saved: saved / size)
    _put_estimate(record, f"realised_saving_{what}", share, reason if estimate is None else no_share)
