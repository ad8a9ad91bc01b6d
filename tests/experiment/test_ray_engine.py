"""The engine `ray` on a cluster of two nodes of this machine: same cells, same records, whoever dies on the way.

tox -e ray
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from small_study import STUDY

from adaptbench.adaptive import Split
from adaptbench.bench.plan import Given, make_plan
from adaptbench.bench.runner import carry_out, run_suite
from adaptbench.bench.suite import checked
from adaptbench.data import load_data
from adaptbench.errors import DataMissingError, EngineError, Stopped
from adaptbench.experiment.by_name import split_part
from adaptbench.experiment.engines import Local, Part, Piece
from adaptbench.experiment.keys import digest_of, split_hash
from adaptbench.experiment.on_ray import TRIES, Ray
from adaptbench.experiment.options import Options
from adaptbench.experiment.source import Source
from adaptbench.results.store import Run
from adaptbench.study import run_study
from adaptbench.zoo.loading import load_system

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SUITE = """
title: over two nodes
data: digits
models: [softmax-threshold, skipnet, resnet-ladder: {uniform: {}}]
references: [static]
sweeps: {softmax-threshold: [0.05]}
conditions: [clean, noise: {eps: 8/255}, ilfo: {eps: 16/255, steps: 4}]
transfer: [ilfo]
limit: 40
chunk: 8
"""
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    torch.set_num_threads(1)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "_system_config": QUICK})
    made.add_node(**NODE)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("suite") / "two.yaml"
    place.write_text(SUITE, encoding="utf-8")
    return str(place)


@pytest.fixture(scope="module")
def local(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    return run_suite(suite, out=tmp_path_factory.mktemp("local") / "run")


class Watching:
    """Does something when so many samples are done by the workers."""

    def __init__(self, do, after: int = 1) -> None:
        self.do, self.after, self.on = do, after, False

    def begin(self, stage: str, total: int) -> None:
        self.on = stage.startswith("crafting and evaluating  ray")

    def advance(self, done: int, words: str = "") -> None:
        if self.on and self.do is not None and done >= self.after:
            do, self.do = self.do, None
            do()

    def end(self) -> None:
        self.on = False


def same(one: Run, other: Run) -> None:
    """Rows, pictures and figures, all but seconds."""
    assert one.samples().equals(other.samples())
    assert [c["crafted"] for c in one.cases] == [c["crafted"] for c in other.cases]
    for mine, theirs in zip(one.cases, other.cases, strict=True):
        apart = {name for name in mine if mine[name] != theirs[name]}
        assert apart <= {"craft_s"}, (mine["case"], apart)
    chunks = [[c for c in run.manifest["cells"] if not c.startswith("suite-")] for run in (one, other)]
    assert chunks[0] == chunks[1]
    assert not other.manifest["failures"]


def made_by(run: Run) -> dict[str, int]:
    return {engine: len(told["cells"]) for engine, told in run.manifest["engines"].items()}


def test_a_cluster_leaves_the_records_of_one_process(cluster, suite, local, tmp_path):
    there = run_suite(suite, out=tmp_path / "run", engine="ray")
    same(local, there)
    assert made_by(local) == {"local": sum(made_by(local).values())}
    assert made_by(there) == {"ray": sum(made_by(local).values())}
    assert [p.stem for p in sorted((local.path / "crafted").iterdir())] == [
        p.stem for p in sorted((there.path / "crafted").iterdir())
    ]


@pytest.mark.parametrize("first", ["local", "ray"])
def test_what_was_begun_here_ends_there_and_the_other_way_round(cluster, suite, local, tmp_path, first):
    def stop() -> None:
        raise KeyboardInterrupt

    class Early(Watching):
        def begin(self, stage: str, total: int) -> None:
            self.on = "crafting" in stage

    with pytest.raises(Stopped):
        run_suite(suite, out=tmp_path / "run", engine=first, progress=Early(stop, after=16))
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "cells").glob("*-8.json")}
    kept |= {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "cells").glob("*-0.json") if "suite" not in p.name}
    assert kept
    done = run_suite(suite, out=tmp_path / "run", engine="ray" if first == "local" else "local")
    same(local, done)
    assert all(p.stat().st_mtime_ns == then for p, then in kept.items()), "a finished cell was made anew"
    assert set(made_by(done)) == {"local", "ray"}


def test_a_node_that_is_killed_in_the_middle_changes_nothing(cluster, suite, local, tmp_path):
    import ray

    node = next(n for n in cluster.worker_nodes)
    try:
        watching = Watching(lambda: cluster.remove_node(node, allow_graceful=False), after=24)
        there = run_suite(suite, out=tmp_path / "run", engine="ray", progress=watching)
        assert watching.do is None, "it was never killed"
        same(local, there)
    finally:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
    assert ray.cluster_resources()["CPU"] >= 2


def test_sigterm_stops_the_workers_and_keeps_what_is_done(cluster, suite, local, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    watching = Watching(lambda: os.kill(os.getpid(), signal.SIGTERM), after=16)
    with pytest.raises(Stopped, match="kept"):
        run_suite(suite, out=tmp_path / "run", engine="ray", progress=watching)
    assert signal.getsignal(signal.SIGTERM) is before
    same(local, run_suite(suite, out=tmp_path / "run", engine="ray"))


def test_a_net_handed_over_in_python_comes_through_the_object_store(cluster, tmp_path):
    net = replace(load_system("softmax-threshold", "digits"), name="mine")
    text = "data: digits\nmodels: [mine]\nconditions: [clean, ilfo: {eps: 16/255, steps: 2}]\nlimit: 16\nchunk: 8\n"
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    runs = []
    for engine in ("local", "ray"):
        options = Options(out=tmp_path / engine, engine=engine)
        loaded = checked(Source.read(str(tmp_path / "own.yaml")), ["mine"])
        runs.append(carry_out(make_plan(loaded, options, Given(nets={"mine": net})), options))
    same(*runs)


def test_logs_of_a_study_are_those_of_one_process(cluster, tmp_path):
    (tmp_path / "s.yaml").write_text(STUDY.replace("measure:", "notes: []\n#"), encoding="utf-8")
    here, there = (run_study(str(tmp_path / "s.yaml"), out=tmp_path / e, engine=e) for e in ("local", "ray"))
    cells = here.manifest["engines"]["local"]["cells"]
    assert there.manifest["engines"]["ray"]["cells"] == cells
    for cell in cells:
        one, other = ((tmp_path / e / "cells" / f"{cell}.safetensors").read_bytes() for e in ("local", "ray"))
        assert one == other
    mine, theirs = (run.record["graphs"]["digits"]["policies"]["joint-threshold"] for run in (here, there))
    assert mine["curve"] == theirs["curve"]


# ---------------------------------------------------------------------- pieces of one's own


def number(value: object) -> str:
    return digest_of(str(value))


def add(a: int, b: int, told) -> int:
    told(1, 2)
    return a + b


def once_deadly(a: int, place: str, told) -> int:
    """The first worker that does it is killed."""
    try:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return a
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def deadly(a: int, told) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def wrong(a: int, told) -> int:
    raise ValueError(f"{a} is no sample")


def leaving(a: int, told) -> int:
    sys.exit(3)


def pieces(call, n: int = 4, **given) -> list[Piece]:
    part = Part(5, number, what="a number")
    return [Piece(f"p{i}", 1, call, {"a": part}, given) for i in range(n)]


def of(made) -> dict[str, object]:
    return {m.piece.key: m.result if m.error is None else m.error for m in made}


def test_a_killed_worker_is_replaced_and_its_range_done_again(cluster, tmp_path):
    engine = Ray(Options())
    done = of(engine.each(pieces(once_deadly, place=str(tmp_path / "killed")), lambda *_: None))
    assert done == {f"p{i}": 5 for i in range(4)}
    assert len(engine.again) >= 1, "nobody was killed"
    engine.close()


def stuck_on(a: int, node: str, place: str, told) -> int:
    """The first time on that node it never ends; on others it waits until that has come."""
    import ray

    if ray.get_runtime_context().get_node_id() == node and not Path(place).exists():
        Path(place).touch()
        told(1, 2)
        signal.pause()
    while not Path(place).exists():
        time.sleep(0.02)
    return a


def test_what_a_killed_node_had_begun_is_done_on_another(cluster, tmp_path):
    node = next(n for n in cluster.worker_nodes)
    engine, killed = Ray(Options()), []

    def told(piece: Piece, done: int, of: int) -> None:
        if not killed:
            killed.append(piece.key)
            cluster.remove_node(node, allow_graceful=False)

    try:
        done = of(engine.each(pieces(stuck_on, node=node.node_id, place=str(tmp_path / "stuck")), told))
        assert done == {f"p{i}": 5 for i in range(4)}
        assert set(killed) <= set(engine.again), "its piece was done again"
        assert killed
    finally:
        engine.close()
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()


def test_a_piece_that_kills_every_worker_is_an_error_of_its_own(cluster):
    engine = Ray(Options())
    (made,) = engine.each(pieces(deadly, 1), lambda *_: None)
    assert isinstance(made.error, EngineError)
    assert f"{TRIES} workers were lost" in made.error.seen
    assert of(engine.each(pieces(add, 1, b=2), lambda *_: None)) == {"p0": 7}, "the engine goes on"
    engine.close()


def test_an_error_comes_back_as_it_is(cluster):
    engine = Ray(Options())
    (made,) = engine.each(pieces(wrong, 1), lambda *_: None)
    assert isinstance(made.error, ValueError)
    assert str(made.error) == "5 is no sample"
    assert any("on node" in note for note in made.error.__notes__)
    (made,) = engine.each(pieces(leaving, 1), lambda *_: None)
    assert "SystemExit" in str(made.error)
    engine.close()


def test_other_files_on_a_node_are_refused(cluster):
    """The driver's pictures are the first nine; a node's file under the same name has others."""
    split = load_data("digits").split("test")
    mine = Split(split.name, split.role, split.x[1:10], split.y[1:10], split.ids[1:10], split.class_names)
    engine = Ray(Options())
    with pytest.raises(EngineError, match="not the driver's"):
        list(engine.each([Piece("p", 9, length, {"a": split_part(mine, "digits", Options())})], lambda *_: None))
    gone = Part(mine, split_hash, partial(missing, 1), False, "the test split of mine")
    with pytest.raises(EngineError, match="there is no such file"):
        list(engine.each([Piece("p", 9, length, {"a": gone})], lambda *_: None))
    sent = Part(mine, split_hash, partial(missing, 1), True, "the test split of mine")
    assert of(engine.each([Piece("p", 9, length, {"a": sent})], lambda *_: None)) == {"p": 9}
    engine.close()


def length(a: Split, told) -> int:
    return len(a)


def missing(_: int) -> Split:
    raise DataMissingError("there is no such file.")


def test_threads_are_the_driver_s(cluster):
    engine = Ray(Options())
    assert of(engine.each(pieces(threads, 1), lambda *_: None)) == {"p0": torch.get_num_threads()}
    assert of(Local(Options()).each(pieces(threads, 1), lambda *_: None)) == {"p0": torch.get_num_threads()}
    engine.close()


def threads(a: int, told) -> int:
    return torch.get_num_threads()


def test_the_command_line_runs_on_a_cluster(cluster, adaptbench, suite, local):
    ended = adaptbench(
        "run", suite, "--engine", "ray", "--address", cluster.address, "--out", "runs/two", "--no-report"
    )
    assert ended.code == 0, ended.err
    same(local, Run.open("runs/two"))
    assert Path("runs/two/manifest.json").is_file()


def test_the_suite_of_the_page_runs_as_it_is_written(cluster, adaptbench):
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(title:.*?)```", page, re.DOTALL)
    (line,) = re.findall(r"```console\n\$ adaptbench (run .*--engine ray)\n```", page)
    Path("sharded.yaml").write_text(text, encoding="utf-8")
    ended = adaptbench(*line.split(), "--no-report")
    assert ended.code == 0, ended.err
    run = Run.open("runs/sharded")
    assert set(run.manifest["engines"]) == {"ray"}
    assert all(case["latency_s_per_sample"] for case in run.cases if case["batch_size"])
