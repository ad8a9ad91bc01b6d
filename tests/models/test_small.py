"""The small nets: MACs follow from the plan by closed forms, exits and gates really skip."""

from __future__ import annotations

import pytest
import torch

from adaptbench.adaptive import NetworkDag, Static
from adaptbench.models.small import PLANS, Plan, ladder, ladder_net, multi_exit, skipnet


def conv(side: int, inputs: int, outputs: int, kernel: int = 3) -> int:
    """MACs of a "same" convolution that leaves a side × side map."""
    return side * side * inputs * outputs * kernel * kernel


def sides(plan: Plan) -> tuple[int, int]:
    first = -(-plan.shape[1] // plan.stride)
    return first, -(-first // 2)


@pytest.mark.parametrize("data", PLANS)
@pytest.mark.parametrize("name", ["small", "medium", "large"])
def test_ladder_macs_by_closed_form(data: str, name: str) -> None:
    plan = PLANS[data]
    width, before, wide, after = plan.ladder[name]
    big, small = sides(plan)
    expected = conv(big, plan.shape[0], width, plan.kernel) + before * 2 * conv(big, width, width)
    if after:
        expected += conv(small, width, wide) + conv(small, wide, wide) + conv(small, width, wide, 1)
        expected += max(0, after - 1) * 2 * conv(small, wide, wide)
    else:
        expected += conv(small, width, wide)
    expected += 4 * wide * plan.n_classes
    assert Static(ladder_net(plan, name), input_shape=plan.shape).macs_full == expected


@pytest.mark.parametrize("data", PLANS)
def test_multi_exit_reference_is_the_net_without_early_heads(data: str) -> None:
    plan = PLANS[data]
    net = multi_exit(plan)
    width, wide, hidden = plan.multi_exit
    _, small = sides(plan)
    heads = conv(small, width, hidden) + 4 * hidden * plan.n_classes
    heads += conv(small, width, 2 * hidden) + 8 * hidden * plan.n_classes + 4 * wide * plan.n_classes
    assert net.max_macs - net.macs_full == heads


@pytest.mark.parametrize("data", PLANS)
def test_skipnet_gates_cost_little_and_count(data: str) -> None:
    net = skipnet(PLANS[data])
    assert net.max_macs == net.macs_full + net.gate_macs
    assert net.gate_macs < 0.01 * net.macs_full
    assert net.min_macs < 0.4 * net.macs_full
    assert not net.uncounted


@pytest.mark.parametrize("data", PLANS)
def test_nets_take_their_pictures_and_answer_for_every_class(data: str) -> None:
    plan = PLANS[data]
    x = torch.rand(3, *plan.shape, generator=torch.Generator().manual_seed(0))
    for model in (multi_exit(plan), skipnet(plan), NetworkDag(ladder(plan), input_shape=plan.shape)):
        assert model.infer(x).logits.shape == (3, plan.n_classes)
