"""Carries a study out: log, fit, choose, seal; only then look at test labels, compare, execute, time."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptbench.adaptive import CalibrationLog, DecisionGraph, NeverStop, Split
from adaptbench.adaptive.topology import cheapest_ways
from adaptbench.bench.environment import check_device, describe_device, git_state, versions
from adaptbench.bench.progress import Progress, Silent
from adaptbench.data import load_data
from adaptbench.errors import SuiteError
from adaptbench.policies.gradient_noise import gradient_noise
from adaptbench.results.studies import SCHEMA
from adaptbench.study import compare
from adaptbench.study.execute import execute
from adaptbench.study.logs import TestLog, calibration_log, test_log
from adaptbench.study.members import Family, Member, Outcome, fit_family, outcome
from adaptbench.study.records import Sheet
from adaptbench.study.resplits import resplit
from adaptbench.study.spec import ON_TRAINING, Graph, LoadedStudy, load_study
from adaptbench.study.stateful import stateful
from adaptbench.study.timing import wall_clock
from adaptbench.zoo.loading import load_system

FILE = "study.json"


def run_study(
    study: str | LoadedStudy,
    *,
    out: str | Path | None = None,
    device: str = "cpu",
    limit: int | None = None,
    data_root: Path | None = None,
    download: bool = False,
    zoo: Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Path:
    """Execute a study and leave ``study.json`` in a run directory.

    Args:
        study: a name, a path, or a loaded study. out: the directory (default ``runs/NAME``).
        device: "cpu", "cuda". limit: test samples at most.
        data_root, download, zoo: where data and checkpoints are.
        command: for the record. progress: who watches.

    Returns:
        The file. Logits stay beside it under ``logs/``: another run with the same nets starts from them.

    Raises:
        AdaptBenchError: whatever the user can mend; logits already computed are kept.
    """
    loaded = load_study(study) if isinstance(study, str) else study
    spec, watch = loaded.study, progress or Silent()
    device = check_device(device)
    folder = Path(out or Path("runs") / loaded.name)
    folder.mkdir(parents=True, exist_ok=True)
    limits = [n for n in (spec.limit, limit) if n is not None]
    started = datetime.now(UTC)
    found: dict[str, Any] = {}
    data_notes: dict[str, None] = {}
    for key, graph in spec.graphs.items():
        data = load_data(graph.data, root=data_root, download=download)
        loaded_model = load_system(graph.model, data.name, zoo=zoo, device=device)
        if not isinstance(loaded_model.model, DecisionGraph):
            raise SuiteError(
                f"graph '{key}': '{graph.model}' has gates, not exits.",
                why="A study compares policies on logged exits.",
                todo="Run it in an ordinary suite.",
            )
        one = _GraphStudy(loaded, key, graph, loaded_model.model, folder / "logs", device, watch)
        test = data.split("test").first(min(limits) if limits else None)
        data_notes.update(dict.fromkeys(data.notes))
        training = data.split("train").first(spec.training_samples) if spec.looks_at_training else None
        found[key] = one.run(data.split("calibration"), test, training) | {"card": loaded_model.card}
    record = {
        "schema": SCHEMA,
        "name": loaded.name,
        "title": spec.title,
        "cite": spec.cite,
        "paper": spec.paper,
        "ours": spec.ours,
        "text": loaded.text,
        "sha256": loaded.sha256,
        "notes": [*spec.notes, *data_notes],
        "published": [p.model_dump() for p in spec.published],
        "graphs": found,
        "limit": min(limits) if limits else None,
        "command": command,
        "device": describe_device(device),
        "versions": versions(),
        "git": git_state(),
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    place = folder / FILE
    partial = place.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, place)
    return place


class _GraphStudy:
    """One net of a study on its data set."""

    def __init__(
        self,
        loaded: LoadedStudy,
        key: str,
        graph: Graph,
        model: DecisionGraph,
        logs: Path,
        device: str,
        progress: Progress,
    ) -> None:
        self.spec, self.key, self.graph, self.logs = loaded.study, key, graph, logs
        self.model, self.device, self.progress = model, device, progress
        model.policy = NeverStop()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        self.full = float(model.macs_full)
        self._training: CalibrationLog | None = None

    def run(self, calibration_split: Split, test_split: Split, training_split: Split | None) -> dict[str, Any]:
        """Every stage, in the order that keeps test labels out of every choice."""
        device, watch, top = self.device, self.progress, self.graph.top
        calibration = calibration_log(self.model, calibration_split, self.logs, top=top, device=device, progress=watch)
        if training_split is not None:
            self._training = calibration_log(
                self.model, training_split, self.logs, top=top, device=device, progress=watch, training=True
            )
        test = test_log(self.model, test_split, self.logs, top=top, device=device, progress=watch)
        families, chosen = self._choose(calibration)
        test.labels.unseal(_digest(families, chosen))
        outcomes = self._outcomes(families, test)
        correct = self._node_correct(test)
        reference = np.asarray(correct[:, self.model.reference[-1]])
        entry = compare.Curve(np.array([float(self.model.node_macs[0])]), correct[None, :, 0])
        curves = {
            name: compare.Curve.through([outcomes[name][i] for i in f.corners], entry) for name, f in families.items()
        }
        ways = cheapest_ways(self.model.structure.successors, self.model.node_macs)
        costs = [sum(self.model.node_macs[v] for v in way) for way in ways]
        oracle, oracle_accuracy = compare.oracle_macs(correct, costs)
        agreement, _ = compare.oracle_macs(self._agreement(test), costs)
        sheet = Sheet(self.spec, self.full, oracle, reference, len(self.model.node_names))
        records = {
            name: sheet.policy(family, chosen[name], outcomes[name], curves[name], self._settings[name])
            for name, family in families.items()
        }
        self._execute(families, chosen, outcomes, test_split, records)
        failed = {f.name: f.failed for f in self._families if f.failed}
        return {
            "data": self.graph.data,
            "model": self.graph.model,
            "title": self.graph.title,
            "top": self.graph.top,
            "n_test": len(test.labels),
            "n_fitting": self._n_fitting,
            "n_training": len(self._training) if self._training is not None else None,
            "n_choosing": len(calibration) - self._n_fitting,
            "macs_full": self.full,
            "reference_accuracy": float(reference.mean()),
            "nodes": [
                {
                    "name": name,
                    "macs": self.model.node_macs[v],
                    "alone_macs": self._alone(v),
                    "accuracy_test": float(correct[:, v].mean()),
                    "accuracy_calibration": float(calibration.correct[:, v].float().mean()),
                }
                for v, name in enumerate(self.model.node_names)
            ],
            "successors": [list(w) for w in self.model.structure.successors],
            "oracle": {"macs": oracle, "accuracy": oracle_accuracy, "agreement_macs": agreement},
            "dominance_violations": _overthinking(correct),
            "choices_sha256": test.labels.choices,
            "policies": records,
            "failed": failed,
            "budgets": list(self.spec.budgets),
            "at_budget": sheet.at_budgets(curves),
            "budget_error": sheet.budget_errors(families, outcomes),
            "resplits": self._resplits(calibration, test),
            "online": self._online(calibration, test),
            "gradient_noise": self._noise(calibration),
            "wall_clock": self._wall_clock(families, chosen, test_split),
        }

    # ------------------------------------------------------------------ before the labels

    def _choose(self, calibration: CalibrationLog) -> tuple[dict[str, Family], dict[str, dict[float, int]]]:
        fitting, choosing = calibration.halves(1 - self.spec.choosing, self.spec.seed)
        self._n_fitting = len(fitting)
        goal = float(choosing.correct[:, self.model.reference[-1]].float().mean())
        self.progress.begin(f"fitting  {self.key}", len(self.spec.policies))
        found: list[Family] = []
        for i, name in enumerate(self.spec.policies):
            self.progress.advance(i, name)
            wanted = self.spec.settings.get(name, [])
            seen = self._training if self._training is not None and name.endswith(ON_TRAINING) else fitting
            found.append(fit_family(name, seen, choosing, settings=wanted, seed=self.spec.seed))
        self.progress.end()
        self._families = found
        families = {f.name: f for f in found if not f.failed}
        missing = [f for f in found if f.failed and f.name in (self.spec.paper, self.spec.ours)]
        if missing:
            raise SuiteError(
                f"graph '{self.key}': the policy '{missing[0].name}' cannot be fitted: {missing[0].failed}"
            )
        chosen = {name: {d: f.at_drop(d, goal) for d in self.spec.drops} for name, f in families.items()}
        return families, chosen

    # ------------------------------------------------------------------ after them

    def _node_correct(self, test: TestLog) -> np.ndarray:
        from adaptbench.adaptive.log import is_correct

        return is_correct(test.logits, test.labels.values[:, None], self.graph.top).numpy()

    def _agreement(self, test: TestLog) -> np.ndarray:
        answers = test.logits.argmax(-1)
        return (answers == answers[:, [self.model.reference[-1]]]).numpy()

    def _outcomes(self, families: dict[str, Family], test: TestLog) -> dict[str, list[Outcome]]:
        self.progress.begin(f"sweeping  {self.key}", sum(len(f.members) for f in families.values()))
        done = 0
        found: dict[str, list[Outcome]] = {}
        for name, family in families.items():
            found[name] = []
            for member in family.members:
                found[name].append(outcome(member, test, self.graph.top))
                done += 1
                self.progress.advance(done, name)
        self._settings = {
            name: {value: outcome(m, test, self.graph.top) for value, m in f.settings.items()}
            for name, f in families.items()
        }
        self.progress.end()
        return found

    def _alone(self, node: int) -> int:
        """MACs of a node and of all that it reads."""
        macs, at = 0, node
        while at >= 0:
            macs += self.model.node_macs[at]
            at = self.model.reads[at]
        return macs

    def _execute(
        self,
        families: dict[str, Family],
        chosen: dict[str, dict[float, int]],
        outcomes: dict[str, list[Outcome]],
        split: Any,
        records: dict[str, Any],
    ) -> None:
        for name in self.spec.executed:
            done: dict[int, dict[str, float | int]] = {}
            for place, (_, index) in enumerate(chosen.get(name, {}).items()):
                if index not in done:
                    member, expected = families[name].members[index], outcomes[name][index]
                    shown = execute(
                        self.model,
                        member,
                        expected,
                        split,
                        device=self.device,
                        top=self.graph.top,
                        progress=self.progress,
                    )
                    done[index] = shown.as_dict()
                records[name]["chosen"][place]["executed"] = done[index]

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
        found = stateful(calibration, test, self.spec.online, top=self.graph.top, full=self.full)
        self.progress.end()
        return found

    def _noise(self, calibration: CalibrationLog) -> list[dict[str, float]]:
        if not self.model.structure.is_chain:
            return []
        return [gradient_noise(calibration, price=price, seed=self.spec.seed) for price in self.spec.gradient_noise]

    def _wall_clock(
        self, families: dict[str, Family], chosen: dict[str, dict[float, int]], split: Any
    ) -> list[dict[str, Any]]:
        if self.spec.measure is None:
            return []
        points: dict[str, Member] = {}
        for name in dict.fromkeys([self.spec.paper, self.spec.ours]):
            for drop, index in chosen[name].items():
                if drop in (self.spec.drops[0], self.spec.drops[-1]):
                    points[f"{name} at {100 * drop:g} points"] = families[name].members[index]
        self.progress.begin(f"timing  {self.key}", len(self.spec.measure.batch_sizes))
        rows = wall_clock(self.model, points, split, self.spec.measure, device=self.device, seed=self.spec.seed)
        self.progress.end()
        return rows


def _digest(families: dict[str, Family], chosen: dict[str, dict[float, int]]) -> str:
    """Hash of every fitted policy and every choice."""
    found = hashlib.sha256()
    for name, family in sorted(families.items()):
        found.update(name.encode())
        for member in [*family.members, *family.settings.values()]:
            found.update(member.digest.encode())
        found.update(json.dumps([sorted(chosen[name].items()), family.corners]).encode())
    return found.hexdigest()


def _overthinking(correct: np.ndarray) -> float:
    """Share of samples that an earlier node gets right and the last one wrong: strong dominance is violated."""
    return float((correct[:, :-1].any(1) & ~correct[:, -1]).mean())
