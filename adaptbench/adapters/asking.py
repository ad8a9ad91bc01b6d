"""A module as it is asked: pictures in, logits of each exit out, everything else bound."""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from adaptbench.adapters.feeding import Feed
from adaptbench.adapters.tracing import Tracer, UntraceableError
from adaptbench.adapters.whole import Whole
from adaptbench.adaptive.foreign import runs
from adaptbench.errors import AdaptBenchError, GraphError
from adaptbench.registry import did_you_mean

_TORCH, _HERE = Path(torch.__file__).parent, Path(__file__).parent.parent
_MOST_TRIES = 24


class Asked(nn.Module):
    """A module that takes a batch and nothing else.

    Args:
        module: somebody's. feed: how its forward is called.
        answers: what its forward returns → what is wanted of it.
    """

    def __init__(self, module: nn.Module, feed: Feed, answers: Callable[[Any], Any]) -> None:
        super().__init__()
        self.module, self.feed, self.answers = module, feed, answers

    def forward(self, x: Any) -> Any:
        """(n, …) → the answers."""
        return self.answers(self.feed.call(self.module, x))


def unwrapped(module: Any) -> nn.Module:
    """The module itself, out of what `torch.compile` and the data-parallel wrappers put around it.

    Raises:
        GraphError: it is no module.
    """
    while isinstance(module, nn.Module):
        inner = module._modules.get("_orig_mod")
        if inner is None and isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if inner is None:
            return module
        module = inner
    raise GraphError(
        f"a {type(module).__name__} was given where a torch module is wanted.",
        todo="Give an nn.Module; a plain function of pictures is a black box: ab.BlackBox(fn, …).",
    )


def check_bound(module: nn.Module, feed: Feed, example: Tensor) -> None:
    """Every input of forward has a value.

    Args:
        example: (n, …) to make the inputs of, where they are made.

    Raises:
        GraphError: one has none, or one is named that forward does not take.
    """
    try:
        given = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # forwards without a signature: running will say
        return
    name = type(module).__name__
    with runs("inputs="):
        positional, named = feed.given(example)
    named = {**named, **feed.kwargs}
    plain = [p for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes = [p.name for p in plain[len(positional) :]]
    if not any(p.kind is p.VAR_KEYWORD for p in given):
        for unknown in [key for key in named if key not in takes]:
            raise GraphError(
                f"{name}.forward takes no input '{unknown}'.",
                todo=f"{did_you_mean(unknown, takes)}Besides it takes: {', '.join(takes) or 'nothing'}.",
            )
    if needed := [p.name for p in plain[len(positional) :] if p.default is p.empty and p.name not in named]:
        raise GraphError(
            f"{name}.forward takes {len(needed) + len(positional)} inputs; without a value: {', '.join(needed)}.",
            why="A sample is one tensor; all else is the same for every sample, or follows from it.",
            todo=f"Bind what is the same: kwargs={{{', '.join(f'{p!r}: …' for p in needed)}}}; make of the batch what "
            f"follows from it: inputs=lambda x: (x, {', '.join('…' for _ in needed)}), a mask of ids: (x, x != 0).",
        )


def graph_of(whole: Whole, probes: Sequence[Tensor]) -> tuple[fx.GraphModule, set[int]]:
    """The operations of a forward, in eval mode; it returns the logits of each exit.

    Sub-modules that cannot be entered are taken whole, as the exits are.

    Args:
        probes: two batches of pictures of different sizes.

    Returns:
        the graph, and batch sizes at which forward asks for their number.

    Raises:
        GraphError: forward does what no graph can hold; the line is named.
    """
    exits = [f"module.{e}" for e in whole.exits or ()]
    closed: set[str] = set(exits)
    first: Exception | None = None
    for _ in range(_MOST_TRIES):
        tracer = Tracer(probes, closed)
        asked = Asked(whole.module, whole.feed, partial(_answers, whole, tracer))
        try:
            return tracer.traced(asked), tracer.sizes_asked
        except Exception as error:  # whatever the module's code does with a value under trace
            first = first or error
            more = _to_close(asked, tracer, closed, exits)
            if not more or isinstance(error, AdaptBenchError):
                break
            closed = closed | more
    assert first is not None
    said = str(first) if isinstance(first, (UntraceableError, AdaptBenchError)) else f"{type(first).__name__}: {first}"
    raise GraphError(
        f"{whole.name} could not be traced{_where(first)}: {said}",
        why="To skip what follows an exit, forward is cut at each exit; the cuts cannot be found through that line.",
        todo="Name the sub-modules that give the logits, exits=['head1', …]: then forward is left there as it stands. "
        "Or rewrite that line, or give the pieces yourself: MultiExit(stages=[…], heads=[…], input_shape=…).",
    ) from first


def _answers(whole: Whole, tracer: Tracer, returned: Any) -> list[Any]:
    if whole.exits is None:
        return whole.answers(returned)
    calls = [(path.removeprefix("module."), out) for path, out in tracer.left]
    return whole.answers([(e, out) for e in whole.exits for path, out in calls if path == e])


def _to_close(asked: Asked, tracer: Tracer, whole: set[str], exits: Sequence[str]) -> set[str]:
    """The innermost sub-module that an error came from, with its like, where no exit lies inside them."""
    named = dict(asked.named_modules())
    for path in reversed(tracer.inside):
        if path in whole:
            return set()  # it cannot be run at all
        if path and path != "module" and not _holds_exit(path, exits):
            kind = type(named[path])
            alike = {p for p, m in named.items() if type(m) is kind and p != "module" and not _holds_exit(p, exits)}
            return alike - whole
    return set()


def _holds_exit(path: str, exits: Sequence[str]) -> bool:
    return any(e == path or e.startswith(f"{path}.") for e in exits)


def _where(error: Exception) -> str:
    """The last line of the user's own code on the way to an error."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        inside = any(file.is_relative_to(folder) for folder in (_TORCH, _HERE))
        if not inside and not frame.filename.startswith("<eval_with_key>"):
            line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
            return f" at {frame.filename}, line {frame.lineno}, in {frame.name}: `{line}`"
    return ""
