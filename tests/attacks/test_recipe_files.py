import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptbench.attacks import EREBA, ILFO, BestOfN, Noise, list_attacks, load_attack
from adaptbench.attacks.catalogue import find_recipe, recipe_files
from adaptbench.attacks.fractions import parse_fraction
from adaptbench.attacks.recipe import read_recipe
from adaptbench.attacks.registry import ATTACKS
from adaptbench.bench.suite import load_suite
from adaptbench.errors import RecipeError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
title: mine
cite: nobody
objective: {hinge-margins: {kappa: 0.1}}
constraint: {linf: {eps: 4/255}}
search: {adam-tanh: {lr: 0.2, steps: 7}}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        place = tmp_path / "mine.yaml"
        place.write_text(text, encoding="utf-8")
        return str(place)

    return write


def test_the_shipped_recipes():
    listed = {line.name: line for line in list_attacks()}
    assert {"noise", "noise-sign", "ilfo", "ilfo-min-distance", "deepsloth", "ereba", "transfer"} <= set(listed)
    for name, line in listed.items():
        attack = load_attack(name)
        assert (attack.name, attack.title, attack.cite, attack.access, attack.kind) == (
            name, line.title, line.cite, line.access, line.kind,
        )  # fmt: skip
    assert {n for n, line in listed.items() if line.kind == "control"} == {
        "best-of-n", "corruption-blur", "corruption-brightness", "corruption-contrast", "corruption-jpeg", "noise",
        "noise-gaussian", "noise-sign", "patch-random", "series-noise", "uniform-colour", "words-best-of-n",
        "words-random",
    }  # fmt: skip


def test_published_settings_are_kept():
    sloth = load_attack("deepsloth").settings
    assert (sloth["eps"], sloth["step"], sloth["steps"], sloth["init"]) == (0.03125, 0.002, 30, 0.002)
    assert load_attack("ilfo").settings["eps"] == 8 / 255
    assert load_attack("ereba").settings["queries"] == 500


def test_answers_may_be_kept_by_a_setting_wherever_gradients_of_the_target_are_followed_for_each_picture():
    """docs/threat-models.md says so, and that there is no such variant elsewhere."""
    for name, line in {line.name: line for line in list_attacks()}.items():
        recipe = read_recipe(find_recipe(name)[1])
        alone = recipe.access.name == "white-box" and recipe.shared is None
        search = recipe.search.name if recipe.search else ""
        other = recipe.constraint.name in ("words", "series-linf") or search == "generator"
        if recipe.fixed or recipe.aim == "cheap-and-wrong":
            continue
        if alone and not other and line.kind == "attack":
            assert load_attack(name, {"label": "keep"}).settings["label"] == "keep", name
        else:
            with pytest.raises(RecipeError, match="label"):
                load_attack(name, {"label": "keep"})


