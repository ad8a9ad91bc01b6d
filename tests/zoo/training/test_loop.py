import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adaptbench.adaptive.splits import Split
from adaptbench.errors import CheckpointError, LeakageError, NonFiniteError, UsageError
from adaptbench.zoo.training import loop
from adaptbench.zoo.training.augment import AUGMENTATIONS, PAD, crop_and_flip, random_crop, random_flip
from adaptbench.zoo.training.phase import Phase, Schedule


def split_of(n=96, role="train", seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 1, 8, 8), generator=g, dtype=torch.uint8)
    return Split("toy", role, x, (x[:, 0, 0, 0] > 127).long(), torch.arange(n), ("low", "high"))


def conv_net(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(256, 2),
        )


def cross_entropy(module, x, y):
    return F.cross_entropy(module(x), y)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


SETTINGS = {"epochs": 5, "batch_size": 16, "lr": 0.05}


def fit(module, split, loss, **settings):
    """The loop's, settings of the phase and others in one."""
    phase = Phase(**{name: settings.pop(name) for name in list(settings) if name in Phase.__dataclass_fields__})
    return loop.fit(module, split, phase, loss, **settings)


class Killed(BaseException):
    pass


def kill_after(epoch):
    def on_epoch(record):
        if record.epoch == epoch:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("killed_after", [1, 4])
@pytest.mark.parametrize(
    "settings_",
    [
        {"optimiser": "sgd", "augment": "crop+flip"},
        {"optimiser": "sgd", "momentum": 0.0},
        {"optimiser": "adamw", "lr": 1e-3, "ema": 0.9},
        {"optimiser": "sgd", "channels_last": True, "ema": 0.5, "clip_norm": 0.1, "schedule": "cosine"},
    ],
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, settings_, killed_after):
    keywords = {**SETTINGS, **settings_, "evaluate": lambda m: {"w": float(m[0].weight.sum())}}
    undisturbed, killed = conv_net(), conv_net()
    whole = fit(undisturbed, split_of(), cross_entropy, **keywords)
    path = tmp_path / "c.safetensors"
    with pytest.raises(Killed):
        fit(killed, split_of(), cross_entropy, checkpoint=path, on_epoch=kill_after(killed_after), **keywords)
    resumed = conv_net(seed=9)
    rest = fit(resumed, split_of(), cross_entropy, checkpoint=path, **keywords)
    assert rest.resumed_from == killed_after
    assert rest.history == whole.history
    assert same(undisturbed, resumed)
    # A third call finds all epochs done and takes no step.
    again = conv_net(seed=3)
    assert fit(again, split_of(), None, checkpoint=path, **keywords).resumed_from == 5
    assert same(undisturbed, again)


def test_an_interrupt_within_an_epoch_keeps_the_last_checkpoint(tmp_path):
    path = tmp_path / "c.safetensors"

    steps = iter(range(1, 16))

    def stop(module, x, y):
        if next(steps) == 15:
            raise KeyboardInterrupt
        return cross_entropy(module, x, y)

    with pytest.raises(KeyboardInterrupt):
        fit(conv_net(), split_of(), stop, checkpoint=path, **SETTINGS)
    undisturbed, resumed = conv_net(), conv_net()
    fit(undisturbed, split_of(), cross_entropy, **SETTINGS)
    assert fit(resumed, split_of(), cross_entropy, checkpoint=path, **SETTINGS).resumed_from == 2
    assert same(undisturbed, resumed)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_seed_decides_and_nothing_else_does():
    nets = [conv_net() for _ in range(3)]
    for i, (net, seed) in enumerate(zip(nets, (0, 0, 1), strict=True)):
        torch.manual_seed(i)
        state = torch.get_rng_state()
        fit(net, split_of(), cross_entropy, augment="flip", seed=seed, **SETTINGS)
        assert torch.equal(state, torch.get_rng_state()), "the caller's random state moved"
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


def test_it_learns_and_ends_in_eval_mode():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    training = fit(net, split_of(512), cross_entropy, epochs=40, batch_size=32, lr=0.2)
    assert training.history[-1].loss < 0.5 * training.history[0].loss
    assert not net.training
    assert all(p.grad is None for p in net.parameters())


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def test_ema_closed_form():
    """Gradient −1 and no momentum: w_t = lr·t, so e_T = d^(T−1)·w_1 + (1−d)·Σ_{t≥2} d^(T−t)·w_t."""
    d, lr, steps = 0.8, 0.01, 12
    net, seen = Scalar(), []

    def loss(module, x, y):
        return -module.w.sum()

    def evaluate(module):
        seen.append(float(module.w))
        return {}

    fit(
        net,
        split_of(96),
        loss,
        epochs=2,
        batch_size=16,
        lr=lr,
        schedule="constant",
        momentum=0.0,
        weight_decay=0.0,
        ema=d,
        evaluate=evaluate,
    )
    expected = d ** (steps - 1) * lr + (1 - d) * sum(d ** (steps - t) * lr * t for t in range(2, steps + 1))
    assert net.w.item() == pytest.approx(expected, rel=1e-5)
    assert seen[-1] == pytest.approx(expected, rel=1e-5), "evaluate sees the averaged weights"


