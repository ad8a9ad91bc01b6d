"""How often the executor makes the host wait for the device, and on a device other than the CPU what it takes there.

    OMP_NUM_THREADS=1 ADAPTBENCH_DATA=… python benchmarks/host_syncs.py [--device cuda] [--json FILE]
    python docs/host_syncs_page.py

Reads of a value, and shapes that hang on values, are counted where they are called: the count hangs on no device. With
`--device cuda` the same calls are timed beside the plain net, the device synchronised before every reading.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kept import heading, keep
from turns import Blocks

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.host_syncs import host_syncs
from adaptbench.errors import UsageError
from adaptbench.experiment.environment import check_device
from adaptbench.meters.clock import synchroniser

SYSTEMS = (
    "digits/softmax-threshold",
    "digits/dag-selection",
    "digits/skipnet",
    "cifar10/sdn",
    "cifar10/skipnet-rnn",
    "cifar10/blockdrop",
    "cifar10/a-vit",
)
SIZES = (1, 32)
BATCHES = 8


def syncs_of(model: AdaptiveModel, x: torch.Tensor, size: int) -> dict[str, Any]:
    """By mode: waits a batch, and what for."""
    batches = list(x.split(size))
    runs: dict[str, Callable[[], object]] = {"compacted": lambda: [model.serve(part) for part in batches]}
    if "queues" in model.modes and size > 1:
        runs["queues"] = lambda: model.serve(x, full=size)
    told: dict[str, Any] = {}
    for mode, run in runs.items():
        counted: Counter[str] = host_syncs(run)
        told[mode] = {
            "syncs": sum(counted.values()) / len(batches),
            "by_name": {name: n / len(batches) for name, n in sorted(counted.items())},
        }
    return told


def timed(model: AdaptiveModel, x: torch.Tensor, size: int, blocks: int, device: str) -> dict[str, Any]:
    """By the wall's clock, the device synchronised: each mode ÷ the plain net."""
    wait, batches = synchroniser(device), list(x.split(size))

    def waited(run: Callable[[], object]) -> Callable[[], object]:
        def both() -> None:
            run()
            wait()

        return both

    arms = {
        "plain": waited(lambda: [model.serve_reference(part) for part in batches]),
        "compacted": waited(lambda: [model.serve(part) for part in batches]),
    }
    if "queues" in model.modes and size > 1:
        arms["queues"] = waited(lambda: model.serve(x, full=size))
    blocked = Blocks(arms, blocks)
    return {f"{name} ÷ plain, wall": blocked.ratio(name, "plain")["wall"] for name in arms if name != "plain"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        check_device(options.device)
    except UsageError as error:
        raise SystemExit(f"{error}") from None
    found = heading(options.device, batches=BATCHES, systems={})
    for system in options.systems:
        data, _, name = system.partition("/")
        test, model = ab.load_data(data).split("test"), ab.load_model(name, data, device=options.device)
        rows: dict[str, Any] = {}
        for size in SIZES:
            x = test.images(0, BATCHES * size).to(options.device)
            with model.serving():
                model.serve(x)  # counted before anybody is watched
                rows[str(size)] = {"modes": syncs_of(model, x, size)}
                if options.device != "cpu":
                    rows[str(size)] |= timed(model, x, size, options.blocks, options.device)
        found["systems"][system] = {"nodes": len(model.node_names), "sizes": rows}
        keep(found, options.json, system, rows)


if __name__ == "__main__":
    main()
