import pytest
import torch
from attack_toys import random_model

from adaptbench.attacks import load_attack
from adaptbench.attacks.assorted import Assorted
from adaptbench.attacks.blurred import BlurredNoise
from adaptbench.attacks.pattern_kinds import CoarseSigns, ContourSigns, PatternKind
from adaptbench.attacks.registry import PATTERNS
from adaptbench.attacks.waves import Waves
from adaptbench.errors import RecipeError
from adaptbench.naming import Entry
from adaptbench.testing.attacks import AttackConformance
from adaptbench.testing.patterns import PatternConformance, campaign

EPS = 32 / 255
MIX = {"assorted": {"of": [{"waves": {}}, {"coarse": {"finest": 0.2}}], "first": 3}}


class TestContourSigns(PatternConformance):
    def make(self):
        return ContourSigns()


class TestCoarseSigns(PatternConformance):
    def make(self):
        return CoarseSigns(finest=0.1, stripes=0.3)


class TestWaves(PatternConformance):
    def make(self):
        return Waves()


class TestLongWaves(PatternConformance):
    def make(self):
        return Waves(highest=0.1)


class TestBlurredNoise(PatternConformance):
    def make(self):
        return BlurredNoise()


def assorted(settings=None, **more):
    kinds = [{"waves": {}, "share": 0.3}, {"blurred-noise": {}, "share": 0.3}, {"contours": {}, "share": 0.4}]
    search = {"assorted": {"of": kinds, **(settings or {})}}
    return load_attack("blocks", {"search": search, "eps": EPS, **more})


class TestAssorted(AttackConformance):
    def make(self):
        return assorted({"first": 4}, queries=12)


class TestAssortedUnderL2(AttackConformance):
    def make(self):
        return load_attack("black-box", {"queries": 8, "search": MIX, "constraint": {"l2": {"eps": 0.4}}})


def craft(x, queries, model=None, **settings):
    attack = assorted(settings, queries=queries)
    return attack.craft(model or random_model("gated"), x, torch.zeros(len(x), dtype=torch.int64))


def test_every_registered_kind_has_its_checks():
    kinds = {kit.make(None).name for kit in PatternConformance.__subclasses__() if kit.__module__ == __name__}
    assert kinds == set(PATTERNS.names())


def test_a_wave_is_straight_and_of_one_period():
    """Along its crests nothing changes; across them signs turn at equal distances."""
    asking = campaign((1, 28, 28))
    for _ in range(4):
        pattern = Waves(highest=0.25).draw(asking)[:, 0]
        spectrum = torch.fft.rfft2(pattern).abs()
        spectrum[:, 0, 0] = 0
        peak = spectrum.flatten(1).topk(4).values.square().sum(1) / spectrum.square().flatten(1).sum(1)
        assert (peak > 0.3).all(), "the energy of a wave is in few frequencies"
    noise = torch.where(asking.uniform(28, 28) < 0.5, -1.0, 1.0)
    spread = torch.fft.rfft2(noise).abs()
    assert (spread.flatten(1).topk(4).values.square().sum(1) / spread.square().flatten(1).sum(1) < 0.2).all()


def test_patches_of_blurred_noise_are_as_wide_as_the_blur():
    """The share of neighbours of one sign: 1 − arccos(ρ)/π for a Gaussian field whose neighbours correlate by ρ."""
    for share in (1 / 14, 1 / 7):
        kind = BlurredNoise(finest=share, coarsest=share)
        asking = campaign((3, 28, 28))
        pattern = torch.cat([kind.draw(asking) for _ in range(8)])[..., 8:20, 8:20]
        same = (pattern[..., 1:] == pattern[..., :-1]).double().mean()
        rho = torch.exp(torch.tensor(-1 / (4 * (share * 28) ** 2), dtype=torch.float64))
        assert float(same) == pytest.approx(float(1 - torch.arccos(rho) / torch.pi), abs=0.03)


