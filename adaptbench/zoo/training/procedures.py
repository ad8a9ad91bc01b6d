"""How a part is trained: its phases and what else decides the outcome, as settings that its card can state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from adaptbench.adaptive import Cascade, DecisionGraph, GatedNetwork, MultiExit
from adaptbench.adaptive.halting import HaltingNetwork
from adaptbench.adaptive.policy import NeverStop
from adaptbench.models.exit_heads import backbone_of
from adaptbench.models.nearest_mean import attach_class_means
from adaptbench.models.resnet import grow
from adaptbench.policies import LearnedCascade, SoftmaxThreshold
from adaptbench.zoo.training.exits import train_backtrack, train_heads
from adaptbench.zoo.training.gates import BlockDrop, decisive, set_rate, skipnet_hybrid, skipnet_supervised
from adaptbench.zoo.training.hardened_heads import train_against_slowdown
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.losses import cross_entropy, gated_at_rate, joint_cascade, plain_backbone, pondering
from adaptbench.zoo.training.objective import fit_objective
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.session import Session
from adaptbench.zoo.training.strategies import strategy

BACKTRACK, TEACHER = "backtrack", "teacher"


class Procedure(Protocol):
    """Trains a part: a dataclass, whose fields the card states under "settings"."""

    def __call__(self, net: Any, needed: Sequence[Any], session: Session) -> None:
        """Train a fresh net in place.

        Args:
            net: as the part builds it, on the session's device. needed: the parts that it needs, trained, on the CPU.
        """


@dataclass(frozen=True, slots=True)
class Plain:
    """A static net by cross-entropy; grown from a shallower one where it needs one.

    Args:
        grown_from: depth of that one.
    """

    phase: Phase
    grown_from: int | None = None

    def __call__(self, net: DecisionGraph, needed: Sequence[nn.Sequential], session: Session) -> None:
        """The stage is the net."""
        (whole,) = net.stages
        for shallow in needed:
            grow(shallow, whole)  # type: ignore[arg-type]
        session.run("", fit, whole, self.phase, cross_entropy, evaluate=session.judge)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Whole nets, each on its own."""

    phase: Phase

    def __call__(self, net: DecisionGraph, needed: Sequence[nn.Module], session: Session) -> None:
        """One after another; they share nothing."""
        for name, stage in zip(net.node_names, net.stages, strict=True):
            session.run(name, fit, stage, self.phase, cross_entropy, evaluate=session.judge)


@dataclass(frozen=True, slots=True)
class JointCascade:
    """A trained ladder's nets with selection modules fitted on calibration, then all jointly by REINFORCE.

    Args:
        price: λ of both.
    """

    phase: Phase
    price: float

    def __call__(self, net: Cascade, needed: Sequence[DecisionGraph], session: Session) -> None:
        """The selection modules are a policy, which is fitted anew on what is kept."""
        net.stages.load_state_dict(needed[0].stages.state_dict())
        log = net.log(session.calibration)
        net.policy = LearnedCascade.fit(log, price=self.price, seed=session.seed).requires_grad_(True)
        session.run("joint", fit, net, self.phase, joint_cascade(self.price, "reinforce"))
        net.policy = NeverStop()


@dataclass(frozen=True, slots=True)
class Exits:
    """A net and its exits together, begun from the trained net where it needs one.

    Args:
        strategy: how the exits' losses are weighed, one of `STRATEGIES`; or "backtrack": the net by its last exit, then
            the heads before it one after another. options: of the strategy.
    """

    phase: Phase
    strategy: str = "uniform"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, net: MultiExit, needed: Sequence[nn.Module], session: Session) -> None:
        """As the strategy says."""
        for host in needed:
            backbone_of(net).load_state_dict(host.state_dict())
        if self.strategy != BACKTRACK:
            session.run("", fit_objective, strategy(self.strategy, net, **self.options), self.phase)
            return
        first = None if needed else self.phase
        done = train_backtrack(net, session.train, backbone=first, heads=self.phase, settings=session.settings)
        for name, training in done.items():
            session.keep(name, training)


@dataclass(frozen=True, slots=True)
class FrozenHeads:
    """Exit heads bolted onto a trained net, which stays as it is.

    Args:
        distil, temperature: α and T of `train_heads`: what the heads learn of the last exit's answers, not of labels.
    """

    phase: Phase
    backbone: str = field(default="frozen", init=False)
    distil: float = 0.0
    temperature: float = 3.0

    def __call__(self, net: MultiExit, needed: Sequence[nn.Module], session: Session) -> None:
        """All heads at once: they share nothing."""
        backbone_of(net).load_state_dict(needed[0].state_dict())
        how = {"distil": self.distil, "temperature": self.temperature}
        session.run("", train_heads, net, self.phase, channels_last=False, **how)


@dataclass(frozen=True, slots=True)
class HeadsAgainstSlowdown:
    """Exit heads of a trained net, trained on against slow-down of confidence thresholds; the rest stays as it is.

    Args:
        epsilon: of the softmax thresholds that the pictures are crafted against, fitted on the net as it comes.
        eps, steps, weight: as `train_against_slowdown` takes them.
    """

    phase: Phase
    epsilon: float
    eps: float
    backbone: str = field(default="frozen", init=False)
    steps: int = 2
    weight: float = 0.5

    def __call__(self, net: MultiExit, needed: Sequence[nn.Module], session: Session) -> None:
        """All heads at once: they share nothing but the pictures."""
        net.load_state_dict(needed[0].state_dict())
        policy = SoftmaxThreshold.fit(net.log(session.calibration), epsilon=self.epsilon, seed=session.seed)
        how = {"policy": policy, "eps": self.eps, "steps": self.steps, "weight": self.weight}
        session.run("", train_against_slowdown, net, self.phase, channels_last=False, **how)


