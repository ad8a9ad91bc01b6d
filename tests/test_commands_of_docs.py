"""Every command of README and docs is run as it stands on fewer inputs; what lacks data or a card is refused in words.

tox environments run in CI: here their names are looked up. A command of a kind that is not known below fails.
"""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from small_study import STUDY

from adaptbench.bench.runner import run_suite
from adaptbench.results.baseline import write_baseline
from adaptbench.results.store import Run
from adaptbench.study import run_study

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CONDITIONS = ("bench", "ci", "energy.yaml")
CONDITIONS = "[clean, noise: {eps: 32/255}, ilfo: {eps: 32/255, steps: 5}]"
RUN = ["--limit", "8", "-o", "measure.blocks=2", "-o", "measure.window_s=0.01", "-o", "measure.samples=8"]
FEWER = {"attack": ["--limit", "8"]}
ENDS_WITH = {"run": {0}, "check": {0, 3}, "doctor": {0, 3}}
"""check: between machines, what is not comparable is 3."""
NOT_IN_CI = {"libraries"}
"""Five gigabytes of ordinary builds."""
ON_A_CLUSTER = " --engine ray"
"""`tox -e ray` runs the suite of docs/scale.md so; here it is run by this process."""
OWN_TESTS = {
    "audits.md": "tests/auditing/test_worked_audits.py",
    "audit.md": "tests/auditing/test_audit_page.py",
    "series.md": "tests/series/test_series.py",
    "serving.md": "tests/serving/test_serving_run.py",
    "decoding.md": "tests/decoding/test_decoding_run.py",
}


@dataclass(frozen=True)
class Command:
    page: str
    line: str

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def commands() -> Iterator[Command]:
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("$ "):
                    yield Command(page.name, re.sub(r"\s+#.*", "", line[2:]).strip())


def of_workflows() -> Iterator[Command]:
    """The lines that a CI's YAML of the docs runs."""
    for page in PAGES:
        for block in re.findall(r"```yaml\n(# \.git.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            document = yaml.safe_load(block)
            jobs = document["jobs"].values() if "jobs" in document else document.values()
            for job in jobs:
                steps = [step["run"] for step in job.get("steps", []) if "run" in step]
                for line in [*steps, *job.get("before_script", []), *job.get("script", [])]:
                    yield Command(page.name, line)


def all_commands() -> list[Command]:
    return list(dict.fromkeys([*commands(), *of_workflows()]))


def elsewhere() -> set[str]:
    """Lines of documents whose own tests run them, and what `tox -e bench` runs whole."""
    assert "adaptbench run bench {posargs}" in (ROOT / "tox.ini").read_text(encoding="utf-8")
    return {"adaptbench run bench"} | {command.line for command in commands() if command.page in OWN_TESTS}


def spread(line: str) -> list[str]:
    """`list a|b` is two commands."""
    alternatives = re.search(r"\S+\|\S+", line)
    if alternatives is None:
        return [line]
    return [line.replace(alternatives.group(), word) for word in alternatives.group().split("|")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A room as the documents suppose it: a checkout's files, a suite of one's own, finished runs, a bundle."""
    room = tmp_path_factory.mktemp("room")
    (room / "reports").mkdir()
    for name in ("reports/baselines", "docs", "tox.ini"):
        (room / name).symlink_to(ROOT / name)
    (room / "reports" / "published").mkdir()  # `baseline` writes there
    for place in (ROOT / "reports" / "published").glob("*.json"):
        (room / "reports" / "published" / place.name).symlink_to(place)
    small = (ROOT / "suites" / "ci.yaml").read_text(encoding="utf-8")
    small = small.replace("limit: 200", "limit: 20").replace("steps: 60", "steps: 10")
    (room / "energy.yaml").write_text(small, encoding="utf-8")
    run_suite(str(room / "energy.yaml"), out=room / "runs" / "energy")
    for name in ("a", "b", "bench", "ci", "defences"):
        shutil.copytree(room / "runs" / "energy", room / "runs" / name)
    write_baseline(Run.open(room / "runs" / "energy"), room / "energy-baseline.json")
    (room / "sharded.yaml").write_text(sharded(), encoding="utf-8")
    (room / "small.yaml").write_text(STUDY, encoding="utf-8")
    run_study(str(room / "small.yaml"), out=room / "runs" / "replicate-softmax-threshold")
    return room


def sharded() -> str:
    """The suite of docs/scale.md, as it stands there."""
    (block,) = re.findall(
        r"```yaml\n(title:.*?)```", (ROOT / "docs" / "scale.md").read_text(encoding="utf-8"), re.DOTALL
    )
    return str(block)


@pytest.fixture
def typed(finished: Path, adaptbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs words in a copy of the room, without data sets."""
    room = tmp_path / "room"
    shutil.copytree(finished, room, symlinks=True)  # a command that spoils it spoils nobody else's
    monkeypatch.chdir(room)
    monkeypatch.delenv("ADAPTBENCH_DATA", raising=False)
    return adaptbench


def fewer(words: list[str]) -> list[str]:
    extra = list(FEWER.get(words[0], []))
    if words[0] == "run" and "--dry-run" not in words:
        extra = [*RUN, "-o", f"conditions={CONDITIONS}"] if words[1] in WITH_CONDITIONS else ["--limit", "8"]
    if "measure.conditions=[clean, ilfo]" in words:
        extra = extra[:-2]  # refused for its device before anything is crafted
    return [*words, *extra]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for c in all_commands() if c.line.startswith("adaptbench ") and c.line not in elsewhere()], ids=str
)
def test_it_runs(command: Command, typed) -> None:
    for line in spread(command.line):
        words = shlex.split(line.partition(" > ")[0].replace(ON_A_CLUSTER, ""))[1:]
        ended = typed(*fewer(words))
        said = ended.out + ended.err
        if "cuda" in words:
            assert ended.code == 2, said
            assert "cuda" in ended.err
        elif ended.code == 2 and "ADAPTBENCH_DATA" in said:
            assert re.search("replicate-|cifar10|fashion|minilm", line), f"{line} needs data that it does not name"
        else:
            assert ended.code in ENDS_WITH.get(words[0], {0}), said


@pytest.mark.parametrize("command", [c for c in all_commands() if not c.line.startswith("adaptbench ")], ids=str)
def test_what_it_starts_is_there(command: Command) -> None:
    """tox, pip and scripts: what they name exists, and CI runs the environment."""
    ran_by_ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    for part in command.line.split(" && "):
        words = shlex.split(part)
        program = Path(words[0]).name
        if program in ("pipx", "tox"):
            assert words[:3][1:] == ["run", "tox"] or program == "tox", part
            named = words[words.index("-e") + 1] if "-e" in words else None
            if named is None:
                assert re.search(r"^step tox$", ran_by_ci, re.MULTILINE)
            else:
                assert f"testenv:{named}" in tox
                in_ci = f"tox -e {named}" in ran_by_ci or named in tox["tox"]["env_list"].split(", ")
                assert in_ci or named in NOT_IN_CI, named
        elif program == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), part
        else:
            assert program in ("pip", "python3"), part
            assert set(words) & {"venv", "install"}, part


def test_documents_with_tests_of_their_own_have_them() -> None:
    for page, place in OWN_TESTS.items():
        assert f"docs/{page}" in (ROOT / place).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_readme_s_net_runs_as_it_is_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.manual_seed(0)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    printed = [float(value) for value in re.findall(r"tensor\(([\d.]+)\)", capsys.readouterr().out)]
    assert len(printed) == 2
    assert 0 < printed[0] < printed[1] <= 1.2, "an attack makes it dearer"
