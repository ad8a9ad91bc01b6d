"""The four kinds of experiment behind one call: whoever names a file need not know which it is."""

from __future__ import annotations

from typing import Any, Unpack, overload

from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import LoadedSuite
from adaptbench.decoding.runner import run_decoding
from adaptbench.decoding.spec import LoadedDecoding
from adaptbench.experiment.finding import kind_named
from adaptbench.experiment.options import Asked, Options
from adaptbench.results.decoding import DecodingRun
from adaptbench.results.serving import ServingRun
from adaptbench.results.store import Run
from adaptbench.results.studies import StudyRun
from adaptbench.serving.runner import run_serving
from adaptbench.serving.spec import LoadedServing
from adaptbench.study.runner import run_study
from adaptbench.study.spec import LoadedStudy


@overload
def run(file: LoadedSuite, options: Options | None = None, /, **asked: Unpack[Asked]) -> Run: ...
@overload
def run(file: LoadedStudy, options: Options | None = None, /, **asked: Unpack[Asked]) -> StudyRun: ...
@overload
def run(file: LoadedServing, options: Options | None = None, /, **asked: Unpack[Asked]) -> ServingRun: ...
@overload
def run(file: LoadedDecoding, options: Options | None = None, /, **asked: Unpack[Asked]) -> DecodingRun: ...
@overload
def run(
    file: str, options: Options | None = None, /, **asked: Unpack[Asked]
) -> Run | StudyRun | ServingRun | DecodingRun: ...
def run(
    file: str | LoadedSuite | LoadedStudy | LoadedServing | LoadedDecoding,
    options: Options | None = None,
    /,
    **asked: Unpack[Asked],
) -> Run | StudyRun | ServingRun | DecodingRun:
    """Execute a suite, of whatever kind, or a study, and leave a directory.

    Args:
        file: a name, a path, or one that is read already. options: how; or its fields as keywords.

    Returns:
        A suite's `Run` (records, samples, windows), a study's `StudyRun` (``record``: graphs, policies, points), or, of
        kind serving, a `ServingRun` (``record``: streams, provisions, checks); of kind decoding, a `DecodingRun`
        (``record``: decoders, sequences, attacks; `steps`). Each goes into `adaptbench.check` and,
        by its ``path``, into `adaptbench.write_report`.

    Raises:
        AdaptBenchError: what stands in the way of the whole run; see `run_suite`, `run_study`, `run_serving`,
            `run_decoding`.
        SuiteError: there is no such file, or it is none of them.
        LockedError: another process writes to the directory.
        Stopped: Ctrl-C; says what is kept.
    """
    kind = kind_named(file) if isinstance(file, str) else file.kind
    ran: Run | StudyRun | ServingRun | DecodingRun = _RUNNERS[kind](file, options, **asked)
    return ran


_RUNNERS: dict[str, Any] = {
    "suite": run_suite,
    "study": run_study,
    "serving": run_serving,
    "decoding": run_decoding,
}
