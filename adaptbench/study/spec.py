"""A study's file: which nets, which policies, which published figures; read from YAML, checked before anything runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptbench.bench.located_yaml import Located, Place, read
from adaptbench.bench.suite import Measure, find_suite
from adaptbench.errors import AdaptBenchError, SuiteError
from adaptbench.registry import DATA, MODELS, POLICIES, Registry, did_you_mean

Share = Annotated[float, Field(gt=0, le=2)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Figure = Literal[
    "speedup",
    "cost_share",
    "drop_points",
    "accuracy",
    "oracle_share",
    "gain_points",
    "broken",
    "budgets_ahead",
    "budgets_held",
    "budget_error",
]
OF_ALL_POINTS = ("budgets_ahead", "budgets_held", "budget_error")
"""Figures that are read over all budgets, and need neither drop nor setting."""


ON_TRAINING = "@train"
"""Ending of a policy's name in a study: fitted on training samples, as some released codes do."""


def registry_name(policy: str) -> str:
    """The registry's name of a study's policy."""
    return policy.removesuffix(ON_TRAINING)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Graph(_Strict):
    """One net, or several joined by hand-overs, on one data set.

    Args:
        data, model: registry names. top: an answer among the `top` largest logits counts as right.
        title: for the page.
    """

    data: str
    model: str
    top: Annotated[int, Field(ge=1, le=10)] = 1
    title: str = ""


class Ours(_Strict):
    """Which of our figures stands beside a published one.

    Args:
        graph: its key. policy: registry name. figure: what is read.
        drop: of the point chosen on calibration; or setting: a knob value. One of the two, except for figures over all
            budgets.
        against: policies that a figure "budgets_…" counts against.
    """

    graph: str
    policy: str
    figure: Figure
    drop: Fraction | None = None
    setting: float | None = None
    against: list[str] = []


class Published(_Strict):
    """A figure that somebody else stated.

    Args:
        claim: in a few words. value: theirs, in the unit of the figure; accuracy and points in percent.
        provenance: [abs], [xls], [code], [2nd], [calc] or "(from memory)", as the project's science notes tag it.
        tolerance: differences up to this count as the same. better: which way is better.
        ours: where to find our counterpart; None where there is none, and `why` says why.
        target: the figure is a goal that we set, not a published one.
    """

    claim: str
    value: float
    provenance: str = ""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    better: Literal["higher", "lower"] = "higher"
    ours: Ours | None = None
    why: str = ""
    target: bool = False


class Resplits(_Strict):
    """How often an ε is broken when calibration and test are drawn anew from their union."""

    count: Annotated[int, Field(ge=1, le=1000)] = 100
    epsilons: list[Fraction] = [0.01]
    policies: Annotated[list[str], Field(min_length=1)]


class Online(_Strict):
    """A policy with state across samples, over several shuffles of the test stream.

    Args:
        mu: UEE-UCB's price of the whole net. budget: the closed loop's, a share of the full net's MACs.
        base: the policy whose knob the loop turns. window: samples between two looks. orders: seeds of the shuffles.
        flood: share of the stream that an attacker sends, for what it does to everybody's accuracy.
    """

    mu: Annotated[float, Field(gt=0)] = 0.1
    budget: Share = 0.6
    base: str = "uniform"
    window: Annotated[int, Field(ge=1)] = 64
    orders: list[int] = [0, 1, 2, 3, 4]
    flood: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Study(_Strict):
    """The whole file; see ``suites/replicate-softmax-threshold.yaml``.

    Args:
        cite: the paper. graphs: name → nets. paper: the policy as published; ours: the one meant to beat it.
        policies: all that are compared; NAME@train is fitted on training samples, for papers that calibrate there.
            references: bounds and baselines among them need no listing: oracle and static
            nets always stand beside.
        drops: accuracy that may be lost, fractions; a point is chosen for each on calibration.
        budgets: mean cost as a share of the reference net, for the table at equal realised cost.
        settings: policy → knob values shown one by one, as a paper's table has them.
        training_samples: that NAME@train is fitted on, the first of the training split.
        online: stateful policies over shuffles. gradient_noise: λ values at which the learned cascade's two estimators
            are compared.
        execute: policies whose chosen points are run for real and compared with the log (default: paper and ours).
    """

    title: str = ""
    cite: str
    graphs: Annotated[dict[str, Graph], Field(min_length=1)]
    policies: Annotated[list[str], Field(min_length=1)]
    paper: str
    ours: str
    drops: list[Fraction] = [0.0, 0.005, 0.01, 0.02]
    budgets: list[Share] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    settings: dict[str, list[float]] = {}
    execute: list[str] | None = None
    resplits: Resplits | None = None
    online: Online | None = None
    gradient_noise: list[float] = []
    published: list[Published] = []
    measure: Measure | None = None
    choosing: Annotated[float, Field(gt=0, lt=1)] = 0.4
    training_samples: Annotated[int, Field(ge=1)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1)] | None = None
    notes: list[str] = []

    @property
    def looks_at_training(self) -> bool:
        """Whether a policy is fitted on training samples."""
        resplit = self.resplits.policies if self.resplits else []
        return any(name.endswith(ON_TRAINING) for name in [*self.policies, *resplit])

    @property
    def executed(self) -> list[str]:
        """Policies whose chosen points are run for real."""
        return list(dict.fromkeys(self.execute if self.execute is not None else [self.paper, self.ours]))


