"""Carries a file of kind decoding out: answers, given text, windows, attacks; every piece is a cell."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from adaptbench.attacks.identity import own_code
from adaptbench.bench.suite import Measure as Meters
from adaptbench.data import load_data
from adaptbench.decoding.attacks import OBJECTIVES, Search, attack
from adaptbench.decoding.characters import END, encode
from adaptbench.decoding.costs import StepCosts, count_costs
from adaptbench.decoding.decoders import Greedy
from adaptbench.decoding.figures import attack_row, decoder_row, put, put_measured, put_quality, sequence_row
from adaptbench.decoding.generation import Made, generate
from adaptbench.decoding.loading import load_character_lm
from adaptbench.decoding.network import CharacterLm
from adaptbench.decoding.quality import at_each_exit, predicted
from adaptbench.decoding.schema import Way, stop_id
from adaptbench.decoding.spec import LoadedDecoding, load_decoding
from adaptbench.decoding.timed import PREFILL, arms_of
from adaptbench.decoding.training import texts_of
from adaptbench.errors import SuiteError, UsageError
from adaptbench.experiment.engines import Local, engine_of
from adaptbench.experiment.environment import check_device, describe_device
from adaptbench.experiment.keys import digest_of
from adaptbench.experiment.measuring import Sessions, windows_of
from adaptbench.experiment.meters import make_meter
from adaptbench.experiment.options import Asked, Options, options_of
from adaptbench.experiment.recording import RecordRunner, carry_out, code_of
from adaptbench.meters.clock import synchroniser
from adaptbench.results import timing
from adaptbench.results.decoding import SCHEMA, DecodingRun
from adaptbench.results.writer import RunWriter


def run_decoding(
    decoding: str | LoadedDecoding, options: Options | None = None, /, **asked: Unpack[Asked]
) -> DecodingRun:
    """Execute a file of kind decoding and leave a directory.

    Args:
        decoding: a name, a path, or one that is loaded. options: how; or its fields as keywords.

    Returns:
        The finished run. A finished one that is run again changes nothing, a killed one goes on.

    Raises:
        AdaptBenchError: what stands in the way of the whole run; whatever was computed is kept.
        LockedError: another process writes to the directory.
        Stopped: Ctrl-C; says what is kept.
    """
    options = options_of(options, asked)
    check_device(options.device)
    loaded = load_decoding(decoding, options.overrides) if isinstance(decoding, str) else decoding
    options.must_be_laid(loaded.overrides)
    plan = prepared(loaded, options)
    return carry_out(loaded, options, lambda writer: Runner(plan, writer, options))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file asks for, in hand.

    Args:
        net, costs, card: the model. prompts: ids of characters, by number of the text. texts: given text, ids.
        sha256: of all characters. notes: of the data. limit: prompts and texts, at most.
    """

    loaded: LoadedDecoding
    net: CharacterLm
    costs: StepCosts
    card: dict[str, Any]
    prompts: dict[int, list[int]]
    texts: list[list[int]]
    sha256: str
    notes: tuple[str, ...]
    limit: int | None


def prepared(loaded: LoadedDecoding, options: Options) -> Plan:
    """Load the model and cut prompts and texts.

    Raises:
        SuiteError: decoders or lengths that the model cannot have, or too few test texts that are long enough.
        UsageError: an engine other than this process.
        AdaptBenchError: no weights, no data.
    """
    if engine_of(options).name != Local.name:
        raise UsageError(
            f"the engine '{options.engine}' was asked for, and a suite of kind decoding runs here.",
            why="A character waits for the one before it.",
            todo="Leave --engine out.",
        )
    spec, source = loaded.decoding, loaded.located
    data = load_data(spec.data, root=options.data_root, download=options.download)
    net, card = load_character_lm(spec.weights or data.name, zoo=options.zoo, device=options.device)
    for i, way in enumerate(spec.decoders):
        with source.placed(("decoders", i)):
            way.decoder.check(net.size.layers)
    longest = 1 + spec.prompts.chars + max(spec.prompts.new_chars, spec.quality.chars if spec.quality else 0)
    longest = max(longest, 1 + spec.prompts.chars + (spec.attacks.new_chars if spec.attacks else 0))
    if longest - 1 > net.size.context:
        raise SuiteError(
            f"{source.where(('prompts',))}: prompt and answer come to {longest - 1} characters.",
            why=f"The model was trained on rows of {net.size.context}.",
            todo="Give fewer chars, or fewer new_chars.",
        )
    limit = options.at_most(spec.limit)
    texts = texts_of(data, "test")
    needed = spec.prompts.chars + (spec.quality.chars if spec.quality else 0)
    able = [i for i, text in enumerate(texts) if len(text) >= needed]
    count = min(spec.prompts.count, limit or spec.prompts.count)
    more = min(spec.quality.texts, limit or spec.quality.texts) if spec.quality else 0
    if len(able) < count + more:
        raise SuiteError(
            f"{source.where(('prompts',))}: {len(able)} test texts of '{data.name}' have {needed} characters, and "
            f"{count + more} are asked for.",
            todo="Ask for fewer prompts or texts, or shorter ones.",
        )
    prompts = {i: [END, *encode(texts[i][: spec.prompts.chars])] for i in able[:count]}
    given = [[END, *encode(texts[i][:needed])] for i in able[count : count + more]]
    digest = hashlib.sha256(repr([prompts, given]).encode()).hexdigest()
    return Plan(loaded, net, count_costs(net), card, prompts, given, digest, tuple(data.notes), limit)


