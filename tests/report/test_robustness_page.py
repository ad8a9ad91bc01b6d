"""docs/robustness.md says what the committed runs say, and those say what their samples say."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adaptbench.bench.suite import load_suite

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("robustness_page", ROOT / "docs" / "robustness_page.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def _read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "reports" / "published" / f"{name}.json").read_text(encoding="utf-8"))


def _macs(packed: dict[str, Any]) -> pd.Series:
    """MACs by sample id, unpacked without the house's code."""
    levels = np.array(packed["macs"]["levels"])
    index = np.frombuffer(base64.b64decode(packed["macs"]["index"]), dtype="<u1" if len(levels) <= 256 else "<u2")
    first = packed["sample_id"]["first"]
    return pd.Series(levels[index], index=range(first, first + packed["sample_id"]["n"]), dtype="float64")


def test_the_page_is_the_runs(module):
    assert module.page(TEXT) == TEXT, "run python docs/robustness_page.py"


def test_a_figure_bent_on_the_page_is_written_anew(module):
    spoilt = TEXT.replace("standard-2 | 1 000 | 5.", "standard-2 | 1 000 | 4.", 1)
    assert spoilt != TEXT
    assert module.page(spoilt) == TEXT


@pytest.mark.parametrize("name", ["audit-fashion-mnist", "audit-cifar10-exits", "audit-cifar10-gates"])
def test_recoveries_are_those_of_the_kept_samples(name):
    document = _read(name)
    (data,) = document["manifest"]["data"]
    samples, looked_at = document["samples"], 0
    for case in document["cases"]:
        if case["kind"] != "attack":
            continue
        clean = _macs(samples[f"{data}/{case['model']}/clean"])
        attacked = _macs(samples[f"{data}/{case['model']}/{case['condition']}"])
        base = clean[attacked.index].mean()
        assert case["recovery"] == pytest.approx((attacked.mean() - base) / (case["macs_max"] - base), abs=1e-9)
        looked_at += 1
    assert looked_at >= 6


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("audit-fashion-mnist", "audit-fashion-mnist"),
        ("audit-cifar10-exits", "audit-cifar10"),
        ("audit-cifar10-gates", "audit-cifar10"),
        ("ten-times-fashion-mnist", "ten-times-fashion-mnist"),
    ],
)
def test_they_are_runs_of_shipped_suites_from_a_clean_revision(name, suite):
    manifest, shipped = _read(name)["manifest"], load_suite(suite).suite
    assert manifest["suite"]["name"] == suite
    assert set(manifest["models"]) <= set(shipped.labels)
    assert not manifest["git"]["dirty"]
    assert len(manifest["conditions"]["standard"]["settings"]["members"]) == 7, "standard-1"


def test_no_picture_of_standard_is_cheaper_than_the_clean_one():
    document = _read("audit-fashion-mnist")
    for model in document["manifest"]["models"]:
        kept = _macs(document["samples"][f"fashion-mnist/{model}/standard"])
        clean = _macs(document["samples"][f"fashion-mnist/{model}/clean"])
        assert (kept >= clean).all()


def test_the_sentences_hold_on_the_kept_samples():
    """Every picture on the dearest way, and where `standard` is not the worst case."""
    exits, gates = _read("audit-cifar10-exits"), _read("audit-cifar10-gates")
    for model in exits["manifest"]["models"]:
        dearest = next(c["macs_max"] for c in exits["cases"] if c["model"] == model)
        attacked = _macs(exits["samples"][f"cifar10/{model}/standard"])
        assert (len(attacked), (attacked == dearest).all()) == (1000, True)
        assert (_macs(exits["samples"][f"cifar10/{model}/standard-kept"]) == dearest).all()
    dearest = next(c["macs_max"] for c in gates["cases"] if c["model"] == "blockdrop")
    clean, ilfo, ours = (_macs(gates["samples"][f"cifar10/blockdrop/{c}"]) for c in ("clean", "ilfo", "standard"))
    clean, ours = clean[ilfo.index], ours[ilfo.index]
    back = [100 * (each.mean() - clean.mean()) / (dearest - clean.mean()) for each in (ilfo, ours)]
    told = f"takes back {back[0]:.1f} % where `standard-1` takes {back[1]:.1f} %, and is dearer on"
    told += f" {(ilfo > ours).sum()}"
    assert told in " ".join(TEXT.split())


def test_ten_times_the_steps_were_taken():
    document = _read("ten-times-fashion-mnist")
    cases = {(c["model"], c["condition"]): c for c in document["cases"]}
    for model in document["manifest"]["models"]:
        short, long = cases[model, "standard"], cases[model, "exhaustive"]
        assert long["recovery"] >= short["recovery"], model
        assert long["craft_details"]["steps_run"] > 5 * short["craft_details"]["steps_run"], model
