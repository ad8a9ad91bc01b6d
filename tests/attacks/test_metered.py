"""Attackers who are told seconds: the meter's noise is estimated, kept, and nothing is taken for dearer within it."""

import pytest
import torch
from attack_toys import random_model

from adaptbench.attacks import load_attack
from adaptbench.attacks.access import BlackBox
from adaptbench.attacks.metered import STEP, MeteredModel, questions
from adaptbench.bench.metered import metering, metering_of
from adaptbench.errors import CapabilityError, RecipeError
from adaptbench.meters.base import Meter
from adaptbench.meters.inference import Joules
from adaptbench.meters.reading import Missing, Reading, Sensor
from adaptbench.registry import METERS, Entry
from adaptbench.testing.attacks import AttackConformance

EPS = 20 / 255
SECONDS_A_MAC = 1e-6


def wavering(noise, seed=0, outliers=0.0):
    """A clock of a machine that takes as long as MACs say, give or take."""
    draw = torch.Generator().manual_seed(seed)

    def read(model, pictures, readings):
        true = model.infer(pictures).macs.double()[:, None] * SECONDS_A_MAC
        shaken = true * (1 + noise * torch.randn(len(pictures), readings, generator=draw, dtype=torch.float64))
        late = torch.rand(len(pictures), readings, generator=draw) < outliers
        return torch.where(late, shaken * 50, shaken)

    return read


