"""docs/audit.md: its blocks run as they stand, on fewer pictures."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_python_runs(foreign: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("their_nets")
    theirs.build = lambda: foreign.trained(foreign.TwoHeads())
    monkeypatch.setitem(sys.modules, "their_nets", theirs)
    monkeypatch.chdir(tmp_path)
    ten_lines, verifying = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "limit=200" in ten_lines
    names: dict[str, object] = {}
    exec(compile(ten_lines.replace("limit=200", "limit=30"), "audit.md", "exec"), names)
    exec(compile(verifying, "audit.md", "exec"), names)
    assert names["found"].exit_code == 0


@pytest.mark.slow
def test_its_commands_run(adaptbench) -> None:
    (block,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    commands = [shlex.split(line.removeprefix("$ adaptbench ")) for line in block.splitlines()]
    assert [words[0] for words in commands] == ["audit", "verify"]
    for words in commands:
        ended = adaptbench(*words, *(["--limit", "30"] if words[0] == "audit" else []))
        assert ended.code == 0, ended.out + ended.err


def test_every_file_of_a_bundle_stands_in_its_table(audited) -> None:
    for place in audited.path.iterdir():
        assert f"| `{place.name}{'/' if place.is_dir() else ''}` |" in PAGE, place.name


def test_every_check_stands_in_its_table(audited) -> None:
    """The laws have one row; what asks whether anything ran at all is told in words."""
    told = PAGE.partition("## What is checked")[2].partition("## The bundle")[0]
    asides = {"every case ran", "attacks that apply"}
    for check in audited.checks:
        assert check.name.startswith("law: ") or check.name in asides or f"| {check.name} |" in told, check.name


def test_what_is_to_be_cited_stands_in_a_bundle(audited) -> None:
    """The table of docs/threat-models.md names parts of summary.json."""
    text = (Path(__file__).parents[2] / "docs" / "threat-models.md").read_text(encoding="utf-8")
    rows = [line for line in text.partition("## How to cite")[2].splitlines() if line.startswith("| ")][1:]
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[3])]
    assert len(named) >= 10
    for name in named:
        value = audited.summary
        for part in name.split("."):
            assert part in value, name
            value = value[part]
    assert audited.run().manifest["git"]["revision"]
