"""What a run leaves behind: records, the store, statistics, metrics and the gate. Knows nothing of torch.

The names below are loaded on first use, so that importing this package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptbench.results.baseline import Baseline, Outcomes, write_baseline
    from adaptbench.results.gate import compare
    from adaptbench.results.gate_format import render
    from adaptbench.results.gate_rows import GateReport, GateRow, RowVerdict
    from adaptbench.results.gate_selftest import selftest
    from adaptbench.results.metrics import CostBounds, summarise
    from adaptbench.results.store import Run
    from adaptbench.results.timing import summarise_windows
    from adaptbench.results.writer import RunWriter

_HOMES = {
    "Baseline": "baseline",
    "Outcomes": "baseline",
    "write_baseline": "baseline",
    "compare": "gate",
    "render": "gate_format",
    "GateReport": "gate_rows",
    "GateRow": "gate_rows",
    "RowVerdict": "gate_rows",
    "CostBounds": "metrics",
    "summarise": "metrics",
    "selftest": "gate_selftest",
    "Run": "store",
    "RunWriter": "writer",
    "summarise_windows": "timing",
}

__all__ = [
    "Baseline",
    "CostBounds",
    "GateReport",
    "GateRow",
    "Outcomes",
    "RowVerdict",
    "Run",
    "RunWriter",
    "compare",
    "render",
    "selftest",
    "summarise",
    "summarise_windows",
    "write_baseline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
