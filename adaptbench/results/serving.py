"""What a run of kind serving found, read for pages, documents and the gate. No torch.

Whatever a simulation says is called ``simulated_…``, whatever a clock read ``measured_…``; no figure is both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptbench.errors import RunError
from adaptbench.results.files import read_json
from adaptbench.results.forms import has_form, is_interval
from adaptbench.results.record_runs import RecordRun, keep_record
from adaptbench.results.schema import Field
from adaptbench.results.store import SERVING
from adaptbench.results.study_schema import TOLD

SCHEMA = 1
PLAIN, DEFENDED, PROVISION = "stream", "defended", "provision"
KINDS = (PLAIN, DEFENDED, PROVISION)
"""Kinds of cases, as a gate may name them."""
STREAM_FIGURES = (
    "simulated_p99_s", "simulated_goodput", "simulated_benign_p99_s", "simulated_benign_goodput",
    "simulated_benign_accuracy", "simulated_macs",
)  # fmt: skip
"""Metrics of a stream that a gate can watch; of a provision it is the replicas."""
_OF_THE_RUN = ("id", "command", "device", "versions", "git", "data", "meters", "gate", "notes", "started", "ended")


def _must(form: str, meaning: str, unit: str = "", of: str = "") -> Field:
    return Field(form, unit, meaning, required=True, of=of)


def _figure(unit: str, meaning: str) -> Field:
    """With a 95 % interval over repeats where there is one; null with its reason."""
    return Field("number", unit, meaning, figure=True, estimated=True)


FOUND: dict[str, Field] = {
    "schema": _must("count", "raised with every change that an older reader would misread"),
    "kind": _must("text", "serving"),
    "objective_p99_s": _must("number", "what 99 of 100 requests are to be answered within", "s"),
    "clock": _must("text", "what nodes were timed by: wall | cpu (seconds that the process had a core)"),
    "budget": Field("map", meaning="headroom and burst of the hard budget; null where none was tried", of="number"),
    "crafted_by": Field("map", meaning="run and condition that attacked inputs come from", of="text"),
    "models": _must("map", "by label: the net, its samples, its times", of="map"),
    "streams": _must("list", "simulated streams", of="map"),
    "provisions": _must("list", "the cheapest provisions that hold the objective", of="map"),
    "checks": _must("list", "real runs beside their simulations", of="map"),
    "failed": _must("map", "what could not be done, and why", of="text"),
}
MODEL: dict[str, Field] = {
    "nodes": _must("list", "names", of="text"),
    "macs_full": _must("number", "of the static reference", "MACs"),
    "n": _must("count", "whose ways were executed", "samples"),
    "accuracy": _must("number", "of the clean samples", "1"),
    "macs_mean": _must("number", "executed a clean sample", "MACs"),
    "reach": _must("list", "share of the clean samples that run each node", of="number"),
    "hostile_macs_mean": Field("number", "MACs", "executed an attacked sample", figure=True),
    "capacity_rps": _must("number", "clean requests that full batches answer, from measured times", "1/s"),
    "times": _must(
        "list", "a row a node and size, whole batches as node 'call': measured_s, with an interval", of="map"
    ),
    "call_ratios": _must(
        "map", "mode → seconds of single calls over those of their windows, each call seen", of="list"
    ),
    "card": Field("map", meaning="of the weights"),
}
TIME: dict[str, Field] = {
    "node": _must("text", "of the net; 'call' for whole batches"),
    "size": _must("count", "requests in it", "requests"),
    "measured_s": _must("number", "of a step, or of a batch", "s"),
}
STREAM: dict[str, Field] = {
    "case": _must("text", "model/arrivals/mode/hostile share[/budget]"),
    "model": _must("text", "its label"),
    "arrivals": _must("text", "of the file"),
    "mode": _must("text", "batches | queues"),
    "share": _must("number", "of the requests that are hostile", "1"),
    "defence": _must("text", "none | budget"),
    "requests": _must("count", "of a stream", "requests"),
    "repeats": _must("count", "streams"),
    "replicas": _must("count", "of the net"),
    "max_batch": _must("count", "requests that run at once, at most", "requests"),
    "rate_rps": _must("number", "that arrived", "1/s"),
    "overloaded": _must("flag", "replicas are busy all the time: latency grows as long as the stream lasts"),
    "simulated_mean_s": _figure("s", "latency"),
    "simulated_p50_s": _figure("s", "latency"),
    "simulated_p99_s": _figure("s", "latency"),
    "simulated_goodput": _figure("1", "share answered within the objective"),
    "simulated_goodput_rps": _figure("1/s", "answered within the objective"),
    "simulated_macs": _figure("MACs", "executed a request"),
    "simulated_energy_j": _figure(
        "J", "a request, from joules that a sensor measured of steps; idle time is not in it"
    ),
    "simulated_busy": _must("number", "share of the time that replicas run", "1"),
    "simulated_step_size": _must("number", "requests in a step of a node, mean", "requests"),
    "simulated_benign_p99_s": _figure("s", "latency of the honest"),
    "simulated_benign_goodput": _figure("1", "share of the honest answered within the objective"),
    "simulated_benign_accuracy": _figure("1", "of the honest"),
    "simulated_benign_forced": _figure("1", "share of the honest that the budget cut short"),
    "simulated_benign_p99_ratio": _figure("1", "over the same requests' p99 with nobody hostile and no budget"),
    "simulated_benign_goodput_lost": _figure("1", "against the same requests with nobody hostile and no budget"),
    "simulated_benign_accuracy_lost": _figure("1", "against the same requests with nobody hostile and no budget"),
    "simulated_hostile_macs": _figure("MACs", "executed a hostile request"),
}
PROVISIONED: dict[str, Field] = {
    "case": _must("text", "model/mode/load"),
    "model": _must("text", "its label"),
    "mode": _must("text", "batches | queues"),
    "load": _must("number", "of the first net's capacity on one replica", "1"),
    "rate_rps": _must("number", "that arrives", "1/s"),
    "replicas": Field("count", meaning="the fewest that hold the objective", figure=True),
    "max_batch": Field("count", "requests", "with the lowest p99 among those", figure=True),
    "simulated_p99_s": _figure("s", "of that provision"),
    "looked_at": _must("list", "provisions, with their p99 and whether they hold", of="map"),
}
CHECK: dict[str, Field] = {
    "case": _must("text", "model/mode/hostile share/clock"),
    "model": _must("text", "its label"),
    "arrivals": _must("text", "of the file"),
    "mode": _must("text", "batches | queues"),
    "share": _must("number", "of the requests that are hostile", "1"),
    "clock": _must("text", "wall | cpu"),
    "rate_rps": _must("number", "that arrived", "1/s"),
    "requests": _must("count", "of a stream", "requests"),
    "repeats": _must("count", "streams"),
    "measured_mean_s": _must("number", "latency of the real run", "s"),
    "measured_p99_s": _must("number", "latency of the real run", "s"),
    "simulated_mean_s": _must("number", "of the same requests", "s"),
    "simulated_p99_s": _must("number", "of the same requests", "s"),
    "simulated_with_its_calls_mean_s": _must("number", "the same, each call as long as in the real run", "s"),
    "simulated_with_its_calls_p99_s": _must("number", "the same, each call as long as in the real run", "s"),
    "call_ratio": _must("number", "seconds of the run's calls over those of their windows, mean", "1"),
    "spread_ratio": _must("number", "the same of the stream that the simulation draws from", "1"),
    "measured_stall_s": _must("number", "the longest that the process woke too late from a wait", "s"),
    "within": _must("flag", "mean and p99 both within 10 %"),
    "reason": _must("text", "why not"),
}
PARTS = {
    "the run": FOUND,
    "a model": MODEL,
    "a time": TIME,
    "a simulated stream": STREAM,
    "a provision": PROVISIONED,
    "a real run": CHECK,
}


class ServingRun(RecordRun):
    """A complete directory. record: ``serving.json`` and what the manifest says of the run, flat."""

    __slots__ = ()
    kind, file, of_the_run = "serving", SERVING, _OF_THE_RUN

    @classmethod
    def checked(cls, document: Any, place: Path, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A record with every field that readers lean on."""
        return checked(document, place, told)


