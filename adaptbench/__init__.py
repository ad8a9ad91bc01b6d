"""adaptbench: do adaptive neural networks save what they promise, and can an attacker take the saving away?

The names below are loaded on first use: importing this package loads no torch.

>>> import adaptbench as ab
>>> model = ab.load_model("softmax-threshold", "digits")
>>> digits = ab.load_data("digits").split("test")
>>> found = model.infer(digits.images(0, 8))
>>> found.macs.shape
torch.Size([8])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptbench import attacks, policies
    from adaptbench.adaptive import (
        Block,
        Cascade,
        DecisionGraph,
        FeedForwardGates,
        GatedNetwork,
        ImageDomain,
        MacCounter,
        MultiExit,
        NetworkDag,
        Node,
        Normalise,
        Split,
        Static,
        from_logits_list,
    )
    from adaptbench.bench.runner import run_suite as run
    from adaptbench.data import load_data
    from adaptbench.errors import AdaptBenchError
    from adaptbench.report.page import write_report
    from adaptbench.results.gate import compare as check
    from adaptbench.results.store import Run
    from adaptbench.zoo.loading import load_model

__version__ = "0.1.0"

_ADAPTIVE = (
    "Block",
    "Cascade",
    "DecisionGraph",
    "FeedForwardGates",
    "GatedNetwork",
    "ImageDomain",
    "MacCounter",
    "MultiExit",
    "NetworkDag",
    "Node",
    "Normalise",
    "Split",
    "Static",
    "from_logits_list",
)
_HOMES = {name: ("adaptbench.adaptive", name) for name in _ADAPTIVE} | {
    "AdaptBenchError": ("adaptbench.errors", "AdaptBenchError"),
    "Run": ("adaptbench.results.store", "Run"),
    "check": ("adaptbench.results.gate", "compare"),
    "load_data": ("adaptbench.data", "load_data"),
    "load_model": ("adaptbench.zoo.loading", "load_model"),
    "run": ("adaptbench.bench.runner", "run_suite"),
    "write_report": ("adaptbench.report.page", "write_report"),
}
_MODULES = ("attacks", "policies")

__all__ = [
    "AdaptBenchError",
    "Block",
    "Cascade",
    "DecisionGraph",
    "FeedForwardGates",
    "GatedNetwork",
    "ImageDomain",
    "MacCounter",
    "MultiExit",
    "NetworkDag",
    "Node",
    "Normalise",
    "Run",
    "Split",
    "Static",
    "attacks",
    "check",
    "from_logits_list",
    "load_data",
    "load_model",
    "policies",
    "run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"adaptbench.{name}")
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'adaptbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
