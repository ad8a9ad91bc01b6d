"""What ran where: device, versions, git revision. Recorded in the manifest, compared by the gate."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from adaptbench.errors import UsageError
from adaptbench.version import __version__

_PACKAGES = (
    "torch",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "torchattacks",
    "codecarbon",
    "nvidia-ml-py",
    "safetensors",
)


def check_device(device: str) -> str:
    """A device that exists here.

    Raises:
        UsageError: an unknown word, or no such device.
    """
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UsageError(f"'{device}' is no device.", todo="Use cpu, cuda or cuda:0.") from None
    if kind.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (kind.index or 0) >= count:
            raise UsageError(
                f"device '{device}' was asked for; torch sees {count} CUDA devices.",
                todo="Use --device cpu, or see `adaptbench doctor`.",
            )
    elif kind.type != "cpu":
        raise UsageError(f"device '{device}' is not supported.", todo="Use cpu or cuda.")
    return str(kind)


def describe_device(device: str) -> dict[str, Any]:
    """Name, kind and a fingerprint of everything that changes a clock or a sensor."""
    details: dict[str, Any] = {
        "kind": torch.device(device).type,
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    name = details["cpu"]
    if details["kind"] == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = properties.name
        details |= {
            "gpu": properties.name,
            "gpu_uuid": str(getattr(properties, "uuid", "")),
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    host = {**details, "node": platform.node()}
    fingerprint = hashlib.sha256(json.dumps(host, sort_keys=True, default=str).encode()).hexdigest()
    return {"name": name, "fingerprint": fingerprint, **details}


def cpu_name() -> str:
    """The processor's model name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what decides figures; absent packages are left out."""
    installed = {"adaptbench": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Revision of the repository one stands in and whether it has changes; None outside of one.

    A repository's own configuration may name programs for git to run. None of them is started: the folder may have come
    from anybody.
    """
    try:
        git = _git(folder, *_drivers(folder))
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git(*_STATUS))}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


_STATUS = ("status", "--porcelain", "--ignore-submodules=dirty")
_INERT = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "core.pager=cat",
    "core.alternateRefsCommand=",
    "diff.external=",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
)


def _git(folder: Path | None, *settings: str) -> Callable[..., str]:
    options = [word for setting in (*_INERT, *settings) for word in ("-c", setting)]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat"}
    environment.pop("GIT_EXTERNAL_DIFF", None)

    def run(*words: str) -> str:
        return subprocess.run(
            ["git", "--no-pager", *options, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    return run


def _drivers(folder: Path | None) -> list[str]:
    """Settings that silence the filters a repository brings along: `status` runs them where a file's time changed.

    Raises:
        ValueError: a filter whose name no setting can spell.
    """
    listed = _git(folder)("config", "--show-scope", "--list", "--name-only", "-z").split("\0")
    settings: list[str] = []
    for scope, name in zip(listed[::2], listed[1::2], strict=False):
        if scope in ("local", "worktree") and name.startswith("filter."):
            if "=" in name:
                raise ValueError(name)
            settings.append(f"{name}=" if not name.endswith(".required") else f"{name}=false")
    return settings
