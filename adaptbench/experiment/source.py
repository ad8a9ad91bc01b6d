"""A suite's or a study's file: read, laid over by -o, held against its model; every mistake with its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from adaptbench.errors import AdaptBenchError, SuiteError, UsageError
from adaptbench.experiment.finding import KEYS, find_suite
from adaptbench.located_yaml import Located, Place, parse, read, spell
from adaptbench.registry import did_you_mean
from adaptbench.results.store import called

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read, and what was laid over it.

    Args:
        name: file stem. value: with the overrides. located: as written. overrides: ``-o`` as given.
        laid: where each of them reaches. folder: that the file lies in; None where it lies in memory.
    """

    name: str
    value: dict[str, Any]
    located: Located
    overrides: tuple[str, ...] = ()
    laid: tuple[tuple[Place, str], ...] = ()
    folder: Path | None = None

    @classmethod
    def read(cls, name: str, overrides: Sequence[str] = (), kind: str = "suite") -> Source:
        """Read a file and lay values over it.

        Args:
            name: of a suite or study, or a path. overrides: ``key=value``, keys dotted, values YAML.
            kind: that it must be of, where it is one of `KEYS`.

        Raises:
            SuiteError: there is no such file, it is no mapping, or of another kind.
            UsageError: an override that is no key=value.
        """
        path = find_suite(name)
        located = read(path)
        if not isinstance(located.value, dict):
            raise SuiteError(
                f"{path}: a suite is a mapping of keys.", todo="See suites/bench.yaml for one with every part."
            )
        value: dict[str, Any] = dict(located.value)
        laid = []
        for text in overrides:
            place, new = _override(text)
            _put(value, place, new, text)
            laid.append((place, text))
        if (key := KEYS.get(kind)) is not None and key not in value:
            raise SuiteError(
                f"{path}: it is no {called(kind)}: it has no '{key}'.",
                todo="Run it by `adaptbench.run`, which knows every kind.",
            )
        return cls(path.stem, value, located, tuple(overrides), tuple(laid), path.parent)

    def beside(self, ref: str) -> str:
        """What a file refers to: a YAML file by its path from the own folder, if it lies there; else as given."""
        if self.folder is not None and ref.endswith((".yaml", ".yml")) and (self.folder / ref).is_file():
            return str(self.folder / ref)
        return ref

    def where(self, place: Place) -> str:
        """A place as users read it; what an override reached is told by the override."""
        for over, text in reversed(self.laid):
            if place[: len(over)] == over:
                return f"-o {text}, {spell(place)}"
        return self.located.where(place)

    @contextmanager
    def placed(self, place: Place) -> Iterator[None]:
        """Turn any mistake inside into one that says where in the file it stands."""
        try:
            yield
        except AdaptBenchError as error:
            raise SuiteError(f"{self.where(place)}: {error.seen}", why=error.why, todo=error.todo) from None

    def each_once(self, lists: Iterable[tuple[Place, Sequence[Any]]], todo: str = "Keep one of them.") -> None:
        """Refuse lists that hold a thing twice: it would be one row or two by chance.

        Args:
            lists: where each stands, and what it holds. todo: what to do about it.

        Raises:
            SuiteError: with the place of the second.
        """
        for place, values in lists:
            twice = next((i for i, value in enumerate(values) if value in values[:i]), None)
            if twice is not None:
                raise SuiteError(f"{self.where((*place, twice))}: {values[twice]!r} stands twice.", todo=todo)

    def contents(self, model: type[_Model]) -> tuple[_Model, str]:
        """The contents as a model, and their SHA-256.

        Raises:
            SuiteError: file, line, field; what is wrong and what would be right.
        """
        try:
            contents = model.model_validate(self.value)
        except ValidationError as error:
            raise self._explained(error, model) from None
        canonical = yaml.safe_dump(contents.model_dump(mode="json"), sort_keys=True, allow_unicode=True)
        return contents, hashlib.sha256(canonical.encode()).hexdigest()

    def _explained(self, error: ValidationError, model: type[BaseModel]) -> SuiteError:
        first, others = error.errors()[0], len(error.errors()) - 1
        place: Place = tuple(p for p in first["loc"] if not (isinstance(p, str) and p.startswith("function-")))
        if first["type"] == "extra_forbidden":
            keys = list(_model_at(model, place[:-1]).model_fields)
            owner = next((f" of '{part}'" for part in reversed(place[:-1]) if isinstance(part, str)), "")
            return SuiteError(
                f"{self.where(place)}: there is no such key.",
                todo=f"{did_you_mean(str(place[-1]), keys)}Keys{owner}: {', '.join(keys)}.",
            )
        if first["type"] == "missing":
            return SuiteError(
                f"{self.where(place[:-1])}: '{'.'.join(map(str, place))}' is missing.",
                todo="See suites/bench.yaml for a whole suite, suites/replicate-eenet.yaml for a study.",
            )
        message = first["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(first["input"], dict) else f" (seen: {first['input']!r})"
        more = f" {others} more after this." if others else ""
        return SuiteError(
            f"{self.where(place)}: {message[:1].lower()}{message[1:]}{shown}.", todo=f"Mend the value.{more}"
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked file and where it came from.

    Args:
        name: file stem. text: as written. overrides: ``-o`` as given. sha256: of the contents with them.
        located: for errors found later.

    Attributes:
        kind: "suite", or one of `KEYS`.
    """

    kind: ClassVar[str] = "suite"

    name: str
    text: str
    overrides: tuple[str, ...]
    sha256: str
    located: Source


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


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel]:
    """The part of a model that a place is in."""
    for part in place:
        if part in model.model_fields:
            model = model_inside(model.model_fields[str(part)].annotation) or model
    return model


def model_inside(kind: Any) -> type[BaseModel] | None:
    """The model that an annotation (a list, a mapping, perhaps none) holds."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((held for inner in get_args(kind) if (held := model_inside(inner))), None)
