"""Losses of gates: REINFORCE against exact expectations, frozen parts, draws that resume."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptbench.adaptive import Block, GatedNetwork, Gates, ImageDomain
from adaptbench.adaptive.splits import Split
from adaptbench.errors import UsageError
from adaptbench.models.blockdrop import PlannedGates, blockdrop
from adaptbench.models.gated_resnet import skipnet
from adaptbench.models.resnet import resnet
from adaptbench.zoo.training.gates import (
    BlockDrop,
    decisive,
    drawn_path,
    masked_forward,
    plan_reward,
    set_rate,
    skipnet_hybrid,
    skipnet_supervised,
)
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.objective import fit_objective
from adaptbench.zoo.training.phase import Phase


@pytest.fixture(autouse=True)
def one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def split_of(n=32, channels=3):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, channels, 8, 8), generator=g, dtype=torch.uint8)
    return Split("toy", "train", x, x[:, 0, 0, 0].long() // 64, torch.arange(n), tuple("abcd"))


class Constant(Gates):
    """A margin a block, whatever the picture."""

    def __init__(self, margins):
        super().__init__()
        self.margins = nn.Parameter(torch.tensor(margins))

    def margin(self, block, features, state):
        return self.margins[block].expand(len(features)), state


def flat(gates, blocks=3):
    torch.manual_seed(5)
    return GatedNetwork(
        stem=nn.Sequential(nn.Flatten(), nn.Linear(192, 6)),
        blocks=[Block(f"b{i}", nn.Sequential(nn.Tanh(), nn.Linear(6, 6))) for i in range(blocks)],
        head=nn.Linear(6, 4),
        gates=gates,
        domain=ImageDomain((3, 8, 8)),
        n_classes=4,
    )


X, Y = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4


@pytest.mark.parametrize(
    "build",
    [
        lambda: skipnet(resnet(20, 4), "rnn"),
        lambda: skipnet(resnet(20, 4), "ffgate2"),
        lambda: blockdrop(resnet(20, 4), side=8),
    ],
)
def test_decisive_margins_draw_what_the_hard_pass_does_and_leave_it_alone(build):
    model = build().eval()
    x = torch.rand(64, 3, 8, 8)
    with torch.no_grad():
        (logits, before), coins = model.gated_forward(x), drawn_path(model, x)[1]
        factor = decisive(model, x)
        after_logits, after = model.gated_forward(x)
        drawn = drawn_path(model, x)[1]
    torch.testing.assert_close(after_logits, logits)
    torch.testing.assert_close(after, before * factor, rtol=1e-3, atol=1e-4)
    assert float(after.abs().median()) == pytest.approx(6.0, rel=1e-3)
    differs = [(d != (before > 0).float()).float().mean() for d in (coins, drawn)]
    assert differs[1] < 0.15 < 0.3 < differs[0]


@pytest.mark.parametrize("rate", [0.3, 0.8])
@pytest.mark.parametrize(
    "build",
    [
        lambda: skipnet(resnet(20, 4), "rnn"),
        lambda: skipnet(resnet(20, 4), "ffgate2"),
        lambda: blockdrop(resnet(20, 4), side=8),
    ],
)
def test_one_shift_of_all_margins_gives_the_rate_asked_for(build, rate):
    model = build().eval()
    x = torch.rand(64, 3, 8, 8)
    with torch.no_grad():
        opened = set_rate(model, x, rate)
        margins = model.gated_forward(x)[1]
    assert opened == pytest.approx(float((margins > 0).float().mean()), abs=1e-6)
    assert opened == pytest.approx(rate, abs=0.06)


def test_gates_that_cannot_be_shifted_are_refused():
    with pytest.raises(UsageError, match="cannot be shifted"):
        set_rate(flat(Constant([0.1, -0.2, 0.3])).eval(), X, 0.5)


def test_gates_that_cannot_be_scaled_are_refused():
    with pytest.raises(UsageError, match="cannot be scaled"):
        decisive(flat(Constant([0.1, -0.2, 0.3])).eval(), X)


def test_masks_are_what_the_hard_pass_skips():
    model = flat(Constant([1.0, 1.0, 1.0])).eval()
    for plan in itertools.product([0, 1], repeat=3):
        path = torch.tensor([1, *plan, 1], dtype=torch.bool)
        masked = masked_forward(model, X, lambda b, h, plan=plan: torch.full((len(h),), float(plan[b])))
        assert torch.allclose(masked, model.infer(X, force=path).logits, atol=1e-6)


def test_without_gradients_bodies_run_for_those_that_open_them_only():
    model = flat(Constant([1.0, 1.0, 1.0])).eval()
    plan = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1]]).float()
    seen = []
    model.bodies[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    model.bodies[1].register_forward_hook(lambda _m, inputs, _o: seen.append(-1))

    whole = masked_forward(model, X, lambda b, h: plan[b])
    assert seen == [6, -1]
    seen.clear()
    with torch.no_grad():
        short = masked_forward(model, X, lambda b, h: plan[b])
    assert seen == [3]
    assert torch.allclose(whole, short, atol=1e-6)


def test_paths_are_drawn_with_the_gates_probabilities():
    margins = [-1.0, 0.0, 2.0]
    model = flat(Constant(margins))
    many = X[:1].expand(4000, -1, -1, -1)
    _, actions, likelihood = drawn_path(model, many)
    chance = torch.tensor(margins).sigmoid()
    assert actions.mean(0).tolist() == pytest.approx(chance.tolist(), abs=0.03)
    expected = torch.where(actions > 0, chance, 1 - chance).log()
    assert torch.allclose(likelihood, expected, atol=1e-5)


def exact_gradient(model, alpha, scale):
    """∂/∂margins of −scale · E[Σ r_i − CE], every path summed."""
    chance = model.gates.margins.sigmoid()
    value = 0
    for plan in itertools.product([0.0, 1.0], repeat=3):
        a = torch.tensor(plan)
        weight = torch.where(a > 0, chance, 1 - chance).prod()
        with torch.no_grad():
            ce = F.cross_entropy(masked_forward(model, X, lambda b, h, a=a: a[b].expand(len(h))), Y)
            worth = alpha * (1 - a).mean() - ce
        value = value - scale * weight * worth
    return torch.autograd.grad(value, model.gates.margins)[0]


def test_reinforce_is_the_gradient_of_the_expected_return():
    """Each gate's return leaves out what came before it: lower variance, the same mean."""
    model = flat(Constant([-0.5, 0.3, 1.0]))
    expected = exact_gradient(model, alpha=3.0, scale=0.5)
    x, y = X.repeat(4000, 1, 1, 1), Y.repeat(4000)
    loss = skipnet_hybrid(alpha=3.0, scale=0.5)(model, x, y)
    (found,) = torch.autograd.grad(loss, model.gates.margins)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.01)
    assert expected.abs().max() > 0.05


