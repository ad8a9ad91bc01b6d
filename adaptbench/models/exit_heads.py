"""Exit heads of the papers, and how they are bolted onto an existing net without changing it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from adaptbench.adaptive import MultiExit, Policy
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.domain import pictures_of
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.pooling import MaxPool, MeanPool
from adaptbench.errors import UsageError
from adaptbench.models.blocks import classifier, conv_bn

Shape = tuple[int, int, int]
HeadBuilder = Callable[[Shape, int], nn.Module]
"""(C, H, W) of the features and the number of classes → features to logits."""

SDN_SHARES = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)


def paper_head(features: Shape, n_classes: int, hidden: int = 64) -> nn.Sequential:
    """Average pooling by eight, linear to 64, linear to C: the sheet's "ResNet Enhanced".

    Berestizshevsky & Even, arXiv 1805.10982, MAC spreadsheet: 32×32 is pooled to 4×4, 16×16 to 2×2. The sheet names no
    nonlinearity between the linear layers; a ReLU stands there, without which the two would be one.
    """
    channels, side, _ = features
    pool = max(1, side // 8)
    return nn.Sequential(
        MeanPool(pool),
        nn.Flatten(),
        nn.Linear(channels * pool * pool, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_classes),
    )


class PooledPair(nn.Module):
    """Features pooled twice, by maximum and by mean: (n, C, H, W) → (n, 2, C, side, side). No weights."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.largest, self.mean = MaxPool(side), MeanPool(side)

    def forward(self, h: Tensor) -> Tensor:
        """Both poolings, maximum first."""
        return torch.stack([self.largest(h), self.mean(h)], 1)


class LearnedMix(nn.Module):
    """a·max + (1 − a)·mean with one learned a, drawn from [0, 1) and not held there (as released)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.rand(1))

    def forward(self, pair: Tensor) -> Tensor:
        """(n, 2, …) → (n, …)."""
        largest, mean = pair.unbind(1)
        return self.a * largest + (1 - self.a) * mean


def sdn_head(features: Shape, n_classes: int, side: int = 4) -> nn.Sequential:
    """An internal classifier of a shallow-deep network: mixed pooling to about 4×4, one linear layer.

    Kaya, Hong, Dumitras, "Shallow-Deep Networks: Understanding and Mitigating Network Overthinking", ICML 2019.
    """
    side = min(side, features[1])
    return nn.Sequential(PooledPair(side), LearnedMix(), nn.Flatten(), nn.Linear(features[0] * side * side, n_classes))


def eenet_head(features: Shape, n_classes: int, reduction: int = 1) -> nn.Sequential:
    """Three 3×3 convolutions with batch norm and ReLU, global average pooling, linear.

    Ilhan et al., "Adaptive Deep Neural Network Inference Optimization with EENet", WACV 2024, released code.

    Args:
        features: (C, H, W). n_classes: C.
        reduction: the first convolution divides the channels by the expansion of the net's blocks.
    """
    width = features[0] // reduction
    return nn.Sequential(
        conv_bn(features[0], width), conv_bn(width, width), conv_bn(width, width), classifier(width, n_classes)
    )


HEADS: dict[str, HeadBuilder] = {"paper": paper_head, "sdn": sdn_head, "eenet": eenet_head}


def attach_exits(
    net: nn.Sequential,
    kind: str | HeadBuilder = "paper",
    *,
    after: Sequence[str] | None = None,
    input_shape: Shape = (3, 32, 32),
    policy: Policy | None = None,
) -> MultiExit:
    """Bolt exit heads onto a net; its own modules are shared, not copied, and its last part stays the last head.

    Args:
        net: parts in a row, the last the classifier, such as `resnet(depth, n_classes)`.
        kind: "paper", "sdn", "eenet", or a function of the features' shape and the number of classes.
        after: names of the parts that exits follow. Default: the ends of the first two stages; for "sdn" the six
            blocks where the running MACs come nearest to 15, 30, 45, 60, 75 and 90 % of the net's.
        input_shape: (C, H, W).
        policy: decides at each exit but the last.

    Raises:
        UsageError: no such kind or part, or a net too shallow for the exits asked of it.
    """
    if isinstance(kind, str) and kind not in HEADS:
        raise UsageError(f"no exit head is called '{kind}'.", todo=f"There are: {', '.join(HEADS)}.")
    build = HEADS[kind] if isinstance(kind, str) else kind
    shapes, macs, n_classes = _measure(net, input_shape)
    names = list(shapes)
    if after is None:
        after = _at_shares(names, macs) if kind == "sdn" else _stage_ends(names)
    if (unknown := [n for n in after if n not in names[:-1]]) or sorted(after, key=names.index) != list(after):
        raise UsageError(
            f"exits were asked after {', '.join(after)}.",
            why=f"'{unknown[0]}' is no part with others behind it." if unknown else "They are not in the net's order.",
            todo=f"Parts: {', '.join(names[:-1])}.",
        )
    cuts = [0, *(names.index(name) + 1 for name in after), len(names) - 1]
    stages = [net[a:b] for a, b in pairwise(cuts)]
    device = next(net.parameters()).device
    heads = [build(shapes[name], n_classes).to(device) for name in after]
    return MultiExit(stages, [*heads, net[-1]], input_shape=input_shape, policy=policy)


def backbone_of(model: MultiExit) -> nn.Sequential:
    """The plain net inside, sharing its modules, under the names that it had before exits were attached.

    Raises:
        UsageError: the stages are no rows of named parts.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for stage in model.stages:
        for name, part in stage.named_children():
            if name in parts or not isinstance(stage, nn.Sequential):
                raise UsageError(
                    f"the part '{name}' does not say where it stood in a plain net.",
                    todo="Build the model with attach_exits().",
                )
            parts[name] = part
    parts["head"] = model.heads[-1]
    return nn.Sequential(parts)


