"""What a run is compared with: another run, or the small file that was kept of one. One interface for both."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from adaptbench.errors import BaselineError, RunError
from adaptbench.results.documents import check_manifest
from adaptbench.results.files import read_json, write_text
from adaptbench.results.schema import (
    SCHEMA_VERSION,
    WINDOW_COLUMNS,
    Record,
    migrate,
    validate_records,
)
from adaptbench.results.store import Run
from adaptbench.results.studies import kind_of

if TYPE_CHECKING:
    import pandas as pd

KEPT = (
    "id",
    "suite",
    "gate",
    "device",
    "meters",
    "versions",
    "models",
    "conditions",
    "data",
    "seeds",
    "git",
    "started",
    "ended",
    "command",
)
"""What a baseline keeps of the manifest: enough to say whether a comparison is fair."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What happened to each input of one evaluation, in order of sample id.

    Args:
        sample_id: (n,) int64, rising.
        correct: (n,) bool.
        macs: (n,) int64; NaN where the cost is metered.
        tie: (n,) bool, a decision margin that may fall either way.
    """

    sample_id: NDArray[np.int64]
    correct: NDArray[np.bool_]
    macs: NDArray[np.int64] | NDArray[np.float64]
    tie: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sample_id)

    def take(self, rows: NDArray[Any]) -> Outcomes:
        """Some rows, in the order given."""
        return Outcomes(self.sample_id[rows], self.correct[rows], self.macs[rows], self.tie[rows])

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> Self:
        """The outcomes in rows of one evaluation."""
        ordered = frame.sort_values("sample_id")
        return cls(
            ordered["sample_id"].to_numpy(dtype=np.int64),
            ordered["correct"].to_numpy(dtype=np.bool_),
            _macs(ordered["macs"]),
            ordered["tie"].to_numpy(dtype=np.bool_),
        )


@dataclass(frozen=True, slots=True)
class Baseline:
    """One side of a comparison.

    Args:
        path: where it was read from.
        manifest: at least the parts in `KEPT`.
        cases: case records.
        load_samples: evaluation id → outcomes, None where there are none.
        load_windows: () → rows of ``windows.parquet``.
    """

    path: Path
    manifest: dict[str, Any]
    cases: list[Record]
    load_samples: Callable[[str], Outcomes | None]
    load_windows: Callable[[], pd.DataFrame]

    def samples(self, evaluation: str) -> Outcomes | None:
        """Outcomes of one evaluation; None where none were kept."""
        return self.load_samples(evaluation)

    def windows(self) -> pd.DataFrame:
        """Windows of the timed cases; columns of `schema.WINDOW_COLUMNS`."""
        return self.load_windows()

    def held(self) -> Baseline:
        """The same in memory: for what is about to be overwritten."""
        samples = {name: self.samples(name) for name in dict.fromkeys(record["evaluation"] for record in self.cases)}
        windows = self.windows()
        return replace(self, load_samples=samples.get, load_windows=lambda: windows)

    def changed(self, **changes: Any) -> Baseline:
        """A copy with other fields; the gate's self-test plants faults with it."""
        return replace(self, **changes)

    @classmethod
    def of(cls, run: Run) -> Self:
        """A run as one side of a comparison."""

        def outcomes(evaluation: str) -> Outcomes | None:
            frame = run.samples([evaluation])
            return Outcomes.of_frame(frame) if len(frame) else None

        return cls(run.path, run.manifest, run.cases, outcomes, run.windows)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a run directory or a baseline file.

        Raises:
            BaselineError: nothing is there, or it is neither.
            RunError: an incomplete or damaged run, or another schema.
        """
        place = Path(path)
        if place.is_dir():
            run = Run.open(place)
            run.verify()
            return cls.of(run)
        if not place.is_file():
            raise BaselineError(
                f"{place}: there is no such baseline.",
                why="Nothing to compare with.",
                todo="Name a run directory or a file in reports/baselines/; `write_baseline` keeps one of a run.",
            )
        if (kind := kind_of(place)) in ("serving", "decoding"):
            raise BaselineError(
                f"{place}: it holds figures of kind {kind}, and the run a suite's.",
                todo="Compare it with a run of that suite, or name a file in reports/baselines/.",
            )
        if kind_of(place) == "study":
            raise BaselineError(
                f"{place}: it holds a study's figures, and the run a suite's.",
                todo="Compare it with another study, or name a file in reports/baselines/.",
            )
        document = migrate(read_json(place), str(place))
        if document.get("kind") != "baseline":
            raise BaselineError(
                f"{place}: its kind is {document.get('kind')!r}, not 'baseline'.",
                why="It holds no figures in a form that can be compared.",
                todo="Name a run directory or a baseline file.",
            )
        try:
            validate_records(document["cases"], str(place))
        except KeyError as error:
            raise BaselineError(f"{place}: incomplete: no {error}.", todo="Write it again from a run.") from error
        parts = {name: _part(document, name, kind, place) for name, kind in _PARTS.items()}
        check_manifest(parts["manifest"], str(place))
        samples = {name: _unpack(packed, place) for name, packed in parts["samples"].items()}
        windows = _frame(parts["windows"], place)
        return cls(place, parts["manifest"], document["cases"], samples.get, lambda: windows)


def write_baseline(run: Run, path: str | Path) -> Path:
    """Keep of a run what a gate needs, as one JSON file for ``reports/baselines/``.

    Per sample: right or wrong, MACs and ties, packed (a 10 000-input evaluation takes some 15 kB). Crafted inputs
    are not kept.

    Args:
        run: a complete run.
        path: the file.

    Returns:
        The file.

    Raises:
        BaselineError: cases of the run failed.
        OutputError: it cannot be written.
    """
    target = Path(path)
    if failed := [str(record["case"]) for record in run.cases if record.get("failed")]:
        raise BaselineError(
            f"{run.path}: {len(failed)} cases could not be run: {', '.join(failed[:3])}{' …' if failed[3:] else ''}",
            why="Whoever is compared with it would be compared with nothing there.",
            todo="Mend them, or leave them out of the suite, and run it again.",
        )
    samples: dict[str, Any] = {}
    for evaluation in dict.fromkeys(record["evaluation"] for record in run.cases):
        frame = run.samples([evaluation])
        if len(frame):
            samples[evaluation] = _pack(Outcomes.of_frame(frame))
    frame = run.windows()
    columns = list(WINDOW_COLUMNS)
    windows = [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None and value == value}
        for row in frame[columns].astype(object).itertuples(index=False, name=None)
    ]
    document = {
        "schema": SCHEMA_VERSION,
        "kind": "baseline",
        "manifest": {name: run.manifest.get(name) for name in KEPT} | _compiled(run.manifest),
        "cases": run.cases,
        "samples": samples,
        "windows": windows,
    }
    return write_text(target, _text(document))


def _compiled(manifest: Record) -> Record:
    """Which parts of a net ran compiled, where any did; what each took is of the run alone."""
    plans = manifest.get("compiled") or {}
    kept = {
        name: {"parts": [{of: part[of] for of in ("name", "kept")} for part in plan["parts"]]}
        for name, plan in plans.items()
    }
    return {"compiled": kept} if kept else {}


_PARTS: dict[str, type] = {"manifest": dict, "samples": dict, "windows": list}


def _part(document: Mapping[str, Any], name: str, kind: type, place: Path) -> Any:
    if not isinstance(document.get(name), kind):
        raise BaselineError(
            f"{place}: '{name}' is {'absent' if name not in document else f'no {kind.__name__}'}.",
            why="The gate compares by it.",
            todo="Restore the file from version control, or write it again from a run.",
        )
    return document[name]


def _text(document: Mapping[str, Any]) -> str:
    """JSON with a line for each case, evaluation and window, so that version control shows what moved."""

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    parts = []
    for name, value in document.items():
        if isinstance(value, list):
            body = "[\n" + ",\n".join(map(compact, value)) + "]"
        elif isinstance(value, dict):
            body = "{\n" + ",\n".join(f"{compact(key)}:{compact(item)}" for key, item in value.items()) + "}"
        else:
            body = compact(value)
        parts.append(f"{compact(name)}:{body}")
    return "{" + ",\n".join(parts) + "}\n"


def _macs(column: pd.Series[Any]) -> NDArray[np.int64] | NDArray[np.float64]:
    """Whole numbers; NaN where a meter reads the cost, of all rows or of none."""
    if column.isna().all():
        return np.full(len(column), np.nan)
    return column.to_numpy(dtype=np.int64)


def _pack(outcomes: Outcomes) -> dict[str, Any]:
    levels, index = np.unique(outcomes.macs, return_inverse=True)
    metered = len(outcomes) > 0 and bool(np.isnan(outcomes.macs).all())
    width = "<u1" if len(levels) <= 2**8 else "<u2" if len(levels) <= 2**16 else "<u4"
    ids = outcomes.sample_id
    first = int(ids[0])
    consecutive = bool((ids == np.arange(first, first + len(ids))).all())
    return {
        "sample_id": {"first": first, "n": len(ids)} if consecutive else ids.tolist(),
        "correct": _bits(outcomes.correct),
        "macs": None if metered else {"levels": levels.tolist(), "index": _coded(index.astype(width).tobytes())},
        "tie": _bits(outcomes.tie),
    }


def _unpack(packed: Mapping[str, Any], place: Path) -> Outcomes:
    try:
        stored = packed["sample_id"]
        n = stored["n"] if isinstance(stored, dict) else len(stored)
        macs = np.full(n, np.nan) if packed["macs"] is None else _unpacked_macs(packed["macs"], n)
        if isinstance(stored, dict):
            stored = [stored["first"] + place for place in range(n)]
        return Outcomes(_integers(stored), _unbits(packed["correct"], n), macs, _unbits(packed["tie"], n))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise BaselineError(
            f"{place}: packed samples are damaged ({error}).",
            why="The gate compares sample by sample.",
            todo="Restore the file from version control, or write it again from a run.",
        ) from error


def _unpacked_macs(packed: Mapping[str, Any], n: int) -> NDArray[np.int64]:
    levels = _integers(packed["levels"])
    width = "<u1" if len(levels) <= 2**8 else "<u2" if len(levels) <= 2**16 else "<u4"
    index = np.frombuffer(base64.b64decode(packed["index"]), dtype=width)
    if len(index) != n:
        raise ValueError(f"{len(index)} costs for {n} samples")
    macs: NDArray[np.int64] = levels[index]
    return macs


def _integers(values: list[Any]) -> NDArray[np.int64]:
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise ValueError("an integer is none")
    return np.array(values, dtype=np.int64)


def _bits(values: NDArray[np.bool_]) -> str:
    return _coded(np.packbits(values).tobytes())


def _coded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbits(text: str, n: int) -> NDArray[np.bool_]:
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    if len(packed) != -(-n // 8):
        raise ValueError(f"{len(packed)} packed bytes for {n} samples")
    return np.unpackbits(packed, count=n).astype(np.bool_)


def _frame(rows: list[Any], place: Path) -> pd.DataFrame:
    import pandas as pd

    from adaptbench.results.tables import to_arrow

    try:
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a window is no object")
        frame = pd.DataFrame(rows, columns=list(WINDOW_COLUMNS))
        for name in ("energy_j", "duration_s"):
            frame[name] = frame[name].astype("float64")
        to_arrow(frame, "windows")
    except (TypeError, ValueError, RunError) as error:
        said = error.seen if isinstance(error, RunError) else error
        raise BaselineError(
            f"{place}: its windows are damaged ({said}).",
            why="The gate compares seconds and joules by them.",
            todo="Restore the file from version control, or write it again from a run.",
        ) from error
    return frame
