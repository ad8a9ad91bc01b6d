from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import adaptbench as ab
from adaptbench.auditing.bundle import altered, digest_of
from adaptbench.auditing.limits import Limits, verdict
from adaptbench.errors import LeakageError, OutputError, UsageError

QUICK = str(Path(__file__).parent / "quick.yaml")


def test_a_foreign_net_is_audited(audited: ab.Audit) -> None:
    assert 0 < audited.recovery.low <= audited.recovery.value <= audited.recovery.high <= 1
    assert audited.accuracy.value > 0.85
    assert 0.2 < audited.saving.value < 1
    assert audited.trusted, audited.doubts
    assert audited.figures["worst"] == "quick"
    assert audited.recovery_seen.value >= audited.recovery.value


def test_it_prints_its_table(audited: ab.Audit) -> None:
    text = str(audited)
    for part in ("attacker takes back", "noise 16/255 (control)", "quick 16/255", "CVaR 5 %", "checks of"):
        assert part in text, text


def test_the_bundle_is_whole(audited: ab.Audit) -> None:
    names = {place.name for place in audited.path.iterdir()}
    assert names == {
        "run",
        "suite.yaml",
        "summary.json",
        "report.html",
        "AUDIT.md",
        "SHA256SUMS",
        "inputs.safetensors",
        "recipes",
    }
    assert altered(audited.path) == []
    told = (audited.path / "AUDIT.md").read_text(encoding="utf-8")
    for part in ("Threat model", "not tried", audited.summary["model"]["sha256"], "How to verify"):
        assert part in told
    run = audited.run()
    (attack,) = (case for case in run.cases if case["kind"] == "attack")
    assert attack["recovery"] == audited.recovery.value
    assert attack["recovery_ci"] == [audited.recovery.low, audited.recovery.high]


def test_it_is_saved_elsewhere(audited: ab.Audit, tmp_path: Path) -> None:
    place = audited.save(tmp_path / "kept")
    assert altered(place) == []
    assert digest_of(place) == digest_of(audited.path)
    assert ab.Audit.open(place).recovery == audited.recovery
    with pytest.raises(OutputError, match="not empty"):
        audited.save(place)


def test_limits_are_held_against_the_unkind_end(audited: ab.Audit) -> None:
    between = (audited.recovery.value + audited.recovery.high) / 2
    assert verdict(audited, Limits(max_recovery=between)).exit_code == 1
    assert verdict(audited, Limits(max_recovery=1.0, min_accuracy=0.5)).exit_code == 0
    assert verdict(audited, Limits(min_accuracy=audited.accuracy.value)).exit_code == 1
    assert verdict(audited, Limits(max_macs=1)).exit_code == 1
    with pytest.raises(UsageError, match="no share"):
        Limits(max_recovery=2)


def test_the_net_is_left_as_it_was(two_heads: ab.MultiExit, audited: ab.Audit) -> None:
    assert all(weight.requires_grad for weight in two_heads.parameters())


def test_tensors_will_do(foreign: ModuleType, two_heads: ab.MultiExit) -> None:
    test = ab.load_data("digits").split("test").first(20)
    done = ab.audit(two_heads, (test.images(), test.y), attacks=QUICK)
    assert done.summary["data"]["name"] == "pictures"
    assert done.figures["n"] == 20
    with pytest.raises(ab.AdaptBenchError, match="span"):
        ab.audit(two_heads, (test.images() * 2 - 1, test.y), attacks=QUICK)


def test_pictures_that_shaped_the_net_are_refused(two_heads: ab.MultiExit) -> None:
    with pytest.raises(LeakageError, match="calibration"):
        ab.audit(two_heads, ab.load_data("digits").split("calibration"))


def test_a_policy_is_fitted_by_its_name(two_heads: ab.MultiExit) -> None:
    done = ab.audit(two_heads, "digits", policy="{uniform: {drop: 0.01}}", attacks=QUICK, limit=20)
    assert done.summary["model"]["policy"] == "uniform"
    assert done.summary["model"]["asked_policy"] == {"uniform": {"drop": 0.01}}
    handed = ab.audit(two_heads, "digits", policy=ab.policies.UniformThreshold(0.5), attacks=QUICK, limit=20)
    assert handed.saving.value > 0.2


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"attacks": "ilfoo"}, "no attack is called 'ilfoo'"),
        ({"attacks": " , "}, "no attack was named"),
        ({"eps": "eight"}, "no size"),
        ({"limit": 0}, "leaves no inputs"),
        ({"share": 0.1}, "share 0.1 was given for pictures"),
        ({"share": 0.1, "eps": 0.1}, "eps and share were both given"),
        ({"policy": "[1]"}, "no policy"),
        ({"policy": "exact-bugdet"}, "no policy is called"),
        ({"data": "digitz"}, "no data set is called"),
        ({"model": "softmax-treshold"}, "Did you mean 'softmax-threshold'"),
        ({"model": "./nets.py:build"}, "--allow-imports"),
        ({"model": "./nets.py:build", "allow_imports": True}, "no file"),
        ({"model": "no.such.package:build", "allow_imports": True}, "could not be imported"),
        ({"model": torch.nn.Linear(2, 2)}, "Linear was given"),
    ],
)
def test_wrong_words_are_told(how: dict, said: str) -> None:
    given = {"model": "softmax-threshold", "data": "digits", **how}
    with pytest.raises(ab.AdaptBenchError) as error:
        ab.audit(given.pop("model"), given.pop("data"), **given)
    assert said in str(error.value), str(error.value)


