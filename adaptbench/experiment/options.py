"""What a run is asked for besides its file: one object, from the command line's words or Python's keywords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from adaptbench.errors import UsageError
from adaptbench.experiment.progress import Progress, Silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a suite or a study is to be run.

    Args:
        overrides: ``key=value`` laid over the file. out: the directory (default ``runs/NAME``).
        device: "cpu", "cuda", "cuda:1". limit: test samples at most.
        fresh: forget what an earlier run left. allow_imports: files of factories that are named may be run.
        data_root, download, zoo: where data and checkpoints are.
        command: for the manifest. progress: who watches.
        engine: who crafts, evaluates and logs, in the registry of engines. address: of its cluster.
    """

    overrides: Sequence[str] = ()
    out: str | Path | None = None
    device: str = "cpu"
    limit: int | None = None
    fresh: bool = False
    allow_imports: bool = False
    data_root: Path | None = None
    download: bool = False
    zoo: Path | None = None
    command: str = ""
    progress: Progress = field(default_factory=Silent)
    engine: str = "local"
    address: str | None = None

    def place(self, name: str) -> Path:
        """The directory that a suite or study of this name is written to."""
        return Path(self.out or Path("runs") / name)

    def must_be_laid(self, laid: Sequence[str]) -> None:
        """Overrides belong to reading a file: one that is read already has its own.

        Raises:
            UsageError: these are others.
        """
        if self.overrides and tuple(self.overrides) != tuple(laid):
            raise UsageError(
                f"overrides ({', '.join(self.overrides)}) were given beside a file that is read already.",
                todo="Give them to load_suite or load_study.",
            )

    def at_most(self, own: int | None) -> int | None:
        """Test samples at most: the file's own limit or the one asked for, whichever is less."""
        return min((n for n in (own, self.limit) if n is not None), default=None)


class Asked(TypedDict, total=False):
    """Keywords of `run_suite` and `run_study`: the fields of `Options`."""

    overrides: Sequence[str]
    out: str | Path | None
    device: str
    limit: int | None
    fresh: bool
    allow_imports: bool
    data_root: Path | None
    download: bool
    zoo: Path | None
    command: str
    progress: Progress
    engine: str
    address: str | None


def options_of(given: Options | None, asked: Asked) -> Options:
    """Options as they were handed over, or from keywords.

    Raises:
        UsageError: both; or a limit of no samples.
    """
    if given is not None and asked:
        raise UsageError(
            f"options and {', '.join(asked)} were both given.", todo="Put it into the options, or use keywords alone."
        )
    options = given or Options(**asked)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"a limit of {options.limit} leaves no test samples.", todo="Give 1 or more, or none.")
    return options
