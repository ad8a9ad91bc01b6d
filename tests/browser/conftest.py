"""Pages opened in headless Chromium with the network off."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

from small_study import STUDY
from synthetic_run import MODELS, Plan, write_run

from adaptbench.report.history_page import write_history
from adaptbench.report.leaderboard import leaderboard
from adaptbench.report.leaderboard_page import write_leaderboard
from adaptbench.report.page import write_report
from adaptbench.report.serving_page import write_serving_report
from adaptbench.report.study_page import write_study_report
from adaptbench.results.history import history
from adaptbench.study import run_study

PUBLISHED = Path(__file__).resolve().parents[2] / "reports" / "published"
LONG = "A condition with a title much longer than anybody would wish for, 8/255 (control)"


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """name → file: a report, one with awkward names and gaps, a difference, a study."""
    base = tmp_path_factory.mktemp("browser")
    plan = Plan(models=(*MODELS[:2], MODELS[4]), conditions=("clean", "noise", "pgd", "ilfo"), n=80, sweep=4)
    first = write_run(base / "first", plan)
    second = write_run(base / "second", Plan(models=MODELS[:2], conditions=("clean", "ilfo"), n=80, sweep=4, seed=1))
    manifest = first.manifest
    titled = {
        name: about | {"title": LONG if about["kind"] != "clean" else "clean"}
        for name, about in manifest["conditions"].items()
    }
    named = {name: about | {"title": f"<b>{'unbroken' * 9}</b>"} for name, about in manifest["models"].items()}
    awkward = write_run(base / "awkward", plan, conditions=titled, models=named, command="adaptbench run " + "x" * 300)
    runs = {"report": [first], "awkward": [awkward], "difference": [first, second]}
    found = {name: write_report([run.path for run in found], base / f"{name}.html") for name, found in runs.items()}
    (base / "small.yaml").write_text(STUDY, encoding="utf-8")
    study = run_study(str(base / "small.yaml"), out=base / "study").path
    found |= {"study": write_study_report(study, base / "study.html")}
    found |= {"serving": write_serving_report(PUBLISHED / "serving.json", base / "serving.html")}
    runs = [write_run(base / "trend" / str(n), Plan(models=MODELS[:2], n=80, sweep=0), **_day(n)) for n in range(3)]
    found |= {"history": write_history(history([run.path for run in runs]), base / "history.html")}
    return found | {"leaderboard": write_leaderboard(leaderboard([PUBLISHED]), base / "leaderboard.html")}


def _day(number):
    """A run of its own, a day later."""
    return {"id": f"day {number}", "started": f"2026-03-{number + 1:02d}T00:00:00+00:00"}


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("Chromium is not installed: `apt-get install chromium`, or deselect with -m 'not browser'.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, pages):
    """Open a page offline; on leaving, whatever it complained of or asked for fails the test."""

    @contextmanager
    def opened(name, width=1440, scheme="light", **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        context.set_offline(True)
        page = context.new_page()
        complaints, asked = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(pages[name].as_uri())
        try:
            yield page
            assert complaints == []
            assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        finally:
            context.close()

    return opened
