"""Nets of docs/audits.md, each as a repository of its kind writes it; nothing of adaptbench is known here."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Branchy(nn.Module):
    """Early exits: a dictionary of answers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.branch1 = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 16, 10)
        self.conv2, self.branch2 = nn.Conv2d(8, 24, 3, padding=1), nn.Linear(24 * 4, 10)
        self.fc = nn.Sequential(nn.Linear(24 * 4, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        h = F.max_pool2d(F.relu(self.conv1(x)), 2)
        first = self.branch1(h.flatten(1))
        h = F.max_pool2d(F.relu(self.conv2(h)), 2).flatten(1)
        return {"outputs": [first, self.branch2(h), self.fc(h)]}


def mlp(width: int) -> nn.Sequential:
    """A plain classifier."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


class Skipping(nn.Module):
    """Residual blocks, each behind a gate that reads its features."""

    def __init__(self, depth: int = 3, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.bodies = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, width)) for _ in range(depth)
        )
        self.gates = nn.ModuleList(nn.Linear(width, 1) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, opened = self.stem(x), []
        for body, gate in zip(self.bodies, self.gates, strict=True):
            soft = torch.sigmoid(gate(h))
            hard = (soft > 0.5).float() + soft - soft.detach()
            h = h + hard * body(h)
            opened.append(soft)
        return self.head(h), torch.cat(opened, 1)


class Reading(nn.Module):
    """Token ids, padded with 0: the mean of their embeddings, an early answer and a late one."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.words, self.wide = nn.Embedding(pieces, 16, padding_idx=0), nn.Linear(16, 64)
        self.early, self.late = nn.Linear(16, 2), nn.Linear(64, 2)

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        is_word = (input_ids != 0).float()[..., None]
        h = (self.words(input_ids) * is_word).sum(1) / is_word.sum(1)
        return [self.early(h), self.late(F.relu(self.wide(h)))]


class Waves(nn.Module):
    """Channels over time: three convolutions, a head after each."""

    def __init__(self, channels: int, classes: int, width: int = 12) -> None:
        super().__init__()
        sizes = (channels, width, 2 * width, 4 * width)
        self.convs = nn.ModuleList(nn.Conv1d(sizes[i], sizes[i + 1], 5, stride=2, padding=2) for i in range(3))
        self.heads = nn.ModuleList(nn.Linear(size, classes) for size in sizes[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        answers = []
        for conv, head in zip(self.convs, self.heads, strict=True):
            x = F.relu(conv(x))
            answers.append(head(x.mean(2)))
        return answers


def trained(net: nn.Module, x: Tensor, y: Tensor, epochs: int = 15) -> nn.Module:
    """By every answer that a net gives; gates by what they open, too."""
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            out = net(x[rows])
            answers = out["outputs"] if isinstance(out, dict) else out if isinstance(out, list) else [out]
            answers = [out[0]] if isinstance(out, tuple) else answers
            loss = torch.stack([F.cross_entropy(logits, y[rows]) for logits in answers]).sum()
            if isinstance(out, tuple):
                loss = loss + 0.3 * (out[1].mean() - 0.4).square() * 10
            loss.backward()
            optimiser.step()
    return net.eval()
