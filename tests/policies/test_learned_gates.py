"""Gates that learned when to stop, and fitted Q."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from synthetic_logs import chain, log_of, random_log

from adaptbench.adaptive import Signals, Structure
from adaptbench.adaptive.replay import evaluate_on
from adaptbench.errors import CalibrationError, CapabilityError, PolicyError, UsageError
from adaptbench.policies import UniformThreshold
from adaptbench.policies.gates.distilled_oracle import DistilledOracle, soft_oracle
from adaptbench.policies.gates.fitted_q import FittedQ, ridge_fit
from adaptbench.policies.gates.jei_dnn import JeiGates, best_exit
from adaptbench.policies.gates.label_free import LabelFree, pseudo_labelled
from adaptbench.policies.gates.selection_module import stopping_distribution
from adaptbench.policies.gates.stop_gates import StopGates, relative_costs, weighted_logistic

GATES = [LabelFree, DistilledOracle, JeiGates]


# ---------------------------------------------------------------------- what all gates share


def told_by_confidence(n=3000, seed=0):
    """Exit 1 is right exactly where it is confident; exit 3 always is."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 0.99, (n, 3))
    correct = np.stack([confidence[:, 0] > 0.7, confidence[:, 1] > 0.5, np.ones(n, bool)], 1)
    confidence[:, 2] = 0.97
    return log_of(confidence, correct, macs=[10, 30, 60], seed=seed)


@pytest.mark.parametrize("kind", [*GATES, FittedQ])
def test_it_finds_where_confidence_tells_right_from_wrong(kind):
    """Samples that exit 1 gets right leave there; the rest goes on: cheap and right."""
    log = told_by_confidence()
    points = [evaluate_on(p, log) for p in kind.family(log)]
    assert max(p.accuracy for p in points if p.cost_mean < 70) > 0.97


@pytest.mark.parametrize("kind", GATES)
def test_a_higher_price_leaves_earlier(kind):
    log = random_log(1500, 3, 0)
    costs = [evaluate_on(kind.fit(log, price=p), log).cost_mean for p in (kind.path[0], 0.3, 0.03)]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(float(log.exit_costs[0]), rel=0.05)
    assert costs[-1] > 1.5 * costs[0]


@pytest.mark.parametrize("kind", GATES)
def test_the_family_is_a_front(kind, monkeypatch):
    monkeypatch.setattr(kind, "path", kind.path[2:9:2])
    log = random_log(1500, 3, 0)
    judged = pseudo_labelled(log) if kind is LabelFree else log
    points = [evaluate_on(p, judged) for p in kind.family(log)]
    assert len(points) >= 5
    for one, two in pairwise(points):
        assert one.cost_mean < two.cost_mean
        assert one.accuracy < two.accuracy
    alone = evaluate_on(kind.fit(log, price=kind.path[1]), judged)
    assert any(p.cost_mean <= alone.cost_mean and p.accuracy >= alone.accuracy for p in points)


@pytest.mark.parametrize("kind", GATES)
def test_a_higher_t_stops_later(kind):
    log = random_log(500, 3, 1)
    policy = kind.fit(log, price=0.2)
    costs = [evaluate_on(policy.at(t), log).cost_mean for t in (0.1, 0.5, 0.9)]
    assert costs == sorted(costs)


@pytest.mark.parametrize("kind", GATES)
def test_wrong_sizes_and_settings_are_named(kind):
    log = random_log(100, 3, 0)
    policy = kind.fit(log, price=0.2)
    with pytest.raises(PolicyError, match="2 gates for 4 classes"):
        policy.bind(chain(4, 4))
    with pytest.raises(UsageError, match="no probability"):
        policy.at(1.0)
    with pytest.raises(CalibrationError, match="too few"):
        kind.fit(random_log(20, 3, 0), price=0.2)


def test_weighted_logistic_is_the_repeated_one():
    g = np.random.default_rng(0)
    x = g.normal(size=(200, 3))
    stop, go = g.integers(0, 4, 200), g.integers(1, 4, 200)
    weight, bias = weighted_logistic(torch.tensor(x), torch.tensor(stop), torch.tensor(go), strength=1e6)
    repeated = np.concatenate([np.repeat(x, stop, 0), np.repeat(x, go, 0)])
    labels = np.repeat([1, 0], [stop.sum(), go.sum()])
    plain = LogisticRegression(C=1e6, max_iter=1000).fit(repeated, labels)
    assert weight == pytest.approx(plain.coef_[0], abs=1e-3)
    assert bias == pytest.approx(plain.intercept_[0], abs=1e-3)


@pytest.mark.parametrize(("stop", "go", "sign"), [(1.0, 0.0, 1), (0.0, 1.0, -1)])
def test_a_gate_that_saw_one_answer_gives_it_and_keeps_a_slope(stop, go, sign):
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    weight, bias = weighted_logistic(x, torch.full((100,), stop), torch.full((100,), go))
    assert (x @ torch.tensor(weight).float() + bias).sign().eq(sign).all()
    assert (weight != 0).any()


