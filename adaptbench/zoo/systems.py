"""The systems of the registry: a net, the parts that its weights lie in, and a fitted policy under one name.

Pictures of different kinds ("small", "cifar") have nets of their own under a system's name; one without a net for a
kind is not built for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from adaptbench.adaptive import Cascade, DecisionGraph, NetworkDag, Policy, Split, Static
from adaptbench.models.cifar import CifarNets, hosted, hosted_heads
from adaptbench.models.looped import looped, plain_net
from adaptbench.policies import DagSelection, LearnedCascade, Myopic, Oracle, SoftmaxThreshold, UniformThreshold
from adaptbench.zoo.parts import Part, TrainingRecipe, itself, stage

Fitter = Callable[[DecisionGraph, Split, TrainingRecipe, int], tuple[Policy, dict[str, object]]]


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a part's tensors go.

    Args:
        part: its name. into: the module, inside the system's net, that takes them.
        only: prefix of the tensors that are taken, without it.
    """

    part: str
    into: Callable[[Any], nn.Module] = itself
    only: str = ""


@dataclass(frozen=True, slots=True)
class Net:
    """A net for one kind of pictures.

    Args:
        build: without weights. weights: where they come from.
    """

    build: Callable[[Any], Any]
    weights: Callable[[Any], Sequence[Weights]]


@dataclass(frozen=True, slots=True)
class System:
    """One registry entry. A plug-in may register one, too.

    Args:
        name: in the registry. title: a line for reports. cite: its source.
        on: kind of pictures → the part whose net it is ("{nets.host}" in it is the host's depth), or a net of several.
        policy: the class of its fitted policy, None for nets that decide by weights or not at all.
        settings: the recipe's fields that its fit takes.
        fit: in place of the policy's own: (net, calibration, recipe, seed) → policy, what else the card should say.
        parts: of its own, beside the recipe's.
    """

    name: str
    title: str
    cite: str
    on: Mapping[str, str | Net]
    policy: type[Policy] | None = None
    settings: tuple[str, ...] = ()
    fit: Fitter | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)


def _sweep(
    net: DecisionGraph, calibration: Split, recipe: TrainingRecipe, seed: int
) -> tuple[Policy, dict[str, object]]:
    policy, points = LearnedCascade.sweep(net.log(calibration), list(recipe.prices), seed=seed)
    sweep = [{"lambda": p.setting, "accuracy": round(p.accuracy, 5), "macs_mean": round(p.macs_mean)} for p in points]
    return policy, {"lambda_sweep_on_choosing_part": sweep}


# ---------------------------------------------------------------------------- nets of several parts


def _dag(nets: Any) -> NetworkDag:
    return NetworkDag(nets.ladder(), input_shape=nets.shape)


def _cascade(nets: Any) -> Cascade:
    return Cascade(nets.ladder(), input_shape=nets.shape)


def _largest(nets: Any) -> Static:
    name, net = list(nets.ladder().items())[-1]
    return Static(net, input_shape=nets.shape, name=name)


def _rungs(nets: CifarNets) -> list[Weights]:
    return [Weights(f"resnet{depth}", stage(i)) for i, depth in enumerate(nets.depths)]


def _joined(nets: CifarNets) -> list[Weights]:
    """The small nets, the host's stages and last head, the bolted-on heads."""
    *small, largest = nets.depths
    return [
        *(Weights(f"resnet{depth}", stage(i)) for i, depth in enumerate(small)),
        Weights(f"resnet{largest}", lambda net: hosted(net, len(small))),
        Weights(f"resnet{largest}-sdn-heads", lambda net: hosted_heads(net, len(small))),
    ]


def _transformer(nets: Any) -> list[Weights]:
    """All but the halting scores."""
    return [
        Weights("a-vit", lambda net: net.stem, "stem."),
        Weights("a-vit", lambda net: net.blocks, "blocks."),
        Weights("a-vit", lambda net: net.head, "head."),
    ]


