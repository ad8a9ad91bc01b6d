"""A net as it is deployed on one machine: parts compiled where that was measured to be faster there.

The plan is made once of net, policy and some batches. Each part (stage, head, stem, body, …) is compiled alone, by
torch.compile for any number of rows, or on a card into CUDA graphs of some, and stays compiled only if its calls at the
sizes that arrive took less time than the part as it is, and the whole with it. The static reference is treated alike,
by its own calls. Compiled sums round otherwise. So the plan's ways and answers are held against the net's on the same
batches, and MACs are the net's own: what is counted is never compiled code.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.compilable import Seen, calls_of, groups_of, has_parts, parts_of, rows_of
from adaptbench.adaptive.compilers import (
    Compiler,
    compiler_for,
    no_compiling,
    padding_of,
    prepared,
    why_no_compiler,
)
from adaptbench.adaptive.graphed import Call
from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.outcome import Inference
from adaptbench.adaptive.parts import Lap, no_lap
from adaptbench.errors import CapabilityError

GAIN = 0.97
"""Of a part's time, at most, for the compiled one to stay: what is nearer is told by no five rounds."""
ROUNDS, LEAST_S = 5, 0.005
_NOT_TOGETHER = "it is faster alone, and the net is not faster for it"
_LONGEST = 300
_NEAR = 1e-4
"""Of the largest logit: answers whose first two classes are nearer than that may change place by rounding."""

Batches = Sequence[tuple[Tensor, Tensor | None]]
"""Inputs and seeds, as they are handed over."""


@dataclass(frozen=True, slots=True)
class CompiledPart:
    """What became of a part.

    Args:
        name: group and place, such as ``stages.0``. calls: that the batches made, by rows.
        plain_s, compiled_s: of those calls together, medians over rounds, CPU seconds, of a GPU by the clock on the
            wall; None where it was not timed.
        kept: it runs compiled. in_reference: it does in the static reference, whose calls are others.
        reason: why it could not be compiled; empty where it could.
        padding: rows that run beyond those that arrive, as a share of those: graphs run fixed numbers.
    """

    name: str
    calls: dict[int, int]
    plain_s: float | None = None
    compiled_s: float | None = None
    kept: bool = False
    in_reference: bool = False
    reason: str = ""
    padding: float = 0.0


class CompiledPlan:
    """A net with some parts compiled. Made by `compile_parts`.

    Attributes:
        model: as it was given; nothing of it is changed. parts: what became of each.
        agreement: rows that were compared; those that went another way or answer otherwise, all of them ties.
        whole: seconds of the batches, as `CompiledPart` has them, of the net and with the parts that are faster alone;
            None where none is.
        reference: the same of the static reference.
    """

    def __init__(self, model: AdaptiveModel, parts: Sequence[CompiledPart], made: dict[str, Call]) -> None:
        self.model, self.parts = model, tuple(parts)
        self._net = _with_parts(model, {part.name: made[part.name] for part in parts if part.kept})
        self._static = _with_parts(model, {part.name: made[part.name] for part in parts if part.in_reference})
        self.agreement: dict[str, int] = {}
        self.whole: tuple[float, float] | None = None
        self.reference: tuple[float, float] | None = None

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the parts that run compiled."""
        return tuple(part.name for part in self.parts if part.kept)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Ready to serve, and nothing is compiled inside: a call of a new kind runs the part as it is."""
        with self.model.serving(), no_compiling():
            yield

    def serve(self, x: Tensor, *, seeds: Tensor | None = None, lap: Lap = no_lap, full: int | None = None) -> Tensor:
        """(N, C) logits, as `AdaptiveModel.serve` gives them; inside `serving`."""
        return self._net.serve(x, seeds=seeds, lap=lap, full=full)

    def serve_reference(self, x: Tensor) -> Tensor:
        """The static reference, its parts compiled where that is faster for it; inside `serving`."""
        return self._static.serve_reference(x)

    def check(self, batches: Batches) -> None:
        """Hold ways and answers against the net's own, and the reference's answers against its own.

        Raises:
            CapabilityError: a row that is no tie goes another way, or is answered otherwise.
        """
        told = dict.fromkeys(("rows", "other_ways", "other_answers"), 0)
        with self.serving():
            for x, seeds in batches:
                here, there = (net._run(net.taken(x), seeds=seeds, labels=None, force=None) for net in self._both)
                ways, answers = _apart(here, there)
                told["rows"] += len(x)
                told["other_ways"] += int(ways.sum())
                told["other_answers"] += int(answers.sum())
                bad = int((ways & ~(here.tie | there.tie)).sum())
                bad += int((answers & ~ways & ~_level(there.logits)).sum())
                plain, own = self.serve_reference(x), self.model.serve_reference(x)
                other = (plain.argmax(1) != own.argmax(1)).reshape(len(x), -1).any(1)
                if bad := bad + int((other & ~_level(own)).sum()):
                    raise CapabilityError(
                        f"{bad} of {len(x)} rows go another way through the compiled net, or are answered otherwise, "
                        "and none of them is a tie.",
                        why="It would be another net that is timed.",
                        todo="Deploy it as it is.",
                    )
        self.agreement = told

    @property
    def _both(self) -> tuple[AdaptiveModel, AdaptiveModel]:
        return self._net, self.model


