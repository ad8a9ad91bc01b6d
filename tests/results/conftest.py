"""Run directories made up from known truths."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adaptbench.results.baseline import Baseline
from adaptbench.results.metrics import CostBounds, summarise
from adaptbench.results.store import Run
from adaptbench.results.timing import summarise_windows
from adaptbench.results.writer import RunWriter

LEVELS = np.array([100, 220, 400])
BOUNDS = CostBounds(100, 400, 390, ("early", "middle", "last"), (100, 220, 400))
SUITE_TEXT = "data: digits\nmodels: [chain]\nconditions: [clean, noise, ilfo]\nmeasure: {blocks: 8}\n"
GATE = {"macs_mean": "exact", "accuracy": {"drop": "0.5 points"}, "energy_j_per_sample": {"increase": "3 %"}}
PROVENANCE = {"nvml": "measured: NVML total-energy counter", "modelled": "modelled: 45 nm table"}
SHARES = {"clean": (0.6, 0.3, 0.1), "noise": (0.58, 0.31, 0.11), "ilfo": (0.02, 0.08, 0.9)}
KINDS = {"clean": "clean", "noise": "control", "ilfo": "attack"}


@dataclass
class Synthetic:
    """What is true of a made-up run; the seed of the windows is the session's, that of the samples the model's."""

    n: int = 300
    blocks: int = 8
    noise: float = 0.004
    meter: str = "nvml"
    session: int = 0
    joules: dict[str, float] = field(default_factory=dict)
    machine: float = 1.0
    flags: str = ""
    fingerprint: str = "f" * 64
    sensor: str = "GPU-0 counter"
    suite_text: str = SUITE_TEXT
    suite_sha: str = "s" * 64
    overrides: tuple[str, ...] = ()
    limit: int | None = None
    gate: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(GATE))
    conditions: tuple[str, ...] = ("clean", "noise", "ilfo")
    crafted_anew: int = 0
    batch: int = 64

    def samples(self, condition: str) -> pd.DataFrame:
        rng = np.random.default_rng([7, list(SHARES).index(condition)])
        exits = rng.choice(3, size=self.n, p=SHARES[condition])
        correct = rng.random(self.n) < (0.97 if condition != "ilfo" else 0.9)
        if self.crafted_anew and condition == "ilfo":
            again = np.random.default_rng(self.crafted_anew)
            moved = again.choice(self.n, size=max(1, self.n // 100), replace=False)
            exits[moved] = again.choice(3, size=len(moved), p=SHARES["ilfo"])
        size = 0.0 if condition == "clean" else 8 / 255
        return pd.DataFrame(
            {
                "case": f"digits/chain/{condition}",
                "sample_id": np.arange(1000, 1000 + self.n),
                "label": 1,
                "prediction": np.where(correct, 1, 0),
                "exit": exits,
                "depth": exits + 1,
                "macs": LEVELS[exits],
                "correct": correct,
                "linf": size,
                "l2": size * 4,
                "queries": pd.array([None] * self.n, dtype="Int64"),
                "tie": np.arange(self.n) % 50 == 0,
                "confidence": 0.9,
            }
        )

    def windows(self) -> pd.DataFrame:
        rng = np.random.default_rng([11, self.session])
        rows = []
        cost = {c: float(self.samples(c)["macs"].mean()) for c in self.conditions} | {"static": 390.0}
        for block in range(self.blocks):
            for order, name in enumerate(rng.permutation(list(cost))):
                case = f"static:chain/b{self.batch}" if name == "static" else f"digits/chain/{name}/b{self.batch}"
                truth = cost[name] * self.joules.get(str(name), 1.0)
                drawn = self.machine * np.exp(rng.normal(0, self.noise, 2)) if self.meter == "nvml" else np.ones(2)
                base = {"case": case, "block": block, "order": order, "n_samples": 1000, "missing": None}
                device = {"scope": "device", "flags": self.flags}
                rows.append(
                    base
                    | device
                    | {
                        "meter": "clock",
                        "component": "clock",
                        "energy_j": None,
                        "provenance": "measured: monotonic clock",
                    }
                    | {"duration_s": truth * 1e-3 * self.machine * float(np.exp(rng.normal(0, self.noise)))}
                )
                whole = rows[-1]  # of nodes and policy; the executor comes on top
                shares = (
                    {"nodes": 1.0} if case.startswith("static:") else {"nodes": 0.9, "policy": 0.1, "executor": 0.2}
                )
                rows += [
                    whole | {"component": part, "duration_s": share * whole["duration_s"]}
                    for part, share in shares.items()
                ]
                rows.append(
                    base
                    | device
                    | {"meter": self.meter, "component": "total", "provenance": PROVENANCE[self.meter]}
                    | {"duration_s": 1.0, "energy_j": truth * 1e-3 * float(drawn[0])}
                )
        return pd.DataFrame(rows)

    def manifest(self) -> dict[str, Any]:
        return {
            "suite": {
                "name": "made-up",
                "text": self.suite_text,
                "sha256": self.suite_sha,
                "overrides": list(self.overrides),
                "limit": self.limit,
            },
            "gate": self.gate,
            "versions": {"torch": "2.5"},
            "device": {"name": "box", "kind": "cpu", "fingerprint": self.fingerprint, "threads": 2},
            "git": None,
            "seeds": [0],
            "command": "adaptbench run made-up --out here",
            "started": "2025-01-01T00:00:00Z",
            "ended": "2025-01-01T00:01:00Z",
            "meters": {self.meter: {"found": True, "reason": None, "sensor": self.sensor}},
            "models": {"chain": {"title": "chain", "shape": "multi-exit"}},
            "conditions": {name: {"kind": KINDS[name]} for name in self.conditions},
            "data": {"digits": {"n": self.n, "split": "test"}},
            "notes": [],
        }

    def write(self, path: Path) -> Run:
        writer = RunWriter(path)
        writer.begin(self.manifest())
        clean, windows, cases = self.samples("clean"), self.windows(), []
        for condition in self.conditions:
            evaluation, rows = f"digits/chain/{condition}", self.samples(condition)
            case, static = f"{evaluation}/b{self.batch}", f"static:chain/b{self.batch}"
            record = {
                "case": case,
                "evaluation": evaluation,
                "model": "chain",
                "data": "digits",
                "condition": condition,
                "kind": KINDS[condition],
                "device": "cpu",
                "batch_size": self.batch,
                "seed": 0,
                "inputs_sha256": f"{condition}-{self.crafted_anew if condition == 'ilfo' else 0}-{self.n}",
                "craft_s": 1.5,
            }
            record |= summarise(rows, None if condition == "clean" else clean, BOUNDS)
            record |= summarise_windows(
                windows,
                case,
                static,
                macs=rows["macs"].to_numpy(),
                macs_full=BOUNDS.macs_full,
                energy_meters=(self.meter,),
            )
            writer.commit(evaluation, {"evaluation": evaluation}, samples=rows)
            writer.commit(case, {}, windows=windows[windows["case"] == case])
            cases.append(record)
        writer.commit("static", {}, windows=windows[windows["case"] == f"static:chain/b{self.batch}"])
        keys = [key for c in self.conditions for key in (f"digits/chain/{c}", f"digits/chain/{c}/b{self.batch}")]
        return writer.finish(self.manifest(), [*keys, "static"], cases)


@pytest.fixture
def synthetic() -> type[Synthetic]:
    return Synthetic


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return Baseline.of(Synthetic().write(tmp_path_factory.mktemp("base") / "run"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Synthetic().write(tmp_path / "run")