_SAMPLED = Net(lambda nets: nets.ats(), _transformer)
ON_LADDER: dict[str, str | Net] = {"small": "ladder", "cifar": Net(_dag, _rungs)}

# ---------------------------------------------------------------------------- the table

BOLUKBASI = "Bolukbasi, Wang, Dekel, Saligrama, ICML 2017"
HE = "He, Zhang, Ren, Sun, CVPR 2016"

softmax_threshold = System(
    "softmax-threshold",
    "one net, several exits, confidence thresholds looked up for ε",
    "Berestizshevsky & Even, ICANN 2019",
    {"small": "multi-exit", "cifar": "resnet{nets.host}-paper-heads"},
    SoftmaxThreshold,
    ("epsilon",),
)
learned_cascade = System(
    "learned-cascade",
    "nets of growing size, selection modules learned with or for them",
    "Guan, Liu, Liu, Peng, IJCAI 2018",
    {"small": "cascade", "cifar": Net(_cascade, _rungs)},
    LearnedCascade,
    fit=_sweep,
)
dag_selection = System(
    "dag-selection",
    "nets of growing size, every hand-over forward allowed, cost-sensitive choices",
    BOLUKBASI,
    ON_LADDER,
    DagSelection,
    ("drop",),
)
myopic = System("myopic", "the same nets, looking one net ahead", BOLUKBASI, ON_LADDER, Myopic, ("drop",))
uniform = System(
    "uniform",
    "the same nets as a chain, one confidence threshold",
    BOLUKBASI,
    ON_LADDER,
    UniformThreshold,
    ("drop",),
)
oracle = System(
    "oracle",
    "the same nets, cheapest right answer by looking at the label",
    BOLUKBASI,
    ON_LADDER,
    Oracle,
)
static = System(
    "static",
    "the largest net of the ladder, always run whole",
    "",
    {
        "small": Net(_largest, lambda nets: [Weights("ladder", stage(0), f"stages.{len(nets.widths) - 1}.")]),
        "cifar": Net(_largest, lambda nets: [Weights(f"resnet{nets.depths[-1]}", stage(0))]),
    },
)
resnet_ladder = System(
    "resnet-ladder",
    "nets of growing size as a chain, for a policy of your choice",
    BOLUKBASI,
    {"small": Net(_cascade, lambda nets: [Weights("ladder")]), "cifar": Net(_cascade, _rungs)},
)
multi_exit = System(
    "multi-exit",
    "one net with exits, for a policy of your choice",
    softmax_threshold.cite,
    softmax_threshold.on,
)
adversarial_heads = System(
    "adversarial-heads",
    "one net, several exits, heads trained against slow-down of their own rule",
    "after Madry et al., ICLR 2018; heads and rule of Berestizshevsky & Even",
    {"small": "multi-exit-adversarial-heads"},
    SoftmaxThreshold,
    ("epsilon",),
)
skipnet = System(
    "skipnet",
    "residual net, a feed-forward gate before each block",
    "after Wang, Yu, Dou, Darrell, Gonzalez, ECCV 2018",
    {"small": "skipnet", "cifar": "skipnet{nets.host}"},
)
skipnet_rnn = System(
    "skipnet-rnn",
    "residual net, one recurrent gate for all blocks",
    "Wang, Yu, Dou, Darrell, Gonzalez, ECCV 2018",
    {"cifar": "skipnet{nets.host}-rnn"},
)
blockdrop = System(
    "blockdrop",
    "residual net, a small net looks at the picture once and plans the blocks",
    "Wu et al., CVPR 2018",
    {"cifar": "blockdrop{nets.host}"},
)
act = System(
    "act",
    "residual net, each stage runs units until their halting scores add up to one",
    "after Figurnov et al., CVPR 2017 (ACT, by image)",
    {"small": "act", "cifar": "act20"},
)
a_vit = System(
    "a-vit",
    "small vision transformer, tokens leave when their halting scores add up to one",
    "after Yin, Vahdat, Alvarez, Mallya, Kautz, Molchanov, A-ViT, CVPR 2022",
    {"small": "a-vit", "cifar": "a-vit"},
)
ats = System(
    "ats",
    "the same vision transformer, tokens sampled by the class token's attention, nothing trained for it",
    "after Fayyaz et al., Adaptive Token Sampling, ECCV 2022",
    {"small": _SAMPLED, "cifar": _SAMPLED},
)
sdn = System(
    "sdn",
    "one net, six internal classifiers and its own, one confidence threshold",
    "Kaya, Hong, Dumitras, ICML 2019",
    {"cifar": "resnet{nets.host}-sdn-heads"},
    UniformThreshold,
    ("drop",),
)
class_means = System(
    "class-means",
    "one net, exits by the distance to class means, nothing trained",
    "Görmez, Dasari, Koyuncu, E²CM, 2021",
    {"cifar": "resnet{nets.host}-class-means"},
    UniformThreshold,
    ("drop",),
)
exits_and_nets = System(
    "exits-and-nets",
    "small nets and the exits of the largest in one graph, cost-sensitive choices",
    BOLUKBASI,
    {"cifar": Net(CifarNets.exits_and_nets, _joined)},
    DagSelection,
    ("drop",),
)
eenet = System(
    "eenet",
    "one net trained with exits of three convolutions, one confidence threshold",
    "Ilhan et al., WACV 2024",
    {"cifar": "resnet{nets.host}-eenet-joint"},
    UniformThreshold,
    ("drop",),
)
msdnet = System(
    "msdnet",
    "multi-scale dense net, five classifiers, one confidence threshold",
    "Huang, Chen, Li, Wu, van der Maaten, Weinberger, ICLR 2018",
    {"cifar": "msdnet"},
    UniformThreshold,
    ("drop",),
)
densenet121 = System(
    "densenet121",
    "DenseNet-121, an exit after each dense block, one confidence threshold",
    "Huang, Liu, van der Maaten, Weinberger, CVPR 2017; Ilhan et al., WACV 2024",
    {"cifar": "densenet121"},
    UniformThreshold,
    ("drop",),
)
boosted_exits = System(
    "boosted-exits",
    "one net whose exits add to the answer of the exit before, one confidence threshold",
    "Yu et al., Boosted Dynamic Neural Networks, AAAI 2023",
    {"small": "boosted-exits", "cifar": "boosted-exits"},
    UniformThreshold,
    ("drop",),
)
closed_loop_inference = System(
    "closed-loop-inference",
    "one net, hard inputs go round again with a calibrated tail; the backward pass counts",
    "after Niu et al., arXiv 2203.10853",
    {
        "cifar": Net(
            lambda nets: looped(nets.net(nets.host), n_classes=nets.n_classes),
            lambda nets: [Weights(f"resnet{nets.host}", plain_net)],
        )
    },
    UniformThreshold,
    ("drop",),
)
text_exits = System(
    "text-exits",
    "an encoder of six layers, an exit after each, one confidence threshold",
    "after Xin et al., DeeBERT, ACL 2020; Wang et al., MiniLM, NeurIPS 2020",
    {"text": "text-exits", "minilm": "minilm-heads"},
    UniformThreshold,
    ("drop",),
)
text_exits_tuned = System(
    "text-exits-tuned",
    "the same encoder, its biases and layer norms tuned with the exits, one confidence threshold",
    "after Ben Zaken, Goldberg, Ravfogel, BitFit, ACL 2022; Ilhan et al., WACV 2024",
    {"minilm": "minilm-tuned"},
    UniformThreshold,
    ("drop",),
)
dense_exits = System(
    "dense-exits",
    "a segmentation net, an exit for every pixel after each of four stages, one threshold on the image's confidence",
    "after Ilhan et al., WACV 2024",
    {"pixels": "dense-exits"},
    UniformThreshold,
    ("drop",),
)
resnet8, resnet14, resnet20, resnet32, resnet56, resnet110 = (
    System(f"resnet{depth}", f"CIFAR ResNet-{depth}, always run whole", HE, {"cifar": f"resnet{depth}"})
    for depth in (8, 14, 20, 32, 56, 110)
)
