"""A file of kind decoding: read from YAML and checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptbench.bench.suite import Measure as Meters
from adaptbench.decoding.characters import VOCABULARY
from adaptbench.decoding.schema import Decoding
from adaptbench.errors import SuiteError
from adaptbench.experiment.meters import make_meter
from adaptbench.experiment.source import Loaded, Source
from adaptbench.experiment.watched import as_written, check_rules
from adaptbench.registry import DATA, METERS, did_you_mean
from adaptbench.results.decoding import FIGURES_OF, KINDS
from adaptbench.results.gate_rules import OF_DECODING, parse_gate


@dataclass(frozen=True, slots=True)
class LoadedDecoding(Loaded):
    """A checked file. decoding: its contents."""

    kind = "decoding"

    decoding: Decoding


def load_decoding(name: str, overrides: Sequence[str] = ()) -> LoadedDecoding:
    """Read, override and check a file.

    Args:
        name: of a suite, or a path. overrides: ``key=value``, keys dotted, values YAML.

    Raises:
        SuiteError: file, line, field; what is wrong and what would be right.
        UsageError: an override that is no key=value.
    """
    source = Source.read(name, overrides, LoadedDecoding.kind)
    decoding, digest = source.contents(Decoding)
    loaded = LoadedDecoding(source.name, source.located.text, source.overrides, digest, source, decoding)
    _check(loaded)
    return loaded


def _check(loaded: LoadedDecoding) -> None:
    spec, source = loaded.decoding, loaded.located
    with source.placed(("data",)):
        DATA.entry(spec.data.partition(":")[0])
    for i, way in enumerate(spec.decoders):
        with source.placed(("decoders", i)):
            _ = way.decoder
        if way.id in spec.labels[:i]:
            raise SuiteError(
                f"{source.where(('decoders', i))}: '{way.id}' stands twice.",
                todo="Keep one of them, or give one an id of its own.",
            )
    if spec.decoders[0].kind != "greedy":
        raise SuiteError(
            f"{source.where(('decoders', 0))}: the first decoder is {spec.decoders[0].kind}.",
            why="The others' savings and answers are told against the greedy one's.",
            todo="Put greedy first.",
        )
    stops = {"prompts": spec.prompts.stop, "attacks": spec.attacks.stop if spec.attacks else None}
    for part, stop in stops.items():
        if stop not in (None, "end") and stop not in VOCABULARY[2:]:
            raise SuiteError(
                f"{source.where((part, 'stop'))}: {stop!r} is no printable character.",
                todo="Give one such as '.', end, or nothing.",
            )
    if spec.attacks is not None and spec.attacks.decoder not in spec.labels:
        raise SuiteError(
            f"{source.where(('attacks', 'decoder'))}: no decoder is called '{spec.attacks.decoder}'.",
            todo=f"{did_you_mean(spec.attacks.decoder, spec.labels)}Decoders: {', '.join(spec.labels)}.",
        )
    if spec.attacks is not None and "length" in spec.attacks.objectives and set(stops.values()) == {None}:
        raise SuiteError(
            f"{source.where(('attacks',))}: a length is attacked, and nothing ends an answer.",
            why="Every answer has the length of the limit.",
            todo="Give prompts.stop, or objectives: [depth].",
        )
    for i, meter in enumerate(spec.measure.meters if spec.measure else []):
        with source.placed(("measure", "meters", i)):
            METERS.entry(meter)
            if make_meter(meter, Meters(meters=[meter])).whole_run:
                raise SuiteError(f"'{meter}' reads whole runs, not windows.", todo="Leave it out.")
    with source.placed(("gate",)):
        parse_gate(spec.gate, OF_DECODING)
    cases = list(cases_of(spec))
    having = {case["case"]: FIGURES_OF[case["kind"]] for case in cases}
    names = [*KINDS, *spec.labels, *as_written(loaded, Decoding, lambda spec: spec.labels)]
    check_rules(loaded, spec.gate, cases, names, OF_DECODING, having)


def cases_of(spec: Decoding) -> list[dict[str, str]]:
    """Every case of a file, where nothing fails."""
    found = [{"case": way.id, "kind": "decoder", "model": way.id, "condition": way.kind} for way in spec.decoders]
    if spec.attacks is not None:
        for one in spec.attacks.objectives:
            label = spec.attacks.decoder if one == "depth" else spec.labels[0]
            found.append({"case": f"{label}/{one}", "kind": f"{one} attack", "model": label, "condition": one})
    return found
