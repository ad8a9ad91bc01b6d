"""What an edited text costs as it is served, told by a pass without the padding that costs most of it."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, TokenDomain


class WordPrices:
    """Executed MACs and logits of rows of ids, padding paid for.

    A text's way and answer do not hang on its padding; what it pays hangs on its way and the number of columns. So rows
    run without the columns that are padding in all of them, and their ways are priced at full length.

    Args:
        model: of text. Rows run as they come where it takes no shorter ones, or draws by their content.
    """

    def __init__(self, model: AdaptiveModel) -> None:
        self.model = model
        domain, policy = model.domain, getattr(model, "policy", None)
        trims = isinstance(domain, TokenDomain) and domain.trims and policy is not None and not policy.draws
        self._graph = model if trims and isinstance(model, DecisionGraph) else None

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) int64 MACs and (n, C) logits. x: (n, L) ids."""
        if self._graph is None or x.shape[1] < self._graph.domain.shape[0]:
            inference = self.model.infer(x)
            return inference.macs, inference.logits
        domain = self._graph.domain
        assert isinstance(domain, TokenDomain)
        inference = self._graph.infer(domain.trimmed(x))
        visit = torch.tensor([self._graph.node_macs, self._graph.policy_macs], device=x.device).sum(0)
        answer = torch.tensor(self._graph.predict_macs, device=x.device)
        return (inference.path * visit).sum(1) + answer[inference.exit], inference.logits
