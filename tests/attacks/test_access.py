import pytest
import torch
from attack_toys import random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptbench.attacks import load_attack
from adaptbench.attacks.access import QueriedModel
from adaptbench.errors import CapabilityError


def bytes_of(n):
    return torch.randint(0, 256, (n, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_queries_are_counted_an_input():
    model = random_model("cascade")
    queried = QueriedModel(model, 3, budget=4)
    pictures = bytes_of(4)
    costs = queried.query(torch.tensor([0, 2, 2, 0]), pictures)
    assert torch.equal(costs, model.infer(pictures.float() / 255).macs)
    assert queried.used.tolist() == [2, 0, 2]
    assert queried.left(torch.tensor([0, 1])).tolist() == [2, 4]


def test_a_spent_budget_raises_and_asks_nothing():
    queried = QueriedModel(random_model("cascade"), 2, budget=2)
    queried.query(torch.tensor([0, 0]), bytes_of(2))
    with pytest.raises(CapabilityError, match="budget is 2 queries"):
        queried.query(torch.tensor([1, 0]), bytes_of(2))
    assert queried.used.tolist() == [2, 0]


def test_nothing_but_cost_is_offered():
    queried = QueriedModel(random_model("cascade"), 1, budget=2)
    assert {name for name in dir(queried) if not name.startswith("_")} == {"budget", "left", "query", "used"}


@settings(max_examples=12, deadline=None)
@given(queries=st.integers(2, 40), rounds=st.integers(1, 3), climbs=st.integers(1, 3), probes=st.integers(1, 9))
def test_no_plan_overspends(queries, rounds, climbs, probes):
    model = random_model("gated")
    x = bytes_of(5).float() / 255
    attack = load_attack(
        "ereba", {"queries": queries, "rounds": rounds, "climbs": climbs, "probes": probes, "fit_steps": 2}
    )
    crafted = attack.craft(model, x, torch.zeros(5, dtype=torch.int64))
    assert int(crafted.queries.min()) >= 1
    assert int(crafted.queries.max()) <= queries
