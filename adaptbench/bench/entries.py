"""What a suite runs: a registered net as it ships, or under a policy or a defence made when the run is prepared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer

from adaptbench.errors import AdaptBenchError, CapabilityError, PolicyError, UsageError
from adaptbench.located_yaml import parse
from adaptbench.registry import DEFENCES, MODELS, POLICIES, did_you_mean
from adaptbench.zoo.factories import Factory, is_factory

if TYPE_CHECKING:
    from adaptbench.adaptive import AdaptiveModel, CalibrationLog, Policy, Split
    from adaptbench.defences import Defence
    from adaptbench.zoo.loading import Loaded

_FORM = (
    "a model is a name, or a name with a policy, a defence or both: `sdn`, `sdn: {exact-budget: {budget: 0.5}}`, "
    "`sdn: {defence: quantise}`, `sdn: {uniform: {}, defence: {quantise: {levels: 8}}}`"
)
DEFENCE = "defence"
"""The word beside a policy that names a defence; no policy is called so."""
SHARE = "budget"
"""The setting that suites give as a share of the plain net's MACs; policies take it in their log's unit."""


class Entry(BaseModel):
    """One of a suite's models.

    Args:
        net: name in the model registry, or a factory, ``./mine.py:build``.
        policy: name in the policy registry; None for the net's own.
        settings: of the policy's fit; a ``budget`` is a share of the plain net's MACs.
        defence: name in the registry of defences; None for none. defence_settings: of it.
        id: in case names, instead of the one made of net, policy, defence and settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    net: str
    policy: str | None = None
    settings: dict[str, Any] = {}
    defence: str | None = None
    defence_settings: dict[str, Any] = {}
    id: str | None = Field(default=None, min_length=1)

    @property
    def label(self) -> str:
        """What its cases are called: ``sdn``, ``sdn:exact-budget(budget=0.5)``, ``sdn+quantise(levels=8)``."""
        if self.id:
            return self.id
        net = Factory.read(self.net).name if is_factory(self.net) else self.net
        policy = f":{_told(self.policy, self.settings)}" if self.policy else ""
        return net + policy + (f"+{_told(self.defence, self.defence_settings)}" if self.defence else "")

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
        net, inner = _single(given)
        if isinstance(inner, str):
            return cls(net=net, policy=inner)
        if not isinstance(inner, dict):
            raise ValueError(_FORM)
        policies = {name: settings for name, settings in inner.items() if name != DEFENCE}
        policy, settings = _named(policies) if policies or DEFENCE not in inner else (None, {})
        defence, of_defence = _named(inner[DEFENCE]) if DEFENCE in inner else (None, {})
        ids = [own.pop("id") for own in (settings, of_defence) if "id" in own]
        if len(ids) > 1:
            raise ValueError("an id stands with the policy and with the defence: keep one")
        return cls(
            net=net,
            policy=policy,
            settings=settings,
            defence=defence,
            defence_settings=of_defence,
            id=ids[0] if ids else None,
        )

    @model_serializer
    def _as_written(self) -> Any:
        """A net of its own stays a name, so that suites from before keep their hash."""
        if self.policy is None and self.defence is None:
            return self.net
        label = {"id": self.id} if self.id else {}
        inner: dict[str, Any] = {}
        if self.policy is not None:
            inner[self.policy] = {**self.settings, **label}
        if self.defence is not None:
            inner[DEFENCE] = {self.defence: {**self.defence_settings, **({} if self.policy else label)}}
        return {self.net: inner}

    def check(self, given: Collection[str] = ()) -> None:
        """Refuse names that no registry has and settings that the policy's fit does not take.

        Args:
            given: names of nets that are handed over, so that no registry needs to have them.

        Raises:
            UnknownNameError: no such net, policy or defence. UsageError: no such setting, or a value no defence takes.
        """
        if self.net not in given:
            Factory.read(self.net) if is_factory(self.net) else MODELS.entry(self.net)
        self.made_defence()
        if self.policy is None:
            return
        takes = list(POLICIES.load(self.policy).fit_settings())
        for name in self.settings:
            if name not in takes:
                raise UsageError(
                    f"the policy '{self.policy}' has no setting '{name}'.",
                    todo=f"{did_you_mean(name, takes)}Settings: {', '.join(takes) or 'none'}.",
                )

    def made_defence(self) -> Defence | None:
        """The defence that is named, with its settings.

        Raises:
            UnknownNameError: no such defence. UsageError: no such setting, or a value that it cannot take.
        """
        if self.defence is None:
            return None
        made: Defence = DEFENCES.load(self.defence).made(self.defence, self.defence_settings)
        return made


