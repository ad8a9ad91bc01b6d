"""Nets whose parts torch.compile made, beside the same nets as they are: where it pays, by part and as a whole.

    OMP_NUM_THREADS=1 ADAPTBENCH_DATA=… python benchmarks/compiled_nodes.py --json benchmarks/compiled_nodes.json
    python docs/compiled_nodes_page.py
    python benchmarks/compiled_nodes.py --device cuda --json FILE

All is compiled before the first window. Arms take turns, block by block, as in benchmarks/performance.py, and are
compared by CPU time; with --device cuda parts are CUDA graphs, and the clock is the wall's (`wall` of each ratio), the
card waited for. The static net is compiled by the same rule, so that a saving is held against what a service would run.
Each cell is written as soon as it is there; started again, the script does what the file has not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from kept import begun, heading, keep
from turns import Blocks

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.adaptive.compiling import compile_parts
from adaptbench.errors import UsageError
from adaptbench.experiment.environment import check_device
from adaptbench.meters.clock import synchroniser

CELLS = (
    "digits/softmax-threshold/32",
    "digits/softmax-threshold/256",
    "digits/skipnet/32",
    "cifar10/sdn/32",
    "cifar10/blockdrop/32",
)
FEWEST = 64
"""Pictures that a call goes through, at least."""


def cell(model: AdaptiveModel, test: Split, size: int, blocks: int, device: str) -> dict[str, Any]:
    """One net at one batch size."""
    model, x = model.to(device), test.images(0, max(size, FEWEST)).to(device)

    def waited(serve: Callable[[torch.Tensor], object]) -> Callable[[], None]:
        def all_of_them() -> None:
            for part in batches:
                serve(part)
            wait()

        return all_of_them

    wait, batches = synchroniser(device), list(x.split(size))
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
                "static": waited(model.serve_reference),
                "static compiled": waited(plan.serve_reference),
                "as it is": waited(model.serve),
                "compiled": waited(plan.serve),
            },
            2 * blocks,
        )
    told["static_us"] = 1e6 * statistics.median((timed.cpu if device == "cpu" else timed.wall)["static"]) / len(x)
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        check_device(options.device)
    except UsageError as error:
        raise SystemExit(f"{error}") from None
    found = begun(options.json, heading(options.device, blocks=options.blocks, cells={}))
    for name in options.cells:
        if name in found["cells"]:
            continue
        data, model_name, size = name.split("/")
        test, model = ab.load_data(data).split("test"), ab.load_model(model_name, data)
        found["cells"][name] = cell(model, test, int(size), options.blocks, options.device)
        keep(found, options.json, name, found["cells"][name])


if __name__ == "__main__":
    main()
