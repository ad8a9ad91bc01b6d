"""Timing and metering the plan's cases: one interleaved session a batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from adaptbench.adaptive.parts import TimedMode
from adaptbench.bench.ahead import session_name
from adaptbench.bench.evaluate import as_input, sample_seeds
from adaptbench.bench.neighbours import mixed_arm, mixed_cases, mixtures
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.bench.suite import Measure
from adaptbench.bench.whole_run import WholeRun
from adaptbench.errors import AdaptBenchError
from adaptbench.experiment.ahead import Ahead
from adaptbench.experiment.compiled import Deployed, deployed_in
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.measuring import Sessions
from adaptbench.experiment.meters import make_meter
from adaptbench.experiment.options import Options
from adaptbench.experiment.timed import TimedInputs, make_arm, make_static_arm, served_batches
from adaptbench.meters.base import Meter
from adaptbench.meters.windows import Arm
from adaptbench.results.identity import COMPILED, mixed_id, static_id, timed_id
from adaptbench.results.writer import RunWriter


class TimedCase(NamedTuple):
    """One evaluation at one batch size in one mode. case, static: ids of its windows and its static reference's."""

    size: int
    mode: TimedMode
    case: str
    static: str


@dataclass(slots=True)
class Timing:
    """What was timed.

    Args:
        keys: cells with windows, in order.
        cases: evaluation id → its timed cases, in order.
        inputs: case id → what was timed. mixed: case id → attacked rows → MACs of a batch, None where it failed.
        compiled: "model/b<size>" → what is known of its compiled parts.
        energy_meters: names of those that read joules of single cases, in the suite's order.
    """

    keys: list[str] = field(default_factory=list)
    cases: dict[str, list[TimedCase]] = field(default_factory=dict)
    inputs: dict[str, TimedInputs] = field(default_factory=dict)
    mixed: dict[str, dict[int, float | None]] = field(default_factory=dict)
    compiled: dict[str, dict[str, Any]] = field(default_factory=dict)
    energy_meters: tuple[str, ...] = ()


def open_meters(spec: Measure | None, device: str) -> tuple[list[Meter], WholeRun]:
    """The suite's meters, opened: those for windows, and those for the whole run."""
    meters: list[Meter] = []
    if spec is None:
        return [], WholeRun([])
    for name in spec.meters:
        meter = make_meter(name, spec)
        try:
            meter.open(device)
        except AdaptBenchError:
            raise
        except Exception as error:  # of a plug-in
            raise meter.failure(error) from error
        meters.append(meter)
    return [m for m in meters if not m.whole_run], WholeRun([m for m in meters if m.whole_run])


