from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptbench.results.identity import (
    case_key,
    clean_of,
    evaluation_id,
    evaluation_key,
    static_id,
    timed_id,
)

NAMES = st.text(alphabet="ab/%@=s1", min_size=1, max_size=6)
WHO = st.tuples(
    NAMES, NAMES, NAMES, st.one_of(st.none(), st.tuples(st.just("eps"), st.floats(0, 1))), st.integers(0, 12)
)


def named(who, batch):
    data, model, condition, knob, seed = who
    name, value = knob or (None, None)
    found = evaluation_id(data, model, condition, knob=name, value=value, seed=seed)
    return found if batch is None else timed_id(found, batch)


@given(WHO, WHO, st.sampled_from([None, 1, 12]), st.sampled_from([None, 1, 12]))
def test_different_cases_have_different_ids(one, other, batch, another):
    assert (named(one, batch) == named(other, another)) == ((one, batch) == (other, another))


@given(WHO, st.sampled_from([1, 12]), NAMES)
def test_a_static_reference_shares_no_id_with_a_case(who, batch, model):
    assert static_id(model, batch) not in (named(who, batch), named(who, None))


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (("digits", "skipnet", "clean"), "digits/skipnet/clean"),
        (("digits", "skipnet", "torchattacks/PGD"), "digits/skipnet/torchattacks/PGD"),
        (("a/b", "m/v2", "x/s1"), "a%2Fb/m%2Fv2/x%2Fs1"),
    ],
)
def test_usual_names_stand_as_they_are(parts, shown):
    assert evaluation_id(*parts) == shown


def test_values_that_six_digits_do_not_tell_apart_are_written_out():
    ids = {evaluation_id("d", "m", "clean", knob="eps", value=value) for value in (0.1, 0.10000001)}
    assert ids == {"d/m@eps=0.1/clean", "d/m@eps=0.10000001/clean"}


def test_keys_take_no_seed_for_seed_0_and_tell_batches_apart():
    record = {"data": "d", "model": "m", "condition": "clean", "batch_size": 4}
    assert evaluation_key(record) == evaluation_key(record | {"seed": 0, "knob": None})
    assert evaluation_key(record) != evaluation_key(record | {"seed": 1})
    assert case_key(record) != case_key(record | {"batch_size": 8})


def test_the_clean_case_is_that_of_the_same_model_and_seed():
    def case(model, kind, seed):
        return {"data": "d", "model": model, "kind": kind, "seed": seed, "condition": kind}

    clean = [case("m/v2", "clean", 0), case("m", "clean", 0), case("m", "clean", 1)]
    assert clean_of(case("m", "attack", 1), clean) is clean[2]
    assert clean_of(case("m", "attack", 7), clean) is clean[1]
    assert clean_of(case("n", "attack", 0), clean) is None
