"""Block queues beside the compacted pass: the laws hold them to the same results, this file to what they are for."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import nn

from adaptbench.adaptive import Block, GatedNetwork, Gates, ImageDomain
from adaptbench.adaptive.parts import NODES, PARTS
from adaptbench.adaptive.queues import Queue
from adaptbench.errors import CapabilityError


class Memory(Gates):
    """A margin of the features and of what it remembers of the blocks before; its state is nested, with a None."""

    name = "memory"

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.reads = nn.ModuleList(nn.Linear(12, 1) for _ in range(blocks))

    def start(self, x):
        return {"sum": x.flatten(1).sum(1), "rest": (x.flatten(1)[:, :2], None)}

    def margin(self, block, features, state):
        score = torch.sin(9 * self.reads[block](features).flatten() + 3 * state["sum"] + state["rest"][0][:, 0])
        return score, {"sum": state["sum"] + score, "rest": (state["rest"][0] * 0.5, None)}


def net(whole: bool = False) -> GatedNetwork:
    torch.manual_seed(2)

    def block(i: int) -> Block:
        body = nn.Sequential(nn.Linear(12, 12), nn.ReLU(inplace=True), nn.Linear(12, 12))
        if whole:
            return Block(f"b{i}", run=body, skip=nn.Linear(12, 12), gated=i != 1)
        return Block(f"b{i}", body, after=nn.ReLU(inplace=True), gated=i != 1)

    return GatedNetwork(
        stem=nn.Sequential(nn.Flatten(), nn.Linear(16, 12)),
        blocks=[block(i) for i in range(5)],
        head=nn.Linear(12, 4),
        gates=Memory(5),
        domain=ImageDomain((1, 4, 4)),
        n_classes=4,
    ).eval()


@pytest.fixture
def pictures():
    return torch.rand(203, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def sizes(model, run):
    """Block → rows of each call of its body."""
    seen = defaultdict(list)
    hooks = [
        body.register_forward_pre_hook(lambda _, given, b=b: seen[b].append(len(given[0])))
        for b, body in enumerate(model.bodies)
    ]
    _ = model.min_macs  # counted anew, as there are hooks now
    seen.clear()
    run()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("full", [1, 7, 16, 300])
def test_answers_paths_and_costs_are_those_of_the_compacted_pass_in_order(pictures, whole, full):
    model = net(whole)
    one, other = model.infer(pictures), model.infer(pictures, mode="queues", full=full)
    opened = one.path[:, 1:-1].float().mean(0)
    assert (opened > 0.1).all()
    assert ((opened > 0.1) & (opened < 0.9)).sum() >= 3, "gates that are always open would show nothing"
    assert torch.equal(one.path, other.path)
    assert torch.equal(one.macs, other.macs)
    assert torch.equal(one.tie, other.tie)
    torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_bodies_run_full_until_nothing_more_comes(pictures, whole):
    model = net(whole)
    paths = model.infer(pictures).path[:, 1:-1].sum(0).tolist()
    seen = sizes(model, lambda: model.infer(pictures, mode="queues", full=16))
    for b, ran in enumerate(paths):
        assert sum(seen[b]) == ran
        assert len(seen[b]) == -(-ran // 16), "only the last call of a body may be short"
    crumbs = sizes(model, lambda: [model.infer(part) for part in pictures.split(16)])
    assert sum(map(len, crumbs.values())) > sum(map(len, seen.values()))


def test_what_waits_is_bounded_by_the_blocks_not_by_the_rows(pictures, monkeypatch):
    model, most, put = net(), [0], Queue.put

    def watched(queue, parcel):
        put(queue, parcel)
        most[0] = max(most[0], queue.length)

    monkeypatch.setattr(Queue, "put", watched)
    model.infer(pictures.repeat(8, 1, 1, 1), mode="queues", full=16)
    assert 16 <= most[0] < 2 * 16


def test_a_forced_path_is_taken_row_by_row(pictures):
    model = net()
    force = torch.rand(len(pictures), 7, generator=torch.Generator().manual_seed(3)) > 0.5
    force[:, [0, 2, 6]] = True
    forced = model.infer(pictures, force=force, mode="queues", full=16)
    assert torch.equal(forced.path, force)
    assert not forced.tie.any(), "what is forced is no decision"
    torch.testing.assert_close(forced.logits, model.infer(pictures, force=force).logits, atol=1e-5, rtol=1e-5)


def test_serving_goes_through_the_queues_and_tells_its_stretches(pictures):
    model, laps = net(), []
    with model.serving():
        logits = model.serve(pictures, lap=laps.append, full=16)
        seen = sizes(model, lambda: model.serve(pictures, full=16))
    torch.testing.assert_close(logits, model.infer(pictures).logits, atol=1e-5, rtol=1e-5)
    assert set(laps) == set(PARTS)
    assert laps.count(NODES) >= sum(map(len, seen.values()))


def test_a_subclass_with_a_pass_of_its_own_has_none(pictures):
    class Own(GatedNetwork):
        def _run(self, x, **how):
            return super()._run(x, **how)

    made = net()
    made.__class__ = Own
    assert made.modes == ("compacted", "per-sample")
    with pytest.raises(CapabilityError, match="compacted, per-sample"):
        made.infer(pictures[:4], mode="queues")
    with made.serving(), pytest.raises(CapabilityError, match="queues"):
        made.serve(pictures[:4], full=2)
