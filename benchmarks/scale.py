"""Large runs on one machine: records into and out of the store, report, check, a study's replays, a shard's cost.

    OMP_NUM_THREADS=1 python benchmarks/scale.py [store] [page] [study] [shards] [steps] [--json benchmarks/scale.json]
    python docs/scale_page.py

Records and logs are made, nothing of them is measured: what is measured is what this package does with them. Each part
runs in processes of its own, so that peaks of memory are its own. CPU time stands beside the clock on the wall: on a
machine that others use, it is the nearer one to what a quiet machine takes. `shards` needs ray.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20
SMALL, LARGE, CELL = 100_000, 1_000_000, 50_000
EXITS, CLASSES = 7, 100
COSTS = np.array([10, 12, 14, 16, 18, 20, 22], dtype=np.int64) * 10**6
POLICIES = {
    "uniform": 5, "entropy": 5, "softmax-threshold": 5, "msdnet-budget": 5, "branchynet-budget": 5, "fixed-exit": 2,
    "random": 3, "pabee": 3, "committees": 3, "ztw": 2, "ebjr": 2,
}  # fmt: skip
"""Members of each family, 40 in all."""


@contextmanager
def spent(into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds by both clocks, this process and its children."""
    cpu, wall = _cpu(), time.perf_counter()
    yield
    into[f"{name}_cpu_s"], into[f"{name}_wall_s"] = _cpu() - cpu, time.perf_counter() - wall


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_bytes() -> int:
    """Of this process so far; `getrusage` would tell the parent's where that had more when it forked."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# ---------------------------------------------------------------------- records


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
        began = _cpu(), time.perf_counter()
        writer.commit(f"clean-{start}", {"crafted": None}, samples=frame)
        cpu, wall = cpu + _cpu() - began[0], wall + time.perf_counter() - began[1]
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


# ---------------------------------------------------------------------- a study


def log_of(n: int, seed: int) -> tuple[Any, Any]:
    """Logits that grow surer with depth and easier with the sample. (n, V, C) float32, (n,)."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=draw)
    ease = 1.3 - torch.rand(n, generator=draw)
    logits = torch.empty(n, EXITS, CLASSES)
    for start in range(0, n, CELL):
        stop = min(start + CELL, n)
        part = torch.randn(stop - start, EXITS, CLASSES, generator=draw)
        for v in range(EXITS):
            part[torch.arange(stop - start), v, labels[start:stop]] += 6 * (0.4 + 0.6 * v / EXITS) * ease[start:stop]
        logits[start:stop] = part
    return logits, labels


def study(n: int) -> dict[str, Any]:
    """40 fitted policies on a log of n: ways, answers, MACs; then each one's curve and drop against the last exit."""
    import torch

    from adaptbench.adaptive import CalibrationLog, Structure
    from adaptbench.registry import POLICIES as KINDS
    from adaptbench.study import compare
    from adaptbench.study.logs import SealedLabels, TestLog
    from adaptbench.study.members import Member, _member, outcome

    made: dict[str, Any] = {"samples": n, "exits": EXITS, "classes": CLASSES, "policies": sum(POLICIES.values())}
    names = tuple(f"exit {k}" for k in range(EXITS))
    ways = tuple((v + 1,) if v < EXITS - 1 else () for v in range(EXITS))
    shape, macs = Structure(names, ways, CLASSES), torch.from_numpy(COSTS)
    fitting = CalibrationLog(*log_of(10_000, 1), shape, macs, "made", "calibration", "0")
    logits, labels = log_of(n, 2)
    made["log_bytes"] = logits.numel() * 4
    before = peak_bytes()
    sealed = SealedLabels(labels)
    sealed.unseal("made")
    log = TestLog(logits, sealed, torch.arange(n), shape, macs, "made", "test", "0")
    right = fitting.correct[:, -1].numpy()
    members: dict[str, list[Member]] = {}
    with spent(made, "fit"):
        for name, count in POLICIES.items():
            family = KINDS.load(name).family(fitting, seed=0)
            at = np.linspace(0, len(family) - 1, count).round().astype(int)
            members[name] = [_member(family[i], fitting, right) for i in at]
    by_policy = {}
    last = (logits[:, -1].argmax(1) == labels).numpy()
    with spent(made, "study"):
        for name, found in members.items():
            began = _cpu()
            outcomes = [outcome(member, log) for member in found]
            by_policy[name] = (_cpu() - began) / len(found)
            for one in outcomes:
                compare.drop(last, one.correct)
    made["replay_cpu_s_each"] = by_policy
    source = logits.view(-1)
    with spent(made, "read"):
        source.sum()
    made["read_bytes_per_s"] = made["log_bytes"] / made["read_cpu_s"]
    made["peak_over_log_bytes"] = peak_bytes() - before
    return made


