"""One writer a directory: who holds it is named, the dead hold nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adaptbench.errors import LockedError
from adaptbench.results import lock
from adaptbench.results.lock import DirectoryLock

HOLDER = (
    "import sys; from adaptbench.results.lock import DirectoryLock\n"
    "with DirectoryLock(sys.argv[1], 'adaptbench run x'): print('held', flush=True); sys.stdin.read()"
)


def hold(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def leave(folder: Path, **holder: object) -> None:
    (folder / lock.LOCK).write_text(json.dumps(holder), encoding="utf-8")


def test_a_second_process_is_told_who_holds_it_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with hold(tmp_path) as child:
        with pytest.raises(LockedError, match=f"process {child.pid} on {lock._host()} .*adaptbench run x"):
            DirectoryLock(tmp_path).__enter__()
        child.kill()
        child.wait()
    with DirectoryLock(tmp_path):
        assert json.loads((tmp_path / lock.LOCK).read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(LockedError, match=str(os.getpid())):
        DirectoryLock(tmp_path).__enter__()


def test_a_holder_on_another_host_is_believed_and_the_file_to_remove_is_named(tmp_path: Path) -> None:
    leave(tmp_path, pid=1, host="elsewhere", since="2026-01-01T00:00:00+00:00", started=1.0)
    with pytest.raises(LockedError) as refused:
        DirectoryLock(tmp_path).__enter__()
    assert "process 1 on elsewhere" in refused.value.seen
    assert str(tmp_path / lock.LOCK) in refused.value.todo


def test_a_number_given_out_again_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    leave(tmp_path, pid=os.getppid(), host=lock._host(), started=1.0)
    with DirectoryLock(tmp_path):
        pass


def test_without_locks_of_the_system_the_process_named_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_take", lambda descriptor: True)
    with hold(tmp_path) as child:
        with pytest.raises(LockedError, match=str(child.pid)):
            DirectoryLock(tmp_path).__enter__()
        child.kill()
        child.wait()
    with DirectoryLock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "null"])
def test_a_file_cut_short_holds_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / lock.LOCK).write_text(text, encoding="utf-8")
    with DirectoryLock(tmp_path):
        pass
