"""Suites: what is read is what was written, and a wrong word is answered with file, line and the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptbench.bench.suite import load_suite
from adaptbench.decoding.spec import load_decoding
from adaptbench.errors import SuiteError, UsageError
from adaptbench.experiment.finding import find_suite, kind_named, suite_names, suite_title
from adaptbench.serving.spec import load_serving
from adaptbench.study.spec import load_study

GOOD = """\
title: a small one
data: digits
models:
  - static
  - skipnet
conditions:
  - clean
  - ilfo: {eps: 16/255, id: ilfo-16, limit: 5}
measure:
  batch_sizes: [1]
  meters: [clock]
gate:
  macs_mean: exact
"""


@pytest.fixture
def suite_file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_suite_is_read_as_written(suite_file) -> None:
    loaded = load_suite(suite_file(GOOD))
    assert loaded.name == "mine"
    assert loaded.suite.labels == ["static", "skipnet"]
    strong = loaded.suite.conditions[1]
    assert (strong.id, strong.ref, strong.limit, strong.settings) == ("ilfo-16", "ilfo", 5, {"eps": "16/255"})


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (
            "  - static",
            "  - statics",
            4,
            ["models[0]", "no model is called 'statics'", "'static'", "adaptbench list models"],
        ),
        ("data: digits", "data: digit", 2, ["no data set is called 'digit'", "'digits'"]),
        ("title: a small one", "titel: a small one", 1, ["no such key", "'title'"]),
        ("  batch_sizes: [1]", "  batch_sizes: [0]", 10, ["measure.batch_sizes[0]", "greater than or equal to 1", "0"]),
        ("  batch_sizes: [1]", "  batch_size: [1]", 10, ["no such key", "'batch_sizes'"]),
        ("  meters: [clock]", "  meters: [clok]", 11, ["no meter is called 'clok'", "'clock'"]),
        ("  - clean", "  - noise", 6, ["there is no 'clean'"]),
        ("  macs_mean: exact", "  macs_mean: exactly", 12, ["gate"]),
        ("  - clean", "  - [clean]", 7, ["a condition is a name"]),
        ("models:", "models: [", None, ["YAML"]),
        ("title: a small one", "title: a\ntitle: b", 2, ["stands twice"]),
        ("id: ilfo-16", "id: clean", 8, ["'ilfo' is called 'clean'"]),
    ],
)
def test_a_mistake_is_answered_with_its_place(
    suite_file, old: str, new: str, line: int | None, words: list[str]
) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(suite_file(GOOD.replace(old, new, 1)))
    message = str(caught.value)
    assert "mine.yaml" in message
    if line is not None:
        assert f"line {line}" in message
    for word in words:
        assert word in message


def test_a_tag_that_builds_objects_is_refused(suite_file) -> None:
    with pytest.raises(SuiteError):
        load_suite(suite_file(GOOD + "x: !!python/object/apply:os.system ['true']\n"))


def test_overrides_are_laid_over(suite_file) -> None:
    path = suite_file(GOOD)
    loaded = load_suite(path, ["models=[static]", "measure.blocks=6", "conditions=[clean]"])
    assert loaded.suite.labels == ["static"]
    assert loaded.suite.measure is not None
    assert loaded.suite.measure.blocks == 6
    assert loaded.sha256 != load_suite(path).sha256


def test_a_wrong_override_names_itself(suite_file) -> None:
    with pytest.raises(SuiteError, match=r"(?s)-o models=\[softmax-treshold\].*softmax-threshold") as caught:
        load_suite(suite_file(GOOD), ["models=[softmax-treshold]"])
    assert "line" not in str(caught.value)
    with pytest.raises(UsageError, match="is not key=value"):
        load_suite(suite_file(GOOD), ["models"])
    with pytest.raises(UsageError, match="holds no keys"):
        load_suite(suite_file(GOOD), ["models.x=1"])


def test_every_shipped_suite_is_valid() -> None:
    assert {"bench", "ci", "fashion-mnist"} <= set(suite_names())
    for name in suite_names():
        assert suite_title(name)
        load = {"decoding": load_decoding, "serving": load_serving, "study": load_study}
        assert load.get(kind_named(name), load_suite)(name).name == name


def test_an_unknown_suite_offers_the_nearest() -> None:
    with pytest.raises(SuiteError, match="Did you mean 'bench'"):
        find_suite("bensh")
    with pytest.raises(SuiteError, match="no suite file"):
        find_suite("nowhere/x.yaml")
