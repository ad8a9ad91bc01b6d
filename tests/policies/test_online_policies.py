"""UEE-UCB against the released rule and closed forms; the loop against its difference equation, drift and a flood."""

import math

import numpy as np
import pytest
import torch
from synthetic_logs import log_of, random_log

from adaptbench.adaptive import Structure
from adaptbench.adaptive.online import Observation, OnlineRecord, over_orders, run_online, shuffled
from adaptbench.adaptive.replay import evaluate_on
from adaptbench.errors import CalibrationError, CapabilityError, PolicyError, UsageError
from adaptbench.policies import NeverStop, RandomMix, SoftmaxThreshold, UniformThreshold
from adaptbench.policies.online import (
    ClosedLoop,
    KnobTable,
    OpenLoop,
    UeeUcb,
    dominance,
    regret,
    strong_dominance_violation,
)
from adaptbench.policies.references.fixed_exit import FixedExit
from adaptbench.study.loop_metrics import accuracy_lost_to_oscillation, loop_metrics, overload, quiet_block
from adaptbench.testing.online import OnlineConformance

THRESHOLDS = np.linspace(0.25, 1.01, 12).tolist()


class TestUeeUcbAgainstTheFirst(OnlineConformance):
    def make(self, log):
        return UeeUcb(0.1)


class TestUeeUcbAgainstTheLast(OnlineConformance):
    looks = True

    def make(self, log):
        return UeeUcb(2.0, against="last", alpha=0.1, rate=2.0)


class TestClosedLoop(OnlineConformance):
    def make(self, log):
        return ClosedLoop.fit(UniformThreshold(), log, budget=600.0, settings=THRESHOLDS, period=32)


class TestOpenLoop(OnlineConformance):
    def make(self, log):
        return OpenLoop(UniformThreshold(0.7))


# ---------------------------------------------------------------------- UEE-UCB


def nested(n, errors, seed=0, macs=(100, 100, 100, 100), classes=2):
    """Strong dominance: exit k is wrong exactly on the hardest share `errors[k]`."""
    rng = np.random.default_rng(seed)
    right = rng.random(n)[:, None] >= np.asarray(errors)
    return log_of(np.full(right.shape, 0.9), right, macs=list(macs[: len(errors)]), classes=classes, seed=seed)


@pytest.mark.parametrize(("mu", "seed"), [(0.05, 0), (0.3, 1)])
def test_it_is_the_released_rule(mu, seed):
    """First round to the end; then argmax P̂(ŷ_1≠ŷ_k) + c_1 − c_k + √(α ln t / n_k), updated for every exit that ran."""
    log = nested(400, [0.4, 0.25, 0.12, 0.1], seed)
    said = log.logits.argmax(-1).tolist()
    cost = [mu * (k + 1) / 4 for k in range(4)]
    seen, differ, played = [0] * 4, [0] * 4, []
    for t, row in enumerate(said):
        if t:
            score = [differ[k] / seen[k] + cost[0] - cost[k] + math.sqrt(math.log(t + 1) / seen[k]) for k in range(4)]
        arm = int(np.argmax(score)) if t else 3
        played.append(arm)
        for k in range(arm + 1):
            seen[k] += 1
            differ[k] += row[k] != row[0]
    record = run_online(UeeUcb(mu), log, window=1)
    assert record.exit.tolist() == played
    assert record.state == {"samples": 400, "observed": seen, "disagreed": differ}
    assert not record.looked.any()


def test_the_index_against_the_last_exit():
    log = nested(300, [0.4, 0.2, 0.1])
    online = UeeUcb(0.3, against="last", alpha=0.5)
    record = run_online(online, log, window=10)
    said = log.logits.argmax(-1)
    ended = record.path[:, -1]
    n = int(ended.sum())
    rates = (said[ended] != said[ended][:, -1:]).double().mean(0).tolist()
    width = math.sqrt(0.5 * math.log(301) / n)
    want = [rates[0] + 0.1 + width, rates[1] + 0.2 + width, 0.3]
    assert online.index() == pytest.approx(want)
    assert online.exit == int(np.argmin(want))


