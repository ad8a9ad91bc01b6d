"""How long a run of kind serving will take, for ``--dry-run``: a little of each stage is done and multiplied."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from adaptbench.bench.estimate import estimate as estimate_suite
from adaptbench.bench.plan import make_plan as plan_suite
from adaptbench.bench.suite import checked as checked_suite
from adaptbench.errors import AdaptBenchError
from adaptbench.experiment.estimating import seconds_of
from adaptbench.experiment.failures import reason_of
from adaptbench.experiment.options import Options
from adaptbench.meters.clock import ClockMeter
from adaptbench.results.serving import ServingRun
from adaptbench.serving.arrivals import poisson
from adaptbench.serving.checks import shares_of
from adaptbench.serving.lines import Batching
from adaptbench.serving.nets import ATTACKED, ServingPlan
from adaptbench.serving.runner import prepared
from adaptbench.serving.schema import Serving
from adaptbench.serving.simulate import simulate
from adaptbench.serving.spec import LoadedServing, crafting_source
from adaptbench.serving.times import Table
from adaptbench.serving.traffic import Traffic, Way

_TRIAL = 400
"""Requests of a stream that is simulated to see how long that takes."""
_SAMPLES = 32
"""That are run through each net for the same."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stage: how much of it, and its seconds. kept: it is done already."""

    name: str
    much: str
    about_s: float
    kept: bool = False


@dataclass(slots=True)
class Guess:
    """All stages, and what is known badly: what → why."""

    pieces: list[Piece] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)


def estimate(loaded: LoadedServing, options: Options) -> Guess:
    """Seconds of each stage.

    Raises:
        AdaptBenchError: as `run_serving`, before anything is spent.
    """
    plan, spec, guess = prepared(loaded, options), loaded.serving, Guess()
    kept = _is_kept(plan, options)

    def add(name: str, much: str, about_s: float) -> None:
        guess.pieces.append(Piece(name, much, about_s, kept))

    if spec.hostile is not None and spec.hostile.attack is not None:
        add("craft", f"{len(plan.split)} inputs of each net", _crafting_s(plan, options, guess))
    some = plan.split.first(_SAMPLES)
    passes = (2 if spec.hostile is not None else 1) * len(plan.split) / len(some)
    through = sum(seconds_of(partial(net.run_through, some, options.device), options.device) for net in plan.nets)
    add("run the samples", f"{len(plan.split)} through each net", through * passes)
    window_s = max(spec.measure.window_s, ClockMeter().min_window_s)
    arms = sum(len(net.model.node_names) + 1 for net in plan.nets) * len(spec.sizes)
    timing = arms * (1.1 * spec.measure.blocks * window_s + spec.measure.warmup_s + window_s / 4)
    add("time the nodes", f"{arms} arms, batch {', '.join(map(str, spec.sizes))}, {spec.measure.blocks} blocks", timing)
    each = spec.repeats * spec.requests * _a_request_s(max(len(net.model.node_names) for net in plan.nets))
    streams = sum(_streams(spec, plan, i) for i in range(len(plan.nets)))
    add("simulate", f"{streams} streams × {spec.repeats}", each * streams)
    if spec.planner is not None:
        tried = len(plan.nets) * len(spec.planner.loads) * len(spec.planner.max_batch)
        add("plan", f"{tried} to {tried * spec.planner.replicas} provisions", 1.5 * each * tried)
    if spec.check is not None:
        shares = sum(len(_shares(spec, plan, i)) for i in range(len(plan.nets)))
        runs = shares * len(spec.batching.modes) * len(spec.check.clocks or [1]) * spec.check.repeats
        add("serve for real", f"{runs} streams", runs * (0.1 + 5e-4 * (spec.check.requests + spec.measure.spread)))
    return guess


def _is_kept(plan: ServingPlan, options: Options) -> bool:
    """Whether this very run lies there, whole."""
    from adaptbench.experiment.environment import describe_device

    if options.fresh:
        return False
    try:
        found = ServingRun.open(options.place(plan.loaded.name))
    except AdaptBenchError:
        return False
    suite = found.manifest["suite"]
    same = suite.get("sha256") == plan.loaded.sha256 and suite.get("limit") == plan.limit
    here = describe_device(options.device)["fingerprint"]
    return bool(same and found.manifest["device"].get("fingerprint") == here and not found.record["failed"])


def _crafting_s(plan: ServingPlan, options: Options, guess: Guess) -> float:
    """Of the run that crafts what hostile requests bring."""
    spec = plan.loaded.serving
    assert spec.hostile is not None
    models = [entry.model_dump(mode="json") for entry in spec.models]
    suite = checked_suite(crafting_source(spec.data, plan.loaded.name, models, spec.hostile))
    began = time.perf_counter()
    try:
        own = replace(options, overrides=(), limit=plan.limit, out=options.place(plan.loaded.name) / ATTACKED)
        found = estimate_suite(plan_suite(suite, own), own, suite.name, time.perf_counter() - began)
    except AdaptBenchError as error:
        guess.doubts["craft"] = reason_of(error)
        return 0.0
    guess.doubts |= {f"craft {what}": why for what, why in found.doubts.items()}
    return found.total_s


def _a_request_s(nodes: int) -> float:
    """Of simulating one request, from a stream of some."""
    way = Way(tuple(range(nodes)), tuple(float(v + 1) for v in range(nodes)), (True,) * nodes)
    arrivals = poisson(1.0, _TRIAL, np.random.default_rng(0))
    traffic = Traffic(arrivals, [way] * _TRIAL, np.zeros(_TRIAL, bool))
    table = Table([[0.0, 0.5 / nodes, 0.5 / nodes]] * nodes, [0.0, 0.0, 0.0])
    took = seconds_of(lambda: simulate(traffic, table, Batching(2, 0.1, "queues"), nodes=nodes), "cpu")
    return took / _TRIAL


def _shares(spec: Serving, plan: ServingPlan, i: int) -> list[float]:
    """As `checks.shares_of` will say once inputs are crafted: the first net is taken to be attacked."""
    net = plan.nets[i]
    attacked = spec.hostile is not None and net.model.dearest_decisions.numel() > 0
    return [0.0, 1.0] if attacked else list(shares_of(spec, net))


def _streams(spec: Serving, plan: ServingPlan, i: int) -> int:
    attacked = len(_shares(spec, plan, i)) > 1
    shares = 1 + (len(spec.hostile.shares) if spec.hostile is not None and attacked else 0)
    defences = 2 if attacked and spec.hostile is not None and spec.hostile.budget is not None else 1
    return shares * defences * len(spec.arrivals) * len(spec.batching.modes)
