"""Heads on a frozen backbone: nothing else moves, kept features change nothing, each head its own."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from adaptbench.adaptive.splits import Split
from adaptbench.errors import LeakageError, UsageError
from adaptbench.models.exit_heads import attach_exits, boosted
from adaptbench.models.msdnet import MsdnetPlan, msdnet
from adaptbench.models.resnet import resnet
from adaptbench.zoo.training import exits as exit_training
from adaptbench.zoo.training.exits import train_backtrack, train_heads
from adaptbench.zoo.training.objective import fit_objective
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.strategies import strategy


@pytest.fixture(autouse=True)
def one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def split_of(n=64, role="train"):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 8, 8), generator=g, dtype=torch.uint8)
    y = torch.arange(n) % 4
    x[torch.arange(n), y % 3] //= 2
    return Split("toy", role, x, y, torch.arange(n), tuple("abcd"))


def net(kind="paper", depth=8):
    torch.manual_seed(1)
    return attach_exits(resnet(depth, 4), kind, input_shape=(3, 8, 8))


def state(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


PHASE = Phase(epochs=2, lr=0.05, batch_size=16)


@pytest.mark.parametrize("how", [{}, {"memory": 0}, {"distil": 0.5}, {"channels_last": True}])
@pytest.mark.parametrize("augment", ["none", "crop+flip"])
@pytest.mark.parametrize("kind", ["paper", "eenet"])
def test_the_backbone_is_left_bit_for_bit(kind, how, augment):
    model = net(kind).train()
    before, x = state(model), torch.rand(5, 3, 8, 8)
    answer = model.run_reference(x)
    train_heads(model, split_of(), replace(PHASE, augment=augment), **how)
    after = state(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("heads.0.", "heads.1.")) for name in moved)
    assert torch.equal(model.run_reference(x), answer)
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.stages.modules())


@pytest.mark.parametrize("kind", ["paper", "sdn", "eenet"])
def test_keeping_features_changes_nothing_but_the_time(kind):
    depth = 20 if kind == "sdn" else 8
    kept, computed = net(kind, depth), net(kind, depth)
    seen = []
    kept.stages[0].register_forward_hook(lambda *_: seen.append(1))
    train_heads(kept, split_of(), PHASE, distil=0.3)
    assert len(seen) == 2, "one look at the size, one pass of 64 samples"
    train_heads(computed, split_of(), PHASE, distil=0.3, memory=0)
    for (name, a), b in zip(kept.state_dict().items(), computed.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_rows_are_found_again():
    """Row numbers travel through `fit` as four bytes."""
    n = 70_000
    split = Split("wide", "train", torch.zeros(n, 1, 1, 1).byte(), torch.zeros(n).long(), torch.arange(n), ("a",))
    numbered = exit_training._numbered(split)
    assert numbered.sha256 == split.sha256
    places = torch.tensor([0, 1, 255, 256, 65_535, 65_536, n - 1])
    digits = numbered.x[places].float().div_(255).flatten(1).mul(255).round().long()
    assert (digits * torch.tensor([1, 256, 65_536, 1 << 24])).sum(1).tolist() == places.tolist()


def test_together_or_alone_a_head_learns_the_same():
    together, alone = net(), net()
    train_heads(together, split_of(), PHASE)
    for k in (1, 0):
        train_heads(alone, split_of(), PHASE, exits=[k])
    for (name, a), b in zip(together.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_it_learns():
    model, split = net(), split_of()
    training = train_heads(model, split, Phase(epochs=30, lr=0.1, batch_size=32))
    assert training.history[-1].loss < 0.7 * training.history[0].loss
    assert (model.eval().dense_logits(split.images())[:, 0].argmax(1) == split.y).float().mean() > 0.5


def test_without_labels_heads_learn_the_last_exits_answers():
    model, split = net(), split_of()
    wrong = Split("toy", "train", split.x, torch.zeros_like(split.y), split.ids, split.class_names)

    def disagreement():
        logits = model.eval().dense_logits(split.images())
        return F.kl_div(logits[:, 0].log_softmax(1), logits[:, -1].softmax(1), reduction="batchmean").item()

    before = disagreement()
    train_heads(model, wrong, Phase(epochs=30, lr=0.1, batch_size=32), distil=1.0, temperature=1.0)
    assert disagreement() < 0.5 * before


def test_backtracking_trains_the_backbone_first_and_each_head_after(tmp_path):
    def checkpoint(name):
        return {"checkpoint": tmp_path / f"{name}.safetensors"}

    model, split = net(), split_of()
    before = state(model)
    phases = train_backtrack(model, split, backbone=replace(PHASE, epochs=1), heads=PHASE, settings=checkpoint)
    assert [len(p.history) for p in phases.values()] == [1, 2, 2]
    assert sorted(p.name.split(".")[0] for p in tmp_path.iterdir()) == ["backbone", "head1", "head2"]
    assert not torch.equal(model.state_dict()["stages.0.stem.0.weight"], before["stages.0.stem.0.weight"])
    again = net()
    resumed = train_backtrack(again, split, backbone=replace(PHASE, epochs=1), heads=PHASE, settings=checkpoint)
    assert [p.resumed_from for p in resumed.values()] == [1, 2, 2]
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())


def test_a_trained_backbone_is_not_trained_again():
    model, split = net(), split_of()
    answer = model.run_reference(split.images())
    phases = train_backtrack(model, split, backbone=None, heads=PHASE)
    assert len(phases) == 2
    assert torch.equal(model.run_reference(split.images()), answer)


@pytest.mark.parametrize("name", ["linear", "sdn", "adaloss", "distilled"])
def test_joint_training_moves_everything(name):
    model = net()
    before = state(model)
    fit_objective(strategy(name, model), split_of(), PHASE)
    weights = {name for name, _ in model.named_parameters()}
    still = {name for name, t in state(model).items() if name in weights and torch.equal(t, before[name])}
    assert not still


def test_boosted_nets_train_jointly_only():
    model = boosted(net())
    fit_objective(strategy("boosted", model), split_of(), PHASE)
    with pytest.raises(UsageError, match="boosted nets are trained jointly"):
        train_heads(model, split_of(), PHASE)


@pytest.mark.parametrize("distil", [0.0, 0.5])
def test_features_at_several_scales_are_computed_each_time(distil):
    plan = MsdnetPlan(blocks=2, base=1, step=1, channels=4, growth=2, head=8)
    model = msdnet(plan, 4, input_shape=(3, 8, 8))
    before = state(model)
    train_heads(model, split_of(), PHASE, distil=distil)
    moved = {name for name, t in state(model).items() if not torch.equal(t, before[name])}
    assert moved
    assert all(name.startswith("heads.0.") for name in moved)


def test_figures_are_asked_of_the_model():
    seen = []
    model = net()
    train_heads(model, split_of(), PHASE, evaluate=lambda m: seen.append(m) or {"one": 1.0})
    assert seen == [model, model]


@pytest.mark.parametrize("how", [{"exits": [3]}, {"exits": [-1]}, {"exits": []}, {"distil": 1.5}])
def test_impossible_wishes_are_named(how):
    with pytest.raises(UsageError):
        train_heads(net(), split_of(), PHASE, **how)


@pytest.mark.parametrize("train", [train_heads, partial(train_heads, memory=0)])
def test_test_samples_are_refused(train):
    with pytest.raises(LeakageError):
        train(net(), split_of(role="test"), PHASE)
