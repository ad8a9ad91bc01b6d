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
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scale_records import check, page, store, whole
from scale_shards import shards
from scale_steps import steps
from scale_study import study
from spending import MIB

ROOT = Path(__file__).resolve().parent.parent
SMALL, LARGE = 100_000, 1_000_000
CALLS: dict[str, Callable[..., dict[str, Any]]] = {
    "store": store, "whole": whole, "page": page, "check": check, "study": study, "shards": shards, "steps": steps,
}  # fmt: skip
"""Parts that run in processes of their own."""


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
        print(json.dumps(CALLS[name](*given)))
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
