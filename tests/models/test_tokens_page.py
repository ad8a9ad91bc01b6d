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


FILES = [(name, file) for name, files in script().RUNS.items() for file in files]


@pytest.mark.parametrize(("data", "file"), FILES)
def test_a_committed_run_is_of_the_suite_and_of_the_shipped_net(data, file):
    place = ROOT / "reports" / "published" / file
    if not place.exists():
        assert file not in PAGE
        return
    kept = json.loads(place.read_text(encoding="utf-8"))
    suite = load_suite("tokens").suite
    assert {*kept["manifest"]["models"]} <= {*suite.labels}
    for model in kept["manifest"]["models"]:
        cases = {case["condition"]: case for case in kept["cases"] if case["model"] == model}
        assert list(cases) == [condition.id for condition in suite.conditions]
        assert all(case["n"] >= 500 for case in cases.values())
        clean = cases["clean"]
        (card,) = kept["manifest"]["models"][model]["card"]["weights"].values()
        if data == "CIFAR-10":
            assert clean["macs_mean"] <= (0.75 if model == "a-vit" else 0.77) * clean["macs_full"], (
                "too little is saved"
            )
            assert clean["accuracy"] >= card["accuracy_test"]["all tokens"] - 0.01, "the saving costs more than a point"
        if model == "a-vit":
            assert clean["accuracy_ci"][0] <= card["accuracy_test"]["tokens left"] <= clean["accuracy_ci"][1]
        assert f"{100 * (1 - clean['macs_mean'] / clean['macs_full']):.1f} % [" in PAGE
        for name, case in cases.items():
            if name != "clean":
                room = case["macs_max"] - case["macs_clean_mean"]
                assert case["recovery"] == pytest.approx((case["macs_mean"] - case["macs_clean_mean"]) / room)


def test_the_patches_are_of_their_suite_and_what_they_take_back_follows_from_their_macs():
    kept = json.loads((ROOT / "reports" / "published" / "tokens-patches.json").read_text(encoding="utf-8"))
    suite = load_suite("tokens-patches").suite
    assert [condition.id for condition in suite.conditions] == ["clean", *script().PATCHES]
    cases = {(case["model"], case["condition"]): case for case in kept["cases"]}
    assert {model for model, _ in cases} == {*suite.labels}
    for (model, condition), case in cases.items():
        if condition != "clean":
            clean = cases[model, "clean"]
            taken = (case["macs_mean"] - clean["macs_mean"]) / (case["macs_max"] - clean["macs_mean"])
            assert f"{100 * taken:.1f} % [" in PAGE
            assert case["n"] == suite.limit
