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


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("their_nets", Path(__file__).with_name("worked_nets.py"))
    assert spec is not None
    assert spec.loader is not None
    theirs: ModuleType = importlib.util.module_from_spec(spec)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "their_nets", theirs)
        spec.loader.exec_module(theirs)
        patch.chdir(tmp_path_factory.mktemp("worked"))
        assert '"limit": 100' in PAGE
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(compile(block.replace('"limit": 100', '"limit": 24'), "audits.md", "exec"), names)
        yield names


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


def test_the_nets_know_nothing_of_adaptbench() -> None:
    source = Path(__file__).with_name("worked_nets.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) adaptbench", source, re.MULTILINE)
