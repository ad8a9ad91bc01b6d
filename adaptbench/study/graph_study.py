"""One net of a study on its data: log, fit, choose, seal; only then look at test labels, compare, execute, time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from adaptbench.adaptive import CalibrationLog
from adaptbench.adaptive.log import is_correct
from adaptbench.errors import LeakageError, SuiteError
from adaptbench.experiment.engines import Engine
from adaptbench.experiment.environment import describe_device, git_state, versions
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.options import Options
from adaptbench.results.study_cases import timed_point
from adaptbench.results.writer import RunWriter
from adaptbench.study import compare
from adaptbench.study.elsewhere import Elsewhere
from adaptbench.study.execute import execute
from adaptbench.study.gradient_noise import gradient_noise
from adaptbench.study.keys import clock_key, content_key, set_up
from adaptbench.study.logs import Logging, TestLog, calibration_log, test_log
from adaptbench.study.members import Choice, Family, Member, Outcome, blame, digest_of_choices, fit_family, outcome
from adaptbench.study.plan import PlannedGraph
from adaptbench.study.records import Sheet, node_records, oracle_record
from adaptbench.study.resplits import resplit
from adaptbench.study.schema import ON_TRAINING, Study
from adaptbench.study.stateful import stateful
from adaptbench.study.timing import wall_clock


class GraphStudy:
    """Everything that one graph needs.

    Args:
        spec: the study. planned: this graph; its net's policy is replaced.
        writer: where logits, fits and figures are kept. options: device, who watches. failures: of the study.
        engine: who logs; None: this process. folder: of the study, for factories.
    """

    def __init__(
        self,
        spec: Study,
        planned: PlannedGraph,
        writer: RunWriter,
        options: Options,
        failures: Failures,
        engine: Engine | None = None,
        folder: Path | None = None,
    ) -> None:
        self.spec, self.planned, self.writer, self.options, self.failures = spec, planned, writer, options, failures
        self.key, self.graph, self.model, self.test = planned.key, planned.graph, planned.model, planned.test
        self.device, self.progress = options.device, options.progress
        set_up(self.model, self.device)
        self.full = float(self.model.macs_full)
        self.logging = Logging(writer, self.device, self.progress, engine, Elsewhere(planned.graph, options, folder))
        self._training: CalibrationLog | None = None
        self._missing: dict[str, str] = {}

    # ------------------------------------------------------------------ keys

    @cached_property
    def content_key(self) -> str:
        """Hash of all that this graph's figures hang on, the clock apart."""
        return content_key(self.spec, self.planned, self.device)

    @cached_property
    def clock_key(self) -> str:
        """The same, and the device and protocol of timing."""
        return clock_key(self.spec, self.content_key, self.device)

    @property
    def cells(self) -> list[str]:
        """What is kept of a graph that is whole."""
        return [self.content_key, *([self.clock_key] if self.spec.measure is not None else [])]

    # ------------------------------------------------------------------ the whole

    def run(self) -> tuple[dict[str, Any], list[str]]:
        """This graph's figures; what an earlier run finished under the same keys is read back.

        Returns:
            The figures, and the cells that hold the windows behind them.

        Raises:
            LeakageError: something read test labels before every choice was made.
            SuiteError: no policy of the study can be fitted.
        """
        figures = self.writer.record(self.content_key) if self.writer.has(self.content_key) else None
        timed = self._kept_clock()
        if figures is None or timed is None:
            calibration = self._log("calibration")
            families, chosen = self._choose(calibration)
            if figures is None:
                figures = self._figures(calibration, families, chosen)
                if not figures["missing"] and not figures["failed"]:
                    self.writer.commit(self.content_key, figures)
            if timed is None:
                timed = self._time(families, chosen)
        told = {"missing": self._missing or figures["missing"], "wall_clock": timed["rows"]}
        return {"title": self.graph.title} | figures | told | {"card": self.planned.card}, timed["windows"]

    def _kept_clock(self) -> dict[str, Any] | None:
        if self.spec.measure is None:
            return {"rows": [], "windows": []}
        kept = self.writer.record(self.clock_key) if self.writer.has(self.clock_key) else None
        return kept if kept is not None and all(map(self.writer.has, kept["windows"])) else None

    def _log(self, role: str) -> CalibrationLog:
        split = self.planned.splits[role]
        return calibration_log(self.model, split, self.logging, top=self.graph.top, training=role == "training")

    def _figures(
        self, calibration: CalibrationLog, families: dict[str, Family], chosen: dict[str, Choice]
    ) -> dict[str, Any]:
        """Every stage after the choices, in the order that keeps test labels out of them."""
        started = datetime.now(UTC)
        test = self._opened(families, chosen)
        correct = self._node_correct(test)
        outcomes = self._outcomes(families, test)
        oracle = oracle_record(self.model, correct, self._agreement(test))
        record = {
            **self._of_the_samples(calibration, test),
            **node_records(self.model, correct, calibration.correct.numpy()),
            **oracle,
            "choices_sha256": test.labels.choices,
            **self._of_the_policies(families, chosen, outcomes, correct, oracle["oracle"]["macs"]),
            **self._of_the_stages(calibration, test),
            "not_run": self._not_run(),
            "missing": dict(self._missing),
            "made": self._made(started),
        }
        # by the keys' way through JSON, a record that is read back is the record that was made
        return dict(json.loads(json.dumps(record)))

    def _opened(self, families: dict[str, Family], chosen: dict[str, Choice]) -> TestLog:
        """The test log, its labels unsealed under a hash of everything fitted and chosen."""
        test = test_log(self.model, self.test, self.logging, top=self.graph.top)
        test.labels.unseal(digest_of_choices(families, chosen))
        return test

    def _of_the_samples(self, calibration: CalibrationLog, test: TestLog) -> dict[str, Any]:
        """What was run, and on how many samples."""
        return {
            "data": self.graph.data,
            "model": self.graph.model,
            "top": self.graph.top,
            "n_test": len(test.labels),
            "n_fitting": self._n_fitting,
            "n_training": len(self._training) if self._training is not None else None,
            "n_choosing": len(calibration) - self._n_fitting,
            "macs_full": self.full,
            "margin": self.spec.margin,
        }

    def _of_the_policies(
        self,
        families: dict[str, Family],
        chosen: dict[str, Choice],
        outcomes: dict[str, list[Outcome]],
        correct: np.ndarray,
        oracle: float,
    ) -> dict[str, Any]:
        """Curves, chosen points and what executing them shows, and all policies at the same budgets."""
        entry = compare.Curve(np.array([float(self.model.node_macs[0])]), correct[None, :, 0])
        curves = {
            name: compare.Curve.through([swept[i] for i in families[name].corners], entry)
            for name, swept in outcomes.items()
        }
        reference = np.asarray(correct[:, self.model.reference[-1]])
        sheet = Sheet(self.spec, self.full, oracle, reference, len(self.model.node_names), self._n_fitting)
        families = {name: families[name] for name in outcomes}
        records = {
            name: sheet.policy(family, chosen[name], outcomes[name], curves[name], self._settings[name])
            for name, family in families.items()
        }
        for name in self.spec.executed:
            if name in records:
                points = (families[name], chosen[name], outcomes[name], records[name])
                self._try(f"executed, {name}", partial(self._execute, *points))
        return {
            "policies": records,
            "failed": self._failed,
            "budgets": list(self.spec.budgets),
            "at_budget": sheet.at_budgets(curves),
            "budget_error": sheet.budget_errors(families, outcomes),
        }

    def _of_the_stages(self, calibration: CalibrationLog, test: TestLog) -> dict[str, Any]:
        """What a study may ask for besides; each that fails is missing, and the others stand."""
        return {
            "resplits": self._try("resplits", lambda: self._resplits(calibration, test)) or [],
            "online": self._try("online", lambda: self._online(calibration, test)),
            "gradient_noise": self._try("gradient_noise", lambda: self._noise(calibration)) or [],
        }

    def _made(self, started: datetime) -> dict[str, Any]:
        """When, where and with what."""
        return {
            "git": git_state(),
            "versions": versions(),
            "device": describe_device(self.device),
            "started": started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _try(self, what: str, call: Callable[[], Any]) -> Any:
        """One stage; where it fails, None, and its reason among what is missing."""
        try:
            return call()
        except LeakageError:
            raise
        except Exception as error:  # whoever's fault it is, the other figures stand
            self._missing[what] = blame(error)
            self.failures.add(f"{self.key}: {what}", error)
            return None
        finally:
            self.progress.end()

    # ------------------------------------------------------------------ before the labels

    def _choose(self, calibration: CalibrationLog) -> tuple[dict[str, Family], dict[str, Choice]]:
        if self.planned.training is not None:
            self._training = self._log("training")
        fitting, choosing = calibration.halves(1 - self.spec.choosing, self.spec.seed)
        self._n_fitting = len(fitting)
        reference = self.model.reference[-1]
        goal = float(choosing.correct[:, reference].float().mean())
        self.progress.begin(f"fitting  {self.key}", len(self.spec.policies))
        fitted: list[Family] = []
        for i, name in enumerate(self.spec.policies):
            self.progress.advance(i, name)
            fitted.append(
                fit_family(
                    name,
                    self._training if self._training is not None and name.endswith(ON_TRAINING) else fitting,
                    choosing,
                    reference=reference,
                    settings=self.spec.settings.get(name, []),
                    seed=self.spec.seed,
                    writer=self.writer,
                )
            )
        self.progress.advance(len(fitted))
        self.progress.end()
        self._failed = {f.name: f.failed for f in fitted if f.failed}
        families = {f.name: f for f in fitted if not f.failed}
        if not families:
            name, why = next(iter(self._failed.items()))
            raise SuiteError(f"graph '{self.key}': no policy can be fitted; the first, '{name}': {why}")
        chosen = {
            name: Choice({d: f.at_drop(d, goal) for d in self.spec.drops}, f.non_inferior(self.spec.margin))
            for name, f in families.items()
        }
        return families, chosen

    # ------------------------------------------------------------------ after them

    def _node_correct(self, test: TestLog) -> np.ndarray:
        return is_correct(test.logits, test.labels.values[:, None], self.graph.top).numpy()

    def _agreement(self, test: TestLog) -> np.ndarray:
        answers = test.logits.argmax(-1)
        return (answers == answers[:, [self.model.reference[-1]]]).numpy()

    def _outcomes(self, families: dict[str, Family], test: TestLog) -> dict[str, list[Outcome]]:
        """Every member on the test log; a policy that fails there joins those that could not be fitted."""
        self.progress.begin(f"sweeping  {self.key}", sum(len(f.members) for f in families.values()))
        done = 0
        outcomes: dict[str, list[Outcome]] = {}
        self._settings: dict[str, dict[float, Outcome]] = {}
        for name, family in families.items():
            try:
                swept = [outcome(member, test) for member in family.members]
                shown = {value: outcome(m, test) for value, m in family.settings.items()}
            except LeakageError:
                raise
            except Exception as error:  # a plug-in's fault is not the study's
                self._failed[name] = blame(error)
                continue
            outcomes[name], self._settings[name] = swept, shown
            done += len(family.members)
            self.progress.advance(done, name)
        self.progress.end()
        return outcomes

    def _execute(self, family: Family, chosen: Choice, outcomes: list[Outcome], record: dict[str, Any]) -> None:
        done: dict[int, dict[str, float | int]] = {}
        points = [*record["chosen"], *([record["non_inferior"]] if record["non_inferior"] else [])]
        for point, index in zip(points, chosen.indices, strict=True):
            if index not in done:
                done[index] = execute(
                    self.model,
                    family.members[index],
                    outcomes[index],
                    self.test,
                    device=self.device,
                    top=self.graph.top,
                    progress=self.progress,
                ).as_dict()
            point["executed"] = done[index]

    def _not_run(self) -> dict[str, str]:
        """What the study asks for and this graph cannot have."""
        asked = {
            "resplits": self.spec.resplits is not None,
            "online": self.spec.online is not None,
            "gradient_noise": bool(self.spec.gradient_noise),
        }
        if self.model.structure.is_chain:
            return {}
        return {what: "this graph is no chain" for what, wanted in asked.items() if wanted}

    def _resplits(self, calibration: CalibrationLog, test: TestLog) -> list[dict[str, Any]]:
        spec = self.spec.resplits
        if spec is None or not self.model.structure.is_chain:
            return []
        return resplit(
            calibration,
            test,
            self._training,
            policies=spec.policies,
            epsilons=spec.epsilons,
            count=spec.count,
            seed=self.spec.seed,
            progress=self.progress,
        )

    def _online(self, calibration: CalibrationLog, test: TestLog) -> dict[str, Any] | None:
        if self.spec.online is None or not self.model.structure.is_chain:
            return None
        self.progress.begin(f"streaming  {self.key}", 1)
        return stateful(calibration, test, self.spec.online, top=self.graph.top, full=self.full, seed=self.spec.seed)

    def _noise(self, calibration: CalibrationLog) -> list[dict[str, float]]:
        if not self.model.structure.is_chain:
            return []
        return [gradient_noise(calibration, price=price, seed=self.spec.seed) for price in self.spec.gradient_noise]

    def _time(self, families: dict[str, Family], chosen: dict[str, Choice]) -> dict[str, Any]:
        """Chosen points of the main policies on the clock; kept where all of them were timed."""
        if self.spec.measure is not None and self.logging.engine is not None:
            self.logging.engine.close()  # what is timed has the machine to itself
        points: dict[str, Member] = {}
        for name in dict.fromkeys([self.spec.paper, self.spec.ours]):
            for drop, index in chosen[name].drops.items() if name in families else ():
                if drop in (self.spec.drops[0], self.spec.drops[-1]):
                    points[timed_point(name, drop)] = families[name].members[index]
        before = set(self.failures.by_case)
        rows, windows = self._try("wall_clock", partial(self._wall_clock, points)) or ([], [])
        for case, failure in self.failures.by_case.items():
            if case not in before and case != f"{self.key}: wall_clock":
                self._missing[f"timing of {case}"] = failure.reason
        timed: dict[str, Any] = {"rows": rows, "windows": windows}
        if self.failures.by_case.keys() <= before:
            self.writer.commit(self.clock_key, timed)
        return timed

    def _wall_clock(self, points: dict[str, Member]) -> tuple[list[dict[str, Any]], list[str]]:
        return wall_clock(
            self.spec,
            self.key,
            self.model,
            points,
            self.test,
            key=self.content_key,
            writer=self.writer,
            options=self.options,
            failures=self.failures,
        )