def compile_parts(
    model: AdaptiveModel,
    batches: Batches,
    *,
    gain: float = GAIN,
    compiler: Compiler | None = None,
) -> CompiledPlan:
    """Compile each part of a net alone, time it beside the part as it is, and keep what is faster.

    It takes from seconds to minutes, all of it here: inside `CompiledPlan.serving` nothing is compiled.

    Args:
        model: a decision graph or a gated net, in its own pass. batches: inputs and seeds as they will be served; their
            sizes, and those that reach each part, are what parts are timed at.
        gain: a compiled part stays if it takes at most so much of the part's time.
        compiler: what makes a part faster; `compiler_for` the model's device, if None.

    Raises:
        CapabilityError: another kind of net, no compiler here, or a compiled net that is another net.
    """
    compiler = _compiler(model, compiler)
    made: dict[str, Call] = {}
    parts: list[CompiledPart] = []
    with model.serving():
        for name, (part, seen, static) in _seen_by_part(model, batches).items():
            told, call = _compiled(name, part, seen, static, compiler, gain)
            parts.append(told)
            made[name] = call
    plan = CompiledPlan(model, parts, made)
    if any(part.kept or part.in_reference for part in parts):
        plan.check(batches)
        plan.whole = _whole(plan, batches) if plan.kept else None
        if any(part.in_reference for part in parts):
            plan.reference = _whole_reference(plan, batches)
        pays, pays_there = (both is not None and both[1] <= gain * both[0] for both in (plan.whole, plan.reference))
        left = [
            replace(
                part,
                kept=part.kept and pays,
                in_reference=part.in_reference and pays_there,
                reason=_NOT_TOGETHER if part.kept and not pays else part.reason,
            )
            for part in parts
        ]
        pruned = CompiledPlan(model, left, made)
        pruned.agreement, pruned.whole, pruned.reference = plan.agreement, plan.whole, plan.reference
        return pruned
    return plan


def compile_again(
    model: AdaptiveModel, batches: Batches, parts: Sequence[CompiledPart], *, compiler: Compiler | None = None
) -> CompiledPlan:
    """A plan that was made before, of the same net and batches: the same parts are compiled, and none is timed.

    Args:
        parts: of the plan that was made. The others: as of `compile_parts`.

    Raises:
        CapabilityError: as `compile_parts`; or a part that was compiled cannot be any more.
    """
    compiler = _compiler(model, compiler)
    wanted = {part.name for part in parts if part.kept or part.in_reference}
    made: dict[str, Call] = {}
    with model.serving():
        for name, (part, seen, static) in _seen_by_part(model, batches).items():
            if name in wanted:
                try:
                    made[name] = _call_of(part, seen, static, compiler)
                except Exception as error:
                    raise CapabilityError(
                        f"{name} was compiled before and cannot be any more: {_said(error)}.",
                        why="Another plan would be timed beside the windows of this one.",
                        todo="Run it afresh (--fresh).",
                    ) from error
    plan = CompiledPlan(model, parts, made)
    plan.check(batches)
    return plan


def _compiler(model: AdaptiveModel, given: Compiler | None) -> Compiler:
    if not has_parts(model):
        raise CapabilityError(
            f"a {model.shape} model of this kind has no parts that can be compiled one by one.",
            why="It runs a pass of its own.",
            todo="Serve it as it is.",
        )
    if given is None and (reason := why_no_compiler(_device(model))):
        raise CapabilityError(f"nothing can be compiled: {reason}.", todo="Serve the net as it is.")
    return given or compiler_for(_device(model))


def _device(model: AdaptiveModel) -> torch.device:
    weights = next(model.parameters(), None)
    return torch.device("cpu") if weights is None else weights.device


def _seen_by_part(model: AdaptiveModel, batches: Batches) -> dict[str, tuple[nn.Module, Seen, Seen]]:
    """Name → part, what the net calls of it, what the static reference does; inside `serving`."""
    of_net = calls_of(model, lambda: _all_served(model, batches))
    of_reference = calls_of(model, lambda: [model.serve_reference(x) for x, _ in batches])
    return {name: (part, of_net[name], of_reference[name]) for name, part in parts_of(model).items()}


