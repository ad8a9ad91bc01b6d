"""Foreign files: whatever stands in them, there is a verdict, a page or one message of ours."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[1]))

from synthetic_run import MODELS, Plan, write_run

from adaptbench.console import study_table
from adaptbench.errors import AdaptBenchError
from adaptbench.report.difference import Difference
from adaptbench.report.page import run_page
from adaptbench.report.study_page import study_page
from adaptbench.results.baseline import write_baseline
from adaptbench.results.files import write_json
from adaptbench.results.gate import compare
from adaptbench.results.gate_format import FORMATS, render
from adaptbench.results.store import MANIFEST, SUMMARY, Run
from adaptbench.results.studies import StudyRun
from adaptbench.results.writer import seal

PUBLISHED = Path(__file__).resolve().parents[2] / "reports" / "published"

GATE = {
    "macs_mean": "exact",
    "recovery": {"increase": "10 points"},
    "latency_s_per_sample": {"increase": "3 %"},
    "energy_j_per_sample": {"increase": "3 %"},
}
LEAVES = st.sampled_from(
    [None, True, -1, 0, 2**62, 1.5, 1e308, "", "x", "\x1b[31m\n", "[/x]", [], {}, [[]], [1], ["x"], {"a": {"b": []}}]
)
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), LEAVES, st.booleans()), min_size=1, max_size=2)
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)


def changed(document, changes):
    """The document with some of its places, at any depth, replaced or dropped."""
    document = copy.deepcopy(document)
    for place, leaf, drop in changes:
        places = list(_places(document))
        if not places:
            break
        holder, key = places[place % len(places)]
        if drop and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = copy.deepcopy(leaf)
    return document


def _places(value):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value[:6]):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


@dataclass(repr=False)
class Room:
    """Short to print: hypothesis shows what a test was given."""

    run: Run
    parts: dict[str, Any]
    kept: dict[str, Any]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A run, what it holds as JSON, and the baseline kept of it."""
    folder = tmp_path_factory.mktemp("foreign")
    plan = Plan(MODELS[:1], ("clean", "noise", "ilfo"), n=12, batches=(8,), sweep=0, references=False, crafted=False)
    run = write_run(folder / "run", plan, gate=GATE)
    kept = json.loads(write_baseline(run, folder / "kept.json").read_text(encoding="utf-8"))
    parts = {"manifest": json.loads((run.path / MANIFEST).read_text(encoding="utf-8")), "cases": run.cases}
    return Room(run, parts, kept)


@settings(STEADY, max_examples=40)
@given(CHANGES)
def test_a_baseline_of_any_content_gives_a_verdict_or_a_message(room, changes):
    run, kept = room.run, room.kept
    file = run.path.parent / "bent.json"
    file.write_text(json.dumps(changed(kept, changes)), encoding="utf-8")
    with contextlib.suppress(AdaptBenchError):
        report = compare(run.path, file)
        assert all(render(report, form) for form in FORMATS)


@settings(STEADY, max_examples=12)
@given(CHANGES, st.booleans())
def test_a_run_of_any_content_gives_pages_or_a_message(room, changes, two):
    run, parts = room.run, room.parts
    bent = changed(parts, changes)
    folder = run.path.parent / "bent"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run.path, folder)
    write_json(folder / SUMMARY, {"schema": 1, "cases": bent.get("cases")})
    with contextlib.suppress(AdaptBenchError):
        seal(folder, bent["manifest"] if isinstance(bent.get("manifest"), dict) else {})
        opened = Run.open(folder)
        assert Difference.of(run, opened).page() if two else run_page(opened)


@pytest.fixture(scope="module")
def spoilt():
    """A kept study with every part that there is, its first graph only; called, a copy with some places changed."""
    kept = json.loads((PUBLISHED / "replicate-softmax-threshold.json").read_text(encoding="utf-8"))
    kept["graphs"] = dict(list(kept["graphs"].items())[:1])
    return lambda changes: changed(kept, changes)


@pytest.mark.slow
@settings(STEADY, max_examples=40)
@given(changes=CHANGES)
def test_a_foreign_study_has_a_page_or_one_message(spoilt, tmp_path, changes):
    place = tmp_path / "study.json"
    place.write_text(json.dumps(spoilt(changes)), encoding="utf-8")
    with contextlib.suppress(AdaptBenchError):
        record = StudyRun.read(place)
        assert "</html>" in study_page(record)
        assert study_table(record)
        assert StudyRun.incomplete(record) is not None
