"""The systems of the registry: an architecture, its weights and a fitted policy under one name.

A plan says what a name means on a data set: three small nets on digits, a ladder of ResNets on CIFAR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from adaptbench.adaptive import (
    AdaptiveModel,
    Cascade,
    DecisionGraph,
    MultiExit,
    NetworkDag,
    Policy,
    Split,
    Static,
)
from adaptbench.models import cifar, small
from adaptbench.models.cifar import CifarPlan
from adaptbench.models.exit_heads import backbone_of
from adaptbench.policies import DagSelection, LearnedCascade, Myopic, Oracle, SoftmaxThreshold, UniformThreshold
from adaptbench.zoo.cifar import heads_of
from adaptbench.zoo.cifar_recipes import CifarRecipe
from adaptbench.zoo.recipes import Recipe, Trainer

Plan = small.Plan | CifarPlan
Settings = Recipe | CifarRecipe
Fitter = Callable[[DecisionGraph, Split, Settings], tuple[Policy, dict[str, object]]]

PLANS: dict[str, Plan] = {**small.PLANS, **cifar.PLANS}


@dataclass(frozen=True, slots=True)
class Part:
    """A weight file and the module that it belongs to.

    Args:
        file: stem of the file in the zoo. into: the module, inside the system's model, that takes it.
    """

    file: str
    into: Callable[[AdaptiveModel], nn.Module]


@dataclass(frozen=True, slots=True)
class System:
    """One registry entry.

    Args:
        name: in the registry. title: a line for reports. cite: its source.
        family: whose weights it uses on small pictures; several systems may share one. "": CIFAR only.
        build: the architecture without weights.
        parts: its weight files on CIFAR.
        train: trains the family on small pictures.
        policy: the class of its fitted policy, None for nets that decide by weights or not at all.
        fit: the policy and what else the card should say, from the calibration split.
        take: the family's weights that this system uses, by prefix (static: one net of the ladder).
    """

    name: str
    title: str
    cite: str
    family: str
    build: Callable[[Plan], AdaptiveModel]
    parts: Callable[[CifarPlan], list[Part]]
    train: Callable[[Trainer, Split], nn.Module] | None = None
    policy: type[Policy] | None = None
    fit: Fitter | None = None
    take: Callable[[small.Plan], str] | None = None


def _fit_threshold(model: DecisionGraph, calibration: Split, recipe: Settings) -> tuple[Policy, dict[str, object]]:
    return SoftmaxThreshold.fit(model.log(calibration), epsilon=recipe.epsilon), {}


def _fit_cascade(model: DecisionGraph, calibration: Split, recipe: Settings) -> tuple[Policy, dict[str, object]]:
    policy, points = LearnedCascade.sweep(model.log(calibration), list(recipe.prices), seed=recipe.seed)
    sweep = [{"lambda": p.setting, "accuracy": round(p.accuracy, 5), "macs_mean": round(p.macs_mean)} for p in points]
    return policy, {"lambda_sweep_on_choosing_part": sweep}


def fit_dag(kind: type[DagSelection]) -> Fitter:
    """A fitter of the DAG policy of a kind."""

    def fit(model: DecisionGraph, calibration: Split, recipe: Settings) -> tuple[Policy, dict[str, object]]:
        return kind.fit(model.log(calibration), drop=recipe.drop, seed=recipe.seed), {}

    return fit


def fit_uniform(model: DecisionGraph, calibration: Split, recipe: Settings) -> tuple[Policy, dict[str, object]]:
    """The cheapest uniform threshold within the recipe's drop."""
    return UniformThreshold.fit(model.log(calibration), drop=recipe.drop), {}


def _fit_oracle(model: DecisionGraph, calibration: Split, recipe: Settings) -> tuple[Policy, dict[str, object]]:
    return Oracle(), {}


def _nets(plan: Plan) -> Mapping[str, nn.Module]:
    return plan.nets() if isinstance(plan, CifarPlan) else small.ladder(plan)


def _dag(plan: Plan) -> NetworkDag:
    return NetworkDag(_nets(plan), input_shape=plan.shape)


def _cascade(plan: Plan) -> Cascade:
    return Cascade(_nets(plan), input_shape=plan.shape)


def _largest(plan: Plan) -> Static:
    name, net = list(_nets(plan).items())[-1]
    return Static(net, input_shape=plan.shape, name=name)


