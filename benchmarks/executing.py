"""Rows of benchmarks/performance.py: the executor, the runner, what others do instead, and where a call's time goes."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from turns import Arms, Blocks

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel, DecisionGraph, GatedNetwork, Split
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.parts import EXECUTOR, NODES, POLICY, Lap, no_lap
from adaptbench.adaptive.plans import has_margin
from adaptbench.adaptive.policy import Policy
from adaptbench.bench.evaluate import as_input, evaluate_chunk
from adaptbench.bench.plan import make_plan
from adaptbench.bench.suite import load_suite

RESTORING = frozenset({"clone", "index_copy", "index_copy_", "empty_like"})
"""What puts answers into the order of the batch; everything else that the executor asks of torch hands rows over."""


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


# ---------------------------------------------------------------------- the executor


def parts_of(model: AdaptiveModel, run: Callable[[], object]) -> list[Callable[[], object]]:
    """Calls of nodes and of the policy, or gates, that a run makes, each to be made again alone at the same size.

    The sum of a block's branches is its own, as it is the plain net's: it is called at the rows that ran the body.
    """
    calls: list[Callable[[], object]] = []
    if isinstance(model, DecisionGraph):
        modules: list[torch.nn.Module] = [*model.stages, *model.heads]
        keeper, methods = model.policy, ("scores", "margin", "predict")
    else:
        assert isinstance(model, GatedNetwork)
        modules = [model.stem, *model.bodies, *model.shortcuts, *model.afters, model.head]
        keeper, methods = model.gates, ("start", "margin")  # type: ignore[assignment]
    inside = [0]

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
    if isinstance(model, GatedNetwork):
        hooks += [
            body.register_forward_hook(lambda _, given, made: calls.append(again(torch.add, (made, made))))
            for body, whole in zip(model.bodies, model.whole, strict=True)
            if not whole
        ]
    methods = tuple(method for method in methods if _is_called(model, method))
    for method in methods:
        own = getattr(keeper, method)

        def noting(*given: Any, own: Callable[..., Any] = own) -> Any:
            if not inside[0]:  # what a method asks of another is its own
                calls.append(again(own, given))
            inside[0] += 1
            try:
                return own(*given)
            finally:
                inside[0] -= 1

        object.__setattr__(keeper, method, noting)
    run()
    for hook in hooks:
        hook.remove()
    for method in methods:
        object.__delattr__(keeper, method)
    return calls


def _is_called(model: AdaptiveModel, method: str) -> bool:
    """Whether a pass calls it: one that somebody put in a method's place changes what the pass calls."""
    if not isinstance(model, DecisionGraph):
        return True
    policy = model.policy
    by_margin = has_margin(policy)
    if method == "predict":
        return type(policy).predict is not Policy.predict
    return by_margin if method == "margin" else not by_margin


def modes_of(model: AdaptiveModel, x: torch.Tensor, size: int) -> dict[str, Callable[[Lap], object]]:
    """Mode → all pictures through it. A stream of one batch has no queues."""
    batches = list(x.split(size))
    modes: dict[str, Callable[[Lap], object]] = {"compacted": lambda lap: [model.serve(b, lap=lap) for b in batches]}
    if "queues" in model.modes and 1 < size < len(x):
        modes["queues"] = lambda lap: model.serve(x, full=size, lap=lap)
    return modes


def pictures(test: Split, size: int) -> torch.Tensor:
    """Enough for two batches and more."""
    return test.images(0, max(size, 64) if size < 256 else 512)


def executor(model: AdaptiveModel, test: Split, size: int, blocks: int) -> dict[str, Any]:
    """Isolated time of nodes and policy at the sizes that arrive ÷ time of the call, by mode; and its profile."""
    x = pictures(test, size)
    told: dict[str, Any] = {}
    with model.serving():
        model.serve(x)  # counted before anybody notes a call
        for mode, through in modes_of(model, x, size).items():
            run = lambda through=through: through(no_lap)  # noqa: E731
            calls = parts_of(model, run)
            arms: Arms = {"parts": lambda calls=calls: [call() for call in calls], "call": run}
            if mode == "compacted":
                arms["infer"] = lambda: [model.infer(b) for b in x.split(size)]
            timed = Blocks(arms, 2 * blocks)
            told[mode] = timed.ratio("parts", "call") | {
                "calls": len(calls),
                "call_us": 1e6 * statistics.median(timed.cpu["call"]) / len(x),
                "profile": profile(modes_of(model, x[: max(2 * size, 64)], size)[mode], blocks),
            }
            if mode == "compacted":
                told["compacted, with checks and records"] = timed.ratio("parts", "infer")
    return told


