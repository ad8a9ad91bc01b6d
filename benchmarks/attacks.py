"""Seconds an input of each recipe, on a small system and on one of CIFAR-10, beside a bare PGD loop on the same net.

    python benchmarks/attacks.py [--systems digits/softmax-threshold,cifar10/sdn] [--recipes ilfo,standard-1]
                                 [--n 8] [--json attacks.json]

One run, one craft a recipe, between two runs of the bare loop: 100 steps of sign descent on the cross-entropy of the
last exit. The craft is divided by their mean, so that what else the machine does hits both. A recipe that fails or
does not apply says why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks import list_attacks, load_attack
from adaptbench.bench.crafting import crafting_split
from adaptbench.errors import AdaptBenchError
from adaptbench.experiment.environment import describe_device, versions

SYSTEMS = "digits/softmax-threshold,cifar10/sdn"
STEPS, EPS = 100, 8 / 255


def bare(model: AdaptiveModel, x: torch.Tensor, y: torch.Tensor) -> float:
    """Seconds of a plain loop: forward through every exit, backward, sign, clamp."""
    began, adv = time.perf_counter(), x.clone()
    for _ in range(STEPS):
        adv.requires_grad_(True)
        loss = F.cross_entropy(model.dense_logits(adv)[:, -1], y)
        (slope,) = torch.autograd.grad(loss, adv)
        adv = (adv.detach() + EPS / 10 * slope.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return time.perf_counter() - began


def timed(name: str, model: AdaptiveModel, data: Any, n: int) -> dict[str, Any]:
    """One recipe at its own settings."""
    split = data.split("test").first(n)
    x, y = split.images(), split.y
    attack = load_attack(name)
    if reason := attack.applies_to(model):
        return {"seconds": None, "why": reason}
    before = bare(model, x, y)
    began = time.perf_counter()
    try:
        attack.craft(
            model,
            x,
            y,
            ids=split.ids,
            seed=0,
            surrogate=lambda other: ab.load_model(other, data.name),
            crafting=crafting_split(data) if attack.needs_crafting else None,
        )
    except AdaptBenchError as error:
        return {"seconds": None, "why": error.seen}
    took = time.perf_counter() - began
    loop = (before + bare(model, x, y)) / 2
    shared = attack.needs_crafting  # one change takes as long for few pictures as for many
    return {"seconds": took if shared else took / n, "of": "the change" if shared else "an input", "pgd": took / loop}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default=SYSTEMS)
    parser.add_argument("--recipes", default="", help="default: every recipe")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    names = asked.recipes.split(",") if asked.recipes else sorted(listed.name for listed in list_attacks())
    told: dict[str, Any] = {
        "n": asked.n,
        "seed": 0,
        "pgd_steps": STEPS,
        "device": describe_device("cpu"),
        "versions": versions(),
        "load_before": os.getloadavg()[0],
        "systems": {},
    }
    for system in asked.systems.split(","):
        data_name, _, model_name = system.partition("/")
        data, model = ab.load_data(data_name), ab.load_model(model_name, data_name)
        rows = told["systems"][system] = {}
        for name in names:
            row = rows[name] = timed(name, model, data, asked.n)
            shown = (
                "–  " + row["why"] if row["seconds"] is None else f"{row['seconds']:.3g} s  {row['pgd']:.2f} × PGD-100"
            )
            sys.stdout.write(f"{system}  {name}  {shown}\n")
            sys.stdout.flush()
            told["load_after"] = os.getloadavg()[0]
            if asked.json is not None:
                asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
