"""A plain net that decisions were added to, and that still runs by itself: the static reference of gates and tokens."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from adaptbench.adaptive.model import AdaptiveModel, frozen


class OnABackbone(AdaptiveModel):
    """Its reference is the whole net, nobody being asked."""

    @abstractmethod
    def plain_forward(self, x: Tensor) -> Tensor:
        """(N, C): everything runs, and no decision is made."""

    def dense_logits(self, x: Tensor) -> Tensor:
        """(N, 1, C) of the backbone, behind a defence where there is one."""
        return self.plain_forward(self.entered(self.taken(x)))[:, None]

    def run_reference(self, x: Tensor) -> Tensor:
        """(N, C) of the backbone."""
        with frozen(self), torch.no_grad():
            return self.plain_forward(x)

    def serve_reference(self, x: Tensor) -> Tensor:
        """The reference and nothing beside it."""
        if type(self).run_reference is not OnABackbone.run_reference:
            return super().serve_reference(x)
        return self.plain_forward(x)
