"""The committed recipes, tables of parts: every shipped checkpoint is one of these, run by ``adaptbench train``.

CIFAR has two scales. "short" is what a few hours on two cores allow: small pictures first, and each net of the ladder
grown from the one below it. "full" is the literature's length, for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from adaptbench.adaptive import Cascade, NetworkDag, Static
from adaptbench.data.encoders import MINILM
from adaptbench.models.cifar import CifarNets
from adaptbench.models.exit_heads import HEADS, attach_exits, backbone_of, boosted
from adaptbench.models.nearest_mean import class_mean_exits
from adaptbench.models.segmentation import PixelNets
from adaptbench.models.small import SmallNets
from adaptbench.models.text import TextNets, few_weights
from adaptbench.zoo.parts import Part, TrainingRecipe, all_heads, bolted_heads, itself, stage
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.pixels import PixelTraining
from adaptbench.zoo.training.procedures import (
    BlockDropPlan,
    ClassMeanExits,
    Exits,
    FrozenHeads,
    Halting,
    HeadsAgainstSlowdown,
    JointCascade,
    Ladder,
    Plain,
    RateGates,
    SkipNet,
)
from adaptbench.zoo.training.text import TextExits, TextHeads, TunedExits
from adaptbench.zoo.training.tokens import TokenHalting

DEPTHS = (8, 14, 20, 32, 56, 110)


def _ladder(nets: SmallNets) -> NetworkDag:
    """Each net from the same random state, so that none hangs on how many stand before it."""
    start, built = torch.get_rng_state(), {}
    for name in nets.widths:
        torch.set_rng_state(start)
        built[name] = nets.net(name)
    return NetworkDag(built, input_shape=nets.shape)


def small_recipe(
    backbone: Phase,
    gates: Phase,
    joint: Phase,
    hardened: Phase,
    *,
    tokens: TokenHalting,
    eps: float,
    epsilon: float = 0.01,
    halting: Phase | None = None,
    tau: float = 0.1,
) -> TrainingRecipe:
    """Of small pictures.

    Args:
        backbone: every net from scratch. gates: skipnet's second phase. joint: the cascade's joint phase.
        hardened: of exit heads against slow-down within eps. tokens: of the transformer.
        epsilon: of the softmax-threshold policy.
        halting, tau: of the halting net; its phase is the backbone's if None.
    """
    return TrainingRecipe(
        {
            "ladder": Part(_ladder, Ladder(backbone)),
            "cascade": Part(
                lambda nets: Cascade(nets.ladder(), input_shape=nets.shape), JointCascade(joint, 0.05), ("ladder",)
            ),
            "multi-exit": Part(SmallNets.multi_exit, Exits(backbone, "weighted", {"values": (0.3, 0.4, 0.6, 1.0)})),
            "multi-exit-adversarial-heads": Part(
                SmallNets.multi_exit,
                HeadsAgainstSlowdown(hardened, epsilon, eps),
                ("multi-exit",),
                bolted_heads,
                itself,
            ),
            "boosted-exits": Part(lambda nets: boosted(nets.multi_exit()), Exits(backbone, "boosted")),
            "skipnet": Part(SmallNets.skipnet, RateGates((backbone, gates))),
            "act": Part(SmallNets.act, Halting(halting or backbone, tau)),
            "a-vit": Part(SmallNets.a_vit, tokens),
        },
        halved=False,
        prices=(0.005, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.03, 0.04, 0.08, 0.16, 0.32),
        epsilon=epsilon,
    )


def cifar_recipe(
    *,
    nets: Mapping[int, Phase],
    heads: Phase,
    joint: Phase,
    gates: SkipNet,
    plan: BlockDropPlan,
    halting: Halting,
    tokens: TokenHalting,
    scratch: Phase,
    grown: Mapping[int, int] | None = None,
    **of_policies: Any,
) -> TrainingRecipe:
    """Of CIFAR.

    Args:
        nets: depth → phase. grown: depth → the shallower net it starts from.
        heads: of exits on a frozen net. joint: of exits and net together, from the trained net.
        gates, plan, halting, tokens: of SkipNets, BlockDrops, halting nets and transformers.
        scratch: of MSDNet and DenseNet.
        of_policies: fields of `TrainingRecipe`.
    """
    parts = {
        "msdnet": Part(CifarNets.msdnet, Exits(scratch, "uniform")),
        "densenet121": Part(CifarNets.densenet, Exits(scratch, "distilled")),
        "boosted-exits": Part(lambda nets: boosted(nets.msdnet()), Exits(scratch, "boosted")),
        "a-vit": Part(CifarNets.a_vit, tokens, ("resnet8",)),
    }
    for depth in nets:
        parts |= _hosted(depth, nets[depth], (grown or {}).get(depth), heads, joint, gates, plan, halting)
    return TrainingRecipe(
        parts, halved=True, **{"prices": (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.32), **of_policies}
    )


def _hosted(
    depth: int,
    phase: Phase,
    start: int | None,
    heads: Phase,
    joint: Phase,
    gates: SkipNet,
    plan: BlockDropPlan,
    halting: Halting,
) -> dict[str, Part]:
    """A ResNet and all that is bolted onto it."""
    name = f"resnet{depth}"
    parts = {
        name: Part(
            lambda nets: Static(nets.net(depth), input_shape=nets.shape, name=name),
            Plain(phase, start),
            (f"resnet{start}",) if start else (),
            stage(0),
        ),
        f"{name}-class-means": Part(
            lambda nets: class_mean_exits(nets.net(depth)), ClassMeanExits(), (name,), bolted_heads, backbone_of
        ),
        f"skipnet{depth}": Part(lambda nets: nets.gated(depth, "ffgate2"), gates, (name,)),
        f"skipnet{depth}-rnn": Part(lambda nets: nets.gated(depth, "rnn"), gates, (name,)),
        f"blockdrop{depth}": Part(
            lambda nets: nets.gated(depth, "blockdrop"), plan, (name, "resnet8") if plan.plan_rate else (name,)
        ),
    }
    if depth > 8:  # a stage of one unit cannot halt
        parts[f"act{depth}"] = Part(lambda nets: nets.act(depth), halting, (name,))
    for kind in HEADS:

        def build(nets: CifarNets, kind: str = kind) -> Any:
            return attach_exits(nets.net(depth), kind)

        parts[f"{name}-{kind}-heads"] = Part(build, FrozenHeads(heads), (name,), bolted_heads, backbone_of)
        parts[f"{name}-{kind}-joint"] = Part(build, Exits(joint, "distilled"), (name,))
    return parts


def small_text_recipe(phase: Phase) -> TrainingRecipe:
    """The small encoder with all its exits, from scratch."""
    return TrainingRecipe({"text-exits": Part(TextNets.exits, TextExits(phase))}, halved=True, prices=())


def minilm_recipe(phase: Phase, tuned: Phase) -> TrainingRecipe:
    """Exits on MiniLM: heads on it as it is, for which it runs once over the training texts, and tuned with its heads.

    Args:
        phase: of the heads alone. tuned: of heads, biases and layer norms together.
    """
    parts = {
        "minilm-heads": Part(TextNets.exits, TextHeads(phase, MINILM.name), holds=all_heads),
        "minilm-tuned": Part(TextNets.exits, TunedExits(tuned, MINILM.name, MINILM.sha256), holds=few_weights),
    }
    return TrainingRecipe(parts, halved=True, prices=())


def pixel_recipe(phase: Phase) -> TrainingRecipe:
    """A segmentation net with all its exits, from scratch."""
    return TrainingRecipe({"dense-exits": Part(PixelNets.exits, PixelTraining(phase))}, halved=True, prices=())


_HEADS: dict[str, Any] = {"optimiser": "adamw", "precision": "bfloat16"}
_TUNED: dict[str, Any] = {**_HEADS, "clip_norm": 1.0}
_SMALL_FIRST = ((0.0, 24), (0.5, 32))


def _short(epochs: int, lr: float = 0.2) -> Phase:
    return Phase(epochs, lr, 128, "crop+flip", ema=0.998, sizes=_SMALL_FIRST)


def _long(epochs: int, lr: float) -> Phase:
    return Phase(epochs, lr, 128, "crop+flip", ema=0.999, precision="bfloat16")


def _gated(epochs: int, lr: float) -> Phase:
    return Phase(epochs, lr, 128, "crop+flip", precision="bfloat16")


def _attending(epochs: int, lr: float, ema: float = 0.98) -> Phase:
    return Phase(epochs, lr, 128, "crop+flip", 0.05, ema=ema, optimiser="adamw", precision="bfloat16", clip_norm=1.0)


_CIFAR = {
    "short": cifar_recipe(
        nets={
            8: _short(16),
            14: _short(14),
            20: _short(14),
            32: _short(8, 0.15),
            56: _short(8, 0.15),
            110: _short(6, 0.1),
        },
        heads=Phase(16, 0.002, 256, optimiser="adamw"),
        joint=Phase(4, 0.05, 128, "crop+flip", ema=0.998),
        gates=SkipNet(
            (Phase(4, 0.02, 128, "crop+flip", sizes=_SMALL_FIRST), Phase(1, 0.002, 128, "crop+flip")), gate_alpha=1.0
        ),
        plan=BlockDropPlan(
            (
                Phase(4, 0.02, 128, "crop+flip", sizes=_SMALL_FIRST),
                Phase(2, 3e-4, 128, "crop+flip", optimiser="adamw", sizes=_SMALL_FIRST),
            ),
            plan_rate=0.5,
            plan_alpha=0.95,
        ),
        halting=Halting(
            Phase(2, 0.05, 128, "crop+flip", ema=0.99, precision="bfloat16", sizes=((0.0, 24), (0.5, 32))), 0.1
        ),
        tokens=TokenHalting((_attending(1, 1e-3), _attending(1, 1e-3)), start=-1.7, settled=0.42),
        scratch=_short(20, 0.1),
        grown={20: 8, 56: 20, 32: 8, 14: 8, 110: 20},
    ),
    "full": cifar_recipe(
        nets={depth: _long(200, 0.1) for depth in DEPTHS},
        heads=Phase(60, 0.002, 256, "crop+flip", optimiser="adamw"),
        joint=_long(60, 0.05),
        gates=SkipNet((_gated(60, 0.05), _gated(40, 0.01))),
        plan=BlockDropPlan((_gated(60, 0.02), _gated(60, 0.01))),
        halting=Halting(_long(200, 0.1), 0.01),
        tokens=TokenHalting((_attending(200, 1e-3, 0.999), _attending(50, 5e-4, 0.999))),
        scratch=_long(200, 0.1),
    ),
}

RECIPES: dict[str, dict[str, TrainingRecipe]] = {
    "digits": {
        "short": small_recipe(
            backbone=Phase(60, 0.1, 64, "crop", ema=0.98),
            gates=Phase(40, 0.05, 64, "crop", ema=0.98),
            joint=Phase(15, 0.01, 64, "crop", ema=0.98),
            hardened=Phase(20, 0.01, 64, "crop", ema=0.98),
            tokens=TokenHalting(
                (
                    Phase(80, 2e-3, 64, "crop", 0.05, ema=0.98, optimiser="adamw", clip_norm=1.0),
                    Phase(40, 1e-3, 64, "crop", 0.05, ema=0.98, optimiser="adamw", clip_norm=1.0),
                )
            ),
            eps=16 / 255,
            epsilon=0.002,
        )
    },
    "fashion-mnist": {
        "short": small_recipe(
            backbone=Phase(14, 0.15, 128, "crop+flip", ema=0.998),
            gates=Phase(6, 0.05, 128, "crop+flip", ema=0.998),
            joint=Phase(3, 0.01, 128, "crop+flip", ema=0.998),
            hardened=Phase(2, 0.02, 128, "crop+flip", ema=0.998),
            tokens=TokenHalting((_attending(2, 1e-3), _attending(1, 1e-3)), start=-1.7),
            eps=8 / 255,
            halting=Phase(5, 0.15, 128, "crop+flip", ema=0.998, precision="bfloat16"),
        )
    },
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "pasted-digits": {
        "short": pixel_recipe(
            Phase(12, 5e-3, 16, weight_decay=0.02, ema=0.99, optimiser="adamw", precision="bfloat16", clip_norm=1.0)
        )
    },
    "sst2": {"short": small_text_recipe(Phase(6, 2e-3, 128, weight_decay=0.05, optimiser="adamw", clip_norm=1.0))},
    "ag-news": {"short": small_text_recipe(Phase(12, 2e-3, 64, weight_decay=0.05, optimiser="adamw", clip_norm=1.0))},
    "sst2-minilm": {
        "short": minilm_recipe(Phase(8, 2e-3, 256, weight_decay=0.05, **_HEADS), Phase(2, 2e-3, 64, **_TUNED))
    },
    "ag-news-minilm": {
        "short": minilm_recipe(Phase(30, 2e-3, 256, weight_decay=0.05, **_HEADS), Phase(4, 2e-3, 32, **_TUNED))
    },
}
"""Data set → scale → recipe."""
