"""Streams through policies with state: what is seen, what is paid, and that replay and execution are one."""

import itertools

import pytest
import torch

from adaptbench.adaptive import CalibrationLog, Structure
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.online import (
    OnlinePolicy,
    over_orders,
    run_online,
    run_online_on_model,
    shuffled,
)
from adaptbench.adaptive.outcome import seeds_from_content
from adaptbench.adaptive.replay import replay
from adaptbench.adaptive.watching import cheapest_actions
from adaptbench.errors import CapabilityError, PolicyError, UsageError
from adaptbench.policies import ChainPolicy, DagSelection, Oracle, RandomMix, UniformThreshold
from adaptbench.testing import planted_graph, planted_split
from adaptbench.testing.online import OnlineConformance, check_online

torch.set_num_threads(1)


class Looker(OnlinePolicy):
    """A threshold that moves with the share of changed answers among those who looked; every third sample looks."""

    name = "looker"
    knob = "threshold"
    base = UniformThreshold(0.7)

    def initial(self):
        return {"seen": 0, "threshold": 0.7}

    def policy(self):
        return self.base.at(self.memory["threshold"])

    @property
    def knob_value(self):
        return self.memory["threshold"]

    def looking(self, n):
        every = (torch.arange(n) + self.memory["seen"]) % 3 == 0
        return torch.where(every, len(self.structure.names) - 1, -1)

    def observe(self, seen):
        ended = seen.path[:, -1]
        changed = (seen.predictions[ended, -1] != seen.answers[ended]).float()
        if len(changed):
            self.memory["threshold"] = min(
                0.99, max(0.3, self.memory["threshold"] + 0.05 * (changed.mean().item() - 0.1))
            )
        self.memory["seen"] += len(seen)


class TestLooker(OnlineConformance):
    looks = True

    def make(self, log):
        return Looker()


class Drawing(Looker):
    base = RandomMix(0.5)


class TestAPolicyThatDraws(TestLooker):
    def make(self, log):
        return Drawing()


class Averaging(ChainPolicy):
    """Answers with the mean of what was visited, through a product that costs MACs."""

    name = "averaging"
    uses_history = True
    knob = "threshold"

    def __init__(self, at=0.7):
        super().__init__()
        self.threshold = at

    def margin(self, node, signals):
        return self.threshold - signals.confidence

    def predict(self, node, signals):
        mean = signals.history.sum(1) / signals.visited.sum(1, keepdim=True)
        mixed = mean @ torch.eye(mean.shape[1])
        for _ in range(node):  # a price that depends on the exit
            mixed = mixed @ torch.eye(mean.shape[1])
        return mixed

    @property
    def knob_value(self):
        return self.threshold

    def at(self, value):
        return type(self)(value)


class LooksAndAverages(Looker):
    base = Averaging()


class TestAnAggregatingPolicy(TestLooker):
    def make(self, log):
        return LooksAndAverages()


class DagLooker(Looker):
    def __init__(self, log):
        self.base = DagSelection.fit(log, prices=(1.0, 4.0), steps=40)

    def policy(self):
        return self.base.at(1.0 if self.memory["threshold"] > 0.69 else 4.0)


class TestOnADag(TestLooker):
    graph = "dag"
    fitted = {}

    def make(self, log):
        return self.fitted.setdefault(log.sha256, DagLooker(log)).copy()


# ---------------------------------------------------------------------- planted faults


class Remembers(Looker):
    def initial(self):
        return {"seen": 0, "threshold": getattr(self, "memory", {"threshold": 0.7})["threshold"]}


class KeepsTuples(Looker):
    def initial(self):
        return {"seen": 0, "threshold": 0.7, "past": ()}


class Peeks(Looker):
    def policy(self):
        self.memory["seen"] += 1
        return super().policy()


class Hides(Looker):
    """State beside the memory."""

    count = 0

    def bind(self, structure, node_costs):
        super().bind(structure, node_costs)
        self.count = 0

    def observe(self, seen):
        super().observe(seen)
        self.count += 1
        self.memory["threshold"] = 0.5 + 0.04 * (self.count % 7)


class Cheats(Looker):
    def __init__(self, log):
        self.right = float(log.correct.float().mean() + log.labels[:100].float().mean())

    def policy(self):
        return self.base.at(self.right % 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda log: Remembers(), "second run"),
        (lambda log: KeepsTuples(), "through JSON"),
        (lambda log: Peeks(), "changed the memory"),
        (lambda log: Hides(), "restored from its state"),
        (Cheats, "false labels"),
    ],
)
def test_a_planted_fault_is_found(make, message):
    with pytest.raises(AssertionError, match=message):
        check_online(make, looks=True)


