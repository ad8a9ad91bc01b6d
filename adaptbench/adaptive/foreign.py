"""Errors of a forward that somebody else wrote, as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adaptbench.errors import AdaptBenchError, GraphError


@contextmanager
def runs(what: str) -> Iterator[None]:
    """Errors of torch from a forward that does not fit what it is given, as ours.

    Raises:
        GraphError: the forward inside raised.
    """
    try:
        yield
    except AdaptBenchError:
        raise
    except Exception as error:  # whatever a user's forward raises
        raise GraphError(
            f"{what} could not be run on one picture: {type(error).__name__}: {error}",
            why="Its parts do not fit together, or not the pictures that the domain declares.",
            todo="Check shapes, types and devices of what each part gives to the next.",
        ) from error
