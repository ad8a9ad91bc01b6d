"""Block queues of gated nets beside the compacted pass and the plain net: what pooling buys, what moving rows costs.

    OMP_NUM_THREADS=1 ADAPTBENCH_DATA=… python benchmarks/block_queues.py --json benchmarks/block_queues.json
    python docs/block_queues_page.py

Eight batches go through each arm, batch by batch or, in queues, as one stream. Ratios are of CPU time, as in
benchmarks/performance.py. The profile beside them is a pass of its own, whose stretches are read by the same clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kept import heading, keep
from turns import Blocks

import adaptbench as ab
from adaptbench.adaptive import GatedNetwork, Split
from adaptbench.adaptive.parts import PARTS

SYSTEMS = ("digits/skipnet", "fashion-mnist/skipnet", "cifar10/blockdrop", "cifar10/skipnet-rnn")
SIZES = (8, 32, 64)
BATCHES = 8


def profile(run: Callable[[Callable[[str], None]], object], n: int, rounds: int) -> dict[str, float]:
    """Microseconds a sample of each part of the pass, medians over rounds. run: given whom to tell of a stretch."""
    rows: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(rounds + 1):
        spent: Counter[str] = Counter()
        last = time.process_time()

        def lap(part: str) -> None:
            nonlocal last
            now = time.process_time()
            spent[part] += now - last  # noqa: B023
            last = now

        run(lap)
        for part in PARTS:
            rows[part].append(1e6 * spent[part] / n)
    return {part: statistics.median(values[1:]) for part, values in rows.items()}


def body_rows(model: GatedNetwork, run: Callable[[], object]) -> float:
    """Rows of a call of a gated body, mean."""
    sizes: list[int] = []
    bodies = [body for body, gated in zip(model.bodies, model.gated, strict=True) if gated]
    hooks = [body.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0]))) for body in bodies]
    run()
    for hook in hooks:
        hook.remove()
    return statistics.fmean(sizes) if sizes else 0.0


def rows_of(model: GatedNetwork, test: Split, size: int, blocks: int) -> dict[str, Any]:
    """One net at one batch size."""
    x = test.images(0, BATCHES * size)
    batches = list(x.split(size))
    inference = model.infer(x, mode="queues", full=size)
    told: dict[str, Any] = {
        "samples": len(x),
        "macs": float(inference.macs.double().mean()) / model.macs_full,
        "rows of a body call": {
            "compacted": body_rows(model, lambda: [model.infer(part) for part in batches]),
            "queues": body_rows(model, lambda: model.infer(x, mode="queues", full=size)),
        },
    }
    with model.serving():
        timed = Blocks(
            {
                "plain": lambda: [model.serve_reference(part) for part in batches],
                "compacted": lambda: [model.serve(part) for part in batches],
                "queues": lambda: model.serve(x, full=size),
            },
            2 * blocks,
        )
        told["plain_us"] = 1e6 * statistics.median(timed.cpu["plain"]) / len(x)
        told["profile_us"] = {
            "compacted": profile(lambda lap: [model.serve(part, lap=lap) for part in batches], len(x), blocks),
            "queues": profile(lambda lap: model.serve(x, full=size, lap=lap), len(x), blocks),
        }
    for top, bottom in (("compacted", "plain"), ("queues", "plain"), ("queues", "compacted")):
        told[f"{top} ÷ {bottom}"] = timed.ratio(top, bottom)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = heading(blocks=options.blocks, systems={})
    for system in options.systems:
        data, _, name = system.partition("/")
        test, model = ab.load_data(data).split("test"), ab.load_model(name, data)
        assert isinstance(model, GatedNetwork)
        rows = {str(size): rows_of(model, test, size, options.blocks) for size in SIZES if BATCHES * size <= len(test)}
        found["systems"][system] = rows
        keep(found, options.json, system, rows)


if __name__ == "__main__":
    main()
