"""`adaptbench attack`: pictures on the disk, a document that says of what, and nothing that is overwritten."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import adaptbench as ab
from adaptbench.results.files import digest, unbroken

ILFO = ("--data", "digits", "--recipe", "ilfo", "-o", "steps=20", "-o", "eps=48/255", "--limit", "6")


def document(place):
    return json.loads((place / "crafted.json").read_text(encoding="utf-8"))


def test_pictures_cost_what_the_document_says(adaptbench, tmp_path):
    done = adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear")
    assert done.code == 0, done.err
    for said in ("ilfo on softmax-threshold", "head-room taken back", "accuracy", "answers kept", "/255 (L∞)"):
        assert said in done.out
    assert len(done.out.splitlines()) < 24, "one screen"
    told = document(tmp_path / "dear")
    ids = told["samples"]["id"]
    pictures = np.stack([np.asarray(Image.open(tmp_path / "dear" / "pictures" / f"{i}.png")) for i in ids])
    x = torch.from_numpy(pictures)[:, None].float() / 255
    inference = ab.load_model("softmax-threshold", "digits").infer(x)
    assert inference.macs.tolist() == told["samples"]["macs_after"]
    assert inference.predictions.tolist() == told["samples"]["answer_after"]
    assert told["figures"]["after"]["macs_mean"] == pytest.approx(np.mean(told["samples"]["macs_after"]))
    assert told["figures"]["after"]["recovery_ci"]
    assert told["attack"]["settings"]["steps"] == 20
    assert told["samples"]["queries"] is None
    assert told["digest"] == digest(told)
    assert len(told["files"]) == 6
    assert all(unbroken(tmp_path / "dear" / name, seal) for name, seal in told["files"].items())


def test_a_query_attack_on_a_net_under_a_policy_as_safetensors(adaptbench, tmp_path):
    done = adaptbench(
        "attack", "multi-exit", "--policy", "softmax-threshold: {epsilon: 0.05}", "--data", "digits", "--limit", "5",
        "--recipe", "best-of-n", "-o", "queries=3", "--format", "safetensors", "--out", "dear",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "queries an input" in done.out
    told, tensors = document(tmp_path / "dear"), load_file(tmp_path / "dear" / "crafted.safetensors")
    assert tensors["x_adv"].shape == (5, 1, 8, 8)
    assert tensors["x_adv"].dtype == np.uint8
    assert tensors["ids"].tolist() == told["samples"]["id"]
    assert tensors["labels"].tolist() == told["samples"]["label"]
    assert max(told["samples"]["queries"]) == 3
    assert told["model"]["policy_settings"] == {"epsilon": 0.05}


def test_a_suite_crafts_the_same_bytes(adaptbench, tmp_path):
    assert adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear").code == 0
    overrides = ["models=[softmax-threshold]", "conditions=[clean, {ilfo: {steps: 20, eps: 48/255}}]", "measure=null"]
    run = ab.run("ci", out=tmp_path / "run", limit=6, overrides=[*overrides, "gate={}", "references=[]", "sweeps={}"])
    told, case = document(tmp_path / "dear"), next(c for c in run.cases if c["kind"] == "attack")
    assert told["inputs_sha256"] == case["inputs_sha256"]
    assert told["attack"]["sha256"] == case["attack_sha256"]
    assert told["figures"]["after"]["recovery"] == case["recovery"]


def test_nothing_is_overwritten(adaptbench, tmp_path):
    assert adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear").code == 0
    before = document(tmp_path / "dear")
    again = adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear")
    assert again.code == 2
    assert "crafted pictures lie there" in again.err
    assert "--fresh" in again.err
    assert document(tmp_path / "dear") == before
    tensors = ("--format", "safetensors", "--seed", "1", "--fresh")
    assert adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear", *tensors).code == 0
    assert not (tmp_path / "dear" / "pictures").exists()
    assert document(tmp_path / "dear")["seed"] == 1
    (tmp_path / "dear" / "mine.txt").write_text("mine")
    foreign = adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear", "--fresh")
    assert foreign.code == 2
    assert "mine.txt" in foreign.err
    assert (tmp_path / "dear" / "crafted.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["skipnt", "--data", "digits", "--recipe", "ilfo"], ["skipnt", "Did you mean 'skipnet'"]),
        (["skipnet", "--data", "digts", "--recipe", "ilfo"], ["digts", "digits"]),
        (["skipnet", "--data", "digits", "--recipe", "ifo"], ["ifo", "ilfo"]),
        (["skipnet", "--data", "digits", "--recipe", "ilfo", "-o", "epz=1"], ["no setting 'epz'", "eps"]),
        (["skipnet", "--data", "digits", "--recipe", "ilfo", "-o", "eps"], ["'eps' is not key=value"]),
        (["static", "--data", "digits", "--recipe", "ilfo"], ["cannot attack 'static'", "one path"]),
        (["skipnet", "--data", "digits", "--recipe", "deepsloth"], ["cannot attack 'skipnet'"]),
        (["skipnet", "--data", "digits", "--recipe", "ilfo", "--policy", "[a, b]"], ["--policy", "is no policy"]),
        (["skipnet", "--data", "digits", "--recipe", "ilfo", "--policy", "entropy"], ["takes no policy"]),
        (["skipnet", "--recipe", "ilfo"], ["--data"]),
    ],
)
def test_mistakes_end_with_2_and_leave_nothing(adaptbench, tmp_path, words, says):
    done = adaptbench("attack", *words, "--out", "dear")
    assert done.code == 2
    for word in says:
        assert word in done.err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing(adaptbench, tmp_path, monkeypatch):
    from adaptbench.attacks.engine import Optimiser

    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Optimiser, "run", stopped)
    done = adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear")
    assert done.code == 130
    assert "nothing was written" in done.err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_finished_chunks_and_the_same_command_goes_on(adaptbench, tmp_path, monkeypatch):
    """Everything was lost, however long it had taken."""
    from adaptbench.attacks import Attack

    monkeypatch.setattr("adaptbench.bench.one_attack.CHUNK", 2)
    whole = adaptbench("attack", "softmax-threshold", *ILFO, "--out", "whole")
    assert whole.code == 0, whole.err
    craft, made = Attack.craft, []

    def interrupted(self, *given, **named):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return craft(self, *given, **named)

    monkeypatch.setattr(Attack, "craft", interrupted)
    stopped = adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear")
    assert stopped.code == 130
    assert "the first 4 of 6 pictures are kept in dear" in " ".join(stopped.err.split())
    assert "same command goes on" in " ".join(stopped.err.split())
    assert not (tmp_path / "dear" / "crafted.json").exists()
    done = adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear")
    assert done.code == 0, done.err
    assert len(made) == 4, "only the third chunk was crafted anew"
    one, other = document(tmp_path / "whole"), document(tmp_path / "dear")
    for part in ("inputs_sha256", "samples", "details"):
        assert one[part] == other[part]
    assert {entry.name for entry in (tmp_path / "dear").iterdir() if entry.name != ".lock"} == {
        "crafted.json",
        "pictures",
    }


def test_another_attack_takes_nothing_that_was_kept(adaptbench, monkeypatch):
    from adaptbench.attacks import Attack

    monkeypatch.setattr("adaptbench.bench.one_attack.CHUNK", 2)
    craft, made = Attack.craft, []

    def interrupted(self, *given, **named):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return craft(self, *given, **named)

    monkeypatch.setattr(Attack, "craft", interrupted)
    assert adaptbench("attack", "softmax-threshold", *ILFO, "--out", "dear").code == 130
    made.clear()
    monkeypatch.setattr(Attack, "craft", lambda *given, **named: made.append(1) or craft(*given, **named))
    assert adaptbench("attack", "softmax-threshold", *ILFO, "-o", "steps=19", "--out", "dear").code == 0
    assert len(made) == 3


MINE = """
import torch
from torch import nn
import adaptbench as ab