@pytest.mark.parametrize("window", [1, 25])
def test_looks_keep_to_their_schedule(window):
    """After t samples at least rate·t^exponent ran to the end, and looking is charged what lies beyond the exit."""
    log = nested(500, [0.3, 0.1, 0.1])
    record = run_online(UeeUcb(2.0, against="last", alpha=0.1, rate=0.8, exponent=0.7), log, window=window)
    ended = record.path[:, -1].cumsum(0)
    t = torch.arange(1, 501).double()
    assert (ended >= 0.8 * t**0.7 - 1e-9).all()
    looked = record.looked
    assert looked.any()
    assert (ended[looked] <= (0.8 * t**0.7)[looked] + 1).all()  # and no more than that
    assert torch.equal(record.looking[looked], 100.0 * (2 - record.exit[looked]).double())
    assert torch.equal(record.cost, 100.0 * (1 + record.exit).double() + record.looking)


@pytest.mark.parametrize("against", ["first", "last"])
def test_regret_is_sub_linear(against):
    """Mean regret falls with the horizon, on every order; the best exit is that of the errors."""
    log = nested(12_000, [0.45, 0.1, 0.09, 0.08])
    mu = 0.4  # 0.45 + 0.1, 0.1 + 0.2, 0.09 + 0.3, 0.08 + 0.4: the second
    curves = []
    for record in over_orders(lambda: UeeUcb(mu, against=against), log, orders=(0, 1), window=60):
        found = regret(record, log.logits, log.node_costs, mu, against)
        assert found.best == 1
        assert (found.looking >= 0).all()
        assert (found.looking <= found.curve.abs().cummax(0).values + 60).all()
        curves.append(found.curve)
        assert (record.exit[-3000:] == 1).double().mean() > 0.95
    curve = torch.stack(curves).mean(0)
    early, late = float(curve[1999]), float(curve[-1])
    growth = math.log(late / early) / math.log(12_000 / 2000)
    assert growth < 0.8, f"regret grows like t^{growth:.2f}"
    dearest = 0.08 + mu - (0.1 + mu / 2)
    assert late < 0.25 * 12_000 * dearest  # far below always running to the end


def test_periodic_looks_follow_a_domain_that_changes():
    easy = nested(2000, [0.02, 0.02, 0.02], seed=1)
    hard = nested(7000, [0.6, 0.1, 0.02], seed=2)
    logits = torch.cat([easy.logits, hard.logits])
    record = run_online(
        UeeUcb(0.4, against="last", alpha=0.1, rate=0.1, exponent=1.0),
        logits,
        easy.structure,
        easy.node_costs,
        window=50,
    )
    assert (record.exit[1200:2000] == 0).all()
    assert (record.exit[-2000:] == 1).all()
    assert 0.09 < float(record.looked.double().mean()) < 0.12


def test_regret_by_hand():
    log = nested(6, [0.5, 0.0])
    said = log.logits.argmax(-1)
    record = run_online(UeeUcb(0.4, against="last"), log, order=torch.tensor([5, 4, 3, 2, 1, 0]), window=2)
    found = regret(record, log.logits, log.node_costs, 0.4, "last")
    total, curve = 0.0, []
    losses = [[float(said[i, k] != said[i, 1]) + 0.4 * (k + 1) / 2 for k in (0, 1)] for i in record.order.tolist()]
    best = int(np.argmin(np.sum(losses, 0)))
    for t, row in enumerate(losses):
        total += row[int(record.exit[t])] - row[best] + 0.4 * float(record.looking[t]) / 200
        curve.append(total)
    assert found.best == best
    assert found.curve.tolist() == pytest.approx(curve)


def test_dominance_is_measured():
    log = nested(2000, [0.4, 0.3, 0.1])
    found = dominance(log)
    assert found.violation == strong_dominance_violation(log) == 0.0
    assert found.bias_first.abs().max() < 1e-12
    assert found.bias_last.abs().max() < 1e-12
    # with more classes, two different wrong answers disagree: the guess is too high, dominance or not
    many = dominance(nested(2000, [0.4, 0.3, 0.1], classes=10))
    assert many.violation == 0.0
    assert (many.bias_last[:2] > 0.05).all()
    right = [[1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0]]
    assert strong_dominance_violation(log_of(np.full((4, 3), 0.9), right, macs=[1, 1, 1])) == 0.5