def test_weight_decay_spares_biases_and_norms():
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    nn.init.ones_(net[0].weight)
    nn.init.ones_(net[0].bias)
    fit(
        net,
        split_of(16),
        lambda m, x, y: sum(p.sum() * 0 for p in m.parameters()),
        epochs=1,
        batch_size=16,
        lr=0.1,
        schedule="constant",
        weight_decay=0.5,
    )
    assert net[0].weight.item() < 1
    assert net[0].bias.item() == net[1].weight.item() == 1


@given(total=st.integers(1, 500), data=st.data())
def test_rates_stay_in_range(total, data):
    step = data.draw(st.integers(0, total - 1))
    for schedule in get_args(Schedule):
        assert 0 < Phase(1, 0.3, schedule=schedule).rate(step, total) <= 0.3 * (1 + 1e-12)


def test_steps_fall_tenfold_at_half_and_at_three_quarters():
    rates = [Phase(1, 0.3, schedule="step").rate(step, 200) for step in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.3, 0.3, 0.03, 0.03, 0.003, 0.003])


def test_pictures_grow_as_the_schedule_says():
    seen = []
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    net.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[-1]))
    fit(net, split_of(), cross_entropy, **{**SETTINGS, "epochs": 4, "sizes": ((0.0, 4), (0.5, 6))})
    steps = len(seen) // 4
    assert seen == [4] * (2 * steps) + [6] * (2 * steps)


