"""The command line as a user types it: right words, wrong words, exit codes, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

SMALL = str(Path(__file__).parent / "small.yaml")


def adaptbench(*words: str, cwd: Path | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "adaptbench", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**__import__("os").environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run in it."""
    folder = tmp_path_factory.mktemp("room")
    done = adaptbench("run", SMALL, "--out", "runs/small", cwd=folder)
    (folder / "stdout").write_text(done.stdout, encoding="utf-8")
    return folder


def test_run_prints_the_table_and_where_things_are(room: Path) -> None:
    text = (room / "stdout").read_text(encoding="utf-8")
    expected = (
        "small · digits, 30 test images",
        "takes back",
        "ilfo",
        "(control)",
        "things to know",
        "reports/small.html",
    )
    for words in (*expected, "adaptbench check"):
        assert words in text
    assert (room / "reports" / "small.html").stat().st_size > 10_000


def test_check_formats_and_exit_codes(room: Path) -> None:
    adaptbench("baseline", "runs/small", "--out", "base.json", cwd=room)
    itself = adaptbench("check", "runs/small", "--baseline", "base.json", cwd=room, code=3)
    assert "kept of this very run" in itself.stdout
    kept = json.loads((room / "base.json").read_text(encoding="utf-8"))
    kept["manifest"]["id"] = "another run of the same truth"
    (room / "base.json").write_text(json.dumps(kept), encoding="utf-8")
    done = adaptbench("check", "runs/small", "--baseline", "base.json", cwd=room)
    assert "0 regression" in done.stdout or "pass" in done.stdout
    adaptbench("check", "runs/small", "--baseline", "base.json", "--format", "junit", "--out", "gate.xml", cwd=room)
    assert ET.parse(room / "gate.xml").getroot().tag in {"testsuites", "testsuite"}
    verdict = json.loads(
        adaptbench("check", "runs/small", "--baseline", "base.json", "--format", "json", cwd=room).stdout
    )
    assert verdict
    broken = json.loads((room / "base.json").read_text(encoding="utf-8"))
    clean = next(c for c in broken["cases"] if c["kind"] == "clean")
    clean["macs_mean"] -= 1000
    for packed in broken["samples"].values():
        packed["macs"]["levels"] = [m - 1000 for m in packed["macs"]["levels"]]
    (room / "cheaper.json").write_text(json.dumps(broken), encoding="utf-8")
    adaptbench("check", "runs/small", "--baseline", "cheaper.json", cwd=room, code=1)


def test_the_gate_can_fire(room: Path) -> None:
    adaptbench("check", "runs/small", "--selftest", cwd=room)


def test_dry_run_runs_nothing(tmp_path: Path) -> None:
    done = adaptbench("run", SMALL, "--dry-run", cwd=tmp_path)
    assert "Nothing was run" in done.stdout
    assert "digits/skipnet/ilfo" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["models", "policies", "attacks", "data", "meters", "suites"])
def test_lists(kind: str) -> None:
    done = adaptbench("list", kind)
    expected = {
        "models": "dag-selection",
        "policies": "oracle",
        "attacks": "deepsloth",
        "data": "fashion-mnist",
        "meters": "nvml",
        "suites": "bench",
    }
    assert expected[kind] in done.stdout


def test_doctor_speaks_of_every_sensor(tmp_path: Path) -> None:
    text = adaptbench("doctor", cwd=tmp_path).stdout
    for word in ("NVML", "RAPL", "odecarbon", "digits", "fashion-mnist"):
        assert word.lower() in text.lower()


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
        (["run", "bench", "--zoo", "none"], ["no checkpoint", "adaptbench train"]),
        (["report", "nowhere"], ["nowhere"]),
        (["check", "nowhere", "--baseline", "base.json"], ["nowhere"]),
        (["train", "statics"], ["no model is called 'statics'", "'static'"]),
        (["run", "/dev/null/x.yaml"], ["x.yaml"]),
    ],
)
def test_a_wrong_word_is_one_message_and_exit_2(words: list[str], says: list[str], tmp_path: Path) -> None:
    done = adaptbench(*words, cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: ")
    for part in says:
        assert part in done.stderr.replace("\n       ", " ")
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    done = adaptbench("run", SMALL, "--out", "file/run", cwd=tmp_path, code=2)
    assert "file/run" in done.stderr


@pytest.mark.parametrize("fault", ["truncated", "pickle", "nan", "foreign policy"])
def test_a_bad_checkpoint_is_refused(fault: str, tmp_path: Path) -> None:
    import shutil

    import torch

    from adaptbench.zoo import checkpoints
    from adaptbench.zoo.loading import SHIPPED

    shutil.copytree(SHIPPED / "digits", tmp_path / "zoo" / "digits")
    place = tmp_path / "zoo" / "digits" / "multi-exit.safetensors"
    if fault == "truncated":
        place.write_bytes(place.read_bytes()[:1000])
    elif fault == "pickle":
        torch.save({"a": torch.zeros(1)}, place)
    elif fault == "nan":
        from safetensors.torch import load_file, save

        tensors = load_file(place)
        next(t for t in tensors.values() if t.is_floating_point()).view(-1)[0] = float("nan")
        data = save(tensors)
        place.write_bytes(data)
        card = json.loads(checkpoints.card_path(place).read_text(encoding="utf-8"))
        card["sha256"] = __import__("hashlib").sha256(data).hexdigest()
        checkpoints.card_path(place).write_text(json.dumps(card), encoding="utf-8")
    else:
        for suffix in (".safetensors", ".json"):
            shutil.copy(
                place.with_name(f"uniform.policy{suffix}"), place.with_name(f"softmax-threshold.policy{suffix}")
            )
    done = adaptbench("run", SMALL, "--zoo", "zoo", "--out", "run", cwd=tmp_path, code=2)
    says = {"truncated": "SHA-256", "pickle": "pickle", "nan": "NaN", "foreign policy": "policy"}
    assert says[fault] in done.stderr


def test_help_is_complete() -> None:
    text = adaptbench("--help").stdout
    for command in ("run", "report", "check", "baseline", "train", "list", "doctor"):
        assert command in text


def test_models_that_ship_for_a_data_set() -> None:
    ready = adaptbench("list", "models", "--data", "cifar10").stdout
    assert "exits-and-nets" in ready
    assert "resnet110" not in ready
    assert "Did you mean 'cifar10'" in adaptbench("list", "models", "--data", "cifar11", code=2).stderr
    assert "list models" in adaptbench("list", "data", "--data", "cifar10", code=2).stderr
