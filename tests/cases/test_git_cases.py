"""A folder from anybody: its git configuration names programs, and none of them is started."""

from __future__ import annotations

import os
import subprocess

import pytest

from adaptbench.experiment.environment import git_state


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, and what runs a planted program."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.chdir(tmp_path)

    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "file").write_text("a\n", encoding="utf-8")
    (tmp_path / ".gitattributes").write_text("file filter=planted diff=planted\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    return tmp_path


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "key",
    ["core.fsmonitor", "filter.planted.clean", "filter.planted.process", "filter.planted.smudge", "core.pager",
     "diff.external", "diff.planted.textconv", "diff.planted.command", "core.sshCommand", "core.editor",
     "core.hooksPath", "gpg.program", "core.askPass", "credential.helper", "core.alternateRefsCommand"],
)  # fmt: skip
def test_no_program_of_a_foreign_repository_is_started(key, repository):
    """`core.fsmonitor` in the working directory's git config was obeyed when `run` asked for the revision."""
    started = repository / ".git" / "started"
    program = repository / ".git" / "program"
    program.write_text(f"#!/bin/sh\ntouch {started}\ncat\n", encoding="utf-8")
    program.chmod(0o755)
    value = str(program)
    if key == "core.hooksPath":
        hooks = repository / ".git" / "mine"
        hooks.mkdir()
        for name in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
            (hooks / name).symlink_to(program)
        value = str(hooks)
    subprocess.run(["git", "config", key, value], check=True)
    os.utime(repository / "file", (1, 1))
    state = git_state()
    assert not started.exists()
    assert state is not None
    assert state["dirty"] is False
    (repository / "file").write_text("b\n", encoding="utf-8")
    assert git_state()["dirty"] is True
    assert not started.exists()


@pytest.mark.case("own")
def test_a_filter_whose_name_no_setting_can_spell_gives_no_revision(repository):
    """What cannot be silenced is not run at all."""
    subprocess.run(["git", "config", "filter.a=b.clean", "false"], check=True)
    assert git_state() is None


@pytest.mark.case("own")
def test_outside_of_a_repository_there_is_no_revision(tmp_path, monkeypatch):
    """No repository, no figure: null, not an error."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_state() is None