@torch.no_grad()
def _measure(net: nn.Sequential, shape: Shape) -> tuple[dict[str, Shape], list[int], int]:
    """The shape after each part, each part's MACs, and the number of classes."""
    shapes: dict[str, Shape] = {}
    macs: list[int] = []
    value = torch.zeros(1, *shape, device=next(net.parameters()).device)
    with frozen(net):
        for name, part in net.named_children():
            with counting() as counter:
                value = part(value)
            shapes[name] = tuple(value.shape[1:])
            macs.append(counter.macs)
    return shapes, macs, value.shape[1]


def _stage_ends(names: list[str]) -> list[str]:
    """The last block of each stage but the last."""
    stages = [name.partition("_")[0] for name in names]
    ends = [
        name
        for name, here, behind in zip(names, stages, stages[1:], strict=False)
        if here.startswith("stage") and behind.startswith("stage") and here != behind
    ]
    if not ends:
        raise UsageError(
            f"a net of {', '.join(names)} shows no stages.",
            todo="Name the parts that exits follow: attach_exits(…, after=[…]).",
        )
    return ends


def _at_shares(names: list[str], macs: list[int]) -> list[str]:
    """The blocks nearest to SDN's shares of the MACs."""
    total, running = sum(macs), 0
    reached: dict[str, float] = {}
    for name, increment in zip(names, macs, strict=True):
        running += increment
        reached[name] = running / total
    blocks = [name for name in names if name.startswith("stage")][:-1]
    chosen = [min(blocks, key=lambda name: abs(reached[name] - share)) for share in SDN_SHARES] if blocks else []
    if len(set(chosen)) < len(SDN_SHARES):
        raise UsageError(
            f"a net of {len(blocks) + 1} blocks has no room for six internal classifiers.",
            todo="Take a depth of 20 or more, or name the parts that exits follow: attach_exits(…, after=[…]).",
        )
    return chosen


# ---------------------------------------------------------------------------- cumulative logits


class _ScaledGradient(torch.autograd.Function):
    """Identity forward, gradient times a factor backward."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class BoostedStage(nn.Module):
    """A stage that hands on its features and the sum of the answers so far.

    Args:
        stage, head: of the exit. eta: weight of the answer before.
        left: exits from this one to the end, itself included.
        first: reads the input, not a stage's pair.
    """

    def __init__(self, stage: nn.Module, head: nn.Module, eta: float, left: int, *, first: bool) -> None:
        super().__init__()
        self.stage, self.head = stage, head
        self.eta, self.left, self.first = eta, left, first

    def forward(self, value: Any) -> tuple[Any, Tensor]:
        """(features, F_before), or the input → (features, F)."""
        before, answer = (value, None) if self.first else value
        features = self.stage(before)
        # Gradient equilibrium: the head's share is 1/left, the rest of the net's (left − 1)/left.
        own: Tensor = self.head(self._scaled(features, 1 / self.left))
        if answer is not None:
            own = own + self.eta * (answer.detach() if self.training else answer)
        return self._scaled(features, (self.left - 1) / self.left), own

    def _scaled(self, features: Any, factor: float) -> Any:
        if not self.training:
            return features
        return tree_map(lambda h: _ScaledGradient.apply(h, factor), features)  # type: ignore[no-untyped-call]


class _Answer(nn.Module):
    """The logits of a boosted stage's pair."""

    def forward(self, pair: tuple[Any, Tensor]) -> Tensor:
        return pair[1]


def boosted(model: MultiExit, eta: float = 0.5) -> MultiExit:
    """A multi-exit net whose exits answer with running sums: F_k = z_k + η·F_{k−1}.

    Yu et al., "Boosted Dynamic Neural Networks", AAAI 2023. In training F_{k−1} is detached and the gradient
    shared out between a head and what follows it; at inference gradients flow through all of it, as an attacker's
    would. The released inference rule is taken for training too, where the released helper uses (z_k + F_{k−1})·η.
    Every answer needs the heads before it, so the static reference includes them.

    Args:
        model: its stages and heads are shared, not copied.
        eta: weight of the answer before.
    """
    domain, count = pictures_of(model.domain, "boosting"), len(model.stages)
    stages = [
        BoostedStage(stage, head, eta, count - k, first=k == 0)
        for k, (stage, head) in enumerate(zip(model.stages, model.heads, strict=True))
    ]
    return MultiExit(
        stages,
        [_Answer() for _ in stages],
        input_shape=domain.shape,
        names=model.exit_names,
        policy=model.policy,
        bounds=(domain.low, domain.high),
    )
