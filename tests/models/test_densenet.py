"""DenseNet: published size, shapes on a thin one, exits behind the transitions."""

import pytest
import torch
from torch import nn

from adaptbench.models.densenet import BLOCKS_121, densenet, multi_exit_densenet
from adaptbench.models.exit_heads import backbone_of
from adaptbench.policies import UniformThreshold
from adaptbench.testing import ModelConformance

THIN = {"blocks": (1, 2, 2, 1), "growth": 4, "input_shape": (3, 16, 16)}


class TestThin(ModelConformance):
    n_inputs = 24

    def model(self):
        torch.manual_seed(0)
        return multi_exit_densenet(4, **THIN, policy=UniformThreshold(0.3))


def test_weights_are_as_many_as_published():
    """Huang et al. 2017: DenseNet-121 has 7 978 856 on ImageNet; ours has another stem, no norm there, 100 classes."""
    published = 7_978_856
    stem, norm, classes = 7 * 7 * 3 * 64, 2 * 64, 1024 * 1000 + 1000
    ours = published - stem - norm - classes + 3 * 3 * 3 * 64 + 1024 * 100 + 100
    net = densenet(100)
    assert sum(p.numel() for p in net.parameters()) == ours == 7_048_548
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == 121


def test_the_net_grows_by_k_and_halves():
    net = densenet(10, blocks=(2, 3, 1), growth=4).eval()
    h = torch.rand(2, 3, 16, 16)
    seen = {}
    with torch.no_grad():
        for name, part in net.named_children():
            h = part(h)
            seen[name] = tuple(h.shape[1:])
    assert seen["stem"] == (8, 16, 16)
    assert (seen["block1"], seen["transition1"]) == ((16, 16, 16), (8, 8, 8))
    assert (seen["block2"], seen["transition2"]) == ((20, 8, 8), (10, 4, 4))
    assert (seen["block3"], seen["head"]) == ((14, 4, 4), (10,))


def test_four_exits_rising_in_cost():
    model = multi_exit_densenet(100)
    assert len(model.exit_names) == 4
    ends = [[name for name, _ in stage.named_children()][-1] for stage in model.stages]
    assert ends == ["transition1", "transition2", "transition3", "norm"]
    assert min(model.node_macs) > 0
    assert model.macs_full < sum(model.node_macs) < 1.1 * model.macs_full
    assert not model.uncounted


def test_heads_divide_channels_by_the_expansion():
    model = multi_exit_densenet(10, blocks=BLOCKS_121, growth=12)
    widths = [head[0][0].weight.shape[:2] for head in model.heads[:-1]]
    assert widths == [(12, 48), (24, 96), (48, 192)]


@pytest.mark.parametrize("statistics", ["cifar10", "cifar100"])
def test_plain_weights_fit(statistics):
    plain = densenet(4, blocks=THIN["blocks"], growth=4, statistics=statistics).eval()
    model = multi_exit_densenet(4, **THIN, statistics=statistics)
    backbone_of(model).load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(model.run_reference(x), plain(x))
