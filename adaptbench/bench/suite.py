"""A suite: which models, conditions and meters; read from YAML, checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from adaptbench.bench.conditions import check_condition, check_transfer
from adaptbench.bench.entries import Entry
from adaptbench.errors import SuiteError
from adaptbench.experiment.measuring import Calls, Count
from adaptbench.experiment.meters import SETTINGS, check_meter, check_setting
from adaptbench.experiment.source import Loaded, Source
from adaptbench.located_yaml import Place
from adaptbench.registry import DATA, METERS, MODELS, Registry, did_you_mean
from adaptbench.results.gate_rules import parse_gate
from adaptbench.results.identity import COMPACTED


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Seed = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
Knob = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Condition(_Strict):
    """One column of the bench: clean inputs, a control, or an attack.

    Args:
        id: in case names.
        ref: recipe name, path (from the suite's folder, then from here), torchattacks/NAME, or "shift".
        settings: laid over the recipe. limit: samples, when fewer than the suite's.
        models: labels of the models that it is for; None: all.
    """

    id: str
    ref: str
    settings: dict[str, Any] = {}
    limit: Count | None = None
    models: Annotated[list[str], Field(min_length=1)] | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `models` where none are named, so that suites from before keep their hash."""
        return without_unsaid(told(self), "models")


def without_unsaid(contents: dict[str, Any], *later: str) -> dict[str, Any]:
    """Contents without those of some keys that are empty."""
    return {key: value for key, value in contents.items() if value or key not in later}


def _condition(given: Any) -> Any:
    if isinstance(given, str):
        return {"id": given, "ref": given}
    if isinstance(given, dict) and len(given) == 1:
        ((ref, settings),) = given.items()
        settings = dict(settings or {}) if isinstance(settings, dict | None) else settings
        if isinstance(settings, dict):
            extra = {key: settings.pop(key) for key in ("id", "limit", "models") if key in settings}
            return {"id": ref, **extra, "ref": ref, "settings": settings}
    raise ValueError("a condition is a name, or a name with settings: `ilfo` or `ilfo: {eps: 16/255}`")


class Measure(Calls):
    """What is timed and metered, and for how long.

    Args:
        meters: names. conditions: which are timed (default: all).
        neighbours: attacked rows in batches that are clean otherwise, as further arms of each timed attack.
        country, region: ISO code and CodeCarbon's name, for its grid intensity; no network is asked.
        grid_g_per_kwh: grid intensity, instead of the place's.
    """

    meters: list[str] = Field(default=["clock", "modelled"])
    conditions: list[str] | None = None
    neighbours: list[Count] = Field(default=[])
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    region: Annotated[str, Field(min_length=1)] | None = None
    grid_g_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None

    @model_serializer(mode="wrap")
    def _as_written(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without keys that came later and say nothing, so that suites and windows from before keep their hash."""
        return self._unsaid(without_unsaid(told(self), "neighbours"))


Net = Annotated[Entry, BeforeValidator(Entry.of)]


class Suite(_Strict):
    """The whole file; see ``suites/bench.yaml`` for one with every part, ``suites/policies.yaml`` for policies.

    Args:
        models, references: registered names, or nets under policies, see `Entry`.
        sweeps: a registered name, or the label of an entry above → values of its policy's knob.
        transfer: conditions whose pictures, crafted on each model, are judged on all the others.
    """

    title: str = ""
    data: str
    models: Annotated[list[Net], Field(min_length=1)]
    references: list[Net] = []
    sweeps: dict[str, list[Knob]] = {}
    conditions: list[Annotated[Condition, BeforeValidator(_condition)]] = [Condition(id="clean", ref="clean")]
    transfer: list[str] = []
    limit: Count | None = None
    chunk: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 500
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    strict: Annotated[bool, Field(strict=True)] = True
    measure: Measure | None = None
    gate: dict[str, Any] = {}

    @model_serializer(mode="wrap")
    def _as_written(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without keys that came later and say nothing, so that suites from before keep their hash."""
        return without_unsaid(told(self), "transfer")

    @property
    def entries(self) -> dict[str, Entry]:
        """Everything that is loaded, by label."""
        named = {entry.label: entry for entry in [*self.models, *self.references]}
        return {**named, **{name: Entry(net=name) for name in self.sweeps if name not in named}}

    @property
    def labels(self) -> list[str]:
        """Of the models."""
        return [entry.label for entry in self.models]


@dataclass(frozen=True, slots=True)
class LoadedSuite(Loaded):
    """A checked suite. suite: its contents."""

    suite: Suite


def load_suite(name: str, overrides: Sequence[str] = ()) -> LoadedSuite:
    """Read, override and check a suite.

    Args:
        name: of a suite, or a path.
        overrides: ``key=value``, keys dotted, values YAML.

    Raises:
        SuiteError: file, line, field; what is wrong and what would be right.
        UsageError: an override that is no key=value.
    """
    source = Source.read(name, overrides)
    if "arrivals" in source.value:
        raise SuiteError(f"{source.located.file}: it is of kind serving.", todo="Run it by `adaptbench.run`.")
    if "decoders" in source.value:
        raise SuiteError(f"{source.located.file}: it is of kind decoding.", todo="Run it by `adaptbench.run`.")
    if "graphs" in source.value:
        raise SuiteError(f"{source.located.file}: it is a study, no suite.", todo="Run it by `run_study`.")
    return checked(source)


def checked(source: Source, given: Collection[str] = ()) -> LoadedSuite:
    """The suite that a source holds.

    Args:
        given: names of nets and data that are handed over when it is planned; no registry needs to have them.

    Raises:
        SuiteError: file, line, field; what is wrong and what would be right.
    """
    suite, digest = source.contents(Suite)
    conditions = [c.model_copy(update={"ref": source.beside(c.ref)}) for c in suite.conditions]
    suite = suite.model_copy(update={"conditions": conditions})
    _check_names(suite, source, given)
    return LoadedSuite(source.name, source.located.text, source.overrides, digest, source, suite)


def _check_names(suite: Suite, source: Source, given: Collection[str]) -> None:
    named: list[tuple[Registry, str, Place]] = []
    if suite.data not in given:
        named.append((DATA, suite.data.partition(":")[0], ("data",)))
    for key in ("models", "references"):
        for i, entry in enumerate(getattr(suite, key)):
            with source.placed((key, i)):
                entry.check(given)
    labels = {entry.label for entry in [*suite.models, *suite.references]}
    named += [(MODELS, name, ("sweeps", name)) for name in suite.sweeps if name not in labels]
    named += [
        (METERS, name, ("measure", "meters", i)) for i, name in enumerate(suite.measure.meters if suite.measure else [])
    ]
    for registry, name, place in named:
        with source.placed(place):
            registry.entry(name)
    if suite.measure is not None:
        for i, rows in enumerate(suite.measure.neighbours):
            if rows >= max(suite.measure.batch_sizes):
                raise SuiteError(
                    f"{source.where(('measure', 'neighbours', i))}: {rows} attacked rows leave no clean neighbour in a "
                    f"batch of {max(suite.measure.batch_sizes)}.",
                    todo="Attack fewer rows, or time larger batches.",
                )
        with source.placed(("measure", "modes")):
            suite.measure.check()
        if suite.measure.neighbours and COMPACTED not in suite.measure.modes:
            raise SuiteError(
                f"{source.where(('measure', 'neighbours'))}: no batch stays together in modes: "
                f"[{', '.join(suite.measure.modes)}].",
                why="What attacked rows cost their batch is timed where survivors of a batch stay together.",
                todo="Add compacted to modes, or leave neighbours out.",
            )
        for i in range(len(suite.measure.meters)):
            with source.placed(("measure", "meters", i)):
                check_meter(i, suite.measure)
        for key in SETTINGS:
            with source.placed(("measure", key)):
                check_setting(key, suite.measure)
    with source.placed(("gate",)):
        parse_gate(suite.gate)
    _check_each_once(suite, source)
    _check_conditions(suite, source)


def _check_each_once(suite: Suite, source: Source) -> None:
    """No two cases may be the same one."""
    lists: list[tuple[Place, list[Any]]] = [
        (("models",), suite.labels),
        (("references",), [entry.label for entry in suite.references]),
        (("seeds",), suite.seeds),
        (("transfer",), suite.transfer),
        (("measure", "batch_sizes"), suite.measure.batch_sizes if suite.measure else []),
        (("measure", "meters"), suite.measure.meters if suite.measure else []),
        (("measure", "neighbours"), suite.measure.neighbours if suite.measure else []),
        *((("sweeps", name), [f"{value:g}" for value in values]) for name, values in suite.sweeps.items()),
    ]
    for place, values in lists:
        for i, value in enumerate(values):
            if value in values[:i]:
                raise SuiteError(
                    f"{source.where((*place, i))}: {value} stands twice.",
                    why="Two cases would have one name; knob values are told apart by six digits.",
                    todo="Keep one of them.",
                )
    for i, entry in enumerate(suite.references):
        if entry.label in suite.labels:
            raise SuiteError(
                f"{source.where(('references', i))}: '{entry.label}' is a model of this suite, too.",
                why="Its clean case would stand twice.",
                todo="Keep it in one of the two lists.",
            )


def _check_conditions(suite: Suite, source: Source) -> None:
    ids = [c.id for c in suite.conditions]
    for i, condition in enumerate(suite.conditions):
        with source.placed(("conditions", i)):
            check_condition(condition.id, condition.ref, condition.settings)
        _check_models_of(condition, suite.labels, source, i)
    for i, name in enumerate(ids):
        if ids.index(name) != i:
            raise SuiteError(
                f"{source.where(('conditions', i))}: two conditions are called '{name}'.",
                todo="Give one an id of its own: `ilfo: {eps: 16/255, id: ilfo-16}`.",
            )
    if "clean" not in ids:
        raise SuiteError(
            f"{source.where(('conditions',))}: there is no 'clean'.",
            why="Recovery and increase are counted against the clean case of the same model.",
            todo="Put `- clean` first.",
        )
    for i, name in enumerate(suite.transfer):
        with source.placed(("transfer", i)):
            check_transfer(name, {c.id: (c.ref, c.settings) for c in suite.conditions}, len(suite.models))
    for i, name in enumerate(suite.measure.conditions or [] if suite.measure else []):
        if name not in ids:
            raise SuiteError(
                f"{source.where(('measure', 'conditions', i))}: no condition is called '{name}'.",
                todo=f"{did_you_mean(name, ids)}Conditions: {', '.join(ids)}.",
            )


def _check_models_of(condition: Condition, labels: list[str], source: Source, i: int) -> None:
    """A condition may be for some models; clean is for all, as everything is held against it."""
    for name in condition.models or []:
        if condition.id == "clean" or name not in labels:
            what = "the condition 'clean' is for all models" if name in labels else f"no model is called '{name}'"
            raise SuiteError(
                f"{source.where(('conditions', i))}: {what}.",
                why=f"'{condition.id}' names the models that it is for.",
                todo=f"{did_you_mean(name, labels)}Models of this suite: {', '.join(labels)}.",
            )
