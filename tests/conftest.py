"""What all tests share: no network, a browser only where it is asked for, the command line in this process."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SMALL = str(Path(__file__).parent / "bench" / "small.yaml")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need Chromium, libraries of nets or a Ray cluster run where `-m` names them, and nowhere else."""
    unnamed = [kind for kind in ("browser", "libraries", "ray") if kind not in config.option.markexpr]
    left_out = [item for item in items if any(item.get_closest_marker(kind) for kind in unnamed)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A test that reaches for the network fails; unix sockets, the browser's loopback and the cluster's stay."""
    if {"browser", "ray"} & set(request.keywords):
        return
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> object:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise OSError(f"a test tried to reach {address}")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


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
    from adaptbench import cli, terminal

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
