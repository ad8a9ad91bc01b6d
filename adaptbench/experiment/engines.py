"""Who carries out pieces of work that hang on nothing but what they are given: this process, or workers elsewhere.

A piece is a range of samples, cut at the fixed places of its suite or log, and leaves one cell. Whoever commits cells
is always the one process that holds the directory; what is timed is never given away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from adaptbench.errors import UsageError
from adaptbench.experiment.environment import describe_device
from adaptbench.experiment.options import Options
from adaptbench.registry import ENGINES


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What many pieces share: a net, pictures, an attack.

    Args:
        value: as it is here. id_of: its content hash, the same in every process.
        again: makes it on another machine, from that machine's own files; None: it is sent.
        sent: it may be sent where `again` makes something else, or nothing. what: for messages.
    """

    value: Any
    id_of: Callable[[Any], str]
    again: Callable[[], Any] | None = None
    sent: bool = True
    what: str = "a part"


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A range of samples.

    Args:
        key: of the cell that comes of it. n: samples.
        call: of a module, called with the parts' values, what is given, and ``told``: (done, of) → None.
        parts, given: by the names of its arguments.
    """

    key: str
    n: int
    call: Callable[..., Any]
    parts: Mapping[str, Part]
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a piece.

    Args:
        piece: it. result: of its call. by: engine and device, for the cell's record. error: in place of a result.
    """

    piece: Piece
    result: Any
    by: dict[str, str]
    error: Exception | None = None

    def get(self) -> Any:
        """The result.

        Raises:
            Exception: what the call raised.
        """
        if self.error is not None:
            raise self.error
        return self.result


Told = Callable[[Piece, int, int], None]
"""Is told of a piece: so much of so much is done."""


class Engine(Protocol):
    """Carries out pieces. Same pieces, same results, to the bit, on processors of one kind."""

    name: str
    at_once: bool
    """It wants all the pieces there are together."""

    def each(self, pieces: Sequence[Piece], told: Told) -> Iterator[Made]:
        """Results as they come, in any order; what a call raises comes as a result, or is raised.

        Raises:
            EngineError: nothing can be carried out.
            KeyboardInterrupt: it was cancelled, and is nowhere worked on any more.
        """
        ...

    def close(self) -> None:
        """Nothing of it runs any more; it may be asked again."""


class Local:
    """One piece after another, here."""

    name, at_once = "local", False

    def __init__(self, options: Options) -> None:
        if options.address is not None:
            raise UsageError(
                f"--address {options.address} was given, and the engine is this process.",
                todo="Add --engine ray, or leave the address out.",
            )
        self._by = {"engine": self.name, **device_of(options.device)}

    def each(self, pieces: Sequence[Piece], told: Told) -> Iterator[Made]:
        """Each when it is asked for."""
        for piece in pieces:
            parts = {name: part.value for name, part in piece.parts.items()}
            result = piece.call(**parts, **piece.given, told=lambda done, of, p=piece: told(p, done, of))
            yield Made(piece, result, self._by)

    def close(self) -> None:
        """Nothing runs."""


def engine_of(options: Options) -> Engine:
    """The engine that was asked for; nothing is started yet.

    Raises:
        UnknownNameError: there is none of that name. MissingExtraError: its package is not installed.
        UsageError: an address that it has no use for.
    """
    made: Engine = ENGINES.load(options.engine)(options)
    return made


@cache
def device_of(device: str) -> dict[str, str]:
    """The device's name, and the fingerprint that stands for its machine."""
    told = describe_device(device)
    return {"device": str(told["name"]), "fingerprint": str(told["fingerprint"])}


class Tally:
    """Samples that are done of several pieces that are on together.

    Args:
        total: samples. done: before the first piece.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self._done = total, done
        self._parts: dict[str, int] = {}

    def told(self, piece: Piece, done: int, of: int) -> None:
        """Some of a piece."""
        self._parts[piece.key] = piece.n * done // max(of, 1)

    def ended(self, piece: Piece) -> None:
        """All of it."""
        self._parts.pop(piece.key, None)
        self._done += piece.n

    @property
    def done(self) -> int:
        """So far."""
        return min(self._done + sum(self._parts.values()), self.total)


def makers(cells: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Which engine made which cells, for a manifest.

    Args:
        cells: key and the record's ``by``; a cell without one is this version's local.

    Returns:
        Engine → its cells and the devices that they were made on, device → how many.
    """
    found: dict[str, Any] = {}
    for key, by in cells:
        of = found.setdefault(str(by.get("engine", Local.name)), {"cells": [], "devices": {}})
        of["cells"].append(key)
        name = str(by.get("device", ""))
        of["devices"][name] = of["devices"].get(name, 0) + 1
    return found


def merged(all_of: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several of `makers`' results as one."""
    found: dict[str, Any] = {}
    for one in all_of:
        for engine, told in one.items():
            of = found.setdefault(engine, {"cells": [], "devices": {}})
            of["cells"] += told["cells"]
            for name, n in told["devices"].items():
                of["devices"][name] = of["devices"].get(name, 0) + n
    return found
