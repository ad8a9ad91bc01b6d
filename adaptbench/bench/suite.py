"""A suite: which models, conditions and meters; read from YAML, checked before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from adaptbench.bench.conditions import check_condition
from adaptbench.errors import AdaptBenchError, SuiteError, UsageError
from adaptbench.experiment.finding import find_suite
from adaptbench.experiment.meters import SETTINGS, check_meter, check_setting
from adaptbench.located_yaml import Located, Place, parse, read, spell
from adaptbench.registry import DATA, METERS, MODELS, Registry, did_you_mean
from adaptbench.results.gate_rules import parse_gate


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
Seconds = Annotated[float, Field(le=3600, allow_inf_nan=False, strict=True)]
Knob = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Condition(_Strict):
    """One column of the bench: clean inputs, a control, or an attack.

    Args:
        id: in case names. ref: recipe name, path, or torchattacks/NAME.
        settings: laid over the recipe. limit: samples, when fewer than the suite's.
    """

    id: str
    ref: str
    settings: dict[str, Any] = {}
    limit: Count | None = None


def _condition(given: Any) -> Any:
    if isinstance(given, str):
        return {"id": given, "ref": given}
    if isinstance(given, dict) and len(given) == 1:
        ((ref, settings),) = given.items()
        settings = dict(settings or {}) if isinstance(settings, dict | None) else settings
        if isinstance(settings, dict):
            extra = {key: settings.pop(key) for key in ("id", "limit") if key in settings}
            return {"id": ref, **extra, "ref": ref, "settings": settings}
    raise ValueError("a condition is a name, or a name with settings: `ilfo` or `ilfo: {eps: 16/255}`")


class Measure(_Strict):
    """What is timed and metered, and for how long.

    Args:
        batch_sizes: inputs handed over at once. meters: names. blocks: ≥ 6 for a 95 % interval.
        window_s: of one stretch of work, at least; a sensor may ask for more. warmup_s: of every path.
        samples: inputs each window goes through. conditions: which are timed (default: all).
        country, region: ISO code and CodeCarbon's name, for its grid intensity; no network is asked.
        grid_g_per_kwh: grid intensity, instead of the place's.
    """

    batch_sizes: Annotated[list[Annotated[int, Field(ge=1, le=65_536, strict=True)]], Field(min_length=1)] = [1, 256]
    meters: list[str] = ["clock", "modelled"]
    blocks: Annotated[int, Field(ge=1, le=1000, strict=True)] = 8
    window_s: Annotated[Seconds, Field(gt=0)] = 0.05
    warmup_s: Annotated[Seconds, Field(ge=0)] = 0.05
    samples: Count = 256
    conditions: list[str] | None = None
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    region: Annotated[str, Field(min_length=1)] | None = None
    grid_g_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None


class Suite(_Strict):
    """The whole file; see ``suites/bench.yaml`` for one with every part."""

    title: str = ""
    data: str
    models: Annotated[list[str], Field(min_length=1)]
    references: list[str] = []
    sweeps: dict[str, list[Knob]] = {}
    conditions: list[Annotated[Condition, BeforeValidator(_condition)]] = [Condition(id="clean", ref="clean")]
    limit: Count | None = None
    chunk: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 500
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    strict: Annotated[bool, Field(strict=True)] = True
    measure: Measure | None = None
    gate: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """A checked suite and where it came from.

    Args:
        name: file stem. suite: the contents. text: as written. overrides: ``-o`` as given.
        sha256: of the contents with overrides.
        located: for errors found later.
    """

    name: str
    suite: Suite
    text: str
    overrides: tuple[str, ...]
    sha256: str
    located: Located


def load_suite(name: str, overrides: Sequence[str] = ()) -> LoadedSuite:
    """Read, override and check a suite.

    Args:
        name: of a suite, or a path.
        overrides: ``key=value``, keys dotted, values YAML.

    Raises:
        SuiteError: file, line, field; what is wrong and what would be right.
        UsageError: an override that is no key=value.
    """
    path = find_suite(name)
    located = read(path)
    if not isinstance(located.value, dict):
        raise SuiteError(
            f"{path}: a suite is a mapping of keys.", todo="See suites/bench.yaml for one with every part."
        )
    value, sources = dict(located.value), {}
    for text in overrides:
        place, new = _override(text)
        _put(value, place, new, text)
        sources[place[0]] = text
    located = Located(
        value, {k: v for k, v in located.lines.items() if not k or k[0] not in sources}, located.file, located.text
    )
    try:
        suite = Suite.model_validate(value)
    except ValidationError as error:
        raise _explain(error, located, sources) from None
    _check_names(suite, located, sources)
    canonical = yaml.safe_dump(suite.model_dump(mode="json"), sort_keys=True, allow_unicode=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return LoadedSuite(path.stem, suite, located.text, tuple(overrides), digest, located)


def _override(text: str) -> tuple[Place, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UsageError(
            f"the override '{text}' is not key=value.", todo="Write -o measure.blocks=6, or -o models=[static]."
        )
    return tuple(key.strip().split(".")), parse(value, f"-o {key.strip()}").value


def _put(value: dict[str, Any], place: Place, new: Any, text: str) -> None:
    for part in place[:-1]:
        inner = value.get(str(part))
        if inner is not None and not isinstance(inner, dict):
            raise UsageError(
                f"the override '{text}' goes through '{part}', which holds no keys.",
                todo=f"Override '{part}' as a whole.",
            )
        value[str(part)] = value = dict(inner or {})
    value[str(place[-1])] = new


def _where(located: Located, sources: dict[str | int, str], place: Place) -> str:
    return f"-o {sources[place[0]]}, {spell(place)}" if place and place[0] in sources else located.where(place)


_FIELDS = {"": list(Suite.model_fields), "measure": list(Measure.model_fields)}


def _explain(error: ValidationError, located: Located, sources: dict[str | int, str]) -> SuiteError:
    first = error.errors()[0]
    place: Place = tuple(p for p in first["loc"] if not (isinstance(p, str) and p.startswith("function-")))
    where = _where(located, sources, place)
    if first["type"] == "extra_forbidden":
        fields = _FIELDS.get(".".join(str(p) for p in place[:-1]), [])
        return SuiteError(
            f"{where}: there is no such key.", todo=f"{did_you_mean(str(place[-1]), fields)}Keys: {', '.join(fields)}."
        )
    if first["type"] == "missing":
        return SuiteError(
            f"{located.file}: '{'.'.join(map(str, place))}' is missing.",
            todo="See suites/bench.yaml for a whole suite.",
        )
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], dict) else f" (seen: {first['input']!r})"
    more = f" {len(error.errors()) - 1} more after this." if len(error.errors()) > 1 else ""
    return SuiteError(f"{where}: {message[:1].lower()}{message[1:]}{shown}.", todo=f"Mend the value.{more}")


def _check_names(suite: Suite, located: Located, sources: dict[str | int, str]) -> None:
    named: list[tuple[Registry, str, Place]] = [(DATA, suite.data.partition(":")[0], ("data",))]
    named += [
        (MODELS, name, (key, i)) for key in ("models", "references") for i, name in enumerate(getattr(suite, key))
    ]
    named += [(MODELS, name, ("sweeps", name)) for name in suite.sweeps]
    named += [
        (METERS, name, ("measure", "meters", i)) for i, name in enumerate(suite.measure.meters if suite.measure else [])
    ]
    for registry, name, place in named:
        with _placed(located, sources, place):
            registry.entry(name)
    if suite.measure is not None:
        for i in range(len(suite.measure.meters)):
            with _placed(located, sources, ("measure", "meters", i)):
                check_meter(i, suite.measure)
        for key in SETTINGS:
            with _placed(located, sources, ("measure", key)):
                check_setting(key, suite.measure)
    with _placed(located, sources, ("gate",)):
        parse_gate(suite.gate)
    _check_each_once(suite, located, sources)
    _check_conditions(suite, located, sources)


def _check_each_once(suite: Suite, located: Located, sources: dict[str | int, str]) -> None:
    """No two cases may be the same one."""
    lists: list[tuple[Place, list[Any]]] = [
        (("models",), suite.models),
        (("references",), suite.references),
        (("seeds",), suite.seeds),
        (("measure", "batch_sizes"), suite.measure.batch_sizes if suite.measure else []),
        (("measure", "meters"), suite.measure.meters if suite.measure else []),
        *((("sweeps", name), [f"{value:g}" for value in values]) for name, values in suite.sweeps.items()),
    ]
    for place, values in lists:
        for i, value in enumerate(values):
            if value in values[:i]:
                raise SuiteError(
                    f"{_where(located, sources, (*place, i))}: {value} stands twice.",
                    why="Two cases would have one name; knob values are told apart by six digits.",
                    todo="Keep one of them.",
                )
    for i, name in enumerate(suite.references):
        if name in suite.models:
            raise SuiteError(
                f"{_where(located, sources, ('references', i))}: '{name}' is a model of this suite, too.",
                why="Its clean case would stand twice.",
                todo="Keep it in one of the two lists.",
            )


@contextmanager
def _placed(located: Located, sources: dict[str | int, str], place: Place) -> Iterator[None]:
    """Turn any mistake inside into one that says where in the suite it stands."""
    try:
        yield
    except AdaptBenchError as error:
        raise SuiteError(f"{_where(located, sources, place)}: {error.seen}", why=error.why, todo=error.todo) from None


def _check_conditions(suite: Suite, located: Located, sources: dict[str | int, str]) -> None:
    ids = [c.id for c in suite.conditions]
    for i, condition in enumerate(suite.conditions):
        with _placed(located, sources, ("conditions", i)):
            check_condition(condition.id, condition.ref, condition.settings)
    for i, name in enumerate(ids):
        if ids.index(name) != i:
            raise SuiteError(
                f"{_where(located, sources, ('conditions', i))}: two conditions are called '{name}'.",
                todo="Give one an id of its own: `ilfo: {eps: 16/255, id: ilfo-16}`.",
            )
    if "clean" not in ids:
        raise SuiteError(
            f"{_where(located, sources, ('conditions',))}: there is no 'clean'.",
            why="Recovery and increase are counted against the clean case of the same model.",
            todo="Put `- clean` first.",
        )
    for i, name in enumerate(suite.measure.conditions or [] if suite.measure else []):
        if name not in ids:
            raise SuiteError(
                f"{_where(located, sources, ('measure', 'conditions', i))}: no condition is called '{name}'.",
                todo=f"{did_you_mean(name, ids)}Conditions: {', '.join(ids)}.",
            )
