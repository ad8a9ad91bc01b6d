"""Adaptive computation time in residual nets: the units of a stage run until their halting scores add up to one.

Graves, arXiv 1603.08983; on residual nets Figurnov, Collins, Zhu, Zhang, Huang, Vetrov, Salakhutdinov, "Spatially
Adaptive Computation Time for Residual Networks", CVPR 2017. An image halts as a whole, as in their ACT; the spatial
variant (SACT) halts each position on its own, masks what it does not need, and is not what is run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.gated import GatedNetwork
from adaptbench.adaptive.gates import Block, Gates
from adaptbench.adaptive.model import frozen
from adaptbench.errors import UsageError

EPSILON = 0.01
START = 0.0
"""Bias of every halting score at the start: σ(0) = 0.5, so that at first a stage halts at its second unit."""


def pack(state: Tensor, answer: Tensor, halting: Tensor) -> Tensor:
    """One tensor for the core: a unit's state, the weighted sum so far, and Σh as one plane.

    Args:
        state, answer: (n, C, H, W). halting: (n,).

    Returns:
        (n, 2C + 1, H, W).
    """
    plane = halting.to(state.dtype)[:, None, None, None].expand(-1, 1, *state.shape[2:])
    return torch.cat([state, answer, plane], 1)


def unpack(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """State (n, C, H, W), weighted sum (n, C, H, W), Σh (n,)."""
    width = packed.shape[1] // 2
    return packed[:, :width], packed[:, width : 2 * width], halting_of(packed)


def halting_of(packed: Tensor) -> Tensor:
    """(n,) Σh up to here."""
    return packed[:, -1, 0, 0]


def _weighed(answer: Tensor, weight: Tensor, state: Tensor) -> Tensor:
    return answer + weight[:, None, None, None].to(state.dtype) * state


class HaltingUnit(nn.Module):
    """A residual unit, its halting score h = σ(w · pooled features + b), and its share of the stage's answer.

    The share is h, and what is left of one for the unit at which Σh reaches 1 − ε; after that it is nothing.

    Args:
        unit: features → features. channels: of what it returns.
        first: of its stage; it reads `settled` features, or a stem's.
        epsilon: ε.
    """

    def __init__(self, unit: nn.Module, channels: int, *, first: bool, epsilon: float = EPSILON) -> None:
        super().__init__()
        self.unit, self.first, self.epsilon = unit, first, epsilon
        self.score = nn.Linear(channels, 1)
        nn.init.constant_(self.score.bias, START)

    def forward(self, h: Tensor) -> Tensor:
        """Packed, or plain where it is the first, → packed."""
        if self.first:
            state = self.unit(h)
            answer, before = torch.zeros_like(state), state.new_zeros(len(state))
        else:
            given, answer, before = unpack(h)
            state = self.unit(given)
        after = before + torch.sigmoid(self.score(state.mean((2, 3))).squeeze(1))
        share = torch.where(after < 1 - self.epsilon, after - before, 1 - before)
        share = torch.where(before < 1 - self.epsilon, share, torch.zeros_like(share))
        return pack(state, _weighed(answer, share, state), after)


class Settle(nn.Module):
    """The answer of a stage: where its last unit did not reach 1 − ε, that unit takes what is left of one, too.

    Args:
        epsilon: ε.
    """

    def __init__(self, epsilon: float = EPSILON) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, packed: Tensor) -> Tensor:
        """(n, 2C + 1, H, W) → (n, C, H, W)."""
        state, answer, halting = unpack(packed)
        left = torch.where(halting < 1 - self.epsilon, 1 - halting, torch.zeros_like(halting))
        return _weighed(answer, left, state)


class HaltingGates(Gates):
    """A unit runs where Σh < 1 − ε: the margin is 1 − ε − Σh. It is read off the features and costs nothing.

    Args:
        epsilon: ε.
    """

    name = "halting scores"

    def __init__(self, epsilon: float = EPSILON) -> None:
        super().__init__()
        self.epsilon = epsilon

    def margin(self, block: int, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(n,) of packed features; there is no state."""
        return (1 - self.epsilon) - halting_of(features), state


