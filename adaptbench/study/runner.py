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
from adaptbench.study.schema import ON_TRAINING, Graph
from adaptbench.study.spec import LoadedStudy, load_study
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
