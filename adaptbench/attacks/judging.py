"""Who has won: the hard pass over 8-bit pictures, as one number a picture that an attack raises."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, GatedNetwork
from adaptbench.attacks.base import to_bytes

Keep = Literal["first", "nearest", "deepest", "last"]
"""Among pictures of equal score: the first found (the sample retires at the ceiling), the nearest to the clean one, the
one with the lowest loss; "last" is the final iterate whatever it costs, as accuracy attacks return it."""
Aim = Literal["dearest", "cheap-and-wrong", "one-gate"]
"""What an attack wants: the most executed MACs, a wrong answer for as few as can be (an attack on early exits), or one
gate open."""
Label = Literal["free", "keep"]
"""Whether the answer may change; "keep" takes only pictures that the model answers as it answers the clean one."""

_REACHED = {"dearest": "at_max_macs", "cheap-and-wrong": "cheapest_and_wrong", "one-gate": "gate_open"}
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
        macs, self.answers = self._hard(self.pictures)
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
        return self._score(*self._hard(pictures), rows)

    def _hard(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) int64 what is scored, MACs, and (n,) answers."""
        return hard_pass(self.model, pictures)

    def _score(self, macs: Tensor, answers: Tensor, rows: Tensor) -> Tensor:
        if self.aim == "cheap-and-wrong":
            return torch.where(answers != self.y[rows], self.model.max_macs - macs + 1, NEVER)
        return macs if self.label == "free" else torch.where(answers == self.answers[rows], macs, NEVER)


class GateJudge(Judge):
    """1 where the hard pass runs the block of one gate, else 0.

    Args:
        gate: which, counted from 1 at the input. The others are `Judge`'s.
    """

    def __init__(self, model: AdaptiveModel, clean: Tensor, y: Tensor, *, gate: int, label: Label = "free") -> None:
        assert isinstance(model, GatedNetwork)
        self.column = gated_columns(model)[gate - 1]
        super().__init__(model, clean, y, aim="one-gate", label=label)

    @property
    def ceiling(self) -> int:
        """Open."""
        return 1

    def _hard(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        inferences = [self.model.infer(part.float() / 255.0) for part in torch.split(pictures, POOL)]
        ran = torch.cat([i.path[:, self.column] for i in inferences])
        return ran.long(), torch.cat([i.predictions for i in inferences])


def gated_columns(model: GatedNetwork) -> list[int]:
    """Of each gate in order, the column of its block in a path."""
    return [b + 1 for b, gated in enumerate(model.gated) if gated]


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
            ``at_max_macs``, ``cheapest_and_wrong`` or ``gate_open``: samples at the best score there is;
            ``rounding_linf_mean``: mean of `rounding`;
            ``relaxed_open`` and, of them, ``closed_by_hard_pass``, where nothing but cost is judged.
        """
        told: dict[str, Any] = {
            _REACHED[self.judge.aim]: int((self.score >= self.judge.ceiling).sum()),
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
