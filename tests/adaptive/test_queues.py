"""Stage queues beside the compacted pass: the laws hold them to the same results, this file to what they are for."""

from collections import defaultdict

import pytest
import torch
from torch import nn

from adaptbench.adaptive import MultiExit
from adaptbench.adaptive.parts import NODES, PARTS
from adaptbench.adaptive.queues import Queue
from adaptbench.errors import CapabilityError
from adaptbench.policies import UniformThreshold


def net(threshold=0.6):
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU()), *(nn.Linear(12, 12) for _ in range(3))]
    heads = [nn.Linear(12, 4) for _ in stages]
    for head in heads:  # some are sure early, some late
        head.weight.data.mul_(20)
    model = MultiExit(stages, heads, input_shape=(1, 4, 4)).eval()
    model.policy = UniformThreshold(threshold)
    return model


@pytest.fixture
def pictures():
    return torch.rand(203, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def sizes(model, run):
    """Node → samples of each call."""
    seen = defaultdict(list)
    hooks = [
        stage.register_forward_pre_hook(lambda _, given, v=v: seen[v].append(len(given[0])))
        for v, stage in enumerate(model.stages)
    ]
    _ = model.min_macs
    seen.clear()
    run()
    for hook in hooks:
        hook.remove()
    return seen


def leaving(model, x):
    """A threshold at which samples leave at several exits."""
    confidence = model.dense_logits(x).detach().softmax(-1).amax(-1)[:, 0]
    model.policy = UniformThreshold(float(confidence.median()))
    return model


def test_nodes_run_full_until_nothing_more_comes(pictures):
    model = leaving(net(), pictures)
    paths = model.infer(pictures).path.sum(0).tolist()
    assert len(pictures) > paths[1] > paths[3] > 0
    seen = sizes(model, lambda: model.infer(pictures, mode="queues", full=16))
    for v, ran in enumerate(paths):
        assert sum(seen[v]) == ran
        assert all(size == 16 for size in seen[v][:-1]), "only the last call of a node may be short"
        assert len(seen[v]) == -(-ran // 16)
    crumbs = sizes(model, lambda: [model.infer(part) for part in pictures.split(16)])
    assert len(crumbs[3]) > len(seen[3])


def test_order_is_restored_to_the_bit_where_sums_are_the_same(pictures):
    model = leaving(net(), pictures)
    whole, queued = model.infer(pictures), model.infer(pictures, mode="queues", full=7)
    assert torch.equal(whole.exit, queued.exit)
    assert torch.equal(whole.macs, queued.macs)
    assert torch.equal(whole.path, queued.path)
    torch.testing.assert_close(whole.logits, queued.logits, atol=1e-6, rtol=0)


def test_what_waits_is_bounded_by_the_nodes_not_by_the_samples(pictures, monkeypatch):
    model, most, put = leaving(net(), pictures), [0], Queue.put

    def watched(queue, parcel):
        put(queue, parcel)
        most[0] = max(most[0], queue.length)

    monkeypatch.setattr(Queue, "put", watched)
    model.infer(pictures.repeat(8, 1, 1, 1), mode="queues", full=16)
    assert 16 <= most[0] < 2 * 16


def test_serving_goes_through_the_queues_and_tells_its_stretches(pictures):
    model, laps = leaving(net(), pictures), []
    with model.serving():
        logits = model.serve(pictures, lap=laps.append, full=16)
    torch.testing.assert_close(logits, model.infer(pictures).logits, atol=1e-6, rtol=0)
    assert set(laps) <= set(PARTS)
    assert laps.count(NODES) == sum(
        map(len, sizes(model, lambda: model.infer(pictures, mode="queues", full=16)).values())
    )


def test_unknown_modes_are_refused(pictures):
    for how in ({"mode": "fast"}, {"mode": "queues", "full": 0}):
        with pytest.raises(CapabilityError, match="per-sample, queues"):
            net().infer(pictures[:2], **how)
