"""Cases of studies: logs, choices, keys and claims."""

from __future__ import annotations

import pytest
import torch

from adaptbench.adaptive import CalibrationLog, EvaluationLog
from adaptbench.adaptive.policy import Structure
from adaptbench.errors import AdaptBenchError, CalibrationError, LeakageError
from adaptbench.policies.online import ClosedLoop
from adaptbench.registry import POLICIES
from adaptbench.study.logs import SealedLabels, TestLog
from adaptbench.study.resplits import _redrawn, pooled

CHAIN = Structure(("a", "b"), ((1,), ()), 3)


def log(kind=CalibrationLog, split="x/calibration", sha256="c", n=60):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 2, 3, generator=generator)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return kind(logits, labels, CHAIN, torch.tensor([10, 20]), split, sha256)


def unopened():
    judged = log(EvaluationLog, "x/test", "t")
    sealed = SealedLabels(judged.labels)
    return TestLog(judged.logits, sealed, torch.arange(60), CHAIN, judged.node_macs, "x/test", "t")


@pytest.mark.case("own")
@pytest.mark.parametrize("name", POLICIES.names())
def test_nothing_that_fits_takes_samples_that_judge(name):
    """A study wrapped test labels as a calibration log, and every fit would have taken it: all refuse the new type."""
    kind = POLICIES.load(name)
    judging = log(EvaluationLog, "x/test")
    for fit in (getattr(kind, "fit", None), kind.family):
        if fit is None or name in ("oracle", "mixture"):
            continue
        with pytest.raises(LeakageError, match="x/test"):
            fit(judging)
    with pytest.raises(LeakageError, match="x/test"):
        ClosedLoop.fit(POLICIES.load("uniform")(0.5), judging, budget=20.0)


@pytest.mark.case("own")
def test_a_log_says_which_samples_it_holds():
    """Calibration and test, joined for re-splits, kept the calibration split's name and hash: they have their own."""
    calibration, test = log(), unopened()
    with pytest.raises(LeakageError):
        pooled(calibration, test)
    test.labels.unseal("chosen")
    pool = pooled(calibration, test)
    assert isinstance(pool, EvaluationLog)
    drawn = [_redrawn(pool, torch.arange(k, k + 30)) for k in (0, 1)]
    assert len({calibration.sha256, test.sha256, pool.sha256, *(d.sha256 for d in drawn)}) == 5
    assert {d.split for d in drawn} == {"x/redrawn"}
    assert test.opened().split == "x/test"


@pytest.mark.case("own")
def test_parts_of_two_splits_do_not_go_under_one_name():
    """A log joined with another split's samples kept its own hash: refused."""
    with pytest.raises(CalibrationError, match="under the name"):
        log().joined(log(split="x/train", sha256="other"))


@pytest.mark.case("own")
@pytest.mark.parametrize("split", ["x/test", "x/dev", "x/calibration and test", ""])
def test_only_samples_to_fit_on_make_a_calibration_log(split):
    """Only the word "test" was refused: any role but calibration and training is."""
    with pytest.raises(AdaptBenchError):
        log(split=split)
