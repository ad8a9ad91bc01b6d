"""docs/robustness.md says what the committed runs say, and those say what their samples say."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adaptbench.attacks import load_attack
from adaptbench.bench.suite import load_suite

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
WORDS = " ".join(TEXT.split())


def _page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("robustness_page", ROOT / "docs" / "robustness_page.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return _page()


def _read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "reports" / "published" / f"{name}.json").read_text(encoding="utf-8"))


def _alone() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "gates_alone.json").read_text(encoding="utf-8"))


def _macs(packed: dict[str, Any]) -> pd.Series:
    """MACs by sample id, unpacked without the house's code."""
    levels = np.array(packed["macs"]["levels"])
    index = np.frombuffer(base64.b64decode(packed["macs"]["index"]), dtype="<u1" if len(levels) <= 256 else "<u2")
    first = packed["sample_id"]["first"]
    return pd.Series(levels[index], index=range(first, first + packed["sample_id"]["n"]), dtype="float64")


def test_the_page_is_the_runs(module):
    assert module.page(TEXT) == TEXT, "run python docs/robustness_page.py"


def test_a_figure_bent_on_the_page_is_written_anew(module):
    spoilt = TEXT.replace("standard-2 = 3 | 1 000 | 5.", "standard-2 = 3 | 1 000 | 4.", 1)
    assert spoilt != TEXT
    assert module.page(spoilt) == TEXT


@pytest.mark.parametrize(
    "name",
    [
        *_page().AUDITS,
        "amortised",
        "amortised-cifar10",
        "amortised-cifar10-gates",
    ],
)
def test_recoveries_are_those_of_the_kept_samples(name):
    document = _read(name)
    (data,) = document["manifest"]["data"]
    samples, looked_at = document["samples"], 0
    for case in document["cases"]:
        if case["kind"] != "attack":
            continue
        clean = _macs(samples[f"{data}/{case['model']}/clean"])
        attacked = _macs(samples[f"{data}/{case['model']}/{case['condition']}"])
        base = clean[attacked.index].mean()
        assert case["recovery"] == pytest.approx((attacked.mean() - base) / (case["macs_max"] - base), abs=1e-9)
        looked_at += 1
    assert looked_at >= (1 if name.startswith("standard-") else 4)


@pytest.mark.parametrize(
    ("name", "suite", "version"),
    [
        ("audit-fashion-mnist", "audit-fashion-mnist", 1),
        ("audit-fashion-mnist-gates", "audit-fashion-mnist", 2),
        ("audit-cifar10-exits", "audit-cifar10", 1),
        ("audit-cifar10-gates", "audit-cifar10", 1),
        ("audit-cifar10-exact-budget", "audit-cifar10", 3),
        ("standard-2-skipnet-rnn", "audit-cifar10", 2),
        ("standard-2-skipnet-rnn-1000", "audit-cifar10", 2),
        ("standard-2-blockdrop", "audit-cifar10", 2),
        ("standard-3-blockdrop", "audit-cifar10", 3),
        ("ten-times-fashion-mnist", "ten-times-fashion-mnist", 1),
        ("ten-times-fashion-mnist-gates", "ten-times-fashion-mnist", 2),
        ("ten-times-cifar10", "ten-times-cifar10", 2),
        ("ten-times-cifar10-blockdrop", "ten-times-cifar10", 3),
    ],
)
def test_they_are_runs_of_shipped_suites_from_a_clean_revision(name, suite, version):
    manifest, shipped = _read(name)["manifest"], load_suite(suite).suite
    assert manifest["suite"]["name"] == suite
    assert set(manifest["models"]) <= set(shipped.labels)
    assert not manifest["git"]["dirty"]
    standard = manifest["conditions"]["standard"]
    assert standard["summary"].startswith(f"standard-{version},")
    assert len(standard["settings"]["members"]) == {1: 7, 2: 10, 3: 13}[version]
    assert standard["sha256"] == load_attack(f"standard-{version}", {"eps": "8/255"}).sha256


def test_no_picture_of_standard_is_cheaper_than_the_clean_one():
    document = _read("audit-fashion-mnist")
    for model in document["manifest"]["models"]:
        kept = _macs(document["samples"][f"fashion-mnist/{model}/standard"])
        clean = _macs(document["samples"][f"fashion-mnist/{model}/clean"])
        assert (kept >= clean).all()


