from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from adaptbench.errors import OutputError, RunError
from adaptbench.results import tables
from adaptbench.results.schema import SAMPLE_COLUMNS, WINDOW_COLUMNS
from adaptbench.results.store import Run
from adaptbench.results.writer import RunWriter, seal


def resealed(path, summary):
    (path / "summary.json").write_text(summary)
    seal(path, json.loads((path / "manifest.json").read_text()))


def test_what_was_committed_is_read_back(run, synthetic):
    truth = synthetic()
    assert [record["case"] for record in run.cases] == [f"digits/chain/{c}/b64" for c in ("clean", "noise", "ilfo")]
    rows = run.samples(["digits/chain/ilfo"])
    pd.testing.assert_frame_equal(
        rows.drop(columns=["cost_s", "cost_j", "macs_unpadded"]), truth.samples("ilfo"), check_dtype=False
    )
    assert rows[["cost_s", "cost_j"]].isna().all(axis=None), "nothing was metered in the place of MACs"
    assert str(rows["queries"].dtype) == "Int64"
    assert list(run.samples()["case"].unique()) == [f"digits/chain/{c}" for c in ("clean", "noise", "ilfo")]
    assert len(run.windows()) == len(truth.windows())
    assert list(run.windows().columns) == list(WINDOW_COLUMNS)
    assert run.samples([]).empty
    assert run.case("digits/chain/noise/b64")["kind"] == "control"
    with pytest.raises(RunError, match="no case 'x'"):
        run.case("x")


def test_same_run_twice_gives_the_same_bytes(tmp_path, synthetic):
    for name in "ab":
        synthetic().write(tmp_path / name)
    for file in ("summary.json", "manifest.json", "samples.parquet", "windows.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_order_of_commits_does_not_show(tmp_path, synthetic):
    truth = synthetic()
    contents = []
    for name, order in (("a", ("clean", "ilfo")), ("b", ("ilfo", "clean"))):
        writer = RunWriter(tmp_path / name)
        for condition in order:
            writer.commit(condition, {}, samples=truth.samples(condition))
        run = writer.finish(truth.manifest(), ["clean", "ilfo"], [])
        contents.append((run.path / "samples.parquet").read_bytes())
    assert contents[0] == contents[1]


def test_killed_run_names_the_command_that_resumes_it_and_then_ends_the_same(tmp_path, synthetic):
    truth = synthetic()
    whole = truth.write(tmp_path / "whole")
    writer = RunWriter(tmp_path / "killed")
    writer.begin(truth.manifest())
    writer.commit("digits/chain/clean", {}, samples=truth.samples("clean"))
    (tmp_path / "killed" / "cells" / ".tmp-abc.parquet").write_bytes(b"PAR1 half a fi")
    with pytest.raises(RunError, match="incomplete") as caught:
        Run.open(tmp_path / "killed")
    assert "`adaptbench run made-up --out here` goes on where it stopped" in caught.value.todo
    resumed = RunWriter(tmp_path / "killed")
    assert resumed.has("digits/chain/clean")
    assert not resumed.has("digits/chain/ilfo")
    with pytest.raises(RunError, match="'digits/chain/ilfo' was not committed"):
        resumed.finish(truth.manifest(), ["digits/chain/clean", "digits/chain/ilfo"], [])
    run = truth.write(tmp_path / "killed")
    for file in ("summary.json", "manifest.json", "samples.parquet", "windows.parquet"):
        assert (run.path / file).read_bytes() == (whole.path / file).read_bytes()
    assert not list(run.path.rglob(".tmp-*"))


def test_a_complete_run_stays_readable_while_it_runs_again(run, synthetic):
    RunWriter(run.path).begin(synthetic().manifest())
    assert Run.open(run.path).cases == run.cases


@pytest.mark.parametrize("damage", ["cut header", "cut table", "no table", "other schema", "other key"])
def test_cell_that_is_not_whole_does_not_count(tmp_path, synthetic, damage):
    writer = RunWriter(tmp_path)
    writer.commit("abc", {"n": 1}, samples=synthetic().samples("clean"))
    assert writer.has("abc")
    header, table = tmp_path / "cells" / "abc.json", tmp_path / "cells" / "abc.samples.parquet"
    if damage == "cut header":
        header.write_bytes(header.read_bytes()[:20])
    elif damage == "cut table":
        table.write_bytes(table.read_bytes()[:-5])
    elif damage == "no table":
        table.unlink()
    else:
        content = json.loads(header.read_text())
        content |= {"schema": 0} if damage == "other schema" else {"key": "abd"}
        header.write_text(json.dumps(content))
    assert not writer.has("abc")
    with pytest.raises(RunError, match="'abc' was not committed"):
        writer.load("abc")


def test_crash_between_table_and_header_leaves_no_cell(tmp_path, synthetic, monkeypatch):
    from adaptbench.results import writer as writer_module

    writer = RunWriter(tmp_path)
    rows = synthetic().samples("clean")
    writer.commit("abc", {"version": 1}, samples=rows)

    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer_module, "write_json", crash)
    with pytest.raises(KeyboardInterrupt):
        writer.commit("abc", {"version": 2}, samples=rows)
    assert not writer.has("abc")


