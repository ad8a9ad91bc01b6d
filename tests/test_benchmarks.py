"""One command makes every figure of the pages on speed, under one commit or not at all; two ways to attack agree."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

import adaptbench as ab

ROOT = Path(__file__).parent.parent
STUB = """
import json, sys
place = sys.argv[sys.argv.index("--json") + 1]
if {fails}:
    raise SystemExit(3)
open(place, "w").write(json.dumps({{"commit": "{commit}", "asked": sys.argv[1:-2]}}))
"""
PAGE = "import pathlib; pathlib.Path(__file__).with_suffix('.written').write_text('')"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return module_at(ROOT / "benchmarks" / f"{name}.py")


def page_of(name: str) -> ModuleType:
    return module_at(ROOT / "docs" / f"{name}_page.py")


def module_at(place: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"own_{place.stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """The driver over two scripts that do nothing but write a file."""
    module = load("all", monkeypatch)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "SCRIPTS", {"one": ("--blocks", "2"), "two": ()})
    monkeypatch.setattr(module, "PAGES", {"two": "one"})
    monkeypatch.setattr(module, "heading", lambda **more: {"commit": "abc", "dirty": False, **more})
    (tmp_path / "docs" / "one_page.py").write_text(PAGE)
    for name in ("one", "two"):
        (tmp_path / "benchmarks" / f"{name}.py").write_text(STUB.format(fails=False, commit="abc"))
    return module


def test_every_script_is_run_under_one_commit_and_kept_when_asked(driver, tmp_path):
    driver.main(["--out", str(tmp_path / "out"), "--keep"])
    told = json.loads((tmp_path / "out" / "all.json").read_text())
    assert told["commit"] == "abc"
    assert {name: part["exit"] for name, part in told["parts"].items()} == {"one": 0, "two": 0}
    kept = json.loads((tmp_path / "benchmarks" / "one.json").read_text())
    assert kept["asked"] == ["--blocks", "2"]
    assert (tmp_path / "benchmarks" / "two.json").exists()
    assert (tmp_path / "docs" / "one_page.written").exists()


@pytest.mark.parametrize(
    ("fails", "commit", "reason"),
    [(True, "abc", "two ended with exit code 3"), (False, "other", "two names commit other")],
)
def test_what_fails_or_is_of_another_commit_takes_no_place(driver, tmp_path, fails, commit, reason):
    (tmp_path / "benchmarks" / "two.py").write_text(STUB.format(fails=fails, commit=commit))
    with pytest.raises(SystemExit, match=f"{reason}. Nothing was kept"):
        driver.main(["--out", str(tmp_path / "out"), "--keep"])
    assert not (tmp_path / "benchmarks" / "one.json").exists()


def test_files_that_differ_from_the_commit_are_none_of_it(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "heading", lambda **more: {"commit": "abc", "dirty": True, **more})
    with pytest.raises(SystemExit, match="files differ from the commit"):
        driver.main(["one", "--out", str(tmp_path / "out"), "--keep"])


def test_an_earlier_days_folder_and_unknown_names_are_refused(driver, tmp_path):
    with pytest.raises(SystemExit, match="is there already"):
        driver.main(["--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no benchmark is called 'three'"):
        driver.main(["three", "--out", str(tmp_path / "out")])


def test_every_benchmark_of_the_pages_on_speed_has_its_script_and_its_page(monkeypatch):
    module = load("all", monkeypatch)
    for name in module.SCRIPTS:
        assert (ROOT / "benchmarks" / f"{name}.py").exists()
        assert (ROOT / "docs" / f"{module.PAGES.get(name, name)}_page.py").exists()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("deepsloth", {"eps": "32/255", "step": "4/255", "steps": 4}), ("ilfo", {"eps": "32/255", "steps": 6})],
)
def test_the_plain_loop_finds_what_the_engine_finds(monkeypatch, name, settings):
    module = load("fast_slow", monkeypatch)
    model, test = ab.load_model("softmax-threshold", "digits"), ab.load_data("digits").split("test")
    told = json.loads(json.dumps(module.case(model, test, name, settings, 12)))
    assert told["pictures that differ"] == 0
    assert told["engine"]["value"] == told["plain"]["value"] > 0.05
    assert told["engine"]["steps"] <= told["plain"]["steps"] == 12 * settings["steps"]
    page = page_of("fast_slow")
    made = page.page(
        f"a{page.BEGIN}b{page.END}c",
        {"commit": "0123456789", "date": "today", "versions": {"torch": "2"}, "cases": {f"digits/net {name}": told}},
    )
    row = next(line for line in made.splitlines() if line.startswith("| digits/net"))
    assert f"| {name} at 32/255, {settings['steps']} steps | 12 | {100 * told['engine']['value']:.1f} %" in row
    assert "| 0.00 [0.00, 0.00] | yes | 0 |" in row
    assert "No run is committed yet." in page.page(made, None)
