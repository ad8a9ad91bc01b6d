from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adaptbench.errors import RunError
from adaptbench.results import schema

MINIMAL = {"case": "d/m/clean", "evaluation": "d/m/clean", "model": "m", "data": "d", "condition": "clean"}
MINIMAL |= {"kind": "clean", "device": "cpu", "n": 3}


def test_completed_record_is_valid_and_ordered():
    full = schema.complete({**MINIMAL, "accuracy": 0.5, "accuracy_ci": (0.25, 0.75)})
    schema.validate_record(full, "here")
    assert [name for name in full if name in schema.FIELDS] == list(schema.FIELDS)
    assert full["accuracy_ci"] == [0.25, 0.75]
    assert full["recovery"] is None
    assert full["recovery_missing"] == "not computed"
    assert full["ties"] is None, "missing is never zero"


def test_estimate_without_interval_says_null():
    assert schema.complete({**MINIMAL, "accuracy": 0.5})["accuracy_ci"] is None


def test_fields_of_plugins_ride_along():
    full = schema.complete({**MINIMAL, "bus_j": 3.0, "accuracy_ci": [0, 1]})
    assert full["bus_j"] == 3.0
    assert "accuracy_ci" not in full


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "clear"}, "'kind' is 'clear'"),
        ({"model": None}, "'model' is absent"),
        ({"n": 3.5}, "'n' is 3.5"),
        ({"n": True}, "'n' is True"),
        ({"accuracy": float("nan")}, "'accuracy' is nan"),
        ({"accuracy": 0.5, "accuracy_ci": [0.7, 0.2]}, "accuracy_ci"),
        ({"accuracy": None, "accuracy_missing": ""}, "gives no reason"),
        ({"exit_histogram": []}, "not a map"),
    ],
)
def test_faulty_record_is_named(change, said):
    with pytest.raises(RunError, match="case 'd/m/clean'") as caught:
        schema.validate_record({**schema.complete(MINIMAL), **change}, "summary.json")
    assert said in caught.value.seen


def test_summary_names_a_case_that_stands_twice():
    record = schema.complete(MINIMAL)
    with pytest.raises(RunError, match="stands twice"):
        schema.validate_summary({"schema": 1, "cases": [record, record]})


@pytest.mark.parametrize("document", [[], {}, {"schema": "1"}, {"schema": True}, {"schema": 0}, {"schema": 2}])
def test_other_schema_versions_are_refused(document):
    with pytest.raises(RunError) as caught:
        schema.validate_summary(document)
    assert caught.value.todo


def test_old_document_is_lifted_step_by_step(monkeypatch):
    old = json.loads((Path(__file__).parent / "fixtures" / "summary_schema_minus1.json").read_text())

    def to_zero(document):
        return {**document, "cases": [{**case, "accuracy": case["acc"] / 100} for case in document["cases"]]}

    def to_one(document):
        return {**document, "cases": [schema.complete(case | {"condition": "clean"}) for case in document["cases"]]}

    monkeypatch.setattr(schema, "MIGRATIONS", {-1: to_zero, 0: to_one})
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 1)
    (case,) = schema.validate_summary(old)
    assert case["accuracy"] == 0.975
    assert old["schema"] == -1, "the document read is left alone"


def test_a_record_from_before_a_figure_says_so():
    old = {k: v for k, v in schema.complete(MINIMAL).items() if not k.startswith(tuple(schema.LATER))}
    (case,) = schema.validate_summary({"schema": 2, "cases": [old]})
    for name in schema.LATER:
        assert case[name] is None
        assert case[f"{name}_missing"] == schema.LATER[name]
    assert "macs_cvar" not in old, "the document read is left alone"
    with pytest.raises(RunError, match="gives no reason"):
        schema.validate_summary({"schema": 2, "cases": [schema.complete(MINIMAL) | {"macs_cvar_missing": None}]})


def test_results_never_load_torch_and_the_gate_is_light():
    code = (
        "import sys, adaptbench.results.gate, adaptbench.results.gate_format, adaptbench.results as r\n"
        "heavy = {'torch', 'pandas', 'scipy', 'pyarrow', 'rich'} & set(sys.modules)\n"
        "[getattr(r, name) for name in r.__all__]\n"
        "import adaptbench.results.frontier, adaptbench.results.verdicts\n"
        "print(sorted(heavy), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_unknown_public_name():
    import adaptbench.results

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        adaptbench.results.nothing  # noqa: B018
