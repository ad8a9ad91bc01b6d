"""What a suite runs: a registered net as it ships, or its weights under a policy fitted when the run is prepared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer

from adaptbench.errors import AdaptBenchError, CapabilityError, PolicyError, UsageError
from adaptbench.located_yaml import parse
from adaptbench.registry import MODELS, POLICIES, did_you_mean

if TYPE_CHECKING:
    from adaptbench.adaptive import CalibrationLog, Policy, Split
    from adaptbench.zoo.loading import Loaded

_FORM = "a model is a name, or a name with a policy: `sdn` or `sdn: {exact-budget: {budget: 0.5}}`"
SHARE = "budget"
"""The setting that suites give as a share of the plain net's MACs; policies take it in their log's unit."""


class Entry(BaseModel):
    """One of a suite's models.

    Args:
        net: name in the model registry. policy: name in the policy registry; None for the net's own.
        settings: of the policy's fit; a ``budget`` is a share of the plain net's MACs.
        id: in case names, instead of the one made of net, policy and settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    net: str
    policy: str | None = None
    settings: dict[str, Any] = {}
    id: str | None = Field(default=None, min_length=1)

    @property
    def label(self) -> str:
        """What its cases are called: ``sdn``, ``sdn:exact-budget(budget=0.5)``."""
        if self.id or self.policy is None:
            return self.id or self.net
        told = ",".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.net}:{self.policy}" + (f"({told})" if told else "")

    @classmethod
    def of(cls, given: Any) -> Self:
        """From what stands in the file.

        Raises:
            ValueError: it has neither form.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls(net=given)
        net, policy = _single(given)
        if isinstance(policy, str):
            return cls(net=net, policy=policy)
        name, settings = _single(policy)
        if not isinstance(settings, dict | None):
            raise ValueError(_FORM)
        own = dict(settings or {})
        return cls(net=net, policy=name, id=own.pop("id", None), settings=own)

    @model_serializer
    def _as_written(self) -> Any:
        """A net of its own stays a name, so that suites from before keep their hash."""
        if self.policy is None:
            return self.net
        return {self.net: {self.policy: {**self.settings, **({"id": self.id} if self.id else {})}}}

    def check(self, given: Collection[str] = ()) -> None:
        """Refuse names that no registry has and settings that the policy's fit does not take.

        Args:
            given: names of nets that are handed over, so that no registry needs to have them.

        Raises:
            UnknownNameError: no such net or policy. UsageError: no such setting.
        """
        if self.net not in given:
            MODELS.entry(self.net)
        if self.policy is None:
            return
        takes = list(POLICIES.load(self.policy).fit_settings())
        for name in self.settings:
            if name not in takes:
                raise UsageError(
                    f"the policy '{self.policy}' has no setting '{name}'.",
                    todo=f"{did_you_mean(name, takes)}Settings: {', '.join(takes) or 'none'}.",
                )


def policy_of(given: str | Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """A policy as the command line and Python name it, in the form of a suite.

    Args:
        given: ``exact-budget``, ``exact-budget: {budget: 0.5}`` as text (braces may stand around it), or the mapping.

    Raises:
        UsageError: it is neither a name nor a name with settings.
    """
    value = parse(given, "--policy").value if isinstance(given, str) else given
    try:
        Entry.of("net" if value is None else {"net": value})
    except ValueError:
        raise UsageError(
            f"--policy {given} is no policy.",
            todo="Give a name, or a name with settings: --policy 'exact-budget: {budget: 0.5}'.",
        ) from None
    return value if value is None or isinstance(value, str) else dict(value)


def _single(given: Any) -> tuple[str, Any]:
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError(_FORM)
    ((key, value),) = given.items()
    if not isinstance(key, str):
        raise ValueError(_FORM)
    return key, value


@dataclass(frozen=True, slots=True)
class Fitting:
    """Puts nets under the policies that a suite names; each net's calibration log is made once.

    Args:
        calibration: gives the split to fit on, when one is wanted. seed: of the fits.
    """

    calibration: Callable[[], Split]
    seed: int
    logs: dict[str, CalibrationLog]

    def apply(self, entry: Entry, loaded: Loaded) -> Loaded:
        """The model that an entry names.

        Args:
            loaded: its net.

        Raises:
            CapabilityError: the net decides by its weights, or has no policy of its own and none is named.
            PolicyError, UsageError: the policy cannot be fitted to this net, or not with these settings.
        """
        from adaptbench.adaptive import DecisionGraph, NeverStop

        model = loaded.model
        if entry.policy is None:
            if isinstance(model, DecisionGraph) and isinstance(model.policy, NeverStop) and model.structure.deciders:
                raise CapabilityError(
                    f"'{entry.net}' is a net without a policy of its own.",
                    todo=f"Name one: `{entry.net}: {{uniform: {{}}}}`; `adaptbench list policies` shows them.",
                )
            return loaded
        if not isinstance(model, DecisionGraph):
            raise CapabilityError(
                f"'{entry.net}' takes no policy: its decisions are part of its weights.",
                todo=f"Run it as it is (`{entry.net}`), or name a net with exits or a cascade.",
            )
        policy = self._fitted(entry, loaded, model)
        card = {
            "name": policy.name,
            "settings": entry.settings,
            "fitted": policy.describe(),
            "fitted_on": self.logs[entry.net].split,
            "fitted_on_sha256": self.logs[entry.net].sha256,
            "seed": self.seed,
        }
        return replace(
            loaded,
            name=entry.label,
            title=f"{loaded.title}; under {POLICIES.entry(entry.policy).summary}",
            model=model.under(policy).requires_grad_(False),
            card={**loaded.card, "policy": card},
        )

    def _fitted(self, entry: Entry, loaded: Loaded, model: Any) -> Policy:
        kind = POLICIES.load(str(entry.policy))
        if entry.net not in self.logs:
            self.logs[entry.net] = model.log(self.calibration())
        try:
            policy: Policy = kind.fit(
                self.logs[entry.net], seed=self.seed, **_in_unit(entry.settings, loaded.model.macs_full)
            )
            policy.bind(model.structure)
        except AdaptBenchError:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise PolicyError(
                f"'{entry.policy}' cannot be fitted to '{entry.net}' with {entry.settings or 'its defaults'}: {said}",
                todo="Mend the settings, or name another policy.",
            ) from error
        return policy


def _in_unit(settings: Mapping[str, Any], full: float) -> dict[str, Any]:
    share = settings.get(SHARE)
    if share is None:
        return dict(settings)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise UsageError(
            f"a budget of {share!r} is no share of the plain net's MACs.", todo="Write a number in (0, 1], like 0.5."
        )
    return {**settings, SHARE: share * full}
