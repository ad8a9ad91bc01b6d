"""The keys of a suite of kind decoding: which decoders, on which prompts, judged and attacked how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from adaptbench.decoding.characters import END, encode
from adaptbench.decoding.decoders import Calm, Decoder, Greedy, SelfSpeculative
from adaptbench.experiment.measuring import Count, Windows

KINDS = ("greedy", "calm", "self-speculative")
Few = Annotated[int, Field(ge=1, le=4096, strict=True)]
Edits = Annotated[int, Field(ge=1, le=64, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Way(_Strict):
    """A decoder.

    Args:
        id: in case names. kind: one of `KINDS`.
        threshold, decay, exits: of calm. exit, drafts: of self-speculative.
    """

    id: str
    kind: Literal["greedy", "calm", "self-speculative"]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    exits: list[Few] | None = None
    exit: Few = 2
    drafts: Few = 4

    @property
    def decoder(self) -> Decoder:
        """Made of the settings that are its own."""
        if self.kind == "calm":
            return Calm(self.threshold, self.decay, None if self.exits is None else tuple(self.exits))
        return Greedy() if self.kind == "greedy" else SelfSpeculative(self.exit, self.drafts)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of its kind."""
        names = {"greedy": (), "calm": ("threshold", "decay", "exits"), "self-speculative": ("exit", "drafts")}
        return {name: getattr(self, name) for name in names[self.kind]}


_OWN = {"greedy": set(), "calm": {"threshold", "decay", "exits"}, "self-speculative": {"exit", "drafts"}}


def _way(given: Any) -> Any:
    if isinstance(given, Way) or (isinstance(given, dict) and "kind" in given):
        return given
    if isinstance(given, str) and given in KINDS:
        return {"id": given, "kind": given}
    if isinstance(given, dict) and len(given) == 1:
        ((kind, settings),) = given.items()
        if kind in KINDS and isinstance(settings, dict):
            if foreign := set(settings) - _OWN[kind] - {"id"}:
                raise ValueError(
                    f"{kind} has no setting {', '.join(sorted(map(str, foreign)))}; "
                    f"its own: {', '.join(sorted(_OWN[kind])) or 'none'}"
                )
            told = [
                f"{value:g}" for name, value in settings.items() if name != "id" and isinstance(value, (int, float))
            ]
            return {"id": " ".join([kind, *told]), **settings, "kind": kind}
    raise ValueError(
        "decoders are `greedy`, `calm: {threshold: 0.5, decay: 4}` or `self-speculative: {exit: 2, drafts: 4}`"
    )


def stop_id(stop: str | None) -> int | None:
    """The id of a stop as a file has it."""
    return None if stop is None else END if stop == "end" else encode(stop)[0]


class Prompts(_Strict):
    """Beginnings of test texts, and how far they are carried on.

    Args:
        count: texts, the first that are long enough. chars: of each that are given. new_chars: that are made, at most.
        stop: a character that ends an answer, or "end" for the end of the text; None: none does.
    """

    count: Few = 16
    chars: Few = 48
    new_chars: Few = 96
    stop: str | None = "end"

    @property
    def stop_id(self) -> int | None:
        """The id that ends an answer."""
        return stop_id(self.stop)


class Quality(_Strict):
    """Given text that decoders predict, character by character.

    Args:
        texts: test texts, others than the prompts'. chars: of each that are predicted, after as many as a prompt has.
    """

    texts: Few = 16
    chars: Few = 96


class Attacks(_Strict):
    """Edits of prompts; see `adaptbench.decoding.attacks`.

    Args:
        decoder: id of the one whose depth is attacked. objectives: depth, length; never one figure.
        edits: characters of a prompt. queries: decodings a prompt. prompts: of the suite's, the first.
        new_chars: made in a depth attack, exactly; a length is cut off at the prompts' own limit.
        stop: that a length goes up to; None: the prompts' own.
    """

    decoder: str
    objectives: Annotated[list[Literal["depth", "length"]], Field(min_length=1)] = ["depth", "length"]
    edits: Edits = 4
    queries: Few = 60
    prompts: Few = 8
    new_chars: Few = 48
    stop: str | None = None


class Measure(Windows):
    """How seconds and joules are taken.

    Args:
        batch_sizes: one sequence at once, always. samples: prompts that a window goes through.
        blocks: ≥ 6 for a 95 % interval. meters: the clock, and sensors of joules.
    """

    batch_sizes: list[Literal[1]] = Field(default=[1])  # type: ignore[assignment]
    samples: Count = 4
    blocks: Annotated[int, Field(ge=1, le=1000, strict=True)] = 6
    meters: list[str] = Field(default=["clock"])


class Decoding(_Strict):
    """The whole file; see ``suites/decoding.yaml``.

    Args:
        data: of texts. weights: data set that the character model was trained on; None: `data`.
        decoders: the first is what the others are compared with, and it is greedy.
    """

    title: str = ""
    data: str
    weights: str | None = None
    decoders: Annotated[list[Annotated[Way, BeforeValidator(_way)]], Field(min_length=1)]
    prompts: Prompts = Prompts()
    quality: Quality | None = None
    attacks: Attacks | None = None
    measure: Measure | None = None
    gate: dict[str, Any] = {}
    limit: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0

    @property
    def labels(self) -> list[str]:
        """Of the decoders."""
        return [way.id for way in self.decoders]
