"""What a Ray worker does with a piece of work: makes its parts, calls it, says what came of it."""

from __future__ import annotations

import pickle
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adaptbench.attacks.identity import own_code
from adaptbench.errors import AdaptBenchError, EngineError
from adaptbench.experiment.engines import Part, device_of

_TELL_S = 0.5
_KEPT_PARTS = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """A part as a worker is told of it: its hash, and how to come by it."""

    id: str
    part: Part
    sent: Any


@dataclass(frozen=True, slots=True)
class Job:
    """A piece as a worker is told of it."""

    key: str
    call: Callable[..., Any]
    given: Mapping[str, Any]
    parts: Mapping[str, Wanted]
    threads: int
    made_for: tuple[str, str]
    teller: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says: a result and who made it, an error, or the part that it lacks."""

    result: Any = None
    by: Mapping[str, str] | None = None
    error: Exception | None = None
    refused: AdaptBenchError | None = None
    lacks: str = ""


def teller() -> type:
    """A class whose actor hears from workers how far they are, and tells the driver.

    It is made in a function so that Ray sends it as it is: its process imports neither this package nor torch.
    """

    class Teller:
        def __init__(self) -> None:
            self.shares: dict[str, tuple[int, int]] = {}

        def tell(self, key: str, done: int, of: int) -> None:
            self.shares[key] = (done, of)

        def all(self) -> dict[str, tuple[int, int]]:
            return self.shares

    return Teller


_parts: OrderedDict[str, Any] = OrderedDict()


def work(job: Job) -> Answer:
    """A piece, on a worker."""
    if (refused := _unlike(job)) is not None:
        return Answer(refused=refused)
    torch.set_num_threads(job.threads)
    parts: dict[str, Any] = {}
    for name, wanted in job.parts.items():
        try:
            parts[name] = _part(wanted, str(job.given.get("device", "cpu")))
        except LookupError:
            return Answer(lacks=wanted.id)
        except EngineError as error:
            return Answer(refused=error)
    last = 0.0

    def told(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _TELL_S:
            last = time.monotonic()
            job.teller.tell.remote(job.key, done, of)

    try:
        result = job.call(**parts, **job.given, told=told)
    except (Exception, SystemExit) as error:
        return Answer(error=_carried(error), by=device_of(str(job.given.get("device", "cpu"))))
    return Answer(result, device_of(str(job.given.get("device", "cpu"))))


def _unlike(job: Job) -> EngineError | None:
    """Why this machine's code would not do what the driver's does."""
    own = (own_code(), torch.__version__)
    if own == job.made_for:
        return None
    what = "adaptbench" if own[0] != job.made_for[0] else f"torch ({torch.__version__}, not {job.made_for[1]})"
    return EngineError(
        f"node {_node()} runs another {what} than the driver.",
        why="Cells are kept under a hash of the code that made them.",
        todo="Install the driver's version on every node.",
    )


def _part(wanted: Wanted, device: str) -> Any:
    """A part's value, kept for the next pieces.

    Raises:
        LookupError: it has to be sent. EngineError: this node's files are others, and it is not sent.
    """
    if wanted.id in _parts:
        _parts.move_to_end(wanted.id)
        return _parts[wanted.id]
    _parts[wanted.id] = _made_here(wanted, device)
    while len(_parts) > _KEPT_PARTS:
        _parts.popitem(last=False)
    return _parts[wanted.id]


def _made_here(wanted: Wanted, device: str) -> Any:
    if wanted.sent is not None:
        import ray

        value = ray.get(wanted.sent)
        return value.to(device) if isinstance(value, nn.Module) and device != "cpu" else value
    part = wanted.part
    assert part.again is not None
    why: BaseException | None = None
    try:
        value = part.again()
        if part.id_of(value) == wanted.id:
            return value
    except Exception as error:  # a missing file is said by whatever looks for it
        why = error
    if part.sent:
        raise LookupError(wanted.id)
    seen = f"not there: {line_of(why)}" if why else "not the driver's"
    raise EngineError(
        f"node {_node()}: {part.what} is {seen}",
        why="Its samples would be others than the driver's.",
        todo="Copy the data set to every node; the same --data-root, or ADAPTBENCH_DATA on each.",
    ) from why


def _node() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def _carried(error: BaseException) -> Exception:
    """An error that reaches the driver as it is; where it cannot be pickled, one that says the same."""
    trace = "".join(traceback.format_exception(error))
    kept: Exception = RuntimeError(line_of(error)) if isinstance(error, SystemExit) else error  # type: ignore[assignment]
    try:
        again = pickle.loads(pickle.dumps(kept))
        if type(again) is not type(kept) or str(again) != str(kept):
            kept = RuntimeError(line_of(error))
    except Exception:
        kept = RuntimeError(line_of(error))
    kept.add_note(f"on node {_node()}:\n{trace}")
    return kept


def line_of(error: BaseException) -> str:
    """An error in one line."""
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{type(error).__name__}: {said[:300]}"
