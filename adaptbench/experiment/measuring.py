"""Timing: arms in interleaved sessions, one a batch size; each block and each whole session is a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from adaptbench.adaptive.parts import TimedMode
from adaptbench.attacks.identity import foreign_sources
from adaptbench.errors import LockedError, OutputError, UsageError
from adaptbench.experiment.environment import describe_device
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.keys import digest_of
from adaptbench.experiment.progress import Progress
from adaptbench.meters.base import Meter
from adaptbench.meters.clock import synchroniser
from adaptbench.meters.rows import WindowRow
from adaptbench.meters.windows import Arm, measure
from adaptbench.results.identity import COMPACTED
from adaptbench.results.writer import RunWriter

Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Seconds = Annotated[float, Field(le=3600, allow_inf_nan=False, strict=True)]


class Windows(BaseModel):
    """What is timed, and for how long.

    Args:
        batch_sizes: inputs handed over at once. blocks: ≥ 6 for a 95 % interval.
        window_s: of one stretch of work, at least; a sensor may ask for more. warmup_s: of every path.
        samples: inputs each window goes through.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_sizes: Annotated[list[Annotated[int, Field(ge=1, le=65_536, strict=True)]], Field(min_length=1)] = [1, 256]
    blocks: Annotated[int, Field(ge=1, le=1000, strict=True)] = 8
    window_s: Annotated[Seconds, Field(gt=0)] = 0.05
    warmup_s: Annotated[Seconds, Field(ge=0)] = 0.05
    samples: Count = 256


