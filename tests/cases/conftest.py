"""What cases share: the command line, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adaptbench import cli, terminal

SMALL = str(Path(__file__).parent.parent / "bench" / "small.yaml")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def adaptbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs the words in a new directory; "SMALL" stands for the tests' suite. Nothing may ever end with a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: str) -> Ended:
        capsys.readouterr()
        given = [SMALL if word == "SMALL" else word for word in words]
        monkeypatch.setattr(sys, "argv", ["adaptbench", *given])
        code = terminal.run(cli.app)
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        return Ended(code, said.out, said.err)

    return run
