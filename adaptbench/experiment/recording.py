"""Carries out what leaves one record: studies, and suites of kinds serving and decoding. The frame of their runners."""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from adaptbench.errors import AdaptBenchError, Stopped
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.heading import Heading, now
from adaptbench.experiment.keys import digest_of
from adaptbench.experiment.options import Options
from adaptbench.experiment.source import Loaded
from adaptbench.results.lock import DirectoryLock
from adaptbench.results.record_runs import RecordRun
from adaptbench.results.writer import RunWriter

_log = logging.getLogger(__name__)
_Run = TypeVar("_Run", bound=RecordRun)


class RecordRunner(Generic[_Run]):
    """One execution into one directory. What takes long is a cell by content key, and is made once.

    Args:
        loaded: the file. title, limit: its own. key: of all that every cell hangs on. writer: of the directory.
            options: how.

    Attributes:
        opens: the class of what is left.
    """

    opens: ClassVar[type[RecordRun]]

    def __init__(
        self, loaded: Loaded, title: str, limit: int | None, key: str, writer: RunWriter, options: Options
    ) -> None:
        self.writer, self.options, self.failures = writer, options, Failures(writer.path)
        self._heading = Heading(loaded, title, limit, options)
        self._key = key
        self._cells: list[str] = []
        self._of_the_file = [loaded.sha256, limit]

    def run(self) -> _Run:
        """Everything, in order; what is committed already is not done again.

        Raises:
            Stopped: Ctrl-C; says what is kept.
        """
        try:
            return self._already() or self._run()
        except KeyboardInterrupt:
            raise Stopped(f"{self._so_far()} are kept in {self.writer.path}") from None
        finally:
            self._close()

    @abstractmethod
    def _run(self) -> _Run:
        """Carry it out."""

    @abstractmethod
    def _manifest(self) -> dict[str, Any]:
        """Beside the heading: data, meters, gate, notes."""

    def _content(self) -> str:
        """Hash of all that the figures hang on."""
        return digest_of([self._key, *self._of_the_file])

    def _so_far(self) -> str:
        return f"{len(self._cells)} cells"

    def _close(self) -> None:
        """Let go of what the execution held."""

    def _already(self) -> _Run | None:
        """The run that lies here, if it is this very one, whole in every file, and nothing in it failed."""
        try:
            kept = self._open()
        except AdaptBenchError:
            return None
        cells = kept.manifest.get("cells")
        same = kept.manifest.get("content") == self._content() and not self.opens.incomplete(kept.record)
        return kept if same and cells and all(self.writer.has(str(key)) for key in cells) else None

    def _open(self) -> _Run:
        return cast("_Run", self.opens.open(self.writer.path))  # `opens` is said beside the parameter

    def _begin(self) -> None:
        self.writer.begin(self._whole_manifest())

    def _whole_manifest(self) -> dict[str, Any]:
        failures = [failure.as_dict() for failure in self.failures.by_case.values()]
        return {**self._heading.told(), **self._manifest(), "failures": failures}

    def _finish(self, cells: Sequence[str], windows: Sequence[str], record: Mapping[str, Any], **told: Any) -> _Run:
        """Put the directory together.

        Args:
            cells: all that it was made of. windows: those of them with windows or steps. record: the figures.
            told: more for the manifest.
        """
        self.failures.sweep()
        manifest = self._whole_manifest() | {"content": self._content(), "cells": list(cells), "ended": now()} | told
        if self.writer.damaged:
            _log.warning("%s: damaged, and computed again: %s", self.writer.path, ", ".join(self.writer.damaged))
        self.writer.finish_record(manifest, list(windows), dict(record))
        return self._open()

    def _cell(self, content: Sequence[Any], words: str, make: Callable[[], Any]) -> Any:
        """What a cell holds, made where it is not kept. words: for whoever watches."""
        key = digest_of([self._key, *content])[:32]
        if not self.writer.has(key):
            self.options.progress.begin(words, 1)
            self.writer.commit(key, {"found": make()})
            self.options.progress.advance(1)
            self.options.progress.end()
        self._cells.append(key)
        return self.writer.record(key)["found"]


def carry_out(loaded: Loaded, options: Options, runner: Callable[[RunWriter], RecordRunner[_Run]]) -> _Run:
    """Run into the directory that a file asks for, alone there.

    Args:
        loaded: the file. options: how. runner: what runs into a writer.

    Raises:
        LockedError: another process writes to the directory.
        AdaptBenchError: as the runner.
    """
    place = options.place(loaded.name)
    with DirectoryLock(place, options.command):
        writer = RunWriter(place, loaded.kind)
        if options.fresh:
            writer.discard_cells()
        return runner(writer).run()


@cache
def code_of(folder: Path) -> str:
    """SHA-256 over a folder's modules, for what `own_code` leaves out, since no suite hangs on it."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