def test_looking_undeclared_is_found():
    with pytest.raises(AssertionError, match="beyond their exit"):
        check_online(lambda log: Looker())


# ---------------------------------------------------------------------- the engine


@pytest.fixture(scope="module")
def planted():
    net = planted_graph()
    return net, net.log(planted_split())


def test_a_policy_that_learns_nothing_is_plain_replay(planted):
    _, log = planted

    class Still(Looker):
        def observe(self, seen):
            pass

        def looking(self, n):
            return None

    policy = UniformThreshold(0.7)
    policy.bind(log.structure)
    plain = replay(policy, log.structure, log.logits)
    order = shuffled(len(log), 1)
    for window in (1, 50):
        record = run_online(Still(), log, order=order, window=window)
        assert torch.equal(record.exit, plain.exit[order])
        assert torch.equal(record.path, plain.path[order])
        assert torch.equal(record.logits, plain.logits[order])
        assert torch.equal(record.cost, plain.cost(log.node_costs)[order])
        assert not record.looked.any()
        assert torch.equal(record.correct(log.labels), plain.correct(log.labels)[order])


def test_only_what_ran_is_shown(planted):
    """Logits of nodes that did not run may be anything: same run."""
    _, log = planted
    first = run_online(Looker(), log, window=10)
    noise = torch.randn(log.logits.shape, generator=torch.Generator().manual_seed(0))
    logits = torch.where(first.path[..., None], log.logits, noise)
    again = run_online(Looker(), logits, log.structure, log.node_costs, window=10)
    assert torch.equal(first.exit, again.exit)
    assert first.state == again.state


def test_what_is_observed(planted):
    _, log = planted
    seen = []

    class Spy(Looker):
        needs_labels = True

        def observe(self, window):
            seen.append(window)
            super().observe(window)

    record = run_online(Spy(), log, window=64)
    assert [len(w) for w in seen] == [64, 64, 64, 64, 44]
    path = torch.cat([w.path for w in seen])
    said = torch.cat([w.predictions for w in seen])
    assert torch.equal(torch.cat([w.labels for w in seen]), log.labels)
    assert torch.equal(said[path], log.logits.argmax(-1)[path])
    assert (said[~path] == -1).all()
    assert (torch.cat([w.logits for w in seen])[~path] == 0).all()
    assert torch.equal(torch.cat([w.answers for w in seen]), record.prediction)
    assert (record.path[::3, -1]).all()  # every third one looked


def test_labels_are_withheld_unless_declared(planted):
    _, log = planted

    class Spy(Looker):
        def observe(self, window):
            assert window.labels is None
            super().observe(window)

    run_online(Spy(), log, window=64, labels=log.labels)
    Spy.needs_labels = True
    with pytest.raises(CapabilityError, match="labels"):
        run_online(Spy(), log.logits, log.structure, log.node_costs)


@pytest.mark.parametrize("make", [Looker, LooksAndAverages, Drawing])
def test_counted_macs_are_those_that_ran(make, planted):
    """What infer reports, looking included, is what a counter at the dispatcher sees; policies' own MACs are in it."""
    net, _ = planted
    x = planted_split("test", 60).images()
    seen = []

    class Counted(make):
        def policy(self):
            policy = super().policy()
            net.policy = policy
            nodes, deciding, predicting = net.node_macs, net.policy_macs, net.predict_macs
            self.prices = torch.tensor(nodes) + torch.tensor(deciding), torch.tensor(predicting)
            return policy

        def observe(self, window):
            per_node, predict = self.prices
            seen.append((window.path * per_node).sum(1) + predict[window.exits])
            super().observe(window)

    record = run_online_on_model(Counted(), net, x, window=20)
    assert torch.equal(record.macs, torch.cat(seen))
    assert torch.equal(record.cost, record.path.double() @ torch.tensor(net.node_macs).double())
    assert record.looked.any()


def test_a_counter_sees_the_same_macs(planted, monkeypatch):
    net, _ = planted
    x = planted_split("test", 40).images()
    total = []
    infer = type(net).infer

    def counted(self, *args, **kwargs):
        with counting() as counter:
            inference = infer(self, *args, **kwargs)
        total.append(counter.macs)
        return inference

    monkeypatch.setattr(type(net), "infer", counted)
    record = run_online_on_model(LooksAndAverages(), net, x, window=10)
    assert [int(part.sum()) for part in record.macs.split(10)] == total


