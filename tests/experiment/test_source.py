"""Suites and studies are read by one reader: overrides, places, keys."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adaptbench.bench.suite import load_suite
from adaptbench.errors import AdaptBenchError
from adaptbench.study import load_study

sys.path.append(str(Path(__file__).resolve().parents[1]))

from small_study import STUDY

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def load(request, tmp_path):
    """Either reader, on the small file of its kind."""
    if request.param == "suite":
        return lambda *overrides: load_suite(str(TESTS / "bench" / "small.yaml"), overrides)
    (tmp_path / "s.yaml").write_text(STUDY, encoding="utf-8")
    return lambda *overrides: load_study(str(tmp_path / "s.yaml"), overrides)


@pytest.mark.parametrize("load", ["suite", "study"], indirect=True)
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("nonsense", "is not key=value"),
        ("title.x=1", "goes through 'title'"),
        ("measure.blocs=3", "-o measure.blocs=3, measure.blocs: there is no such key. Did you mean 'blocks'"),
        ("measure.blocks=many", "-o measure.blocks=many, measure.blocks:"),
        ("limit=0", "-o limit=0, limit: "),
        ("models=[nosuch]", ""),
    ],
)
def test_a_wrong_override_is_told_by_itself(load, override, said):
    with pytest.raises(AdaptBenchError) as caught:
        load(override)
    assert said in " ".join(str(caught.value).split())


@pytest.mark.parametrize("load", ["suite", "study"], indirect=True)
def test_an_override_changes_the_contents_and_their_hash(load):
    plain, changed = load(), load("measure.blocks=7", "title=another")
    assert changed.overrides == ("measure.blocks=7", "title=another")
    assert changed.sha256 not in (plain.sha256, load("measure.blocks=7").sha256)


def test_a_study_is_no_suite_and_a_suite_no_study(tmp_path):
    (tmp_path / "s.yaml").write_text(STUDY, encoding="utf-8")
    with pytest.raises(AdaptBenchError, match="it is a study"):
        load_suite(str(tmp_path / "s.yaml"))
    with pytest.raises(AdaptBenchError, match="it is no study"):
        load_study("bench")


def test_two_overrides_of_one_part_are_told_apart():
    with pytest.raises(AdaptBenchError, match=r"-o measure\.samples=none"):
        load_suite("bench", ["measure.samples=none", "measure.blocks=7"])
