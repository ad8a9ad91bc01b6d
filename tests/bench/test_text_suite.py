"""A suite on texts: edits of words beside their control, rows without a distance, pictures' attacks refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import adaptbench as ab
from adaptbench.models.text import infer_unpadded
from adaptbench.registry import DATA, Entry
from adaptbench.testing.texts import planted_net

SUITE = """
title: words
data: planted-texts
models: [./mine.py:build]
conditions:
  - clean
  - words: {share: 0.2}
  - words-black-box: {queries: 60}
  - words-random: {share: 0.2}
limit: 40
"""
MINE = "from adaptbench.testing.texts import planted_net\n\ndef build():\n    return planted_net()\n"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    entry = Entry("planted-texts", "adaptbench.testing.texts:PlantedTexts", "made-up texts")
    monkeypatch.setitem(DATA._entries, "planted-texts", entry)
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    file = tmp_path / "words.yaml"
    file.write_text(SUITE, encoding="utf-8")
    return file


def test_edits_of_words_take_back_and_their_control_does_not(suite: Path) -> None:
    run = ab.run(str(suite), allow_imports=True)
    cases = {case["condition"]: case for case in run.cases}
    assert cases["words"]["recovery"] > 0.3 > 2 * abs(cases["words-random"]["recovery"])
    assert cases["words-black-box"]["queries_mean"] <= 60
    assert cases["words"]["linf_max"] is None
    assert "no distance" in cases["words"]["linf_max_missing"]
    rows = run.samples()
    for case in cases.values():
        bare = rows.loc[rows["case"] == case["evaluation"], "macs_unpadded"]
        assert case["macs_unpadded_mean"] == pytest.approx(float(bare.mean()))
        assert case["macs_unpadded_mean"] < case["macs_mean"]
    texts = ab.load_data("planted-texts").split("test")
    own = infer_unpadded(planted_net(), texts.x[:40]).macs
    bare = rows[rows["case"] == cases["clean"]["evaluation"]].sort_values("sample_id")["macs_unpadded"]
    assert bare.tolist() == own[texts.ids[:40].argsort()].tolist()
    assert np.isnan(rows["linf"].astype(float)).all()
    words = rows[rows["case"] == cases["words"]["evaluation"]]
    clean = rows[rows["case"] == cases["clean"]["evaluation"]]
    net = planted_net()
    recovery = (words["macs"].sum() - clean["macs"].sum()) / (len(clean) * net.max_macs - clean["macs"].sum())
    assert cases["words"]["recovery"] == pytest.approx(recovery)
    stored = run.crafted(cases["words"]["crafted"])["x_adv"]
    assert stored.dtype == np.int64
    page = ab.write_report([run.path], suite.with_suffix(".html"))
    assert "words" in Path(page).read_text(encoding="utf-8")


@pytest.mark.parametrize("condition", ["ilfo", "noise: {eps: 8/255}", "torchattacks/PGD"])
def test_an_attack_of_pixels_says_why_it_does_not_apply(suite: Path, condition: str) -> None:
    suite.write_text(SUITE.replace("  - words-black-box: {queries: 60}", f"  - {condition}"), encoding="utf-8")
    run = ab.run(str(suite), allow_imports=True)
    name = condition.partition(":")[0]
    assert not any(case["condition"] == name for case in run.cases)
    assert any(
        note.startswith(f"{name} was not run on") and "values of pixels" in note for note in run.manifest["notes"]
    )
