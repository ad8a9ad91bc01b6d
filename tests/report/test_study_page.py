"""A study's page: the verdict stands first and is recomputed from the rows; what cannot be told is not told."""

import copy
import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from adaptbench.report.policy_names import policy_name
from adaptbench.report.study_page import SECTIONS, study_page
from adaptbench.results.studies import StudyRun, judged
from adaptbench.results.study_claims import Outcome, claims, side_of

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
STUDIES = ("softmax-threshold", "eenet", "dag-selection", "learned-cascade")


@pytest.fixture(scope="module", params=STUDIES)
def record(request):
    return StudyRun.read(PUBLISHED / f"replicate-{request.param}.json")


@pytest.fixture(scope="module")
def one():
    return StudyRun.read(PUBLISHED / "replicate-softmax-threshold.json")


def plain(text):
    return " ".join(unescape(re.sub(r"<[^>]+>", "", text)).replace("\u00a0", " ").split())


def rows_of(page, key):
    """Column title → cells, of a table on the page, as (class, value, text, under)."""
    table = re.search(rf'<table id="{key}".*?</table>', page, re.S)[0]
    heads = [plain(head) for head in re.findall(r"<th scope=\"col\".*?</th>", table, re.S)]
    rows = []
    for row in re.findall(r"<tr[^>]*>(?:(?!</tr>).)*</tr>", table.split("</thead>")[1], re.S):
        cells = re.findall(r"<t[dh]([^>]*)>(.*?)</t[dh]>", row, re.S)
        rows.append(dict(zip(heads, [(attrs, *_parts(inner), attrs) for attrs, inner in cells], strict=True)))
    return rows


def _parts(inner):
    under = re.search(r'<span class="under">(.*?)</span>', inner, re.S)
    text = plain(re.sub(r'<span class="under">.*?</span>|<sup>.*?</sup>', "", inner, flags=re.S))
    return text, plain(under[1]) if under else ""


def value_of(cell):
    found = re.search(r'data-v="([^"]+)"', cell[0])
    return float(found[1]) if found else None


def test_the_first_sentence_counts_the_claims(record):
    lead = plain(re.search(r'<div class="verdict[^"]*">(.*?)</div>', study_page(record), re.S)[1])
    said = pd.Series([judged(record, figure)[2] for figure in record["published"]])
    good, other = said.isin(["met", "same", "better"]), said.str.match(r"saves (more|less)")
    counted = said[said != "not comparable"]
    bad = counted[~good & ~other]
    assert lead.startswith(f"{len(bad)} of {len(counted)} claims not met: ")
    for place in bad.index[:4]:
        claim = record["published"][place]["claim"].replace("non-inferior within", "shown to lose less than")
        assert claim.replace(record["ours"], policy_name(record["ours"])) in lead
    apart = len(said) - len(counted)
    assert ("more cannot be compared" in lead) == bool(apart)


def test_claims_not_met_stand_first_and_none_is_lost(record):
    page = study_page(record)
    rows = rows_of(page, "published-table")
    order = list(Outcome)
    found = sorted((claim.outcome for claim in claims(record)), key=order.index)
    assert len(rows) == len(found) == len(record["published"])
    for row, outcome in zip(rows, found, strict=True):
        verdict = row["verdict"][1]
        assert verdict.startswith("saves") if outcome is Outcome.DIFFERS else verdict.startswith(outcome.value)
    assert "as above" not in page.split('id="curves"')[0]


def test_the_clock_is_told_by_the_interval_alone(record):
    page = study_page(record)
    raw = pd.DataFrame([row | {"graph": key} for key, graph in record["graphs"].items() for row in graph["wall_clock"]])
    ends = pd.DataFrame(raw["net_speedup_ci"].tolist(), columns=["low", "high"])
    word = pd.Series("cannot tell", index=raw.index)
    word[ends["low"] > 1], word[ends["high"] < 1] = "faster", "slower"
    for key, graph in record["graphs"].items():
        rows = rows_of(page, f"pace-{key}")
        mine = raw[raw["graph"] == key].assign(word=word)
        assert len(rows) == mine["point"].nunique()
        for row, (_, points) in zip(rows, mine.groupby("point", sort=False), strict=True):
            for point in points.itertuples():
                cell = row[f"batch {point.batch_size}"]
                assert cell[1] == point.word
                assert value_of(cell) == pytest.approx(point.net_speedup)
        assert graph["wall_clock"]
    counts = word.value_counts()
    assert f"On the clock, {counts['faster']} of {len(raw)} timed cases are faster" in plain(page)
    assert f"for {counts['cannot tell']} the clock cannot tell" in plain(page)


