"""Small pieces: seeds and draws, signals, domain, splits, logs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from adaptbench.adaptive import CalibrationLog, Cascade, ImageDomain, Normalise, Signals, Split, Structure
from adaptbench.adaptive.outcome import seeds_from_content, uniform_from
from adaptbench.adaptive.policy import edge_margins
from adaptbench.errors import CalibrationError, DomainError, LeakageError, UsageError

MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """The published generator's output function, in Python integers."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 50))
def test_draws_are_splitmix64(seed, stream):
    want = splitmix64(seed + 0x9E3779B97F4A7C15 * (stream + 1)) >> 40
    assert uniform_from(torch.tensor([seed]), stream).item() == want / 2**24


def test_draws_are_uniform_and_streams_are_apart():
    draws = [uniform_from(torch.arange(4000), stream).numpy() for stream in (0, 1)]
    for drawn in draws:
        assert drawn.min() >= 0
        assert drawn.max() < 1
        assert stats.kstest(drawn, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(*draws)[0, 1]) < 0.06


def test_seeds_follow_content_not_place():
    x = torch.rand(20, 1, 4, 4)
    order = torch.randperm(20)
    assert torch.equal(seeds_from_content(x)[order], seeds_from_content(x[order]))
    assert len(seeds_from_content(x).unique()) == 20
    assert torch.equal(seeds_from_content(x.double().float()), seeds_from_content(x))
    swapped = x.flip(-1)
    assert (seeds_from_content(swapped) != seeds_from_content(x)).all()  # places count too


def test_signals_agree_with_scipy():
    logits = torch.randn(30, 7) * 4
    signals = Signals(logits)
    p = torch.softmax(logits.double(), 1).numpy()
    np.testing.assert_allclose(signals.confidence.numpy(), p.max(1), rtol=1e-5)
    np.testing.assert_allclose(signals.entropy.numpy(), stats.entropy(p, axis=1) / math.log(7), atol=1e-5)


def test_signals_of_some_rows():
    everything = Signals(torch.rand(4, 3), history=torch.rand(4, 2, 3), visited=torch.ones(4, 2, dtype=torch.bool))
    some = everything.rows(torch.tensor([True, False, False, True]))
    assert torch.equal(some.history, everything.history[[0, 3]])
    assert some.seeds is None
    with pytest.raises(ValueError, match="seeds"):
        some.uniform(0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_an_edge_margin_is_its_lead_over_every_other_action(actions, seed):
    scores = torch.randn(20, actions, generator=torch.Generator().manual_seed(seed))
    margins = edge_margins(scores)
    for a in range(1, actions):
        others = scores[:, [b for b in range(actions) if b != a]].amax(1)
        torch.testing.assert_close(margins[:, a - 1], scores[:, a] - others)
    assert ((margins > 0).sum(1) <= 1).all()
    assert torch.equal((margins > 0).any(1), scores.argmax(1) > 0)


def test_equal_scores_stop():
    assert (edge_margins(torch.ones(3, 4)) <= 0).all()
    assert (edge_margins(torch.tensor([[0.0, 2.0, 2.0]])) <= 0).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(1, 2, 2), r"shape \(1, 2, 2\)"),
        (torch.rand(1, 3, 2, 2), r"takes \(N, 1, 2, 2\)"),
        (torch.rand(0, 1, 2, 2), "empty batch"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "uint8"),
        (torch.full((1, 1, 2, 2), 1.5), r"\[1.5, 1.5\]"),
        (torch.full((1, 1, 2, 2), -0.1), "declares"),
        (torch.full((1, 1, 2, 2), torch.nan), "nan"),
        (torch.full((1, 1, 2, 2), torch.inf), "inf"),
    ],
)
def test_inputs_outside_the_domain(x, message):
    with pytest.raises(DomainError, match=message):
        ImageDomain((1, 2, 2)).check(x)


def test_a_hair_outside_is_rounding():
    ImageDomain((1, 2, 2)).check(torch.full((1, 1, 2, 2), 1 + 5e-7))


def test_the_normaliser():
    x = torch.rand(2, 2, 3, 3)
    out = Normalise([0.1, 0.5], [0.2, 2.0])(x)
    torch.testing.assert_close(out[:, 1], (x[:, 1] - 0.5) / 2)


def split(role="calibration", n=5):
    pixels = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8)
    return Split("planted", role, pixels, torch.arange(n) % 3, torch.arange(n), ("a", "b", "c"))


def test_a_split_serves_its_role_only():
    for role in ("train", "test"):
        with pytest.raises(LeakageError, match=role):
            split(role).require("calibration", purpose="fitting a policy")
    split().require("calibration", purpose="fitting a policy")


def test_a_split_must_fit_together():
    with pytest.raises(UsageError, match="5 inputs, 4 labels"):
        Split("planted", "test", split().x, torch.zeros(4, dtype=torch.int64), torch.arange(5), ("a",))
    with pytest.raises(UsageError, match="float32"):
        Split("planted", "test", split().images(), torch.zeros(5, dtype=torch.int64), torch.arange(5), ("a",))


def test_a_split_knows_its_content():
    one = split()
    assert one.first(3).sha256 != one.sha256
    assert one.first(99) is one
    assert torch.equal(torch.cat([x for x, _, _ in one.chunks(2)]), one.images())
    assert float(one.images().max()) <= 1.0


def net():
    a, b = (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)) for _ in range(2))
    return Cascade({"a": a, "b": b}, input_shape=(1, 4, 4))


@pytest.mark.parametrize("role", ["test", "train"])
def test_only_calibration_samples_are_logged(role):
    with pytest.raises(LeakageError, match="calibration"):
        net().log(split(role))


def test_a_log_is_what_the_nodes_said():
    model, data = net(), split()
    model.train()
    log = model.log(data, chunk=2)
    assert model.training
    torch.testing.assert_close(log.logits, model.dense_logits(data.images()).detach())
    assert torch.equal(log.node_macs, torch.tensor(model.node_macs))
    assert (log.split, log.sha256) == ("planted/calibration", data.sha256)
    assert len(log) == 5
    one, two = log.halves(0.6)
    assert (len(one), len(two)) == (3, 2)


def log_of(logits, n_labels=4, data="x", role="calibration"):
    structure = Structure(("a",), ((),), 3)
    return CalibrationLog(logits, torch.zeros(n_labels, dtype=torch.int64), structure, torch.ones(1), data, role, "")


@pytest.mark.parametrize("name", ["digits", ""])
def test_a_log_of_test_samples_cannot_exist(name):
    with pytest.raises(LeakageError, match="test samples"):
        log_of(torch.zeros(4, 1, 3), data=name, role="test")


@pytest.mark.parametrize(
    ("logits", "n_labels", "message"),
    [
        (torch.zeros(0, 1, 3), 0, "empty"),
        (torch.full((4, 1, 3), torch.nan), 4, "NaN"),
        (torch.zeros(4, 1, 3), 3, "4 rows of logits"),
        (torch.zeros(4, 2, 3), 4, "2 nodes"),
    ],
)
def test_a_log_that_cannot_be_fitted_on(logits, n_labels, message):
    with pytest.raises(CalibrationError, match=message):
        log_of(logits, n_labels)
