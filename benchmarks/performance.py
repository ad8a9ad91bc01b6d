"""The first tables of docs/performance.md: attack steps, the runner, the executor, and what others do instead.

    OMP_NUM_THREADS=1 python benchmarks/performance.py [--blocks 5] [--json benchmarks/performance.json]
    python docs/performance_page.py

Arms of a table run in turn, the order turned round from block to block, and are compared block by block: CPU time
of this process, which neighbours on the machine hardly touch, and the clock on the wall beside it. What stands
below a ratio is its median over blocks and its extremes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from kept import heading, keep

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split
from adaptbench.adaptive.outcome import Signals
from adaptbench.bench.evaluate import as_input, evaluate_chunk
from adaptbench.bench.plan import make_plan
from adaptbench.bench.suite import load_suite

Arms = dict[str, Callable[[], object]]
SYSTEMS = ("digits/softmax-threshold", "digits/skipnet", "cifar10/sdn")
SIZES = (1, 32, 256)
EPS = 1 / 255
LEAST_S = 0.1
"""What an arm is repeated for in a block."""


class Blocks:
    """Seconds of each arm in each block, by two clocks."""

    def __init__(self, arms: Arms, blocks: int, least_s: float = LEAST_S) -> None:
        repeats: dict[str, int] = {}
        for name, run in arms.items():
            run()
            began = time.perf_counter()
            run()
            repeats[name] = max(1, round(least_s / max(time.perf_counter() - began, 1e-6)))
        self.cpu: dict[str, list[float]] = {name: [] for name in arms}
        self.wall: dict[str, list[float]] = {name: [] for name in arms}
        for block in range(blocks):
            for name in list(arms) if block % 2 == 0 else list(reversed(arms)):
                cpu, wall = time.process_time(), time.perf_counter()
                for _ in range(repeats[name]):
                    arms[name]()
                self.cpu[name].append((time.process_time() - cpu) / repeats[name])
                self.wall[name].append((time.perf_counter() - wall) / repeats[name])

    def ratio(self, top: str, bottom: str) -> dict[str, float]:
        """CPU time of one arm over another's: median, extremes, and the median by the wall's clock."""
        cpu = [a / b for a, b in zip(self.cpu[top], self.cpu[bottom], strict=True)]
        wall = [a / b for a, b in zip(self.wall[top], self.wall[bottom], strict=True)]
        return {"cpu": statistics.median(cpu), "min": min(cpu), "max": max(cpu), "wall": statistics.median(wall)}


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


def runner(data: str, name: str, n: int, blocks: int) -> dict[str, Any]:
    """A chunk of clean pictures through the runner, with its records, beside a bare loop of the same pass."""
    suite = load_suite("ci", [f"data={data}", "limit=null", f"models=[{name}]", "conditions=[clean]"])
    (evaluation,) = make_plan(suite).evaluations
    n = min(len(evaluation.split), n)
    model, x = evaluation.model, evaluation.split.x[:n]

    def bare() -> None:
        with model.serving():
            model.serve(as_input(x, "cpu")).argmax(1)

    def ours() -> None:
        evaluate_chunk(evaluation, 0, n, device="cpu", surrogate=lambda other: ab.load_model(other, data))

    timed = Blocks({"runner": ours, "bare": bare}, 2 * blocks)
    return {"samples": n, "macs_full": model.macs_full, "runner ÷ bare": timed.ratio("runner", "bare")}


def parts_of(model: AdaptiveModel, run: Callable[[], object]) -> list[Callable[[], object]]:
    """Calls of nodes and of the policy, or gates, that a run makes, each to be made again alone at the same size."""
    calls: list[Callable[[], object]] = []
    if isinstance(model, DecisionGraph):
        modules: list[torch.nn.Module] = [*model.stages, *model.heads]
        keeper, methods = model.policy, ("scores", "predict")
    else:
        modules = [model.stem, *model.bodies, *model.shortcuts, *model.afters, model.head]  # type: ignore[list-item,misc]
        keeper, methods = model.gates, ("start", "margin")  # type: ignore[assignment]

    def again(method: Callable[..., Any], given: tuple[Any, ...]) -> Callable[[], object]:
        def call() -> object:
            fresh = [
                Signals(g.logits, ways=g.ways, history=g.history, visited=g.visited, seeds=g.seeds)
                if isinstance(g, Signals)
                else g
                for g in given
            ]
            return method(*fresh)

        return call

    hooks = [
        module.register_forward_pre_hook(lambda m, given: calls.append(again(m, given)))
        for module in {id(m): m for m in modules}.values()
        if not isinstance(module, torch.nn.Identity)
    ]
    for method in methods:
        own = getattr(keeper, method)

        def noting(*given: Any, own: Callable[..., Any] = own) -> Any:
            calls.append(again(own, given))
            return own(*given)

        object.__setattr__(keeper, method, noting)
    run()
    for hook in hooks:
        hook.remove()
    for method in methods:
        object.__delattr__(keeper, method)
    return calls


def executor(model: AdaptiveModel, test: Split, size: int, blocks: int) -> dict[str, Any]:
    """Isolated time of nodes and policy at the sizes that arrive ÷ time of the call, by mode."""
    x = test.images(0, max(size, 64) if size < 256 else 512)
    batches = list(x.split(size))
    modes: Arms = {"compacted": lambda: [model.serve(b) for b in batches]}
    if "queues" in model.modes and 1 < size < len(x):
        modes["queues"] = lambda: model.serve(x, full=size)
    told: dict[str, Any] = {}
    with model.serving():
        model.serve(x)  # counted before anybody notes a call
        for mode, run in modes.items():
            calls = parts_of(model, run)
            arms: Arms = {"parts": lambda calls=calls: [call() for call in calls], "call": run}
            if mode == "compacted":
                arms["infer"] = lambda: [model.infer(b) for b in batches]
            timed = Blocks(arms, 2 * blocks)
            told[mode] = timed.ratio("parts", "call") | {"calls": len(calls)}
            if mode == "compacted":
                told["compacted, with checks and records"] = timed.ratio("parts", "infer")
    return told


def slowest_in_batch(model: DecisionGraph, x: torch.Tensor) -> torch.Tensor:
    """Early exit as most toolkits have it: the batch goes on until its last sample may leave."""
    answers: torch.Tensor | None = None
    staying, features = torch.ones(len(x), dtype=torch.bool), [x]
    for v, (stage, head, source) in enumerate(zip(model.stages, model.heads, model.reads, strict=True)):
        features.append(stage(features[source + 1]))
        logits = head(features[-1])
        answers = logits if answers is None else torch.where(staying[:, None], logits, answers)
        if v == len(model.reads) - 1:
            break
        signals = Signals(logits, ways=model.structure.successors[v])
        scores = model.policy.scores(v, signals)
        staying = staying & (scores[:, 1] > scores[:, 0])
        if not staying.any():
            break
    assert answers is not None
    return answers


def instead(model: DecisionGraph, test: Split, size: int, blocks: int) -> dict[str, Any]:
    """The same batches by what others do: time of each ÷ time of the static net."""
    x = test.images(0, max(size, 64) if size < 256 else 512)
    batches = list(x.split(size))
    arms: Arms = {
        "static": lambda: [model.serve_reference(b) for b in batches],
        "all exits, then choose": lambda: [model.dense_logits(b) for b in batches],
        "slowest in the batch": lambda: [slowest_in_batch(model, b) for b in batches],
        "compacted": lambda: [model.serve(b) for b in batches],
    }
    if 1 < size < len(x):
        arms["queues"] = lambda: model.serve(x, full=size)
    with model.serving():
        timed = Blocks(arms, blocks)
        macs = float(model.infer(x).macs.double().mean())
        whole = torch.cat([slowest_in_batch(model, b) for b in batches]).argmax(1)
        agree = float((whole == model.infer(x).predictions).double().mean())
    told: dict[str, Any] = {name: timed.ratio(name, "static") for name in arms if name != "static"}
    return told | {"macs": macs / model.macs_full, "slowest in the batch answers alike": agree}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = heading(threads=1, blocks=options.blocks, systems={})
    for system in options.systems:
        data, _, name = system.partition("/")
        test, model = ab.load_data(data).split("test"), ab.load_model(name, data)
        rows: dict[str, Any] = {
            "macs_full": model.macs_full,
            "attack": attack_steps(system, test, model, options.blocks),
            "runner": runner(data, name, 1000 if data == "digits" else 256, options.blocks),
            "executor": {str(size): executor(model, test, size, options.blocks) for size in SIZES},
        }
        if isinstance(model, DecisionGraph) and model.policy.uses_history is False:
            rows["instead"] = {str(size): instead(model, test, size, options.blocks) for size in SIZES}
        found["systems"][system] = rows
        keep(found, options.json, system, rows)


if __name__ == "__main__":
    main()
