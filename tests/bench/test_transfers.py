"""The transfer matrix: pictures crafted on each model, judged on the others, and nothing crafted for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import adaptbench as ab
from adaptbench.attacks import Attack
from adaptbench.bench.contradictions import contradictions
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import SuiteError
from adaptbench.experiment.keys import model_hash
from adaptbench.report.page import run_page
from adaptbench.results.metrics import CostBounds, summarise
from adaptbench.results.store import Run
from adaptbench.results.transfers import matrices

MODELS = ("softmax-threshold", "learned-cascade", "skipnet")
SUITE = f"""
title: carried
data: digits
models: [{", ".join(MODELS)}, static]
conditions: [clean, {{noise: {{eps: 16/255}}}}, {{ilfo: {{eps: 16/255, steps: 4}}}}]
transfer: [ilfo]
limit: 20
chunk: 8
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("suite") / "carried.yaml"
    place.write_text(SUITE)
    return str(place)


@pytest.fixture(scope="module")
def run(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_suite(suite, out=tmp_path_factory.mktemp("run") / "carried")


@pytest.mark.slow
def test_the_matrix_is_whole(run: Run) -> None:
    (matrix,) = matrices(run.cases)
    assert (matrix.condition, matrix.models) == ("ilfo", MODELS)
    assert set(matrix.cells) == {(a, b) for a in MODELS for b in MODELS}
    assert all(matrix.cells[m, m]["kind"] == "attack" for m in MODELS)


@pytest.mark.slow
def test_rows_are_the_judged_models_on_the_others_pictures(run: Run) -> None:
    (matrix,) = matrices(run.cases)
    for (source, judged), case in matrix.cells.items():
        x = torch.from_numpy(run.crafted(case["crafted"])["x_adv"].copy()).float() / 255
        model = ab.load_model(judged, "digits")
        rows = run.samples([case["evaluation"]])
        np.testing.assert_array_equal(model.infer(x).macs.numpy(), rows["macs"].to_numpy())
        assert case["crafted"] == matrix.cells[source, source]["crafted"]
        assert case["inputs_sha256"] == matrix.cells[source, source]["inputs_sha256"]


@pytest.mark.slow
def test_a_record_states_what_it_was_crafted_on(run: Run) -> None:
    for case in run.cases:
        if case["kind"] != "transfer":
            assert case["surrogate"] is None
            continue
        assert case["surrogate_sha256"] == model_hash(ab.load_model(case["surrogate"], "digits"))
        assert case["craft_s"] is None, "nothing was crafted for it"
        assert case["queries_mean"] is None
    hashes = [c["attack_sha256"] for c in run.cases if c["condition"].startswith("ilfo")]
    assert len(set(hashes)) == 4, "ilfo, and ilfo of each of three models"


@pytest.mark.slow
def test_figures_are_worked_out_from_the_rows(run: Run) -> None:
    for case in run.cases:
        if case["kind"] == "transfer":
            clean = run.samples([f"digits/{case['model']}/clean"])
            bounds = CostBounds(case["macs_min"], case["macs_max"], case["macs_full"], tuple(case["exit_histogram"]))
            anew = summarise(run.samples([case["evaluation"]]), clean, bounds, seed=0)
            assert anew["recovery"] == case["recovery"]
            assert list(anew["recovery_ci"]) == case["recovery_ci"]


@pytest.mark.slow
def test_nothing_is_crafted_for_it(suite: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run in the same directory: the matrix is put back, and no attack is called."""
    keys = [e.key for e in make_plan(load_suite(suite)).evaluations if e.kind == "transfer"]
    assert keys
    for cell in (run.path / "cells").glob("*"):
        if any(cell.name.startswith(key[:20]) for key in keys):
            cell.unlink()
    monkeypatch.setattr(Attack, "craft", lambda *a, **k: pytest.fail("something was crafted"))
    assert len(matrices(run_suite(suite, out=run.path).cases)) == 1


@pytest.mark.slow
def test_a_pair_that_means_nothing_is_left_out(run: Run) -> None:
    assert not [c for c in run.cases if c["kind"] == "transfer" and "static" in (c["model"], c["surrogate"])]
    assert any("ilfo was not run on static: it has one path" in note for note in run.manifest["notes"])


@pytest.mark.slow
def test_what_failed_there_is_missing_here(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    craft = Attack.craft

    def failing(self: Attack, model: object, *a: object, **k: object) -> object:
        if self.name == "ilfo" and type(model).__name__ == "GatedNetwork":
            raise RuntimeError("planted")
        return craft(self, model, *a, **k)

    monkeypatch.setattr(Attack, "craft", failing)
    (matrix,) = matrices(run_suite(suite, out=tmp_path / "run").cases)
    assert matrix.cells["skipnet", "skipnet"]["recovery"] is None
    assert matrix.cells["skipnet", "softmax-threshold"]["recovery"] is None
    assert "which failed" in matrix.cells["skipnet", "softmax-threshold"]["recovery_missing"]
    assert matrix.cells["softmax-threshold", "skipnet"]["recovery"] is not None


@pytest.mark.slow
def test_the_page_shows_it(run: Run) -> None:
    page = run_page(run)
    (matrix,) = matrices(run.cases)
    table = page.partition("From model to model")[2].partition("</table>")[0]
    assert table.count("<tr") >= 4
    for case in matrix.cells.values():
        assert f"{100 * case['recovery']:.1f}".replace("-", "−") in table


@pytest.mark.parametrize(
    ("transfer", "said"),
    [("[noise]", "crafted on no model"), ("[clean]", "crafted on no model"), ("[ilf]", "Did you mean 'ilfo'"),
     ("[ilfo, ilfo]", "stands twice")],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused(suite: str, transfer: str, said: str) -> None:
    with pytest.raises(SuiteError) as error:
        load_suite(suite, [f"transfer={transfer}"])
    assert said in str(error.value)
    assert "transfer" in str(error.value)


def test_one_model_has_nobody_to_carry_to(suite: str) -> None:
    with pytest.raises(SuiteError, match="none to carry pictures to"):
        load_suite(suite, ["models=[skipnet]"])


def test_a_suite_without_it_keeps_its_hash(suite: str) -> None:
    """The key came later; baselines are held to the hash of their suite."""
    assert load_suite("ci").sha256 == "3ab0b1050f363b40a57c8e51eefc9b5d1aaddac260fe2be1caf04193ffa71100"
    plain, carrying = load_suite(suite, ["transfer=[]"]), load_suite(suite)
    assert plain.sha256 != carrying.sha256


def test_another_models_weights_make_another_key(suite: str) -> None:
    keys = {e.id: e.key for e in make_plan(load_suite(suite)).evaluations if e.kind == "transfer"}
    assert len(set(keys.values())) == len(keys) == 6
    weaker = make_plan(load_suite(suite, ["conditions=[clean, {ilfo: {eps: 16/255, steps: 3}}]"])).evaluations
    assert not {e.key for e in weaker if e.kind == "transfer"} & set(keys.values())


def test_a_white_box_that_loses_to_anothers_pictures_is_named() -> None:
    told = {"ilfo": {"kind": "attack", "access": "white-box", "settings": {"constraint": "linf", "eps": 8 / 255}}}

    def case(model: str, recovery: float, source: str | None = None) -> dict:
        name = "ilfo" if source is None else f"ilfo from {source}"
        kind = "attack" if source is None else "transfer"
        return {"condition": name, "kind": kind, "model": model, "surrogate": source, "data": "d", "seed": 0, "n": 100,
                "recovery": recovery, "recovery_ci": [recovery - 0.02, recovery + 0.02], "at_ceiling": 0.0}  # fmt: skip

    sound = [case("a", 0.8), case("b", 0.7), case("a", 0.3, "b"), case("b", 0.69, "a")]
    assert contradictions(sound, told) == []
    (note,) = contradictions([*sound[:2], case("a", 0.3, "b"), case("b", 0.9, "a")], told)
    assert "ilfo takes back more on b when it is crafted on a" in note