class Runner(RecordRunner[DecodingRun]):
    """One execution of a plan into one directory."""

    opens = DecodingRun

    def __init__(self, plan: Plan, writer: RunWriter, options: Options) -> None:
        self.plan, self.spec = plan, plan.loaded.decoding
        device = describe_device(options.device)["fingerprint"]
        key = digest_of([plan.card["sha256"], plan.sha256, device, own_code(), code_of(Path(__file__).parent)])
        super().__init__(plan.loaded, self.spec.title, plan.limit, key, writer, options)
        self._meters: dict[str, Any] = {}

    def _run(self) -> DecodingRun:
        self._begin()
        net, spec = self.plan.net, self.spec
        rows: dict[str, dict[str, Any]] = {}
        sequences: list[dict[str, Any]] = []
        greedy: list[Made] = []
        for way in spec.decoders:
            with self.failures.instead(way.id):
                made = self._answers(way)
                greedy = greedy or made
                rows[way.id] = decoder_row(way, made, greedy, net.size.layers)
                ids = list(self.plan.prompts)
                sequences += [sequence_row(way, i, *pair) for i, *pair in zip(ids, made, greedy, strict=True)]
                put_quality(rows[way.id], *self._quality(way))
            if way is spec.decoders[0] and way.id in self.failures:
                raise SuiteError(
                    f"greedy decoding failed: {self.failures.by_case[way.id].reason}",
                    todo="Mend what is named; whatever was computed is kept.",
                )
        windows, sessions, why = self._timed(rows)
        energy = [name for name, told in self._meters.items() if told.get("quantity") == "energy"]
        for row in rows.values():
            put_measured(row, windows, spec.labels[0], energy, why)
        figures: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": "decoding",
            "model": self._model(),
            "prompts": spec.prompts.model_dump(),
            "decoders": list(rows.values()),
            "exits": self._cell(["exits"], "reading given text", self._exits) if self.plan.texts else [],
            "sequences": sequences,
            "attacks": self._attacks(),
            "failed": {failure.case: failure.reason for failure in self.failures.by_case.values()},
        }
        prefill = timing.blocks(windows, PREFILL, timing.CLOCK) if len(windows) else None
        put(figures, "prefill_s_per_token", None if prefill is None else timing.per_sample(prefill), why or "no window")
        return self._finish([*self._cells, *sessions], [*self._cells, *sessions], figures)

    # ------------------------------------------------------------------ pieces

    def _answers(self, way: Way) -> list[Made]:
        """Of every prompt; the steps' rows are a cell, what was made is made again from nothing but the seed."""
        spec, device = self.spec.prompts, self.options.device
        progress = self.options.progress
        progress.begin(f"decoding  {way.id}", len(self.plan.prompts))
        made = []
        for i, prompt in enumerate(self.plan.prompts.values()):
            made.append(
                generate(
                    self.plan.net,
                    self.plan.costs,
                    way.decoder,
                    prompt,
                    spec.new_chars,
                    stop=spec.stop_id,
                    clock=time.perf_counter,
                    synchronise=synchroniser(device),
                )
            )
            progress.advance(i + 1)
        progress.end()
        key = digest_of([self._key, "steps", way.id, way.settings, spec.model_dump()])[:32]
        if not self.writer.has(key):
            told = [row for i, one in zip(self.plan.prompts, made, strict=True) for row in one.rows(way.id, i)]
            self.writer.commit(key, {"decoder": way.id}, steps=pd.DataFrame(told))
        self._cells.append(key)
        return made

    def _quality(self, way: Way) -> tuple[Any, str]:
        if not self.plan.texts:
            return None, "no given text was asked for"
        if way.kind == "self-speculative":
            way = self.spec.decoders[0]  # its answers are the greedy ones, and so is what it says of given text
        content = ["quality", way.kind, way.settings, self.spec.prompts.chars]
        return self._cell(content, f"reading given text with {way.id}", partial(self._read, way)), ""

    def _read(self, way: Way) -> list[Any]:
        given = 1 + self.spec.prompts.chars
        return [predicted(self.plan.net, self.plan.costs, way.decoder, text, given) for text in self.plan.texts]

    def _exits(self) -> list[dict[str, Any]]:
        return at_each_exit(self.plan.net, self.plan.costs, self.plan.texts, 1 + self.spec.prompts.chars)

    def _timed(self, rows: dict[str, Any]) -> tuple[pd.DataFrame, list[str], str]:
        """Windows, their cells, and why there are none."""
        measure = self.spec.measure
        if measure is None:
            return pd.DataFrame(), [], "nothing was timed: the file has no 'measure'"
        ways = [way for way in self.spec.decoders if way.id in rows]
        prompts = list(self.plan.prompts.values())[: measure.samples]
        with ExitStack() as stack:
            meters = [
                stack.enter_context(make_meter(name, Meters(meters=[name])).on(self.options.device))
                for name in measure.meters
            ]
            sessions = Sessions(self.writer, measure, self.options.device, meters, self.options.progress, self.failures)
            arms = arms_of(self.plan.net, self.plan.costs, ways, prompts, self.spec.prompts)
            done = sessions.run(1, arms, dict.fromkeys(arms, self._key))
            self._meters = {meter.name: meter.declared() for meter in meters}
        keys = [done] if done else []
        return windows_of(self.writer, keys), keys, "" if keys else "nothing could be timed"

    def _attacks(self) -> list[dict[str, Any]]:
        spec = self.spec.attacks
        found: list[dict[str, Any]] = []
        for objective in OBJECTIVES if spec is not None else ():
            assert spec is not None
            if objective not in spec.objectives:
                continue
            label = spec.decoder if objective == "depth" else self.spec.labels[0]
            with self.failures.instead(f"{label}/{objective}"):
                content = ["attack", objective, spec.model_dump(), self.spec.prompts.model_dump(), self.spec.seed]
                way = next(way for way in self.spec.decoders if way.id == label)
                words = f"attacking {objective} of {label}"
                found.append(self._cell([*content, way.settings], words, partial(self._attack, objective, way)))
        return found

    def _attack(self, objective: Any, way: Way) -> dict[str, Any]:
        spec, prompts = self.spec.attacks, self.spec.prompts
        assert spec is not None
        chosen = dict(list(self.plan.prompts.items())[: spec.prompts])
        limit = spec.new_chars if objective == "depth" else prompts.new_chars
        search = Search(spec.edits, spec.queries, self.spec.seed)
        net, costs, decoder = self.plan.net, self.plan.costs, way.decoder
        stop = prompts.stop_id if spec.stop is None else stop_id(spec.stop)
        found = []
        for i, ids in chosen.items():
            found.append(attack(net, costs, objective, decoder, ids, limit, stop, search, i))
        whole = [generate(net, costs, Greedy(), ids, limit) for ids in chosen.values()] if objective == "depth" else []
        return attack_row(objective, spec, way, net.size.layers, found, whole, list(chosen))

    def _model(self) -> dict[str, Any]:
        net, costs, card = self.plan.net, self.plan.costs, self.plan.card
        return {
            "layers": net.size.layers,
            "width": net.size.width,
            "context": net.size.context,
            "vocabulary": net.size.vocabulary,
            "parameters": sum(p.numel() for p in net.parameters()),
            "dtype": str(net.entry.weight.dtype).removeprefix("torch."),
            "macs": {name: getattr(costs, name) for name in ("place", "pair", "fill", "head")},
            "uncounted": list(costs.uncounted),
            "card": {name: card.get(name) for name in ("part", "data", "sha256", "command", "characters")},
        }

    def _manifest(self) -> dict[str, Any]:
        told = {"n": len(self.plan.prompts), "split": "test", "sha256": self.plan.sha256}
        return {
            "data": {self.spec.data: told},
            "meters": self._meters,
            "gate": self.spec.gate,
            "notes": list(self.plan.notes),
        }