class TestOnTheClock(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("black-box-seconds", {"queries": 8, "first": 3})

    def metering(self):
        return wavering(0.01)


class TestEstimatorOnTheClock(AttackConformance):
    never_cheaper = False

    def make(self):
        access = {"black-box": {"queries": 12, "cost": "seconds", "readings": 3}}
        return load_attack("ereba", {"access": access, "rounds": 2, "probes": 3, "fit_steps": 5})

    def metering(self):
        return wavering(0.01)


def craft(model, pictures, read, **settings):
    x, y = pictures[0][:30], pictures[1][:30]
    return load_attack("black-box-seconds", {"eps": EPS, **settings}).craft(model, x, y, metering=read)


def recovery(model, x, crafted):
    clean, attacked = model.infer(x).macs.double().mean(), model.infer(crafted.images()).macs.double().mean()
    return float((attacked - clean) / (model.max_macs - clean))


def test_a_clock_leads_where_a_counter_does(saver, pictures):
    x, y = pictures[0][:30], pictures[1][:30]
    counted = load_attack("black-box", {"eps": EPS, "queries": 60}).craft(saver, x, y)
    timed = craft(saver, pictures, wavering(0.05), queries=60)
    assert recovery(saver, x, timed) > 0.7 * recovery(saver, x, counted) > 0.1
    assert timed.details["seconds_at_60"] > timed.details["seconds_at_1"]
    assert not any(key.startswith("macs_at") for key in timed.details), "seconds are no MACs"


def test_noise_alone_is_never_an_improvement(saver, pictures):
    """A meter that shows nothing but noise: hardly any picture replaces the clean one."""

    def blind(model, pictures, readings):
        return 1 + 0.1 * torch.randn(len(pictures), readings, generator=draw, dtype=torch.float64)

    draw = torch.Generator().manual_seed(1)
    details = craft(saver, pictures, blind, queries=8, readings=5).details
    assert details["dearer_than_clean"] <= 15, "of 30, over seven questions"
    assert details["meter_noise_seconds"] == pytest.approx(1.2533 * 0.1 / 5**0.5, rel=0.5)


def test_single_late_readings_do_not_count(saver, pictures):
    x = pictures[0][:30]
    calm = craft(saver, pictures, wavering(0.01), queries=40)
    disturbed = craft(saver, pictures, wavering(0.01, outliers=0.05), queries=40)
    assert recovery(saver, x, disturbed) > 0.7 * recovery(saver, x, calm)


def test_the_record_says_that_another_run_finds_other_pictures(saver, pictures):
    attack = load_attack("black-box-seconds")
    assert not attack.deterministic
    assert (attack.settings["cost"], attack.settings["readings"]) == ("seconds", 5)
    details = craft(saver, pictures, wavering(0.01), queries=6, readings=3).details
    assert details["deterministic"] is False
    assert 30 * 6 * 3 <= details["readings_total"] < 30 * 6 * 3 * 2
    (note,) = (note for note in details["notes"] if "metered in seconds" in note)
    assert "standard error" in note
    assert "executed MACs" in note


def test_costs_are_steps_of_the_noise():
    model, pictures = random_model("cascade"), torch.zeros(4, 1, 6, 6, dtype=torch.uint8)
    readings = torch.tensor([[1.0, 1.2, 0.8]]).double()
    metered = MeteredModel(model, 4, 9, lambda _, x, __: readings.repeat(len(x), 1) + offset, "seconds", 3)
    offset = 0.0
    rows = torch.arange(4)
    first = metered.query(rows, pictures)
    step = STEP * 1.2533 * 1.4826 * 0.2 / 3**0.5
    offset = 0.4 * step
    assert int((metered.query(rows, pictures) - first).max()) <= 1
    offset = 2 * step
    assert (metered.query(rows, pictures) - first == 2).all()
    assert metered.used.tolist() == [3, 3, 3, 3], "a picture that is read again is one query"


def test_without_a_meter_it_says_what_to_give(saver, pictures):
    with pytest.raises(CapabilityError, match=r"adaptbench\.bench\.metered"):
        craft(saver, pictures, None)
    assert metering_of(load_attack("black-box"), "cpu") is None
    assert metering_of(None, "cpu") is None
    assert isinstance(questions(saver, 3, BlackBox(cost="seconds"), wavering(0.0)), MeteredModel)


def test_the_houses_clock_reads_every_picture_and_reading(saver, pictures):
    read = metering_of(load_attack("black-box-seconds"), "cpu")(saver, pictures[0][:3], 4)
    assert read.shape == (3, 4)
    assert (read > 0).all()


class _Wattmeter(Meter):
    """Ten joules a window; finds itself only where it is told to."""

    name = "wattmeter"
    answers = True

    def probe(self):
        return Sensor({}) if self.answers else Missing("it is unplugged")

    def describe(self):
        return {"found": self.answers, "reason": None}

    def begin(self):
        return None

    def end(self, mark, work):
        return [Reading("cpu", 10.0, 1.0, "measured: wattmeter", "machine")]


def test_joules_are_of_a_sensor_or_refused(saver, pictures, monkeypatch):
    monkeypatch.setattr(METERS, "_entries", {"wattmeter": Entry("wattmeter", f"{__name__}:_Wattmeter", "planted")})
    monkeypatch.setattr(METERS, "load", lambda name: _Wattmeter)
    read = metering("joules")(saver, pictures[0][:2], 2)
    assert (read == 10.0).all()
    monkeypatch.setattr(_Wattmeter, "answers", False)
    with pytest.raises(CapabilityError, match="unplugged"):
        Joules("cpu")(saver, pictures[0][:2], 2)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("black-box", {"readings": 3}, "MACs are counted"),
        ("black-box-logits", {"cost": "seconds"}, "no threat"),
        ("ereba-disjoint", {"cost": "seconds"}, "counted MACs"),
        ("black-box", {"cost": "watts"}, "cost"),
        ("black-box-seconds", {"readings": 1}, "at least 2"),
    ],
)
def test_what_no_meter_can_tell_is_refused(name, settings, words):
    with pytest.raises(RecipeError, match=words):
        load_attack(name, settings)


def test_counted_costs_keep_their_hash():
    assert "cost" not in load_attack("black-box").settings
    assert load_attack("black-box", {"cost": "macs"}).sha256 == load_attack("black-box").sha256
