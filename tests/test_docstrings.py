"""What docstrings say is true: examples run, in an empty directory and without a network, and arguments exist."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

import adaptbench

PACKAGE = Path(adaptbench.__file__).parent


def modules_with_examples() -> list[str]:
    files = (file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text(encoding="utf-8"))
    names = (file.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".") for file in files)
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried, "the text has examples that no docstring holds"
    assert not failed


def test_a_wrong_example_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    module = type(doctest)("planted", ">>> 1 + 1\n3\n")
    assert doctest.testmod(module).failed == 1
    assert "Expected" in capsys.readouterr().out


def arguments_told(doc: str) -> set[str]:
    """Names before a colon in the section `Args`, at the head of a line or of a sentence."""
    section = re.search(r"^Args:\n((?:    .*\n?)+)", doc, re.MULTILINE)
    names = r"(?:^    |\. )((?:\*{0,2}[a-z]\w*, )*\*{0,2}[a-z]\w*):"
    heads = re.findall(names, section.group(1) if section else "", re.MULTILINE)
    return {name.lstrip("*") for head in heads for name in head.split(", ")}


def arguments_taken(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    if isinstance(node, ast.ClassDef):
        calls = [b for b in node.body if isinstance(b, ast.FunctionDef) and b.name in ("__init__", "__call__")]
        fields = {b.target.id for b in node.body if isinstance(b, ast.AnnAssign) and isinstance(b.target, ast.Name)}
        return fields.union(*map(arguments_taken, calls))
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return {one.arg for one in every}


def stale_arguments(text: str) -> list[str]:
    kinds = (ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    told = ((node, arguments_told(ast.get_docstring(node) or "")) for node in nodes)
    return [f"{node.name}: {name}" for node, names in told for name in sorted(names - arguments_taken(node))]


def test_described_arguments_exist() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    stale = {file.relative_to(PACKAGE).as_posix(): stale_arguments(file.read_text(encoding="utf-8")) for file in files}
    assert not {file: names for file, names in stale.items() if names}


def test_a_described_argument_that_is_gone_is_found() -> None:
    told = 'class A:\n    """A.\n\n    Args:\n        a: kept. b: gone.\n        c, d: gone and kept.\n    """\n'
    assert stale_arguments(f"{told}\n    a: int\n    d: int\n") == ["A: b", "A: c"]
