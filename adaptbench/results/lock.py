"""One writer a run directory: a lock that names its holder, and that a dead holder does not keep."""

from __future__ import annotations

import json
import os
import platform
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adaptbench.errors import LockedError
from adaptbench.results.files import writable

LOCK = ".lock"
_ATTEMPTS = 8  # a holder that lets go removes the file under us: look again


class DirectoryLock:
    """Held while a command writes into a directory.

    The system's own lock (``flock``) tells the living from the dead on this machine, whatever their process numbers: it
    falls with its process. A holder on another machine cannot be asked, and is believed.

    Args:
        path: the directory; made where it does not exist.
        command: of the holder, for whoever finds it locked.

    Raises:
        LockedError: on entry, where another process holds it.
        OutputError: on entry, where the directory cannot be written to.
    """

    def __init__(self, path: str | Path, command: str = "") -> None:
        self.path, self.command = Path(path), command
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        file = self.path / LOCK
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for _ in range(_ATTEMPTS):
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
                if not _take(descriptor):
                    holder = _holder(descriptor)
                    os.close(descriptor)
                    raise self._refusal(holder)
                if _same_file(descriptor, file):
                    break
                os.close(descriptor)
            else:
                raise self._refusal({})
        holder = _holder(descriptor)
        if holder and _may_live(holder):
            os.close(descriptor)
            raise self._refusal(holder)
        with writable(self.path):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(self._own()).encode())
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is None:
            return
        if os.name == "nt":  # no open file can be removed there
            os.close(self._descriptor)
            (self.path / LOCK).unlink(missing_ok=True)
        else:
            (self.path / LOCK).unlink(missing_ok=True)
            os.close(self._descriptor)
        self._descriptor = None

    def _own(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "host": _host(),
            "started": _started(os.getpid()),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
        }

    def _refusal(self, holder: dict[str, Any]) -> LockedError:
        here = holder.get("host") == _host()
        who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}"
        doing = f" (`{holder['command']}`)" if holder.get("command") else ""
        return LockedError(
            f"{self.path}: {who} writes to it since {holder.get('since', 'an unknown time')}{doing}.",
            why="Two writers would mix their figures.",
            todo="Wait for its end, or name another directory with --out."
            + ("" if here else f" If nothing runs there any more, remove {self.path / LOCK}."),
        )


def _take(descriptor: int) -> bool:
    """Whether the system's lock on an open file is ours now; True where it offers none."""
    if os.name == "nt":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: the process number has to do
    return True


def _same_file(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> dict[str, Any]:
    """Who wrote the file; empty where nobody did, or it was cut short."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        holder = json.loads(os.read(descriptor, 1 << 16))
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _may_live(holder: dict[str, Any]) -> bool:
    """Whether a holder without the system's lock may be alive: on another host, or the very process that it names."""
    if holder.get("host") != _host():
        return True
    pid, started = holder.get("pid"), holder.get("started")
    return isinstance(pid, int) and started is not None and pid != os.getpid() and _started(pid) == started


def _host() -> str:
    return platform.node() or socket.gethostname() or "localhost"


def _started(pid: int) -> float | None:
    """When a process began, so that a number given out again is not taken for it; None where there is none."""
    import psutil

    try:
        return round(float(psutil.Process(pid).create_time()), 1)
    except (psutil.Error, OverflowError, ValueError):
        return None
