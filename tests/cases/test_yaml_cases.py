"""Files in YAML that hang, explode or mislead a reader: each is refused at once, with its line."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from adaptbench.attacks.recipe import read_recipe
from adaptbench.bench.suite import load_suite
from adaptbench.errors import RecipeError, SuiteError
from adaptbench.located_yaml import MOST_CHARACTERS, parse

LETTERS = "abcdefghijklmnopqrst"
ALIASES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]\n" for before, here in itertools.pairwise(LETTERS)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{here}: &{here} {{<<: [*{before}, *{before}, *{before}], {here}: 1}}\n"
    for before, here in itertools.pairwise(LETTERS)
)
BAD = {
    "alias bomb": (ALIASES, "aliases written out"),
    "merge bomb": (MERGES, "aliases written out"),
    "holds itself": ("x: 1\na: &a [*a]\n", "line 2"),
    "merges itself": ("x: 1\na: &a {<<: *a}\n", "line 2"),
    "3 000 levels": ("x: 1\na: " + "[" * 3000, "64 levels"),
    "deep keys": ("".join(" " * i + "a:\n" for i in range(300)), "64 levels"),
    "half a bracket": ("x: 1\na: " + "[" * (MOST_CHARACTERS - 100), "64 levels"),
    "no such day": ("x: 1\na: 2020-13-45\n", "line 2: 2020-13-45 reads as a date"),
    "no integer": ("x: 1\na: !!int abc\n", "line 2: abc is no int"),
    "5 000 digits": ("x: 1\na: " + "9" * 5000, "line 2"),
    "hexadecimal": ("x: 1\na: 0x" + "f" * 5000, "more than 64 bits"),
    "base 60 of 128 bits": ("x: 1\na: " + "1:" * 24 + "1", "more than 64 bits"),
    "base 60": ("x: 1\na: " + "1:" * 40_000 + "1", "more than 64 bits"),
    "lone surrogate": ('x: 1\na: "\\ud800"\n', "line 2: half a surrogate"),
    "in a key": ('x: 1\n"\\udc00": 1\n', "line 2: half a surrogate"),
    "no character": ('x: 1\na: "\\UFFFFFFFF"\n', "line 2"),
    "zero byte": ("x: 1\na: \0\n", "line 2"),
    "builds objects": ("x: 1\na: !!python/object/apply:os.system [x]\n", "line 2"),
    "bytes": ("x: 1\na: !!binary eHh4\n", "line 2"),
    "a set": ("x: 1\na: !!set {b}\n", "line 2"),
    "two documents": ("x: 1\n---\na: 1\n", "line 2"),
    "a list as key": ("x: 1\n? [a]\n: 1\n", "line 2"),
    "long lists": ("[" + "a, " * 30_000 + "]", "more than 10000 values"),
    "very long": ("x: " + "a" * MOST_CHARACTERS, "characters"),
}


@pytest.mark.case("own")
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("read", [load_suite, lambda name: read_recipe(Path(name))], ids=["suite", "recipe"])
def test_a_hostile_file_is_one_message_with_its_line_in_a_second(kind, read, tmp_path):
    """Bombs, depths and values that do not exist gave a hang or a traceback; each is an error of the file, at once."""
    text, says = BAD[kind]
    file = tmp_path / "hostile.yaml"
    file.write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises((SuiteError, RecipeError)) as refused:
        read(str(file))
    assert time.process_time() - began < 1
    assert says in refused.value.seen
    assert str(file) in refused.value.seen
    assert len(refused.value.seen) < 300 + len(str(file))


@pytest.mark.case("own")
def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path):
    """A file in Latin-1 is named with the line of its first foreign byte."""
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"x: 1\ntitle: caf\xe9\n")
    with pytest.raises(SuiteError, match=r"line 2: not UTF-8"):
        load_suite(str(file))


@pytest.mark.case("own")
def test_aliases_and_merge_keys_of_a_sane_size_work():
    """What bounds the bombs leaves honest aliases alone."""
    found = parse("d: &d {x: 1, y: 2}\ne: {<<: *d, y: 3}\nf: [*d, *d]\ng: {<<: [{x: 5}, *d]}\non: off\n", "f")
    assert found.value == {
        "d": {"x": 1, "y": 2},
        "e": {"x": 1, "y": 3},
        "f": [{"x": 1, "y": 2}] * 2,
        "g": {"x": 5, "y": 2},
        "on": False,
    }
    assert found.lines[("e", "y")] == 2


SUITE = "data: digits\nmodels: [static, skipnet]\nconditions: [clean]\nmeasure: {}\n"


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("seeds: [9223372036854775808]", "64 bits"),
        ("seeds: [4294967296]", "less than or equal"),
        ("seeds: [1, 1]", "seeds[1]: 1 stands twice"),
        ("seeds: [true]", "seeds[0]"),
        ("limit: true", "limit"),
        ("limit: '30'", "limit"),
        ("chunk: 1000000000000", "chunk"),
        ("strict: 'no'", "strict"),
        ("references: [static]", "references[0]: 'static' is a model of this suite, too"),
        ("references: [oracle, oracle]", "references[1]: oracle stands twice"),
        ("sweeps: {softmax-threshold: [0.1, 0.10000001]}", "sweeps.softmax-threshold[1]: 0.1 stands twice"),
        ("sweeps: {softmax-threshold: [.nan]}", "finite"),
        ("sweeps: {softmax-threshold: [true]}", "valid number"),
    ],
)
def test_a_suite_says_at_once_what_it_cannot_mean(line, says, tmp_path):
    """Values out of any range hung or were taken, and doubled cases were found after all the compute."""
    file = tmp_path / "s.yaml"
    file.write_text(SUITE + line + "\n", encoding="utf-8")
    with pytest.raises(SuiteError) as refused:
        load_suite(str(file))
    assert "line 5" in refused.value.seen
    assert says in refused.value.seen


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "value",
    ["batch_sizes=[1000000000000]", "batch_sizes=[8, 8]", "batch_sizes=[]", "window_s=1.0e+18", "window_s=.inf",
     "warmup_s=.nan", "window_s=true", "samples=true", "blocks=2.0", "meters=[clock, clock]"],
)  # fmt: skip
def test_what_is_measured_has_a_sane_size(value, tmp_path):
    """`batch_sizes: [10**12]` ran out of memory and `window_s: 1e18` never ended."""
    file = tmp_path / "s.yaml"
    file.write_text(SUITE, encoding="utf-8")
    with pytest.raises(SuiteError, match=value.partition("=")[0]):
        load_suite(str(file), [f"measure.{value}"])
