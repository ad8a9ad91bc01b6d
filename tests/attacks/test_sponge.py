"""Activation density is what it is called, the sponge raises it, nothing is left on the model; ponder cost by hand."""

import pytest
import torch
import torch.nn.functional as F
from attack_toys import random_model
from torch import nn

from adaptbench.adaptive import ImageDomain, Static
from adaptbench.adaptive.halting import HaltingNetwork, HaltingUnit, ponder_cost
from adaptbench.attacks import load_attack
from adaptbench.attacks.activations import Watched, densities, density
from adaptbench.attacks.ponder import PonderCost
from adaptbench.attacks.purity import fingerprint
from adaptbench.models.resnet import BasicBlock


@pytest.fixture
def halting():
    torch.manual_seed(2)
    model = HaltingNetwork(
        stem=nn.Conv2d(1, 6, 3, padding=1),
        stages=[([BasicBlock(6, 6) for _ in range(4)], 6)],
        head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
        domain=ImageDomain((1, 8, 8)),
        n_classes=3,
    ).eval()
    for m in model.modules():
        if isinstance(m, HaltingUnit):
            nn.init.normal_(m.score.weight, std=3.0)
            m.score.bias.data.fill_(-0.3)
    return model


class Half(nn.Module):
    """Two activations by name and one by function: of 4 · 4 values each, those of positive entries are alive."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        h = self.relu(x - 0.5)
        h = F.relu(h) + torch.relu(0.5 - x)
        return self.out(h.flatten(1))


def test_density_is_the_share_of_activations_that_are_not_zero():
    torch.manual_seed(0)
    model = Static(Half(), input_shape=(1, 4, 4))
    x = torch.zeros(2, 1, 4, 4)
    x[:, :, 0] = 1.0  # a quarter above one half
    assert density(model, x) == pytest.approx((0.25 + 0.25 + 0.75) / 3)
    dense = densities(model, x, torch.full((2, 1, 4, 4), 255, dtype=torch.uint8))
    assert dense == {"activation_density_clean": pytest.approx(5 / 12), "activation_density": pytest.approx(2 / 3)}


def test_a_function_inside_another_is_told_once_and_nothing_stays():
    told = []
    with Watched(told.append):
        nn.ReLU()(torch.ones(3))
        F.gelu(torch.ones(3))
        torch.ones(3) + 1
    nn.ReLU()(torch.ones(3))
    assert len(told) == 2


def test_the_hard_pass_is_what_is_looked_at(halting):
    """Activations of units that did not run are not counted, nor those of the pass that counts MACs."""
    model, x = halting, torch.rand(12, *halting.domain.shape)
    found = density(model, x)
    told, every = [], []
    with Watched(lambda out: told.append((int(out.count_nonzero()), out.numel()))):
        inference = model.infer(x)
    with Watched(lambda out: every.append((int(out.count_nonzero()), out.numel()))):
        model.dense_logits(x)
    assert (inference.macs < model.max_macs).any()
    ran, dense = (torch.tensor(seen).sum(0) for seen in (told, every))
    assert ran[1] < dense[1]
    assert found == pytest.approx(float(ran[0] / ran[1]), abs=1e-6)
    assert found != pytest.approx(float(dense[0] / dense[1]), abs=1e-6)


@pytest.mark.parametrize("shape", ["static", "gated"])
def test_the_sponge_raises_the_norm_tells_the_density_and_leaves_the_model_alone(shape, halting):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten())
    model = Static(nn.Sequential(net, nn.Linear(8 * 36, 4)), input_shape=(1, 8, 8))
    if shape == "gated":
        model = halting
    x, y = torch.rand(6, *model.domain.shape), torch.zeros(6, dtype=torch.int64)
    before = fingerprint(model)
    attack = load_attack("sponge", {"eps": 64 / 255, "steps": 40})
    crafted = attack.craft(model, x, y)
    assert fingerprint(model) == before
    norms = [attack.parts.objective.measure(model, z, x, {}, y).loss.sum() for z in (x, crafted.images())]
    assert norms[1] < norms[0]
    told = crafted.details
    assert told["activation_density_clean"] == density(model, (x * 255).round() / 255)
    assert told["activation_density"] == density(model, crafted.images())


def test_uniform_colours_tell_their_density_too(halting):
    x = torch.rand(4, *halting.domain.shape)
    told = load_attack("uniform-colour").craft(halting, x, torch.zeros(4, dtype=torch.int64)).details
    assert {"activation_density_clean", "activation_density"} <= told.keys()


def test_a_net_without_activation_functions_is_refused_in_words():
    linear = Static(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), input_shape=(1, 4, 4))
    assert "no activation function" in load_attack("sponge").applies_to(linear)


def test_the_ponder_objective_is_what_is_missing_to_the_dearest_ponder_cost(halting):
    x = torch.rand(8, 1, 8, 8)
    goal = PonderCost().measure(halting, x, x, {}, torch.zeros(8, dtype=torch.int64))
    inference = halting.infer(x)
    units = inference.path[:, 1:-1].sum(1)
    assert torch.equal(goal.reached, units == 4)
    assert torch.allclose(goal.loss, 5 - ponder_cost(halting, x)[:, 0])
    assert (units < 4).any()


def test_ilfo_on_halting_nets_applies_to_them_only(halting):
    assert load_attack("ilfo-ponder").applies_to(halting) is None
    assert "halting nets" in load_attack("ilfo-ponder").applies_to(random_model("gated"))
    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    crafted = load_attack("ilfo-ponder", {"eps": 64 / 255, "steps": 30}).craft(halting, x, y)
    assert (halting.infer(crafted.images()).macs >= halting.infer(x).macs).all()
