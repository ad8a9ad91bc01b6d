"""What makes a part of a net faster on a device: torch.compile on a processor, CUDA graphs on a card."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from adaptbench.adaptive.graphed import Call, Graphed

Compiler = Callable[[Call], Call]


def why_no_compiler(device: torch.device) -> str | None:
    """None, or the reason why nothing can be compiled for a device here."""
    if device.type == "cuda":
        return None if torch.cuda.is_available() else "the model is to run on a CUDA device, and torch finds none here"
    if device.type != "cpu":
        return f"parts are compiled for processors and CUDA devices, and the model is on '{device.type}'"
    if not hasattr(torch.compiler, "set_stance"):
        return f"torch {torch.__version__} cannot promise to compile nothing later on; 2.6 can"
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(wanted) else f"torch.compile needs a C++ compiler, and there is no '{wanted}' here"


def by_torch(part: Call) -> Call:
    """`torch.compile` without breaks; each part has a code object of its own, by which torch keeps what it made."""

    def called(given: Any) -> Any:
        return part(given)

    called.__code__ = called.__code__.replace(co_name=f"part_{id(part):x}")
    return torch.compile(called, fullgraph=True)


def compiler_for(device: torch.device) -> Compiler:
    """What makes a part faster on a device: `torch.compile`, or CUDA graphs."""
    return Graphed if device.type == "cuda" else by_torch


def prepared(call: Call, given: Iterable[Any], arriving: Collection[int]) -> Call:
    """A compiled call after all compiling: it was called with what there will be.

    Args:
        given: examples, the most rows first: torch compiles that for any number, and a single one apart.
        arriving: numbers of rows that will come.
    """
    for example in given:
        call(example if isinstance(call, Graphed) else _any_rows(example))
    if isinstance(call, Graphed):
        call.settle(arriving)
    return call


def padding_of(call: Call, calls: Mapping[int, int]) -> float:
    """Rows that a call runs beyond those that arrive, as a share of those. calls: how many by rows."""
    return call.padding(calls) if isinstance(call, Graphed) else 0.0


def _any_rows(given: Any) -> Any:
    """The same, of whose first dimension the compiler is to assume nothing; one row is a kind of its own to it."""
    for leaf in tree_leaves(given):
        if isinstance(leaf, Tensor) and len(leaf) > 1:
            torch._dynamo.maybe_mark_dynamic(leaf, 0)
    return given


def no_compiling() -> Any:
    """Inside, torch.compile makes nothing; a call of a new kind runs the part as it is."""
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("eager_on_recompile")
