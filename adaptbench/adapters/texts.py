"""Nets of token ids as people write them: what their vocabulary is, where gradients end, how short a row may be."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor, nn

from adaptbench.adapters.feeding import Feed, embeddings_of
from adaptbench.adapters.whole import Whole
from adaptbench.adaptive import DecisionGraph, TokenDomain
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.tokens import WordEmbedding
from adaptbench.errors import AdaptBenchError, DomainError


def looked_up(module: nn.Module, feed: Feed, ids: Tensor) -> list[tuple[str, nn.Embedding]]:
    """The tables that forward looks the ids up in, in eval mode.

    Raises:
        GraphError: forward fails on ids.
    """
    with frozen(module), torch.no_grad(), runs(f"{type(module).__name__}.forward"):
        return embeddings_of(module, feed, ids)


def token_domain(tables: list[tuple[str, nn.Embedding]], ids: Tensor, pad: int, name: str) -> TokenDomain:
    """Rows like the example's, over the vocabulary of the table that forward looks ids up in; its pieces have no names.

    Args:
        tables: as `looked_up` gives them. ids: (n, L). pad: id of the padding. name: of the module.

    Raises:
        DomainError: there is no such table.
    """
    if not tables:
        raise DomainError(
            f"{name}.forward looks the ids up in no nn.Embedding: the size of its vocabulary is not known.",
            todo=f"Say it: domain=ab.TokenDomain({ids.shape[1]}, vocabulary), the piece of each id.",
        )
    size = min(table.num_embeddings for _, table in tables)
    return TokenDomain(ids.shape[1], tuple(map(str, range(size))), pad)


def padding_of(tables: list[tuple[str, nn.Embedding]]) -> int:
    """The id that a table declares as padding, else 0."""
    return next((t.padding_idx for _, t in tables if t.padding_idx is not None), 0)


def followed_words(module: nn.Module, tables: list[tuple[str, nn.Embedding]]) -> nn.Module:
    """The module with its one table of words in the form that gradients end at; weights are shared, it stays as it is.

    Where there are several tables, or a table of somebody's own kind, the module itself: no gradient reaches its input.
    """
    kinds = [(path, table) for path, table in tables if type(table) is nn.Embedding and table.max_norm is None]
    if len(tables) != 1 or not kinds:
        return module
    path, table = kinds[0]
    words = WordEmbedding(table.num_embeddings, table.embedding_dim, table.padding_idx, device="meta")
    words.weight = table.weight
    words.train(table.training)
    return _with(module, path.split("."), words)


def _with(module: nn.Module, path: list[str], part: nn.Module) -> nn.Module:
    if not path or path == [""]:
        return part
    twin = copy(module)
    inner: nn.Module = module._modules[path[0]]  # type: ignore[assignment]
    twin._modules = {**module._modules, path[0]: _with(inner, path[1:], part)}
    return twin


def token_probes(domain: TokenDomain, n: int, *, short: bool = False) -> Tensor:
    """(n, L) random rows, full and padded by turns; with `short` none of them is longer than half of the columns."""
    ids = domain.drawn(n, torch.Generator().manual_seed(0))
    most = max(1, domain.length // 2) if short else domain.length
    lengths = torch.tensor([max(1, most - (3 * i) % most if i % 2 else most) for i in range(n)])
    return torch.where(torch.arange(domain.length) < lengths[:, None], ids, domain.pad)


def takes_fewer_columns(whole: Whole, net: DecisionGraph, domain: TokenDomain) -> bool:
    """Columns that are padding in every row may be left out, of the module and of the net made of it.

    Positions that are counted from the right, means over the padding, and shapes that forward fixes say no.
    """
    x = token_probes(domain, 3, short=True).to(next(net.parameters(), torch.zeros(())).device)
    cut = domain.trimmed(x)
    if cut.shape[1] == x.shape[1]:
        return False
    try:
        full, own = whole.logits(x), whole.logits(cut)
        if not torch.allclose(full, own, rtol=1e-4, atol=1e-4 * max(1.0, float(full.abs().max()))):
            return False
        whole.compare(net, cut)
    except (AdaptBenchError, RuntimeError, ValueError, IndexError):  # the author's code takes that length only
        return False
    return True
