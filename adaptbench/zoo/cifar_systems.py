"""Systems of the registry that are built for CIFAR pictures only."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Static
from adaptbench.errors import UsageError
from adaptbench.models import cifar
from adaptbench.models.cifar import CifarPlan
from adaptbench.models.exit_heads import backbone_of
from adaptbench.models.looped import looped, plain_net
from adaptbench.models.nearest_mean import class_mean_exits
from adaptbench.policies import DagSelection, UniformThreshold
from adaptbench.zoo.cifar import heads_of
from adaptbench.zoo.systems import (
    BOLUKBASI,
    Part,
    Plan,
    System,
    as_multi_exit,
    exit_parts,
    exits,
    fit_dag,
    fit_uniform,
    gated,
    stage,
)


def net_of(model: AdaptiveModel) -> nn.Module:
    """The plain net inside a looped one."""
    assert isinstance(model, DecisionGraph)
    return plain_net(model)


HE = "He, Zhang, Ren, Sun, CVPR 2016"


def cifar_only(build: Callable[[CifarPlan], AdaptiveModel]) -> Callable[[Plan], AdaptiveModel]:
    """A builder that refuses other pictures, with the reason."""

    def checked(plan: Plan) -> AdaptiveModel:
        if not isinstance(plan, CifarPlan):
            raise UsageError(
                "this model is built for CIFAR pictures, 32×32 in colour.", todo="Ask for data cifar10 or cifar100."
            )
        return build(plan)

    return checked


def _joined_parts(plan: CifarPlan) -> list[Part]:
    """Of exits_and_nets: the small nets, the host's stages and last head, the bolted-on heads."""
    small_nets = [
        Part(f"resnet{d}", lambda m, i=i: stage(m, i))  # type: ignore[misc]
        for i, d in enumerate(plan.ladder[:-1])
    ]
    first = len(plan.ladder) - 1
    return [
        *small_nets,
        Part(f"resnet{plan.ladder[-1]}", lambda m: cifar.hosted(m, first)),
        Part(f"resnet{plan.ladder[-1]}-sdn-heads", lambda m: cifar.hosted_heads(m, first)),
    ]


sdn = System(
    "sdn",
    "one net, six internal classifiers and its own, one confidence threshold",
    "Kaya, Hong, Dumitras, ICML 2019",
    "",
    cifar_only(exits("sdn")),
    exit_parts("sdn"),
    None,
    UniformThreshold,
    fit_uniform,
)
exits_and_nets = System(
    "exits-and-nets",
    "small nets and the exits of the largest in one graph, cost-sensitive choices",
    BOLUKBASI,
    "",
    cifar_only(cifar.exits_and_nets),
    _joined_parts,
    None,
    DagSelection,
    fit_dag(DagSelection),
)
skipnet_rnn = System(
    "skipnet-rnn",
    "residual net, one recurrent gate for all blocks",
    "Wang, Yu, Dou, Darrell, Gonzalez, ECCV 2018",
    "",
    cifar_only(gated("rnn")),
    lambda plan: [Part(f"skipnet{plan.host}-rnn", lambda m: m)],
)


def _resnet(depth: int) -> System:
    return System(
        f"resnet{depth}",
        f"CIFAR ResNet-{depth}, always run whole",
        HE,
        "",
        cifar_only(lambda plan: Static(plan.net(depth), input_shape=plan.shape, name=f"resnet{depth}")),
        lambda plan: [Part(f"resnet{depth}", lambda m: stage(m, 0))],
    )


resnet8, resnet14, resnet20, resnet32, resnet56, resnet110 = map(_resnet, (8, 14, 20, 32, 56, 110))

eenet = System(
    "eenet",
    "one net trained with exits of three convolutions, one confidence threshold",
    "Ilhan et al., WACV 2024",
    "",
    cifar_only(exits("eenet")),
    lambda plan: [Part(f"resnet{plan.host}-eenet-joint", lambda m: m)],
    None,
    UniformThreshold,
    fit_uniform,
)
msdnet = System(
    "msdnet",
    "multi-scale dense net, five classifiers, one confidence threshold",
    "Huang, Chen, Li, Wu, van der Maaten, Weinberger, ICLR 2018",
    "",
    cifar_only(lambda plan: cifar.whole_net(plan, "msdnet")),
    lambda plan: [Part("msdnet", lambda m: m)],
    None,
    UniformThreshold,
    fit_uniform,
)
densenet121 = System(
    "densenet121",
    "DenseNet-121, an exit after each dense block, one confidence threshold",
    "Huang, Liu, van der Maaten, Weinberger, CVPR 2017; Ilhan et al., WACV 2024",
    "",
    cifar_only(lambda plan: cifar.whole_net(plan, "densenet121")),
    lambda plan: [Part("densenet121", lambda m: m)],
    None,
    UniformThreshold,
    fit_uniform,
)
blockdrop = System(
    "blockdrop",
    "residual net, a small net looks at the picture once and plans the blocks",
    "Wu et al., CVPR 2018",
    "",
    cifar_only(gated("blockdrop")),
    lambda plan: [Part(f"blockdrop{plan.host}", lambda m: m)],
)
class_means = System(
    "class-means",
    "one net, exits by the distance to class means, nothing trained",
    "Görmez, Dasari, Koyuncu, E²CM, 2021",
    "",
    cifar_only(lambda plan: class_mean_exits(plan.net(plan.host))),
    lambda plan: [
        Part(f"resnet{plan.host}", lambda m: backbone_of(as_multi_exit(m))),
        Part(f"resnet{plan.host}-class-means", lambda m: heads_of(as_multi_exit(m))),
    ],
    None,
    UniformThreshold,
    fit_uniform,
)
closed_loop_inference = System(
    "closed-loop-inference",
    "one net, hard inputs go round again with a calibrated tail; the backward pass counts",
    "after Niu et al., arXiv 2203.10853",
    "",
    cifar_only(lambda plan: looped(plan.net(plan.host), n_classes=plan.n_classes)),
    lambda plan: [Part(f"resnet{plan.host}", net_of)],
    None,
    UniformThreshold,
    fit_uniform,
)
