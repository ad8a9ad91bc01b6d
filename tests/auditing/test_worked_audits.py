"""docs/audits.md: its blocks run in order as they stand, on fewer pictures."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "audits.md").read_text(encoding="utf-8")
SHAPES = {"of_exits": "multi-exit", "of_pair": "cascade", "of_dag": "dag", "of_gates": "gated"}


def run(blocks: list[str], place: Path) -> dict[str, Any]:
    """What the blocks leave, run one after another in a new directory."""
    spec = importlib.util.spec_from_file_location("their_nets", Path(__file__).with_name("worked_nets.py"))
    assert spec is not None
    assert spec.loader is not None
    theirs: ModuleType = importlib.util.module_from_spec(spec)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "their_nets", theirs)
        spec.loader.exec_module(theirs)
        patch.chdir(place)
        for block in blocks:
            exec(compile(block.replace('"limit": 100', '"limit": 24'), "audits.md", "exec"), names)
    return names


def blocks_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert '"limit": 100' in PAGE
    pictures, _, rest = PAGE.partition("## Texts")
    return run(blocks_of(pictures) + blocks_of(rest.partition("## Verifying")[2]), tmp_path_factory.mktemp("worked"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    sections = PAGE.partition("## Texts")[2].partition("## Verifying")[0]
    return run([blocks_of(PAGE)[0], *blocks_of(sections)], tmp_path_factory.mktemp("others"))


@pytest.mark.slow
def test_every_shape_is_audited_and_verified(ran: dict[str, Any]) -> None:
    assert {name: ran[name].summary["model"]["shape"] for name in SHAPES} == SHAPES
    for name in SHAPES:
        assert ran[name].trusted, (name, ran[name].doubts)
        assert ran[name].accuracy.value > 0.75, name
        assert {"standard", "standard-kept"} <= set(ran[name].figures["conditions"])


@pytest.mark.slow
def test_what_the_page_says_of_them_is_so(ran: dict[str, Any]) -> None:
    """Signs and orders of figures, which no processor turns round."""
    kept = {name: ran[name].figures["conditions"]["standard-kept"] for name in SHAPES}
    assert all(figures["answers_kept"]["value"] == 1 for figures in kept.values())
    assert kept["of_pair"]["recovery"]["value"] > 0.6
    assert ran["of_exits"].recovery.value > 0.3
    assert not any("logit-gap" in check.seen for check in ran["of_gates"].doubts)  # it means nothing on gates
    assert ran["of_gates"].summary["model"]["kept_policy"] is None
    assert ran["of_exits"].summary["model"]["kept_policy"]["name"] == "softmax-threshold"


@pytest.mark.slow
def test_texts_and_series_are_audited_like_them(others: dict[str, Any]) -> None:
    for name, control in (("of_texts", "words-random"), ("of_series", "series-noise")):
        audit = others[name]
        assert audit.trusted, (name, audit.doubts)
        assert audit.accuracy.value > 0.75, name
        assert audit.recovery.value > 0.3 + audit.figures["conditions"][control]["recovery"]["value"], name
    assert others["of_texts"].summary["data"]["stored"]
    assert not others["of_series"].summary["data"]["stored"]


def test_the_nets_know_nothing_of_adaptbench() -> None:
    source = Path(__file__).with_name("worked_nets.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) adaptbench", source, re.MULTILINE)