def test_uee_ucb_settings():
    log = nested(50, [0.3, 0.1])
    for wrong in ({"mu": -1.0}, {"against": "middle"}, {"exponent": 0.0}, {"rate": -1.0}):
        with pytest.raises(UsageError, match="against"):
            UeeUcb(**wrong)
    dag = Structure(("a", "b", "c"), ((1, 2), (2,), ()), 2)
    with pytest.raises(PolicyError, match="chains"):
        run_online(UeeUcb(), torch.zeros(5, 3, 2), dag, torch.ones(3))
    with pytest.raises(PolicyError, match="exit 4"):
        evaluate_on(FixedExit(4), log)
    with pytest.raises(UsageError, match="whole number"):
        FixedExit(0.5)
    costs = [run_online(member, log, window=5).cost.mean() for member in UeeUcb.family(log)]
    assert len(costs) >= 8
    assert min(costs) < max(costs)


# ---------------------------------------------------------------------- closed loop


def graded(n, seed, hardness=0.0, macs=(100, 300, 900)):
    """Deeper exits are surer and better; hard samples are less sure; wrong answers come with low confidence."""
    rng = np.random.default_rng(seed)
    difficulty = np.clip(rng.normal(0.5 + hardness, 0.25, n), 0, 1)[:, None]
    skill = np.array([0.45, 0.7, 1.0])
    chance = 1 / (1 + np.exp(-8 * (skill - difficulty)))
    confidence = np.clip(0.25 + 0.75 * chance + rng.normal(0, 0.03, chance.shape), 0.26, 0.999)
    right = rng.random((n, 1)) < chance
    return log_of(confidence, right, macs=list(macs), seed=seed)


CALIBRATION = graded(3000, 0)


def loop(budget=500.0, **gains):
    return ClosedLoop(UniformThreshold(), TABLE, budget, **gains)


TABLE = KnobTable.measure(UniformThreshold(), CALIBRATION, THRESHOLDS)


def test_the_table_is_monotone_and_inverts():
    assert (np.diff(TABLE.settings) > 0).all()
    assert (np.diff(TABLE.costs) > 0).all()
    assert len(TABLE.settings) > len(THRESHOLDS)
    assert np.diff(TABLE.costs).max() < 0.1 * (TABLE.dearest - TABLE.cheapest)  # refined where the cost jumps
    for cost in (150.0, 400.0, 800.0):
        assert evaluate_on(UniformThreshold(TABLE.setting(cost)), CALIBRATION).cost_mean == pytest.approx(
            cost, rel=0.03
        )
    falling = KnobTable.measure(SoftmaxThreshold.fit(CALIBRATION), CALIBRATION, np.linspace(0, 1, 9))
    assert (np.diff(falling.costs) < 0).all()
    middle = (falling.cheapest + falling.dearest) / 2
    assert falling.setting(falling.dearest) < falling.setting(middle) < falling.setting(falling.cheapest)


def test_a_discrete_knob_keeps_to_its_settings():
    table = KnobTable.measure(FixedExit(), CALIBRATION, discrete=True)  # settings from the family
    assert table.settings.tolist() == [0.0, 1.0, 2.0]
    assert table.setting(700.0) == 1.0
    assert table.setting(900.0) == 2.0
    online = ClosedLoop(FixedExit(), table, 700.0, ki=0.5, period=20)
    record = run_online(online, graded(2000, 1), window=20)
    assert set(record.knob) <= {0.0, 1.0, 2.0}
    assert float(record.cost[500:].mean()) == pytest.approx(700, rel=0.05)  # by going to and fro


def fed(online, costs):
    """Feed windows of one period whose mean cost is given."""
    n = online.period
    for cost in costs:
        paid = torch.full((n,), float(cost), dtype=torch.float64)
        none = torch.zeros(n, dtype=torch.int64)
        online.observe(Observation(none, none, torch.ones(n, 3, dtype=bool), torch.zeros(n, 3, 4), paid, 0 * paid))


def test_an_ideal_plant_follows_the_difference_equation():
    """Gain 1 and a constant disturbance: integral action alone leaves (1 − k_i)^n of it after n corrections."""
    for kp, ki in ((0.0, 0.25), (0.3, 0.4)):
        online = loop(kp=kp, ki=ki, period=8)
        online.bind(CALIBRATION.structure, CALIBRATION.node_costs)
        span, target = TABLE.dearest - TABLE.cheapest, online.memory["command"]
        errors, u, previous = [], target, None
        for _ in range(12):
            measured = online.memory["command"] + 0.1
            errors.append(measured - target)
            assert online.memory["command"] == pytest.approx(u)
            fed(online, [TABLE.cheapest + measured * span])
            e = -errors[-1]
            u += kp * (e - (previous if previous is not None else 0.0)) + ki * e
            previous = e
        if not kp:
            assert errors == pytest.approx([0.1 * 0.75**k for k in range(12)])
        assert abs(errors[-1]) < 0.01


