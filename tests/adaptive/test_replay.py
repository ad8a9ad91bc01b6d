"""Replaying in blocks is replaying at once, for every policy and shape."""

from __future__ import annotations

import pytest
import torch

from adaptbench.adaptive import CalibrationLog, Structure
from adaptbench.adaptive import replay as module
from adaptbench.adaptive.replay import blocks, replay, replay_in_blocks
from adaptbench.registry import POLICIES

CHAIN = Structure(("a", "b", "c", "d"), ((1,), (2,), (3,), ()), 5)
WAYS = Structure(("a", "b", "c", "d"), ((1, 2), (2, 3), (3,), ()), 5)
ON_CHAINS = [
    "uniform",
    "entropy",
    "pabee",
    "committees",
    "ztw",
    "random",
    "fixed-exit",
    "exact-budget",
    "lebovitz-pair",
]


def log_of(structure: Structure, n: int = 400) -> CalibrationLog:
    draw = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 5, (n,), generator=draw)
    logits = torch.randn(n, 4, 5, generator=draw)
    logits[torch.arange(n), :, labels] += torch.tensor([1.0, 1.5, 2.0, 2.5])
    return CalibrationLog(logits, labels, structure, torch.tensor([10, 20, 30, 40]), "made", "calibration", "0")


@pytest.mark.parametrize(
    ("name", "structure"), [*((n, CHAIN) for n in ON_CHAINS), ("dag-selection", WAYS), ("uniform", WAYS)]
)
def test_a_block_at_a_time_is_all_at_once(name, structure, monkeypatch):
    log = log_of(structure)
    policy = POLICIES.load(name).fit(log, seed=0)
    policy.bind(structure)
    seeds = torch.arange(len(log))
    whole = replay(policy, structure, log.logits, seeds=seeds)
    assert len(list(blocks(log.logits))) == 1
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 5 * 4 * 37)
    monkeypatch.setattr(module, "BLOCK_ROWS", 1)
    assert len(list(blocks(log.logits))) == -(-400 // 37)
    again = replay(policy, structure, log.logits, seeds=seeds)
    steady = ~(whole.tie | again.tie)
    assert torch.equal(again.path[steady], whole.path[steady])
    assert torch.equal(again.exit[steady], whole.exit[steady])
    assert torch.allclose(again.logits[steady], whole.logits[steady], atol=1e-5)
    covered = torch.cat(
        [torch.arange(400)[rows] for rows, _ in replay_in_blocks(policy, structure, log.logits, seeds=seeds)]
    )
    assert covered.tolist() == list(range(400))


def test_no_samples_are_no_blocks():
    log = log_of(CHAIN)
    policy = POLICIES.load("uniform").fit(log)
    empty = replay(policy, CHAIN, log.logits[:0])
    assert (len(empty.exit), empty.path.shape) == (0, (0, 4))
