"""The shape of the house: imports run one way, modules fit in the head, light doors open fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import adaptbench

PACKAGE = Path(adaptbench.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOM = {
    "errors": 0,
    "registry": 1,
    "located_yaml": 1,
    "adaptive": 2,
    "policies": 3,
    "models": 3,
    "data": 3,
    "zoo": 4,
    "attacks": 4,
    "meters": 4,
    "results": 4,
    "report": 5,
    "experiment": 5,
    "bench": 6,
    "testing": 6,
    "console": 6,
    "study": 6,
    "diagnosis": 6,
    "terminal": 7,
    "watching": 7,
    "commands": 8,
    "cli": 9,
    "__main__": 10,
}
# within a floor: who may look at whom
NEIGHBOURS = {("models", "policies")}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "adaptbench" or len(parts) < 2 or parts[1] not in ROOM or parts[1] == here:
            continue
        there = parts[1]
        assert ROOM[there] < ROOM[here] or (here, there) in NEIGHBOURS, f"{here} imports {there}"


@pytest.mark.parametrize("name", ["results", "report"])
def test_reading_rooms_know_no_torch(name: str) -> None:
    for path in (PACKAGE / name).rglob("*.py"):
        assert not {i for i in imports(path) if i.split(".")[0] == "torch"}, path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_fit_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize(
    "code",
    [
        "import adaptbench",
        "import adaptbench.cli",
        "import adaptbench.report.page",
        "import adaptbench.results.gate, adaptbench.results.gate_format, adaptbench.results.baseline",
    ],
)
def test_light_doors_load_no_torch(code: str) -> None:
    probe = f"{code}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_public_names_all_resolve() -> None:
    for name in adaptbench.__all__:
        assert getattr(adaptbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        adaptbench.nope  # noqa: B018
