"""Patience and geometric ensembles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic_logs import chain, log_of, logits_for, random_log

from adaptbench.adaptive import CalibrationLog, Signals
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.outcome import signals_at
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies.thresholds.pabee import Patience, answer_leads
from adaptbench.policies.thresholds.score_thresholds import chain_point, score_table
from adaptbench.policies.thresholds.ztw import GeometricEnsemble

# ---------------------------------------------------------------------- patience


def counted(answers, patience):
    """The paper's counter, spelled out."""
    agreements = 0
    for k in range(len(answers) - 1):
        agreements = agreements + 1 if k and answers[k] == answers[k - 1] else 0
        if agreements == patience:
            return k
    return len(answers) - 1


@pytest.mark.parametrize("patience", [0, 1, 2, 3, 4, 5])
def test_the_margin_is_the_counter(patience):
    logits = 0.7 * torch.randn(400, 5, 3, generator=torch.Generator().manual_seed(1))
    found = replay(Patience(patience), chain(5, 3), logits)
    want = [counted(row, patience) for row in logits.argmax(-1).tolist()]
    assert found.exit.tolist() == want
    assert torch.equal(found.logits, logits[torch.arange(400), found.exit])


def test_alternating_answers_never_stop():
    predicted = np.array([[0, 1, 0, 1, 0, 1]])
    logits = logits_for(np.full(predicted.shape, 0.999), predicted, 3)
    assert int(replay(Patience(1), chain(6, 3), logits).exit) == 5


def test_the_margin_is_the_smallest_lead_of_the_present_answer():
    logits = torch.tensor([[[3.0, 1.0, 0.0], [0.0, 0.5, -1.0], [0.0, 2.0, 1.0]]])
    assert answer_leads(logits, torch.tensor([1])).tolist() == [[-2.0, 0.5, 1.0]]
    policy = Patience(1)
    assert policy.margin(1, signals_at(logits, 1)).item() == pytest.approx(2.0)
    assert policy.margin(2, signals_at(logits, 2)).item() == pytest.approx(-0.5)
    assert Patience(2).margin(2, signals_at(logits, 2)).item() == pytest.approx(2.0)


