"""Policies: objects apart from the weights that decide, from what a node shows, to stop or which node to run next."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from adaptbench.adaptive.log import CalibrationLog, LoggedSamples, require_calibration
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.structure import Structure
from adaptbench.errors import CalibrationError, CapabilityError, PolicyError
from adaptbench.registry import POLICIES

_FITS = ("fit", "family")


def guard_fits(kind: type) -> None:
    """Make the fits that a class defines refuse an `EvaluationLog`, wherever it stands among their arguments."""
    for name in ("fit", "family", "path", "between", "recosted"):
        fit = vars(kind).get(name)
        if isinstance(fit, classmethod | staticmethod):
            setattr(kind, name, type(fit)(_refusing(fit.__func__, kind, name in _FITS)))
        elif name == "recosted" and callable(fit):
            setattr(kind, name, _refusing(fit, kind, False))


def _check_call(kind: type, name: str) -> None:
    """A fit is called with a log, a seed and settings by keyword, by suites and studies that know no more of it."""
    asked = list(inspect.signature(getattr(kind, name)).parameters.values())
    odd = [p.name for p in asked[1:] if p.kind is not p.KEYWORD_ONLY or p.default is p.empty]
    if odd or "seed" not in {p.name for p in asked[1:]}:
        raise PolicyError(
            f"{kind.__name__}.{name} asks for {', '.join(odd) or 'no seed'}.",
            why="Every policy is fitted by the same call.",
            todo=f"Define {name}(cls, log, *, seed=0), further settings by keyword and each with a default.",
        )


def _refusing(fit: Callable[..., Any], kind: type, reads_a_log: bool) -> Callable[..., Any]:
    @functools.wraps(fit)
    def refusing(*args: Any, **settings: Any) -> Any:
        for given in (*args, *settings.values()):
            require_calibration(given, kind.__name__)
            if isinstance(given, LoggedSamples) and given.quality is not None:
                require_per_pixel(kind)
        if reads_a_log and not any(isinstance(given, CalibrationLog) for given in (*args, *settings.values())):
            raise CalibrationError(
                f"{kind.__name__} was about to be fitted on {', '.join(type(given).__name__ for given in args[1:])}.",
                why="A policy is fitted on logits of every node.",
                todo="Give a CalibrationLog: model.log(calibration split).",
            )
        return fit(*args, **settings)

    return refusing


class Policy(nn.Module):
    """Scores the actions at each node: stopping first, then each successor.

    Subclasses give `scores`; the action that is strictly best is taken, and a tie stops. Gradients flow from the
    scores to the logits, and the MACs of `scores` and `predict` are counted like any other layer's.
    """

    name: ClassVar[str] = "policy"
    uses_history: bool = False
    draws: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    per_pixel: ClassVar[bool] = False
    """May decide for nets that answer every pixel: it asks how sure a node is, never which class it says, and what is
    returned is the node's own answer."""
    knob: ClassVar[str | None] = None
    """The run-time setting that trades accuracy for cost, when there is one."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Whatever fits refuses samples that are there to judge, and can be called like every other fit.

        Raises:
            PolicyError: `fit` or `family` asks for more than a log.
        """
        super().__init_subclass__(**more)
        guard_fits(cls)
        for name in set(_FITS) & vars(cls).keys():
            _check_call(cls, name)

    def bind(self, structure: Structure) -> None:
        """Refuse a graph that this policy was not made for; nothing is kept of it, `signals` tell of the node.

        Raises:
            PolicyError: number of nodes or ways on differ.
        """

    def scores(self, node: int, signals: Signals) -> Tensor:
        """(n, 1 + out-degree): the worth of stopping, then of each successor."""
        raise CapabilityError(
            f"{type(self).__name__} does not score actions.", todo="Subclasses of Policy define scores()."
        )

    def predict(self, node: int, signals: Signals) -> Tensor:
        """(n, C) logits returned when stopping here; may aggregate the heads visited."""
        return signals.answer

    @property
    def knob_value(self) -> float | None:
        """The setting in force: what `describe` says of the knob."""
        return None if self.knob is None else self.describe()[self.knob]

    def at(self, value: float) -> Self:
        """The same policy at another knob setting; nothing is refitted.

        Raises:
            CapabilityError: the policy has no knob.
            UsageError: a value that it cannot take.
        """
        if self.knob is None:
            raise CapabilityError(
                f"the policy '{self.name}' has no run-time knob.", todo="Fit it anew for another operating point."
            )
        tensors = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        return self.from_state({**self.describe(), self.knob: value}, tensors)

    @classmethod
    def fit(cls, log: CalibrationLog, *, seed: int = 0) -> Self:
        """A policy for the graph that was logged. Kinds add settings by keyword, each with a default.

        The log, the seed and the settings decide all of it, whatever the global random state.

        Args:
            log: of calibration samples.
            seed: of whatever is drawn; most fits draw nothing.

        Raises:
            CapabilityError: there is nothing to fit.
            CalibrationError: too few samples. PolicyError: the graph has another shape. UsageError: a setting.
        """
        raise CapabilityError(f"{cls.__name__} cannot be fitted.", todo="Define fit(log, *, seed=0).")

    @classmethod
    def fit_settings(cls) -> dict[str, Any]:
        """Name → default of what `fit` takes beside log and seed.

        >>> from adaptbench.policies import JointThreshold
        >>> JointThreshold.fit_settings()
        {'epsilon': 0.01, 'prices': 40}
        """
        asked = inspect.signature(cls.fit).parameters
        return {name: p.default for name, p in asked.items() if p.kind is p.KEYWORD_ONLY and name != "seed"}

    @classmethod
    def family(cls, log: CalibrationLog, *, seed: int = 0) -> list[Self]:
        """Fitted policies along the whole accuracy–cost range, from cheap to dear where the policy can tell.

        The points of its curve: comparisons at equal cost interpolate between them.

        Raises:
            CapabilityError: the policy has one operating point only.
        """
        raise CapabilityError(
            f"{cls.__name__} has no family of operating points.", todo="Define family() to compare it at equal cost."
        )

    def recosted(self, log: CalibrationLog) -> Self:
        """With its own table of costs estimated anew, on any inputs like those in use; labels are not read.

        Itself where the policy keeps no such table. All members of a family share one; `at` picks theirs from it.
        """
        return self

    def check_costs(self, node_macs: tuple[int, ...]) -> None:
        """Refuse a graph that does not cost what the policy's own table of costs says, where it keeps one.

        Args:
            node_macs: V increments, as just counted.

        Raises:
            PolicyError: the table was made for other costs.
        """

    def describe(self) -> dict[str, Any]:
        """Settings for the record, JSON types only; with the tensors they are all that `from_state` needs."""
        return {}

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild a fitted policy from `describe` and `state_dict`: here by a constructor that takes those settings.

        Raises:
            CapabilityError: it does not.
        """
        try:
            policy = cls(**settings)
        except TypeError as error:
            raise CapabilityError(
                f"{cls.__name__} cannot be rebuilt from {', '.join(settings) or 'no settings'}: {error}.",
                todo="Let describe() name what the constructor takes, or define from_state().",
            ) from error
        policy.load_state_dict(tensors)
        return policy.requires_grad_(False)


class ChainPolicy(Policy):
    """A policy for graphs where each node has one way on at most; subclasses give `margin`."""

    def margin(self, node: int, signals: Signals) -> Tensor:
        """(n,), > 0 where the sample goes on."""
        raise CapabilityError(
            f"{type(self).__name__} gives no margin.", todo="Subclasses of ChainPolicy define margin()."
        )

    def scores(self, node: int, signals: Signals) -> Tensor:
        """Stopping is worth 0, going on its margin."""
        margin = self.margin(node, signals)
        return torch.stack([torch.zeros_like(margin), margin], 1)

    def bind(self, structure: Structure) -> None:
        """Chains only."""
        if not structure.is_chain:
            raise PolicyError(
                f"the policy '{self.name}' works on chains; this graph's nodes have "
                f"{[len(w) for w in structure.successors]} ways on.",
                todo="Use dag-selection, or arrange the nodes as a chain.",
            )


class NeverStop(Policy):
    """Always hands over, by the first way, until there is none."""

    name = "never-stop"
    per_pixel = True

    def scores(self, node: int, signals: Signals) -> Tensor:
        """1 for the first way, 0 for the rest."""
        scores = signals.logits.new_zeros(len(signals.logits), 1 + len(signals.ways))
        return scores.index_fill(1, torch.tensor([1], device=scores.device), 1.0)


def require_per_pixel(kind: Any) -> None:
    """Refuse what decides over classes on a net that answers every pixel.

    Args:
        kind: a class of policies, or a policy.

    Raises:
        PolicyError: it does not say that it may (`Policy.per_pixel`).
    """
    if not getattr(kind, "per_pixel", False):
        able = [entry.name for entry in POLICIES if getattr(POLICIES.load(entry.name), "per_pixel", False)]
        raise PolicyError(
            f"the policy '{getattr(kind, 'name', kind)}' was given to a net that answers every pixel.",
            why="It looks at which class is said, or combines answers; of pixels it is shown how sure the image is.",
            todo=f"Take one of: {', '.join(able)}; or fixed thresholds of your own with per_pixel = True.",
        )


def as_policy(given: Any) -> Policy:
    """What was given, if it is a policy.

    Raises:
        PolicyError: it is a class, an online policy, or something else.
    """
    if isinstance(given, Policy):
        return given
    what = f"the class {given.__name__}" if isinstance(given, type) else f"an object of {type(given).__name__}"
    raise PolicyError(
        f"{what} was given for a policy.",
        why="A graph decides by an object of Policy, fitted where there is something to fit.",
        todo="Give kind.fit(model.log(calibration)); one that learns while it runs goes through run_online_on_model.",
    )


def edge_margins(scores: Tensor) -> Tensor:
    """An edge's score minus the best other action, stopping included.

    Args:
        scores: (n, 1 + E), stopping first.

    Returns:
        (n, E); at most one is > 0 in a row.
    """
    if scores.shape[1] == 2:
        return scores[:, 1:] - scores[:, :1]
    top, where = scores.topk(2, dim=1)
    best_other = torch.where(
        where[:, :1] == torch.arange(scores.shape[1], device=scores.device), top[:, 1:], top[:, :1]
    )
    return (scores - best_other)[:, 1:]