@dataclass(frozen=True, slots=True)
class ClassMeanExits:
    """Class means at the exits of a trained net."""

    backbone: str = field(default="frozen", init=False)
    means: str = field(default="one pass over the training split, nothing trained", init=False)

    def __call__(self, net: MultiExit, needed: Sequence[nn.Sequential], session: Session) -> None:
        """One pass."""
        net.load_state_dict(attach_class_means(needed[0], session.train).state_dict())


@dataclass(frozen=True, slots=True)
class RateGates:
    """A gated net of its own: the backbone with every block run, then gates and backbone together.

    Args:
        phases: these two. gate_rate: opening asked of each gate. gate_weight: of that term.
    """

    phases: tuple[Phase, Phase]
    gate_rate: float = 0.5
    gate_weight: float = 2.0

    def __call__(self, net: GatedNetwork, needed: Sequence[nn.Module], session: Session) -> None:
        """No part is needed."""
        first, second = self.phases
        session.run("backbone", fit, net, first, plain_backbone)
        session.run("gates", fit, net, second, gated_at_rate(self.gate_rate, self.gate_weight))


@dataclass(frozen=True, slots=True)
class SkipNet:
    """Gates on a trained net: SkipNet's supervised and hybrid phases.

    No average of weights: a gate's margin wanders about 0, and its average decides what no net was trained with.

    Args:
        phases: these two. gate_rate: share of the blocks that the gates are held to; the paper asks for none.
        gate_alpha: reward for skipping everything in the hybrid phase; 0.1 in the paper, where it is tuned by net.
    """

    phases: tuple[Phase, Phase]
    gate_rate: float = 0.6
    gate_alpha: float = 0.1

    def __call__(self, net: GatedNetwork, needed: Sequence[nn.Sequential], session: Session) -> None:
        """The rate is set once more after the hybrid phase, which moves it."""
        _take_backbone(net, needed[0])
        first, second = self.phases
        _straight_through(session, "supervised", first, net, self.gate_rate)
        session.run("hybrid", fit, net, second, skipnet_hybrid(self.gate_alpha))
        set_rate(net, session.some(), self.gate_rate)


@dataclass(frozen=True, slots=True)
class BlockDropPlan:
    """A net that plans the blocks of a trained one: BlockDrop's phases before and in joint training.

    Args:
        phases: these two.
        plan_rate: None trains the first phase by the published curriculum, which decides on one block more each epoch.
            A share trains net and plan straight through at that share of blocks instead, the planner begun from the
            second part needed: a few epochs are too few for the curriculum to reach the front of a deep net.
        plan_alpha: bound on the chance of each way in joint training; released: 0.8.
    """

    phases: tuple[Phase, Phase]
    plan_rate: float | None = None
    plan_alpha: float = 0.8

    def __call__(self, net: GatedNetwork, needed: Sequence[nn.Sequential], session: Session) -> None:
        """The host's weights first."""
        _take_backbone(net, needed[0])
        first, second = self.phases
        if self.plan_rate is None:
            session.run("before", fit_objective, BlockDrop(net, curriculum=True, entropy=0.1), first)
        else:
            planner: nn.Module = net.gates.planner  # type: ignore[assignment]
            begun = {k: v for k, v in needed[1].state_dict().items() if not k.startswith("head.")}
            planner.load_state_dict(planner.state_dict() | begun)
            _straight_through(session, "before", first, net, self.plan_rate)
        session.run("joint", fit_objective, BlockDrop(net, joint=True, alpha=self.plan_alpha), second)


@dataclass(frozen=True, slots=True)
class Halting:
    """A net whose stages halt, by cross-entropy and ponder cost; begun from a trained net where it needs one.

    Args:
        tau: τ, price of a unit of ponder cost.
    """

    phase: Phase
    tau: float

    def __call__(self, net: HaltingNetwork, needed: Sequence[nn.Sequential], session: Session) -> None:
        """Units and halting scores together."""
        for host in needed:
            net.take(host)
        session.run("", fit, net, self.phase, pondering(self.tau))


def _take_backbone(net: GatedNetwork, host: nn.Sequential) -> None:
    """A trained ResNet's weights into a gated net."""
    source = dict(host.named_children())
    net.stem.load_state_dict(nn.Sequential(source["normalise"], source["stem"]).state_dict())
    blocks = [module for name, module in source.items() if name.startswith("stage")]
    for body, block in zip(net.bodies, blocks, strict=True):
        body.load_state_dict(block.body.state_dict())  # type: ignore[union-attr]
    net.head.load_state_dict(source["head"].state_dict())


def _straight_through(session: Session, name: str, phase: Phase, net: GatedNetwork, rate: float) -> None:
    """Net and gates together; then margins that open `rate` of the blocks and are drawn as they decide."""
    session.run(name, fit, net, phase, skipnet_supervised(rate=rate, price=1.0))
    x = session.some()
    set_rate(net, x, rate)
    decisive(net, x)
