"""A box that tells no MACs: a meter reads its cost, noisily, in a unit of its own that never stands for MACs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

import adaptbench as ab
from adaptbench.adaptive.metered import median_and_noise
from adaptbench.attacks import load_attack
from adaptbench.errors import CapabilityError, GraphError
from adaptbench.meters.inference import Joules, Seconds
from adaptbench.results.baseline import write_baseline

EXAMPLE = torch.zeros(1, 1, 8, 8)
WEIGHT = torch.linspace(-1, 1, 640).reshape(10, 64).sin()
CHEAP_S, DEAR_S = 0.001, 0.005


def answers(x):
    return x.flatten(1) @ WEIGHT.T


def seconds_of(x):
    """Dear where the picture is bright."""
    return torch.where(x.mean((1, 2, 3)) > 0.3, DEAR_S, CHEAP_S).double()


class Clock:
    """Seconds that go on by what an answer costs, and by nothing else."""

    now = 0.0

    def __call__(self):
        return self.now


class Service:
    """Answers, and keeps a clock busy for as long as each input needs, give or take a share (waver)."""

    def __init__(self, clock, waver=0.0):
        self.clock, self.waver, self.calls = clock, waver, 0

    def __call__(self, x):
        self.calls += 1
        shaken = 1 + self.waver * (self.calls * 0.618 % 1 - 0.5)
        self.clock.now += float(seconds_of(x).sum()) * shaken
        return answers(x)


def box(waver=0.0, **more):
    clock = Clock()
    service = Service(clock, waver)
    return ab.BlackBox(service, example=EXAMPLE, returns="logits", cost="seconds", meter=Seconds(clock=clock), **more)


def pictures(*levels):
    return torch.stack([torch.full((1, 8, 8), level) for level in levels])


def test_each_input_costs_what_its_own_inference_takes():
    spent = box(readings=3).infer(pictures(0.9, 0.1, 0.5))
    assert spent.cost.tolist() == pytest.approx([DEAR_S, CHEAP_S, DEAR_S])
    assert spent.noise.tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert spent.unit == "seconds"
    torch.testing.assert_close(spent.logits, answers(pictures(0.9, 0.1, 0.5)))
    assert spent.predictions.tolist() == answers(pictures(0.9, 0.1, 0.5)).argmax(1).tolist()


def test_nobody_is_told_macs():
    net = box()
    spent = net.infer(pictures(0.9))
    for ask in (lambda: spent.macs, lambda: net.macs_full, lambda: net.min_macs, lambda: net.max_macs):
        with pytest.raises(CapabilityError, match="tells no MACs: what its inputs cost is metered in seconds"):
            ask()
    assert "seconds" in repr(spent)


def test_the_noise_is_that_of_the_readings():
    spent = box(waver=0.2, readings=5).infer(pictures(0.1))
    assert spent.cost.item() == pytest.approx(CHEAP_S, rel=0.11)
    assert 0 < spent.noise.item() < 0.2 * CHEAP_S
    readings = 1 + 0.1 * torch.randn(2000, 25, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    middle, noise = median_and_noise(readings)
    assert noise.mean().item() == pytest.approx(middle.std().item(), rel=0.1)


def test_the_black_box_asks_the_boxs_own_meter_and_finds_what_is_dear():
    net, x = box(readings=2), pictures(*[0.28] * 4)
    found = load_attack("black-box", {"queries": 60, "eps": "16/255"}).craft(net, x, torch.zeros(4, dtype=torch.int64))
    assert (net.infer(found.images()).cost > 4 * CHEAP_S).any()
    assert found.queries.tolist() == [60] * 4
    assert found.details["deterministic"] is False
    assert found.details["seconds_at_60"] > found.details["seconds_at_1"]
    assert "meter_noise_seconds" in found.details
    assert any("stated in metered seconds" in note for note in found.details["notes"])
    assert not any(key.startswith("macs") for key in found.details)


def test_ereba_learns_from_seconds():
    attack = load_attack("ereba", {"queries": 12, "rounds": 2, "probes": 3, "fit_steps": 5, "eps": "16/255"})
    found = attack.craft(box(readings=2), pictures(*[0.28] * 3), torch.zeros(3, dtype=torch.int64))
    assert "meter_noise_seconds" in found.details


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("black-box-logits", "logits beside counted MACs"),
        ("ereba-disjoint", "wants counted MACs"),
        ("ilfo", "no gradients|offers no"),
    ],
)
def test_what_wants_macs_is_refused_in_words(name, words):
    attack, net = load_attack(name), box()
    with pytest.raises(CapabilityError, match=words):
        attack.craft(net, pictures(0.2), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"returns": "logits, macs"}, "MACs are told or declared beside it"),
        ({"macs_full": 9}, "MACs are told or declared beside it"),
        ({"cost": "watts"}, "none of the three"),
        ({"max_cost": 0.0}, "no cost"),
        ({"readings": 1}, "two at least"),
        ({"meter": lambda model, x, k: torch.ones(len(x))}, r"gave \(1,\), not \(1, 5\)"),
        ({"meter": lambda model, x, k: torch.zeros(len(x), k)}, "read 0 to 0 seconds"),
    ],
)
def test_what_cannot_be_metered_is_refused(how, words):
    with pytest.raises(GraphError, match=words):
        ab.BlackBox(answers, **{"example": EXAMPLE, "returns": "logits", "cost": "seconds", **how})


def test_joules_are_refused_where_no_sensor_answers(monkeypatch):
    def silent(self):
        raise CapabilityError("no sensor tells the joules of one inference (wattmeter: it is unplugged).")

    monkeypatch.setattr(Joules, "_sensor", silent)
    with pytest.raises(CapabilityError, match="unplugged"):
        ab.BlackBox(answers, example=EXAMPLE, returns="logits", cost="joules")


def test_a_meter_of_macs_is_a_mistake():
    with pytest.raises(GraphError, match="max_cost or meter was given"):
        ab.BlackBox(answers, example=EXAMPLE, macs_full=9, max_cost=1.0)
    with pytest.raises(GraphError, match="macs_full is not given"):
        ab.BlackBox(answers, example=EXAMPLE)


def test_a_static_net_is_metered_where_nobody_declares():
    clock = Clock()

    def static(x):
        clock.now += 0.008 * len(x)
        return answers(x)

    net = ab.BlackBox(Service(clock), example=EXAMPLE, returns="logits", cost="seconds", reference=static,
                      meter=Seconds(clock=clock))  # fmt: skip
    assert net.plain_cost == pytest.approx(0.008)
    assert box(max_cost=0.007).plain_cost == 0.007
    assert box().plain_cost is None


SUITE = """
title: box
data: digits
models: [./mine.py:build]
limit: 6
conditions: [clean, {noise: {eps: 8/255}}, {black-box: {queries: 20, eps: 32/255}}, ilfo]
gate: {cost_s: {increase: 5 %}, accuracy: exact, macs_mean: exact}
"""
MINE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_metered_box import box
def build():
    return box(readings=2, max_cost=0.009)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    place = tmp_path_factory.mktemp("metered")
    (place / "mine.py").write_text(MINE)
    (place / "box.yaml").write_text(SUITE)
    return place, ab.run(str(place / "box.yaml"), out=place / "run", allow_imports=True)


def test_a_suite_states_seconds_and_leaves_macs_null(ran):
    _, run = ran
    by = {case["condition"]: case for case in run.cases}
    clean, attacked = by["clean"], by["black-box"]
    for case in (clean, attacked):
        assert case["macs_mean"] is None
        assert case["macs_max"] is None
        assert "metered in seconds" in case["macs_mean_missing"]
        assert case["recovery"] is None
        assert case["cost_j"] is None
        assert CHEAP_S <= case["cost_s"] <= DEAR_S
        assert case["accuracy"] is not None
    share = (attacked["cost_s"] - attacked["cost_s_clean"]) / (0.009 - attacked["cost_s_clean"])
    assert attacked["cost_recovery"] == pytest.approx(share)
    assert attacked["cost_s_max"] == 0.009
    seen = attacked["cost_s_seen"]
    assert seen == pytest.approx(DEAR_S)
    if seen > clean["cost_s"]:
        share = (attacked["cost_s"] - attacked["cost_s_clean"]) / (seen - attacked["cost_s_clean"])
        assert attacked["cost_recovery_seen"] == pytest.approx(share)
    assert clean["cost_recovery_missing"] == "this is the clean case"
    assert "ilfo" not in by
    rows = run.samples()
    assert rows["macs"].isna().all()
    assert rows["cost_j"].isna().all()
    assert rows["cost_s"].between(CHEAP_S * 0.999, DEAR_S * 1.001).all()
    model = run.manifest["models"]["mine.py:build"]
    assert (model["cost_unit"], model["macs_full"], model["readings"]) == ("seconds", None, 2)
    assert any("the box tells no MACs" in note for note in run.manifest["notes"])


def test_the_page_the_gate_and_a_difference_take_it(ran, tmp_path):
    place, run = ran
    page = ab.write_report([run.path], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "What a meter read" in page
    again = ab.run(str(place / "box.yaml"), out=place / "again", allow_imports=True)
    rules = {"cost_s": {"max": 0.006}, "accuracy": "exact"}
    assert ab.check(again, run, rules).exit_code == 0
    kept = Path(write_baseline(run, tmp_path / "kept.json"))
    document = json.loads(kept.read_text(encoding="utf-8"))
    assert document["samples"][run.cases[0]["evaluation"]]["macs"] is None
    assert ab.check(again, kept, rules).exit_code == 0
    for case in document["cases"]:  # a baseline that was forty times cheaper
        case["cost_s"], case["cost_s_ci"] = case["cost_s"] / 40, [end / 40 for end in case["cost_s_ci"]]
    kept.write_text(json.dumps(document), encoding="utf-8")
    dearer = ab.check(again, kept, {"cost_s": {"increase": "5 %"}})
    assert dearer.exit_code == 1, dearer.rows
    document["manifest"]["device"] |= {"fingerprint": "another", "cpu": "another"}
    kept.write_text(json.dumps(document), encoding="utf-8")
    (row,) = {row.reason for row in ab.check(again, kept, {"cost_s": {"increase": "5 %"}}).rows}
    assert "another device" in row
    both = ab.write_report([run.path, again.path], tmp_path / "both.html").read_text(encoding="utf-8")
    assert "the box" in both or "metered" in both


def test_without_a_plain_cost_recovery_is_up_to_the_dearest_seen_only(tmp_path):
    (tmp_path / "mine.py").write_text(MINE.replace("readings=2, max_cost=0.009", "readings=2"))
    (tmp_path / "box.yaml").write_text(SUITE)
    run = ab.run(str(tmp_path / "box.yaml"), out=tmp_path / "run", allow_imports=True)
    attacked = next(case for case in run.cases if case["condition"] == "black-box")
    assert attacked["cost_recovery"] is None
    assert "nobody says" in attacked["cost_recovery_missing"]
    assert attacked["cost_s_max"] is None


def test_an_audit_says_why_it_does_not_take_it():
    with pytest.raises(CapabilityError, match="shares of counted MACs"):
        ab.audit(box(), "digits", limit=4)


def test_a_real_clock_tells_many_products_from_one():
    """Processor time, so that what else the machine does is left out; the contrast is some hundredfold."""
    matrix = torch.eye(192)

    def loops(x):
        for row in x:
            for _ in range(200 if row.mean() > 0.5 else 1):
                matrix @ matrix
        return answers(x)

    net = ab.BlackBox(loops, example=EXAMPLE, returns="logits", cost="seconds", meter=Seconds(clock=time.process_time))
    spent = net.infer(pictures(0.9, 0.1))
    assert spent.cost[0] > 10 * spent.cost[1]
