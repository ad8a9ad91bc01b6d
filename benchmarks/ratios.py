"""Ratios in one run, interleaved, medians of blocks: how much of the saving is real, and what the harness costs.

    python benchmarks/ratios.py [--data digits] [--blocks 9] [--json ratios.json]

1. measured speed-up ÷ MAC speed-up, by model and batch size (1 = the device realises the whole saving);
   of the pass that is served, the share of nodes, policy and executor, and what bare nodes at the sizes that really
   arrive take of it and of `infer`;
2. one attack step of ours ÷ one step of torchattacks' PGD, and ÷ one step of a bare loop, on the same net;
3. an evaluation through the runner's chunk ÷ a bare loop over the same batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split
from adaptbench.adaptive.parts import PARTS
from adaptbench.bench.evaluate import as_input, evaluate_chunk
from adaptbench.bench.plan import make_plan
from adaptbench.bench.suite import load_suite
from adaptbench.meters.stopwatch import Stopwatch

MODELS = ("softmax-threshold", "learned-cascade", "dag-selection", "skipnet")


def interleaved(
    arms: dict[str, Callable[[], object]], blocks: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each arm in each block; the order turns round from block to block."""
    for run in arms.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for block in range(blocks):
        for name in list(arms) if block % 2 == 0 else list(reversed(arms)):
            began = clock()
            arms[name]()
            seconds[name].append(clock() - began)
    return seconds


