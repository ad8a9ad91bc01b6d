"""A run directory by the schema, made of nothing but random numbers: five models, attacks, sweeps, windows, pictures.

What a suite would compute is computed by the same functions (`metrics.summarise`, `timing.summarise_windows`), so that
the figures hang together; only the networks are invented.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adaptbench.results import metrics, timing
from adaptbench.results.store import Run
from adaptbench.results.writer import RunWriter

DATA, N_CLASSES = "digits", 10
BLOCKS = 8
TIMED = 64
"""Inputs timed, the first of each evaluation."""
MODELLED = "modelled: 0.29 nJ a MAC"
NVML = "measured: NVML total-energy counter"
LINF = {"constraint": {"linf": {"eps": "8/255"}}}


def _condition(
    title: str, kind: str, access: str, cite: str, settings: dict[str, Any], *deviates: str
) -> dict[str, Any]:
    return {
        "title": title, "kind": kind, "access": access, "cite": cite, "settings": settings, "deviates": list(deviates),
    }  # fmt: skip


CONDITIONS: dict[str, dict[str, Any]] = {
    "clean": _condition("clean", "clean", "none", "", {}),
    "noise": _condition("noise 8/255 (control)", "control", "none", "", LINF),
    "pgd": _condition(
        "PGD 8/255 (torchattacks)", "attack", "white-box", "Madry et al., ICLR 2018",
        LINF | {"steps": 20, "alpha": "2/255"},
    ),
    "ilfo": _condition(
        "ILFO 8/255", "attack", "white-box", "Haque, Chauhan, Liu, Yang, CVPR 2020",
        {"objective": {"hinge-margins": {"kappa": 0.05}}, **LINF, "search": {"adam-tanh": {"lr": 0.01, "steps": 300}}},
        "the paper minimises the distance; here it is bounded, so that recipes compare at equal ε",
    ),
    "deepsloth": _condition(
        "DeepSloth 8/255", "attack", "white-box", "Hong, Kaya, Modoranu, Dumitraş, ICLR 2021",
        {"objective": "uniform-heads", **LINF, "search": {"sign-descent": {"steps": 30}}},
    ),
    "ereba": _condition(
        "EREBA, 500 queries", "attack", "black-box", "Haque, Yadav, Liu, Yang, ICSE 2022",
        {"objective": "estimator", "constraint": {"l2": {"eps": 1.5}}, "queries": 500},
        "the estimator is trained on the calibration split", "budget of 500 queries an input",
    ),
}  # fmt: skip
STRENGTH = {"noise": 1.04, "pgd": 0.82, "ilfo": 0.06, "deepsloth": 0.2, "ereba": 0.55}
"""Condition → factor on the chance of leaving."""
SPOILS = {"pgd": 0.86, "ilfo": 0.012, "deepsloth": 0.05, "ereba": 0.03}
"""Condition → errors on top of the model's own."""


@dataclass(frozen=True)
class Fake:
    """An invented model: how much its nodes cost and how its exits are taken."""

    name: str
    title: str
    shape: str
    nodes: tuple[int, ...]
    exits: tuple[str, ...]
    knob: str
    ease: float
    """Chance of leaving at each place when clean."""
    full: int

    @property
    def bounds(self) -> metrics.CostBounds:
        exit_macs = None if self.shape == "gated" else tuple(int(total) for total in np.cumsum(self.nodes))
        return metrics.CostBounds(self.nodes[0], sum(self.nodes), self.full, self.exits, exit_macs)


