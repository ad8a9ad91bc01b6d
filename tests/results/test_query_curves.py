"""Recovery over queries: one attack at several budgets is one curve, from rows of single inputs, over seeds."""

import numpy as np
import pytest

from adaptbench.results import query_curves as query_curves_of
from adaptbench.results.query_curves import query_curves

LINF = {"constraint": "linf", "eps": 0.1}
CONDITIONS = {
    "clean": {"kind": "clean", "access": "none", "settings": {}, "summary": "clean"},
    "standard": {"kind": "attack", "access": "white-box", "settings": LINF, "summary": "standard"},
    "noise": {"kind": "control", "access": "none", "settings": LINF, "summary": "noise"},
    "chance-10": {"kind": "control", "access": "black-box", "settings": LINF | {"queries": 10}, "summary": "chance"},
    "box-100": {"kind": "attack", "access": "black-box", "settings": LINF | {"queries": 100}, "summary": "box"},
    "box-10": {"kind": "attack", "access": "black-box", "settings": LINF | {"queries": 10}, "summary": "box"},
    "wide-10": {
        "kind": "attack", "access": "black-box", "settings": LINF | {"queries": 10, "eps": 0.2}, "summary": "box",
    },
}  # fmt: skip
SHARE = {"standard": 0.9, "noise": 0.01, "chance-10": 0.1, "box-10": 0.3, "box-100": 0.5, "wide-10": 0.7}
MANIFEST = {"conditions": CONDITIONS, "seeds": [0, 1, 2], "models": {"net": {"max_macs": 1000}}}


def cases(seeds=(0, 1, 2)):
    return [
        {"model": "net", "condition": name, "seed": seed, "evaluation": f"{name}/{seed}", "kind": about["kind"],
         "recovery": None if name == "clean" else SHARE[name]}
        for name, about in CONDITIONS.items() for seed in seeds
    ]  # fmt: skip


def costs(evaluation, n=40):
    """Clean inputs cost 200; of the attacked ones the first so many cost 1 000, one more with each seed."""
    name, seed = evaluation.split("/")
    dear = 0 if name == "clean" else round(SHARE[name] * n) + int(seed)
    return {100 + i: 1000 if i < dear else 200 for i in range(n)}


def test_budgets_of_one_attack_are_one_curve():
    found = {c.name: c for c in query_curves(MANIFEST, cases(), costs)}
    assert set(found) == {"standard", "chance", "box", "wide"}, (
        "another eps is another curve, one draw of noise is none"
    )
    box = found["box"]
    assert [p.queries for p in box.points] == [10, 100]
    assert box.points[1].by_seed == pytest.approx((0.5, 0.525, 0.55))
    assert box.points[1].recovery == pytest.approx(0.525)
    assert box.points[1].n == 40
    assert found["standard"].points[0].queries is None


def test_intervals_are_over_inputs_and_seeds():
    point = next(c for c in query_curves(MANIFEST, cases(), costs) if c.name == "box").points[1]
    spread = np.sqrt(0.525 * 0.475 / 40)
    assert point.low == pytest.approx(0.525 - 1.96 * spread, abs=0.03)
    assert point.high == pytest.approx(0.525 + 1.96 * spread, abs=0.03)
    same = {i: {e: 600 if e != "clean" else 200 for e in SHARE} for i in range(5)}
    flat = query_curves(MANIFEST, cases(), lambda e: {i: 200 if e.startswith("clean") else 600 for i in same})
    assert all(p.low == p.recovery == p.high == 0.5 for c in flat for p in c.points)


def test_what_was_not_kept_is_no_zero():
    more = {**CONDITIONS, "box-50": CONDITIONS["box-10"] | {"settings": LINF | {"queries": 50}}}
    rows = [*cases(), *({**c, "condition": "box-50", "evaluation": f"box-100/{c['seed']}"} for c in cases()
                        if c["condition"] == "box-10")]  # fmt: skip
    found = query_curves(MANIFEST | {"conditions": more}, rows, lambda e: None if e.startswith("box-10/") else costs(e))
    assert [p.queries for c in found if c.name == "box" for p in c.points] == [50, 100]


def test_attacks_are_held_against_clean_costs_of_the_same_inputs():
    few = query_curves(MANIFEST, cases(), lambda e: costs(e) if e.startswith("clean") else costs(e, 20))
    assert next(c for c in few if c.name == "box").points[0].n == 20


def test_one_budget_is_no_curve():
    lone = {k: v for k, v in CONDITIONS.items() if k not in ("box-100",)}
    kept = [c for c in cases() if c["condition"] in lone]
    assert query_curves(MANIFEST | {"conditions": lone}, kept, costs) == []


def test_no_interval_is_drawn_of_what_is_not_shown(monkeypatch):
    monkeypatch.setattr(query_curves_of, "_point", lambda *given: pytest.fail("an interval of no curve"))
    lone = {k: v for k, v in CONDITIONS.items() if k not in ("box-100",)}
    kept = [c for c in cases() if c["condition"] in lone]
    assert query_curves(MANIFEST | {"conditions": lone}, kept, costs) == []


def test_a_net_without_head_room_has_no_figure():
    assert query_curves(MANIFEST | {"models": {"net": {"max_macs": 200}}}, cases(), costs) == []


def test_one_budget_is_a_curve_only_where_it_is_asked_for():
    alone = [c for c in cases() if c["condition"] in ("clean", "box-100")]
    assert not query_curves(MANIFEST, alone, costs)
    (found,) = query_curves(MANIFEST, alone, costs, budgets=1)
    assert [p.recovery for p in found.points] == [pytest.approx(0.525)]
