"""Pieces of work on a Ray cluster: as many at once as it has room for, each on cores or a GPU of its own.

A worker makes nets and pictures from its own machine's files, under the driver's hashes; what was fitted or handed
over in Python comes through Ray's object store. A worker that is lost is replaced, and its piece done again. The driver
alone commits cells.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from adaptbench.attacks.identity import own_code
from adaptbench.errors import EngineError, MissingExtraError
from adaptbench.experiment.engines import Made, Part, Piece, Told
from adaptbench.experiment.options import Options
from adaptbench.experiment.ray_worker import Answer, Job, Wanted, line_of, teller, work

_log = logging.getLogger(__name__)

TRIES = 3
"""Workers that one piece may lose; after that it is the piece that kills them."""
LOST = ("WorkerCrashedError", "NodeDiedError", "ObjectLostError", "LocalRayletDiedError", "OutOfMemoryError")
"""Of ray.exceptions: the worker went, not the work."""
STORE_BYTES = 256 * 2**20
"""Of a cluster that is started here; Ray spills the rest to the disk."""
_LOOK_S = 1.0


class Ray:
    """Workers of a cluster, or of this machine's cores where none is named.

    A worker has as many threads as this process, since sums round differently with their number; a device "cuda" gives
    each a GPU of its own.

    Args:
        options: ``address`` of a running cluster ("auto", "10.0.0.1:6379"); None: that of RAY_ADDRESS, else the one
            that runs on this machine, else ("local": at once) one is started here and stopped again.

    Raises:
        MissingExtraError: ray is not installed.
    """

    name, at_once = "ray", True

    def __init__(self, options: Options) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError(
                "the engine 'ray' was asked for, and ray is not installed.",
                todo="pip install 'adaptbench[ray]', here and on every node; or --engine local.",
            )
        self.address, self.device = options.address, options.device
        self.again: list[str] = []
        self._own = False
        self._ray: Any = None
        self._teller: Any = None
        self._sent: dict[str, Any] = {}
        self._wanted: dict[int, Wanted] = {}
        self._held: list[Part] = []

    def each(self, pieces: Sequence[Piece], told: Told) -> Iterator[Made]:
        """Results as they come.

        Raises:
            EngineError: the cluster cannot be reached, a node would compute something else, or a piece lost `TRIES`
                workers (as that piece's error).
            KeyboardInterrupt: Ctrl-C or SIGTERM.
        """
        if not pieces:
            return
        ray = self._ready()
        waiting = deque((piece, 0) for piece in pieces)
        running: dict[Any, tuple[Piece, int]] = {}
        task = ray.remote(max_retries=0, max_calls=0)(work)
        with _terminated_as_interrupted():
            try:
                while waiting or running:
                    needs, slots = self._room(ray)
                    while waiting and len(running) < 2 * slots:
                        piece, lost = waiting.popleft()
                        running[task.options(**needs).remote(self._job(piece))] = (piece, lost)
                    ready, _ = ray.wait(list(running), timeout=_LOOK_S)
                    for ref in ready:
                        piece, lost = running.pop(ref)
                        made = self._made(ray, ref, piece, lost)
                        if made is None:
                            waiting.appendleft((piece, lost + 1))
                        elif isinstance(made, str):
                            self._send(ray, piece, made)
                            waiting.appendleft((piece, lost))
                        else:
                            yield made
                    self._tell(ray, running, told)
            finally:
                for ref in running:
                    with contextlib.suppress(Exception):
                        ray.cancel(ref, force=True)

    def close(self) -> None:
        """Forget what was sent; a cluster that was started here ends."""
        if self._ray is None:
            return
        if self._teller is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(self._teller)
        self._sent.clear()
        self._wanted.clear()
        self._held.clear()
        if self._own:
            self._ray.shutdown()
        self._ray = self._teller = None

    # ------------------------------------------------------------------ the cluster

    def _ready(self) -> Any:
        if self._ray is not None:
            return self._ray
        import ray

        self._own = not ray.is_initialized()
        if self._own:
            told: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            try:
                _connect(ray, self.address, told)
            except Exception as error:
                raise EngineError(
                    f"the Ray cluster at {self.address or 'RAY_ADDRESS'} does not answer: {line_of(error)}",
                    why="Nothing was computed; what is kept stays.",
                    todo="`ray status` on its head node shows it; or leave --address out to use this machine's cores.",
                ) from error
        self._ray = ray
        self._teller = ray.remote(num_cpus=0, max_restarts=-1)(teller()).remote()
        return ray

    def _room(self, ray: Any) -> tuple[dict[str, Any], int]:
        """What each worker asks for, and how many of them have room now."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        threads = torch.get_num_threads()
        cpus = min(threads, max((int(n.get("CPU", 0)) for n in nodes), default=1)) or 1
        if self.device.startswith("cuda"):
            gpus = int(sum(n.get("GPU", 0) for n in nodes))
            return {"num_cpus": 0, "num_gpus": 1}, max(gpus, 1)
        slots = sum(int(n.get("CPU", 0)) // cpus for n in nodes)
        return {"num_cpus": cpus}, max(slots, 1)

    def _job(self, piece: Piece) -> Job:
        parts = {name: self._want(part) for name, part in piece.parts.items()}
        kind = self.device.partition(":")[0]
        given = {name: kind if name == "device" else value for name, value in piece.given.items()}
        made_for = (own_code(), torch.__version__)
        return Job(piece.key, piece.call, given, parts, torch.get_num_threads(), made_for, self._teller)

    def _want(self, part: Part) -> Wanted:
        if id(part) not in self._wanted:
            self._held.append(part)  # its id stays its own
            name = part.id_of(part.value)
            bare = Part(None, part.id_of, part.again, part.sent, part.what)
            self._wanted[id(part)] = Wanted(name, bare, None)
            if part.again is None:
                self._put(self._ray, part)
        wanted = self._wanted[id(part)]
        return Wanted(wanted.id, wanted.part, self._sent.get(wanted.id))

    def _send(self, ray: Any, piece: Piece, lacks: str) -> None:
        """A worker has no files of a part that can be sent."""
        for part in piece.parts.values():
            if self._wanted[id(part)].id == lacks:
                self._put(ray, part)

    def _put(self, ray: Any, part: Part) -> None:
        name = self._wanted[id(part)].id
        if name in self._sent:
            return
        value = part.value
        if isinstance(value, nn.Module) and not self.device.startswith("cpu"):
            value = deepcopy(value).cpu()
        try:
            self._sent[name] = ray.put(value)
        except Exception as error:  # whatever pickling a stranger's object raises
            raise EngineError(
                f"{part.what} cannot be sent to a worker: {line_of(error)}",
                why="It is pickled for that, and something in it cannot be.",
                todo="Define its classes in a module that every node can import, or use --engine local.",
            ) from error

    # ------------------------------------------------------------------ answers

    def _made(self, ray: Any, ref: Any, piece: Piece, lost: int) -> Made | str | None:
        """What came of a piece; the id of a part that is to be sent, or None: its worker is lost, another does it."""
        try:
            answer: Answer = ray.get(ref)
        except Exception as error:
            if not any(type(error).__name__ == name or _is(ray, error, name) for name in LOST):
                raise EngineError(
                    f"a worker could not begin: {line_of(error)}",
                    why="Every node needs the packages of this machine, in the same versions.",
                    todo="Install adaptbench[ray] there, as it is here.",
                ) from error
            self.again.append(piece.key)
            _log.warning("a worker was lost (%s); its samples are done again", type(error).__name__)
            if lost + 1 < TRIES:
                return None
            gone = EngineError(
                f"{lost + 1} workers were lost over it, the last by {type(error).__name__}.",
                why="It needs more memory than they have, or crashes the interpreter.",
                todo="Give nodes more memory, or the suite a smaller `chunk`.",
            )
            return Made(piece, None, {"engine": self.name}, gone)
        if answer.refused is not None:
            raise answer.refused
        if answer.lacks:
            return answer.lacks
        return Made(piece, answer.result, {"engine": self.name, **(answer.by or {})}, answer.error)

    def _tell(self, ray: Any, running: Mapping[Any, tuple[Piece, int]], told: Told) -> None:
        with contextlib.suppress(Exception):  # only words hang on it
            shares = ray.get(self._teller.all.remote(), timeout=_LOOK_S)
            for piece, _ in running.values():
                if piece.key in shares:
                    told(piece, *shares[piece.key])


def _connect(ray: Any, address: str | None, told: Mapping[str, Any]) -> None:
    own = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    if address not in (None, "local"):
        ray.init(address=address, **told)
        return
    try:
        ray.init(address=address, **own, **told)
    except ValueError:  # there is a cluster, which has its store already
        ray.init(**told)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is Ctrl-C while workers run: they are stopped, and what is kept is said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is(ray: Any, error: Exception, name: str) -> bool:
    kind = getattr(ray.exceptions, name, None)
    return kind is not None and isinstance(error, kind)
