"""The small nets: MACs follow from the table by closed forms, exits and gates really skip."""

from __future__ import annotations

import pytest
import torch

from adaptbench.adaptive import NetworkDag, Static
from adaptbench.models.small import SMALL_NETS, SmallNets


def conv(side: int, inputs: int, outputs: int, kernel: int = 3) -> int:
    """MACs of a "same" convolution that leaves a side × side map."""
    return side * side * inputs * outputs * kernel * kernel


def sides(nets: SmallNets) -> tuple[int, int]:
    first = -(-nets.shape[1] // nets.stride)
    return first, -(-first // 2)


@pytest.mark.parametrize("data", SMALL_NETS)
@pytest.mark.parametrize("name", ["small", "medium", "large"])
def test_ladder_macs_by_closed_form(data: str, name: str) -> None:
    nets = SMALL_NETS[data]
    width, before, wide, after = nets.widths[name]
    big, small = sides(nets)
    expected = conv(big, nets.shape[0], width, nets.kernel) + before * 2 * conv(big, width, width)
    if after:
        expected += conv(small, width, wide) + conv(small, wide, wide) + conv(small, width, wide, 1)
        expected += max(0, after - 1) * 2 * conv(small, wide, wide)
    else:
        expected += conv(small, width, wide)
    expected += 4 * wide * nets.n_classes
    assert Static(nets.net(name), input_shape=nets.shape).macs_full == expected


@pytest.mark.parametrize("data", SMALL_NETS)
def test_multi_exit_reference_is_the_net_without_early_heads(data: str) -> None:
    nets = SMALL_NETS[data]
    net = nets.multi_exit()
    width, wide, hidden = nets.exits
    _, small = sides(nets)
    heads = conv(small, width, hidden) + 4 * hidden * nets.n_classes
    heads += conv(small, width, 2 * hidden) + 8 * hidden * nets.n_classes + 4 * wide * nets.n_classes
    assert net.max_macs - net.macs_full == heads


@pytest.mark.parametrize("data", SMALL_NETS)
def test_skipnet_gates_cost_little_and_count(data: str) -> None:
    net = SMALL_NETS[data].skipnet()
    assert net.max_macs == net.macs_full + net.gate_macs
    assert net.gate_macs < 0.01 * net.macs_full
    assert net.min_macs < 0.4 * net.macs_full
    assert not net.uncounted


@pytest.mark.parametrize("data", SMALL_NETS)
def test_nets_take_their_pictures_and_answer_for_every_class(data: str) -> None:
    nets = SMALL_NETS[data]
    x = torch.rand(3, *nets.shape, generator=torch.Generator().manual_seed(0))
    for model in (nets.multi_exit(), nets.skipnet(), NetworkDag(nets.ladder(), input_shape=nets.shape)):
        assert model.infer(x).logits.shape == (3, nets.n_classes)
