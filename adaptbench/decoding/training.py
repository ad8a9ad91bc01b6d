"""Training of the character model: every exit at once, on the training texts as one stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.splits import Role, Split
from adaptbench.data.base import DataSet
from adaptbench.decoding.characters import END, encode
from adaptbench.decoding.network import SMALL, CharacterLm, Size
from adaptbench.errors import DomainError, UsageError
from adaptbench.zoo import checkpoints
from adaptbench.zoo.trainer import halved
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.progress import EpochRecord

NAME = "character-lm"
PIECE = 8
"""A row is so many contexts long, one window of it is seen an epoch, drawn anew: an epoch is an eighth of a pass."""
PHASE = Phase(
    21,
    2e-3,
    8,
    weight_decay=0.1,
    ema=0.995,
    schedule="constant",
    optimiser="adamw",
    precision="bfloat16",
    clip_norm=1.0,
)
_JUDGED, _JUDGED_AT_LAST = 24, 400  # windows
LOSS = "Σ over exits of k / Σk times the cross-entropy of exit k (CALM, Schuster et al. 2022, eq. 6)"


def texts_of(data: DataSet, role: Role) -> list[str]:
    """The texts of a split.

    Raises:
        DomainError: it is no data set of texts.
    """
    texts = getattr(data, "texts", None)
    if callable(texts):
        return list(texts(role))
    raise DomainError(
        f"characters were asked of '{data.name}', which holds no texts.",
        todo="Name a data set of texts: ag-news, sst2.",
    )


def stream_rows(texts: list[str], context: int, name: str, role: Role) -> Split:
    """The texts end to end, an end before each, in rows that overlap by a context: every window is in one."""
    step = PIECE * context
    ids = torch.tensor([i for text in texts for i in (END, *encode(text))])
    rows = ids.unfold(0, step + context + 1, step).contiguous()
    n = len(rows)
    return Split(f"{name}-characters", role, rows, torch.zeros(n, dtype=torch.int64), torch.arange(n), ("text",))


def all_exits(net: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    """The loss of a batch of rows, in nats a character; see `LOSS`."""
    assert isinstance(net, CharacterLm)
    context = net.size.context
    starts = torch.randint(x.shape[1] - context, (len(x), 1), device=x.device)
    window = x.gather(1, starts + torch.arange(context + 1, device=x.device))
    logits = net(window[:, :-1]).float()
    of_exits = F.cross_entropy(
        logits.flatten(0, 2), window[:, None, 1:].expand(-1, logits.shape[1], -1).flatten(), reduction="none"
    )
    weights = torch.arange(1, logits.shape[1] + 1, dtype=torch.float32, device=x.device)
    means = of_exits.view(logits.shape[:3]).mean((0, 2))
    return (means * weights).sum() / weights.sum()


@torch.no_grad()
def bits_per_character(net: CharacterLm, texts: list[str], limit: int) -> list[float]:
    """Of each exit on whole rows of a stream of texts, everything run; bits.

    Args:
        limit: windows that are looked at, at most: the first of each row.
    """
    rows = stream_rows(texts, net.size.context, "held-out", "calibration").x[:limit, : net.size.context + 1]
    rows = rows.to(net.entry.weight.device)
    total = torch.zeros(net.size.layers, dtype=torch.float64)
    for part in torch.split(rows, 16):
        logits = net(part[:, :-1])
        for k in range(net.size.layers):
            total[k] += F.cross_entropy(logits[:, k].flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    bits = total / (len(rows) * net.size.context) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    return [round(float(b), 4) for b in bits]


def train(
    data: DataSet,
    out: Path,
    *,
    phase: Phase = PHASE,
    size: Size = SMALL,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[str, EpochRecord], None] | None = None,
) -> list[Path]:
    """Train the model on a data set's training texts and write it with its card.

    Args:
        data: of texts. out: zoo folder; progress is kept in ``out/DATA/progress`` and gone on from.
        phase, size, seed: other than the recipe's. device: where it is trained. on_epoch: told of each epoch.

    Returns:
        The files written; test texts are used once, for the card.

    Raises:
        DomainError: it holds no texts. UsageError: too few texts for a batch.
        CheckpointError: progress that lies there is of another training.
    """
    texts = texts_of(data, "train")
    if sum(map(len, texts)) < (PIECE + 1) * size.context + 1:
        raise UsageError(f"the texts of '{data.name}' are shorter than one row.", todo="Name a larger data set.")
    split = stream_rows(texts, size.context, data.name, "train")
    place = out / data.name / f"{NAME}{checkpoints.SUFFIX}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = CharacterLm(size)
    net.to(device)
    held_out = texts_of(data, "calibration")
    done = fit(
        net,
        split,
        phase,
        all_exits,
        seed=seed,
        checkpoint=out / data.name / "progress" / f"{NAME}.progress.safetensors",
        on_epoch=None if on_epoch is None else lambda record: on_epoch(NAME, record),
        evaluate=lambda net: _named(bits_per_character(net, held_out, _JUDGED)),  # type: ignore[arg-type]
        about={"part": NAME, "loss": LOSS, **asdict(size)},
    )
    net.to("cpu")
    tensors = halved(net.state_dict())
    checkpoints.load_into(net, tensors)
    card: dict[str, Any] = {
        "part": NAME,
        "data": data.name,
        "train_sha256": split.sha256,
        "characters": int(sum(map(len, texts))),
        "recipe": "short",
        "settings": {"phase": asdict(phase), "loss": LOSS, "size": asdict(size)},
        "seed": seed,
        "parameters": sum(p.numel() for p in net.parameters()),
        "stored": "float16 weights; biases and norms float32",
        "torch": str(torch.__version__),
        "command": f"adaptbench train {NAME} --data {data.name}",
        "bits_per_character_calibration": bits_per_character(net, held_out, _JUDGED_AT_LAST),
        "bits_per_character_test": bits_per_character(net, texts_of(data, "test"), _JUDGED_AT_LAST),
        "history": [
            {"epoch": r.epoch, "loss": round(r.loss, 5), **{k: round(v, 5) for k, v in r.metrics.items()}}
            for r in done.history
        ],
    }
    checkpoints.save(place, tensors, card)
    return [place, checkpoints.card_path(place)]


def _named(bits: list[float]) -> dict[str, float]:
    return {f"bits_calibration_{k + 1}": b for k, b in enumerate(bits)}
