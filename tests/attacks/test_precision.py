from dataclasses import dataclass

import pytest
import torch
from attack_toys import SHAPE, faint_pictures, random_model

from adaptbench.attacks import load_attack, precision
from adaptbench.attacks.base import Task
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.engine import Optimiser
from adaptbench.attacks.objectives import Goal, GradientObjective, HingeMargins
from adaptbench.attacks.purity import untouched
from adaptbench.attacks.searches import SignDescent
from adaptbench.bench.plan import make_plan
from adaptbench.bench.suite import load_suite
from adaptbench.errors import AdaptBenchError, CapabilityError, RecipeError

HALF = {"precision": "bf16"}
FOLLOW = (
    "ilfo",
    "ilfo-kept",
    "deepsloth",
    "gradauto",
    "gradmdm",
    "early-wrong",
    "standard",
    "universal-noise",
    "transfer",
)


def in_half():
    return torch.is_autocast_enabled("cpu")


@pytest.fixture
def able(monkeypatch):
    """Autocast runs on every processor, only slowly where there are no instructions for it."""
    monkeypatch.setattr(precision, "why_no_bf16", lambda device: None)


@dataclass(frozen=True)
class Lying(GradientObjective):
    """In bf16 it calls every decision of the dearest path open, by far; its gradient leads nowhere."""

    name = "lying"

    def measure(self, model, x, clean, context, y):
        on = torch.ones(len(x), len(model.dearest_decisions), dtype=torch.bool)
        margins = torch.full(on.shape, 100.0 if in_half() else -100.0)
        reached = torch.full((len(x),), in_half())
        return Goal(0.0 * x.flatten(1).sum(1), on & in_half(), reached, margins=margins)


def test_a_pass_in_bf16_that_lies_about_decisions_gets_no_picture_kept(saver, pictures, monkeypatch):
    x, y = pictures[0][:20], pictures[1][:20]
    hard, looked = saver.infer, []

    def infer(*given, **named):
        looked.append(in_half())
        return hard(*given, **named)

    monkeypatch.setattr(saver, "infer", infer)
    task = Task(saver, x, y, torch.arange(20), 0, None, lambda done, n: None)
    search = SignDescent(step=2 / 255, steps=12, init=4 / 255)
    with untouched(saver):
        run = Optimiser(task, saver, Lying(), Linf(4 / 255), search, "first", precision="bf16").run()
    found, clean = hard(run.x_adv.float() / 255).macs, hard(x).macs
    assert run.details["relaxed_open"] == int((clean < saver.max_macs).sum()) > 0, "the lie was never told"
    assert run.details["at_max_macs"] == int((found == saver.max_macs).sum())
    assert run.details["closed_by_hard_pass"] == int((found < saver.max_macs).sum()) > 0
    assert looked
    assert not any(looked), "the hard pass ran in half precision"


def test_all_of_the_gradient_is_taken_in_bf16_and_handed_back_in_fp32(able, saver, pictures, monkeypatch):
    seen = []
    own = HingeMargins.measure

    def measure(self, model, x, clean, context, y):
        seen.append((in_half(), x.is_contiguous(memory_format=torch.channels_last)))
        return own(self, model, x, clean, context, y)

    monkeypatch.setattr(HingeMargins, "measure", measure)
    attack = load_attack("ilfo", {"steps": 4, **HALF})
    x, y = pictures[0][:5], pictures[1][:5]
    attack.craft(saver, x, y)
    halves = [half for half, _ in seen]
    assert halves[:4] == [True] * 4
    assert not any(halves[4:]), "what speaks against the attack is looked at in fp32"
    assert all(last for half, last in seen if half)
    context = HingeMargins().prepare(saver, x) | {"progress": torch.zeros(5)}
    goal = precision.measured(HingeMargins(), saver, x, x, context, y, "bf16")
    assert goal.loss.dtype == goal.margins.dtype == torch.float32


