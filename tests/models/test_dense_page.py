"""docs/dense.md: its figures are those of the committed run, of the suite and of the shipped net; three recompute."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import adaptbench as ab
from adaptbench.bench.suite import load_suite

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dense.md").read_text(encoding="utf-8")


def script():
    spec = importlib.util.spec_from_file_location("dense_page", ROOT / "docs" / "dense_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kept():
    return json.loads(script().SUMMARY.read_text(encoding="utf-8"))


def test_the_figures_are_those_of_the_committed_run(kept) -> None:
    assert script().page(PAGE, kept) == PAGE, "run python docs/dense_page.py"


def test_the_run_is_of_the_suite_and_of_the_shipped_net(kept) -> None:
    suite = load_suite("dense").suite
    assert {case["model"] for case in kept["cases"]} == set(suite.labels)
    assert {case["condition"] for case in kept["cases"]} == {condition.id for condition in suite.conditions}
    net = ab.load_model("dense-exits", "pasted-digits")
    clean = next(case for case in kept["cases"] if (case["model"], case["condition"]) == ("dense-exits", "clean"))
    assert (clean["macs_min"], clean["macs_max"], clean["macs_full"]) == (net.min_macs, net.max_macs, net.macs_full)
    assert all(case["metric"] == "miou" and case["accuracy"] is None for case in kept["cases"])


def test_three_figures_recompute_with_pandas_from_rows_made_here(kept, tmp_path: Path) -> None:
    """The clean case of the shipped net, run again: mIoU, MACs saved, and the share of pixels that are right."""
    run = ab.run(
        "dense", out=str(tmp_path / "run"), overrides=("models=[dense-exits]", "conditions=[clean]", "gate={}")
    )
    rows = pd.read_parquet(run.path / "samples.parquet")
    right, labelled, said = (
        np.stack(rows[name]).sum(0) for name in ("pixels_right", "pixels_labelled", "pixels_predicted")
    )
    clean = next(case for case in kept["cases"] if (case["model"], case["condition"]) == ("dense-exits", "clean"))
    assert (right / (labelled + said - right)).mean() == pytest.approx(clean["miou"], abs=2e-4)
    assert right.sum() / labelled.sum() == pytest.approx(clean["pixel_accuracy"], abs=1e-4)
    saved = 1 - rows["macs"].mean() / clean["macs_full"]
    assert saved == pytest.approx(1 - clean["macs_mean"] / clean["macs_full"], abs=1e-3)
    assert f"{100 * clean['miou']:.1f} % [" in PAGE