def test_the_sentences_hold_on_the_kept_samples():
    """Every picture on the dearest way, and where `standard` is not the worst case."""
    exits, gates = _read("audit-cifar10-exits"), _read("audit-cifar10-gates")
    for model in exits["manifest"]["models"]:
        dearest = next(c["macs_max"] for c in exits["cases"] if c["model"] == model)
        attacked = _macs(exits["samples"][f"cifar10/{model}/standard"])
        assert (len(attacked), (attacked == dearest).all()) == (1000, True)
        assert (_macs(exits["samples"][f"cifar10/{model}/standard-kept"]) == dearest).all()
    dearest = next(c["macs_max"] for c in gates["cases"] if c["model"] == "blockdrop")
    clean, ilfo, ours = (_macs(gates["samples"][f"cifar10/blockdrop/{c}"]) for c in ("clean", "ilfo", "standard"))
    clean, ours = clean[ilfo.index], ours[ilfo.index]
    back = [100 * (each.mean() - clean.mean()) / (dearest - clean.mean()) for each in (ilfo, ours)]
    told = f"takes back {back[0]:.1f} % where `standard-1` takes {back[1]:.1f} %, and is dearer on"
    told += f" {(ilfo > ours).sum()}"
    assert told in WORDS
    newer, newest = (_macs(_read(f"standard-{n}-blockdrop")["samples"]["cifar10/blockdrop/standard"]) for n in (2, 3))
    told = f"dearer than `standard-2` on {(ilfo > newer[ilfo.index]).sum()}, than `standard-3` on"
    assert f"{told} {(ilfo > newest[ilfo.index]).sum()}" in WORDS
    more = next(c for c in _read("standard-2-skipnet-rnn-1000")["cases"] if c["condition"] == "standard")
    most = next(c for c in _read("standard-3-blockdrop")["cases"] if c["condition"] == "standard")
    assert (more["n"], most["n"]) == (1000, 1000)
    shares = [100 * case[key] for case in (more, most) for key in ("recovery", "recovery_seen")]
    told = (
        "Of 1 000 pictures each `standard` takes back {:.1f} % of the head-room of CIFAR-10's SkipNet, {:.1f} % up to "
        "the dearest seen, and {:.1f} % of BlockDrop's, {:.1f} % up to the dearest seen."
    )
    assert told.format(*shares) in WORDS
    dearest = _read("standard-3-blockdrop")["manifest"]["models"]["blockdrop"]["max_macs"]
    assert f"all 27 open at once on {(newest == dearest).sum()} of 1 000 pictures" in WORDS


def test_what_is_said_of_shared_patches_and_questions_on_exits_is_the_runs():
    document = _read("audit-cifar10-exits-more")
    models = list(document["manifest"]["models"])
    samples = document["samples"]

    def taken(condition: str) -> list[float]:
        shares = []
        for model in models:
            clean, attacked = (_macs(samples[f"cifar10/{model}/{which}"]) for which in ("clean", condition))
            base, top = clean[attacked.index].mean(), document["manifest"]["models"][model]["max_macs"]
            shares.append(100 * (attacked.mean() - base) / (top - base))
        return shares

    told = (
        "takes back {:.1f} % of the exits' head-room, {:.1f} % of the cascade's and {:.1f} % of the DAG's "
        "(random patches {:.1f}, {:.1f} and {:.1f} %)"
    )
    assert told.format(*taken("universal-patch"), *taken("patch-random")) in WORDS
    told = "{:.1f}, {:.1f} and {:.1f} % where these have {:.1f}, {:.1f} and {:.1f} %"
    assert told.format(*taken("black-box"), *taken("best-of-n")) in WORDS
    exact = {c["condition"]: c for c in _read("audit-cifar10-exact-budget")["cases"]}
    assert "loses it too (100.0 % [99.8, 100.0] of 1 000 pictures)" in WORDS
    assert (exact["standard"]["n"], [round(100 * e, 1) for e in exact["standard"]["recovery_ci"]]) == (
        1000,
        [99.8, 100.0],
    )
    assert f"`ilfo` takes back {100 * exact['ilfo']['recovery']:.1f} % of {exact['ilfo']['n']} pictures" in WORDS


