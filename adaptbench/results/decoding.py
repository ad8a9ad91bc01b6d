"""What a run of kind decoding found, read for pages, documents and the gate. No torch.

Prompt and answer are apart everywhere (``prefill_…``), so are depth and length under attack: no figure adds them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptbench.errors import RunError
from adaptbench.results import tables
from adaptbench.results.files import read_json
from adaptbench.results.record_runs import RecordRun, keep_record
from adaptbench.results.schema import Field
from adaptbench.results.serving import first_fault
from adaptbench.results.store import DECODING, STEPS, place_of
from adaptbench.results.study_schema import TOLD

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
DECODER, DEPTH, LENGTH = "decoder", "depth attack", "length attack"
KINDS = (DECODER, DEPTH, LENGTH)
"""Kinds of cases, as a gate may name them."""
FIGURES_OF: dict[str, tuple[str, ...]] = {
    DECODER: (
        "macs_per_token", "prefill_macs", "layers_per_token", "saving_macs", "acceptance", "identical",
        "bits_per_character", "accuracy", "latency_s_per_token", "energy_j_per_token",
    ),
    DEPTH: ("increase", "saving_taken_back"),
    LENGTH: ("increase",),
}  # fmt: skip
"""Metrics that a gate can watch, by kind of case."""
_OF_THE_RUN = ("id", "command", "device", "versions", "git", "data", "meters", "gate", "notes", "started", "ended")


def _must(form: str, meaning: str, unit: str = "", of: str = "") -> Field:
    return Field(form, unit, meaning, required=True, of=of)


def _figure(unit: str, meaning: str, *, estimated: bool = True) -> Field:
    """Null with its reason; with a 95 % interval over prompts, or over blocks where a meter read it."""
    return Field("number", unit, meaning, figure=True, estimated=estimated)


FOUND: dict[str, Field] = {
    "schema": _must("count", "raised with every change that an older reader would misread"),
    "kind": _must("text", "decoding"),
    "model": _must("map", "layers, width, context, parameters; MACs of its parts (place, pair, fill, head); its card"),
    "prompts": _must("map", "count, characters given, characters made at most, stop"),
    "prefill_s_per_token": _figure("s", "of a prompt's character, measured; the same pass for every decoder"),
    "decoders": _must("list", "in the file's order, greedy first", of="map"),
    "exits": _must("list", "the model as if every character left at one exit, on given text", of="map"),
    "sequences": _must("list", "what each decoder made of each prompt", of="map"),
    "attacks": _must("list", "of prompts, by objective", of="map"),
    "failed": _must("map", "what could not be done, and why", of="text"),
}
DECODER_FIELDS: dict[str, Field] = {
    "case": _must("text", "id of the decoder"),
    "decoder": _must("text", "greedy | calm | self-speculative"),
    "settings": _must("map", "its own"),
    "n": _must("count", "prompts"),
    "new_tokens": _must("count", "made of all prompts, the stops included", "characters"),
    "steps": _must("count", "passes that were waited for"),
    "prefill_macs": _must("number", "of a prompt but its last character, mean", "MACs"),
    "macs_per_token": _figure("MACs", "executed for a character made: drafts, heads, missing keys and values included"),
    "layers_per_token": _figure("layers", "that a character went through, mean; of drafts that were dropped, too"),
    "saving_macs": _figure("1", "1 − macs_per_token over that of greedy, of the same prompts"),
    "exits_taken": _must("list", "steps that ended at each exit", of="count"),
    "drafted": _must("count", "guesses", "characters"),
    "accepted": _must("count", "that the check agreed with", "characters"),
    "acceptance": _figure("1", "accepted over drafted", estimated=False),
    "tokens_per_step": _must("number", "characters that a step brings", "characters"),
    "identical": _must("number", "share of the prompts whose answer is the greedy one", "1"),
    "same_prefix": _must("number", "share of the greedy answer up to the first other character, mean", "1"),
    "ties": _must("count", "steps in which rounding may turn an answer or an exit"),
    "bits_per_character": _figure("bits", "of given text, true characters before it"),
    "accuracy": _figure("1", "of given text: next characters that are likeliest"),
    "quality_macs_per_token": _figure("MACs", "executed for a character of given text"),
    "latency_s_per_token": _figure("s", "of a character made, without the prefill, measured in windows"),
    "speedup": _figure("1", "seconds of greedy over these, of the same blocks"),
    "energy_j_per_token": _figure("J", "of a character made, measured by a sensor"),
    "modelled_energy_j_per_token": _figure("J", "the same, modelled from MACs: no measurement"),
}
EXIT: dict[str, Field] = {
    "exit": _must("count", "layer, from 1"),
    "bits_per_character": _must("number", "of given text", "bits"),
    "accuracy": _must("number", "next characters that are likeliest", "1"),
    "macs_per_token": _must("number", "layers up to it, and its logits", "MACs"),
}
SEQUENCE: dict[str, Field] = {
    "case": _must("text", "id of the decoder"),
    "prompt_id": _must("count", "of the data set"),
    "prompt": _must("text", "as given"),
    "text": _must("text", "as made, the stop included"),
    "prefill_tokens": _must("count", "characters of the prompt but the last", "characters"),
    "prefill_macs": _must("number", "executed for them", "MACs"),
    "new_tokens": _must("count", "made", "characters"),
    "macs": _must("number", "executed for them", "MACs"),
    "stopped": _must("flag", "the stop came, not the limit"),
    "steps": _must("count", "passes that were waited for"),
    "drafted": _must("count", "guesses", "characters"),
    "accepted": _must("count", "that stood", "characters"),
    "ties": _must("count", "steps in which rounding may turn an answer or an exit"),
    "same_prefix": _must("count", "characters up to the first that is not greedy's", "characters"),
}
ATTACK: dict[str, Field] = {
    "case": _must("text", "decoder/objective"),
    "objective": _must("text", "depth: MACs a character at a fixed number | length: characters up to the stop"),
    "decoder": _must("text", "id of the decoder that is attacked; a length is greedy's"),
    "edits": _must("count", "characters of a prompt that may be another one", "characters"),
    "edits_mean": _must("number", "of the attacked prompts", "characters"),
    "queries": _must("count", "decodings a prompt, of the climb and of the control alike"),
    "n": _must("count", "prompts"),
    "clean": _must("number", "the objective, mean over prompts: MACs (depth), characters (length)"),
    "attacked": _must("number", "the same of the dearest edit that the climb met"),
    "random": _must("number", "the same of one random draw of as many edits"),
    "random_best": _must("number", "the same of the dearest of as many draws as the climb had queries"),
    "increase": _figure("1", "attacked over clean − 1"),
    "increase_random": _figure("1", "random over clean − 1"),
    "increase_random_best": _figure("1", "random_best over clean − 1"),
    "saving_taken_back": _figure("1", "depth: (attacked − clean) over (greedy − clean), of the same prompts"),
    "tokens_clean": _must("number", "characters made, mean", "characters"),
    "tokens_attacked": _must("number", "characters made, mean", "characters"),
    "layers_clean": _must("number", "a character, mean", "layers"),
    "layers_attacked": _must("number", "a character, mean", "layers"),
    "macs_per_token_clean": _must("number", "with attention to what was made before", "MACs"),
    "macs_per_token_attacked": _must("number", "with attention to what was made before", "MACs"),
    "at_limit": _must("number", "share of the attacked answers that the limit ended", "1"),
    "prompts": _must(
        "list", "each: id, clean and attacked prompt, the objective of both and of the controls", of="map"
    ),
}
PARTS = {
    "the run": FOUND,
    "a decoder": DECODER_FIELDS,
    "an exit": EXIT,
    "a sequence": SEQUENCE,
    "an attack": ATTACK,
}


class DecodingRun(RecordRun):
    """A complete directory. record: ``decoding.json`` and what the manifest says of the run, flat."""

    __slots__ = ()
    kind, file, of_the_run = "decoding", DECODING, _OF_THE_RUN

    @classmethod
    def checked(cls, document: Any, place: Path, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A record with every field that readers lean on."""
        return checked(document, place, told)

    def steps(self) -> pd.DataFrame:
        """Every step of every sequence; columns of `tables.STEP_COLUMNS`."""
        return tables.read(place_of(self.path, STEPS), "steps")


