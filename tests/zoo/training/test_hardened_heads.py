"""Heads trained against slow-down: only heads move, crafted pictures stay in their ball, the rule is pushed further."""

import pytest
import torch

import adaptbench as ab
from adaptbench.data import load_data
from adaptbench.errors import UsageError
from adaptbench.policies import Committees, SoftmaxThreshold
from adaptbench.zoo.training.hardened_heads import margins_of, slowed, train_against_slowdown
from adaptbench.zoo.training.phase import Phase

PHASE = Phase(1, 0.01, 64, ema=0.9)


@pytest.fixture(scope="module")
def digits():
    data = load_data("digits")
    return data.split("train").first(256), data.split("calibration")


@pytest.fixture
def net(digits):
    net = ab.load_model("multi-exit", "digits")
    return net.under(SoftmaxThreshold.fit(net.log(digits[1]), epsilon=0.002))


def train(net, digits, **changes):
    how = {"policy": net.policy, "eps": 16 / 255, "steps": 2, "weight": 0.5, **changes}
    return train_against_slowdown(net, digits[0], PHASE, **how)


def test_margins_are_those_of_the_relaxation(net) -> None:
    x = load_data("digits").split("test").images(0, 20)
    assert torch.allclose(margins_of(net, x), net.relax(x).margins, atol=1e-6)


def test_slowed_pictures_stay_in_their_ball_and_cost_more(net) -> None:
    x = load_data("digits").split("test").images(0, 100)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = slowed(net, x, eps=16 / 255, steps=4)
    assert (made - x).abs().max() <= 16 / 255 + 1e-6
    assert 0 <= made.min() <= made.max() <= 1
    spent = [float(net.infer(pictures).macs.double().mean()) for pictures in (x, made)]
    assert spent[1] > 1.5 * spent[0], spent


def test_only_the_heads_move_and_the_same_seed_moves_them_alike(net, digits) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    flags = [m.training for m in net.modules()]
    policy = net.policy
    train(net, digits)
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith(("heads.0.", "heads.1.", "heads.2.")) for name in moved), moved
    assert net.policy is policy
    assert [m.training for m in net.stages.modules()] == [False] * len(list(net.stages.modules()))
    assert not any(p.requires_grad for p in net.parameters()), "as it came"
    after = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.load_state_dict(before)
    torch.rand(7)
    train(net, digits)
    assert all(torch.equal(tensor, after[name]) for name, tensor in net.state_dict().items())
    assert len(flags) == len(list(net.modules()))


def test_the_crafted_pictures_are_in_the_loss(net, digits) -> None:
    """Planted: a weight of 0 leaves them out, and the heads end elsewhere."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train(net, digits)
    hardened = net.heads[0].state_dict()
    hardened = {name: tensor.clone() for name, tensor in hardened.items()}
    net.load_state_dict(before)
    train(net, digits, weight=0.0)
    assert any(not torch.equal(tensor, hardened[name]) for name, tensor in net.heads[0].state_dict().items())


@pytest.mark.parametrize("odd", [{"eps": 0.0}, {"steps": 0}, {"weight": 1.5}])
def test_odd_settings_are_refused(net, digits, odd) -> None:
    with pytest.raises(UsageError, match="cannot train heads"):
        train(net, digits, **odd)


def test_a_policy_that_looks_back_is_refused(net, digits) -> None:
    with pytest.raises(UsageError, match="looks at earlier exits"):
        train(net, digits, policy=Committees.fit(net.log(digits[1])))


@pytest.mark.parametrize("data", ["digits", "fashion-mnist"])
def test_what_ships_is_the_shipped_net_with_other_heads(data) -> None:
    plain, hardened = ab.load_model("softmax-threshold", data), ab.load_model("adversarial-heads", data)
    assert plain.macs_full == hardened.macs_full
    theirs = hardened.state_dict()
    for name, tensor in plain.state_dict().items():
        if not name.startswith("policy.") and not name.startswith(("heads.0.", "heads.1.", "heads.2.")):
            assert torch.equal(tensor, theirs[name]), name
    assert any(
        not torch.equal(a, b) for a, b in zip(plain.heads[0].parameters(), hardened.heads[0].parameters(), strict=True)
    )


@pytest.mark.slow
def test_the_deployed_rule_goes_on_less_under_attack() -> None:
    """On digits' test pictures, each rule fitted to its own heads: what an attack takes back, not more than before."""
    test = load_data("digits").split("test").first(150)
    attack = ab.attacks.load_attack("ilfo", {"eps": "16/255", "steps": 60})
    taken = {}
    for name in ("softmax-threshold", "adversarial-heads"):
        net = ab.load_model(name, "digits")
        clean = net.infer(test.images()).macs.double().mean()
        adv = net.infer(attack.craft(net, test.images(), test.y, ids=test.ids, seed=0).images()).macs.double().mean()
        taken[name] = float((adv - clean) / (net.max_macs - clean))
    assert taken["adversarial-heads"] < taken["softmax-threshold"], taken