@pytest.mark.parametrize("shape", ["multi-exit", "cascade", "dag", "gated"])
def test_steps_in_bf16_find_what_steps_in_fp32_find(able, shape, pictures):
    model, (x, y) = random_model(shape), pictures
    full, half = (load_attack("ilfo", {"steps": 40, "eps": "24/255", **how}).craft(model, x, y) for how in ({}, HALF))
    costs = [model.infer(made.images()).macs.double().mean() / model.max_macs for made in (full, half)]
    assert costs[1] == pytest.approx(float(costs[0]), abs=0.03)
    assert not half.details.get("outside_constraint")


@pytest.mark.parametrize("name", FOLLOW)
def test_whoever_follows_a_gradient_takes_it_as_a_setting_of_another_hash(name):
    plain = load_attack(name)
    assert "precision" not in plain.settings
    assert load_attack(name, {"precision": "fp32"}).sha256 == plain.sha256, "published hashes move"
    half = load_attack(name, HALF)
    assert half.settings["precision"] == "bf16"
    assert half.sha256 != plain.sha256


def test_shared_changes_and_surrogates_step_in_bf16(able, saver, pictures, monkeypatch):
    seen = []
    real = precision.measured

    def measured(*given):
        seen.append(given[-1])
        return real(*given)

    for place in ("engine", "universal"):
        monkeypatch.setattr(f"adaptbench.attacks.{place}.measured", measured)
    x, y = pictures[0][:6], pictures[1][:6]
    own = faint_pictures(60, 5)
    load_attack("universal-noise", {"steps": 3, **HALF}).craft(saver, x, y, crafting=own)
    load_attack("transfer", {"steps": 3, **HALF}).craft(saver, x, y, surrogate=lambda name: random_model("multi-exit"))
    load_attack("standard", {"eps": "4/255", **HALF}).craft(random_model("multi-exit"), x, y)
    assert set(seen) == {"bf16"}
    assert len(seen) > 6


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("noise", "precision cannot be asked of an attack without gradients"),
        ("black-box", "precision cannot be asked of an attack without gradients"),
        ("ereba", "precision cannot be asked of an attack without gradients"),
        ("words", "precision cannot be asked of edits of words"),
        ("series", "precision cannot be asked of series"),
        ("torchattacks/PGD", "precision"),
    ],
)
def test_whoever_follows_none_refuses_it_in_words(name, says):
    if name.startswith("torchattacks"):
        pytest.importorskip("torchattacks")
    with pytest.raises(AdaptBenchError, match=says):
        load_attack(name, HALF)


def test_an_unknown_precision_is_refused():
    with pytest.raises(AdaptBenchError, match=r"precision: .*fp32"):
        load_attack("ilfo", {"precision": "fp16"})


def test_a_processor_without_bf16_is_never_asked(monkeypatch, saver, pictures):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    attack = load_attack("ilfo", HALF)
    assert "no instructions for bf16" in attack.applies_to(saver)
    with pytest.raises(CapabilityError, match="no instructions for bf16"):
        attack.craft(saver, pictures[0][:2], pictures[1][:2])
    assert load_attack("ilfo").applies_to(saver) is None
    words = ["data=digits", "models=[softmax-threshold]", "conditions=[clean, {ilfo: {precision: bf16}}]", "limit=4"]
    ((model, condition, reason),) = make_plan(load_suite("ci", words)).skipped
    assert (model, condition) == ("softmax-threshold", "ilfo")
    assert "bf16" in reason
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert attack.applies_to(saver) is None


def test_a_net_that_is_half_already_is_refused(able):
    model = random_model("multi-exit").to(torch.bfloat16)
    assert "bfloat16 already" in precision.applies_to("bf16", model)
    assert model.domain.shape == SHAPE


@pytest.mark.parametrize(("typed", "meant"), [("precison", "precision"), ("labl", "label"), ("step", "steps")])
def test_a_misspelt_setting_of_a_whole_recipe_is_known_too(typed, meant):
    with pytest.raises(RecipeError) as refused:
        load_attack("ilfo", {typed: "bf16"})
    assert f"Did you mean '{meant}'?" in refused.value.todo
    assert "of the whole: aim, label, seconds, precision" in refused.value.todo
