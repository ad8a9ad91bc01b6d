"""Attack steps in bf16 beside steps in fp32, a bare loop and torchattacks' PGD, and what `standard` finds by them.

    OMP_NUM_THREADS=1 python benchmarks/half_precision.py [--blocks 7] [--json benchmarks/half_precision.json]
    python docs/performance_page.py

Steps run in turn, block by block, as in benchmarks/performance.py, and are compared within a block by CPU time. Both
crafts of `standard` begin at the same pictures under the same seed, and recovery is by the hard pass in fp32. Each part
is written as soon as it is there; started again, the script does what the file has not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from kept import begun, heading, keep
from performance import EPS, LastExit, per_step, requires_no_weights

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split
from adaptbench.results.statistics import mean

SYSTEMS = ("cifar10/sdn", "cifar10/learned-cascade", "cifar10/skipnet-rnn")
CRAFTED = {
    "digits/softmax-threshold": "16/255",
    "digits/skipnet": "16/255",
    "cifar10/sdn": "1/255",
    "cifar10/skipnet-rnn": "8/255",
}
"""At 8/255 SDN is at its ceiling after two steps, and any two attacks are equal."""
HALF = {"precision": "bf16"}
PICTURES, FEW, MANY = 32, 2, 6


def steps(model: AdaptiveModel, test: Split, blocks: int) -> dict[str, Any]:
    """A step of one picture, of DeepSloth on exits and ILFO on gates; who has retired takes none."""
    import torchattacks

    some = test.images(0, 3 * PICTURES)
    rows = model.infer(some).macs.argsort(stable=True)[:PICTURES]
    x, y, ids = some[rows], test.y[rows], test.ids[rows]
    gated = not isinstance(model, DecisionGraph)
    name = "ilfo" if gated else "deepsloth"
    ball: dict[str, Any] = {"eps": "1/255"} | ({} if gated else {"step": 0.0005})
    ran: dict[tuple[str, int], int] = {}

    def ours(which: str, more: dict[str, Any]) -> Callable[[int], object]:
        def run(n: int) -> None:
            made = ab.attacks.load_attack(name, ball | more | {"steps": n}).craft(model, x, y, ids=ids, seed=0)
            ran[which, n] = made.details["steps_run"]

        return run

    def loss_of(adv: torch.Tensor) -> torch.Tensor:
        if gated:
            return model.gated_forward(adv, temperature=0.1)[1].clamp(max=0).sum()  # type: ignore[operator]
        logits = model.dense_logits(adv)[:, :-1].flatten(0, 1)
        return F.cross_entropy(logits, torch.full_like(logits, 1 / logits.shape[1]))

    def bare(half: bool) -> Callable[[int], object]:
        def run(n: int) -> None:
            adv = x.clone()
            for _ in range(n):
                adv = adv.detach().requires_grad_(True)
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    seen = adv.contiguous(memory_format=torch.channels_last) if half else adv
                    loss = loss_of(seen)
                (gradient,) = torch.autograd.grad(loss.float(), adv)
                adv = (adv - 0.0005 * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)

        return run

    def pgd(n: int) -> object:
        return torchattacks.PGD(LastExit(model), eps=EPS, alpha=0.0005, steps=n)(x, y)

    arms = {"fp32": ours("fp32", {}), "bf16": ours("bf16", HALF), "bare fp32": bare(False), "bare bf16": bare(True)}
    with requires_no_weights(model):
        timed = per_step(arms | {"pgd": pgd}, FEW, MANY, blocks)
    for which in ("fp32", "bf16"):
        share = (ran[which, MANY] - ran[which, FEW]) / (PICTURES * (MANY - FEW))
        for kept in (timed.cpu, timed.wall):
            kept[which] = [seconds / share for seconds in kept[which]]
    ratios = {f"{arm} ÷ bf16": timed.ratio(arm, "bf16") for arm in ("fp32", "bare fp32", "bare bf16", "pgd")}
    step_ms = {arm: 1e3 * statistics.median(timed.cpu[arm]) for arm in ("fp32", "bf16", "pgd")}
    return {
        "attack": name,
        "pictures": PICTURES,
        "step_ms": step_ms,
        "pgd ÷ fp32": timed.ratio("pgd", "fp32"),
        **ratios,
    }


def found(model: AdaptiveModel, test: Split, n: int, eps: str) -> dict[str, Any]:
    """What `standard` takes back in both, of the same pictures."""
    x, y, ids = test.images(0, n), test.y[:n], test.ids[:n]
    clean = model.infer(x).macs.double()
    room = model.max_macs - float(clean.mean())
    told: dict[str, Any] = {"attack": "standard", "eps": eps, "pictures": n}
    rises: dict[str, torch.Tensor] = {}
    for which, more in (("fp32", {}), ("bf16", HALF)):
        attack = ab.attacks.load_attack("standard", {"eps": eps, **more})
        began = time.process_time()
        made = attack.craft(model, x, y, ids=ids, seed=0)
        rises[which] = (model.infer(made.images()).macs.double() - clean) / room
        of = mean(rises[which].numpy(), seed=0)
        told[which] = {
            "recovery": of.value,
            "low": of.low,
            "high": of.high,
            "at_max_macs": made.details["at_max_macs"],
            "relaxed_open": made.details["relaxed_open"],
            "closed_by_hard_pass": made.details["closed_by_hard_pass"],
            "steps": made.details["steps_run"],
            "cpu_s": time.process_time() - began,
        }
    apart = mean((rises["bf16"] - rises["fp32"]).numpy(), seed=0)
    return told | {"bf16 − fp32": {"value": apart.value, "low": apart.low, "high": apart.high}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--crafted", type=int, default=100, help="pictures that `standard` is crafted on")
    parser.add_argument("--systems", nargs="+", default=list(dict.fromkeys([*SYSTEMS, *CRAFTED])))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    told = begun(options.json, heading(threads=1, systems={}))

    def done(system: str, part: str, what: dict[str, Any]) -> None:
        told["systems"].setdefault(system, {})[part] = what
        keep(told, options.json, f"{system}, {part}", what)

    for system in options.systems:
        data, _, name = system.partition("/")
        there = told["systems"].get(system, {})
        test, model = ab.load_data(data).split("test"), ab.load_model(name, data)
        if system in SYSTEMS and "steps" not in there:
            done(system, "steps", steps(model, test, options.blocks))
        if system in CRAFTED and "standard" not in there:
            done(system, "standard", found(model, test, options.crafted, CRAFTED[system]))


if __name__ == "__main__":
    main()
