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
    "version": 0,
    "naming": 0.5,
    "registry": 1,
    "located_yaml": 1,
    "adaptive": 2,
    "policies": 3,
    "adapters": 5,
    "data": 3,
    "defences": 5,
    "models": 4,
    "attacks": 4,
    "meters": 4,
    "results": 4,
    "zoo": 5,
    "report": 5,
    "experiment": 6,
    "bench": 7,
    "testing": 7,
    "console": 7,
    "study": 7,
    "diagnosis": 7,
    "auditing": 8,
    "serving": 8,
    "decoding": 8,
    "terminal": 8,
    "watching": 8,
    "kinds": 9,
    "commands": 10,
    "cli": 11,
    "__main__": 12,
}
LARGEST_SHARE = 0.15


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
        assert ROOM[there] < ROOM[here], f"{here} imports {there}"


def test_no_circle_of_files() -> None:
    """Imports inside functions count too: what is needed late is still needed."""
    files = {_dotted(path): path for path in MODULES}
    waits = {name: _files(imports(path), files) - {name} for name, path in files.items()}
    while free := [name for name, others in waits.items() if not others]:
        for name in free:
            del waits[name]
        for others in waits.values():
            others.difference_update(free)
    assert not waits, f"these wait for each other: {sorted(waits)}"


def _files(names: set[str], files: dict[str, Path]) -> set[str]:
    """Of a package and one of its modules, which `from package import module` names both, the module only."""
    found = names & files.keys()
    return {name for name in found if not any(other.rpartition(".")[0] == name for other in found)}


def _dotted(path: Path) -> str:
    return ".".join(["adaptbench", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def test_no_room_is_the_whole_house() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    for name in {room(path) for path in MODULES}:
        share = sum(n for path, n in lines.items() if room(path) == name) / sum(lines.values())
        assert share <= LARGEST_SHARE, f"{name}: {share:.1%} of the lines"


@pytest.mark.parametrize("name", ["results", "report"])
def test_reading_rooms_know_no_torch(name: str) -> None:
    for path in (PACKAGE / name).rglob("*.py"):
        assert not {i for i in imports(path) if i.split(".")[0] == "torch"}, path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_fit_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


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
