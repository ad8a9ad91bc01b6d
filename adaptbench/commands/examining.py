"""``adaptbench doctor``: findings as lines, as one line, or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from adaptbench.commands.voice import Voice, print_document
from adaptbench.terminal import console


def examine(data_root: Path | None, voice: Voice) -> None:
    """Look, and say what was found."""
    from adaptbench.diagnosis import findings
    from adaptbench.meters.doctor import lines

    found = findings(data_root)
    missing = [one.name for one in found if not one.usable]
    if voice.json:
        told = [{name: value if value != "" else None for name, value in asdict(one).items()} for one in found]
        print_document("doctor", {"found": len(found) - len(missing), "missing": missing, "findings": told})
    elif voice.quiet:
        named = f"; missing: {', '.join(missing)}" if missing else ""
        console().print(f"found {len(found) - len(missing)} of {len(found)}{named}", soft_wrap=True)
    else:
        for line in lines(found):
            console().print(line, soft_wrap=True)