@dataclass(frozen=True, slots=True)
class LoadedStudy:
    """A checked study and where it came from: file stem, contents, text as written, hash of the contents."""

    name: str
    study: Study
    text: str
    sha256: str


def is_study(name: str) -> bool:
    """Whether a suite's file is a study: it has a key "graphs".

    Raises:
        SuiteError: there is no such file.
    """
    value = read(find_suite(name)).value
    return isinstance(value, dict) and "graphs" in value


def load_study(name: str) -> LoadedStudy:
    """Read and check a study.

    Args:
        name: of a suite, or a path.

    Raises:
        SuiteError: file, line, field; what is wrong and what would be right.
    """
    path: Path = find_suite(name)
    located = read(path)
    try:
        study = Study.model_validate(located.value)
    except ValidationError as error:
        raise _explain(error, located) from None
    _check_names(study, located)
    canonical = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=True, allow_unicode=True)
    return LoadedStudy(path.stem, study, located.text, hashlib.sha256(canonical.encode()).hexdigest())


def _explain(error: ValidationError, located: Located) -> SuiteError:
    first = error.errors()[0]
    place: Place = tuple(first["loc"])
    if first["type"] == "extra_forbidden":
        keys = list(Study.model_fields)
        return SuiteError(
            f"{located.where(place)}: there is no such key.",
            todo=f"{did_you_mean(str(place[-1]), keys)}Keys of a study: {', '.join(keys)}.",
        )
    shown = "" if isinstance(first["input"], dict) else f" (seen: {first['input']!r})"
    more = f" {len(error.errors()) - 1} more after this." if len(error.errors()) > 1 else ""
    return SuiteError(f"{located.where(place)}: {first['msg'].lower()}{shown}.", todo=f"Mend the value.{more}")


def _check_names(study: Study, located: Located) -> None:
    named: list[tuple[Registry, str, Place]] = []
    for key, graph in study.graphs.items():
        named += [(DATA, graph.data.partition(":")[0], ("graphs", key, "data"))]
        named += [(MODELS, graph.model, ("graphs", key, "model"))]
    named += [(POLICIES, registry_name(name), ("policies", i)) for i, name in enumerate(study.policies)]
    if study.resplits is not None:
        named += [
            (POLICIES, registry_name(n), ("resplits", "policies", i)) for i, n in enumerate(study.resplits.policies)
        ]
    for registry, name, place in named:
        try:
            registry.entry(name)
        except AdaptBenchError as error:
            raise SuiteError(f"{located.where(place)}: {error.seen}", why=error.why, todo=error.todo) from None
    places: list[tuple[str, Any]] = [("paper", study.paper), ("ours", study.ours)]
    places += [("settings", name) for name in study.settings]
    places += [("execute", name) for name in study.execute or []]
    for where, name in places:
        if name not in study.policies:
            raise SuiteError(
                f"{located.where((where,))}: '{name}' is not among the policies of this study.",
                todo=f"{did_you_mean(name, study.policies)}Policies: {', '.join(study.policies)}.",
            )
    _check_published(study, located)


def _check_published(study: Study, located: Located) -> None:
    for i, figure in enumerate(study.published):
        if figure.ours is None:
            continue
        for kind, name, known in (
            ("graph", figure.ours.graph, list(study.graphs)),
            ("policy", figure.ours.policy, study.policies),
            *(("policy", name, study.policies) for name in figure.ours.against),
        ):
            if name not in known:
                raise SuiteError(
                    f"{located.where(('published', i))}: no {kind} is called '{name}'.",
                    todo=f"{did_you_mean(name, known)}There are: {', '.join(known)}.",
                )
        if figure.ours.figure in OF_ALL_POINTS:
            continue
        if (figure.ours.drop is None) == (figure.ours.setting is None):
            raise SuiteError(
                f"{located.where(('published', i))}: our counterpart needs a drop or a setting, and not both.",
                todo="A drop is a point chosen on calibration; a setting is a knob value listed under settings.",
            )
