"""SlowFormer and DeSparsify on a transformer whose tokens leave: more tokens run, within what each may change."""

import pytest
import torch

import adaptbench as ab
from adaptbench.attacks import load_attack


@pytest.fixture(scope="module")
def digits():
    data = ab.load_data("digits")
    test = data.split("test")
    return ab.load_model("a-vit", "digits"), test.images(0, 120), test.y[:120], data.split("calibration")


def tokens_of(net, x):
    return net.infer(x).path[:, 1:-1].sum(1).double().mean()


def test_a_universal_patch_keeps_tokens_in(digits):
    net, x, y, calibration = digits
    how = {"area": 0.16, "pictures": 200}
    crafted = load_attack("slowformer", {**how, "steps": 60}).craft(net, x, y, crafting=calibration)
    control = load_attack("patch-random", {"area": 0.16}).craft(net, x, y)
    laid = crafted.images()
    assert torch.equal(laid[:, :, 3:], x[:, :, 3:])
    assert torch.equal(laid[:, :, :, 3:], x[:, :, :, 3:])
    assert (laid[:, :, :3, :3] == laid[:1, :, :3, :3]).all(), "not one patch for all"
    clean, attacked, random = (net.infer(p).macs.double().mean() for p in (x, laid, control.images()))
    assert attacked > clean
    assert attacked > random
    assert tokens_of(net, laid) > tokens_of(net, x)


def test_noise_keeps_tokens_in_and_answers_as_they_are(digits):
    net, x, y, _ = digits
    x, y = x[:48], y[:48]
    crafted = load_attack("desparsify", {"steps": 30}).craft(net, x, y)
    clean, attacked = net.infer(x), net.infer(crafted.images())
    assert (crafted.images() - x).abs().amax() <= 16 / 255 + 1e-6
    assert (attacked.macs >= clean.macs).all()
    assert torch.equal(attacked.predictions, clean.predictions)
    assert attacked.macs.double().mean() > clean.macs.double().mean() + 0.03 * net.macs_full


def test_one_noise_for_all_is_one(digits):
    net, x, y, calibration = digits
    crafted = load_attack("desparsify-universal", {"steps": 40, "pictures": 200}).craft(net, x, y, crafting=calibration)
    change = crafted.images() - x
    inside = (x > 16 / 255 + 1e-3) & (x < 1 - 16 / 255 - 1e-3)
    shared = torch.where(inside, change, torch.nan).nanmean(0)
    assert torch.allclose(torch.where(inside, change - shared, torch.zeros(())), torch.zeros(()), atol=1e-5)
    assert net.infer(crafted.images()).macs.double().mean() >= net.infer(x).macs.double().mean()


def test_the_standard_attack_runs_its_members_for_gates(digits):
    net = digits[0]
    attack = load_attack("standard-2", {"eps": "16/255"})
    assert {stage.on for stage in attack.stages_for(net).values()} == {"gates"}
