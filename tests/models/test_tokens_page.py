"""docs/tokens.md: its example runs, its figures are those of the committed runs, and those are of the suite."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from adaptbench.bench.suite import load_suite

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tokens.md").read_text(encoding="utf-8")


def script():
    spec = importlib.util.spec_from_file_location("tokens_page", ROOT / "docs" / "tokens_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    shown: list[object] = []
    names = {"print": lambda *what: shown.extend(what)}
    exec(compile(block, "tokens.md", "exec"), names)
    left, macs, full = shown
    assert [row[0] for row in left] == [16] * 4
    assert all(0 < cost <= names["net"].max_macs for cost in macs)
    assert full < names["net"].max_macs


def test_the_figures_are_those_of_the_committed_runs():
    assert script().page(PAGE) == PAGE, "run python docs/tokens_page.py"


@pytest.mark.parametrize("file", script().RUNS.values())
def test_a_committed_run_is_of_the_suite_and_of_the_shipped_net(file):
    place = ROOT / "reports" / "published" / file
    if not place.exists():
        assert file not in PAGE
        return
    kept = json.loads(place.read_text(encoding="utf-8"))
    cases = {case["condition"]: case for case in kept["cases"]}
    assert list(cases) == [condition.id for condition in load_suite("tokens").suite.conditions]
    assert all(case["n"] >= 500 for case in cases.values())
    clean = cases["clean"]
    assert clean["macs_mean"] <= 0.75 * clean["macs_full"], "less than a quarter is saved"
    whole, left = (script().of_card(kept, which) for which in ("all tokens", "tokens left"))
    assert left >= whole - 0.01, "the saving costs more than a point"
    assert clean["accuracy_ci"][0] <= left <= clean["accuracy_ci"][1]
    assert f"{100 * (1 - clean['macs_mean'] / clean['macs_full']):.1f} % [" in PAGE
    for name, case in cases.items():
        room = case["macs_max"] - case["macs_clean_mean"] if name != "clean" else 1
        if name != "clean":
            assert case["recovery"] == pytest.approx((case["macs_mean"] - case["macs_clean_mean"]) / room)
