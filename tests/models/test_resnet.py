"""CIFAR ResNets: published sizes, growing without changing the function, the authors' MAC sheet to the unit."""

import pytest
import torch
from torch import nn

from adaptbench.adaptive import Static
from adaptbench.adaptive.model import frozen
from adaptbench.errors import UsageError
from adaptbench.models.exit_heads import attach_exits
from adaptbench.models.resnet import DEPTHS, BasicBlock, PadShortcut, blocks_a_stage, grow, resnet


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_depth_is_its_layers_with_weights(depth):
    net = resnet(depth, 10)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == depth
    for stage in (1, 2, 3):
        assert sum(name.startswith(f"stage{stage}_") for name, _ in net.named_children()) == (depth - 2) // 6


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85), (110, 1.7)])
def test_weights_are_as_many_as_published(depth, millions):
    """He et al. 2016, table 6."""
    assert sum(p.numel() for p in resnet(depth, 10).parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("depth", [6, 9, 21, 1, 0, -4])
def test_other_depths_are_refused_with_the_published_ones(depth):
    with pytest.raises(UsageError, match=f"cannot have {depth} layers") as error:
        blocks_a_stage(depth)
    assert "8, 14, 20, 32, 56, 110" in str(error.value)


def test_option_a_drops_pixels_and_pads_channels():
    h = torch.arange(2 * 16.0).view(1, 2, 4, 4)
    out = PadShortcut(2, 6, 2)(h)
    assert out.shape == (1, 6, 2, 2)
    assert torch.equal(out[:, 2:4], h[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 4:].any()


def trained_a_little(depth):
    """Weights and statistics away from their start."""
    net = resnet(depth, 5)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor, low, high in ((m.weight, 0.5, 1.5), (m.bias, -0.5, 0.5), (m.running_var, 0.5, 2.0)):
                nn.init.uniform_(tensor, low, high)
            nn.init.normal_(m.running_mean, std=0.3)
    return net.eval()


@pytest.mark.parametrize(("shallow", "deep"), [(8, 20), (14, 26), (20, 20), (20, 56)])
def test_growing_keeps_the_function(shallow, deep):
    small, large = trained_a_little(shallow), resnet(deep, 5)
    grow(small, large)
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(small(x), large.eval()(x))
    copied = [b for b in large.modules() if isinstance(b, nn.BatchNorm2d) and not b.weight.any()]
    assert len(copied) == (deep - shallow) // 2


def test_only_multiples_grow():
    with pytest.raises(UsageError, match="3 blocks a stage cannot grow from 2"):
        grow(resnet(14, 5), resnet(20, 5))


@torch.no_grad()
def sheet_macs(part, shape=(3, 32, 32)):
    """Cost of a net, a stage or a head by the spreadsheet of Berestizshevsky & Even 2018, to compare with their table.

    Convolution: k²·Cin·Cout·H·W and Cout for the bias, inside a block Cout·H·W more; linear: in·out + out; average
    pooling: the elements it reads, and one division a channel where it is global.
    """
    inside = {id(m) for block in part.modules() if isinstance(block, BasicBlock) for m in block.modules()}
    total = 0

    def add(module, given, out):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            elements = out[0].numel() if id(module) in inside else 0
            total += out[0].numel() * module.weight[0].numel() + module.out_channels + elements
        elif isinstance(module, nn.Linear):
            total += module.weight.numel() + module.out_features
        else:
            total += given[0][0].numel() + (len(out[0]) if out[0, 0].numel() == 1 else 0)

    kinds = (nn.Conv2d, nn.Linear, nn.AdaptiveAvgPool2d)
    hooks = [m.register_forward_hook(add) for m in part.modules() if isinstance(m, kinds)]
    with frozen(part):
        part(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total


def test_the_sheet_of_berestizshevsky_and_even():
    """arXiv 1805.10982, MAC spreadsheet: ResNet-110 with its two enhanced heads."""
    net = resnet(110, 10)
    model = attach_exits(net, "paper")
    features = [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    stages = [
        sheet_macs(stage, shape) for stage, shape in zip(model.stages, [(3, 32, 32), *features[:-1]], strict=True)
    ]
    heads = [sheet_macs(head, shape) for head, shape in zip(model.heads, features, strict=True)]
    assert [s + h for s, h in zip(stages, heads, strict=True)] == [86_000_922, 84_068_170, 83_909_578]
    assert sheet_macs(net) == 253_928_090
    assert sum(stages) + sum(heads) == 253_978_670


def test_records_count_the_multiplications_alone():
    """The sheet's surplus is biases, elements and pooling: under half a per cent."""
    net = resnet(110, 10)
    ours = Static(net, input_shape=(3, 32, 32)).macs_full
    assert ours == 252_887_680
    assert 0 < sheet_macs(net) - ours < 0.005 * ours
