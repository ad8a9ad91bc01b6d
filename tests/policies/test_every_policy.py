"""Every registered policy holds to the contract, on each kind of graph that it takes; `CASES` says how it is fitted."""

from functools import cache
from typing import Any, NamedTuple

import pytest

from adaptbench.policies import EENet, PublishedEENet
from adaptbench.policies.budgets.eenet_scheduler import SchedulerSettings
from adaptbench.registry import POLICIES
from adaptbench.testing import PolicyConformance

QUICK = SchedulerSettings(epochs=60, restarts=1)
LONG_FAMILIES = ("learned-cascade", "dag-selection", "myopic", "eenet", "eenet-published")
CHECKS = [name for name in vars(PolicyConformance) if name.startswith("test_")]


class Case(NamedTuple):
    """How a policy is fitted: settings, a second value of its knob (default: another price of its path), the graph."""

    name: str
    settings: dict[str, Any]
    another: float | None = None
    graph: str = "chain"


CASES = [
    Case("softmax-threshold", {"epsilon": 0.02, "min_support": 100}, 0.2),
    Case("softmax-threshold-published", {"epsilon": 0.02}, 0.2),
    Case("joint-threshold", {"epsilon": 0.0}, 0.3),
    Case("risk-controlled", {"epsilon": 0.001, "beta": 0.1}, 0.5),
    Case("learned-cascade", {"price": 0.3, "steps": 60}, 0.8),
    Case("dag-selection", {"prices": (1.0, 4.0), "steps": 60}, graph="dag"),
    Case("myopic", {"prices": (1.0, 4.0), "steps": 60}, graph="dag"),
    Case("uniform", {"grid": 50}, 0.5),
    Case("uniform", {"grid": 50}, 0.5, "dag"),
    Case("entropy", {"grid": 50}, 0.6),
    Case("msdnet-budget", {"budget": 700.0}),
    Case("branchynet-budget", {"budget": 700.0, "acceptance": "released"}),
    Case("pabee-budget", {"budget": 700.0}),
    Case("eenet", {"budget": 700.0}),
    Case("eenet-published", {"budget": 700.0}),
    Case("exact-budget", {"budget": 900.0, "folds": 3}, 500.0),
    Case("committees", {"drop": 0.02}),
    Case("committees", {"average": "logits"}),
    Case("lebovitz-pair", {"drop": 0.02}, 0.55),
    Case("lebovitz-pair", {"drop": 0.02}, 0.55, "dag"),
    Case("streeter", {"slack": 0.01, "slacks": (0.0, 0.01, 0.1)}, 0.1),
    Case("streeter", {"slack": 0.01, "slacks": (0.0, 0.01, 0.1)}, 0.1, "dag"),
    Case("ebjr", {"drop": 0.02, "temperature": 2.0}),
    Case("pabee", {}, 2),
    Case("ztw", {"drop": 0.02}, 0.6),
    Case("label-free", {"price": 0.1}, 0.8),
    Case("distilled-oracle", {"price": 0.2}, 0.8),
    Case("distilled-oracle", {"price": 0.2, "divergence": "reverse"}, 0.8),
    Case("fitted-q", {"drop": 0.02}),
    Case("fitted-q", {"drop": 0.02}, graph="dag"),
    Case("jei-dnn", {"price": 0.3}, 0.8),
    Case("fixed-exit", {"exit": 1}, 2),
    Case("mixture", {"of": "uniform", "budget": 500.0}, 0.9),
    Case("oracle", {}, graph="dag"),
    Case("random", {}, 0.25),
]


@cache
def kit(number: int) -> PolicyConformance:
    case = CASES[number]

    class Kit(PolicyConformance):
        graph = case.graph
        follows_input = case.name != "fixed-exit"
        another_setting = case.another

        def fit(self, log):
            policy = POLICIES.load(case.name).fit(log, **case.settings)
            if policy.knob is not None and case.another is None:
                Kit.another_setting = next(p for p in policy.prices if p != policy.knob_value)
            return policy

    return Kit()


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    for kind in (EENet, PublishedEENet):
        monkeypatch.setattr(kind, "family_settings", QUICK)


def _marked(number: int, check: str) -> Any:
    case = CASES[number]
    long = check == "test_its_family_spans_the_range" and case.name in LONG_FAMILIES
    return pytest.param(number, check, marks=[pytest.mark.slow] * long, id=f"{case.name}-{case.graph}-{check[5:]}")


@pytest.mark.parametrize(("number", "check"), [_marked(n, check) for n in range(len(CASES)) for check in CHECKS])
def test_every_policy_holds_to_the_contract(number, check):
    getattr(kit(number), check)()


def test_no_policy_is_left_out():
    assert {case.name for case in CASES} == set(POLICIES.names())


@pytest.mark.parametrize("name", POLICIES.names())
def test_a_log_is_all_that_a_fit_needs(name):
    """Suites fit policies by name: nothing but the log may be asked for, and every setting has a default."""
    case = next(n for n, case in enumerate(CASES) if case.name == name)
    _, log = kit(case)._given()
    kind = POLICIES.load(name)
    policy = kind.fit(log, seed=3)
    assert type(policy) is kind
    policy.bind(log.structure)
    assert kind.fit_settings().keys() >= CASES[case].settings.keys()
