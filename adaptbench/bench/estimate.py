"""How long a plan will take, for ``--dry-run``: what the run will do is done in small, timed, and multiplied.

Passes are timed on the arms that will be measured, and laid end to end by the protocol itself on a clock that only
counts; attacks are run for two short lengths (`adaptbench.bench.probing`). What is committed already costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from adaptbench.bench.evaluate import as_input, evaluate_chunk
from adaptbench.bench.measuring import open_meters
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.bench.probing import Craft, probe_craft, seconds_of
from adaptbench.bench.records import cost_bounds
from adaptbench.experiment.measuring import Windows, session_key, window_length
from adaptbench.experiment.options import Options
from adaptbench.experiment.timed import make_arm, make_static_arm
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.reading import Work
from adaptbench.meters.windows import IDLE, Arm, measure
from adaptbench.results.identity import static_id, timed_id
from adaptbench.results.metrics import summarise
from adaptbench.results.writer import RunWriter

_INPUTS = 128  # that are passed
_BATCHES = 8  # of an arm that are timed
_COMMIT_S = 0.004  # of a cell: two small files, synced
_LAID_OUT = 2  # blocks: the second tells what one takes
_CLOSING_S = 0.5  # notes, tables, and what is written last


@dataclass(frozen=True, slots=True)
class ArmCost:
    """Seconds of one arm: made once, each path warmed once, and a call through all its inputs."""

    make_s: float
    warm_s: tuple[float, ...]
    call_s: float


@dataclass(frozen=True, slots=True)
class Session:
    """The windows of one batch size.

    Args:
        size: inputs handed over at once. cases: arms in order, `IDLE` last where there are idle windows.
        blocks: that are still to be measured. ready_s: arms made, warmed and calibrated. block_s: of one block.
    """

    size: int
    cases: tuple[str, ...]
    blocks: tuple[int, ...]
    ready_s: float
    block_s: float

    @property
    def windows(self) -> list[tuple[str, int]]:
        """(case, block) of all that are still to be measured."""
        return [(case, block) for block in self.blocks for case in self.cases]

    @property
    def total_s(self) -> float:
        """Nothing where all blocks are kept."""
        return self.ready_s + len(self.blocks) * self.block_s if self.blocks else 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds.

    Args:
        evaluations: crafting and evaluating, by id; what is kept costs nothing.
        sessions: a batch size each. preparing_s: from the start to the plan. closing_s: records and files.
        kept: ids of evaluations that are committed already. doubts: id → why its seconds may be far off.
    """

    evaluations: dict[str, float]
    sessions: tuple[Session, ...] = ()
    preparing_s: float = 0.0
    closing_s: float = 0.0
    kept: frozenset[str] = frozenset()
    doubts: dict[str, str] = field(default_factory=dict)

    @property
    def measuring_s(self) -> float:
        """All windows, with what comes before them."""
        return sum(session.total_s for session in self.sessions)

    @property
    def total_s(self) -> float:
        """Preparing, crafting, evaluating, measuring and closing; nothing is closed where nothing is to be done."""
        work = sum(self.evaluations.values()) + self.measuring_s
        return self.preparing_s + work + (self.closing_s if work else 0.0)


def estimate(plan: Plan, options: Options, place: str, preparing_s: float = 0.0) -> Estimate:
    """Do a little of everything.

    Args:
        plan: what is to be run. options: how. place: name of the suite, which names the directory.
        preparing_s: that loading data and models took.
    """
    cells = None if options.fresh else RunWriter.look(options.place(place))
    costs = _Costs(plan, options.device)
    seconds: dict[str, float] = {}
    doubts: dict[str, str] = {}
    for evaluation in plan.evaluations:
        share = _left(plan, evaluation, cells)
        craft = costs.evaluation(evaluation) if share else Craft(0.0)
        seconds[evaluation.id] = share * craft.total_s
        if craft.doubt:
            doubts[evaluation.id] = craft.doubt
    sessions = _sessions(plan, options.device, cells, costs)
    cases = len(plan.evaluations) + len(plan.timed) * (len(sessions) - 1 if sessions else 0)
    kept = frozenset(e.id for e in plan.evaluations if not _left(plan, e, cells))
    return Estimate(seconds, sessions, preparing_s, _CLOSING_S + cases * costs.record_s(), kept, doubts)


