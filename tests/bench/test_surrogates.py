"""Transfer from a net of another data set: how it is named, loaded, hashed, refused, recorded and audited."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import adaptbench as ab
from adaptbench.attacks import load_attack
from adaptbench.bench.entries import Entry
from adaptbench.bench.one_attack import Wish, prepare
from adaptbench.bench.pieces import Pieces
from adaptbench.bench.plan import Plan, make_plan
from adaptbench.bench.suite import load_suite
from adaptbench.bench.surrogates import home, load_surrogate
from adaptbench.errors import CapabilityError, SuiteError
from adaptbench.experiment.keys import model_hash
from adaptbench.experiment.options import Options
from adaptbench.policies import UniformThreshold
from adaptbench.report.names import surrogate_name

FOREIGN = "cifar100/sdn"
FEW = {"steps": 1, "lr": 1}


def plan_of(tmp_path: Path, conditions: str, models: str = "softmax-threshold, learned-cascade") -> Plan:
    place = tmp_path / "s.yaml"
    place.write_text(f"data: digits\nmodels: [{models}]\nconditions: [clean, {conditions}]\nlimit: 4\nchunk: 4\n")
    return make_plan(load_suite(str(place)), Options())


@pytest.fixture(scope="module")
def target() -> ab.AdaptiveModel:
    """A small net of the same kind of pictures: an audit looks at every part of its target many times."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.ReLU())
    stages = [first, nn.Conv2d(4, 8, 3, stride=2, padding=1)]
    heads = [nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)) for width in (4, 8)]
    net = ab.MultiExit(stages=stages, heads=heads, input_shape=(3, 32, 32)).eval().requires_grad_(False)
    net.policy = UniformThreshold(0.105)
    return net


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return (x * 255).round() / 255, torch.tensor([0, 9])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sdn", ("cifar10", "sdn")),
        (FOREIGN, ("cifar100", "sdn")),
        ("./my/nets.py:build", ("cifar10", "./my/nets.py:build")),
    ],
)
def test_a_name_says_whose_net_it_is(name: str, found: tuple[str, str]) -> None:
    assert home(name, "cifar10") == found


def test_the_net_is_that_of_the_other_data_set() -> None:
    other = load_surrogate(FOREIGN, "cifar10", Options())
    assert other.n_classes == 100
    assert model_hash(other) == model_hash(ab.load_model("sdn", "cifar100"))


def test_pictures_move_by_the_surrogates_gradients_and_the_target_is_never_asked(target, pictures, monkeypatch) -> None:
    other = load_surrogate(FOREIGN, "cifar10", Options())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the target was asked")

    monkeypatch.setattr(target, "infer", refuse)
    monkeypatch.setattr(target, "relax", refuse)
    attack = load_attack("transfer-other-data", FEW)
    made = attack.craft(target, *pictures, surrogate={FOREIGN: other}.__getitem__)
    assert attack.settings["surrogate"] == FOREIGN
    assert made.details["surrogate_data"] == "cifar100"
    assert 0 < float(made.linf.max()) <= 8 / 255 + 1e-9


def test_an_objective_that_wants_labels_is_given_the_surrogates_own_answers(target, pictures) -> None:
    """Labels name classes of the target's data: whatever they are, the pictures are the same."""
    other = load_surrogate(FOREIGN, "cifar10", Options())
    attack = load_attack("transfer-other-data", FEW | {"objective": {"cheap-and-wrong": {}}})
    x, y = pictures
    one, two = (attack.craft(target, x, labels, surrogate=lambda _: other).x_adv for labels in (y, (y + 1) % 10))
    assert torch.equal(one, two)


def test_other_channels_and_other_sides_are_refused_in_words(target, pictures) -> None:
    attack = load_attack("transfer-other-data", FEW)
    for data, said in (
        ("digits", "1 channels of 8×8, the target's 3 of 32×32"),
        ("fashion-mnist", "1 channels of 28×28"),
    ):
        other = ab.load_model("softmax-threshold", data)
        with pytest.raises(CapabilityError, match=said):
            attack.craft(target, *pictures, surrogate=lambda _, other=other: other)
    grey, larger = ab.load_model("softmax-threshold", "digits"), ab.load_model("skipnet", "fashion-mnist")
    with pytest.raises(CapabilityError, match="its pictures are 28×28, the target's 8×8"):
        attack.craft(grey, torch.zeros(1, 1, 8, 8), torch.zeros(1).long(), surrogate=lambda _: larger)


