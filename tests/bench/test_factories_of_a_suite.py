"""Nets of one's own in a suite: named by the function that makes them, run only when that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import adaptbench as ab
from adaptbench.errors import AdaptBenchError, SuiteError, UsageError
from adaptbench.zoo.factories import Factory

MINE = """
import pathlib
import torch
from torch import nn
import adaptbench as ab

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body, self.early, self.late = nn.Linear(64, width), nn.Linear(64, 10), nn.Linear(width, 10)

    def forward(self, x):
        x = torch.flatten(x, 1)
        return [self.early(x), self.late(self.body(x).relu())]

def build(data, width=12):
    torch.manual_seed(0)
    pathlib.Path("ran").write_text(data)
    return ab.wrap(Net(width), example=torch.zeros(1, 1, 8, 8), policy=ab.policies.UniformThreshold(0.12))

def bare():
    return Net(8)

def fails():
    return ab.wrap(Net(8), example=torch.zeros(1, 1, 9, 9))
"""
SUITE = """
title: mine
data: digits
models:
  - ./mine.py:build
  - "./mine.py:build(width=16)": {uniform: {id: wide}}
conditions: [clean]
limit: 20
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mine.py").write_text(MINE)
    (tmp_path / "files" / "mine.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_factory_beside_the_suite_is_run_when_it_is_allowed(folder: Path) -> None:
    done = ab.run("files/mine.yaml", out="run", allow_imports=True)
    assert set((folder / "ran").read_text().split()) == {"digits"}
    cases = done.manifest["models"]
    assert set(cases) == {"mine.py:build", "wide"}
    clean = [r for r in done.cases if r["kind"] == "clean"]
    assert {r["net"] for r in clean} == {"./mine.py:build", "./mine.py:build(width=16)"}
    assert [r["n"] for r in clean] == [20, 20]
    again = ab.run("files/mine.yaml", out="run", allow_imports=True)
    assert again.manifest["models"] == cases


def test_without_being_asked_nothing_is_run(folder: Path, adaptbench: Any) -> None:
    with pytest.raises(
        SuiteError, match=r"mine.yaml, line 5, models\[0\]: './mine.py:build' is a factory.*\n.*\n.*Read"
    ):
        ab.run("files/mine.yaml", out="run")
    assert not (folder / "ran").exists()
    ended = adaptbench("run", "files/mine.yaml", "--out", "run")
    assert ended.code == 2
    assert "is a factory" in ended.err
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("./mine.py:nothing", "has no function 'nothing'"),
        ("./other.py:build", "there is no file ./other.py"),
        ("no_such_package.nets:build", "could not be imported: ModuleNotFoundError"),
        ("./mine.py:bare", "returned a Net, not an adaptive net"),
        ("./mine.py:fails", "models.0.*: './mine.py:fails'"),
        ("./mine.py:build(width=open('x'))", "no plain values"),
        ("./mine.py:build(", "names no factory"),
        ("./mine.py:build(depth=3)", "raised TypeError"),
    ],
)
def test_what_gives_no_net_is_refused_with_its_line(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(AdaptBenchError, match=message):
        ab.run("files/mine.yaml", out="run", allow_imports=True, overrides=[f'models=["{spec}"]'])


def test_arguments_are_read_and_not_run() -> None:
    factory = Factory.read("pkg.nets:skipnet(38, depth=[1, 2], name='a:b')")
    assert (factory.place, factory.attribute) == ("pkg.nets", "skipnet")
    assert (factory.args, factory.kwargs) == ((38,), {"depth": [1, 2], "name": "a:b"})
    assert factory.name == "pkg.nets:skipnet(38,depth=[1, 2],name='a:b')"
    with pytest.raises(UsageError, match="no plain values"):
        Factory.read("pkg:f(**{'a': 1})")