def test_the_hybrid_trains_the_backbone_along_the_drawn_path():
    model = flat(Constant([-99.0, 99.0, 99.0]))
    skipnet_hybrid()(model, X, Y).backward()
    assert not model.bodies[0][1].weight.grad.any()
    assert model.bodies[1][1].weight.grad.any()


def test_supervised_is_cross_entropy_and_a_price():
    model = flat(Constant([-1.0, 0.5, 2.0]))
    logits, margins = model.gated_forward(X)
    plain, opening = F.cross_entropy(logits, Y).item(), (margins > 0).float().mean().item()
    assert skipnet_supervised()(model, X, Y).item() == pytest.approx(plain)
    assert skipnet_supervised(price=0.3)(model, X, Y).item() == pytest.approx(plain + 0.3 * opening)
    priced = skipnet_supervised(price=2.0, rate=0.25)(model, X, Y).item()
    assert priced == pytest.approx(plain + 2 * (opening - 0.25) ** 2)


def test_a_rate_is_what_the_hard_pass_opens():
    """Margins just above 0 have probabilities near one half and open everything: the rate term must feel that."""
    model = flat(Constant([0.01, 0.02, 0.03]))
    skipnet_supervised(price=100.0, rate=0.5)(model, X, Y).backward()
    pushed = model.gates.margins.grad
    assert (pushed > 0).all(), "descent closes gates, although the mean probability is one half already"
    fit(model, split_of(), Phase(epochs=6, lr=0.05, batch_size=16), skipnet_supervised(price=5.0, rate=1 / 3))
    with torch.no_grad():
        opened = (model.gated_forward(X)[1] > 0).float().mean().item()
    assert opened < 1


@pytest.mark.parametrize("gates", ["ffgate1", "ffgate2", "rnn"])
@pytest.mark.parametrize("loss", [skipnet_supervised(0.1), skipnet_hybrid()])
def test_every_gate_hears_of_the_loss(gates, loss):
    model = skipnet(resnet(14, 4), gates, side=8).train()
    loss(model, torch.rand(16, 3, 8, 8), torch.arange(16) % 4).backward()
    silent = [name for name, p in model.gates.named_parameters() if p.grad is None or not p.grad.any()]
    # At its first step the LSTM's state is zero; with batch norm behind it a convolution's gate hears through it.
    assert not silent


def test_a_price_closes_gates():
    model = flat(Constant([1.0, 1.0, 1.0]))
    before = model.gates.margins.detach().clone()
    fit(model, split_of(), Phase(epochs=4, lr=0.1, batch_size=16), skipnet_supervised(price=5.0))
    assert (model.gates.margins < before).all()


