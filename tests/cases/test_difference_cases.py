"""Two runs that are not of the same inputs, seed or machine."""

from __future__ import annotations

import copy
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

from synthetic_run import MODELS, Plan, write_run

from adaptbench.report.difference import Difference, _told_apart
from adaptbench.report.page import page_of, write_report

MODEL = MODELS[0]
ILFO, CLEAN = f"digits/{MODEL.name}/ilfo", f"digits/{MODEL.name}/clean"


@dataclass
class Bent:
    """A run with other rows or records."""

    path: Path
    manifest: dict[str, Any]
    cases: list[dict[str, Any]]
    rows: pd.DataFrame
    timed: pd.DataFrame

    def samples(self, evaluations=None):
        return self.rows

    def windows(self):
        return self.timed

    def crafted(self, file):
        raise AssertionError(file)


def bent(run):
    return Bent(run.path, copy.deepcopy(run.manifest), copy.deepcopy(run.cases), run.samples(), run.windows())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same suite over 360 and over 64 inputs."""
    folder = tmp_path_factory.mktemp("runs")
    plan = {"models": MODELS[:1], "conditions": ("clean", "noise", "ilfo"), "batches": (8,), "sweep": 0}
    plan |= {"references": False, "crafted": False}
    return write_run(folder / "long", Plan(n=360, **plan)), write_run(folder / "short", Plan(n=64, seed=1, **plan))


def figures(text):
    """(case, metric) → (inputs, A, B, difference) of the table of counted figures; ids as its CSV has them."""
    table = re.search(r'<table id="table-counted".*?</table>', text, re.S)[0]
    found = {}
    for row in re.findall(r"<tr.*?</tr>", table, re.S):
        cells = re.findall(r"<t[dh].*?</t[dh]>", row, re.S)
        values = [re.search(r'data-v="([^"]+)"', cell) for cell in cells]
        texts = [re.sub(r"<[^>]+>", "", cell).strip() for cell in cells]
        if cells and (told := re.search(r'data-t="([^"]+)"', cells[0])):
            texts[0] = told[1]
        if len(cells) == 8 and all(values[2:6]):
            found[texts[0], texts[1]] = [texts[2], *(float(value[1]) for value in values[3:6])]
    return found


@pytest.mark.case("own")
def test_runs_of_360_and_64_inputs_are_compared_over_the_64_that_both_have(runs):
    """The cost "differs in 66 of them" between 360 and 64 inputs; common ids are paired, and their number said."""
    long, short = runs
    found = figures(Difference.of(long, short).page())
    sides = [run.samples().set_index(["case", "sample_id"]) for run in runs]
    ids = sides[0].loc[CLEAN].index.intersection(sides[1].loc[CLEAN].index)
    assert len(ids) == 64
    mean = {
        name: [side.loc[case].loc[ids, column].astype(float).mean() for side in sides]
        for name, case, column in (
            ("clean", CLEAN, "macs"),
            ("ilfo", ILFO, "macs"),
            ("right", CLEAN, "correct"),
        )
    }
    top = MODEL.bounds.max_macs
    recovery = [(ilfo - clean) / (top - clean) for ilfo, clean in zip(mean["ilfo"], mean["clean"], strict=True)]
    for key, values, change in (
        ((ILFO, "MACs a sample"), mean["ilfo"], mean["ilfo"][1] / mean["ilfo"][0] - 1),
        ((CLEAN, "accuracy"), mean["right"], mean["right"][1] - mean["right"][0]),
        ((ILFO, "taken back"), recovery, recovery[1] - recovery[0]),
    ):
        inputs, *shown = found[key]
        assert inputs == "64 of 360 and 64"
        assert shown == pytest.approx([*values, change], rel=1e-9)
    lead = " ".join(Difference.of(long, short).lead())
    assert "over the inputs that both have (64 of 360 and 64)" in lead


@pytest.mark.case("own")
def test_cases_are_matched_whatever_the_seed(runs):
    """Another seed made every case "only in A" or "only in B": the id holds it, and the case is the same."""
    other = bent(runs[0])
    other.rows["case"] += "/s1"
    for record in other.cases:
        record |= {"seed": 1, "evaluation": f"{record['evaluation']}/s1", "case": f"{record['evaluation']}/s1/b8"}
    found = Difference.of(runs[0], other)
    assert len(found.pairs) == len(runs[0].cases)
    assert found.left == ([], [])
    assert "3 cases had another seed" in " ".join(found.lead())
    assert f"{ILFO} (seed 0 and 1)" in found.page()


@pytest.mark.case("own")
def test_what_changed_beyond_noise_leads_the_largest_first(runs):
    """The lead counted differing means; now it names what no chance explains, with interval, sorted by size."""
    other = bent(runs[0])
    for case, factor in ((ILFO, 0.5), (CLEAN, 1.2)):
        hit = other.rows["case"] == case
        other.rows.loc[hit, "macs"] = (other.rows.loc[hit, "macs"] * factor).astype("int64")
    one = other.rows.index[other.rows["case"] == f"digits/{MODEL.name}/noise"][0]
    other.rows.loc[one, "macs"] += 1
    found = Difference.of(runs[0], other)
    assert [(f.metric.field, f.pair.old["condition"]) for f in found.findings if f.beyond][:2] == [
        ("recovery", "ilfo"),
        ("macs_mean", "ilfo"),
    ]
    sizes = [finding.size for finding in found.findings if finding.beyond]
    assert sizes == sorted(sizes, reverse=True)
    lead = found.lead()
    beyond = [finding for finding in found.findings if finding.beyond]
    assert lead[0].startswith(f"{len(beyond)} of ")
    assert f"{sum(finding.worse for finding in beyond)} for the worse" in lead[0]
    assert lead[1].startswith("The largest first: taken back of")
    assert f"MACs a sample of {MODEL.title}, ILFO 8/255: −50.00 % [−50.00, −50.00]" in lead[1]
    assert f"MACs a sample of {MODEL.title}, noise" not in lead[1]
    assert "moved within noise" in " ".join(lead)
    page = found.page()
    table = re.search(r'<table id="table-counted".*?</table>', page, re.S)[0]
    assert table.index("beyond noise") < table.index("within noise")
    changed = re.search(r'<table id="table-changed".*?</table>', page, re.S)[0]
    assert changed.count("<tr class") == len(beyond)
    assert "within noise" not in changed
    opened = re.sub(r"<details.*?</details>", "", page, flags=re.S)
    assert "within noise<" not in opened, "what stayed within noise is folded away"


@pytest.mark.case("own")
def test_another_device_of_the_same_name_says_what_differs(runs):
    """ "another device: A ran on AMD EPYC, B on AMD EPYC": the number of threads differed, and was not said."""
    other = bent(runs[0])
    other.manifest["device"] |= {"fingerprint": "other", "threads": 1, "memory_gb": 16}
    lead = Difference.of(runs[0], other).lead()[-1]
    assert lead == ("Seconds and joules cannot be compared: another device: threads: A 2, B 1; memory gb: A 8, B 16.")


@pytest.mark.case("own")
def test_other_pictures_under_the_same_ids_are_not_paired(runs):
    """Two data sets of one name have the same sample ids; where the labels differ nothing is paired."""
    other = bent(runs[0])
    other.rows["label"] = (other.rows["label"] + 1) % 10
    found = Difference.of(runs[0], other)
    assert all(finding.obstacle for finding in found.findings)
    assert found.lead()[0] == "Nothing can be compared."
    assert "the same sample ids carry other labels" in " ".join(found.lead())
    assert found.page()


@pytest.mark.case("own")
def test_the_terminal_says_what_the_page_leads_with(runs, tmp_path):
    """`report A B` printed a path, and one had to open the page to learn whether anything changed."""
    said: list[str] = []
    write_report([run.path for run in runs], tmp_path / "page.html", said.append)
    assert said == Difference.of(*runs).lead()


@pytest.mark.case("own")
def test_runs_of_one_name_have_pages_of_their_own(tmp_path, monkeypatch):
    """`report a/x` and `report b/x` wrote one page, the second over the first; both sides were "x"."""
    monkeypatch.chdir(tmp_path)
    given = [["a/x"], ["b/x"], ["runs/x"], ["a/x", "b/x"], ["b/x", "a/x"], ["../x"], ["reports/published/x.json"]]
    pages = [page_of([Path(run) for run in runs]) for runs in given]
    assert len(set(pages)) == len(pages) - 1, "a kept study and its run have one page"
    assert page_of([Path("runs/x")]) == Path("reports/x.html")
    assert page_of([Path("a/x"), Path("b/x")]) == Path("reports/a--x-vs-b--x.html")
    assert _told_apart([Path("q/a/x"), Path("q/b/x")]) == ["a/x", "b/x"]
    assert _told_apart([Path("a/x"), Path("a/y")]) == ["x", "y"]
