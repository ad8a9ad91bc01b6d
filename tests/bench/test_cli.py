"""The command line as a user types it: right words, wrong words, exit codes, no traceback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from adaptbench.zoo import checkpoints
from adaptbench.zoo.loading import SHIPPED

SMALL = str(Path(__file__).parent / "small.yaml")


def as_typed(*words: str, cwd: Path) -> str:
    """What a new process says, as a user starts it; the other tests run commands in this one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, "-m", "adaptbench", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=True).stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run in it."""
    folder = tmp_path_factory.mktemp("room")
    (folder / "stdout").write_text(as_typed("run", SMALL, "--out", "runs/small", cwd=folder), encoding="utf-8")
    return folder


@pytest.fixture
def room(finished, tmp_path):
    """A copy of it, in which commands run."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_run_prints_the_table_and_where_things_are(room: Path) -> None:
    text = (room / "stdout").read_text(encoding="utf-8")
    expected = (
        "small · digits, 30 test images",
        "taken back",
        "ilfo",
        "(control)",
        "things to know",
        "reports/small.html",
    )
    for words in (*expected, "adaptbench check"):
        assert words in text
    assert (room / "reports" / "small.html").stat().st_size > 10_000


def test_check_formats_and_exit_codes(room: Path, adaptbench) -> None:
    def check(*words: str):
        return adaptbench("check", "runs/small", *words)

    assert adaptbench("baseline", "runs/small", "--out", "base.json").code == 0
    itself = check("--baseline", "base.json")
    assert itself.code == 3
    assert "kept of this very run" in itself.out
    kept = json.loads((room / "base.json").read_text(encoding="utf-8"))
    kept["manifest"]["id"] = "another run of the same truth"
    (room / "base.json").write_text(json.dumps(kept), encoding="utf-8")
    same = check("--baseline", "base.json")
    assert same.code == 0
    assert "pass: 16 comparisons (16 pass)" in same.out
    assert check("--baseline", "base.json", "--format", "junit", "--out", "gate.xml").code == 0
    assert ET.parse(room / "gate.xml").getroot().tag == "testsuites"
    assert json.loads(check("--baseline", "base.json", "--format", "json").out)["exit_code"] == 0
    clean = next(c for c in kept["cases"] if c["kind"] == "clean")
    clean["macs_mean"] -= 1000
    for packed in kept["samples"].values():
        packed["macs"]["levels"] = [m - 1000 for m in packed["macs"]["levels"]]
    (room / "cheaper.json").write_text(json.dumps(kept), encoding="utf-8")
    assert check("--baseline", "cheaper.json").code == 1


def test_the_gate_can_fire(room: Path, adaptbench) -> None:
    done = adaptbench("check", "runs/small", "--selftest")
    assert done.code == 0
    assert "held    +1 MAC on one sample" in done.out
    assert "FAILED" not in done.out


def test_dry_run_runs_nothing(tmp_path: Path, adaptbench) -> None:
    done = adaptbench("run", SMALL, "--dry-run")
    assert done.code == 0
    assert "Nothing was run" in done.out
    assert "digits/skipnet/ilfo" in done.out
    assert not list(tmp_path.iterdir())


def test_dry_run_says_what_is_kept(room: Path, adaptbench) -> None:
    before = {f: f.stat().st_mtime_ns for f in room.rglob("*")}
    assert "6 of them timed, 10 kept; about " in adaptbench("run", SMALL, "--out", "runs/small", "--dry-run").out
    assert " kept" not in adaptbench("run", SMALL, "--out", "runs/small", "--dry-run", "--fresh").out
    assert {f: f.stat().st_mtime_ns for f in room.rglob("*")} == before


@pytest.mark.parametrize(
    ("kind", "listed"),
    [
        ("models", "dag-selection"),
        ("policies", "oracle"),
        ("attacks", "deepsloth"),
        ("data", "fashion-mnist"),
        ("meters", "nvml"),
        ("suites", "bench"),
    ],
)
def test_lists(kind: str, listed: str, adaptbench) -> None:
    done = adaptbench("list", kind)
    assert done.code == 0
    assert listed in done.out


