"""Rules by which tokens leave between the blocks of a transformer: each token is judged by its own features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from adaptbench.errors import CapabilityError, UsageError

EPSILON = 0.01


class TokenRule(nn.Module):
    """Decides after each block but the last, for each token still there, whether it goes on to the next.

    A margin > 0 keeps the token. What is decided must hang on the token alone, and on what the rule noted of it before:
    who else is left is not known where tokens are gathered.
    """

    name: ClassVar[str] = "token rule"

    def margin(self, block: int, tokens: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Margins after a block, and what is noted for the next.

        Args:
            block: from 0. tokens: (n, k, d), without the class token. state: (n, k) as returned last; None at first.

        Returns:
            (n, k) margins, and (n, k) or None.
        """
        raise CapabilityError(
            f"{type(self).__name__} gives no margin.", todo="Subclasses of TokenRule define margin()."
        )


class CumulativeHalting(TokenRule):
    """A token leaves where its halting scores have added up to 1 − ε: the margin is 1 − ε − Σh, h = σ(score).

    Yin, Vahdat, Alvarez, Mallya, Kautz, Molchanov, "A-ViT: Adaptive Tokens for Efficient Vision Transformer", CVPR
    2022, section 3, after Graves, arXiv 1603.08983. There h is read off the first feature of a token; here any module
    may give it.

    Args:
        scores: one a block but the last, (n, k, d) → (n, k) or (n, k, 1), before the sigmoid.
        epsilon: ε.

    Raises:
        UsageError: an ε outside (0, 1).
    """

    name = "halting scores of tokens"

    def __init__(self, scores: Sequence[nn.Module], epsilon: float = EPSILON) -> None:
        super().__init__()
        if not 0 < epsilon < 1:
            raise UsageError(
                f"ε = {epsilon} is no margin of a halting score.", todo="Give 0 < ε < 1; the paper's is 0.01."
            )
        self.scores, self.epsilon = nn.ModuleList(scores), epsilon

    def margin(self, block: int, tokens: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """1 − ε − Σh, and Σh."""
        score = torch.sigmoid(self.scores[block](tokens).view(tokens.shape[:2]))
        score = score.to(torch.promote_types(score.dtype, torch.float32))
        total = score if state is None else state + score
        return (1 - self.epsilon) - total, total
