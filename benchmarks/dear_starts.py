"""Whether a member that begins at dear pictures adds to `standard`: the same steps from there, from noise, and without.

    python benchmarks/dear_starts.py [--systems fashion-mnist/dag-selection,cifar10/skipnet-rnn] [--limit 16]
                                     [--eps 8/255] [--recipe standard] [--out benchmarks/dear_starts.json]

One more member follows the recipe's own, on the pictures that are below the ceiling then, as in an ensemble: of exits
expected MACs, of gates near margins, 60 steps of momentum. It is tried from the dear pictures and, as the control of
equal steps, from noise. A system's entry is written when it is done; what is there already is left.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from kept import begun, heading, told

import adaptbench as ab
from adaptbench.attacks import load_attack
from adaptbench.attacks.base import Task, to_bytes
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.dear_starts import KEPT, PICTURES
from adaptbench.attacks.decisions import NearMargins
from adaptbench.attacks.engine import Optimiser, Start
from adaptbench.attacks.ensemble import GATED
from adaptbench.attacks.fractions import parse_fraction
from adaptbench.attacks.judging import Best, Judge
from adaptbench.attacks.loading import build
from adaptbench.attacks.momentum import MomentumDescent
from adaptbench.attacks.objectives import ExpectedMacs
from adaptbench.attacks.recipe import make_recipe
from adaptbench.results.metrics import recovery

SYSTEMS = "fashion-mnist/dag-selection,cifar10/skipnet-rnn"
STEPS = 60


def system(name: str, recipe: str, eps: float, limit: int) -> dict[str, Any]:
    """One net: the recipe, then one more member in two ways."""
    data_name, model_name = name.split("/")
    model, data = ab.load_model(model_name, data_name), ab.load_data(data_name)
    split = data.split("test").first(limit)
    attack, began = load_attack(recipe, {"eps": eps}), time.perf_counter()
    made = attack.craft(model, split.images(), split.y, ids=split.ids)
    told(f"{name}: {recipe} took {time.perf_counter() - began:.0f} s")
    dear = _dear(data.split("calibration"), model, eps)
    x = to_bytes(split.images()).float() / 255.0
    before = model.infer(made.images()).macs
    clean = model.infer(x).macs
    entry: dict[str, Any] = {
        "attack": {"name": attack.name, "sha256": attack.sha256},
        "n": len(x),
        "max_macs": model.max_macs,
        "below_the_ceiling": int((before < model.max_macs).sum()),
        "dear_macs": model.infer(dear.float() / 255.0).macs.tolist(),
        "clean": clean.tolist(),
        "attacked": before.tolist(),
        "recovery": _share(clean, before, model.max_macs),
        "more": {},
    }
    for start in ("dear", "noise"):
        after = _more(model, x, split, made.x_adv, Linf(eps), start, dear)
        told(f"{name}: from {start}, dearer on {int((after > before).sum())}")
        entry["more"][start] = {
            "attacked": after.tolist(),
            "dearer_on": int((after > before).sum()),
            "recovery": _share(clean, after, model.max_macs),
        }
    return entry


def _dear(calibration: Any, model: ab.AdaptiveModel, eps: float) -> torch.Tensor:
    """As an ensemble with such a member has them."""
    member = {"objective": "hinge-margins", "search": {"momentum": {"steps": 1}}, "start": "dear"}
    content = {"title": "t", "constraint": {"linf": {"eps": eps}}, "members": [member]}
    return build("dear", make_recipe(content, "t"), "t").learn(model, calibration).tensors["dear"]


def _more(
    model: ab.AdaptiveModel,
    x: torch.Tensor,
    split: Any,
    so_far: torch.Tensor,
    ball: Linf,
    start: Start,
    dear: torch.Tensor,
) -> torch.Tensor:
    """(N,) MACs after one more member on what is kept so far."""
    best = Best(Judge(model, x, split.y), "first")
    rows = torch.arange(len(x))
    best.take(rows, so_far, best.judge.score(rows, so_far), torch.zeros(len(x)))
    task = Task(model, x, split.y, split.ids, 0, None, lambda done, of: None)
    objective = NearMargins(knee=0.05, until=0.05) if model.shape in GATED else ExpectedMacs(temperature=1)
    search = MomentumDescent(STEPS)
    Optimiser(task, model, objective, ball, search, "first", best=best, start=start, dear=dear).run()
    return best.score


def _share(clean: torch.Tensor, macs: torch.Tensor, dearest: int) -> dict[str, float]:
    estimate = recovery(clean.numpy(), macs.numpy(), dearest)
    assert estimate is not None
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default=SYSTEMS)
    parser.add_argument("--recipe", default="standard")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/dear_starts.json"))
    asked = parser.parse_args()
    eps = float(parse_fraction(asked.eps))
    document = begun(
        asked.out, heading(recipe=asked.recipe, eps=eps, steps=STEPS, looked_at=PICTURES, kept=KEPT, systems={})
    )
    for name in asked.systems.split(","):
        if document["systems"].get(name, {}).get("n") != asked.limit:
            document["systems"][name] = system(name, asked.recipe, eps, asked.limit)
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
