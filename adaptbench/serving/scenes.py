"""Simulated streams of one net: every share of hostile requests, with and without a budget, on the same arrivals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.serving.arrivals import bursts, poisson, recorded, replayed
from adaptbench.serving.figures import Stream, over_repeats
from adaptbench.serving.lines import Batching, Mode
from adaptbench.serving.nets import Net
from adaptbench.serving.schema import Arrivals, Serving
from adaptbench.serving.simulate import Bucket, Served, simulate
from adaptbench.serving.spread import Spread
from adaptbench.serving.times import Measured, Table
from adaptbench.serving.traffic import Draw, Traffic

NO_DEFENCE, BUDGET = "none", "budget"
_NO_HOSTILE = "no request of this stream is hostile"
_SHARES = ("simulated_goodput", "simulated_benign_goodput", "simulated_benign_accuracy", "simulated_benign_forced")
OVERLOADED = 0.98
"""Busy share of the replicas from which on the lines grow as long as the stream lasts."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A net with its times.

    Args:
        net: with its ways. measured: its tables. ratios: mode → of single calls, see `spread`.
    """

    net: Net
    measured: Measured
    ratios: dict[Mode, list[float]]

    def times(self, mode: Mode, repeat: int, rng: np.random.Generator) -> Spread:
        """What calls take in a repeat: those of one block of windows, scattered as single calls are."""
        blocks = self.measured.blocks
        return Spread(blocks[repeat % len(blocks)], self.ratios[mode], mode, rng)

    def capacity_rps(self, batch: int, replicas: int = 1) -> float:
        """Clean requests a second that full batches answer, at the medians of windows and single calls."""
        slowed = float(np.mean(self.ratios["batches"]))
        return replicas * batch / (slowed * self.measured.middle.batch_s(self.net.ways.reach, batch))


def rate_of(arrivals: Arrivals, spec: Serving, own: Timed, all_nets: dict[str, Timed]) -> float | None:
    """Requests a second; None: as a trace was recorded."""
    if arrivals.load is None:
        return arrivals.rate
    timed = all_nets[arrivals.of] if arrivals.of is not None else own
    return arrivals.load * timed.capacity_rps(spec.batching.max_batch, spec.replicas)


def drawn(
    arrivals: Arrivals, rate_rps: float | None, n: int, rng: np.random.Generator, beside: Callable[[str], Any]
) -> NDArray[np.float64]:
    """(n,) arrival times of one stream. beside: where the files that a suite names lie."""
    if arrivals.process == "trace":
        return replayed(recorded(beside(str(arrivals.file))), n, rate_rps, rng)
    assert rate_rps is not None  # the schema asks for one
    if arrivals.process == "bursts":
        return bursts(rate_rps, n, rng, peak=arrivals.peak, share=arrivals.share, length=arrivals.length)
    return poisson(rate_rps, n, rng)


def case_id(label: str, arrivals: str, mode: str, share: float, defence: str) -> str:
    """Of a simulated stream."""
    return f"{label}/{arrivals}/{mode}/hostile {100 * share:g} %" + ("" if defence == NO_DEFENCE else f"/{defence}")


def scenes(
    spec: Serving,
    timed: Timed,
    arrivals: Arrivals,
    rate_rps: float | None,
    mode: Mode,
    beside: Callable[[str], Any],
) -> list[dict[str, Any]]:
    """Rows of one net under one arrival process, a row a share and defence; see `results.serving` for the fields.

    Args:
        spec: of the file. timed: the net. rate_rps: mean rate. mode: of batching. beside: finds a trace.
    """
    shares = [0.0, *(spec.hostile.shares if spec.hostile is not None and timed.net.hostile is not None else [])]
    budgeted = len(shares) > 1 and spec.hostile is not None and spec.hostile.budget is not None
    defences = [NO_DEFENCE, *([BUDGET] if budgeted else [])]
    pairs = [(share, defence) for share in shares for defence in defences]
    found: dict[tuple[float, str], list[dict[str, float]]] = {pair: [] for pair in pairs}
    for repeat in range(spec.repeats):
        rng = np.random.default_rng([spec.seed, repeat])
        times = drawn(arrivals, rate_rps, spec.requests, rng, beside)
        draw = Draw.of(spec.requests, len(timed.net.ways.ways), rng)
        alone: Stream | None = None
        for share, defence in pairs:
            stream = _stream(spec, timed, times, draw, share, defence, mode, repeat)
            alone = alone or stream
            found[share, defence].append(_of_stream(stream, alone, spec))
    rows = []
    for (share, defence), values in found.items():
        row: dict[str, Any] = {
            "case": case_id(timed.net.label, arrivals.id, mode, share, defence),
            "model": timed.net.label,
            "arrivals": arrivals.id,
            "mode": mode,
            "share": share,
            "defence": defence,
            "requests": spec.requests,
            "repeats": spec.repeats,
            "replicas": spec.replicas,
            "max_batch": spec.batching.max_batch,
        }
        rows.append(row | _summed(values, share, timed.measured.no_joules))
    return rows


def _stream(
    spec: Serving,
    timed: Timed,
    times: NDArray[np.float64],
    draw: Draw,
    share: float,
    defence: str,
    mode: Mode,
    repeat: int,
) -> Stream:
    hostile = timed.net.hostile.ways if timed.net.hostile is not None else []
    traffic = draw.traffic(times, timed.net.ways.ways, hostile, share)
    bucket = None
    if defence == BUDGET and spec.hostile is not None and spec.hostile.budget is not None:
        rate = spec.hostile.budget.headroom * timed.net.ways.macs_mean
        bucket = Bucket(rate, spec.hostile.budget.burst * rate, traffic.ways[0].macs[0])
    batching = Batching(spec.batching.max_batch, spec.batching.wait_s, mode)
    return one_stream(timed, traffic, batching, spec.replicas, repeat, spec.seed, bucket)


def one_stream(
    timed: Timed,
    traffic: Traffic,
    batching: Batching,
    replicas: int,
    repeat: int,
    seed: int,
    bucket: Bucket | None = None,
) -> Stream:
    """Simulate a stream with the times of a repeat."""
    served = simulate(
        traffic,
        timed.times(batching.mode, repeat, np.random.default_rng([seed, repeat, 1])),
        batching,
        nodes=len(timed.net.model.node_names),
        replicas=replicas,
        bucket=bucket,
    )
    joules = math.nan if timed.measured.joules is None else _joules(served, timed.measured.joules)
    return Stream(traffic, served, joules)


def _joules(served: Served, table: Table) -> float:
    """Of a stream, from those of its steps and calls."""
    total = sum(often * table.step_s(v, n) for (v, n), often in served.steps.items())
    return total + sum(table.call_s(int(n)) for node, n, _ in served.calls if node < 0)


def _of_stream(stream: Stream, alone: Stream, spec: Serving) -> dict[str, float]:
    """Figures of one repeat. alone: the same arrivals without anybody hostile, and without a budget."""
    everyone, benign = np.ones(len(stream.traffic), bool), ~stream.traffic.hostile
    objective = spec.objective_p99_s
    span = float(stream.traffic.arrival_s[-1] - stream.traffic.arrival_s[0])
    return {
        "rate_rps": (len(stream.traffic) - 1) / span,
        "simulated_mean_s": float(stream.latency_s(everyone).mean()),
        "simulated_p50_s": stream.p(0.5, everyone),
        "simulated_p99_s": stream.p(0.99, everyone),
        "simulated_goodput": stream.goodput(objective, everyone),
        "simulated_goodput_rps": stream.goodput_rps(objective),
        "simulated_macs": stream.macs(everyone),
        "simulated_energy_j": stream.joules / len(stream.traffic),
        "simulated_busy": stream.served.busy_s / (spec.replicas * stream.served.until_s),
        "simulated_step_size": float(
            sum(n * often for (_, n), often in stream.served.steps.items()) / sum(stream.served.steps.values())
        ),
        "simulated_benign_p99_s": stream.p(0.99, benign),
        "simulated_benign_goodput": stream.goodput(objective, benign),
        "simulated_benign_accuracy": stream.accuracy(benign),
        "simulated_benign_forced": stream.forced(benign),
        "simulated_benign_p99_ratio": stream.p(0.99, benign) / alone.p(0.99, benign),
        "simulated_benign_goodput_lost": alone.goodput(objective, benign) - stream.goodput(objective, benign),
        "simulated_benign_accuracy_lost": alone.accuracy(benign) - stream.accuracy(benign),
        "simulated_hostile_macs": stream.macs(~benign),
    }


def _summed(values: Sequence[dict[str, float]], share: float, no_joules: str) -> dict[str, Any]:
    """Means over repeats with intervals; a figure that does not exist is null with its reason."""
    row: dict[str, Any] = {}
    for name in values[0]:
        row[name], row[f"{name}_ci"] = over_repeats([one[name] for one in values], share=name in _SHARES)
        if row[name] is None:
            row[f"{name}_missing"] = no_joules if name == "simulated_energy_j" else _NO_HOSTILE
    row["overloaded"] = row["simulated_busy"] > OVERLOADED
    del row["rate_rps_ci"], row["simulated_busy_ci"], row["simulated_step_size_ci"]
    return row
