"""Each case says where its kind was reported."""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent


def _marks(test: ast.FunctionDef) -> list[str]:
    return [
        str(mark.args[0].value)
        for mark in test.decorator_list
        if isinstance(mark, ast.Call)
        and ast.unparse(mark.func) == "pytest.mark.case"
        and mark.args
        and isinstance(mark.args[0], ast.Constant)
    ]


def test_each_case_has_one_kind_and_one_sentence():
    without = []
    for file in sorted(HERE.glob("test_*_cases.py")):
        for test in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                kinds = _marks(test)
                named = bool(kinds) and all(kind == "own" or kind.startswith("https://github.com/") for kind in kinds)
                if not (named and ast.get_docstring(test)):
                    without.append(f"{file.name}::{test.name}")
    assert not without
