import re

import pytest

from adaptbench.report.difference import Difference


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
    assert [attrs["id"] for attrs in page.all("section")] == ["cost", "all", "comparable"]
    assert "Every counted figure is the same in both runs." in page.reading
    assert "Only in" not in page.reading
    assert "table-exit-shift" not in page.text
    assert 'class="changed"' not in page.text


def test_a_slower_run_shows_by_how_much(two):
    difference = Difference.of(*two(slower=1.2))
    assert "6 of 6 measured times changed beyond noise: all slower" in difference.verdict()
    text = table(difference.page(), "table-changed-time")
    rows = [re.findall(r"<td.*?</td>", row, re.S) for row in re.findall(r"<tr.*?</tr>", text, re.S)]
    found = [row for row in rows if row]
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
    assert "table-changed-time" not in page.text
    for key in ("table-time", "table-energy-measured"):
        sensed = table(page.text, key)
        assert sensed.count("not comparable") >= 6, key
        assert not re.search(r"[+−]\d+\.\d\d %", sensed)


def test_other_sensors_are_not_compared(two):
    old, new = two()
    for record in new.cases:
        if record["energy_provenance"]:
            record["energy_provenance"] = "measured: RAPL"
    page = Difference.of(old, new).page()
    assert "modelled: 0.29 nJ a MAC against measured: RAPL" in page
    rows = re.findall(r"<tr class=\"silent\">.*?</tr>", table(page, "table-energy-measured"), re.S)
    assert len(rows) == 6
    assert all("energy a sample" in row for row in rows)
    assert "silent" not in table(page, "table-time")


def test_cases_of_one_side_are_listed(two, page_of):
    page = page_of(*two(conditions=("clean", "noise")))
    assert "Only in A" in page.reading
    assert "digits/softmax-threshold/ilfo/b256" in page.reading
    assert "Only in B" not in page.reading


def test_runs_without_a_common_case(small_run, page_of):
    from synthetic_run import MODELS

    page = page_of(small_run("a"), small_run("b", models=MODELS[1:2]))
    assert "No case occurs in both runs, so that nothing can be compared." in page.reading
    assert "taken back" not in page.reading


def test_the_verdict_is_what_the_tables_say(two):
    old, new = two(seed=5, slower=1.1)
    difference = Difference.of(old, new)
    page = difference.page()
    rows = [row for key in ("table-counted", "table-swept") for row in table(page, key).split("<tr")]
    beyond, compared = (sum(text in row for row in rows) for text in ("beyond noise", "input bytes"))
    times = table(page, "table-time").count("beyond noise")
    assert times
    said = f"{beyond} of {compared} counted figures changed beyond noise" if beyond else "6 of 6 measured times"
    assert said in difference.verdict()
    assert f"{times} of 6 measured times changed beyond noise" in difference.verdict()


def test_two_runs_of_one_truth_seldom_differ(small_run):
    """Twelve pairs of runs that differ by their draws alone: Holm lets about one in twenty name a change."""
    runs = [small_run(str(seed), seed=seed, n=120, crafted=False, references=False, sweep=0) for seed in range(6)]
    pairs = [(a, b) for place, a in enumerate(runs) for b in runs[place + 1 :]]
    alarms = sum(any(f.beyond for f in Difference.of(a, b).findings) for a, b in pairs)
    assert alarms <= 3
