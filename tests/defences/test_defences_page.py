"""docs/defences.md: its blocks run as they stand, and its tables say what is there."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from adaptbench.bench.entries import Entry
from adaptbench.bench.shared_budget import SHARES
from adaptbench.bench.suite import load_suite
from adaptbench.registry import DEFENCES

PAGE = (Path(__file__).parents[2] / "docs" / "defences.md").read_text(encoding="utf-8")


def test_its_figures_are_those_of_the_committed_run() -> None:
    place = Path(__file__).parents[2] / "docs" / "defences_page.py"
    spec = importlib.util.spec_from_file_location("defences_page", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page(PAGE) == PAGE, "run python docs/defences_page.py"


def test_the_committed_run_is_of_the_suite_and_kept_to_its_bounds() -> None:
    root = Path(__file__).parents[2] / "reports" / "published"
    kept = json.loads((root / "defences.json").read_text(encoding="utf-8"))
    assert list(kept["manifest"]["models"]) == load_suite("defences").suite.labels
    for case in kept["cases"]:
        assert case["macs_mean"] <= case["macs_max"]
    rows = json.loads((root / "budgets" / "defences.json").read_text(encoding="utf-8"))["rows"]
    assert {row["share"] for row in rows} == set(SHARES)
    for row in rows:
        assert row["stream_macs_mean"]["high"] <= row["rate_macs"] * (1 + 1 / 20) + 1e-6, "a bucket that leaks"


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
