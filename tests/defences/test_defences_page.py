"""docs/defences.md: its blocks run as they stand, and its tables say what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from adaptbench.bench.entries import Entry
from adaptbench.registry import DEFENCES

PAGE = (Path(__file__).parents[2] / "docs" / "defences.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_python_runs() -> None:
    names: dict[str, dict[str, list[float]]] = {}
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "defences.md", "exec"), names)
    assert all(attacked >= clean for clean, attacked in names["spent"].values()), names["spent"]
    assert names["spent"]["harden"][0] < names["spent"]["undefended"][0]


def test_its_suite_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for model in yaml.safe_load(block)["models"]:
        Entry.of(model).check()


def test_every_defence_stands_in_its_table() -> None:
    for entry in DEFENCES.shipped:
        assert f"| `{entry.name}` |" in PAGE, entry.name
