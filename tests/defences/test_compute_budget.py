"""The token bucket: its accounting, its hard bound, what honest inputs lose to an attacker, planted faults."""

from itertools import pairwise

import pytest
import torch

from adaptbench.adaptive import NeverStop
from adaptbench.adaptive.online import run_online, run_online_on_model, shuffled
from adaptbench.defences.shared_budget import shared_stream, through_bucket, ways_of
from adaptbench.errors import PolicyError, UsageError
from adaptbench.policies import Committees, RandomMix, UniformThreshold
from adaptbench.policies.online import ComputeBudget
from adaptbench.testing import OnlineConformance, planted_graph, planted_split

ENTRY, MIDDLE, LARGE = 64.0, 320.0, 1280.0


class TestComputeBudget(OnlineConformance):
    def make(self, log):
        return ComputeBudget(UniformThreshold(0.95), rate=400.0, capacity=200_000.0, window=512)


class TestComputeBudgetOnADag(OnlineConformance):
    graph = "dag"

    def make(self, log):
        return ComputeBudget(UniformThreshold(0.9), rate=300.0, capacity=200_000.0, window=512)


def log_of(shape="chain"):
    net = planted_graph(shape)
    return net, net.log(planted_split())


def kept_to_budget(record, rate, capacity):
    """Σ of everything spent up to each moment, against what was ever there."""
    spent = record.cost.cumsum(0)
    there = capacity + rate * torch.arange(len(spent))
    return bool((spent <= there + 1e-6).all())


def test_an_empty_bucket_forces_the_next_exit() -> None:
    """By hand: 64, 384 and 1664 MACs to each exit; the policy never stops, the bucket adds 100 and holds 500."""
    _, log = log_of()
    bucket = ComputeBudget(NeverStop(), rate=100.0, capacity=500.0)
    record = run_online(bucket, log, order=torch.arange(6))
    # 500 → 384 spent, 116 + 100 = 216 → 64, 252 → 64, 288 → 64, 324 → 64, 360 → 64
    assert record.cost.tolist() == [384.0, 64.0, 64.0, 64.0, 64.0, 64.0]
    assert record.exit.tolist() == [1, 0, 0, 0, 0, 0]
    assert record.state == {"level": 396.0}
    assert run_online(bucket, log, order=torch.arange(6), resume=True).cost.tolist() == [
        384.0,
        64.0,
        64.0,
        64.0,
        64.0,
        64.0,
    ]


@pytest.mark.parametrize("window", [1, 7, 64])
@pytest.mark.parametrize("shape", ["chain", "dag"])
def test_no_stream_exceeds_it_and_nothing_leaks(shape, window) -> None:
    _, log = log_of(shape)
    rate, capacity = 300.0, 64 * 500.0
    bucket = ComputeBudget(
        NeverStop() if shape == "chain" else UniformThreshold(0.99), rate=rate, capacity=capacity, window=window
    )
    record = run_online(bucket, log, window=window, order=shuffled(len(log), 1))
    assert kept_to_budget(record, rate, capacity)
    if shape == "chain" and window == 1:
        assert record.cost.mean() > 0.9 * rate, "what is there is used"
    level = capacity
    for part in torch.split(record.cost, window):
        assert float(part.sum()) <= level + 1e-6
        level = min(capacity, level - float(part.sum()) + rate * len(part))
        assert level >= 0
    assert record.state["level"] == pytest.approx(level)


def test_a_wide_budget_changes_nothing() -> None:
    _, log = log_of()
    free = run_online(ComputeBudget(UniformThreshold(0.9), rate=2000.0, capacity=1e6), log)
    plain = run_online(ComputeBudget(UniformThreshold(0.9), rate=1e9, capacity=1e12), log)
    assert torch.equal(free.path, plain.path)
    assert torch.equal(free.exit, log_exits(log))


def log_exits(log):
    from adaptbench.adaptive.replay import replay

    return replay(UniformThreshold(0.9), log.structure, log.logits, seeds=torch.arange(len(log))).exit


@pytest.mark.parametrize("policy", [UniformThreshold(0.95), NeverStop(), RandomMix(0.5)], ids=lambda p: p.name)
def test_the_cheap_simulation_takes_the_ways_of_the_stream(policy) -> None:
    """`through_bucket` on ways, `run_online` on logits and `infer` on pictures: sample by sample."""
    net, log = log_of()
    order, rate, capacity = shuffled(len(log), 3), 200.0, 2000.0
    bucket = ComputeBudget(policy, rate=rate, capacity=capacity)
    seeds = torch.arange(len(log))
    record = run_online(bucket, log, order=order, seeds=seeds)
    ways = ways_of(policy, log.structure, log.logits, log.labels, log.node_costs, seeds)
    stream = through_bucket(
        [ways.costs[i] for i in order.tolist()], [ways.right[i] for i in order.tolist()], rate=rate, capacity=capacity
    )
    assert stream.cost.tolist() == record.cost.tolist()
    assert stream.right.tolist() == record.correct(log.labels).tolist()
    some = order[:60]
    real = run_online_on_model(bucket, net, planted_split().images(), order=some, seeds=seeds)
    assert real.cost.tolist() == record.cost[:60].tolist()
    assert 0.05 < stream.forced.mean() < 1