class Calls(Windows):
    """Windows of whole calls of adaptive nets.

    Args:
        modes: how their batches are executed, each timed beside the others in the same blocks: "compacted", survivors
            of a batch stay together; "per-sample", one at a time; "queues", survivors of all batches of a window wait
            at a node until it can run full; "compiled", as compacted, with parts that were compiled before the first
            window. Each has rows of its own.
    """

    modes: Annotated[list[TimedMode], Field(min_length=1)] = [COMPACTED]

    @model_serializer(mode="wrap")
    def _as_written(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without keys that came later and say nothing, so that suites and windows from before keep their hash."""
        return self._unsaid(told(self))

    def _unsaid(self, contents: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in contents.items() if key != "modes" or self.modes != [COMPACTED]}

    def check(self) -> None:
        """Refuse modes that stand twice, and queues that could pool nothing.

        Raises:
            UsageError: they are such.
        """
        if twice := [mode for i, mode in enumerate(self.modes) if mode in self.modes[:i]]:
            raise UsageError(
                f"{twice[0]} stands twice.", why="Two cases would have one name.", todo="Keep one of them."
            )
        most = max(self.batch_sizes)
        if "queues" in self.modes and self.samples <= most:
            raise UsageError(
                f"{self.samples} samples are one batch of {most}.",
                why="Queues pool the survivors of several batches: there would be nobody to wait for.",
                todo=f"Time more of them, such as samples: {8 * most}, or smaller batches.",
            )


class Sessions:
    """The timed part of a suite or a study.

    Args:
        writer: where windows are kept. spec: how long. device: where it runs. meters: open.
        progress: who watches. failures: an arm that cannot be run joins them, the others are timed without it.
    """

    def __init__(
        self,
        writer: RunWriter,
        spec: Windows,
        device: str,
        meters: Sequence[Meter],
        progress: Progress,
        failures: Failures,
    ) -> None:
        self.writer, self.spec, self.device, self.meters = writer, spec, device, meters
        self.progress, self.failures = progress, failures

    def run(self, size: int, arms: Mapping[str, Arm], keys: Mapping[str, str]) -> str | None:
        """All arms at one batch size, interleaved.

        Args:
            size: inputs handed over at once. arms: by case. keys: case → content key of what it runs, where it has one.

        Returns:
            The cell with the windows; None where nothing could be timed.
        """
        left = {case: _guarded(arm) for case, arm in arms.items()}
        try:
            while left:
                key = session_key(self.spec, size, list(left), keys, self.meters, self.device)
                try:
                    if not self.writer.has(key):
                        self._measure(key, list(left.values()), size)
                except _ArmFailedError as error:
                    self.failures.add(error.case, error.__cause__ or error)
                    del left[error.case]
                    continue
                except (OutputError, LockedError):
                    raise
                except Exception as error:  # a meter's fault, so every case's
                    for case in left:
                        self.failures.add(case, error)
                    return None
                return key
            return None
        finally:
            self.progress.end()

    def _measure(self, key: str, arms: Sequence[Arm], size: int) -> None:
        blocks = self.spec.blocks
        self.progress.begin(f"measuring  batch {size}, {len(arms)} arms interleaved", blocks)

        def on_block(block: int, rows: list[WindowRow]) -> None:
            self.writer.commit(f"{key}-{block}", {}, windows=to_frame(rows))
            self.progress.advance(block + 1, f"block {block + 1} of {blocks}")

        with torch.no_grad():
            rows = measure(
                arms,
                self.meters,
                blocks=blocks,
                window_s=window_length(self.spec, self.meters),
                warmup_s=self.spec.warmup_s,
                rng=np.random.default_rng(size),
                idle=any(m.quantity == "energy" for m in self.meters),
                synchronise=synchroniser(self.device),
                on_block=on_block,
                already=self._already(key),
            )
        self.writer.commit(key, {}, windows=to_frame(rows))

    def _already(self, key: str) -> list[WindowRow]:
        rows: list[WindowRow] = []
        for block in range(self.spec.blocks):
            if self.writer.has(f"{key}-{block}"):
                kept = self.writer.load(f"{key}-{block}").windows
                assert kept is not None
                rows += [WindowRow(**_plain(row)) for row in kept.to_dict("records")]
        return rows


def session_key(
    spec: Windows, size: int, cases: Sequence[str], keys: Mapping[str, str], meters: Sequence[Meter], device: str
) -> str:
    """The content key of a session's windows; those of block b lie under ``KEY-b``.

    Args:
        spec, size, keys, device: as of `Sessions`. cases: the arms, in order. meters: that read the windows.
    """
    return digest_of(
        {
            "timed": [keys[case] for case in cases if case in keys],
            "arms": list(cases),
            "measure": spec.model_dump(mode="json"),
            "size": size,
            "meters": [[m.name, foreign_sources([type(m)])] for m in meters],
            "device": describe_device(device)["fingerprint"],
        }
    )


def window_length(spec: Windows, meters: Sequence[Meter]) -> float:
    """Seconds of a window: what is asked for, or the most that a meter needs, once it is open."""
    return max([spec.window_s, *(m.min_window_s for m in meters)])


class _ArmFailedError(Exception):
    """One arm of a session cannot be run; the cause says why."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        self.case = case


def _guarded(arm: Arm) -> Arm:
    """The arm, whose errors say whose they are."""

    def named(call: Callable[[], Any]) -> Callable[[], None]:
        def body() -> None:
            try:
                call()
            except Exception as error:
                raise _ArmFailedError(arm.case) from error

        return body

    warm = [named(call) for call in arm.warm]
    return replace(arm, run=named(arm.run), warm=warm, prepare=named(arm.prepare))


def to_frame(rows: Sequence[WindowRow]) -> pd.DataFrame | None:
    """Windows as a table; None where there are none."""
    return pd.DataFrame([asdict(row) for row in rows]) if rows else None


def windows_of(writer: RunWriter, keys: Sequence[str]) -> pd.DataFrame:
    """The windows of some cells, one after the other."""
    frames = [cell.windows for cell in map(writer.load, keys) if cell.windows is not None]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A table row with NaN and NA as None, numpy scalars as Python's."""
    return {str(k): None if pd.isna(v) else (v.item() if hasattr(v, "item") else v) for k, v in row.items()}