MODELS = (
    Fake(
        "softmax-threshold", "Softmax threshold", "multi-exit", (60_000, 140_000, 310_000, 560_000),
        ("exit 1", "exit 2", "exit 3", "final"), "epsilon", 0.55, 1_020_000,
    ),
    Fake(
        "learned-cascade", "Learned cascade", "cascade", (95_000, 410_000, 1_350_000),
        ("small", "medium", "large"), "budget", 0.62, 1_350_000,
    ),
    Fake(
        "dag-selection", "DAG selection", "dag", (40_000, 120_000, 260_000, 500_000, 800_000),
        ("tiny", "narrow", "wide", "deep", "full"), "lambda", 0.48, 1_500_000,
    ),
    Fake(
        "msdnet", "MSDNet, anytime", "multi-exit", (210_000, 230_000, 300_000, 340_000, 410_000, 450_000),
        ("1", "2", "3", "4", "5", "6"), "epsilon", 0.35, 1_850_000,
    ),
    Fake(
        "skipnet", "SkipNet, 18 gates", "gated", (80_000, *([70_000] * 18)), ("out",), "threshold", 0.5, 1_310_000,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What the run holds."""

    models: tuple[Fake, ...] = MODELS
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    n: int = 360
    batches: tuple[int, ...] = (1, 256)
    sweep: int = 7
    references: bool = True
    crafted: bool = True
    measured: bool = False
    """Whether a power sensor answered."""
    shape: tuple[int, int, int] = (1, 8, 8)
    slower: float = 1.0
    """Factor on every duration."""
    seed: int = 0


def write_run(path: Path, plan: Plan | None = None, **manifest: Any) -> Run:
    """Write a run directory and open it; ``manifest`` replaces parts of the manifest."""
    return _Maker(path, plan or Plan()).make(manifest)


class _Maker:
    def __init__(self, path: Path, plan: Plan) -> None:
        self.plan, self.writer = plan, RunWriter(path)
        self.rng = np.random.default_rng(plan.seed)
        self.labels = np.arange(plan.n) * 7 % N_CLASSES  # of the data, whatever the seed and the number of inputs
        self.hard = self.rng.random(plan.n)
        self.keys: list[str] = []

    def make(self, parts: dict[str, Any]) -> Run:
        document = manifest(self.plan) | parts
        self.writer.begin(document)
        for fake in self.plan.models:
            self.model(fake)
        if self.plan.batches:
            self.commit("idle", {}, windows=self.idle())
        return self.writer.finish(document | {"ended": "2025-11-04T09:19:31+00:00"}, self.keys)

    def commit(self, key: str, record: dict[str, Any], **frames: pd.DataFrame) -> None:
        self.writer.commit(key, record, **frames)
        self.keys.append(key)

    def model(self, fake: Fake) -> None:
        static = {batch: self.windows(f"static:{fake.name}/b{batch}", fake.full, batch) for batch in self.plan.batches}
        for batch, windows in static.items():
            self.commit(f"static:{fake.name}/b{batch}", {}, windows=windows)
        clean: pd.DataFrame | None = None
        for condition in self.plan.conditions:
            evaluation = f"{DATA}/{fake.name}/{condition}"
            frame = self.samples(evaluation, fake, condition, fake.ease)
            record = self.record(evaluation, fake, condition, CONDITIONS[condition]["kind"])
            record |= metrics.summarise(frame, clean, fake.bounds) | self.crafting(condition)
            clean = frame if condition == "clean" else clean
            self.commit(evaluation, {} if static else record, samples=frame)
            for batch, reference in static.items():
                macs = frame["macs"].to_numpy()[:TIMED]
                self.timed(f"{evaluation}/b{batch}", fake, record | {"batch_size": batch}, reference, macs)
        self.curve(fake)

    def timed(self, case: str, fake: Fake, record: dict[str, Any], static: pd.DataFrame, macs: np.ndarray) -> None:
        windows = self.windows(case, float(macs.mean()), record["batch_size"])
        figures = timing.summarise_windows(
            pd.concat([windows, static]),
            case,
            f"static:{fake.name}/b{record['batch_size']}",
            macs=macs,
            macs_full=fake.full,
            energy_meters=("nvml", "modelled") if self.plan.measured else ("modelled",),
        )
        self.commit(case, record | figures | {"case": case}, windows=windows)

    def curve(self, fake: Fake) -> None:
        for ease in np.linspace(0.12, 0.9, self.plan.sweep):
            value = round(float(1 - ease), 3)
            evaluation = f"{DATA}/{fake.name}@{fake.knob}={value}/clean"
            frame = self.samples(evaluation, fake, "clean", float(ease))
            record = self.record(evaluation, fake, "clean", "sweep") | {"knob": fake.knob, "knob_value": value}
            self.commit(evaluation, record | metrics.summarise(frame, None, fake.bounds), samples=frame)
        if not self.plan.references:
            return
        fixed = (("static", fake.full, 0.012), ("oracle", 0.24 * fake.full, 0.008), ("myopic", 0.33 * fake.full, 0.016))
        for policy, cost, error in fixed:
            self.reference(fake, policy, int(cost), error, 1.0)
        for share in (0.2, 0.5, 0.8):
            self.reference(fake, "uniform", int(share * sum(fake.nodes)), 0.09 * (1 - share) + 0.015, share)

    def reference(self, fake: Fake, policy: str, cost: int, error: float, value: float) -> None:
        evaluation = f"{DATA}/{fake.name}@{policy}={value:g}/clean"
        frame = self.samples(evaluation, fake, "clean", fake.ease)
        frame["macs"] = cost
        frame["correct"] = self.rng.random(self.plan.n) > error
        record = self.record(evaluation, fake, "clean", "reference")
        record |= {"policy": policy, "knob": policy, "knob_value": value}
        self.commit(evaluation, record | metrics.summarise(frame, None, fake.bounds), samples=frame)

    def record(self, evaluation: str, fake: Fake, condition: str, kind: str) -> dict[str, Any]:
        return {
            "case": evaluation,
            "evaluation": evaluation,
            "model": fake.name,
            "policy": fake.name,
            "data": DATA,
            "condition": condition,
            "kind": kind,
            "device": "cpu",
            "seed": 0,
            "inputs_sha256": hashlib.sha256(evaluation.encode()).hexdigest(),
            **timing.not_timed("evaluated only: this case was not timed"),
        }

    def play(self, fake: Fake, ease: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(exit, depth, macs) of every input."""
        costs = np.array(fake.nodes)
        if fake.shape == "gated":
            ran = self.rng.random((self.plan.n, len(costs) - 1)) > (ease * (1.2 - 0.4 * self.hard))[:, None]
            return np.zeros(self.plan.n, np.int64), 1 + ran.sum(1), costs[0] + ran @ costs[1:]
        leave = self.rng.random((self.plan.n, len(costs))) < (ease * (1.35 - 0.7 * self.hard))[:, None]
        leave[:, -1] = True
        out = leave.argmax(1)
        return out, out + 1, np.cumsum(costs)[out]

    def samples(self, case: str, fake: Fake, condition: str, ease: float) -> pd.DataFrame:
        out, depth, macs = self.play(fake, min(ease * STRENGTH.get(condition, 1.0), 0.95))
        error = 0.004 + 0.075 * (1 - macs / sum(fake.nodes)) ** 2 + SPOILS.get(condition, 0.0)
        n, clean = self.plan.n, condition == "clean"
        right = self.rng.random(n) > error * (0.5 + self.hard)
        queries = np.full(n, 500) if condition == "ereba" else [None] * n
        return pd.DataFrame(
            {
                "case": case,
                "sample_id": np.arange(n) + 1000,
                "label": self.labels,
                "prediction": np.where(right, self.labels, (self.labels + 3) % N_CLASSES),
                "exit": out.astype(np.int64),
                "depth": depth.astype(np.int64),
                "macs": macs.astype(np.int64),
                "correct": right,
                "linf": 0.0 if clean else 8 / 255,
                "l2": np.zeros(n) if clean else 0.2 + 0.02 * self.rng.random(n),
                "queries": pd.array(queries, dtype="Int64"),
                "tie": self.rng.random(n) < 0.002,
                "confidence": 0.5 + 0.5 * self.rng.random(n),
            }
        )

    def windows(self, case: str, macs: float, batch: int) -> pd.DataFrame:
        """Time has an overhead a batch and a rate a MAC; the sensor sees a steady power."""
        per_sample = self.plan.slower * (90e-6 / batch + macs / 9e9 + 4e-6)
        rows: list[dict[str, Any]] = []
        for block in range(BLOCKS):
            amount = max(int(0.25 / per_sample), 1)
            spent = amount * per_sample * float(np.exp(self.rng.normal(0, 0.015)))
            common = {
                "case": case, "block": block, "order": int(self.rng.integers(0, 40)), "duration_s": spent,
                "n_samples": amount, "provenance": "", "scope": "process", "flags": "", "missing": None,
            }  # fmt: skip
            flags = "throttled" if block == 3 and self.rng.random() < 0.1 else ""
            clock = {"meter": "clock", "component": "clock", "energy_j": None, "missing": "a clock has no joules"}
            rows.append(common | clock | {"flags": flags})
            shares = {"nodes": 1.0} if case.startswith("static:") else {"nodes": 0.7, "policy": 0.1, "executor": 0.2}
            rows += [common | clock | {"component": part, "duration_s": spent * s} for part, s in shares.items()]
            if self.plan.measured:
                power = 61 * float(np.exp(self.rng.normal(0, 0.01)))
                sensor = {"meter": "nvml", "component": "gpu0", "energy_j": spent * power, "provenance": NVML}
                rows.append(common | sensor | {"scope": "device"})
            formula = {"meter": "modelled", "component": "total", "energy_j": amount * macs * 2.9e-10}
            rows.append(common | formula | {"provenance": MODELLED})
        return pd.DataFrame(rows)

    def idle(self) -> pd.DataFrame:
        rows: list[dict[str, Any]] = []
        for block in range(3):
            found = {"energy_j": 2 * 41.5 + self.rng.normal(), "provenance": NVML, "missing": None}
            silent = {"energy_j": None, "provenance": "", "missing": "no NVIDIA driver"}
            common = {
                "case": "idle", "block": block, "order": block, "duration_s": 2.0, "n_samples": 0, "meter": "nvml",
                "component": "gpu0", "scope": "device", "flags": "",
            }  # fmt: skip
            rows.append(common | (found if self.plan.measured else silent))
        whole = {
            "case": "suite", "block": 0, "order": 0, "duration_s": 271.0, "n_samples": 0, "meter": "codecarbon",
            "scope": "machine", "flags": "", "missing": None,
        }  # fmt: skip
        parts = (("cpu", 12.4, "modelled: CPU load × TDP of 65 W"), ("ram", 3.0, "modelled: 0.375 W a GB"))
        rows += [
            whole | {"component": component, "energy_j": 271 * power, "provenance": provenance}
            for component, power, provenance in parts
        ]
        rows.append(whole | {"component": "gpu", "energy_j": None, "provenance": "", "missing": "no NVIDIA driver"})
        return pd.DataFrame(rows)

    def crafting(self, condition: str) -> dict[str, Any]:
        if condition == "clean":
            return {"craft_s_missing": "nothing was crafted"}
        found: dict[str, Any] = {"craft_s": float(0.4 + 6 * self.rng.random())}
        if self.plan.crafted:
            plain = pictures(self.plan.shape)
            changed = np.clip(plain.astype(int) + self.rng.integers(-8, 9, plain.shape), 0, 255).astype(np.uint8)
            ids = np.arange(len(plain)) + 1000
            arrays = {"x_adv": changed, "sample_id": ids, "gallery_clean": plain}
            found["crafted"] = self.writer.commit_crafted(arrays)
        return found


def pictures(shape: tuple[int, int, int]) -> np.ndarray:
    """Sixteen striped images."""
    ramp = np.add.outer(np.arange(shape[1]), np.arange(shape[2]))
    stripes = [np.sin((ramp + 3 * place) / max(shape[1] / 5, 1)) * 100 + 128 for place in range(16)]
    return np.stack([stripe[None].repeat(shape[0], 0) for stripe in stripes]).clip(0, 255).astype(np.uint8)


def manifest(plan: Plan) -> dict[str, Any]:
    """The manifest of a plan, not ended."""
    names = ", ".join(fake.name for fake in plan.models)
    text = f"data: {DATA}\nmodels: [{names}]\nreferences: [static, oracle]\nconditions:\n"
    text += "".join(f"  - {name}\n" for name in plan.conditions)
    text += "measure: {batch_sizes: [1, 256], meters: [clock, modelled, codecarbon, nvml], blocks: 8}\n"
    silent = "no power sensor answered here: joules are modelled (adaptbench doctor says how to get measured ones)"
    return {
        "suite": {"name": "bench", "text": text, "sha256": _hash(text), "overrides": [], "limit": None},
        "gate": {"macs_mean": "exact", "accuracy": {"drop": "0.5 points"}},
        "versions": {"adaptbench": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "numpy": "2.4.6"},
        "device": {
            "name": "NVIDIA H100" if plan.measured else "AMD EPYC 7B13, 2 cores",
            "kind": "cuda" if plan.measured else "cpu",
            "fingerprint": _hash("a GPU" if plan.measured else "a CPU"),
            "threads": 2,
            "memory_gb": 8,
        },
        "git": {"revision": "4f1c2b7e9d0a", "dirty": False},
        "seeds": [0],
        "command": "adaptbench run bench --out runs/bench",
        "started": "2025-11-04T09:15:00+00:00",
        "ended": None,
        "meters": {
            "clock": {"quantity": "time", "found": True, "reason": None, "sensor": "perf_counter", "tick_s": 1e-7},
            "modelled": {"quantity": "energy", "found": True, "reason": None, "coefficients": "0.29 nJ a MAC"},
            "codecarbon": {"quantity": "energy", "whole_run": True, "found": True, "sensor": "CPU load × TDP"},
            "nvml": {
                "quantity": "energy", "found": plan.measured,
                "reason": None if plan.measured else "no NVIDIA driver on this machine",
            },
            "rapl": {"found": False, "reason": "/sys/class/powercap is empty: a virtual machine hides the counters"},
        },
        "models": {fake.name: _model(fake) for fake in plan.models},
        "conditions": {name: CONDITIONS[name] for name in plan.conditions},
        "data": {
            DATA: {
                "n": plan.n, "split": "test", "sha256": _hash(DATA), "shape": list(plan.shape), "n_classes": N_CLASSES,
                "class_names": [str(digit) for digit in range(N_CLASSES)],
            },
        },
        "notes": [
            "GPU energy is that of the whole device" if plan.measured else silent,
            "batch 1: the clock realises 61 % of the MAC saving; batch 256: 84 %",
            "EREBA stopped at its budget of 500 queries an input",
        ],
    }  # fmt: skip


def _model(fake: Fake) -> dict[str, Any]:
    return {
        "title": fake.title,
        "shape": fake.shape,
        "node_names": [f"node {place + 1}" for place in range(len(fake.nodes))],
        "exit_names": list(fake.exits),
        "node_macs": list(fake.nodes),
        "min_macs": fake.nodes[0],
        "max_macs": sum(fake.nodes),
        "macs_full": fake.full,
        "policy": fake.name,
        "card": {"accuracy": 0.981, "recipe": {"epochs": 30, "optimiser": "AdamW"}, "data_sha256": _hash(DATA)},
        "uncounted": [],
        "cost_unit": "macs",
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
