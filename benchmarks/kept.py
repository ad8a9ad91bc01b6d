"""What benchmarks have in common: where figures were made, and a file that grows with every part that is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptbench.experiment.environment import describe_device, versions


def heading(device: str = "cpu", **more: Any) -> dict[str, Any]:
    """Commit, date, device, versions, the machine's load, and more of one's own."""
    return {
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "device": describe_device(device),
        "versions": versions(),
        "load_before": os.getloadavg()[0],
        **more,
    }


def begun(place: Path | None, found: dict[str, Any]) -> dict[str, Any]:
    """What a file holds already, where it is there; else what a run begins with."""
    if place is None or not place.exists():
        return found
    there: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return there


def keep(found: dict[str, Any], place: Path | None, title: str, part: Any) -> None:
    """Show a part, and write all that was found so far."""
    found["load_after"] = os.getloadavg()[0]
    sys.stdout.write(f"{title}\n{json.dumps(part, indent=1, ensure_ascii=False)}\n")
    sys.stdout.flush()
    if place:
        place.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
