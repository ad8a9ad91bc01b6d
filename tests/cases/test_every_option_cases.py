"""No option and no key is accepted and ignored: each has an entry here that says what is seen of it, or a refusal."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pooch
import pytest
import typer
from pydantic import BaseModel
from small_decoding import DECODING

import adaptbench as ab
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import Suite, load_suite
from adaptbench.cli import app
from adaptbench.commands.listing import Kind
from adaptbench.decoding.schema import Decoding
from adaptbench.decoding.spec import load_decoding
from adaptbench.errors import AdaptBenchError
from adaptbench.experiment.source import model_inside
from adaptbench.results.baseline import write_baseline
from adaptbench.results.files import digest, write_json
from adaptbench.results.serving import ServingRun
from adaptbench.results.studies import StudyRun
from adaptbench.serving.schema import Serving
from adaptbench.serving.spec import load_serving
from adaptbench.study import load_study, run_study
from adaptbench.study.schema import Study

SUITE = """
title: small
data: digits
models: [softmax-threshold]
references: [static]
sweeps: {softmax-threshold: [0.1]}
conditions: [clean, {noise: {eps: 8/255, limit: 6}}]
limit: 8
chunk: 8
measure: {batch_sizes: [1], meters: [clock, modelled], blocks: 2, window_s: 0.002, warmup_s: 0, samples: 4}
gate: {macs_mean: exact}
"""
STUDY = """
title: small
cite: somebody
graphs: {digits: {data: digits, model: softmax-threshold}}
policies: [softmax-threshold, uniform]
paper: softmax-threshold
ours: uniform
drops: [0.05]
limit: 40
measure: {batch_sizes: [1], blocks: 2, window_s: 0.002, warmup_s: 0, samples: 4}
published: [{claim: none, value: 1.0, why: other data}]
"""
SERVING = """
title: small
data: digits
models: [softmax-threshold]
arrivals: [{poisson: {load: 0.5}}]
requests: 60
repeats: 2
batching: {max_batch: 2, wait_s: 0.001, modes: [batches]}
objective_p99_s: 0.1
planner: {loads: [0.5], max_batch: [2], replicas: 1}
check: {requests: 40, repeats: 1}
measure: {clock: cpu, batch_sizes: [1], blocks: 2, window_s: 0.005, warmup_s: 0, samples: 4, spread: 20}
limit: 12
"""


@dataclass(frozen=True)
class Seen:
    """An option has an effect: what the words bring out, and what they do not without it."""

    words: str
    out: str = ""
    code: int = 0
    file: str = ""
    gone: str = ""


@dataclass(frozen=True)
class Refused:
    """An option ends with 2 and says why."""

    words: str
    says: str


Entry = Seen | Refused
DRY = "run {it} --out there --limit 5 --fresh --report page.html --baseline {base} --dry-run"


def of_run(base: str, data: str, limit: str, net: str) -> dict[str, Entry]:
    """`run`, on a suite, on a study and on a file of kind serving."""
    return {
        "override": Refused("run {it} -o nosuch=1", "-o nosuch=1, nosuch: there is no such key"),
        "out": Seen(DRY, "into     there"),
        "device": Refused("run {it} --device gpu9", "'gpu9' is no device"),
        "engine": Refused("run {it} --engine nosuch", "no engine is called 'nosuch'"),
        "address": Refused("run {it} --address 10.0.0.1:1", "the engine is this process"),
        "limit": Seen(DRY, limit),
        "fresh": Seen(DRY, "everything anew"),
        "allow_imports": Refused(f"run {{it}} -o {net} --allow-imports", "there is no file ./no.py"),
        "dry_run": Seen(DRY, "Nothing was run"),
        "report": Seen(DRY, "report   page.html"),
        "no_report": Seen("run {it} --out {done} --no-report", gone="report   ", out="already complete"),
        "baseline": Seen(f"run {{it}} --out {{done}} --no-report --baseline {base}", "kept of this very", code=3),
        "data_root": Refused(f"run {{it}} -o {data} --data-root nowhere", "nowhere"),
        "download": Refused(f"run {{it}} -o {data} --data-root nowhere --download", "nothing is fetched here"),
        "zoo": Refused("run {it} --zoo nowhere", "nowhere"),
        "verbose": Seen("run {it} --out {done} --no-report -v", gone="with -v", out="already complete"),
        "quiet": Seen("run {it} --out {done} --no-report -q", "done: ", gone="already complete"),
        "as_json": Seen("run {it} --out {done} --no-report --json", '"computed": false'),
    }


def of_check(file: str, said: str) -> dict[str, Entry]:
    """`check`, on a directory or on a file that was kept."""
    check = f"check {{it}} --baseline {file}"
    return {
        "baseline": Seen(check, f"kept of this very {said}", code=3),
        "form": Seen(f"{check} --format json", '"kind": "gate"', code=3),
        "out": Seen(f"{check} --out verdict.txt", "kept of this very", code=3, file="verdict.txt"),
        "selftest": Seen("check {it} --selftest", "held    none (control)"),
        "verbose": Seen(f"{check} -v", "kept of this very", gone="-v names", code=3),
        "quiet": Seen(f"{check} -q", "cannot tell: 0 comparisons", gone="kept of this very", code=3),
        "as_json": Seen(f"{check} --json", '"kind": "gate"', code=3),
    }


PAGE = {"out": Seen("report {it} --out page.html", "report   page.html", file="page.html")}
KEPT = {"out": Seen("baseline {it} --out kept.json", "kept.json", file="kept.json")}
FOLLOWED = {
    "out": Seen("history {it} --out trend.html", "page     trend.html", file="trend.html"),
    "verbose": Seen("history {it} -v", "last step"),
    "quiet": Seen("history {it} -q", "has two runs here", gone=" · 1 run"),
    "as_json": Seen("history {it} --json", '"kind": "history"'),
}
RANKED = {
    "out": Seen("leaderboard {it} --out board.html", "page     board.html", file="board.html"),
    "verbose": Seen("leaderboard {it} --out board.html -v", "on digits", gone="-v shows them"),
    "quiet": Seen("leaderboard {it} --out board.html -q", "on digits", gone="least taken back by"),
    "as_json": Seen("leaderboard {it} --out board.html --json", '"kind": "leaderboard"'),
}
NOT_RANKED = {
    "out": Refused("leaderboard {it} --out board.html", "holds simulated streams"),
    "verbose": Refused("leaderboard {it} -v", "holds simulated streams"),
    "quiet": Refused("leaderboard {it} -q", "holds simulated streams"),
    "as_json": Refused("leaderboard {it} --json", "holds simulated streams"),
}
IN_TRAINING = {
    "data": Seen("train static --data {data}", "load_data {data}"),
    "out": Seen("train static --data {data} --out there", "out there"),
    "seed": Seen("train static --data {data} --seed 7", "seed 7"),
    "data_root": Seen("train static --data {data} --data-root there", "root there"),
    "download": Seen("train static --data {data} --download", "download True"),
    "device": Refused("train static --data {data} --device gpu9", "'gpu9' is no device"),
    "strategy": Seen("train boosted-exits --data {data} --strategy uniform", "strategy uniform"),
    "option": Seen(
        "train boosted-exits --data {data} --strategy weighted --strategy-option values=[1]", "{{'values': [1]}}"
    ),
}
CRAFT = "attack softmax-threshold --data {it} --recipe noise --limit 5 --out dear"
ELSEWHERE = "attack softmax-threshold --data fashion-mnist --recipe noise --out dear --data-root nowhere"
OF_ATTACK = {
    "data": Refused("attack softmax-threshold --data digitz --recipe noise --out dear", "digitz"),
    "recipe": Refused("attack softmax-threshold --data {it} --recipe nois --out dear", "nois"),
    "out": Seen(CRAFT, "pictures dear", file="dear/crafted.json"),
    "setting": Seen(f"{CRAFT} -o eps=3/255", "at most 3/255"),
    "policy": Refused("attack skipnet --data {it} --recipe noise --out dear --policy entropy", "takes no policy"),
    "defence": Seen(f"{CRAFT} --defence quantise", "on softmax-threshold+quantise"),
    "limit": Seen(CRAFT, "5 test images"),
    "seed": Seen(f"{CRAFT} --seed 7", "seed 7"),
    "form": Seen(f"{CRAFT} --format safetensors", file="dear/crafted.safetensors"),
    "allow_imports": Refused("attack ./no.py:net --data {it} --recipe noise --out dear --allow-imports", "no.py"),
    "device": Refused(f"{CRAFT} --device gpu9", "'gpu9' is no device"),
    "fresh": Seen(f"{CRAFT} --fresh", "pictures dear, anew"),
    "data_root": Refused(ELSEWHERE, "nowhere"),
    "download": Refused(f"{ELSEWHERE} --download", "nothing is fetched here"),
    "zoo": Refused(f"{CRAFT} --zoo nowhere", "nowhere"),
}
AUDIT = "audit softmax-threshold --data {it} --limit 8 --attacks deepsloth"
AUDITED_ELSEWHERE = "audit softmax-threshold --data fashion-mnist --data-root nowhere"
OF_AUDIT = {
    "data": Refused("audit softmax-threshold --data digitz", "digitz"),
    "policy": Refused("audit skipnet --data {it} --policy entropy --out b", "takes no policy"),
    "defence": Seen(f"{AUDIT} --defence quantise --out d", "audit · softmax-threshold+quantise"),
    "attacks": Refused("audit softmax-threshold --data {it} --attacks nois", "nois"),
    "eps": Refused("audit softmax-threshold --data {it} --eps 8", "8/255"),
    "share": Refused("audit softmax-threshold --data {it} --share 0.1", "was given for pictures"),
    "limit": Seen(f"{AUDIT} --out b", "8 test images"),
    "seed": Seen(f"{AUDIT} --seed 7 --out c", out="bundle c", file="c/suite.yaml"),
    "out": Seen(f"{AUDIT} --out b", "bundle b", file="b/SHA256SUMS"),
    "max_recovery": Seen(f"{AUDIT} --out b --max-recovery 0", "recovery", code=1),
    "min_accuracy": Seen(f"{AUDIT} --out b --min-accuracy 1", "accuracy", code=1),
    "max_macs": Seen(f"{AUDIT} --out b --max-macs 1", "MACs", code=1),
    "allow_imports": Refused("audit ./nosuch.py:net --data {it} --allow-imports", "nosuch.py"),
    "device": Refused(f"{AUDIT} --out b --device gpu9", "'gpu9' is no device"),
    "data_root": Refused(AUDITED_ELSEWHERE, "nowhere"),
    "download": Refused(f"{AUDITED_ELSEWHERE} --download", "nothing is fetched here"),
    "zoo": Refused(f"{AUDIT} --out b --zoo nowhere", "nowhere"),
}
BUDGET = "budget {it} --shares 0,0.5 --orders 2"
OF_BUDGET = {
    "headroom": Seen(f"{BUDGET} --headroom 3", "each 3 × the mean clean input"),
    "burst": Seen(f"{BUDGET} --burst 7", "a bucket of 7 refills"),
    "shares": Seen(f"{BUDGET} --shares 0.25", "25 %", gone="50 %"),
    "orders": Seen(f"{BUDGET} --orders 3", "over 3 orders"),
    "out": Seen(f"{BUDGET} --out shared.json", "figures  shared.json", file="shared.json"),
    "data_root": Refused("budget {elsewhere} --data-root nowhere", "nowhere"),
    "download": Refused("budget {elsewhere} --data-root nowhere --download", "nothing is fetched here"),
    "zoo": Refused("budget {it} --zoo nowhere", "nowhere"),
}
OF_VERIFY = {
    "model": Seen("verify {bundle} --model softmax-threshold", "holds deepsloth: 8 pictures"),
    "data": Seen("verify {bundle} --model softmax-threshold --data digitz", "no data set is called 'digitz'", code=3),
    "allow_imports": Refused("verify {bundle} --model ./nosuch.py:net --allow-imports", "nosuch.py"),
    "data_root": Seen(
        "verify {bundle} --model softmax-threshold --data fashion-mnist --data-root nowhere", "nowhere", code=3
    ),
    "download": Seen(
        "verify {bundle} --model softmax-threshold --data fashion-mnist --data-root nowhere --download",
        "nothing is fetched here",
        code=3,
    ),
    "zoo": Refused("verify {bundle} --model softmax-threshold --zoo nowhere", "nowhere"),
    "refit": Refused("verify {bundle} --model softmax-threshold --refit", "was not fitted by the audit"),
}


def of_list(kind: str) -> dict[str, Entry]:
    """`list`: names alone, and for programs."""
    return {
        "quiet": Seen(f"list {kind} -q", gone="  "),
        "as_json": Seen(f"list {kind} --json", f'"of": "{kind}"'),
    }


TABLE: dict[tuple[str, str], dict[str, Entry]] = {
    ("attack", "digits"): OF_ATTACK,
    ("audit", "digits"): OF_AUDIT,
    ("verify", "bundle"): OF_VERIFY,
    ("budget", "attacked_run"): OF_BUDGET,
    ("run", "suite"): of_run(
        "{suite_kept}", "data=fashion-mnist", "digits/softmax-threshold/clean clean 5", "models=[./no.py:build]"
    ),
    ("run", "study"): of_run(
        "{study_kept}", "graphs.digits.data=fashion-mnist", "log test 5 samples", "graphs.digits.model=./no.py:build"
    ),
    ("run", "serving"): of_run("{serving_kept}", "data=fashion-mnist", "5 through each net", "models=[./no.py:build]"),
    ("report", "suite_run"): PAGE,
    ("report", "study_run"): PAGE,
    ("report", "suite_kept"): {"out": Refused("report {it} --out page.html", "it is a file, no directory")},
    ("report", "study_kept"): PAGE,
    ("report", "serving_run"): PAGE,
    ("report", "serving_kept"): PAGE,
    ("check", "suite_run"): of_check("{suite_kept}", "run"),
    ("check", "study_run"): of_check("{study_kept}", "study"),
    ("check", "suite_kept"): of_check("{suite_run}", "run"),
    ("check", "study_kept"): of_check("{study_run}", "study"),
    ("check", "serving_run"): of_check("{serving_kept}", "run"),
    ("check", "serving_kept"): of_check("{serving_run}", "run"),
    ("baseline", "suite_run"): KEPT,
    ("baseline", "study_run"): KEPT,
    ("baseline", "suite_kept"): {"out": Refused("baseline {it} --out kept.json", "it is a file, no directory")},
    ("baseline", "study_kept"): KEPT,
    ("baseline", "serving_run"): KEPT,
    ("baseline", "serving_kept"): KEPT,
    ("leaderboard", "suite_run"): RANKED,
    ("leaderboard", "study_run"): RANKED,
    ("leaderboard", "suite_kept"): RANKED,
    ("leaderboard", "study_kept"): RANKED,
    **{("leaderboard", kind): NOT_RANKED for kind in ("serving_run", "serving_kept")},
    ("history", "suite_run"): FOLLOWED,
    ("history", "study_run"): FOLLOWED,
    ("history", "suite_kept"): FOLLOWED,
    ("history", "study_kept"): FOLLOWED,
    ("history", "serving_run"): FOLLOWED,
    ("history", "serving_kept"): FOLLOWED,
    ("train", "digits"): IN_TRAINING | {"recipe": Refused("train static --data digits --recipe full", "full")},
    ("train", "cifar10"): IN_TRAINING | {"recipe": Seen("train resnet20 --data cifar10 --recipe full", "recipe full")},
    **{
        ("list", kind.value): of_list(kind.value)
        | {"data": Refused(f"list {kind.value} --data digits", f"given to `list {kind.value}`")}
        for kind in Kind
        if kind is not Kind.models
    },
    ("list", "models"): of_list("models")
    | {"data": Seen("list models --data digits", "softmax-threshold", gone="resnet-ladder-cifar")},
    ("doctor", "here"): {
        "data_root": Seen("doctor --data-root nowhere", "nowhere"),
        "quiet": Seen("doctor -q", "missing: ", gone="resolution"),
        "as_json": Seen("doctor --json", '"kind": "doctor"'),
    },
}
INPUTS: dict[str, list[str]] = {}
for command, kind in TABLE:
    INPUTS.setdefault(command, []).append(kind)


def options_of(command: Callable[..., object]) -> set[str]:
    """Names of a command's options; arguments are what stands without dashes."""
    found = inspect.signature(command, eval_str=True).parameters.values()
    return {p.name for p in found if type(p.annotation.__metadata__[0]).__name__ == "OptionInfo"}


