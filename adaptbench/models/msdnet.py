"""MSDNet: features at several scales, dense in depth, a classifier after every block.

Huang, Chen, Li, Wu, van der Maaten, Weinberger, "Multi-Scale Dense Networks for Resource Efficient Image
Classification", ICLR 2018; layer sizes, pruning and transitions as in the authors' PyTorch code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from adaptbench.adaptive import MultiExit, Normalise, Policy
from adaptbench.errors import UsageError
from adaptbench.models.blocks import classifier, conv_bn
from adaptbench.models.resnet import STATISTICS

Scales = tuple[Tensor, ...]
"""One tensor a scale, finest first, each half as large as the one before."""


@dataclass(frozen=True, slots=True)
class MsdnetPlan:
    """Sizes of an MSDNet.

    Args:
        blocks: classifiers. base: layers of the first block.
        step: layers of each later block; where `growing`, step·i + 1 for block i from 0.
        channels: of the first layer at the finest scale; growth: added by each layer there.
        factors: a multiple of both for each scale; bottlenecks: of a layer's inner width, for each scale.
        reduction: channels kept where the finest scale is dropped.
        head: channels of the classifiers' convolutions.
    """

    blocks: int
    base: int
    step: int
    growing: bool = False
    channels: int = 16
    growth: int = 6
    factors: tuple[int, ...] = (1, 2, 4)
    bottlenecks: tuple[int, ...] = (1, 2, 4)
    reduction: float = 0.5
    head: int = 128

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of each block."""
        return (self.base, *(self.step * i + 1 if self.growing else self.step for i in range(1, self.blocks)))


PLANS = {
    "anytime": MsdnetPlan(blocks=7, base=4, step=2),
    "batch": MsdnetPlan(blocks=5, base=1, step=1, growing=True),
}


class _FirstLayer(nn.Module):
    """The picture → every scale, each from the finer one."""

    def __init__(self, inputs: int, plan: MsdnetPlan) -> None:
        super().__init__()
        widths = [plan.channels * factor for factor in plan.factors]
        steps = [conv_bn(inputs, widths[0]), *(conv_bn(a, b, stride=2) for a, b in pairwise(widths))]
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> Scales:
        scales = []
        for step in self.steps:
            x = step(x)
            scales.append(x)
        return tuple(scales)


def _bottleneck(inputs: int, outputs: int, width: int, stride: int = 1) -> nn.Sequential:
    """1×1 to at most width·outputs channels, then 3×3."""
    inner = min(inputs, width * outputs)
    return nn.Sequential(conv_bn(inputs, inner, 1), conv_bn(inner, outputs, stride=stride))


class _Layer(nn.Module):
    """Adds `growth` channels a scale: from the same scale, and half of them from the next finer one.

    The number of scales may fall by one: the finest is then read for the last time and not handed on.

    Args:
        width: channels before, in units of the factors.
        before, after: scales read and handed on.
    """

    def __init__(self, width: int, plan: MsdnetPlan, before: int, after: int) -> None:
        super().__init__()
        self.dropped = before - after
        first = len(plan.factors) - after
        self.same, self.finer = nn.ModuleList(), nn.ModuleList()
        for s in range(first, len(plan.factors)):
            has_finer = s > first or self.dropped > 0
            new = plan.growth * plan.factors[s]
            own = new // 2 if has_finer else new
            self.same.append(_bottleneck(width * plan.factors[s], own, plan.bottlenecks[s]))
            if has_finer:
                self.finer.append(_bottleneck(width * plan.factors[s - 1], own, plan.bottlenecks[s - 1], stride=2))

    def forward(self, scales: Scales) -> Scales:
        kept = scales[self.dropped :]
        above = list(scales[: len(self.finer)])
        out = []
        for i, (h, same) in enumerate(zip(kept, self.same, strict=True)):
            j = i - (len(kept) - len(above))
            new = [] if j < 0 else [self.finer[j](above[j])]
            out.append(torch.cat([h, *new, same(h)], 1))
        return tuple(out)


class _Transition(nn.Module):
    """1×1 convolution on every scale."""

    def __init__(self, widths: list[tuple[int, int]]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(conv_bn(a, b, 1) for a, b in widths)

    def forward(self, scales: Scales) -> Scales:
        return tuple(conv(h) for conv, h in zip(self.convolutions, scales, strict=True))


class _Head(nn.Module):
    """Reads the coarsest scale: two strided convolutions, pooling, linear."""

    def __init__(self, channels: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            conv_bn(channels, width, stride=2), conv_bn(width, width, stride=2), classifier(width, n_classes)
        )

    def forward(self, scales: Scales) -> Tensor:
        out: Tensor = self.net(scales[-1])
        return out


def msdnet(
    plan: MsdnetPlan | str,
    n_classes: int,
    *,
    statistics: str = "cifar10",
    input_shape: tuple[int, int, int] = (3, 32, 32),
    policy: Policy | None = None,
) -> MultiExit:
    """An MSDNet with an exit after each block.

    "Max" pruning: the layers are divided into as many parts as there are scales; each part drops the finest scale left,
    with a transition that halves the channels. Features travel as a tuple of scales.

    Args:
        plan: sizes, or "anytime" (7 blocks of 4, 2, 2, … layers) or "batch" (5 blocks of 1, 2, 3, 4, 5).
        n_classes: C. statistics: whose pixel statistics the normaliser holds.
        input_shape: (C, H, W); sides are halved once a scale and twice in the heads.
        policy: decides at each exit but the last.

    Raises:
        UsageError: no such plan, or one that cannot be built.
    """
    plan = _plan(plan)
    count, total = len(plan.factors), sum(plan.layers)
    interval = math.ceil(total / count)
    width, done = plan.channels, 0
    stages: list[nn.Module] = []
    heads: list[nn.Module] = []
    for b, layers in enumerate(plan.layers):
        parts: list[nn.Module] = []
        if b == 0:
            mean, std = STATISTICS[statistics]
            parts = [Normalise(mean, std), _FirstLayer(input_shape[0], plan)]
        for _ in range(layers):
            done += 1
            before = count - max(0, done - 2) // interval
            after = count - (done - 1) // interval
            parts.append(_Layer(width, plan, before, after))
            width += plan.growth
            if before > after:
                kept = math.floor(plan.reduction * width)
                parts.append(_Transition([(width * f, kept * f) for f in plan.factors[count - after :]]))
                width = kept
        stages.append(nn.Sequential(*parts))
        heads.append(_Head(width * plan.factors[-1], plan.head, n_classes))
    for module in (m for part in (*stages, *heads) for m in part.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return MultiExit(stages, heads, input_shape=input_shape, policy=policy)


def _plan(plan: MsdnetPlan | str) -> MsdnetPlan:
    if isinstance(plan, str):
        if plan not in PLANS:
            raise UsageError(f"no MSDNet plan is called '{plan}'.", todo=f"There are: {', '.join(PLANS)}.")
        return PLANS[plan]
    odd = [g for g in (plan.growth * f for f in plan.factors[1:]) if g % 2]
    if min(plan.blocks, plan.base, plan.step) < 1 or len(plan.factors) != len(plan.bottlenecks) or odd:
        raise UsageError(
            f"{plan} cannot be built.",
            why="Half of a scale's new channels come from the finer scale; every block has a layer.",
            todo="Give counts ≥ 1, one bottleneck a factor, and growth · factor even beyond the finest scale.",
        )
    return plan