def test_a_gradient_step_on_the_margin_wins_another_exit():
    logits = torch.randn(200, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    policy = Patience(1)
    before = policy.margin(1, signals_at(logits, 1))
    (gradient,) = torch.autograd.grad(before.sum(), logits)
    after = policy.margin(1, signals_at((logits + 0.3 * gradient).detach(), 1))
    stopped = before <= 0
    assert (after[stopped] > before[stopped]).all()
    assert (after > 0).sum() > (before > 0).sum()


def test_the_cheapest_patience_that_keeps_the_accuracy_is_taken():
    log = random_log(1000, 5, 0)
    points = {p.patience: evaluate_on(p, log) for p in Patience.family(log)}
    best = float(log.correct.float().mean(0).max())
    chosen = Patience.fit(log, drop=0.05)
    good = {k: p for k, p in points.items() if p.accuracy >= best - 0.05}
    assert chosen.patience == min(good, key=lambda k: good[k].cost_mean)
    costs = [points[k].cost_mean for k in sorted(points)]
    assert costs == sorted(costs)
    assert costs[0] == float(log.exit_costs[0])
    assert costs[-1] == float(log.exit_costs[-1])


@pytest.mark.parametrize("patience", [-1, 1.5])
def test_patience_is_a_count(patience):
    with pytest.raises(UsageError, match="no count"):
        Patience(patience)


# ---------------------------------------------------------------------- geometric ensembles


def noisy_exits(n=2000, exits=3, classes=5, seed=0):
    """Exits whose logits are the truth under independent noise: together they know more than each."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=g)
    signal = 2.0 * F.one_hot(labels, classes).float()[:, None]
    logits = signal + 1.3 * torch.randn(n, exits, classes, generator=g)
    return CalibrationLog(logits, labels, chain(exits, classes), torch.tensor([10] * exits), "s", "calibration", "")


def test_the_ensemble_is_a_weighted_geometric_mean():
    log = noisy_exits()
    policy = GeometricEnsemble.fit(log)
    p = log.logits[:7, :2].softmax(-1)
    a, b = policy.log_weights[1].exp(), policy.biases[1]
    product = (p[:, 0] ** (a[0] / 2)) * (p[:, 1] ** (a[1] / 2)) * b.exp()
    want = product / product.sum(-1, keepdim=True)
    assert torch.allclose(policy.predict(1, signals_at(log.logits[:7], 1)).exp(), want, atol=1e-5)
    last = signals_at(log.logits[:7], 2)
    assert torch.equal(policy.predict(2, last), last.logits)  # no ensemble on the final head


def test_weights_are_where_the_penalised_cross_entropy_is_least():
    log = noisy_exits()
    policy = GeometricEnsemble.fit(log, penalty=1e-3)
    learned = [policy.log_weights[1].requires_grad_(), policy.biases[1].requires_grad_()]
    q = policy.predict(1, signals_at(log.logits, 1))
    loss = F.nll_loss(q, log.labels) + 1e-3 * sum((p * p).sum() for p in learned)
    for gradient in torch.autograd.grad(loss, learned):
        assert gradient.abs().max() < 2e-4


def test_recycling_beats_the_exit_alone():
    log = noisy_exits()
    fitting, held_out = log.halves()
    policy = GeometricEnsemble.fit(fitting)
    _, correct = score_table(policy, held_out)
    alone = held_out.correct.float().mean(0)
    assert correct[:, 1].mean() > float(alone[1]) + 0.05


def test_a_mute_exit_is_weighed_down():
    log = noisy_exits()
    noise = torch.randn(log.logits[:, 0].shape, generator=torch.Generator().manual_seed(9))
    broken = log.logits.clone()
    broken[:, 0] = 3 * noise
    log = CalibrationLog(broken, log.labels, log.structure, log.node_macs, log.data, log.role, "")
    weights = GeometricEnsemble.fit(log, penalty=1e-4).log_weights[1].exp()
    assert weights[0] < 0.1 * weights[1]


def test_one_threshold_for_all_exits():
    log = noisy_exits()
    policy = GeometricEnsemble.fit(log).at(0.7)
    tops, correct = score_table(policy, log)
    found = replay(policy, log.structure, log.logits)
    want = np.concatenate([tops >= 0.7, np.ones((len(log), 1), bool)], 1).argmax(1)
    clear = (np.abs(tops - 0.7) > 1e-5).all(1)
    assert (found.exit.numpy() == want)[clear].all()
    quick, slow = chain_point(log, correct, tops >= 0.7, 0.7), evaluate_on(policy, log)
    assert (quick.accuracy, quick.cost_mean) == pytest.approx((slow.accuracy, slow.cost_mean), abs=1e-3)


def test_its_macs_grow_with_the_exits_recycled():
    log = random_log(100, 3, 0)
    policy = GeometricEnsemble.fit(log)
    spent = []
    for k in range(3):
        with counting() as counter:
            policy.predict(k, signals_at(log.logits[:1], k))
        spent.append(counter.macs)
    assert spent == [4, 8, 0]


def test_ensembles_of_another_size_are_refused():
    policy = GeometricEnsemble.fit(random_log(100, 3, 0))
    with pytest.raises(PolicyError, match="3 exits and 4 classes"):
        policy.bind(chain(4, 4))
    with pytest.raises(CalibrationError, match="too few"):
        GeometricEnsemble.fit(random_log(20, 3, 0))
    with pytest.raises(ValueError, match="history"):
        policy.predict(0, Signals(torch.zeros(1, 4)))


def test_the_dear_end_runs_everything():
    log = log_of(np.full((200, 3), 0.9), np.ones((200, 3)), macs=[1, 1, 1])
    family = GeometricEnsemble.family(log)
    assert evaluate_on(family[-1], log).cost_mean == 3.0
    assert evaluate_on(family[0], log).cost_mean == 1.0


@pytest.mark.parametrize("kind", [Patience, GeometricEnsemble])
def test_a_seed_changes_nothing(kind):
    log = random_log(200, 3, 0)
    assert kind.fit(log, seed=0).describe() == kind.fit(log, seed=7).describe()
