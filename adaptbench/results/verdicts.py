"""Verdict by equivalence: where an interval lies against a margin, and how small a change could have been seen.

A p-value alone reads "three noisy runs" as "no change". Here a change is a regression when its whole interval lies
beyond the margin, no change when its whole interval lies within, and otherwise nobody knows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from adaptbench.results.statistics import Estimate, Floats

VERDICT_LEVEL = 0.90
"""Two one-sided tests at 5 % are one 90 % interval."""
_Z_ALPHA, _Z_POWER = 1.6448536269514722, 0.8416212335729143  # one-sided 5 %, power 80 %


class Verdict(StrEnum):
    """Where the interval of a change lies."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NO_CHANGE = "no change"
    INCONCLUSIVE = "inconclusive"


def verdict(low: float, high: float, margin: float) -> Verdict:
    """Judge the interval of a change for which more is worse.

    Args:
        low: lower end of the change (a log ratio, or a difference).
        high: upper end.
        margin: the change that matters, > 0, in the same unit; symmetric.
    """
    if low > margin:
        return Verdict.REGRESSION
    if high < -margin:
        return Verdict.IMPROVEMENT
    if low >= -margin and high <= margin:
        return Verdict.NO_CHANGE
    return Verdict.INCONCLUSIVE


def ratio_verdict(ratio: Estimate, margin: float) -> Verdict:
    """Judge a ratio for which more is worse; the margin is symmetric on the log scale: [1/(1+δ), 1+δ]."""
    with np.errstate(divide="ignore"):
        low, high = np.log([max(ratio.low, 0.0), ratio.high])
    return verdict(float(low), float(high), float(np.log1p(margin)))


def standard_error(low: float, high: float, level: float = VERDICT_LEVEL) -> float:
    """The standard error that a normal interval of this width has."""
    from scipy.special import ndtri

    return (high - low) / (2 * float(ndtri((1 + level) / 2)))


def minimum_detectable_effect(error: float, margin: float = 0.0) -> float:
    """The smallest true change called a regression four times in five (one-sided 5 %, normal approximation).

    Args:
        error: standard error of the change.
        margin: margin of the verdict, same unit.
    """
    return margin + (_Z_ALPHA + _Z_POWER) * error


def blocks_needed(sd: float, gap: float) -> int:
    """Blocks for 80 % power at one-sided 5 %.

    Args:
        sd: standard deviation of a block's log ratio.
        gap: distance of the true log ratio from the margin.
    """
    return int(np.ceil(((_Z_ALPHA + _Z_POWER) * sd / gap) ** 2))


def one_sided_p(value: float, error: float, margin: float) -> float:
    """Level at which data refute "the change is no more than the margin", normal approximation."""
    from scipy.special import ndtr

    if error <= 0:
        return 0.0 if value > margin else 1.0
    return float(ndtr((margin - value) / error))


def planted_step_rates(
    true_ratio: float,
    sd: float,
    *,
    blocks: int,
    margin: float,
    rng: np.random.Generator,
    simulations: int = 20_000,
    level: float = 0.95,
) -> dict[Verdict, float]:
    """How often the rule gives each verdict when the truth is known: an acceptance test, and a planning aid.

    Block log ratios are normal about log(true_ratio); their mean is judged by Student's interval.

    Args:
        true_ratio: planted after/before.
        sd: standard deviation of one block's log ratio.
        blocks: blocks in a comparison.
        margin: δ of the verdict.
        rng: source of the noise.
        simulations: comparisons simulated.
        level: of the interval.

    Returns:
        Verdict → share of the simulations; shares add up to 1.
    """
    from scipy.special import stdtrit

    d: Floats = rng.normal(np.log(true_ratio), sd, size=(simulations, blocks))
    centre = d.mean(axis=1)
    half = stdtrit(blocks - 1, (1 + level) / 2) * d.std(axis=1, ddof=1) / np.sqrt(blocks)
    bound = np.log1p(margin)
    worse, better = centre - half > bound, centre + half < -bound
    same = (centre - half >= -bound) & (centre + half <= bound)
    rates = {Verdict.REGRESSION: worse, Verdict.IMPROVEMENT: better, Verdict.NO_CHANGE: same}
    shares = {name: float(hit.mean()) for name, hit in rates.items()}
    shares[Verdict.INCONCLUSIVE] = 1.0 - sum(shares.values())
    return shares
