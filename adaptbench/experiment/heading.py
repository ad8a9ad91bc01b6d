"""What the manifests of suites and studies share: which file, with which options, when, where, with what."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adaptbench.experiment.environment import describe_device, git_state, versions
from adaptbench.experiment.options import Options
from adaptbench.experiment.source import Loaded


def now() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Heading:
    """Of one execution: its id and start stay.

    Args:
        loaded: the file. title: its own. limit: test samples at most. options: of the run.
    """

    loaded: Loaded
    title: str
    limit: int | None
    options: Options
    started: str = field(default_factory=now)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def told(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        suite = {name: getattr(self.loaded, name) for name in ("name", "text", "sha256")}
        return {
            "id": self.id,
            "suite": suite | {"title": self.title, "overrides": list(self.loaded.overrides), "limit": self.limit},
            "versions": versions(),
            "device": describe_device(self.options.device),
            "git": git_state(),
            "command": self.options.command,
            "started": self.started,
        }
