"""CIFAR residual nets: He et al. 2016 ("Deep Residual Learning"), section 4.2, option A shortcuts.

Depth 6n + 2: a stem of 16 channels, then three stages of n basic blocks at 32×32×16, 16×16×32 and 8×8×64. Every net
is a flat `nn.Sequential` of named parts, so that it can be cut into stages, gated, or grown from a shallower one.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import Normalise
from adaptbench.errors import UsageError
from adaptbench.models.blocks import classifier, conv_bn, residual_body

DEPTHS = (8, 14, 20, 32, 56, 110)
WIDTHS = (16, 32, 64)

# Means and deviations of the 50 000 training pictures, a channel each.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


class PadShortcut(nn.Module):
    """Option A: every second pixel, new channels filled with zeros; no parameters, no MACs.

    Args:
        inputs, outputs: channels. stride: of the subsampling.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, h: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H/stride, W/stride)."""
        return F.pad(h[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """ReLU(shortcut(h) + body(h)) with a parameter-free shortcut.

    Args:
        inputs, outputs: channels. stride: 2 where a stage begins.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = residual_body(inputs, outputs, stride)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else PadShortcut(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, h: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H/stride, W/stride)."""
        out: Tensor = self.relu(self.shortcut(h) + self.body(h))
        return out


def blocks_a_stage(depth: int) -> int:
    """Blocks a stage of a net of depth 6n + 2.

    Raises:
        UsageError: no such depth.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UsageError(
            f"a CIFAR ResNet cannot have {depth} layers.",
            why="Three stages of n blocks with two convolutions, the stem and the classifier make 6n + 2.",
            todo=f"Published depths: {', '.join(map(str, DEPTHS))}.",
        )
    return (depth - 2) // 6


def resnet(depth: int, n_classes: int, statistics: str = "cifar10") -> nn.Sequential:
    """A CIFAR ResNet: normalise, stem, stage1.0 …, stage2.0 …, stage3.0 …, head.

    Args:
        depth: 6n + 2. n_classes: C. statistics: whose pixel statistics the normaliser holds.

    Raises:
        UsageError: a depth of another form.
    """
    n = blocks_a_stage(depth)
    parts: list[tuple[str, nn.Module]] = [
        ("normalise", Normalise(*STATISTICS[statistics])),
        ("stem", conv_bn(3, WIDTHS[0])),
    ]
    for stage, (before, width) in enumerate(pairwise((WIDTHS[0], *WIDTHS)), start=1):
        for j in range(n):
            first = j == 0
            parts.append(
                (f"stage{stage}_{j}", BasicBlock(before if first else width, width, 2 if first and stage > 1 else 1))
            )
    parts.append(("head", classifier(WIDTHS[-1], n_classes)))
    return nn.Sequential(OrderedDict(parts))


@torch.no_grad()
def grow(shallow: nn.Sequential, deep: nn.Sequential) -> None:
    """Start a deep net from a shallow one's weights, computing the same function.

    Each block of the shallow net is followed by copies of itself whose last batch norm is set to zero: ReLU(h + 0) = h,
    because h is a ReLU's output. (Net2Net's idea, Chen et al. 2016; copies rather than fresh weights, as in Chang et
    al. 2018, "Multi-level Residual Networks from Dynamical Systems View".)

    Raises:
        UsageError: the deep net's blocks are no multiple of the shallow net's.
    """
    source, target = dict(shallow.named_children()), dict(deep.named_children())
    n, m = (sum(name.startswith("stage1_") for name in net) for net in (source, target))
    if m % n:
        raise UsageError(f"{m} blocks a stage cannot grow from {n}.", todo="Give a multiple, such as 1 → 3 → 9.")
    times = m // n
    for name, module in target.items():
        stage, _, index = name.partition("_")
        if not index:
            module.load_state_dict(source[name].state_dict())
            continue
        origin, copy = divmod(int(index), times)
        donor = source[f"{stage}_{origin}"]
        if copy and origin == 0 and stage != "stage1":
            # A stage's first block changes the shape; copies of the next one fit, and so does the module's own start.
            donor = source.get(f"{stage}_1", module)
        module.load_state_dict(donor.state_dict())
        if copy:
            last = module.body[-1][-1]  # type: ignore[index]
            last.weight.zero_()  # type: ignore[union-attr]
            last.bias.zero_()  # type: ignore[union-attr]
