"""BlockDrop on a CIFAR ResNet: a small net looks at the picture once and plans which blocks run.

Wu, Nagarajan, Kumar, Rennie, Davis, Grauman, Feris, "BlockDrop: Dynamic Inference Paths in Residual Networks",
CVPR 2018.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from adaptbench.adaptive import GatedNetwork, Gates
from adaptbench.models.gated_resnet import gate_blocks, residual_blocks
from adaptbench.models.resnet import resnet


class PlannedGates(Gates):
    """All margins from one look at the picture, before anything else runs.

    Args:
        planner: (n, C, H, W) → (n, K) log-odds of running each block. Its MACs count, for every sample.
    """

    name = "planned gates"
    plans = True

    def __init__(self, planner: nn.Module) -> None:
        super().__init__()
        self.planner = planner

    def start(self, x: Tensor) -> Tensor:
        """(n, K) log-odds; the state that travels by sample."""
        plan: Tensor = self.planner(x)
        return plan

    def margin(self, block: int, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The plan's column."""
        return state[:, block], state


def blockdrop(
    net: nn.Sequential, planner: nn.Module | None = None, *, statistics: str = "cifar10", side: int = 32
) -> GatedNetwork:
    """A ResNet whose blocks, all of them, are run or dropped by a plan.

    Deviates: shortcuts are option A where the released nets have convolutions, as our backbones are He et al.'s.

    Args:
        net: from `resnet`; shared, not copied.
        planner: pictures → (n, K) log-odds for K blocks; default a fresh ResNet-8 with K outputs, as released.
        statistics: whose pixel statistics the default planner holds.
        side: pixels a side.

    Raises:
        UsageError: no CIFAR ResNet.
    """
    blocks = residual_blocks(net)
    if planner is None:
        planner = resnet(8, len(blocks), statistics).to(next(net.parameters()).device)
    return gate_blocks(net, PlannedGates(planner), (), side)
