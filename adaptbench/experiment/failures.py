"""Cases that could not be run: each is null with its reason, the others go on, a resumed run tries it again."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from adaptbench.errors import AdaptBenchError, LockedError, OutputError
from adaptbench.results.files import writable, write_bytes

FOLDER = "failures"
"""Of tracebacks, in the run directory."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One case that could not be run.

    Args:
        case: its id, or an evaluation's.
        reason: one line.
        traceback: file in the run directory; None where the reason is one of ours and says it all.
    """

    case: str
    reason: str
    traceback: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """For the manifest."""
        return asdict(self)


@dataclass(slots=True)
class Failures:
    """What failed in one run.

    Args:
        path: the run directory.
        by_case: what failed, in order.
    """

    path: Path
    by_case: dict[str, Failure] = field(default_factory=dict)

    def __contains__(self, case: object) -> bool:
        return case in self.by_case

    @contextmanager
    def instead(self, case: str) -> Iterator[None]:
        """Whatever goes wrong in the body is that case's failure.

        Raises:
            OutputError, LockedError: the directory itself is of no use any more.
        """
        try:
            yield
        except (OutputError, LockedError):
            raise
        except (Exception, SystemExit) as error:  # a plug-in's sys.exit ends its case, not the run
            self.add(case, error)

    def add(self, case: str, error: BaseException) -> None:
        """Keep an error; the traceback of one that is not ours goes into a file."""
        self.by_case[case] = Failure(case, reason_of(error), None if _speaks(error) else self._keep(case, error))

    def sweep(self) -> None:
        """Remove tracebacks of cases that run by now."""
        kept = {failure.traceback for failure in self.by_case.values()}
        for file in (self.path / FOLDER).glob("*.txt"):
            if f"{FOLDER}/{file.name}" not in kept:
                file.unlink(missing_ok=True)

    def _keep(self, case: str, error: BaseException) -> str:
        name = f"{FOLDER}/{hashlib.sha256(case.encode()).hexdigest()[:16]}.txt"
        text = f"{case}\n\n{''.join(traceback.format_exception(error))}"
        with writable(self.path / FOLDER):
            (self.path / FOLDER).mkdir(exist_ok=True)
        write_bytes(self.path / name, text.encode(errors="backslashreplace"))
        return name


def _speaks(error: BaseException) -> bool:
    return isinstance(error, AdaptBenchError)


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, AdaptBenchError):
        return " ".join(" ".join((error.seen, error.why)).split())
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:300]}{' …' if len(said) > 300 else ''}" if said else type(error).__name__
