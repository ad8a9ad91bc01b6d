"""Nets of widespread libraries, as they come: adapted in one call, the same function, later parts not run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import MacCounter

pytestmark = pytest.mark.libraries
EXAMPLE = torch.zeros(1, 3, 64, 64)


@pytest.fixture(autouse=True)
def a_fixed_seed():
    torch.manual_seed(0)


def check(module: nn.Module, net, logits) -> None:
    """The last exit is the library's own answer, and the first costs what was counted."""
    x = torch.rand(3, *EXAMPLE.shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(net.eval().dense_logits(x)[:, -1], logits(module.eval()(x)), rtol=1e-4, atol=1e-4)
    told = net.explain()
    assert told.way == "traced"
    assert max(e.difference for e in told.exits) < 1e-4
    first = torch.arange(len(told.exits)) < 1
    net.infer(x, force=first)
    with MacCounter() as counter:
        net.infer(x, force=first)
    assert counter.macs == 3 * told.exits[0].macs < 3 * told.exits[-1].macs


@pytest.mark.parametrize(
    ("name", "after", "settings"),
    [
        ("resnet18", ["layer1", "layer2", "layer3"], {}),
        ("mobilenet_v3_small", ["features.3", "features.8"], {}),
        ("densenet121", ["features.denseblock1", "features.transition2"], {}),
        ("efficientnet_b0", ["features.3"], {}),
        ("vit_b_16", ["encoder.layers.encoder_layer_3"], {"image_size": 64}),
        ("swin_t", ["features.1"], {}),
    ],
)
def test_torchvision(name, after, settings):
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    module = getattr(torchvision.models, name)(num_classes=10, **settings)
    net = ab.attach_exits(module, after=after, example=EXAMPLE)
    check(module, net, lambda out: out)
    if name == "swin_t":  # channels last, 16 × 16 places
        (linear,) = [m for m in net.heads[0].modules() if isinstance(m, nn.Linear)]
        assert linear.in_features == 96


@pytest.mark.parametrize(
    ("name", "after", "settings"),
    [
        ("resnet10t", ["layer1", "layer2"], {}),
        ("vit_tiny_patch16_224", ["blocks.3", "blocks.7"], {"img_size": 64}),
        ("convnext_atto", ["stages.1"], {}),
        ("mobilenetv3_small_050", ["blocks.1", "blocks.3"], {}),
        ("regnetx_002", ["s1", "s2"], {}),
    ],
)
def test_timm(name, after, settings):
    module = pytest.importorskip("timm").create_model(name, num_classes=10, **settings)
    check(module, ab.attach_exits(module, after=after, example=EXAMPLE), lambda out: out)


class WithRamp(nn.Module):
    """A head on hidden states, as early-exit code for this library does."""

    def __init__(self, vit: nn.Module, width: int) -> None:
        super().__init__()
        self.vit, self.ramp = vit, nn.Linear(width, 10)

    def forward(self, pixel_values):
        out = self.vit(pixel_values, output_hidden_states=True)
        return {"ramp": self.ramp(out.hidden_states[2][:, 0]), "logits": out.logits}


def test_transformers():
    library = pytest.importorskip("transformers")
    config = library.ViTConfig(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96, image_size=64, num_labels=10
    )
    module = WithRamp(library.ViTForImageClassification(config), 48)
    net = ab.wrap(module, example=EXAMPLE)
    check(module, net, lambda out: out["logits"])
    assert net.explain().exits[0].macs_deferred > 0
