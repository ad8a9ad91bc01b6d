"""Runs to report on, made once a session."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

from synthetic_run import MODELS, Plan, write_run

from adaptbench.report.page import write_report


class Page(HTMLParser):
    """Every element of a page with its attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.words = text, [], []
        self._skip = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._skip += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._skip:
            self.words.append(data)

    def all(self, tag, **wanted):
        return [attrs for name, attrs in self.tags if name == tag and wanted.items() <= attrs.items()]

    @property
    def reading(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture(scope="session")
def bench_run(tmp_path_factory):
    """Five models, six conditions, two batch sizes, no power sensor."""
    return write_run(tmp_path_factory.mktemp("runs") / "bench", Plan(n=200, sweep=5))


@pytest.fixture(scope="session")
def sensor_run(tmp_path_factory):
    """Two models; a power sensor answered."""
    plan = Plan(models=(MODELS[0], MODELS[4]), conditions=("clean", "noise", "ilfo"), n=80, sweep=3, measured=True)
    return write_run(tmp_path_factory.mktemp("runs") / "sensor", plan)


@pytest.fixture(scope="session")
def page_of(tmp_path_factory):
    """Write the report of some runs and read it."""

    def read(*runs):
        out = tmp_path_factory.mktemp("pages") / "report.html"
        assert write_report([run.path for run in runs], out) == out
        return Page(out.read_text("utf-8"))

    return read


@pytest.fixture(scope="session")
def bench_page(bench_run, page_of):
    return page_of(bench_run)


@pytest.fixture(scope="session")
def sensor_page(sensor_run, page_of):
    return page_of(sensor_run)


@pytest.fixture
def small_run(tmp_path):
    """A run that a test may shape: keyword arguments are those of `Plan`; `manifest` replaces parts of the manifest."""

    def make(name="run", manifest=None, **plan):
        plan = {"models": MODELS[:1], "conditions": ("clean", "noise", "ilfo"), "n": 60, "sweep": 3} | plan
        return write_run(tmp_path / name, Plan(**plan), **(manifest or {}))

    return make
