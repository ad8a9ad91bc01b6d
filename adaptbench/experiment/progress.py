"""What the runner tells whoever watches: the command line draws bars from it, a library user may stay silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of each stretch of work."""

    def begin(self, stage: str, total: int) -> None:
        """A stage starts: its words and how many steps it has."""

    def advance(self, done: int, words: str = "") -> None:
        """So many steps of the stage are done; words say what is on."""

    def end(self) -> None:
        """The stage is over."""


class Silent:
    """Draws nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int, words: str = "") -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
