"""Committed studies are read as they were written: migrated by code, no figure changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptbench.results.record_runs import lacks
from adaptbench.results.studies import SCHEMA, StudyRun, kind_of
from adaptbench.results.study_reasons import with_reasons
from adaptbench.results.study_schema import fault, parts

PUBLISHED = Path(__file__).resolve().parents[2] / "reports" / "published"
STUDIES = sorted(file for file in PUBLISHED.glob("*.json") if kind_of(file) == "study")


def test_files_say_what_they_are():
    kept = {file.stem: kind_of(file) for file in PUBLISHED.glob("*.json")}
    assert len(STUDIES) >= 4
    assert kept["replicate-gates"] == kept["fashion-mnist"] == "suite", "kept of suites, under the same ending"


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_field_stands_in_the_tables(file):
    record = StudyRun.read(file)
    assert not fault(record)
    beside = ("_ci", "_missing", "_5", "_95")
    for part, fields, place in parts(record):
        if place != "the study":  # the manifest's fields stand there too
            bare = {next((name.removesuffix(end) for end in beside if name.endswith(end)), name) for name in part}
            assert bare <= {name.removesuffix("_5").removesuffix("_95").removesuffix("_missing") for name in fields}, (
                place
            )


def without_reasons(value, written):
    """A part as it was written: without the reasons, nulls beside them, and modes of timings that reading added."""
    if isinstance(value, dict):
        return {
            name: without_reasons(inner, written.get(name) if isinstance(written, dict) else None)
            for name, inner in value.items()
            if name in written or not (name.endswith("_missing") or f"{name}_missing" in value or name == "mode")
        }
    if isinstance(value, list):
        return [without_reasons(inner, before) for inner, before in zip(value, written, strict=True)]
    return value


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_each_null_figure_has_its_reason(file):
    record = StudyRun.read(file)
    null = [
        (name, part[f"{name}_missing"])
        for part, fields, _ in parts(record)
        for name, field in fields.items()
        if field.figure and lacks(part.get(name))
    ]
    assert all(reason for _, reason in null)
    assert {"mixture", "own"} <= {name for name, _ in null}
    assert with_reasons(record) == record


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_figure_is_the_one_that_was_written(file, tmp_path):
    written, whole = json.loads(file.read_text(encoding="utf-8")), StudyRun.read(file)
    assert (whole["schema"], whole["kind"]) == (SCHEMA, "study")
    graphs = {key: without_reasons(whole["graphs"][key], graph) for key, graph in written["graphs"].items()}
    read = whole | {"graphs": graphs}
    for key, graph in written["graphs"].items():
        found = read["graphs"][key]
        assert all(found[name] == value for name, value in graph.items() if name != "policies")
        for name, policy in graph["policies"].items():
            assert {field: found["policies"][name][field] for field in policy} == policy
    assert {name: read[name] for name in written if name not in ("schema", "graphs")} == {
        name: value for name, value in written.items() if name not in ("schema", "graphs")
    }
    again = StudyRun.keep(file, tmp_path / "again.json")
    assert StudyRun.read(again) == whole, "kept once more, nothing is lost"
