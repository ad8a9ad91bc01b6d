"""Attacks that meant something else than they said: scales, ranges, versions, stale cells."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from adaptbench.adaptive import MultiExit
from adaptbench.attacks import EREBA, ILFO, DeepSloth, Noise, TorchAttack, load_attack
from adaptbench.attacks.slopes import ClosedClamp, closed_clamp
from adaptbench.attacks.torchattack import class_names
from adaptbench.bench.notes import things_to_know
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.errors import CapabilityError, DomainError, RecipeError, SuiteError
from adaptbench.experiment import keys
from adaptbench.policies import UniformThreshold
from adaptbench.report.page import write_report
from adaptbench.results.controls import beside


class _Clamping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x.clamp(0.0, 1.0)
        self.seen.append(type(out.grad_fn).__name__)
        return out.flatten(1)


@pytest.mark.case("own")
def test_an_attacks_gradient_does_not_hang_on_which_slope_torch_gives_clamp_at_its_bounds() -> None:
    """PGD on digits left 37.5 % right under torch 2.14 and 7.8 % under 2.13: black pixels had lost their gradient."""
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    for clamp in (
        lambda t: t.clamp(0.0, 1.0),
        lambda t: torch.clamp(t, min=0.0, max=1.0),
        lambda t: (t * 1.0).clamp_(0, 1),
        lambda t: t.clip(0, 1),
        lambda t: t.clamp_min(0).clamp_max(1),
    ):
        x = values.clone().requires_grad_()
        for held in (ClosedClamp(), closed_clamp()):  # the second is nothing where torch's own slope is that
            x.grad = None
            with held:
                out = clamp(x)
            out.sum().backward()
            assert out.tolist() == [0, 0, 0.5, 1, 1]
            assert x.grad is not None
            assert x.grad.tolist() == [0, 1, 1, 1, 0]
    stage = _Clamping()
    model = MultiExit([stage, nn.Identity()], [nn.Linear(16, 3), nn.Linear(16, 3)], input_shape=(1, 4, 4)).eval()
    model.policy = UniformThreshold(0.1)
    black = torch.zeros(2, 1, 4, 4)
    for name in ("ilfo", "torchattacks/PGD"):
        stage.seen.clear()
        load_attack(name, {"steps": 2}).craft(model, black, torch.tensor([0, 1]))
        assert ("_ClampBackward" in stage.seen) == isinstance(closed_clamp(), ClosedClamp), name


@pytest.mark.case("own")
def test_where_torch_gives_clamp_no_slope_at_its_bounds_attacks_bring_their_own(monkeypatch) -> None:
    """Older versions of torch have no slope where a pixel stands at its bound, and an attack stood still there."""
    monkeypatch.setattr("adaptbench.attacks.base.closed_clamp", ClosedClamp)
    stage = _Clamping()
    model = MultiExit([stage, nn.Identity()], [nn.Linear(16, 3), nn.Linear(16, 3)], input_shape=(1, 4, 4)).eval()
    model.policy = UniformThreshold(0.1)
    for name in ("ilfo", "torchattacks/PGD"):
        stage.seen.clear()
        load_attack(name, {"steps": 2}).craft(model, torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))
        assert "_ClampBackward" in stage.seen, name


def _small() -> object:
    suite = load_suite("ci", ["data=digits", "models=[learned-cascade]", "conditions=[clean, transfer]", "limit=4"])
    return make_plan(suite)


LOADED = {
    "ilfo: {eps: 8}": ["L∞", "did you mean 8/255"],
    "ilfo: {eps: 0}": ["eps", "greater than 0"],
    "ilfo: {eps: .inf}": ["eps", "finite"],
    "ilfo: {eps: .nan}": ["eps", "finite"],
    "ilfo: {eps: true}": ["eps", "a number"],
    "ilfo: {eps: wide}": ["eps", "a number"],
    "ilfo: {steps: 0}": ["steps", "at least 1"],
    "ilfo: {steps: 1000000000}": ["steps", "at most 100000"],
    "ilfo: {steps: true}": ["steps", "whole number"],
    "ilfo: {kappa: -1}": ["kappa"],
    "ilfo: {lr: 1000}": ["lr"],
    "ilfo: {constraint: {l2: {eps: 100000}}}": ["L2", "400"],
    "deepsloth: {step: 2}": ["step", "did you mean 2/255"],
    "deepsloth: {step: 0.0001, steps: 3, init: 0}": ["half a grey level"],
    "noise: {eps: 0.5/255}": ["below one grey level"],
    "noise-sign: {eps: -0.1}": ["eps", "greater than 0"],
    "ereba: {queries: 1}": ["queries"],
    "ereba: {queries: 1.5e1}": ["queries", "whole number"],
    "torchattacks/PGD: {eps: 8, alpha: 2}": ["PGD, eps", "did you mean 8/255"],
    "torchattacks/PGD: {alpha: 2}": ["PGD, alpha", "did you mean 2/255"],
    "torchattacks/PGD: {eps: -1}": ["PGD, eps"],
    "torchattacks/PGD: {eps: 99}": ["PGD, eps"],
    "torchattacks/PGD: {eps: .inf}": ["PGD, eps", "finite"],
    "torchattacks/PGD: {eps: 0.5/255}": ["below one grey level"],
    "torchattacks/PGD: {steps: x}": ["PGD, steps", "whole number"],
    "torchattacks/PGD: {steps: 0}": ["PGD, steps"],
    "torchattacks/PGD: {random_start: 1}": ["random_start", "true or false"],
    "torchattacks/PGD: {self: 1}": ["takes no 'self'"],
    "torchattacks/PGD: {name: 1}": ["takes no 'name'"],
    "torchattacks/PGD: {deadline_s: true}": ["deadline_s", "seconds"],
    "torchattacks/PGD: {deadline_s: 0}": ["deadline_s"],
    "torchattacks/APGD: {norm: nope}": ["norm", "Linf, L2"],
    "torchattacks/PGDL2: {eps: 4000}": ["L2", "400"],
    "torchattacks/PIFGSM: {max_epsilon: 16}": ["max_epsilon", "did you mean 16/255"],
    "torchattacks/Pixle: {x_dimensions: 3}": ["x_dimensions", "list of 2"],
    "clean: {nonsense: 2}": ["no setting 'nonsense'"],
    "clean: {id: other}": ["called 'other'"],
    "noise: {eps: 32/255, id: clean}": ["called 'clean'"],
}
BIG = "ilfo: {steps: " + "9" * 4000 + "}"


@pytest.mark.case("https://github.com/MadryLab/mnist_challenge/issues/13")
@pytest.mark.case("https://github.com/fra31/auto-attack/issues/44")
@pytest.mark.parametrize("condition", [*LOADED, BIG], ids=lambda text: text[:50])
def test_a_setting_of_another_scale_or_kind_is_refused_when_the_suite_is_read(condition: str, tmp_path: Path) -> None:
    """An eps of 8 ran and reported 97 % taken back; budgets of another scale or kind ran for ever or broke off."""
    suite = tmp_path / "mine.yaml"
    first = "" if condition.startswith("clean") else "  - clean\n"
    suite.write_text(f"data: digits\nmodels: [static]\nconditions:\n{first}  - {condition}\n")
    with pytest.raises(SuiteError) as caught:
        load_suite(str(suite))
    said = str(caught.value)
    assert f"mine.yaml, line {4 if not first else 5}" in said
    assert len(said) < 500
    for words in LOADED.get(condition, ["more than 64 bits"]):
        assert words in said


@pytest.mark.case("own")
def test_python_classes_check_their_settings_like_suites() -> None:
    """`ILFO(eps=8)` and `EREBA(queries=True)` were taken."""
    for kind, settings in (
        (ILFO, {"eps": 8}),
        (DeepSloth, {"eps": 0}),
        (Noise, {"eps": 1.01}),
        (Noise, {"shape": "round"}),
        (EREBA, {"queries": True}),
        (EREBA, {"queries": 10**400}),
    ):
        with pytest.raises(RecipeError):
            kind(**settings)
    with pytest.raises(RecipeError):
        TorchAttack("PGD", eps=8)
    assert TorchAttack("PGDL2", eps=2).settings["eps"] == 2


def _net(shape: tuple[int, int, int], classes: int) -> MultiExit:
    torch.manual_seed(0)
    stages = [nn.Conv2d(shape[0], 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)]
    features = 4 * shape[1] * shape[2]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(features, classes)) for _ in stages]
    model = MultiExit(stages, heads, input_shape=shape)
    model.policy = UniformThreshold(0.6)
    return model.eval()


QUICK = {"steps": 1, "n_queries": 2, "max_iterations": 10, "binary_search_steps": 1, "restarts": 1, "popsize": 2}
QUICK |= {"nb_sample": 2, "max_batch_size": 2, "version": "rand"}


@pytest.mark.case("https://github.com/fra31/auto-attack/issues/70")
@pytest.mark.parametrize(("shape", "classes"), [((1, 4, 6), 3), ((3, 8, 4), 2)])
def test_a_class_of_torchattacks_runs_or_says_beforehand_why_not(shape: tuple[int, int, int], classes: int) -> None:
    """Three channels, square pictures or more than two classes were needed, and a traceback of torch said so."""
    model = _net(shape, classes)
    x, y = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(2) % classes
    refused = set()
    for name in class_names():
        kind = load_attack(f"torchattacks/{name}")
        settings = {key: value for key, value in QUICK.items() if key in kind.keywords}
        attack = load_attack(f"torchattacks/{name}", {"deadline_s": 1, **settings})
        if attack.applies_to(model):
            refused.add(name)
        else:
            attack.craft(model, x, y)
    channels = set() if shape[0] == 3 else {"PIFGSM", "PIFGSMPP"}
    assert refused == {"TIFGSM", "DIFGSM", "Pixle", "JSMA", "APGDT", "AutoAttack"} | channels


@pytest.mark.case("https://github.com/fra31/auto-attack/issues/70")
def test_what_a_foreign_class_raises_becomes_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that breaks off for a reason that no table knows left a traceback."""
    model = _net((1, 4, 4), 3)
    attack = load_attack("torchattacks/PGD", {"steps": 1})

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("sizes do not match\nat all")

    monkeypatch.setattr(attack, "_run", broken)
    with pytest.raises(CapabilityError, match="RuntimeError: sizes do not match"):
        attack.craft(model, torch.rand(1, 1, 4, 4), torch.tensor([0]))


