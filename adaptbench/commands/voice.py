"""How much a command says, and to whom: people, a log that wants one line, or a program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from adaptbench.errors import UsageError

SCHEMA = 1
"""Of every document that ``--json`` prints: keys may be added to it, never renamed or removed."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What was asked for with ``-v``, ``-q`` and ``--json``.

    Raises:
        UsageError: everything and next to nothing at once.
    """

    verbose: bool = False
    quiet: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if self.verbose and self.quiet:
            raise UsageError("--verbose and --quiet were both given.", todo="Leave one of them out.")

    @property
    def given(self) -> list[str]:
        """The options, as they are typed."""
        return [f"--{name}" for name in ("verbose", "quiet", "json") if getattr(self, name)]


def print_document(kind: str, content: Mapping[str, Any]) -> None:
    """One JSON object on standard output: its schema, its kind, and what it holds."""
    document = {"schema": SCHEMA, "kind": kind, **content}
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
