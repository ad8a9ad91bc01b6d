"""Finished runs on a disk that lost or turned some bytes."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from adaptbench.bench.runner import run_suite
from adaptbench.errors import OutputError, RunError
from adaptbench.report.page import write_report
from adaptbench.results.baseline import Baseline, write_baseline
from adaptbench.results.files import write_text
from adaptbench.results.gate import compare
from adaptbench.results.store import Run

SUITE = """
data: digits
models: [softmax-threshold]
conditions: [clean, ilfo: {eps: 32/255, steps: 2}]
limit: 8
chunk: 4
gate: {macs_mean: exact}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    return run_suite(str(folder / "tiny.yaml"), out=folder / "run", command="adaptbench run tiny.yaml")


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    return tmp_path / "run"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def turn_a_digit(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    at = next(i for i in range(len(text) // 2, len(text)) if text[i] in "12345678" and not text[i + 1].isalpha())
    file.write_text(f"{text[:at]}{9 - int(text[at])}{text[at + 1 :]}", encoding="utf-8")


def again(whole, run):
    return run_suite(str(whole.path.parent / "tiny.yaml"), out=run, command="adaptbench run tiny.yaml")


def steady(run):
    return [{k: v for k, v in record.items() if k != "craft_s"} for record in run.cases]


@pytest.mark.case("own")
@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("kind", ["chunk table", "chunk header", "joined header", "crafted"])
def test_a_damaged_cell_is_named_and_computed_again(whole, copied, caplog, damage, kind):
    """After a cut cell the advice "run the same command again" looped; that command mends it and says so."""
    cells = copied / "cells"
    files = {
        "chunk table": sorted(cells.glob("*.samples.parquet")),
        "chunk header": sorted(cells.glob("*-0.json")),
        "joined header": sorted(file for file in cells.glob("*.json") if "-" not in file.stem),
        "crafted": sorted((copied / "crafted").iterdir()),
    }[kind]
    for file in files:
        damage(file)
    with caplog.at_level(logging.WARNING):
        mended = again(whole, copied)
    named = [f"{file.parent.name}/{file.name}" in caplog.text for file in files]
    assert any(named) if kind == "chunk header" else all(named), "a chunk that went into a whole file is read no more"
    mended.verify()
    assert steady(mended) == steady(whole)
    caplog.clear()
    again(whole, copied)
    assert not caplog.text


@pytest.mark.case("own")
def test_turned_bytes_of_crafted_inputs_pass_no_reader(whole, copied, tmp_path):
    """Flipped bytes in crafted/ went through report and check; both hold the file against its name, a hash."""
    (crafted,) = (copied / "crafted").iterdir()
    flip(crafted)
    for reader in (
        lambda: compare(copied, whole.path),
        lambda: compare(whole.path, copied),
        lambda: write_report([copied], tmp_path / "page.html"),
        lambda: Run.open(copied).crafted(crafted.name),
    ):
        with pytest.raises(RunError, match="damaged") as caught:
            reader()
        assert crafted.name in str(caught.value)


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("samples.parquet", cut),
        ("windows.parquet", cut),
        ("windows.parquet", flip),
        ("summary.json", turn_a_digit),
        ("manifest.json", turn_a_digit),
    ],
)
def test_a_damaged_file_of_a_finished_run_is_refused_and_written_again(whole, copied, name, damage):
    """A cut windows.parquet and a turned digit in summary.json passed the gate; hashes are compared."""
    damage(copied / name)
    with pytest.raises(RunError, match=rf"{name} is damaged") as caught:
        Run.open(copied)
    assert "`adaptbench run tiny.yaml` computes again" in caught.value.todo
    assert steady(again(whole, copied)) == steady(whole)


@pytest.mark.case("own")
def test_a_full_disk_keeps_the_old_file(whole, tmp_path, monkeypatch):
    """`report --out`, `check --out` and `baseline --out` left a stub on a full disk; they write aside and rename."""
    page, kept = write_report([whole.path], tmp_path / "page.html"), write_baseline(whole, tmp_path / "kept.json")
    before = {file: file.read_bytes() for file in (page, kept)}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: write_report([whole.path], page),
        lambda: write_baseline(whole, kept),
        lambda: write_text(kept, "verdict"),
    ):
        with pytest.raises(OutputError, match="No space left"):
            write()
    assert {file: file.read_bytes() for file in before} == before
    assert sorted(tmp_path.iterdir()) == sorted(before)


@pytest.mark.case("own")
def test_what_is_no_plain_file_is_written_to_and_not_replaced(tmp_path):
    """Writing aside would put a file in the place of a pipe or a link; both stay what they are."""
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 99) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.case("own")
def test_a_baseline_that_is_held_does_not_change_with_its_directory(whole, copied):
    """A run written over its own baseline was compared with itself; a baseline that is held was read before."""
    copy = Baseline.load(copied)
    lazy = copy.changed(manifest={**copy.manifest, "id": "another"})  # a copied run has the id of the first
    held = lazy.held()
    shutil.rmtree(copied)
    assert compare(whole, held).exit_code == 0
    with pytest.raises(RunError):
        compare(whole, lazy)
