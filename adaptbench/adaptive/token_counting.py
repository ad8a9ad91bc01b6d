"""MACs of a net whose tokens leave, for every number of tokens, from a few that are counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.fronts import count_front
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.writes import Lent
from adaptbench.errors import GraphError

if TYPE_CHECKING:
    from adaptbench.adaptive.token_network import TokenNetwork

_ALIKE = 1e-3


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """Of one sample.

    Args:
        tokens: T, without the class token.
        entry: MACs of what stands in front, stem and head.
        blocks: of each block with the rule behind it, T + 2 figures: with k tokens, the class token among them; none
            has 0.
        coefficients: of each block, (a, b, c): it costs a + b·k + c·k².
        plain: everything run, no rule asked, nothing in front.
        stem_writes: the stem works in place on what it is given and must be given a copy.
        uncounted: operators without a formula.
    """

    tokens: int
    entry: int
    blocks: tuple[tuple[int, ...], ...]
    coefficients: tuple[tuple[float, float, float], ...]
    plain: int
    stem_writes: bool
    uncounted: tuple[str, ...]

    def of_block(self, block: int, device: torch.device) -> Tensor:
        """(T + 2,) int64, by the number of tokens."""
        return torch.tensor(self.blocks[block], device=device)


@torch.no_grad()
def count_tokens(net: TokenNetwork, x: Tensor) -> TokenCosts:
    """Run the net on one picture, each block and the rule on a few numbers of tokens.

    Args:
        x: (1, C, H, W); it is not written into.

    Raises:
        GraphError: a part cannot be run, the rule works in place on what the next block reads, a block answers
            otherwise where tokens are hidden than where they are gone, or its cost is no square of their number.
    """
    counter = MacCounter()

    def cost(what: str, call: Any, given: Any, *more: Any) -> tuple[Any, int, Lent]:
        before, lent = counter.macs, Lent(given)
        with runs(what), counter:
            out = call(lent.value, *more)
        return out, counter.macs - before, lent

    with frozen(net):
        x, front = count_front(net, x, counter)
        h, stem, lent = cost("the stem", net.stem, x)
        if not isinstance(h, Tensor) or h.ndim != 3 or len(h) != 1 or h.shape[1] < 3:
            seen = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
            raise GraphError(
                f"the stem returned {seen} for one picture, not tokens (1, 1 + T, d) with T ≥ 2.",
                todo="Let it end with the class token and the tokens of the picture's patches.",
            )
        tokens = h.shape[1] - 1
        state: Tensor | None = None
        blocks, coefficients, plain = [], [], 0
        for b, block in enumerate(net.blocks):
            what = f"block {b + 1}"
            given = h
            body = {k: cost(what, block, given[:, :k])[1] for k in _looked_at(tokens + 1)}
            h, full, _ = cost(what, block, given)
            own, alone = _square(what, body, tokens + 1)
            _check_block(what, block, given, h)
            plain += full
            judged = {0: 0}
            if b + 1 < len(net.blocks):
                known = state
                for k in _looked_at(tokens):
                    noted = None if known is None else known[:, :k]
                    judge = partial(_margin, net, b, noted)
                    out, judged[k], shown = cost(f"the rule after {what}", judge, h[:, 1 : k + 1])
                    _check_rule(what, out, shown, k)
                    state = out[1]
            rule, asked = _square(f"the rule after {what}", judged, tokens)
            blocks.append((0, *(alone[k] + asked[k - 1] for k in range(1, tokens + 2))))
            coefficients.append(_sum_of(own, rule))
        logits, head, _ = cost("the head", net.head, h[:, 0])
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, net.n_classes):
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GraphError(
            f"the head returned {seen} for one class token, not logits (1, {net.n_classes}).",
            todo="End it with a linear layer over the classes.",
        )
    return TokenCosts(
        tokens,
        front + stem + head,
        tuple(blocks),
        tuple(coefficients),
        stem + plain + head,
        lent.is_written,
        tuple(sorted(counter.uncounted)),
    )


def _looked_at(most: int) -> list[int]:
    """Three fix a square, the others say whether it is one."""
    return sorted({1, 2, min(3, most), (most + 1) // 2, most})


def _square(what: str, counted: dict[int, int], most: int) -> tuple[tuple[float, float, float], tuple[int, ...]]:
    """(a, b, c) of a + b·k + c·k², and its values for 0 … most."""
    if max(counted) == 0:
        return (0.0, 0.0, 0.0), (0,) * (most + 1)
    first, second, *more = sorted(counted)
    step = counted[second] - counted[first]
    bent = counted[more[0]] - counted[second] - step if more and more[0] == second + 1 else 0
    slope = 2 * step - (first + second) * bent
    doubled = 2 * counted[first] - slope * first - bent * first * first, slope, bent
    values = [(doubled[0] + doubled[1] * k + doubled[2] * k * k) // 2 for k in range(most + 1)]
    if odd := [k for k, macs in counted.items() if values[k] != macs]:
        others = ", ".join(f"{macs} with {k}" for k, macs in counted.items() if k not in odd)
        raise GraphError(
            f"{what} costs {counted[odd[0]]} MACs with {odd[0]} tokens, which does not follow from {others}.",
            why="The expected cost of a number of tokens that is not sure takes a + b·k + c·k².",
            todo="Judge tokens one by one; layers and full attention cost that, attention in windows does not.",
        )
    return (doubled[0] / 2, doubled[1] / 2, doubled[2] / 2), tuple(values)


def _sum_of(own: tuple[float, float, float], rule: tuple[float, float, float]) -> tuple[float, float, float]:
    """Of a block with k tokens and a rule that judges k − 1 of them."""
    return (own[0] - rule[1] + rule[2], own[1] + rule[1] - 2 * rule[2], own[2] + rule[2])


def _margin(net: TokenNetwork, block: int, state: Tensor | None, tokens: Tensor) -> Any:
    return net.rule.margin(block, tokens, state)


def _check_rule(what: str, out: Any, shown: Lent, k: int) -> None:
    margin, state = out if isinstance(out, tuple) and len(out) == 2 else (out, None)
    for name, value in (("margins", margin), ("a state", state)):
        if name == "a state" and value is None:
            continue
        if not isinstance(value, Tensor) or tuple(value.shape) != (1, k):
            seen = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise GraphError(
                f"the rule after {what} gave {name} {seen} for {k} tokens of one picture.",
                todo="Return (margins (n, k), state (n, k) or None).",
            )
    if shown.is_written:
        raise GraphError(
            f"the rule after {what} works in place on features that the next block reads.",
            why="What a token is would hang on whether it was judged.",
            todo="Give its first layer inplace=False.",
        )


def _check_block(what: str, block: Any, given: Tensor, out: Any) -> None:
    """Shape kept; hidden tokens are as good as gone."""
    if not isinstance(out, Tensor) or out.shape != given.shape:
        seen = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise GraphError(f"{what} gave {seen} for tokens {tuple(given.shape)}.", todo="A block keeps the shape.")
    size = given.shape[1]
    there = torch.arange(size, device=given.device) % 2 == 0
    with runs(f"{what}, given `seen`,"):
        shown = there.to(given.dtype).expand(1, size, size).clone()
        shown[:, range(size), range(size)] = 1
        hidden = block(given.clone(), shown)[:, there]
        gone = block(given[:, there])
    gap = float((hidden - gone).abs().amax())
    if not gap <= _ALIKE * max(1.0, float(gone.abs().amax())) * (1 if given.dtype == torch.float32 else 30):
        raise GraphError(
            f"{what} answers otherwise, by {gap:.3g}, where tokens are hidden from it than where they are gone.",
            why="Gradients would be those of another net than the one that is deployed.",
            todo="Multiply the attention's weights by `seen` and divide by their sum; use no other mixing of tokens.",
        )
