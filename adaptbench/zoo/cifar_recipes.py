"""Recipes for the CIFAR nets, on two scales.

"short" is what a few hours on two cores allow: small pictures first, and each net of the ladder grown from the one
below it. "full" is the literature's length, for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adaptbench.zoo.training.phase import Phase

_SMALL_FIRST = ((0.0, 24), (0.5, 32))


@dataclass(frozen=True, slots=True)
class CifarRecipe:
    """How the parts are trained.

    Args:
        nets: depth → phase. grown: depth → the shallower net it starts from.
        heads: of exits on a frozen net. joint: of exits and net together, from the trained net.
        gates: SkipNet's two phases, supervised and hybrid. plan: BlockDrop's two, before and in joint training. None
            averages weights: a gate's margin wanders about 0, and its average decides what no net was trained with.
        gate_rate: share of the blocks that SkipNet's gates are held to; the paper asks for none. gate_alpha: reward
            for skipping everything in the hybrid phase; 0.1 in the paper, where it is tuned by net.
        plan_rate: None trains BlockDrop's first phase by the published curriculum, which decides on one block more each
            epoch. A share trains net and plan straight through at that share of blocks instead, the planner begun
            from the trained ResNet-8: a few epochs are too few for the curriculum to reach the front of a deep net.
        plan_alpha: BlockDrop's bound on the chance of each way in joint training; released: 0.8.
        scratch: of MSDNet and DenseNet.
        seed: of everything.
        prices, drop, epsilon: of the policies fitted on top, as in `recipes.Recipe`.
    """

    nets: Mapping[int, Phase]
    heads: Phase
    joint: Phase
    gates: tuple[Phase, Phase]
    plan: tuple[Phase, Phase]
    scratch: Phase
    grown: Mapping[int, int] = field(default_factory=dict)
    gate_rate: float = 0.6
    gate_alpha: float = 0.1
    plan_rate: float | None = None
    plan_alpha: float = 0.8
    seed: int = 0
    prices: tuple[float, ...] = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.32)
    drop: float = 0.005
    epsilon: float = 0.01

    def of(self, part: str) -> dict[str, Any]:
        """What concerns one part, for its card."""
        if part.startswith("resnet") and part[6:].isdigit():
            depth = int(part[6:])
            return {"phase": asdict(self.nets[depth]), "grown_from": self.grown.get(depth)}
        if part.endswith("-heads"):
            return {"phase": asdict(self.heads), "backbone": "frozen"}
        if part.endswith("-joint"):
            return {"phase": asdict(self.joint), "backbone": "trained on"}
        if part.endswith("-class-means"):
            return {"backbone": "frozen", "means": "one pass over the training split, nothing trained"}
        if part.startswith("blockdrop"):
            return {
                "phases": [asdict(p) for p in self.plan],
                "plan_rate": self.plan_rate,
                "plan_alpha": self.plan_alpha,
            }
        if part.startswith("skipnet"):
            return {
                "phases": [asdict(p) for p in self.gates],
                "gate_rate": self.gate_rate,
                "gate_alpha": self.gate_alpha,
            }
        return {"phase": asdict(self.scratch)}


def _short(epochs: int, lr: float = 0.2) -> Phase:
    return Phase(epochs, lr, 128, "crop+flip", ema=0.998, sizes=_SMALL_FIRST)


def _long(epochs: int, lr: float) -> Phase:
    return Phase(epochs, lr, 128, "crop+flip", ema=0.999, precision="bfloat16")


def _gated(epochs: int, lr: float) -> Phase:
    return Phase(epochs, lr, 128, "crop+flip", precision="bfloat16")


RECIPES: dict[str, CifarRecipe] = {
    "short": CifarRecipe(
        nets={
            8: _short(16),
            14: _short(14),
            20: _short(14),
            32: _short(8, 0.15),
            56: _short(8, 0.15),
            110: _short(6, 0.1),
        },
        heads=Phase(16, 0.002, 256, "none", optimiser="adamw"),
        joint=Phase(4, 0.05, 128, "crop+flip", ema=0.998),
        gates=(
            Phase(4, 0.02, 128, "crop+flip", sizes=_SMALL_FIRST),
            Phase(1, 0.002, 128, "crop+flip"),
        ),
        gate_alpha=1.0,
        plan=(
            Phase(4, 0.02, 128, "crop+flip", sizes=_SMALL_FIRST),
            Phase(2, 3e-4, 128, "crop+flip", optimiser="adamw", sizes=_SMALL_FIRST),
        ),
        plan_rate=0.5,
        plan_alpha=0.95,
        scratch=_short(20, 0.1),
        grown={20: 8, 56: 20, 32: 8, 14: 8, 110: 20},
    ),
    "full": CifarRecipe(
        nets={depth: _long(200, 0.1) for depth in (8, 14, 20, 32, 56, 110)},
        heads=Phase(60, 0.002, 256, "crop+flip", optimiser="adamw"),
        joint=_long(60, 0.05),
        gates=(_gated(60, 0.05), _gated(40, 0.01)),
        plan=(_gated(60, 0.02), _gated(60, 0.01)),
        scratch=_long(200, 0.1),
    ),
}