def test_a_suite_leaves_such_a_pair_out_and_says_why(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "transfer-other-data")
    assert {model for model, *_ in plan.skipped} == {"softmax-threshold", "learned-cascade"}
    for *_, reason in plan.skipped:
        assert reason == (
            "the surrogate 'cifar100/sdn' cannot stand in for it: "
            "its pictures have 3 channels of 32×32, the target's 1 of 8×8"
        )


def test_a_net_by_its_long_name_is_still_itself(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "transfer: {surrogate: digits/softmax-threshold}")
    assert [(model, reason) for model, _, reason in plan.skipped] == [
        ("softmax-threshold", "it is the surrogate itself; that would be a white-box attack")
    ]
    wish = Wish(Entry(net="learned-cascade"), "digits", "transfer", {"surrogate": "digits/learned-cascade"})
    with pytest.raises(CapabilityError, match="the surrogate itself"):
        prepare(wish, Options())


def test_names_that_nobody_has_are_refused_with_their_line(tmp_path: Path) -> None:
    for name, said in (("mnist/sdn", "no nets for data 'mnist'"), ("cifar100/nope", "no model is called 'nope'")):
        with pytest.raises(SuiteError, match=f"conditions\\[1\\].*{said}"):
            plan_of(tmp_path, f"transfer: {{surrogate: {name}}}")


def test_another_machine_makes_it_of_its_own_data_set_under_the_same_hash(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "transfer: {surrogate: digits/skipnet, steps: 1}")
    (attacked,) = [e for e in plan.evaluations if e.attack and e.entry.net == "learned-cascade"]
    (piece,) = Pieces(plan, Options()).of(attacked, plan.chunk_keys(attacked))
    part = piece.parts["other"]
    assert part.again is not None
    assert part.again.args[:2] == ("skipnet", "digits")
    assert model_hash(part.again()) == model_hash(plan.surrogates["digits/skipnet"])


def test_a_worker_asks_the_other_data_sets_files(tmp_path: Path, target: ab.AdaptiveModel) -> None:
    plan = plan_of(tmp_path, "transfer: {surrogate: digits/skipnet, steps: 1}")
    plan.surrogates[FOREIGN] = load_surrogate(FOREIGN, "cifar10", Options())
    part = Pieces(plan, Options())._surrogate(FOREIGN)
    assert part.again is not None
    assert model_hash(part.again()) == model_hash(plan.surrogates[FOREIGN])


def test_an_audit_of_ones_own_net_names_the_surrogate_and_verify_agrees(target, pictures, tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text(
        "title: a foreign surrogate, few steps\naccess: {transfer: {surrogate: cifar100/sdn}}\n"
        "objective: {hinge-margins: {kappa: 1}}\nconstraint: {linf: {eps: 8/255}}\n"
        "search: {adam-tanh: {lr: 1, steps: 1}}\nkeep: deepest\n"
    )
    audit = ab.audit(target, pictures, attacks=str(tmp_path / "few.yaml"), limit=2, out=tmp_path / "bundle")
    (condition,) = [c for c in audit.summary["conditions"].values() if c["kind"] == "attack"]
    assert condition["settings"]["surrogate"] == FOREIGN
    assert "works on another net (cifar100/sdn)" in (audit.path / "AUDIT.md").read_text()
    (case,) = [c for c in audit.run().cases if c["kind"] == "attack"]
    assert case["surrogate"] == FOREIGN
    assert case["surrogate_sha256"] == model_hash(ab.load_model("sdn", "cifar100"))
    assert ab.verify(audit.path, target).exit_code == 0


def test_the_page_says_what_it_was_trained_on() -> None:
    assert surrogate_name(FOREIGN, {}) == "SDN, trained on cifar100"
    assert (
        surrogate_name("sdn", {"title": "CIFAR ResNet, six internal classifiers"})
        == "CIFAR ResNet, six internal classifiers"
    )
