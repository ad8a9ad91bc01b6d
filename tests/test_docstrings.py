"""Examples in docstrings are true: each module that has some is run, in an empty directory and without a network."""

from __future__ import annotations

import doctest
import importlib
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