@pytest.mark.case("https://github.com/pytorch/pytorch/issues/86325")
def test_labels_that_are_no_classes_are_refused_by_every_attack() -> None:
    """One-hot and out-of-range labels ended in an index error inside an attack, or in a wrong figure."""
    model, x = _net((1, 4, 4), 3), torch.rand(2, 1, 4, 4)
    for labels in (torch.eye(3)[:2], torch.tensor([0.0, 1.0]), torch.tensor([0, 3]), torch.tensor([-1, 0])):
        for name in ("ilfo", "noise", "torchattacks/PGD"):
            with pytest.raises(DomainError, match="labels"):
                load_attack(name).craft(model, x, labels)


@pytest.mark.case("own")
def test_classes_that_draw_their_seed_from_the_clock_get_the_runs() -> None:
    """AutoAttack took its seed from the time of day, so the same run gave other pictures."""
    model, x = _net((1, 4, 4), 4), torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = model.infer(x).predictions
    attack = load_attack("torchattacks/AutoAttack", {"version": "rand", "eps": "2/255"})
    assert "n_classes" not in attack.settings
    made = attack.factory(model, **attack.given, **attack.ours(model, 7))
    assert made.seed == 7
    assert torch.equal(attack.craft(model, x, y).x_adv, attack.craft(model, x, y).x_adv)