def build(data, width=4):
    torch.manual_seed(0)
    stages = [nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(width * 64, 10)) for _ in range(2)]
    net = ab.MultiExit(stages, heads, input_shape=(1, 8, 8)).eval()
    net.policy = ab.policies.UniformThreshold(0.2)
    return net
"""


def test_a_net_of_ones_own_is_attacked_where_its_file_may_be_run(adaptbench, tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    asked = (
        "attack",
        "./mine.py:build(width=6)",
        "--data",
        "digits",
        "--recipe",
        "deepsloth",
        "--limit",
        "8",
        "--out",
        "dear",
    )
    refused = adaptbench(*asked)
    assert refused.code == 2
    assert "its file would be run here" in refused.err
    assert not (tmp_path / "dear").exists()
    done = adaptbench(*asked, "--allow-imports")
    assert done.code == 0, done.err
    assert "mine.py:build" in done.out
    told = document(tmp_path / "dear")
    spec = {}
    exec(compile(MINE, "mine.py", "exec"), spec)
    ids = torch.tensor(told["samples"]["id"])
    x = ab.load_data("digits").split("test").images(0, 8)
    assert spec["build"]("digits", width=6).infer(x).macs.tolist() == [
        told["samples"]["macs_before"][i] for i in ids.argsort().tolist()
    ]
