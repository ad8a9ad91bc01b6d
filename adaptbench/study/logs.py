"""Logits of every node, computed once for each split, streamed to disk in pieces under a content key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptbench.adaptive import CalibrationLog, DecisionGraph, EvaluationLog, Split, Structure
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.tokens import TokenDomain, without_padding
from adaptbench.errors import LeakageError
from adaptbench.experiment.keys import digest_of, model_hash
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


def node_logits(
    model: DecisionGraph, split: Split, writer: RunWriter, *, device: str, progress: Progress, words: str
) -> Tensor:
    """(N, V, C) float32 logits of every node; pieces that an earlier run left are read back.

    Args:
        model: the graph. split: any role. writer: of the pieces. words: for the progress bar.
    """
    key = log_key(model, split, device)
    parts: list[Tensor] = []
    progress.begin(words, len(split))
    with frozen(model), torch.no_grad():
        for start in range(0, len(split), CHUNK):
            stop = min(start + CHUNK, len(split))
            if not writer.has(f"{key}-{start}"):
                logits = _piece(model, split, start, stop, device)
                writer.commit(f"{key}-{start}", {"rows": stop - start}, tensors={"logits": logits.numpy()})
            kept = writer.load(f"{key}-{start}").tensors
            assert kept is not None
            parts.append(torch.from_numpy(kept["logits"]))
            progress.advance(stop)
    progress.end()
    return torch.cat(parts)


def _piece(model: DecisionGraph, split: Split, start: int, stop: int, device: str) -> Tensor:
    """(n, V, C) of the rows start … stop, in passes that fit the caches; texts without their padding."""
    if isinstance(model.domain, TokenDomain):
        x = split.inputs(start, stop).to(device)
        return without_padding(model.domain, x, model.dense_logits, most=100).float().cpu()
    parts = [model.dense_logits(split.inputs(*bounds).to(device)) for bounds in passes(start, stop, device)]
    return torch.cat([part.float().cpu() for part in parts])


def calibration_log(
    model: DecisionGraph,
    split: Split,
    writer: RunWriter,
    *,
    top: int,
    device: str,
    progress: Progress,
    training: bool = False,
) -> CalibrationLog:
    """The calibration split's log; or the training split's, for rules whose authors calibrated there.

    Raises:
        LeakageError: it is a split of another role.
    """
    split.require("train" if training else "calibration", purpose="fitting a policy")
    logits = node_logits(model, split, writer, device=device, progress=progress, words=f"logging  {split.role}")
    return model.logged(logits, split, top=top)


def test_log(
    model: DecisionGraph, split: Split, writer: RunWriter, *, top: int, device: str, progress: Progress
) -> TestLog:
    """The test split's log, its labels sealed."""
    logits = node_logits(model, split, writer, device=device, progress=progress, words="logging  test")
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
