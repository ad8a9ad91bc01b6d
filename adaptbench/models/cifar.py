"""What the systems are made of on CIFAR: a ladder of ResNets, and one of them as host of exits and gates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, GatedNetwork, ImageDomain, MultiExit, Node
from adaptbench.models.blockdrop import blockdrop
from adaptbench.models.densenet import multi_exit_densenet
from adaptbench.models.exit_heads import attach_exits, multi_exit_resnet
from adaptbench.models.gated_resnet import skipnet
from adaptbench.models.msdnet import PLANS as MSDNETS
from adaptbench.models.msdnet import msdnet
from adaptbench.models.resnet import resnet


@dataclass(frozen=True, slots=True)
class CifarPlan:
    """Which depths stand for what.

    Args:
        data: "cifar10" or "cifar100". n_classes: C.
        ladder: depths of the nets of cascades and DAGs, cheapest first.
        host: depth of the net that carries exits and gates.
    """

    data: str
    n_classes: int
    ladder: tuple[int, ...] = (8, 20, 56)
    host: int = 56

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        return (3, 32, 32)

    @property
    def domain(self) -> ImageDomain:
        """Pictures in [0, 1]."""
        return ImageDomain(self.shape)

    def net(self, depth: int) -> nn.Sequential:
        """A fresh net of a depth."""
        return resnet(depth, self.n_classes, self.data)

    def nets(self) -> Mapping[str, nn.Module]:
        """The ladder, fresh."""
        return {f"resnet{depth}": self.net(depth) for depth in self.ladder}


PLANS = {"cifar10": CifarPlan("cifar10", 10), "cifar100": CifarPlan("cifar100", 100)}


def multi_exit(plan: CifarPlan, kind: str) -> MultiExit:
    """The host with exit heads of a kind: "paper", "sdn", "eenet"."""
    return multi_exit_resnet(plan.host, plan.n_classes, kind, statistics=plan.data)


def gated(plan: CifarPlan, kind: str) -> GatedNetwork:
    """The host with gates: "ffgate2" or "rnn" (SkipNet), or "blockdrop"."""
    net = plan.net(plan.host)
    if kind == "blockdrop":
        return blockdrop(net, statistics=plan.data)
    return skipnet(net, "rnn" if kind == "rnn" else "ffgate2", open_by=2.0)


def whole_net(plan: CifarPlan, name: str) -> MultiExit:
    """An architecture with exits of its own: "msdnet" (the batch configuration) or "densenet121"."""
    if name == "msdnet":
        return msdnet(MSDNETS["batch"], plan.n_classes, statistics=plan.data)
    return multi_exit_densenet(plan.n_classes, statistics=plan.data)


def exits_and_nets(plan: CifarPlan, kind: str = "sdn") -> DecisionGraph:
    """Whole nets and the exits of the largest in one graph: every net may hand over to every later net's first exit.

    Bolukbasi et al. 2017 combine early exit and network selection; shared-trunk nodes cost their increment.
    """
    hosted = attach_exits(plan.net(plan.ladder[-1]), kind)
    small = [f"resnet{depth}" for depth in plan.ladder[:-1]]
    exits = [f"resnet{plan.ladder[-1]}-{name}" for name in hosted.node_names]
    nodes = [
        Node(name, plan.net(depth), to=(*small[i + 1 :], exits[0]))
        for i, (name, depth) in enumerate(zip(small, plan.ladder, strict=False))
    ]
    nodes += [
        Node(name, stage, head, reads=exits[k - 1] if k else "input", to=tuple(exits[k + 1 : k + 2]))
        for k, (name, stage, head) in enumerate(zip(exits, hosted.stages, hosted.heads, strict=True))
    ]
    return DecisionGraph(nodes, domain=plan.domain, n_classes=plan.n_classes, reference=exits, shape="dag")


def hosted(model: AdaptiveModel, first: int) -> nn.Sequential:
    """The plain net inside `exits_and_nets`, from node `first` on, sharing its modules."""
    assert isinstance(model, DecisionGraph)
    parts = OrderedDict((name, part) for stage in model.stages[first:] for name, part in stage.named_children())
    parts["head"] = model.heads[-1]
    return nn.Sequential(parts)


def hosted_heads(model: AdaptiveModel, first: int) -> nn.ModuleList:
    """The bolted-on heads inside `exits_and_nets`."""
    assert isinstance(model, DecisionGraph)
    return nn.ModuleList(list(model.heads)[first:-1])
