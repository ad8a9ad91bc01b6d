"""Who computed a run's cells stands on its page, and among the methods where it was not the run's own process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adaptbench.report.method import method
from adaptbench.report.page import run_page
from adaptbench.report.reproduce import made_by, run_facts
from adaptbench.report.study_page import study_page
from adaptbench.report.view import View
from adaptbench.results.studies import StudyRun

RAY = {"cells": ["a", "b", "c"], "devices": {"Epyc 7": 2, "Xeon 6": 1}}
LOCAL = {"cells": ["d"], "devices": {"": 1}}
STUDY = Path(__file__).parents[2] / "reports" / "published" / "replicate-dag-selection.json"


def test_cells_are_counted_by_engine_and_device():
    said = made_by({"ray": RAY, "local": LOCAL})
    assert said == "workers of a Ray cluster: 3 cells on Epyc 7 (2) and Xeon 6 (1); the run’s own process: 1 cell"
    assert made_by({"mine": {"cells": [], "devices": {}}}) == "mine: 0 cells", "a plug-in's engine is told by its name"
    assert made_by({}) == ""


@pytest.mark.parametrize(("engines", "shown"), [({"ray": RAY, "local": LOCAL}, True), ({"local": LOCAL}, False)])
def test_a_page_says_who_computed_its_cells(bench_run, engines, shown):
    told = replace(bench_run, manifest={**bench_run.manifest, "engines": engines})
    facts = dict(run_facts(View(told)))
    assert facts["computed by"] == made_by(engines)
    assert ("Computing" in dict(method(View(told)))) == shown, "an ordinary run needs no words on it"
    page = run_page(told)
    assert made_by(engines) in page.replace("&#39;", "'")
    assert ("timed by the run’s own process" in page) == shown


def test_a_run_from_before_engines_were_recorded_says_nothing(bench_run):
    told = replace(bench_run, manifest={key: value for key, value in bench_run.manifest.items() if key != "engines"})
    assert "computed by" not in dict(run_facts(View(told)))


def test_a_study_says_it_too():
    record = StudyRun.read(STUDY)
    assert made_by({"ray": RAY}) in study_page({**record, "engines": {"ray": RAY}})
    assert "Ray cluster" not in study_page(record)
