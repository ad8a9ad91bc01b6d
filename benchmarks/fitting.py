"""How long policies take on a log: each one's fit, its family of operating points, and a sweep over 200 points.

python benchmarks/fitting.py [SAMPLES]

The log is drawn: seven exits, ten classes, each exit surer than the one before and samples that differ in how hard
they are. Seconds of the clock, on as many threads as torch takes.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from adaptbench.adaptive import CalibrationLog, Structure
from adaptbench.adaptive.replay import evaluate_on
from adaptbench.errors import AdaptBenchError
from adaptbench.registry import POLICIES

NODES, CLASSES, POINTS = 7, 10, 200


def drawn_log(n: int, seed: int = 0) -> CalibrationLog:
    """A chain of seven exits, accuracy from about 60 % to 90 %."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    hardness = torch.rand(n, 1, 1, generator=generator) * 1.5 + 0.2
    noise = torch.randn(n, NODES, CLASSES, generator=generator) * hardness
    strength = torch.linspace(1.6, 3.4, NODES)[None, :, None]
    logits = strength * torch.nn.functional.one_hot(labels, CLASSES)[:, None].float() + noise
    structure = Structure(
        tuple(f"exit{v}" for v in range(NODES)), tuple((v + 1,) if v < NODES - 1 else () for v in range(NODES)), CLASSES
    )
    return CalibrationLog(logits, labels, structure, torch.full((NODES,), 10_000_000), "drawn/calibration", "")


def main() -> None:
    log = drawn_log(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
    table = Table(title=f"{len(log)} samples, {NODES} exits, {torch.get_num_threads()} threads")
    for column in ("policy", "fit, s", "family, s", "members"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    members: list[Any] = []
    for name in POLICIES.names():
        kind: Any = POLICIES.load(name)
        cells = [name]
        for method in ("fit", "family"):
            started = time.perf_counter()
            try:
                made = getattr(kind, method)(log)
            except AdaptBenchError:
                made = None
            cells.append("–" if made is None else f"{time.perf_counter() - started:.2f}")
            if method == "family" and made is not None:
                members += made
                cells.append(str(len(made)))
        table.add_row(*cells)
    torch.manual_seed(0)
    chosen = [members[i] for i in torch.linspace(0, len(members) - 1, POINTS).long().tolist()]
    started = time.perf_counter()
    for member in chosen:
        evaluate_on(member, log)
    console = Console()
    console.print(table)
    console.print(f"a sweep over {POINTS} points: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
