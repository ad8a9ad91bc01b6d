from adaptbench.report import cards, reproduce
from adaptbench.report.figures import sizes
from adaptbench.report.view import View


def card(**condition):
    """The card of one condition."""

    class Run:
        manifest = {"conditions": {"own": {"kind": "attack", "title": "Own", "access": "white-box"} | condition}}
        cases = ()

    (made,) = cards.cards(View(Run()))
    return made


def facts(**condition):
    return dict(card(**condition).facts)


def test_what_an_attacker_knows_and_may_change_is_said_in_words():
    told = facts(settings={"constraint": "linf", "eps": 0.12549019607843137})
    assert told["may change"] == "each value of the picture by at most 32/255 of its range (L∞)"
    assert "white box" in told["knows"]
    assert told["queries"] == "none"
    told = facts(access="black-box", settings={"constraint": "l2", "eps": 1.5, "queries": 500})
    assert told["may change"] == "the picture by at most 1.5 in Euclidean length (L2)"
    assert told["queries"] == "500 an input"
    assert "is told the executed MACs (black box)" in told["knows"]
    assert (
        "another net, Softmax threshold;"
        in facts(access="transfer", settings={"surrogate": "softmax-threshold"})["knows"]
    )
    assert facts(access="none", settings={"severity": 3})["may change"] == "the whole picture, at severity 3"
    assert facts(settings={"eps": 8 / 255})["may change"].startswith("each value of the picture by at most 8/255")
    assert facts(settings={})["may change"] == "not stated"
    assert facts(settings={"precision": "bf16"})["steps"].startswith("in bf16; what is kept was executed")
    assert "steps" not in facts(settings={})


def test_steps_are_grey_levels_and_deviations_stand():
    made = card(settings={"step": 4 / 255, "steps": 30, "lr": 0.1}, deviates=["kept the dearest"], cite="A, B 2020")
    assert made.settings == "step 4/255, steps 30, lr 0.1"
    assert made.deviates == ("kept the dearest",)
    assert card(title="ILFO", summary="ILFO, late exits").what == "late exits"


def test_attacks_come_before_controls(bench_run):
    kinds = [made.kind for made in cards.cards(View(bench_run))]
    assert kinds == sorted(kinds, key=lambda kind: kind != "attack")


def test_the_steps_redo_the_run(bench_run, small_run):
    view = View(bench_run)
    told = dict(reproduce.steps(view))
    assert told["check out, in a clone of adaptbench"] == f"git checkout {view.manifest['git']['revision']}"
    assert told["run"] == view.manifest["command"]
    bare = View(small_run(manifest={"git": None, "versions": {"adaptbench": "0.1.0", "torchattacks": "3.5.1"}}))
    assert dict(reproduce.steps(bare))["install"] == "python -m pip install 'adaptbench[attacks]==0.1.0'"


def test_hashes_of_data_suite_and_files_are_open(bench_run):
    told = dict(reproduce.hashes(View(bench_run)))
    assert told["suite"] == bench_run.manifest["suite"]["sha256"]
    assert told["samples.parquet"] == bench_run.manifest["files"]["samples.parquet"]["sha256"]


def test_one_attack_at_two_sizes_is_a_curve_and_two_attacks_are_none(small_run):
    run = small_run(conditions=("clean", "ilfo", "deepsloth"))
    about = run.manifest["conditions"]
    assert sizes.figure(View(run)) is None
    for name, eps in (("ilfo", 8 / 255), ("deepsloth", 16 / 255)):
        about[name] = about[name] | {"summary": "ILFO", "settings": {"constraint": "linf", "eps": eps, "steps": 3}}
    made = sizes.figure(View(run))
    wanted = {record["condition"]: record["recovery"] for record in run.cases if record["condition"] in about}
    shown = [(row.cells[2].value, row.cells[3].value) for row in made.table.rows]
    assert shown == [(8 / 255, wanted["ilfo"]), (16 / 255, wanted["deepsloth"])]
