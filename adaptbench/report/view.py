"""A run as the report reads it: which records belong to which model, in which order, under which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaptbench.report import names, words
from adaptbench.results import quality
from adaptbench.results.controls import beside, queries_of
from adaptbench.results.identity import COMPACTED, mode_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Record = Mapping[str, Any]
"""One case of ``summary.json``."""

_KIND_ORDER = {"clean": 0, "control": 1, "attack": 2}


class RunLike(Protocol):
    """What the report asks of a run (``adaptbench.results.store.Run`` is one)."""

    @property
    def path(self) -> Path:
        """The run directory."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """``manifest.json``."""

    @property
    def cases(self) -> Sequence[Record]:
        """The records of ``summary.json``."""

    def samples(self, evaluations: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of ``samples.parquet``, of some evaluations or of all."""

    def windows(self) -> pd.DataFrame:
        """``windows.parquet``."""

    def crafted(self, file: str) -> dict[str, np.ndarray]:
        """The arrays of one file of ``crafted/``."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One model on one data set: what a panel or a group of rows is about."""

    key: str
    """Unique on the page and fit for an id."""
    model: str
    data: str
    title: str


class View:
    """One run, grouped for reading."""

    def __init__(self, run: RunLike) -> None:
        self.run = run
        self.manifest: Mapping[str, Any] = run.manifest
        self.records: list[Record] = list(run.cases)
        self.told: dict[Any, Any] = {}
        """What others have worked out of this run once, under keys of their own."""

    @cached_property
    def metric(self) -> str:
        """The field that judges answers in this run: accuracy, or miou where every pixel is answered."""
        return next((quality.metric_of(record) for record in self.records if record.get("metric")), quality.ACCURACY)

    @property
    def metric_word(self) -> str:
        """The same for readers."""
        return quality.WORDS[self.metric]

    @cached_property
    def subjects(self) -> list[Subject]:
        """Models in the manifest's order; a model that has only records comes after."""
        order = {name: place for place, name in enumerate(self.manifest.get("models") or {})}
        pairs: dict[tuple[str, str], None] = {}
        for record in self.records:
            if record.get("kind") != "reference" or record["model"] in order:
                pairs.setdefault((record["model"], record["data"]))
        ranked = sorted(pairs, key=lambda pair: order.get(pair[0], len(order)))
        several = len({data for _, data in pairs}) > 1
        return [
            Subject(f"m{place}", model, data, self.model_title(model) + (f" · {data}" if several else ""))
            for place, (model, data) in enumerate(ranked)
        ]

    def model(self, name: str) -> Mapping[str, Any]:
        """What the manifest says of a model; empty if nothing."""
        return (self.manifest.get("models") or {}).get(name) or {}

    def model_title(self, name: str) -> str:
        """The model's title, or its name spelled out."""
        return names.model_name(name, self.model(name))

    def surrogate_title(self, name: str) -> str:
        """The same of a net that inputs were crafted on, which may be of other data."""
        return names.surrogate_name(name, self.model(name))

    def static_macs(self, subject: Subject) -> float | None:
        """MACs of a model's plain net: what its savings are shares of; None if nothing says."""
        clean = self.clean(subject) or {}
        candidates = (full for full in (clean.get("macs_full"), self.model(subject.model).get("macs_full")))
        return next((full for full in candidates if words.exists(full) and full), None)

    def condition(self, name: str) -> Mapping[str, Any]:
        """What the manifest says of a condition; empty if nothing."""
        return (self.manifest.get("conditions") or {}).get(name) or {}

    def condition_title(self, record: Record) -> str:
        """The condition's title, with the seed where it is not the first."""
        title = self.condition_names.get(record["condition"]) or str(record["condition"])
        return f"{title} · seed {record['seed']}" if record.get("seed") else title

    @cached_property
    def condition_names(self) -> dict[str, str]:
        """Condition → its name for reading; those that would share one keep their code names."""
        told = {key: names.condition_name(key, self.condition(key)) for key in self.manifest.get("conditions") or {}}
        shared = Counter(told.values())
        return {key: name if shared[name] == 1 else names.plain_name(key) for key, name in told.items()}

    def of(self, subject: Subject, *kinds: str) -> list[Record]:
        """Every record of a subject, of some kinds."""
        return [
            record
            for record in self.records
            if record["model"] == subject.model and record["data"] == subject.data and record.get("kind") in kinds
        ]

    def rows(self, subject: Subject) -> list[Record]:
        """One record a condition, clean first, then controls, then attacks; the best timed one stands for it."""
        chosen: dict[str, Record] = {}
        for record in self.of(subject, *_KIND_ORDER):
            name = record["evaluation"]
            if name not in chosen or self._timed_rank(record) > self._timed_rank(chosen[name]):
                chosen[name] = record
        return sorted(chosen.values(), key=lambda record: _KIND_ORDER[record["kind"]])

    def clean(self, subject: Subject) -> Record | None:
        """The clean record, or None if the run has none."""
        return next((record for record in self.rows(subject) if record["kind"] == "clean"), None)

    def controls(self, subject: Subject) -> list[Record]:
        """The control conditions (noise of equal norm)."""
        return [record for record in self.rows(subject) if record["kind"] == "control"]

    def control_of(self, subject: Subject, attack: Record) -> Record | None:
        """The control that changes as much as an attack, to a grey level (rounding takes one), or None.

        An attack that asks for costs has the control that asks as often.
        """
        conditions = self.manifest.get("conditions") or {}
        controls = [c for c in self.controls(subject) if c.get("seed") == attack.get("seed")]
        if queries_of(conditions.get(attack["condition"]) or {}) is not None:
            return beside(attack, controls, conditions)
        size = attack.get("linf_max")
        drawn = [c for c in controls if queries_of(conditions.get(c["condition"]) or {}) is None]
        sized = [c for c in drawn if words.exists(c.get("linf_max")) and words.exists(size)]
        same = [c for c in sized if abs(c["linf_max"] - size) < 1.25 / 255]
        return min(same, key=lambda control: abs(control["linf_max"] - size), default=None)

    def attacks(self, subject: Subject) -> list[Record]:
        """The attack conditions."""
        return [record for record in self.rows(subject) if record["kind"] == "attack"]

    def timed(self, subject: Subject) -> list[Record]:
        """Records that were measured on the device, by condition, batch size and mode."""
        timed = [record for record in self.of(subject, *_KIND_ORDER) if record.get("batch_size")]
        first = {record["evaluation"]: place for place, record in reversed(list(enumerate(timed)))}
        return sorted(
            timed,
            key=lambda record: (
                _KIND_ORDER[record["kind"]],
                first[record["evaluation"]],
                record["batch_size"],
                self.modes.index(mode_of(record) or COMPACTED),
            ),
        )

    def sweep(self, subject: Subject) -> list[Record]:
        """The accuracy–cost sweep, in order of cost."""
        return _by_cost(self.of(subject, "sweep"))

    def references(self, subject: Subject) -> list[Record]:
        """Static, oracle, myopic, uniform: what the policy is held against."""
        known = self.manifest.get("models") or {}
        shared = [
            record
            for record in self.records
            if record.get("kind") == "reference" and record["data"] == subject.data and record["model"] not in known
        ]
        return _by_cost([*self.of(subject, "reference"), *shared])

    @cached_property
    def windows(self) -> pd.DataFrame:
        """``windows.parquet``, read once."""
        return self.run.windows()

    @cached_property
    def modes(self) -> list[str]:
        """Ways in which batches of this run were executed and timed: that of the verdict first."""
        found = dict.fromkeys(mode for record in self.records if (mode := mode_of(record)))
        return sorted(found, key=lambda mode: mode != COMPACTED)

    def of_verdict(self, record: Record) -> bool:
        """Whether a timed case is one that the verdict is about: the largest batch, the first mode."""
        return record.get("batch_size") == self.batch_size and mode_of(record) == next(iter(self.modes), None)

    def _timed_rank(self, record: Record) -> tuple[bool, int]:
        return bool(mode_of(record)) and mode_of(record) == self.modes[0], int(record.get("batch_size") or 0)

    @cached_property
    def batch_size(self) -> int | None:
        """The batch size that the verdict is about: the largest that was timed in the first of `modes`."""
        sizes = [record["batch_size"] for record in self.records if self.modes and mode_of(record) == self.modes[0]]
        return max(sizes, default=None)


def reference_name(record: Record) -> str:
    """``static``, ``oracle`` …: the policy of a reference record."""
    return str(record.get("policy") or record.get("model"))


def saving(record: Record) -> float | None:
    """The share of the MACs of the model's own static network that were not run."""
    mean, full = record.get("macs_mean"), record.get("macs_full")
    return 1 - mean / full if words.exists(mean) and words.exists(full) and full else None


def missing(record: Record, field: str) -> str:
    """Why a figure does not exist."""
    if record.get(f"{field}_missing"):
        return str(record[f"{field}_missing"])
    if field in ("energy_j_per_sample", "latency_s_per_sample") and not record.get("batch_size"):
        return "evaluated only: this case was not timed"
    return "not part of this run"


def _by_cost(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record["macs_mean"] if words.exists(record.get("macs_mean")) else 0)