@pytest.mark.parametrize(
    ("model", "before", "after"),
    [
        ("skipnet-rnn", "audit-cifar10-gates", "standard-2-skipnet-rnn"),
        ("blockdrop", "audit-cifar10-gates", "standard-2-blockdrop"),
        ("blockdrop", "standard-2-blockdrop", "standard-3-blockdrop"),
    ],
)
def test_what_a_newer_standard_adds_is_of_the_same_pictures(model, before, after):
    older, newer = _read(before), _read(after)
    clean, first = (_macs(older["samples"][f"cifar10/{model}/{c}"]) for c in ("clean", "standard"))
    second = _macs(newer["samples"][f"cifar10/{model}/standard"])
    both = first.index.intersection(second.index)
    clean, first, second = clean[both], first[both], second[both]
    dearest = newer["manifest"]["models"][model]["max_macs"]
    shares = [100 * (each.mean() - clean.mean()) / (dearest - clean.mean()) for each in (first, second)]
    section = TEXT.split("<!-- pairs: start -->")[1].split("<!-- pairs: end -->")[0]
    (row,) = (
        line
        for line in section.splitlines()
        if f"| {model} | {len(both)} |" in line
        and f": {shares[0]:.1f} % |" in line
        and f": {shares[1]:.1f} % |" in line
    )
    assert row.endswith(f"| {(second > first).sum()} | {(second < first).sum()} |")
    assert f"| {shares[1] - shares[0]:.1f} [" in row


def test_what_ten_times_the_steps_add_on_gates_is_said():
    """From the kept samples: BlockDrop's sixteen, under standard-3 and ten times its steps."""
    document = _read("ten-times-cifar10-blockdrop")
    dearest = document["manifest"]["models"]["blockdrop"]["max_macs"]
    clean, short, long = (
        _macs(document["samples"][f"cifar10/blockdrop/{which}"]) for which in ("clean", "standard", "exhaustive")
    )
    back = [100 * (each.mean() - clean.mean()) / (dearest - clean.mean()) for each in (short, long)]
    told = "ten times the steps take back {1:.1f} % of 16 pictures, where `standard-3` takes {0:.1f} %"
    assert told.format(*back) in WORDS
    before = _read("ten-times-cifar10")
    older = _macs(before["samples"]["cifar10/blockdrop/exhaustive"])
    assert before["manifest"]["models"]["blockdrop"]["card"] == document["manifest"]["models"]["blockdrop"]["card"]
    assert (short.mean() >= older.mean()) == ("standard-3 finds by itself" in WORDS)
    assert ((back[1] - back[0]) <= 1) == ("within the point that was aimed at on BlockDrop" in WORDS)


def test_rows_say_which_standard_they_are_of(module):
    """A figure of standard-1 may stand for its successors on exits, never on gates; one of standard-2 on some gates."""
    section = TEXT.split("<!-- audit-fashion-mnist: start -->")[1].split("<!-- audit-fashion-mnist: end -->")[0]
    by_model = {part.split("**")[0]: part for part in section.split("\n**")[1:]}
    assert "| standard-1 = 2 = 3 |" in by_model["dag-selection"]
    assert "| standard-1-kept = 2-kept |" in by_model["dag-selection"]
    assert "| standard-1 |" in by_model["skipnet"]
    assert "= 2" not in by_model["skipnet"]
    for name, version in (("standard-2-blockdrop", "2"), ("standard-2-skipnet-rnn", "2 = 3")):
        section = TEXT.split(f"<!-- {name}: start -->")[1].split("<!--")[0]
        assert f"| standard-{version} |" in section
    assert "| standard |" not in TEXT


def test_gates_that_were_tried_alone_add_up():
    """From the kept rows: counts, what the attack takes back, and the bound, by hand."""
    document = _alone()
    assert "fashion-mnist/skipnet" in document["systems"]
    for name, found in document["systems"].items():
        clean, dear, alone = (
            np.array([[int(on) for on in row] for row in found[key]], dtype=bool)
            for key in ("open_clean", "open_attacked", "opened_alone")
        )
        assert clean.shape == (found["n"], found["gates"]), name
        assert found["pairs"] == (~(clean | dear)).sum()
        assert not (alone & (clean | dear)).any()
        assert (
            found["pairs_never_opened"]
            == found["pairs"] - alone.sum()
            == found["pairs"] - sum(found["opened_by"].values())
        )
        macs = [
            found["min_macs"] + (on * np.array(found["block_macs"])).sum(1)
            for on in (clean, dear, clean | dear | alone)
        ]
        base, top = macs[0].mean(), found["max_macs"]
        for key, cost in (("recovery", macs[1]), ("recovery_bound", macs[2])):
            assert found[key]["value"] == pytest.approx((cost.mean() - base) / (top - base), abs=1e-9)
        assert (macs[1] >= macs[0]).all()
        assert found["attack"]["sha256"] == load_attack("standard", {"eps": "8/255"}).sha256


