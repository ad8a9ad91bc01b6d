"""The page of a run whose attacks ask at several budgets shows the curve, and its table the intervals."""

import pytest

from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.report.page import write_report

ASKING = "{best-of-n: {eps: 32/255, queries: %d, id: chance-%d}}"


@pytest.mark.slow
def test_two_budgets_are_drawn_and_one_is_not(tmp_path):
    for budgets, drawn in (((3, 9), True), ((9,), False)):
        asked = ", ".join(ASKING % (q, q) for q in budgets)
        settings = ["models=[softmax-threshold]", "limit=6", "seeds=[0, 1]", f"conditions=[clean, {asked}]"]
        run = run_suite(load_suite("ci", settings), out=tmp_path / f"run{len(budgets)}")
        page = write_report([run.path], tmp_path / f"page{len(budgets)}.html").read_text(encoding="utf-8")
        assert ('id="fig-queries"' in page) == drawn
        assert ("Recovery over queries" in page) == drawn
        assert "mathdefault" not in page, "ticks of a logarithmic axis, in a markup that no browser reads"