def policy_of(given: str | Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """A policy as the command line and Python name it, in the form of a suite.

    Args:
        given: ``exact-budget``, ``exact-budget: {budget: 0.5}`` as text (braces may stand around it), or the mapping.

    Raises:
        UsageError: it is neither a name nor a name with settings.
    """
    value = parse(given, "--policy").value if isinstance(given, str) else given
    try:
        if isinstance(value, dict) and DEFENCE in value:
            raise ValueError("a defence has an option of its own")
        Entry.of("net" if value is None else {"net": value})
    except ValueError:
        raise UsageError(
            f"--policy {given} is no policy.",
            todo="Give a name, or a name with settings: --policy 'exact-budget: {budget: 0.5}'.",
        ) from None
    return value if value is None or isinstance(value, str) else dict(value)


def put_under(
    policy: str | Mapping[str, Any] | None, defence: str | Mapping[str, Any] | None
) -> str | dict[str, Any] | None:
    """What stands beside a net's name in a suite, from a policy and a defence as the command line and Python name them.

    Args:
        policy: as for `policy_of`. defence: ``quantise``, ``quantise: {levels: 8}`` as text, or the mapping.

    Raises:
        UsageError: one of them is neither a name nor a name with settings.
    """
    inner = policy_of(policy)
    if defence is None:
        return inner
    value = parse(defence, "--defence").value if isinstance(defence, str) else defence
    own = {inner: {}} if isinstance(inner, str) else dict(inner or {})
    own[DEFENCE] = value if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else value
    try:
        Entry.of({"net": own})
    except ValueError:
        raise UsageError(
            f"--defence {defence} is no defence.",
            todo="Give a name, or a name with settings: --defence 'quantise: {levels: 8}'.",
        ) from None
    return own


def _told(name: str | None, settings: Mapping[str, Any]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in settings.items())
    return f"{name}({inside})" if inside else str(name)


def _named(given: Any) -> tuple[str, dict[str, Any]]:
    """A name, or a name with settings."""
    name, settings = (given, {}) if isinstance(given, str) else _single(given)
    if not isinstance(settings, dict | None):
        raise ValueError(_FORM)
    return name, dict(settings or {})


def _single(given: Any) -> tuple[str, Any]:
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError(_FORM)
    ((key, value),) = given.items()
    if not isinstance(key, str):
        raise ValueError(_FORM)
    return key, value


@dataclass(frozen=True, slots=True)
class Fitting:
    """Puts nets under the policies and defences that a suite names; each net's calibration log is made once.

    What is put in front of a net comes first, so that a policy is fitted on what it will see; what changes decisions
    comes last. A net's own policy keeps the thresholds that it ships with.

    Args:
        calibration: gives the split to fit on, when one is wanted. seed: of the fits.
        log_of: a net's log on it.
    """

    calibration: Callable[[], Split]
    seed: int
    logs: dict[str, CalibrationLog]
    log_of: Callable[[AdaptiveModel, Split], CalibrationLog] = lambda model, split: model.log(split)

    def apply(self, entry: Entry, loaded: Loaded) -> Loaded:
        """The model that an entry names.

        Args:
            loaded: its net.

        Raises:
            CapabilityError: the net decides by its weights, or has no policy of its own and none is named; the defence
                means nothing for it.
            PolicyError, UsageError: the policy or the defence cannot be fitted to this net, or not with these settings.
        """
        defence = entry.made_defence()
        if defence is None:
            return self._under(entry, loaded)
        if defence.needs_log:
            within = self._under(entry, loaded)
            log = self._log(entry.net, within.model) if defence.suits(within.model) else None
            return _defended(entry, defence, within, defence.applied(within.model, log=log, seed=self.seed))
        behind = replace(loaded, model=defence.applied(loaded.model, seed=self.seed))
        within = self._under(entry, behind)
        return _defended(entry, defence, within, within.model)

    def _under(self, entry: Entry, loaded: Loaded) -> Loaded:
        """Under the policy that is named."""
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
        before = entry.defence if model.front is not None else None
        log = self._log(entry.net, model, _told(before, entry.defence_settings) if before else "")
        policy = self._fitted(entry, loaded, log)
        card = {
            "name": policy.name,
            "settings": entry.settings,
            "fitted": policy.describe(),
            "fitted_on": log.split,
            "fitted_on_sha256": log.sha256,
            "seed": self.seed,
        }
        return replace(
            loaded,
            name=entry.label,
            title=f"{loaded.title}; under {POLICIES.entry(entry.policy).summary}",
            model=model.under(policy.requires_grad_(False)),  # the net's own weights may be somebody else's
            card={**loaded.card, "policy": card},
        )

    def _log(self, net: str, model: AdaptiveModel, defence: str = "") -> CalibrationLog:
        """Of a net, or of a net behind a defence: the one says nothing of the other."""
        key = f"{net}+{defence}"
        if key not in self.logs:
            self.logs[key] = self.log_of(model, self.calibration())
        return self.logs[key]

    def _fitted(self, entry: Entry, loaded: Loaded, log: CalibrationLog) -> Policy:
        kind = POLICIES.load(str(entry.policy))
        model: Any = loaded.model
        try:
            policy: Policy = kind.fit(log, seed=self.seed, **_in_unit(entry.settings, model.macs_full))
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


def _defended(entry: Entry, defence: Defence, loaded: Loaded, model: AdaptiveModel) -> Loaded:
    return replace(
        loaded,
        name=entry.label,
        title=f"{loaded.title}; defended: {DEFENCES.entry(str(entry.defence)).summary}",
        model=model.requires_grad_(False),
        card={**loaded.card, "defence": {"name": entry.defence, "settings": defence.describe()}},
    )


def _in_unit(settings: Mapping[str, Any], full: float) -> dict[str, Any]:
    share = settings.get(SHARE)
    if share is None:
        return dict(settings)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise UsageError(
            f"a budget of {share!r} is no share of the plain net's MACs.", todo="Write a number in (0, 1], like 0.5."
        )
    return {**settings, SHARE: share * full}