def test_cell_round_trip_with_awkward_key(tmp_path, synthetic):
    writer = RunWriter(tmp_path)
    truth = synthetic()
    key = "digits/chain@ε=0.02/clean/" + "x" * 200
    writer.commit(key, {"a": [1, None]}, windows=truth.windows())
    cell = writer.load(key)
    assert cell.record == writer.record(key) == {"a": [1, None]}
    assert cell.samples is None
    assert len(cell.windows) == len(truth.windows())
    writer.discard_cells()
    assert not writer.has(key)


def test_crafted_inputs_by_content(tmp_path, run):
    writer = RunWriter(run.path)
    arrays = {
        "x_adv": np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4),
        "sample_id": np.array([5, 6, 9]),
        "gallery_clean": np.zeros((2, 1, 4, 4), dtype=np.uint8),
    }
    name = writer.commit_crafted(arrays)
    assert writer.commit_crafted(dict(reversed(arrays.items()))) == name
    for got in (run.crafted(name), writer.crafted(name)):
        for key, value in arrays.items():
            np.testing.assert_array_equal(got[key], value)
    (run.path / "crafted" / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match="SHA-256"):
        run.crafted("bad.safetensors")
    (run.path / "crafted" / hashlib.sha256(b"no").hexdigest()).write_bytes(b"no")
    with pytest.raises(RunError, match="not a safetensors"):
        run.crafted(hashlib.sha256(b"no").hexdigest())
    for absent in ("nothing.safetensors", "../manifest.json"):
        with pytest.raises(RunError, match="no crafted inputs"):
            run.crafted(absent)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: shutil.rmtree(path), "no such directory"),
        (lambda path: (path / "manifest.json").unlink(), "not a run directory"),
        (lambda path: (path / "manifest.json").write_text('{"schema": 1, "ki'), "not JSON"),
        (lambda path: (path / "manifest.json").write_text('{"name": "npm"}'), "no schema number"),
        (lambda path: (path / "manifest.json").write_text('{"schema": 1, "kind": "cat"}'), "not 'suite' or 'study'"),
        (lambda path: (path / "manifest.json").write_text('{"schema": 1, "kind": "run"}'), "no 'suite'"),
        (lambda path: (path / "summary.json").unlink(), "incomplete"),
        (lambda path: (path / "summary.json").write_text('{"schema": 7, "cases": []}'), "summary.json is damaged"),
        (lambda path: resealed(path, '{"schema": 7, "cases": []}'), "schema 7"),
        (lambda path: resealed(path, '{"schema": 1, "cases": [3]}'), "not an object"),
        (lambda path: (path / "windows.parquet").unlink(), "incomplete"),
    ],
)
def test_directories_that_are_no_run(run, damage, said):
    damage(run.path)
    with pytest.raises(RunError) as caught:
        Run.open(run.path)
    assert said in caught.value.seen
    assert caught.value.todo


