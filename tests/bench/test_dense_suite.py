"""A suite on images whose every pixel is answered: mIoU from rows, what is refused, and what the page calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import adaptbench as ab
from adaptbench.errors import CapabilityError, SuiteError
from adaptbench.results.baseline import Baseline, write_baseline
from adaptbench.results.gate import compare
from adaptbench.results.quality import miou, miou_drop, pixel_counts
from adaptbench.results.store import Run

MINE = """
import torch
import adaptbench as ab
from adaptbench.models.segmentation import PixelNets

def build(threshold=0.16):
    torch.manual_seed(0)
    nets = PixelNets((3, 32, 32), 11, (0.5,) * 3, (0.25,) * 3, fine=4, coarse=(8, 8), dilations=((2,),))
    net = nets.exits()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.25)
    return net.eval().under(ab.policies.UniformThreshold(threshold))
"""
SUITE = """
title: pixels
data: pasted-digits
models:
  - ./mine.py:build
  - "./mine.py:build": {exact-budget: {budget: 0.9, id: budgeted}}
conditions:
  - clean
  - noise: {eps: 8/255}
  - ilfo: {eps: 16/255, steps: 4, limit: 8}
  - torchattacks/PGD: {steps: 2}
  - ilfo-kept
limit: 24
gate:
  macs_mean: {exact: true}
  miou: {drop: 1 points, cases: [clean]}
"""


def written(folder: Path) -> Path:
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    (folder / "pixels.yaml").write_text(SUITE, encoding="utf-8")
    return folder / "pixels.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("pixels")
    return ab.run(str(written(folder)), out=str(folder / "run"), allow_imports=True)


def case_of(run: Run, condition: str, model: str = "mine.py:build") -> dict[str, Any]:
    return next(case for case in run.cases if (case["condition"], case["model"]) == (condition, model))


def test_miou_recomputes_from_the_rows_with_pandas(run: Run) -> None:
    """Summed over images first, divided then; the mean of each image's own is another figure."""
    rows = pd.read_parquet(run.path / "samples.parquet")
    for condition in ("clean", "noise"):
        case = case_of(run, condition)
        own = rows[rows["case"] == case["evaluation"]]
        right, labelled, said = (
            np.stack(own[name]) for name in ("pixels_right", "pixels_labelled", "pixels_predicted")
        )
        union = labelled + said - right
        iou = right.sum(0) / union.sum(0)
        assert case["metric"] == "miou"
        assert case["miou"] == pytest.approx(np.nanmean(iou), abs=1e-12)
        assert case["pixel_accuracy"] == pytest.approx(right.sum() / labelled.sum(), abs=1e-12)
        assert (labelled.sum(1) < 32 * 32).any(), "ignored pixels were counted"
        with np.errstate(invalid="ignore"):
            assert abs(case["miou"] - np.nanmean(right / union)) > 1e-4
        assert case["miou_ci"][0] < case["miou"] < case["miou_ci"][1]
        assert case["accuracy"] is None
        assert "every pixel" in case["accuracy_missing"]
        assert case["label_kept"] is None
    assert set(rows["label"]) == set(rows["prediction"]) == {-1}


def test_the_attack_on_cost_runs_and_those_on_classes_are_refused_in_words(run: Run) -> None:
    clean, attacked = case_of(run, "clean"), case_of(run, "ilfo")
    assert attacked["macs_mean"] > attacked["macs_clean_mean"]
    assert clean["macs_min"] <= attacked["macs_mean"] <= clean["macs_max"]
    assert attacked["linf_max"] <= 16 / 255 + 1e-9
    ran = {case["condition"] for case in run.cases}
    assert not ran & {"torchattacks/PGD", "ilfo-kept"}
    refused = [note for note in run.manifest["notes"] if "was not run on" in note]
    assert {note.split()[0] for note in refused} >= {"ilfo-kept"}
    assert all("one for every pixel" in note for note in refused)


def test_the_drop_is_of_the_same_images(run: Run) -> None:
    rows = run.samples()
    clean, attacked = case_of(run, "clean"), case_of(run, "ilfo")
    before = rows[rows["case"] == clean["evaluation"]].sort_values("sample_id")[: attacked["n"]]
    after = rows[rows["case"] == attacked["evaluation"]].sort_values("sample_id")
    assert before["sample_id"].tolist() == after["sample_id"].tolist()
    own = [float(miou(pixel_counts(part).mean(0, keepdims=True))[0]) for part in (before, after)]
    assert attacked["miou_drop"] == pytest.approx(own[0] - own[1])
    assert miou_drop(before, before).value == 0.0


def test_the_report_says_miou_and_not_accuracy(run: Run, tmp_path: Path) -> None:
    page = Path(ab.write_report([run.path], tmp_path / "page.html")).read_text(encoding="utf-8")
    assert "mIoU (plain net’s)" in page
    assert ">mIoU<" in page.replace("\n", "")
    for told in (">accuracy<", "accuracy (plain", "accuracy change", "accuracy on the card"):
        assert told not in page.replace("\n", "")


def test_the_gate_watches_miou(run: Run, tmp_path: Path) -> None:
    read = Baseline.load(write_baseline(run, tmp_path / "kept.json"))
    kept = read.changed(manifest={**read.manifest, "id": "of an earlier run"})
    same = compare(run, kept)
    assert same.exit_code == 0, [row.reason for row in same.rows if row.verdict.value != "pass"]
    worse = [{**case, "miou": case["miou"] - 0.05} if case["condition"] == "clean" else case for case in read.cases]
    fallen = compare(read.changed(cases=worse), kept)
    assert fallen.exit_code == 1
    assert {row.metric for row in fallen.rows if row.verdict.value == "regression"} == {"miou"}


def test_a_run_goes_on_from_its_cells(run: Run) -> None:
    again = ab.run(str(run.path.parent / "pixels.yaml"), out=str(run.path), allow_imports=True)
    assert again.cases == run.cases


def test_a_net_and_data_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    file.write_text(SUITE.replace("pasted-digits", "digits"), encoding="utf-8")
    with pytest.raises(SuiteError, match=r"(?s)answers every pixel was given 'digits'.*label for each input"):
        ab.run(str(file), allow_imports=True)


def test_an_audit_judges_one_answer_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CapabilityError, match="an audit was asked of a net that answers every pixel"):
        ab.audit("./mine.py:build", "pasted-digits", attacks="ilfo", limit=4, allow_imports=True)