def test_on_blockdrop_every_gate_opens_alone():
    found = _alone()["systems"]["cifar10/blockdrop"]
    assert found["pairs_never_opened"] == 0
    told = f"Each of {found['pairs']} gates that stay closed on {found['n']} pictures opens alone, after six steps on"
    assert told in WORDS
    assert round(found["steps_alone"] / found["pairs"]) == 6


def test_two_gates_of_skipnet_are_what_never_opened():
    found = _alone()["systems"]["cifar10/skipnet-rnn"]
    masks = [found[key] for key in ("open_clean", "open_attacked", "opened_alone")]
    shut = [
        gate + 1
        for rows in zip(*masks, strict=True)
        for gate, on in enumerate(zip(*rows, strict=True))
        if "1" not in on
    ]
    two = sum(gate in (5, 8) for gate in shut)
    told = f"of {found['pairs']} that stay closed on {found['n']} pictures, {len(shut)} never open alone, and {two} of "
    assert told in WORDS
    bound, taken = (100 * found[key]["value"] for key in ("recovery_bound", "recovery"))
    assert f"With the rest open {bound:.1f} % would be taken back, where `standard-2` takes {taken:.1f} %" in WORDS
    assert found["recovery_bound"]["high"] < 0.9, "the page says that the aim is beyond it"


def test_the_long_search_reaches_the_bound_of_single_gates_and_once_goes_past_it():
    """What the page says of the two on the pictures that both have seen."""
    long, found = _read("ten-times-fashion-mnist-gates"), _alone()["systems"]["fashion-mnist/skipnet"]
    clean, short, ten = (
        _macs(long["samples"][f"fashion-mnist/skipnet/{c}"])[: found["n"]] for c in ("clean", "standard", "exhaustive")
    )
    rows = [[int(on) for on in row] for row in found["open_attacked"]]
    assert (found["min_macs"] + np.array(rows) @ found["block_macs"] == short).all(), "the same pictures were crafted"
    ever = np.array([
        [int(any(gate)) for gate in zip(*(map(int, mask) for mask in masks), strict=True)]
        for masks in zip(*(found[key] for key in ("open_clean", "open_attacked", "opened_alone")), strict=True)
    ])  # fmt: skip
    bound = found["min_macs"] + ever @ found["block_macs"]
    back = [100 * (each.mean() - clean.mean()) / (found["max_macs"] - clean.mean()) for each in (bound, short, ten)]
    told = (
        "{:.1f} % would be taken back of these pictures; `standard-2` takes {:.1f} %, and ten times its steps {:.1f} %"
    )
    assert told.format(*back) in WORDS
    assert f"on {(ten > bound).sum()} of them it opened a gate that the four searches had not" in WORDS


@pytest.mark.parametrize("name", ["ten-times-fashion-mnist", "ten-times-fashion-mnist-gates"])
def test_ten_times_the_steps_were_taken(name):
    document = _read(name)
    cases = {(c["model"], c["condition"]): c for c in document["cases"]}
    for model in document["manifest"]["models"]:
        short, long = cases[model, "standard"], cases[model, "exhaustive"]
        assert long["recovery"] >= short["recovery"], model
        assert long["craft_details"]["steps_run"] > 5 * short["craft_details"]["steps_run"], model


def test_a_generator_is_held_to_its_aims_on_the_pictures_that_both_have_seen(module):
    for name in module.AMORTISED:
        document = _read(name)
        assert document["manifest"]["git"]["dirty"] is False
        (data,) = document["manifest"]["data"]
        cases = {(c["model"], c["condition"]): c for c in document["cases"]}
        for model, about in document["manifest"]["models"].items():
            clean, search = (_macs(document["samples"][f"{data}/{model}/{which}"]) for which in ("clean", "ilfo"))
            generators = set()
            for which, called in module.QUICK.items():
                if (model, which) not in cases:
                    assert which != "amortised"
                    continue
                made = _macs(document["samples"][f"{data}/{model}/{which}"])
                both = search.index.intersection(made.index)
                back = [(found[both].mean() - clean[both].mean()) for found in (search, made)]
                share = back[1] / back[0]
                row = next(line for line in TEXT.splitlines() if line.startswith(f"| {data} | {model} | {called} |"))
                assert f"| {100 * share:.0f} %".replace("-", "−") in row
                held = share >= 0.8 or not which.startswith("amortised")
                assert (", **missed**" in row.split("|")[7]) == (not held)
                assert back[1] < about["max_macs"]
                if which.startswith("amortised"):
                    generators.add(str(cases[model, which]["craft_details"]["generators"]))
            assert len(generators) == 1, "the steps follow from another generator"
            assert cases[model, "amortised"]["craft_details"]["crafted_on"][0].startswith(f"{data}/calibration")


