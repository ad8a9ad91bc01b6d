"""A part of benchmarks/scale.py: 40 policies of a study on made logs."""

from __future__ import annotations

from typing import Any

import numpy as np
from scale_records import CELL, CLASSES, COSTS, EXITS
from spending import cpu_s, peak_bytes, spent

POLICIES = {
    "uniform": 5, "entropy": 5, "softmax-threshold": 5, "msdnet-budget": 5, "branchynet-budget": 5, "fixed-exit": 2,
    "random": 3, "pabee": 3, "committees": 3, "ztw": 2, "ebjr": 2,
}  # fmt: skip
"""Members of each family, 40 in all."""


def log_of(n: int, seed: int) -> tuple[Any, Any]:
    """Logits that grow surer with depth and easier with the sample. (n, V, C) float32, (n,)."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=draw)
    ease = 1.3 - torch.rand(n, generator=draw)
    logits = torch.empty(n, EXITS, CLASSES)
    for start in range(0, n, CELL):
        stop = min(start + CELL, n)
        part = torch.randn(stop - start, EXITS, CLASSES, generator=draw)
        for v in range(EXITS):
            part[torch.arange(stop - start), v, labels[start:stop]] += 6 * (0.4 + 0.6 * v / EXITS) * ease[start:stop]
        logits[start:stop] = part
    return logits, labels


def study(n: int) -> dict[str, Any]:
    """40 fitted policies on a log of n: ways, answers, MACs; then each one's curve and drop against the last exit."""
    import torch

    from adaptbench.adaptive import CalibrationLog, Structure
    from adaptbench.registry import POLICIES as KINDS
    from adaptbench.study import compare
    from adaptbench.study.logs import SealedLabels, TestLog
    from adaptbench.study.members import Member, _member, outcome

    made: dict[str, Any] = {"samples": n, "exits": EXITS, "classes": CLASSES, "policies": sum(POLICIES.values())}
    names = tuple(f"exit {k}" for k in range(EXITS))
    ways = tuple((v + 1,) if v < EXITS - 1 else () for v in range(EXITS))
    shape, macs = Structure(names, ways, CLASSES), torch.from_numpy(COSTS)
    fitting = CalibrationLog(*log_of(10_000, 1), shape, macs, "made", "calibration", "0")
    logits, labels = log_of(n, 2)
    made["log_bytes"] = logits.numel() * 4
    before = peak_bytes()
    sealed = SealedLabels(labels)
    sealed.unseal("made")
    log = TestLog(logits, sealed, torch.arange(n), shape, macs, "made", "test", "0")
    right = fitting.correct[:, -1].numpy()
    members: dict[str, list[Member]] = {}
    with spent(made, "fit"):
        for name, count in POLICIES.items():
            family = KINDS.load(name).family(fitting, seed=0)
            at = np.linspace(0, len(family) - 1, count).round().astype(int)
            members[name] = [_member(family[i], fitting, right) for i in at]
    by_policy = {}
    last = (logits[:, -1].argmax(1) == labels).numpy()
    with spent(made, "study"):
        for name, found in members.items():
            began = cpu_s()
            outcomes = [outcome(member, log) for member in found]
            by_policy[name] = (cpu_s() - began) / len(found)
            for one in outcomes:
                compare.drop(last, one.correct)
    made["replay_cpu_s_each"] = by_policy
    source = logits.view(-1)
    with spent(made, "read"):
        source.sum()
    made["read_bytes_per_s"] = made["log_bytes"] / made["read_cpu_s"]
    made["peak_over_log_bytes"] = peak_bytes() - before
    return made
