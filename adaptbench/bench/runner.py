"""Carries a plan out: craft and evaluate in chunks, measure interleaved, put the run directory together.

Each chunk and each block of windows is committed on its own, under a key made of everything it hangs on. A run that was
killed goes on where it stopped, and ends with the records of an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from adaptbench.attacks.base import Learned, join_details
from adaptbench.attacks.soundness import with_doubts
from adaptbench.bench.ahead import SUMMARY, stages_of
from adaptbench.bench.evaluate import hash_inputs
from adaptbench.bench.kept_learning import learned_in
from adaptbench.bench.manifest import describe_conditions, describe_data, describe_models, describe_references
from adaptbench.bench.measuring import Measuring, open_meters
from adaptbench.bench.notes import things_to_know
from adaptbench.bench.pieces import Pieces, maker_of
from adaptbench.bench.plan import Evaluation, Plan, make_plan
from adaptbench.bench.records import case_records
from adaptbench.bench.suite import LoadedSuite, load_suite
from adaptbench.bench.transfers import require
from adaptbench.errors import AdaptBenchError, Stopped, UncountedError
from adaptbench.experiment.ahead import Ahead, rounded
from adaptbench.experiment.engines import Made, Piece, Tally, device_of, engine_of, makers, merged
from adaptbench.experiment.environment import check_device, describe_device
from adaptbench.experiment.failures import Failures
from adaptbench.experiment.heading import Heading, now
from adaptbench.experiment.options import Asked, Options, options_of
from adaptbench.results.joined import join_crafted
from adaptbench.results.lock import DirectoryLock
from adaptbench.results.store import Run
from adaptbench.results.writer import RunWriter

_log = logging.getLogger(__name__)


def run_suite(suite: str | LoadedSuite, options: Options | None = None, /, **asked: Unpack[Asked]) -> Run:
    """Execute a suite and leave a run directory.

    Args:
        suite: a name, a path, or a loaded suite. options: how; or its fields as keywords.

    Returns:
        The finished run.

    Raises:
        AdaptBenchError: what stands in the way of all cases; nothing already computed is lost. A case that fails on
            its own is null with its reason, and stands in the manifest's ``failures``.
        LockedError: another process writes to the directory.
        Stopped: Ctrl-C; says what is kept.
    """
    options = options_of(options, asked)
    check_device(options.device)
    loaded = load_suite(suite, options.overrides) if isinstance(suite, str) else suite
    options.must_be_laid(loaded.overrides)
    return carry_out(make_plan(loaded, options), options)


def carry_out(plan: Plan, options: Options) -> Run:
    """Execute a plan and leave a run directory.

    Args:
        plan: of `make_plan`, under the same options.

    Raises:
        AdaptBenchError: as `run_suite`.
    """
    _require_counted(plan)
    place = options.place(plan.suite.name)
    with DirectoryLock(place, options.command):
        writer = RunWriter(place)
        if options.fresh:
            writer.discard_cells()
        return Runner(plan, writer, options).run()


def _require_counted(plan: Plan) -> None:
    """Strict suites refuse MACs that leave something out, before anything is spent on them."""
    for name, loaded in plan.models.items():
        if plan.suite.suite.strict and loaded.model.uncounted:
            raise UncountedError(
                f"model '{name}' runs operators without a MAC formula: {', '.join(loaded.model.uncounted)}.",
                why="It would look cheaper than it is.",
                todo="Add formulas, or set `strict: false` in the suite: the operators are then named in every record.",
            )


class Runner:
    """One execution of a plan into one directory."""

    def __init__(self, plan: Plan, writer: RunWriter, options: Options) -> None:
        self.plan, self.writer, self.options = plan, writer, options
        self.device = options.device
        self.progress = Ahead(options.progress, stages_of(plan))
        self.engine, self._pieces = engine_of(options), Pieces(plan, options)
        self._failed_ahead: dict[str, Exception] = {}
        self._elsewhere = 0
        self.failures = Failures(writer.path)
        self._kept: set[str] = set()
        self._heading = Heading(plan.suite, plan.suite.suite.title, options.limit, options)

    def run(self) -> Run:
        """Everything, in plan order; what is committed already is not done again."""
        try:
            return self._already() or self._run()
        except KeyboardInterrupt:
            done = sum(self.writer.has(e.key) for e in self.plan.evaluations)
            raise Stopped(
                f"{done} of {len(self.plan.evaluations)} evaluations are kept in {self.writer.path}"
            ) from None

    def _already(self) -> Run | None:
        """The run that lies here, if it is this very one, whole in every file, and nothing in it failed."""
        try:
            run = Run.open(self.writer.path)
        except AdaptBenchError:
            return None
        self._kept = {str(case.get("crafted")) for case in run.cases}  # stay until the new run is complete
        cells = run.manifest.get("cells")
        if run.manifest.get("content") != self._content() or run.manifest.get("failures") or not cells:
            return None
        whole = all(self._is_whole(e) for e in self.plan.evaluations) and all(
            self.writer.has(str(key)) for key in cells
        )
        return run if whole else None

    def _content(self) -> str:
        """Hash of all that the figures hang on."""
        parts = [self.plan.suite.sha256, describe_device(self.device)["fingerprint"]]
        return hashlib.sha256(json.dumps([*parts, *(e.key for e in self.plan.evaluations)]).encode()).hexdigest()

    def _run(self) -> Run:
        spec = self.plan.suite.suite
        self.writer.begin(self._manifest())
        if self.plan.logs is not None:
            self.plan.logs.keep(self.writer)
        meters, whole = open_meters(spec.measure, self.device)
        try:
            with whole.over_run(self.writer, self.plan):
                self._ahead()
                for evaluation in self.plan.evaluations:
                    self.progress.enter(evaluation.id)
                    with self.failures.instead(evaluation.id):
                        self._evaluate(evaluation)
                    self.progress.end()
                    self.progress.leave()
                self.engine.close()  # what is timed has the machine to itself
                if self._elsewhere:
                    whole.elsewhere = f"{self._elsewhere} chunks were computed on other machines, and are not in it"
                timing = Measuring(self.plan, self.writer, self.options, self.failures, self.progress).run(meters)
            described = {m.name: m.declared() for m in meters} | whole.declared(self.writer)
        finally:
            self.engine.close()
            for meter in [*meters, *whole.meters]:
                meter.close()
        self.progress.enter(SUMMARY)
        self.progress.begin(SUMMARY, len(self.plan.evaluations))
        cases = case_records(self.plan, self.writer, timing, self.device, self.progress, self.failures)
        self.progress.end()
        ran = [e for e in self.plan.evaluations if e.id not in self.failures]
        keys = [*(key for e in ran for key in self.plan.chunk_keys(e)), *timing.keys, *whole.keys]
        manifest = self._manifest(cases, described, timing.compiled)
        manifest |= {"content": self._content(), "cells": keys, "ended": now()}
        manifest["engines"] = merged(self.writer.record(e.key).get("engines", {}) for e in ran)
        manifest["stretches"] = whole.stretches(self.writer)
        self.failures.sweep()
        if self.writer.damaged:
            _log.warning("%s: damaged, and computed again: %s", self.writer.path, ", ".join(self.writer.damaged))
        return self.writer.finish(manifest, keys, cases)

    def _manifest(
        self,
        cases: Sequence[dict[str, Any]] = (),
        meters: dict[str, Any] | None = None,
        compiled: dict[str, dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        suite, plan = self.plan.suite, self.plan
        models, conditions = describe_models(plan), describe_conditions(plan)
        notes = (
            things_to_know(
                cases,
                meters=meters or {},
                models=models,
                conditions=conditions,
                skipped=plan.skipped,
                failures=self.failures.by_case.values(),
                data=plan.data_notes,
                compiled=compiled or {},
            )
            if cases
            else []
        )
        return {
            **self._heading.told(),
            "gate": suite.suite.gate,
            "seeds": suite.suite.seeds,
            "meters": meters or {},
            "models": models,
            "references": describe_references(plan),
            "conditions": conditions,
            "data": describe_data(plan),
            **({"compiled": compiled} if compiled else {}),
            "notes": notes,
            "failures": [failure.as_dict() for failure in self.failures.by_case.values()],
        }

    def _ahead(self) -> None:
        """An engine that does much at once is given all that hangs on nothing else; an error fails its case later."""
        if not self.engine.at_once:
            return
        wanted: dict[str, tuple[Piece, Evaluation]] = {}
        for evaluation in self.plan.evaluations:
            if evaluation.source is None and not self._is_whole(evaluation):
                try:
                    wanted |= {piece.key: (piece, evaluation) for piece in self._missing(evaluation)}
                except AdaptBenchError as error:  # of what is learned beforehand: it is its case's
                    self._failed_ahead[evaluation.id] = error
        if not wanted:
            return
        pieces = [piece for piece, _ in wanted.values()]
        tally, watched = Tally(sum(piece.n for piece in pieces)), self.options.progress
        left, began = len(pieces), time.monotonic()
        watched.begin(f"crafting and evaluating  {self.engine.name}", tally.total)

        def words() -> str:
            seconds = (time.monotonic() - began) * (tally.total / max(tally.done, 1) - 1)
            return f"{left} of {len(pieces)} chunks to do" + (f", about {rounded(seconds)} left" if tally.done else "")

        def told(piece: Piece, done: int, of: int) -> None:
            tally.told(piece, done, of)
            watched.advance(tally.done, words())

        for made in self.engine.each(pieces, told):
            if made.error is not None:
                self._failed_ahead.setdefault(wanted[made.piece.key][1].id, made.error)
            else:
                self._keep(made)
            tally.ended(made.piece)
            left -= 1
            watched.advance(tally.done, words())
        watched.end()

    def _evaluate(self, evaluation: Evaluation) -> None:
        if self._is_whole(evaluation):
            return
        if failed := self._failed_ahead.get(evaluation.id):
            raise failed
        verb = "evaluating" if evaluation.attack is None or evaluation.source else "crafting"
        if pieces := self._missing(evaluation):
            n = len(evaluation.split)
            self.progress.begin(f"{verb}  {evaluation.condition.id} → {evaluation.loaded.name}", n)
            tally = Tally(n, n - sum(piece.n for piece in pieces))

            def told(piece: Piece, done: int, of: int) -> None:
                tally.told(piece, done, of)
                self.progress.advance(tally.done)

            for made in self.engine.each(pieces, told):
                made.get()
                self._keep(made)
                tally.ended(made.piece)
                self.progress.advance(tally.done)
        self._join(evaluation)

    def _missing(self, evaluation: Evaluation) -> list[Piece]:
        """Its chunks that are not kept."""
        given = self._carried(evaluation.source)
        keys = [key for key in self.plan.chunk_keys(evaluation) if not self.writer.has_whole(key)]
        learned = self._learned(evaluation) if keys and given is None else None
        return self._pieces.of(evaluation, keys, given, learned)

    def _learned(self, evaluation: Evaluation) -> Learned | None:
        """What its attack learned beforehand: here, whatever engine crafts, and once a run."""
        attack, told = evaluation.attack, self.options.progress
        if attack is None or not attack.learns:
            return None
        told.begin(f"training  {evaluation.condition.id} → {evaluation.loaded.name}", 100)
        learned = learned_in(
            self.writer,
            attack,
            evaluation.model,
            self.plan.crafting,
            seed=evaluation.seed,
            device=self.device,
            told=lambda done, of: told.advance(100 * done // max(of, 1)),
        )
        told.end()
        return learned

    def _keep(self, made: Made) -> None:
        """Commit a chunk."""
        chunk = made.result
        crafted = self.writer.commit_crafted(chunk.crafted) if chunk.crafted else None
        record = {"crafted": crafted, "seconds": chunk.seconds, "details": chunk.details, "n": made.piece.n}
        self.writer.commit(made.piece.key, record | {"by": made.by}, samples=chunk.samples)
        self._elsewhere += made.by.get("fingerprint") != device_of(self.device)["fingerprint"]

    def _carried(self, source: Evaluation | None) -> Tensor | None:
        """(N, C, H, W) uint8, as they were crafted on another model; None where an evaluation has inputs of its own."""
        if source is None:
            return None
        require(source, source.id in self.failures)
        return torch.from_numpy(self.writer.crafted(str(self.writer.record(source.key)["crafted"]))["x_adv"].copy())

    def _is_whole(self, evaluation: Evaluation) -> bool:
        """True where an evaluation was ended; where some of it is damaged since, all of it is forgotten."""
        if not self.writer.has(evaluation.key):
            return False
        keys = self.plan.chunk_keys(evaluation)
        parts = [self.writer.has(key) for key in keys]  # each is looked at, so that each that is damaged is named
        if self.writer.has_whole(evaluation.key) and all(parts):
            return True
        self.writer.discard([evaluation.key, *keys])  # the chunks' own pictures are gone: they went into one file
        return False

    def _join(self, evaluation: Evaluation) -> None:
        """One file of crafted inputs for the evaluation, and one cell that says that it is whole."""
        keys = self.plan.chunk_keys(evaluation)
        parts = [self.writer.record(key) for key in keys]
        record: dict[str, Any] = {
            "crafted": None,
            "craft_s": None,
            "engines": makers(zip(keys, map(maker_of, parts), strict=True)),
            "details": with_doubts(join_details([p["details"] for p in parts], [p["n"] for p in parts])),
        }
        if evaluation.source is not None:
            there = self.writer.record(evaluation.source.key)
            record |= {name: there[name] for name in ("crafted", "inputs_sha256")}
            self._obsolete = []
        elif evaluation.attack is None:
            record["inputs_sha256"] = hash_inputs(evaluation.split.x)
        else:
            files = [str(p["crafted"]) for p in parts]
            record["crafted"], record["inputs_sha256"] = join_crafted(self.writer.path, files)
            record["craft_s"] = sum(p["seconds"] for p in parts)
            self._obsolete = [f for f in files if f != record["crafted"] and f not in self._kept]
        self.writer.commit(evaluation.key, record)
        if evaluation.attack is not None:
            for file in self._obsolete:
                (self.writer.path / "crafted" / file).unlink(missing_ok=True)
