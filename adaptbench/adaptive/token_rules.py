"""Rules by which tokens leave between the blocks of a transformer: by what each has spent, or by a draw among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.errors import CapabilityError, UsageError

EPSILON = 0.01


class TokenRule(nn.Module):
    """Decides after each block but the last, for each token still there, whether it goes on to the next.

    A margin > 0 keeps the token. It may hang on the token, on what the rule noted of it before, and on its row's tokens
    that are left. In the relaxed pass those that left still stand among them: what is read off the others must be
    nothing for a token that nobody sees; `InverseTransformSampling` reads such a figure.
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


class InverseTransformSampling(TokenRule):
    """Fixed quantiles of the distribution of significance over a row's tokens; who is hit by none of them leaves.

    Fayyaz et al., "Adaptive Token Sampling for Efficient Vision Transformers", ECCV 2022. With F the cumulative
    significance of the tokens left, in the order of their places and over their sum, the points are F = (i − ½)/n for
    i = 1 … n. In units of their distance, n·F − ½, a token holds a point where one lies from its lower end on and below
    its upper one: the margin is upper − ⌈lower⌉. At most n tokens stay, and the more even their significance, the more.
    There are no weights. The margin's gradient is that of upper − lower (straight-through): were the points shifted at
    random, a token would hold one with probability min(1, upper − lower). Its own slope says where the borders lie,
    not what would keep the token, and hides the way from attacks.

    A token's significance stands in its last feature, put there by the block before; it is 0 where nobody sees it.

    Args:
        samples: n; with n < T not all of T tokens can stay.

    Raises:
        UsageError: fewer than one.
    """

    name = "sampling of tokens"

    def __init__(self, samples: int) -> None:
        super().__init__()
        if samples < 1:
            raise UsageError(f"{samples} samples keep no token.", todo="Give as many as there are tokens, or fewer.")
        self.samples = samples

    def margin(self, block: int, tokens: Tensor, state: Tensor | None) -> tuple[Tensor, None]:
        """Distances between points by which each token reaches over one."""
        significance = tokens[..., -1].double()  # sums of many: a point must fall to one token in every pass
        summed = significance.cumsum(1)
        upper = summed * (self.samples / summed[:, -1:]) - 0.5
        lower = F.pad(upper[:, :-1], (1, 0), value=-0.5)
        width = upper - lower
        margin = (upper - lower.ceil()).detach() + width - width.detach()
        return margin.to(torch.promote_types(tokens.dtype, torch.float32)), None
