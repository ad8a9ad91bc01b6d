"""Every registered model, with its shipped weights, keeps the laws; cards tell the truth; training repeats itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import adaptbench as ab
from adaptbench.data import load_data
from adaptbench.errors import CheckpointError, DataMissingError, UnknownNameError, UsageError
from adaptbench.testing import ModelConformance
from adaptbench.zoo.loading import SHIPPED, available, files_of, load_system
from adaptbench.zoo.parts import NETS
from adaptbench.zoo.recipes import RECIPES, small_recipe
from adaptbench.zoo.trainer import train_system
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.tokens import TokenHalting

SHIPPED_DATA = sorted(p.name for p in SHIPPED.iterdir() if p.is_dir())
SMALL_PICTURES = ["digits", "fashion-mnist"]
TEXTS = ["ag-news-minilm", "sst2", "sst2-minilm"]
PIXELS = ["pasted-digits"]
PHASE = Phase(1, 0.1, 64, "crop", ema=0.98)
DEPLOYABLE = [name for name in available("digits") if name != "oracle"]


QUICK: dict[str, set[str]] = {
    "fashion-mnist": {"skipnet"},
    "cifar10": {"static", "softmax-threshold", "blockdrop"},
    "cifar100": set(),
    "ag-news-minilm": set(),
    "sst2": set(),
    "sst2-minilm": set(),
    "pasted-digits": {"dense-exits"},
}


def _conformance(name: str, data: str) -> type[ModelConformance]:
    class Check(ModelConformance):
        n_inputs = 64 if data == "digits" else 16

        def model(self) -> ab.DecisionGraph:
            if data in TEXTS and (encoder := NETS[data].encoder) is not None:
                try:
                    encoder.folder()
                except DataMissingError as missing:
                    pytest.skip(str(missing))
            return ab.load_model(name, data)

    Check.__name__ = Check.__qualname__ = f"Test_{name}_{data}".replace("-", "_")
    return Check if name in QUICK.get(data, {name}) else pytest.mark.slow(Check)


for _data in SHIPPED_DATA:
    for _name in available(_data):
        _check = _conformance(_name, _data)
        globals()[_check.__name__] = _check
del _check


def test_what_ships() -> None:
    assert sorted(["cifar10", "cifar100", *SMALL_PICTURES, *TEXTS, *PIXELS]) == SHIPPED_DATA
    texts = sum(f.stat().st_size for data in TEXTS for f in (SHIPPED / data).iterdir())
    assert texts < 4_400_000, "heads on an encoder ship, and a small one; not the encoder"
    total = sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file())
    assert total < 25_000_000


def test_every_system_of_the_first_line_ships_everywhere() -> None:
    first = {"softmax-threshold", "learned-cascade", "dag-selection", "myopic", "uniform", "oracle", "static"}
    for data in SHIPPED_DATA:
        wanted = {"text-exits"} if data in TEXTS else {"dense-exits"} if data in PIXELS else first
        assert wanted <= set(available(data)), data


def test_no_shipped_file_is_without_a_system() -> None:
    """A checkpoint that nothing loads is weight in everybody's download."""
    for data in SHIPPED_DATA:
        used = {file for name in available(data) for file in files_of(name, data)}
        assert {f.name for f in (SHIPPED / data).glob("*.safetensors")} == used


def test_a_system_that_is_not_built_for_a_data_set_has_no_files() -> None:
    assert files_of("sdn", "digits") == [] == files_of("static", "svhn")
    assert "sdn" not in available("digits")


@pytest.mark.parametrize("name", DEPLOYABLE)
def test_digits_are_read_decently(name: str) -> None:
    test = load_data("digits").split("test")
    inference = ab.load_model(name, "digits").infer(test.images())
    assert (inference.predictions == test.y).float().mean() > 0.95


def test_the_oracle_is_the_bound() -> None:
    test = load_data("digits").split("test")
    x, y = test.images(), test.y
    oracle = ab.load_model("oracle", "digits").infer(x, labels=y)
    right = (oracle.predictions == y).float().mean()
    for name in ("dag-selection", "myopic", "uniform"):
        inference = ab.load_model(name, "digits").infer(x)
        assert right >= (inference.predictions == y).float().mean()
        assert oracle.macs.sum() <= inference.macs.sum()


@pytest.mark.parametrize("data", [*SMALL_PICTURES, *TEXTS, "pasted-digits"])
def test_cards_name_recipe_data_and_accuracy(data: str) -> None:
    for card_file in sorted((SHIPPED / data).glob("*.json")):
        card = json.loads(card_file.read_text(encoding="utf-8"))
        assert len(card["sha256"]) == 64
        if card_file.stem.endswith(".policy"):
            assert card["fitted_on"] == f"{data}/calibration"
        else:
            recipe = RECIPES[data]["short"]
            if isinstance(card["recipe"], dict):  # of before parts had settings of their own
                assert card["recipe"]["backbone"]["epochs"] == recipe.parts["ladder"].train.phase.epochs
            else:
                assert card["settings"] == json.loads(json.dumps(asdict(recipe.parts[card_file.stem].train)))
            assert card.get("accuracy_test") or card["miou_test"]
            assert card["command"].startswith("adaptbench train")