def test_standardising_is_part_of_the_policy():
    log = random_log(300, 3, 0)
    policy, features = JeiGates._start(log, 0.1)
    for k in range(2):
        assert features[k].mean(0).abs().max() < 1e-4
        seen = JeiGates.features(Signals(log.logits[:, k]))
        assert torch.allclose(policy.stop_logit(k, Signals(log.logits[:, k])), policy.gates[k](features[k]).squeeze(1))
        assert seen.shape == (300, 4)
    with pytest.raises(CapabilityError, match="define fit"):
        StopGates.fit(log, price=0.1)


# ---------------------------------------------------------------------- label-free


@pytest.mark.parametrize("price", [0.0, 0.1])
def test_no_label_is_read(price):
    log = random_log(300, 3, 0)
    shuffled = replace(log, labels=log.labels[torch.randperm(300, generator=torch.Generator().manual_seed(0))])
    one, two = (LabelFree.fit(given, price=price) for given in (log, shuffled))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert one.describe() == two.describe()


def test_no_label_is_read_by_the_family_either(monkeypatch):
    monkeypatch.setattr(LabelFree, "path", (0.5, 0.05))
    log = random_log(300, 3, 0)
    blind = replace(log, labels=torch.zeros_like(log.labels))
    for one, two in zip(LabelFree.family(log), LabelFree.family(blind), strict=True):
        assert one.describe() == two.describe()
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_pseudo_labels_make_the_last_exit_right():
    log = random_log(100, 3, 0)
    assert pseudo_labelled(log).correct[:, -1].all()
    assert torch.equal(pseudo_labelled(log).correct[:, 0], log.logits[:, 0].argmax(-1) == log.logits[:, -1].argmax(-1))


def test_the_start_predicts_agreement():
    log = told_by_confidence()
    agreement = LabelFree.fit(log, price=0.0)
    stop = agreement.stop_logit(0, Signals(log.logits[:, 0])) > 0
    assert (stop == pseudo_labelled(log).correct[:, 0]).float().mean() > 0.97


# ---------------------------------------------------------------------- distilled oracle


def test_the_soft_oracle_becomes_the_hard_one():
    log = random_log(200, 3, 0)
    loss = -log.logits.log_softmax(-1)[torch.arange(200)[:, None], torch.arange(3), log.labels[:, None]]
    hard = (loss + 0.3 * relative_costs(log)).argmin(1)
    assert torch.equal(soft_oracle(log, 0.3, 1e-3).argmax(1), hard)
    assert torch.allclose(soft_oracle(log, 0.3, 0.5).sum(1), torch.ones(200))
    flat = soft_oracle(log, 0.3, 1e4)
    assert (flat - 1 / 3).abs().max() < 1e-2


def divergences(policy, log):
    odds = torch.stack([policy.stop_logit(k, Signals(log.logits[:, k])) for k in range(policy.deciders)], 1)
    chances = stopping_distribution(odds.sigmoid()).clamp_min(1e-8)
    target = soft_oracle(log, policy.price, policy.beta).clamp_min(1e-8)
    ratio = chances.log() - target.log()
    return -(target * ratio).sum(1).mean(), (chances * ratio).sum(1).mean()


def test_logistic_regressions_solve_the_forward_divergence():
    """The gradient of KL(q* ‖ π) is the small pull of the penalty."""
    log = random_log(800, 3, 0)
    policy = DistilledOracle.fit(log, price=0.3, beta=0.3).requires_grad_()
    forward, _ = divergences(policy, log)
    for gradient in torch.autograd.grad(forward, list(policy.gates.parameters())):
        assert gradient.abs().max() < 5e-3


def test_each_divergence_is_least_under_its_own_fit():
    log = random_log(800, 3, 0)
    with torch.no_grad():
        of_forward = divergences(DistilledOracle.fit(log, price=0.3, beta=0.3), log)
        of_reverse = divergences(DistilledOracle.fit(log, price=0.3, beta=0.3, divergence="reverse"), log)
    assert of_forward[0] <= of_reverse[0] + 1e-6
    assert of_reverse[1] <= of_forward[1] + 1e-6
    assert of_reverse[1] < of_forward[1] - 1e-4


def test_wrong_words_are_named():
    log = random_log(100, 3, 0)
    with pytest.raises(UsageError, match="no divergence"):
        DistilledOracle.fit(log, divergence="sideways")
    with pytest.raises(UsageError, match="no temperature"):
        DistilledOracle.fit(log, beta=0.0)
    with pytest.raises(UsageError, match="no target"):
        FittedQ.fit(log, target="hope")
    with pytest.raises(UsageError, match="was not fitted"):
        FittedQ.fit(log).at(0.123)


# ---------------------------------------------------------------------- JEI-DNN