class _Asked(TorchFunctionMode):
    """What is asked of torch between two laps, by whom."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: list[tuple[str, Callable[[], object]]] = []
        self.of_executor: list[tuple[str, Callable[[], object]]] = []

    def lap(self, part: str) -> None:
        if part == EXECUTOR:
            self.of_executor += self.fresh
        self.fresh = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in ("__get__", "__set__", "dim", "size"):  # what asks for a shape runs nothing
            self.fresh.append((name, lambda: func(*args, **given)))
        return func(*args, **given)


def profile(run: Callable[[Lap], object], rounds: int) -> dict[str, float]:
    """Shares of a call, medians over rounds: node, policy, hand-over, restored order, and Python around them.

    Node and policy are read by a clock inside the call. Of the rest, what was asked of torch is called again alone, in
    two groups; what then is left is Python's: the loop, the bookkeeping, and the clock itself.
    """
    asked = _Asked()
    with asked:
        run(asked.lap)
    groups = {
        "restored order": [call for name, call in asked.of_executor if name in RESTORING],
        "hand-over": [call for name, call in asked.of_executor if name not in RESTORING],
    }
    shares: dict[str, list[float]] = {}
    for _ in range(rounds + 1):
        spent: Counter[str] = Counter()
        began = last = time.process_time()

        def lap(part: str) -> None:
            nonlocal last
            now = time.process_time()
            spent[part] += now - last  # noqa: B023
            last = now

        run(lap)
        whole = time.process_time() - began
        found = {"node": spent[NODES], "policy": spent[POLICY]}
        for name, calls in groups.items():
            start = time.process_time()
            for call in calls:
                call()
            found[name] = time.process_time() - start
        found["python"] = whole - sum(found.values())
        for name, seconds in found.items():
            shares.setdefault(name, []).append(seconds / whole)
    return {name: statistics.median(of[1:]) for name, of in shares.items()} | {"calls of torch": len(asked.of_executor)}


# ---------------------------------------------------------------------- what others do


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


def written_out(model: DecisionGraph, x: torch.Tensor) -> torch.Tensor:
    """One sample by hand, with nothing in it that one sample of this net does not need."""
    for v, (stage, head) in enumerate(zip(model.stages, model.heads, strict=True)):
        x = stage(x)
        logits = head(x)
        if v == len(model.reads) - 1:
            break
        signals = Signals(logits, ways=model.structure.successors[v])
        if has_margin(model.policy):
            going = model.policy.margin(v, signals).item() > 0
        else:
            stop, go = model.policy.scores(v, signals)[0].tolist()
            going = go > stop
        if not going:
            break
    return logits


def instead(model: DecisionGraph, test: Split, size: int, blocks: int) -> dict[str, Any]:
    """The same batches by what others do: time of each ÷ time of the static net."""
    x = pictures(test, size)
    batches = list(x.split(size))
    arms: Arms = {
        "static": lambda: [model.serve_reference(b) for b in batches],
        "all exits, then choose": lambda: [model.dense_logits(b) for b in batches],
        "slowest in the batch": lambda: [slowest_in_batch(model, b) for b in batches],
        "compacted": lambda: [model.serve(b) for b in batches],
    }
    if 1 < size < len(x):
        arms["queues"] = lambda: model.serve(x, full=size)
    if size == 1 and list(model.reads) == list(range(-1, len(model.reads) - 1)):
        arms["written out for one sample"] = lambda: [written_out(model, b) for b in batches]
    with model.serving():
        model.serve(x)
        timed = Blocks(arms, blocks)
        macs = float(model.infer(x).macs.double().mean())
        whole = torch.cat([slowest_in_batch(model, b) for b in batches]).argmax(1)
        agree = float((whole == model.infer(x).predictions).double().mean())
    told: dict[str, Any] = {name: timed.ratio(name, "static") for name in arms if name != "static"}
    told |= {
        f"compacted ÷ {name}": timed.ratio("compacted", name)
        for name in ("all exits, then choose", "slowest in the batch", "written out for one sample")
        if name in arms
    }
    return told | {"macs": macs / model.macs_full, "slowest in the batch answers alike": agree}
