"""Against enumerated optima: discrete features, every policy tried."""

import itertools

import numpy as np
import pytest
import torch
from synthetic_logs import log_of

from adaptbench.adaptive import Structure
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, PolicyError, UsageError
from adaptbench.policies import DagSelection, Myopic, Oracle
from adaptbench.policies.gates.learned_cascade import seed_weights
from adaptbench.testing import planted_graph

SUCCESSORS = ((1, 2), (2,), ())
STRUCTURE = Structure(("a", "b", "c"), SUCCESSORS, 4)
LEVELS = np.array([0.4, 0.65, 0.9])


def discrete_log(n=900, seed=0, macs=(1, 3, 10)):
    """Each node shows one of three confidences; what later nets can do depends on what is shown."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 3, (n, 3))
    shown[:, 1] = np.where(rng.random(n) < 0.7, shown[:, 0], shown[:, 1])
    chance = np.stack([
        np.array([0.3, 0.6, 0.97])[shown[:, 0]],
        np.array([0.35, 0.9, 0.98])[shown[:, 1]],
        np.array([0.75, 0.95, 0.99])[shown[:, 0]],
    ], 1)  # fmt: skip
    return log_of(LEVELS[shown], rng.random((n, 3)) < chance, macs=list(macs), structure=STRUCTURE, seed=seed), shown


def objective(log, path, leaves, price, goal=2):
    """E[T + λ·(L(ŷ) − L(ŷ_ref))₊], T in units of the reference's own cost; the entry is paid by everybody."""
    correct = log.correct
    lost = (correct[:, goal] & ~correct.gather(1, leaves[:, None]).squeeze(1)).double()
    cost = (path * log.node_macs).sum(1).double() / float(log.node_macs[goal])
    return float((cost + price * lost).mean())


def best_of_all(log, shown, price):
    """Every map from what is shown at a and at b to an action: 3³ · 2³ policies."""
    groups = [
        (a, b, torch.tensor(np.flatnonzero((shown[:, 0] == a) & (shown[:, 1] == b))))
        for a in range(3)
        for b in range(3)
    ]
    best = np.inf
    for at_a in itertools.product((None, 1, 2), repeat=3):
        for at_b in itertools.product((None, 2), repeat=3):
            path = torch.zeros(len(log), 3, dtype=torch.bool)
            leaves = torch.zeros(len(log), dtype=torch.int64)
            for a, b, rows in groups:
                way = [0] if at_a[a] is None else [0, at_a[a]]
                if way[-1] == 1 and at_b[b] is not None:
                    way.append(2)
                path[rows[:, None], torch.tensor(way)] = True
                leaves[rows] = way[-1]
            best = min(best, objective(log, path, leaves, price))
    return best


def fit_all(kind, log, prices, steps=150):
    """Fitted on the whole log, no part held out for choosing."""
    policy = kind(log.structure, prices, prices[0], history=False)
    seed_weights(policy, torch.Generator().manual_seed(0))
    for which, price in enumerate(prices):
        policy._fit_one(which, log, policy._seen(log), price, 2, steps)
    return policy.requires_grad_(False)


@pytest.mark.parametrize("price", [0.6, 2.0, 8.0])
def test_the_fit_reaches_the_enumerated_optimum(price):
    log, shown = discrete_log()
    policy = fit_all(DagSelection, log, (price,))
    found = replay(policy, log.structure, log.logits)
    got, best = objective(log, found.path, found.exit, price), best_of_all(log, shown, price)
    assert best - 1e-9 <= got <= best * 1.01


def test_looking_ahead_beats_being_myopic():
    """b is useless by itself but tells c's cases from the hopeless ones: only who looks further goes there."""
    rng = np.random.default_rng(0)
    n = 800
    curable = rng.random(n) < 0.3
    confidence = np.stack([np.full(n, 0.5), np.where(curable, 0.9, 0.4), np.full(n, 0.9)], 1)
    correct = np.stack([np.zeros(n, bool), np.zeros(n, bool), curable], 1)
    structure = Structure(("a", "b", "c"), ((1,), (2,), ()), 4)
    log = log_of(confidence, correct, macs=[1, 1, 10], structure=structure)
    price = 5.0
    scores = {}
    for kind in (DagSelection, Myopic):
        found = replay(fit_all(kind, log, (price,)), structure, log.logits)
        scores[kind] = objective(log, found.path, found.exit, price)
    share = float(curable.mean())
    assert scores[DagSelection] < 0.1 + 0.1 + share + 0.01  # everybody to b, the curable to c
    assert scores[Myopic] > 0.1 + share * price - 0.01  # nobody leaves a: one step further wins nothing


def test_a_mistake_that_the_reference_makes_too_is_free():
    """(·)₊: where the full net fails as well, leave at the first node whatever λ."""
    n = 200
    confidence = np.full((n, 2), 0.5)
    confidence[: n // 2, 0] = 0.8
    correct = np.zeros((n, 2), bool)
    correct[: n // 2, 1] = True
    log = log_of(confidence, correct, macs=[1, 10], structure=Structure(("a", "b"), ((1,), ()), 4))
    policy = DagSelection.fit(log, prices=(20.0,), steps=300)
    found = replay(policy, log.structure, log.logits)
    assert (found.exit[: n // 2] == 1).all()
    assert (found.exit[n // 2 :] == 0).all()


def test_a_low_price_always_leaves():
    """λ must exceed what going on costs, or exit is always better."""
    log, _ = discrete_log()
    policy = fit_all(DagSelection, log, (0.01,))
    assert (replay(policy, log.structure, log.logits).exit == 0).all()


def test_a_higher_price_of_mistakes_loses_fewer_answers():
    log, _ = discrete_log()
    policy = DagSelection.fit(log, prices=(0.2, 2.0, 20.0), steps=100)
    points = [evaluate_on(policy.at(price), log) for price in policy.prices]
    accuracy, macs = [p.accuracy for p in points], [p.macs_mean for p in points]
    assert accuracy[0] < accuracy[-1]
    assert macs == sorted(macs)


def test_the_choice_keeps_the_reference_s_accuracy():
    log, _ = discrete_log(1500)
    loose, tight = (DagSelection.fit(log, prices=(0.2, 2.0, 20.0), steps=80, drop=drop) for drop in (0.9, 0.0))
    assert loose.lambda_ == 0.2
    assert tight.lambda_ > loose.lambda_


def test_no_policy_beats_the_oracle():
    log, _ = discrete_log()
    ways = Oracle().choose(log.logits, log.labels, STRUCTURE, tuple(log.node_macs.tolist()))
    least = (ways * log.node_macs).sum(1)
    chosen = replay(fit_all(DagSelection, log, (20.0,)), log.structure, log.logits)
    right = chosen.correct(log.labels)
    assert 0 < right.sum() <= log.correct.any(1).sum()
    assert (chosen.macs(log.node_macs)[right] >= least[right]).all()


def test_wrong_prices_graphs_and_logs_are_refused():
    log, _ = discrete_log()
    policy = fit_all(DagSelection, log, (1.0, 4.0), steps=1)
    with pytest.raises(UsageError, match="the nearest is 4"):
        policy.at(3.5)
    with pytest.raises(PolicyError, match="was given to a graph"):
        planted_graph("chain").policy = policy
    with pytest.raises(CalibrationError, match="too few"):
        DagSelection.fit(log.part(torch.arange(49)))