# ---------------------------------------------------------------------- a shard


def shards() -> dict[str, Any]:
    """What Ray adds to a range of samples: a start once, then so much a piece. Two workers of one core, one machine."""
    import ray
    import torch

    from adaptbench.experiment.engines import Local, Part, Piece
    from adaptbench.experiment.keys import model_hash
    from adaptbench.experiment.on_ray import Ray
    from adaptbench.experiment.options import Options
    from adaptbench.zoo.loading import load_system

    made: dict[str, Any] = {"workers": 2}
    with spent(made, "start"):
        store_bytes = 200 * MIB
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=store_bytes, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    net = load_system("sdn", "cifar10").model
    pictures = torch.zeros(500, 3, 32, 32, dtype=torch.uint8)
    parts = {"net": Part(net, model_hash, what="the net")}
    engine = Ray(Options(engine="ray"))

    def pieces(n: int) -> list[Piece]:
        return [Piece(f"p{i}", 500, sent_back, parts, {"inputs": pictures}) for i in range(n)]

    def of(made_by: Any, n: int) -> Callable[[], int]:
        return lambda: sum(m.get() is not None for m in made_by.each(pieces(n), lambda *_: None))

    with spent(made, "first"):
        assert of(engine, 2)() == 2
    walls = []
    for _ in range(5):
        began = time.perf_counter()
        of(engine, 20)()
        walls.append((time.perf_counter() - began) / 20)
    made |= {"piece_wall_s": sorted(walls)[2], "piece_wall_s_least": min(walls), "piece_bytes": pictures.numel()}
    began = time.perf_counter()
    of(Local(Options()), 20)()
    made["local_piece_wall_s"] = (time.perf_counter() - began) / 20
    engine.close()
    ray.shutdown()
    return made


def sent_back(net: Any, inputs: Any, told: Any) -> Any:
    """500 pictures there and back: what crafting moves, without the crafting."""
    return inputs.clone()


# ---------------------------------------------------------------------- attack steps at ImageNet's size


def imagenet_net() -> Any:
    """A ResNet-50 (He et al. 2016) at 224 × 224 with an exit after each of its four stages; weights as they fall."""
    from torch import nn

    import adaptbench as ab
    from adaptbench.policies.thresholds.uniform import UniformThreshold

    class Bottleneck(nn.Module):
        def __init__(self, width: int, inner: int, stride: int) -> None:
            super().__init__()
            norm, out = nn.BatchNorm2d, 4 * inner
            self.body = nn.Sequential(
                nn.Conv2d(width, inner, 1, bias=False), norm(inner), nn.ReLU(),
                nn.Conv2d(inner, inner, 3, stride, 1, bias=False), norm(inner), nn.ReLU(),
                nn.Conv2d(inner, out, 1, bias=False), norm(out),
            )  # fmt: skip
            same = stride == 1 and width == out
            plain = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), norm(out))
            self.short = nn.Identity() if same else plain

        def forward(self, x: Any) -> Any:
            return (self.body(x) + self.short(x)).relu()

    stages, heads, width = [], [], 64
    for k, (blocks, inner) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        layers: list[nn.Module] = []
        if k == 0:
            first = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            layers += [first, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for i in range(blocks):
            layers.append(Bottleneck(width, inner, 2 if k and not i else 1))
            width = 4 * inner
        stages.append(nn.Sequential(*layers))
        heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)))
    net = ab.MultiExit(stages, heads, input_shape=(3, 224, 224)).eval().requires_grad_(False)
    return net.under(UniformThreshold(5e-4))  # below 1 / 1000: no input is ever done before the last step