def test_bfloat16_is_for_the_arithmetic_and_not_for_the_weights():
    dtypes = set()
    net = conv_net()
    net[0].register_forward_hook(lambda _m, _i, output: dtypes.add(output.dtype))
    fit(net, split_of(), cross_entropy, **{**SETTINGS, "precision": "bfloat16"})
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_onecycle_rises_to_the_peak_and_falls_to_nothing():
    rates = [Phase(1, 0.3, schedule="onecycle").rate(step, 100) for step in range(100)]
    assert rates[24] == pytest.approx(0.3)
    assert rates[:25] == sorted(rates[:25])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert rates[-1] < 0.001


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 6), c=st.sampled_from([1, 3]))
def test_a_crop_is_a_shift_with_a_black_border(seed, n, c):
    x = torch.randint(1, 256, (n, c, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    out = random_crop(x, torch.Generator().manual_seed(seed))
    assert out.shape == x.shape
    assert out.dtype == torch.uint8
    padded = F.pad(x, (PAD,) * 4)
    for one, big in zip(out, padded, strict=True):
        windows = [big[:, i : i + 6, j : j + 7] for i in range(2 * PAD + 1) for j in range(2 * PAD + 1)]
        assert sum(torch.equal(one, w) for w in windows) == 1


def test_a_flip_mirrors_about_half_of_the_pictures():
    x = split_of(400).x
    out = random_flip(x, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(out, x, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(out, x, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize("augment", [random_crop, random_flip, crop_and_flip])
def test_augmentation_is_seeded_and_leaves_its_input_alone(augment):
    x = split_of(32).x
    before, state = x.clone(), torch.get_rng_state()
    one, two, other = (augment(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("augment", list(AUGMENTATIONS))
def test_the_loss_sees_pictures_in_the_unit_interval(augment, channels_last):
    seen = []

    def loss(module, x, y):
        seen.append((x.dtype, tuple(x.shape), bool(((x >= 0) & (x <= 1)).all()), y.dtype))
        return cross_entropy(module, x, y)

    fit(conv_net(), split_of(40), loss, epochs=1, batch_size=16, lr=0.01, augment=augment, channels_last=channels_last)
    assert seen == [(torch.float32, (16, 1, 8, 8), True, torch.int64)] * 2  # the partial batch of 8 is dropped


def test_every_sample_is_seen_once_an_epoch_in_another_order():
    orders = []

    def loss(module, x, y):
        orders.append((x[:, 0, 0, 1] * 255).round().long().tolist())
        return cross_entropy(module, x, y)

    x = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    x[:, 0, 0, 1] = torch.arange(64)
    split = Split("toy", "train", x, torch.arange(64) % 2, torch.arange(64), ("a", "b"))
    fit(conv_net(), split, loss, epochs=2, batch_size=16, lr=0.01)
    first, second = ([i for batch in part for i in batch] for part in (orders[:4], orders[4:]))
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second


def test_a_loss_that_explodes_stops_and_keeps_the_checkpoint(tmp_path):
    calls = []

    def loss(module, x, y):
        calls.append(1)
        return cross_entropy(module, x, y) * (math.nan if len(calls) > 8 else 1.0)

    path = tmp_path / "c.safetensors"
    with pytest.raises(NonFiniteError, match=r"step 3 of 6 in epoch 2") as caught:
        fit(conv_net(), split_of(), loss, checkpoint=path, **SETTINGS)
    assert "learning rate (now 0.05)" in str(caught.value)
    assert fit(conv_net(), split_of(), cross_entropy, checkpoint=path, **SETTINGS).resumed_from == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.1}, "lr 0.05 → 0.1"),
        ({"epochs": 6}, "epochs 5 → 6"),
        ({"seed": 1}, "seed 0 → 1"),
        ({"ema": 0.9}, "ema None → 0.9"),
        ({"about": {"loss": "another"}}, "loss None → another"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, change, told):
    path = tmp_path / "c.safetensors"
    fit(conv_net(), split_of(), cross_entropy, checkpoint=path, **SETTINGS)
    with pytest.raises(CheckpointError, match=told):
        fit(conv_net(), split_of(), cross_entropy, checkpoint=path, **{**SETTINGS, **change})


def test_a_checkpoint_of_other_data_or_another_module_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    fit(conv_net(), split_of(), cross_entropy, checkpoint=path, **SETTINGS)
    with pytest.raises(CheckpointError, match="data "):
        fit(conv_net(), split_of(seed=1), cross_entropy, checkpoint=path, **SETTINGS)
    with pytest.raises(CheckpointError, match="another module"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), split_of(), cross_entropy, checkpoint=path, **SETTINGS)


@pytest.mark.parametrize("damage", ["cut", "pickle", "empty", "foreign"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    from safetensors.torch import save_file

    path = tmp_path / "c.safetensors"
    fit(conv_net(), split_of(), cross_entropy, checkpoint=path, **SETTINGS)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "pickle":
        torch.save(conv_net().state_dict(), path)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="Delete the file"):
        fit(conv_net(), split_of(), cross_entropy, checkpoint=path, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": 97}, "batch of 97"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"augment": "crops"}, "Did you mean 'crop'"),
        ({"schedule": "steps"}, "onecycle, cosine, step, constant"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"sizes": ((0.5, 8), (0.0, 4))}, "ascending order"),
        ({"optimiser": "adam"}, "sgd, adamw"),
    ],
)
def test_settings_that_cannot_train(change, told):
    with pytest.raises(UsageError, match=told):
        fit(conv_net(), split_of(), cross_entropy, **{**SETTINGS, **change})


def test_the_test_split_is_refused():
    with pytest.raises(LeakageError):
        fit(conv_net(), split_of(role="test"), cross_entropy, **SETTINGS)


def test_a_frozen_module_is_refused():
    with pytest.raises(UsageError, match="no parameter"):
        fit(conv_net().requires_grad_(False), split_of(), cross_entropy, **SETTINGS)


def test_frozen_parts_stay_as_they_are():
    net = conv_net()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    fit(net, split_of(), cross_entropy, ema=0.9, **SETTINGS)
    assert torch.equal(net[0].weight, before)


def test_tied_weights_can_be_checkpointed(tmp_path):
    def tied():
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64))
        net[2].weight = net[1].weight
        nn.init.eye_(net[1].weight)
        nn.init.zeros_(net[1].bias)
        nn.init.zeros_(net[2].bias)
        return net

    one, two = tied(), tied()
    fit(one, split_of(), cross_entropy, **SETTINGS)
    with pytest.raises(Killed):
        fit(tied(), split_of(), cross_entropy, checkpoint=tmp_path / "c", on_epoch=kill_after(2), **SETTINGS)
    fit(two, split_of(), cross_entropy, checkpoint=tmp_path / "c", **SETTINGS)
    assert same(one, two)
    assert two[2].weight is two[1].weight


def test_epochs_are_told_in_order():
    epochs = []
    fit(conv_net(), split_of(), cross_entropy, on_epoch=epochs.append, **SETTINGS)
    assert [e.epoch for e in epochs] == [1, 2, 3, 4, 5]


def test_augmentation_differs_from_epoch_to_epoch_and_from_seed_to_seed():
    x = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    x[:, 0, 3, 3] = 255
    split = Split("toy", "train", x, torch.arange(16) % 2, torch.arange(16), ("a", "b"))
    seen = []

    def loss(module, x, y):
        seen.append(x.clone())
        return cross_entropy(module, x, y)

    for seed in (0, 0, 1):
        fit(conv_net(), split, loss, epochs=2, batch_size=16, lr=0.01, augment="crop", seed=seed)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[4])
