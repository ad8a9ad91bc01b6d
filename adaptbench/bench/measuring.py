"""Timing and metering the plan's cases: one interleaved session a batch size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from adaptbench.attacks.identity import foreign_sources
from adaptbench.bench.evaluate import as_input
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.bench.suite import Measure
from adaptbench.bench.whole_run import WholeRun, to_frame
from adaptbench.errors import AdaptBenchError, LockedError, OutputError
from adaptbench.experiment.environment import describe_device
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.meters import make_meter
from adaptbench.experiment.progress import Progress
from adaptbench.experiment.timed import TimedInputs, make_arm, make_static_arm
from adaptbench.meters.base import Meter
from adaptbench.meters.rows import WindowRow
from adaptbench.meters.windows import Arm, measure
from adaptbench.results.identity import static_id, timed_id
from adaptbench.results.writer import RunWriter


@dataclass(slots=True)
class Timing:
    """What was timed.

    Args:
        keys: cells with windows, in order.
        cases: evaluation id → [(batch size, case id, static case id)].
        inputs: case id → what was timed.
        energy_meters: names of those that read joules of single cases, in the suite's order.
    """

    keys: list[str] = field(default_factory=list)
    cases: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    inputs: dict[str, TimedInputs] = field(default_factory=dict)
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


class _ArmFailedError(Exception):
    """One arm of a session cannot be run; the cause says why."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        self.case = case


class Measuring:
    """The timed part of a run; a case that cannot be timed is left out, and named in failures."""

    def __init__(
        self,
        plan: Plan,
        writer: RunWriter,
        device: str,
        meters: Sequence[Meter],
        progress: Progress,
        failures: Failures,
    ) -> None:
        self.plan, self.writer, self.device, self.meters, self.progress = plan, writer, device, meters, progress
        self.failures = failures

    def run(self, synchronise: Callable[[], None]) -> Timing:
        """All batch sizes, one after another; within one, all arms are interleaved."""
        timing = Timing(energy_meters=tuple(m.name for m in self.meters if m.quantity == "energy"))
        spec = self.plan.suite.suite.measure
        if spec is None or not self.plan.timed or not self.meters:
            return timing
        for size in spec.batch_sizes:
            self._session(spec, size, timing, synchronise)
        return timing

    def _session(self, spec: Measure, size: int, timing: Timing, synchronise: Callable[[], None]) -> None:
        arms = self._arms(spec, size, timing)
        while arms:
            key = self._key(spec, size, arms)
            try:
                if not self.writer.has(key):
                    self._measure(key, arms, spec, size, synchronise)
            except _ArmFailedError as error:  # the others are measured without it
                self.failures.add(error.case, error.__cause__ or error)
                del arms[error.case]
                continue
            except (OutputError, LockedError):
                raise
            except Exception as error:  # a meter's fault, so every case's
                for case in arms:
                    self.failures.add(case, error)
                break
            timing.keys.append(key)
            break
        self.progress.end()

    def _arms(self, spec: Measure, size: int, timing: Timing) -> dict[str, Arm]:
        """Arms by case: the evaluations that succeeded, then each model's static reference."""
        arms: dict[str, Arm] = {}
        first_of: dict[str, Evaluation] = {}
        for evaluation in self.plan.timed:
            case, static = timed_id(evaluation.id, size), static_id(evaluation.loaded.name, size)
            timing.cases.setdefault(evaluation.id, []).append((size, case, static))
            if evaluation.id in self.failures:
                continue
            seeds = evaluation.split.ids[: spec.samples] + evaluation.seed * 1_000_003
            with self.failures.instead(case):
                arm, timing.inputs[case] = make_arm(
                    case, evaluation.model, self._inputs(evaluation, spec.samples), seeds, size
                )
                arms[case] = _guarded(arm)
                first_of.setdefault(static, evaluation)
        for static, evaluation in first_of.items():
            clean = as_input(evaluation.split.x[: spec.samples], self.device)
            with self.failures.instead(static):
                arms[static] = _guarded(make_static_arm(static, evaluation.model, clean, size))
        return arms

    def _measure(
        self, key: str, arms: dict[str, Arm], spec: Measure, size: int, synchronise: Callable[[], None]
    ) -> None:
        window_s = max([spec.window_s, *(m.min_window_s for m in self.meters)])
        self.progress.begin(f"measuring  batch {size}, {len(arms)} arms interleaved", spec.blocks)

        def on_block(block: int, rows: list[WindowRow]) -> None:
            self.writer.commit(f"{key}-{block}", {}, windows=to_frame(rows))
            self.progress.advance(block + 1, f"block {block + 1} of {spec.blocks}")

        with torch.no_grad():
            rows = measure(
                list(arms.values()),
                self.meters,
                blocks=spec.blocks,
                window_s=window_s,
                warmup_s=spec.warmup_s,
                rng=np.random.default_rng(size),
                synchronise=synchronise,
                on_block=on_block,
                already=self._already(key, spec.blocks),
            )
        self.writer.commit(key, {}, windows=to_frame(rows))

    def _key(self, spec: Measure, size: int, arms: dict[str, Arm]) -> str:
        content = {
            "timed": [e.key for e in self.plan.timed if timed_id(e.id, size) in arms],
            "arms": list(arms),
            "measure": spec.model_dump(mode="json"),
            "size": size,
            "meters": [[m.name, foreign_sources([type(m)])] for m in self.meters],
            "device": describe_device(self.device)["fingerprint"],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _already(self, key: str, blocks: int) -> list[WindowRow]:
        rows: list[WindowRow] = []
        for block in range(blocks):
            if self.writer.has(f"{key}-{block}"):
                frame = self.writer.load(f"{key}-{block}").windows
                assert frame is not None
                rows += [WindowRow(**_plain(row)) for row in frame.to_dict("records")]
        return rows

    def _inputs(self, evaluation: Evaluation, samples: int) -> torch.Tensor:
        record = self.writer.record(evaluation.key)
        if record["crafted"] is None:
            return as_input(evaluation.split.x[:samples], self.device)
        return as_input(torch.from_numpy(self.writer.crafted(record["crafted"])["x_adv"][:samples].copy()), self.device)


def _guarded(arm: Arm) -> Arm:
    """The arm, whose errors say whose they are."""

    def named(call: Callable[[], Any]) -> Callable[[], None]:
        def body() -> None:
            try:
                call()
            except Exception as error:
                raise _ArmFailedError(arm.case) from error

        return body

    return replace(arm, run=named(arm.run), warm=[named(call) for call in arm.warm])


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A table row with NaN and NA as None, numpy scalars as Python's."""
    return {str(k): None if pd.isna(v) else (v.item() if hasattr(v, "item") else v) for k, v in row.items()}