def test_doctor_speaks_of_every_sensor(adaptbench) -> None:
    done = adaptbench("doctor")
    assert done.code == 0
    for word in ("NVML", "RAPL", "odecarbon", "digits", "fashion-mnist"):
        assert word.lower() in done.out.lower()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "bensh"], ["no suite is called 'bensh'", "Did you mean 'bench'"]),
        (["run", "bench", "-o", "models=[softmax-treshold]"], ["softmax-treshold", "Did you mean 'softmax-threshold'"]),
        (["run", "bench", "-o", "measure.blocks=many"], ["measure.blocks", "many"]),
        (["run", "bench", "-o", "measure.batch_sizes=[0]"], ["batch_sizes", "greater than or equal to 1"]),
        (["run", "bench", "-o", "conditions=[clean, ifo]"], ["ifo", "ilfo"]),
        (["run", "bench", "-o", "conditions=[clean, {ilfo: {epz: 1}}]"], ["epz", "eps"]),
        (["run", "bench", "-o", "data=cifar10", "--data-root", "nowhere"], ["cifar10", "nowhere"]),
        (["run", "bench", "-o", "data=imagefolder:missing"], ["missing"]),
        (["run", "bench", "--device", "cuda:7"], ["cuda:7"]),
        (["run", "bench", "--baseline", "none.json"], ["no baseline none.json"]),
        (["run", "bench", "--zoo", "none"], ["no zoo folder none", "adaptbench train"]),
        (["report", "nowhere"], ["nowhere"]),
        (["check", "nowhere", "--baseline", "base.json"], ["nowhere"]),
        (["train", "statics"], ["no model is called 'statics'", "'static'"]),
        (["train", "softmax-threshold", "--strategy", "adalos"], ["Did you mean 'adaloss'"]),
        (["train", "softmax-threshold", "--recipe", "full"], ["no recipe called 'full'"]),
        (["run", "/dev/null/x.yaml"], ["x.yaml"]),
    ],
)
def test_a_wrong_word_is_one_message_and_exit_2(words: list[str], says: list[str], tmp_path: Path, adaptbench) -> None:
    done = adaptbench(*words)
    assert done.code == 2
    assert done.err.startswith("error: ")
    for part in says:
        assert part in done.err.replace("\n       ", " ")
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_directory(tmp_path: Path, adaptbench) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    done = adaptbench("run", SMALL, "--out", "file/run")
    assert done.code == 2
    assert "file/run" in done.err


@pytest.mark.parametrize(
    ("fault", "says"), [("truncated", "SHA-256"), ("pickle", "pickle"), ("nan", "NaN"), ("foreign policy", "policy")]
)
def test_a_bad_checkpoint_is_refused(fault: str, says: str, tmp_path: Path, adaptbench) -> None:
    shutil.copytree(SHIPPED / "digits", tmp_path / "zoo" / "digits")
    place = tmp_path / "zoo" / "digits" / "multi-exit.safetensors"
    if fault == "truncated":
        place.write_bytes(place.read_bytes()[:1000])
    elif fault == "pickle":
        torch.save({"a": torch.zeros(1)}, place)
    elif fault == "nan":
        tensors = load_file(place)
        next(t for t in tensors.values() if t.is_floating_point()).view(-1)[0] = float("nan")
        data = save(tensors)
        place.write_bytes(data)
        card = json.loads(checkpoints.card_path(place).read_text(encoding="utf-8"))
        card["sha256"] = hashlib.sha256(data).hexdigest()
        checkpoints.card_path(place).write_text(json.dumps(card), encoding="utf-8")
    else:
        for suffix in (".safetensors", ".json"):
            shutil.copy(
                place.with_name(f"uniform.policy{suffix}"), place.with_name(f"softmax-threshold.policy{suffix}")
            )
    done = adaptbench("run", SMALL, "--zoo", "zoo", "--out", "run")
    assert done.code == 2
    assert says in done.err


def test_help_is_complete(adaptbench) -> None:
    text = adaptbench("--help").out
    for command in ("run", "report", "check", "baseline", "train", "list", "doctor"):
        assert command in text


def test_models_that_ship_for_a_data_set(adaptbench) -> None:
    ready = adaptbench("list", "models", "--data", "cifar10")
    assert ready.code == 0
    assert "exits-and-nets" in ready.out
    assert "resnet110" not in ready.out
    unknown = adaptbench("list", "models", "--data", "cifar11")
    assert unknown.code == 2
    assert "Did you mean 'cifar10'" in unknown.err
    nonsense = adaptbench("list", "data", "--data", "cifar10")
    assert nonsense.code == 2
    assert "list models" in nonsense.err