def test_damaged_tables(run):
    (run.path / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="not a readable samples table"):
        run.samples()
    shutil.copy(run.path / "windows.parquet", run.path / "samples.parquet")
    with pytest.raises(RunError, match="no column sample_id"):
        run.samples()


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        RunWriter(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        RunWriter(tmp_path / "notes.txt" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_directory(tmp_path):
    writer = RunWriter(tmp_path / "run")
    (tmp_path / "run" / "cells").chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot write"):
            writer.commit("a", {})
    finally:
        (tmp_path / "run" / "cells").chmod(0o700)


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, monkeypatch):
    writer = RunWriter(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        writer.commit("a", {})
    assert not list((tmp_path / "cells").iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="label"), "no column label"),
        (lambda frame: frame.drop(columns="macs"), "300 rows have no one cost"),
        (lambda frame: frame.assign(cost_s=0.1), "300 rows have no one cost"),
        (lambda frame: frame.assign(flops=1), "unknown column flops"),
        (lambda frame: frame.assign(macs=1.5), "column macs is not int64"),
        (lambda frame: frame.assign(macs="many"), "column macs is not int64"),
        (lambda frame: frame.assign(macs=pd.array([None] * len(frame), dtype="Int64")), "300 rows have no one cost"),
    ],
)
def test_tables_of_another_form_are_refused(tmp_path, synthetic, change, said):
    writer = RunWriter(tmp_path)
    with pytest.raises(RunError, match=said):
        writer.commit("a", {}, samples=change(synthetic().samples("clean")))
    assert not writer.has("a")


