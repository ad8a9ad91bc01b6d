"""Verdict by equivalence: where an interval lies against a margin, and how small a change could have been seen.

A p-value alone reads "three noisy runs" as "no change". Here a change is a regression when its whole interval lies
beyond the margin, no change when its whole interval lies within, and otherwise nobody knows.
"""

from __future__ import annotations

from enum import StrEnum

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


def one_sided_p(value: float, error: float, margin: float) -> float:
    """Level at which data refute "the change is no more than the margin", normal approximation."""
    from scipy.special import ndtr

    if error <= 0:
        return 0.0 if value > margin else 1.0
    return float(ndtr((margin - value) / error))
