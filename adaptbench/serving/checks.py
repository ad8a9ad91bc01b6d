"""The simulation held against a real run: the same requests, the same rule, the same machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from adaptbench.adaptive import Split
from adaptbench.bench.evaluate import as_input, sample_seeds
from adaptbench.errors import CapabilityError
from adaptbench.meters.clock import synchroniser
from adaptbench.serving.arrivals import poisson
from adaptbench.serving.driver import Clock, CpuTime, Replayed, WallTime, replay
from adaptbench.serving.figures import quantile
from adaptbench.serving.lines import Batching, Mode
from adaptbench.serving.nets import Net
from adaptbench.serving.scenes import Timed, drawn
from adaptbench.serving.schema import Arrivals, Serving
from adaptbench.serving.simulate import simulate
from adaptbench.serving.spread import Spread, ratios_of
from adaptbench.serving.times import Measured
from adaptbench.serving.traffic import Draw, Traffic

WITHIN = 0.10
"""How far apart the simulation and the real run may be."""
_SPREAD_LOAD = 0.5


def check_id(label: str, mode: str, share: float, clock: str) -> str:
    """Of a real run and its simulation."""
    return f"{label}/{mode}/hostile {100 * share:g} %/{clock} clock"


def reading(clock: Clock) -> WallTime | CpuTime:
    """A clock, from its name."""
    return WallTime() if clock == "wall" else CpuTime()


def served(
    net: Net, split: Split, draw: Draw, traffic: Traffic, batching: Batching, clock: Clock, device: str
) -> Replayed:
    """Serve a stream for real.

    Raises:
        CapabilityError: a request left elsewhere than its sample does: the executor is another.
    """
    sample = torch.from_numpy(draw.sample)
    x = split.x[sample]
    if net.attacked is not None:
        hostile = torch.from_numpy(traffic.hostile)
        x = torch.where(hostile.view(-1, *[1] * (x.ndim - 1)), net.attacked[sample], x)
    seeds = sample_seeds(split.ids, 0)[sample].to(device)
    run = replay(
        net.model, as_input(x, device), seeds, traffic.arrival_s, batching, reading(clock), synchroniser(device)
    )
    wrong = np.mean([way.nodes[-1] != node for way, node in zip(traffic.ways, run.exits.tolist(), strict=True)])
    if wrong > 0.005:  # decisions at a tie may fall either way
        raise CapabilityError(f"{net.label}: {wrong:.1%} of the requests left elsewhere than their samples do.")
    return run


def spread_of(
    spec: Serving,
    net: Net,
    measured: Measured,
    split: Split,
    mode: Mode,
    device: str,
    *,
    clock: Clock | None = None,
    stream: int = 0,
    share: float = 0.0,
) -> list[float]:
    """Ratios of single calls, from a stream that is served for real once; see `spread`.

    Args:
        clock: None: the one that nodes were timed by. stream: which one; no check serves it. share: of hostile ones.
    """
    size, rng = spec.batching.max_batch, np.random.default_rng([spec.seed, 2**20, stream])
    rate = _SPREAD_LOAD * size / measured.middle.batch_s(net.ways.reach, size)
    draw = Draw.of(spec.measure.spread, len(split), rng)
    hostile = net.hostile.ways if net.hostile is not None else []
    traffic = draw.traffic(poisson(rate, spec.measure.spread, rng), net.ways.ways, hostile, share)
    batching = Batching(size, spec.batching.wait_s, mode)
    run = served(net, split, draw, traffic, batching, clock or spec.measure.clock, device)
    return [round(ratio, 5) for ratio in ratios_of(run, traffic.ways, measured.middle)]


def compared(
    spec: Serving,
    timed: Timed,
    split: Split,
    arrivals: Arrivals,
    rate_rps: float | None,
    mode: Mode,
    share: float,
    clock: Clock,
    beside: Callable[[str], Any],
    device: str,
) -> dict[str, Any]:
    """A row: means and p99 of some real runs and of their simulations, and why they differ where they do.

    The machine's speed drifts: before and after each real run another stream is served, and what its calls took is what
    the simulation draws from; of the run itself it knows nothing but when which sample comes.

    Args:
        spec: of the file; it has a `check`. timed: the net. split: its samples. rate_rps: of one replica's part of the
            traffic; where it is a load, it becomes that share of what the replica can serve on this clock.
        share: of hostile requests. clock: of the real runs. beside: finds a trace. device: of all.
    """
    assert spec.check is not None
    batching = Batching(spec.batching.max_batch, spec.batching.wait_s, mode)
    hostile = timed.net.hostile.ways if timed.net.hostile is not None else []
    real: list[tuple[float, float]] = []
    simulated: list[tuple[float, float]] = []
    retold: list[tuple[float, float]] = []
    slower: list[float] = []
    rates: list[float] = []
    late: list[float] = []
    again = partial(spread_of, spec, timed.net, timed.measured, split, mode, device, clock=clock, share=share)
    around = [again(stream=1)]
    if arrivals.load is not None and rate_rps is not None:
        rate_rps *= float(np.mean(timed.ratios[mode]) / np.mean(around[0]))
    for repeat in range(spec.check.repeats):
        rng = np.random.default_rng([spec.seed, 2**20 + 1 + repeat])
        times = drawn(arrivals, rate_rps, spec.check.requests, rng, beside)
        rates.append((len(times) - 1) / float(times[-1] - times[0]))
        draw = Draw.of(spec.check.requests, len(split), rng)
        traffic = draw.traffic(times, timed.net.ways.ways, hostile, share)
        run = served(timed.net, split, draw, traffic, batching, clock, device)
        own = ratios_of(run, traffic.ways, timed.measured.middle)
        slower += own
        late.append(max(run.late_s, default=0.0))
        real.append(_two(run.latency_s))
        around.append(again(stream=2 + repeat))
        ratios = [*around[-2], *around[-1]]
        drawn_from = np.random.default_rng([spec.seed, repeat, 2])
        for into, scatter, rolls in ((simulated, ratios, drawn_from), (retold, own, None)):
            law = Spread(timed.measured.middle, scatter, mode, rolls)
            into.append(_two(simulate(traffic, law, batching, nodes=len(timed.net.model.node_names)).latency_s))
    row: dict[str, Any] = {
        "case": check_id(timed.net.label, mode, share, clock),
        "model": timed.net.label,
        "arrivals": arrivals.id,
        "mode": mode,
        "share": share,
        "clock": clock,
        "rate_rps": float(np.mean(rates)),
        "requests": spec.check.requests,
        "repeats": spec.check.repeats,
        "call_ratio": float(np.mean(slower)),
        "spread_ratio": float(np.mean([ratio for one in around for ratio in one])),
        "measured_stall_s": max(late),
    }
    for i, name in enumerate(("mean_s", "p99_s")):
        row |= {
            f"measured_{name}": float(np.mean([one[i] for one in real])),
            f"simulated_{name}": float(np.mean([one[i] for one in simulated])),
            f"simulated_with_its_calls_{name}": float(np.mean([one[i] for one in retold])),
        }
    return row | judged(row)


def _two(latency_s: Any) -> tuple[float, float]:
    return float(latency_s.mean()), quantile(latency_s, 0.99)


def apart(row: dict[str, Any], name: str, told: str = "simulated") -> float:
    """Simulated over measured, minus one. name: "mean_s" or "p99_s"."""
    return float(row[f"{told}_{name}"] / row[f"measured_{name}"] - 1)


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """Whether both are within a tenth; where they are not, the reason as far as the run tells it."""
    if all(abs(apart(row, name)) <= WITHIN for name in ("mean_s", "p99_s")):
        return {"within": True, "reason": ""}
    calls = (
        f"calls took {row['call_ratio']:.2f} times what their windows say, "
        f"and {row['spread_ratio']:.2f} times in the streams served in between"
    )
    told = [apart(row, name, "simulated_with_its_calls") for name in ("mean_s", "p99_s")]
    off = f"{100 * told[0]:+.0f} % (mean) and {100 * told[1]:+.0f} % (p99)"
    own = f"with the run's own seconds of each call the simulation is {off} off"
    stalled = f"once it woke {1e3 * row['measured_stall_s']:.1f} ms after something was due"
    if row["measured_stall_s"] > WITHIN * row["measured_p99_s"]:
        why = f"the machine, not the queueing: {stalled}; {calls}; {own}"
    elif all(abs(off) <= WITHIN for off in told):
        why = f"the machine, not the queueing: {calls}; {own}"
    else:
        why = f"calls alone do not explain it: {calls}; {own}"
    return {"within": False, "reason": why}


def shares_of(spec: Serving, net: Net) -> Sequence[float]:
    """Of hostile requests that are really served: none, and the fewest.

    Where replicas are busy all the time, the smallest error of a call's time is multiplied by the whole stream.
    """
    return [0.0] if spec.hostile is None or net.hostile is None else [0.0, min(spec.hostile.shares)]
