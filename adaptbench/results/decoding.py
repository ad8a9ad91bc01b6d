"""What a run of kind decoding found, read for pages, documents and the gate. No torch.

Prompt and answer are apart everywhere (``prefill_…``), so are depth and length under attack: no figure adds them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adaptbench.results import tables
from adaptbench.results.record_runs import TOLD, Part, RecordRun, figure, must
from adaptbench.results.schema import Field
from adaptbench.results.store import DECODING, STEPS, place_of

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


FOUND: dict[str, Field] = {
    "schema": must("count", "raised with every change that an older reader would misread"),
    "kind": must("text", "decoding"),
    "model": must("map", "layers, width, context, parameters; MACs of its parts (place, pair, fill, head); its card"),
    "prompts": must("map", "count, characters given, characters made at most, stop"),
    "prefill_s_per_token": figure("s", "of a prompt's character, measured; the same pass for every decoder"),
    "decoders": must("list", "in the file's order, greedy first", of="map"),
    "exits": must("list", "the model as if every character left at one exit, on given text", of="map"),
    "sequences": must("list", "what each decoder made of each prompt", of="map"),
    "attacks": must("list", "of prompts, by objective", of="map"),
    "failed": must("map", "what could not be done, and why", of="text"),
}
DECODER_FIELDS: dict[str, Field] = {
    "case": must("text", "id of the decoder"),
    "decoder": must("text", "greedy | calm | self-speculative"),
    "settings": must("map", "its own"),
    "n": must("count", "prompts"),
    "new_tokens": must("count", "made of all prompts, the stops included", "characters"),
    "steps": must("count", "passes that were waited for"),
    "prefill_macs": must("number", "of a prompt but its last character, mean", "MACs"),
    "macs_per_token": figure("MACs", "executed for a character made: drafts, heads, missing keys and values included"),
    "layers_per_token": figure("layers", "that a character went through, mean; of drafts that were dropped, too"),
    "saving_macs": figure("1", "1 − macs_per_token over that of greedy, of the same prompts"),
    "exits_taken": must("list", "steps that ended at each exit", of="count"),
    "drafted": must("count", "guesses", "characters"),
    "accepted": must("count", "that the check agreed with", "characters"),
    "acceptance": figure("1", "accepted over drafted", estimated=False),
    "tokens_per_step": must("number", "characters that a step brings", "characters"),
    "identical": must("number", "share of the prompts whose answer is the greedy one", "1"),
    "same_prefix": must("number", "share of the greedy answer up to the first other character, mean", "1"),
    "ties": must("count", "steps in which rounding may turn an answer or an exit"),
    "bits_per_character": figure("bits", "of given text, true characters before it"),
    "accuracy": figure("1", "of given text: next characters that are likeliest"),
    "quality_macs_per_token": figure("MACs", "executed for a character of given text"),
    "latency_s_per_token": figure("s", "of a character made, without the prefill, measured in windows"),
    "speedup": figure("1", "seconds of greedy over these, of the same blocks"),
    "energy_j_per_token": figure("J", "of a character made, measured by a sensor"),
    "modelled_energy_j_per_token": figure("J", "the same, modelled from MACs: no measurement"),
}
EXIT: dict[str, Field] = {
    "exit": must("count", "layer, from 1"),
    "bits_per_character": must("number", "of given text", "bits"),
    "accuracy": must("number", "next characters that are likeliest", "1"),
    "macs_per_token": must("number", "layers up to it, and its logits", "MACs"),
}
SEQUENCE: dict[str, Field] = {
    "case": must("text", "id of the decoder"),
    "prompt_id": must("count", "of the data set"),
    "prompt": must("text", "as given"),
    "text": must("text", "as made, the stop included"),
    "prefill_tokens": must("count", "characters of the prompt but the last", "characters"),
    "prefill_macs": must("number", "executed for them", "MACs"),
    "new_tokens": must("count", "made", "characters"),
    "macs": must("number", "executed for them", "MACs"),
    "stopped": must("flag", "the stop came, not the limit"),
    "steps": must("count", "passes that were waited for"),
    "drafted": must("count", "guesses", "characters"),
    "accepted": must("count", "that stood", "characters"),
    "ties": must("count", "steps in which rounding may turn an answer or an exit"),
    "same_prefix": must("count", "characters up to the first that is not greedy's", "characters"),
}
ATTACK: dict[str, Field] = {
    "case": must("text", "decoder/objective"),
    "objective": must("text", "depth: MACs a character at a fixed number | length: characters up to the stop"),
    "decoder": must("text", "id of the decoder that is attacked; a length is greedy's"),
    "edits": must("count", "characters of a prompt that may be another one", "characters"),
    "edits_mean": must("number", "of the attacked prompts", "characters"),
    "queries": must("count", "decodings a prompt, of the climb and of the control alike"),
    "n": must("count", "prompts"),
    "clean": must("number", "the objective, mean over prompts: MACs (depth), characters (length)"),
    "attacked": must("number", "the same of the dearest edit that the climb met"),
    "random": must("number", "the same of one random draw of as many edits"),
    "random_best": must("number", "the same of the dearest of as many draws as the climb had queries"),
    "increase": figure("1", "attacked over clean − 1"),
    "increase_random": figure("1", "random over clean − 1"),
    "increase_random_best": figure("1", "random_best over clean − 1"),
    "saving_taken_back": figure("1", "depth: (attacked − clean) over (greedy − clean), of the same prompts"),
    "tokens_clean": must("number", "characters made, mean", "characters"),
    "tokens_attacked": must("number", "characters made, mean", "characters"),
    "layers_clean": must("number", "a character, mean", "layers"),
    "layers_attacked": must("number", "a character, mean", "layers"),
    "macs_per_token_clean": must("number", "with attention to what was made before", "MACs"),
    "macs_per_token_attacked": must("number", "with attention to what was made before", "MACs"),
    "at_limit": must("number", "share of the attacked answers that the limit ended", "1"),
    "prompts": must("list", "each: id, clean and attacked prompt, the objective of both and of the controls", of="map"),
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
    kind, file, of_the_run, schema = "decoding", DECODING, _OF_THE_RUN, SCHEMA

    @classmethod
    def parts(cls, record: Mapping[str, Any]) -> Iterator[Part]:
        """Every part of a record; one is whole when those in it are asked for."""
        yield record, TOLD | FOUND, "the run"
        of_lists = {"decoders": DECODER_FIELDS, "exits": EXIT, "sequences": SEQUENCE, "attacks": ATTACK}
        for name, fields in of_lists.items():
            for row in record[name]:
                yield row, fields, f"a row of {name}"

    def steps(self) -> pd.DataFrame:
        """Every step of every sequence; columns of `tables.STEP_COLUMNS`."""
        return tables.read(place_of(self.path, STEPS), "steps")
