"""A file of kind serving: read from YAML and checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptbench.bench.suite import Measure as Meters
from adaptbench.bench.suite import checked as checked_suite
from adaptbench.errors import SuiteError
from adaptbench.experiment.meters import make_meter
from adaptbench.experiment.source import Loaded, Source
from adaptbench.located_yaml import Place, parse
from adaptbench.registry import DATA, METERS, did_you_mean
from adaptbench.results.gate_rules import OF_SERVING, parse_gate
from adaptbench.serving.arrivals import recorded
from adaptbench.serving.schema import Hostile, Serving

CRAFTED_AS = "hostile"
"""What the condition is called that is crafted for a suite."""


@dataclass(frozen=True, slots=True)
class LoadedServing(Loaded):
    """A checked file. serving: its contents."""

    kind = "serving"

    serving: Serving

    def beside(self, file: str) -> Path:
        """A file that it names: from its own folder, if it lies there, else from here."""
        folder = self.located.folder
        own = None if folder is None else folder / file
        return own if own is not None and own.is_file() else Path(file)


def load_serving(name: str, overrides: Sequence[str] = ()) -> LoadedServing:
    """Read, override and check a file.

    Args:
        name: of a suite, or a path. overrides: ``key=value``, keys dotted, values YAML.

    Raises:
        SuiteError: file, line, field; what is wrong and what would be right.
        UsageError: an override that is no key=value.
    """
    source = Source.read(name, overrides, LoadedServing.kind)
    serving, digest = source.contents(Serving)
    loaded = LoadedServing(source.name, source.located.text, source.overrides, digest, source, serving)
    _check(loaded)
    return loaded


def _check(loaded: LoadedServing) -> None:
    spec, source = loaded.serving, loaded.located
    with source.placed(("data",)):
        DATA.entry(spec.data.partition(":")[0])
    for i, entry in enumerate(spec.models):
        with source.placed(("models", i)):
            entry.check()
    for i, meter in enumerate(spec.measure.meters):
        with source.placed(("measure", "meters", i)):
            METERS.entry(meter)
            if make_meter(meter, Meters(meters=[meter])).whole_run:
                raise SuiteError(f"'{meter}' reads whole runs, not the windows of a node.", todo="Leave it out.")
    if "clock" not in spec.measure.meters:
        raise SuiteError(
            f"{source.where(('measure', 'meters'))}: the clock is not among the meters.",
            why="Without seconds nothing can be simulated.",
            todo="Add clock.",
        )
    for i, arrivals in enumerate(spec.arrivals):
        if arrivals.of is not None and arrivals.of not in spec.labels:
            raise SuiteError(
                f"{source.where(('arrivals', i))}: no model is called '{arrivals.of}'.",
                todo=f"{did_you_mean(arrivals.of, spec.labels)}Models: {', '.join(spec.labels)}.",
            )
        if arrivals.file is not None:
            with source.placed(("arrivals", i)):
                recorded(loaded.beside(arrivals.file))
    with source.placed(("gate",)):
        parse_gate(spec.gate, OF_SERVING)
    if spec.hostile is not None and spec.hostile.attack is not None:
        with source.placed(("hostile", "attack")):
            checked_suite(crafting_source(spec.data, spec.models[0].label, [spec.models[0].model_dump()], spec.hostile))
    _check_each_once(spec, source)


def crafting_source(data: str, name: str, models: list[Any], hostile: Hostile) -> Source:
    """The suite that crafts what hostile requests bring.

    Args:
        data: of the file. name: of it. models: entries as written. hostile: its `attack`.
    """
    import yaml

    attack = {hostile.attack: {}} if isinstance(hostile.attack, str) else dict(hostile.attack or {})
    ((ref, settings),) = attack.items()
    contents = {
        "title": f"what hostile requests of {name} bring",
        "data": data,
        "models": models,
        "conditions": ["clean", {ref: {**(settings or {}), "id": CRAFTED_AS}}],
    }
    located = parse(yaml.safe_dump(contents, sort_keys=False, allow_unicode=True), "hostile requests")
    return Source("hostile", dict(located.value), located)


def _check_each_once(spec: Serving, source: Source) -> None:
    lists: list[tuple[Place, Sequence[Any]]] = [
        (("models",), spec.labels),
        (("arrivals",), [arrivals.id for arrivals in spec.arrivals]),
        (("batching", "modes"), spec.batching.modes),
        (("measure", "meters"), spec.measure.meters),
        (("hostile", "shares"), spec.hostile.shares if spec.hostile else []),
        (("planner", "loads"), spec.planner.loads if spec.planner else []),
        (("planner", "max_batch"), spec.planner.max_batch if spec.planner else []),
    ]
    source.each_once(lists, "Keep one of them, or give one an id of its own.")
