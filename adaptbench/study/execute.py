"""Running chosen points for real: every sample's way, answer and MACs must be those that the log foretold."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from adaptbench.adaptive import DecisionGraph, Split
from adaptbench.experiment.progress import Progress
from adaptbench.study.logs import passes
from adaptbench.study.members import Member, Outcome


@dataclass(frozen=True, slots=True)
class Execution:
    """What running a point showed.

    Args:
        n: samples. ties: decisions within 1e-5 of their threshold, which may fall either way.
        differing: samples, ties aside, whose way, answer or MACs are not the log's.
        accuracy, macs_mean: as executed. seconds: of the pass.
    """

    n: int
    ties: int
    differing: int
    accuracy: float
    macs_mean: float
    seconds: float

    def as_dict(self) -> dict[str, float | int]:
        """For the record."""
        return {
            "n": self.n,
            "ties": self.ties,
            "differing": self.differing,
            "accuracy": self.accuracy,
            "macs_mean": self.macs_mean,
        }


@torch.no_grad()
def execute(
    model: DecisionGraph, member: Member, expected: Outcome, split: Split, *, device: str, top: int, progress: Progress
) -> Execution:
    """Run one point over the whole split.

    Args:
        model: the graph. member: the point. expected: its outcome on the log.
        split: the logged one. top: largest logits that count.
    """
    from adaptbench.adaptive.log import is_correct

    running = model.under(member.policy)
    expected_path, expected_out = expected.path, expected.answer
    ties = differing = right = 0
    macs = 0
    started = time.perf_counter()
    progress.begin(f"executing  {member.policy.name}", len(split))
    for start, stop in passes(0, len(split), device):
        rows = slice(start, stop)
        inference = running.infer(split.inputs(start, stop).to(device), seeds=split.ids[rows].to(device))
        tie = inference.tie.cpu() | expected.tie[rows]
        other = (
            (inference.path.cpu() != expected_path[rows]).any(1)
            | (inference.exit.cpu() != expected.exit[rows])
            | (inference.predictions.cpu() != expected_out[rows])
            | (inference.macs.cpu() != torch.from_numpy(expected.macs[rows]))
        )
        ties += int(tie.sum())
        differing += int((other & ~tie).sum())
        right += int(is_correct(inference.logits.cpu(), split.y[rows], top).sum())
        macs += int(inference.macs.sum())
        progress.advance(stop)
    progress.end()
    n = len(split)
    return Execution(n, ties, differing, right / n, macs / n, time.perf_counter() - started)
