"""A study's keys: which nets, which policies, which published figures, and how they are compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptbench.experiment.measuring import Calls

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

COMPARED = ("budgets_ahead", "budgets_held")
"""Figures that are counted against other policies."""

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
        drop: of the point chosen on calibration; or setting: a knob value; or non_inferior: the study's non-inferior
            point. One of the three, except for figures over all budgets.
        against: policies that a figure "budgets_…" counts against.
    """

    graph: str
    policy: str
    figure: Figure
    drop: Fraction | None = None
    setting: float | None = None
    non_inferior: bool = False
    against: list[str] = []


class Published(_Strict):
    """A figure that somebody else stated.

    Args:
        claim: in a few words. value: theirs, in the unit of the figure; accuracy and points in percent.
        provenance: [abs], [xls], [code], [2nd], [calc] or "(from memory)", as the project's science notes tag it.
        tolerance: differences up to this count as the same. better: which way is better.
        ours: where to find our counterpart; None where there is none, and `why` says why.
        points_lost: accuracy that theirs lost at that very point, in points: cost and loss are one point and get one
            verdict. unlike: what the two figures measure differently; ours is shown, and the verdict is "not
            comparable".
        target: the figure is a goal that we set, not a published one.
    """

    claim: str
    value: float
    provenance: str = ""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    better: Literal["higher", "lower"] = "higher"
    ours: Ours | None = None
    why: str = ""
    points_lost: float | None = None
    unlike: str = ""
    target: bool = False


class Resplits(_Strict):
    """How often an ε is broken when calibration and test are drawn anew from their union."""

    count: Annotated[int, Field(ge=1, le=1000)] = 100
    epsilons: Annotated[list[Fraction], Field(min_length=1)] = [0.01]
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
    orders: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)] = [0, 1, 2, 3, 4]
    flood: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Study(_Strict):
    """The whole file; see ``suites/replicate-softmax-threshold.yaml``.

    Args:
        cite: the paper. graphs: name → nets. paper: the policy as published; ours: the one meant to beat it.
        policies: all that are compared; NAME@train is fitted on training samples, for papers that calibrate there.
            The oracle and static nets always stand beside and need no listing.
        drops: accuracy that may be lost, fractions; a point is chosen for each on calibration.
        margin: of non-inferiority, a fraction. The cheapest point whose loss on calibration is below it with 95 %
            confidence is chosen; on test its interval says whether that held.
        budgets: mean cost as a share of the reference net, for the table at equal realised cost.
        settings: policy → knob values shown one by one, as a paper's table has them.
        training_samples: that NAME@train is fitted on, the first of the training split.
        online: stateful policies over shuffles. gradient_noise: λ values at which the learned cascade's two estimators
            are compared.
        measure: chosen points of the main policies against the static reference, on the clock.
        execute: policies whose chosen points are run for real and compared with the log (default: paper and ours).
        gate: figures that `adaptbench check` watches and what they may lose, as a suite has it; see `OF_STUDIES`.
    """

    title: str = ""
    cite: str
    graphs: Annotated[dict[str, Graph], Field(min_length=1)]
    policies: Annotated[list[str], Field(min_length=1)]
    paper: str
    ours: str
    drops: Annotated[list[Fraction], Field(min_length=1)] = [0.0, 0.005, 0.01, 0.02]
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    budgets: list[Share] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    settings: dict[str, list[float]] = {}
    execute: list[str] | None = None
    resplits: Resplits | None = None
    online: Online | None = None
    gradient_noise: list[float] = []
    published: list[Published] = []
    measure: Calls | None = None
    gate: dict[str, Any] = {}
    choosing: Annotated[float, Field(gt=0, lt=1)] = 0.4
    training_samples: Annotated[int, Field(ge=1)] = 10_000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
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
