"""Exit heads trained on their own: on a frozen backbone, one after another, from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import DecisionGraph, MultiExit, Split, TokenDomain
from adaptbench.adaptive.domain import Domain, pictures_like
from adaptbench.adaptive.model import frozen
from adaptbench.errors import UsageError
from adaptbench.zoo.training.loop import Training, fit
from adaptbench.zoo.training.losses import cross_entropy
from adaptbench.zoo.training.objective import call
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.strategies import divergence

_CHUNK = 500


def train_heads(
    model: DecisionGraph,
    split: Split,
    phase: Phase,
    *,
    exits: Sequence[int] | None = None,
    distil: float = 0.0,
    temperature: float = 3.0,
    memory: int = 2 << 30,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    **settings: Any,
) -> Training:
    """Exit heads on a frozen backbone; no weight, statistic or flag outside the trained heads changes.

    The backbone runs in eval mode without gradients. Where pictures are not augmented or resized, what the heads' first
    weights read is computed once and kept, if it fits into `memory`: an epoch then costs the heads alone. Heads share
    nothing, so training them together is training each.

    Args:
        model: stages that end in features, heads that end in logits.
        split, phase: training samples, and how.
        exits: which heads, from 0; default all but the last, which is the net's own.
        distil: weight α of α·T²·KL(last exit ‖ head) + (1 − α)·CE. At 1 no label is used.
        temperature: T.
        memory: bytes that kept features may take.
        evaluate: figures to record after each epoch; sees the model.
        settings: as `fit` takes them.

    Raises:
        UsageError: an exit that does not exist or has no weights.
    """
    chosen = _exits(model, exits)
    if not 0.0 <= distil <= 1.0:
        raise UsageError(f"distil = {distil} is no share of the loss.", todo="Give a value between 0 and 1.")
    heads = _Heads(model, chosen, distil, temperature, phase.precision == "bfloat16")
    keeps = phase.augment == "none" and not phase.sizes and heads.bytes_a_sample() * len(split) <= memory
    with frozen(model):
        if keeps:
            split.require("train", "calibration", purpose="training")
            heads.keep(split)
            split = _numbered(split)
        judge = None if evaluate is None else lambda _module: evaluate(model)
        return fit(heads, split, phase, call, evaluate=judge, **settings)


def train_backtrack(
    model: MultiExit,
    split: Split,
    *,
    backbone: Phase | None,
    heads: Phase,
    settings: Callable[[str], Mapping[str, Any]] = lambda _name: {},
) -> dict[str, Training]:
    """The whole net for its last exit first, then the earlier heads one after another, each its own weights only.

    Berestizshevsky & Even, arXiv 1805.10982: "backtrack training". Later heads first.

    Args:
        model: trained in place.
        split: training samples.
        backbone: of the first phase; None where the backbone is trained already.
        heads: of each head.
        settings: what `fit` takes besides, by the phase's name: "backbone", "head1", …

    Returns:
        One training a phase, by its name.
    """
    done = {}
    if backbone is not None:
        path = nn.Sequential(*(model.stages[v] for v in model.reference), model.heads[model.reference[-1]])
        done["backbone"] = fit(path, split, backbone, cross_entropy, **settings("backbone"))
    for k in reversed(range(len(model.stages) - 1)):
        name = f"head{k + 1}"
        done[name] = train_heads(model, split, heads, exits=[k], **settings(name))
    return done


def _exits(model: DecisionGraph, exits: Sequence[int] | None) -> list[int]:
    chosen = sorted(set(range(len(model.heads) - 1) if exits is None else exits))
    odd = [k for k in chosen if not 0 <= k < len(model.heads)]
    bare = [k for k in chosen if k not in odd and not any(True for _ in model.heads[k].parameters())]
    if odd or bare or not chosen:
        raise UsageError(
            f"heads {chosen} were to be trained in a net of {len(model.heads)}.",
            why="A head without weights has its classifier inside the stage: boosted nets are trained jointly."
            if bare
            else "",
            todo=f"Exits are numbered 0 … {len(model.heads) - 1}.",
        )
    return chosen


class _Heads(nn.Module):
    """The heads in training as a module of their own; the net that feeds them is only looked at.

    Args:
        model: in eval mode, the trained heads aside. chosen: indices of the heads.
        distil, temperature: α and T. in_bfloat16: texts run so where their states are kept.
    """

    def __init__(
        self, model: DecisionGraph, chosen: list[int], distil: float, temperature: float, in_bfloat16: bool = False
    ) -> None:
        super().__init__()
        self.chosen, self.distil, self.temperature, self.in_bfloat16 = chosen, distil, temperature, in_bfloat16
        self._model = (model,)  # a tuple, so that its weights are not ours
        parts = [_at_first_weight(model.heads[k]) for k in chosen]
        self.pools = [pool for pool, _ in parts]  # no weights
        self.heads = nn.ModuleList(head for _, head in parts)
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ of the heads' losses."""
        inputs = self._look_up(x) if self.kept else self._compute(x)
        value = torch.zeros((), device=x.device)
        teacher = inputs.pop() if self.distil else None
        for head, h in zip(self.heads, inputs, strict=True):
            logits = head(h)
            if self.distil < 1:
                value = value + (1 - self.distil) * F.cross_entropy(logits, y)
            if teacher is not None:
                value = value + self.distil * divergence(logits[:, None], teacher[:, None], self.temperature).sum()
        return value

    @torch.no_grad()
    def _compute(self, x: Tensor) -> list[Tensor]:
        """What each head reads, and the last exit's logits where they teach."""
        (model,) = self._model
        last = len(model.stages) - 1 if self.distil else self.chosen[-1]
        pooled: dict[int, Any] = {}
        features: Any = x
        for k in range(last + 1):
            features = model.stages[k](features)
            if k in self.chosen:
                pooled[k] = self.pools[self.chosen.index(k)](features)
        out = [pooled[k] for k in self.chosen]
        return [*out, _in_eval(model.heads[-1], features)] if self.distil else out

    def bytes_a_sample(self) -> int:
        """Of what would be kept."""
        (model,) = self._model
        device = next(self.parameters()).device
        with frozen(model):
            inputs = self._compute(pictures_like(torch.zeros((), device=device), model.domain))
        if not all(isinstance(h, Tensor) for h in inputs):  # features at several scales are not kept
            return 1 << 62
        return sum(h.numel() * h.element_size() for h in inputs)

    def keep(self, split: Split) -> None:
        """Run the backbone over all samples once."""
        (model,) = self._model
        device = next(self.parameters()).device
        rows, chunks = [], []
        for places, x in _passes(model.domain, split):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.in_bfloat16 and x.dtype == torch.int64):
                chunks.append([h.float() for h in self._compute(x.to(device))])
            rows.append(places)
        order = torch.cat(rows).argsort().to(device)
        self.kept = [torch.cat(parts)[order] for parts in zip(*chunks, strict=True)]

    def _look_up(self, x: Tensor) -> list[Tensor]:
        places = torch.tensor([1, 1 << 8, 1 << 16, 1 << 24], device=x.device)
        rows = ((x.flatten(1) * 255).round().long() * places).sum(1)
        return [h[rows] for h in self.kept]


