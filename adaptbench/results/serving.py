"""What a run of kind serving found, read for pages, documents and the gate. No torch.

Whatever a simulation says is called ``simulated_…``, whatever a clock read ``measured_…``; no figure is both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptbench.results.record_runs import TOLD, Part, RecordRun, figure, must
from adaptbench.results.schema import Field
from adaptbench.results.store import SERVING

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


FOUND: dict[str, Field] = {
    "schema": must("count", "raised with every change that an older reader would misread"),
    "kind": must("text", "serving"),
    "objective_p99_s": must("number", "what 99 of 100 requests are to be answered within", "s"),
    "clock": must("text", "what nodes were timed by: wall | cpu (seconds that the process had a core)"),
    "budget": Field("map", meaning="headroom and burst of the hard budget; null where none was tried", of="number"),
    "crafted_by": Field("map", meaning="run and condition that attacked inputs come from", of="text"),
    "models": must("map", "by label: the net, its samples, its times", of="map"),
    "streams": must("list", "simulated streams", of="map"),
    "provisions": must("list", "the cheapest provisions that hold the objective", of="map"),
    "checks": must("list", "real runs beside their simulations", of="map"),
    "failed": must("map", "what could not be done, and why", of="text"),
}
MODEL: dict[str, Field] = {
    "nodes": must("list", "names", of="text"),
    "macs_full": must("number", "of the static reference", "MACs"),
    "n": must("count", "whose ways were executed", "samples"),
    "accuracy": must("number", "of the clean samples", "1"),
    "macs_mean": must("number", "executed a clean sample", "MACs"),
    "reach": must("list", "share of the clean samples that run each node", of="number"),
    "hostile_macs_mean": Field("number", "MACs", "executed an attacked sample", figure=True),
    "capacity_rps": must("number", "clean requests that full batches answer, from measured times", "1/s"),
    "times": must(
        "list", "a row a node and size, whole batches as node 'call': measured_s, with an interval", of="map"
    ),
    "call_ratios": must("map", "mode → seconds of single calls over those of their windows, each call seen", of="list"),
    "card": Field("map", meaning="of the weights"),
}
TIME: dict[str, Field] = {
    "node": must("text", "of the net; 'call' for whole batches"),
    "size": must("count", "requests in it", "requests"),
    "measured_s": must("number", "of a step, or of a batch", "s"),
}
STREAM: dict[str, Field] = {
    "case": must("text", "model/arrivals/mode/hostile share[/budget]"),
    "model": must("text", "its label"),
    "arrivals": must("text", "of the file"),
    "mode": must("text", "batches | queues"),
    "share": must("number", "of the requests that are hostile", "1"),
    "defence": must("text", "none | budget"),
    "requests": must("count", "of a stream", "requests"),
    "repeats": must("count", "streams"),
    "replicas": must("count", "of the net"),
    "max_batch": must("count", "requests that run at once, at most", "requests"),
    "rate_rps": must("number", "that arrived", "1/s"),
    "overloaded": must("flag", "replicas are busy all the time: latency grows as long as the stream lasts"),
    "simulated_mean_s": figure("s", "latency"),
    "simulated_p50_s": figure("s", "latency"),
    "simulated_p99_s": figure("s", "latency"),
    "simulated_goodput": figure("1", "share answered within the objective"),
    "simulated_goodput_rps": figure("1/s", "answered within the objective"),
    "simulated_macs": figure("MACs", "executed a request"),
    "simulated_energy_j": figure("J", "a request, from joules that a sensor measured of steps; idle time is not in it"),
    "simulated_busy": must("number", "share of the time that replicas run", "1"),
    "simulated_step_size": must("number", "requests in a step of a node, mean", "requests"),
    "simulated_benign_p99_s": figure("s", "latency of the honest"),
    "simulated_benign_goodput": figure("1", "share of the honest answered within the objective"),
    "simulated_benign_accuracy": figure("1", "of the honest"),
    "simulated_benign_forced": figure("1", "share of the honest that the budget cut short"),
    "simulated_benign_p99_ratio": figure("1", "over the same requests' p99 with nobody hostile and no budget"),
    "simulated_benign_goodput_lost": figure("1", "against the same requests with nobody hostile and no budget"),
    "simulated_benign_accuracy_lost": figure("1", "against the same requests with nobody hostile and no budget"),
    "simulated_hostile_macs": figure("MACs", "executed a hostile request"),
}
PROVISIONED: dict[str, Field] = {
    "case": must("text", "model/mode/load"),
    "model": must("text", "its label"),
    "mode": must("text", "batches | queues"),
    "load": must("number", "of the first net's capacity on one replica", "1"),
    "rate_rps": must("number", "that arrives", "1/s"),
    "replicas": Field("count", meaning="the fewest that hold the objective", figure=True),
    "max_batch": Field("count", "requests", "with the lowest p99 among those", figure=True),
    "simulated_p99_s": figure("s", "of that provision"),
    "looked_at": must("list", "provisions, with their p99 and whether they hold", of="map"),
}
CHECK: dict[str, Field] = {
    "case": must("text", "model/mode/hostile share/clock"),
    "model": must("text", "its label"),
    "arrivals": must("text", "of the file"),
    "mode": must("text", "batches | queues"),
    "share": must("number", "of the requests that are hostile", "1"),
    "clock": must("text", "wall | cpu"),
    "rate_rps": must("number", "that arrived", "1/s"),
    "requests": must("count", "of a stream", "requests"),
    "repeats": must("count", "streams"),
    "measured_mean_s": must("number", "latency of the real run", "s"),
    "measured_p99_s": must("number", "latency of the real run", "s"),
    "simulated_mean_s": must("number", "of the same requests", "s"),
    "simulated_p99_s": must("number", "of the same requests", "s"),
    "simulated_with_its_calls_mean_s": must("number", "the same, each call as long as in the real run", "s"),
    "simulated_with_its_calls_p99_s": must("number", "the same, each call as long as in the real run", "s"),
    "call_ratio": must("number", "seconds of the run's calls over those of their windows, mean", "1"),
    "spread_ratio": must("number", "the same of the stream that the simulation draws from", "1"),
    "measured_stall_s": must("number", "the longest that the process woke too late from a wait", "s"),
    "within": must("flag", "mean and p99 both within 10 %"),
    "reason": must("text", "why not"),
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
    kind, file, of_the_run, schema = "serving", SERVING, _OF_THE_RUN, SCHEMA

    @classmethod
    def parts(cls, record: Mapping[str, Any]) -> Iterator[Part]:
        """Every part of a record; one is whole when those in it are asked for."""
        yield record, TOLD | FOUND, "the run"
        for label, model in record["models"].items():
            yield model, MODEL, f"the model '{label}'"
            for row in model["times"]:
                yield row, TIME, f"a time of '{label}'"
        for name, fields in (("streams", STREAM), ("provisions", PROVISIONED), ("checks", CHECK)):
            for row in record[name]:
                yield row, fields, f"a row of {name}"
