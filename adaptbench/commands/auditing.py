"""``adaptbench audit`` and ``verify``: from the words on the command line to a bundle, a table and an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptbench.terminal import console


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for, as `adaptbench audit --help` names it."""

    model: str
    data: str
    policy: str | None
    attacks: str
    eps: str
    limit: int
    seed: int
    out: Path | None
    allow_imports: bool
    device: str | None
    data_root: Path | None
    download: bool
    zoo: Path | None
    command: str

    @property
    def place(self) -> Path:
        """The bundle's directory."""
        named = f"audit-{self.model.rpartition('/')[2]}-{self.data.partition(':')[0]}"
        return self.out or Path("runs") / "".join(c if c.isalnum() or c in "._-" else "_" for c in named)


def audit(wishes: Wishes, *, max_recovery: float | None, min_accuracy: float | None, max_macs: float | None) -> int:
    """Do it.

    Returns:
        0 held, 1 a limit is broken, 3 it cannot be told.
    """
    from adaptbench.auditing.audit import audit as carry_out
    from adaptbench.auditing.bundle import PAGE, WORDS, digest_of
    from adaptbench.auditing.limits import Limits, verdict
    from adaptbench.watching import watcher

    limits = Limits(max_recovery, min_accuracy, max_macs)
    with watcher(console(stderr=True)) as progress:
        done = carry_out(
            wishes.model,
            wishes.data,
            policy=wishes.policy,
            attacks=wishes.attacks,
            eps=wishes.eps,
            limit=wishes.limit,
            seed=wishes.seed,
            out=wishes.place,
            allow_imports=wishes.allow_imports,
            device=wishes.device,
            data_root=wishes.data_root,
            download=wishes.download,
            zoo=wishes.zoo,
            command=wishes.command,
            on_progress=progress,
        )
    held, shown = verdict(done, limits), console()
    lines = [str(done), "", *held.lines, *([""] if held.lines else [])]
    lines += [f"words    {done.path / WORDS}", f"report   {done.path / PAGE}"]
    lines += [f"bundle   {done.path}, SHA-256 of its sums {digest_of(done.path)}"]
    for line in lines:
        shown.print(line, soft_wrap=True)
    return held.exit_code


def verify(
    bundle: Path,
    model: str | None,
    data: str | None,
    *,
    allow_imports: bool,
    data_root: Path | None,
    download: bool,
    zoo: Path | None,
) -> int:
    """Say what of a bundle holds.

    Returns:
        0 all, 1 something does not, 3 something cannot be told.
    """
    from adaptbench.auditing.verify import verify as carry_out
    from adaptbench.watching import watcher

    with watcher(console(stderr=True)) as progress:
        found = carry_out(
            bundle,
            model,
            data=data,
            allow_imports=allow_imports,
            data_root=data_root,
            download=download,
            zoo=zoo,
            on_progress=progress,
        )
    console().print(str(found), soft_wrap=True)
    return found.exit_code
