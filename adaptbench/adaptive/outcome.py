"""What an adaptive model returns, and what a policy is shown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TIE_MARGIN = 1e-5
"""A decision this close may fall either way: sums round differently from batch size to batch size."""
_ROUNDINGS = 4
"""Of a logit of 16, through a softmax, whose slope is ¼ at most."""


def tie_margin(dtype: torch.dtype) -> float:
    """How near a decision of a net of this type is a tie: 4 ε of half types, never less than `TIE_MARGIN`.

    >>> tie_margin(torch.float32), tie_margin(torch.float16)
    (1e-05, 0.00390625)
    """
    return max(TIE_MARGIN, _ROUNDINGS * torch.finfo(dtype).eps) if dtype.is_floating_point else TIE_MARGIN


@dataclass(frozen=True, slots=True)
class Inference:
    """The hard pass, as deployed.

    Args:
        logits: (N, C) of the returned prediction; (N, C, H, W) where every pixel is answered.
        macs: (N,) int64, everything executed for each sample.
        exit: (N,) int64, index of the exit taken.
        path: (N, V) bool, the nodes run.
        tie: (N,) bool, some decision on the way was nearer than `tie_margin` of the net's type.
    """

    logits: Tensor
    macs: Tensor
    exit: Tensor
    path: Tensor
    tie: Tensor

    @property
    def predictions(self) -> Tensor:
        """(N,) int64, the class returned; (N, H, W) where every pixel is answered."""
        return self.logits.argmax(1)

    def __len__(self) -> int:
        return len(self.logits)

    @staticmethod
    def join(parts: list[Inference]) -> Inference:
        """The pieces as one, in order."""
        return Inference(
            torch.cat([p.logits for p in parts]),
            torch.cat([p.macs for p in parts]),
            torch.cat([p.exit for p in parts]),
            torch.cat([p.path for p in parts]),
            torch.cat([p.tie for p in parts]),
        )


@dataclass(frozen=True, slots=True)
class Relaxation:
    """The differentiable pass: every node on every sample.

    Args:
        expected_macs: (N,) Σ reach · cost, → the executed MACs as the temperature falls.
        margins: (N, D), one an edge or gate, > 0 where the model goes on spending.
        exit_logits: (N, K, C).
        reach: (N, V), probability of arriving at each node.
    """

    expected_macs: Tensor
    margins: Tensor
    exit_logits: Tensor
    reach: Tensor


class Signals:
    """What is known at a node when its policy decides. Derived values are computed once.

    Args:
        logits: (n, C) of this node; of a net that answers every pixel, the image's profile (see `pixels`).
        ways: the nodes that it may hand over to; an action is the place in it, plus one.
        history: (n, V, C) logits of the nodes visited so far, zero elsewhere; None unless the policy declared its use.
        visited: (n, V) bool, this node included.
        seeds: (n,) int64, one a sample, for policies that draw.
        answer: what is returned when stopping here, where that is not the logits: (n, C, H, W).
    """

    __slots__ = ("_probabilities", "answer", "history", "logits", "seeds", "visited", "ways")

    def __init__(
        self,
        logits: Tensor,
        *,
        ways: tuple[int, ...] = (),
        history: Tensor | None = None,
        visited: Tensor | None = None,
        seeds: Tensor | None = None,
        answer: Tensor | None = None,
    ) -> None:
        self.logits, self.ways = logits, ways
        self.answer = logits if answer is None else answer
        self.history, self.visited, self.seeds = history, visited, seeds
        self._probabilities: Tensor | None = None

    @property
    def probabilities(self) -> Tensor:
        """(n, C) softmax of the logits."""
        if self._probabilities is None:
            self._probabilities = self.logits.softmax(-1)
        return self._probabilities

    @property
    def confidence(self) -> Tensor:
        """(n,) the largest softmax probability."""
        return self.probabilities.amax(-1)

    @property
    def entropy(self) -> Tensor:
        """(n,) entropy of the softmax, divided by log C: 0 certain, 1 uniform."""
        p = self.probabilities
        return -(p * p.clamp_min(1e-12).log()).sum(-1) / torch.log(torch.tensor(float(p.shape[-1])))

    def rows(self, which: Tensor) -> Signals:
        """The signals of some samples. which: (n,) bool."""
        history, visited, seeds = (None if t is None else t[which] for t in (self.history, self.visited, self.seeds))
        logits = self.logits[which]
        answer = logits if self.answer is self.logits else self.answer[which]
        return Signals(logits, ways=self.ways, history=history, visited=visited, seeds=seeds, answer=answer)

    def uniform(self, node: int) -> Tensor:
        """(n,) float32 in [0, 1), a fixed function of each sample's seed and the node."""
        if self.seeds is None:
            raise ValueError("no seeds were given to a policy that draws")
        return uniform_from(self.seeds, node)


def signals_at(logits: Tensor, node: int, *, ways: tuple[int, ...] = (), seeds: Tensor | None = None) -> Signals:
    """What a policy is shown at a node by the way through every earlier one. logits: (n, V, C) of all nodes."""
    visited = (torch.arange(logits.shape[1], device=logits.device) <= node).expand(len(logits), -1)
    history = torch.where(visited[..., None], logits, 0.0)
    return Signals(logits[:, node], ways=ways, history=history, visited=visited, seeds=seeds)


def uniform_from(seeds: Tensor, stream: int) -> Tensor:
    """Uniform numbers as a pure function of seed and stream (splitmix64, Steele et al. 2014).

    Args:
        seeds: (n,) int64.
        stream: which draw of the sample.

    Returns:
        (n,) float32 in [0, 1).
    """
    z = seeds + _wrap(0x9E3779B97F4A7C15) * (stream + 1)
    z = (z ^ _shift(z, 30)) * _wrap(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _wrap(0x94D049BB133111EB)
    z = z ^ _shift(z, 31)
    return _shift(z, 40).to(torch.float32) / float(1 << 24)


def _wrap(value: int) -> Tensor:
    return torch.tensor(value - (1 << 64) if value >= 1 << 63 else value)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical, not arithmetic, right shift of int64."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def seeds_from_content(x: Tensor) -> Tensor:
    """(N,) int64 seeds that depend on each sample's values alone, so that no batch changes a draw."""
    bits = x.detach().float().contiguous().view(torch.int32).flatten(1).to(torch.int64)
    weights = torch.arange(1, bits.shape[1] + 1, device=x.device) * 2654435761 + 1
    return (bits * weights).sum(1)
