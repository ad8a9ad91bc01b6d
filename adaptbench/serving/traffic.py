"""Requests: when each comes, which sample it brings, and the way that the sample really takes through the net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Way:
    """Of one sample, as executed.

    Args:
        nodes: that it runs, in order. macs: executed where it leaves at each of them, rising.
        right: whether the answer at each of them is right.
    """

    nodes: tuple[int, ...]
    macs: tuple[float, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """n requests.

    Args:
        arrival_s: (n,) rising. ways: a request each. hostile: (n,) bool, the attacker's.
    """

    arrival_s: NDArray[np.float64]
    ways: Sequence[Way]
    hostile: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ways)


@dataclass(frozen=True, slots=True)
class Draw:
    """What is drawn for a stream of n requests; the same for every share, so that streams can be compared in pairs.

    Args:
        sample: (n,) places in the split. rank: (n,) uniform in [0, 1): hostile where it is below the share.
    """

    sample: NDArray[np.int64]
    rank: NDArray[np.float64]

    @classmethod
    def of(cls, n: int, samples: int, rng: np.random.Generator) -> Draw:
        """Every sample once before any comes twice. samples: in the split."""
        rounds = [rng.permutation(samples) for _ in range(-(-n // samples))]
        return cls(np.concatenate(rounds)[:n], rng.random(n))

    def traffic(
        self, arrival_s: NDArray[np.float64], clean: Sequence[Way], attacked: Sequence[Way], share: float
    ) -> Traffic:
        """The stream in which a share of the requests brings the attacked version of its sample.

        Args:
            arrival_s: (n,). clean, attacked: ways by place; the second may be empty where the share is 0.
        """
        hostile = self.rank < share
        pairs = zip(self.sample.tolist(), hostile.tolist(), strict=True)
        return Traffic(arrival_s, [(attacked if bad else clean)[i] for i, bad in pairs], hostile)
