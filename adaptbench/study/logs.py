"""Logits of every node, computed once for each split, streamed to disk in pieces under a content key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adaptbench.adaptive import CalibrationLog, DecisionGraph, EvaluationLog, Split, Structure
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.tokens import TokenDomain, without_padding
from adaptbench.errors import EngineError, LeakageError
from adaptbench.experiment.engines import Engine, Local, Part, Piece, Tally
from adaptbench.experiment.keys import digest_of, model_hash, split_hash
from adaptbench.experiment.options import Options
from adaptbench.experiment.progress import Progress
from adaptbench.results.writer import RunWriter

CHUNK = 500  # samples of a stored piece
PROBE = 8  # samples whose logits are part of the key


def passes(start: int, stop: int, device: str) -> Iterator[tuple[int, int]]:
    """Bounds of forward passes over [start, stop): of 100 samples on a CPU, whose caches hold no more, else whole."""
    size = 100 if device == "cpu" else CHUNK
    for left in range(start, stop, size):
        yield left, min(left + size, stop)


class SealedLabels:
    """Test labels that nobody can read before every choice is made.

    Args:
        labels: (N,).
    """

    def __init__(self, labels: Tensor) -> None:
        self.__labels = labels
        self.choices: str | None = None

    def __len__(self) -> int:
        return len(self.__labels)

    def unseal(self, choices: str) -> None:
        """Open them, for good. choices: hash of everything fitted and chosen; it goes into the record."""
        self.choices = choices

    @property
    def values(self) -> Tensor:
        """(N,) int64.

        Raises:
            LeakageError: choices are still open.
        """
        if self.choices is None:
            raise LeakageError(
                "test labels were read while policies were still being fitted or chosen.",
                why="A threshold, λ, budget or restart chosen on the test set makes every figure after it worthless.",
                todo="Fit and choose on the calibration split only.",
            )
        return self.__labels


@dataclass(frozen=True, slots=True)
class TestLog:
    """What a policy sees on the test split, and, once choices are made, the labels.

    Args:
        logits: (N, V, C). labels: sealed. ids: (N,) seeds of policies that draw.
        structure, node_macs: of the graph. data, role, sha256: of the samples, as in `LoggedSamples`.
        top: largest logits that count.
    """

    logits: Tensor
    labels: SealedLabels
    ids: Tensor
    structure: Structure
    node_macs: Tensor
    data: str
    role: str
    sha256: str
    top: int = 1

    __test__ = False  # not a test case

    def opened(self) -> EvaluationLog:
        """With its labels, for scoring: a log that nothing which fits takes.

        Raises:
            LeakageError: choices are still open.
        """
        return EvaluationLog(
            self.logits,
            self.labels.values,
            self.structure,
            self.node_macs,
            self.data,
            self.role,
            self.sha256,
            top=self.top,
        )


def log_key(model: DecisionGraph, split: Split, device: str) -> str:
    """Hash of all that logits hang on.

    The net as it is, samples, kind of device, size of the passes, torch's version; and the logits of the first samples,
    which show what none of these can: other code under the same names, another processor.
    """
    with frozen(model), torch.no_grad():
        probe = model.dense_logits(split.inputs(0, PROBE).to(device)).float().cpu()
    content = {
        "weights": model_hash(model),
        "samples": split.sha256,
        "device": device.partition(":")[0],
        "passes": [CHUNK, *next(passes(0, CHUNK, device))],
        "torch": torch.__version__,
        "probe": hashlib.sha256(probe.numpy().tobytes()).hexdigest(),
    }
    return digest_of(content)[:32]


@dataclass(slots=True)
class Logging:
    """How logs are made.

    Args:
        writer: of the pieces. device: they are computed on. progress: who watches.
        engine: who computes them; None: this process. parts: what a net and a split are on another machine.
        by: keys of the pieces so far, and who made each.
    """

    writer: RunWriter
    device: str
    progress: Progress
    engine: Engine | None = None
    parts: Callable[[DecisionGraph, Split], dict[str, Part]] | None = None
    by: dict[str, dict[str, str]] = field(default_factory=dict)

    def pieces(self, model: DecisionGraph, split: Split, key: str, starts: Sequence[int]) -> list[Piece]:
        """The rows from each start on, up to the next fixed border."""
        if self.parts is None:
            parts = {"net": Part(model, model_hash), "split": Part(split, split_hash)}
        else:
            parts = self.parts(model, split)
        words = {"log": key, "device": self.device}
        ends = [min(start + CHUNK, len(split)) for start in starts]
        return [
            Piece(f"{key}-{start}", stop - start, logged, parts, words | {"start": start, "stop": stop})
            for start, stop in zip(starts, ends, strict=True)
        ]


def node_logits(model: DecisionGraph, split: Split, how: Logging, words: str) -> Tensor:
    """(N, V, C) float32 logits of every node; pieces that an earlier run left are read back.

    Args:
        model: the graph. split: any role. how: they are made and kept. words: for the progress bar.
    """
    key, writer = log_key(model, split, how.device), how.writer
    _known.add(key)
    how.progress.begin(words, len(split))
    starts = range(0, len(split), CHUNK)
    lacking = [start for start in starts if not writer.has(f"{key}-{start}")]
    pieces = how.pieces(model, split, key, lacking)
    tally = Tally(len(split), len(split) - sum(piece.n for piece in pieces))
    engine = how.engine or Local(Options(device=how.device))

    def told(piece: Piece, done: int, of: int) -> None:
        tally.told(piece, done, of)
        how.progress.advance(tally.done)

    for made in engine.each(pieces, told):
        tensors = {"logits": made.get().numpy()}
        writer.commit(made.piece.key, {"rows": made.piece.n, "by": made.by}, tensors=tensors)
        tally.ended(made.piece)
        how.progress.advance(tally.done)
    logits = torch.empty(len(split), len(model.node_names), model.structure.n_classes)
    for start in starts:
        kept = writer.load(f"{key}-{start}")
        assert kept.tensors is not None
        logits[start : start + CHUNK] = torch.from_numpy(kept.tensors["logits"])
        how.by[f"{key}-{start}"] = dict(kept.record.get("by", {}))
    how.progress.end()
    return logits


_known: set[str] = set()
"""Keys that hold here: this machine computes those very logits."""


def logged(
    *,
    net: DecisionGraph,
    split: Split,
    log: str,
    device: str,
    start: int,
    stop: int,
    told: Callable[[int, int], None],
) -> Tensor:
    """(n, V, C) float32 of the rows start … stop.

    Args:
        net: set up. split: all of it. log: key; it holds logits of the first samples. told: (done, of).

    Raises:
        EngineError: this machine computes other logits.
    """
    if log not in _known:
        if log_key(net, split, device) != log:
            raise EngineError(
                "a worker computes other logits than the driver from the same net and samples.",
                why="Another kind of processor, or another build of torch: one log would hold both.",
                todo="Start the run on a machine of the workers' kind, or use --engine local.",
            )
        _known.add(log)
    with frozen(net), torch.no_grad():
        return _piece(net, split, start, stop, device)


def _piece(model: DecisionGraph, split: Split, start: int, stop: int, device: str) -> Tensor:
    """(n, V, C) of the rows start … stop, in passes that fit the caches; texts without their padding."""
    if isinstance(model.domain, TokenDomain):
        x = split.inputs(start, stop).to(device)
        return without_padding(model.domain, x, model.dense_logits, most=100).float().cpu()
    parts = [model.dense_logits(split.inputs(*bounds).to(device)) for bounds in passes(start, stop, device)]
    return torch.cat([part.float().cpu() for part in parts])


def calibration_log(
    model: DecisionGraph, split: Split, how: Logging, *, top: int, training: bool = False
) -> CalibrationLog:
    """The calibration split's log; or the training split's, for rules whose authors calibrated there.

    Raises:
        LeakageError: it is a split of another role.
    """
    split.require("train" if training else "calibration", purpose="fitting a policy")
    logits = node_logits(model, split, how, f"logging  {split.role}")
    return model.logged(logits, split, top=top)


def test_log(model: DecisionGraph, split: Split, how: Logging, *, top: int) -> TestLog:
    """The test split's log, its labels sealed."""
    logits = node_logits(model, split, how, "logging  test")
    return TestLog(
        logits,
        SealedLabels(split.y.clone()),
        split.ids,
        model.structure,
        torch.tensor(model.node_macs),
        split.name,
        split.role,
        split.sha256,
        top,
    )


test_log.__test__ = False  # type: ignore[attr-defined]