def _call_of(part: nn.Module, seen: Seen, static: Seen, compiler: Compiler) -> Call:
    """A part, compiled for what it is called with."""
    given = sorted([*static.given.values(), *seen.given.values()], key=rows_of, reverse=True)
    return prepared(compiler(part), given, {*seen.calls, *static.calls})


def _said(error: Exception) -> str:
    told = " ".join(str(error).split("\n\n")[0].split())  # what follows is advice on torch's own switches
    return f"{type(error).__name__}: {told[:_LONGEST]}"


def _compiled(
    name: str, part: nn.Module, seen: Seen, static: Seen, compiler: Compiler, gain: float
) -> tuple[CompiledPart, Call]:
    """One part, compiled and timed."""
    calls = dict(sorted(seen.calls.items()))
    try:
        call = _call_of(part, seen, static, compiler)
    except Exception as error:  # of dynamo, inductor or the C++ compiler: whatever it is, the part runs as it is
        return CompiledPart(name, calls, reason=_said(error)), part
    with no_compiling():
        (plain, quick), (alone, compiled) = _timed(part, call, seen), _timed(part, call, static)
    pays, pays_there = (0 < fast <= gain * slow for fast, slow in ((quick, plain), (compiled, alone)))
    told = CompiledPart(name, calls, None, None, pays, pays_there, padding=padding_of(call, calls))
    return replace(told, plain_s=plain, compiled_s=quick) if calls else told, call


def _timed(part: Call, call: Call, seen: Seen) -> tuple[float, float]:
    """Seconds of all calls together, of the part and of what was compiled."""

    def seconds(of: Call) -> float:
        return sum(seen.weight(n) * _seconds(partial(of, given), _place(given)) for n, given in seen.given.items())

    return _in_turns(lambda: seconds(part), lambda: seconds(call))


def _whole(plan: CompiledPlan, batches: Batches) -> tuple[float, float]:
    """Seconds of all batches, of the net and of the plan."""

    def seconds(net: AdaptiveModel | CompiledPlan) -> float:
        with net.serving():
            return _seconds(lambda: _all_served(net, batches), _device(plan.model), 10 * LEAST_S)

    return _in_turns(lambda: seconds(plan.model), lambda: seconds(plan))


def _whole_reference(plan: CompiledPlan, batches: Batches) -> tuple[float, float]:
    """The same of the static reference."""

    def seconds(net: AdaptiveModel | CompiledPlan) -> float:
        with net.serving():
            return _seconds(lambda: [net.serve_reference(x) for x, _ in batches], _device(plan.model), 10 * LEAST_S)

    return _in_turns(lambda: seconds(plan.model), lambda: seconds(plan))


def _in_turns(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Medians over rounds, each begun by the other one."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS):
        for place in (0, 1) if turn % 2 == 0 else (1, 0):
            found[place].append((one, other)[place]())
    return statistics.median(found[0]), statistics.median(found[1])


def _seconds(call: Callable[[], object], device: torch.device, least_s: float = LEAST_S) -> float:
    """Of a call: CPU time, or of a GPU the wall's, waited for."""

    def now() -> float:
        if device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(device)
        return time.perf_counter()

    call()
    began, done, spent = now(), 0, 0.0
    while spent < least_s or not done:
        call()
        done += 1
        spent = now() - began
    return spent / done


def _place(given: Any) -> torch.device:
    return next(leaf.device for leaf in tree_leaves(given) if isinstance(leaf, Tensor))


def _all_served(net: AdaptiveModel | CompiledPlan, batches: Batches) -> None:
    for x, seeds in batches:
        net.serve(x, seeds=seeds)


def _with_parts(model: AdaptiveModel, made: dict[str, Call]) -> AdaptiveModel:
    """The same net, every tensor shared, with other calls in the place of some parts; it counts as the net itself."""
    lists, single = groups_of(model)
    twin = copy.copy(model)
    inside = twin.__dict__
    inside["_modules"] = dict(model._modules)
    for name in single:
        inside[name] = made.get(name, inside["_modules"].pop(name))
    for name in lists:
        inside[name] = [made.get(f"{name}.{i}", part) for i, part in enumerate(inside["_modules"].pop(name))]
    inside["_counted"] = model._counted
    return twin


def _apart(here: Inference, there: Inference) -> tuple[Tensor, Tensor]:
    """(n,) bool each: another way, another answer; of images that every pixel answers, any pixel's."""
    other = here.predictions != there.predictions
    return (here.path != there.path).any(1), other.flatten(1).any(1) if other.ndim > 1 else other


def _level(logits: Tensor) -> Tensor:
    """(n,) bool: the first two classes are as good as level, at some pixel where every pixel answers."""
    top = logits.float().topk(2, dim=1).values
    near = (top[:, 0] - top[:, 1]) <= _NEAR * logits.abs().amax().clamp_min(1.0)
    return near.flatten(1).any(1) if near.ndim > 1 else near