def test_policies_were_fitted_on_the_split_that_ships() -> None:
    sha = load_data("digits").split("calibration").sha256
    cards = sorted((SHIPPED / "digits").glob("*.policy.json"))
    assert cards
    for card_file in cards:
        assert json.loads(card_file.read_text(encoding="utf-8"))["fitted_on_sha256"] == sha


def test_wrong_names_and_missing_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'skipnet'"):
        load_system("skipnets")
    with pytest.raises(UnknownNameError, match="no nets for data 'svhn'"):
        load_system("static", "svhn")
    with pytest.raises(CheckpointError, match="no zoo folder"):
        load_system("static", "digits", zoo=tmp_path / "nowhere")


def own_zoo(folder: Path, *files: str, data: str = "digits") -> Path:
    """A zoo with some of the shipped files, under another card."""
    (folder / data).mkdir(parents=True)
    for file in files:
        for ending in (".safetensors", ".json"):
            shutil.copy(SHIPPED / data / f"{file}{ending}", folder / data)
        card = folder / data / f"{file}.json"
        card.write_text(json.dumps(json.loads(card.read_text(encoding="utf-8")) | {"of": "mine"}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("by", ["option", "environment"])
def test_your_own_checkpoints_come_first_and_the_shipped_ones_after(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--zoo` hid the shipped weights, ADAPTBENCH_ZOO did not."""
    zoo = own_zoo(tmp_path / "zoo", "skipnet")
    given = zoo if by == "option" else None
    if by == "environment":
        monkeypatch.setenv("ADAPTBENCH_ZOO", str(zoo))
    assert load_system("skipnet", "digits", zoo=given).card["weights"]["skipnet"]["of"] == "mine"
    assert "of" not in load_system("softmax-threshold", "digits", zoo=given).card["weights"]["multi-exit"]
    assert {"skipnet", "softmax-threshold"} <= set(available("digits", zoo=given))


def test_the_folder_given_comes_before_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, named = own_zoo(tmp_path / "given", "skipnet"), own_zoo(tmp_path / "named", "skipnet", "ladder")
    card = named / "digits" / "skipnet.json"
    card.write_text(card.read_text(encoding="utf-8").replace("mine", "another"), encoding="utf-8")
    monkeypatch.setenv("ADAPTBENCH_ZOO", str(named))
    assert load_system("skipnet", "digits", zoo=given).card["weights"]["skipnet"]["of"] == "mine"
    assert load_system("static", "digits", zoo=given).card["weights"]["ladder"]["of"] == "mine"


def test_a_shipped_policy_or_head_is_not_put_onto_your_weights(tmp_path: Path) -> None:
    zoo = own_zoo(tmp_path / "weights", "multi-exit")
    with pytest.raises(CheckpointError, match="belongs to the weights beside it"):
        load_system("softmax-threshold", "digits", zoo=zoo)
    host = own_zoo(tmp_path / "host", "resnet56", data="cifar10")
    with pytest.raises(CheckpointError, match="belongs to the weights beside it"):
        load_system("sdn", "cifar10", zoo=host)
    both = own_zoo(tmp_path / "both", "multi-exit", "softmax-threshold.policy")
    assert load_system("softmax-threshold", "digits", zoo=both).card["weights"]["multi-exit"]["of"] == "mine"
    policy = own_zoo(tmp_path / "policy", "softmax-threshold.policy")
    assert load_system("softmax-threshold", "digits", zoo=policy).model.policy_name == "softmax-threshold"


@pytest.mark.slow
@pytest.mark.slow
def test_training_a_system_ends_in_a_zoo_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, shortened: weights, policy, cards; the same seed gives the same bytes."""
    short = replace(
        small_recipe(PHASE, PHASE, replace(PHASE, lr=0.01), PHASE, eps=0.05, tokens=TokenHalting((PHASE, PHASE))),
        prices=(0.1,),
    )
    monkeypatch.setitem(RECIPES, "digits", {"short": short})
    digits = load_data("digits")
    hashes = []
    for place in (tmp_path / "a", tmp_path / "b"):
        for name in ("softmax-threshold", "learned-cascade", "skipnet"):
            train_system(name, digits, place)
        hashes.append(
            [json.loads(f.read_text(encoding="utf-8"))["sha256"] for f in sorted((place / "digits").glob("*.json"))]
        )
        for name in ("softmax-threshold", "learned-cascade", "skipnet"):
            model = load_system(name, "digits", zoo=place).model
            assert model.infer(torch.rand(2, 1, 8, 8)).logits.shape == (2, 10)
    assert hashes[0] == hashes[1]


def build_plain(data: str) -> ab.DecisionGraph:
    """A plug-in's factory."""
    return ab.Static(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), input_shape=(1, 8, 8))


def build_nonsense(data: str) -> str:
    """A plug-in's factory that gives something else."""
    return data


def test_a_plug_in_is_a_function_of_the_data_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptbench.registry import Registry

    table = Registry("model", "models", {n: (f"{__name__}:build_{n}", n) for n in ("plain", "nonsense")})
    monkeypatch.setattr("adaptbench.zoo.loading.MODELS", table)
    assert load_system("plain", "digits").model.macs_full == 640
    with pytest.raises(UsageError, match="returned str"):
        load_system("nonsense", "digits")
