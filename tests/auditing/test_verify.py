from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import adaptbench as ab
from adaptbench.auditing.bundle import SUMS, altered, files_in, write_sums
from adaptbench.errors import RunError
from adaptbench.results.writer import seal


@pytest.fixture
def copied(audited: ab.Audit, tmp_path: Path) -> Path:
    return audited.save(tmp_path / "bundle")


def test_it_agrees(audited: ab.Audit, two_heads: ab.MultiExit) -> None:
    found = ab.verify(audited.path, two_heads)
    assert found.exit_code == 0, str(found)
    assert "recovery: " in str(found)
    assert "all holds" in str(found)


def test_a_net_built_anew_agrees(audited: ab.Audit, foreign: ModuleType) -> None:
    assert ab.verify(audited.path, foreign.build()).exit_code == 0


def test_without_the_net_only_the_files_hold(audited: ab.Audit) -> None:
    found = ab.verify(audited.path)
    assert found.exit_code == 3
    assert "name it with --model" in str(found)


def test_one_flipped_byte_is_named(copied: Path) -> None:
    assert not any(name.endswith(".lock") for name in files_in(copied))
    for name in [*files_in(copied), SUMS]:
        place = copied / name
        was = place.read_bytes()
        for at in {0, len(was) // 2, len(was) - 1}:
            place.write_bytes(was[:at] + bytes([was[at] ^ 1]) + was[at + 1 :])
            said = altered(copied)
            assert any(name in line for line in said) or (name == SUMS and said), (name, at, said)
        place.write_bytes(was)
    assert altered(copied) == []


@pytest.mark.parametrize("name", ["summary.json", "AUDIT.md", "run/samples.parquet", "run/manifest.json", SUMS])
def test_a_flipped_byte_ends_with_one(copied: Path, two_heads: ab.MultiExit, name: str) -> None:
    was = (copied / name).read_bytes()
    (copied / name).write_bytes(was[:200] + bytes([was[200] ^ 1]) + was[201:])
    found = ab.verify(copied, two_heads)
    assert found.exit_code == 1
    assert name in str(found)


def test_a_missing_and_a_foreign_file_are_named(copied: Path) -> None:
    (copied / "report.html").unlink()
    (copied / "note.txt").write_text("hello")
    assert altered(copied) == ["report.html is missing", "note.txt is in no line of SHA256SUMS"]


def test_a_figure_with_sums_made_anew_is_found(copied: Path, two_heads: ab.MultiExit) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["figures"]["recovery"]["value"] = 0.01
    (copied / "summary.json").write_text(json.dumps(summary))
    write_sums(copied)
    found = ab.verify(copied, two_heads)
    assert found.exit_code == 1
    assert "recovery: it is" in str(found)
    assert "the bundle says 1.0 %" in str(found)


def bent(bundle: Path, name: str, value: Any) -> str:
    """A figure of the attack's record, under sums made anew; the case's condition."""
    document = json.loads((bundle / "run" / "summary.json").read_text())
    case = next(c for c in document["cases"] if c["kind"] == "attack")
    assert name in case
    case[name] = value
    (bundle / "run" / "summary.json").write_text(json.dumps(document))
    write_sums(bundle)
    return str(case["condition"])


def test_a_bent_record_under_the_runs_old_seal_is_named(copied: Path) -> None:
    """It ended with 2, as a mistyped command does, and with advice to run the suite again."""
    bent(copied, "label_kept", 0.1234)
    found = ab.verify(copied)
    assert found.exit_code == 1
    assert "summary.json is damaged" in str(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label_kept", 0.1234),
        ("recovery_seen", 0.1234),
        ("macs_p99", 7.0),
        ("macs_cvar_ci", [0.1, 0.2]),
        ("exit_histogram", {"exit1": 1}),
    ],
)
def test_every_figure_of_a_record_is_held_to_the_rows(copied: Path, name: str, value: Any) -> None:
    """Nine names were compared; the page shows the others, too."""
    condition = bent(copied, name, value)
    seal(copied / "run", json.loads((copied / "run" / "manifest.json").read_text()))
    write_sums(copied)
    found = ab.verify(copied)
    assert found.exit_code == 1
    assert f"run/{condition}.{name}" in str(found)


def test_another_net_is_named(audited: ab.Audit, foreign: ModuleType, two_heads: ab.MultiExit) -> None:
    other = foreign.adapted(foreign.trained(foreign.TwoHeads(), epochs=1))
    found = ab.verify(audited.path, other)
    assert found.exit_code == 1
    assert "it is another one" in str(found)
    assert audited.summary["model"]["sha256"] in str(found)
    eased = two_heads.under(ab.policies.UniformThreshold(0.99))
    assert ab.verify(audited.path, eased).exit_code == 1


def test_other_pictures_are_named(audited: ab.Audit, two_heads: ab.MultiExit) -> None:
    split = ab.load_data("digits").split("test")
    other = (torch.flip(split.images(0, 60), [0]), torch.flip(split.y[:60], [0]))
    found = ab.verify(audited.path, two_heads, data=other)
    assert found.exit_code == 1
    assert "the audited ones have" in str(found)


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not the bundle"):
        ab.verify(tmp_path)


@pytest.mark.slow
def test_on_the_command_line(adaptbench, foreign: ModuleType, tmp_path: Path) -> None:
    here = Path(__file__).parent
    shutil.copy(here / "foreign_nets.py", tmp_path / "nets.py")
    shutil.copy(here / "quick.yaml", tmp_path / "quick.yaml")
    words = ["audit", "./nets.py:build", "--data", "digits", "--attacks", "quick.yaml", "--limit", "40", "--out", "b"]
    assert "somebody's code" in adaptbench(*words).err
    ended = adaptbench(*words, "--allow-imports", "--max-recovery", "0.01")
    assert ended.code == 1, ended.err
    assert "BROKEN  quick takes back" in ended.out
    again = ["verify", "b", "--model", "./nets.py:build"]
    assert adaptbench(*again).code == 2
    held = adaptbench(*again, "--allow-imports")
    assert (held.code, "all holds" in held.out) == (0, True), held.out
    assert adaptbench("verify", "b").code == 3
    kept = adaptbench(*words, "--allow-imports", "--max-recovery", "1")
    assert kept.code == 0, kept.out
    (tmp_path / "b" / "AUDIT.md").write_text("all is well")
    assert adaptbench(*again, "--allow-imports").code == 1
    assert adaptbench("verify", "nowhere").code == 2