def read_decoding(path: Path) -> dict[str, Any]:
    """A record, from its directory or from the file that was kept of it.

    Raises:
        RunError: missing, damaged, or of another version.
    """
    if path.is_dir():
        return DecodingRun.open(path).record
    if not path.is_file():
        raise RunError(f"there is no {path}.", todo="Run one: adaptbench run decoding.")
    return checked(read_json(path), path)


def checked(document: Any, place: Path, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A record with every field that readers lean on.

    Args:
        document: parsed JSON. place: where it stood. told: what the manifest beside it says.

    Raises:
        RunError: it is none, of another version, or damaged.
    """
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("kind") != "decoding":
        raise RunError(
            f"{place} is no run of kind decoding of schema {SCHEMA}.",
            todo="Run the suite again with this version of adaptbench.",
        )
    record = {**(told or {}), **document}
    if wrong := first_fault(_parts(record)):
        raise RunError(f"{place} is damaged: {wrong}.", todo="Run the same command again.")
    return record


def _parts(record: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Field], str]]:
    yield record, TOLD | FOUND, "the run"
    of_lists = {"decoders": DECODER_FIELDS, "exits": EXIT, "sequences": SEQUENCE, "attacks": ATTACK}
    for name, fields in of_lists.items():
        for row in record[name]:
            yield row, fields, f"a row of {name}"


def keep_decoding(run: Path, out: Path | None = None) -> Path:
    """Copy a run's record to where published summaries stand (default ``reports/published/NAME.json``).

    Raises:
        RunError: it holds none. OutputError: the place cannot be written.
    """
    return keep_record(read_decoding(run), out, 6)


def incomplete(record: Mapping[str, Any]) -> list[str]:
    """What was asked for and could not be done, one sentence each."""
    return [f"{what}: {why}" for what, why in record["failed"].items()]
