import re

import pytest

from adaptbench.report.difference import SECTIONS, Difference


def table(text, key):
    found = re.search(rf'<table id="{key}".*?</table>', text, re.S)
    return found[0] if found else ""


@pytest.fixture
def two(small_run):
    def make(**second):
        return small_run("a"), small_run("b", **second)

    return make


def test_a_run_does_not_differ_from_itself(sensor_run, page_of):
    page = page_of(sensor_run, sensor_run)
    assert [attrs["id"] for attrs in page.all("section")] == list(SECTIONS)
    assert "The counted cost is the same in every one of them." in page.reading
    assert "Both runs hold the same cases." in page.reading
    assert "Every case that both runs have leaves by the same exits." in page.reading
    assert 'class="changed"' not in page.text


def test_a_slower_run_shows_by_how_much(two):
    text = table(Difference.of(*two(slower=1.2)).page(), "table-sensed")
    rows = [re.findall(r"<td.*?</td>", row, re.S) for row in re.findall(r"<tr.*?</tr>", text, re.S)]
    found = [row for row in rows if row and "latency/sample" in row[0]]
    assert len(found) == 6
    for row in found:
        change = float(re.search(r'data-v="([^"]+)"', row[3])[1])
        low, high = (float(end) for end in re.search(r"\[([\d.]+), ([\d.]+)\]", row[4]).groups())
        assert change == pytest.approx(0.2, abs=0.03)
        assert low <= 100 * change <= high


def test_the_exit_shift_is_of_shares(two):
    old, new = two(seed=3)
    text = table(Difference.of(old, new).page(), "table-exit-shift")
    shifts = [float(value) for value in re.findall(r'data-v="([^"]+)"[^>]*>[^<]*points', text)]
    assert shifts
    assert sum(shifts) == pytest.approx(0, abs=1e-6)


def test_other_devices_are_not_compared(two, page_of):
    page = page_of(*two(measured=True))
    assert "Seconds and joules cannot be compared: another device" in page.reading
    sensed = table(page.text, "table-sensed")
    assert sensed.count("not comparable") >= 12
    assert not re.search(r"[+−]\d+\.\d\d %", sensed)


def test_other_sensors_are_not_compared(two):
    old, new = two()
    for record in new.cases:
        if record["energy_provenance"]:
            record["energy_provenance"] = "measured: RAPL"
    text = table(Difference.of(old, new).page(), "table-sensed")
    assert "modelled: 0.29 nJ a MAC against measured: RAPL" in Difference.of(old, new).page()
    rows = re.findall(r"<tr class=\"silent\">.*?</tr>", text, re.S)
    assert len(rows) == 6
    assert all("energy/sample" in row for row in rows)


def test_cases_of_one_side_are_listed(two, page_of):
    page = page_of(*two(conditions=("clean", "noise")))
    assert "Only in A" in page.reading
    assert "digits/softmax-threshold/ilfo/b256" in page.reading
    assert "Only in B" not in page.reading


def test_runs_without_a_common_case(small_run, page_of):
    from synthetic_run import MODELS

    page = page_of(small_run("a"), small_run("b", models=MODELS[1:2]))
    assert "No case occurs in both runs, so that nothing can be compared." in page.reading
