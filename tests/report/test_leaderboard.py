"""The leaderboard shows each evaluation once, as its record has it, with the run that it comes from."""

import json
import re
import sys
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from adaptbench import terminal
from adaptbench.cli import app
from adaptbench.report.leaderboard import STANDARD, leaderboard
from adaptbench.report.leaderboard_page import leaderboard_page, run_key

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"


@pytest.fixture(scope="module")
def board():
    return leaderboard([PUBLISHED])


@pytest.fixture(scope="module")
def page(board):
    return leaderboard_page(board)


@pytest.fixture(scope="module")
def raw():
    """Every case of every kept suite, with the place of its run in order of time."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(PUBLISHED.glob("*.json"))]
    files = [found for found in files if found.get("kind") not in ("serving", "decoding")]  # no board has those
    started = [(found.get("manifest") or found)["started"] for found in files]
    places = {place: rank for rank, place in enumerate(sorted(range(len(files)), key=lambda place: started[place]))}
    frames = [pd.DataFrame(found["cases"]).assign(run=places[n]) for n, found in enumerate(files) if "cases" in found]
    return pd.concat(frames, ignore_index=True)


def rows_of(page, key):
    table = re.search(rf'<table id="{key}".*?</table>', page, re.S)[0]
    heads = [re.sub(r"<[^>]+>", "", head) for head in re.findall(r'<th scope="col".*?</th>', table, re.S)]
    for row in re.findall(r"<tr[^>]*>((?:(?!</tr>).)*)</tr>", table.split("</thead>")[1], re.S):
        cells = re.findall(r"<t[dh]([^>]*)>(.*?)</t[dh]>", row, re.S)
        yield dict(zip(heads, cells, strict=True))


def value(cell):
    found = re.search(r'data-v="([^"]+)"', cell[0])
    return float(found[1]) if found else None


def text(cell):
    return unescape(re.sub(r'<span class="under">.*?</span>|<sup>.*?</sup>|<[^>]+>', "", cell[1])).strip()


def test_every_evaluation_is_there_once_with_its_own_figures(page, raw):
    wanted = raw[raw["kind"].isin(["clean", "control", "attack"])].drop_duplicates(["run", "evaluation"])
    wanted = wanted.assign(share=wanted["macs_mean"] / wanted["macs_full"])
    rows = list(rows_of(page, "table-counted"))
    assert len(rows) == len(wanted)
    shown = pd.DataFrame(
        {
            "run": [re.search(r'data-t="run-(\d+)"', row["from"][0])[1] for row in rows],
            **{name: [value(row[title]) for row in rows] for name, title in COLUMNS.items()},
        }
    )
    shown["run"] = shown["run"].astype(int) - 1
    wanted.loc[wanted["kind"] == "clean", "recovery"] = None
    order = ["run", *COLUMNS]
    ours = shown.sort_values(order).reset_index(drop=True)[order].astype(float)
    theirs = wanted.sort_values(order).reset_index(drop=True)[order].astype(float)
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9)


COLUMNS = {"n": "inputs", "accuracy": "accuracy", "share": "MACs, of plain net", "recovery": "taken back"}


def test_standings_rank_by_what_the_standard_attack_takes_back(board, page, raw):
    faced = raw[(raw["condition"] == STANDARD) & (raw["kind"] == "attack")]
    last = faced.sort_values("run").groupby(["data", "model"]).last()
    assert sum(len(nets) for _, nets in board.standings) == len(last)
    for place, (size, nets) in enumerate(board.standings):
        shown = [value(row["taken back"]) for row in rows_of(page, f"standing-{place}")]
        assert shown == sorted(shown)
        data = "fashion-mnist" if size.startswith("Fashion-MNIST") else "cifar10"
        assert shown == pytest.approx(sorted(last.loc[data]["recovery"]))
        for net, row in zip(nets, rows_of(page, f"standing-{place}"), strict=True):
            record = net.worst.record
            assert value(row["MACs under attack"]) == pytest.approx(record["macs_mean"] / record["macs_full"])


def test_a_standing_says_which_standard_it_is_of(board, page):
    """On gates standard-2 is another attack than standard-1: one word for both would compare what cannot be."""
    for place, (_, nets) in enumerate(board.standings):
        for net, row in zip(nets, rows_of(page, f"standing-{place}"), strict=True):
            run = board.runs[net.worst.run].side.manifest
            first = run["conditions"][STANDARD]["summary"].split(",")[0]
            assert text(row["attack"]).endswith(f"({first})")
    versions = {
        text(row["attack"]) for place in range(len(board.standings)) for row in rows_of(page, f"standing-{place}")
    }
    assert len(versions) == 3


def test_measured_modelled_and_counted_share_no_table(page, raw):
    assert 'id="table-energy-measured"' not in page
    modelled = list(rows_of(page, "table-energy-modelled"))
    timed = raw[(raw["kind"] == "clean") & raw["batch_size"].notna()]
    assert len(modelled) == len(timed[timed["energy_provenance"].fillna("").str.startswith("modelled")])
    assert (
        "energy"
        not in page[page.index('id="table-counted"') : page.index("</table>", page.index('id="table-counted"'))]
    )
    for row, record in zip(
        rows_of(page, "table-timed"), [one.record for one in leaderboard([PUBLISHED]).timed], strict=True
    ):
        saved = record.get("saving_time")
        word = text(row["verdict"])
        if saved is None:
            assert word == "–"
            continue
        low, high = record["saving_time_ci"] or (-1, 1)
        assert word == ("faster" if low > 0 else "slower" if high < 0 else "cannot tell")
        assert value(row["time saved"]) == pytest.approx(saved)


def test_each_row_leads_to_a_run_that_says_how_to_do_it_again(board, page):
    anchors = set(re.findall(r'<article class="source" id="([^"]+)"', page))
    assert anchors == {run_key(place) for place in range(len(board.runs))}
    assert set(re.findall(r'<a href="#(run-\d+)"', page)) <= anchors
    read = unescape(page)
    for place, run in enumerate(board.runs):
        start = read.index(f'id="{run_key(place)}"')
        part = read[start : read.index("</article>", start)]
        assert f"git checkout {run.revision}" in part
        assert run.manifest["command"] in part
        assert ("not committed" in part) == bool(run.manifest["git"].get("dirty"))


def test_studies_show_every_policy_with_or_without_a_point(board, page):
    rows = list(rows_of(page, "table-studies"))
    assert len(rows) == len(board.points)
    assert sum(text(row["MACs saved"]) == "–" for row in rows) == sum(one.point is None for one in board.points)
    saved = [value(row["MACs saved"]) for row in rows if value(row["MACs saved"]) is not None]
    assert saved == sorted(saved, reverse=True)


def test_the_command_writes_the_page_and_says_the_standings(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "board.html"
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    kept = str(PUBLISHED / "audit-fashion-mnist.json")
    said = CliRunner().invoke(app, ["leaderboard", kept, str(tmp_path / "broken.json"), "--out", str(out)])
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    assert lines[0].startswith("4 nets under 5 attacks, on Fashion-MNIST")
    assert max(map(len, (one for one in lines if not one.startswith("page")))) <= 80
    assert "left out" in said.stderr
    assert "broken.json" in said.stderr
    assert out.read_text(encoding="utf-8") == leaderboard_page(leaderboard([Path(kept), tmp_path / "broken.json"]))
    told = json.loads(CliRunner().invoke(app, ["leaderboard", kept, "--out", str(out), "--json"]).stdout)
    assert told["kind"] == "leaderboard"
    assert len(told["rows"]) == 31
    monkeypatch.setattr(sys, "argv", ["adaptbench", "leaderboard", str(tmp_path / "nowhere")])
    assert terminal.run(app) == 2
    assert "there is nothing" in capsys.readouterr().err


def test_the_page_is_the_same_twice_and_small(board, page):
    assert page == leaderboard_page(leaderboard([PUBLISHED]))
    assert len(page.encode()) < 600_000