def steps(pictures: int, device: str = "cpu") -> dict[str, Any]:
    """Seconds of an attack step and of a hard pass of one picture: two lengths of one attack, taken apart."""
    import torch

    from adaptbench.attacks import load_attack

    net = imagenet_net().to(device)
    x = torch.rand(pictures, 3, 224, 224, device=device)
    y = torch.zeros(pictures, dtype=torch.int64, device=device)
    made: dict[str, Any] = {"device": device, "pictures": pictures, "macs_full": net.macs_full}

    def took(length: int) -> tuple[float, float]:
        attack = load_attack("ilfo", {"eps": 8 / 255, "steps": length})
        began = _cpu(), time.perf_counter()
        attack.craft(net, x, y, ids=torch.arange(pictures), seed=0)
        if device != "cpu":
            torch.cuda.synchronize()
        return _cpu() - began[0], time.perf_counter() - began[1]

    took(1)
    short, long = took(2), took(6)
    made["step_cpu_s"], made["step_wall_s"] = ((b - a) / 4 / pictures for a, b in zip(short, long, strict=True))
    return made


# ---------------------------------------------------------------------- all of it


def apart(call: str, *given: object) -> dict[str, Any]:
    """A part in a process of its own."""
    words = [sys.executable, __file__, "--call", call, *map(str, given)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main(asked: list[str], samples: int, device: str, keep: Callable[[dict[str, Any]], None]) -> None:
    from adaptbench.experiment.environment import describe_device, git_state, versions

    found: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(ROOT),
        "device": {k: v for k, v in describe_device("cpu").items() if k in ("name", "cores", "threads", "memory_gib")},
        "versions": versions(),
    }
    with tempfile.TemporaryDirectory(prefix="adaptbench-scale-") as scrap:
        room = Path(scrap)
        if "store" in asked:
            small, large = (apart("store", room / f"store-{n}", n) for n in (SMALL, samples))
            found["store"] = {"small": small, "large": large}
            for name in ("cpu", "wall"):
                seconds = large[f"commit_{name}_s"] + large[f"finish_{name}_s"]
                found["store"][f"records_per_{name}_s"] = large["records"] / seconds
            found["store"]["growth_bytes"] = large["peak_bytes"] - small["peak_bytes"]
            say("records a second into the store (CPU)", found["store"]["records_per_cpu_s"], 1e6, "{:,.0f}")
            keep(found)
            say("memory growth, MiB", found["store"]["growth_bytes"] / MIB, 50, "{:.0f}", less=True)
        if "page" in asked:
            found["page"] = {"run": apart("whole", room / "run", samples)}
            found["page"]["report"] = apart("page", room / "run")
            found["page"]["check"] = apart("check", room / "run", room / "run")
            total = found["page"]["report"]["report_cpu_s"] + found["page"]["check"]["check_cpu_s"]
            peak = max(found["page"][k]["peak_bytes"] for k in ("report", "check"))
            found["page"] |= {"cpu_s": total, "peak_bytes": peak}
            keep(found)
            say("report and check, CPU seconds", total, 30, "{:.1f}", less=True)
            say("their peak, GiB", peak / 2**30, 2, "{:.2f}", less=True)
        if "study" in asked:
            found["study"] = apart("study", samples)
            keep(found)
            say("study of 40 policies, CPU seconds", found["study"]["study_cpu_s"], 300, "{:.0f}", less=True)
        if "shards" in asked:
            found["shards"] = apart("shards")
            keep(found)
            say("a piece of 500 CIFAR pictures over Ray, ms", 1000 * found["shards"]["piece_wall_s"], None, "{:.1f}")
        if "steps" in asked:
            found["steps"] = apart("steps", 4, device) if device == "cpu" else apart("steps", 64, device)
            name = "cpu" if device == "cpu" else "wall"
            keep(found)
            say("attack steps a second, ResNet-50 at 224²", 1 / found["steps"][f"step_{name}_s"], None, "{:.2f}")


def say(what: str, value: float, goal: float | None, form: str, less: bool = False) -> None:
    against = "" if goal is None else f"   goal {'≤' if less else '≥'} {form.format(goal)}"
    print(f"{what:<50} {form.format(value)}{against}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--call"]:
        name, *words = sys.argv[2:]
        given = [int(word) if word.isdigit() else Path(word) if "/" in word else word for word in words]
        print(json.dumps(globals()[name](*given)))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["store", "page", "study", "shards", "steps"])
    parser.add_argument("--device", default="cpu", help="of the steps: cpu, cuda")
    parser.add_argument("--samples", type=int, default=LARGE)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    def keep(result: dict[str, Any]) -> None:
        """What is there so far; parts that were not asked for stay as they were."""
        if options.json:
            kept = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
            options.json.write_text(json.dumps({**kept, **result}, indent=1) + "\n", encoding="utf-8")

    main(options.parts, options.samples, options.device, keep)
