"""The simulation against queueing theory, its own bookkeeping, and planted faults."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing import Exponential, Fixed, chain, stream

from adaptbench.defences.shared_budget import through_bucket
from adaptbench.errors import UsageError
from adaptbench.serving import simulate as module
from adaptbench.serving.arrivals import poisson
from adaptbench.serving.figures import Stream, over_repeats
from adaptbench.serving.lines import Batching, Line, next_work
from adaptbench.serving.simulate import Bucket, Served, simulate
from adaptbench.serving.traffic import Draw, Traffic, Way

ALONE = Batching(1, 0.0)


def mean_waits(load: float, times, *, replicas: int = 1, n: int = 4000, repeats: int = 12) -> tuple[float, float]:
    """Mean wait before service of settled streams in service times, and half its 99.9 % interval over repeats."""
    found = []
    for seed in range(repeats):
        arrivals = poisson(load * replicas, n, np.random.default_rng(seed))
        served = simulate(stream(arrivals), times(seed), ALONE, nodes=1, replicas=replicas)
        found.append(served.latency_s[n // 4 :].mean() - 1.0)
    return float(np.mean(found)), 4.4 * float(np.std(found, ddof=1)) / math.sqrt(repeats)


@pytest.mark.parametrize("load", [0.4, 0.7])
def test_fixed_service_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    seen, half = mean_waits(load, lambda seed: Fixed(1.0))
    assert abs(seen - load / (2 * (1 - load))) < half
    assert abs(seen - load / (1 - load)) > half, "an M/M/1 queue would wait twice as long: the interval tells"


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.4, 0.7])
def test_memoryless_service_waits_as_an_mm1_queue(load: float) -> None:
    seen, half = mean_waits(load, lambda seed: Exponential(1.0, seed))
    assert abs(seen - load / (1 - load)) < half


@pytest.mark.slow
def test_two_replicas_wait_as_erlang_says() -> None:
    seen, half = mean_waits(0.7, lambda seed: Exponential(1.0, seed), replicas=2)
    busy = 2 * 0.7**2 / (1 + 0.7)  # Erlang's C for two servers
    assert abs(seen - busy / (2 * (1 - 0.7))) < half


def test_the_median_of_mm1_sojourns_is_log_2_over_the_gap() -> None:
    """Sojourns of M/M/1 are exponential with rate μ − λ: quantiles are known too, not only means."""
    found = []
    for seed in range(10):
        arrivals = poisson(0.5, 3000, np.random.default_rng(seed))
        served = simulate(stream(arrivals), Exponential(1.0, seed), ALONE, nodes=1)
        found.append(float(np.median(served.latency_s[600:])))
    assert abs(np.mean(found) - math.log(2) / 0.5) < 4.8 * np.std(found, ddof=1) / math.sqrt(10)


WAYS = st.lists(st.integers(0, 2), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(
    WAYS,
    st.integers(0, 1000),
    st.integers(1, 8),
    st.floats(0, 3),
    st.sampled_from(["batches", "queues"]),
    st.integers(1, 3),
)
def test_every_request_leaves_once_and_little_s_law_holds(kinds, seed, most, wait_s, mode, replicas) -> None:
    ways, rng = chain(), np.random.default_rng(seed)
    traffic = stream(poisson(1.5, len(kinds), rng), [ways[k] for k in kinds])
    served = simulate(traffic, Fixed(0.3, 0.05, 0.1), Batching(most, wait_s, mode), nodes=3, replicas=replicas)
    assert sorted(served.order.tolist()) == list(range(len(kinds)))
    assert served.place.tolist() == kinds, "nobody is cut short without a budget"
    assert np.isfinite(served.latency_s).all()
    assert served.latency_s.min() >= 0.35 - 1e-9, "a node's own time at least"
    # L = λ W, both sides from other books: what was inside, summed as time passed, and what each request waited
    assert served.area_s == pytest.approx(served.latency_s.sum(), rel=1e-9)
    per_node = [sum(k >= v for k in kinds) for v in range(3)]
    if mode == "queues":
        ran = [served.calls[served.calls[:, 0] == v, 1].sum() for v in range(3)]
        assert ran == per_node, "each node ran once for each request whose way holds it"
    else:
        assert served.calls[:, 1].sum() == len(kinds)
    assert served.calls[:, 1].max() <= most
    assert served.busy_s <= replicas * served.until_s + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(0, 100), st.integers(1, 6))
def test_one_replica_answers_batches_in_order(n: int, seed: int, most: int) -> None:
    served = simulate(stream(poisson(2.0, n, np.random.default_rng(seed))), Fixed(0.2), Batching(most, 0.4), nodes=1)
    assert served.order.tolist() == list(range(n))


def test_the_same_stream_gives_the_same_to_the_last_bit() -> None:
    ways = chain()
    kinds = np.random.default_rng(5).integers(0, 3, 300)
    traffic = stream(poisson(3.0, 300, np.random.default_rng(4)), [ways[k] for k in kinds])
    for mode in ("batches", "queues"):
        first, again = (simulate(traffic, Fixed(0.2, 0.03), Batching(8, 0.5, mode), nodes=3) for _ in range(2))
        assert np.array_equal(first.latency_s, again.latency_s)
        assert np.array_equal(first.calls, again.calls)


def test_a_batch_waits_for_its_deadline_and_no_longer() -> None:
    served = simulate(stream([0.0, 1.0, 1.5]), Fixed(0.5), Batching(8, 2.0), nodes=1)
    assert served.latency_s.tolist() == [2.5, 1.5, 1.0], "all three left together at 2 + 0.5"
    full = simulate(stream([0.0, 1.0, 1.5]), Fixed(0.5), Batching(2, 2.0), nodes=1)
    assert full.latency_s.tolist() == [1.5, 0.5, 2.5], "two filled a batch at 1; the third waited alone until 3.5"


def test_survivors_of_two_batches_share_a_step_in_queues() -> None:
    short, deep = Way((0,), (1.0,), (True,)), Way((0, 1), (1.0, 2.0), (False, True))
    traffic = stream([0.0, 0.0, 0.0, 0.0], [short, deep, short, deep])
    served = simulate(traffic, Fixed(1.0), Batching(2, 5.0, "queues"), nodes=2)
    assert served.calls.tolist() == [[0, 2, 1], [0, 2, 1], [1, 2, 1]]
    assert served.latency_s.tolist() == [1, 3, 2, 3], "who leaves early need not wait for who goes on"
    together = simulate(traffic, Fixed(1.0), Batching(2, 5.0, "batches"), nodes=2)
    assert together.calls.tolist() == [[-1, 2, 2], [-1, 2, 2]]
    assert together.latency_s.tolist() == [2, 2, 4, 4]


def test_replicas_share_the_line_of_arrivals() -> None:
    served = simulate(stream([0.0, 0.0, 0.0]), Fixed(1.0), ALONE, nodes=1, replicas=2)
    assert sorted(served.latency_s.tolist()) == [1, 1, 2]


# ---------------------------------------------------------------------- the budget


@settings(max_examples=40, deadline=None)
@given(WAYS, st.floats(1, 7), st.floats(1, 4))
def test_one_at_a_time_the_budget_is_that_of_the_defences(kinds, rate: float, burst: float) -> None:
    ways = chain()
    traffic = stream(100.0 * np.arange(len(kinds)), [ways[k] for k in kinds])
    bucket = Bucket(rate, burst * rate, 1.0)
    served = simulate(traffic, Fixed(1.0), ALONE, nodes=3, bucket=bucket)
    kept = through_bucket(
        [list(ways[k].macs) for k in kinds], [list(ways[k].right) for k in kinds], rate=rate, capacity=burst * rate
    )
    seen = Stream(traffic, served)
    assert served.forced.tolist() == kept.forced.tolist()
    assert [w.macs[p] for w, p in zip(traffic.ways, served.place, strict=True)] == kept.cost.tolist()
    assert seen.served.place.max() < 3


@settings(max_examples=25, deadline=None)
@given(WAYS, st.floats(1, 4), st.sampled_from(["batches", "queues"]), st.integers(0, 99))
def test_the_budget_is_never_exceeded_whoever_comes(kinds, rate: float, mode, seed: int) -> None:
    ways, capacity = chain(), 3 * rate
    traffic = stream(poisson(5.0, len(kinds), np.random.default_rng(seed)), [ways[k] for k in kinds])
    served = simulate(
        traffic, Fixed(0.5, 0.1), Batching(4, 0.2, mode), nodes=3, replicas=2, bucket=Bucket(rate, capacity, 1.0)
    )
    spent = sum(way.macs[place] for way, place in zip(traffic.ways, served.place, strict=True))
    assert spent <= capacity + rate * len(kinds) + 1e-6
    cut = [place < kind for place, kind in zip(served.place, kinds, strict=True)]
    assert served.forced.tolist() == cut


def test_a_budget_below_the_entry_node_is_refused() -> None:
    with pytest.raises(UsageError, match="entry node"):
        Bucket(0.5, 10.0, 1.0)


# ---------------------------------------------------------------------- pairs


def test_shares_are_nested_on_the_same_arrivals_and_samples() -> None:
    clean, attacked = [Way((0,), (1.0,), (True,))] * 10, [Way((0, 1), (1.0, 2.0), (True, True))] * 10
    draw = Draw.of(500, 10, np.random.default_rng(0))
    times = poisson(1.0, 500, np.random.default_rng(1))
    few, many = (draw.traffic(times, clean, attacked, share) for share in (0.1, 0.3))
    assert (few.hostile <= many.hostile).all()
    assert abs(few.hostile.mean() - 0.1) < 0.04
    assert all(len(way.nodes) == 1 + bad for way, bad in zip(many.ways, many.hostile, strict=True))
    assert sorted(draw.sample[:10].tolist()) == list(range(10)), "every sample once before any twice"


def test_hostile_requests_cost_the_others() -> None:
    clean, attacked = [Way((0,), (1.0,), (True,))] * 10, [Way((0, 1), (1.0, 9.0), (True, True))] * 10
    draw, times = Draw.of(2000, 10, np.random.default_rng(0)), poisson(0.7, 2000, np.random.default_rng(1))
    p99 = {}
    for share in (0.0, 0.2):
        traffic = draw.traffic(times, clean, attacked, share)
        served = simulate(traffic, Fixed(1.0), ALONE, nodes=2)
        p99[share] = Stream(traffic, served).p(0.99, draw.rank >= 0.2)
    assert p99[0.2] > 1.5 * p99[0.0]


# ---------------------------------------------------------------------- planted faults


def _served(traffic: Traffic) -> Served:
    return simulate(traffic, Fixed(0.5, 0.1), Batching(4, 0.3, "queues"), nodes=3)


def _sound(traffic: Traffic) -> bool:
    """What the laws above look at; a world that never ends is not sound either."""
    try:
        served = _served(traffic)
    except RuntimeError:
        return False
    once = sorted(served.order.tolist()) == list(range(len(traffic)))
    return once and math.isclose(served.area_s, float(served.latency_s.sum()), rel_tol=1e-9)


@pytest.mark.parametrize("fault", ["twice", "late", "lines"])
def test_planted_faults_break_the_books(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ways, rng = chain(), np.random.default_rng(0)
    traffic = stream(poisson(1.0, 60, rng), [ways[k] for k in rng.integers(0, 3, 60)])
    assert _sound(traffic)
    if fault == "twice":  # the first to leave leaves again
        leave = module._World._leave
        monkeypatch.setattr(
            module._World, "_leave", lambda self, gone: leave(self, gone if self.order else [*gone, *gone[:1]])
        )
    elif fault == "late":  # who comes or leaves is counted one event too late
        monkeypatch.setattr(module._World, "_count", _counts_late)
    else:  # the lines behind the entry are never looked at
        monkeypatch.setattr(module, "next_work", lambda lines, now, how: next_work(lines[:1], now, how))
    assert not _sound(traffic)


def _counts_late(self, change: int) -> None:
    self.inside += change
    self.area_s += self.inside * (self.env.now - self.seen_s)
    self.seen_s = self.env.now


def test_the_deepest_line_that_is_due_runs_first() -> None:
    lines = [Line(), Line(), Line()]
    lines[0].put([1, 2], 0.0)
    lines[1].put([3], 0.5)
    how = Batching(2, 1.0, "queues")
    assert next_work(lines, 0.6, how) == (0, 0.6), "the second is not due yet"
    assert next_work(lines, 1.5, how) == (1, 1.5)
    lines[0].take(2)
    assert next_work(lines, 0.6, how) == (None, 1.5)
    lines[1].take(1)
    assert next_work(lines, 0.6, how) == (None, math.inf)


def test_repeats_give_an_interval_and_nothing_gives_none() -> None:
    assert over_repeats([0.0, 1.0], share=True)[1] == [0.0, 1.0]
    value, ends = over_repeats([1.0, 2.0, 3.0])
    assert value == 2.0
    assert ends is not None
    assert ends[0] == pytest.approx(2 - 2.4841, abs=1e-3)
    assert over_repeats([1.0]) == (1.0, None)
    assert over_repeats([1.0, math.nan]) == (None, None)


def test_nothing_to_simulate_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing would be simulated"):
        simulate(stream([]), Fixed(1.0), ALONE, nodes=1)