def ratio(top: list[float], bottom: list[float]) -> tuple[float, float, float]:
    """Median, minimum and maximum of the ratios block by block."""
    ratios = [a / b for a, b in zip(top, bottom, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def realised(model: AdaptiveModel, test: Split, size: int, blocks: int) -> dict[str, float]:
    x = test.images(0, max(size, 128))
    batches = list(x.split(size))
    macs = torch.cat([model.infer(b).macs for b in batches]).double().mean().item()
    arms = {
        "adaptive": lambda: [model.serve(b) for b in batches],
        "static": lambda: [model.serve_reference(b) for b in batches],
    }
    with model.serving():
        seconds = interleaved(arms, blocks)
    speedup, low, high = ratio(seconds["static"], seconds["adaptive"])
    promised = model.macs_full / macs
    return {
        "mac_speedup": promised,
        "measured_speedup": speedup,
        "min": low,
        "max": high,
        "measured_over_promised": speedup / promised,
    }


def shares(model: AdaptiveModel, test: Split, size: int, blocks: int) -> dict[str, float]:
    """Who spends the time of a pass, by CPU time of this thread, which neighbours on the machine do not touch."""
    x = test.images(0, max(size, 32))
    batches = list(x.split(size))
    watch = Stopwatch(clock=time.thread_time)
    calls: list[tuple[torch.nn.Module, tuple[object, ...]]] = []
    parts = (
        [*model.stages, *model.heads]
        if isinstance(model, DecisionGraph)
        else [model.stem, *model.bodies, *model.shortcuts, *model.afters, model.head]
    )
    kept = [
        part.register_forward_pre_hook(lambda module, given: calls.append((module, given)))
        for part in {id(p): p for p in parts}.values()
    ]
    with model.serving():
        for batch in batches:
            model.serve(batch)
    for hook in kept:
        hook.remove()
    calls = [(module, given) for module, given in calls if not isinstance(module, torch.nn.Identity)]
    told: dict[str, list[float]] = {part: [] for part in PARTS}
    with model.serving():
        arms = {
            "bare": lambda: [module(*given) for module, given in calls],
            "serve": lambda: [model.serve(b) for b in batches],
            "infer": lambda: [model.infer(b) for b in batches],
        }
        seconds = interleaved(arms, blocks, clock=time.thread_time)
        for _ in range(blocks):
            watch.start()
            for batch in batches:
                model.serve(batch, lap=watch.lap)
            spent = watch.stop()
            for part in PARTS:
                told[part].append(spent.get(part, 0.0) / sum(spent.values()))
    return {
        **{part: statistics.median(found) for part, found in told.items()},
        "bare_over_serve": ratio(seconds["bare"], seconds["serve"])[0],
        "bare_over_infer": ratio(seconds["bare"], seconds["infer"])[0],
    }


def attack_steps(data: str, test: Split, blocks: int, steps: int = 10) -> dict[str, float]:
    """Time of `steps` steps on one batch, in which no sample may retire (ε is too small for that)."""
    import torchattacks

    model = ab.load_model("softmax-threshold", data)
    x, y, ids = test.images(0, 128), test.y[:128], test.ids[:128]
    ours = ab.attacks.load_attack("deepsloth", {"eps": "1/255", "step": 0.0005, "steps": steps})
    theirs = torchattacks.PGD(model, eps=1 / 255, alpha=0.0005, steps=steps)

    def bare() -> None:
        adv = x.clone()
        for _ in range(steps):
            adv = adv.detach().requires_grad_(True)
            logits = model.dense_logits(adv)
            n, k, c = logits.shape
            loss = F.cross_entropy(logits[:, : k - 1].reshape(-1, c), torch.full((n * (k - 1), c), 1 / c))
            (gradient,) = torch.autograd.grad(loss, adv)
            adv = (adv - 0.0005 * gradient.sign()).clamp(x - 1 / 255, x + 1 / 255).clamp(0, 1)

    arms = {
        "ours": lambda: ours.craft(model, x, y, ids=ids, seed=0),
        "torchattacks": lambda: theirs(x, y),
        "bare": bare,
    }
    seconds = interleaved(arms, blocks)
    return {
        "ours_over_torchattacks_pgd": ratio(seconds["ours"], seconds["torchattacks"])[0],
        "ours_over_bare_loop": ratio(seconds["ours"], seconds["bare"])[0],
        "ours_s_per_step": statistics.median(seconds["ours"]) / steps,
    }


def runner_overhead(data: str, blocks: int) -> dict[str, float]:
    """A chunk through the runner (rows, hashes, 8-bit inputs) against inference alone."""
    suite = load_suite("ci", [f"data={data}", "limit=null", "models=[softmax-threshold]", "conditions=[clean]"])
    (evaluation,) = make_plan(suite).evaluations
    n = min(len(evaluation.split), 1000)
    x = evaluation.split.x[:n]
    arms = {
        "runner": lambda: evaluate_chunk(
            evaluation, 0, n, device="cpu", surrogate=lambda name: ab.load_model(name, data)
        ),
        "bare": lambda: evaluation.model.infer(as_input(x, "cpu")),
    }
    seconds = interleaved(arms, blocks)
    return {"runner_over_bare_loop": ratio(seconds["runner"], seconds["bare"])[0], "samples": float(n)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--shares-only", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    test = ab.load_data(options.data).split("test")
    found: dict[str, object] = {"data": options.data, "blocks": options.blocks, "threads": torch.get_num_threads()}
    print(f"{'model':20} {'batch':>5} {'MAC speed-up':>13} {'measured':>9} {'share':>6}")
    for name in () if options.shares_only else options.models:
        model = ab.load_model(name, options.data)
        for size in (1, 32, 256):
            row = realised(model, test, size, options.blocks)
            found[f"{name}/b{size}"] = row
            print(
                f"{name:20} {size:5} {row['mac_speedup']:12.2f}× {row['measured_speedup']:8.2f}× "
                f"{row['measured_over_promised']:6.2f}"
            )
    print(f"{'model':20} {'batch':>5} {'nodes':>6} {'policy':>6} {'executor':>8} {'bare ÷ served':>13} {'÷ infer':>7}")
    for name in options.models:
        model = ab.load_model(name, options.data)
        for size in (1, 32, 256):
            row = shares(model, test, size, options.blocks)
            found[f"{name}/b{size}/shares"] = row
            print(
                f"{name:20} {size:5} {row['nodes']:6.2f} {row['policy']:6.2f} {row['executor']:8.2f} "
                f"{row['bare_over_serve']:13.2f} {row['bare_over_infer']:7.2f}"
            )
    if options.shares_only:
        return
    for title, part in (
        ("attack step", attack_steps(options.data, test, options.blocks)),
        ("runner", runner_overhead(options.data, options.blocks)),
    ):
        found[title] = part
        for key, value in part.items():
            print(f"{title:20} {key:32} {value:.4g}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        sys.stdout.write(f"wrote {options.json}\n")


if __name__ == "__main__":
    main()
