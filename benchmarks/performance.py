"""The first tables of docs/performance.md: attack steps, the runner, the executor, and what others do instead.

    OMP_NUM_THREADS=1 python benchmarks/performance.py [--blocks 5] [--json benchmarks/performance.json]
    python docs/performance_page.py

Arms of a table run in turn, the order turned round from block to block, and are compared block by block: CPU time
of this process, which neighbours on the machine hardly touch, and the clock on the wall beside it. What stands
below a ratio is its median over blocks and its extremes. Each system is written as soon as it is there; started again,
the script does what the file has not.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from executing import executor, instead, runner
from kept import begun, heading, keep
from turns import Arms, Blocks

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split

SYSTEMS = ("digits/softmax-threshold", "digits/skipnet", "cifar10/sdn")
EXECUTED = ("cifar10/learned-cascade", "cifar10/dag-selection", "cifar10/skipnet-rnn", "cifar10/blockdrop")
"""Of these, the executor alone."""
SIZES = (1, 32, 256)
EPS = 1 / 255


def per_step(arms: dict[str, Callable[[int], object]], few: int, many: int, blocks: int) -> Blocks:
    """Time of one step: long runs less short ones, so that what is done once a craft is in neither."""
    both: Arms = {}
    for name, run in arms.items():
        both[f"{name}/many"] = lambda run=run: run(many)  # type: ignore[misc]
        both[f"{name}/few"] = lambda run=run: run(few)  # type: ignore[misc]
    measured = Blocks(both, blocks)
    for kept in (measured.cpu, measured.wall):
        for name in arms:
            pairs = zip(kept.pop(f"{name}/many"), kept.pop(f"{name}/few"), strict=True)
            kept[name] = [(long - short) / (many - few) for long, short in pairs]
    return measured


class LastExit(torch.nn.Module):
    """The net as any tool sees it that knows of no exits: every node runs, the last answers."""

    def __init__(self, model: AdaptiveModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.dense_logits(x)[:, -1]


def attack_steps(system: str, test: Split, model: AdaptiveModel, blocks: int) -> dict[str, Any]:
    """A step of DeepSloth on exits, of ILFO on gates, beside bare loops and torchattacks' PGD.

    What is compared is a step of one picture: who has retired takes none.
    """
    import torchattacks

    small = system.startswith("digits")
    n, few, many = (128, 10, 40) if small else (16, 3, 9)
    some = test.images(0, 3 * n)
    rows = model.infer(some).macs.argsort(stable=True)[:n]  # the farthest from the ceiling: who is there takes no step
    x, y, ids = some[rows], test.y[rows], test.ids[rows]
    gated = not isinstance(model, DecisionGraph)
    name = "ilfo" if gated else "deepsloth"
    settings: dict[str, Any] = {"eps": "1/255"} | ({} if gated else {"step": 0.0005})
    ran: dict[int, int] = {}

    def ours(steps: int) -> None:
        made = ab.attacks.load_attack(name, settings | {"steps": steps}).craft(model, x, y, ids=ids, seed=0)
        ran[steps] = made.details["steps_run"]

    def loss_of(adv: torch.Tensor) -> torch.Tensor:
        if gated:
            return model.gated_forward(adv, temperature=0.1)[1].clamp(max=0).sum()  # type: ignore[operator]
        logits = model.dense_logits(adv)[:, :-1].flatten(0, 1)
        return F.cross_entropy(logits, torch.full_like(logits, 1 / logits.shape[1]))

    def bare(steps: int) -> None:
        adv = x.clone()
        for _ in range(steps):
            adv = adv.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss_of(adv), adv)
            adv = (adv - 0.0005 * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)

    def pgd(on: torch.nn.Module) -> Callable[[int], object]:
        return lambda steps: torchattacks.PGD(on, eps=EPS, alpha=0.0005, steps=steps)(x, y)

    arms = {"ours": ours, "bare": bare, "pgd": pgd(LastExit(model)), "pgd on the path taken": pgd(model)}
    with requires_no_weights(model):
        timed = per_step(arms, few, many, blocks)
        whole = Blocks({"ours": lambda: ours(30), "bare": lambda: bare(30)}, blocks)
    share = (ran[many] - ran[few]) / (len(x) * (many - few))
    for kept in (timed.cpu, timed.wall):
        kept["ours"] = [seconds / share for seconds in kept["ours"]]
    for kept in (whole.cpu, whole.wall):
        kept["ours"] = [seconds / (ran[30] / (30 * len(x))) for seconds in kept["ours"]]
    return {
        "attack": name,
        "steps taken": share,
        "pictures": len(x),
        "step_ms": 1e3 * statistics.median(timed.cpu["ours"]),
        "bare ÷ ours": timed.ratio("bare", "ours"),
        "pgd ÷ ours": timed.ratio("pgd", "ours"),
        "pgd on the path taken ÷ ours": timed.ratio("pgd on the path taken", "ours"),
        "bare ÷ ours, whole craft of 30 steps": whole.ratio("bare", "ours"),
    }


@contextmanager
def requires_no_weights(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients of weights, for every arm alike."""
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    model.eval()
    for p, _ in wanted:
        p.requires_grad_(False)
    yield
    for p, was in wanted:
        p.requires_grad_(was)


def rows_of(system: str, blocks: int) -> dict[str, Any]:
    """All rows of a system, or those of the executor alone."""
    data, _, name = system.partition("/")
    test, model = ab.load_data(data).split("test"), ab.load_model(name, data)
    rows: dict[str, Any] = {"macs_full": model.macs_full}
    if system not in EXECUTED:
        rows["attack"] = attack_steps(system, test, model, blocks)
        rows["runner"] = runner(data, name, 1000 if data == "digits" else 256, blocks)
    rows["executor"] = {str(size): executor(model, test, size, blocks) for size in SIZES}
    if system not in EXECUTED and isinstance(model, DecisionGraph) and model.policy.uses_history is False:
        rows["instead"] = {str(size): instead(model, test, size, blocks) for size in SIZES}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=(*SYSTEMS, *EXECUTED))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = begun(options.json, heading(threads=1, blocks=options.blocks, systems={}))
    for system in options.systems:
        if system not in found["systems"]:
            found["systems"][system] = rows_of(system, options.blocks)
            keep(found, options.json, system, found["systems"][system])


if __name__ == "__main__":
    main()
