"""What the documents claim: figures come from the committed summary, examples run, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parent.parent


def _script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_figures_are_those_of_the_committed_runs() -> None:
    module = _script("readme_figures")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    document, attacked = (json.loads(place.read_text(encoding="utf-8")) for place in (module.SOURCE, module.ATTACKED))
    assert module.readme(text, document, attacked) == text, "run python docs/readme_figures.py"
    results = module.RESULTS.read_text(encoding="utf-8")
    assert module.results(results, document) == results, "run python docs/readme_figures.py"
    plain = next(c for c in document["cases"] if (c["model"], c["condition"]) == ("static", "clean"))
    (row,) = (line for line in text.splitlines() if line.startswith("| softmax-threshold |"))
    clean = next(c for c in document["cases"] if (c["model"], c["condition"]) == ("softmax-threshold", "clean"))
    assert row.split("|")[3].strip() == f"{100 * clean['macs_mean'] / plain['macs_mean']:.1f} %"


def test_the_replication_page_is_that_of_the_committed_studies() -> None:
    module = _script("replication_page")
    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "run python docs/replication_page.py"


def test_a_gated_net_is_set_against_the_plain_one() -> None:
    """The section on gates, fed with the committed summary of another suite that has a gated net."""
    from adaptbench.results.baseline import Baseline

    kept = Baseline.load(ROOT / "reports" / "published" / "fashion-mnist.json")
    lines = _script("replication_page").gated(kept, "fashion-mnist.json")
    (row,) = (line for line in lines if line.startswith("| **skipnet** |"))
    assert "| 91.73 | 0.4" in row, row
    assert sum(line.startswith("| skipnet | ") for line in lines) == 3, "one row a batch size"


def test_the_page_of_fields_is_that_of_the_tables() -> None:
    module = _script("fields_page")
    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "run python docs/fields_page.py"


def test_the_page_of_threat_models_has_every_recipe_as_it_is() -> None:
    module = _script("threat_models_page")
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page(text) == text, "run python docs/threat_models_page.py"
    for place in (ROOT / "attacks").glob("*.yaml"):
        assert text.partition(module.BEGIN)[2].count(f"| `{place.stem}` |") == 1, place.stem


@pytest.mark.slow
def test_the_page_of_the_black_box_is_that_of_the_committed_runs() -> None:
    module = _script("black_box_page")
    runs, text = module.read(), module.PAGE.read_text(encoding="utf-8")
    assert module.page(text, runs) == text, "run python docs/black_box_page.py"
    assert all(kept.manifest["git"]["dirty"] is False for kept in runs)
    first, *others = ({key: kept.manifest[key] for key in ("data", "seeds")} for kept in runs)
    assert all(other == first for other in others), "the curves are of other pictures"
    curves = module.curves_of(runs)
    asked = {c.name: [p.queries for p in c.points] for c in curves}
    assert asked["black-box"] == asked["black-box-2"] == asked["best-of-n"] == [10, 50, 100, 200, 500, 1000]
    assert all(len(p.by_seed) == 3 for c in curves for p in c.points)
    clock, shares = runs[-1], []
    for seed in clock.manifest["seeds"]:
        ways = {c["condition"]: c for c in clock.cases if c["seed"] == seed and c["kind"] != "reference"}
        clean, metered = (clock.samples(ways[which]["evaluation"]).macs for which in ("clean", "black-box-seconds"))
        dearest = ways["black-box-seconds"]["macs_max"]
        shares.append((metered.mean() - clean.mean()) / (dearest - clean.mean()))
    by_seed = ", ".join(f"{share:.3f}" for share in shares)
    assert f"| `black-box-seconds` | {by_seed} | {sum(shares) / 3:.3f} [" in text


def test_the_figures_of_the_text_page_are_those_of_the_committed_runs() -> None:
    from adaptbench.results.baseline import Baseline

    module = _script("text_page")
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page(text) == text, "run python docs/text_page.py"
    for name in module.WIDE.values():
        wide = json.loads((module.PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))["manifest"]
        assert wide["git"]["dirty"] is False
        settings = {told["settings"]["tries"] for told in wide["conditions"].values() if "tries" in told["settings"]}
        assert settings == {60}, "searches are not as wide as the recipes' own"
    for name in module.AGAIN.values():
        again = Baseline.load(module.PUBLISHED / f"{name}.json")
        assert again.manifest["git"]["dirty"] is False
        spent = {case["condition"]: again.samples(case["evaluation"]) for case in again.cases}
        for case in again.cases:
            before, after = spent["clean"].macs[: case["n"]].mean(), spent[case["condition"]].macs.mean()
            if case["kind"] != "clean":
                assert case["recovery"] == pytest.approx((after - before) / (case["macs_max"] - before), abs=1e-9)
                assert f"| {100 * case['recovery']:.0f} % [" in text
    there = [name for name in module.PADDING.values() if (module.PUBLISHED / f"{name}.json").exists()]
    assert there, "no run says what texts cost without padding"
    for name in there:
        kept = json.loads((module.PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
        assert kept["manifest"]["git"]["dirty"] is False
        for case in kept["cases"]:
            assert case["n"] in (2693, 7600), "some test texts were left out"
            assert case["macs_unpadded_mean"] < case["macs_mean"]
            assert f"| {case['macs_unpadded_mean'] / 1e6:.1f} M [" in text
    for _, name, chance in module.SETS:
        kept = Baseline.load(module.PUBLISHED / f"{name}.json")
        assert kept.manifest["git"]["dirty"] is False
        assert Baseline.load(module.PUBLISHED / f"{chance}.json").manifest["git"]["dirty"] is False
        case = next(c for c in kept.cases if c["condition"] == "words-black-box")
        clean = kept.samples(next(c["evaluation"] for c in kept.cases if c["condition"] == "clean"))
        rows = kept.samples(case["evaluation"])
        taken = (rows.macs.mean() - clean.macs.mean()) / (case["macs_max"] - clean.macs.mean())
        assert f"| {case['n']} | {100 * module.edited(case):.1f} % | {100 * taken:.0f} % [" in text


def test_the_page_of_performance_is_that_of_the_committed_run() -> None:
    module = _script("performance_page")
    found, text = json.loads(module.SOURCE.read_text(encoding="utf-8")), module.PAGE.read_text(encoding="utf-8")
    short = module.read(module.HALF)
    assert module.page(text, found, short) == text, "run python docs/performance_page.py"
    for system, parts in short["systems"].items():
        assert f"| {system} | " in text
        if "steps" in parts:
            assert f"{parts['steps']['pgd ÷ bf16']['cpu']:.2f} (" in text, "the page has lost the aim of bf16"
    queues = _script("block_queues_page")
    kept = json.loads(queues.SOURCE.read_text(encoding="utf-8"))
    assert queues.page(text, kept) == text, "run python docs/block_queues_page.py"
    assert f"{kept['systems']['digits/skipnet']['8']['queues ÷ compacted']['cpu']:.2f} (" in text
    waits = _script("host_syncs_page")
    counted = json.loads(waits.SOURCE.read_text(encoding="utf-8"))
    assert waits.page(text, counted) == text, "run python docs/host_syncs_page.py"
    by_name = counted["systems"]["digits/skipnet"]["sizes"]["32"]["modes"]["compacted"]["by_name"]
    assert f"| digits/skipnet | 9 | 32 | {sum(by_name.values()):.1f} | " in text
    both = _script("fast_slow_page")
    found_by = both.read()
    assert both.page(text, found_by) == text, "run python docs/fast_slow_page.py"
    for title, row in (found_by or {"cases": {}})["cases"].items():
        assert f"| {title.split()[0]} | {row['attack']} at {row['settings']['eps']}, " in text
    compiled = _script("compiled_nodes_page")
    kept = json.loads(compiled.SOURCE.read_text(encoding="utf-8"))
    assert compiled.page(text, kept) == text, "run python docs/compiled_nodes_page.py"
    for name, row in kept["cells"].items():
        assert f"| {name.rpartition('/')[0]} | {name.rpartition('/')[2]} | {row['macs']:.2f} | " in text
    attack = found["systems"]["digits/softmax-threshold"]["attack"]
    told = f"{attack['bare ÷ ours']['cpu']:.2f}"
    assert f"| bare loop | {told} (" in text, "the page has lost the row of the bare loop"


def test_the_zoo_page_is_that_of_the_shipped_cards() -> None:
    module = _script("zoo_page")
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page() == text, "run python docs/zoo_page.py"
    assert "| `character-lm` | 1 203 584 | " in text


def test_the_zoo_page_counts_what_tokens_cost_in_pairs() -> None:
    """A part's MACs were those of its nodes alone: 25.4 M where docs/tokens.md has 28.5."""
    from adaptbench import load_model

    for data in ("cifar10", "fashion-mnist", "digits"):
        card = json.loads((ROOT / f"adaptbench/zoo/shipped/{data}/a-vit.json").read_text(encoding="utf-8"))
        assert sum(card["node_macs"]) + card["pair_macs"] == load_model("a-vit", data).max_macs
        told = f"| `a-vit` | {(sum(card['node_macs']) + card['pair_macs']) / 1e6:.1f} M |"
        assert told in (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}"