def test_anti_windup_comes_back_at_once():
    """Long out of reach, then in reach again: with anti-windup the command leaves its bound in one correction."""
    left = {}
    for guarded in (True, False):
        online = loop(ki=0.3, period=4, anti_windup=guarded)
        online.bind(CALIBRATION.structure, CALIBRATION.node_costs)
        fed(online, [1300.0] * 40)
        assert online.memory["command"] == 0.0
        steps = 0
        while online.memory["command"] == 0.0:
            fed(online, [300.0])
            steps += 1
        left[guarded] = steps
    assert left[True] == 1
    assert left[False] > 10


@pytest.mark.parametrize("hardness", [-0.12, 0.0, 0.12])
def test_the_budget_is_held_when_the_stream_drifts(hardness):
    stream = graded(4000, 5, hardness)
    order = shuffled(4000, 0)
    closed = run_online(loop(), stream, order=order, window=32)
    opened = run_online(loop().open_loop(), stream, order=order, window=500)
    found = loop_metrics(closed, 500.0, band=0.2, block=200)
    assert abs(found.steady_error) < 0.03
    assert found.settling is not None
    assert found.settling <= 1400
    missed = abs(float(opened.cost.mean()) / 500 - 1)
    assert missed > 0.15 if hardness else missed < 0.08
    assert len(set(opened.knob)) == 1


def test_corrections_are_counted_over_windows():
    stream = graded(300, 6)
    a = run_online(loop(period=30), stream, window=1)
    b = run_online(loop(period=30), stream, window=10)
    assert torch.equal(a.exit, b.exit)
    assert a.state == b.state
    assert a.state["steps"] == 10


def made(cost):
    cost = torch.tensor(cost, dtype=torch.float64)
    n = len(cost)
    none = torch.zeros(n, dtype=torch.int64)
    return OnlineRecord(
        "x", {}, torch.arange(n), 1, none, torch.ones(n, 1, dtype=bool), none > 0, cost, 0 * cost, torch.zeros(n, 2),
        (None,) * n, {},
    )  # fmt: skip


