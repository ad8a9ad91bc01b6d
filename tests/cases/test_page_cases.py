"""The page of a run: what stands on it is what the run directory holds, and names are only names."""

import copy
import io
import json
import re
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

sys.path.append(str(Path(__file__).resolve().parents[1]))

from synthetic_run import MODELS, Plan, write_run

from adaptbench.console import result_table, show_error, show_notes
from adaptbench.errors import UsageError
from adaptbench.report import method, verdict, words
from adaptbench.report.figures import curves, savings
from adaptbench.report.page import run_page
from adaptbench.report.view import View
from adaptbench.results.store import Run


class Loose:
    """A run whose manifest and records a test may shape."""

    def __init__(self, run):
        self.path, self.samples, self.windows, self.crafted = run.path, run.samples, run.windows, run.crafted
        self.manifest, self.cases = json.loads(json.dumps(dict(run.manifest))), copy.deepcopy(list(run.cases))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    plan = Plan(models=(MODELS[0], MODELS[1], MODELS[4]), conditions=("clean", "noise", "ilfo"), n=80, sweep=3)
    return write_run(tmp_path_factory.mktemp("page") / "run", plan).path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    plan = Plan(models=MODELS[1:2], conditions=("clean", "ilfo"), n=20, sweep=0, batches=(1,), references=False)
    return write_run(tmp_path_factory.mktemp("page") / "small", plan).path


@pytest.fixture
def run(directory):
    """Two data-parallel families with static networks of their own, and one static reference for all."""
    found = Loose(Run.open(directory))
    for record in found.cases:
        if record["kind"] == "reference":
            record.update(model=record["policy"], macs_full=1_350_000)
    return found


def table(page, key):
    """A table of the page as a frame: full precision where there is a figure, else the text."""
    whole = re.search(rf'<table id="{key}".*?</table>', page, re.S)[0]
    whole = re.sub(r'<span class="axis".*?</span>', "", whole)
    head = [unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<th scope=\"col\".*?</th>", whole, re.S)]
    rows, group = [], ""
    for attrs, body in re.findall(r"<tr([^>]*)>(.*?)</tr>", whole.split("<tbody>")[1], re.S):
        cells = re.findall(r"<t[hd].*?</t[hd]>", body, re.S)
        if "heading" in attrs:
            group = unescape(re.sub("<.*?>", "", cells[0]))
            continue
        figures = [re.search(r'data-v="([^"]*)"', cell) for cell in cells]
        names = [unescape(name) for name in re.findall(r'data-t="([^"]*)"', cells[0])]
        texts = [
            unescape(re.sub("<.*?>", "", re.sub(r"<span class=\"under.*?</span>|<sup.*?</sup>", "", c))) for c in cells
        ]
        rows.append([group, *(names or [""])] + [float(f[1]) if f else t for f, t in zip(figures, texts, strict=True)])
    return pd.DataFrame(rows, columns=["group", "id", *head])


def terminal(run):
    sink = io.StringIO()
    Console(width=120, file=sink).print(result_table(run.cases, run.manifest))
    return sink.getvalue()


@pytest.mark.slow
@pytest.mark.case("own")
def test_accuracy_against_cost_has_one_axis(run):
    """A model's points stood in per cent of its own static network, references' of another; MACs are absolute."""
    view = View(run)
    (panel,) = curves.figure(view).panels
    for drawn in (panel.svg, panel.narrow):
        assert "MACs a sample</text>" in drawn
        assert "%</text>" not in drawn.replace("accuracy, %</text>", "")
    points = table(run_page(run), "table-curves")
    for subject in view.subjects:
        full = view.clean(subject)["macs_full"]
        found = points[points["model"] == subject.title]
        assert set(found["its model’s plain net"]) == {full}
        np.testing.assert_allclose(found["of that net"], 100 * found["MACs/sample"] / full, rtol=1e-9)
        assert {"reference: static", "reference: oracle"} <= set(found["what"])


