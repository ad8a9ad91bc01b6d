"""Transformers whose tokens leave between blocks: who left is taken out of the rows and computed no further."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive.backbone import OnABackbone
from adaptbench.adaptive.cost_tables import CostTables
from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.gates import straight_through
from adaptbench.adaptive.held_tokens import Held, Part, by_count
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Inference, Relaxation, tie_margin
from adaptbench.adaptive.parts import EXECUTOR, NODES, POLICY, Lap, no_lap
from adaptbench.adaptive.reaching import reaches_pictures
from adaptbench.adaptive.splits import Split
from adaptbench.adaptive.token_counting import TokenCosts, count_tokens
from adaptbench.adaptive.token_rules import TokenRule
from adaptbench.adaptive.writes import apart
from adaptbench.errors import CapabilityError, GraphError


class TokenNetwork(OnABackbone):
    """Stem, blocks of a transformer, head; between two blocks a rule says which tokens go on.

    The class token comes first, stays, and is what the head reads. Nodes are a token in a block: `path` says which
    tokens ran where. Rows are gathered: those with as many tokens left go through a block together, none is padded.

    Args:
        stem: (n, C, H, W) → tokens (n, 1 + T, d), the class token first.
        blocks: (n, k, d) → (n, k, d) for any k ≥ 1, order of tokens kept, each row on its own. For the relaxed pass
            they also take `seen`, (n, k, k): the weight, from 0 to 1, with which the token of a row of it looks at that
            of a column; `adaptbench.models.vit.TokenBlock` does.
        head: class token (n, d) → (n, C) logits.
        rule: which tokens go on.
        domain, n_classes: what it takes and gives.

    Raises:
        GraphError: fewer than two blocks or tokens, parts that do not fit, or a block that gives another answer where
            tokens are hidden from it than where they are gone, or whose cost is no square of their number.
    """

    shape = "tokens"
    _costs: CostTables[TokenCosts]

    def __init__(
        self,
        *,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        head: nn.Module,
        rule: TokenRule,
        domain: Domain,
        n_classes: int,
    ) -> None:
        super().__init__()
        if len(blocks) < 2:
            raise GraphError(
                f"a net of {len(blocks)} blocks was given.",
                why="Tokens leave between blocks.",
                todo="Give two blocks or more.",
            )
        self.stem, self.blocks, self.head, self.rule = stem, nn.ModuleList(blocks), head, rule
        self.domain, self.n_classes = domain, n_classes
        self.exit_names = ("head",)
        tokens = self._table.tokens  # parts that do not fit together are refused here
        names = [f"block{b + 1}.token{t + 1}" for b in range(len(blocks)) for t in range(tokens)]
        self.node_names = ("stem", *names, "head")

    @property
    def tokens(self) -> int:
        """T of an input, without the class token."""
        return self._table.tokens

    # ------------------------------------------------------------------ the hard pass

    def _run(self, x: Tensor, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None) -> Inference:
        costs, n = self._counted(x), len(x)
        if force is not None:
            force = self._check_force(force.to(x.device), n)
        passed = self._hard_pass(x, costs, force, no_lap)
        path = torch.zeros(n, len(self.node_names), dtype=torch.bool, device=x.device)
        path[:, [0, -1]] = True
        macs = torch.full((n,), costs.entry, dtype=torch.int64, device=x.device)
        for b, (rows, places) in enumerate(passed.ran):
            there = places > 0
            path[rows[there], b * costs.tokens + places[there]] = True
            macs += costs.of_block(b, x.device)[rows.bincount(minlength=n)]
        tie = passed.nearest <= tie_margin(x.dtype)
        return Inference(passed.logits, macs, torch.zeros(n, dtype=torch.int64, device=x.device), path, tie)

    def serve(self, x: Tensor, *, seeds: Tensor | None = None, lap: Lap = no_lap, full: int | None = None) -> Tensor:
        """The hard pass and nothing beside it."""
        if type(self)._run is not TokenNetwork._run or full is not None:  # a subclass's own pass; or no such mode
            return super().serve(x, seeds=seeds, lap=lap, full=full)
        x = self.taken(x)
        return self._hard_pass(x, self._counted(x), None, lap).logits

    def _hard_pass(self, x: Tensor, costs: TokenCosts, force: Tensor | None, lap: Lap) -> _Passed:
        """Tokens of all rows lie one after another; those of rows with as many left go through a block together."""
        lap(EXECUTOR)
        x = self.entered(x, lap)
        h = self.stem(apart(x) if costs.stem_writes else x)
        n, width = h.shape[:2]
        lap(NODES)
        held = Held(
            h.flatten(0, 1),
            torch.arange(n, device=h.device).repeat_interleave(width),
            torch.arange(width, device=h.device).repeat(n),
            None,
        )
        nearest = torch.full((n,), torch.inf, device=h.device)
        ran: list[tuple[Tensor, Tensor]] = []
        for b in range(len(self.blocks)):
            ran.append((held.rows, held.places))
            last = b + 1 == len(self.blocks)
            parts = []
            for at in by_count(held.rows, n):
                tokens = held.tokens[at]
                lap(EXECUTOR)
                tokens = self.blocks[b](tokens)
                lap(NODES)
                keep = torch.ones(at.shape, dtype=torch.bool, device=h.device)
                noted = None
                if not last and at.shape[1] > 1:
                    state = None if held.state is None else held.state[at][:, 1:]
                    margin, noted = self.rule.margin(b, tokens[:, 1:], state)
                    lap(POLICY)
                    if force is None:
                        keep[:, 1:] = margin > 0
                        whose = held.rows[at[:, 0]]
                        nearest[whose] = nearest[whose].minimum(margin.detach().abs().amin(1).to(nearest))
                    else:
                        keep = force[held.rows[at], 1 + (b + 1) * costs.tokens + held.places[at] - 1] | (
                            held.places[at] == 0
                        )
                parts.append(Part(at, tokens, keep, noted))
            held = held.after(parts)
            lap(EXECUTOR)
        logits = self.head(held.tokens[held.places == 0])
        lap(NODES)
        return _Passed(logits, ran, nearest)

    def _check_force(self, force: Tensor, n: int) -> Tensor:
        if force.ndim == 1:
            force = force.expand(n, -1)
        fits = tuple(force.shape) == (n, len(self.node_names)) and bool(force[:, [0, -1]].all())
        if fits:
            runs = force[:, 1:-1].reshape(n, len(self.blocks), -1)
            fits = bool(runs[:, 0].all()) and not bool((runs[:, 1:] & ~runs[:, :-1]).any())
        if not fits:
            raise CapabilityError(
                f"a forced path of shape {tuple(force.shape)} does not fit a net of {len(self.node_names)} nodes.",
                why="Every token runs in the first block, and one that left does not come back.",
                todo="Give (V,) or (N, V) bool of that kind, stem and head set; model.paths() lists some.",
            )
        return force

    # ------------------------------------------------------------------ the relaxed pass

    def _relax(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        """Hard decisions forward, sigmoid gradients backward (straight-through): features are the hard path's.

        A token that left is computed on, seen by nobody but itself, so that its margins say how near it is to staying.
        `expected_macs` takes one logistic draw a token, added to its margins: it is still there with probability
        σ(least margin so far / temperature), tokens apart; the square of their number is taken in expectation.
        """
        return self._relaxed(x, *self.masked_forward(x, temperature=temperature), temperature)

    def _relax_decisions(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        own = (TokenNetwork._relax, TokenNetwork.masked_forward)
        if (type(self)._relax, type(self).masked_forward) != own:  # a subclass's own pass
            return self._relax(x, temperature=temperature, seeds=seeds)
        return self._relaxed(x, *self.masked_forward(x, temperature=temperature, last=False), temperature)

    def _relaxed(self, x: Tensor, logits: Tensor, margins: Tensor, temperature: float) -> Relaxation:
        costs = self._counted(x)
        there = self.staying(margins, temperature)
        sure = there.new_ones(len(x), 1)
        count = 1 + there.sum(2)
        square = count.square() + (there * (1 - there)).sum(2)
        a, b, c = (there.new_tensor(column) for column in zip(*costs.coefficients, strict=True))
        expected = costs.entry + (a + b * count + c * square).sum(1)
        return Relaxation(expected, margins.flatten(1), logits[:, None], torch.cat([sure, there.flatten(1), sure], 1))

    def staying(self, margins: Tensor, temperature: float) -> Tensor:
        """(n, B, T) chance of each token to run in each block.

        Args:
            margins: (n, B − 1, T). temperature: of the draw.
        """
        margins = margins.to(torch.promote_types(margins.dtype, torch.float32))  # MACs are beyond half's range
        least = margins.cummin(1).values
        return torch.cat([torch.ones_like(least[:, :1]), torch.sigmoid(least / temperature)], 1)

    def masked_forward(self, x: Tensor, *, temperature: float = 1.0, last: bool = True) -> tuple[Tensor, Tensor]:
        """Every token in every block, who left hidden from the others; in the caller's train or eval mode.

        Args:
            last: False stops at the last decision; the logits are zero then.

        Returns:
            logits (n, C) of the hard path, and margins (n, B − 1, T).
        """
        x = self.taken(x)
        costs = self._counted(x)
        x = self.entered(x)
        h = self.stem(apart(x) if costs.stem_writes else x)
        margins: list[Tensor] = []
        state, seen = None, None
        alive = h.new_ones(h.shape[0], h.shape[1] - 1)
        own = torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
        for b, block in enumerate(self.blocks[:-1]):
            h = block(h) if seen is None else block(h, seen)
            margin, state = self.rule.margin(b, h[:, 1:], state)
            margins.append(margin)
            alive = alive * straight_through(margin / temperature).to(h.dtype)
            keys = F.pad(alive, (1, 0), value=1.0)[:, None]
            seen = keys + own * (1 - keys)
        if not last:
            return x.new_zeros(len(x), self.n_classes), torch.stack(margins, 1)
        h = self.blocks[-1](h, seen)
        return self.head(h[:, 0]), torch.stack(margins, 1)

    def _has_gradients(self) -> bool:
        return reaches_pictures(self, lambda x: self.masked_forward(x)[0][:, None])

    # ------------------------------------------------------------------ the reference

    def plain_forward(self, x: Tensor) -> Tensor:
        """(n, C): every token runs through every block, the rule is not asked; the backbone."""
        x = self.taken(x)
        h = self.stem(apart(x) if self._counted(x).stem_writes else x)
        for block in self.blocks:
            h = block(h)
        return self.head(h[:, 0])  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ costs

    def _counted(self, x: Tensor) -> TokenCosts:
        key = (id(self.rule), *x.shape[1:], x.dtype, x.device)
        return self._costs.of(key, self, lambda: count_tokens(self, x[:1].detach()))

    @property
    def _table(self) -> TokenCosts:
        return self._costs.noted(self, lambda: self._counted(self._blank()))

    @property
    def node_macs(self) -> tuple[int, ...]:
        """Stem (with a defence, head, and the class token alone in every block), each token, 0 for the head's column.

        A token counts as the only one beside the class token; what tokens cost in pairs is in `pair_macs`.
        """
        table = self._table
        each = [cost for block in table.blocks for cost in [block[2] - block[1]] * table.tokens]
        return (table.entry + sum(block[1] for block in table.blocks), *each, 0)

    def pair_macs(self, path: Tensor) -> Tensor:
        """(N,) int64 of what is beyond the sum over nodes: attention between the tokens that are left.

        Args:
            path: (N, V) bool.
        """
        table = self._table
        counts = path[:, 1:-1].reshape(len(path), len(self.blocks), -1).sum(2).cpu()
        beyond = [
            torch.tensor([cost - block[1] - j * (block[2] - block[1]) for j, cost in enumerate(block[1:])])[of]
            for block, of in zip(table.blocks, counts.unbind(1), strict=True)
        ]
        return torch.stack(beyond, 1).sum(1)

    def macs_of(self, on: Tensor) -> Tensor:
        """As the hard pass counts them."""
        table = self._table
        on = on.reshape(len(on), len(self.blocks) - 1, -1)
        counts = torch.cat([torch.ones_like(on[:, :1]), on.cummin(1).values], 1).sum(2) + 1
        costs = [table.of_block(b, on.device)[counts[:, b]] for b in range(len(self.blocks))]
        return table.entry + torch.stack(costs, 1).sum(1)

    @property
    def min_macs(self) -> int:
        """All tokens leave after the first block."""
        table = self._table
        return table.entry + table.blocks[0][-1] + sum(block[1] for block in table.blocks[1:])

    @property
    def max_macs(self) -> int:
        """No token leaves, and each is judged after every block but the last."""
        return self._table.entry + sum(block[-1] for block in self._table.blocks)

    @property
    def macs_full(self) -> int:
        """The backbone without rule and without a defence."""
        return self._table.plain

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators without a MAC formula."""
        return self._table.uncounted

    @property
    def policy_name(self) -> str:
        """The kind of rule."""
        return self.rule.name

    def paths(self) -> list[Tensor]:
        """All leave at once, none leaves; all after each block, every second one at once."""
        blocks, tokens = len(self.blocks), self.tokens
        through = torch.arange(blocks)[:, None] <= torch.arange(blocks)
        ways = [row[:, None].expand(blocks, tokens) for row in through.T]  # of the b-th, all leave after block b + 1
        half = ways[0] | (torch.arange(tokens) % 2 == 0)
        sure = torch.ones(1, dtype=torch.bool)
        return [torch.cat([sure, way.flatten(), sure]) for way in (ways[0], ways[-1], *ways[1:-1], half)]

    @property
    def dearest_decisions(self) -> Tensor:
        """(D,) bool: every token stays."""
        return torch.ones((len(self.blocks) - 1) * self.tokens, dtype=torch.bool)

    def log(self, split: Split, *, chunk: int = 1000) -> CalibrationLog:
        """A halting net is trained, not fitted on a log.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "a net whose tokens leave has no exits to log.",
            why="Its rule is in its weights.",
            todo="Train it: `adaptbench train a-vit`.",
        )


class _Passed(NamedTuple):
    """The hard pass.

    Args:
        logits: (n, C). ran: for each block (rows, places) of the tokens in it. nearest: (n,) least distance from a tie.
    """

    logits: Tensor
    ran: list[tuple[Tensor, Tensor]]
    nearest: Tensor
