"""Exits without training: the distance of a stage's pooled features to each class's mean.

E²CM (2021), "E²CM: Early Exit via Class Means for Efficient Supervised and Unsupervised Learning"; supervised means.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adaptbench.adaptive import MultiExit, Policy, Split
from adaptbench.adaptive.model import frozen
from adaptbench.errors import CalibrationError
from adaptbench.models.exit_heads import Shape, attach_exits

_CHUNK = 500


class ClassMeans(nn.Module):
    """Logits −(distance to each class mean) / (that distance's average over the training samples); C·d MACs.

    Until `fit` has been called, means and averages are 0 and 1.

    Args:
        width: channels d of the features. n_classes: C.
    """

    means: Tensor
    spread: Tensor

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(n_classes, width))
        self.register_buffer("spread", torch.ones(n_classes))

    def forward(self, h: Tensor) -> Tensor:
        """(n, d, H, W) → (n, C)."""
        return -self._distances(h.mean((2, 3))) / self.spread

    def _distances(self, pooled: Tensor) -> Tensor:
        # One formula for every batch size: torch would change it at 25 rows, and decisions with it.
        return torch.cdist(pooled, self.means, compute_mode="donot_use_mm_for_euclid_dist")

    @torch.no_grad()
    def fit(self, pooled: Tensor, y: Tensor) -> None:
        """Means and average distances. pooled: (N, d); y: (N,).

        Raises:
            CalibrationError: a class without samples.
        """
        count = torch.bincount(y, minlength=len(self.means))
        if (count == 0).any():
            raise CalibrationError(
                f"class {int((count == 0).nonzero()[0])} has no samples to take a mean of.",
                todo="Give a split with every class in it.",
            )
        sums = torch.zeros_like(self.means, dtype=torch.float64).index_add_(0, y, pooled.double())
        self.means.copy_(sums / count[:, None])
        total = torch.zeros_like(self.spread, dtype=torch.float64)
        for start in range(0, len(pooled), _CHUNK):
            total += self._distances(pooled[start : start + _CHUNK]).double().sum(0)
        self.spread.copy_((total / len(pooled)).clamp_min(1e-12))


def class_mean_exits(
    net: nn.Sequential,
    *,
    after: Sequence[str] | None = None,
    input_shape: Shape = (3, 32, 32),
    policy: Policy | None = None,
) -> MultiExit:
    """The architecture without its means, to load a state into; arguments as for `attach_class_means`."""

    def head(features: Shape, n_classes: int) -> nn.Module:
        return ClassMeans(features[0], n_classes)

    return attach_exits(net, head, after=after, input_shape=input_shape, policy=policy)


@torch.no_grad()
def attach_class_means(
    net: nn.Sequential,
    split: Split,
    *,
    after: Sequence[str] | None = None,
    policy: Policy | None = None,
) -> MultiExit:
    """Class-mean exits on a trained net, by one pass over its training samples; the net's classifier stays last.

    Args:
        net: from `resnet`; shared, not copied, and unchanged.
        split: labelled samples of its training.
        after: parts that exits follow; default the ends of the first two stages.
        policy: decides at each exit but the last.

    Raises:
        LeakageError: test samples.
        CalibrationError: a class without samples.
        UsageError: no such part.
    """
    split.require("train", "calibration", purpose="class means")
    model = class_mean_exits(net, after=after, input_shape=split.picture_shape, policy=policy)
    device = next(net.parameters()).device
    pooled: list[list[Tensor]] = [[] for _ in model.stages[:-1]]
    with frozen(model):
        for x, _, _ in split.chunks(_CHUNK):
            h = x.to(device)
            for k, stage in enumerate(model.stages[:-1]):
                h = stage(h)
                pooled[k].append(h.mean((2, 3)))
    y = split.y.to(device)
    for head, parts in zip(model.heads, pooled, strict=False):
        assert isinstance(head, ClassMeans)
        head.fit(torch.cat(parts), y)
    return model