def _pictures(n: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(1)).float() / 255


def _halve(model: MultiExit, x: torch.Tensor) -> None:
    """A threshold that half of the inputs pass at the first exit."""
    model.policy = UniformThreshold(model.dense_logits(x)[:, 0].softmax(1).amax(1).median().item())


@pytest.mark.case("own")
def test_a_larger_budget_of_queries_is_spent() -> None:
    """EREBA's plan never made more than 489 queries, so 1 000 gave the same bits as 500 and nothing said so."""
    model, x = _net((1, 4, 4), 3), _pictures(6, (1, 4, 4))
    _halve(model, x)
    plan = {"rounds": 2, "climbs": 1, "probes": 2, "steps": 3, "fit_steps": 2, "eps": "8/255"}
    for queries in (9, 40):
        crafted = load_attack("ereba", {**plan, "queries": queries}).craft(model, x, torch.zeros(6, dtype=torch.int64))
        assert crafted.queries is not None
        assert int(crafted.queries.max()) == queries
        spared = int((crafted.queries < queries).sum())
        assert spared <= crafted.details["dearest_seen"], (
            "who is not as dear as the dearest has asked as often as it may"
        )
        if spared:
            assert any(f"fewer than {queries} times" in note for note in crafted.details["notes"])


@pytest.mark.case("own")
def test_an_estimator_is_judged_within_each_input() -> None:
    """A rank correlation of 0.9 was variance between inputs, most of which no query ever moved."""
    model, x = _net((1, 4, 4), 3), _pictures(8, (1, 4, 4))
    _halve(model, x)
    attack = load_attack("ereba", {"queries": 60, "rounds": 2, "fit_steps": 5, "eps": "1/255", "holdout": 0.4})
    details = attack.craft(model, x, torch.zeros(8, dtype=torch.int64)).details
    assert details["estimator_spearman"] is not None
    assert details["input_mean_spearman"] > 0.8, "each input's mean cost tells nearly everything"
    assert 0 < details["never_moved"] < 8
    assert f"for {details['never_moved']} of 8 inputs no query ever moved the cost" in details["notes"]
    assert "estimator_spearman_within" in details


