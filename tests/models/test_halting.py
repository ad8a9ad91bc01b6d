"""Halting nets: the core's laws, ACT by a loop over units, ponder cost, what a trained net hands on."""

import pytest
import torch
from torch import nn

from adaptbench.adaptive import ImageDomain
from adaptbench.adaptive.halting import HaltingNetwork, HaltingUnit, ponder_cost
from adaptbench.errors import UsageError
from adaptbench.models.blocks import classifier, conv_bn
from adaptbench.models.halting import halting_resnet
from adaptbench.models.resnet import BasicBlock, resnet
from adaptbench.models.small import SMALL_NETS
from adaptbench.testing import ModelConformance


@torch.no_grad()
def lively(model):
    """Scores that let some samples halt early and others late: on noise of many contrasts, log-odds of −0.5 ± 1.5."""
    generator = torch.Generator().manual_seed(5)
    contrast = torch.linspace(0, 1, 64).view(-1, 1, 1, 1)
    x = 0.5 + contrast * (torch.rand(64, *model.domain.shape, generator=generator) - 0.5)
    model.eval()
    for m in model.modules():
        if isinstance(m, HaltingUnit):
            pooled = []
            handle = m.unit.register_forward_hook(lambda _m, _x, out, kept=pooled: kept.append(out.mean((2, 3))))
            model.unmasked(x)
            handle.remove()
            way = torch.randn(m.score.weight.shape, generator=generator)
            z = pooled[-1] @ way.T
            m.score.weight.copy_(way * 1.5 / z.std())
            m.score.bias.fill_(-0.5 - float(z.mean() * 1.5 / z.std()))
    return model


def small(**more):
    torch.manual_seed(2)
    stages = [
        ([BasicBlock(6, 6) for _ in range(4)], 6),
        ([BasicBlock(6, 10, 2), *[BasicBlock(10, 10) for _ in range(3)]], 10),
    ]
    return lively(
        HaltingNetwork(
            stem=conv_bn(3, 6),
            stages=stages,
            head=classifier(10, 4),
            domain=ImageDomain((3, 8, 8)),
            n_classes=4,
            **more,
        )
    )


class TestHalting(ModelConformance):
    n_inputs = 48

    def model(self):
        return small()

    def test_some_units_run_and_some_do_not(self):
        path = self._infer().path[:, 1:-1].float()
        assert 0.3 < path.mean() < 0.95
        assert len(torch.unique(self._infer().path, dim=0)) > 3


class TestOfAResidualNet(ModelConformance):
    n_inputs = 16

    def model(self):
        torch.manual_seed(3)
        return lively(halting_resnet(20, 4, side=8))


def by_hand(model, x):
    """ACT, an image at a time: units until Σh ≥ 1 − ε or no more are left, the last takes what is left of one."""
    state, ran, ponder = model.stem(x), [], []
    units = [m for m in model.modules() if isinstance(m, HaltingUnit)]
    for count in model.units:
        own, units = units[:count], units[count:]
        total, answer, used = 0.0, 0.0, []
        for i, unit in enumerate(own):
            state = unit.unit(state)
            h = torch.sigmoid(unit.score(state.mean((2, 3)))).item()
            last = total + h >= 1 - model.epsilon or i == count - 1
            weight = 1 - total if last else h
            answer = answer + weight * state
            used.append(weight)
            total += h
            if last:
                break
        state = answer
        ran += [True] * len(used) + [False] * (count - len(used))
        ponder.append(len(used) + used[-1])
    return model.head[-1](state), ran, ponder


def test_answers_ways_and_ponder_costs_are_those_of_act_by_hand():
    model, x = small(), torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    inference, ponder = model.infer(x), ponder_cost(model, x)
    with torch.no_grad():
        for i in range(len(x)):
            logits, ran, cost = by_hand(model, x[i : i + 1])
            assert torch.allclose(inference.logits[i], logits[0], atol=1e-5)
            assert inference.path[i, 1:-1].tolist() == ran
            if all(ran[j] for j in (3, 7)):  # ρ of a stage that ran out of units: the sum's own remainder
                continue
            assert ponder[i].tolist() == pytest.approx(cost, abs=1e-4)


def test_running_the_units_behind_the_one_that_halted_changes_no_answer():
    model, x = small(), torch.rand(24, 3, 8, 8)
    inference = model.infer(x)
    assert (inference.macs < model.max_macs).any()
    assert torch.allclose(inference.logits, model.infer(x, force=torch.ones(len(model.node_names), dtype=bool)).logits)
    assert torch.allclose(inference.logits, model.run_reference(x))


def test_halting_costs_nothing_but_the_scores():
    """Of a unit: its convolutions, and one product a channel; reading Σh off is free."""
    model = halting_resnet(20, 10)
    assert model.gate_macs == 0
    assert model.node_macs[1:4] == (2 * 9 * 16 * 16 * 32 * 32 + 16,) * 3
    assert model.gated == (False, True, True) * 3
    assert not model.uncounted


def test_ponder_cost_is_the_units_run_and_what_was_left():
    model = small()
    sums = torch.tensor([[0.4, 0.7, 0.9, 0.5, 0.995, 1.2]])  # before units 2, 3, 4 of each stage
    assert torch.allclose(model.ponder(0.99 - sums), torch.tensor([[4 + 0.1, 2 + 0.5]]))
    assert torch.allclose(model.ponder(0.99 - torch.ones(1, 6)), torch.tensor([[2.0, 2.0]]))
    assert model.deepest == (5, 5)


def test_the_gradient_of_the_ponder_cost_is_that_of_the_scores_before_the_last():
    model = small()
    margins = (0.99 - torch.tensor([[0.4, 0.7, 1.1, 1.0, 1.3, 1.5]])).requires_grad_()
    (slope,) = torch.autograd.grad(model.ponder(margins).sum(), margins)
    assert slope.tolist() == [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]


def test_a_trained_net_hands_its_weights_on():
    torch.manual_seed(4)
    net = resnet(20, 4)
    model = halting_resnet(20, 4, side=8)
    model.take(net)
    for unit in model.modules():
        if isinstance(unit, HaltingUnit):
            nn.init.constant_(unit.score.bias, -30.0)  # nobody halts before the last, which takes everything
    x = torch.rand(5, 3, 8, 8)
    assert torch.allclose(model.eval().infer(x).logits, net.eval()(x), atol=1e-5)


@pytest.mark.parametrize("data", ["digits", "fashion-mnist"])
def test_the_small_nets_halt_too(data):
    model = SMALL_NETS[data].act()
    assert model.min_macs < model.max_macs == model.macs_full
    assert model.units == (4, 4)


def test_what_cannot_halt_is_refused():
    for more in ({"epsilon": 0.0}, {"epsilon": 1.0}):
        with pytest.raises(UsageError, match="cannot halt"):
            small(**more)
    with pytest.raises(UsageError, match=r"\[1, 1, 1\]"):
        halting_resnet(8, 4)
