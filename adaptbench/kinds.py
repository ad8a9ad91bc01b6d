"""The two kinds of experiment behind one call: whoever names a file need not know whether it is a suite or a study."""

from __future__ import annotations

from typing import Unpack, overload

from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import LoadedSuite
from adaptbench.experiment.options import Asked, Options
from adaptbench.results.store import Run
from adaptbench.results.studies import StudyRun
from adaptbench.study.runner import run_study
from adaptbench.study.spec import LoadedStudy, is_study


@overload
def run(file: LoadedSuite, options: Options | None = None, /, **asked: Unpack[Asked]) -> Run: ...
@overload
def run(file: LoadedStudy, options: Options | None = None, /, **asked: Unpack[Asked]) -> StudyRun: ...
@overload
def run(file: str, options: Options | None = None, /, **asked: Unpack[Asked]) -> Run | StudyRun: ...
def run(
    file: str | LoadedSuite | LoadedStudy, options: Options | None = None, /, **asked: Unpack[Asked]
) -> Run | StudyRun:
    """Execute a suite or a study and leave a directory.

    Args:
        file: a name, a path, or one that is read already. options: how; or its fields as keywords.

    Returns:
        A suite's `Run` (records, samples, windows), or a study's `StudyRun` (``record``: graphs, policies, points).
        Either goes into `adaptbench.check` and, by its ``path``, into `adaptbench.write_report`.

    Raises:
        AdaptBenchError: what stands in the way of the whole run; see `run_suite` and `run_study`.
        SuiteError: there is no such file, or it is neither.
        LockedError: another process writes to the directory.
        Stopped: Ctrl-C; says what is kept.
    """
    if isinstance(file, LoadedStudy) or (isinstance(file, str) and is_study(file)):
        return run_study(file, options, **asked)
    return run_suite(file, options, **asked)
