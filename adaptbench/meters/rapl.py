"""Intel's and AMD's energy counters as Linux shows them, and whether this user may read them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Domain:
    """One counter.

    Args:
        path: its ``energy_uj`` file.
        name: "package-0", "dram", "psys", "core" …; the domains overlap, so they are never added up blindly.
        mode: of the file, as ls writes it.
        readable: whether this user may read it.
    """

    path: Path
    name: str
    mode: str
    readable: bool


def domains(root: Path = POWERCAP) -> list[Domain]:
    """All RAPL counters, packages before their parts; empty where the kernel shows none."""
    counters = []
    for file in sorted(root.glob("intel-rapl*/energy_uj")):
        try:
            mode = stat.filemode(file.stat().st_mode)
        except OSError:  # gone between listing and asking
            continue
        try:
            name = (file.parent / "name").read_text().strip()
        except OSError:
            name = file.parent.name
        counters.append(Domain(file, name, mode, os.access(file, os.R_OK)))
    return counters


def unlock_command(denied: list[Domain]) -> str:
    """The command that lets every user read the counters, until the next boot."""
    return "sudo chmod a+r " + " ".join(str(domain.path) for domain in denied)
