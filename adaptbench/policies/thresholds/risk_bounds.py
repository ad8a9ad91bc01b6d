"""Finite-sample upper bounds on a mean: what turns a measured loss into a promise.

Each takes paired losses in {−1, 0, 1} (full right & exit wrong: 1; full wrong & exit right: −1) and holds with
probability at least 1 − β over the draw of the calibration samples, for any distribution.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from adaptbench.errors import UsageError

Bound = Literal["betting", "clopper-pearson", "hoeffding"]

_STEPS = 40
_MOST = 0.5  # of the capital that would be lost at worst, staked at once


def upper_bound(losses: np.ndarray, beta: float, kind: Bound = "betting") -> np.ndarray:
    """(J,) upper confidence bounds on the mean of each column.

    Args:
        losses: (n, J) in [−1, 1]; a column is one candidate. Rows in an order that does not depend on the values.
        beta: chance that the bound may fail, in (0, 1).
        kind: "betting" (Waudby-Smith & Ramdas 2024, hedged capital: tight where losses are rare), "clopper-pearson"
            (exact binomial bounds on both kinds of disagreement, β/2 each), "hoeffding".

    Raises:
        UsageError: β is no probability, losses out of range, or an unknown bound.
    """
    if not 0.0 < beta < 1.0:
        raise UsageError(f"β = {beta} is no chance of failure.", todo="Give a value in (0, 1), such as 0.05.")
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 2 or not len(losses) or np.abs(losses).max(initial=0.0) > 1.0:
        raise UsageError(f"losses of shape {losses.shape} are not (n, J) values in [−1, 1].")
    if kind == "betting":
        return _betting(losses, beta)
    if kind == "clopper-pearson":
        return _clopper_pearson(losses, beta)
    if kind == "hoeffding":
        return np.asarray(np.minimum(1.0, losses.mean(0) + 2.0 * np.sqrt(np.log(1 / beta) / (2 * len(losses)))))
    raise UsageError(f"no bound is called '{kind}'.", todo="There are: betting, clopper-pearson, hoeffding.")


def _clopper_pearson(losses: np.ndarray, beta: float) -> np.ndarray:
    """Upper bound on P(loss = 1) minus lower bound on P(loss = −1); exact for losses in {−1, 0, 1}."""
    n = len(losses)
    worse, better = (losses > 0).sum(0), (losses < 0).sum(0)
    high = np.where(worse < n, stats.beta.ppf(1 - beta / 2, worse + 1, np.maximum(n - worse, 1)), 1.0)
    low = np.where(better > 0, stats.beta.ppf(beta / 2, np.maximum(better, 1), n - better + 1), 0.0)
    return np.asarray(high - low)


def _betting(losses: np.ndarray, beta: float) -> np.ndarray:
    """Invert a test martingale: the largest mean m whose capital Π(1 + λ_i(m − x_i)) never reaches 1/β.

    x = (loss + 1)/2 in [0, 1]. λ_i is the predictable plug-in of Waudby-Smith & Ramdas 2024 (equation 26), cut at
    a share of 1/(1 − m) so that the capital stays positive. Capital falls as m falls, so bisection finds the edge.
    """
    x = (losses + 1.0) / 2.0
    n = len(x)
    seen = np.arange(1, n + 1)[:, None]
    mean = (0.5 + x.cumsum(0)) / (seen + 1)
    variance = (0.25 + np.square(x - mean).cumsum(0)) / (seen + 1)
    before = np.concatenate([np.full((1, x.shape[1]), 0.25), variance[:-1]])
    stake = np.sqrt(2 * np.log(1 / beta) / (n * before))
    low, high = x.mean(0), np.ones(x.shape[1])
    goal = np.log(1 / beta)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        most = _MOST / np.maximum(1 - middle, 1e-12)
        wealth = np.log1p(np.minimum(stake, most) * (middle - x)).cumsum(0).max(0)
        rejected = wealth >= goal  # the mean is below `middle`
        high = np.where(rejected, middle, high)
        low = np.where(rejected, low, middle)
    return 2.0 * high - 1.0
