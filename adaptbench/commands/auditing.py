"""``adaptbench audit`` and ``verify``: from the words on the command line to a bundle, a table and an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptbench.terminal import console


def audit(
    model: str,
    data: str,
    *,
    out: Path | None,
    max_recovery: float | None,
    min_accuracy: float | None,
    max_macs: float | None,
    **asked: Any,
) -> int:
    """Do it.

    Args:
        out: the bundle's directory; one that is named after net and data where None. asked: the rest of `ab.audit`'s.

    Returns:
        0 held, 1 a limit is broken, 3 it cannot be told.
    """
    from adaptbench.auditing.audit import audit as carry_out
    from adaptbench.auditing.bundle import PAGE, WORDS, digest_of
    from adaptbench.auditing.limits import Limits, verdict
    from adaptbench.watching import watcher

    limits = Limits(max_recovery, min_accuracy, max_macs)
    with watcher(console(stderr=True)) as progress:
        done = carry_out(model, data, out=out or _usual(model, data), on_progress=progress, **asked)
    held, shown = verdict(done, limits), console()
    lines = [str(done), "", *held.lines, *([""] if held.lines else [])]
    lines += [f"words    {done.path / WORDS}", f"report   {done.path / PAGE}"]
    lines += [f"bundle   {done.path}, SHA-256 of its sums {digest_of(done.path)}"]
    for line in lines:
        shown.print(line, soft_wrap=True)
    return held.exit_code


def _usual(model: str, data: str) -> Path:
    named = f"audit-{model.rpartition('/')[2]}-{data.partition(':')[0]}"
    return Path("runs") / "".join(c if c.isalnum() or c in "._-" else "_" for c in named)


def verify(bundle: Path, model: str | None, **asked: Any) -> int:
    """Say what of a bundle holds.

    Args:
        asked: the rest of `ab.verify`'s.

    Returns:
        0 all, 1 something does not, 3 something cannot be told.
    """
    from adaptbench.auditing.verify import verify as carry_out
    from adaptbench.watching import watcher

    with watcher(console(stderr=True)) as progress:
        done = carry_out(bundle, model, on_progress=progress, **asked)
    console().print(str(done), soft_wrap=True)
    return done.exit_code
