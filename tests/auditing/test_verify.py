from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_bytes

import adaptbench as ab
from adaptbench.attacks import load_attack
from adaptbench.attacks.catalogue import shipped_folder
from adaptbench.auditing.asked import recipes_into
from adaptbench.auditing.bundle import SUMS, altered, files_in, write_sums
from adaptbench.bench.suite import checked
from adaptbench.errors import RunError, UsageError
from adaptbench.experiment.source import Source
from adaptbench.results.writer import seal

QUICK = str(Path(__file__).parent / "quick.yaml")


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


# ---------------------------------------------------------------------- the policy and the recipes of a bundle


@pytest.fixture(scope="module")
def fitted(two_heads: ab.MultiExit, tmp_path_factory: pytest.TempPathFactory) -> ab.Audit:
    place = tmp_path_factory.mktemp("audits") / "fitted"
    return ab.audit(two_heads, "digits", policy="{uniform: {drop: 0.01}}", attacks=QUICK, limit=20, out=place)


def test_a_fitted_policy_is_used_as_it_was(
    fitted: ab.Audit, two_heads: ab.MultiExit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another processor a fit ends a digit elsewhere; here it is made to."""
    kind = ab.policies.UniformThreshold
    monkeypatch.setattr(kind, "fit", classmethod(lambda cls, log, *, seed=0, drop=0.0: cls(0.5000001)))
    found = ab.verify(fitted.path, two_heads)
    assert found.exit_code == 0, str(found)
    assert "the policy: a 'uniform' as it was fitted then" in str(found)
    again = ab.verify(fitted.path, two_heads, refit=True)
    assert again.exit_code == 1
    assert "it is another one" in str(again)
    assert "the policy" not in str(again)


def test_a_policy_is_fitted_again_where_it_is_asked_for(fitted: ab.Audit, two_heads: ab.MultiExit) -> None:
    assert ab.verify(fitted.path, two_heads, refit=True).exit_code == 0


@pytest.mark.parametrize("refit", [False, True])
def test_the_net_is_left_as_it_was(fitted: ab.Audit, two_heads: ab.MultiExit, refit: bool) -> None:
    """A net made under a policy shares the weights of the one that was handed over."""
    two_heads.requires_grad_(True).train()
    ab.verify(fitted.path, two_heads, refit=refit)
    assert all(weight.requires_grad for weight in two_heads.parameters())
    assert all(module.training for module in two_heads.modules())


def test_nothing_is_fitted_again_that_was_not_fitted(audited: ab.Audit, two_heads: ab.MultiExit) -> None:
    with pytest.raises(UsageError, match="not fitted by the audit"):
        ab.verify(audited.path, two_heads, refit=True)


def test_a_bent_policy_is_named(fitted: ab.Audit, two_heads: ab.MultiExit, tmp_path: Path) -> None:
    """By the sums; where those are made anew by its card, then by the summary, and at last by the net's hash."""
    bundle = fitted.save(tmp_path / "bundle")
    place, card = bundle / "policy.safetensors", bundle / "policy.json"
    settings = json.loads(card.read_text())
    fitted_settings = dict(settings["settings"])
    settings["settings"]["threshold"] = 0.123
    card.write_text(json.dumps(settings))
    found = ab.verify(bundle, two_heads)
    assert (found.exit_code, "policy.json is altered" in str(found)) == (1, True)
    write_sums(bundle)
    found = ab.verify(bundle, two_heads)
    assert (found.exit_code, "it is another one" in str(found)) == (1, True), str(found)
    place.write_bytes(place.read_bytes() + b" ")
    write_sums(bundle)
    found = ab.verify(bundle, two_heads)
    assert found.exit_code == 1
    assert "DIFFERS the policy" in str(found)
    assert "policy.safetensors: its SHA-256" in str(found)
    place.write_bytes(to_bytes({}, metadata={"written": "anew"}))  # whole, and under its own card
    settings["sha256"] = hashlib.sha256(place.read_bytes()).hexdigest()
    settings["settings"] = fitted_settings
    card.write_text(json.dumps(settings))
    write_sums(bundle)
    found = ab.verify(bundle, two_heads)
    assert found.exit_code == 1
    assert "the audited one was a 'uniform'" in str(found)
    settings["policy"] = "nonesuch"
    card.write_text(json.dumps(settings))
    write_sums(bundle)
    assert ab.verify(bundle, two_heads).exit_code == 1


def test_a_policy_handed_over_is_kept_if_a_registry_has_its_class(two_heads: ab.MultiExit, tmp_path: Path) -> None:
    test = ab.load_data("digits").split("test").first(20)
    done = ab.audit(two_heads, test, policy=ab.policies.UniformThreshold(0.5), attacks=QUICK, out=tmp_path / "ours")
    assert done.summary["model"]["kept_policy"]["name"] == "uniform"
    assert ab.verify(done.path, two_heads).exit_code == 0, "the net comes under another policy, the bundle's is used"

    class Theirs(ab.policies.UniformThreshold):
        name = "theirs"

    other = ab.audit(two_heads, test, policy=Theirs(0.5), attacks=QUICK, out=tmp_path / "theirs")
    assert other.summary["model"]["kept_policy"] is None
    assert not (other.path / "policy.safetensors").exists()
    assert ab.verify(other.path, two_heads.under(Theirs(0.5))).exit_code == 0


def test_a_recipe_travels_with_its_bundle(fitted: ab.Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its suite runs from anywhere, and from the bundle's own copy even where a file of that name lies here."""
    bundle = fitted.save(tmp_path / "bundle")
    assert "recipes/quick.yaml" in (bundle / "suite.yaml").read_text()
    here = tmp_path / "here"
    (here / "recipes").mkdir(parents=True)
    (here / "recipes" / "quick.yaml").write_text("title: another\n")
    monkeypatch.chdir(here)
    source = Source.read(str(bundle / "suite.yaml"))
    suite = checked(source, ["TwoHeads"]).suite
    (ref,) = (c.ref for c in suite.conditions if c.id == "quick")
    assert load_attack(ref).sha256 == load_attack(QUICK).sha256


def test_two_recipes_of_one_name_are_refused(two_heads: ab.MultiExit, tmp_path: Path) -> None:
    other = tmp_path / "quick.yaml"
    other.write_text(Path(QUICK).read_text() + "\n# another\n")
    with pytest.raises(UsageError, match="both called 'quick'"):
        ab.audit(two_heads, "digits", attacks=[QUICK, str(other)], limit=20)


def test_recipes_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a shipped recipe is the shipped one; an altered control is kept with the bundle, and run once."""
    shipped, here = shipped_folder().resolve(), tmp_path / "here"
    (here / "attacks").mkdir(parents=True)
    monkeypatch.chdir(here)
    for name in ("noise", "noise-sign"):
        (here / "attacks" / f"{name}.yaml").write_bytes((shipped / f"{name}.yaml").read_bytes())
    asked = ["noise", "attacks/noise.yaml", "noise-gaussian"]
    assert recipes_into(tmp_path, asked) == ["noise", "noise-sign", "noise-gaussian"]
    (here / "attacks" / "noise.yaml").write_text((shipped / "noise.yaml").read_text() + "\n# ours\n")
    assert recipes_into(tmp_path, asked) == ["recipes/noise.yaml", "noise-sign", "noise-gaussian"]
    assert (tmp_path / "recipes" / "noise.yaml").read_text().endswith("# ours\n")
    with pytest.raises(UsageError, match="both called 'noise'"):
        recipes_into(tmp_path, ["noise", str(shipped / "noise.yaml")])
