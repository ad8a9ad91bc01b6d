"""The keys of a suite of kind serving: who is served by what, under which traffic, and what is asked of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from adaptbench.bench.entries import Entry
from adaptbench.experiment.measuring import Count, Windows
from adaptbench.serving.driver import Clock
from adaptbench.serving.lines import Mode

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[int, Field(ge=1, le=4096, strict=True)]
PROCESSES = ("poisson", "bursts", "trace")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arrivals(_Strict):
    """How requests come.

    Args:
        id: in case names. process: one of `PROCESSES`.
        rate: requests a second; or load: a share of the capacity of a model; one of the two, a trace may have neither.
        of: label of the model whose capacity it is; None: each its own.
        peak, share, length: of bursts. file: of a trace, from the suite's folder.
    """

    id: str
    process: Literal["poisson", "bursts", "trace"]
    rate: Positive | None = None
    load: Positive | None = None
    of: str | None = None
    peak: Annotated[float, Field(gt=1)] = 3.0
    share: Share = 0.2
    length: Annotated[float, Field(ge=1)] = 50.0
    file: str | None = None

    @model_validator(mode="after")
    def _one_rate(self) -> Arrivals:
        said = [name for name in ("rate", "load") if getattr(self, name) is not None]
        if len(said) > 1 or (not said and self.process != "trace"):
            raise ValueError("give a rate (requests a second) or a load (a share of the capacity), one of the two")
        if self.of is not None and self.load is None:
            raise ValueError("`of` names the model whose capacity a load is a share of, and there is no load")
        if (self.file is not None) != (self.process == "trace"):
            raise ValueError("a trace has a file, and nothing else has")
        if self.process == "bursts" and self.peak * self.share > 1:
            raise ValueError("more would come in bursts than comes at all: peak × share is above 1")
        return self


def _arrivals(given: Any) -> Any:
    if isinstance(given, dict) and len(given) == 1:
        ((process, settings),) = given.items()
        if process in PROCESSES and isinstance(settings, dict):
            return {"id": process, **settings, "process": process}
    if isinstance(given, dict) and "process" in given:
        return given
    raise ValueError("arrivals are `poisson: {load: 0.7}`, `bursts: {load: 0.7, peak: 3}` or `trace: {file: seen.csv}`")


class Together(_Strict):
    """How requests are put together.

    Args:
        max_batch: at most so many run at once. wait_s: the oldest waits so long at most for others.
        modes: batches stay together; or queues: whoever goes on waits at the next node for others.
    """

    max_batch: Size = 16
    wait_s: Annotated[float, Field(ge=0, le=3600)] = 0.002
    modes: Annotated[list[Mode], Field(min_length=1)] = ["batches", "queues"]


class Budget(_Strict):
    """A hard budget of work that all requests share.

    Args:
        headroom: refill a request, in what a clean request costs on average. burst: what the bucket holds, in refills.
    """

    headroom: Positive = 1.2
    burst: Annotated[float, Field(ge=1)] = 50.0


class Hostile(_Strict):
    """Whose requests are attacked, and what stands against that.

    Args:
        run: a run directory whose crafted inputs are taken, from here. condition: of that run.
        attack: or a condition that is crafted for this suite, as a suite names it.
        shares: of the requests. budget: a hard budget, tried beside none.
    """

    run: str | None = None
    condition: str | None = None
    attack: str | dict[str, dict[str, Any] | None] | None = None
    shares: Annotated[list[Share], Field(min_length=1)] = [0.05, 0.2]
    budget: Budget | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Hostile:
        if (self.attack is None) == (self.run is None) or (self.run is None) != (self.condition is None):
            raise ValueError("attacked inputs come from a `run` and a `condition` of it, or from an `attack`")
        if isinstance(self.attack, dict) and len(self.attack) != 1:
            raise ValueError("an attack is a name, or a name with settings: `deepsloth: {eps: 16/255}`")
        return self


class Planner(_Strict):
    """What provisions are looked at for the objective.

    Args:
        loads: of one replica's capacity at the suite's batch. max_batch, replicas: that may be had.
    """

    loads: Annotated[list[Positive], Field(min_length=1)] = [0.5, 1.5]
    max_batch: Annotated[list[Size], Field(min_length=1)] = [1, 4, 16]
    replicas: Annotated[int, Field(ge=1, le=64, strict=True)] = 4


class Check(_Strict):
    """A bounded run on this machine, against which the simulation is held.

    Args:
        requests: of a stream. repeats: streams, each with its own simulation. clocks: that are read; None: the one that
            nodes are timed by.
    """

    requests: Annotated[int, Field(ge=20, le=1_000_000, strict=True)] = 400
    repeats: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    clocks: Annotated[list[Clock], Field(min_length=1)] | None = None


class Measure(Windows):
    """How nodes are timed.

    Args:
        batch_sizes: at which; none said: powers of two up to the largest batch that may run, and that one.
        meters: the clock, and sensors of joules where there are any. samples: inputs that whole calls go through.
        clock: what the clock reads: seconds on the wall, or those that this process had a core.
        spread: requests of a stream that is served once before, for how far single calls are from their windows.
    """

    batch_sizes: list[Size] = Field(default=[])
    samples: Count = 64
    blocks: Annotated[int, Field(ge=1, le=1000, strict=True)] = 6
    window_s: Annotated[float, Field(gt=0, le=3600)] = 0.02
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = 0.02
    meters: list[str] = Field(default=["clock"])
    clock: Clock = "wall"
    spread: Annotated[int, Field(ge=20, le=1_000_000, strict=True)] = 400


Net = Annotated[Entry, BeforeValidator(Entry.of)]


class Serving(_Strict):
    """The whole file; see ``suites/serving.yaml``.

    Args:
        data: whose test samples come as requests. models: nets with exits, cascades, or plain ones.
        arrivals: how they come. requests: of one stream. repeats: streams, each with one block of measured times.
        batching: how they are put together. replicas: of the net, each on a device of its own.
        objective_p99_s: what 99 of 100 requests are to be answered within.
        hostile: attacked requests among them. planner: provisions. check: a real run. measure: how nodes are timed.
    """

    title: str = ""
    data: str
    models: Annotated[list[Net], Field(min_length=1)]
    arrivals: Annotated[list[Annotated[Arrivals, BeforeValidator(_arrivals)]], Field(min_length=1)]
    requests: Annotated[int, Field(ge=50, le=1_000_000, strict=True)] = 2000
    repeats: Annotated[int, Field(ge=2, le=1000, strict=True)] = 6
    batching: Together = Together()
    replicas: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    objective_p99_s: Positive
    hostile: Hostile | None = None
    planner: Planner | None = None
    check: Check | None = None
    measure: Measure = Measure()
    gate: dict[str, Any] = {}
    limit: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0

    @property
    def largest(self) -> int:
        """The largest batch that may run."""
        return max([self.batching.max_batch, *(self.planner.max_batch if self.planner else [])])

    @property
    def sizes(self) -> list[int]:
        """At which nodes are timed: always one request, and the largest batch; times between them lie on lines."""
        between = self.measure.batch_sizes or [2**k for k in range(1, self.largest.bit_length())]
        return sorted({1, *(size for size in between if size < self.largest), self.largest})

    @property
    def labels(self) -> list[str]:
        """Of the models."""
        return [entry.label for entry in self.models]
