"""Who a case is. Cases are told apart by their fields; ids are for reading, and no two evaluations share one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

_Record = TypeVar("_Record", bound=Mapping[str, Any])

EVALUATION = ("data", "model", "knob", "knob_value", "condition", "seed")
"""Fields that make two evaluations different ones."""
CASE = (*EVALUATION, "batch_size", "mode")
"""Fields that make two cases different ones."""

COMPACTED: Final = "compacted"
"""The mode of a timing that names none: survivors of a batch stay together. See `adaptive.parts.TimedMode`."""
COMPILED: Final = "compiled"
"""The mode of a timing whose parts were compiled; its static reference's were, too."""

Key = tuple[Any, ...]
_LIKE_A_SUFFIX = re.compile(r"/(?=(?:[sbk]\d+|per-sample|queues|compiled)(?:/|$))")


def evaluation_key(record: Mapping[str, Any]) -> Key:
    """The values of `EVALUATION`; no seed counts as seed 0."""
    return tuple(record.get(name) or 0 if name == "seed" else record.get(name) for name in EVALUATION)


def case_key(record: Mapping[str, Any]) -> Key:
    """The values of `CASE`."""
    return (*evaluation_key(record), record.get("batch_size"), mode_of(record))


def mode_of(record: Mapping[str, Any]) -> str | None:
    """How the batches of a timed case were executed; None of a case that was not timed."""
    if record.get("batch_size") is None:
        return None
    return str(record.get("mode") or COMPACTED)


def clean_of(record: Mapping[str, Any], records: Iterable[_Record]) -> _Record | None:
    """The clean case that a record is held against: of the same model, knob and data.

    Of the same seed where there is one, else the first; None where there is none.
    """
    same = ("data", "model", "knob", "knob_value")
    candidates = [
        other
        for other in records
        if other.get("kind") == "clean" and all(other.get(name) == record.get(name) for name in same)
    ]
    seeded = [other for other in candidates if (other.get("seed") or 0) == (record.get("seed") or 0)]
    return next(iter(seeded or candidates), None)


def evaluation_id(
    data: str, model: str, condition: str, *, knob: str | None = None, value: float | None = None, seed: int = 0
) -> str:
    """``data/model[@knob=value]/condition[/s<seed>]``.

    What a name has of the id's own marks is written as in URLs (``m/v2`` → ``m%2Fv2``), so that different evaluations
    have different ids; the slash of ``torchattacks/PGD`` stays.
    """
    label = _quoted(model)
    if knob is not None and value is not None:
        short = f"{value:g}"
        label += f"@{knob}={short if float(short) == value else repr(value)}"
    shown = _LIKE_A_SUFFIX.sub("%2F", condition.replace("%", "%25"))
    return f"{_quoted(data)}/{label}/{shown}" + (f"/s{seed}" if seed else "")


def carried_id(condition: str, model: str) -> str:
    """What a condition is called on another model than the one that its inputs were crafted on."""
    return f"{condition} from {model}"


def timed_id(evaluation: str, batch_size: int, mode: str = COMPACTED) -> str:
    """The case of an evaluation that was timed at a batch size; ``/queues``, ``/compiled``, … in another mode."""
    return f"{evaluation}/b{batch_size}" + ("" if mode == COMPACTED else f"/{mode}")


def mixed_id(case: str, attacked: int) -> str:
    """The windows of a timed case's clean batches in which so many rows are attacked."""
    return f"{case}/k{attacked}"


def window_modes(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Case of a window → its mode, of timed cases and of the mixed batches beside them."""
    found: dict[str, str] = {}
    for record in records:
        if mode := mode_of(record):
            case = str(record["case"])
            mixed = [mixed_id(case, entry["attacked"]) for entry in record.get("neighbours") or []]
            found |= dict.fromkeys([case, *mixed], mode)
    return found


def static_id(net: str, batch_size: int | None, mode: str | None = None) -> str:
    """The windows of a net's static reference; its policies share them, and all modes but ``/compiled``."""
    named = f"static:{_quoted(net)}" + (f"/b{batch_size}" if batch_size is not None else "")
    return f"{named}/{COMPILED}" if mode == COMPILED else named


def static_of(record: Mapping[str, Any]) -> str:
    """The windows of the static reference that a timed case is held against."""
    return static_id(record.get("net") or record["model"], record.get("batch_size"), mode_of(record))


def _quoted(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F").replace("@", "%40")