def test_nullable_columns_may_be_left_out_or_partly_null(tmp_path, synthetic):
    writer = RunWriter(tmp_path)
    rows = synthetic().samples("clean")
    writer.commit("a", {}, samples=rows.drop(columns="queries"))
    assert writer.load("a").samples["queries"].isna().all()
    queries = pd.array([500, None] * (len(rows) // 2), dtype="Int64")
    writer.commit("a", {}, samples=rows.assign(queries=queries))
    back = writer.load("a").samples
    assert back["queries"].dropna().unique().tolist() == [500]
    assert list(back.columns) == list(SAMPLE_COLUMNS)


def test_figures_that_json_cannot_hold(tmp_path):
    with pytest.raises(RunError, match="NaN or infinite"):
        RunWriter(tmp_path).commit("a", {"macs_mean": float("nan")})


def test_finish_refuses_what_readers_would_choke_on(tmp_path, synthetic):
    writer, manifest = RunWriter(tmp_path), synthetic().manifest()
    with pytest.raises(RunError, match="'ended' is not set"):
        writer.finish({**manifest, "ended": None}, [])
    with pytest.raises(RunError, match="'evaluation' is absent"):
        writer.finish(manifest, [], [{"case": "a"}])
    assert not (tmp_path / "summary.json").exists()


def test_records_of_cells_make_the_summary_when_none_are_given(tmp_path, synthetic, run):
    writer = RunWriter(tmp_path / "other")
    writer.commit("b", run.cases[1])
    writer.commit("a", run.cases[0])
    writer.commit("c", {"no": "case"})
    assert writer.finish(synthetic().manifest(), ["a", "b", "c"]).cases == run.cases[:2]


def test_assembly_streams_and_readers_skip(tmp_path, synthetic):
    import pyarrow.parquet as pq

    parts = []
    for name in ("clean", "noise", "ilfo"):
        parts.append(tmp_path / f"{name}.parquet")
        tables.write(parts[-1], synthetic(n=2000).samples(name), "samples")
    tables.concatenate(tmp_path / "all.parquet", iter(parts), "samples")
    groups = pq.ParquetFile(tmp_path / "all.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [2000] * 3
    assert len(tables.read(tmp_path / "all.parquet", "samples", ["digits/chain/noise"])) == 2000


@pytest.mark.parametrize("most", [100, 700, 5000])
def test_a_table_is_made_and_read_a_row_group_at_a_time(tmp_path, synthetic, monkeypatch, most):
    """Cells of one case share groups of a bounded size; parts of a table are the table."""
    import pandas as pd
    import pyarrow.parquet as pq

    monkeypatch.setattr(tables, "ROW_GROUP", most)
    sources = []
    for name in ("clean", "noise"):
        frame = synthetic(n=2000).samples(name)
        for start in range(0, 2000, 300):
            sources.append(tmp_path / f"{name}-{start}.parquet")
            tables.write(sources[-1], frame[start : start + 300], "samples")
    target = tmp_path / "all.parquet"
    tables.concatenate(target, sources, "samples")
    whole = pd.concat([tables.read(source, "samples") for source in sources], ignore_index=True)
    assert tables.read(target, "samples").equals(whole)
    groups = pq.ParquetFile(target).metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert max(sizes) <= most
    assert most < 300 or len(sizes) == 2 * -(-2000 // (most // 300 * 300))
    read = list(tables.parts(target, "samples"))
    assert pd.concat(read, ignore_index=True).equals(whole)
    noise = pd.concat(tables.parts(target, "samples", ["digits/chain/noise"]), ignore_index=True)
    assert noise.equals(tables.read(target, "samples", ["digits/chain/noise"]))
    assert all(part["case"].nunique() == 1 for part in read)
    assert noise["queries"].dtype == "Int64"
    target.write_bytes(target.read_bytes()[:-40])
    with pytest.raises(RunError, match="not a readable samples table"):
        list(tables.parts(target, "samples"))


def test_process_killed_in_mid_write(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from adaptbench.results import files\n"
        "from adaptbench.results.writer import RunWriter\n"
        "writer = RunWriter(sys.argv[1])\n"
        "writer.begin({'command': 'adaptbench run bench', 'suite': {}, 'device': {}, 'meters': {}, 'models': {},"
        " 'conditions': {}, 'data': {}})\n"
        "writer.commit('first', {'n': 1})\n"
        "files._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "writer.commit('second', {'n': 2})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list((tmp_path / "run" / "cells").glob(".tmp-*"))
    with pytest.raises(RunError, match="incomplete") as caught:
        Run.open(tmp_path / "run")
    assert "`adaptbench run bench` goes on" in caught.value.todo
    writer = RunWriter(tmp_path / "run")
    assert writer.record("first") == {"n": 1}
    assert not writer.has("second")


def test_run_without_windows_or_samples_reads_as_empty(tmp_path, synthetic):
    run = RunWriter(tmp_path).finish(synthetic().manifest(), [], [])
    assert run.samples().empty
    assert run.windows().empty
    with pytest.raises(RunError, match="no cases"):
        run.case("a")


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (3, 4, 5)), ("uint8", (1, 3, 3)), ("int64", (7,)), ("float32", (3, 8))]
)
def test_chunks_joined_one_by_one_are_the_bytes_of_all_packed_at_once(tmp_path, dtype, shape):
    import hashlib

    import numpy as np

    from adaptbench.results.joined import join_crafted

    draw = np.random.default_rng(0)
    chunks = [
        {
            "x_adv": draw.integers(0, 200, (n, *shape)).astype(dtype),
            "sample_id": np.arange(n, dtype=np.int64) + 10 * n,
            "gallery_clean": draw.integers(0, 200, (2, *shape)).astype(dtype),
        }
        for n in (5, 3, 1)
    ]
    writer, other = RunWriter(tmp_path / "one"), RunWriter(tmp_path / "other")
    name, sha256 = join_crafted(writer.path, [writer.commit_crafted(chunk) for chunk in chunks])
    whole = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in ("x_adv", "sample_id")}
    assert name == other.commit_crafted(whole | {"gallery_clean": chunks[0]["gallery_clean"]})
    assert sha256 == hashlib.sha256(whole["x_adv"].tobytes()).hexdigest()
    assert np.array_equal(writer.crafted(name)["x_adv"], whole["x_adv"])
