"""Attacks that meant something else than they said: scales, ranges, versions, stale cells."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from adaptbench.adaptive import MultiExit
from adaptbench.attacks import load_attack
from adaptbench.attacks.slopes import ClosedClamp
from adaptbench.bench import keys
from adaptbench.bench.plan import make_plan
from adaptbench.bench.suite import load_suite
from adaptbench.policies import UniformThreshold


class _Clamping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x.clamp(0.0, 1.0)
        self.seen.append(type(out.grad_fn).__name__)
        return out.flatten(1)


@pytest.mark.case("own")
def test_an_attacks_gradient_does_not_hang_on_which_slope_torch_gives_clamp_at_its_bounds() -> None:
    """PGD on digits left 37.5 % right under torch 2.14 and 7.8 % under 2.13: black pixels had lost their gradient."""
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    for clamp in (
        lambda t: t.clamp(0.0, 1.0),
        lambda t: torch.clamp(t, min=0.0, max=1.0),
        lambda t: (t * 1.0).clamp_(0, 1),
        lambda t: t.clip(0, 1),
        lambda t: t.clamp_min(0).clamp_max(1),
    ):
        x = values.clone().requires_grad_()
        with ClosedClamp():
            out = clamp(x)
        out.sum().backward()
        assert out.tolist() == [0, 0, 0.5, 1, 1]
        assert x.grad is not None
        assert x.grad.tolist() == [0, 1, 1, 1, 0]
    stage = _Clamping()
    model = MultiExit([stage, nn.Identity()], [nn.Linear(16, 3), nn.Linear(16, 3)], input_shape=(1, 4, 4)).eval()
    model.policy = UniformThreshold(0.1)
    black = torch.zeros(2, 1, 4, 4)
    for name in ("ilfo", "torchattacks/PGD"):
        stage.seen.clear()
        load_attack(name, {"steps": 2}).craft(model, black, torch.tensor([0, 1]))
        assert "_ClampBackward" in stage.seen, name


def _small() -> object:
    suite = load_suite("ci", ["data=digits", "models=[learned-cascade]", "conditions=[clean, transfer]", "limit=4"])
    return make_plan(suite)


@pytest.mark.case("own")
def test_a_cells_key_changes_with_everything_it_hangs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another surrogate under the same name in the same directory gave the stale pictures back."""
    plan = _small()
    clean, attacked = plan.evaluations
    model, split, attack = attacked.model, attacked.split, attacked.attack
    other = plan.surrogates["softmax-threshold"]
    given = {"seed": 0, "device": "cpu", "chunk": 500}

    def key(identity=("e",), model=model, split=split, attack=attack, surrogate=other, **changed) -> str:
        return keys.evaluation_key(identity, model, split, attack, surrogate, **given | changed)

    def touched(net: nn.Module, change: object) -> nn.Module:
        twin = copy.deepcopy(net)
        change(twin)
        return twin

    def weight(net: nn.Module) -> None:
        with torch.no_grad():
            next(net.parameters()).view(-1)[0] += 1e-6

    def unsaved_buffer(net: nn.Module) -> None:
        net.stages[0].register_buffer("scale", torch.ones(1), persistent=False)

    def policy(net: nn.Module) -> None:
        net.policy = net.policy.at(net.policy.knob_value / 2)

    def layer(net: nn.Module) -> None:
        net.heads[0] = nn.Sequential(net.heads[0], nn.ReLU())

    def setting(net: nn.Module) -> None:
        next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)).eps = 1e-2

    def source(kinds: object) -> dict[str, str]:
        return {"mine": "another text"}

    ids = dataclasses.replace(split, ids=split.ids + 1)
    labels = dataclasses.replace(split, y=(split.y + 1) % 10, sha256="")
    pictures = dataclasses.replace(split, x=split.x + 1, sha256="")
    found = [
        key(),
        key(identity=("other",)),
        key(seed=1),
        key(device="cuda"),
        key(chunk=2),
        key(split=ids),
        key(split=labels),
        key(split=pictures),
        key(attack=None, surrogate=None),
        key(attack=load_attack("transfer", {"steps": 99})),
        key(attack=load_attack("transfer", {"surrogate": "static"})),
        key(surrogate=touched(other, weight)),
        key(surrogate=touched(other, policy)),
        key(model=touched(model, weight)),
        key(model=touched(model, policy)),
        key(model=touched(model, unsaved_buffer)),
        key(model=touched(model, layer)),
        key(model=touched(model, setting)),
    ]
    for name, value in (("own_code", lambda: "mended"), ("foreign_sources", source)):
        with monkeypatch.context() as patch:
            patch.setattr(keys, name, value)
            found.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        found.append(key())
    assert len(set(found)) == len(found)
    assert key() == found[0] == key(model=copy.deepcopy(model), device="cpu:0")
    assert attacked.key != clean.key


@pytest.mark.case("own")
def test_a_torchattacks_cell_and_record_name_the_versions() -> None:
    """Two rows of the same name came from two versions, and nothing said so."""
    versions = load_attack("torchattacks/PGD").versions
    assert versions.keys() == {"torchattacks", "torch"}
    one, other = load_attack("torchattacks/PGD"), load_attack("torchattacks/PGD", {"steps": 3})
    assert one.sha256 == load_attack("torchattacks/PGD").sha256 != other.sha256
