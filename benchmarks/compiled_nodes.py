"""Nets whose parts torch.compile made, beside the same nets as they are: where it pays, by part and as a whole.

    OMP_NUM_THREADS=1 ADAPTBENCH_DATA=… python benchmarks/compiled_nodes.py --json benchmarks/compiled_nodes.json
    python docs/compiled_nodes_page.py

All is compiled before the first window. Arms take turns, block by block, as in benchmarks/performance.py, and are
compared by CPU time. The static net is compiled by the same rule, so that a saving is held against what a service would
run. Each cell is written as soon as it is there; started again, the script does what the file has not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from kept import begun, heading, keep
from performance import Blocks

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.compiling import compile_parts

CELLS = (
    "digits/softmax-threshold/32",
    "digits/softmax-threshold/256",
    "digits/skipnet/32",
    "cifar10/sdn/32",
    "cifar10/blockdrop/32",
)
FEWEST = 64
"""Pictures that a call goes through, at least."""


def cell(model: AdaptiveModel, test: Split, size: int, blocks: int) -> dict[str, Any]:
    """One net at one batch size."""
    x = test.images(0, max(size, FEWEST))
    batches = list(x.split(size))
    began = time.perf_counter()
    plan = compile_parts(model, [(part, None) for part in batches])
    told: dict[str, Any] = {
        "samples": len(x),
        "macs": float(model.infer(x).macs.double().mean()) / model.macs_full,
        "made_s": time.perf_counter() - began,
        "agreement": plan.agreement,
        "whole_s": plan.whole,
        "parts": [asdict(part) for part in plan.parts],
    }
    with plan.serving():
        timed = Blocks(
            {
                "static": lambda: [model.serve_reference(part) for part in batches],
                "static compiled": lambda: [plan.serve_reference(part) for part in batches],
                "as it is": lambda: [model.serve(part) for part in batches],
                "compiled": lambda: [plan.serve(part) for part in batches],
            },
            2 * blocks,
        )
    told["static_us"] = 1e6 * statistics.median(timed.cpu["static"]) / len(x)
    for top, bottom in (
        ("compiled", "as it is"),
        ("static compiled", "static"),
        ("as it is", "static"),
        ("compiled", "static compiled"),
    ):
        told[f"{top} ÷ {bottom}"] = timed.ratio(top, bottom)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="DATA/MODEL/BATCH")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = begun(options.json, heading(blocks=options.blocks, cells={}))
    for name in options.cells:
        if name in found["cells"]:
            continue
        data, model_name, size = name.split("/")
        test, model = ab.load_data(data).split("test"), ab.load_model(model_name, data)
        found["cells"][name] = cell(model, test, int(size), options.blocks)
        keep(found, options.json, name, found["cells"][name])


if __name__ == "__main__":
    main()