def test_an_audit_says_what_the_records_say(audited: ab.Audit) -> None:
    """Both are worked out by one function; there were two, whose tails differed at 140 inputs."""
    told = {
        "recovery": "recovery",
        "recovery_seen": "recovery_seen",
        "answers_kept": "label_kept",
        "macs_p99": "macs_p99",
    }
    assert any(case["kind"] == "attack" for case in audited.run().cases)
    for case in audited.run().cases:
        figures = audited.figures["conditions"][case["condition"]]
        assert figures["macs_cvar"] == case["macs_cvar"]
        for name, field in told.items():
            value = None if figures[name] is None else figures[name]["value"]
            assert value == case[field], name


def test_a_loader_will_do(foreign: ModuleType, two_heads: ab.MultiExit, tmp_path: Path) -> None:
    """Shuffled or not, its data set is taken in its own order."""
    test = ab.load_data("digits").split("test").first(24)
    pictures = torch.utils.data.TensorDataset(test.images(), test.y)
    loader = torch.utils.data.DataLoader(pictures, batch_size=5, shuffle=True)
    attacks = [QUICK]
    by_loader = ab.audit(two_heads, loader, attacks=attacks, out=tmp_path / "a")
    by_tensors = ab.audit(two_heads, (test.images(), test.y), attacks=attacks, out=tmp_path / "b")
    assert by_loader.summary["figures"] == by_tensors.summary["figures"]


MINE = """
from pathlib import Path
from adaptbench.models.text import text_exits
from adaptbench.testing.texts import write_encoder

class Says(nn.Module):
    def __init__(self, classes, soft=False, looks=False):
        super().__init__()
        self.heads, self.soft, self.looks = nn.ModuleList(nn.Linear(64, c) for c in classes), soft, looks

    def forward(self, x):
        x = x.flatten(1)
        if self.looks and x.mean() > 0:
            x = x + 1
        return [head(x).softmax(1) if self.soft else head(x) for head in self.heads]

def folder(without):
    place = write_encoder("encoder")
    (place / without).unlink()
    return place

"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("nn.Linear(64, 10)", "returned a Linear, not an adaptive net"),
        ("ab.wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), example=X)", "does not return a list of logits"),
        ("ab.wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), example=X, exits=['layer4'])", "'layer4' is no sub"),
        ("ab.attach_exits(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), after=['7'], example=X)", "'7' is no sub"),
        ("ab.BlackBox(lambda x: x, example=X, macs_full=1)", "not (logits, macs)"),
        ("ab.wrap(Says([2, 3]), example=X)", "has the shape (n, 3), output 0 (n, 2): not logits (n, C) alike"),
        ("ab.wrap(Says([2, 2], soft=True), example=X)", "holds probabilities, not logits"),
        ("ab.wrap(Says([2, 2], looks=True), example=X)", "could not be traced at"),
        (
            "text_exits(folder(without='model.safetensors'), n_classes=2, length=16)",
            "model.safetensors could not be read",
        ),
        ("text_exits(folder(without='tokenizer.json'), n_classes=2, length=16)", "tokenizer.json beside its weights"),
    ],
)
def test_what_cannot_be_adapted_ends_with_two_and_the_way_out(
    adaptbench: Callable[..., Any], tmp_path: Path, body: str, says: str
) -> None:
    (tmp_path / "mine.py").write_text(
        f"import torch\nfrom torch import nn\nimport adaptbench as ab\nX = torch.zeros(1, 1, 8, 8)\n"
        f"{MINE}def build():\n    return {body}\n"
    )
    ended = adaptbench("audit", "./mine.py:build", "--data", "digits", "--allow-imports", "--limit", "8")
    assert ended.code == 2
    said = " ".join(ended.err.split())
    assert says in said
    assert len(ended.err.splitlines()) > 1, "what was seen, and nothing of what to do"
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").rglob("summary.json"))
