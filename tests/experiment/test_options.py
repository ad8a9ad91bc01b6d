"""One object of options, the same from keywords as from the command line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from adaptbench.errors import UsageError
from adaptbench.experiment.options import Asked, Options, options_of


def test_keywords_are_the_fields_of_the_object():
    assert set(Asked.__annotations__) == {field.name for field in fields(Options)}
    assert options_of(None, {"limit": 3, "out": "x"}).place("y") == Path("x")


def test_the_lesser_limit_holds():
    assert Options(limit=5).at_most(3) == 3
    assert Options(limit=5).at_most(None) == 5
    assert Options().at_most(None) is None


def test_the_usual_place_and_another():
    assert Options().place("small") == Path("runs/small")
    assert Options(out="there").place("small") == Path("there")


@pytest.mark.parametrize(("given", "asked"), [(Options(), {"limit": 1}), (None, {"limit": 0}), (Options(limit=-1), {})])
def test_what_cannot_be_is_refused(given, asked):
    with pytest.raises(UsageError):
        options_of(given, asked)


def test_overrides_beside_a_file_that_is_read_are_not_dropped_unsaid():
    with pytest.raises(UsageError, match="read already"):
        Options(overrides=["limit=3"]).must_be_laid([])
    Options(overrides=["limit=3"]).must_be_laid(("limit=3",))
