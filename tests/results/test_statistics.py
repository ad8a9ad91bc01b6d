from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.results import statistics, verdicts
from adaptbench.results.verdicts import Verdict

FLOATS = st.floats(-100, 100, allow_nan=False)


@given(st.lists(FLOATS, min_size=1, max_size=12))
def test_hodges_lehmann_is_the_median_of_pairwise_means(values):
    brute = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2)]
    assert float(statistics.hodges_lehmann(values)) == pytest.approx(np.median(brute), abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9])
def test_signed_rank_distribution_by_enumeration(n):
    counts = np.zeros(n * (n + 1) // 2 + 1)
    for signs in itertools.product([0, 1], repeat=n):
        counts[sum(rank for rank, sign in zip(range(1, n + 1), signs, strict=True) if sign)] += 1
    np.testing.assert_allclose(statistics._signed_rank_pmf(n), counts / 2**n)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 3), (4, 4), (5, 3)])
def test_rank_sum_distribution_by_enumeration(n, m):
    counts = np.zeros(n * m + 1)
    for chosen in itertools.combinations(range(n + m), n):
        counts[sum(chosen) - n * (n - 1) // 2] += 1
    np.testing.assert_allclose(statistics._rank_sum_pmf(n, m), counts / math.comb(n + m, n))


def test_rank_sum_distribution_stays_exact_for_many_blocks():
    pmf = statistics._rank_sum_pmf(24, 24)
    assert pmf.min() > 0
    np.testing.assert_allclose(pmf, pmf[::-1], rtol=1e-9)
    moments = np.arange(len(pmf))
    assert (pmf * moments).sum() == pytest.approx(288)
    assert (pmf * (moments - 288) ** 2).sum() == pytest.approx(24 * 24 * 49 / 12)


@pytest.mark.parametrize("n", [6, 7, 8, 9])
def test_signed_rank_interval_inverts_scipys_exact_test(n):
    d = np.random.default_rng(n).normal(0.3, 1, n)
    got = statistics.signed_rank_interval(d)
    for end, inward in ((got.low, 1), (got.high, -1)):
        inside = scipy.stats.wilcoxon(d - (end + inward * 1e-6), method="exact").pvalue
        outside = scipy.stats.wilcoxon(d - (end - inward * 1e-6), method="exact").pvalue
        assert outside <= 0.05 < inside


def test_smallest_block_counts_for_a_bounded_interval():
    assert statistics.signed_rank_interval(np.arange(5.0)).ci is None
    assert statistics.signed_rank_interval(np.arange(6.0)).ci == [0.0, 5.0]
    assert statistics.signed_rank_interval(np.arange(7.0), level=0.99).ci is None
    assert statistics.signed_rank_interval(np.arange(8.0), level=0.99).ci is not None


def test_unpaired_interval_inverts_scipys_exact_test():
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(0, 0.1, 7), rng.lognormal(0.2, 0.1, 6)
    got = statistics.unpaired_ratio(a, b, 0.95)
    for end, inward in ((got.low, 1 + 1e-6), (got.high, 1 - 1e-6)):
        inside = scipy.stats.mannwhitneyu(np.log(b / (end * inward)), np.log(a), method="exact").pvalue
        outside = scipy.stats.mannwhitneyu(np.log(b / (end / inward)), np.log(a), method="exact").pvalue
        assert outside <= 0.05 < inside


def test_bca_agrees_with_scipy():
    d = np.random.default_rng(0).exponential(1, 40)
    ours = statistics.bca_interval(d)

    def hodges_lehmann(x, axis):
        return statistics.hodges_lehmann(np.moveaxis(x, axis, -1))

    theirs = scipy.stats.bootstrap(
        (d,), hodges_lehmann, vectorized=True, method="BCa", n_resamples=10_000, batch=1000
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_bca_of_equal_blocks_is_a_point():
    assert statistics.bca_interval(np.full(12, 0.25)).ci == [0.25, 0.25]


@pytest.mark.parametrize(("n", "method"), [(9, "Wilcoxon"), (10, "BCa")])
def test_interval_by_number_of_blocks(n, method):
    assert method in statistics.shift(np.arange(float(n))).method


def test_paired_ratio_cancels_what_both_arms_share():
    rng = np.random.default_rng(2)
    drift = np.exp(np.cumsum(rng.normal(0, 0.1, 8)))
    got = statistics.paired_ratio(drift, 1.05 * drift * np.exp(rng.normal(0, 0.001, 8)))
    assert got.value == pytest.approx(1.05, abs=0.002)
    assert got.low > 1.045
    assert got.high < 1.055


@pytest.mark.parametrize(("before", "after"), [([1.0, 2.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([], [])])
def test_paired_ratio_refuses(before, after):
    with pytest.raises(ValueError):
        statistics.paired_ratio(before, after)


def test_ratio_of_means_agrees_with_scipys_bootstrap_and_is_repeatable():
    rng = np.random.default_rng(4)
    a = rng.choice([100, 220, 400], 200, p=[0.6, 0.3, 0.1])
    b = rng.choice([100, 220, 400], 200, p=[0.1, 0.3, 0.6])
    ours = statistics.ratio_of_means(a, b)
    assert ours == statistics.ratio_of_means(a, b)
    theirs = scipy.stats.bootstrap(
        (a, b), lambda x, y, axis: y.mean(axis) / x.mean(axis), paired=True, vectorized=True, n_resamples=4000
    ).confidence_interval
    assert ours.value == pytest.approx(b.mean() / a.mean())
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=0.04)


def test_multinomial_draws_have_the_distribution_of_drawing_rows():
    x = np.random.default_rng(5).choice([1.0, 4.0, 9.0], 150)
    wide = statistics.mean(x, 0.9)
    half = 1.6448536 * x.std() / math.sqrt(150)
    assert [wide.low, wide.high] == pytest.approx([x.mean() - half, x.mean() + half], abs=0.08)


def test_ten_thousand_distinct_inputs_stay_light():
    import tracemalloc

    x = np.random.default_rng(6).normal(size=10_000)
    tracemalloc.start()
    statistics.mean(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.floats(0.1, 50))
def test_mean_interval_scales_with_the_unit(values, factor):
    one, many = statistics.mean(np.array(values, float)), statistics.mean(np.array(values, float) * factor)
    assert many.low == pytest.approx(one.low * factor, abs=1e-9 * factor)
    assert many.high == pytest.approx(one.high * factor, abs=1e-9 * factor)
    assert one.low <= one.value + 1e-12
    assert one.high >= one.value - 1e-12


def test_mean_needs_finite_rows():
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(ValueError):
            statistics.mean(bad)


def test_statistic_that_is_not_finite_somewhere_has_no_interval():
    got = statistics.of_means([0.0, 0.0, 0.0, 1.0], lambda m: np.where(m[:, 0] > 0, 1, np.nan))
    assert got.ci is None


def test_mcnemar():
    before, after = np.array([1] * 10 + [0] * 4, bool), np.array([1] * 3 + [0] * 7 + [1] * 2 + [0] * 2, bool)
    lost, won, p = statistics.mcnemar_exact(before, after)
    assert (lost, won) == (7, 2)
    assert p == pytest.approx(2 * sum(math.comb(9, k) for k in range(3)) / 2**9)
    assert statistics.mcnemar_exact(before, before) == (0, 0, 1.0)


def test_wilson_closed_form_and_clopper_pearson():
    k, n, z = 37, 50, 1.959963984540054
    centre = (k / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    assert statistics.proportion(k, n).ci == pytest.approx([centre - half, centre + half])
    exact = statistics.proportion(k, n, method="exact")
    assert exact.ci == pytest.approx(
        [scipy.stats.beta.ppf(0.025, k, n - k + 1), scipy.stats.beta.ppf(0.975, k + 1, n - k)]
    )
    assert statistics.proportion(20, 20).low < 1


def test_quantile_is_an_observed_value_with_covering_interval():
    rng = np.random.default_rng(8)
    truth = scipy.stats.norm.ppf(0.9)
    hits = 0
    for _ in range(300):
        got = statistics.quantile(rng.normal(size=120), 0.9)
        hits += got.low <= truth <= got.high
    assert hits >= 0.93 * 300
    assert statistics.quantile([1, 2, 3, 4], 0.5).value == 2
    assert statistics.quantile(range(1, 101), 0.99).value == 99


def test_holm():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([]) == []
    assert statistics.holm([0.6, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.03, 0.05, Verdict.REGRESSION),
        (-0.05, -0.03, Verdict.IMPROVEMENT),
        (-0.02, 0.02, Verdict.NO_CHANGE),
        (0.01, 0.03, Verdict.INCONCLUSIVE),
        (-math.inf, math.inf, Verdict.INCONCLUSIVE),
    ],
)
def test_verdict(low, high, expected):
    assert verdicts.verdict(low, high, 0.02) is expected


@given(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0.001, 0.3))
def test_verdict_turns_round_with_the_arms(one, other, margin):
    low, high = sorted((one, other))
    swapped = {Verdict.REGRESSION: Verdict.IMPROVEMENT, Verdict.IMPROVEMENT: Verdict.REGRESSION}
    low, high, bound = math.log(low), math.log(high), math.log1p(margin)
    forth, back = verdicts.verdict(low, high, bound), verdicts.verdict(-high, -low, bound)
    if min(abs(abs(end) - bound) for end in (low, high)) > 1e-9:
        assert back is swapped.get(forth, forth)


def planted_step_rates(true_ratio, sd, *, blocks, margin, rng, simulations=20_000, level=0.95):
    """Share of simulations under each verdict: normal block log ratios, Student's interval of their mean is judged."""
    d = rng.normal(math.log(true_ratio), sd, size=(simulations, blocks))
    half = scipy.stats.t.ppf((1 + level) / 2, blocks - 1) * d.std(axis=1, ddof=1) / math.sqrt(blocks)
    centre = d.mean(axis=1)
    ends = zip((centre - half).tolist(), (centre + half).tolist(), strict=True)
    given = Counter(verdicts.verdict(low, high, math.log1p(margin)) for low, high in ends)
    return {name: given[name] / simulations for name in Verdict}


@pytest.mark.parametrize(
    ("sd", "ratio", "expected"),
    [
        (0.02, 1.05, {Verdict.REGRESSION: 99.5}),
        (0.02, 1.0, {Verdict.REGRESSION: 0, Verdict.IMPROVEMENT: 0, Verdict.NO_CHANGE: 76, Verdict.INCONCLUSIVE: 24}),
        (0.02, 1.02, {Verdict.REGRESSION: 2.6}),
        (0.0283, 1.05, {Verdict.REGRESSION: 90}),
        (0.0283, 1.0, {Verdict.REGRESSION: 0, Verdict.IMPROVEMENT: 0, Verdict.NO_CHANGE: 26, Verdict.INCONCLUSIVE: 74}),
    ],
)
def test_planted_steps_give_the_known_rates(sd, ratio, expected):
    rates = planted_step_rates(ratio, sd, blocks=12, margin=0.02, rng=np.random.default_rng(0))
    assert sum(rates.values()) == pytest.approx(1)
    for name, percent in expected.items():
        assert 100 * rates[name] == pytest.approx(percent, abs=2), name


def test_power_figures():
    assert verdicts.minimum_detectable_effect(0.01, 0.02) == pytest.approx(0.02 + 2.4865e-2, abs=1e-5)
    assert verdicts.one_sided_p(0.05, 0.01, 0.02) == pytest.approx(scipy.stats.norm.sf(3))
    assert verdicts.one_sided_p(0.05, 0.0, 0.02) == 0


def test_minimum_detectable_effect_is_found_four_times_in_five():
    error = 0.02 / math.sqrt(60)
    effect = verdicts.minimum_detectable_effect(error, math.log1p(0.02))
    rates = planted_step_rates(
        math.exp(effect), 0.02, blocks=60, margin=0.02, rng=np.random.default_rng(2), level=0.9, simulations=5000
    )
    assert rates[Verdict.REGRESSION] == pytest.approx(0.8, abs=0.03)


def test_both_ways_of_drawing_agree():
    rng = np.random.default_rng(9)
    coarse = rng.integers(0, 4, 400).astype(float)
    fine = coarse + 1e-9 * rng.random(400)  # the same numbers, no two equal
    one, other = statistics.mean(coarse), statistics.mean(fine)
    assert [one.low, one.high] == pytest.approx([other.low, other.high], abs=0.012)


@given(st.lists(st.tuples(st.sampled_from([-2.5, 0.0, 1.0, 7.0]), st.sampled_from([-1.0, 0.0, 3.0])), min_size=1))
def test_rows_that_differ_are_those_that_numpy_finds(pairs):
    for x in (np.array(pairs), np.array(pairs)[:, :1]):
        rows, counts = statistics._distinct(x)
        expected = np.unique(x, axis=0, return_counts=True)
        assert rows.tolist() == expected[0].tolist()
        assert counts.tolist() == expected[1].tolist()


@pytest.mark.parametrize("ratio", [False, True])
def test_many_unlike_inputs_have_the_interval_that_drawing_them_has(monkeypatch, ratio):
    """The limit against rows drawn one by one, on 30 000 skewed inputs."""
    rng = np.random.default_rng(1)
    before = rng.lognormal(0, 1, 30_000)
    after = before * rng.lognormal(0.1, 0.3, 30_000)
    columns = np.column_stack([before, after])

    def of() -> statistics.Estimate:
        if ratio:
            return statistics.of_means(columns, lambda m: m[:, 1] / m[:, 0])
        return statistics.mean(after)

    drawn = of()
    monkeypatch.setattr(statistics, "MANY", 30_000)
    limit = of()
    assert limit.value == drawn.value
    assert limit.method != drawn.method
    width = drawn.high - drawn.low
    assert limit.low == pytest.approx(drawn.low, abs=0.06 * width)
    assert limit.high == pytest.approx(drawn.high, abs=0.06 * width)
