"""What a stream is summed up to: latency, goodput, work, and what the honest get; over repeats with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptbench.serving.simulate import Served
from adaptbench.serving.traffic import Traffic

SETTLING = 0.1
"""Share of a stream that is left out at its beginning: it finds empty lines and a full bucket."""


def quantile(values: NDArray[np.float64], q: float) -> float:
    """The q-quantile, linear between order statistics; NaN of nothing."""
    return float(np.quantile(values, q)) if len(values) else math.nan


@dataclass(frozen=True, slots=True)
class Stream:
    """One simulated stream, and the figures of some of its requests.

    Args:
        traffic: that came. served: what became of it. joules: of all its steps; NaN where nobody measured any.
    """

    traffic: Traffic
    served: Served
    joules: float = math.nan

    @property
    def settled(self) -> NDArray[np.bool_]:
        """(n,) requests that count."""
        return np.arange(len(self.traffic)) >= SETTLING * len(self.traffic)

    def latency_s(self, among: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Of some requests."""
        return self.served.latency_s[among & self.settled]

    def p(self, q: float, among: NDArray[np.bool_]) -> float:
        """A quantile of latency, seconds."""
        return quantile(self.latency_s(among), q)

    def goodput(self, objective_s: float, among: NDArray[np.bool_]) -> float:
        """Share of some requests that were answered within the objective."""
        taken = self.latency_s(among)
        return float((taken <= objective_s).mean()) if len(taken) else math.nan

    def goodput_rps(self, objective_s: float) -> float:
        """Requests a second that were answered within the objective, whoever sent them."""
        counted = self.settled
        arrived = self.traffic.arrival_s[counted]
        span = float((arrived + self.served.latency_s[counted]).max() - arrived.min())
        return float((self.served.latency_s[counted] <= objective_s).sum()) / span

    def macs(self, among: NDArray[np.bool_]) -> float:
        """Executed a request, mean of some."""
        return self._mean(among, lambda way, place: way.macs[place])

    def accuracy(self, among: NDArray[np.bool_]) -> float:
        """Of some requests, answered where they left."""
        return self._mean(among, lambda way, place: float(way.right[place]))

    def forced(self, among: NDArray[np.bool_]) -> float:
        """Share of some requests that the budget cut short."""
        chosen = self.served.forced[among & self.settled]
        return float(chosen.mean()) if len(chosen) else math.nan

    def _mean(self, among: NDArray[np.bool_], value: Callable[[Any, int], float]) -> float:
        places = self.served.place.tolist()
        found = [value(self.traffic.ways[i], places[i]) for i in np.flatnonzero(among & self.settled).tolist()]
        return float(np.mean(found)) if found else math.nan


def over_repeats(values: Sequence[float], *, share: bool = False) -> tuple[float | None, list[float] | None]:
    """Mean over repeats with its 95 % t-interval; None where a repeat has none, no interval of fewer than two.

    Args:
        share: the interval ends at 0 and 1.
    """
    from scipy import stats

    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all():
        return None, None
    centre = float(found.mean())
    if len(found) < 2:
        return centre, None
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
    ends = [centre - half, centre + half]
    return centre, [min(max(end, 0.0), 1.0) for end in ends] if share else ends