@pytest.mark.case("own")
def test_every_share_of_a_static_network_names_it(run):
    """ "Of full" had another denominator in each group of rows, unsaid on page, terminal and CSV."""
    cases = table(run_page(run), "table-cases")
    for record in run.cases:
        found = cases[cases["id"] == record["case"]]
        assert found["of its plain net"].tolist() == [pytest.approx(record["macs_mean"] / record["macs_full"])]
    shown = terminal(run)
    assert "of its" in shown
    assert [line.split()[-3:] for line in shown.splitlines() if line.startswith("learned-cascade")] == [
        ["of", "1.35", "M"]
    ]


@pytest.mark.case("own")
def test_an_attack_on_fewer_inputs_stands_beside_their_clean_mean(run):
    """30.3 M of the first 8 inputs stood next to 27.6 M of all 16, with "0.0 %" taken back."""
    for record in run.cases:
        if record["condition"] == "ilfo":
            record.update(n=8, macs_clean_mean=123_000.0)
    view = View(run)
    _, write = words.column([record["macs_mean"] for record in run.cases], "MACs")
    assert f"clean, the same 8: {write(123_000.0)}" in run_page(run)
    assert "clean, the same 8 inputs" in terminal(run)
    for one in verdict.judge(view):
        before, after, full = 123_000.0, one.worst["macs_mean"], one.worst["macs_full"]
        assert one.lost == pytest.approx((after - before) / (full - before)), "the same inputs, clean and attacked"


@pytest.mark.case("own")
def test_three_figures_come_out_of_the_run_directory(directory):
    """Whoever recomputes the page with pandas from the run directory gets its figures: cost, recovery, exits."""
    page = run_page(Run.open(directory))
    samples = pd.read_parquet(directory / "samples.parquet")
    cases = pd.DataFrame(json.loads((directory / "summary.json").read_text("utf-8"))["cases"])
    once = cases.drop_duplicates("evaluation").set_index("evaluation")
    title = {fake.name: fake.title for fake in MODELS}
    mean = samples.groupby("case")["macs"].mean()

    points = table(page, "table-curves")
    swept = once[once["kind"].isin(["clean", "sweep", "reference"])]
    for model, found in points.groupby("model"):
        wanted = mean[swept.index[swept["model"].map(title) == model]]
        np.testing.assert_allclose(sorted(found["MACs/sample"]), sorted(wanted), rtol=1e-9)

    recovery = table(page, "table-recovery").set_index(["model", "condition"])["taken back"]
    drawn = table(page, "table-taken-back").set_index(["group", "condition"])["taken back"]
    for evaluation, record in once[once["kind"].isin(["control", "attack"])].iterrows():
        clean = samples[samples["case"] == evaluation.rsplit("/", 1)[0] + "/clean"].set_index("sample_id")["macs"]
        after = samples[samples["case"] == evaluation].set_index("sample_id")["macs"]
        share = (after - clean).mean() / (record["macs_max"] - clean.mean())
        name = {"noise": "noise 8/255 (control)", "ilfo": "ILFO 8/255"}[record["condition"]]
        assert recovery[title[record["model"]], name] == pytest.approx(share, rel=1e-9)
        assert drawn[title[record["model"]], name] == pytest.approx(share, rel=1e-9)

    exits = table(page, "table-exits")
    shown = exits[exits["model"] == "Learned cascade"].groupby("condition", sort=False)["inputs"].apply(list)
    for condition, name in (("clean", "clean"), ("ilfo", "ILFO 8/255")):
        left = samples.loc[samples["case"] == f"digits/learned-cascade/{condition}", "exit"]
        assert shown[name] == left.value_counts().reindex(range(3), fill_value=0).tolist()


@pytest.mark.case("own")
def test_noise_of_another_size_is_no_control(run):
    """The first noise of the suite stood beside every attack, whatever its size."""
    view = View(run)
    assert all(view.control_of(subject, attack) for subject in view.subjects for attack in view.attacks(subject))
    for record in run.cases:
        if record["condition"] == "noise":
            record["linf_max"] = 2 / 255
    assert "the run has no control of this size, or of as many queries" in run_page(run)