def _left(plan: Plan, evaluation: Evaluation, cells: RunWriter | None) -> float:
    """The share of an evaluation's inputs that no committed chunk holds."""
    keys = plan.chunk_keys(evaluation)
    if cells is None:
        return 1.0
    kept = [cells.has_whole(key) for key in keys]
    if cells.has(evaluation.key):  # joined: the chunks' own pictures are gone
        return 0.0 if cells.has_whole(evaluation.key) and all(map(cells.has, keys)) else 1.0
    n, size = len(evaluation.split), plan.suite.suite.chunk
    return sum(min(size, n - i * size) for i, have in enumerate(kept) if not have) / n


class _Costs:
    """What was timed, once a model and condition."""

    def __init__(self, plan: Plan, device: str) -> None:
        self.plan, self.device = plan, device
        self._crafts: dict[tuple[str, str], Craft] = {}
        self._passes: dict[str, float] = {}
        self._arms: dict[tuple[str, int, bool], tuple[ArmCost, float]] = {}

    def evaluation(self, evaluation: Evaluation) -> Craft:
        """One evaluation, from nothing to its cells."""
        label, n = evaluation.loaded.name, len(evaluation.split)
        chunks = len(self.plan.chunk_keys(evaluation))
        if label not in self._passes:
            self._passes[label] = self._pass(evaluation)
        own_s = self._passes[label] * n + (chunks + 1) * _COMMIT_S
        if evaluation.attack is None:
            return Craft(own_s)
        known = (label, evaluation.condition.id)
        if known not in self._crafts:
            most = min(self.plan.suite.suite.chunk, n)
            self._crafts[known] = probe_craft(
                evaluation, self.device, self.plan.surrogates.__getitem__, most, self._passes[label]
            )
        craft = self._crafts[known]
        return Craft(own_s + 2 * _COMMIT_S * chunks + craft.total_s, craft.doubt)

    def _pass(self, evaluation: Evaluation) -> float:
        """Seconds an input of a hard pass with its rows, on as many as there are up to one chunk."""
        some = min(len(evaluation.split), self.plan.suite.suite.chunk, _INPUTS)
        return seconds_of(partial(self._chunk, evaluation, some), self.device) / some

    def _chunk(self, evaluation: Evaluation, some: int) -> pd.DataFrame:
        clean = replace(evaluation, attack=None)
        find = self.plan.surrogates.__getitem__
        return evaluate_chunk(clean, 0, some, device=self.device, surrogate=find).samples

    def arm(self, evaluation: Evaluation, size: int, *, static: bool) -> ArmCost:
        """A timed case, or the static reference of its net; attacked inputs run longer paths than clean ones."""
        known = (evaluation.entry.net if static else evaluation.loaded.name, size, static)
        if known not in self._arms:
            self._arms[known] = self._time_arm(evaluation, size, static)
        cost, dearest = self._arms[known]
        if static or evaluation.kind != "attack":
            return cost
        return ArmCost(cost.make_s, cost.warm_s, cost.call_s * (1 + dearest) / 2)

    def _time_arm(self, evaluation: Evaluation, size: int, static: bool) -> tuple[ArmCost, float]:
        """And how many times as long as the clean inputs' own the longest path takes."""
        measured = self.plan.suite.suite.measure
        assert measured is not None
        samples = min(measured.samples, len(evaluation.split))
        some = min(samples, size * _BATCHES)
        x = as_input(evaluation.split.x[:some], self.device)
        model = evaluation.model
        began = time.perf_counter()
        if static:
            arm = make_static_arm("static", model, x, size)
        else:
            arm, _ = make_arm("timed", model, x, evaluation.split.ids[:some], size)
        made = time.perf_counter() - began
        batches = max(some // size, 1)
        more = max(samples // size, 1) / batches
        with torch.no_grad(), arm.ready():
            call = seconds_of(arm.run, self.device, times=3) * more
            warm = [seconds_of(way, self.device) for way in arm.warm[:-1]]
        dearest = max([1.0, *(way * batches / made for way in warm)])
        return ArmCost(made * more, (*warm, call), call), dearest

    def record_s(self) -> float:
        """Seconds that the record of one case takes: rows of a few inputs, as many times as there are inputs."""
        evaluation = self.plan.evaluations[0]
        n = len(evaluation.split)
        few = self._chunk(evaluation, min(n, _INPUTS))
        rows = few.iloc[np.arange(n) % len(few)].assign(sample_id=np.arange(n)).reset_index(drop=True)
        began = time.perf_counter()
        summarise(rows, rows, cost_bounds(evaluation.model), seed=evaluation.seed)
        return time.perf_counter() - began


def _sessions(plan: Plan, device: str, cells: RunWriter | None, costs: _Costs) -> tuple[Session, ...]:
    """The timed part, as `bench.measuring` does it where nothing fails."""
    spec = plan.suite.suite.measure
    if spec is None or not plan.timed:
        return ()
    meters, whole = open_meters(spec, device)
    try:
        if not meters:
            return ()
        idle = any(m.quantity == "energy" for m in meters)
        sessions = []
        for size in spec.batch_sizes:
            timed = {timed_id(e.id, size): e for e in plan.timed}
            static: dict[str, Evaluation] = {}
            for e in plan.timed:
                static.setdefault(static_id(e.entry.net, size), e)
            names = [*timed, *static]
            blocks = list(range(spec.blocks))
            if cells is not None:
                key = session_key(spec, size, names, {case: e.key for case, e in timed.items()}, meters, device)
                blocks = [b for b in blocks if not (cells.has(key) or cells.has(f"{key}-{b}"))]
            arms: dict[str, ArmCost] = {}
            if blocks:
                arms = {case: costs.arm(e, size, static=False) for case, e in timed.items()}
                arms |= {case: costs.arm(e, size, static=True) for case, e in static.items()}
            began = time.perf_counter()
            ready_s, block_s = lay_out(arms, spec, window_length(spec, meters), idle=idle) if arms else (0.0, 0.0)
            beside = (time.perf_counter() - began) / _LAID_OUT  # collecting garbage before a window takes real time
            cases = (*names, IDLE) if idle else tuple(names)
            sessions.append(Session(size, cases, tuple(blocks), ready_s, block_s + beside + _COMMIT_S))
        return tuple(sessions)
    finally:
        for meter in [*meters, *whole.meters]:
            meter.close()


def lay_out(arms: Mapping[str, ArmCost], spec: Windows, window_s: float, *, idle: bool) -> tuple[float, float]:
    """The protocol itself, on a clock that only counts.

    Args:
        arms: by case. spec: how long. window_s: what the meters make of it. idle: whether there are idle windows.

    Returns:
        Seconds before the first block, and of one block.
    """
    now = sum(arm.make_s for arm in arms.values())
    ends: list[float] = []

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = ClockMeter(clock=lambda: now)
    clock.open()
    measure(
        [
            Arm(case, partial(spend, arm.call_s), Work(0, 0, 1), [partial(spend, s) for s in arm.warm_s])
            for case, arm in arms.items()
        ],
        [clock],
        blocks=_LAID_OUT,
        window_s=window_s,
        warmup_s=spec.warmup_s,
        rng=np.random.default_rng(0),
        idle=idle,
        clock=lambda: now,
        pause=spend,
        on_block=lambda block, rows: ends.append(now),
    )
    block_s = ends[1] - ends[0]
    return ends[0] - block_s, block_s
