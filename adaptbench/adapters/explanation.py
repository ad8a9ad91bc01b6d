"""What became of a module: exits, what they cost here and in the author's code, how far the answers lie apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExitExplained:
    """One exit of an adapted net, by the measure of one sample that leaves there.

    Args:
        name: of the exit.
        macs: stages and heads up to and with this exit, no policy.
        macs_as_written: what the author's code has run when these logits are there.
        difference: the largest distance between this exit's logits and the module's own, on the probes.
        has_gradient: autograd finds a way from these logits to the input.
    """

    name: str
    macs: int
    macs_as_written: int
    difference: float
    has_gradient: bool

    @property
    def macs_deferred(self) -> int:
        """Work that the author's code has done by then and that this exit does not need."""
        return self.macs_as_written - self.macs


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `net.explain()` gives; printed, it is a small table.

    Args:
        name: of the module's class. way: how it was cut: "traced" or "left at its exits".
        lazy: work that an exit does not need waits for the next one.
        exits: from the first on.
        macs_unused: what forward runs and no exit needs; it is left out.
        probes: batch sizes that were compared with the module.
        columns: that every row of ids must have; None: padding that all rows share may be cut, or they are no ids.
    """

    name: str
    way: str
    lazy: bool
    exits: tuple[ExitExplained, ...]
    macs_unused: int
    probes: tuple[int, ...]
    columns: int | None = None

    def __str__(self) -> str:
        head = ("exit", "MACs", "as written", "difference", "gradient")
        rows = [
            (e.name, f"{e.macs:,}", f"{e.macs_as_written:,}", f"{e.difference:.1g}", "yes" if e.has_gradient else "no")
            for e in self.exits
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *rows)
        ]
        said = [f"{self.name}, {self.way}; compared with the module in batches of {_words(self.probes)}."]
        if deferred := [e for e in self.exits if e.macs_deferred > 0]:
            most = max(deferred, key=lambda e: e.macs_deferred)
            said.append(
                f"{most.macs_deferred:,} MACs that the code has run by '{most.name}' are deferred: that exit does not "
                "need them. lazy=False leaves them where they stand."
            )
        if again := max(-e.macs_deferred for e in self.exits) if self.way != "traced" else 0:
            said.append(
                f"{again:,} MACs of plain functions between the sub-modules run again after exits: forward is entered "
                "anew for those who go on."
            )
        if self.macs_unused:
            said.append(f"{self.macs_unused:,} MACs of the forward are needed by no exit and left out.")
        if self.columns is not None:
            said.append(f"Rows have {self.columns} columns, no fewer: forward says something else of shorter ones.")
        return "\n".join([*lines, *said])


def _words(sizes: tuple[int, ...]) -> str:
    *first, last = map(str, sizes)
    return f"{', '.join(first)} and {last}" if first else last
