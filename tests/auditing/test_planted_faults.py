"""A fault planted in a net is found by the check that looks for it, and by its name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import adaptbench as ab
from adaptbench.adaptive import Policy
from adaptbench.attacks.registry import ATTACKS
from adaptbench.auditing.checks import checks_of, left_in_train_mode
from adaptbench.auditing.evidence import evidence
from adaptbench.auditing.findings import Check, at_rest
from adaptbench.auditing.pictures import cheap_by_content, full_range, normaliser_inside
from adaptbench.auditing.slopes import slopes
from adaptbench.auditing.target import Target
from adaptbench.policies import ChainPolicy
from adaptbench.registry import Entry

QUICK = str(Path(__file__).parent / "quick.yaml")


@pytest.fixture(scope="module")
def test_split() -> ab.Split:
    return ab.load_data("digits").split("test").first(120)


def named(found: list[Check], name: str) -> Check:
    (check,) = (check for check in found if check.name == name)
    return check


def test_a_sound_net_passes(two_heads: ab.MultiExit, test_split: ab.Split) -> None:
    with at_rest(two_heads):
        found = checks_of(two_heads, Target("net", "net", "object", two_heads), test_split, seed=0, device="cpu")
    assert [check for check in found if check.level != "ok"] == []


def test_train_mode_is_found(foreign: ModuleType) -> None:
    net = foreign.adapted(foreign.trained(foreign.TwoHeads(), epochs=1))
    assert left_in_train_mode(net).level == "ok"
    net.train()
    found = left_in_train_mode(net)
    assert found.level == "doubt"
    assert "BatchNorm1d" in found.seen
    done = ab.audit(net, "digits", attacks=QUICK, limit=20)
    assert any(check.name == "train mode" for check in done.doubts)
    assert all(module.training for module in net.modules()), "the net is as it was handed over"


class BatchStatistics(nn.Module):
    """Normalises by the batch it is in, in eval mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0, unbiased=False) + 1e-3)


def test_a_batch_that_couples_its_samples_is_found(test_split: ab.Split) -> None:
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Flatten(), BatchStatistics(), nn.Linear(64, 16)), nn.Linear(16, 16)]
    net = ab.MultiExit(stages, [nn.Linear(16, 10), nn.Linear(16, 10)], input_shape=(1, 8, 8))
    net.policy = ab.policies.UniformThreshold(0.3)
    found = checks_of(net, Target("net", "net", "object", net), test_split, seed=0, device="cpu")
    law = named(found, "law: skipping changes what is paid, not what is answered")
    assert law.level == "cannot be trusted"


class HardGate(ChainPolicy):
    """Rounds its margin: no gradient comes through."""

    name = "hard-gate"

    def margin(self, node: int, signals: object) -> Tensor:
        return 0.5 - (signals.confidence > 0.9).float()


def test_hard_gates_without_gradient_are_found(two_heads: ab.MultiExit, test_split: ab.Split) -> None:
    found = slopes(two_heads.under(HardGate()), test_split.images(0, 40))
    assert found.level == "cannot be trusted"
    assert "exactly zero at" in found.seen


class Remembers(ChainPolicy):
    """Knows the benchmark's pictures by their bytes and leaves at once; everybody else pays for the whole net."""

    name = "remembers"

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = known

    def margin(self, node: int, signals: object) -> Tensor:
        seen = torch.isin((signals.logits.double().sum(-1) * 1e6).round(), self.known)
        return 0.1 - 0.2 * seen.float() + 0.0 * signals.confidence


def overfitted(net: ab.MultiExit, split: ab.Split) -> ab.MultiExit:
    with torch.no_grad():
        early = net.dense_logits(split.images())[:, 0]
    return net.under(Remembers((early.double().sum(-1) * 1e6).round()))


def test_a_net_that_is_cheap_on_clean_bytes_only_is_found(two_heads: ab.MultiExit, test_split: ab.Split) -> None:
    net = overfitted(two_heads.eval(), test_split)
    assert (net.infer(test_split.images()).macs == net.min_macs).float().mean() > 0.9
    found = cheap_by_content(net, test_split, 0, "cpu")
    assert found.level == "cannot be trusted"
    assert "exact bytes" in found.seen