@pytest.mark.case("own")
def test_what_is_not_recorded_is_not_claimed(run):
    """Missing ties and operations were told as "no decision was a tie" and "no operation ran uncounted"."""
    for record in run.cases:
        record.update(ties=None, uncounted=None, accuracy=None if record["kind"] == "clean" else record["accuracy"])
    for about in run.manifest["models"].values():
        about.pop("uncounted", None)
    whole = run.windows()
    run.windows = lambda: whole[whole["case"].isin(["suite", "idle"])]
    view = View(run)
    text = " ".join(words for _, words in method.method(view))
    for said in ("Ties are not recorded.", "Whether something ran uncounted is not recorded.", "Nothing was timed"):
        assert said in text
    assert "accuracy of –" not in run_page(run)


@pytest.mark.case("own")
def test_models_that_missed_an_attack_are_not_said_to_have_stood_it(run):
    """An attack that was not run on one model, or failed there, still counted for all."""
    assert "held against 1 attack," in verdict.measured(View(run))
    for record in run.cases:
        if (record["model"], record["condition"]) == ("skipnet", "ilfo"):
            record.update(n=0, macs_mean=None, recovery=None)
    assert "held against up to 1 attack," in verdict.measured(View(run))


@pytest.mark.case("own")
def test_a_saving_of_exactly_nothing_is_shown(run):
    """A model whose MACs were those of its static network counted as "nothing was timed"."""
    assert savings.table(View(run)) is not None
    for record in run.cases:
        record.update({name: None for name in record if name.startswith(("saving_", "realised_saving_"))})
        record["macs_mean"], record["saving_macs"] = record["macs_full"], 0.0
    assert savings.table(View(run)) is not None


STRANGE = {
    "markup": "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>",
    "mathematics": "$x^$",
    "terminal": "\x1b[31m\x07",
    "null": "\0",
    "surrogate": "\ud800",
    "console": "[/x] [bold]",
    "comment": "]]>&amp;<!--",
    "lines": "a\nb\r\nc\u2028",
    "reversed": "\u202egpj",
    "formula": "=cmd|' /C calc'!A0",
    "other script": "猫",
}
KEPT = {
    "kind",
    "started",
    "ended",
    "crafted",
    "evaluation",
    "case",
    "shape",
    "energy_provenance",
    "model",
    "data",
    "condition",
}


def strange(thing, word, key=""):
    """The same with `word` before every text that comes from outside."""
    if isinstance(thing, dict):
        return {name: strange(inner, word, name) for name, inner in thing.items()}
    if isinstance(thing, list):
        return [strange(inner, word, key) for inner in thing]
    return word + thing if isinstance(thing, str) and key not in KEPT else thing


@pytest.mark.case("own")
@pytest.mark.parametrize("kind", STRANGE)
def test_names_do_not_speak_to_the_terminal(small, kind):
    """Control characters in ids, notes and errors reached the terminal; lone surrogates broke it."""
    word, run = STRANGE[kind], Loose(Run.open(small))
    for record in run.cases:
        record.update(model=word + record["model"], condition=word + record["condition"])
    shown = terminal(run)
    sink = io.StringIO()
    show_notes(Console(file=sink), [f"about {word}"])
    show_error(Console(file=sink), UsageError(f"no {word}.", why=word, todo=word))
    for text in (shown, sink.getvalue()):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", text)
        text.encode()


class Attributes(HTMLParser):
    """Names of all attributes of a page, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.names = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names |= {name for name, _ in attrs}


@pytest.mark.case("own")
@pytest.mark.parametrize("kind", STRANGE)
def test_names_are_only_names(small, kind):
    """A "$" or a control character in a title or class name broke the page after the whole run; nothing is obeyed."""
    word, run = STRANGE[kind], Loose(Run.open(small))
    run.manifest, run.cases = strange(run.manifest, word), strange(run.cases, word)
    for part in ("models", "conditions", "data"):
        run.manifest[part] = {word + name: about for name, about in run.manifest[part].items()}
    for record in run.cases:
        record.update({name: word + record[name] for name in ("model", "condition", "data")})
    page = run_page(run)
    assert page.count("<script") == 1
    assert not [name for name in Attributes(page).names if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\ud800-\udfff]", page)
    page.encode()
