"""What every defence must hold to.

Subclass in a test file and give yours::

    class TestMyDefence(DefenceConformance):
        def defence(self):
            return MyDefence(strength=3)

pytest collects the checks; they run on a small graph with planted classes and on a small gated net.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from functools import partial

import torch
from torch import nn

from adaptbench.adaptive import AdaptiveModel, Block, CalibrationLog, DecisionGraph, FeedForwardGates, GatedNetwork
from adaptbench.adaptive.domain import ImageDomain
from adaptbench.adaptive.outcome import seeds_from_content
from adaptbench.defences import Defence, InFront
from adaptbench.errors import CapabilityError, UsageError
from adaptbench.experiment.keys import model_hash
from adaptbench.policies import UniformThreshold
from adaptbench.testing.compare import refuses
from adaptbench.testing.models import check_model
from adaptbench.testing.planted import CLASSES, SHAPE, planted_graph, planted_split


class DefenceConformance:
    """The contract of a defence, one check each."""

    @abstractmethod
    def defence(self) -> Defence:
        """The defence under test."""

    def _nets(self) -> list[tuple[AdaptiveModel, CalibrationLog | None]]:
        """Nets that it means something for, each with its log."""
        nets: list[tuple[AdaptiveModel, CalibrationLog | None]] = []
        for net in (planted_graph("chain"), planted_graph("dag"), planted_gates()):
            if isinstance(net, DecisionGraph):
                net.policy = UniformThreshold(0.8)
            if self.defence().suits(net):
                nets.append((net, net.log(planted_split()) if isinstance(net, DecisionGraph) else None))
        assert nets, "suits() says no to a chain, to a DAG and to a gated net"
        return nets

    def _pairs(self) -> list[tuple[AdaptiveModel, AdaptiveModel]]:
        """Each net, and the defended one."""
        return [(net, self.defence().applied(net, log=log)) for net, log in self._nets()]

    def _front(self) -> InFront | None:
        own = self.defence()
        return own.fit_into(planted_graph()) if isinstance(own, InFront) else None

    # ------------------------------------------------------------------ the checks

    def test_it_describes_itself(self) -> None:
        """A name, and settings that its constructor takes: plain JSON, they go into records."""
        own = self.defence()
        assert own.name not in ("", "defence"), "give the class a name of its own: it stands in every record"
        again = type(own).made(own.name, json.loads(json.dumps(own.describe(), allow_nan=False)))
        assert again.describe() == own.describe(), "the settings that it describes do not make it again"
        refuses(lambda: type(own).made(own.name, {"nosuch": 1}), UsageError, "a setting that it does not have")

    def test_defended_nets_keep_the_laws(self) -> None:
        """Of a chain, a DAG and gates: hard pass, relaxation and costs of the defended net are one computation."""
        for _, defended in self._pairs():
            check_model(defended, planted_split("test", 40).images())

    def test_it_is_another_net(self) -> None:
        """The hash differs, so that no cell, log or crafted picture of the undefended net is taken for its own."""
        for net, defended in self._pairs():
            assert type(defended) is type(net), "a defended net is of the kind of the net"
            assert model_hash(defended) != model_hash(net), "the defended net has the hash of the undefended one"

    def test_the_net_given_stays_as_it_is(self) -> None:
        """Weights are shared, nothing of the net is changed."""
        for net, log in self._nets():
            before, x = model_hash(net), planted_split("test", 40).images()
            clean = net.infer(x)
            defended = self.defence().applied(net, log=log)
            defended.infer(x)
            assert model_hash(net) == before, "the net given was changed"
            assert torch.equal(net.infer(x).logits, clean.logits), "the net given answers otherwise"
            shared = {id(p) for p in defended.parameters()}
            assert {id(p) for p in net.parameters()} <= shared, "the weights are copies"

    def test_the_static_reference_stays_undefended(self) -> None:
        """Savings of the defended and of the undefended net have one measure."""
        x = planted_split("test", 10).images()
        for net, defended in self._pairs():
            assert defended.macs_full == net.macs_full, "the static reference pays for the defence"
            assert torch.equal(net.run_reference(x), defended.run_reference(x)), "the static reference is defended"

    def test_what_stands_in_front_is_really_run(self) -> None:
        """`infer` is the undefended `infer` on the transformed picture, and the transformation does something."""
        if (front := self._front()) is None:
            return
        x = planted_split("test", 40).images()
        for net, defended in self._pairs():
            with torch.no_grad():
                seen = front(x.clone())
            assert not torch.equal(seen, x), "no picture is changed: this is no defence"
            seeds = seeds_from_content(x)
            own, want = defended.infer(x, seeds=seeds), net.infer(seen.clamp(0, 1), seeds=seeds)
            assert torch.equal(own.path, want.path), "the hard pass does not see the transformed picture"
            assert torch.allclose(own.logits, want.logits, atol=1e-5), "the hard pass answers to another picture"

    def test_forward_is_one_function(self) -> None:
        """With gradients and without, alone and in a batch, a picture is transformed alike."""
        if (front := self._front()) is None:
            return
        x = planted_split("test", 40).images()
        with torch.no_grad():
            plain = front(x.clone())
            alone = torch.cat([front(x[i : i + 1].clone()) for i in range(len(x))])
        leaf = x.clone().requires_grad_()
        seen = front(leaf)
        assert torch.equal(seen.detach(), plain), "forward gives another picture where gradients are asked for"
        assert torch.allclose(plain, alone, atol=1e-6), "a picture is transformed otherwise in a batch"
        (slope,) = torch.autograd.grad(seen.sum(), leaf)
        assert torch.isfinite(slope).all(), "the gradient is not finite"
        assert slope.any(), "no gradient passes: an attack would fail for that, and not for the defence"

    def test_nets_that_it_means_nothing_for_are_refused(self) -> None:
        """`suits` and `applied` say the same."""
        for net in (planted_graph(), planted_gates()):
            if not self.defence().suits(net):
                refuses(partial(self.defence().applied, net), CapabilityError, "a net it does not suit")


def planted_gates() -> GatedNetwork:
    """Two gated blocks over the planted pictures; the gates look at the features and part the pictures."""
    generator = torch.Generator().manual_seed(5)
    side = SHAPE[1] * SHAPE[2]
    gates = [nn.Linear(side, 1) for _ in range(2)]
    bodies = [nn.Sequential(nn.Linear(side, side), nn.Tanh()) for _ in range(2)]
    net = GatedNetwork(
        stem=nn.Flatten(),
        blocks=[Block(f"block{b + 1}", body) for b, body in enumerate(bodies)],
        head=nn.Linear(side, CLASSES),
        gates=FeedForwardGates(gates),
        domain=ImageDomain(SHAPE),
        n_classes=CLASSES,
    )
    x = planted_split("test", 100).images()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 2)
        for b, gate in enumerate(gates):
            gate.bias.sub_(net.gated_forward(x)[1][:, b].median())
    return net
