"""What pyproject.toml declares is what `tox -e lowest` installs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _declared() -> dict[str, str]:
    """Each requirement's whole specifier: a second bound or a marker shows, and fails the comparison."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["attacks"]]
    return {(name := re.split(r"[^\w.-]", text)[0]): text.removeprefix(name) for text in wanted}


def _pinned(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_lowest_environment_installs_the_declared_minima() -> None:
    lowest, declared = _pinned("constraints-lowest.txt"), _declared()
    assert lowest.pop("torch") == _pinned("constraints.txt")["torch"]
    assert declared.pop("torch").startswith(">=")
    assert {name: f">={version}" for name, version in lowest.items()} == declared


@pytest.mark.case("own")
def test_numpy_1_is_not_declared() -> None:
    """numpy 1.26 beside pyarrow 26 was a traceback at import, which no metadata of pyarrow's told pip."""
    assert int(_declared()["numpy"].removeprefix(">=").split(".")[0]) >= 2
