"""Pieces of work and who carries them out: what holds for every engine, without a cluster."""

from __future__ import annotations

import pytest

from adaptbench.errors import MissingExtraError, UnknownNameError, UsageError
from adaptbench.experiment import on_ray
from adaptbench.experiment.engines import Local, Made, Part, Piece, Tally, engine_of, makers, merged
from adaptbench.experiment.on_ray import Ray
from adaptbench.experiment.options import Options
from adaptbench.experiment.ray_worker import line_of


def twice(*, a: int, b: int, told) -> int:
    told(1, 2)
    return 2 * a + b


def piece(key: str, b: int, n: int = 4) -> Piece:
    return Piece(key, n, twice, {"a": Part(5, str)}, {"b": b})


def test_this_process_does_one_after_another_and_says_so():
    heard = []
    engine = Local(Options())
    made = list(engine.each([piece("x", 1), piece("y", 2)], lambda p, done, of: heard.append((p.key, done, of))))
    assert [m.get() for m in made] == [11, 12]
    assert heard == [("x", 1, 2), ("y", 1, 2)]
    assert {m.by["engine"] for m in made} == {"local"}
    assert all(m.by["device"] and m.by["fingerprint"] for m in made)


def test_it_does_nothing_before_it_is_asked():
    heard = []
    coming = Local(Options()).each([piece("x", 1), piece("y", 2)], lambda p, *_: heard.append(p.key))
    next(coming)
    assert heard == ["x"]


def test_a_mistake_is_raised_where_the_result_is_taken():
    with pytest.raises(ValueError, match="no sample"):
        Made(piece("x", 1), None, {}, ValueError("no sample")).get()


def test_samples_are_counted_in_any_order():
    tally, x, y = Tally(10, 2), piece("x", 1), piece("y", 1)
    tally.told(x, 1, 2)
    tally.told(y, 1, 4)
    assert tally.done == 2 + 2 + 1
    tally.ended(x)
    assert tally.done == 2 + 4 + 1
    tally.ended(y)
    assert tally.done == 10


def test_a_manifest_says_who_made_which_cells():
    here = makers([("a-0", {"engine": "local", "device": "one"}), ("a-8", {})])
    there = makers([("b-0", {"engine": "ray", "device": "two"}), ("b-8", {"engine": "local", "device": "one"})])
    assert merged([here, there]) == {
        "local": {"cells": ["a-0", "a-8", "b-8"], "devices": {"one": 2, "": 1}},
        "ray": {"cells": ["b-0"], "devices": {"two": 1}},
    }


def test_engines_are_asked_for_by_name(monkeypatch):
    assert isinstance(engine_of(Options()), Local)
    with pytest.raises(UnknownNameError, match="'ray'"):
        engine_of(Options(engine="rya"))
    with pytest.raises(UsageError, match="--engine ray"):
        engine_of(Options(address="auto"))
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"adaptbench\[ray\]"):
        engine_of(Options(engine="ray"))


def test_nothing_is_started_before_there_is_work(monkeypatch):
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda name: object())
    engine = Ray(Options(engine="ray"))
    assert list(engine.each([], lambda *_: None)) == []
    engine.close()


def test_an_error_is_told_in_a_line():
    assert line_of(ValueError("\none\ntwo")) == "ValueError: one"
    assert line_of(KeyError()) == "KeyError: KeyError"


def test_the_command_line_refuses_what_it_cannot_use(adaptbench, monkeypatch):
    ended = adaptbench("run", "SMALL", "--engine", "slurm", "--out", "x")
    assert ended.code == 2
    assert "local" in adaptbench("list", "engines").out
    ended = adaptbench("run", "SMALL", "--address", "auto", "--out", "x")
    assert (ended.code, "--engine ray" in ended.err) == (2, True)
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda name: None)
    ended = adaptbench("run", "SMALL", "--engine", "ray", "--out", "x")
    assert (ended.code, "adaptbench[ray]" in ended.err) == (2, True)
