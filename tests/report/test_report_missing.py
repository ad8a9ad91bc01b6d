"""Runs that lack something: the page says so, and stands."""

import json

import pytest
from synthetic_run import MODELS

from adaptbench.report.page import SECTIONS, run_page
from adaptbench.results.schema import ESTIMATED, FIELDS, FIGURES
from adaptbench.results.store import Run
from adaptbench.results.writer import seal

KEPT = {name for name, field in FIELDS.items() if field.required or field.form in ("text", "map", "list")}


def whole(page):
    assert [attrs["id"] for attrs in page.all("section")] == list(SECTIONS)
    for word in ("nan", "NaN", "None", "null"):
        assert word not in page.reading.split()
    return page.reading


def rewrite(run, change):
    """Put changed records into the summary of a run and open it again."""
    records = [change(dict(record)) for record in run.cases]
    (run.path / "summary.json").write_text(json.dumps({"schema": 1, "cases": records}))
    seal(run.path, run.manifest)
    return Run.open(run.path)


def test_without_an_attack(small_run, page_of):
    text = whole(page_of(small_run(conditions=("clean",))))
    assert "Nothing is said about attackers" in text
    assert "This run holds no attack and no control." in text
    assert "There are no crafted inputs to show." in text


def test_without_a_clean_case(small_run, page_of):
    text = whole(page_of(small_run(conditions=("ilfo",), sweep=0, references=False)))
    assert "no saving can be stated" in text


def test_without_a_timed_case(small_run, page_of):
    text = whole(page_of(small_run(batches=())))
    assert "Nothing was timed" in text
    assert "No energy was measured or modelled." in text
    assert "evaluated only: this case was not timed" in text


def test_without_sweep_and_references(small_run, page_of):
    assert "there is no curve to draw" in whole(page_of(small_run(sweep=0, references=False)))


def test_without_crafted_inputs(small_run, page_of):
    assert "no crafted inputs were stored" in whole(page_of(small_run(crafted=False)))


def test_with_a_crafted_file_gone(small_run, page_of):
    run = small_run()
    for file in (run.path / "crafted").iterdir():
        file.unlink()
    assert "the file cannot be read" in whole(page_of(run))


def test_with_a_bare_manifest(small_run, page_of):
    bare = {"git": None, "models": {}, "conditions": {}, "meters": {}, "notes": [], "data": {}, "versions": {}}
    bare |= {"device": {}, "suite": {}, "seeds": [], "command": "", "gate": {}}
    text = whole(page_of(small_run(manifest=bare)))
    assert "The manifest describes no model." in text


def test_with_nulls_everywhere(small_run, page_of):
    def empty(record):
        for name in FIGURES:
            if name not in KEPT:
                record[name] = None
                record[f"{name}_missing"] = f"{name} was lost"
        for name in ESTIMATED:
            record.pop(f"{name}_ci", None)
        return record | {"exit_histogram": {}, "crafted": None, "energy_provenance": None}

    text = whole(page_of(rewrite(small_run(models=(MODELS[0], MODELS[4])), empty)))
    assert "accuracy was lost" in text
    assert (
        "0.0 %"
        not in text.split("Does it save? This", 1)[0].split("Limits of this run", 1)[0].partition("model accuracy")[2]
    )


def test_without_intervals(small_run, page_of):
    def bare(record):
        return {name: None if name.endswith("_ci") else value for name, value in record.items()}

    whole(page_of(rewrite(small_run(), bare)))


@pytest.mark.parametrize("amount", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_few_and_many_models(small_run, page_of, amount):
    from dataclasses import replace

    models = tuple(
        replace(MODELS[place % 5], name=f"model-{place}", title=f"A model with a rather long title, number {place}")
        for place in range(amount)
    )
    page = page_of(small_run(models=models, batches=(16,), sweep=2))
    whole(page)
    assert len(page.text.encode()) < 2_000_000
    assert len(page.all("svg", **{"class": "plot"})) == 2, "one plot, for wide windows and for narrow ones"


def test_two_data_sets_and_two_seeds_are_told_apart(small_run, page_of):
    run = small_run(sweep=0, references=False, batches=(16,))
    records = [dict(record) for record in run.cases]
    for record in run.cases:
        evaluation = record["evaluation"]
        other = evaluation.replace("digits/", "letters/")
        records.append(record | {"case": f"{other}/b16", "evaluation": other, "data": "letters"})
        seeded = f"{evaluation}/s1"
        records.append(record | {"case": seeded, "evaluation": seeded, "seed": 1, "batch_size": None})
    (run.path / "summary.json").write_text(json.dumps({"schema": 1, "cases": records}))
    seal(run.path, run.manifest)
    text = whole(page_of(Run.open(run.path)))
    assert "Softmax threshold · letters" in text
    assert "ILFO 8/255 · seed 1" in text


def test_a_modelled_row_beside_measured_ones_gives_its_reason(small_run):
    run = small_run(measured=True, models=MODELS[:2])

    def mixed(record):
        if record["model"] == MODELS[1].name and record["energy_j_per_sample"]:
            record |= {"energy_provenance": "modelled: a formula", "energy_meter": "modelled"}
        return record

    page = run_page(rewrite(run, mixed))
    assert "energy is modelled, not measured" in page
    assert "energy is measured, not modelled" in page
    assert 'id="fig-energy-measured"' in page
    assert 'id="table-energy-modelled"' in page