COMMANDS = {c.name or str(c.callback.__name__): options_of(c.callback) for c in app.registered_commands}
CASES = [(command, kind, option) for (command, kind), entries in TABLE.items() for option in entries]


@pytest.mark.case("own")
def test_every_option_of_every_command_has_an_entry_for_every_kind_of_input():
    """`run STUDY --baseline` compared nothing and left with 0: an option without an entry fails here."""
    assert set(INPUTS) == set(COMMANDS)
    assert {(command, kind): set(entries) for (command, kind), entries in TABLE.items()} == {
        (command, kind): COMMANDS[command] for command, kind in TABLE
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A suite, a study, and one of kind serving."""
    folder = tmp_path_factory.mktemp("world")
    for name, text in (("suite", SUITE), ("study", STUDY), ("serving", SERVING), ("decoding", DECODING)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def world(folder):
    """One of each kind of input, and every key that was read while they were made."""
    read: set[tuple[str, str]] = set()
    look = BaseModel.__getattribute__

    def watched(self, name):
        if name in type(self).model_fields:
            read.add((type(self).__name__, name))
        return look(self, name)

    suite, study = load_suite(str(folder / "suite.yaml")), load_study(str(folder / "study.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModel, "__getattribute__", watched)
        run = run_suite(suite, out=folder / "suite_run")
        run_study(study, out=folder / "study_run")
    attacked = {"limit": 8, "overrides": ["models=[softmax-threshold]", "conditions=[clean, deepsloth]", "gate={}"]}
    ab.run(str(folder / "suite.yaml"), out=folder / "attacked_run", **attacked)
    elsewhere = shutil.copytree(folder / "attacked_run", folder / "elsewhere")
    manifest = json.loads((elsewhere / "manifest.json").read_text(encoding="utf-8"))
    manifest["suite"]["overrides"] += ["data=fashion-mnist"]
    write_json(elsewhere / "manifest.json", {**manifest, "digest": digest(manifest)})
    write_baseline(run, folder / "suite_kept.json")
    StudyRun.keep(folder / "study_run", folder / "study_kept.json")
    ab.run(str(folder / "serving.yaml"), out=folder / "serving_run")
    ServingRun.keep(folder / "serving_run", folder / "serving_kept.json")
    places = {name: str(folder / f"{name}.yaml") for name in ("suite", "study", "serving")}
    runs = ("suite_run", "study_run", "serving_run", "attacked_run", "elsewhere")
    places |= {name: str(folder / name) for name in runs}
    places |= {name: str(folder / f"{name}.json") for name in ("suite_kept", "study_kept", "serving_kept")}
    places["bundle"] = str(folder / "bundle")
    ab.audit("softmax-threshold", "digits", attacks="deepsloth", limit=8).save(folder / "bundle")
    return places, read


@pytest.fixture(scope="module")
def said():
    """What words said before: they say the same again."""
    return {}


@pytest.fixture
def trained(monkeypatch):
    """Training takes minutes: what reaches it is printed instead."""

    def tell(name):
        def told(*args, **named):
            said = [name, *map(str, args), *(f"{key} {value}" for key, value in named.items())]
            typer.echo(" ".join(said))
            return []

        return told

    monkeypatch.setattr("adaptbench.commands.training.load_data", tell("load_data"))

    def train(model, data, out, **named):
        tell("train")(model, out=out, **named)
        return []

    monkeypatch.setattr("adaptbench.commands.training.train_system", train)


def unreachable(*_: object, **__: object) -> None:
    """A publisher's site."""
    raise OSError("nothing is fetched here")


@pytest.mark.slow
@pytest.mark.case("own")
@pytest.mark.parametrize(("command", "kind", "option"), CASES, ids=["-".join(case) for case in CASES])
def test_an_option_is_seen_or_refused(world, said, adaptbench, request, tmp_path, monkeypatch, command, kind, option):
    """Each option shows in what the command prints, writes or returns, or ends with 2 and words."""
    places, _ = world
    monkeypatch.setattr(pooch, "retrieve", unreachable)
    if command == "train":
        request.getfixturevalue("trained")
    entry, base = TABLE[command, kind][option], places.get(f"{kind}_kept", "")
    names = {"it": places.get(kind, kind), "done": places.get(f"{kind}_run", ""), "base": base, "data": kind, **places}
    words = entry.words.format(**names).split()
    key = tuple(words)
    if key not in said or getattr(entry, "file", ""):
        said[key] = adaptbench(*words)
    ended = said[key]
    shown = " ".join((ended.out + ended.err).split())
    if isinstance(entry, Refused):
        assert ended.code == 2, shown
        assert entry.says.format(**names) in shown
        return
    assert ended.code == entry.code, shown
    assert " ".join(entry.out.format(**names).split()) in shown
    assert not entry.gone or entry.gone not in ended.out
    assert not entry.file or (tmp_path / entry.file).stat().st_size > 0
    assert "--dry-run" not in words or not any(tmp_path.iterdir())


# ---------------------------------------------------------------------- keys


def ours(**more: object) -> str:
    """A claim with a counterpart of ours."""
    told = {"graph": "digits", "policy": "uniform", "figure": "accuracy", "drop": 0.05} | more
    inside = ", ".join(f"{name}: {value}" for name, value in told.items() if value is not None)
    return f"published=[{{claim: a, value: 1.0, ours: {{{inside}}}}}]"


def entries(key: str) -> dict[str, str]:
    """A net under a policy, each part of it another."""
    return {
        f"{key}.net": f"{key}=[nosuchnet]",
        f"{key}.policy": f"{key}=[{{sdn: uniform}}]",
        f"{key}.settings": f"{key}=[{{sdn: {{exact-budget: {{budget: 0.6}}}}}}]",
        f"{key}.defence": f"{key}=[{{softmax-threshold: {{defence: quantise}}}}]",
        f"{key}.defence_settings": f"{key}=[{{softmax-threshold: {{defence: {{quantise: {{levels: 1}}}}}}}}]",
        f"{key}.id": f"{key}=[{{sdn: {{exact-budget: {{budget: 0.6, id: mine}}}}}}]",
    }


def of_calm(settings: str) -> str:
    """The small suite's decoders, the first that leaves early another."""
    return f"decoders=[greedy, {{calm: {{{settings}}}}}, {{self-speculative: {{exit: 1, drafts: 3}}}}]"


def of_decoders(settings: str) -> str:
    """The small suite's decoders, the one that guesses another."""
    return f"decoders=[greedy, {{calm: {{threshold: 0.3}}}}, {{self-speculative: {{{settings}}}}}]"


CHANGED = {
    "suite": {
        "title": "title=another",
        "data": "data=digitz",
        "models": "models=[sdn]",
        **entries("models"),
        "references": "references=[]",
        **entries("references"),
        "sweeps": "sweeps={}",
        "conditions": "conditions=[clean]",
        "conditions.id": "conditions=[clean, {noise: {id: other, eps: 8/255, limit: 6}}]",
        "conditions.ref": "conditions=[clean, {noise-sign: {id: noise, limit: 6}}]",
        "conditions.settings": "conditions=[clean, {noise: {eps: 9/255, limit: 6}}]",
        "conditions.limit": "conditions=[clean, {noise: {eps: 8/255, limit: 5}}]",
        "transfer": "transfer=[noise]",
        "conditions.models": "conditions=[clean, {noise: {eps: 8/255, limit: 6, models: [softmax-threshold]}}]",
        "limit": "limit=7",
        "chunk": "chunk=4",
        "seeds": "seeds=[1]",
        "strict": "strict=false",
        "measure": "measure=null",
        "measure.batch_sizes": "measure.batch_sizes=[2]",
        "measure.meters": "measure.meters=[clock]",
        "measure.blocks": "measure.blocks=3",
        "measure.window_s": "measure.window_s=0.003",
        "measure.warmup_s": "measure.warmup_s=0.001",
        "measure.samples": "measure.samples=3",
        "measure.conditions": "measure.conditions=[clean]",
        "measure.modes": "measure.modes=[per-sample]",
        "measure.neighbours": "measure={batch_sizes: [4], neighbours: [1]}",
        "measure.country": "measure.country=FRA",
        "measure.region": "measure.region=x",
        "measure.grid_g_per_kwh": "measure.grid_g_per_kwh=3",
        "gate": "gate={}",
    },
    "study": {
        "title": "title=another",
        "cite": "cite=another",
        "graphs": "graphs={other: {data: digits, model: softmax-threshold}}",
        "graphs.data": "graphs.digits.data=digitz",
        "graphs.model": "graphs.digits.model=sdn",
        "graphs.top": "graphs.digits.top=2",
        "graphs.title": "graphs.digits.title=another",
        "policies": "policies=[softmax-threshold, uniform, random]",
        "paper": "paper=uniform",
        "ours": "ours=softmax-threshold",
        "drops": "drops=[0.1]",
        "margin": "margin=0.1",
        "budgets": "budgets=[0.5]",
        "settings": "settings={softmax-threshold: [0.02]}",
        "execute": "execute=[]",
        "resplits": "resplits={policies: [softmax-threshold]}",
        "resplits.count": "resplits={count: 7, policies: [softmax-threshold]}",
        "resplits.epsilons": "resplits={epsilons: [0.2], policies: [softmax-threshold]}",
        "resplits.policies": "resplits={policies: [uniform]}",
        "online": "online={}",
        "online.mu": "online={mu: 0.2}",
        "online.budget": "online={budget: 0.5}",
        "online.base": "online={base: entropy}",
        "online.window": "online={window: 8}",
        "online.orders": "online={orders: [7]}",
        "online.flood": "online={flood: 0.1}",
        "gradient_noise": "gradient_noise=[0.1]",
        "published": "published=[]",
        "published.claim": "published=[{claim: other, value: 1.0, why: other data}]",
        "published.value": "published=[{claim: none, value: 2.0, why: other data}]",
        "published.provenance": "published=[{claim: none, value: 1.0, why: other data, provenance: x}]",
        "published.tolerance": "published=[{claim: none, value: 1.0, why: other data, tolerance: 1}]",
        "published.better": "published=[{claim: none, value: 1.0, why: other data, better: lower}]",
        "published.why": "published=[{claim: none, value: 1.0, why: another}]",
        "published.points_lost": "published=[{claim: none, value: 1.0, why: other data, points_lost: 1}]",
        "published.unlike": "published=[{claim: none, value: 1.0, why: other data, unlike: x}]",
        "published.target": "published=[{claim: none, value: 1.0, target: true}]",
        "published.ours": ours(),
        "published.ours.graph": ours(graph="x"),
        "published.ours.policy": ours(policy="x"),
        "published.ours.figure": ours(figure="x"),
        "published.ours.drop": ours(drop=0.2),
        "published.ours.setting": ours(drop=None, setting=3),
        "published.ours.non_inferior": ours(drop=None, non_inferior="true"),
        "published.ours.against": ours(against="[x]"),
        "measure": "measure=null",
        "measure.batch_sizes": "measure.batch_sizes=[2]",
        "measure.modes": "measure.modes=[per-sample]",
        "measure.blocks": "measure.blocks=3",
        "measure.window_s": "measure.window_s=0.003",
        "measure.warmup_s": "measure.warmup_s=0.001",
        "measure.samples": "measure.samples=3",
        "choosing": "choosing=0.5",
        "training_samples": "training_samples=7",
        "seed": "seed=1",
        "gate": "gate={accuracy: exact}",
        "limit": "limit=30",
        "notes": "notes=[x]",
    },
    "serving": {
        "title": "title=another",
        "data": "data=digitz",
        "models": "models=[sdn]",
        **entries("models"),
        "arrivals": "arrivals=[{poisson: {load: 0.6}}]",
        "arrivals.id": "arrivals=[{poisson: {load: 0.5, id: other}}]",
        "arrivals.process": "arrivals=[{bursts: {load: 0.5, id: poisson}}]",
        "arrivals.rate": "arrivals=[{poisson: {rate: 5}}]",
        "arrivals.load": "arrivals=[{poisson: {load: 0.4}}]",
        "arrivals.of": "arrivals=[{poisson: {load: 0.5, of: nobody}}]",
        "arrivals.peak": "arrivals=[{poisson: {load: 0.5, peak: 2}}]",
        "arrivals.share": "arrivals=[{poisson: {load: 0.5, share: 0.1}}]",
        "arrivals.length": "arrivals=[{poisson: {load: 0.5, length: 9}}]",
        "arrivals.file": "arrivals=[{trace: {file: nowhere.csv}}]",
        "requests": "requests=70",
        "repeats": "repeats=3",
        "batching": "batching={max_batch: 3}",
        "batching.max_batch": "batching.max_batch=3",
        "batching.wait_s": "batching.wait_s=0.002",
        "batching.modes": "batching.modes=[queues]",
        "replicas": "replicas=2",
        "objective_p99_s": "objective_p99_s=0.2",
        "hostile": "hostile={attack: deepsloth}",
        "hostile.run": "hostile={run: nowhere, condition: deepsloth}",
        "hostile.condition": "hostile={run: nowhere, condition: other}",
        "hostile.attack": "hostile={attack: nope}",
        "hostile.shares": "hostile={attack: deepsloth, shares: [0.3]}",
        "hostile.budget": "hostile={attack: deepsloth, budget: {}}",
        "hostile.budget.headroom": "hostile={attack: deepsloth, budget: {headroom: 1.5}}",
        "hostile.budget.burst": "hostile={attack: deepsloth, budget: {burst: 9}}",
        "planner": "planner=null",
        "planner.loads": "planner.loads=[0.6]",
        "planner.max_batch": "planner.max_batch=[1]",
        "planner.replicas": "planner.replicas=2",
        "check": "check=null",
        "check.requests": "check.requests=50",
        "check.repeats": "check.repeats=2",
        "check.clocks": "check.clocks=[wall]",
        "measure": "measure={}",
        "measure.batch_sizes": "measure.batch_sizes=[2]",
        "measure.blocks": "measure.blocks=3",
        "measure.window_s": "measure.window_s=0.003",
        "measure.warmup_s": "measure.warmup_s=0.001",
        "measure.samples": "measure.samples=3",
        "measure.meters": "measure.meters=[nvml]",
        "measure.clock": "measure.clock=wall",
        "measure.spread": "measure.spread=30",
        "gate": "gate={simulated_p99_s: {increase: 1 %}}",
        "limit": "limit=11",
        "seed": "seed=1",
    },
    "decoding": {
        "title": "title=another",
        "data": "data=sst2",
        "weights": "weights=sst2",
        "decoders": "decoders=[greedy, {calm: {threshold: 0.3}}, {self-speculative: {exit: 1, drafts: 3}}]",
        "decoders.id": of_decoders("id: guesses"),
        "decoders.kind": "decoders=[greedy, beam]",
        "decoders.threshold": of_calm("threshold: 0.4, id: calm 0.3"),
        "decoders.decay": of_calm("threshold: 0.3, decay: 2, id: calm 0.3"),
        "decoders.exits": of_calm("threshold: 0.3, exits: [1], id: calm 0.3"),
        "decoders.exit": of_decoders("exit: 2, drafts: 3, id: self-speculative 1 3"),
        "decoders.drafts": of_decoders("exit: 1, drafts: 5, id: self-speculative 1 3"),
        "prompts": "prompts={count: 4}",
        "prompts.count": "prompts.count=4",
        "prompts.chars": "prompts.chars=13",
        "prompts.new_chars": "prompts.new_chars=15",
        "prompts.stop": "prompts.stop=end",
        "quality": "quality=null",
        "quality.texts": "quality.texts=3",
        "quality.chars": "quality.chars=13",
        "attacks": "attacks=null",
        "attacks.decoder": "attacks.decoder=asked twice",
        "attacks.objectives": "attacks.objectives=[depth]",
        "attacks.edits": "attacks.edits=3",
        "attacks.queries": "attacks.queries=5",
        "attacks.prompts": "attacks.prompts=3",
        "attacks.new_chars": "attacks.new_chars=9",
        "attacks.stop": "attacks.stop=é",
        "measure": "measure=null",
        "measure.batch_sizes": "measure.batch_sizes=[2]",
        "measure.blocks": "measure.blocks=3",
        "measure.window_s": "measure.window_s=0.003",
        "measure.warmup_s": "measure.warmup_s=0.1",
        "measure.samples": "measure.samples=3",
        "measure.meters": "measure.meters=[clock]",
        "gate": "gate={}",
        "limit": "limit=2",
        "seed": "seed=1",
    },
}


def keys_of(model: type[BaseModel], above: str = "") -> set[str]:
    """Every key of a model and of the models in it, dotted."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(f"{above}{name}")
        if (inner := model_inside(field.annotation)) is not None:
            found |= keys_of(inner, f"{above}{name}.")
    return found


MODELS = {"suite": Suite, "study": Study, "serving": Serving, "decoding": Decoding}
LOADERS = {"suite": load_suite, "study": load_study, "serving": load_serving, "decoding": load_decoding}
KEYS = [(kind, key) for kind, entries in CHANGED.items() for key in entries]


@pytest.mark.case("own")
@pytest.mark.parametrize("kind", CHANGED)
def test_every_key_has_an_entry(kind):
    """A study took meters, conditions and a country and did nothing with them: a key without an entry fails here."""
    assert keys_of(MODELS[kind]) == set(CHANGED[kind])


def outcome(kind: str, place: str, overrides: list[str] | None = None) -> str:
    """The hash of what is read, or why it is refused."""
    try:
        return LOADERS[kind](place, overrides or []).sha256
    except AdaptBenchError as error:
        return error.seen


@pytest.mark.case("own")
@pytest.mark.parametrize(("kind", "key"), KEYS, ids=[f"{kind}-{key}" for kind, key in KEYS])
def test_a_changed_key_changes_the_hash_or_is_refused(folder, kind, key):
    """Each key changed once: what is written is another suite or study, or it is refused with its place."""
    place = str(folder / f"{kind}.yaml")
    found = outcome(kind, place, [CHANGED[kind][key]])
    assert found != outcome(kind, place)
    assert len(found) == 64 or f"-o {CHANGED[kind][key]}" in found


@pytest.mark.slow
@pytest.mark.case("own")
def test_every_key_of_a_suite_is_read_while_it_runs(world):
    """A key that changes the hash and nothing else would be a promise: each is looked at (a study's: its own test)."""
    _, read = world
    kinds = [
        Suite,
        model_inside(Suite.model_fields["conditions"].annotation),
        model_inside(Suite.model_fields["measure"].annotation),
    ]
    wanted = {(model.__name__, name) for model in kinds for name in model.model_fields}
    assert wanted - read == set()
