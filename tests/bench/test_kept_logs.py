"""A run keeps the logs that its policies were fitted on: its next start fits the same ones without running a net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adaptbench.adaptive import DecisionGraph
from adaptbench.bench.kept_logs import KeptLogs
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.data import load_data
from adaptbench.errors import LeakageError
from adaptbench.experiment.keys import model_hash
from adaptbench.experiment.options import Options
from adaptbench.zoo.loading import load_model

SUITE = """
data: digits
models: [multi-exit: {uniform: {id: fitted}}, softmax-threshold, skipnet]
conditions: [clean]
limit: 4
"""


class Logged(Exception):
    pass


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kept") / "s.yaml"
    place.write_text(SUITE, encoding="utf-8")
    run_suite(str(place), out=place.parent / "run")
    return place


@pytest.fixture
def no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def log(self: DecisionGraph, split: object, **_: object) -> None:
        raise Logged

    monkeypatch.setattr(DecisionGraph, "log", log)


def test_the_next_start_fits_from_what_is_kept(suite: Path, no_pass: None) -> None:
    plan = make_plan(load_suite(str(suite)), Options(out=suite.parent / "run"))
    again = run_suite(str(suite), out=suite.parent / "run")
    told = again.manifest["models"]["fitted"]["card"]
    assert told == told | plan.models["fitted"].card


def test_the_policy_is_the_one_that_was_fitted_first(suite: Path) -> None:
    kept, anew = (
        make_plan(load_suite(str(suite)), Options(out=suite.parent / "run", fresh=fresh)).models["fitted"].model
        for fresh in (False, True)
    )
    assert model_hash(kept) == model_hash(anew)


@pytest.mark.parametrize("options", [{"fresh": True}, {"out": "elsewhere"}])
def test_what_is_not_wanted_or_not_there_is_made(suite: Path, no_pass: None, options) -> None:
    with pytest.raises(Logged):
        make_plan(load_suite(str(suite)), Options(**{"out": suite.parent / "run", **options}))
    assert not Path("elsewhere").exists(), "planning writes nothing"


def test_another_net_or_split_or_number_of_threads_has_a_log_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = KeptLogs(None, "cpu")
    net, split = load_model("softmax-threshold"), load_data("digits").split("calibration")
    first = logs.log(net, split)
    assert logs.log(net, split).logits is first.logits
    assert len(logs.used) == 1
    logs.log(net, split.first(100))
    with torch.no_grad():
        next(net.parameters()).mul_(1.01)
    assert not torch.equal(logs.log(net, split).logits, first.logits)
    monkeypatch.setattr("adaptbench.bench.kept_logs.describe_device", lambda _: {"fingerprint": "another"})
    logs.log(net, split)
    assert len(logs.used) == 4
    with pytest.raises(LeakageError):
        logs.log(net, load_data("digits").split("test"))


def test_a_damaged_log_is_made_anew(suite: Path, tmp_path: Path, no_pass: None) -> None:
    import shutil

    shutil.copytree(suite.parent / "run", tmp_path / "run")
    (file,) = (tmp_path / "run" / "cells").glob("log-*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(Logged):
        make_plan(load_suite(str(suite)), Options(out=tmp_path / "run"))