def _ladder_parts(plan: CifarPlan) -> list[Part]:
    return [Part(f"resnet{d}", lambda m, i=i: stage(m, i)) for i, d in enumerate(plan.ladder)]  # type: ignore[misc]


def stage(model: AdaptiveModel, i: int) -> nn.Module:
    """One node's module."""
    assert isinstance(model, DecisionGraph)
    return model.stages[i]


def exits(kind: str) -> Callable[[Plan], MultiExit]:
    """A multi-exit net: on CIFAR the host with heads of a kind, on small pictures the plan's own."""

    def build(plan: Plan) -> MultiExit:
        if isinstance(plan, CifarPlan):
            return cifar.multi_exit(plan, kind)
        return small.multi_exit(plan)

    return build


def exit_parts(kind: str) -> Callable[[CifarPlan], list[Part]]:
    """The host, and the heads of a kind bolted onto it."""
    return lambda plan: [
        Part(f"resnet{plan.host}", lambda m: backbone_of(as_multi_exit(m))),
        Part(f"resnet{plan.host}-{kind}-heads", lambda m: heads_of(as_multi_exit(m))),
    ]


def as_multi_exit(model: AdaptiveModel) -> MultiExit:
    """The model, known to have exits."""
    assert isinstance(model, MultiExit)
    return model


def gated(kind: str) -> Callable[[Plan], AdaptiveModel]:
    """The host with gates of a kind; on small pictures the plan's own skipnet."""

    def build(plan: Plan) -> AdaptiveModel:
        return cifar.gated(plan, kind) if isinstance(plan, CifarPlan) else small.skipnet(plan)

    return build


BOLUKBASI = "Bolukbasi, Wang, Dekel, Saligrama, ICML 2017"


def _on_ladder(name: str, title: str, policy: type[Policy], fit: Fitter) -> System:
    return System(name, title, BOLUKBASI, "ladder", _dag, _ladder_parts, lambda t, c: t.dag(), policy, fit)


softmax_threshold = System(
    "softmax-threshold",
    "one net, several exits, confidence thresholds looked up for ε",
    "Berestizshevsky & Even, ICANN 2019",
    "multi-exit",
    exits("paper"),
    exit_parts("paper"),
    lambda t, c: t.multi_exit(),
    SoftmaxThreshold,
    _fit_threshold,
)
learned_cascade = System(
    "learned-cascade",
    "nets of growing size, selection modules learned with or for them",
    "Guan, Liu, Liu, Peng, IJCAI 2018",
    "cascade",
    _cascade,
    _ladder_parts,
    lambda t, c: t.cascade(c),
    LearnedCascade,
    _fit_cascade,
)
dag_selection = _on_ladder(
    "dag-selection",
    "nets of growing size, every hand-over forward allowed, cost-sensitive choices",
    DagSelection,
    fit_dag(DagSelection),
)
myopic = _on_ladder("myopic", "the same nets, looking one net ahead", Myopic, fit_dag(Myopic))
uniform = _on_ladder("uniform", "the same nets as a chain, one confidence threshold", UniformThreshold, fit_uniform)
oracle = _on_ladder("oracle", "the same nets, cheapest right answer by looking at the label", Oracle, _fit_oracle)
static = System(
    "static",
    "the largest net of the ladder, always run whole",
    "",
    "ladder",
    _largest,
    lambda plan: [Part(f"resnet{plan.ladder[-1]}", lambda m: stage(m, 0))],
    lambda t, c: t.dag(),
    take=lambda plan: f"stages.{len(plan.ladder) - 1}.",
)
resnet_ladder = System(
    "resnet-ladder",
    "nets of growing size as a chain, for a policy of your choice",
    BOLUKBASI,
    "ladder",
    _cascade,
    _ladder_parts,
    lambda t, c: t.dag(),
)
multi_exit = System(
    "multi-exit",
    "one net with exits, for a policy of your choice",
    softmax_threshold.cite,
    "multi-exit",
    exits("paper"),
    exit_parts("paper"),
    lambda t, c: t.multi_exit(),
)
skipnet = System(
    "skipnet",
    "residual net, a feed-forward gate before each block",
    "after Wang, Yu, Dou, Darrell, Gonzalez, ECCV 2018",
    "skipnet",
    gated("ffgate2"),
    lambda plan: [Part(f"skipnet{plan.host}", lambda m: m)],
    lambda t, c: t.skipnet(),
)
