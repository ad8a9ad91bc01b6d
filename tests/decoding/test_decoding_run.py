"""A suite of kind decoding: its directory, its figures by hand, its gate, its page, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from small_decoding import PHASE, SMALL
from typer.testing import CliRunner

import adaptbench as ab
from adaptbench.cli import app
from adaptbench.commands import training
from adaptbench.data import load_data
from adaptbench.decoding.characters import END, OTHER, decode, encode
from adaptbench.decoding.loading import load_character_lm
from adaptbench.decoding.runner import run_decoding
from adaptbench.decoding.spec import load_decoding
from adaptbench.decoding.training import train
from adaptbench.errors import CheckpointError, DomainError, SuiteError, UsageError
from adaptbench.report.decoding_page import decoding_page
from adaptbench.results.decoding import DecodingRun
from adaptbench.results.gate_decoding import DecodingSide


def by_case(record: dict) -> dict:
    return {row["case"]: row for row in record["decoders"]}


def test_figures_are_those_of_the_steps(run: DecodingRun) -> None:
    """Three figures anew, from the rows alone."""
    steps, rows = run.steps(), by_case(run.record)
    sums = steps.groupby("case")[["macs", "tokens", "drafted", "accepted"]].sum()
    per_token = sums["macs"] / sums["tokens"]
    for case, row in rows.items():
        assert row["macs_per_token"] == pytest.approx(per_token[case])
        assert row["saving_macs"] == pytest.approx(1 - per_token[case] / per_token["greedy"])
        assert row["exits_taken"] == [int(((steps["case"] == case) & (steps["exit"] == k + 1)).sum()) for k in range(3)]
    guessing = rows["self-speculative 1 3"]
    of = sums.loc["self-speculative 1 3"]
    assert guessing["acceptance"] == pytest.approx(of["accepted"] / of["drafted"])
    sequences = pd.DataFrame(run.record["sequences"])
    assert sequences.groupby("case")["macs"].sum().to_dict() == sums["macs"].to_dict()


def test_guessing_gives_greedy_answers_and_modelled_joules_stay_apart(run: DecodingRun) -> None:
    rows = by_case(run.record)
    assert rows["self-speculative 1 3"]["identical"] == 1
    assert rows["self-speculative 1 3"]["saving_macs"] <= 0
    for row in rows.values():
        assert row["latency_s_per_token"] > 0
        assert row["modelled_energy_j_per_token"] > 0
        assert row["energy_j_per_token"] is None
        assert row["energy_j_per_token_missing"]
    assert rows["greedy"]["speedup"] == 1
    assert run.record["prefill_s_per_token"] > 0


def test_attacks_are_rows_of_their_own(run: DecodingRun) -> None:
    depth, length = run.record["attacks"]
    assert (depth["case"], length["case"]) == ("calm 0.3/depth", "greedy/length")
    assert depth["tokens_clean"] == depth["tokens_attacked"] == 8
    assert length["layers_clean"] == length["layers_attacked"] == 3
    assert length["saving_taken_back"] is None
    assert length["saving_taken_back_missing"]
    for row in (depth, length):
        assert row["attacked"] >= row["clean"]
        assert row["edits_mean"] <= row["edits"] == 2
        assert row["increase"] == pytest.approx(row["attacked"] / row["clean"] - 1)


def test_a_finished_run_is_left_alone_and_a_lost_file_is_made_again(
    run: DecodingRun, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(run.path, tmp_path / "copy")
    options = {"out": tmp_path / "copy", "data_root": place / "data", "zoo": place / "zoo"}
    kept = run_decoding(str(place / "small.yaml"), **options)
    assert kept.manifest["id"] == run.manifest["id"]
    (tmp_path / "copy" / "steps.parquet").unlink()
    again = run_decoding(str(place / "small.yaml"), **options)
    assert again.manifest["id"] != run.manifest["id"]
    counted = ["case", "prompt_id", "step", "tokens", "exit", "macs"]
    pd.testing.assert_frame_equal(again.steps()[counted], run.steps()[counted])


def test_the_gate_lets_equals_pass_and_finds_what_is_planted(run: DecodingRun, tmp_path: Path) -> None:
    found = list(DecodingSide(run.path, run.record).planted_faults())
    assert [caught for fault, caught, _ in found if fault != "twice the bits a character"] == [True] * 4
    other = copy.deepcopy(run.record) | {"id": "another"}
    assert ab.check(DecodingSide(run.path, other), run).exit_code == 0
    dearer = copy.deepcopy(other)
    dearer["decoders"][1]["macs_per_token"] *= 1.02
    report = DecodingSide.compare(DecodingSide(run.path, dearer), run)
    assert report.exit_code == 1
    assert [row.case for row in report.rows if row.verdict == "regression"] == ["calm 0.3"]
    assert DecodingSide.compare(run, run.path).exit_code == 3  # one run, on both sides
    kept = DecodingRun.keep(run.path, tmp_path / "kept.json")
    assert DecodingRun.read(kept)["decoders"][0]["case"] == "greedy"


def test_the_page_says_what_the_record_says(run: DecodingRun) -> None:
    page = decoding_page(run.record)
    assert page == decoding_page(run.record)
    assert "Self-speculation gives the greedy answers, every one of them." in page
    assert "Depth under attack" in page
    assert "Length under attack" in page
    assert "joules modelled, in a column of their own" in page


def test_the_page_of_the_docs_tells_the_rows_of_a_run(run: DecodingRun) -> None:
    """The script that writes docs/decoding.md, on this run: three of its figures from the steps."""
    place = Path(__file__).parents[2] / "docs" / "decoding_page.py"
    spec = importlib.util.spec_from_file_location("decoding_page", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.page(f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n", run.record)
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    sums = run.steps().groupby("case")[["macs", "tokens", "drafted", "accepted"]].sum()
    per_token = sums["macs"] / sums["tokens"]
    assert f"| `greedy` | {per_token['greedy'] / 1e3:.1f} [" in text
    assert f"| {100 * (1 - per_token['calm 0.3'] / per_token['greedy']):.1f} %".replace("-", "−") in text
    guesses = sums.loc["self-speculative 1 3"]
    assert f"| {guesses['accepted']} of {guesses['drafted']} | 100 % |" in text
    assert module.page(text, run.record) == text


def test_the_command_line_runs_it_and_prints_two_tables_of_attacks(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    shutil.copy(place / "small.yaml", tmp_path)
    words = ["run", "small.yaml", "--data-root", str(place / "data"), "--zoo", str(place / "zoo")]
    dry = CliRunner().invoke(app, [*words, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "attack length" in dry.output
    done = CliRunner().invoke(app, [*words, "--limit", "2", "-o", "measure=null"])
    assert done.exit_code == 0, done.output
    assert "depth attacked" in done.output
    assert "length attacked" in done.output
    assert (tmp_path / "reports" / "small.html").is_file()
    checked = CliRunner().invoke(app, ["check", "runs/small", "--selftest"])
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("decoders=[{calm: {threshold: 0.5}}]", "the first decoder is calm"),
        ("decoders=[greedy, {calm: {exit: 2}}]", "calm has no setting exit"),
        ("decoders=[greedy, {calm: {threshold: 2}}]", "less than or equal to 1"),
        ("decoders=[greedy, beam]", "decoders are"),
        ("decoders=[greedy, greedy]", "stands twice"),
        ("attacks.decoder=calmer", "no decoder is called 'calmer'"),
        ("prompts.stop=null", "nothing ends an answer"),
        ("prompts.stop=é", "no printable character"),
        ("gate={macs_mean: exact}", "no metric is called 'macs_mean'"),
        ("gate={acceptance: {drop: 1 points, cases: [greedyy]}}", "'greedyy'"),
    ],
)
def test_mistakes_in_the_file_are_told_with_their_place(place: Path, words: str, says: str) -> None:
    with pytest.raises(SuiteError, match=says):
        load_decoding(str(place / "small.yaml"), [words])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("decoders=[greedy, {self-speculative: {exit: 3}}]", "of 3 layers"),
        ("prompts.new_chars=64", "prompt and answer come to"),
        ("prompts.count=400", "test texts of 'ag-news'"),
    ],
)
def test_what_the_model_or_the_data_cannot_give(place: Path, words: str, says: str) -> None:
    options = {"data_root": place / "data", "zoo": place / "zoo", "overrides": [words, "attacks=null", "gate={}"]}
    with pytest.raises(SuiteError, match=says):
        run_decoding(str(place / "small.yaml"), out=place / "refused", **options)


def test_weights_that_are_not_there_and_data_without_text(place: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights of the character model"):
        run_decoding(
            str(place / "small.yaml"), out=place / "refused", data_root=place / "data", overrides=["weights=nosuch"]
        )
    with pytest.raises(DomainError, match="holds no texts"):
        train(load_data("digits"), place / "zoo")


def test_training_goes_on_as_if_nothing_had_happened(place: Path, tmp_path: Path) -> None:
    """Killed after an epoch, it ends with the weights of the undisturbed one."""
    data = load_data("ag-news", root=place / "data")

    def kill(_: str, record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, phase=PHASE, size=SMALL, on_epoch=kill)
    file, _ = train(data, tmp_path, phase=PHASE, size=SMALL)
    assert file.read_bytes() == (place / "zoo" / "ag-news" / file.name).read_bytes()


@pytest.mark.parametrize(("recipe", "strategy"), [("full", None), ("short", "uniform")])
def test_the_command_that_trains_it_has_one_recipe(tmp_path: Path, recipe: str, strategy: str | None) -> None:
    with pytest.raises(UsageError, match="was given to 'character-lm', which has one recipe"):
        training.train(
            "character-lm",
            "ag-news",
            tmp_path,
            seed=None,
            recipe=recipe,
            strategy=strategy,
            options=[],
            device="cpu",
            data_root=None,
            download=False,
        )


def test_the_shipped_weights_are_read_and_their_card_is_theirs() -> None:
    net, card = load_character_lm()
    assert sum(p.numel() for p in net.parameters()) == card["parameters"] == 1_203_584
    bits = card["bits_per_character_test"]
    assert bits == sorted(bits, reverse=True)
    text = "Oil prices fell on Friday after the government said that exports would"
    ids = torch.tensor([[END, *encode(text)]])
    with torch.inference_mode():
        logits = net(ids[:, :-1])[0, -1]
    seen = F.cross_entropy(logits, ids[0, 1:]).item() / 0.6931
    assert seen < 3.0, "no better than counts of pairs"


def test_characters_go_there_and_back() -> None:
    assert decode(encode("Oil & gas ~")) == "Oil & gas ~"
    assert encode("é\n") == [OTHER, OTHER]
    assert decode([END]) == "⏎"