def test_a_quiet_block_keeps_chance_within_the_band():
    generator = np.random.default_rng(1)
    record = made(generator.choice([50.0, 150.0], 20_000))  # in balance, and as noisy as two ways can be
    block = quiet_block(record, 100.0, band=0.05)
    assert block == pytest.approx((3 * 50 / 5) ** 2, rel=0.01)
    blocks = record.cost[: 20_000 // block * block].view(-1, block).mean(1)
    assert float((blocks / 100 - 1).std()) == pytest.approx(0.05 / 3, rel=0.3)
    assert loop_metrics(record, 100.0, block=block).settling == 0
    assert loop_metrics(record, 100.0, block=64).settling is None
    assert quiet_block(made([100.0] * 8), 100.0) == 1
    assert quiet_block(made([1.0, 199.0] * 4), 100.0) == 2, "a short record ends at a quarter of itself"


def test_metrics_by_hand():
    cost = np.repeat([150, 120, 85, 103, 102, 98, 100, 101], 10)
    found = loop_metrics(made(cost), 100.0, band=0.05, block=10)
    assert found.settling == 30
    assert found.overshoot == pytest.approx(0.15)
    assert found.peak == pytest.approx(0.5)
    assert found.steady_error == pytest.approx(np.mean([103, 102, 98, 100, 101]) / 100 - 1)
    below = loop_metrics(made(np.repeat([60, 110, 100], 10)), 100.0, block=10)
    assert (below.settling, below.overshoot) == (20, pytest.approx(0.1))
    never = loop_metrics(made(np.repeat([130, 70, 130, 70], 10)), 100.0, block=10)
    assert never.settling is None
    assert never.steady_error == pytest.approx(0.0)
    with pytest.raises(UsageError, match="blocks"):
        loop_metrics(made([1.0, 1.0, 1.0]), 1.0, block=2)


def test_swinging_costs_accuracy():
    """Exits right with 0.5, 0.9 and 0.92: going to and fro between the outer ones costs what the middle one does."""
    log = nested(2000, [0.5, 0.1, 0.08])

    class ToAndFro(OpenLoop):
        def initial(self):
            return {"windows": 0}

        def policy(self):
            return FixedExit(2 * (self.memory["windows"] % 2))

        def observe(self, seen):
            self.memory["windows"] += 1

    online = ClosedLoop.fit(FixedExit(), log, budget=200.0, discrete=True)
    record = run_online(ToAndFro(FixedExit()), log, window=50)
    right = log.correct.double()
    swinging = torch.where(record.exit == 0, right[:, 0], right[:, 2]).mean()
    lost = accuracy_lost_to_oscillation(online, record, log, log.labels)
    assert lost == pytest.approx(float(right[:, 1].mean() - swinging), abs=1e-6)
    assert lost == pytest.approx(0.9 - (0.5 + 0.92) / 2, abs=0.03)
    still = run_online(OpenLoop(FixedExit(1)), log, window=500)
    assert accuracy_lost_to_oscillation(online, still, log, log.labels) == pytest.approx(0.0, abs=1e-9)


def test_a_calm_loop_loses_little():
    stream = graded(3000, 7)
    online = loop(300.0)
    record = run_online(online, stream, window=64)
    assert abs(accuracy_lost_to_oscillation(online, record, stream, stream.labels, start=1000)) < 0.02


@pytest.mark.parametrize("kind", ["flatten", "hard"])
def test_who_pays_for_a_flood(kind):
    """The loop holds the budget and honest users' answers get worse; the knob left alone, the operator pays."""
    stream, order = graded(3000, 8), shuffled(3000, 1)
    settings = {"start": 800, "settle": 600, "kind": kind, "order": order, "window": 32}
    found = overload(loop(), stream, stream.labels, share=0.3, **settings)
    quiet, closed, opened = found.cost
    assert quiet == pytest.approx(500, rel=0.05)
    assert closed == pytest.approx(500, rel=0.05)
    assert opened > 650
    assert found.accuracy_lost > 0.08
    assert found.honest_accuracy[2] == pytest.approx(found.honest_accuracy[0], abs=0.03)
    assert found.closed.knob[-1] < found.quiet.knob[-1]
    assert not found.attacked[:800].any()
    assert torch.equal(found.quiet.exit[:800], found.closed.exit[:800])  # nothing before it begins
    fewer = overload(loop(), stream, stream.labels, share=0.1, **settings)
    assert 0.02 < fewer.accuracy_lost < found.accuracy_lost


def test_a_flood_of_logits_is_the_flood_of_a_log():
    stream = graded(1000, 9)
    settings = {"share": 0.2, "window": 20, "seed": 4}
    a = overload(loop(), stream, stream.labels, **settings)
    b = overload(loop(), stream.logits, stream.labels, stream.structure, stream.node_costs, **settings)
    assert a.honest_accuracy == b.honest_accuracy
    with pytest.raises(UsageError, match="structure"):
        overload(loop(), stream.logits, stream.labels, **settings)
    with pytest.raises(UsageError, match="share"):
        overload(loop(), stream, stream.labels, share=1.2)
    with pytest.raises(UsageError, match="share"):
        overload(loop(), stream, stream.labels, share=0.5, start=1000)


def test_controller_mistakes_are_named():
    with pytest.raises(UsageError, match="outside"):
        loop(2000.0)
    for gains in ({"ki": 0.0}, {"ki": 2.0}, {"kp": 0.9, "ki": 0.3}, {"kp": -0.1}, {"period": 0}):
        with pytest.raises(UsageError, match="kp"):
            loop(**gains)
    with pytest.raises(CapabilityError, match="no run-time knob"):
        KnobTable.measure(NeverStop(), CALIBRATION)

    class Unknown(RandomMix):
        @classmethod
        def family(cls, log, *, seed=0):
            raise CapabilityError("none")

    with pytest.raises(CapabilityError, match="range of the knob"):
        KnobTable.measure(Unknown(), CALIBRATION)
    with pytest.raises(CalibrationError, match="costs"):
        KnobTable.measure(UniformThreshold(), CALIBRATION, [0.0, 0.1])


def test_a_policy_that_draws_can_be_controlled():
    log = random_log(3000, 3, 4)
    dear = float(log.node_costs.sum())
    online = ClosedLoop.fit(RandomMix(), log, budget=dear / 2, settings=[0.0, 0.5, 1.0])
    record = run_online(online, log, window=32)
    assert float(record.cost[1000:].mean()) == pytest.approx(dear / 2, rel=0.05)
