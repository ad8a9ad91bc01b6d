"""How long a plan will take, for ``--dry-run``: what the run will do is done in small, timed, and multiplied.

Passes are timed on the arms that will be measured, and laid end to end by the protocol itself on a clock that only
counts; attacks are run for two short lengths (`adaptbench.bench.probing`). What is committed already costs nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd

from adaptbench.adaptive.parts import TimedMode
from adaptbench.bench.ahead import plan_compiling_s
from adaptbench.bench.evaluate import evaluate_chunk
from adaptbench.bench.measuring import open_meters
from adaptbench.bench.neighbours import mixed_cases
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.bench.probing import Craft, probe_craft
from adaptbench.bench.records import cost_bounds
from adaptbench.experiment.estimating import CLOSING_S, COMMIT_S, ArmCost, Session, probe_arm, seconds_of, session
from adaptbench.experiment.measuring import session_key, window_length
from adaptbench.experiment.options import Options
from adaptbench.meters.windows import IDLE
from adaptbench.results.identity import COMPACTED, COMPILED, static_id, timed_id
from adaptbench.results.metrics import summarise
from adaptbench.results.writer import RunWriter

_INPUTS = 128  # that are passed


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
    cases = len(plan.evaluations) + len(plan.timed) * max(_timings(plan) - 1, 0)
    kept = frozenset(e.id for e in plan.evaluations if not _left(plan, e, cells))
    return Estimate(seconds, sessions, preparing_s, CLOSING_S + cases * costs.record_s(), kept, doubts)


def _timings(plan: Plan) -> int:
    """Rows of an evaluation that is timed."""
    spec = plan.suite.suite.measure
    return len(spec.batch_sizes) * len(spec.modes) if spec else 0


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
        self._arms: dict[tuple[str, int, TimedMode | None], tuple[ArmCost, float]] = {}

    def evaluation(self, evaluation: Evaluation) -> Craft:
        """One evaluation, from nothing to its cells."""
        label, n = evaluation.loaded.name, len(evaluation.split)
        chunks = len(self.plan.chunk_keys(evaluation))
        if label not in self._passes:
            self._passes[label] = self._pass(evaluation)
        own_s = self._passes[label] * n + (chunks + 1) * COMMIT_S
        if evaluation.attack is None or evaluation.source is not None:
            return Craft(own_s)
        known = (label, evaluation.condition.id)
        if known not in self._crafts:
            most = min(self.plan.suite.suite.chunk, n)
            self._crafts[known] = probe_craft(
                evaluation,
                self.device,
                self.plan.surrogates.__getitem__,
                most,
                self._passes[label],
                self.plan.crafting,
            )
        craft = self._crafts[known]
        return Craft(own_s + 2 * COMMIT_S * chunks + craft.total_s, craft.doubt)

    def _pass(self, evaluation: Evaluation) -> float:
        """Seconds an input of a hard pass with its rows, on as many as there are up to one chunk."""
        some = min(len(evaluation.split), self.plan.suite.suite.chunk, _INPUTS)
        return seconds_of(partial(self._chunk, evaluation, some), self.device) / some

    def _chunk(self, evaluation: Evaluation, some: int) -> pd.DataFrame:
        clean = replace(evaluation, attack=None)
        find = self.plan.surrogates.__getitem__
        return evaluate_chunk(clean, 0, some, device=self.device, surrogate=find).samples

    def arm(self, evaluation: Evaluation, size: int, mode: TimedMode | None) -> ArmCost:
        """A timed case; without a mode the static reference of its net. Attacked inputs run longer paths than clean.

        Nothing is compiled for it: a net with compiled parts is taken to run as it is.
        """
        mode = COMPACTED if mode == COMPILED else mode
        known = (evaluation.loaded.name if mode else evaluation.entry.net, size, mode)
        if known not in self._arms:
            self._arms[known] = self._time_arm(evaluation, size, mode)
        cost, dearest = self._arms[known]
        if mode is None or evaluation.kind != "attack":
            return cost
        return ArmCost(cost.make_s, cost.warm_s, cost.call_s * (1 + dearest) / 2)

    def _time_arm(self, evaluation: Evaluation, size: int, mode: TimedMode | None) -> tuple[ArmCost, float]:
        """And how many times as long as the clean inputs' own the longest path takes."""
        measured = self.plan.suite.suite.measure
        assert measured is not None
        return probe_arm(evaluation.model, evaluation.split, size, measured.samples, self.device, mode)

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
            timed = {timed_id(e.id, size, mode): (e, mode) for mode in spec.modes for e in plan.timed}
            static: dict[str, Evaluation] = {}
            for e, mode in timed.values():
                static.setdefault(static_id(e.entry.net, size, mode), e)
            mixed: dict[str, tuple[Evaluation, TimedMode]] = {
                case: (e, COMPACTED) for case, e in mixed_cases(plan, size).items()
            }
            names = [*timed, *static, *mixed]
            blocks = list(range(spec.blocks))
            if cells is not None:
                key = session_key(
                    spec, size, names, {case: e.key for case, (e, _) in (timed | mixed).items()}, meters, device
                )
                blocks = [b for b in blocks if not (cells.has(key) or cells.has(f"{key}-{b}"))]
            arms: dict[str, ArmCost] = {}
            if blocks:
                arms = {case: costs.arm(e, size, mode) for case, (e, mode) in timed.items()}
                arms |= {case: costs.arm(e, size, None) for case, e in static.items()}
                arms |= {case: costs.arm(e, size, mode) for case, (e, mode) in mixed.items()}
            cases = (*names, IDLE) if idle else tuple(names)
            laid = session(size, cases, blocks, arms, spec, window_length(spec, meters), idle=idle)
            compiling = plan_compiling_s(plan) if blocks else 0.0
            sessions.append(replace(laid, ready_s=laid.ready_s + compiling))
        return tuple(sessions)
    finally:
        for meter in [*meters, *whole.meters]:
            meter.close()
