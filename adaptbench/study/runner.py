"""Carries a study out, graph by graph, and puts the record together; what was finished before is not done again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

from adaptbench.adaptive import DecisionGraph
from adaptbench.data import load_data
from adaptbench.errors import LeakageError, SuiteError
from adaptbench.experiment.environment import check_device, describe_device, git_state, versions
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.options import Asked, Options, options_of
from adaptbench.results.files import write_json
from adaptbench.results.lock import DirectoryLock
from adaptbench.results.studies import SCHEMA
from adaptbench.study.cells import Cells
from adaptbench.study.graph_study import GraphStudy
from adaptbench.study.members import blame
from adaptbench.study.spec import LoadedStudy, load_study
from adaptbench.zoo.loading import load_system

FILE = "study.json"
_OF_THE_MOMENT = ("command", "git", "started", "ended")
"""Fields that differ between two runs that found the same."""


@dataclass(frozen=True, slots=True)
class StudyRun:
    """A finished study.

    Args:
        place: of ``study.json``. already: it was complete before, and nothing was changed.
    """

    place: Path
    already: bool


def run_study(study: str | LoadedStudy, options: Options | None = None, /, **asked: Unpack[Asked]) -> StudyRun:
    """Execute a study and leave ``study.json`` in a run directory.

    Args:
        study: a name, a path, or a loaded study. options: how; or its fields as keywords.

    Returns:
        The file. Logits and fits stay beside it under ``logs/`` and ``cells/``: another run with the same nets starts
        from them, and a finished study that is run again changes nothing.

    Raises:
        AdaptBenchError: what stands in the way of the whole study; whatever was computed is kept. A policy, stage or
            graph that fails on its own is null with its reason: see `adaptbench.results.studies.incomplete`.
        LockedError: another process writes to the directory.
    """
    options = options_of(options, asked)
    device = check_device(options.device)
    loaded = load_study(study, options.overrides) if isinstance(study, str) else study
    options.must_be_laid(loaded.overrides)
    spec, folder, limit = loaded.study, options.place(loaded.name), options.at_most(loaded.study.limit)
    started = datetime.now(UTC)
    with DirectoryLock(folder, options.command):
        cells, failures = Cells(folder / "cells"), Failures(folder)
        if options.fresh:
            shutil.rmtree(cells.folder, ignore_errors=True)
            shutil.rmtree(folder / "logs", ignore_errors=True)
        prepared: list[tuple[GraphStudy, dict[str, Any]]] = []
        notes: dict[str, None] = {}
        for key, graph in spec.graphs.items():  # all of them before any is computed
            data = load_data(graph.data, root=options.data_root, download=options.download)
            net = load_system(graph.model, data.name, zoo=options.zoo, device=device)
            if not isinstance(net.model, DecisionGraph):
                raise SuiteError(
                    f"graph '{key}': '{graph.model}' has gates, not exits.",
                    why="A study compares policies on logged exits.",
                    todo="Run it in an ordinary suite.",
                )
            one = GraphStudy(
                spec,
                key,
                graph,
                net.model,
                data.split("calibration"),
                data.split("test").first(limit),
                data.split("train").first(spec.training_samples) if spec.looks_at_training else None,
                cells=cells,
                device=device,
                failures=failures,
                progress=options.progress,
            )
            notes.update(dict.fromkeys(data.notes))
            prepared.append((one, net.card))
        found, failed = _graphs(prepared, failures)
        failures.sweep()
        record = {
            "schema": SCHEMA,
            "name": loaded.name,
            "title": spec.title,
            "cite": spec.cite,
            "paper": spec.paper,
            "ours": spec.ours,
            "text": loaded.text,
            "sha256": loaded.sha256,
            "overrides": list(loaded.overrides),
            "notes": [*spec.notes, *notes],
            "published": [p.model_dump() for p in spec.published],
            "graphs": found,
            "failed_graphs": failed,
            "limit": limit,
            "command": options.command,
            "device": describe_device(device),
            "versions": versions(),
            "git": git_state(),
            "started": started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        place = folder / FILE
        if _stands(place, record):
            return StudyRun(place, already=True)
        write_json(place, record)
        return StudyRun(place, already=False)


def _graphs(
    prepared: list[tuple[GraphStudy, dict[str, Any]]], failures: Failures
) -> tuple[dict[str, Any], dict[str, str]]:
    """Each graph's record, or why there is none.

    Raises:
        SuiteError: there is none of any graph.
    """
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    last: Exception | None = None
    for one, card in prepared:
        try:
            found[one.key] = {"title": one.graph.title} | one.run() | {"card": card}
        except LeakageError:
            raise
        except Exception as error:  # the other graphs stand
            failed[one.key], last = blame(error), error
            failures.add(one.key, error)
        one.progress.end()
    if not found and last is not None:
        raise SuiteError(
            "; ".join(f"graph '{key}': {why}" for key, why in failed.items()),
            todo="Mend what is named; whatever was computed is kept.",
        ) from last
    return found, failed


def _stands(place: Path, record: dict[str, Any]) -> bool:
    """Whether an earlier run left the very same."""
    try:
        before = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False

    def lasting(document: Any) -> Any:
        return {key: value for key, value in document.items() if key not in _OF_THE_MOMENT}

    return isinstance(before, dict) and lasting(before) == lasting(json.loads(json.dumps(record)))