def test_looking_runs_in_the_same_pass_and_skips_the_rest(planted):
    net, _ = planted
    x = planted_split("test", 30).images()
    called = [0, 0, 0]
    record_rows = []
    hooks = [
        stage.register_forward_hook(lambda m, i, o, v=v: record_rows.append((v, len(o))))
        for v, stage in enumerate(net.stages)
    ]
    record = run_online_on_model(Looker(), net, x, window=30)
    for hook in hooks:
        hook.remove()
    for v, rows in record_rows:
        if rows > 1:  # batch 1: the count of MACs
            called[v] += rows
    assert called == record.path.sum(0).tolist()


def test_cheapest_actions_against_brute_force():
    structure = Structure(("a", "b", "c", "d"), ((1, 2, 3), (2, 3), (3,), ()), 3)
    costs = torch.tensor([1.0, 1.0, 5.0, 2.0])
    table = cheapest_actions(structure, costs)

    def cost(way):
        steps = list(itertools.pairwise(way))
        return sum(float(costs[w]) for _, w in steps) if all(w in structure.successors[v] for v, w in steps) else 1e9

    for v in range(4):
        for t in range(4):
            if t <= v:
                assert table[v, t] == 0
                continue
            middles = itertools.chain.from_iterable(itertools.combinations(range(v + 1, t), k) for k in range(t - v))
            best = min(([v, *m, t] for m in middles), key=cost)
            assert structure.successors[v][table[v, t] - 1] == best[1]
    split = Structure(("a", "b", "c"), ((1, 2), (), ()), 3)
    assert cheapest_actions(split, torch.ones(3))[1, 2] == 0


def test_over_orders_shows_what_order_does(planted):
    _, log = planted
    records = over_orders(Looker, log.logits, log.structure, log.node_costs, orders=range(4), window=5)
    assert len({tuple(r.order.tolist()) for r in records}) == 4
    assert len({float(r.cost.mean()) for r in records}) > 1


def test_mistakes_are_named(planted):
    net, log = planted
    with pytest.raises(UsageError, match="structure"):
        run_online(Looker(), log.logits)
    for order, window in ((torch.tensor([400]), 1), (torch.tensor([], dtype=torch.int64), 1), (None, 0)):
        with pytest.raises(UsageError, match="windows"):
            run_online(Looker(), log, order=order, window=window)
    with pytest.raises(UsageError, match="never began"):
        run_online(Looker(), log, resume=True)
    with pytest.raises(PolicyError, match="costs"):
        run_online(Looker(), log.logits, log.structure, torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(CapabilityError, match="no policy to exchange"):
        run_online_on_model(Looker(), torch.nn.Identity(), torch.zeros(1))

    class Forbidden(Looker):
        def policy(self):
            return Oracle()

    with pytest.raises(PolicyError, match="looks at labels"):
        run_online(Forbidden(), log)

    class Lost(Looker):
        def looking(self, n):
            return torch.full((n,), 7)

    with pytest.raises(PolicyError, match="targets"):
        run_online(Lost(), log)
    own = net.policy
    with pytest.raises(PolicyError, match="targets"):
        run_online_on_model(Lost(), net, planted_split("test", 4).images())
    assert net.policy is own


def test_repeats_in_an_order_are_allowed(planted):
    _, log = planted
    order = torch.tensor([3, 3, 3, 5])
    record = run_online(Looker(), log, order=order, window=2)
    assert torch.equal(record.order, order)
    assert torch.equal(record.correct(log.labels), record.prediction == log.labels[order])
    assert isinstance(log, CalibrationLog)


def test_seeds_belong_to_samples_not_to_moments(planted):
    net, _ = planted
    x = planted_split("test", 50).images()

    class Coin(Drawing):
        def observe(self, seen):
            pass

        def looking(self, n):
            return None

    order = shuffled(50, 2)
    a = run_online_on_model(Coin(), net, x, window=50)
    b = run_online_on_model(Coin(), net, x, window=7, order=order)
    assert torch.equal(a.exit[order], b.exit)
    net.policy = RandomMix(0.7)
    assert torch.equal(a.exit, net.infer(x, seeds=seeds_from_content(x)).exit)