def test_the_own_model_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its Python, one block after another, in an empty directory; what is printed is looked at."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    text = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown: list[object] = []
    names: dict[str, object] = {"print": shown.append, "__name__": "own_model"}
    for block in blocks:
        exec(compile(block, "own-model.md", "exec"), names)
    table, clean, attacked = shown
    assert [e.name for e in table.exits] == ["exit1", "exit2"]
    assert 0 < float(clean) <= float(attacked)


def test_the_text_page_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "text.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(compile(block.group(1), "text.md", "exec"), names)
    padded, bare = names["padded"], names["bare"]
    assert padded.path.tolist() == bare.path.tolist()
    assert (bare.macs < padded.macs).all()


def test_every_recipe_names_its_purpose() -> None:
    from adaptbench.attacks import list_attacks

    assert all(listed.title for listed in list_attacks())


def test_the_stateful_page_runs() -> None:
    text = (ROOT / "docs" / "stateful-policies.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    names: dict[str, object] = {}
    exec(compile(block.group(1), "stateful-policies.md", "exec"), names)
    assert len(names["records"]) == 5


@pytest.mark.parametrize("place", sorted((ROOT / "reports").glob("*/*.json")), ids=lambda place: place.name)
def test_a_committed_summary_names_no_place_of_the_machine_that_made_it(place: Path) -> None:
    document = json.loads(place.read_text(encoding="utf-8"))
    command = document.get("manifest", document)["command"]
    assert command.startswith("adaptbench run "), command
    assert not re.search(r"(^|[ =])/", command), command


def test_the_serving_page_is_that_of_the_committed_run() -> None:
    from adaptbench.results.serving import ServingRun

    module = _script("serving_page")
    record, text = ServingRun.read(module.SOURCE), module.PAGE.read_text(encoding="utf-8")
    assert module.page(text, record) == text, "run python docs/serving_page.py"
    assert record["git"]["dirty"] is False
    assert {row["clock"] for row in record["checks"]} == {"cpu", "wall"}
    rows = {(r["model"], r["arrivals"], r["mode"], r["share"], r["defence"]): r for r in record["streams"]}
    worst = rows["softmax-threshold", "poisson", "batches", 0.5, "none"]
    assert f"| {worst['simulated_benign_p99_ratio']:.2f} × |" in text
    apart = [abs(r["simulated_mean_s"] / r["measured_mean_s"] - 1) for r in record["checks"]]
    assert all((a <= 0.1) or r["reason"] for a, r in zip(apart, record["checks"], strict=True))


def test_the_decoding_page_is_that_of_the_committed_run() -> None:
    """Three figures anew from the sequences of the committed record."""
    from adaptbench.results.decoding import DecodingRun

    module = _script("decoding_page")
    record, text = DecodingRun.read(module.SOURCE), module.PAGE.read_text(encoding="utf-8")
    assert module.page(text, record) == text, "run python docs/decoding_page.py"
    assert record["git"]["dirty"] is False
    sums = pd.DataFrame(record["sequences"]).groupby("case")[["macs", "new_tokens", "drafted", "accepted"]].sum()
    per_token = sums["macs"] / sums["new_tokens"]
    saved = 100 * (1 - per_token["calm 0.6"] / per_token["greedy"])
    assert f"| `greedy` | {per_token['greedy'] / 1e3:.1f} [" in text
    assert f"| {saved:.1f} % [" in text
    guesses = sums.loc["self-speculative 2 3"]
    assert f"| {guesses['accepted']} of {guesses['drafted']} | 100 % |" in text
    greedy = {row["prompt_id"]: row["text"] for row in record["sequences"] if row["case"] == "greedy"}
    assert all(
        row["text"] == greedy[row["prompt_id"]] or row["ties"]
        for row in record["sequences"]
        if row["case"].startswith("self-speculative")
    )


def test_the_page_of_scale_is_that_of_the_committed_run() -> None:
    module = _script("scale_page")
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page(text) == text, "run python docs/scale_page.py"
    found = json.loads(module.SOURCE.read_text(encoding="utf-8"))
    assert found["git"]["dirty"] is False
    assert module.standard_steps() == 400
    days = 50_000 * 400 * found["steps"]["step_cpu_s"] / 86_400
    assert f"| {days:.0f} days | " in text
    store = found["store"]["large"]
    rate = store["records"] / (store["commit_cpu_s"] + store["finish_cpu_s"]) / 1e6
    assert f"| records a second into the store | {rate:.2f} M |" in text, "of CPU"


def test_what_is_published_was_made_by_a_commit_as_it_is() -> None:
    places = [*(ROOT / "reports" / "published").glob("*.json"), *(ROOT / "benchmarks").glob("*.json")]
    for place in places:
        document = json.loads(place.read_text(encoding="utf-8"))
        for part in (document, document.get("manifest") or {}):
            dirty = (part.get("git") or {}).get("dirty") or part.get("dirty")
            assert not dirty, f"{place.name}: its code is in no commit, so nobody can repeat it"


def test_a_benchmark_goes_on_only_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    kept = importlib.import_module("kept")
    place, heading = tmp_path / "a.json", kept.heading(blocks=2, cells={})
    first = kept.begun(place, heading)
    first["cells"]["one"] = 1
    kept.keep(first, place, "one", 1)
    later = kept.heading(blocks=2, cells={}) | {"date": "2030-01-01", "commit": "another", "dirty": True}
    assert kept.begun(place, later)["cells"] == {"one": 1}
    assert kept.begun(place, later)["commit"] == heading["commit"]
    for name, other in (("code", "0"), ("blocks", 3), ("device", {"name": "another"})):
        with pytest.raises(SystemExit, match=rf"a\.json holds parts with another {name}"):
            kept.begun(place, later | {name: other})