def _row_of(table: str, *cells: str) -> list[str]:
    """The cells of the one row of a table of the page that has these."""
    inside = TEXT.partition(f"<!-- {table}: start -->")[2].partition(f"<!-- {table}: end -->")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in inside.splitlines()]
    (found,) = (row for row in rows if all(cell in row for cell in cells))
    return found


def test_what_one_looks_for_first_is_in_the_samples():
    """The cited share, the dear end and the share over a budget, by pandas from kept rows."""
    name, model = "standard-3-blockdrop", "blockdrop"
    samples = _read(name)["samples"]
    clean, attacked = (_macs(samples[f"cifar10/{model}/{which}"]) for which in ("clean", "standard"))
    dearest = next(c["macs_max"] for c in _read(name)["cases"] if c["model"] == model)
    share = 100 * (attacked.mean() - clean.mean()) / (dearest - clean.mean())
    assert _row_of("cite", model)[5].startswith(f"{share:.1f} % [")
    row = _row_of("tails", model, "standard-3")
    top = attacked.nlargest(len(attacked) // 20)
    assert row[4:6] == [f"{attacked.quantile(0.99, interpolation='higher') / 1e6:.2f} M", f"{top.mean() / 1e6:.2f} M"]

    exact = "sdn:exact-budget(budget=0.5)"
    document = _read("audit-cifar10-exact-budget")
    budget = next(c["macs_budget"] for c in document["cases"] if c["model"] == exact)
    over = _macs(document["samples"][f"cifar10/{exact}/clean"]) > budget
    assert _row_of("tails", exact, "clean")[6].startswith(f"{100 * over.mean():.1f} % [")


def test_the_verdicts_of_the_page_follow_from_its_figures():
    assert _row_of("aimed", "`standard` takes back ≥ 90 % of cifar10's skipnet-rnn, n = 1 000")[2] == "no"
    assert _row_of("aimed", "ten times the steps add at most 1 point on gates")[2] == "no"
    over = _row_of("aimed", "uniform noise of equal norm takes back ≤ 5 %")[1]
    samples = _read("audit-cifar10-exits")["samples"]
    dearest = next(c["macs_max"] for c in _read("audit-cifar10-exits")["cases"] if c["model"] == "sdn")
    clean, noisy = (_macs(samples[f"cifar10/sdn/{which}"]) for which in ("clean", "noise"))
    assert f"cifar10/sdn {100 * (noisy.mean() - clean.mean()) / (dearest - clean.mean()):.1f} %" in over
    assert "dag-selection" not in over


def test_what_dear_starts_add_is_what_their_pictures_cost():
    """Worked out again from the MACs of single pictures."""
    document = json.loads((ROOT / "benchmarks" / "dear_starts.json").read_text(encoding="utf-8"))
    section = TEXT.partition("<!-- dear: start -->")[2].partition("<!-- dear: end -->")[0]
    added = 0
    for name, found in document["systems"].items():
        clean, before = np.array(found["clean"]), np.array(found["attacked"])
        assert found["below_the_ceiling"] == (before < found["max_macs"]).sum()
        for start, more in found["more"].items():
            after = np.array(more["attacked"])
            assert (after >= before).all(), "what was kept stays"
            assert more["dearer_on"] == (after > before).sum()
            share = (after.mean() - clean.mean()) / (found["max_macs"] - clean.mean())
            assert more["recovery"]["value"] == pytest.approx(share)
            line = f"| {name.replace('/', ' | ')} | {found['n']} | {found['below_the_ceiling']} | "
            assert f"{line}{document['steps']} more steps from {start} | {100 * share:.1f} %" in section
            added += more["dearer_on"]
    assert (added == 0) == ("It adds nothing to either" in WORDS)
    skipnet = document["systems"]["cifar10/skipnet-rnn"]
    dearest, left = max(skipnet["dear_macs"]) / 1e6, np.mean(skipnet["attacked"]) / 1e6
    assert f"costs {dearest:.1f} M MACs there, and the pictures that `standard` left already {left:.1f} M" in WORDS