def test_a_normaliser_outside_is_found(foreign: ModuleType, test_split: ab.Split) -> None:
    outside = foreign.adapted(foreign.trained(foreign.TwoHeads(), scale=1 / 0.3, shift=-0.5 / 0.3))
    found = normaliser_inside(outside, test_split, "cpu")
    assert found.level == "cannot be trusted", found
    assert "its normaliser is outside" in found.seen
    declared = ab.from_logits_list(foreign.TwoHeads().eval(), input_shape=(1, 8, 8), bounds=(-1.0, 1.0))
    assert "declares inputs in [-1, 1]" in normaliser_inside(declared, test_split, "cpu").seen


@pytest.mark.parametrize(("divide", "level"), [(1, "ok"), (16, "doubt"), (255, "cannot be trusted")])
def test_a_range_that_is_not_used_is_found(test_split: ab.Split, divide: int, level: str) -> None:
    x = test_split.x // divide
    split = ab.Split("dim", "test", x, test_split.y, test_split.ids, test_split.class_names)
    assert full_range(split).level == level


class Drawn(nn.Module):
    """Dropout that forgets to stop."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def test_what_draws_is_found(test_split: ab.Split) -> None:
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), nn.Sequential(Drawn(), nn.Linear(16, 16))]
    net = ab.MultiExit(stages, [nn.Linear(16, 10), nn.Linear(16, 10)], input_shape=(1, 8, 8))
    net.policy = ab.policies.UniformThreshold(0.99)
    found = checks_of(net, Target("net", "net", "object", net), test_split, seed=0, device="cpu")
    assert named(found, "determinism").level == "cannot be trusted"


def test_a_factory_that_makes_another_net_is_found(foreign: ModuleType, test_split: ab.Split) -> None:
    def make() -> ab.MultiExit:
        return foreign.adapted(foreign.TwoHeads().eval())

    net = make()
    found = checks_of(net, Target("net", "nets:make", "factory", net, make), test_split, seed=0, device="cpu")
    assert "makes another net at each call" in named(found, "determinism").seen


def test_an_attack_that_leaves_the_ball_is_found(audited: ab.Audit) -> None:
    run = audited.run()
    for case in run.cases:
        if case["condition"] == "quick":
            case["linf_max"] = 17 / 255
    check = named(evidence(run, audited.figures, []), "crafted pictures inside their ball")
    assert check.level == "cannot be trusted"
    assert "quick moves a value by 17/255" in check.seen


def test_a_recipe_that_leaves_the_ball_is_found_from_end_to_end(
    foreign: ModuleType, two_heads: ab.MultiExit, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("leaver", "foreign_nets:Leaver", "a plug-in")
    monkeypatch.setitem(ATTACKS._entries, "leaver", entry)
    done = ab.audit(two_heads, "digits", attacks="leaver", eps="8/255", limit=20)
    check = named(done.checks, "crafted pictures inside their ball")
    assert check.level == "cannot be trusted"
    assert "leaver moves a value by 32/255" in check.seen
    assert not done.trusted


def test_chance_that_does_as_well_is_found(audited: ab.Audit) -> None:
    figures = audited.figures | {"conditions": {**audited.figures["conditions"]}}
    figures["conditions"]["noise"] = figures["conditions"]["noise"] | {"recovery": audited.figures["recovery"]}
    check = named(evidence(audited.run(), figures, []), "controls")
    assert check.level == "cannot be trusted"


def test_what_cannot_be_trusted_ends_with_three(two_heads: ab.MultiExit) -> None:
    from adaptbench.auditing.limits import Limits, verdict

    test = ab.load_data("digits").split("test").first(40)
    done = ab.audit(overfitted(two_heads.eval(), test), test, attacks=QUICK)
    assert not done.trusted
    assert "NOT" in str(done)
    assert verdict(done, Limits()).exit_code == 3
    assert verdict(done, Limits(max_recovery=1.0)).exit_code == 3
    assert verdict(done, Limits(min_accuracy=1.0)).exit_code == 1


def test_a_net_that_saves_nothing_has_no_recovery(two_heads: ab.MultiExit) -> None:
    always = two_heads.under(ab.policies.UniformThreshold(1.1))
    test = ab.load_data("digits").split("test").first(20)
    done = ab.audit(always, test, attacks=QUICK)
    assert done.figures["recovery"] is None
    with pytest.raises(ab.AdaptBenchError, match="no recovery"):
        done.recovery  # noqa: B018
    assert isinstance(always.policy, Policy)
