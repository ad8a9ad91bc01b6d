"""Against the rule as the authors' code has it, written down literally."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_logs import log_of, random_log

from adaptbench.adaptive import Signals
from adaptbench.adaptive.replay import evaluate_on
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies import SoftmaxThreshold
from adaptbench.testing import planted_graph, planted_split

quick = settings(max_examples=60, deadline=None, derandomize=True)


def literal_threshold(confidence: np.ndarray, correct: np.ndarray, epsilon: float, min_support: int) -> float:
    """min {δ : α(δ) ≥ α* − ε}, α(δ) over {x : conf(x) ≥ δ}, every δ that occurs, N² comparisons."""
    alphas = {}
    for delta in confidence:
        admitted = [c for f, c in zip(confidence, correct, strict=True) if f >= delta]
        alphas[delta] = (sum(admitted) / len(admitted), len(admitted))
    best = max(a for a, support in alphas.values() if support >= min_support)
    return min(delta for delta, (a, _) in alphas.items() if a >= best - epsilon - 1e-6)


@quick
@given(
    st.integers(20, 60),
    st.integers(0, 10_000),
    st.sampled_from([None, 5, 12]),
    st.sampled_from([0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0]),
    st.integers(1, 20),
)
def test_thresholds_are_the_literal_rule(n, seed, levels, epsilon, min_support):
    log = random_log(n, 3, seed, levels=levels)
    policy = SoftmaxThreshold.fit(log, epsilon=epsilon, min_support=min_support)
    confidence, correct = log.confidence.double().numpy(), log.correct.numpy()
    want = [literal_threshold(confidence[:, k], correct[:, k], epsilon, min_support) for k in range(2)]
    np.testing.assert_array_equal(policy.thresholds.double().numpy(), want)


def test_the_index_form_of_the_paper_agrees_without_ties():
    """Steps 1 to 5 of the published code: sort, residual sums, first index within ε of the best."""
    log = random_log(400, 2, seed=3)
    confidence, correct = log.confidence[:, 0].double().numpy(), log.correct[:, 0].numpy()
    order = np.argsort(confidence)
    residual = correct[order][::-1].cumsum()[::-1] / (len(order) - np.arange(len(order)))
    for epsilon in (0.0, 0.01, 0.05, 0.1):
        first = np.argmax(residual >= residual.max() - epsilon)
        fitted = SoftmaxThreshold.fit(log, epsilon=epsilon, min_support=1)
        assert fitted.thresholds[0].item() == confidence[order][first]


@quick
@given(st.integers(0, 10_000), st.sampled_from([None, 6]))
def test_a_larger_epsilon_never_raises_a_threshold_or_the_cost(seed, levels):
    log = random_log(60, 4, seed, levels=levels)
    fitted = SoftmaxThreshold.fit(log, epsilon=0.0, min_support=5)
    grid = [0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0]
    policies = [fitted.at(epsilon) for epsilon in grid]
    thresholds = torch.stack([p.thresholds for p in policies])
    assert (thresholds.diff(dim=0) <= 0).all()
    macs = [evaluate_on(p, log).macs_mean for p in policies]
    assert macs == sorted(macs, reverse=True)
    assert (policies[-1].thresholds == log.confidence[:, :-1].amin(0)).all()  # ε = 1 takes everything seen


@quick
@given(st.integers(0, 10_000))
def test_a_calibration_sample_reaches_its_own_threshold(seed):
    """The sample that gave δ must be admitted by it: float32 and float64 may not disagree."""
    log = random_log(50, 3, seed)
    for epsilon in (0.0, 0.03):
        policy = SoftmaxThreshold.fit(log, epsilon=epsilon, min_support=5)
        for k in range(2):
            margins = policy.margin(k, Signals(log.logits[:, k]))
            assert (margins == 0).any()
            at_or_above = log.confidence[:, k] >= policy.thresholds[k]
            assert torch.equal(margins <= 0, at_or_above)


def test_an_accuracy_just_epsilon_below_the_best_is_admitted():
    """α = 0.9 on everything, 1.0 above; ε = 0.1 must admit everything although 1.0 − 0.1 rounds."""
    confidence = np.linspace(0.4, 0.95, 20)[:, None].repeat(2, 1)
    correct = np.ones((20, 2), bool)
    correct[:2] = False
    log = log_of(confidence, correct, macs=[1, 2])
    for epsilon, admitted in ((0.1, 20), (0.0999, 19), (0.0, 18)):
        policy = SoftmaxThreshold.fit(log, epsilon=epsilon, min_support=5)
        assert int((log.confidence[:, 0] >= policy.thresholds[0]).sum()) == admitted


def test_support_keeps_luck_out():
    """One confident right sample above many that are 80 % right: α* = 1 by luck without a minimum."""
    confidence = np.r_[np.linspace(0.5, 0.8, 100), 0.99][:, None].repeat(2, 1)
    correct = np.r_[np.arange(100) % 5 > 0, True][:, None].repeat(2, 1)
    log = log_of(confidence, correct, macs=[1, 2])
    lucky = SoftmaxThreshold.fit(log, epsilon=0.05, min_support=1)
    careful = SoftmaxThreshold.fit(log, epsilon=0.05, min_support=50)
    assert lucky.thresholds[0] > 0.79
    assert careful.thresholds[0] < 0.51


def test_equal_confidences_are_admitted_together():
    confidence = np.full((40, 2), 0.7)
    correct = np.arange(40)[:, None].repeat(2, 1) % 2 == 0
    log = log_of(confidence, correct, macs=[1, 2])
    log = replace(log, logits=log.logits.sort().values)  # the same numbers in the same places: the same sum
    assert evaluate_on(SoftmaxThreshold.fit(log, epsilon=0.0, min_support=5), log).macs_mean == 1


def test_saturated_confidences_leave():
    """A softmax of exactly 1.0 everywhere: the threshold is 1.0 and everybody reaches it."""
    log = random_log(40, 2, seed=0)
    hot = torch.zeros_like(log.logits).scatter(-1, log.logits.argmax(-1, keepdim=True), 200.0)
    log = replace(log, logits=hot)
    assert (log.confidence == 1).all()
    policy = SoftmaxThreshold.fit(log, epsilon=0.0, min_support=5)
    assert evaluate_on(policy, log).macs_mean == int(log.node_macs[0])


@pytest.mark.parametrize("epsilon", [-0.01, 1.5, 20])
def test_epsilon_is_a_fraction(epsilon):
    with pytest.raises(UsageError, match="accuracy fraction"):
        SoftmaxThreshold.fit(random_log(50, 2, 0), epsilon=epsilon, min_support=5)


def test_too_few_samples_and_the_wrong_model_are_refused():
    with pytest.raises(CalibrationError, match="199 calibration samples"):
        SoftmaxThreshold.fit(random_log(199, 2, 0))
    policy = SoftmaxThreshold.fit(random_log(200, 2, 0))
    with pytest.raises(PolicyError, match="1 thresholds were given to 3 exits"):
        planted_graph().policy = policy
    with pytest.raises(PolicyError, match="works on chains"):
        planted_graph("dag").policy = SoftmaxThreshold.fit(random_log(200, 3, 0))


def test_one_calibration_serves_every_epsilon():
    log = random_log(300, 3, 1)
    fitted = SoftmaxThreshold.fit(log, epsilon=0.0)
    for epsilon in (0.01, 0.07):
        assert torch.equal(fitted.at(epsilon).thresholds, SoftmaxThreshold.fit(log, epsilon=epsilon).thresholds)


def test_the_cost_is_the_paper_s_bookkeeping():
    """Σ_m (samples that reach m) · MAC_m / N."""
    net = planted_graph()
    log = net.log(planted_split())
    net.policy = SoftmaxThreshold.fit(log, epsilon=0.02, min_support=100)
    test = planted_split("test")
    found = net.infer(test.images())
    reached = [len(test), int((found.exit >= 1).sum()), int((found.exit >= 2).sum())]
    assert found.macs.sum().item() == sum(n * m for n, m in zip(reached, net.node_macs, strict=True))
    assert 0 < reached[2] < reached[1] < reached[0]
