import pytest
import torch
from attack_toys import random_model

from adaptbench.attacks import load_attack
from adaptbench.attacks.base import Attack, Crafted, Learned, Unaudited
from adaptbench.attacks.universal import UniversalAttack
from adaptbench.testing.attacks import AttackConformance


class TestNoise(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("noise")


class TestNoiseSign(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("noise-sign", {"constraint": {"l2": {"eps": 0.3}}})


class _Control(AttackConformance):
    """What nobody optimised; a picture may get cheaper."""

    never_cheaper = False


class TestNoiseGaussian(_Control):
    def make(self):
        return load_attack("noise-gaussian")


class TestPatchRandom(_Control):
    def make(self):
        return load_attack("patch-random", {"area": 0.3, "place": "random"})


class TestUniformColour(_Control):
    def make(self):
        return load_attack("uniform-colour")


class TestBlur(_Control):
    def make(self):
        return load_attack("corruption-blur")


class TestContrast(_Control):
    def make(self):
        return load_attack("corruption-contrast", {"severity": 5})


class TestBrightness(_Control):
    def make(self):
        return load_attack("corruption-brightness", {"severity": 1})


class TestJpeg(_Control):
    def make(self):
        return load_attack("corruption-jpeg")


class TestIlfo(AttackConformance):
    def make(self):
        return load_attack("ilfo", {"steps": 25})


@pytest.mark.slow
class TestIlfoUnderL2(AttackConformance):
    def make(self):
        return load_attack("ilfo", {"steps": 15, "constraint": {"l2": {"eps": 0.4}}})


@pytest.mark.slow
class TestIlfoMinDistance(AttackConformance):
    def make(self):
        return load_attack("ilfo-min-distance", {"steps": 30})


class TestAmortised(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("amortised", {"steps": 12, "width": 4})


@pytest.mark.slow
class TestAmortisedUnderL2(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("amortised", {"steps": 12, "width": 4, "constraint": {"l2": {"eps": 0.4}}})


class TestDeepSloth(AttackConformance):
    def make(self):
        return load_attack("deepsloth")


@pytest.mark.slow
class TestDeepSlothUnderL2(AttackConformance):
    def make(self):
        return load_attack("deepsloth-l2", {"steps": 15})


@pytest.mark.slow
class TestDeepSlothUnderL1(AttackConformance):
    def make(self):
        return load_attack("deepsloth-l1", {"steps": 20, "eps": 2})


@pytest.mark.slow
class TestIlfoUnderL1(AttackConformance):
    def make(self):
        return load_attack("ilfo", {"steps": 15, "constraint": {"l1": {"eps": 3}}})


@pytest.mark.slow
class TestIlfoInAPatch(AttackConformance):
    def make(self):
        return load_attack("ilfo", {"steps": 15, "constraint": {"patch": {"side": 3, "place": "random"}}})


@pytest.mark.slow
class TestBestOfNInAPatch(AttackConformance):
    def make(self):
        return load_attack("best-of-n", {"queries": 6, "constraint": {"patch": {"area": 0.3, "place": "centre"}}})


@pytest.mark.slow
class TestStandard(AttackConformance):
    def make(self):
        return load_attack("standard")


class TestMembersThatBeginAtDearPictures(AttackConformance):
    def make(self):
        search = {"momentum": {"steps": 8}}
        members = [
            {"objective": "hinge-margins", "search": search},
            {"objective": "hinge-margins", "search": search, "start": "dear"},
        ]
        return load_attack("exhaustive", {"members": members})


@pytest.mark.slow
class TestStandardKept(AttackConformance):
    def make(self):
        return load_attack("standard-kept", {"eps": "16/255"})


class TestMargin(AttackConformance):
    def make(self):
        return load_attack("margin", {"steps": 20})


@pytest.mark.slow
class TestMarginUnderL2(AttackConformance):
    def make(self):
        return load_attack("margin", {"steps": 15, "constraint": {"l2": {"eps": 0.4}}})


@pytest.mark.slow
class TestMarginKept(AttackConformance):
    def make(self):
        return load_attack("margin-kept", {"steps": 20})


class TestEarlyWrong(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("early-wrong", {"steps": 15})


class TestWeightedHeads(AttackConformance):
    def make(self):
        return load_attack("margin", {"steps": 15, "objective": "weighted-heads"})


class TestLogitGap(AttackConformance):
    def make(self):
        return load_attack("margin", {"steps": 15, "objective": "logit-gap"})


class TestNearMargins(AttackConformance):
    def make(self):
        return load_attack("margin", {"steps": 15, "objective": "near-margins"})


class TestNextClosed(AttackConformance):
    def make(self):
        return load_attack("margin", {"steps": 15, "objective": "next-closed"})


class TestMixed(AttackConformance):
    def make(self):
        terms = [{"hinge-margins": {"kappa": 0.1}}, {"label-margin": {}, "weight": 0.5, "from": 0.3}]
        return load_attack("margin", {"steps": 15, "objective": {"mixed": {"of": terms}}})


class _OnGates(AttackConformance):
    """Attacks that mean something on gates only."""

    def subject(self):
        model = random_model("gated")
        x = (torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(4)) * 255).round() / 255
        return model, x, torch.zeros(12, dtype=torch.int64), torch.arange(12)


@pytest.mark.slow
class TestStandard2OnGates(_OnGates):
    def make(self):
        return load_attack("standard-2")


@pytest.mark.slow
class TestStandard3OnPlannedGates(_OnGates):
    def subject(self):
        return random_model("planned"), *super().subject()[1:]

    def make(self):
        return load_attack("standard-3")


class TestOneGate(_OnGates):
    never_cheaper = False  # a gate that opens may close others

    def make(self):
        return load_attack("one-gate", {"gate": 2, "steps": 20, "eps": "32/255"})


class TestGradAuto(_OnGates):
    def make(self):
        return load_attack("gradauto", {"steps": 20, "lr": 0.1})


class TestGradMdm(_OnGates):
    def make(self):
        return load_attack("gradmdm", {"steps": 20, "lr": 0.1})


@pytest.mark.slow
class TestDeepSlothOnTheFirstExit(AttackConformance):
    def make(self):
        return load_attack("deepsloth-exit1")


class TestDeepSlothUniversal(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("deepsloth-universal", {"steps": 25, "eps": "24/255"})


@pytest.mark.slow
class TestDeepSlothClassUniversal(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("deepsloth-class-universal", {"steps": 15, "batch": 7})


@pytest.mark.slow
class TestUniversalNoiseUnderL2(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("universal-noise", {"steps": 15, "constraint": {"l2": {"eps": 0.4}}})


class TestUniversalPatch(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("universal-patch", {"steps": 15, "side": 2, "place": "random"})


@pytest.mark.slow
class TestUniversalByAdam(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("ilfo", {"steps": 15, "shared": "all"})


class TestExpectedMacs(AttackConformance):
    def make(self):
        return load_attack("deepsloth", {"objective": "expected-macs", "steps": 10})


class TestEreba(AttackConformance):
    def make(self):
        return load_attack("ereba", {"queries": 20, "rounds": 2, "probes": 3, "fit_steps": 5})


class TestBestOfN(AttackConformance):
    def make(self):
        return load_attack("best-of-n", {"queries": 12})


@pytest.mark.slow
class TestBestOfNInBlocksUnderL2(AttackConformance):
    def make(self):
        return load_attack("best-of-n", {"queries": 6, "block": 3, "constraint": {"l2": {"eps": 0.4}}})


class TestTransfer(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("transfer", {"surrogate": "twin", "steps": 10})

    def surrogates(self):
        return lambda name: self.subject()[0]


class TestTorchattacksPgd(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("torchattacks/PGD", {"steps": 5, "eps": "8/255"})


@pytest.mark.slow
class TestTorchattacksSquare(AttackConformance):
    never_cheaper = False

    def make(self):
        return load_attack("torchattacks/Square", {"n_queries": 10})


class _Leaky(Attack):
    """A planted fault: trains the model's batch statistics and forgets about it."""

    name = title = "leaky"
    requires = frozenset({"gradients"})

    @property
    def settings(self):
        return {}

    def _craft(self, task):
        return Unaudited((task.x * 255).round().byte())

    def craft(self, model, x, y, **more):
        model.train()
        x8 = (x * 255).round().byte()
        zero = torch.zeros(len(x), dtype=torch.float64)
        return Crafted(x8, zero, zero, None, 0.0, {})


class _Drawing(_Leaky):
    """A planted fault: draws from the global generator."""

    def craft(self, model, x, y, **more):
        torch.rand(3)
        return super(_Leaky, self).craft(model, x, y, **more)


class _Batchy(_Leaky):
    """A planted fault: a sample's noise depends on its place in the batch."""

    def craft(self, model, x, y, **more):
        return Attack.craft(self, model, x, y, **more)

    def _craft(self, task):
        shift = torch.arange(len(task.x)).view(-1, 1, 1, 1) % 7
        return Unaudited(((task.x * 255).round() + shift).clamp(0, 255).byte())


class _Thrifty(_Leaky):
    """A planted fault: says that it may ask ten times, asks once, and leaves it at that."""

    @property
    def settings(self):
        return {"queries": 10}

    def craft(self, model, x, y, **more):
        return Attack.craft(self, model, x, y, **more)

    def _craft(self, task):
        return Unaudited((task.x * 255).round().byte(), torch.ones(len(task.x), dtype=torch.int64))


class _Peeking(UniversalAttack):
    """A planted fault: crafts on what it is judged on, and on each picture by itself."""

    def __init__(self):
        made = load_attack("universal-noise", {"steps": 3})
        super().__init__(made.parts, made.shared)

    def _learn(self, task):
        return Learned({}, {})

    def _craft(self, task):
        unaudited = self._optimise(task, task.model)
        noise = torch.arange(task.x.numel()).view_as(task.x) % 3
        return Unaudited((unaudited.x_adv.int() + noise).clamp(0, 255).byte())


def _kit(attack):
    class Kit(AttackConformance):
        def make(self):
            return attack()

    return Kit()


def _fails(check):
    try:
        check()
    except AssertionError:
        return True
    return False


def test_the_kit_catches_a_planted_state_leak():
    assert _fails(_kit(_Leaky).test_the_model_is_left_as_it_was)


def test_the_kit_catches_a_planted_draw_from_the_global_generator():
    assert _fails(_kit(_Drawing).test_the_model_is_left_as_it_was)


def test_the_kit_catches_noise_that_belongs_to_the_batch():
    assert _fails(_kit(_Batchy).test_chunks_and_order_change_nothing)


def test_the_kit_catches_a_budget_that_is_left_over():
    assert _fails(_kit(_Thrifty).test_a_budget_is_spent_or_the_reason_is_said)
    assert not _fails(
        _kit(lambda: load_attack("best-of-n", {"queries": 3})).test_a_budget_is_spent_or_the_reason_is_said
    )


def test_the_kit_catches_a_universal_attack_that_is_crafted_on_what_judges_it():
    kit = _kit(_Peeking)
    assert _fails(kit.test_a_shared_change_is_crafted_on_pictures_of_its_own)
    assert _fails(kit.test_a_shared_change_is_the_same_for_all_that_share_it)


def test_the_kit_passes_what_is_sound():
    kit = _kit(lambda: load_attack("noise"))
    assert not _fails(kit.test_the_model_is_left_as_it_was)
    assert not _fails(kit.test_chunks_and_order_change_nothing)


def test_every_recipe_says_on_every_shape_whether_it_applies():
    for shape in ("multi-exit", "cascade", "dag", "gated"):
        model = random_model(shape)
        reasons = {
            name: load_attack(name).applies_to(model) for name in ("noise", "ilfo", "deepsloth", "ereba", "transfer")
        }
        assert {name for name, reason in reasons.items() if reason} == ({"deepsloth"} if shape == "gated" else set())
    assert "ilfo" in reasons["deepsloth"]
