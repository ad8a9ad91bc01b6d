"""Gated nets before a line: blocks are the nodes, batches stay together, and what means nothing for them is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import adaptbench as ab
from adaptbench.errors import CapabilityError, SuiteError
from adaptbench.experiment.options import Options
from adaptbench.meters.clock import ClockMeter
from adaptbench.report.serving_page import serving_page
from adaptbench.results.record_runs import first_fault
from adaptbench.results.serving import ServingRun
from adaptbench.serving.blocks import body_arm, costs_of
from adaptbench.serving.executor import server_for
from adaptbench.serving.lines import Batching
from adaptbench.serving.nets import make_plan
from adaptbench.serving.runner import run_serving
from adaptbench.serving.spec import load_serving
from adaptbench.serving.ways import executed

GATED = """
title: gates under load
data: digits
models: [skipnet, static]
arrivals: [{poisson: {load: 0.5, of: static}}]
requests: 100
repeats: 2
batching: {max_batch: 4, wait_s: 0.001, modes: [batches]}
objective_p99_s: 0.1
hostile:
  attack: {ilfo: {eps: 32/255, steps: 4}}
  shares: [0.5]
check: {requests: 60, repeats: 1}
measure: {clock: cpu, batch_sizes: [1, 4], blocks: 2, window_s: 0.005, warmup_s: 0, samples: 8, spread: 40}
limit: 24
"""


@pytest.fixture(scope="module", autouse=True)
def short_windows() -> Iterator[None]:
    """Of some milliseconds: nothing here believes what they say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClockMeter, "min_window_s", 0.0)
        yield


@pytest.fixture(scope="module")
def net():
    return ab.load_model("skipnet", "digits")


@pytest.fixture(scope="module")
def split():
    return ab.load_data("digits").split("test").first(60)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gated") / "gated.yaml"
    place.write_text(GATED, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def run(file: Path) -> ServingRun:
    torch.set_num_threads(1)
    return run_serving(str(file), out=file.parent / "run")


def test_a_way_goes_over_the_blocks_that_a_row_runs_and_adds_up(net, split) -> None:
    found = executed(net, split.x, split.y, split.ids, "cpu")
    inference = net.infer(split.images())
    assert torch.equal(found.path, inference.path)
    for way, path, macs in zip(found.ways, inference.path.tolist(), inference.macs.tolist(), strict=True):
        assert list(way.nodes) == [v for v, yes in enumerate(path) if yes]
        assert way.macs[-1] == macs
        assert list(way.macs) == sorted(way.macs)
        assert len(set(way.right)) == 1, "there is one answer, at the head"
    assert found.accuracy == float((inference.logits.argmax(1) == split.y).double().mean())


@pytest.mark.parametrize("size", [1, 8])
def test_what_is_timed_of_a_block_is_its_body_on_as_many_rows(net, split, size) -> None:
    x, path = split.images(), net.infer(split.images()).path
    modules = [net.stem, *net.bodies, net.head]
    seen: list[tuple[int, int]] = []
    for v in range(len(modules)):
        arm = body_arm("a", net, x, path, size, v)
        hooks = [
            m.register_forward_pre_hook(lambda _, h, u=u: seen.append((u, len(h[0])))) for u, m in enumerate(modules)
        ]
        with arm.ready():
            seen.clear()
            arm.run()
        for hook in hooks:
            hook.remove()
        assert seen == [(v, size)], f"the arm of {net.node_names[v]} ran something else"
        assert arm.work.macs == costs_of(net)[v] * size
    assert sum(costs_of(net)) == net.max_macs


def test_a_block_that_nobody_opens_is_timed_all_the_same(net, split) -> None:
    path = net.infer(split.images()).path.clone()
    path[:, 1] = False
    arm = body_arm("a", net, split.images(), path, 3, 1)
    with arm.ready():
        arm.run()
    assert arm.work.samples == 3


def test_a_run_has_everything_and_its_simulation_is_the_real_one(run: ServingRun) -> None:
    record = run.record
    assert record["failed"] == {}
    assert first_fault(ServingRun.parts(record)) == ""
    model = record["models"]["skipnet"]
    assert model["reach"][0] == model["reach"][-1] == 1.0
    assert any(0 < share < 1 for share in model["reach"][1:-1])
    assert model["hostile_macs_mean"] > model["macs_mean"]
    assert {row["node"] for row in model["times"]} == {*model["nodes"], "call"}
    by_share = {row["share"]: row for row in record["streams"] if row["model"] == "skipnet"}
    assert by_share[0.5]["simulated_macs"] > by_share[0.0]["simulated_macs"]
    for row in record["checks"]:  # the queueing is the same; single calls of so short a run are anybody's guess
        assert row["simulated_with_its_calls_mean_s"] == pytest.approx(row["measured_mean_s"], rel=0.1)
    assert "stem" in serving_page(record)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("batching.modes=[queues]", "'skipnet' has gates, and queues were asked for"),
        ("hostile.budget={headroom: 1.1, burst: 5}", "'skipnet' has gates, and a hard budget was asked for"),
        ("data=digits", ""),
    ],
)
def test_what_means_nothing_for_gates_is_refused_with_its_place(file: Path, override: str, says: str) -> None:
    loaded = load_serving(str(file), (override,))
    if not says:
        assert [net.label for net in make_plan(loaded, Options()).nets] == ["skipnet", "static"]
        return
    with pytest.raises(SuiteError, match=says) as caught:
        make_plan(loaded, Options())
    assert "gated.yaml, line 4" in str(caught.value)
    assert "batch" in caught.value.todo or "exits" in caught.value.todo


def test_a_replica_of_a_gated_net_answers_at_the_head(net, split) -> None:
    x, seeds = split.images(0, 8), split.ids[:8]
    with net.serving():
        server = server_for(net, x, seeds, Batching(4, 0.0))
        server.warm(4)
        answered = server.work(0, [0, 3, 5], lambda: 0.0)
    assert answered == [(request, len(net.node_names) - 1) for request in (0, 3, 5)]
    with pytest.raises(CapabilityError, match="batches only"):
        server_for(net, x, seeds, Batching(4, 0.0, "queues"))
