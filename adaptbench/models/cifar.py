"""What the systems are made of on CIFAR: a ladder of ResNets, and one of them as host of exits and gates."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, GatedNetwork, ImageDomain, MultiExit, Node
from adaptbench.adaptive.halting import HaltingNetwork
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.models.blockdrop import blockdrop
from adaptbench.models.densenet import multi_exit_densenet
from adaptbench.models.exit_heads import attach_exits
from adaptbench.models.gated_resnet import skipnet
from adaptbench.models.halting import halting_resnet
from adaptbench.models.msdnet import PLANS as MSDNETS
from adaptbench.models.msdnet import msdnet
from adaptbench.models.resnet import WIDTHS, resnet
from adaptbench.models.vit import halting_vit, sampling_vit


@dataclass(frozen=True, slots=True)
class CifarNets:
    """The nets for CIFAR pictures, and which depths stand for what.

    Args:
        data: "cifar10" or "cifar100". n_classes: C.
        depths: of the ladder's nets, cheapest first.
        host: depth of the net that carries exits and gates.
    """

    kind: ClassVar[str] = "cifar"
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    domain: ClassVar[ImageDomain] = ImageDomain(shape)
    data: str
    n_classes: int
    depths: tuple[int, ...] = (8, 20, 56)
    host: int = 56

    def net(self, depth: int) -> nn.Sequential:
        """A fresh ResNet of a depth."""
        return resnet(depth, self.n_classes, self.data)

    def ladder(self) -> dict[str, nn.Module]:
        """The ladder, fresh."""
        return {f"resnet{depth}": self.net(depth) for depth in self.depths}

    def gated(self, depth: int, kind: Literal["ffgate2", "rnn", "blockdrop"]) -> GatedNetwork:
        """A ResNet with gates: "ffgate2" or "rnn" (SkipNet), or "blockdrop"."""
        net = self.net(depth)
        if kind == "blockdrop":
            return blockdrop(net, statistics=self.data)
        return skipnet(net, kind, open_by=2.0)

    def act(self, depth: int) -> HaltingNetwork:
        """A ResNet whose stages halt."""
        return halting_resnet(depth, self.n_classes, self.data)

    def a_vit(self) -> TokenNetwork:
        """A transformer whose 64 tokens are a ResNet-8's last features and leave between its blocks."""
        return halting_vit(
            nn.Sequential(OrderedDict((name, part) for name, part in self.net(8).named_children() if name != "head")),
            WIDTHS[-1],
            (self.shape[1] // 4) * (self.shape[2] // 4),
            width=64,
            heads=2,
            depth=6,
            ratio=2,
            domain=self.domain,
            n_classes=self.n_classes,
        )

    def ats(self) -> TokenNetwork:
        """The same transformer, as many samples drawn as there are tokens."""
        net = self.a_vit()
        return sampling_vit(net, net.tokens)

    def msdnet(self) -> MultiExit:
        """MSDNet in the batch configuration."""
        return msdnet(MSDNETS["batch"], self.n_classes, statistics=self.data)

    def densenet(self) -> MultiExit:
        """DenseNet-121, an exit after each dense block."""
        return multi_exit_densenet(self.n_classes, statistics=self.data)

    def exits_and_nets(self, kind: str = "sdn") -> DecisionGraph:
        """Whole nets and the exits of the largest in one graph; nets hand over to later nets and to the first exit.

        Bolukbasi et al. 2017 combine early exit and network selection; shared-trunk nodes cost their increment.
        """
        largest = self.depths[-1]
        host = attach_exits(self.net(largest), kind)
        small = [f"resnet{depth}" for depth in self.depths[:-1]]
        exits = [f"resnet{largest}-{name}" for name in host.node_names]
        nodes = [
            Node(name, self.net(depth), to=(*small[i + 1 :], exits[0]))
            for i, (name, depth) in enumerate(zip(small, self.depths, strict=False))
        ]
        nodes += [
            Node(name, stage, head, reads=exits[k - 1] if k else "input", to=tuple(exits[k + 1 : k + 2]))
            for k, (name, stage, head) in enumerate(zip(exits, host.stages, host.heads, strict=True))
        ]
        return DecisionGraph(nodes, domain=self.domain, n_classes=self.n_classes, reference=exits, shape="dag")


CIFAR_NETS = {"cifar10": CifarNets("cifar10", 10), "cifar100": CifarNets("cifar100", 100)}


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