def test_listing_needs_no_torch():
    probe = """
import sys
from adaptbench.attacks import list_attacks
sys.exit(len(list(list_attacks())) < 7 or "torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_file_and_a_folder_here_come_before_the_package(write, tmp_path, monkeypatch):
    assert load_attack(write(GOOD)).settings["steps"] == 7
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "ilfo.yaml").write_text(GOOD)
    assert load_attack("ilfo").title == "mine"
    assert recipe_files()["deepsloth"].parent != tmp_path / "attacks"


def test_suites_override_settings_by_their_own_name():
    attack = load_attack("ilfo", {"eps": "16/255", "steps": 20, "kappa": "1/10"})
    assert (attack.settings["eps"], attack.settings["steps"], attack.settings["kappa"]) == (16 / 255, 20, 0.1)
    assert load_attack("ereba", {"queries": 40}).settings["queries"] == 40
    assert load_attack("transfer", {"surrogate": "static"}).settings["surrogate"] == "static"
    assert ILFO(eps=2 / 255).settings["eps"] == 2 / 255


def test_suites_override_whole_parts():
    attack = load_attack("ilfo", {"constraint": {"l2": {"eps": 2}}, "eps": 0.25, "search": "sign-descent", "steps": 3})
    assert attack.settings["constraint"] == "l2"
    assert (attack.settings["eps"], attack.settings["search"], attack.settings["steps"]) == (0.25, "sign-descent", 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epz": 1}, ["'ilfo'", "'epz'", "Did you mean 'eps'"]),
        ({"eps": -1}, ["constraint.linf.eps", "greater than 0", "-1"]),
        ({"eps": "wide"}, ["constraint.linf.eps", "wide"]),
        ({"steps": 0}, ["search.adam-tanh.steps"]),
        ({"steps": 2.5}, ["search.adam-tanh.steps"]),
        ({"objective": "hinge-margin"}, ["objective", "Did you mean 'hinge-margins'"]),
        ({"constraint": {"linf": {"epsilon": 1}}}, ["constraint.linf", "'epsilon'", "eps"]),
        ({"search": "random"}, ["random", "objective"]),
        ({"access": {"black-box": {"queries": 3}}}, ["gradients", "black-box"]),
        ({"access": "grey-box"}, ["grey-box", "white-box"]),
        ({"access": {"transfer": {}}}, ["surrogate", "missing"]),
        ({"access": {"white-box": {"queries": 3}}}, ["takes none"]),
        ({"objective": "estimator"}, ["queries", "black-box"]),
    ],
)
def test_wrong_settings_name_the_field(settings, words):
    with pytest.raises(RecipeError) as caught:
        load_attack("ilfo", settings)
    for word in words:
        assert word.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("title: mine", ""), ["mine.yaml", "'title' is missing"]),
        (GOOD + "serch: x\n", ["'serch'", "Did you mean 'search'"]),
        (GOOD + "kind: defence\n", ["kind", "control"]),
        (GOOD + "keep: best\n", ["keep", "nearest"]),
        (GOOD.replace("{linf: {eps: 4/255}}", "[linf, l2]"), ["mine.yaml, constraint", "{linf: {eps: 8/255}}"]),
        (GOOD.replace("{linf: {eps: 4/255}}", "{linf: 4/255}"), ["mine.yaml, constraint"]),
        (GOOD.replace("kappa", "kapa"), ["mine.yaml, objective.hinge-margins", "'kapa'", "Did you mean 'kappa'"]),
        (GOOD.replace("objective: {hinge-margins: {kappa: 0.1}}", ""), ["needs an objective"]),
        ("- just\n- a list\n", ["mine.yaml", "list"]),
        ("title: [unclosed\n", ["mine.yaml", "line 2"]),
    ],
)
def test_a_bad_file_names_file_and_field(write, text, words):
    with pytest.raises(RecipeError) as caught:
        load_attack(write(text))
    for word in words:
        assert word in str(caught.value)


def test_wrong_names_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'deepsloth'"):
        load_attack("deepslth")
    with pytest.raises(UnknownNameError, match="no recipe file"):
        load_attack("nowhere/mine.yaml")


def test_a_plug_in_attack_is_found_by_name(monkeypatch):
    from adaptbench.registry import Entry

    monkeypatch.setitem(ATTACKS._entries, "other", Entry("other", "adaptbench.attacks.named:ILFO", "a plug-in"))
    assert load_attack("other", {"steps": 3}).settings["steps"] == 3
    assert "other" in {line.name for line in list_attacks()}


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_fractions(a, b):
    assert parse_fraction(f"{a}/{b}") == a / b
    assert parse_fraction(f" {a} / {b} ") == a / b
    assert parse_fraction(f"{a}e-3") == float(f"{a}e-3")


@pytest.mark.parametrize("text", ["a/b", "1/0", "1/2/3", "", "eight"])
def test_what_is_no_fraction_stays_text(text):
    assert parse_fraction(text) == text


def test_attacks_of_the_committed_baseline_are_these_attacks() -> None:
    """A class that is called otherwise is no other attack: runs stay comparable with what was published."""
    kept = json.loads((ROOT / "reports" / "baselines" / "bench.json").read_text(encoding="utf-8"))
    hashes = {
        case["condition"]: case["attack_sha256"] for case in kept["cases"] if case["kind"] in ("control", "attack")
    }
    conditions = {c.id: c for c in load_suite("bench").suite.conditions}
    assert len(hashes) >= 6
    assert {name: load_attack(conditions[name].ref, conditions[name].settings).sha256 for name in hashes} == hashes


@pytest.mark.parametrize(("name", "kind"), [("ilfo", ILFO), ("ereba", EREBA), ("noise", Noise), ("best-of-n", BestOfN)])
def test_python_and_recipe_make_one_attack(name, kind) -> None:
    assert kind(eps=0.25).sha256 == load_attack(name, {"eps": 0.25}).sha256
