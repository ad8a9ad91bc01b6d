"""The forms of a manifest's parts: what readers lean on is checked once, where a foreign file comes in.

Whatever else a part holds rides along. Every part may be null or absent here; `schema` says which ones a run must have.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptbench.errors import RunError


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class _Suite(_Part):
    name: str | None = None
    title: str | None = None
    text: str | None = None
    sha256: str | None = None
    overrides: list[str] | None = None
    limit: int | None = None


class _Device(_Part):
    name: str | None = None
    kind: str | None = None
    fingerprint: str | None = None
    threads: int | None = None


class _Git(_Part):
    revision: str | None = None
    dirty: bool | None = None


class _Meter(_Part):
    quantity: str | None = None
    scope: str | None = None
    whole_run: bool | None = None
    found: bool | None = None
    reason: str | None = None
    sensor: str | None = None
    sources: dict[str, str] | None = None
    co2e_kg: float | None = None
    grid_g_per_kwh: float | None = None


class _Model(_Part):
    title: str | None = None
    summary: str | None = None
    cite: str | None = None
    shape: str | None = None
    node_names: list[str] | None = None
    exit_names: list[str] | None = None
    node_macs: list[int] | None = None
    policy_macs: list[int] | None = None
    min_macs: int | None = None
    max_macs: int | None = None
    macs_full: int | None = None
    policy: str | None = None
    card: dict[str, Any] | None = None
    uncounted: list[str] | None = None


class _Condition(_Part):
    title: str | None = None
    summary: str | None = None
    kind: str | None = None
    access: str | None = None
    cite: str | None = None
    settings: dict[str, Any] | None = None
    deviates: list[str] | None = None
    sha256: str | None = None
    versions: dict[str, str] | None = None


class _Data(_Part):
    n: int | None = None
    split: str | None = None
    sha256: str | None = None
    shape: list[int] | None = None
    n_classes: int | None = None
    class_names: list[str] | None = None


class _Failure(_Part):
    case: str
    reason: str
    traceback: str | None = None


class _Stretch(_Part):
    started: str | None = None
    ended: str | None = None
    before: int | None = None
    git: _Git | None = None


class _CompiledPart(_Part):
    name: str
    kept: bool


class _Compiled(_Part):
    parts: list[_CompiledPart]


class _Manifest(_Part):
    id: str | None = None
    suite: _Suite | None = None
    gate: dict[str, Any] | None = None
    versions: dict[str, str | None] | None = None
    device: _Device | None = None
    git: _Git | None = None
    seeds: list[int] | None = None
    command: str | None = None
    started: str | None = None
    ended: str | None = None
    meters: dict[str, _Meter] | None = None
    models: dict[str, _Model] | None = None
    references: dict[str, _Model] | None = None
    conditions: dict[str, _Condition] | None = None
    data: dict[str, _Data] | None = None
    notes: list[str] | None = None
    stretches: list[_Stretch] | None = None
    compiled: dict[str, _Compiled] | None = None
    failures: list[_Failure] | None = None
    files: dict[str, dict[str, Any]] | None = None


def check_manifest(document: Any, where: str) -> None:
    """Check the forms of a manifest, a run's or what a baseline keeps of one.

    Raises:
        RunError: a part has another form; the first is named.
    """
    try:
        _Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise RunError(
            f"{where}: manifest, {place}: {first['msg'][:1].lower()}{first['msg'][1:]}.",
            why="It was changed by hand or by another program; reports and gates would have to guess.",
            todo="Restore the file, or run the suite again.",
        ) from None
