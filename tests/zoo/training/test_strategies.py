"""Weights of the exits' losses by closed form, and trainings that resume with them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptbench.adaptive import MultiExit
from adaptbench.adaptive.splits import Split
from adaptbench.errors import UsageError
from adaptbench.models.exit_heads import boosted
from adaptbench.zoo.training.objective import fit_objective
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.strategies import STRATEGIES, AdaLoss, ShallowDeep, divergence, exit_losses, strategy

K, C = 3, 4


@pytest.fixture(autouse=True)
def one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def split_of(n=48, role="train"):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 1, 4, 4), generator=g, dtype=torch.uint8)
    return Split("toy", role, x, x[:, 0, 0, 0].long() // 64, torch.arange(n), tuple("abcd"))


def net(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        stages = [nn.Sequential(nn.Flatten(), nn.Linear(16, 6)), nn.Linear(6, 6), nn.Linear(6, 6)]
        heads = [nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, C)) for _ in range(K)]
        return MultiExit(stages, heads, input_shape=(1, 4, 4))


def built(name, seed=0):
    model = boosted(net(seed)) if name == "boosted" else net(seed)
    return strategy(name, model, **({"values": [0.2, 0.3, 1.0]} if name == "weighted" else {}))


def planned(objective, epochs=4, steps=2):
    objective.epochs, objective.steps = epochs, steps
    return objective


X, Y = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % C


def losses_of(objective):
    """Each exit's cross-entropy by torch's own."""
    logits = objective.model.dense_logits(X)
    return logits, torch.stack([F.cross_entropy(logits[:, k], Y) for k in range(K)])


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("uniform", [1, 1, 1]),
        ("linear", [1 / 12, 2 / 12, 3 / 12]),
        ("weighted", [0.2, 0.3, 1.0]),
        ("boosted", [1, 1, 1]),
    ],
)
def test_constant_weights(name, weights):
    objective = built(name).eval()
    _, losses = losses_of(objective)
    assert objective(X, Y).item() == pytest.approx((losses * torch.tensor(weights)).sum().item(), rel=1e-5)


def test_each_exit_by_itself():
    logits = torch.randn(5, K, C)
    y = torch.tensor([0, 1, 2, 3, 0])
    expected = [F.cross_entropy(logits[:, k], y).item() for k in range(K)]
    assert exit_losses(logits, y).tolist() == pytest.approx(expected, rel=1e-5)


def test_internal_exits_ramp_up():
    """Released SDN: min(τmax, 0.01 + epoch · τmax / epochs), epoch from 1."""
    objective = planned(ShallowDeep(net(), most=[0.15, 0.9]), epochs=5, steps=3)
    for step in range(15):
        epoch = step // 3 + 1
        expected = [min(most, 0.01 + epoch * (most / 5)) for most in (0.15, 0.9)]
        objective.step.fill_(step)
        assert objective.weights(torch.ones(K)).tolist() == pytest.approx([*expected, 1.0], rel=1e-5)


def test_internal_exits_weigh_their_share_of_the_macs_at_most():
    model = net()
    most = ShallowDeep(model).get_buffer("most")
    first, second, _ = model.node_macs
    assert most.tolist() == pytest.approx([first / model.macs_full, min(1.0, (first + second) / model.macs_full)])


def test_adaloss_weighs_by_the_inverse_running_mean():
    objective = AdaLoss(net(), decay=0.5)
    means = None
    for losses in ([1.0, 2.0, 4.0], [3.0, 2.0, 2.0]):
        given = torch.tensor(losses)
        means = given if means is None else 0.5 * means + 0.5 * given
        weights = objective.weights(given)
        objective.step += 1
        assert (weights * means).tolist() == pytest.approx([float((weights * means)[0])] * K), "w ∝ 1 / mean"
        assert weights.sum().item() == pytest.approx(K)


def test_looking_does_not_move_the_running_mean():
    objective = AdaLoss(net()).eval()
    objective(X, Y)
    assert not objective.get_buffer("mean").any()
    assert int(objective.step) == 0


def test_dynexit_settles_where_weights_are_half_the_inverse_loss():
    objective = strategy("dynexit", net())
    losses = torch.tensor([2.0, 0.5, 1.0])
    optimiser = torch.optim.SGD([objective.free], lr=0.5)
    for _ in range(300):
        optimiser.zero_grad()
        ((objective.weights(losses) * losses).sum() + objective.beside(None, losses)).backward()
        optimiser.step()
    assert objective.weights(losses).tolist() == pytest.approx((0.5 / losses).tolist(), rel=1e-3)


def test_dynexit_never_gives_an_exit_up():
    objective = strategy("dynexit", net())
    with torch.no_grad():
        objective.free.copy_(torch.tensor([1e3, 0.0, -1e3]))
    assert objective.weights(torch.ones(K)).tolist() == pytest.approx([math.exp(-3), 1.0, math.exp(3)])


def test_distillation_begins_at_three_quarters():
    objective = planned(strategy("distilled", net()).eval(), epochs=4, steps=2)
    logits, losses = losses_of(objective)
    linear = (losses * torch.tensor([1.0, 2.0, 3.0]) / 12).sum()
    kl = sum(
        F.kl_div(F.log_softmax(logits[:, k] / 3, 1), F.softmax(logits[:, -1].detach() / 3, 1), reduction="batchmean")
        for k in range(K - 1)
    )
    for step, expected in ((0, linear), (5, linear), (6, linear + 0.01 * 9 * kl), (7, linear + 0.01 * 9 * kl)):
        objective.step.fill_(step)
        assert objective(X, Y).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_teacher_is_not_taught():
    student, teacher = torch.randn(4, K - 1, C, requires_grad=True), torch.randn(4, 1, C, requires_grad=True)
    value = divergence(student, teacher.detach(), 3.0)
    assert value.shape == (K - 1,)
    assert (value >= 0).all()
    value.sum().backward()
    assert teacher.grad is None
    assert divergence(teacher.detach(), teacher.detach(), 3.0).abs().max() < 1e-6


PHASE = Phase(epochs=4, lr=0.05, batch_size=16, ema=0.9)


class Killed(BaseException):
    pass


def kill(record):
    if record.epoch == 2:
        raise Killed


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(name, tmp_path):
    split = split_of()
    whole, killed, resumed = built(name), built(name), built(name, seed=7)
    undisturbed = fit_objective(whole, split, PHASE)
    path = tmp_path / "s.safetensors"
    with pytest.raises(Killed):
        fit_objective(killed, split, PHASE, checkpoint=path, on_epoch=kill)
    rest = fit_objective(resumed, split, PHASE, checkpoint=path)
    assert rest.resumed_from == 2
    assert rest.history == undisturbed.history
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_trains_and_leaves_the_model_clean(name):
    objective = built(name)
    names = set(objective.model.state_dict())
    training = fit_objective(objective, split_of(), Phase(epochs=12, lr=0.1, batch_size=16))
    assert training.history[-1].loss < training.history[0].loss
    assert set(objective.model.state_dict()) == names
    assert not objective.model.training


def test_figures_are_asked_of_the_model():
    seen = []
    objective = built("uniform")
    fit_objective(
        objective, split_of(), Phase(epochs=1, batch_size=16), evaluate=lambda m: seen.append(m) or {"one": 1.0}
    )
    assert seen == [objective.model]


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="no training strategy is called 'unifrom'") as error:
        strategy("unifrom", net())
    assert "uniform" in str(error.value)
    with pytest.raises(UsageError, match="2 weights were given to 3 exits"):
        strategy("weighted", net(), values=[1, 2])
    with pytest.raises(UsageError, match="each for itself"):
        strategy("boosted", net())
    with pytest.raises(UsageError, match="does not know how many"):
        strategy("sdn", net())(X, Y)
    with pytest.raises(UsageError, match="1 greatest weights were given to 2"):
        strategy("sdn", net(), most=[0.5])