def test_a_forced_answer_is_that_of_the_policy_at_that_exit() -> None:
    """Of a committee: the average of the nets that ran, not the last one alone."""
    _, log = log_of()
    policy = Committees.fit(log)
    seeds = torch.arange(len(log))
    ways = ways_of(policy, log.structure, log.logits, log.labels, log.node_costs, seeds)
    record = run_online(ComputeBudget(policy, rate=200.0, capacity=1000.0), log, seeds=seeds)
    stream = through_bucket(ways.costs, ways.right, rate=200.0, capacity=1000.0)
    assert stream.right.tolist() == record.correct(log.labels).tolist()


def planted_ways(n=400):
    """Honest inputs: right at either exit for three in four, at the second only for the rest, who go there."""
    from adaptbench.defences.shared_budget import Ways

    hard = [i % 4 == 0 for i in range(n)]
    clean = Ways([[10.0, 100.0] if h else [10.0] for h in hard], [[False, True] if h else [True] for h in hard])
    attacked = Ways([[10.0, 100.0]] * n, [[False, False]] * n)
    return clean, attacked


def test_what_honest_inputs_lose_grows_with_the_attackers_share() -> None:
    """Without an attacker and with enough refill nothing is lost; the bound is hard at every share."""
    clean, attacked = planted_ways()
    mean = float(clean.free_costs.mean())  # 32.5
    told = [
        shared_stream(clean, attacked, share=s, rate=1.3 * mean, capacity=50 * mean, order=0)
        for s in (0.0, 0.05, 0.1, 0.25, 0.5)
    ]
    lost = [t.benign_accuracy_free - t.benign_accuracy for t in told]
    assert lost[0] == 0.0
    assert told[0].attacker_macs is None
    assert told[0].benign_forced == 0.0
    assert lost[-1] > 0.05
    assert all(a <= b + 0.02 for a, b in pairwise(lost)), lost
    assert all(t.stream_macs <= 1.3 * mean + 50 * mean / 400 + 1e-9 for t in told), "the bound is hard"
    assert told[-1].stream_macs_free == pytest.approx((100 + mean) / 2, rel=0.1)
    # what the attacker gets and what honest inputs lose: each is cut by the other's spending
    assert told[-1].attacker_macs < 100 * 0.7


def test_mistakes_are_told() -> None:
    _, log = log_of()
    with pytest.raises(UsageError, match="no budget"):
        ComputeBudget(NeverStop(), rate=0.0, capacity=1.0)
    with pytest.raises(PolicyError, match="entry node costs 64"):
        run_online(ComputeBudget(NeverStop(), rate=63.0, capacity=1e4), log)
    with pytest.raises(PolicyError, match="windows of 16"):
        run_online(ComputeBudget(NeverStop(), rate=100.0, capacity=15 * ENTRY, window=16), log)
    with pytest.raises(UsageError, match="ran side by side"):
        run_online(ComputeBudget(NeverStop(), rate=100.0, capacity=1e4), log, window=2)
    clean, attacked = planted_ways(8)
    with pytest.raises(UsageError, match="share of 1"):
        shared_stream(clean, attacked, share=1.0, rate=50, capacity=50, order=0)
    with pytest.raises(UsageError, match="entry node"):
        shared_stream(clean, attacked, share=0.5, rate=9, capacity=50, order=0)


class Overdrawn(ComputeBudget):
    """Goes below zero: an input may spend twice what is there."""

    def policy(self):
        from adaptbench.policies.online import Capped

        return Capped(self.base, self.node_costs, 2 * self.memory["level"])


class Leaking(ComputeBudget):
    """Fills above its capacity."""

    def observe(self, seen):
        self.memory["level"] = self.memory["level"] - float(seen.costs.sum()) + 2 * self.rate * len(seen)


@pytest.mark.parametrize("fault", [Overdrawn, Leaking])
def test_a_planted_fault_breaks_the_bound(fault) -> None:
    _, log = log_of()
    record = run_online(fault(NeverStop(), rate=300.0, capacity=2000.0), log)
    assert not kept_to_budget(record, 300.0, 2000.0)
    assert kept_to_budget(run_online(ComputeBudget(NeverStop(), rate=300.0, capacity=2000.0), log), 300.0, 2000.0)
