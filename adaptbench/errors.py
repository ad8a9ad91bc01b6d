"""One class for each mistake; every message says what was seen, why it matters and what to do next."""

from __future__ import annotations


class AdaptBenchError(Exception):
    """A mistake the user can mend.

    Args:
        seen: what was found, with the place (file, line, field, name).
        why: why it cannot go on like that.
        todo: the next step, as a command or an edit.
    """

    def __init__(self, seen: str, *, why: str = "", todo: str = "") -> None:
        self.seen, self.why, self.todo = _whole(seen), _whole(why), _whole(todo)
        super().__init__(self.seen)

    def __str__(self) -> str:
        return "\n".join(part for part in (self.seen, self.why, self.todo) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.seen, self.why, self.todo)


def _whole(part: str) -> str:
    """With a full stop where a foreign error, a path or a name ends the sentence."""
    part = part.rstrip()
    return part if not part or part.endswith((".", "!", "?", "…")) else f"{part.removesuffix(':')}."


def _rebuild(kind: type[AdaptBenchError], seen: str, why: str, todo: str) -> AdaptBenchError:
    return kind(seen, why=why, todo=todo)


class UsageError(AdaptBenchError):
    """The command line or a call's arguments do not fit together."""


class UnknownNameError(AdaptBenchError):
    """A name that no registry knows."""


class NameTakenError(AdaptBenchError):
    """Two things want the same name in one registry."""


class MissingExtraError(AdaptBenchError):
    """An optional package is needed and not installed."""


class SuiteError(AdaptBenchError):
    """A suite file that does not say what may be run."""


class RecipeError(AdaptBenchError):
    """An attack recipe that does not name a possible attack."""


class DataMissingError(AdaptBenchError):
    """A data set is not where it was looked for."""


class DataFormatError(AdaptBenchError):
    """A data file that is not what its name says, or is not safe to read."""


class LeakageError(AdaptBenchError):
    """Samples used for a choice were about to be used for a claim, or the reverse."""


class CalibrationError(AdaptBenchError):
    """Too little or unfit calibration data for a policy."""


class GraphError(AdaptBenchError):
    """Nodes and edges that do not make a decision graph."""


class PolicyError(AdaptBenchError):
    """A policy that does not fit the model it was given to."""


class DomainError(AdaptBenchError):
    """An input outside the domain that the model declares."""


class NonFiniteError(AdaptBenchError):
    """Weights or outputs hold NaN or infinity."""


class UncountedError(AdaptBenchError):
    """Compute ran that no MAC formula covers, in strict mode."""


class CapabilityError(AdaptBenchError):
    """A model, attack or meter was asked for what it does not offer."""


class CheckpointError(AdaptBenchError):
    """A checkpoint that is truncated, foreign or of another model."""


class MeterError(AdaptBenchError):
    """A meter was used in a way that gives no reading."""


class RunError(AdaptBenchError):
    """A run directory that is missing, incomplete or of another schema."""


class BaselineError(AdaptBenchError):
    """A baseline that cannot be compared with."""


class OutputError(AdaptBenchError):
    """A place that cannot be written to."""


class LockedError(AdaptBenchError):
    """A run directory that another process is writing to."""


class EngineError(AdaptBenchError):
    """Workers that cannot be reached, or that would compute something else."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C.

    Args:
        kept: what is on the disk, in a sentence.
    """

    def __init__(self, kept: str) -> None:
        super().__init__(kept)
        self.kept = kept
