"""What benchmarks have in common: where figures were made, and a file that grows with every part that is done."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptbench.attacks.identity import own_code
from adaptbench.experiment.environment import describe_device, git_state, versions


def heading(device: str = "cpu", **more: Any) -> dict[str, Any]:
    """Commit and whether files differ from it, date, device, versions, the machine's load, and more of one's own."""
    stands = git_state() or {"revision": "", "dirty": True}
    return {
        "commit": stands["revision"],
        "dirty": stands["dirty"],
        "code": own_code(),
        "date": datetime.now(UTC).date().isoformat(),
        "device": describe_device(device),
        "versions": versions(),
        "load_before": os.getloadavg()[0],
        **more,
    }


_OF_ITS_DAY = ("commit", "dirty", "date", "load_before")
"""What may differ when a run goes on: the file itself is a change, and a commit need not touch the code."""


def begun(place: Path | None, found: dict[str, Any]) -> dict[str, Any]:
    """What a file holds already, where it is there; else what a run begins with.

    Raises:
        SystemExit: what it holds was made by other code, on another machine or with other settings.
    """
    if place is None or not place.exists():
        return found
    there: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    parts = {name for name, value in there.items() if isinstance(value, dict) and found.get(name) == {}}
    fixed = [name for name in found if name not in {*parts, *_OF_ITS_DAY}]
    if other := [name for name in fixed if there.get(name) != found[name]]:
        raise SystemExit(
            f"{place} holds parts with another {', '.join(other)}: move it away, or go on as it was begun."
        )
    return there


def keep(found: dict[str, Any], place: Path | None, title: str, part: Any) -> None:
    """Show a part, and write all that was found so far."""
    found["load_after"] = os.getloadavg()[0]
    sys.stdout.write(f"{title}\n{json.dumps(part, indent=1, ensure_ascii=False)}\n")
    sys.stdout.flush()
    if place:
        place.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def told(line: str) -> None:
    """Progress, on the other stream."""
    sys.stderr.write(f"{line}\n")
