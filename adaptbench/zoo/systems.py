"""The systems of the registry: an architecture, a family of weights and a fitted policy under one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from adaptbench.adaptive import AdaptiveModel, Cascade, DecisionGraph, NetworkDag, Policy, Split, Static
from adaptbench.models.small import Plan, ladder, multi_exit
from adaptbench.models.small import skipnet as build_skipnet
from adaptbench.policies import DagSelection, LearnedCascade, Myopic, Oracle, SoftmaxThreshold, UniformThreshold
from adaptbench.zoo.recipes import Recipe, Trainer

Fitter = Callable[[DecisionGraph, Split, Recipe], tuple[Policy, dict[str, object]]]


@dataclass(frozen=True, slots=True)
class System:
    """One registry entry.

    Args:
        name: in the registry. title: a line for reports. cite: its source.
        family: whose weights it uses; several systems may share one.
        build: the architecture without weights.
        train: trains the family.
        policy: the class of its fitted policy, None for nets that decide by weights or not at all.
        fit: the policy and what else the card should say, from the calibration split.
        take: the family's weights that this system uses, by prefix (static: one net of the ladder).
    """

    name: str
    title: str
    cite: str
    family: str
    build: Callable[[Plan], AdaptiveModel]
    train: Callable[[Trainer, Split], nn.Module]
    policy: type[Policy] | None = None
    fit: Fitter | None = None
    take: Callable[[Plan], str] | None = None


def _fit_threshold(model: DecisionGraph, calibration: Split, recipe: Recipe) -> tuple[Policy, dict[str, object]]:
    return SoftmaxThreshold.fit(model.log(calibration), epsilon=recipe.epsilon), {}


def _fit_cascade(model: DecisionGraph, calibration: Split, recipe: Recipe) -> tuple[Policy, dict[str, object]]:
    policy, points = LearnedCascade.sweep(model.log(calibration), list(recipe.prices), seed=recipe.seed)
    sweep = [{"lambda": p.setting, "accuracy": round(p.accuracy, 5), "macs_mean": round(p.macs_mean)} for p in points]
    return policy, {"lambda_sweep_on_choosing_part": sweep}


def _fit_dag(kind: type[DagSelection]) -> Fitter:
    def fit(model: DecisionGraph, calibration: Split, recipe: Recipe) -> tuple[Policy, dict[str, object]]:
        return kind.fit(model.log(calibration), drop=recipe.drop, seed=recipe.seed), {}

    return fit


def _fit_uniform(model: DecisionGraph, calibration: Split, recipe: Recipe) -> tuple[Policy, dict[str, object]]:
    return UniformThreshold.fit(model.log(calibration), drop=recipe.drop), {}


def _fit_oracle(model: DecisionGraph, calibration: Split, recipe: Recipe) -> tuple[Policy, dict[str, object]]:
    return Oracle(), {}


def _dag(plan: Plan) -> NetworkDag:
    return NetworkDag(ladder(plan), input_shape=plan.shape)


def _cascade(plan: Plan) -> Cascade:
    return Cascade(ladder(plan), input_shape=plan.shape)


def _largest(plan: Plan) -> Static:
    name = list(plan.ladder)[-1]
    return Static(ladder(plan)[name], input_shape=plan.shape, name=name)


_BOLUKBASI = "Bolukbasi, Wang, Dekel, Saligrama, ICML 2017"


def _on_ladder(name: str, title: str, policy: type[Policy], fit: Fitter) -> System:
    return System(name, title, _BOLUKBASI, "ladder", _dag, lambda t, c: t.dag(), policy, fit)


softmax_threshold = System(
    "softmax-threshold",
    "one net, four exits, confidence thresholds looked up for ε",
    "Berestizshevsky & Even, ICANN 2019",
    "multi-exit",
    multi_exit,
    lambda t, c: t.multi_exit(),
    SoftmaxThreshold,
    _fit_threshold,
)
learned_cascade = System(
    "learned-cascade",
    "three nets of growing size, selection modules trained with them",
    "Guan, Liu, Liu, Peng, IJCAI 2018",
    "cascade",
    _cascade,
    lambda t, c: t.cascade(c),
    LearnedCascade,
    _fit_cascade,
)
dag_selection = _on_ladder(
    "dag-selection",
    "three nets, every hand-over forward allowed, cost-sensitive choices",
    DagSelection,
    _fit_dag(DagSelection),
)
myopic = _on_ladder("myopic", "the same nets, looking one net ahead", Myopic, _fit_dag(Myopic))
uniform = _on_ladder("uniform", "the same nets as a chain, one confidence threshold", UniformThreshold, _fit_uniform)
oracle = _on_ladder("oracle", "the same nets, cheapest right answer by looking at the label", Oracle, _fit_oracle)
static = System(
    "static",
    "the largest net of the ladder, always run whole",
    "",
    "ladder",
    _largest,
    lambda t, c: t.dag(),
    take=lambda plan: f"stages.{len(plan.ladder) - 1}.",
)
skipnet = System(
    "skipnet",
    "residual net, a feed-forward gate before each block",
    "after Wang, Yu, Dou, Darrell, Gonzalez, ECCV 2018",
    "skipnet",
    build_skipnet,
    lambda t, c: t.skipnet(),
)