def test_the_four_uncertainties():
    z = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    top, entropy, gap, powered = JeiGates.features(Signals(z)).T
    p = z.double().softmax(1).numpy()
    squared = p**2 / (p**2).sum(1, keepdims=True)
    for got, of in ((entropy, p), (powered, squared)):
        assert got.tolist() == pytest.approx((-(of * np.log(of)).sum(1) / np.log(3)).tolist(), abs=1e-5)
    assert top.tolist() == pytest.approx(p.max(1).tolist())
    assert gap.tolist() == pytest.approx([p[0, 0] - p[0, 1], 0.0], abs=1e-6)


def test_gates_are_balanced_logistic_regressions():
    log = random_log(500, 3, 0)
    policy = JeiGates.fit(log, price=0.2)
    best = best_exit(log, 0.2)
    for k in range(2):
        x = (JeiGates.features(Signals(log.logits[:, k])) - policy.shift[k]) * policy.scale[k]
        plain = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x.numpy(), (best <= k).numpy())
        assert policy.gates[k].weight[0].tolist() == pytest.approx(plain.coef_[0].tolist(), abs=2e-3)


def test_the_best_exit_is_the_earliest_of_equals():
    log = log_of(np.full((60, 3), 0.9), np.ones((60, 3)), macs=[1, 1, 1])
    assert (best_exit(log, 0.0) == 0).all()


# ---------------------------------------------------------------------- fitted Q


def test_ridge_is_scikit_learns():
    g = np.random.default_rng(0)
    x, y = g.normal(size=(100, 4)), g.normal(size=(100, 2))
    basis = torch.tensor(np.concatenate([np.ones((100, 1)), x], 1))
    weights = ridge_fit(basis, torch.tensor(y), 3.0).numpy()
    plain = Ridge(alpha=3.0).fit(x, y)
    assert weights[1:] == pytest.approx(plain.coef_.T, abs=1e-6)
    assert weights[0] == pytest.approx(plain.intercept_, abs=1e-6)


@pytest.mark.parametrize("target", ["bootstrap", "replay"])
def test_q_is_the_expected_reward(target):
    """Confidence says everything: Q of stopping is the chance to be right, of going on that of the last exit − cost."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.99, (20000, 2))
    correct = np.stack([rng.random(20000) < confidence[:, 0], rng.random(20000) < 0.8], 1)
    log = log_of(confidence, correct, macs=[10, 30])
    policy = FittedQ.fit(log, prices=(0.2,), target=target)
    with torch.no_grad():
        q = policy.scores(0, Signals(log.logits[:, 0]))
    assert (q[:, 0] - log.confidence[:, 0]).abs().mean() < 0.02
    assert (q[:, 1] - (0.8 - 0.2 * 30 / 40)).abs().mean() < 0.02


def test_the_price_moves_the_indifference_point():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.99, (20000, 2))
    correct = np.stack([rng.random(20000) < confidence[:, 0], np.ones(20000, bool)], 1)
    log = log_of(confidence, correct, macs=[10, 30])
    policy = FittedQ.fit(log, prices=(0.4, 0.2))
    for price in (0.4, 0.2):
        q = policy.at(price).scores(0, Signals(log.logits[:, 0]))
        stops = q[:, 0] >= q[:, 1]
        want = log.confidence[:, 0] >= 1 - price * 0.75
        assert (stops == want).float().mean() > 0.97


def test_on_a_dag_the_better_way_is_taken():
    """Confident where node 1 helps, unsure where only node 2 does."""
    ways = Structure(("a", "b", "c"), ((1, 2), (), ()), 4)
    rng = np.random.default_rng(0)
    easy = rng.random(2000) < 0.5
    confidence = np.stack([np.where(easy, 0.9, 0.4), np.full(2000, 0.8), np.full(2000, 0.8)], 1)
    log = log_of(confidence, np.stack([np.zeros(2000), easy, ~easy], 1), macs=[1, 1, 1], structure=ways)
    assert evaluate_on(FittedQ.fit(log, prices=(0.1,)), log).accuracy == 1.0
    # the next node looks the same to everybody: a bootstrapped target forgets what node 0 saw
    assert evaluate_on(FittedQ.fit(log, prices=(0.1,), target="bootstrap"), log).accuracy < 0.6


def test_fitted_q_keeps_up_with_one_threshold():
    log = random_log(4000, 3, 0)
    fitting, held_out = log.halves()
    ours = sorted((p.cost_mean, p.accuracy) for p in (evaluate_on(m, held_out) for m in FittedQ.family(fitting)))
    baseline = [evaluate_on(UniformThreshold(t), held_out) for t in np.linspace(0.3, 1.0, 30)]
    costs, accuracies = zip(*ours, strict=True)
    among = [point for point in baseline if costs[0] <= point.cost_mean <= costs[-1]]
    assert len(among) > 10
    for point in among:
        assert np.interp(point.cost_mean, costs, accuracies) >= point.accuracy - 0.02
