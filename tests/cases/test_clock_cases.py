"""Figures of the clock: who spent the seconds, and what a page or terminal says of them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from synthetic_run import write_run

from adaptbench.console import result_table
from adaptbench.report import words
from adaptbench.report.verdict import verdict
from adaptbench.report.view import View


@pytest.mark.case("own")
def test_the_terminals_energy_is_the_pages(tmp_path):
    """Terminal and page showed batch 1 and batch 256 under one label, energy/sample: both show and name the page's."""
    run = write_run(tmp_path / "run")
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(result_table(run.cases, run.manifest, width=160))
    text = console.export_text()
    view = View(run)
    assert f"batch {view.batch_size}" in text
    shown = [record for subject in view.subjects for record in view.rows(subject)]
    write = words.one_scale([r["energy_j_per_sample"] for r in shown], "J")
    assert all(write(record["energy_j_per_sample"]) in text for record in shown)


@pytest.mark.case("own")
def test_modelled_energies_are_not_said_to_be_macs_alone(tmp_path):
    """Modelled joules count bytes too, so they do say something that MACs do not."""
    (sentence,) = [s for s in verdict(View(write_run(tmp_path / "run"))) if "sensor" in s]
    assert "bytes" in sentence