CONTROL = {"noise": {"eps": "32/255"}, "best-of-n": {"eps": "32/255", "queries": 12, "limit": 6}}
EREBA_CASE = {"ereba": {"eps": "32/255", "queries": 12, "rounds": 1, "fit_steps": 2, "limit": 6}}


@pytest.mark.case("own")
def test_a_row_of_fewer_inputs_stands_beside_its_own_clean_mean_and_equal_control(tmp_path: Path) -> None:
    """An attack on 8 inputs read 30.3 M beside a clean mean of 27.6 M of 16 inputs, and "0.0 %"."""
    conditions = ["clean", *({k: v} for k, v in CONTROL.items()), EREBA_CASE, {"torchattacks/FGSM": None}]
    settings = ["models=[softmax-threshold]", "limit=30", f"conditions={conditions}".replace("None", "null")]
    run = run_suite(load_suite("ci", settings), out=tmp_path / "run")
    by_condition = {c["condition"]: c for c in run.cases}
    row, control = by_condition["ereba"], by_condition["best-of-n"]
    clean = run.samples([by_condition["clean"]["evaluation"]]).set_index("sample_id")
    ids = run.samples([row["evaluation"]])["sample_id"]
    assert row["macs_clean_mean"] == clean.loc[ids, "macs"].mean() != by_condition["clean"]["macs_mean"]
    assert row["recovery"] == pytest.approx(
        (row["macs_mean"] - row["macs_clean_mean"]) / (row["macs_max"] - row["macs_clean_mean"])
    )
    known = run.manifest["conditions"]
    assert beside(row, run.cases, known) == control
    assert beside(by_condition["torchattacks/FGSM"], run.cases, known) == by_condition["noise"]
    assert not any("stands beside no control" in note for note in run.manifest["notes"])
    without = {name: value for name, value in known.items() if name != "best-of-n"}
    assert beside(row, run.cases, without) is None
    notes = things_to_know(run.cases, meters={}, models={}, conditions=without, skipped=[])
    assert any("ereba stands beside no control of 12 queries" in note for note in notes)
    page = write_report([run.path], tmp_path / "page.html").read_text(encoding="utf-8")
    versions = known["torchattacks/FGSM"]["versions"]
    made = f"made with torchattacks {versions['torchattacks']}, torch {versions['torch']}"
    assert made in page
    assert any(made in note for note in run.manifest["notes"])
    assert by_condition["torchattacks/FGSM"]["attack_versions"] == versions
    assert "the run has no control that asks as often" not in page