def read_serving(path: Path) -> dict[str, Any]:
    """A record, from its directory or from the file that was kept of it.

    Raises:
        RunError: missing, damaged, or of another version.
    """
    if path.is_dir():
        return ServingRun.open(path).record
    if not path.is_file():
        raise RunError(f"there is no {path}.", todo="Run one: adaptbench run serving.")
    return checked(read_json(path), path)


def checked(document: Any, place: Path, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A record with every field that readers lean on.

    Args:
        document: parsed JSON. place: where it stood. told: what the manifest beside it says.

    Raises:
        RunError: it is none, of another version, or damaged.
    """
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("kind") != "serving":
        raise RunError(
            f"{place} is no run of kind serving of schema {SCHEMA}.",
            todo="Run the suite again with this version of adaptbench.",
        )
    record = {**(told or {}), **document}
    if wrong := fault(record):
        raise RunError(f"{place} is damaged: {wrong}.", todo="Run the same command again.")
    return record


def fault(record: Mapping[str, Any]) -> str:
    """The first thing that makes a record none; "" where it is one."""
    return first_fault(_parts(record))


def first_fault(parts: Iterable[tuple[Any, dict[str, Field], str]]) -> str:
    """The first part that lacks what its fields say; "" where none does.

    Args:
        parts: (what stands there, its fields, what it is called), lazily: one is whole when those in it are asked for.
    """
    for part, fields, place in parts:
        if not isinstance(part, Mapping):
            return f"{place} is no object"
        for name, field in fields.items():
            value = part.get(name)
            if value is None and field.required:
                return f"'{name}' of {place} is missing"
            if value is None and field.figure and not part.get(f"{name}_missing"):
                return f"'{name}' of {place} is null, and '{name}_missing' gives no reason"
            if value is not None and not has_form(value, field.form, field.of):
                return f"'{name}' of {place} is no {field.form}{f' of {field.of}s' if field.of else ''}"
        for name, value in part.items():
            if name.endswith("_ci") and value is not None and not is_interval(value):
                return f"{place} has a '{name}' that is no interval"
    return ""


def _parts(record: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Field], str]]:
    """Every part; one is whole when those in it are asked for."""
    yield record, TOLD | FOUND, "the run"
    for label, model in record["models"].items():
        yield model, MODEL, f"the model '{label}'"
        for row in model["times"]:
            yield row, TIME, f"a time of '{label}'"
    for name, fields in (("streams", STREAM), ("provisions", PROVISIONED), ("checks", CHECK)):
        for row in record[name]:
            yield row, fields, f"a row of {name}"


def keep_serving(run: Path, out: Path | None = None) -> Path:
    """Copy a run's record to where published summaries stand (default ``reports/published/NAME.json``).

    Raises:
        RunError: it holds none. OutputError: the place cannot be written.
    """
    record = read_serving(run)
    return keep_record(record, out, 6)  # digits: enough to recompute what is stated, and small to commit


def incomplete(record: Mapping[str, Any]) -> list[str]:
    """What was asked for and could not be done, one sentence each."""
    return [f"{what}: {why}" for what, why in record["failed"].items()]
