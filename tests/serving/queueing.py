"""Times that queueing theory knows the answers of, and streams for them."""

from __future__ import annotations

import numpy as np

from adaptbench.serving.traffic import Traffic, Way

ONE_NODE = Way((0,), (1.0,), (True,))


class Fixed:
    """A step takes the same whatever is in it, or so much for each request of it."""

    def __init__(self, step_s: float, each_s: float = 0.0, call_s: float = 0.0) -> None:
        self._step_s, self._each_s, self._call_s = step_s, each_s, call_s

    def call_s(self, n: int) -> float:
        return self._call_s

    def step_s(self, node: int, n: int) -> float:
        return self._step_s + self._each_s * n


class Exponential(Fixed):
    """Memoryless service."""

    def __init__(self, mean_s: float, seed: int) -> None:
        super().__init__(mean_s)
        self._rng = np.random.default_rng([seed, 1])  # apart from the arrivals, which are drawn from the seed itself

    def step_s(self, node: int, n: int) -> float:
        return float(self._rng.exponential(self._step_s))


def stream(arrival_s, ways=None) -> Traffic:
    n = len(arrival_s)
    return Traffic(np.asarray(arrival_s, float), ways or [ONE_NODE] * n, np.zeros(n, bool))


def chain(*, macs: tuple[float, ...] = (1.0, 3.0, 6.0), right: tuple[bool, ...] = (False, False, True)) -> list[Way]:
    """A request that leaves at each of the nodes."""
    return [Way(tuple(range(k)), macs[:k], right[:k]) for k in range(1, len(macs) + 1)]
