"""Estimators and intervals for noisy comparisons; numpy in, `Estimate` out.

Block measurements (seconds, joules) are few and skewed: Hodges-Lehmann shifts of their logarithms, with exact rank
intervals where n is small and BCa bootstrap over blocks otherwise. Figures over inputs (accuracy, mean cost) share
their inputs between both arms: paired bootstrap over inputs, McNemar. The unit is the block or the input, never the
iteration inside a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Column means (B, M) → values (B,)."""

RESAMPLES = 10_000
"""Resamples over blocks."""
INPUT_RESAMPLES = 2_000
"""Resamples over inputs."""
_CELLS = 2_000_000
"""Numbers held at a time while resampling: 16 MB."""
MANY = 200_000
"""Inputs from which on resampled means of unlike rows are drawn from their limit."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval.

    Args:
        value: the point estimate.
        low: lower end; −inf where n is too small for the level.
        high: upper end; inf where n is too small for the level.
        level: confidence level of the interval.
        n: independent units behind it (blocks or inputs).
        method: how the interval was made, for the report.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    method: str

    @property
    def ci(self) -> list[float] | None:
        """[low, high], None where an end is not finite."""
        return [float(self.low), float(self.high)] if np.isfinite([self.low, self.high]).all() else None

    def map(self, function: Callable[[float], float]) -> Estimate:
        """The estimate of a monotone function of the quantity."""
        ends = sorted((function(self.low), function(self.high)))
        return Estimate(function(self.value), ends[0], ends[1], self.level, self.n, self.method)


def walsh_averages(values: ArrayLike) -> Floats:
    """All (dᵢ + dⱼ)/2 with i ≤ j, along the last axis: (..., n) → (..., n(n+1)/2)."""
    d = np.asarray(values, dtype=np.float64)
    i, j = np.triu_indices(d.shape[-1])
    return (d[..., i] + d[..., j]) / 2


def hodges_lehmann(values: ArrayLike) -> Floats:
    """Median of the Walsh averages along the last axis: (..., n) → (...)."""
    return np.asarray(np.median(walsh_averages(values), axis=-1), dtype=np.float64)


def signed_rank_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Hodges-Lehmann shift with the exact Wilcoxon signed-rank interval (order statistics of the Walsh averages).

    Args:
        values: (n,) differences, one a block.
        level: at least this coverage; unbounded where n is too small (n < 6 at 95 %).
    """
    d = _vector(values)
    averages = np.sort(walsh_averages(d))
    cumulative = np.cumsum(_signed_rank_pmf(len(d)))
    return _order_interval(averages, cumulative, level, len(d), "exact Wilcoxon signed rank")


