"""Parts that stand inside another part's list: a name of a registry, and settings of that part."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adaptbench.errors import UnknownNameError
from adaptbench.registry import Registry, did_you_mean


def term(registry: Registry, name: str, settings: dict[str, Any] | None) -> Any:
    """The part, made.

    Raises:
        ValueError: no such part, a setting that it does not have, or a value that is none of its own; says which.
    """
    try:
        kind: type = registry.load(name)
    except UnknownNameError as error:
        near = did_you_mean(name, registry.names())
        raise ValueError(f"{error.seen} {near}There are: {', '.join(registry.names())}") from None
    known = [f.name for f in fields(kind) if f.init]
    for key in settings or {}:
        if key not in known:
            has = f"settings: {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"{name}: no setting is called '{key}'. {did_you_mean(key, known)}{has.capitalize()}")
    try:
        return TypeAdapter(kind).validate_python(settings or {})
    except ValidationError as error:
        first = error.errors()[0]
        told = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{'.'.join([name, *map(str, first['loc'])])}: {told}") from None
