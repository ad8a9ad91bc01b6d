"""Names that look like ids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptbench.bench.runner import run_suite
from adaptbench.registry import MODELS, Entry
from adaptbench.zoo import loading

SUITE = """
data: digits
models: [m, m/v2]
conditions:
  - clean
  - noise: {eps: 32/255, id: clean/s1}
  - noise: {eps: 64/255, id: v2/clean}
seeds: [0, 1]
limit: 12
"""
REAL = {"m": "softmax-threshold", "m/v2": "skipnet"}


@pytest.mark.case("own")
def test_names_with_slashes_are_held_against_their_own_clean_case(tmp_path, monkeypatch):
    """`m` and `m/v2`, `clean` and `clean/s1` were mixed up by ids that were taken apart; fields tell them apart."""
    load = loading.load_system
    monkeypatch.setattr(loading, "load_system", lambda name, *a, **k: replace(load(REAL[name], *a, **k), name=name))
    for name in REAL:
        monkeypatch.setitem(MODELS._entries, name, Entry(name, "nowhere:nothing", ""))
    file = tmp_path / "slashes.yaml"
    file.write_text(SUITE, encoding="utf-8")
    run = run_suite(str(file), out=tmp_path / "run")
    assert len({record["evaluation"] for record in run.cases}) == len(run.cases) == 2 * 3 * 2
    clean = {(c["model"], c["seed"]): c for c in run.cases if c["kind"] == "clean"}
    for record in run.cases:
        held = clean[record["model"], record["seed"]]
        assert run.samples([record["evaluation"]])["macs"].mean() == pytest.approx(record["macs_mean"])
        if record["kind"] == "control":
            assert record["increase"] == pytest.approx(record["macs_mean"] / held["macs_mean"] - 1)
            assert record["at_ceiling"] == held["at_ceiling"]
        else:
            assert record["increase_missing"] == "this is the clean case"
