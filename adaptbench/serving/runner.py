"""Carries a file of kind serving out: nets and attacked inputs, windows, streams, provisions, the real run."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from adaptbench.attacks.identity import own_code
from adaptbench.bench.evaluate import as_input, sample_seeds
from adaptbench.bench.suite import Measure as Meters
from adaptbench.errors import SuiteError
from adaptbench.experiment.environment import check_device, describe_device
from adaptbench.experiment.keys import digest_of
from adaptbench.experiment.measuring import Sessions, windows_of
from adaptbench.experiment.meters import make_meter
from adaptbench.experiment.options import Asked, Options, options_of
from adaptbench.experiment.recording import RecordRunner, carry_out, code_of
from adaptbench.meters.base import Meter
from adaptbench.meters.clock import ClockMeter
from adaptbench.results.serving import SCHEMA, ServingRun
from adaptbench.results.writer import RunWriter
from adaptbench.serving.checks import compared, shares_of, spread_of
from adaptbench.serving.driver import CpuTime
from adaptbench.serving.nets import ServingPlan, craft, make_plan
from adaptbench.serving.planner import provisions
from adaptbench.serving.scenes import Timed, rate_of, scenes
from adaptbench.serving.simulate import load_simpy
from adaptbench.serving.spec import LoadedServing, load_serving
from adaptbench.serving.times import arms_of, tables_of
from adaptbench.serving.watched import check_watched

_TIMED_ON = 2048
"""Samples, at most, whose inputs lie on the device while nodes are timed."""


def run_serving(serving: str | LoadedServing, options: Options | None = None, /, **asked: Unpack[Asked]) -> ServingRun:
    """Execute a file of kind serving and leave a directory.

    Args:
        serving: a name, a path, or one that is loaded. options: how; or its fields as keywords.

    Returns:
        The finished run. Windows, streams and real runs are cells beside it: a finished one that is run again changes
        nothing, a killed one goes on.

    Raises:
        AdaptBenchError: what stands in the way of the whole run; whatever was computed is kept.
        LockedError: another process writes to the directory.
        Stopped: Ctrl-C; says what is kept.
    """
    options = options_of(options, asked)
    check_device(options.device)
    loaded = load_serving(serving, options.overrides) if isinstance(serving, str) else serving
    options.must_be_laid(loaded.overrides)
    load_simpy()
    plan = prepared(loaded, options)
    return carry_out(loaded, options, lambda writer: Runner(plan, writer, options))


def prepared(loaded: LoadedServing, options: Options) -> ServingPlan:
    """The plan of a file, checked against this device.

    Raises:
        SuiteError: CPU seconds are to be read of another device. AdaptBenchError: as `make_plan`.
    """
    clocks = [loaded.serving.measure.clock, *((loaded.serving.check and loaded.serving.check.clocks) or [])]
    if "cpu" in clocks and not options.device.startswith("cpu"):
        raise SuiteError(
            f"{loaded.located.where(('measure',))}: the cpu clock was asked for on {options.device}.",
            why="What a card takes is no time of this process.",
            todo="Add -o measure.clock=wall, and -o check.clocks=[wall] where there is a check.",
        )
    plan = make_plan(loaded, options)
    check_watched(plan)
    return plan


class Runner(RecordRunner[ServingRun]):
    """One execution of a plan into one directory."""

    opens = ServingRun

    def __init__(self, plan: ServingPlan, writer: RunWriter, options: Options) -> None:
        self.plan, self.spec = plan, plan.loaded.serving
        device = describe_device(options.device)["fingerprint"]
        key = digest_of([plan.key, device, own_code(), code_of(Path(__file__).parent)])
        super().__init__(plan.loaded, self.spec.title, plan.limit, key, writer, options)
        self._meters: dict[str, Any] = {}

    def _run(self) -> ServingRun:
        self._begin()
        craft(self.plan, self.writer.path, self.options)
        progress = self.options.progress
        progress.begin("running the samples", len(self.plan.nets))
        for i, net in enumerate(self.plan.nets):
            with self.failures.instead(net.label):
                net.run_through(self.plan.split, self.options.device)
            progress.advance(i + 1, net.label)
        progress.end()
        sessions, timed = self._timed()
        figures: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": "serving",
            "objective_p99_s": self.spec.objective_p99_s,
            "clock": self.spec.measure.clock,
            "budget": self.spec.hostile.budget.model_dump() if self.spec.hostile and self.spec.hostile.budget else None,
            "crafted_by": self.plan.crafted_by or None,
            "models": {label: self._told(one) for label, one in timed.items()},
            "streams": self._streams(timed),
            "provisions": self._provisions(timed),
            "checks": self._checks(timed),
            "failed": {failure.case: failure.reason for failure in self.failures.by_case.values()},
        }
        if not timed:
            raise SuiteError(
                "; ".join(f"'{label}': {why}" for label, why in figures["failed"].items()) or "no net could be timed",
                todo="Mend what is named; whatever was computed is kept.",
            )
        return self._finish([*sessions, *self._cells], sessions, figures)

    # ------------------------------------------------------------------ what things take

    def _timed(self) -> tuple[list[str], dict[str, Timed]]:
        """Windows of every net at every size, then single calls; nets that cannot be timed are failures."""
        spec, device = self.spec, self.options.device
        nets = [net for net in self.plan.nets if net.label not in self.failures]
        batches: dict[str, dict[int, list[list[int]]]] = {net.label: {} for net in nets}
        keys: list[str] = []
        with ExitStack() as stack:
            meters = self._opened(stack)
            energy = tuple(meter.name for meter in meters if meter.quantity == "energy")
            sessions = Sessions(self.writer, spec.measure, device, meters, self.options.progress, self.failures)
            some = self.plan.split.first(_TIMED_ON)
            x, seeds = as_input(some.x, device), sample_seeds(some.ids, 0)
            for size in spec.sizes:
                arms = {}
                for net in nets:
                    makers, batches[net.label][size] = arms_of(
                        net.label, net.model, x, seeds, net.ways, size, spec.measure.samples
                    )
                    for case, make in makers.items():
                        with self.failures.instead(case):
                            arms[case] = make()
                content = digest_of([self._key, spec.measure.clock])
                if done := sessions.run(size, arms, dict.fromkeys(arms, content)):
                    keys.append(done)
            self._meters = {meter.name: meter.declared() for meter in meters}
        windows = windows_of(self.writer, keys)
        timed: dict[str, Timed] = {}
        for net in nets:
            with self.failures.instead(net.label):
                names = list(net.model.node_names)
                measured = tables_of(windows, net.label, names, batches[net.label], energy)
                ratios = {
                    mode: self._cell(
                        ["spread", net.label, mode, measured.middle.steps, measured.middle.calls, spec.measure.spread,
                         spec.batching.max_batch, spec.batching.wait_s],
                        f"serving {net.label} in {mode} once",
                        partial(spread_of, spec, net, measured, self.plan.split, mode, device),
                    )
                    for mode in dict.fromkeys(["batches", *spec.batching.modes])
                }  # fmt: skip
                timed[net.label] = Timed(net, measured, ratios)
        return keys, timed

    def _opened(self, stack: ExitStack) -> list[Meter]:
        meters: list[Meter] = []
        spec = self.spec.measure
        for name in spec.meters:
            cpu = name == ClockMeter.name and spec.clock == "cpu"
            meter = ClockMeter(clock=CpuTime().now) if cpu else make_meter(name, Meters(meters=[name]))
            meters.append(stack.enter_context(meter.on(self.options.device)))
        return meters

    def _told(self, timed: Timed) -> dict[str, Any]:
        net, model = timed.net, timed.net.model
        hostile = net.hostile
        return {
            "nodes": list(model.node_names),
            "macs_full": model.macs_full,
            "n": len(self.plan.split),
            "accuracy": net.ways.accuracy,
            "macs_mean": net.ways.macs_mean,
            "reach": net.ways.reach,
            "hostile_macs_mean": None if hostile is None else hostile.macs_mean,
            "hostile_macs_mean_missing": net.no_attack if hostile is None else None,
            "capacity_rps": timed.capacity_rps(self.spec.batching.max_batch, self.spec.replicas),
            "times": timed.measured.rows,
            "call_ratios": timed.ratios,
            "card": net.card,
        }

    # ------------------------------------------------------------------ what is found

    def _streams(self, timed: dict[str, Timed]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        spec = self.spec
        asked = [
            (one, arrivals, mode)
            for one in timed.values()
            for arrivals in spec.arrivals
            for mode in spec.batching.modes
        ]
        for one, arrivals, mode in asked:
            with self.failures.instead(f"{one.net.label}/{arrivals.id}/{mode}"):
                rate = self._rate(arrivals, one, timed)
                told = spec.model_dump(
                    include={"requests", "repeats", "batching", "replicas", "objective_p99_s", "hostile", "seed"}
                )
                rows += self._cell(
                    ["streams", told, arrivals.model_dump(), rate, mode, _of(one), self._recorded(arrivals.file)],
                    f"simulating {one.net.label}, {arrivals.id}, {mode}",
                    partial(scenes, spec, one, arrivals, rate, mode, self.plan.loaded.beside),
                )
        return rows

    def _rate(self, arrivals: Any, one: Timed, timed: dict[str, Timed]) -> float | None:
        if arrivals.of is not None and arrivals.of not in timed:
            raise SuiteError(f"the load is a share of what '{arrivals.of}' can serve, and that net was not timed.")
        return rate_of(arrivals, self.spec, one, timed)

    def _recorded(self, file: str | None) -> str:
        return "" if file is None else hashlib.sha256(self.plan.loaded.beside(file).read_bytes()).hexdigest()

    def _provisions(self, timed: dict[str, Timed]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        spec = self.spec
        if spec.planner is None or not timed:
            return rows
        first, mode = next(iter(timed.values())), spec.batching.modes[0]
        for one in timed.values():
            with self.failures.instead(f"{one.net.label}/planner"):
                told = spec.model_dump(
                    include={"requests", "repeats", "batching", "objective_p99_s", "planner", "seed"}
                )
                rows += self._cell(
                    ["provisions", told, mode, _of(one), _of(first)],
                    f"planning for {one.net.label}",
                    partial(provisions, spec, one, first, mode),
                )
        return rows

    def _checks(self, timed: dict[str, Timed]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        spec = self.spec
        if spec.check is None:
            return rows
        arrivals = spec.arrivals[0]
        clocks = spec.check.clocks or [spec.measure.clock]
        asked = [
            (one, mode, share, clock)
            for one in timed.values()
            for mode in spec.batching.modes
            for share in shares_of(spec, one.net)
            for clock in clocks
        ]
        for one, mode, share, clock in asked:
            with self.failures.instead(f"{one.net.label}/{mode}/{share:g}/{clock}/check"):
                rate = self._rate(arrivals, one, timed)
                rate = rate / spec.replicas if rate is not None else None
                told = [spec.check.model_dump(), spec.batching.model_dump(), spec.seed, spec.measure.clock]
                rows.append(
                    self._cell(
                        ["check", told, arrivals.model_dump(), rate, mode, share, clock, _of(one)],
                        f"serving {one.net.label} in {mode} for real",
                        partial(
                            compared,
                            spec,
                            one,
                            self.plan.split,
                            arrivals,
                            rate,
                            mode,
                            share,
                            clock,
                            self.plan.loaded.beside,
                            self.options.device,
                        ),
                    )
                )
        return rows

    def _manifest(self) -> dict[str, Any]:
        split = self.plan.split
        return {
            "data": {split.name: {"n": len(split), "split": split.role, "sha256": split.sha256}},
            "meters": self._meters,
            "gate": self.spec.gate,
            "notes": list(self.plan.notes),
        }


def _of(timed: Timed) -> list[Any]:
    """What a stream hangs on of a net and its times."""
    net, blocks = timed.net, timed.measured.blocks
    hostile = None if net.attacked is None else hashlib.sha256(net.attacked.numpy().tobytes()).hexdigest()
    tables = [[table.steps, table.calls] for table in [*blocks, timed.measured.middle]]
    return [net.label, hostile, tables, timed.ratios]
