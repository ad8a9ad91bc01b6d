"""Tables of times, single calls, the real driver on a clock that only counts, ways as executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from adaptbench.adaptive import DecisionGraph
from adaptbench.bench.evaluate import as_input, sample_seeds
from adaptbench.data import load_data
from adaptbench.errors import AdaptBenchError, CapabilityError, MeterError
from adaptbench.experiment.options import Options
from adaptbench.meters.clock import ClockMeter
from adaptbench.meters.rows import WindowRow
from adaptbench.meters.windows import measure
from adaptbench.serving.arrivals import poisson
from adaptbench.serving.checks import judged
from adaptbench.serving.driver import CpuTime, WallTime, replay
from adaptbench.serving.executor import QueueServer
from adaptbench.serving.lines import Batching
from adaptbench.serving.nets import make_plan
from adaptbench.serving.simulate import simulate
from adaptbench.serving.spec import load_serving
from adaptbench.serving.spread import Spread, expected, ratios_of
from adaptbench.serving.times import Table, arms_of, case_of, tables_of
from adaptbench.serving.traffic import Draw, Way
from adaptbench.serving.ways import executed
from adaptbench.zoo.loading import load_system


@pytest.fixture(scope="module")
def net() -> DecisionGraph:
    torch.set_num_threads(1)
    model = load_system("softmax-threshold", "digits").model
    assert isinstance(model, DecisionGraph)
    return model


@pytest.fixture(scope="module")
def split():
    return load_data("digits").split("test").first(48)


@pytest.fixture(scope="module")
def ways(net, split):
    return executed(net, split.x, split.y, sample_seeds(split.ids, 0), "cpu")


class Counting:
    """A clock on which each reading takes the same, and waiting skips."""

    def __init__(self, tick_s: float = 1e-4) -> None:
        self._now, self._tick_s = 0.0, tick_s

    def now(self) -> float:
        self._now += self._tick_s
        return self._now

    def wait(self, seconds: float) -> None:
        self._now += max(seconds, 0.0)


# ---------------------------------------------------------------------- ways


@pytest.mark.parametrize("name", ["softmax-threshold", "learned-cascade", "dag-selection", "static"])
def test_ways_are_those_that_infer_takes(name: str, split) -> None:
    model = load_system(name, "digits").model
    seeds = sample_seeds(split.ids, 0)
    found = executed(model, split.x, split.y, seeds, "cpu")
    inference = model.infer(as_input(split.x, "cpu"), seeds=seeds)
    assert [way.macs[-1] for way in found.ways] == inference.macs.tolist()
    assert [way.nodes[-1] for way in found.ways] == inference.exit.tolist()
    right = (inference.predictions == split.y).tolist()
    assert [way.right[-1] for way in found.ways] == right
    assert found.accuracy == pytest.approx(np.mean(right))
    for way, mask in zip(found.ways, inference.path.tolist(), strict=True):
        assert list(way.nodes) == [v for v, yes in enumerate(mask) if yes]
        assert list(way.macs) == sorted(way.macs)


def test_a_net_whose_costs_do_not_add_up_is_refused(net, split, monkeypatch) -> None:
    monkeypatch.setattr(type(net), "predict_macs", property(lambda self: tuple(1 for _ in self.node_names)))
    with pytest.raises(CapabilityError, match="do not add up"):
        executed(net, split.x, split.y, sample_seeds(split.ids, 0), "cpu")


# ---------------------------------------------------------------------- the real driver


@pytest.mark.parametrize("mode", ["batches", "queues"])
@pytest.mark.parametrize("most", [1, 5])
def test_the_driver_answers_every_request_where_its_sample_leaves(net, split, ways, mode, most) -> None:
    rng = np.random.default_rng(0)
    draw = Draw.of(120, len(split), rng)
    arrivals = poisson(400.0, 120, rng)
    sample = torch.from_numpy(draw.sample)
    x, seeds = as_input(split.x[sample], "cpu"), sample_seeds(split.ids, 0)[sample]
    run = replay(net, x, seeds, arrivals, Batching(most, 0.004, mode), Counting())
    assert np.isfinite(run.latency_s).all()
    assert run.latency_s.min() > 0
    traffic = draw.traffic(arrivals, ways.ways, [], 0.0)
    assert run.exits.tolist() == [way.nodes[-1] for way in traffic.ways]
    served = [request for node, here, _ in run.calls for request in here]
    once = [0] * 120
    for request in served:
        once[request] += 1
    depth = [len(way.nodes) if mode == "queues" else 1 for way in traffic.ways]
    assert once == depth
    assert max(len(here) for _, here, _ in run.calls) <= most
    assert 0 <= max(run.late_s, default=0.0) <= 3e-4, "this clock is late by its own readings only"


@pytest.mark.parametrize("mode", ["batches", "queues"])
def test_the_driver_and_the_simulation_are_one_when_calls_take_the_same(net, split, ways, mode) -> None:
    """On a clock that only counts, with each call as long as it was: what is left is the rule, which is shared."""
    rng = np.random.default_rng(1)
    draw, arrivals = Draw.of(200, len(split), rng), poisson(300.0, 200, rng)
    traffic = draw.traffic(arrivals, ways.ways, [], 0.0)
    sample = torch.from_numpy(draw.sample)
    x, seeds = as_input(split.x[sample], "cpu"), sample_seeds(split.ids, 0)[sample]
    batching = Batching(8, 0.01, mode)
    run = replay(net, x, seeds, arrivals, batching, Counting(2e-4))
    flat = Table([[0.0] + [1e-3] * 8 for _ in net.node_names], [0.0] + [1e-3] * 8)
    own = ratios_of(run, traffic.ways, flat)
    served = simulate(traffic, Spread(flat, own, mode), batching, nodes=len(net.node_names))
    assert len(served.calls) == pytest.approx(len(run.calls), abs=6)
    assert served.latency_s.mean() == pytest.approx(run.latency_s.mean(), rel=0.06)


def test_steps_of_the_queues_give_the_answers_of_infer(net, split) -> None:
    x, seeds = as_input(split.x, "cpu"), sample_seeds(split.ids, 0)
    with net.serving():
        server = QueueServer(net, x, seeds, 7)
        server.lines[0].put(range(len(split)), 0.0)
        exits: dict[int, int] = {}
        while any(map(len, server.lines)):
            v = max(v for v, line in enumerate(server.lines) if len(line))
            exits |= dict(server.work(v, server.lines[v].take(7), lambda: 0.0))
        assert [exits[i] for i in range(len(split))] == net.infer(x, seeds=seeds).exit.tolist()
        answers = torch.cat(server.stages.answers)
        rows = torch.cat([rows for _, rows in server.stages.decided.left])
    assert torch.allclose(answers, net.infer(x, seeds=seeds).logits[rows], atol=1e-5)


def test_clocks_go_on_and_the_cpu_s_skips_a_wait() -> None:
    cpu, wall = CpuTime(), WallTime()
    before = cpu.now()
    cpu.wait(1000.0)
    assert 1000 <= cpu.now() - before < 1001
    cpu.wait(-5.0)
    assert cpu.now() - before < 1001
    first = wall.now()
    wall.wait(0.0)
    assert wall.now() >= first


# ---------------------------------------------------------------------- times


def windows(seconds: dict[tuple[str, int], float], blocks: int = 2) -> pd.DataFrame:
    def made() -> Iterator[WindowRow]:
        for (node, size), spent in seconds.items():
            for block in range(blocks):
                case, took = case_of("net", node, size), spent * (1 + block) * 10
                yield WindowRow(case, block, 0, "clock", "clock", None, took, 10 * size, "", "process", "", "time")

    return pd.DataFrame([asdict(row) for row in made()])


SEEN = {("a", 1): 1.0, ("a", 4): 2.0, ("b", 1): 3.0, ("b", 4): 6.0, ("call", 1): 2.0, ("call", 4): 8.0}
BATCHES = {1: [[1, 0]], 4: [[4, 1], [4, 3]]}


def test_a_table_takes_whole_batches_apart_and_puts_them_together() -> None:
    found = tables_of(windows(SEEN), "net", ["a", "b"], BATCHES, [])
    table = found.blocks[0]
    assert table.step_s(0, 1) == pytest.approx(1)
    assert table.step_s(0, 4) == pytest.approx(2)
    assert table.step_s(0, 2) == pytest.approx(4 / 3), "a line between the sizes"
    inside = (2 + 3 + 2 + 5) / 2  # four at a, then one or three at b
    assert table.call_s(4) == pytest.approx(8 - inside)
    assert table.batch_s([1.0, 0.5], 4) == pytest.approx(8 - inside + 2 + 4), "half of them go on"
    assert found.middle.step_s(0, 1) == pytest.approx(1.5), "the median of both blocks"
    assert found.joules is None
    assert found.no_joules == "no energy meter was asked for"
    assert {(row["node"], row["size"]) for row in found.rows} == set(SEEN)


def test_noise_never_makes_a_batch_take_less_than_nothing() -> None:
    table = tables_of(windows(SEEN | {("call", 4): 0.001}), "net", ["a", "b"], BATCHES, []).middle
    assert table.call_s(4) < 0
    assert table.batch_s([1.0, 0.0], 4) > 0


def test_a_node_without_a_figure_is_named() -> None:
    lacking = {key: value for key, value in SEEN.items() if key != ("b", 4)}
    with pytest.raises(MeterError, match="net/b/b4"):
        tables_of(windows(lacking), "net", ["a", "b"], BATCHES, [])


def test_joules_come_from_a_sensor_and_from_nothing_else() -> None:
    frame = windows(SEEN)
    joules = frame.assign(meter="nvml", component="total", energy_j=frame["duration_s"] * 5, missing=None)
    measured = joules.assign(provenance="measured: a sensor")
    found = tables_of(pd.concat([frame, measured]), "net", ["a", "b"], BATCHES, ["nvml"])
    assert found.joules is not None
    assert found.joules.step_s(0, 4) == pytest.approx(5 * found.middle.step_s(0, 4))
    modelled = joules.assign(provenance="modelled: a formula")
    none = tables_of(pd.concat([frame, modelled]), "net", ["a", "b"], BATCHES, ["nvml"])
    assert none.joules is None
    assert "measures nothing" in none.no_joules
    absent = frame.assign(meter="nvml", energy_j=None, missing="no card")
    assert tables_of(pd.concat([frame, absent]), "net", ["a", "b"], BATCHES, ["nvml"]).no_joules == "no card"


@pytest.mark.slow
def test_what_is_timed_of_a_node_is_a_step_of_the_queues(net, split, ways) -> None:
    """Each arm runs on inputs that reach its node, and leaves nothing behind for the next call."""
    x, seeds = as_input(split.x, "cpu"), sample_seeds(split.ids, 0)
    makers, batches = arms_of("net", net, x, seeds, ways, 4, 16)
    arms = [make() for make in makers.values()]
    assert [arm.case for arm in arms] == [f"net/{node}/b4" for node in (*net.node_names, "call")]
    assert all(len(reached) == len(net.node_names) and reached[0] == 4 for reached in batches)
    clock = ClockMeter()
    with clock.on("cpu"), torch.no_grad():
        rows = measure(arms, [clock], blocks=1, window_s=0.01, warmup_s=0, rng=np.random.default_rng(0), idle=False)
    table = tables_of(pd.DataFrame([asdict(r) for r in rows]), "net", list(net.node_names), {4: batches}, []).middle
    assert table.step_s(0, 4) > 0
    assert table.batch_s(ways.reach, 4) > 0


# ---------------------------------------------------------------------- single calls


def test_single_calls_are_held_against_their_table() -> None:
    table = Table([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]], [0.0, 0.5, 0.5])
    short, deep = Way((0,), (1.0,), (True,)), Way((0, 1), (1.0, 2.0), (True, True))
    assert expected(-1, [0, 1], [short, deep], table) == 0.5 + 2 + 3
    assert expected(1, [1], [short, deep], table) == 3
    law = Spread(table, [2.0, 3.0], "batches")
    assert law.call_s(1) == 1.0
    assert law.step_s(0, 2) == 4.0, "a batch's steps share its ratio"
    assert law.call_s(1) == 1.5
    alone = Spread(table, [2.0, 3.0], "queues")
    assert [alone.step_s(0, 1), alone.step_s(0, 1), alone.step_s(0, 1)] == [2.0, 3.0, 2.0]
    drawn = Spread(table, [2.0, 3.0], "queues", np.random.default_rng(0))
    assert {drawn.step_s(0, 1) for _ in range(40)} == {2.0, 3.0}


@pytest.mark.parametrize(
    ("real", "told", "own", "within", "why"),
    [
        ((1.0, 2.0), (1.05, 1.9), (1.0, 2.0), True, ""),
        ((1.0, 2.0), (1.2, 2.0), (1.01, 2.0), False, "the machine, not the queueing"),
        ((1.0, 2.0), (1.0, 1.5), (1.3, 2.0), False, "calls alone do not explain it"),
    ],
)
def test_where_they_differ_the_reason_is_told(real, told, own, within, why) -> None:
    row = {"call_ratio": 1.3, "spread_ratio": 1.1, "clock": "cpu", "measured_stall_s": 0.01}
    for i, name in enumerate(("mean_s", "p99_s")):
        row |= {f"measured_{name}": real[i], f"simulated_{name}": told[i], f"simulated_with_its_calls_{name}": own[i]}
    found = judged(row)
    assert found["within"] is within
    assert why in found["reason"]
    assert bool(found["reason"]) is not within
    if not within:
        assert "woke 900.0 ms after" in judged(row | {"measured_stall_s": 0.9})["reason"]


@pytest.mark.parametrize(("engine", "address"), [("nosuch", None), ("local", "10.0.0.1:1"), ("ray", None)])
def test_an_engine_is_not_ignored(engine, address):
    """`run serving --engine nosuch --dry-run` told a plan and left with 0."""
    with pytest.raises(AdaptBenchError, match=r"no engine|the engine is this process|runs here|ray is not installed"):
        make_plan(load_serving("serving"), Options(engine=engine, address=address))
