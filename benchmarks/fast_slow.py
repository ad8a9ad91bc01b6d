"""What attacks find by the engine, and by a plain loop that looks at every picture after every step.

    OMP_NUM_THREADS=1 ADAPTBENCH_DATA=… python benchmarks/fast_slow.py [--pictures 64] [--json FILE]
    python docs/fast_slow_page.py

The engine reads decisions off the relaxed pass, asks the hard pass only where it can say something new, and lets a
picture go that has reached the dearest path. The plain loop does none of that: same objective, ball, search, start and
pictures; every picture takes every step, each iterate is rounded and run by `infer`, and the dearest is kept.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from kept import begun, heading, keep
from torch import Tensor

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.attacks.composed import RecipeAttack
from adaptbench.attacks.purity import untouched
from adaptbench.attacks.randomness import uniform_pixels
from adaptbench.results.statistics import mean

CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("digits/softmax-threshold", "deepsloth", {"eps": "16/255", "step": "2/255", "steps": 30}),
    ("digits/softmax-threshold", "ilfo", {"eps": "16/255", "steps": 60}),
    ("digits/skipnet", "ilfo", {"eps": "32/255", "steps": 60}),
    ("cifar10/sdn", "deepsloth", {"eps": "1/255", "step": 0.0005, "steps": 12}),
    ("cifar10/sdn", "ilfo", {"eps": "1/255", "steps": 12}),
    ("cifar10/skipnet-rnn", "ilfo", {"eps": "8/255", "steps": 20}),
)


def plainly(attack: RecipeAttack, model: AdaptiveModel, x: Tensor, y: Tensor, ids: Tensor) -> tuple[Tensor, int]:
    """(n,) int64 MACs of the dearest rounded iterate of each picture, and how many steps were taken."""
    parts, n = attack.parts, len(x)
    objective, search = parts.objective, parts.search
    clean = (x * 255).round() / 255
    constraint = parts.constraint.placed(0, tuple(x.shape[1:]))
    with untouched(model), torch.enable_grad():
        state = search.begin(clean, constraint, uniform_pixels(ids, tuple(x.shape[1:]), 0))
        state["loss"] = torch.full((n,), torch.inf)
        context = objective.prepare(model, clean)
        best = model.infer(clean).macs
        for age in range(search.steps + 1):
            variable = state["variable"] = state["variable"].detach().requires_grad_()
            here = search.point(state, constraint)
            pictures = constraint.quantise(here.detach(), clean)
            best = torch.maximum(best, model.infer(pictures.float() / 255).macs)
            if age == search.steps:
                break
            context["progress"] = torch.full((n,), age / search.steps)
            loss = objective.measure(model, here, clean, context, y).loss
            (slope,) = torch.autograd.grad(loss.sum(), variable)
            state["variable"], state["loss"] = variable.detach(), loss.detach()
            search.advance(state, slope.nan_to_num(0.0, 0.0, 0.0), torch.full((n,), age), constraint)
    return best, n * search.steps


def case(model: AdaptiveModel, test: Split, name: str, settings: dict[str, Any], n: int) -> dict[str, Any]:
    """Both on the same pictures: shares of the head-room, and the paired difference with its interval."""
    x, y, ids = test.images(0, n), test.y[:n], test.ids[:n]
    attack = ab.attacks.load_attack(name, settings)
    assert isinstance(attack, RecipeAttack)
    clean = model.infer(x).macs.double()
    room = model.max_macs - float(clean.mean())
    began = time.process_time()
    made = attack.craft(model, x, y, ids=ids, seed=0)
    told: dict[str, Any] = {"attack": name, "settings": settings, "pictures": n}
    fast, took = model.infer(made.images()).macs.double(), time.process_time() - began
    told["engine"] = shares((fast - clean) / room) | {"steps": made.details["steps_run"], "cpu_s": took}
    began = time.process_time()
    slow, steps = plainly(attack, model, x, y, ids)
    told["plain"] = shares((slow.double() - clean) / room) | {"steps": steps, "cpu_s": time.process_time() - began}
    told["engine − plain"] = shares((fast - slow.double()) / room)
    told["pictures that differ"] = int((fast != slow.double()).sum())
    return told


def shares(of: Tensor) -> dict[str, float]:
    """Mean over pictures with its interval."""
    found = mean(of.numpy(), seed=0)
    return {"value": found.value, "low": found.low, "high": found.high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = begun(options.json, heading(threads=1, pictures=options.pictures, cases={}))
    for system, name, settings in CASES:
        data, _, model = system.partition("/")
        title = f"{system} {name}"
        if title in found["cases"]:
            continue
        test = ab.load_data(data).split("test")
        found["cases"][title] = case(ab.load_model(model, data), test, name, settings, options.pictures)
        keep(found, options.json, title, found["cases"][title])


if __name__ == "__main__":
    main()