def _passes(domain: Domain, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, their inputs) in pieces that fit the caches; texts by length, without padding."""
    if isinstance(domain, TokenDomain):
        for rows, ids in domain.by_length(split.x):
            for start in range(0, len(rows), _CHUNK):
                yield rows[start : start + _CHUNK], ids[start : start + _CHUNK]
    else:
        for start in range(0, len(split), _CHUNK):
            x = split.inputs(start, start + _CHUNK)
            yield torch.arange(start, start + len(x)), x


def _in_eval(head: nn.Module, features: Any) -> Tensor:
    """A head's answer whatever mode it is in: the last one teaches itself only in eval mode."""
    with frozen(head):
        out: Tensor = head(features)
        return out


def _at_first_weight(head: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A head in two: what comes before its first weight, and the rest."""
    if not isinstance(head, nn.Sequential):
        return nn.Identity(), head
    bare = [not any(True for _ in part.parameters()) and not any(True for _ in part.buffers()) for part in head]
    cut = bare.index(False)
    return head[:cut], head[cut:]


def _numbered(split: Split) -> Split:
    """The split with each picture replaced by its row number, in four bytes: `fit` draws rows and mixes pictures."""
    rows = torch.arange(len(split))
    digits = torch.stack([(rows >> shift) & 255 for shift in (0, 8, 16, 24)], 1)
    return replace(split, x=digits.to(torch.uint8).view(-1, 4, 1, 1))
