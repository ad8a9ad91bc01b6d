from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adaptbench.errors import SuiteError
from adaptbench.results.gate_rules import CRAFTED_ANEW_MARGIN, METRICS, OF_STUDIES, Rule, parse_gate
from adaptbench.results.schema import FIELDS


def test_the_gate_of_the_readme():
    text = (
        "{macs_mean: exact, accuracy: {drop: 0.5 points}, energy_j_per_sample: {increase: 3 %}, recovery: {max: 0.2}}"
    )
    assert parse_gate(yaml.safe_load(text)) == [
        Rule("macs_mean", "exact"),
        Rule("accuracy", "drop", 0.005),
        Rule("energy_j_per_sample", "increase", 0.03, relative=True),
        Rule("recovery", "max", 0.2),
    ]


def test_several_rules_for_a_metric_and_some_cases_only():
    rules = parse_gate({"recovery": [{"max": 0.9}, {"increase": "5 points", "cases": ["ilfo", "*/chain/*"]}]})
    assert [rule.kind for rule in rules] == ["max", "increase"]
    record = {"kind": "attack", "condition": "ilfo", "model": "m", "evaluation": "d/m/ilfo", "case": "d/m/ilfo"}
    assert rules[1].watches(record)
    assert rules[1].watches({**record, "condition": "x", "evaluation": "d/chain/x"})
    assert not rules[1].watches({**record, "condition": "x"})
    assert rules[0].watches(record)


def test_exact_with_its_allowance_for_inputs_crafted_anew():
    (rule,) = parse_gate({"macs_mean": {"exact": True, "anew": "2 %"}})
    assert rule.anew == pytest.approx(0.02)
    assert parse_gate({"macs_mean": "exact"})[0].anew == CRAFTED_ANEW_MARGIN


def test_no_gate():
    assert parse_gate(None) == []
    assert parse_gate({}) == []


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"mac_mean": "exact"}, "Did you mean 'macs_mean'"),
        ({"macs_mean": "exactly"}, "is not a rule"),
        ({"macs_mean": {}}, "is not a rule"),
        ({"macs_mean": 3}, "is not a rule"),
        ({"macs_mean": {"exact": "3 %"}}, "takes no amount"),
        ({"macs_mean": {"increase": 3}}, "no unit"),
        ({"macs_mean": {"increase": "3"}}, "no unit"),
        ({"macs_mean": {"increase": "-3 %"}}, "no unit"),
        ({"macs_mean": {"increase": "0 %"}}, "Write 'exact'"),
        ({"macs_mean": {"increase": "3 points"}}, "has no points"),
        ({"macs_mean": {"drop": "3 %"}}, "less macs_mean is better"),
        ({"macs_mean": {"increase": "3 %", "drop": "3 %"}}, "is not a rule"),
        ({"accuracy": {"drop": "3 %"}}, "drop: 3 points"),
        ({"accuracy": {"increase": "3 points"}}, "more accuracy is better"),
        ({"accuracy": {"max": 0.3}}, "more accuracy is better"),
        ({"recovery": {"max": "0.2"}}, "not a number"),
        ({"recovery": {"max": True}}, "not a number"),
        ({"recovery": {"max": 0.2, "anew": "3 %"}}, "'exact' only"),
        ({"latency_s_per_sample": "exact"}, "never shows the same twice"),
        (["macs_mean"], "not a table"),
    ],
)
def test_wrong_words(gate, said):
    with pytest.raises(SuiteError) as caught:
        parse_gate(gate)
    assert said in str(caught.value)
    assert caught.value.todo


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"recovery": "exact"}, "no metric is called 'recovery'"),
        ({"net_speed": {"drop": "3 %"}}, "Did you mean 'net_speedup'"),
        ({"net_speedup": "exact"}, "{drop: 10 %}"),
        ({"net_speedup": {"increase": "3 %"}}, "more net_speedup is better"),
        ({"broken": {"increase": "3 %"}}, "increase: 3 points"),
        ({"accuracy": {"exact": True, "anew": "3 %"}}, "crafts no inputs"),
    ],
)
def test_wrong_words_of_a_study(gate, said):
    with pytest.raises(SuiteError) as caught:
        parse_gate(gate, OF_STUDIES)
    assert said in str(caught.value)
    assert caught.value.todo


SCALARS = st.none() | st.text(max_size=8) | st.floats() | st.booleans()
WORDS = st.sampled_from(["exact", "drop", "increase", "max", "cases", "anew", "x"])


@given(st.sampled_from(sorted(METRICS)), st.recursive(SCALARS, lambda x: st.dictionaries(WORDS, x), max_leaves=4))
def test_any_yaml_is_a_rule_or_a_suite_error(metric, given_rule):
    try:
        rules = parse_gate({metric: given_rule})
    except SuiteError:
        return
    assert all(rule.text for rule in rules)


def test_every_metric_is_a_field_of_the_record():
    assert set(METRICS) <= set(FIELDS)