@pytest.mark.case("own")
def test_an_eps_finer_than_the_datas_own_grey_levels_is_said() -> None:
    """Digits have 17 grey levels, so 8/255 is half of one; nothing said that such pictures are not in the data."""
    plan = make_plan(load_suite("ci", ["models=[static]", "conditions=[clean, noise, {noise-sign: {eps: 16/255}}]"]))
    assert plan.data_notes == (
        "noise: eps is below one step of the 17 grey levels of digits (15/255); what is crafted lies between them, "
        "where none of its pictures do",
    )


@pytest.mark.case("own")
def test_a_cells_key_changes_with_everything_it_hangs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another surrogate under the same name in the same directory gave the stale pictures back."""
    plan = _small()
    clean, attacked = plan.evaluations
    model, split, attack = attacked.model, attacked.split, attacked.attack
    other = plan.surrogates["softmax-threshold"]
    given = {"seed": 0, "device": "cpu", "chunk": 500}

    def key(identity=("e",), model=model, split=split, attack=attack, surrogate=other, **changed) -> str:
        return keys.evaluation_key(identity, model, split, attack, surrogate, **given | changed)

    def touched(net: nn.Module, change: object) -> nn.Module:
        twin = copy.deepcopy(net)
        change(twin)
        return twin

    def weight(net: nn.Module) -> None:
        with torch.no_grad():
            next(net.parameters()).view(-1)[0] += 1e-6

    def unsaved_buffer(net: nn.Module) -> None:
        net.stages[0].register_buffer("scale", torch.ones(1), persistent=False)

    def policy(net: nn.Module) -> None:
        net.policy = net.policy.at(net.policy.knob_value / 2)

    def layer(net: nn.Module) -> None:
        net.heads[0] = nn.Sequential(net.heads[0], nn.ReLU())

    def setting(net: nn.Module) -> None:
        next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)).eps = 1e-2

    def source(kinds: object) -> dict[str, str]:
        return {"mine": "another text"}

    ids = dataclasses.replace(split, ids=split.ids + 1)
    labels = dataclasses.replace(split, y=(split.y + 1) % 10, sha256="")
    pictures = dataclasses.replace(split, x=split.x + 1, sha256="")
    found = [
        key(),
        key(identity=("other",)),
        key(seed=1),
        key(device="cuda"),
        key(chunk=2),
        key(split=ids),
        key(split=labels),
        key(split=pictures),
        key(attack=None, surrogate=None),
        key(attack=load_attack("transfer", {"steps": 99})),
        key(attack=load_attack("transfer", {"surrogate": "static"})),
        key(surrogate=touched(other, weight)),
        key(surrogate=touched(other, policy)),
        key(model=touched(model, weight)),
        key(model=touched(model, policy)),
        key(model=touched(model, unsaved_buffer)),
        key(model=touched(model, layer)),
        key(model=touched(model, setting)),
    ]
    for name, value in (("own_code", lambda: "mended"), ("foreign_sources", source)):
        with monkeypatch.context() as patch:
            patch.setattr(keys, name, value)
            found.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        found.append(key())
    assert len(set(found)) == len(found)
    assert key() == found[0] == key(model=copy.deepcopy(model), device="cpu:0")
    assert attacked.key != clean.key


@pytest.mark.case("own")
def test_a_torchattacks_cell_and_record_name_the_versions() -> None:
    """Two rows of the same name came from two versions, and nothing said so."""
    versions = load_attack("torchattacks/PGD").versions
    assert versions.keys() == {"torchattacks", "torch"}
    one, other = load_attack("torchattacks/PGD"), load_attack("torchattacks/PGD", {"steps": 3})
    assert one.sha256 == load_attack("torchattacks/PGD").sha256 != other.sha256
