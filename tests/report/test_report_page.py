import re
import subprocess
import sys

import pytest

from adaptbench.errors import OutputError, RunError, UsageError
from adaptbench.report import cases
from adaptbench.report.html import policy
from adaptbench.report.page import SECTIONS, run_page, write_report
from adaptbench.report.view import View


def rows_of(page, table):
    """(row class, [data-v of every cell]) of a table's body."""
    body = re.search(rf'<table id="{table}".*?<tbody>(.*?)</tbody>', page.text, re.S)[1]
    found = []
    for attrs, cells in re.findall(r"<tr([^>]*)>(.*?)</tr>", body, re.S):
        kind = re.search(r'class="([^"]*)"', attrs)
        found.append(
            (
                kind[1] if kind else "",
                [re.search(r'data-v="([^"]*)"', cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", cells, re.S)],
            )
        )
    return [(kind, [float(value[1]) if value else None for value in values]) for kind, values in found]


def test_the_sections_come_in_order_and_the_contents_lead_to_them(bench_page):
    assert [attrs["id"] for attrs in bench_page.all("section")] == list(SECTIONS)
    targets = {attrs["href"] for attrs in bench_page.all("a")}
    assert {f"#{key}" for key in SECTIONS} <= targets


def test_nothing_is_fetched_from_anywhere(bench_page):
    for tag, attrs in bench_page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "action", "poster", "srcset", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)
        assert not [name for name in attrs if name.startswith("on")]
        assert "url(" not in attrs.get("style", "").replace("url(#", "")
    style = re.search(r"<style>(.*?)</style>", bench_page.text, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", bench_page.text)


def test_the_policy_allows_only_the_pages_own_script(bench_page):
    (meta,) = [attrs for attrs in bench_page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", bench_page.text, re.S)
    assert meta["content"] == policy(script)
    assert meta["content"].startswith("default-src 'none'; ")
    assert "script-src 'sha256-" in meta["content"]
    assert len(script) < 30_000


def test_ids_are_unique_and_every_anchor_has_a_target(bench_page):
    ids = [attrs["id"] for _, attrs in bench_page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for _, attrs in bench_page.tags if attrs.get("href", "").startswith("#")} <= set(ids)


def test_it_is_small(bench_page):
    assert len(bench_page.text.encode()) < 1_000_000


def test_each_figure_is_followed_by_its_table_and_speaks(bench_page):
    figures = [attrs["id"] for attrs in bench_page.all("figure") if attrs.get("id", "").startswith("fig-")]
    assert figures == ["fig-curves", "fig-clock", "fig-taken-back", "fig-exits"]
    for part in re.findall(r'<figure id="fig-.*?</figure>\s*(.{40})', bench_page.text, re.S):
        assert part.startswith('<details class="behind">')
    for attrs in bench_page.all("svg", **{"class": "plot"}):
        assert attrs["role"] == "img"
        assert len(attrs["aria-label"]) > 30
    tables = [attrs["id"] for attrs in bench_page.all("table") if attrs.get("class") != "exits"]
    assert [attrs["data-table"] for attrs in bench_page.all("button", type="button") if "data-table" in attrs] == tables


def test_every_case_has_a_row_with_the_figures_of_the_summary(bench_run, bench_page):
    shown = [values for _, values in rows_of(bench_page, "table-cases")]
    records = cases.ordered(View(bench_run))
    assert {record["case"] for record in records} == {record["case"] for record in bench_run.cases}
    assert len(shown) == len(records)
    for values, record in zip(shown, records, strict=True):
        expected = [
            record["batch_size"], record["accuracy"], record["macs_mean"], record["macs_mean"] / record["macs_full"],
            record["recovery"], record["latency_s_per_sample"], record["saving_time"], record["energy_j_per_sample"],
            record["n"], record["n_timed"],
        ]  # fmt: skip
        for value, wanted in zip(values[1:], expected, strict=True):
            assert value == (None if wanted is None else pytest.approx(wanted, rel=1e-9))


def test_intervals_stand_beside_their_figures(bench_run, bench_page):
    record = next(record for record in bench_run.cases if record["case"].endswith("softmax-threshold/ilfo/b256"))
    low, high = record["recovery_ci"]
    assert f"{100 * record['recovery']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" in bench_page.reading


def test_measured_and_modelled_never_share_a_column(sensor_page, bench_page):
    heads = re.search(r'<table id="table-cases".*?</thead>', sensor_page.text, re.S)[0]
    assert "measured" in heads
    assert "modelled" not in heads
    heads = re.search(r'<table id="table-cases".*?</thead>', bench_page.text, re.S)[0]
    assert "modelled" in heads
    assert "measured" not in heads
    assert "table-energy-modelled" not in sensor_page.text
    assert "No power sensor answered" in bench_page.reading
    assert "Energy was measured by nvml" in sensor_page.reading


def test_a_modelled_energy_is_no_realised_saving(bench_page, sensor_page):
    assert "energy was modelled, not measured" in bench_page.reading
    assert "saving in measured energy" not in bench_page.text.split("<details", 1)[0]
    assert "energy was modelled, not measured" not in sensor_page.reading


def test_the_exit_table_is_the_histogram(bench_run, bench_page):
    record = next(record for record in bench_run.cases if record["case"] == "digits/learned-cascade/ilfo/b1")
    shown = rows_of(bench_page, "table-exits")
    counts = [values[3] for _, values in shown]
    wanted = list(record["exit_histogram"].values())
    assert any(counts[place : place + len(wanted)] == wanted for place in range(len(counts)))


def test_gated_networks_are_told_by_depth(bench_run, bench_page):
    samples = bench_run.samples(["digits/skipnet/ilfo"])
    assert "nodes run" in bench_page.reading
    assert f"most often {samples['depth'].mode()[0]} nodes (" in bench_page.text


def test_how_to_reproduce_is_all_there(bench_run, bench_page):
    manifest = bench_run.manifest
    for text in (
        manifest["command"], manifest["device"]["fingerprint"], manifest["git"]["revision"],
        manifest["suite"]["sha256"], "4 min 31 s", "no NVIDIA driver on this machine", "Wilson",
        manifest["versions"]["torch"],
        "here it is bounded, so that recipes compare at equal ε", "Haque, Yadav, Liu, Yang, ICSE 2022",
    ):  # fmt: skip
        assert text in bench_page.reading
    assert manifest["suite"]["text"] in bench_page.text.replace("&gt;", ">")


def test_the_same_run_gives_the_same_bytes(sensor_run, sensor_page):
    assert run_page(sensor_run) == sensor_page.text


def test_names_from_outside_are_text_and_never_markup(small_run, page_of):
    nasty = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    plain = small_run("plain", conditions=("clean", "ilfo"))
    manifest = plain.manifest
    model = manifest["models"]["softmax-threshold"]
    exits = [nasty, nasty + "2", "c", "d"]
    parts = {
        "suite": manifest["suite"] | {"name": nasty, "text": nasty},
        "models": {"softmax-threshold": model | {"title": nasty, "exit_names": exits, "card": {nasty: nasty}}},
        "conditions": {
            name: condition | {"title": nasty + name, "cite": nasty, "deviates": [nasty], "settings": {nasty: nasty}}
            for name, condition in manifest["conditions"].items()
        },
        "device": {"name": nasty, "kind": nasty, "fingerprint": nasty},
        "meters": {nasty: {"found": False, "reason": nasty}},
        "notes": [nasty],
        "command": nasty,
        "versions": {nasty: nasty},
        "git": {"revision": nasty, "dirty": True},
    }
    page = page_of(small_run("nasty", manifest=parts, conditions=("clean", "ilfo")))
    assert len(page.all("script")) == 1
    assert all(attrs["src"].startswith("data:") for attrs in page.all("img"))
    assert not [attrs for _, attrs in page.tags if "onerror" in attrs]
    assert "alert(1)" in page.reading


def test_mistakes_are_named(tmp_path, sensor_run):
    with pytest.raises(UsageError, match="0 runs"):
        write_report([], tmp_path / "a.html")
    with pytest.raises(UsageError, match="3 runs"):
        write_report([sensor_run.path] * 3, tmp_path / "a.html")
    with pytest.raises(RunError):
        write_report([tmp_path / "nowhere"], tmp_path / "a.html")
    with pytest.raises(OutputError, match="cannot write"):
        write_report([sensor_run.path], tmp_path)


@pytest.mark.slow
def test_reports_know_nothing_of_torch(tmp_path, sensor_run):
    code = (
        "import sys; from pathlib import Path; from adaptbench.report.page import write_report;"
        f"write_report([Path({str(sensor_run.path)!r})], Path({str(tmp_path / 'a.html')!r}));"
        "print('torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
