"""A part of benchmarks/scale.py: made records into the store and out of it, the page of a run, its check."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from spending import cpu_s, peak_bytes, spent

CELL = 50_000
EXITS, CLASSES = 7, 100
COSTS = np.array([10, 12, 14, 16, 18, 20, 22], dtype=np.int64) * 10**6


def rows(case: str, start: int, n: int, shift: float) -> Any:
    """Made rows of one cell, as `evaluate_chunk` leaves them."""
    import pandas as pd

    rng = np.random.default_rng([start, int(1000 * shift)])
    exits = np.minimum(rng.geometric(0.45 - shift, n) - 1, EXITS - 1)
    labels = np.arange(start, start + n) * 7 % CLASSES
    right = rng.random(n) > 0.1 + shift
    attacked = shift > 0
    return pd.DataFrame(
        {
            "case": pd.Series([case] * n, dtype="string"),
            "sample_id": np.arange(start, start + n),
            "label": labels,
            "prediction": np.where(right, labels, (labels + 3) % CLASSES),
            "exit": exits,
            "depth": exits + 1,
            "macs": np.cumsum(COSTS)[exits],
            "correct": right,
            "linf": np.full(n, 8 / 255 if attacked else 0.0),
            "l2": 0.2 + 0.02 * rng.random(n) if attacked else np.zeros(n),
            "queries": pd.array([None] * n, dtype="Int64"),
            "tie": rng.random(n) < 1e-4,
            "confidence": 0.5 + 0.5 * rng.random(n),
        }
    )


CASES = {"made/net/clean": 0.0, "made/net/ilfo": 0.2}


def store(place: Path, n: int) -> dict[str, Any]:
    """Commit n records in cells, put the table together, and read it again in parts."""
    from adaptbench.results import tables
    from adaptbench.results.store import Run
    from adaptbench.results.writer import RunWriter

    made: dict[str, Any] = {"records": n}
    with tempfile.TemporaryDirectory() as scrap:  # libraries are loaded before memory is looked at
        tables.write(Path(scrap) / "x.parquet", rows("x", 0, 1000, 0.2), "samples")
        tables.read(Path(scrap) / "x.parquet", "samples")
    writer = RunWriter(place)
    writer.begin(manifest())
    keys, cpu, wall = [], 0.0, 0.0
    for start in range(0, n, CELL):
        frame = rows("made/net/clean", start, min(CELL, n - start), 0.0)
        began = cpu_s(), time.perf_counter()
        writer.commit(f"clean-{start}", {"crafted": None}, samples=frame)
        cpu, wall = cpu + cpu_s() - began[0], wall + time.perf_counter() - began[1]
        keys.append(f"clean-{start}")
    made |= {"commit_cpu_s": cpu, "commit_wall_s": wall}
    with spent(made, "finish"):
        writer.finish(manifest() | {"ended": "2026-01-01T00:00:00+00:00"}, keys, [])
    with spent(made, "read"):
        total = sum(int(part["macs"].sum()) for part in Run.open(place).samples_in_parts())
    assert total > 0
    made["peak_bytes"] = peak_bytes()
    made["bytes"] = (place / "samples.parquet").stat().st_size
    return made


def manifest() -> dict[str, Any]:
    text = "data: made\nmodels: [net]\nconditions: [clean, ilfo]\n"
    model = {
        "title": "made", "shape": "chain", "node_names": [f"exit {k}" for k in range(EXITS)],
        "exit_names": [f"exit {k}" for k in range(EXITS)], "node_macs": COSTS.tolist(), "min_macs": int(COSTS[0]),
        "max_macs": int(COSTS.sum()), "macs_full": int(COSTS.sum()), "policy": "made", "card": {}, "uncounted": [],
        "cost_unit": "macs",
    }  # fmt: skip
    condition = {
        "summary": "made", "access": "none", "cite": "", "settings": {}, "sha256": None, "versions": {},
        "deviates": [],
    }  # fmt: skip
    return {
        "suite": {"name": "made", "text": text, "sha256": "0" * 64, "overrides": [], "limit": None, "title": "made"},
        "gate": {"macs_mean": "exact", "accuracy": {"drop": "0.5 points"}},
        "versions": {"adaptbench": "0"},
        "device": {"name": "made", "kind": "cpu", "fingerprint": "0" * 64, "threads": 1},
        "git": None,
        "seeds": [0],
        "command": "python benchmarks/scale.py",
        "started": "2026-01-01T00:00:00+00:00",
        "ended": None,
        "meters": {},
        "models": {"net": model},
        "references": {},
        "conditions": {
            "clean": condition | {"title": "clean", "kind": "clean"},
            "ilfo": condition | {"title": "ilfo", "kind": "attack", "access": "white"},
        },
        "data": {"made": {"n": 1, "split": "test", "sha256": "0" * 64, "shape": [3, 32, 32], "n_classes": CLASSES}},
        "notes": [],
        "failures": [],
    }


def whole(place: Path, n: int) -> dict[str, Any]:
    """A run of n samples, clean and attacked, with its figures."""
    from adaptbench.results.metrics import CostBounds, summarise
    from adaptbench.results.timing import not_timed
    from adaptbench.results.writer import RunWriter

    made: dict[str, Any] = {"records": 2 * n}
    writer = RunWriter(place)
    writer.begin(manifest())
    keys, frames = [], {}
    for case, shift in CASES.items():
        for start in range(0, n, CELL):
            key = f"{case.rpartition('/')[2]}-{start}"
            writer.commit(key, {"crafted": None}, samples=rows(case, start, min(CELL, n - start), shift))
            keys.append(key)
        import pandas as pd

        loaded = [writer.load(key).samples for key in keys if key.startswith(case.rpartition("/")[2])]
        frames[case] = pd.concat([f for f in loaded if f is not None], ignore_index=True)
    names = tuple(f"exit {k}" for k in range(EXITS))
    bounds = CostBounds(
        int(COSTS[0]), int(COSTS.sum()), int(COSTS.sum()), names, tuple(int(c) for c in np.cumsum(COSTS))
    )
    records = []
    with spent(made, "summarise"):
        for case, frame in frames.items():
            clean = None if case.endswith("clean") else frames["made/net/clean"]
            condition = case.rpartition("/")[2]
            records.append(
                {
                    "case": case, "evaluation": case, "model": "net", "policy": "made", "data": "made",
                    "condition": condition, "kind": "clean" if clean is None else "attack", "device": "cpu",
                    "seed": 0, "inputs_sha256": "0" * 64, "batch_size": None, "craft_s_missing": "nothing was crafted",
                    **summarise(frame, clean, bounds), **not_timed("made"),
                }
            )  # fmt: skip
    with spent(made, "finish"):
        writer.finish(manifest() | {"ended": "2026-01-01T00:00:00+00:00"}, keys, records)
    made["peak_bytes"] = peak_bytes()
    return made


def page(place: Path) -> dict[str, Any]:
    """The page of a run, and its check against itself: the sorest a comparison can be."""
    from adaptbench.report.page import write_report

    made: dict[str, Any] = {}
    with spent(made, "report"):
        write_report([place], place.parent / "page.html")
    made |= {"peak_bytes": peak_bytes(), "page_bytes": (place.parent / "page.html").stat().st_size}
    return made


def check(place: Path, other: Path) -> dict[str, Any]:
    from adaptbench.commands.judging import judge
    from adaptbench.results.baseline import Baseline

    made: dict[str, Any] = {}
    with spent(made, "check"):
        report = judge(place, Baseline.load(other))
    return made | {"peak_bytes": peak_bytes(), "exit_code": report.exit_code}
