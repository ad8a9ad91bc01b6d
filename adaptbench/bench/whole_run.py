"""What a run took as a whole: its stretches, a command each, and the meters that read one window over everything."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from adaptbench.bench.plan import Plan
from adaptbench.experiment.environment import git_state
from adaptbench.experiment.measuring import to_frame
from adaptbench.meters.base import Meter
from adaptbench.meters.reading import NO_WORK
from adaptbench.meters.rows import WindowRow, to_rows
from adaptbench.results.writer import RunWriter

_STOPPED = "a stretch of the run was stopped: no reading"


class WholeRun:
    """The stretches of a run: a command that is resumed adds one to those before it.

    Args:
        meters: those that are meant for one window over everything.

    Attributes:
        keys: cells of the stretches, the present one last.
        elsewhere: why what is read here is not all of the work; empty where it is.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self.meters = list(meters)
        self.keys: list[str] = []
        self.elsewhere = ""

    @contextmanager
    def over_run(self, writer: RunWriter, plan: Plan) -> Iterator[None]:
        """A stretch, and a window over it; its rows are committed under the case "suite", a block a stretch.

        What has no reading is said from the start: a stretch that is killed, and what was computed before the first.
        """
        content = json.dumps([plan.suite.sha256, *(e.key for e in plan.evaluations)])
        name = f"suite-{hashlib.sha256(content.encode()).hexdigest()}"
        stretch = next(n for n in itertools.count() if not writer.has(f"{name}-{n}"))
        self.keys = [f"{name}-{n}" for n in range(stretch + 1)]
        before = sum(writer.has(e.key) for e in plan.evaluations) if stretch == 0 else 0
        rows: list[WindowRow] = []
        if before:
            rows = [
                _unread(meter, stretch, 1, _computed_before(before, len(plan.evaluations))) for meter in self.meters
            ]
        killed = [_unread(meter, stretch, 0, _STOPPED) for meter in self.meters]
        carbon: dict[str, dict[str, Any]] = {}
        record = {"started": _now(), "ended": None, "before": before, "of": len(plan.evaluations), "git": git_state()}
        record["meters"] = carbon
        writer.commit(self.keys[-1], record, windows=to_frame([*killed, *rows]))
        marks = [(meter, meter.begin()) for meter in self.meters]
        try:
            yield
        except BaseException:
            writer.commit(self.keys[-1], record | {"ended": _now()}, windows=to_frame([*killed, *rows]))
            raise
        for meter, mark in marks:
            if self.elsewhere:
                rows.append(_unread(meter, stretch, 0, self.elsewhere))
                carbon[meter.name] = dict(zip(_CARBON, (None, self.elsewhere), strict=True))
                continue
            try:
                rows += to_rows("suite", stretch, 0, meter, meter.end(mark, NO_WORK), 0)
                carbon[meter.name] = {key: meter.describe().get(key) for key in _CARBON}
            except Exception as error:  # a meter's fault loses no run
                rows.append(_unread(meter, stretch, 0, f"{type(error).__name__}: {error}"))
        writer.commit(self.keys[-1], record | {"ended": _now()}, windows=to_frame(rows))

    def stretches(self, writer: RunWriter) -> list[dict[str, Any]]:
        """When each began and ended, at which revision; ``ended`` is None where it was killed."""
        told = ("started", "ended", "before", "git")
        return [{key: record.get(key) for key in told} for record in map(writer.record, self.keys)]

    def declared(self, writer: RunWriter) -> dict[str, dict[str, Any]]:
        """What the meters say of themselves; their carbon is of all stretches, or missing with the reason."""
        records = [writer.record(key) for key in self.keys]
        return {meter.name: meter.declared() | _carbon(meter, records) for meter in self.meters}


_CARBON = ("co2e_kg", "co2e_kg_missing")


def _carbon(meter: Meter, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if "co2e_kg" not in meter.describe():
        return {}
    parts = [(record["meters"].get(meter.name) or {}) for record in records]
    reasons = [part.get("co2e_kg_missing") or _STOPPED for part in parts if part.get("co2e_kg") is None]
    if before := records[0]["before"]:
        reasons.append(_computed_before(before, records[0]["of"]))
    if reasons:
        return dict(zip(_CARBON, (None, "; ".join(dict.fromkeys(reasons))), strict=True))
    return dict(zip(_CARBON, (sum(part["co2e_kg"] for part in parts), None), strict=True))


def _computed_before(before: int, of: int) -> str:
    return f"{before} of {of} evaluations were computed before, and are not in it"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _unread(meter: Meter, stretch: int, order: int, reason: str) -> WindowRow:
    return WindowRow("suite", stretch, order, meter.name, "total", None, 0.0, 0, "", meter.scope, "", reason)
