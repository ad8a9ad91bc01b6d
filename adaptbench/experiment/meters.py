"""The meters that a suite names: made with the settings it gives them, checked before anything is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptbench.errors import AdaptBenchError, MeterError, UsageError
from adaptbench.meters.base import Meter
from adaptbench.registry import METERS

if TYPE_CHECKING:
    from adaptbench.bench.suite import Measure

SETTINGS = ("country", "region", "grid_g_per_kwh")
"""Keys of `measure` that are a meter's."""


def make_meter(name: str, spec: Measure) -> Meter:
    """A meter, closed, with what the suite says to it.

    Raises:
        UsageError: a setting that cannot be.
        MeterError: a plug-in that cannot be made, or that declares what no summary could find.
    """
    try:
        kind = METERS.load(name)
        if not issubclass(kind, Meter):
            raise TypeError("it is no subclass of adaptbench.meters.Meter")
        given = {key: getattr(spec, key) for key in SETTINGS}
        meter: Meter = kind(**{to: given[key] for key, to in kind.settings.items() if given[key] is not None})
    except AdaptBenchError:
        raise
    except Exception as error:  # whatever a plug-in's module or constructor does
        raise MeterError(
            f"the meter '{name}' cannot be made: {type(error).__name__}: {error}.",
            todo="Leave it out of `meters`, or ask its author.",
        ) from error
    if meter.name != name:
        raise MeterError(
            f"the meter registered as '{name}' calls itself '{meter.name}'.",
            why="Windows carry the second name and suites the first.",
            todo="Give both the same name; a plug-in's author does that.",
        )
    if meter.quantity not in ("energy", "time"):
        raise MeterError(
            f"the meter '{name}' reads '{meter.quantity}', which is neither energy nor time.",
            why="Its figures would reach no summary.",
            todo="A plug-in's author declares `quantity`.",
        )
    return meter


def check_meter(place: int, spec: Measure) -> None:
    """One of a suite's meters, looked at without opening it.

    Raises:
        UsageError: named twice, or its settings cannot be.
    """
    name = spec.meters[place]
    if name in spec.meters[:place]:
        raise UsageError(f"the meter '{name}' stands twice.", todo="Name it once.")
    make_meter(name, spec).check()


def check_setting(key: str, spec: Measure) -> None:
    """A meter's setting, where one is given.

    Raises:
        UsageError: no meter of the suite takes it.
    """
    if getattr(spec, key) is not None and not any(key in METERS.load(name).settings for name in spec.meters):
        raise UsageError(
            f"no meter of this suite takes '{key}'.",
            todo=f"Leave '{key}' out, or add the meter that it is for, such as codecarbon, to `meters`.",
        )