def test_rewards_of_plans():
    logits = torch.eye(4)[torch.tensor([0, 1, 2, 3])]
    y = torch.tensor([0, 1, 2, 0])
    actions = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert plan_reward(logits, y, actions, gamma=5).tolist() == pytest.approx([0, 1 - 1 / 16, 1, -5])


def planned(blocks=3):
    return flat(PlannedGates(nn.Sequential(nn.Flatten(), nn.Linear(192, blocks))), blocks).train()


def test_self_critical_reinforce_by_the_exact_sum():
    model = planned()
    objective = BlockDrop(model, gamma=2.0, alpha=0.8)
    weight = model.gates.planner[1].bias
    with torch.no_grad():  # right where everything runs, mostly
        y = masked_forward(model, X, lambda b, h: torch.ones(len(h))).argmax(1)
    margins = model.gates.start(X)
    chance = 0.8 * margins.sigmoid() + 0.2 * (1 - margins.sigmoid())
    value = 0
    for plan in itertools.product([0.0, 1.0], repeat=3):
        a = torch.tensor(plan).expand(len(X), 3)
        with torch.no_grad():
            reward = plan_reward(masked_forward(model, X, lambda b, h, a=a: a[:, b]), y, a, 2.0)
        value = value - (torch.where(a > 0, chance, 1 - chance).prod(1) * reward).mean()
    expected = torch.autograd.grad(value, weight)[0]
    estimated = torch.autograd.grad(objective(X.repeat(8000, 1, 1, 1), y.repeat(8000)), weight)[0]
    assert estimated.tolist() == pytest.approx(expected.tolist(), abs=0.01)
    assert expected.abs().max() > 0.03, "larger than what the draws leave open"


def test_the_curriculum_decides_on_one_more_block_each_epoch():
    objective = BlockDrop(planned(), curriculum=True)
    objective.epochs, objective.steps = 5, 2
    for step in range(10):
        objective.step.fill_(step)
        count = min(3, step // 2 + 1)
        decided = objective._decided(torch.zeros(1, 3))
        assert decided.tolist() == [*[False] * (3 - count), *[True] * count]


def test_blocks_outside_the_curriculum_run_and_are_not_blamed():
    model = planned()
    objective = BlockDrop(model, gamma=3.0, curriculum=True)
    objective.epochs, objective.steps = 5, 100
    objective(X.repeat(40, 1, 1, 1), Y.repeat(40)).backward()
    gradient = model.gates.planner[1].bias.grad
    assert not gradient[:2].any()
    assert gradient[2] != 0


def frozen_and_planned():
    torch.manual_seed(3)
    return blockdrop(resnet(8, 4), side=8)


def test_alone_the_plan_leaves_the_net_as_it_was_and_jointly_it_does_not():
    for joint in (False, True):
        model = frozen_and_planned()
        before = {name: t.clone() for name, t in model.state_dict().items()}
        fit_objective(BlockDrop(model, joint=joint, gamma=2.0), split_of(), Phase(epochs=2, lr=0.05, batch_size=16))
        moved = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
        assert any(name.startswith("gates.") for name in moved)
        assert any(not name.startswith("gates.") for name in moved) == joint


def test_entropy_keeps_plans_open():
    model = planned()
    plain, spread = BlockDrop(model), BlockDrop(model, entropy=0.5)
    values = []
    for objective in (plain, spread):
        torch.manual_seed(1)
        values.append(objective(X, Y).item())
    chance = model.gates.start(X).detach().sigmoid()
    p = 0.8 * chance + 0.2 * (1 - chance)
    assert values[1] - values[0] == pytest.approx(0.5 * float((p * p.log()).sum(1).mean()), rel=1e-4)


class Killed(BaseException):
    pass


def kill(record):
    if record.epoch == 1:
        raise Killed


def test_draws_and_the_curriculum_resume(tmp_path):
    path, split = tmp_path / "b.safetensors", split_of()
    phase = Phase(epochs=3, lr=0.05, batch_size=16)

    def objective():
        return BlockDrop(frozen_and_planned(), curriculum=True, entropy=0.1)

    whole, killed, resumed = objective(), objective(), objective()
    fit_objective(whole, split, phase)
    with pytest.raises(Killed):
        fit_objective(killed, split, phase, checkpoint=path, on_epoch=kill)
    assert fit_objective(resumed, split, phase, checkpoint=path).resumed_from == 1
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_other_nets_are_refused():
    for loss in (skipnet_supervised(), skipnet_hybrid()):
        with pytest.raises(UsageError, match="gates were to be trained in a Linear"):
            loss(nn.Linear(2, 2), X, Y)
    with pytest.raises(UsageError, match="asked to train recurrent gates"):
        BlockDrop(skipnet(resnet(8, 4), side=8))
    with pytest.raises(UsageError, match="alpha = 1"):
        BlockDrop(planned(), alpha=1.0)