class Measuring:
    """The timed part of a run; a case that cannot be timed is left out, and named in failures."""

    def __init__(self, plan: Plan, writer: RunWriter, options: Options, failures: Failures, progress: Ahead) -> None:
        self.plan, self.writer, self.options, self.failures = plan, writer, options, failures
        self.progress = progress
        self._deployed: dict[tuple[str, int], Deployed | AdaptBenchError] = {}

    def run(self, meters: Sequence[Meter]) -> Timing:
        """All batch sizes, one after another; within one, all arms are interleaved, whatever their mode."""
        timing = Timing(energy_meters=tuple(m.name for m in meters if m.quantity == "energy"))
        spec = self.plan.suite.suite.measure
        if spec is None or not self.plan.timed or not meters:
            return timing
        options = self.options
        sessions = Sessions(self.writer, spec, options.device, meters, self.progress, self.failures)
        for size in spec.batch_sizes:
            self.progress.enter(session_name(size))
            keys = {timed_id(e.id, size, mode): e.key for mode in spec.modes for e in self.plan.timed}
            keys |= {case: e.key for case, e in mixed_cases(self.plan, size).items()}
            if done := sessions.run(size, self._arms(spec, size, timing), keys):
                timing.keys.append(done)
            self.progress.leave()
        return timing

    def _arms(self, spec: Measure, size: int, timing: Timing) -> dict[str, Arm]:
        """Arms by case: the evaluations that succeeded, then each model's static reference."""
        arms: dict[str, Arm] = {}
        first_of: dict[str, tuple[Evaluation, Deployed | None]] = {}
        warmed: set[tuple[int, str]] = set()  # conditions of a net go the same ways
        for evaluation, mode in [(e, mode) for mode in spec.modes for e in self.plan.timed]:
            case, static = timed_id(evaluation.id, size, mode), static_id(evaluation.entry.net, size, mode)
            timing.cases.setdefault(evaluation.id, []).append(TimedCase(size, mode, case, static))
            if evaluation.id in self.failures:
                continue
            seeds = sample_seeds(evaluation.split.ids[: spec.samples], evaluation.seed)
            with self.failures.instead(case):
                deployed = self._compiled(evaluation, spec.samples, size, timing) if mode == COMPILED else None
                inputs = self._inputs(evaluation, spec.samples)
                net = (id(evaluation.model), mode)
                arms[case], timing.inputs[case] = make_arm(
                    case, evaluation.model, inputs, seeds, size, mode, deployed, net not in warmed
                )
                warmed.add(net)
                first_of.setdefault(static, (evaluation, deployed))
        for static, (evaluation, deployed) in first_of.items():
            clean = as_input(evaluation.split.x[: spec.samples], self.options.device)
            with self.failures.instead(static):
                arms[static] = make_static_arm(static, evaluation.model, clean, size, deployed)
        for evaluation in self.plan.timed:
            case = timed_id(evaluation.id, size)
            if evaluation.kind == "attack" and case in arms:
                arms |= self._mixed(evaluation, case, spec, size, timing)
        return arms

    def _compiled(self, evaluation: Evaluation, samples: int, size: int, timing: Timing) -> Deployed:
        """The net with compiled parts, found on clean inputs: one for all conditions, as it would be deployed."""
        model, split, known = evaluation.model, self.plan.split, (evaluation.loaded.name, size)
        if known not in self._deployed:
            seeds = sample_seeds(split.ids[:samples], evaluation.seed)
            batches = served_batches(model, as_input(split.x[:samples], self.options.device), seeds, size)
            self.progress.begin(f"compiling  batch {size} → {evaluation.loaded.name}", 1)
            try:
                made = deployed_in(self.writer, model, batches, self.options.device)
                timing.compiled["{}/b{}".format(*known)] = made.facts
                self._deployed[known] = made
                made.require_some()
            except AdaptBenchError as error:
                self._deployed[known] = error
            finally:
                self.progress.end()
        found = self._deployed[known]
        if isinstance(found, AdaptBenchError):
            raise found
        return found

    def _mixed(self, evaluation: Evaluation, case: str, spec: Measure, size: int, timing: Timing) -> dict[str, Arm]:
        """Arms of clean batches with attacked rows in them."""
        arms: dict[str, Arm] = {}
        attacked = self._inputs(evaluation, spec.samples)
        clean = as_input(evaluation.split.x[: len(attacked)], self.options.device)
        seeds = sample_seeds(evaluation.split.ids[: len(attacked)], evaluation.seed)
        for k in mixtures(spec.neighbours, size):
            name = mixed_id(case, k)
            timing.mixed.setdefault(case, {})[k] = None
            with self.failures.instead(name):
                mixed = mixed_arm(name, evaluation.model, clean, attacked, seeds, size, k)
                arms[name] = mixed.arm
                timing.mixed[case][k] = mixed.macs
        return arms

    def _inputs(self, evaluation: Evaluation, samples: int) -> torch.Tensor:
        device, crafted = self.options.device, self.writer.record(evaluation.key)["crafted"]
        if crafted is None:
            return as_input(evaluation.split.x[:samples], device)
        return as_input(torch.from_numpy(self.writer.crafted(crafted)["x_adv"][:samples].copy()), device)