def test_who_is_ahead_is_told_by_the_interval_alone(record):
    page = study_page(record)
    for key, graph in record["graphs"].items():
        others = [row for row in graph["at_budget"] if row["policy"] != record["ours"]]
        raw = pd.DataFrame(others).set_index(["policy", "budget"])
        rows = rows_of(page, f"ahead-{key}")
        names = list(dict.fromkeys(row["policy"] for row in others))
        assert len(rows) == len(names)
        for row, name in zip(rows, names, strict=True):
            for budget in graph["budgets"]:
                cell, figures = row[f"{100 * budget:g} %"], raw.loc[(name, budget)]
                if figures["ours_ahead_points"] is None or figures["ours_ahead_points"] != figures["ours_ahead_points"]:
                    assert cell[1] == "–"
                    continue
                low, high = figures["ours_ahead_points_ci"]
                assert (cell[1] == "cannot tell") == (low <= 0 <= high)
                assert ("good" in cell[0], "bad" in cell[0]) == (low > 0, high < 0)
                assert value_of(cell) == pytest.approx(figures["ours_ahead_points"])


def test_the_saving_of_each_net_is_that_of_its_safe_point(record):
    rows = rows_of(study_page(record), "study-verdict")
    for row, graph in zip(rows, record["graphs"].values(), strict=True):
        for title, name in (("MACs saved, the published rule", record["paper"]), ("MACs saved, ours", record["ours"])):
            point = graph["policies"][name]["non_inferior"]
            cell = row[title]
            if point is None:
                assert cell[1] == "–"
                continue
            assert value_of(cell) == pytest.approx(100 * (1 - point["macs_mean"] / graph["macs_full"]), rel=1e-5)
            assert f"{point['drop_points']:.2f}".replace("-", "−") in cell[2]
            assert ("good" in cell[0]) == (point["held"] and point["macs_mean"] < graph["macs_full"])


def test_a_limit_is_said_before_the_verdict(one):
    page = study_page(one | {"limit": 200})
    assert page.index("A trial run: --limit 200") < page.index('class="verdict')
    assert "A trial run" not in study_page(one)


def test_empty_sections_are_not_there(one):
    bare = copy.deepcopy(one) | {"published": []}
    for graph in bare["graphs"].values():
        graph |= {"wall_clock": [], "resplits": [], "online": None, "gradient_noise": [], "at_budget": []}
    page = study_page(bare)
    assert re.findall(r'<section id="(\w+)">', page) == ["curves", "chosen", "reproduce"]
    assert re.findall(r'<li><a href="#(\w+)">', page) == ["curves", "chosen", "reproduce"]
    assert "This study states no claim." in page
    assert "no time measured" in page
    assert re.findall(r'<section id="(\w+)">', study_page(one)) == [key for key in SECTIONS if key != "noise"]


def test_no_code_name_stands_where_a_reader_looks(record):
    page = study_page(record)
    read = plain(re.sub(r"<(style|script|pre|dl)\b.*?</\1>|<footer.*?</footer>", "", page, flags=re.S))
    codes = {name for graph in record["graphs"].values() for name in graph["policies"] if "-" in name or "@" in name}
    notes = " ".join(record["notes"] or [])
    for code in codes - {"label-free"}:
        if code not in notes:
            kicker = f"study {record['name']}"
            assert not re.search(rf"(?<![\w-]){re.escape(code)}(?![\w-])", read.replace(kicker, "")), code
            assert policy_name(code).split(",")[0] in read


def test_an_interval_beside_a_figure():
    assert side_of([1.01, 1.2], 1.0) == 1
    assert side_of([0.8, 0.99], 1.0) == -1
    assert side_of([0.9, 1.1], 1.0) == 0
    assert side_of([1.0, 1.1], 1.0) == 0
    assert side_of(None, 1.0) is None


def test_the_page_is_the_same_twice_and_small(record):
    page = study_page(record)
    assert page == study_page(json.loads(json.dumps(record)))
    assert len(page.encode()) < 600_000
