"""What an attacked row does to its batch: what is run, that neighbours are left alone, and figures from windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import adaptbench as ab
from adaptbench.bench.neighbours import mixed_arm, mixed_batches, mixtures
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import CapabilityError, SuiteError
from adaptbench.report.page import run_page
from adaptbench.results.neighbours import neighbour_figures

SUITE = """
title: neighbours
data: digits
models: [softmax-threshold]
conditions: [clean, {deepsloth: {eps: 48/255, step: 8/255, steps: 30}}]
limit: 20
measure:
  {batch_sizes: [1, 8], meters: [clock], neighbours: [1, 3], blocks: 6, window_s: 0.002, warmup_s: 0, samples: 20}
"""


def net(first: nn.Module | None = None) -> ab.MultiExit:
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Flatten(), first or nn.Identity(), nn.Linear(64, 16)), nn.Linear(16, 16)]
    made = ab.MultiExit(stages, [nn.Linear(16, 10), nn.Linear(16, 10)], input_shape=(1, 8, 8))
    early = made.eval().dense_logits(inputs()[0][:8])[:, 0].softmax(1).amax(1).detach()
    made.policy = ab.policies.UniformThreshold(float(early.median()))  # half of a clean batch leaves
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    split = ab.load_data("digits").split("test").first(20)
    clean = split.images()
    return (
        clean,
        (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
        split.ids,
    )


@pytest.mark.parametrize("size", [4, 8, 32])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_every_batch_has_so_many_attacked_rows_and_the_rest_as_they_were(size: int, k: int) -> None:
    clean, attacked, _ = inputs()
    x, rows, is_attacked = mixed_batches(clean, attacked, size, k)
    assert len(x) == max(20, size) // size * size
    assert (is_attacked.view(-1, size).sum(1) == k).all()
    assert torch.equal(x[~is_attacked], clean[rows[~is_attacked]])
    assert torch.equal(x[is_attacked], attacked[rows[is_attacked]])


def test_none_comes_first_and_a_batch_keeps_a_neighbour() -> None:
    assert mixtures([1, 8], 32) == [0, 1, 8]
    assert mixtures([1, 8], 8) == [0, 1]
    assert mixtures([1, 8], 1) == mixtures([], 8) == []


def test_the_arm_runs_the_mixed_batches() -> None:
    model, (clean, attacked, ids) = net(), inputs()
    mixed = mixed_arm("case", model, clean, attacked, ids, 8, 3)
    x, _, _ = mixed_batches(clean, attacked, 8, 3)
    assert mixed.macs == pytest.approx(model.infer(x).macs.double().view(-1, 8).sum(1).mean().item())
    assert mixed.arm.work.samples == 16


class BatchMean(nn.Module):
    """Looks at its neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 30 * x.mean(0, keepdim=True))


def test_neighbours_that_cost_otherwise_are_refused() -> None:
    clean, attacked, ids = inputs()
    with pytest.raises(CapabilityError, match="clean rows cost otherwise beside 3 attacked ones"):
        mixed_arm("case", net(BatchMean()), clean, 1 - attacked, ids, 8, 3)


def windows(seconds: dict[int, list[float]], size: int = 10) -> pd.DataFrame:
    rows = [
        {"case": f"a/b{size}/k{k}", "block": block, "order": k, "meter": "clock", "component": "wall", "energy_j": None,
         "duration_s": value, "n_samples": 2 * size, "provenance": "measured: clock", "scope": "", "flags": "",
         "missing": "no joules"}
        for k, values in seconds.items() for block, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_figures_are_of_the_windows() -> None:
    """Two batches a window: a batch of ten takes 1 s, with two attacked 1.4 s: eight neighbours bear 0.05 s each."""
    drift = np.linspace(1, 1.5, 8)
    told = windows({0: list(2 * drift), 2: list(2.8 * drift)})
    none, two = neighbour_figures(told, "a/b10", 10, {0: 100.0, 2: 150.0}, {})
    assert (none["attacked"], two["attacked"]) == (0, 2)
    assert two["batch_increase"] == pytest.approx(0.4)
    assert two["batch_increase_ci"] == pytest.approx([0.4, 0.4]), "drift hits both alike"
    assert two["batch_macs_increase"] == pytest.approx(0.5)
    assert two["batch_s"] / none["batch_s"] == pytest.approx(1.4)
    even = neighbour_figures(windows({0: [2.0] * 8, 2: [2.8] * 8}), "a/b10", 10, {0: 100.0, 2: 150.0}, {})
    assert even[1]["neighbour_s"] == pytest.approx(0.05)
    assert even[1]["neighbour_s_ci"] == pytest.approx([0.05, 0.05])


def test_what_is_missing_has_its_reason_and_is_no_zero() -> None:
    told = windows({0: [2.0] * 8})
    none, two = neighbour_figures(told, "a/b10", 10, {0: 100.0}, {2: "this case failed: planted"})
    assert none["batch_s"] == pytest.approx(1.0)
    for name in ("batch_s", "batch_increase", "neighbour_s", "batch_macs_increase"):
        assert two[name] is None
        assert two[f"{name}_missing"] == "this case failed: planted"


@pytest.mark.slow
def test_a_suite_that_asks_has_them(tmp_path: Path) -> None:
    place = tmp_path / "suite.yaml"
    place.write_text(SUITE)
    run = run_suite(str(place), out=tmp_path / "run")
    by_case = {c["case"]: c["neighbours"] for c in run.cases}
    (entries,) = [told for told in by_case.values() if told]
    assert by_case["digits/softmax-threshold/deepsloth/b8"] == entries, "a batch of one has no neighbours"
    assert [e["attacked"] for e in entries] == [0, 1, 3]
    assert entries[2]["batch_macs_increase"] >= entries[1]["batch_macs_increase"] >= 0
    assert entries[2]["batch_macs_increase"] > 0
    for entry in entries[1:]:
        low, high = entry["batch_increase_ci"]
        assert low <= entry["batch_increase"] <= high
    frame = run.windows()
    of_eight = frame[frame["case"].str.contains("/b8")]
    assert of_eight.groupby("block")["case"].nunique().unique().tolist() == [6], "interleaved: every arm in every block"
    assert {f"digits/softmax-threshold/deepsloth/b8/k{k}" for k in (0, 1, 3)} <= set(of_eight["case"])
    assert "What an attacked row does to its batch" in run_page(run)


@pytest.mark.parametrize(
    ("asked", "said"), [("[8]", "no clean neighbour"), ("[1, 1]", "stands twice"), ("[0]", "greater")]
)
def test_rows_that_cannot_be_are_refused(tmp_path: Path, asked: str, said: str) -> None:
    place = tmp_path / "suite.yaml"
    place.write_text(SUITE)
    with pytest.raises(SuiteError, match=said):
        load_suite(str(place), [f"measure.neighbours={asked}"])
