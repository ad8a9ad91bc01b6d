import random

import numpy as np
import pytest
import torch
from attack_toys import random_model

from adaptbench.attacks.purity import fingerprint, same_weights, untouched


def test_everything_is_put_back(caplog):
    model = random_model("multi-exit").train()
    model.stages[0].eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.heads[0].weight.requires_grad_(False)
    before, numpy, python = fingerprint(model), np.random.get_state()[1].tolist(), random.getstate()
    grads = [p.grad for p in model.parameters()]
    with untouched(model):
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        model.train()
        model.heads[0].weight.data.add_(1)
        model.heads[1].bias.requires_grad_(True)
        model.heads[1](torch.rand(2, 40)).sum().backward()
        torch.rand(1), np.random.rand(), random.random()
    assert fingerprint(model) == before
    assert all(a is b.grad for a, b in zip(grads, model.parameters(), strict=True))
    assert np.random.get_state()[1].tolist() == numpy
    assert random.getstate() == python
    assert "heads.0.weight" in caplog.text


def test_an_exception_changes_nothing_about_that():
    model = random_model("gated").train()
    before = fingerprint(model)

    def fall():
        with untouched(model):
            torch.rand(1)
            model.train(False)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fall()
    assert fingerprint(model) == before


@pytest.mark.parametrize("change", ["weight", "mode", "flag", "grad", "random"])
def test_the_fingerprint_sees(change):
    model = random_model("gated")
    before = fingerprint(model)
    weight = next(model.parameters())
    if change == "weight":
        weight.data.view(-1)[0] += 1e-3
    elif change == "mode":
        model.stem.train()
    elif change == "flag":
        weight.requires_grad_(False)
    elif change == "grad":
        weight.grad = torch.zeros_like(weight)
    else:
        torch.rand(1)
    assert fingerprint(model) != before


def test_same_weights():
    assert same_weights(random_model("dag"), random_model("dag"))
    other = random_model("dag")
    next(other.parameters()).data.add_(1)
    assert not same_weights(random_model("dag"), other)
    assert not same_weights(random_model("dag"), random_model("gated"))
