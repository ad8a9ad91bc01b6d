import pytest

from adaptbench.report import verdict
from adaptbench.report.view import View, saving


@pytest.fixture
def view(bench_run):
    return View(bench_run)


def test_the_best_saving_is_the_best(view):
    subject, record, share = verdict.best_saving(view)
    assert share == max(saving(view.clean(other)) for other in view.subjects)
    assert record["model"] == subject.model
    assert share == pytest.approx(1 - record["macs_mean"] / record["macs_full"])


def test_the_worst_attack_is_an_attack_with_the_largest_recovery(view):
    _, record = verdict.worst_attack(view)
    assert record["kind"] == "attack"
    assert record["recovery"] == max(other["recovery"] for other in view.records if other["kind"] == "attack")


def test_the_sentences_name_model_attack_and_interval(view):
    text = " ".join(verdict.verdict(view))
    subject, record = verdict.worst_attack(view)
    low, high = record["recovery_ci"]
    assert text.startswith("Five adaptive models on digits (200 test inputs), held against 4 attacks, on AMD EPYC 7B13")
    assert f"of the head-room of {subject.title}" in text
    assert f"{100 * record['recovery']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" in text
    assert "No power sensor answered" in text


def test_no_saving_and_no_recovery_are_said_plainly(small_run):
    run = small_run(sweep=0, references=False)
    for record in run.cases:
        record["macs_full"] = 1
        record["recovery"] = -0.01
    text = " ".join(verdict.verdict(View(run)))
    assert "no model saves MACs" in text
    assert "No attack that ran takes anything back" in text


def test_ties_and_uncounted_operations_are_owned_up_to(small_run):
    run = small_run(sweep=0, references=False)
    for record in run.cases:
        record["ties"] = 2
    run.manifest["models"]["softmax-threshold"]["uncounted"] = ["aten::sort"]
    text = " ".join(text for _, text in verdict.method(View(run)))
    assert "In 6 passes of a sample, over all conditions, a decision fell within" in text
    assert "no formula covers: aten::sort" in text