def test_kinds_are_asked_about_by_their_shares():
    class Plain(PatternKind):
        name = "plain"

        def __init__(self, sign):
            self.sign = sign

        def draw(self, campaign):
            return torch.full_like(campaign.clean, self.sign)

    search = Assorted(of=[{"waves": {}}])
    search.kinds = [(Plain(1.0), 3.0), (Plain(-1.0), 1.0)]
    asking = campaign((1, 2, 2))
    drawn = torch.stack([search.draw(asking)[:, 0, 0, 0] for _ in range(200)])
    assert float((drawn > 0).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert (drawn.std(1) > 0).any(), "inputs are given kinds of their own"


@pytest.mark.parametrize("queries", [2, 3, 17])
def test_the_budget_is_spent_to_the_last_query(queries):
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    assert craft(x, queries, first=5).queries.tolist() == [queries] * 5


def test_a_shorter_run_is_the_beginning_of_a_longer_one(saver, pictures):
    x = pictures[0][:20]
    short, long = craft(x, 20, saver, first=10), craft(x, 60, saver, first=10)
    assert short.details["macs_at_20"] == long.details["macs_at_20"]
    assert long.details["macs_at_50"] >= long.details["macs_at_20"] > long.details["macs_at_1"]


def test_no_gradient_is_asked_for(saver, pictures, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a black-box attack looked inside")

    monkeypatch.setattr(type(saver), "relax", refuse)
    monkeypatch.setattr(type(saver), "forward", refuse)
    craft(pictures[0][:4], 8, saver)


def test_a_kind_of_a_plug_in_is_a_line_of_the_registry(monkeypatch, tmp_path):
    (tmp_path / "lone_pattern.py").write_text(
        "from adaptbench.attacks.waves import Waves\nclass Lone(Waves):\n    name = 'lone'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PATTERNS._entries, "lone", Entry("lone", "lone_pattern:Lone", "a plug-in's"))
    attack = assorted({"of": [{"lone": {"highest": 0.2}, "share": 2}]})
    ((kind, share),) = attack.parts.search.kinds
    assert (kind.name, kind.highest, share) == ("lone", 0.2, 2)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ([], ["a list such as"]),
        ("waves", ["a list such as"]),
        ([{"waves": {}, "contours": {}}], ["{name: {settings}, share: 1}", "contours"]),
        ([{"waves": {}, "share": 0}], ["share lies above 0", "0"]),
        ([{"waves": {}, "share": "much"}], ["a number"]),
        ([{"wavse": {}}], ["'wavse'", "Did you mean 'waves'", "blurred-noise"]),
        ([{"waves": {"highest": 0.7}}], ["waves.highest"]),
        ([{"waves": {"lowest": 0.1}}], ["waves: no setting is called 'lowest'", "highest"]),
        ([{"blurred-noise": {"finest": 0.3, "coarsest": 0.1}}], ["finest is at most coarsest", "0.3 and 0.1"]),
    ],
)
def test_what_is_no_mix_of_kinds_is_refused_in_words(of, words):
    with pytest.raises(RecipeError) as caught:
        assorted({"of": of})
    for word in ["search.assorted", *words]:
        assert word in str(caught.value)


class _Grey(PatternKind):
    """A planted fault: half of the ball."""

    name = "grey"

    def draw(self, campaign):
        return torch.where(campaign.uniform(*campaign.clean.shape[1:]) < 0.5, -0.5, 0.5)


class _Asking(PatternKind):
    """A planted fault: spends queries."""

    name = "asking"

    def draw(self, campaign):
        pattern = CoarseSigns().draw(campaign)
        campaign.ask(campaign.at(pattern))
        return pattern


class _Crowd(PatternKind):
    """A planted fault: an input's pattern hangs on its neighbours."""

    name = "crowd"

    def draw(self, campaign):
        mean = campaign.clean.mean()
        return torch.where(campaign.uniform(*campaign.clean.shape[1:]) < mean, -1.0, 1.0)


class _Global(PatternKind):
    """A planted fault: torch's own random state."""

    name = "global"

    def draw(self, campaign):
        return torch.where(torch.rand_like(campaign.clean) < 0.5, -1.0, 1.0)


class _Stuck(PatternKind):
    """A planted fault: always the same."""

    name = "stuck"

    def draw(self, campaign):
        return torch.ones_like(campaign.clean)


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        (_Grey, "test_patterns_are_signs_of_every_shape", "a sign a pixel"),
        (_Asking, "test_nothing_is_asked_and_nothing_written", "without a query"),
        (_Crowd, "test_draws_belong_to_seed_and_input", "depends on the batch"),
        (_Global, "test_draws_belong_to_seed_and_input", "depends on the batch"),
        (_Stuck, "test_every_draw_is_another_one", "each draw is the same"),
    ],
)
def test_the_kit_finds_planted_faults(fault, check, words):
    class Kit(PatternConformance):
        def make(self):
            return fault()

    given = () if check == "test_nothing_is_asked_and_nothing_written" else ((1, 28, 28),)
    with pytest.raises(AssertionError, match=words):
        getattr(Kit(), check)(*given)
