"""Who has won: the hard pass over 8-bit pictures, as one number a picture that an attack raises."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.base import to_bytes

Keep = Literal["first", "nearest", "deepest", "last"]
"""Among pictures of equal score: the first found (the sample retires at the ceiling), the nearest to the clean one, the
one with the lowest loss; "last" is the final iterate whatever it costs, as accuracy attacks return it."""
Aim = Literal["dearest", "cheap-and-wrong"]
"""What an attack wants: the most executed MACs, or a wrong answer for as few as can be (an attack on early exits)."""
Label = Literal["free", "keep"]
"""Whether the answer may change; "keep" takes only pictures that the model answers as it answers the clean one."""

POOL = 256
NEVER = -1


def hard_macs(model: AdaptiveModel, pictures: Tensor) -> Tensor:
    """(N,) int64 executed MACs of uint8 pictures."""
    return hard_pass(model, pictures)[0]


def hard_pass(model: AdaptiveModel, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Executed MACs and answers, (N,) int64 each, of uint8 pictures."""
    inferences = [model.infer(part.float() / 255.0) for part in torch.split(pictures, POOL)]
    return torch.cat([i.macs for i in inferences]), torch.cat([i.predictions for i in inferences])


class Judge:
    """Scores pictures of one craft by the hard pass; higher is what the attacker wants, `NEVER` what it may not return.

    Args:
        model: whose hard pass it is. clean: (N, C, H, W) float, on the 8-bit grid.
        y: (N,) labels, what "wrong" is measured against.
    """

    def __init__(
        self, model: AdaptiveModel, clean: Tensor, y: Tensor, *, aim: Aim = "dearest", label: Label = "free"
    ) -> None:
        self.model, self.aim, self.label, self.y = model, aim, label, y
        self.pictures = to_bytes(clean)
        macs, self.answers = hard_pass(model, self.pictures)
        self.clean = self._score(macs, self.answers, torch.arange(len(clean), device=clean.device))
        self.checks = 0

    @property
    def ceiling(self) -> int:
        """The best score there is."""
        return self.model.max_macs if self.aim == "dearest" else self.model.max_macs - self.model.min_macs + 1

    def score(self, rows: Tensor, pictures: Tensor) -> Tensor:
        """(n,) int64.

        Args:
            rows: (n,) whose pictures they are. pictures: (n, C, H, W) uint8.
        """
        self.checks += len(rows)
        return self._score(*hard_pass(self.model, pictures), rows)

    def _score(self, macs: Tensor, answers: Tensor, rows: Tensor) -> Tensor:
        if self.aim == "cheap-and-wrong":
            return torch.where(answers != self.y[rows], self.model.max_macs - macs + 1, NEVER)
        return macs if self.label == "free" else torch.where(answers == self.answers[rows], macs, NEVER)


class Best:
    """The best picture of each sample so far; the clean one to begin with.

    Attributes:
        promised: (N,) bool, the relaxation once called the whole dearest path open.
        rounding: (N,) largest change of a value by rounding what is kept to 8 bits, in pixel range.
    """

    def __init__(self, judge: Judge, keep: Keep) -> None:
        self.judge, self.keep = judge, keep
        self.pictures, self.score = judge.pictures.clone(), judge.clean.clone()
        self.promised = torch.zeros_like(self.score, dtype=torch.bool)
        self.rounding = torch.zeros(len(self.score), device=self.score.device)
        start = 0.0 if keep in ("first", "nearest") else torch.inf
        self.rank = torch.full((len(self.score),), start, device=self.score.device)

    def offer(self, rows: Tensor, pictures: Tensor, rank: Tensor, unrounded: Tensor | None = None) -> None:
        """Check pictures by the hard pass and keep those that are better.

        Args:
            rows: (n,) whose they are. pictures: (n, C, H, W) uint8. rank: (n,) among equal scores, less is better.
            unrounded: (n, C, H, W) float, what they were rounded from.
        """
        if not len(rows):
            return
        score = self.judge.score(rows, pictures)
        better = score > self.score[rows]
        if self.keep in ("nearest", "deepest"):
            better |= (score == self.score[rows]) & (score != NEVER) & (rank < self.rank[rows])
        self.take(rows[better], pictures[better], score[better], rank[better])
        if unrounded is not None:
            change = pictures[better].float() / 255.0 - unrounded[better].detach()
            self.rounding[rows[better]] = change.flatten(1).abs().amax(1).to(self.rounding)

    def take(self, rows: Tensor, pictures: Tensor, score: Tensor, rank: Tensor) -> None:
        """Keep them whatever they are worth."""
        self.pictures[rows], self.score[rows], self.rank[rows] = pictures, score, rank.to(self.rank)

    def account(self) -> dict[str, Any]:
        """Counts for the details of an attack.

        Returns:
            ``at_max_macs``, or ``cheapest_and_wrong``: samples at the best score there is; ``rounding_linf_mean``: mean
            of `rounding`;
            ``relaxed_open`` and, of them, ``closed_by_hard_pass``, where nothing but cost is judged.
        """
        reached = "at_max_macs" if self.judge.aim == "dearest" else "cheapest_and_wrong"
        told: dict[str, Any] = {
            reached: int((self.score >= self.judge.ceiling).sum()),
            "rounding_linf_mean": float(self.rounding.mean()) if len(self.rounding) else 0.0,
        }
        if self.judge.aim == "dearest" and self.judge.label == "free":
            told["relaxed_open"] = int(self.promised.sum())
            told["closed_by_hard_pass"] = int((self.promised & (self.score < self.judge.ceiling)).sum())
        return told

    def done(self, rows: Tensor) -> Tensor:
        """(n,) bool: nothing better can be found."""
        if self.keep == "first":
            return self.score[rows] >= self.judge.ceiling
        if self.keep == "nearest":
            return (self.score[rows] >= self.judge.ceiling) & (self.rank[rows] == 0)
        return torch.zeros_like(rows, dtype=torch.bool)
