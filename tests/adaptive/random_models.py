"""Hypothesis strategies: decision graphs and gated nets of every shape that the protocol permits, tiny ones."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from adaptbench.adaptive import Block, DecisionGraph, FeedForwardGates, GatedNetwork, Gates, ImageDomain, Node, Policy

SHAPE = (1, 4, 4)
CLASSES = 3
WIDTH = 5


class Pair(nn.Module):
    """Features as a tuple: a hidden vector and a skip connection for a later exit."""

    def __init__(self, before: nn.Module) -> None:
        super().__init__()
        self.before, self.side = before, nn.Linear(WIDTH, 2)

    def forward(self, h):
        h = self.before(h)
        return h, self.side(h)


class FromPair(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH + 2, outputs)

    def forward(self, pair):
        return self.layer(torch.cat(pair, 1))


class RandomScores(Policy):
    """Affine in the node's own logits, or in all visited; optionally drawn, optionally aggregating."""

    name = "random-scores"

    def __init__(self, seed: int, *, history: bool, chance: bool, committee: bool) -> None:
        super().__init__()
        self.uses_history = history or committee
        self.looks_back, self.draws, self.committee, self.seed = history, chance, committee, seed

    def bind(self, structure) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        size = len(structure.names)
        width = structure.n_classes * (size if self.looks_back else 1)
        self.weights = nn.ParameterList(
            nn.Parameter(4 * torch.randn(width, 1 + len(ways), generator=generator) / width**0.5)
            for ways in structure.successors
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.randn(1 + len(ways), generator=generator) / 4) for ways in structure.successors
        )
        self.votes = nn.Parameter(torch.rand(size, generator=generator) + 0.5)

    def scores(self, node, signals):
        seen = signals.history.softmax(-1) * signals.visited[..., None] if self.looks_back else signals.logits
        out = seen.flatten(1) @ self.weights[node] + self.biases[node]
        if self.draws:
            out = out + 3 * torch.stack([signals.uniform(node * 10 + a) for a in range(out.shape[1])], 1)
        return out

    def predict(self, node, signals):
        if not self.committee:
            return signals.logits
        return torch.einsum("nvc,v->nc", signals.history, self.votes)


def _stage(source: str, kind: str) -> nn.Module:
    """From features of one kind (or the input) to another kind."""
    if kind == "map":
        channels = 1 if source == "input" else 2
        return nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh())
    width = {"input": 16, "vector": WIDTH, "pair": None, "logits": CLASSES, "map": 32}[source]
    first = FromPair(WIDTH) if width is None else nn.Sequential(nn.Flatten(), nn.Linear(width, WIDTH))
    hidden = nn.Sequential(first, nn.Tanh())
    if kind == "pair":
        return Pair(hidden)
    return nn.Sequential(hidden, nn.Linear(WIDTH, CLASSES)) if kind == "logits" else hidden


def _head(kind: str) -> nn.Module | None:
    if kind == "logits":
        return None
    return FromPair(CLASSES) if kind == "pair" else nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES))


@st.composite
def topologies(draw, max_nodes: int = 6):
    """(successors in any order, reads): every node reached, readers dominated by what they read."""
    size = draw(st.sampled_from([1, 2, *[*range(3, max_nodes + 1)] * 3]))
    before = [set()] + [set(draw(st.sets(st.integers(0, v - 1), min_size=1, max_size=3))) for v in range(1, size)]
    certain = [set()]
    reads = [-1]
    for v in range(1, size):
        certain.append(set.intersection(*(certain[u] | {u} for u in before[v])))
        reads.append(draw(st.sampled_from([-1, *sorted(certain[v])])))
    successors = [tuple(draw(st.permutations([w for w in range(v + 1, size) if v in before[w]]))) for v in range(size)]
    return successors, reads


@st.composite
def decision_graphs(draw):
    successors, reads = draw(topologies())
    kinds: list[str] = []
    nodes = []
    torch.manual_seed(draw(st.integers(0, 2**16)))
    for v, source in enumerate(reads):
        from_kind = "input" if source < 0 else kinds[source]
        options = ["vector", "pair", "logits"] + (["map"] if from_kind in ("input", "map") else [])
        kinds.append(draw(st.sampled_from(options)))
        nodes.append(
            Node(
                f"n{v}",
                _stage(from_kind, kinds[v]),
                _head(kinds[v]),
                reads="input" if source < 0 else f"n{source}",
                to=tuple(f"n{w}" for w in successors[v]),
            )
        )
    policy = RandomScores(
        draw(st.integers(0, 2**16)),
        history=draw(st.booleans()),
        chance=draw(st.booleans()),
        committee=draw(st.booleans()),
    )
    net = DecisionGraph(nodes, domain=ImageDomain(SHAPE), n_classes=CLASSES, policy=policy)
    net.dense_logits(torch.rand(4, *SHAPE))  # lazy heads take their sizes, batch norms some statistics
    return net


class RecurrentGates(Gates):
    """SkipNet's recurrent kind: one cell for all blocks, its state travels with the sample."""

    name = "recurrent gates"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.cell, self.out = nn.LazyLinear(4), nn.GRUCell(4, 4), nn.Linear(4, 1)

    def start(self, x):
        return x.new_zeros(len(x), 4)

    def margin(self, block, features, state):
        state = self.cell(self.squeeze(features.mean((2, 3))), state)
        return 4 * self.out(state).squeeze(1), state


class PlanGates(Gates):
    """BlockDrop's kind: one look at the image decides for all blocks."""

    name = "plan"
    plans = True

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, blocks))

    def start(self, x):
        return 4 * self.look(x)

    def margin(self, block, features, state):
        return state[:, block], state


@st.composite
def gated_networks(draw):
    torch.manual_seed(draw(st.integers(0, 2**16)))
    depth = draw(st.integers(1, 4))
    width, blocks, gates = 2, [], []
    for b in range(depth):
        wider = draw(st.booleans())
        out = width + 1 if wider else width
        always = draw(st.integers(0, 3)) == 0
        blocks.append(
            Block(
                f"b{b}",
                nn.Sequential(nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.Tanh()),
                shortcut=nn.Conv2d(width, out, 1) if wider else None,
                after=draw(st.sampled_from([None, nn.Tanh()])),
                gated=not always,
            )
        )
        gates.append(nn.Identity() if always else nn.Sequential(nn.Flatten(), nn.Linear(width * 16, 1, bias=False)))
        width = out
    kind = draw(st.sampled_from(["feed-forward", "recurrent", "plan"]))
    made = {
        "feed-forward": lambda: FeedForwardGates(gates),
        "recurrent": lambda: RecurrentGates(width),
        "plan": lambda: PlanGates(depth),
    }[kind]()
    if kind == "recurrent":  # one cell sees every width: keep it
        made.squeeze = nn.Identity()
        made.cell = _Padded(nn.GRUCell(8, 4))
    return GatedNetwork(
        stem=nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh()),
        blocks=blocks,
        head=nn.Sequential(nn.Flatten(), nn.Linear(width * 16, CLASSES)),
        gates=made,
        domain=ImageDomain(SHAPE),
        n_classes=CLASSES,
    )


class _Padded(nn.Module):
    """Channel means of any width up to 8, filled with zeros."""

    def __init__(self, cell: nn.GRUCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, means, state):
        return self.cell(nn.functional.pad(means, (0, 8 - means.shape[1])), state)