def _signed_rank_pmf(n: int) -> Floats:
    """P(W⁺ = w), w = 0 … n(n+1)/2, under symmetry about 0."""
    pmf = np.zeros(n * (n + 1) // 2 + 1)
    pmf[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.zeros_like(pmf)
        shifted[rank:] = pmf[:-rank]
        pmf = (pmf + shifted) / 2
    return pmf


def _rank_sum_pmf(n: int, m: int) -> Floats:
    """P(U = u), u = 0 … n·m, of Mann-Whitney's U for samples of n and m without a shift.

    The Gaussian binomial Π (1 − q^(m+i)) / (1 − q^i), i = 1 … n, multiplied and divided out term by term.
    """
    size = n * m + 1
    counts = np.zeros(size)
    counts[0] = 1.0
    for i in range(1, n + 1):
        if m + i < size:
            counts[m + i :] -= counts[: size - m - i].copy()
        for start in range(min(i, size)):
            counts[start::i] = np.cumsum(counts[start::i])
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _order_interval(ordered: Floats, cumulative: Floats, level: float, n: int, method: str) -> Estimate:
    """The symmetric pair of order statistics with at least ``level`` coverage."""
    k = int(np.searchsorted(cumulative, (1 - level) / 2 * (1 + 1e-12), side="right"))
    value = float(np.median(ordered))
    if k == 0:
        return Estimate(value, -np.inf, np.inf, level, n, method)
    return Estimate(value, float(ordered[k - 1]), float(ordered[len(ordered) - k]), level, n, method)


def bca_interval(values: ArrayLike, level: float = 0.95, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Hodges-Lehmann shift with a BCa bootstrap interval over blocks (Efron 1987).

    Args:
        values: (n,) differences, one a block.
        level: nominal coverage; too narrow for n below about 10.
        resamples: bootstrap resamples.
        seed: of the resampling.
    """
    d = _vector(values)
    n = len(d)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // (n * (n + 1) // 2))
    replicates = np.concatenate(
        [
            hodges_lehmann(d[rng.integers(n, size=(min(chunk, resamples - start), n))])
            for start in range(0, resamples, chunk)
        ]
    )
    left_out = hodges_lehmann(np.stack([np.delete(d, i) for i in range(n)]))
    value = float(hodges_lehmann(d))
    low, high = _bca_ends(replicates, value, left_out, np.ones(n), level)
    return Estimate(value, low, high, level, n, "BCa bootstrap over blocks")


def _bca_ends(
    replicates: Floats, value: float, jackknife: Floats, weights: Floats, level: float
) -> tuple[float, float]:
    """Ends of the bias-corrected and accelerated interval; ``weights`` count equal jackknife values."""
    from scipy.special import ndtr, ndtri

    same = np.isclose(
        replicates, value, rtol=1e-12, atol=1e-15 * float(np.abs(replicates).max())
    )  # rounding is no order
    below = (np.count_nonzero((replicates < value) & ~same) + np.count_nonzero(same) / 2) / len(replicates)
    bias = ndtri(np.clip(below, 0.5 / len(replicates), 1 - 0.5 / len(replicates)))
    deviation = np.average(jackknife, weights=weights) - jackknife
    spread = float(np.sum(weights * deviation**2))
    acceleration = float(np.sum(weights * deviation**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(replicates, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def shift(values: ArrayLike, level: float = 0.95, *, seed: int = 0) -> Estimate:
    """Hodges-Lehmann shift of paired differences: exact interval below 10 blocks, BCa from 10 on."""
    d = _vector(values)
    return signed_rank_interval(d, level) if len(d) < 10 else bca_interval(d, level, seed=seed)


def paired_ratio(before: ArrayLike, after: ArrayLike, level: float = 0.95, *, seed: int = 0) -> Estimate:
    """Ratio after / before from block measurements that belong together, one pair a block.

    Args:
        before: (n,) positive.
        after: (n,) positive, the same blocks in the same order.
        level: confidence level.
        seed: of the bootstrap.

    Raises:
        ValueError: a value that is not positive and finite, or arms of different length.
    """
    a, b = _logs(before), _logs(after)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} blocks before and {len(b)} after do not pair")
    return shift(b - a, level, seed=seed).map(lambda x: float(np.exp(x)))


def unpaired_ratio(before: ArrayLike, after: ArrayLike, level: float = 0.95) -> Estimate:
    """Ratio after / before from two separate sets of blocks: two-sample Hodges-Lehmann, exact Mann-Whitney interval.

    Raises:
        ValueError: a value that is not positive and finite.
    """
    a, b = _logs(before), _logs(after)
    differences = np.sort((b[:, None] - a[None, :]).ravel())
    cumulative = np.cumsum(_rank_sum_pmf(len(a), len(b)))
    n = min(len(a), len(b))
    return _order_interval(differences, cumulative, level, n, "exact Mann-Whitney").map(lambda x: float(np.exp(x)))


def of_means(
    columns: ArrayLike,
    statistic: Statistic,
    level: float = 0.95,
    *,
    resamples: int = INPUT_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A function of column means, with a BCa bootstrap interval over inputs; rows stay together (paired).

    Where many rows are equal they are drawn as one multinomial count, so that ten thousand inputs of a network with
    a few path costs take a few milliseconds; the distribution is that of drawing rows. From `MANY` unlike rows on,
    means are drawn from the normal distribution that theirs has come to, with the rows' own covariance.

    Args:
        columns: (n, M), one row an input.
        statistic: (B, M) column means → (B,) values.
        level: confidence level.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Raises:
        ValueError: no rows, or a value that is not finite.
    """
    x = np.asarray(columns, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    n = len(x)
    if n == 0 or not np.isfinite(x).all():
        raise ValueError("every input needs a finite value, and at least one input is needed")
    rows, counts = _distinct(x)
    value = float(statistic(x.mean(axis=0, keepdims=True))[0])
    method = "BCa bootstrap over inputs"
    if len(rows) == 1:
        return Estimate(value, value, value, level, n, method)
    rng = np.random.default_rng(seed)
    if n >= MANY and len(rows) > n / 4:
        method = "BCa bootstrap over inputs, means drawn from their normal limit"
        replicates = _limit_means(x, statistic, resamples, rng)
    else:
        replicates = _resample_means(rows, counts, statistic, resamples, rng)
    left_out = statistic((x.sum(axis=0) - rows) / (n - 1))
    if not (np.isfinite(replicates).all() and np.isfinite(left_out).all()):
        return Estimate(value, -np.inf, np.inf, level, n, method)
    low, high = _bca_ends(replicates, value, left_out, counts.astype(np.float64), level)
    return Estimate(value, low, high, level, n, method)


def _distinct(x: Floats) -> tuple[Floats, NDArray[Any]]:
    """Rows of (n, M) that differ, sorted, and how often each stands there; by one key a row where there is one."""
    if x.shape[1] == 1:
        values, counts = np.unique(x[:, 0], return_counts=True)
        return values[:, None], counts
    if x.shape[1] == 2:  # complex numbers are sorted by their real part, then by the other
        pairs, counts = np.unique(np.ascontiguousarray(x).view(np.complex128)[:, 0], return_counts=True)
        return np.ascontiguousarray(pairs[:, None]).view(np.float64), counts
    rows, counts = np.unique(x, axis=0, return_counts=True)
    return rows, counts


def _limit_means(x: Floats, statistic: Statistic, resamples: int, rng: np.random.Generator) -> Floats:
    """The statistic of means of n drawn rows, n so large that the means are normal."""
    spread = np.atleast_2d(np.cov(x, rowvar=False, bias=True)) / len(x)
    values, axes = np.linalg.eigh(spread)
    drawn = rng.standard_normal((resamples, x.shape[1])) * np.sqrt(np.clip(values, 0, None))
    return statistic(x.mean(axis=0) + drawn @ axes.T)


def _resample_means(
    rows: Floats, counts: NDArray[Any], statistic: Statistic, resamples: int, rng: np.random.Generator
) -> Floats:
    n, distinct = int(counts.sum()), len(rows)
    few = distinct <= n / 4
    chunk = max(1, _CELLS // (distinct if few else n))
    every = np.repeat(rows, counts, axis=0).T
    parts = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        if few:
            means = rng.multinomial(n, counts / n, size=size) @ rows / n
        else:
            drawn = rng.integers(n, size=(size, n), dtype=np.int32)
            means = np.stack([np.take(column, drawn).mean(axis=1) for column in every], axis=1)
        parts.append(statistic(means))
    return np.concatenate(parts)


def mean(values: ArrayLike, level: float = 0.95, *, seed: int = 0) -> Estimate:
    """Mean over inputs with its bootstrap interval."""
    return of_means(values, lambda m: m[:, 0], level, seed=seed)


def ratio_of_means(before: ArrayLike, after: ArrayLike, level: float = 0.95, *, seed: int = 0) -> Estimate:
    """mean(after) / mean(before), paired by position."""
    return of_means(np.column_stack([before, after]), lambda m: m[:, 1] / m[:, 0], level, seed=seed)


def difference_of_means(before: ArrayLike, after: ArrayLike, level: float = 0.95, *, seed: int = 0) -> Estimate:
    """mean(after) − mean(before), paired by position."""
    return mean(np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64), level, seed=seed)


def mcnemar_exact(before: ArrayLike, after: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test on paired right/wrong.

    Returns:
        (right before and wrong after, wrong before and right after, two-sided p).
    """
    a, b = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    lost, won = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(~a & b))
    return lost, won, sign_test(lost, won)


def sign_test(up: int, down: int) -> float:
    """Two-sided p of so uneven a split of up + down coin flips."""
    from scipy.stats import binomtest

    return float(binomtest(min(up, down), up + down, 0.5).pvalue) if up + down else 1.0


def proportion(successes: int, n: int, level: float = 0.95, method: str = "wilson") -> Estimate:
    """A share with Wilson's score interval, or Clopper and Pearson's ("exact")."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(level, method="wilson" if method == "wilson" else "exact")
    name = "Wilson" if method == "wilson" else "Clopper-Pearson"
    return Estimate(successes / n, float(interval.low), float(interval.high), level, n, name)


def quantile(values: ArrayLike, q: float, level: float = 0.95) -> Estimate:
    """An order-statistic quantile (nearest rank from above) with its distribution-free binomial interval."""
    from scipy.stats import binom

    x = np.sort(_vector(values))
    n = len(x)
    tail = (1 - level) / 2
    low = int(binom.ppf(tail, n, q))
    high = int(binom.ppf(1 - tail, n, q)) + 1
    value = float(x[min(n - 1, max(0, int(np.ceil(q * n)) - 1))])
    return Estimate(
        value,
        float(x[max(low, 1) - 1]),
        float(x[min(high, n) - 1]),
        level,
        n,
        "order statistics",
    )


def tail_mean(
    values: ArrayLike, share: float, level: float = 0.95, *, resamples: int = INPUT_RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of the largest ``share`` of the values, at least one of them (CVaR), with its bootstrap interval.

    Args:
        values: (n,). share: of the inputs, in (0, 1]; rounded up to whole ones.
        level: confidence level. resamples, seed: of the bootstrap over inputs.
    """
    levels, counts = np.unique(_vector(values), return_counts=True)
    levels, counts = levels[::-1], counts[::-1]
    n = int(counts.sum())
    worst = max(1, int(np.ceil(share * n - 1e-9)))

    def of(drawn: NDArray[Any]) -> Floats:
        taken = np.diff(np.minimum(np.cumsum(drawn, axis=1), worst), axis=1, prepend=0)
        return np.asarray(taken @ levels / worst, dtype=np.float64)

    value, rng = float(of(counts[None])[0]), np.random.default_rng(seed)
    chunk = max(1, _CELLS // len(levels))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    replicates = np.concatenate([of(rng.multinomial(n, counts / n, size=size)) for size in sizes])
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), level, n, "bootstrap over inputs")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def _vector(values: ArrayLike) -> Floats:
    d = np.asarray(values, dtype=np.float64)
    if d.ndim != 1 or len(d) == 0 or not np.isfinite(d).all():
        raise ValueError("a non-empty vector of finite numbers is needed")
    return d


def _logs(values: ArrayLike) -> Floats:
    x = _vector(values)
    if (x <= 0).any():
        raise ValueError("a ratio needs positive measurements")
    return np.asarray(np.log(x), dtype=np.float64)