class HaltingNetwork(GatedNetwork):
    """Stages of units; in each, an image runs units until it halts. Running all of them would give the same answer.

    Args:
        stem: pictures → features.
        stages: units, features → features, and the channels that they return; the first of a stage always runs.
        head: features → logits.
        epsilon: ε.
        domain, n_classes: what it takes and gives.

    Raises:
        UsageError: no stage with two units, or an ε outside (0, 1).
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[tuple[Sequence[nn.Module], int]],
        head: nn.Module,
        domain: Domain,
        n_classes: int,
        epsilon: float = EPSILON,
    ) -> None:
        if not 0 < epsilon < 1 or not any(len(units) > 1 for units, _ in stages):
            raise UsageError(
                f"stages of {[len(units) for units, _ in stages]} units with ε = {epsilon} cannot halt.",
                todo="Give a stage of two units or more, and 0 < ε < 1; the paper's ε is 0.01.",
            )
        blocks = []
        for s, (units, channels) in enumerate(stages, start=1):
            for j, unit in enumerate(units):
                first = j == 0
                run: nn.Module = HaltingUnit(unit, channels, first=first, epsilon=epsilon)
                if first and s > 1:
                    run = nn.Sequential(Settle(epsilon), run)
                blocks.append(Block(f"stage{s}_{j}", run=run, gated=not first))
        super().__init__(
            stem=stem,
            blocks=blocks,
            head=nn.Sequential(Settle(epsilon), head),
            gates=HaltingGates(epsilon),
            domain=domain,
            n_classes=n_classes,
        )
        self.epsilon = epsilon
        self.units = tuple(len(units) for units, _ in stages)

    def take(self, net: nn.Sequential) -> None:
        """A trained net's own weights for stem, units and head, in their order; halting scores stay as they are.

        Args:
            net: stem parts, then the units, then the head.
        """
        inner = [m.unit for m in self.modules() if isinstance(m, HaltingUnit)]
        parts = list(net.children())
        first = len(parts) - 1 - len(inner)
        self.stem.load_state_dict(nn.Sequential(*parts[:first]).state_dict())
        for unit, part in zip(inner, parts[first:-1], strict=True):
            unit.load_state_dict(part.state_dict())
        self.head[-1].load_state_dict(parts[-1].state_dict())  # type: ignore[index]

    @property
    def deepest(self) -> tuple[int, ...]:
        """The largest ponder cost of each stage: all its units, and a remainder of one."""
        return tuple(count + 1 for count in self.units)

    def ponder(self, margins: Tensor) -> Tensor:
        """(n, S) ponder cost ρ = N + R of each stage: units run, and what was left of one for the last of them.

        N has no gradient; R = 1 − Σ_{i<N} h has that of the scores before the last.

        Args:
            margins: (n, D), 1 − ε − Σh before each unit but the first of its stage, in order.
        """
        costs = []
        for of_stage in torch.split(margins, [count - 1 for count in self.units], dim=1):
            ran = of_stage > 0
            spent = torch.where(ran, (1 - self.epsilon) - of_stage, torch.zeros_like(of_stage))
            left = 1 - spent.amax(1) if spent.shape[1] else spent.new_ones(len(spent))
            costs.append(1 + ran.sum(1) + left)
        return torch.stack(costs, 1)

    def unmasked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Every unit on every sample, in the caller's train or eval mode: logits (n, C) and margins (n, D).

        A unit behind the one that halted has no share of the answer, so that both are those of the hard pass; margins
        behind it go on falling and keep their sign.
        """
        h = self.stem(self.taken(x))
        margins = []
        for gated, unit in zip(self.gated, self.bodies, strict=True):
            if gated:
                margins.append(self.gates.margin(0, h, None)[0].float())
            h = unit(h)
        return self.head(h), torch.stack(margins, 1)


def ponder_cost(model: HaltingNetwork, x: Tensor) -> Tensor:
    """(n, S) ponder cost of each stage, without gradients. x: (n, C, H, W)."""
    with frozen(model), torch.no_grad():
        return model.ponder(model.unmasked(x)[1])
