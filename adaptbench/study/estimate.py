"""How long a study will take, for ``--dry-run``: every stage is done in small, timed, and multiplied.

A few passes of each net are timed on calibration pictures. Their logits, repeated with a little noise, stand in for the
logs; fits, replays, re-splits and streams run on two lengths of the stand-in, and a straight line goes through both. No
test sample is looked at, and what is committed already costs nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from adaptbench.adaptive import CalibrationLog
from adaptbench.adaptive.model import frozen
from adaptbench.errors import UsageError
from adaptbench.experiment.estimating import (
    CLOSING_S,
    COMMIT_S,
    ArmCost,
    Session,
    limited,
    line,
    probe_arm,
    seconds_of,
    session,
)
from adaptbench.experiment.failures import reason_of
from adaptbench.experiment.measuring import Calls, session_key, window_length
from adaptbench.experiment.options import Options
from adaptbench.experiment.progress import Silent
from adaptbench.meters.clock import ClockMeter
from adaptbench.registry import POLICIES
from adaptbench.results.identity import static_id, timed_id
from adaptbench.results.study_cases import timed_point
from adaptbench.results.writer import RunWriter
from adaptbench.study.fits import fit_key
from adaptbench.study.gradient_noise import DRAWS, gradient_noise
from adaptbench.study.keys import clock_key, content_key, set_up
from adaptbench.study.logs import CHUNK, SealedLabels, TestLog, log_key, passes
from adaptbench.study.members import Family, Member, fit_family, outcome
from adaptbench.study.plan import PlannedGraph, StudyPlan
from adaptbench.study.resplits import resplit
from adaptbench.study.schema import ON_TRAINING, Study, registry_name
from adaptbench.study.stateful import stateful

_PASSES = 2  # that are logged for the stand-in
_SHARE, _LEAST = 1 / 4, 1000  # of calibration, and samples of it, that the longer stand-in has; shorter logs are whole
_SHORTER = 2  # how many times less the shorter one has: policies refuse very short logs
_JITTER = 1e-3  # logits that repeat exactly would tie
_DEADLINE_S = 10.0  # of one fit, re-split or stream on a stand-in
_QUICK_S = 0.2  # below it, a call is timed twice: the first one loads and compiles
_DRAWS = (5, 25)  # minibatches of the gradient's noise


@dataclass(frozen=True, slots=True)
class GraphEstimate:
    """Seconds of one graph.

    Args:
        stages: as `PlannedGraph.stages` calls them; what is kept costs nothing. sessions: windows, a batch size each.
        doubts: what → why its seconds are left out, or may be far off. kept: the whole graph is, its clock apart.
    """

    stages: dict[str, float]
    sessions: tuple[Session, ...] = ()
    doubts: dict[str, str] = field(default_factory=dict)
    kept: bool = False

    @property
    def total_s(self) -> float:
        """Of all stages, windows among them."""
        return sum(self.stages.values())


@dataclass(frozen=True, slots=True)
class StudyEstimate:
    """Seconds.

    Args:
        graphs: by key. preparing_s: from the start to the plan.
    """

    graphs: dict[str, GraphEstimate]
    preparing_s: float = 0.0

    @property
    def measuring_s(self) -> float:
        """All windows, with what comes before them."""
        return sum(s.total_s for graph in self.graphs.values() for s in graph.sessions)

    @property
    def total_s(self) -> float:
        """Preparing, every graph and closing; nothing is closed where nothing is to be done."""
        work = sum(graph.total_s for graph in self.graphs.values())
        return self.preparing_s + work + (CLOSING_S if work else 0.0)


def estimate(plan: StudyPlan, options: Options, preparing_s: float = 0.0) -> StudyEstimate:
    """Do a little of everything.

    Args:
        plan: what is to be run. options: how. preparing_s: that loading data and nets took.
    """
    cells = None if options.fresh else RunWriter.look(options.place(plan.loaded.name))
    graphs = {graph.key: _Graph(plan.spec, graph, cells, options).guess() for graph in plan.graphs}
    return StudyEstimate(graphs, preparing_s)


class _StandIn:
    """Logs of any length, from the logits of a few calibration samples.

    Args:
        graph: its splits say how long a log is. logits: (R, V, C) of the first R calibration samples.
    """

    def __init__(self, graph: PlannedGraph, logits: Tensor) -> None:
        self.graph, self.logits = graph, logits

    @property
    def shares(self) -> tuple[float, ...]:
        """Of two lengths, the shorter first; the whole alone where it is no longer than the longer one."""
        longer = min(1.0, max(_SHARE, _LEAST / len(self.graph.calibration)))
        return (longer / _SHORTER, longer) if longer < 1 else (1.0,)

    def rows(self, role: str, share: float) -> tuple[Tensor, Tensor]:
        """(n, V, C) logits and (n,) labels."""
        n = max(math.ceil(share * len(self.graph.splits[role])), 2)
        rows = torch.arange(n) % len(self.logits)
        noise = torch.randn((n, *self.logits.shape[1:]), generator=torch.Generator().manual_seed(0))
        return self.logits[rows] + _JITTER * noise, self.graph.calibration.y[rows]

    def log(self, role: str, share: float) -> CalibrationLog:
        """Of a split that policies are fitted on."""
        logits, labels = self.rows(role, share)
        macs, split = torch.tensor(self.graph.model.node_macs), self.graph.splits[role]
        structure, top = self.graph.model.structure, self.graph.graph.top
        return CalibrationLog(logits, labels, structure, macs, split.name, split.role, split.sha256, top=top)

    def test(self, share: float) -> TestLog:
        """Of the test split's length; its labels are calibration's, and open."""
        logits, labels = self.rows("test", share)
        sealed, macs = SealedLabels(labels), torch.tensor(self.graph.model.node_macs)
        sealed.unseal("a stand-in")
        structure, top = self.graph.model.structure, self.graph.graph.top
        return TestLog(logits, sealed, torch.arange(len(labels)), structure, macs, "stand-in", "test", "", top)


class _Graph:
    """The stages of one graph, in the order in which `GraphStudy` does them."""

    def __init__(self, spec: Study, planned: PlannedGraph, cells: RunWriter | None, options: Options) -> None:
        self.spec, self.planned, self.cells, self.device = spec, planned, cells, options.device
        self.model, self.reference = planned.model, planned.model.reference[-1]
        self.doubts: dict[str, str] = {}
        set_up(self.model, self.device)
        self.content = content_key(spec, planned, self.device)

    def guess(self) -> GraphEstimate:
        """All stages."""
        seconds = dict.fromkeys((stage for stage, _ in self.planned.stages(self.spec)), 0.0)
        known = self._has(self.content)
        timed = self.spec.measure is None or self._has(clock_key(self.spec, self.content, self.device))
        sessions: tuple[Session, ...] = ()
        if known and timed:
            return GraphEstimate(seconds, kept=True)
        row_s, stand_in = self._passes()
        for role in self.planned.splits:
            seconds[f"log {role}"] = self._logging(role, row_s)
        families, seconds["fit and choose"] = self._fitting(stand_in)
        if not known:
            seconds["replay on test"] = self._replaying(families, stand_in)
            seconds["execute"] = self._executing(families)
            of = {"re-split": self._resplits, "stream": self._stream, "gradient noise": self._noise}
            for stage in of.keys() & seconds.keys() if self.model.structure.is_chain else ():
                seconds[stage] = of[stage](stand_in)
        if self.spec.measure is not None and not timed:
            sessions = self._sessions(self.spec.measure, families)
            seconds["time"] = sum(s.total_s for s in sessions)
        return GraphEstimate(seconds, sessions, self.doubts, known)

    def _has(self, key: str) -> bool:
        return self.cells is not None and self.cells.has(key)

    # ------------------------------------------------------------------ logs and fits

    def _passes(self) -> tuple[float, _StandIn]:
        """Seconds a sample of logging it, and the stand-in of what was logged."""
        split, logits, took = self.planned.calibration, [], []
        bounds = [*passes(0, len(split), self.device)][:_PASSES]
        with frozen(self.model), torch.no_grad():
            for start, stop in (bounds[0], *bounds):  # the first pass of all is not counted
                began = time.perf_counter()
                logits.append(self.model.dense_logits(split.inputs(start, stop).to(self.device)).float().cpu())
                took.append((time.perf_counter() - began) / (stop - start))
        return sum(took[1:]) / len(took[1:]), _StandIn(self.planned, torch.cat(logits[1:]))

    def _logging(self, role: str, row_s: float) -> float:
        split = self.planned.splits[role]
        key = log_key(self.model, split, self.device)
        starts = [start for start in range(0, len(split), CHUNK) if not self._has(f"{key}-{start}")]
        rows = sum(min(CHUNK, len(split) - start) for start in starts)
        return rows * row_s + len(starts) * COMMIT_S

    def _fitting(self, stand_in: _StandIn) -> tuple[dict[str, Family], float]:
        """The families of the stand-in, and seconds of all."""
        families: dict[str, Family] = {}

        def fit(name: str, share: float) -> None:
            fitting, choosing = stand_in.log("calibration", share).halves(1 - self.spec.choosing, self.spec.seed)
            fitting = stand_in.log("training", share) if name.endswith(ON_TRAINING) else fitting
            settings, seed = self.spec.settings.get(name, []), self.spec.seed
            families[name] = fit_family(name, fitting, choosing, reference=self.reference, settings=settings, seed=seed)
            if families[name].failed:
                raise UsageError(families[name].failed)

        kept, total = self._kept_fits(), 0.0
        for name in self.spec.policies:
            seconds = self._grown(name, stand_in, partial(fit, name))
            total += 0.0 if name in kept else seconds + COMMIT_S
        return {name: family for name, family in families.items() if not family.failed}, total

    def _kept_fits(self) -> set[str]:
        """Policies that an earlier run fitted, where its logs are kept whole."""
        logs = {role: self._kept_log(role) for role in self.planned.splits if role != "test"}
        if logs["calibration"] is None:
            return set()
        fitting, choosing = logs["calibration"].halves(1 - self.spec.choosing, self.spec.seed)
        kept = set()
        for name in self.spec.policies:
            seen = logs.get("training") if name.endswith(ON_TRAINING) else fitting
            settings, kind = self.spec.settings.get(name, []), POLICIES.load(registry_name(name))
            if seen is not None and self._has(fit_key(name, kind, seen, choosing, settings, self.spec.seed)):
                kept.add(name)
        return kept

    def _kept_log(self, role: str) -> CalibrationLog | None:
        split = self.planned.splits[role]
        key = log_key(self.model, split, self.device)
        pieces = [f"{key}-{start}" for start in range(0, len(split), CHUNK)]
        if self.cells is None or not all(map(self._has, pieces)):
            return None
        tensors = [self.cells.load(piece).tensors or {} for piece in pieces]
        logits = torch.cat([torch.from_numpy(piece["logits"]) for piece in tensors])
        return self.model.logged(logits, split, top=self.planned.graph.top)

    def _grown(self, what: str, stand_in: _StandIn, call: Callable[[float], object]) -> float:
        """Seconds of a call on whole logs, from two shares of them."""
        seconds: list[tuple[float, float]] = []
        try:
            for share in stand_in.shares:
                took = limited(partial(call, share), _DEADLINE_S)
                if took is not None and took < _QUICK_S:
                    took = limited(partial(call, share), _DEADLINE_S)
                if took is None:
                    said = f"it did not end within {_DEADLINE_S:g} s on {share:.0%} of the samples"
                    self.doubts[what] = said if seconds else f"left out: {said}"
                    break
                seconds.append((share, took))
        except Exception as error:  # whatever it is, the run says it of the stage that it is
            self.doubts[what] = f"left out: it cannot be tried on a stand-in: {reason_of(error)}"
            return 0.0
        if len(seconds) == 2:
            return line(seconds[0], seconds[1], 1.0)
        return seconds[0][1] / seconds[0][0] if seconds else 0.0

    # ------------------------------------------------------------------ after the choices

    def _replaying(self, families: Mapping[str, Family], stand_in: _StandIn) -> float:
        total = 0.0
        for name, family in families.items():
            member = family.members[len(family.members) // 2]

            def replayed(share: float, member: Member = member) -> None:
                outcome(member, stand_in.test(share))

            one = self._grown(f"{name} on test", stand_in, replayed)
            total += one * (len(family.members) + len(family.settings))
        return total

    def _chosen(self, family: Family) -> dict[float, Member]:
        """Of the stand-in: members at each drop."""
        goal = max(member.chosen_on.accuracy for member in family.members)
        return {drop: family.members[family.at_drop(drop, goal)] for drop in self.spec.drops}

    def _executing(self, families: Mapping[str, Family]) -> float:
        """Each chosen point once, as dear as on calibration's first pictures; equal points run once."""
        split, total = self.planned.calibration, 0.0
        start, stop = next(passes(0, len(split), self.device))
        x, seeds = split.inputs(start, stop).to(self.device), split.ids[start:stop].to(self.device)
        for name in self.spec.executed:
            if name in families:
                points = {id(member): member for member in self._chosen(families[name]).values()}
                for member in points.values():
                    running = self.model.under(member.policy)
                    with torch.no_grad():
                        one = seconds_of(partial(running.infer, x, seeds=seeds), self.device)
                    total += one / (stop - start) * len(self.planned.test)
        return total

    def _resplits(self, stand_in: _StandIn) -> float:
        spec = self.spec.resplits
        assert spec is not None

        def once(share: float) -> None:
            training = stand_in.log("training", share) if self.planned.training is not None else None
            resplit(
                stand_in.log("calibration", share),
                stand_in.test(share),
                training,
                policies=spec.policies,
                epsilons=spec.epsilons,
                count=1,
                seed=self.spec.seed,
                progress=Silent(),
            )

        return spec.count * self._grown("re-split", stand_in, once)

    def _stream(self, stand_in: _StandIn) -> float:
        spec = self.spec.online
        assert spec is not None
        top, full, seed = self.planned.graph.top, float(self.model.macs_full), self.spec.seed

        def once(share: float) -> None:
            log, test = stand_in.log("calibration", share), stand_in.test(share)
            stateful(log, test, spec, top=top, full=full, seed=seed)

        return self._grown("stream", stand_in, once)

    def _noise(self, stand_in: _StandIn) -> float:
        """A fit, which grows with the samples, and minibatches, which do not."""
        few, more = _DRAWS
        seed, price = self.spec.seed, self.spec.gradient_noise[0]

        def drawn(draws: int, share: float) -> None:
            gradient_noise(stand_in.log("calibration", share), price=price, draws=draws, seed=seed)

        fitted = self._grown("gradient noise", stand_in, partial(drawn, few))
        if "gradient noise" in self.doubts:
            return len(self.spec.gradient_noise) * fitted
        share = stand_in.shares[0]
        short, longer = (seconds_of(partial(drawn, draws, share), "cpu") for draws in _DRAWS)
        a_draw = max(longer - short, 0.0) / (more - few)
        return len(self.spec.gradient_noise) * (fitted + a_draw * (DRAWS - few))

    # ------------------------------------------------------------------ the clock

    def _sessions(self, spec: Calls, families: Mapping[str, Family]) -> tuple[Session, ...]:
        """As `study.timing` does it where nothing fails; the pictures are calibration's."""
        key, split, samples = self.planned.key, self.planned.calibration, min(spec.samples, len(self.planned.test))
        ends = dict.fromkeys((self.spec.drops[0], self.spec.drops[-1]))
        points = {
            timed_point(name, drop): self._chosen(families[name])[drop]
            for name in dict.fromkeys((self.spec.paper, self.spec.ours))
            if name in families
            for drop in ends
        }
        made = []
        with ClockMeter().on(self.device) as clock:
            for size in spec.batch_sizes:
                static = static_id(key, size)
                models = {
                    timed_id(f"{key}/{name}", size, mode): (member, mode)
                    for mode in spec.modes
                    for name, member in points.items()
                }
                names = [static, *models]
                kept = session_key(spec, size, names, dict.fromkeys(names, self.content), [clock], self.device)
                blocks = [b for b in range(spec.blocks) if not (self._has(kept) or self._has(f"{kept}-{b}"))]
                arms: dict[str, ArmCost] = {}
                if blocks:
                    arms[static] = probe_arm(self.model, split, size, samples, self.device, None)[0]
                    for case, (member, mode) in models.items():
                        under = self.model.under(member.policy)
                        arms[case] = probe_arm(under, split, size, samples, self.device, mode)[0]
                made.append(session(size, names, blocks, arms, spec, window_length(spec, [clock]), idle=False))
        return tuple(made)
