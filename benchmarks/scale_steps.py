"""A part of benchmarks/scale.py: attack steps on a net and pictures of ImageNet's size."""

from __future__ import annotations

import time
from typing import Any

from spending import cpu_s


def imagenet_net() -> Any:
    """A ResNet-50 (He et al. 2016) at 224 × 224 with an exit after each of its four stages; weights as they fall."""
    from torch import nn

    import adaptbench as ab
    from adaptbench.policies.thresholds.uniform import UniformThreshold

    class Bottleneck(nn.Module):
        def __init__(self, width: int, inner: int, stride: int) -> None:
            super().__init__()
            norm, out = nn.BatchNorm2d, 4 * inner
            self.body = nn.Sequential(
                nn.Conv2d(width, inner, 1, bias=False), norm(inner), nn.ReLU(),
                nn.Conv2d(inner, inner, 3, stride, 1, bias=False), norm(inner), nn.ReLU(),
                nn.Conv2d(inner, out, 1, bias=False), norm(out),
            )  # fmt: skip
            same = stride == 1 and width == out
            plain = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), norm(out))
            self.short = nn.Identity() if same else plain

        def forward(self, x: Any) -> Any:
            return (self.body(x) + self.short(x)).relu()

    stages, heads, width = [], [], 64
    for k, (blocks, inner) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        layers: list[nn.Module] = []
        if k == 0:
            first = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            layers += [first, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for i in range(blocks):
            layers.append(Bottleneck(width, inner, 2 if k and not i else 1))
            width = 4 * inner
        stages.append(nn.Sequential(*layers))
        heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)))
    net = ab.MultiExit(stages, heads, input_shape=(3, 224, 224)).eval().requires_grad_(False)
    return net.under(UniformThreshold(5e-4))  # below 1 / 1000: no input is ever done before the last step


def steps(pictures: int, device: str = "cpu") -> dict[str, Any]:
    """Seconds of an attack step and of a hard pass of one picture: two lengths of one attack, taken apart."""
    import torch

    from adaptbench.attacks import load_attack

    net = imagenet_net().to(device)
    x = torch.rand(pictures, 3, 224, 224, device=device)
    y = torch.zeros(pictures, dtype=torch.int64, device=device)
    made: dict[str, Any] = {"device": device, "pictures": pictures, "macs_full": net.macs_full}

    def took(length: int) -> tuple[float, float]:
        attack = load_attack("ilfo", {"eps": 8 / 255, "steps": length})
        began = cpu_s(), time.perf_counter()
        attack.craft(net, x, y, ids=torch.arange(pictures), seed=0)
        if device != "cpu":
            torch.cuda.synchronize()
        return cpu_s() - began[0], time.perf_counter() - began[1]

    took(1)
    short, long = took(2), took(6)
    made["step_cpu_s"], made["step_wall_s"] = ((b - a) / 4 / pictures for a, b in zip(short, long, strict=True))
    return made
